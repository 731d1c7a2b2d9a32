"""One recorded run: its summary, moments and lanes, against reading the whole log."""

import io
import re
import shutil
from contextlib import closing
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from flowrun.runtime.errors import LogNotFound
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import MESSAGE_HEAD
from flowrun.runtime.pictures.stored import StoredPicture
from flowrun.runtime.pictures.video import PacketDecoder
from flowrun.runtime.recorded.places import Places
from flowrun.runtime.recorded.run import RecordedRun
from support.answer_tasks import answered, ran
from support.films import KEY_EVERY
from support.helpers import START_NS, plan_of, run_hooked


@pytest.fixture(scope="module")
def recorded(run):
    made = RecordedRun("x", run)
    yield made
    made.close()


@pytest.fixture(scope="module")
def log(run):
    with Log(run) as opened:
        yield opened


def at(recorded, cycle):
    return recorded.moment(cycle=cycle, at_ns=None, url="u")


def places_of(log):
    places = Places(log)
    places.update()
    return places


def last(log, topic, cycle):
    return [it for it in log.messages(topic) if it.cycle <= cycle][-1:]


def test_a_moment_is_what_the_log_holds_up_to_it(recorded, log):
    cycles = [record.cycle for record in log.cycles()]
    for cycle in cycles:
        moment = at(recorded, cycle)
        assert moment["cycle"] == cycle
        for message in last(log, "/says/answer", cycle):
            answer = moment["answers"]["says"]
            assert (answer["cycle"], answer["response"]) == (
                message.cycle,
                message.fields["response"],
            )
            frame = answer["frame_cycle"]
            assert answer["frame"] == {
                "task": "cam",
                "cycle": frame,
                "url": f"u/image/cam?cycle={frame}",
            }
        for message in last(log, "/finds/out", cycle):
            left = float(message.fields["boxes"][0, 0])
            assert moment["detections"]["finds"]["objects"] == [
                {
                    "x": left,
                    "y": 2.0,
                    "width": 10.0,
                    "height": 20.0,
                    "confidence": 0.5,
                    "class": "ball",
                    "class_id": 7,
                    "tracker_id": None,
                }
            ]
        for message in last(log, "/cam/image", cycle):
            assert moment["images"]["cam"] == {
                "cycle": message.cycle,
                "at_ns": message.tov_ns,
                "url": f"u/image/cam?cycle={message.cycle}",
                "width": 128,
                "height": 96,
                "pixels": [128, 96],
                "packets": {
                    "key": message.cycle - message.cycle % KEY_EVERY,
                    "number": message.cycle,
                },
                "damaged": False,
            }
        later = cycles[cycles.index(cycle) + 1 :]
        before = cycles[: cycles.index(cycle)]
        assert moment["next"] == (later[0] if later else None)
        assert moment["previous"] == (before[-1] if before else None)
        assert moment["missing"] == []
        assert {"says", "finds"} <= moment["steps_ms"].keys()


def test_settings_and_errors_are_those_of_the_moment(recorded, log):
    [set_in] = [m.cycle for m in log.messages("/flowrun/control") if m.fields["kind"] == "set"]
    [failed] = [m.cycle for m in log.messages("/flowrun/control") if m.fields["kind"] == "error"]
    prompts = [at(recorded, cycle)["settings"]["says"]["prompt"] for cycle in range(24)]
    assert prompts == ["first"] * set_in + ["second"] * (24 - set_in)
    for cycle in range(24):
        moment = at(recorded, cycle)
        texts = [error["text"] for error in moment["errors"]]
        assert texts == (["ValueError: picture 13"] if cycle == failed else [])
        assert moment["error_counts"] == ({"says": 1} if cycle >= failed else {})


