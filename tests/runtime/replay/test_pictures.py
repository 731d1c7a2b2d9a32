"""Replays of pictures, and what they write of their own."""

from __future__ import annotations

import numpy as np
import pytest

from flowrun.runtime.errors import TaskError
from flowrun.runtime.export.foxglove import export_foxglove
from flowrun.runtime.export.mp4 import export_mp4
from flowrun.runtime.export.selection import Selection
from flowrun.runtime.log.check import check_log
from flowrun.runtime.log.reader import Log
from flowrun.runtime.pictures import video
from flowrun.runtime.pictures.stored import PictureEncoder
from flowrun.runtime.replay.recorder import ReplayLog
from flowrun.runtime.replay.replay import Replay
from support import damaged, helpers
from support.films import FILMS, codecs, draw, pictures, recorded
from support.pictures import pictures_run


@pytest.mark.parametrize(
    "name", ["plain.mp4", "b_frames.mp4", "open_gop.mp4", "h265.mp4", "vp9.webm"]
)
@pytest.mark.parametrize("start", [None, 5, 13])
def test_a_replay_writes_the_recorded_packets_again(tmp_path, name, start):
    film = draw(tmp_path / name, **FILMS[name])
    recorded(tmp_path, film, "")
    with Log(tmp_path / "run") as log:
        replay = Replay(log, env={})
        with ReplayLog(replay, tmp_path / "new", config={}, now_ns=1) as recorder:
            replay.run(start=start, recorder=recorder)
        with Log(tmp_path / "new") as new:
            expected = pictures(log, "/b/image")[start or 0 :]
            found = pictures(new, "/a/image")
            assert len(found) == len(expected) > 10
            assert all(map(np.array_equal, found, expected))
            assert set(codecs(new, "/a/image")) == {"packets"}
            assert new.loss is None


@pytest.mark.parametrize("start", [None, 9])
@pytest.mark.parametrize("repeats", [True, False])
def test_a_replay_of_a_damaged_film_writes_its_pictures_as_they_were(
    tmp_path, monkeypatch, start, repeats
):
    """As packets alone; of a decoder that may make other pictures of damaged ones, as pixels too."""
    if not repeats:
        monkeypatch.setattr(video, "REPEATED", frozenset())
    rng = np.random.default_rng(5)
    film = tmp_path / "damaged.mkv"
    source = damaged.original(tmp_path, "h264_b.mkv")
    damaged.remux(source, film, lambda chunks: damaged.spoil(chunks, rng))
    recorded(tmp_path, film, "")
    with Log(tmp_path / "run") as log:
        replay = Replay(log, env={})
        with ReplayLog(replay, tmp_path / "new", config={}, now_ns=1) as recorder:
            replay.run(start=start, recorder=recorder)
        with Log(tmp_path / "new") as new:
            expected = pictures(log, "/b/image")[start or 0 :]
            found = pictures(new, "/a/image")
            assert len(found) == len(expected) > 5
            assert all(map(np.array_equal, found, expected))
            kinds = codecs(new, "/a/image")
            assert kinds == codecs(log, "/a/image")[start or 0 :]
            assert (set(kinds) == {"packets"}) == repeats
            assert check_log(new)[2] == []


def with_a_wrong_picture(tmp_path, monkeypatch, tasks, cnx, *, number):
    """A run of a film of 12 pictures. What the log says of the picture `number`, or of all if that is
    None, is not what is decoded from it, as if another version of FFmpeg decoded it otherwise."""
    wrong = set()
    encode = PictureEncoder.encode

    def encoded(encoder, message, cycle, **more):
        if (number is None or message.frame_id == number) and message.frame_id not in wrong:
            message.picture._crc = message.picture.crc ^ 1
            wrong.add(message.frame_id)
        return encode(encoder, message, cycle, **more)

    film = draw(tmp_path / "b.mp4", frames=12, **FILMS["b_frames.mp4"])
    plan = helpers.plan_of(tmp_path, f"a=VideoCapture(source_uri: {film}); {tasks}", cnx)
    with monkeypatch.context() as patched:
        patched.setattr(PictureEncoder, "encode", encoded)
        _, result = helpers.record(plan, tmp_path / "run")
    assert result.error is None
    assert len(wrong) == (12 if number is None else 1)
    return tmp_path / "run"


@pytest.mark.parametrize("start", [None, 2, 5, 6])
def test_a_picture_that_is_not_given_back_costs_that_picture(tmp_path, monkeypatch, start):
    run = with_a_wrong_picture(
        tmp_path, monkeypatch, "d=Digest; s=Scale", "a > d: ImageRgb8Msg; d > s", number=5
    )
    with Log(run) as log:
        replay = Replay(log, env={})
        report = replay.run(start=start)
        assert report.first is None
        is_lost = start is None or start <= 5
        assert report.missing == is_lost
        assert report.identical == (not is_lost)
        # What reads the picture did not run; what reads that task's message did, on the recorded one.
        first = start or 0
        assert report.per_task == {"d": 12 - first - is_lost, "s": 12 - first}
        lost = [note for note in replay.notes if note.startswith("not given back")]
        assert lost == [
            f"not given back: {log.slabs[0].path}: cycle 5: /a/image: the picture cannot be decoded: "
            "another picture than was recorded"
        ]


