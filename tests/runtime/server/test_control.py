"""What clients may set, switch and stop, and what they are told of the run."""

import io

import pytest
from PIL import Image

from flowrun.runtime.server import control

# -- settings and the pipeline ---------------------------------------------------------------------


def test_settings_go_to_every_task_with_the_key(run, http):
    reply = http.post("/api/v0/inference/settings", json={"prompt": "Is there any human?"})
    assert (reply.status_code, reply.json()) == (200, {"success": True})
    reply = http.post("/api/v0/inference/settings", json={"task": "vlm", "max_new_tokens": 9})
    assert (reply.status_code, reply.json()) == (200, {"success": True})
    assert run.set == [("vlm", {"prompt": "Is there any human?"}), ("vlm", {"max_new_tokens": 9})]


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (
            422,
            '{"promt": "x"}',
            "unknown key 'promt'; keys that may be set: prompt, max_new_tokens (did you mean 'prompt'?)",
        ),
        (
            422,
            '{"prompt": "x", "a": 1, "b": 2}',
            "unknown key 'a', 'b'; keys that may be set: prompt, max_new_tokens",
        ),
        (
            422,
            '{"task": "cam0", "prompt": "x"}',
            "unknown task 'cam0'; tasks with keys that may be set: vlm",
        ),
        (
            422,
            '{"task": ["vlm"], "prompt": "x"}',
            "task: must be a text; got a list",
        ),
        (
            422,
            '{"prompt": 7}',
            "vlm.prompt: must be a text; got 7",
        ),
        (422, "{}", "nothing to set; keys that may be set: prompt, max_new_tokens"),
        (422, "[1]", "the body must be a JSON object, got a list"),
        (
            400,
            '{"prompt": ',
            "the body is not JSON: EOF while parsing a value at line 1 column 11",
        ),
        (400, "", "the body is not JSON: EOF while parsing a value at line 1 column 0"),
        (413, '"' + 300_000 * "x" + '"', "the body is larger than 262144 bytes"),
    ],
)
def test_a_bad_setting_is_refused_whole(quiet, quiet_http, status, body, error):
    reply = quiet_http.post("/api/v0/inference/settings", content=body)
    assert (reply.status_code, reply.json()) == (status, {"error": error})
    assert quiet[0].set == []


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b'{"prompt": ' + b"[" * 900 + b"]" * 900 + b"}",
        b"\xff\xfe\x00",
        b'{"prompt": "\xff"}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": NaN}',
        b'{"prompt": -Infinity}',
        b'{"prompt": 1e999}',
        b'{"prompt": %s}' % (b"9" * 5000),
        b'{"prompt": "a", "prompt": "b"}',
        b'\xef\xbb\xbf{"prompt": "a"}',
        '{"prompt": "a"}'.encode("utf-16"),
        b"prompt=a",
    ],
)
def test_a_body_of_rubbish_is_400(quiet_http, body):
    reply = quiet_http.post("/api/v0/inference/settings", content=body)
    assert reply.status_code == 400
    assert reply.json()["error"].startswith("the body is not JSON: ")


def test_settings_of_an_ended_run_are_503(run, http):
    run.end()
    reply = http.post("/api/v0/inference/settings", json={"prompt": "x"})
    assert (reply.status_code, reply.json()) == (
        503,
        {"error": "Failed to send inference settings: the run of 'inference' has ended"},
    )


def test_pipeline_list_tells_the_state(run, http):
    assert http.get("/api/v0/pipeline/list").json() == [{"id": "inference", "status": "Running"}]
    run.end({"Error": "task 'vlm' failed"})
    assert http.get("/api/v0/pipeline/list").json() == [
        {"id": "inference", "status": {"Error": "task 'vlm' failed"}}
    ]


@pytest.mark.parametrize("key", ["pipeline_id", "name"])
def test_pipeline_stop_ends_the_run(run, http, key):
    reply = http.post("/api/v0/pipeline/stop", json={key: "inference"})
    assert (reply.status_code, reply.json()) == (200, {"message": "Pipeline inference stopped"})
    assert run.state() == "Stopped"


@pytest.mark.parametrize(
    "body",
    [{"name": "other"}, {}, {"name": ["inference"]}, {"pipeline_id": "inference", "name": "x"}],
)
def test_pipeline_stop_of_another_is_400(run, http, body):
    reply = http.post("/api/v0/pipeline/stop", json=body)
    assert (reply.status_code, reply.json()) == (400, {"error": "Pipeline not found"})
    assert run.state() == "Running"