def test_a_sources_state_at_a_moment_is_what_people_saw(tmp_path):
    def switch(run, number):
        if number in (2, 4, 6):
            [run.pause, run.mute, run.resume][number // 2 - 1]("b")

    plan = plan_of(tmp_path, "a=Hooked(limit: 12); b=Numbers(limit: 6)")
    run_hooked(plan, tmp_path / "run", switch)
    with closing(RecordedRun("x", tmp_path / "run")) as recorded:
        states = [at(recorded, cycle)["sources"].get("b", {}).get("state") for cycle in range(12)]
    assert states[:7] == [None] * 3 + ["paused"] * 2 + ["muted"] * 2
    assert [state for state, _ in groupby(states[7:])] == ["running", "ended"]


def test_a_time_means_the_cycle_at_or_before_it(recorded, log):
    times = [record.time_ns for record in log.cycles()]
    for moment_ns in sorted({it + by for it in times for by in (0, -1, 1)})[1:-1]:
        cycle = max(number for number, it in enumerate(times) if it <= moment_ns)
        assert recorded.moment(cycle=None, at_ns=moment_ns, url="")["cycle"] == cycle
    first, end = times[0], times[-1]
    for outside in (first - 1, end + 1):
        with pytest.raises(LogNotFound) as error:
            recorded.moment(cycle=None, at_ns=outside, url="")
        assert str(error.value) == (
            f"time {outside} is not in the log, which holds the times from {first} to {end}"
        )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 23), st.integers(0, 23), st.integers(1, 60))
def test_lanes_count_each_event_once(recorded, log, one, other, bins):
    first, end = sorted((one, other))
    found = recorded.lanes(first=first, last=end, bins=bins)
    by = {(lane["kind"], lane["task"]): lane["counts"] for lane in found["lanes"]}
    inside = [m for m in log.messages() if first <= m.cycle <= end]
    controls = [m.fields["kind"] for m in inside if m.topic == "/flowrun/control"]
    assert sum(by["answers", "says"]) == sum(m.topic == "/says/answer" for m in inside)
    assert sum(by["errors", "says"]) == controls.count("error")
    assert sum(by["settings", "says"]) == controls.count("set")
    assert sum(by["keyframes", ""]) == sum(m.topic == "/flowrun/keyframe" for m in inside)
    assert sum(found["frames"]) == end - first + 1
    edges = found["cycles"]
    assert (edges[0], edges[-1], len(edges)) == (first, end + 1, bins + 1)
    assert edges == sorted(edges)
    assert np.diff(edges).tolist() == found["frames"]


def test_keys_are_the_key_frames_before_the_parts(recorded, log):
    begins = [m.cycle for m in log.messages("/cam/image") if StoredPicture.parse(m.payload).decoder]
    found = recorded.lanes(first=3, last=20, bins=18, keys=True)
    parts = found["cycles"][:-1]
    assert found["keys"] == [max(it for it in begins if it <= cycle) for cycle in parts]
    assert len(set(found["keys"])) == 3


def test_a_picture_is_the_last_one_at_or_before_the_cycle(recorded, log):
    frames = {it.cycle: it.pixels for it in log.frames("/cam/image")}
    for cycle in (23, 3, 4, 17, 16, 9):
        jpeg, found = recorded.jpeg("cam", cycle, width=None)
        assert found == max(it for it in frames if it <= cycle)
        shown = np.asarray(Image.open(io.BytesIO(jpeg)))
        differs = {it: np.abs(shown.astype(int) - frames[it]).mean() for it in frames}
        assert min(differs, key=differs.get) == found
    small = Image.open(io.BytesIO(recorded.jpeg("cam", 5, width=64)[0]))
    assert small.size == (64, 48)
    with pytest.raises(LogNotFound) as error:
        recorded.jpeg("came", 5, width=None)
    assert str(error.value) == (
        "no pictures of 'came' in the log; tasks with pictures: cam (did you mean 'cam'?)"
    )


@pytest.mark.parametrize("step", [1, 3, 7])
def test_pictures_are_the_same_whichever_way_somebody_comes(run, step):
    forth, back = RecordedRun("x", run), RecordedRun("y", run)
    cycles = range(0, 24, step)
    shown = {cycle: forth.jpeg("cam", cycle, width=None) for cycle in cycles}
    assert {cycle: back.jpeg("cam", cycle, width=None) for cycle in reversed(cycles)} == shown


