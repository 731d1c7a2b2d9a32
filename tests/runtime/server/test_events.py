"""The stream of everything that happens, and what tasks have found."""

import json
import threading

import httpx
import numpy as np
import pytest

from flowrun.msgs.alert import AlertMsg
from flowrun.msgs.detections import DetectionsMsg
from flowrun.msgs.regions import LinesMsg, ZonesMsg
from flowrun.runtime import events
from flowrun.runtime.run import observed
from flowrun.runtime.run.log_lines import configure_logs
from flowrun.runtime.run.observed import Alerted, Counted, Detected, Happened
from support import helpers


def found(cycle=3):
    message = DetectionsMsg(
        boxes=np.array([[10, 20, 50, 40], [0, 0, 4, 2]], np.float32),
        scores=np.array([0.5, np.nan], np.float32),
        labels=["cat", "dog"],
        class_ids=np.array([7, -1], np.int32),
        tracker_ids=np.array([2, -1], np.int64),
        width=640,
        height=360,
        frame_id=0,
        frame_cycle=cycle,
        latency_ms=1.0,
    )
    message.publish(tov_ns=99)
    return message


FOUND = {
    "task": "eye",
    "timestamp_nanos": 99,
    "cycle": 3,
    "width": 640,
    "height": 360,
    "detections": [
        {
            "x": 30.0, "y": 30.0, "width": 40.0, "height": 20.0, "confidence": 0.5,
            "class": "cat", "class_id": 7, "tracker_id": 2,
        },
        {
            "x": 2.0, "y": 1.0, "width": 4.0, "height": 2.0, "confidence": None,
            "class": "dog", "class_id": -1, "tracker_id": None,
        },
    ],
}  # fmt: skip


@pytest.fixture
def run(new_run):
    run = new_run()
    run.observed.detecting = ["eye"]
    return run


@pytest.fixture
def http(run, new_server):
    with httpx.Client(
        base_url=new_server(run).url, trust_env=False, timeout=240, verify=False
    ) as client:
        yield client


def stream(reply):
    """(name, data) of each event."""
    name = None
    for line in reply.iter_lines():
        key, _, value = line.partition(": ")
        if key == "event":
            name = value
        elif key == "data":
            yield name, json.loads(value)


def wanted(events_, names):
    """Those of these names, in their order, `statistics` and what is of the start left out."""
    return ((name, data) for name, data in events_ if name in names)


def until(condition):
    while not condition():
        threading.Event().wait(0.005)


def test_what_happens_is_in_the_stream(run, http):
    with http.stream("GET", "/api/v0/events") as reply:
        names = (
            "error dropped set source switched restart replaced injected detections alert log ended"
        )
        coming = wanted(stream(reply), set(names.split()))
        until(lambda: run.observed.happened.watched)
        for event in (
            events.Failed("vlm", "skip", "ValueError: no", "process", "tasks.py:3"),
            events.Restarted("vlm"),
            events.Dropped("cam0", 4, "too old"),
            events.Set("vlm", {"prompt": "cap en"}),
            events.SourceState("cam0", "lost", "timeout"),
            events.EndOfSource("cam0"),
            events.Switched("cam0", "paused"),
            events.Replaced("vlm", 5),
        ):
            run.observed.happened.offer(Happened(8, event, 2))
        run.observed.note(8, [events.Injected("cam0", "number", b"1234")])
        assert run.observed.happened.after(8)[1][0].event.data == b""  # 1,024 of them are kept
        assert [next(coming) for _ in range(9)] == [
            ("error", {
                "task": "vlm", "cycle": 8, "policy": "skip", "phase": "process",
                "text": "ValueError: no", "place": "tasks.py:3", "count": 2,
                "event_type": "INFERENCE_ERROR",
            }),
            ("restart", {"task": "vlm", "cycle": 8}),
            ("dropped", {
                "task": "cam0", "cycle": 8, "cause": "too old", "count": 4,
                "event_type": "FRAME_DROPPED",
            }),
            ("set", {"task": "vlm", "cycle": 8, "values": {"prompt": "cap en"}}),
            ("source", {
                "task": "cam0", "cycle": 8, "state": "lost", "code": "timeout",
                "event_type": "SOURCE_CONNECTION_LOST",
            }),
            ("source", {
                "task": "cam0", "cycle": 8, "state": "ended", "code": "",
                "event_type": "VIDEO_CONSUMPTION_FINISHED",
            }),
            ("switched", {
                "task": "cam0", "cycle": 8, "playback": "paused",
                "event_type": "SOURCE_STATE_UPDATE",
            }),
            ("replaced", {"task": "vlm", "cycle": 8, "input_cycle": 5}),
            ("injected", {"task": "cam0", "cycle": 8, "port": "number", "bytes": 4}),
        ]  # fmt: skip
        run.observed.detected.offer(Detected("eye", found(), "left_detections"))
        assert next(coming) == ("detections", {**FOUND, "port": "left_detections"})
        alert = AlertMsg(text="it burns", severity="critical", frame_cycle=6)
        alert.publish(tov_ns=7)
        run.observed.alerts.offer(Alerted("watch", alert))
        assert next(coming) == (
            "alert",
            {
                "task": "watch",
                "timestamp_nanos": 7,
                "cycle": 6,
                "text": "it burns",
                "severity": "critical",
            },
        )
        run.observed.note_line(5, "warning", "it rains", "cam0", {"for_s": float("inf")})
        assert next(coming) == (
            "log",
            {
                "timestamp_nanos": 5,
                "level": "warning",
                "task": "cam0",
                "message": "it rains",
                "fields": {"for_s": "inf"},
            },
        )
        run.end()
        assert next(coming)[0] == "ended"