def test_pipeline_stop_returns_even_when_a_task_is_stuck(run, http, monkeypatch):
    assert control._STOP_S < 5
    monkeypatch.setattr(control, "_STOP_S", 0.1)
    run.stop_is_stuck = True
    reply = http.post("/api/v0/pipeline/stop", json={"name": "inference"})
    assert (reply.status_code, reply.json()) == (
        202,
        {"message": "Pipeline inference is stopping: a task has not returned yet"},
    )


@pytest.mark.parametrize(
    ("verb", "state", "done"),
    [
        ("pause", "paused", "paused"),
        ("mute", "muted", "muted"),
        ("resume", "running", "resumed"),
    ],
)
def test_a_source_or_all_sources_are_switched(run, http, verb, state, done):
    for body, what in [
        ({"source": "cam0"}, "Source cam0"),
        ({"pipeline_id": "inference"}, "Pipeline inference"),
        ({"name": "inference", "source": "cam0"}, "Source cam0"),
    ]:
        reply = http.post(f"/api/v0/pipeline/{verb}", json=body)
        assert (reply.status_code, reply.json()) == (
            200,
            {"message": f"{what} {done}", "sources": {"cam0": state}},
        )
    assert run.switched == [("cam0", state)] * 3
    assert http.get("/api/v0/report").json()["tasks"]["cam0"]["state"] == state


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"source": "cam1"}, 404, "unknown source 'cam1'; sources: cam0"),
        ({"source": "vlm"}, 404, "unknown source 'vlm'; sources: cam0"),
        ({"source": ["cam0"]}, 404, "unknown source a list; sources: cam0"),
        ({"source": None}, 404, "unknown source nothing; sources: cam0"),
        ({"pipeline_id": "other", "source": "cam0"}, 400, "Pipeline not found"),
        ({}, 422, "nothing to switch; give a source, or the pipeline_id for all of them"),
        ({"task": "cam0"}, 422, "unknown key 'task'; keys: source, pipeline_id, name"),
    ],
)
def test_what_cannot_be_switched_is_an_error_and_changes_nothing(run, http, body, status, error):
    reply = http.post("/api/v0/pipeline/pause", json=body)
    assert (reply.status_code, reply.json()) == (status, {"error": error})
    assert run.switched == []


def test_sources_that_have_ended_cannot_be_switched(run, http):
    run.playback = "ended"
    reply = http.post("/api/v0/pipeline/pause", json={"name": "inference"})
    assert (reply.status_code, reply.json()) == (409, {"error": "every source has ended"})
    run.refuses_switches = True
    reply = http.post("/api/v0/pipeline/pause", json={"source": "cam0"})
    assert (reply.status_code, reply.json()) == (
        409,
        {"error": "source 'cam0' has ended; nothing more comes from it"},
    )
    run.end()
    reply = http.post("/api/v0/pipeline/resume", json={"source": "cam0"})
    assert (reply.status_code, reply.json()) == (
        503,
        {"error": "the run of 'inference' has ended"},
    )


def test_config_is_the_graph_as_json(run, http):
    graph = http.get("/api/v0/pipeline/config?pipeline_id=inference").json()
    assert [task["id"] for task in graph["tasks"]] == list(run.task_types)
    assert graph["limit"] == "inf"  # which JSON has not
    reply = http.get("/api/v0/pipeline/config?pipeline_id=other")
    assert (reply.status_code, reply.json()) == (
        404,
        {"error": "Pipeline not found: 'other'; the pipeline is 'inference'"},
    )


def test_report_is_that_of_the_run_with_its_state(run, http):
    run.cycle()
    report = http.get("/api/v0/report").json()
    assert (report["id"], report["status"], report["cycles"]) == ("inference", "Running", 1)
    assert report["tasks"]["vlm"]["p50_us"] == 81_400.0


# -- recording -------------------------------------------------------------------------------------


def test_recording_is_stopped_and_begun(run, http):
    for command, on in (("Stop", False), ("Stop", False), ("Start", True)):
        reply = http.post("/api/v0/recording/command", json={"command": command})
        assert (reply.status_code, reply.json()) == (200, {"success": True})
        assert run.recording is on


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("{}", "command: expected Start or Stop, got nothing"),
        ('{"command": "stop"}', "command: expected Start or Stop, got 'stop'"),
        ('{"command": "Stop", "x": 1}', "unknown key 'x'; keys: command"),
    ],
)
def test_another_command_is_refused(run, http, body, error):
    reply = http.post("/api/v0/recording/command", content=body)
    assert (reply.status_code, reply.json()) == (422, {"error": error})
    assert run.recording