def test_pictures_on_the_way_to_one_are_there_at_once(run, monkeypatch):
    """Who jumps about within a section has each of its packets decoded once."""
    fed = []
    decode = PacketDecoder.decode

    def noted(self, number, *args, **options):
        fed.append(number)
        return decode(self, number, *args, **options)

    monkeypatch.setattr(PacketDecoder, "decode", noted)
    begins, forth = RecordedRun("x", run), RecordedRun("y", run)
    jumps = (14, 9, 12, 10, 13, 11)
    shown = {cycle: begins.jpeg("cam", cycle, width=None) for cycle in jumps}
    # The key frame is decoded alone, too, when somebody who goes back may soon ask for it.
    assert set(range(8, 15)) <= set(fed)
    assert [number for number in fed if fed.count(number) > 1] == [8, 8]
    assert {cycle: forth.jpeg("cam", cycle, width=None) for cycle in sorted(jumps)} == shown


def test_a_summary_says_how_the_run_ended(recorded, run):
    assert recorded.summary() == {
        "id": "x",
        "graph": "answers",
        "part": None,
        "started_ns": START_NS,
        "ended_ns": recorded.summary()["ended_ns"],
        "state": "ended",
        "cycles": len(Log(run)),
        "why": "end of sources",
    }
    details = recorded.details()
    assert details["images"] == ["cam"]
    assert [task["id"] for task in details["tasks"]] == ["cam", "says", "finds"]