def test_ten_pictures_that_are_not_given_back_are_named(tmp_path, monkeypatch):
    run = with_a_wrong_picture(
        tmp_path, monkeypatch, "d=Digest", "a > d: ImageRgb8Msg", number=None
    )
    with Log(run) as log:
        replay = Replay(log, env={})
        report = replay.run()
    assert (report.missing, report.compared, report.first) == (12, 0, None)
    lost = [note.partition(" cycle ")[2] for note in replay.notes if note.startswith("not given")]
    assert [it.partition(":")[0] for it in lost] == [*map(str, range(10))]


@pytest.mark.parametrize("kept", ["payload: none", "enabled: false"])
def test_what_a_task_made_of_a_missing_picture_and_the_log_does_not_hold_is_no_difference(
    tmp_path, monkeypatch, kept
):
    """Nor what the tasks after it made of that."""
    tasks = f"d=Digest@logging: {{{kept}}}; s=Scale; r=Scale"
    run = with_a_wrong_picture(
        tmp_path, monkeypatch, tasks, "a > d: ImageRgb8Msg; d > s; s > r", number=5
    )
    with Log(run) as log:
        replay = Replay(log, env={})
        report = replay.run()
    assert (report.first, report.missing) == (None, 1)
    d = {"d": 11} if kept == "payload: none" else {}
    assert report.per_task == {**d, "s": 11, "r": 12}
    assert (
        "task 's' did not run where a task before it did not run, whose messages the log does not "
        "hold: its messages of those cycles are taken from the log, and what it remembers lacks them"
    ) in replay.notes


def test_a_background_task_does_not_run_on_a_missing_picture(tmp_path, monkeypatch):
    run = with_a_wrong_picture(
        tmp_path, monkeypatch, "d=Digest!; s=Scale", "a > d: ImageRgb8Msg; d > s", number=0
    )
    with Log(run) as log:
        report = Replay(log, env={}).run()
    assert (report.first, report.missing) == (None, 1)
    assert report.compared > 0


def test_an_export_names_the_picture_that_it_leaves_out(tmp_path, monkeypatch):
    run = with_a_wrong_picture(tmp_path, monkeypatch, "d=Digest", "a > d: ImageRgb8Msg", number=5)
    selection = Selection(("/a/image",), {"start": 1})  # no film by itself: it begins in the middle
    with Log(run) as log:
        report = export_mp4(log, selection, tmp_path / "x.mp4")
        named = (
            f"left out: {log.slabs[0].path}: cycle 5: /a/image: the picture cannot be decoded: "
            "another picture than was recorded"
        )
        assert named in report.notes
        assert (report.count, report.unreadable) == (10, 1)
        found = export_foxglove(log, selection, tmp_path / "x.mcap")
        assert (found.unreadable, named in found.notes) == (1, True)
        assert check_log(log)[2] == [named.removeprefix("left out: ")]
        assert check_log(log, pictures=False)[2] == []


def test_the_first_difference_of_pictures_is_given_in_numbers(tmp_path):
    pictures_run(tmp_path)
    with Log(tmp_path / "run") as log:
        first = Replay(log, config={"d.by": 3}, env={}).run().first
    assert (first.cycle, first.task, first.field) == (0, "d", "pixels")
    assert (first.array.index, first.array.count, first.array.largest) == ((0, 0, 0), 576, 1.0)


def test_a_flight_recorders_replay_begins_at_its_first_keyframe(tmp_path):
    plan = helpers.plan_of(
        tmp_path,
        "c=Camera(limit: 500); m=Mean; n=Numbers(limit: 500); t=Total",
        "c > m: ImageRgb8Msg; n > t",
        "logging: {slab_size_mib: 1, section_size_mib: 1, mode: ring, keep_slabs: 2, "
        "keyframe_interval: 10}",
    )
    helpers.record(plan, tmp_path / "run")
    with Log(tmp_path / "run") as log:
        begin = next(log.cycles()).cycle
        assert begin > 100
        first = -(-begin // 10) * 10
        replay = Replay(log, env={})
        report = replay.run()
        assert (report.first, report.cycles) == (None, 501 - first)
        left_out = (
            f"the log begins in the middle of its run: cycles {begin} to {first - 1} are left out, "
            "as no replay can begin before its first complete keyframe"
        )
        assert replay.notes == ([] if first == begin else [left_out])
        assert Replay(log, env={}).run(start=first + 57).first is None
        blind = Replay(log, keyframes=False, env={})
        assert blind.run().first.task == "t"
        assert blind.notes[0].startswith(f"the log begins at cycle {begin}, without a keyframe: ")


# -- kept inputs -----------------------------------------------------------------------------------


def test_hints_name_what_keeps_an_input(tmp_path):
    """In the run the source's slots were used again; in the replay the log's bytes stay."""
    plan = helpers.plan_of(
        tmp_path,
        "n=Numbers(limit: 6); b=message_tasks.Bag(allocates: true); k=message_tasks.KeepsArray; x=Scale",
        "n > b; b > k: message_tasks.BagMsg; n > x",
        "runtime: {ring_size: 2}\nlogging: {slab_size_mib: 1, section_size_mib: 1}",
    )
    helpers.record(plan, tmp_path / "run")
    with Log(tmp_path / "run") as log:
        found = []
        replay = Replay(log, feed=["b"], config={"x.factor": 3}, env={})
        replay.hook(on_difference=lambda difference, *_: found.append(difference))
        replay.run()
        kept = (
            "keeps 'row' of its input 'bag' after process has returned, when its memory is used again; "
            "keep a copy() instead"
        )
        assert {(it.task, it.hint) for it in found} == {("k", kept), ("x", "")}
        with pytest.raises(TaskError, match="MessageMisused: keeps 'row' of its input 'bag'"):
            Replay(log, feed=["b"], debug_messages=True, env={}).run()
