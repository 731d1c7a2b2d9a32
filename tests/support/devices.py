"""Devices that decode, as far as a run can tell: right, wrong, refusing, silent, late.

`Fake` decodes on the CPU and gives pictures as devices do: luma in one plane, both colours in another.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import pytest

from flowrun.msgs.image import VideoDecoder
from flowrun.runtime.pictures.planar import InPlace, Layout, layout_of
from flowrun.runtime.pictures.video import PacketDecoder
from flowrun.tasks.video import hwaccel, opening

__all__ = ["Faults", "as_devices_have_it", "installed"]


@dataclass
class Faults:
    """What is wrong with a device. Packets are counted over all of its decoders, from 0.

    wrong, refuses, silent, dies, raises: from which packet on it decodes wrongly, refuses them, gives no
        picture, cannot be opened any more and refuses all, or has its driver raise an error.
    twice: the packet whose pictures come twice.
    lag: how many pictures later than the CPU it gives them.
    """

    wrong: float = float("inf")
    refuses: float = float("inf")
    silent: float = float("inf")
    dies: float = float("inf")
    raises: float = float("inf")
    twice: int = -1
    lag: int = 0
    count: int = 0
    made: int = 0
    """Decoders that were made."""

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Faults:
        """Some, at random; often none."""
        at = float(rng.integers(0, 24))
        kind = str(
            rng.choice(["", "", "wrong", "refuses", "silent", "dies", "raises", "twice", "lag"])
        )
        if kind == "lag":
            return cls(lag=int(rng.integers(1, 4)))
        return cls() if not kind else cls(**{kind: at})  # type: ignore[arg-type]


def as_devices_have_it(decoded: Any, *, wrong: bool = False) -> Any:
    """The picture with its colours in one plane. wrong: one value of it is another."""
    layout = layout_of(decoded)
    if layout is None or layout.format.replace("j", "") not in ("yuv420p", "yuv420p10le"):
        return decoded
    deep = layout.format.endswith("10le")
    made = av.VideoFrame(layout.width, layout.height, "p010le" if deep else "nv12")
    own = Layout(*("p010le" if deep else "nv12", layout.height, layout.width, layout.space, 0))
    planes = [it.view("<u2") << 6 if deep else it for it in InPlace(decoded, layout).planes]
    both = np.empty((planes[1].shape[0], 2 * planes[1].shape[1]), planes[0].dtype)
    both[:, 0::2], both[:, 1::2] = planes[1:]
    for plane, (rows, length), values in zip(
        made.planes, own.planes, (planes[0], both), strict=True
    ):
        view = np.ndarray((rows, length), np.uint8, plane, strides=(plane.line_size, 1))
        view[...] = np.ascontiguousarray(values).view(np.uint8)
        if wrong:
            view[rows // 2, length // 2] ^= 4
    made.pts, made.dts, made.opaque = decoded.pts, decoded.dts, decoded.opaque
    made.colorspace, made.color_range = decoded.colorspace, decoded.color_range
    return made


class Fake(PacketDecoder):
    """A device's decoder."""

    def __init__(self, known: VideoDecoder, faults: Faults) -> None:
        if faults.count >= faults.dies:
            raise ValueError("has gone")
        faults.made += 1
        self._known, self._faults = known, faults
        self._late: list[tuple[int | None, Any]] = []
        super().__init__(known)

    def begin_again(self) -> None:
        super().begin_again()
        self._late.clear()

    def decode(self, number: int, data: Any, take: Any, *, is_key: bool) -> bool:
        faults = self._faults
        at, faults.count = faults.count, faults.count + 1
        if at >= faults.raises:
            raise RuntimeError("illegal address")
        if at >= min(faults.refuses, faults.dies):
            return False
        made: list[tuple[int | None, Any]] = []
        super().decode(number, data, self._keeper(made, wrong=at >= faults.wrong), is_key=is_key)
        if at >= faults.silent:
            return True
        self._late += made * (2 if at == faults.twice else 1)
        while len(self._late) > faults.lag:
            take(*self._late.pop(0))
        return True

    def drain(self, take: Any) -> bool:
        if self._faults.count >= self._faults.raises:
            raise RuntimeError("illegal address")
        made: list[tuple[int | None, Any]] = []
        super().drain(self._keeper(made, wrong=self._faults.count > self._faults.wrong))
        if self._faults.count > self._faults.silent:
            return True
        for picture in self._late + made:
            take(*picture)
        self._late.clear()
        return True

    def _keeper(self, made: list[tuple[int | None, Any]], *, wrong: bool) -> Any:
        def keep(number: int | None, decoded: Any) -> None:
            made.append((number, as_devices_have_it(decoded, wrong=wrong)))

        return keep


@contextmanager
def installed(faults: Faults) -> Iterator[Faults]:
    """Have the machine have such a device, by the name of cuda."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hwaccel, "_open", lambda _kind, _codec: None)
        for module in (hwaccel, opening):
            patch.setattr(module, "missing_hwaccel", lambda _wanted: None)
        patch.setattr(hwaccel, "new_decoder", lambda _kind, known: Fake(known, faults))
        yield faults
