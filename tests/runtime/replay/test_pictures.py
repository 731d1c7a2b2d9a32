"""Replays of pictures, and what they write of their own."""

from __future__ import annotations

import numpy as np
import pytest

from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.recorder import ReplayLog
from flowrun.runtime.replay.replay import Replay
from support import helpers
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
