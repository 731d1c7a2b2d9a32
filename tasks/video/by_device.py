"""A section, decoded by a device: what a run saw replays on any CPU all the same.

H.264, H.265, VP9 and AV1 say what each bit of a picture is. Devices and their drivers do not all keep to
that, and none says how it makes up for damaged packets. So what the device gives is not trusted: **a
picture is in the log as packets alone only where the CPU has decoded it too, with the same CRC, or where
nobody has read it.**

| the picture                          | what the run sees            | what the log gets           |
|--------------------------------------|------------------------------|-----------------------------|
| one of the first of its section      | what the CPU decoded         | packets, CRC of the planes  |
| read before the cycle is in the log  | what the device decoded      | packets, and its planes     |
| read later, as by a background task  | what the CPU decodes then    | packets                     |
| never read                           | nothing                      | packets                     |

In the second row the planes themselves are there: whatever the device made of the packets, the replay
shows that. In the last two nobody has seen what the device gave.

The first pictures tell whether the device decodes this stream at all: they are compared, and where one
differs, or the device refuses a packet that the CPU takes, gives no pictures or goes away, the CPU
decodes from there on, and the log has a line that says so. A section in which packets are damaged is
decoded by the CPU from its beginning; what was given of it before is left out.

What it costs: decoding `_PROVEN` pictures of each section on the CPU (of a camera with a key frame each
second, a tenth of what all would cost); copying each picture from the device; 0.4 ms to bring one that
is read into the CPU's form, at 1080p, and 0.8 ms of 10 bits; and 1.5 bytes a pixel in the log of each
picture that a task reads, 3 MB at 1080p. So a device pays where many pictures come and few are read, and
where the log keeps no packets, as without a log: there each picture is the device's, and nothing is
stored. Where most pictures are read and logged, proving them would cost as much as decoding them, and
storing them more: then the CPU decodes, and a line says so. Decoding all of a section later to compare
its last picture was rejected: B pictures, and what the next key frame repairs, would not show in it, and
it costs as much as decoding on the CPU.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zlib_ng.zlib_ng import crc32

from flowrun.msgs.image import VideoDecoder
from flowrun.runtime.pictures.asked import (
    AskedPicture,
    AskedSection,
    Found,
    SectionPacket,
    UnprovenPicture,
)
from flowrun.runtime.pictures.memory import new_array
from flowrun.runtime.pictures.planar import InPlace, Layout, PlanarPicture, kept, layout_of
from flowrun.runtime.pictures.video import LetGo, PacketDecoder, Take
from flowrun.tasks.video.hwaccel import Device

__all__ = ["DeviceDecoder", "planes_like"]

_PROVEN = 3
"""Pictures at the beginning of a section that are compared."""
_MOST_SILENT = 32
"""Packets in a row after which a device must have given a picture: no codec holds back more than 16 for
their order."""
_MOST_REMEMBERED = 64
_MOST_KEPT = 64 << 20
"""Bytes of a section's packets that are kept for decoding it on the CPU, which decodes what comes after
them."""
_TWINS = {
    "nv12": ("yuv420p", "yuvj420p"),
    "nv16": ("yuv422p", "yuvj422p"),
    "nv24": ("yuv444p", "yuvj444p"),
    "p010le": ("yuv420p10le",),
    "p012le": ("yuv420p12le",),
    "p016le": ("yuv420p10le", "yuv420p12le"),
    "p210le": ("yuv422p10le",),
    "p212le": ("yuv422p12le",),
    "p410le": ("yuv444p10le",),
    "p412le": ("yuv444p12le",),
}
"""By pixel format of a device, in which luma is a plane and both colours another, those of the CPU that
hold the same values."""


def planes_like(decoded: Any, layout: Layout) -> NDArray[np.uint8] | None:
    """The planes of a device's `av.VideoFrame` as a picture of `layout` has them, one after the other
    without gaps, read-only; None where it is no such picture."""
    own = layout_of(decoded)
    if own is None or (own.height, own.width, own.orientation) != (
        layout.height,
        layout.width,
        layout.orientation,
    ):
        return None
    planes = InPlace(decoded, own).planes
    if own.format != layout.format:
        if layout.format not in _TWINS.get(own.format, ()):
            return None
        bits = int(layout.format.rpartition("p")[2].removesuffix("le") or 8)
        values: list[NDArray[Any]] = [
            plane if bits == 8 else plane.view("<u2") >> (16 - bits) for plane in planes
        ]
        parts = [values[0], values[1][:, 0::2], values[1][:, 1::2]]
    else:
        parts = [*planes]
    data = new_array(layout.size)
    at = 0
    for part, (rows, length) in zip(parts, layout.planes, strict=True):
        end = at + rows * length
        data[at:end].view(part.dtype).reshape(part.shape)[...] = part
        at = end
    data.setflags(write=False)
    return data


class _LeaveDeviceError(Exception):
    """The CPU decodes what is left of the section.

    fault: what the device did wrong, if the CPU takes the packets; None where it is not to blame.
    """

    def __init__(self, fault: str | None = None) -> None:
        super().__init__(fault)
        self.fault = fault


@contextmanager
def _blaming_device() -> Iterator[None]:
    """Whatever a driver raises is the device's fault, and not the end of the source."""
    try:
        yield
    except Exception as error:  # drivers have errors of their own
        raise _LeaveDeviceError(f"it failed: {str(error) or type(error).__name__}") from error


