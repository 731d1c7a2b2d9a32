"""`BroadcastImage` and `BroadcastChat`: what clients outside the run get."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from flowrun.msgs import ImageRgb8Msg, PromptResponseMsg
from flowrun.runtime.broadcast import Answer, Broadcast
from flowrun.runtime.errors import UsageError
from flowrun.runtime.testing import run_task
from flowrun.tasks.broadcast import BroadcastChat, BroadcastImage


def frame(level: int) -> ImageRgb8Msg:
    image = ImageRgb8Msg(pixels=np.full((48, 64, 3), level, np.uint8))
    image.publish(tov_ns=level)
    return image


def test_no_frame_is_offered_while_nobody_watches() -> None:
    broadcast = Broadcast()
    run_task(BroadcastImage, inputs=[{"image": frame(100)}], broadcast=broadcast)
    assert broadcast.number == 0


def test_a_watched_frame_is_a_jpeg_with_its_time_and_cycle() -> None:
    broadcast = Broadcast()
    broadcast.watch()
    run_task(
        BroadcastImage, inputs=[{"image": frame(100)}, {"image": frame(200)}], broadcast=broadcast
    )
    assert broadcast.number == 2
    picture = broadcast.newest
    assert (picture.tov_ns, picture.cycle) == (200, 1)
    with Image.open(io.BytesIO(picture.jpeg())) as opened:
        assert (opened.format, opened.mode, opened.size) == ("JPEG", "RGB", (64, 48))
        assert abs(np.asarray(opened).astype(int) - 200).max() <= 2
    assert picture.jpeg() is picture.jpeg()


def test_an_offered_frame_does_not_change_with_its_slot() -> None:
    broadcast = Broadcast()
    broadcast.watch()
    image = ImageRgb8Msg()
    image.allocate_pixels(48, 64)[:] = 50
    run_task(BroadcastImage, inputs=[{"image": image}], broadcast=broadcast)
    image.allocate_pixels(48, 64)[:] = 250
    with Image.open(io.BytesIO(broadcast.newest.jpeg())) as opened:
        assert abs(np.asarray(opened).astype(int) - 50).max() <= 2


@pytest.mark.parametrize(("aspect", "size"), [(2.0, (128, 48)), (0.5, (64, 96)), (1e9, (64, 48))])
def test_a_picture_is_offered_in_square_pixels(aspect: float, size: tuple[int, int]) -> None:
    broadcast = Broadcast()
    broadcast.watch()
    image = frame(100)
    image.pixel_aspect = aspect
    image.publish()
    run_task(BroadcastImage, inputs=[{"image": image}], broadcast=broadcast)
    with Image.open(io.BytesIO(broadcast.newest.jpeg())) as opened:
        assert opened.size == size
        assert abs(np.asarray(opened).astype(int) - 100).max() <= 2


def test_quality_is_the_jpegs() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    sizes = []
    for quality in (10, 95):
        broadcast = Broadcast()
        broadcast.watch()
        run_task(
            BroadcastImage,
            inputs=[{"image": ImageRgb8Msg(pixels=noise.copy())}],
            config={"quality": quality},
            broadcast=broadcast,
        )
        sizes.append(len(broadcast.newest.jpeg()))
    assert sizes[0] < sizes[1] / 2


def test_quality_has_bounds() -> None:
    with pytest.raises(UsageError) as caught:
        run_task(BroadcastImage, inputs=[], config={"quality": 101})
    assert str(caught.value) == (
        "config of BroadcastImage: quality: Input should be less than or equal to 100; got 101"
    )


def test_every_answer_is_offered_with_its_frames_time_and_cycle() -> None:
    broadcast = Broadcast()
    message = PromptResponseMsg(
        prompt="cap en",
        response="a red circle",
        truncated=True,
        reasoning="it is red",
        frame_id=7,
        frame_cycle=5,
        backend="embedded",
        tokens=4,
        latency_ms=12.5,
    )
    message.publish(tov_ns=123)
    run_task(BroadcastChat, inputs=[{"answer": message}], broadcast=broadcast)
    assert broadcast.newest == Answer(
        tov_ns=123,
        cycle=5,
        prompt="cap en",
        response="a red circle",
        truncated=True,
        reasoning="it is red",
        backend="embedded",
        tokens=4,
        latency_ms=12.5,
    )