def test_what_is_counted_in_zones_and_on_lines_is_in_the_stream(run, http):
    zones = ZonesMsg(
        names=["door"], polygons=[[[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]]], counts=[2],
        labels=[{"cat": 2}], inside=[[3, 5]], inside_s=[[1.0, 0.0]], entered=[[5]], left=[[]],
        totals=[7], width=640, height=360, frame_cycle=3,
    )  # fmt: skip
    lines = LinesMsg(
        names=["gate"], lines=[[0.0, 1.0, 2.0, 3.0]], ins=[4], outs=[1], in_labels=[{"cat": 4}],
        out_labels=[{"cat": 1}], went_in=[[3]], went_out=[[]], width=640, height=360, frame_cycle=3,
    )  # fmt: skip
    frame = {"timestamp_nanos": 99, "cycle": 3, "width": 640, "height": 360}
    with http.stream("GET", "/api/v0/events") as reply:
        coming = wanted(stream(reply), {"regions"})
        until(lambda: run.observed.counted.watched)
        for task, message in (("z", zones), ("l", lines)):
            message.publish(tov_ns=99)
            run.observed.counted.offer(Counted(task, message))
        assert next(coming)[1] == {
            "task": "z", **frame, "lines": [],
            "zones": [{
                "name": "door", "polygon": [[0, 0], [4, 0], [0, 4]], "count": 2,
                "labels": {"cat": 2}, "inside": [3, 5], "total": 7,
            }],
        }  # fmt: skip
        assert next(coming)[1] == {
            "task": "l", **frame, "zones": [],
            "lines": [{"name": "gate", "line": [0, 1, 2, 3], "in": 4, "out": 1}],
        }  # fmt: skip


def test_the_counts_of_a_real_run_are_noted(tmp_path):
    tasks = (
        "c=Camera(limit: 3); f=Find; z=Zones("
        "zones: [{name: all, polygon: [[0, 0], [1, 0], [1, 1], [0, 1]]}], unit: pixels)"
    )
    plan = helpers.plan_of(tmp_path, tasks, "c > f: ImageRgb8Msg; f > z: DetectionsMsg")
    run = helpers.Run(plan, clock=helpers.ManualClock(1, step_ns=1000), directory=None)
    seen = run.observe()
    assert run.run().error is None
    assert [(it.task, it.message.names) for it in seen.counted.after(0)[1]] == [("z", ["all"])] * 3
    assert seen.counted.closed


def test_who_is_too_slow_is_sent_how_much_it_has_lost(run, http):
    total = 60_000
    with http.stream("GET", "/api/v0/events") as reply:
        until(lambda: run.observed.lines.watched)
        for number in range(total):
            run.observed.note_line(number, "info", "x" * 200, "cam0", {})
        got = lost = 0
        for name, data in stream(reply):
            got += name == "log"
            lost += data["count"] if name == "lost" else 0
            if got + lost == total:
                break
    assert lost > 0
    assert got >= observed._MOST_LINES


def test_detections_are_given_as_boxes_with_a_centre(run, http):
    run.observed.detected.offer(Detected("eye", found()))
    for path in ("detections", "detections/eye"):
        reply = http.get(f"/api/v0/inference/{path}?latest=1")
        assert (reply.status_code, reply.json()) == (200, {"Success": FOUND})


