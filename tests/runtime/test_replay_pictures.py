"""Replays of pictures, and what they write of their own."""

from __future__ import annotations

import helpers
import numpy as np
import pytest
from pictures import Camera
from test_log_codecs import FILMS, codecs, draw, pictures, recorded

from flowrun.msgs import FloatMsg, ImageRgb8Msg
from flowrun.runtime.log_reader import Log
from flowrun.runtime.replay import Replay
from flowrun.runtime.replay_log import ReplayLog
from flowrun.runtime.task import Context, Input, Output, Task, TaskConfig
from flowrun.tasks.video_capture import VideoCapture


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
