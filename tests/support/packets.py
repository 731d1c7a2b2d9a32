"""Runs of a camera whose own packets are logged, and of a task that says what it saw."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from zlib_ng.zlib_ng import crc32

from flowrun.msgs import ImageRgb8Msg, IntMsg
from flowrun.msgs.image import VideoDecoder
from flowrun.runtime.clock import ManualClock
from flowrun.runtime.pictures.video import PacketDecoder
from flowrun.runtime.run.live import Run
from flowrun.runtime.task import Context, Input, Output, Task
from support import helpers


class Digest(Task):
    """The CRC of each picture."""

    def process(self, ctx: Context, image: Input[ImageRgb8Msg], crc: Output[IntMsg]) -> None:
        crc.value = crc32(np.ascontiguousarray(image.pixels).tobytes())
        crc.publish(tov_ns=image.tov_ns)


class Shades(Task):
    """The CRC of each picture's luma, and of it in two other sizes."""

    def process(self, ctx: Context, image: Input[ImageRgb8Msg], crc: Output[IntMsg]) -> None:
        sizes = (17, 9), (image.width + 3, image.height)
        found = [image.luma, *(image.resized(*size) for size in sizes)]
        crc.value = crc32(b"".join(it.tobytes() for it in found))
        crc.publish(tov_ns=image.tov_ns)


class Glance(Task):
    """The height of each picture, and the sum of the pixels of every fifth."""

    def process(self, ctx: Context, image: Input[ImageRgb8Msg], total: Output[IntMsg]) -> None:
        total.value = image.height
        if image.frame_id % 5 == 4:
            total.value += int(image.pixels.sum())
        total.publish()


class Ends(Task):
    """Ends the run at its second picture, when the source has read all of its film."""

    end: ClassVar[Callable[[], None]]

    def process(self, ctx: Context, image: Input[ImageRgb8Msg] | None, n: Output[IntMsg]) -> None:
        n.value = -1 if image is None else image.frame_id
        n.publish()
        if image is not None and image.frame_id:
            Ends.end()


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The numbers of all packets that a decoder gets."""
    fed: list[int] = []
    decode = PacketDecoder.decode

    def counting(self: PacketDecoder, number: int, *rest: Any, **more: Any) -> bool:
        fed.append(number)
        return decode(self, number, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(PacketDecoder, "decode", counting)
        yield fed


def plain_decoder(name: str, width: int, height: int, extradata: bytes = b"") -> VideoDecoder:
    """Of a container that says nothing else."""
    return VideoDecoder(
        name, extradata, width, height, "yuv420p", tag="", bits=0, reorder=0, color=(2, 0)
    )


MORE = "logging: {slab_size_mib: 4, section_size_mib: 1}"


def camera(tmp_path: Path, config: str, *, logging: str = "", more: str = MORE) -> Any:
    logged = f"@logging: {{{logging}}}" if logging else ""
    return helpers.plan_of(
        tmp_path, f"a=VideoCapture({config}){logged}; d=Digest", "a > d: ImageRgb8Msg", more
    )


def run(plan: Any, directory: Path, *, step_ns: int = 1000, **options: Any) -> Path:
    result = Run(plan, clock=ManualClock(1, step_ns=step_ns), directory=directory).run(**options)
    assert result.error is None, result.error
    return directory