class DeviceDecoder:
    """Decodes a section as a `PacketDecoder` in one thread does, on a device as far as the log allows.

    What the CPU decodes is given as an `av.VideoFrame`; what the device did, or the CPU once more, as
    `Kept`.

    known: what decodes the section.
    logs: whether a log gets the packets; if not, no picture needs a proof.
    damaged: called for each packet that is found out to be damaged later, and for each picture that is
        decoded when it is read, and is not sure.
    """

    lasts = False
    """Of the pictures that the CPU decoded."""

    def __init__(
        self,
        known: VideoDecoder,
        device: Device,
        *,
        logs: bool,
        damaged: Callable[[], None],
    ) -> None:
        self.known = known
        self._device, self._logs, self._damaged = device, logs, damaged
        self._cpu: PacketDecoder | None = PacketDecoder(known)
        """None while the device decodes alone."""
        self._hardware: PacketDecoder | None = device.decoder(known)
        """None where the CPU decodes alone."""
        self._packets: list[SectionPacket] = []
        """While the device is used, all of the section."""
        self._size = 0
        self._layout: Layout | None = None
        """How the pictures lie that the CPU decodes."""
        self._theirs: Layout | None = None
        """How those of the device lie."""
        self._expected: dict[int, int] = {}
        """By number, the CRC of pictures that the CPU has given and the device has not."""
        self._early: dict[int, Any] = {}
        """By number, pictures that the device has given and the CPU has not."""
        self._proven = 0
        self._given: deque[int] = deque(maxlen=_MOST_REMEMBERED)
        """Numbers of the pictures that were given last."""
        self._owed: set[int] = set()
        """Numbers of pictures that will come once more, as the other one has given them."""
        self._count = 0
        """How many were given."""
        self._silent = 0
        """Packets since the device has given a picture."""
        self._is_damaged = False
        self.is_doubtful = False
        """Whether the CPU refused packets that were given to the device: nothing more is sure."""
        self._asked: AskedSection
        """Decodes the device's pictures that are read later."""

    @property
    def reorder(self) -> int:
        """As `PacketDecoder.reorder`."""
        decoder = self._cpu or self._hardware
        assert decoder is not None
        return decoder.reorder

    def decode(self, number: int, data: bytes, take: Take, *, is_key: bool) -> bool:
        """As `PacketDecoder.decode`."""
        took = True
        if self._cpu is not None:
            its_take = self._those_not_owed(take) if self._hardware is None else self._noting(take)
            took = self._cpu.decode(number, data, its_take, is_key=is_key)
        if self._hardware is None:
            return took
        self._is_damaged |= not took
        self._packets.append(SectionPacket(number, data, is_key))
        self._size += len(data)
        try:
            self._decode_on_device(self._hardware, self._packets[-1], take)
        except _LeaveDeviceError as left:
            self._leave(left.fault, take)
        return took

    def drain(self, take: Take) -> bool:
        """As `PacketDecoder.drain`."""
        hardware = self._hardware
        ended = True
        if hardware is not None and self._cpu is not None:
            ended = self._cpu.drain(self._noting(take))
        try:
            if hardware is not None:
                self._drain_device(hardware, take)
                return ended
        except _LeaveDeviceError as left:
            has_ended = self._cpu is not None
            self._leave(left.fault, take)
            if has_ended:
                return ended
        assert self._cpu is not None
        return self._cpu.drain(self._those_not_owed(take)) and ended

    def doubt(self) -> None:
        """A packet is missing, or damaged: what comes of the next ones depends on who decodes them."""
        self._is_damaged = True

    # -- on the device -------------------------------------------------------------------------

    def _decode_on_device(self, hardware: PacketDecoder, packet: SectionPacket, take: Take) -> None:
        self._check()
        if self._cpu is None:
            self._asked.append(packet.number, bytes(packet.data), is_key=packet.is_key)
        made: list[tuple[int | None, Any]] = []
        with _blaming_device():
            took = hardware.decode(
                packet.number,
                packet.data,
                lambda number, decoded: made.append((number, decoded)),
                is_key=packet.is_key,
            )
        if not took:
            raise _LeaveDeviceError("it refuses a packet that the CPU takes")
        self._silent = 0 if made else self._silent + 1
        if self._silent > _MOST_SILENT:
            raise _LeaveDeviceError("it gives no pictures")
        self._take_made(made, take, packet.number, drained=False)

    def _check(self) -> None:
        """Whether the device may go on."""
        if self._is_damaged:
            self._device.note_damaged()
            raise _LeaveDeviceError
        if self._size > _MOST_KEPT:
            raise _LeaveDeviceError
        if not self._device.check_demand():
            raise _LeaveDeviceError

    def _drain_device(self, hardware: PacketDecoder, take: Take) -> None:
        self._check()
        made: list[tuple[int | None, Any]] = []
        with _blaming_device():
            has_ended = hardware.drain(lambda number, decoded: made.append((number, decoded)))
        if not has_ended:
            raise _LeaveDeviceError("it does not end a section that the CPU ends")
        self._take_made(made, take, self._packets[-1].number, drained=True)
        if self._expected:
            raise _LeaveDeviceError("it gives fewer pictures than the CPU")
        if self._cpu is None and self._count < len(self._packets):
            self._device.note_damaged()
            raise _LeaveDeviceError
        self._device.put_back(self.known, hardware)

    def _take_made(
        self,
        made: list[tuple[int | None, Any]],
        take: Take,
        fed: int,
        *,
        drained: bool,
    ) -> None:
        """Compare the device's pictures, or give them."""
        for number, decoded in made:
            if number is None:
                raise _LeaveDeviceError("it does not say of which packet a picture is")
            is_twice = number in self._early or (number in self._given and self._cpu is None)
            if number in self._owed:
                self._owed.discard(number)
            elif decoded.is_corrupt or is_twice:
                self._device.note_damaged()
                raise _LeaveDeviceError
            else:
                self._early[number] = decoded
        if self._cpu is not None:
            self._compare()
            if self._proven < _PROVEN or drained:
                return
            self._go_on_alone()
        for number in list(self._early):
            picture = self._picture(number, self._early.pop(number), fed, drained=drained)
            self._note_given(number)
            take(number, picture)

    def _compare(self) -> None:
        """Compare the pictures that both have given."""
        for number in [it for it in self._expected if it in self._early]:
            decoded, expected = self._early.pop(number), self._expected.pop(number)
            assert self._layout is not None
            self._theirs = layout_of(decoded)
            planes = planes_like(decoded, self._layout)
            if planes is None:
                lies = "otherwise" if self._theirs is None else f"as {self._theirs.format}"
                raise _LeaveDeviceError(f"its pictures lie {lies}, the CPU's {self._layout.format}")
            if crc32(planes) != expected:
                raise _LeaveDeviceError("its pictures are not those of the CPU")
            self._proven += 1

    def _go_on_alone(self) -> None:
        assert self._layout is not None
        self._cpu = None
        self._owed.update(self._expected)
        self._expected.clear()
        self._asked = AskedSection(self.known, self._layout, self._damaged, strict=False)
        for packet in self._packets:
            self._asked.append(packet.number, bytes(packet.data), is_key=packet.is_key)

    def _picture(self, number: int, decoded: Any, fed: int, *, drained: bool) -> PlanarPicture:
        layout = self._layout
        if layout is None or layout_of(decoded) != self._theirs:
            raise _LeaveDeviceError
        planes = partial(_planes, decoded, layout)
        if not self._logs:
            return AskedPicture(layout, lambda: Found(planes(), is_sure=True))
        by_packets = self._asked.asks_for(number, fed, drained=drained)
        return UnprovenPicture(layout, planes, by_packets, self._device.note_read)

    # -- on the CPU ----------------------------------------------------------------------------

    def _noting(self, take: Take) -> Take:
        """Gives pictures, and keeps what the device's are compared with."""

        def noting(number: int | None, decoded: Any) -> LetGo | None:
            layout = layout_of(decoded)
            self._layout = self._layout or layout
            if number is None or layout is None or layout != self._layout or decoded.is_corrupt:
                self._is_damaged = True  # or of no planes, or of several sizes: not for the device
            else:
                self._expected[number] = PlanarPicture(layout, InPlace(decoded, layout)).crc
            if number is not None:
                self._note_given(number)
            return take(number, decoded)

        return noting

    def _those_not_owed(self, take: Take) -> Take:
        """Gives the pictures that the device has not given."""

        def those(number: int | None, decoded: Any) -> LetGo | None:
            if number in self._owed:
                self._owed.discard(number)
                return None
            return take(number, decoded)

        return those

    def _note_given(self, number: int) -> None:
        self._given.append(number)
        self._count += 1
        self._device.note_given()

    def _leave(self, fault: str | None, take: Take) -> None:
        """Have the CPU decode from now on."""
        if self._cpu is None:
            self._decode_again(take)
        if fault is not None and not (self._is_damaged or self.is_doubtful):
            self._device.give_up(fault)
        elif fault is not None:
            self._device.note_damaged()
        self._hardware = None
        self._packets.clear()
        self._early.clear()

    def _decode_again(self, take: Take) -> None:
        """Decode the section on the CPU from its beginning, and give what is shown after the last
        picture that was given."""
        last = self._given[-1]
        is_later = False
        self._owed = set(self._given)

        def those_later(number: int | None, decoded: Any) -> LetGo | None:
            nonlocal is_later
            is_later |= number == last
            if number in self._owed or not is_later:
                self._owed.discard(number or 0)
                return None
            self.is_doubtful |= decoded.is_corrupt
            # A copy: who takes it may need it until this call of `decode` is over.
            with suppress(ValueError):  # its colours cannot be converted
                take(number, kept(decoded))
            return None

        cpu = self._cpu = PacketDecoder(self.known)
        for packet in self._packets:
            if not cpu.decode(packet.number, packet.data, those_later, is_key=packet.is_key):
                self.is_doubtful = True
                self._damaged()


def _planes(decoded: Any, layout: Layout) -> NDArray[np.uint8]:
    found = planes_like(decoded, layout)
    assert found is not None
    return found
