"""Whether the pictures of an H.264 stream follow each other, by the numbers in their slices.

Where a picture that others need is missing, a decoder makes one up, and says nothing of it.
"""

from __future__ import annotations

from flowrun.runtime.pictures.bitstream import Units, units_of

__all__ = ["FrameNumbers"]

_SLICES = (1, 5)
_IDR, _PARAMETERS = 5, 7
_WITH_CHROMA = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
"""Profiles whose parameters say more of colours."""
_HEAD, _MOST = 64, 1024
"""Bytes of a slice that hold its number, at the most; and of parameters."""


class FrameNumbers:
    """Reads the `frame_num` of each packet (H.264, 7.4.3).

    extradata: the parameters that no packet may repeat, with start codes.
    """

    def __init__(self, extradata: bytes) -> None:
        self._bits: int | None = None
        """Of a number; None as long as no parameters have come."""
        self._has_planes = False
        self._has_fields = False
        """Whether two pictures after each other may be the two fields of one, with one number."""
        self._before = 0
        """The number of the last picture that others may need."""
        self.follows(extradata)

    def follows(self, data: bytes, units: Units | None = None) -> bool:
        """Whether no picture is missing before this packet, as far as can be known; the next packet is
        compared with this one.

        units: the packet's, where they are known.
        """
        known, is_first = True, True
        units = units or units_of("h264", data)
        try:
            for kind, at in zip(units.kinds, units.begins, strict=True):
                if kind == _PARAMETERS:
                    self._read_parameters(_Bits(data[at + 1 : at + 1 + _MOST]))
                elif kind in _SLICES:
                    bits = _Bits(data[at + 1 : at + 1 + _HEAD])
                    known &= self._read_slice(bits, data[at], is_first=is_first)
                    is_first = False
        except IndexError:  # it ends too early
            return False
        return known

    def _read_slice(self, bits: _Bits, head: int, *, is_first: bool) -> bool:
        if self._bits is None:
            return False
        bits.skip_numbers(3)  # where it begins, its kind, the parameters it uses
        if self._has_planes:
            bits.read(2)
        number = bits.read(self._bits)
        steps = (number - self._before) % (1 << self._bits)
        is_next = steps == 1 or (steps == 0 and (self._has_fields or not is_first))
        if head & 0x60:
            self._before = number
        return is_next or head & 0x1F == _IDR

    def _read_parameters(self, bits: _Bits) -> None:
        profile = bits.read(24) >> 16
        bits.number()
        self._has_planes = False
        if profile in _WITH_CHROMA:
            if bits.number() == 3:
                self._has_planes = bool(bits.read(1))
                lists = 12
            else:
                lists = 8
            bits.number()
            bits.number()
            bits.read(1)
            if bits.read(1):
                for which in range(lists):
                    if bits.read(1):
                        bits.skip_scales(16 if which < 6 else 64)
        count = bits.number() + 4
        order = bits.number()  # how the order of pictures is said
        if order == 0:
            bits.number()
        elif order == 1:
            bits.read(1)
            bits.skip_numbers(2)
            bits.skip_numbers(bits.number())
        bits.number()
        bits.read(1)
        bits.skip_numbers(2)  # width, height
        self._has_fields = not bits.read(1)
        self._bits = count
        if count > 16:
            raise IndexError


class _Bits:
    """Reads bits; `IndexError` after the last one."""

    def __init__(self, unit: bytes) -> None:
        data = unit.replace(b"\x00\x00\x03", b"\x00\x00")
        self._rest = int.from_bytes(data, "big")
        """What was not read yet."""
        self._count = 8 * len(data)
        """The number of its bits."""

    def read(self, count: int) -> int:
        if count > self._count:
            raise IndexError
        self._count -= count
        value = self._rest >> self._count
        self._rest -= value << self._count
        return value

    def number(self) -> int:
        """An unsigned Exp-Golomb number."""
        zeros = self._count - self._rest.bit_length()
        return self.read(2 * zeros + 1) - 1

    def skip_numbers(self, count: int) -> None:
        for _ in range(count):
            zeros = self._count - self._rest.bit_length()
            self._count -= 2 * zeros + 1
            if self._count < 0:
                raise IndexError
            self._rest &= (1 << self._count) - 1

    def skip_scales(self, count: int) -> None:
        last = following = 8
        for _ in range(count):
            if following:
                coded = self.number()
                change = (coded + 1) // 2 if coded & 1 else -(coded // 2)
                following = (last + change) % 256
            last = following or last