def test_the_next_detections_are_waited_for(run, http):
    replies = []
    asker = threading.Thread(
        target=lambda: replies.append(http.get("/api/v0/inference/detections/eye"))
    )
    asker.start()
    until(lambda: run.observed.detected.watched)
    run.observed.detected.offer(Detected("other", found(1)))
    run.observed.detected.offer(Detected("eye", found()))
    asker.join()
    assert replies[0].json() == {"Success": FOUND}


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("detections/cam0", 404, "task 'cam0' finds no objects; tasks that do: eye"),
        (
            "detections?timeout_s=0",
            503,
            "no new detections within 0 s; wait longer with ?timeout_s= (60 at most), or see "
            "/api/v0/report",
        ),
    ],
)
def test_why_there_are_no_detections_is_said(http, path, status, text):
    reply = http.get(f"/api/v0/inference/{path}")
    assert (reply.status_code, reply.json()) == (status, {"Error": {"error": text}})


def test_a_graph_that_finds_no_objects_says_so(run, http):
    run.observed.detecting = []
    reply = http.get("/api/v0/inference/detections")
    assert reply.status_code == 503
    assert reply.json() == {"Error": {"error": "no task of graph 'inference' finds objects"}}


def test_the_settings_in_force_are_those_that_were_set_last(http):
    assert http.post("/api/v0/inference/settings", json={"prompt": "Is it raining?"}).is_success
    expected = {"vlm": {"prompt": "Is it raining?", "max_new_tokens": 50}}
    assert http.get("/api/v0/inference/settings").json() == expected
    assert http.get("/api/v0/report").json()["settings"] == expected


def test_a_real_runs_events_and_counts_are_noted(tmp_path):
    plan = helpers.plan_of(
        tmp_path, "n=Numbers(limit: 6); f=Boom(at: 2)@on_error: skip", "n>f:IntMsg"
    )
    run = helpers.Run(plan, clock=helpers.ManualClock(1, step_ns=1000), directory=tmp_path / "run")
    seen = run.observe()
    result = run.run()
    assert result.error is None
    assert sum(seen.durations) == result.cycles
    assert seen.errors == {"f": 1}
    assert [
        (it.cycle, it.event.task, it.errors)
        for it in seen.happened.after(0)[1]
        if isinstance(it.event, events.Failed)
    ] == [(2, "f", 1)]
    assert seen.happened.closed


def test_what_background_tasks_find_and_answer_is_whole(tmp_path):
    plan = helpers.plan_of(
        tmp_path,
        "c=Camera(limit: 4); f=Find!; a=Answer!",
        "c>f:ImageRgb8Msg; c>a:ImageRgb8Msg",
    )
    run = helpers.Run(plan, clock=helpers.ManualClock(1, step_ns=1000), directory=None)
    seen = run.observe()
    assert run.run().error is None
    found = [it.message for it in seen.detected.after(0)[1]]
    assert found
    assert [len(it.labels) for it in found] == [it.boxes.shape[0] for it in found]
    assert max(it.count for it in found) > 0
    assert seen.replies["a"].count > 0


@pytest.mark.parametrize(
    ("state", "code", "name"),
    [
        ("connecting", "", "SOURCE_STATE_UPDATE"),
        ("connecting", "timeout", "SOURCE_CONNECTION_ATTEMPT_FAILED"),
        ("lost", "ended", "SOURCE_CONNECTION_LOST"),
        ("running", "", "SOURCE_STATE_UPDATE"),
        ("error", "auth", "SOURCE_STATE_UPDATE"),
    ],
)
def test_states_of_sources_have_the_names_of_inference_pipeline(run, http, state, code, name):
    with http.stream("GET", "/api/v0/events") as reply:
        coming = wanted(stream(reply), {"source"})
        until(lambda: run.observed.happened.watched)
        run.observed.happened.offer(Happened(3, events.SourceState("cam0", state, code), 0))
        assert next(coming)[1]["event_type"] == name


def test_a_stream_that_cannot_go_on_is_cut_off(run, http, monkeypatch, capfd):
    """A page whose stream says nothing more would show an old state as that of now."""
    configure_logs(now_ns=lambda: 0)  # structlog's own way to show an exception takes 10 s here
    monkeypatch.setattr("flowrun.runtime.server.events._happened", lambda _: 1 / 0)
    with http.stream("GET", "/api/v0/events") as reply:
        until(lambda: run.observed.happened.watched)
        run.observed.happened.offer(Happened(8, events.Restarted("vlm")))
        with pytest.raises(httpx.RemoteProtocolError):
            list(reply.iter_lines())
    assert "ZeroDivisionError" in "".join(capfd.readouterr())
    monkeypatch.undo()
    with http.stream("GET", "/api/v0/events") as reply:
        assert next(stream(reply))[0] == "statistics"
