"""Replays of pictures, and what they write of their own."""

from __future__ import annotations

import helpers
import numpy as np
import pytest
from pictures import Camera
from test_log_codecs import FILMS, codecs, draw, pictures, recorded

from flowrun.msgs import FloatMsg, ImageRgb8Msg
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.recorder import ReplayLog
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.task import Context, Input, Output, Task, TaskConfig
from flowrun.tasks.video.capture import VideoCapture


class Darken(Task):
    class Config(TaskConfig):
        by: int = 2

    config: Config

    def process(
        self, ctx: Context, image: Input[ImageRgb8Msg], darker: Output[ImageRgb8Msg]
    ) -> None:
        pixels = darker.allocate_pixels(image.height, image.width)
        np.subtract(image.pixels, self.config.by, out=pixels)
        darker.publish(tov_ns=image.tov_ns)


class Mean(Task):
    def process(self, ctx: Context, image: Input[ImageRgb8Msg], mean: Output[FloatMsg]) -> None:
        mean.value = float(image.pixels.mean())
        mean.publish(tov_ns=image.tov_ns)


def pictures_run(tmp_path):
    """Five small pictures, made darker, and how bright they are then."""
    helpers.Camera, helpers.Darken, helpers.Mean = Camera, Darken, Mean
    plan = helpers.plan_of(
        tmp_path, "c=Camera(width: 16, height: 12); d=Darken; m=Mean",
        "c > d: ImageRgb8Msg; d > m: ImageRgb8Msg",
    )  # fmt: skip
    _, result = helpers.record(plan, tmp_path / "run")
    assert result.error is None


@pytest.mark.parametrize(
    "name", ["plain.mp4", "b_frames.mp4", "open_gop.mp4", "h265.mp4", "vp9.webm"]
)
@pytest.mark.parametrize("start", [None, 5, 13])
def test_a_replay_writes_the_recorded_packets_again(tmp_path, monkeypatch, name, start):
    monkeypatch.setattr(helpers, "VideoCapture", VideoCapture, raising=False)
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


def test_the_first_difference_of_pictures_is_told_in_numbers(tmp_path):
    pictures_run(tmp_path)
    with Log(tmp_path / "run") as log:
        first = Replay(log, config={"d.by": 3}, env={}).run().first
    assert (first.cycle, first.task, first.field) == (0, "d", "pixels")
    assert (first.array.index, first.array.count, first.array.largest) == ((0, 0, 0), 576, 1.0)


def test_a_flight_recorders_replay_begins_at_its_first_keyframe(tmp_path):
    from test_replay_stepping import Total

    helpers.Camera, helpers.Total, helpers.Mean = Camera, Total, Mean
    plan = helpers.plan_of(
        tmp_path, "c=Camera(limit: 500); m=Mean; n=Numbers(limit: 500); t=Total",
        "c > m: ImageRgb8Msg; n > t",
        "logging: {slab_size_mib: 1, section_size_mib: 1, mode: ring, keep_slabs: 2, "
        "keyframe_interval: 10}",
    )  # fmt: skip
    helpers.record(plan, tmp_path / "run")
    with Log(tmp_path / "run") as log:
        begin = next(log.cycles()).cycle
        assert begin > 100
        first = -(-begin // 10) * 10
        replay = Replay(log, env={})
        report = replay.run()
        assert (report.first, report.cycles) == (None, 501 - first)
        left_out = (
            f"the log begins in the middle of its run: cycles {begin} to {first - 1}, in front of "
            "its first keyframe, are left out"
        )
        assert replay.notes == ([] if first == begin else [left_out])
        assert Replay(log, env={}).run(start=first + 57).first is None
        blind = Replay(log, keyframes=False, env={})
        assert blind.run().first.task == "t"
        assert blind.notes[0].startswith(
            f"the log begins at cycle {begin}, and not with a keyframe: "
        )
