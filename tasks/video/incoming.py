"""A container's packets -> numbered packets, as the decoder and the log get them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from flowrun.msgs.image import VideoDecoder
from flowrun.runtime.pictures.bitstream import (
    Units,
    closes,
    display_of,
    holds_parameters,
    said_to_last,
    units_of,
    with_start_codes,
)
from flowrun.runtime.pictures.frame_numbers import FrameNumbers
from flowrun.runtime.pictures.stored import shown_format
from flowrun.runtime.pictures.video import container_orientation, described
from flowrun.tasks.video.ahead import AheadDecoder
from flowrun.tasks.video.codecs import LOGGED, PALETTE, STRICT

__all__ = ["Fed", "Incoming", "Waiting"]

_FILTERS = {"h264": "h264_mp4toannexb", "hevc": "hevc_mp4toannexb"}
_LENGTH_PREFIXED = b"\x01"
"""First byte of the extradata of a stream whose packets have lengths instead of start codes."""
_TURNING = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
"""FFmpeg's names of the containers that may say which way up their pictures are shown."""
_JPEG = b"\xff\xd8\xff"
"""How a JPEG begins."""
_NEVER_NS = 1 << 62
"""Times beyond it are those of damaged containers."""


class Fed(NamedTuple):
    """A packet that a decoder has got.

    pts: in the container's units; None where it has none.
    is_shown: False where the container says that its picture is there for others only, as those before
        the place where a film was cut.
    """

    pts: int | None
    is_shown: bool


class Waiting(NamedTuple):
    """A packet that was read and not decoded yet.

    packet: the container's.
    data: what the decoder and the log get; b"" where it cannot be read, or the codec is not logged.
    follows: False where it is damaged or a packet before it is missing.
    begins: whether it is a key frame with which a section begins whatever comes before it.
    display: which way up packets say that pictures are shown from here on; None where they do not.
    said: see `said_to_last`.
    ahead: decodes that section; None where that is not so, or done in one thread.
    """

    number: int
    packet: Any
    fed: Fed
    data: bytes
    is_key: bool = False
    is_damaged: bool = False
    follows: bool = False
    begins: bool = False
    display: int | None = None
    said: bytes | None = None
    ahead: AheadDecoder | None = None