def test_a_run_that_was_cut_off_shows_what_it_holds(run, tmp_path):
    path = tmp_path / "cut" / "log_0000.mcap"
    path.parent.mkdir()
    data = (run / "log_0000.mcap").read_bytes()
    path.write_bytes(data[: len(data) // 2])
    made = RecordedRun("x", path.parent)
    summary = made.summary()
    assert summary["state"] == "cut off"
    assert summary["why"].startswith("its writer did not finish it; ")
    end = summary["cycles"] - 1
    assert 3 < end < 20
    moment = at(made, end)
    assert moment["answers"]["says"]["response"].endswith(str(end // 3 * 3))
    assert made.jpeg("cam", end, width=None)[1] == end
    with pytest.raises(LogNotFound) as error:
        at(made, end + 1)
    assert str(error.value) == (f"cycle {end + 1} is not in the log, which holds cycles 0 to {end}")


def test_a_damaged_cycle_is_named_and_what_was_before_is_shown(run, tmp_path):
    """The moment of a cycle with a flipped byte has what came before it."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    path = copy / "log_0000.mcap"
    data = bytearray(path.read_bytes())
    with Log(path) as log:
        answers = [m.cycle for m in log.messages("/says/answer")]
        [at_byte] = [
            data.find(bytes(m.payload))
            for m in log.messages("/says/answer")
            if m.cycle == answers[3]
        ]
    data[at_byte + 5] ^= 1
    path.write_bytes(data)
    made = RecordedRun("x", copy)
    moment = at(made, answers[3])
    assert moment["answers"]["says"]["cycle"] == answers[2]
    [text] = moment["missing"]
    # The file by its name, without its folder: that is on the server's machine.
    assert re.fullmatch(
        rf"a part of the log is damaged \(log_0000\.mcap: byte \d+: cycle {answers[3]} has CRC "
        r"0x[0-9a-f]{8}; expected 0x[0-9a-f]{8}\)",
        text,
    )
    assert at(made, answers[4])["answers"]["says"]["cycle"] == answers[4]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_wherever_a_message_is_damaged_the_other_cycles_are_shown(run, data):
    whole = bytearray((run / "log_0000.mcap").read_bytes())
    with Log(run) as log:
        answers = [m.cycle for m in log.messages("/says/answer")]
        of_topic = places_of(log).of(data.draw(st.sampled_from(sorted(log.topics))))
        assume(len(of_topic))
        place = of_topic.place(data.draw(st.integers(0, len(of_topic) - 1)))
        size = len(places_of(log).payload_at(place))
    at_byte = place.offset + MESSAGE_HEAD.size + data.draw(st.integers(0, size - 1))
    whole[at_byte] ^= 1 << data.draw(st.integers(0, 7))
    with TemporaryDirectory() as folder:
        (Path(folder) / "log_0000.mcap").write_bytes(whole)
        with closing(RecordedRun("x", Path(folder))) as made:
            found = made.lanes(first=None, last=None, bins=50, keys=True)
            # No more than the damaged cycle is missing.
            assert (found["first_cycle"], found["last_cycle"]) == (0, 24)
            moments = {cycle: at(made, cycle) for cycle in range(25)}
            assert [it["next"] for it in moments.values()] == [*range(1, 25), None]
            assert (
                sum(moments[cycle]["answers"]["says"]["cycle"] == cycle for cycle in answers[1:])
                >= len(answers) - 2
            )
            [text] = {text for it in [found, *moments.values()] for text in it["missing"]}
            assert text.startswith("a part of the log is damaged (log_0000.mcap: byte ")


def test_a_log_that_is_cut_off_is_shown_up_to_there_and_says_so(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    path = copy / "log_0000.mcap"
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"second: 21")])
    made = RecordedRun("x", copy)
    summary = made.summary()
    assert summary["state"] == "cut off"
    damage = (
        r"a part of the log is damaged \(log_0000\.mcap: byte \d+: truncated record: expected .*\)"
    )
    assert re.fullmatch(f"its writer did not finish it; {damage}", summary["why"])
    lanes = made.lanes(first=None, last=None, bins=3)
    [text] = lanes["missing"]
    assert re.fullmatch(damage, text)
    assert 8 < lanes["last_cycle"] < 21
    moment = at(made, lanes["last_cycle"])
    assert (moment["next"], moment["answers"]["says"]["prompt"]) == (None, "second")


def test_a_flight_recorder_says_what_it_no_longer_holds(tmp_path):
    """What was set before its log begins is in a keyframe of it."""
    film = {"moves": False, "size": (320, 240), "qp": "4", "preset": "ultrafast"}
    made = RecordedRun("x", answered(tmp_path, logging="mode: ring, keep_slabs: 2", film=film))
    first = made.details()["first_cycle"]
    assert first > 9
    gone = f"cycles 0 to {first - 1}: it keeps the last 2 files"
    assert made.lanes(first=None, last=None, bins=3)["missing"] == [gone]
    moment = at(made, 23)
    assert moment["settings"]["says"]["prompt"] == "second"
    assert moment["answers"]["says"]["response"] == "second: 21"
    with pytest.raises(LogNotFound) as error:
        at(made, first - 1)
    assert str(error.value) == (
        f"cycle {first - 1} is not in the log, which holds cycles {first} to 24"
    )


def test_a_file_that_is_no_log_is_listed_as_unreadable(tmp_path):
    (tmp_path / "log_0000.mcap").write_bytes(b"nothing")
    summary = RecordedRun("x", tmp_path).summary()
    assert summary["state"] == "unreadable"
    assert summary["why"] == (  # its folder is on the server's machine
        f"{tmp_path.name}/log_0000.mcap: byte 0: not an MCAP file: it begins with b'nothing'"
    )


def test_a_clip_holds_the_cycles_and_replays(recorded, run, tmp_path):
    from flowrun.runtime.replay.replay import Replay  # loads the engine

    for first, end in ((0, 23), (9, 12), (14, 14), (20, 23)):
        path = tmp_path / f"{first}.mcap"
        begin, last_cycle = recorded.clip(first, end, path)
        assert begin <= first
        assert last_cycle == end
        with Log(run) as whole, Log(path) as clip:
            kept = [(c.cycle, c.time_ns, [bytes(e[2]) for e in c.entries]) for c in clip]
            assert kept == [
                (c.cycle, c.time_ns, [bytes(e[2]) for e in c.entries])
                for c in whole.cycles(begin, end + 1)
            ]
            assert (clip.loss, clip.finished) == (None, True)
            report = Replay(clip).run(start=first, to=end)
        assert report.first is None
        assert report.cycles == end - first + 1
        assert report.compared


def test_lines_are_those_of_the_log_up_to_the_cycle(recorded, log):
    everything = [
        (m.cycle, m.fields["name"], m.fields["message"]) for m in log.messages("/flowrun/log")
    ]
    assert any(task == "says" for _, task, _ in everything)
    for cycle in (0, 13, 24):
        found = recorded.lines(cycle, level="debug", task=None, most=100)
        expected = [it for it in everything if it[0] <= cycle]
        shown = [(it["cycle"], it["task"], it["message"]) for it in reversed(found["lines"])]
        assert (shown, found["more"]) == (expected, False)
    [failed] = recorded.lines(None, level="warning", task="says", most=1)["lines"]
    assert (failed["level"], failed["fields"]["error"]) == ("error", "ValueError: picture 13")
    assert recorded.lines(12, level="warning", task="says", most=1)["lines"] == []
    assert recorded.lines(None, level="debug", task=None, most=1)["more"]


def test_rates_and_drops_are_those_before_the_moment(recorded, log):
    for cycle in (0, 12, 24):
        times = [record.time_ns for record in log.cycles(0, cycle + 1)]
        passed_s = (times[-1] - times[0]) / 1e9
        said = [m for m in log.messages("/says/answer") if m.cycle <= cycle]
        rates = at(recorded, cycle)["rates_hz"]
        if passed_s:
            assert rates["says"] == pytest.approx(len(said) / passed_s, abs=0.01)
            assert rates.keys() == {"cam", "says", "finds"}
        else:
            assert rates == {}
        assert at(recorded, cycle)["dropped"] == {}


def test_objects_are_counted_up_to_the_moment(recorded):
    assert recorded.seen(0) == {"finds": {"ball": 1}}
    assert recorded.seen(9) == {"finds": {"ball": 10}}
    assert recorded.seen(None) == {"finds": {"ball": 24}}


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 23), st.integers(0, 23), st.integers(1, 30))
def test_latencies_are_medians_of_the_step_tables(recorded, log, one, other, bins):
    first, last = sorted((one, other))
    found = recorded.latencies(first=first, last=last, bins=bins)
    lanes = recorded.lanes(first=first, last=last, bins=bins)
    counts = [
        round(rate * (end - begin) / 1e9)
        for rate, begin, end in zip(
            found["rate_hz"], found["at_ns"], [*found["at_ns"][1:], lanes["to_ns"] + 1], strict=True
        )
    ]
    if last > first:
        assert counts == lanes["frames"]
    for part, begin in enumerate(lanes["cycles"][:-1]):
        inside = [
            at(recorded, it)["steps_ms"]["says"] for it in range(begin, lanes["cycles"][part + 1])
        ]
        median = found["steps_ms"]["says"][part]
        assert (median is None) == (not inside)
        if 0 < len(inside) <= 8:
            assert median == pytest.approx(np.median(inside), abs=1e-3)


def test_each_answer_of_a_task_with_several_is_about_its_own_camera(tmp_path):
    text = """\
tasks:
  - {id: left, type: support.pictures.Camera, config: {limit: 2}}
  - {id: right, type: support.pictures.Camera, config: {limit: 2}}
  - {id: see, type: support.answer_tasks.SaysOfEach, config: {inputs: [left, right]}}
cnx:
  - {src: left, dst: see.left, msg: ImageRgb8Msg}
  - {src: right, dst: see.right, msg: ImageRgb8Msg}
"""
    recorded = RecordedRun("x", ran(text, tmp_path))
    answers = at(recorded, 1)["answers"]
    assert {name: it["frame"]["task"] for name, it in answers.items()} == {
        "see.left_answer": "left",
        "see.right_answer": "right",
    }
    assert [lane["task"] for lane in recorded.lanes(first=None, last=None, bins=1)["lanes"]] == [
        "see.left_answer",
        "see.right_answer",
        "",
    ]
    recorded.close()