def test_why_recording_cannot_be_switched_is_said(run, http):
    run.refuses_switches = True
    reply = http.post("/api/v0/recording/command", json={"command": "Stop"})
    assert (reply.status_code, reply.json()) == (
        409,
        {"error": "Failed to send recording: the run keeps no log"},
    )
    run.end()
    reply = http.post("/api/v0/recording/command", json={"command": "Stop"})
    assert (reply.status_code, reply.json()) == (
        503,
        {"error": "Failed to send recording: the run of 'inference' has ended"},
    )


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"pipeline_id": "inference"}, "Pipeline already exists"),
        ({"name": "inference"}, "Pipeline already exists"),
        ({"pipeline_id": "cameras"}, "Pipeline not supported. Try 'inference'"),
        ({}, "Pipeline not supported. Try 'inference'"),
    ],
)
def test_the_pipeline_of_a_run_cannot_be_started_again(http, body, error):
    reply = http.post("/api/v0/pipeline/start", json=body)
    assert (reply.status_code, reply.json()) == (400, {"error": error})


def test_a_run_that_has_ended_says_who_starts_pipelines(run, http):
    run.end()
    reply = http.post("/api/v0/pipeline/start", json={"pipeline_id": "inference"})
    assert (reply.status_code, reply.json()) == (
        400,
        {"error": "Pipeline inference has ended; start it with 'flowrun serve', or run it again"},
    )


def picture(*size, kind="PNG", **options):
    file = io.BytesIO()
    Image.new("RGB", size, (10, 20, 30)).save(file, kind, **options)
    return file.getvalue()


DAMAGED = picture(64, 64)[:80]


def test_a_message_is_published(run, http):
    reply = http.post("/api/v0/publish/cam0.number?tov_ns=7", json={"value": 3})
    assert (reply.status_code, reply.json()) == (200, {"message": "published on cam0.number"})
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn to the right
    for content in (picture(4, 2), picture(2, 4, kind="JPEG", exif=turned)):
        reply = http.post(
            "/api/v0/publish/cam0.image", content=content, headers={"Content-Type": "image/x"}
        )
        assert reply.status_code == 422  # the run of these tests has no such field
    assert [it.shape for it in run.pictures] == [(2, 4, 3), (2, 4, 3)]
    assert run.pictures[0][0, 0].tolist() == [10, 20, 30]
    assert run.published == [("cam0.number", {"value": 3}, 7)]


@pytest.mark.parametrize(
    ("status", "port", "kind", "body", "error"),
    [
        (404, "x", "", "{}", "unknown port 'x'; ports to publish on: cam0.image, cam0.number"),
        (422, "cam0.number", "", '{"valu": 3}', "IntMsg has no field 'valu'; fields: value"),
        (422, "cam0.number", "", "3", "the body must be a JSON object, got 3"),
        (400, "cam0.number", "", "{", "the body is not JSON: EOF while parsing an object at line 1 "
         "column 1"),
        (422, "cam0.number?tov_ns=-1", "", "{}", "tov_ns: Input should be greater than or equal to 0, "
         "got '-1'"),
        (422, "cam0.image", "image/png", "{}", "not a picture file that is known: JPEG, PNG, WebP, BMP, "
         "TIFF or GIF"),
        (422, "cam0.image", "image/png", DAMAGED, "the picture file is damaged: "),
        (422, "cam0.image", "image/png", picture(4000, 2501), "the picture has 4000 x 2501 pixels; at "
         "most 10,000,000"),
        (413, "cam0.number", "", " " * (5 << 20), "the body is larger than 4194304 bytes"),
    ],
)  # fmt: skip
def test_what_is_no_message_is_refused(quiet, quiet_http, status, port, kind, body, error):
    reply = quiet_http.post(
        f"/api/v0/publish/{port}", content=body, headers={"Content-Type": kind} if kind else {}
    )
    assert (reply.status_code, reply.json()["error"][: len(error)]) == (status, error)
    assert quiet[0].published == []


def test_a_run_that_is_held_up_or_has_ended_takes_no_message(run, http):
    run.is_stuck = True
    reply = http.post("/api/v0/publish/cam0.number", json={})
    assert reply.status_code == 409
    assert reply.json() == {"error": "too many messages wait for a cycle: a task holds it up"}
    run.end()
    reply = http.post("/api/v0/publish/cam0.number", json={})
    assert reply.status_code == 503