class Incoming:
    """The packets of `stream` in the order in which they come, and what they say of its decoder.

    first: the number of the first one.
    counts_frames: whether H.264's frame numbers are looked at, to find out that a packet is missing.
    read: the number of the packet that comes next.
    logs_packets: whether packets of this codec can be logged.
    form: Foxglove's name of the codec.
    strict: see `STRICT`.
    """

    def __init__(self, stream: Any, *, first: int, counts_frames: bool) -> None:
        self._context = context = stream.codec_context
        self._unit_ns = 1_000_000_000 * stream.time_base
        self.codec: str = context.codec.canonical_name
        self.read = first
        self.logs_packets = self.codec in LOGGED and context.pix_fmt != PALETTE
        self.form = shown_format(self.codec)
        self.strict = self.codec in STRICT
        extradata = context.extradata or b""
        self._filter: Any = None
        if self.codec in _FILTERS:
            from av.bitstream import BitStreamFilterContext

            self._filter = BitStreamFilterContext(_FILTERS[self.codec], stream)
            if extradata.startswith(_LENGTH_PREFIXED):
                extradata = with_start_codes(self.form, extradata)
        self._inserted = extradata
        """What FFmpeg's filter inserts before key frames: the container's parameters."""
        self._described = described(context, extradata)
        self._asks_container = self.logs_packets and stream.container.format.name in _TURNING
        """Whether its first packet is decoded once more, to hear which way up the pictures are shown."""
        self._display: int | None = None
        """Which way up packets say that pictures are shown, until they say otherwise."""
        self._in_packets = False
        """Whether packets have said what all pictures have in common, and not the container alone."""
        counts_frames = counts_frames and self.codec == "h264"
        self._frame_numbers = FrameNumbers(extradata) if counts_frames else None

    def looked_at(self, packet: Any) -> Waiting:
        """A packet that has come, and what is known of it before any other is decoded."""
        fed = Fed(packet.pts, not packet.is_discard)  # a filter empties the packet
        is_key, is_damaged = bool(packet.is_keyframe), bool(packet.is_corrupt)
        if self._asks_container:
            self._asks_container = False
            orientation = container_orientation(self._context, packet)
            self._described = replace(self._described, orientation=orientation)
        data = self._bytes(packet) if self.logs_packets else b""
        number = self._number_of(data)
        begins, follows, said = False, False, None
        if data:
            units = units_of(self.form, data)
            self._note_display(data, units, is_key=is_key)
            has_parameters = holds_parameters(self.form, data, units)
            begins = (
                is_key
                and not is_damaged
                and (has_parameters or not self._in_packets)
                and closes(self.form, data, units)
            )
            self._in_packets |= has_parameters
            follows = not is_damaged and (
                self._frame_numbers is None or self._frame_numbers.follows(data, units)
            )
            said = said_to_last(self.form, data, units)
        return Waiting(
            number, packet, fed, data, is_key, is_damaged, follows, begins, self._display, said
        )

    def _note_display(self, data: bytes, units: Units, *, is_key: bool) -> None:
        """Know which way up the pictures of a section are shown that begins here."""
        display = display_of(self.form, data, units)
        if display is not None:
            if display.lasts:
                self._display = display.orientation
        elif is_key and self._display is not None and closes(self.form, data, units):
            self._display = None

    def glanced_at(self, packet: Any) -> Waiting:
        """A packet that has come, of which nothing but the bytes matters."""
        fed = Fed(packet.pts, not packet.is_discard)
        data, is_damaged = self._bytes(packet), bool(packet.is_corrupt)
        return Waiting(self._number_of(data), packet, fed, data, is_damaged=is_damaged)

    def _number_of(self, data: bytes) -> int:
        """The number of the next packet. One that cannot be read, and gets into no decoder, shares that
        of the packet after it: the numbers of what the log gets have no gap."""
        number = self.read
        self.read += bool(data) or not self.logs_packets
        return number

    def _bytes(self, packet: Any) -> bytes:
        """What the decoder and the log get of `packet`; b"" where the filter cannot read it.

        FFmpeg's filter for H.265 inserts parameters also before those that a packet has itself. Where
        these are others, the decoder would lose pictures between the two.
        """
        import av

        try:
            made = [packet] if self._filter is None else self._filter.filter(packet)
        except av.error.FFmpegError:
            return b""
        data = bytes(made[0]) if len(made) == 1 else b"".join(map(bytes, made))
        own = data.removeprefix(self._inserted)
        return own if len(own) < len(data) and holds_parameters(self.form, own) else data

    def time_ns(self, fed: Fed) -> int | None:
        """When the picture of a packet is shown, as `UnseenPacket.time_ns`."""
        time_ns = None if fed.pts is None else int(fed.pts * self._unit_ns)
        return None if time_ns is None or abs(time_ns) >= _NEVER_NS else time_ns

    @property
    def reorder(self) -> int:
        """How many pictures a decoder holds back for their order, as far as is known."""
        return self._described.reorder

    def learn(self, reorder: int) -> None:
        """Hear how many pictures a decoder holds back; the next ones profit from it."""
        if reorder > self._described.reorder:
            self._described = replace(self._described, reorder=reorder)

    def what_decodes(self, waiting: Waiting) -> VideoDecoder:
        """What decodes a section that begins with this packet, as far as is known now. FFmpeg takes a
        JPEG that is lower than it was told for half of an interlaced picture, whose other half comes in
        the same packet."""
        if self.form == "mjpeg" and waiting.data.count(_JPEG) == 1:
            return replace(self._described, width=0, height=0)
        if waiting.display is not None:
            return replace(self._described, orientation=waiting.display)
        return self._described

    def restart(self) -> None:
        """The stream goes on elsewhere, as after a seek."""
        if self._filter is not None:
            self._filter.flush()
