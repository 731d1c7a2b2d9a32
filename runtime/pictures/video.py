"""Decoding and converting video: the same bytes wherever it is done.

A video source decodes its packets when it runs; a log that holds them decodes them again when it is
read or replayed. Both go through here, and by `PacketDecoder` in one thread both give the same pixels,
also of damaged packets. What they depend on is the same in both:

- the decoder begins with the same packet, knowing nothing before it, and gets the same ones after it;
- one thread: with more, what is decoded after an error depends on which thread was faster;
- each picture is given back after the next packet was decoded, and before the one after that: a
  decoder that leaves parts of a picture out leaves there what an earlier picture had in the same
  memory, and takes memory that is free. Until then another thread may convert the picture.

Pictures are converted in integers by our own code, see `convert`. What stays with the FFmpeg version is
the decoder. A log therefore keeps a checksum of each picture's pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs.image import VideoDecoder
from flowrun.runtime.pictures.bitstream import Display, closes, display_of, exif_orientation
from flowrun.runtime.pictures.convert import CONVERSION, UPRIGHT, Noted, matrix_orientation, rgb
from flowrun.runtime.pictures.convert.swscale import swscale_rgb

__all__ = [
    "REPEATED",
    "ContainerDecoder",
    "LetGo",
    "PacketDecoder",
    "RgbConverter",
    "Take",
    "container_orientation",
    "described",
    "repeats",
]

REPEATED = frozenset(
    {
        *("h264", "hevc", "vp8", "vp9", "libdav1d"),
        *("mpeg1video", "mpeg2video", "mpeg4", "flv", "wmv2"),
        *("ffv1", "png", "rawvideo"),
    }
)
"""FFmpeg's decoders that, in one thread, make the same pictures of damaged packets each time, whatever
was in the memory that they get. 5,040 damaged films, 129,104 pictures, were decoded with all memory
filled with 0, 85 and 170 before (`MALLOC_PERTURB_`): none differed. Others were not tried."""

_FORMS = {"hevc": "h265"}
"""Our names of codecs where FFmpeg's decoders have others."""

LetGo = Callable[[], object]
"""Called before a decoder takes the memory of a picture back; then nothing holds the picture."""
Take = Callable[[int | None, Any], LetGo | None]
"""Called with each picture that comes out, an `av.VideoFrame`, and the number of its packet. It MUST
NOT keep the picture: what it needs of it, it converts at once, or until the `LetGo` that it returns is
called."""


_WITH_OWN_THREADS = frozenset({"libdav1d"})
"""Decoders that take no notice of FFmpeg's kinds of threads."""
_OWN_DECODERS = {"libdav1d": "av1", "libaom-av1": "av1", "libvpx": "vp8", "libvpx-vp9": "vp9"}
"""FFmpeg's own decoders, which are the ones that use devices, where another is preferred."""


def repeats(decoder: VideoDecoder) -> bool:
    """Whether a `PacketDecoder` makes the same pictures of damaged packets each time: then the packets
    alone give them back."""
    return decoder.name in REPEATED


class RgbConverter:
    """Decoded pictures as RGB.

    version: which conversion, as `"convert"` in a stored picture's map says.
    """

    def __init__(self, version: int = CONVERSION) -> None:
        self._rgb = rgb if version == CONVERSION else swscale_rgb

    def rgb(self, decoded: Any) -> NDArray[np.uint8]:
        """The pixels (H, W, 3) of a decoded `av.VideoFrame`, read-only. `ValueError` where its colours
        cannot be converted."""
        pixels = self._rgb(decoded)
        pixels.setflags(write=False)  # nobody writes to it any more: it can be shared, not copied
        return pixels


def described(context: Any, extradata: bytes) -> VideoDecoder:
    """What a decoder must know that shall decode as `context`, an `av.VideoCodecContext`, does.

    extradata: what it gets in place of the context's own.
    """
    try:
        tag = context.codec_tag.strip("\0") and context.codec_tag
    except UnicodeDecodeError:
        tag = ""
    return VideoDecoder(
        context.codec.name,
        extradata,
        context.width,
        context.height,
        context.pix_fmt or "",
        tag=tag,
        bits=context.bits_per_coded_sample,
        reorder=context.reorder_depth,
        color=(int(context.colorspace), int(context.color_range)),
    )


def container_orientation(context: Any, packet: Any) -> int:
    """Which way up a container says that pictures are shown: it says so to its stream's own decoder.

    context: that of the stream, which is used for nothing else. packet: one with which it can begin.
    """
    import av

    try:
        if not context.is_open:
            context.thread_count = 1
        pictures = context.decode(packet) or context.decode(None)
    except (av.error.FFmpegError, ValueError):
        return UPRIGHT
    return matrix_orientation(pictures[0]) if pictures else UPRIGHT


class PacketDecoder:
    """Decodes the numbered packets of one section of a source.

    ahead: decode some pictures ahead on all cores, which gives the same pictures where no packet is
        damaged; each picture then comes some packets later.
    threads: how many, if `ahead`; 0 for as many as there are cores.
    in_parts: several threads decode the parts of one picture, so that none comes later.
    strict: refuse packets that are damaged, where the decoder can; otherwise it makes what it can of
        them.
    device: an `av.codec.hwaccel.HWAccel` that decodes instead of the CPU. Its pictures are copied from
        it, in a pixel format of its own; they may be kept, and none is sure to be the CPU's.

    Raises `ValueError` if this FFmpeg, or the device, has no such decoder, or it does not take what
    `decoder` says.
    """

    def __init__(
        self,
        decoder: VideoDecoder,
        *,
        ahead: bool = False,
        threads: int = 0,
        in_parts: bool = False,
        strict: bool = False,
        device: Any = None,
    ) -> None:
        import av

        name = decoder.name if device is None else _OWN_DECODERS.get(decoder.name, decoder.name)
        try:
            context: Any = av.CodecContext.create(name, "r", device)
            if device is not None and not context.is_hwaccel:
                raise ValueError("the device does not decode it")
            if decoder.extradata:
                context.extradata = decoder.extradata
            if context.type != "video":
                raise ValueError(f"it decodes {context.type}")
            context.width, context.height = decoder.width, decoder.height
            if decoder.pixel_format and device is None:
                context.pix_fmt = decoder.pixel_format
            if decoder.tag:
                context.codec_tag = decoder.tag
            context.bits_per_coded_sample = decoder.bits
            context.reorder_depth = decoder.reorder
            context.colorspace, context.color_range = decoder.color
        except (av.error.FFmpegError, ValueError, OverflowError, LookupError) as error:
            where = "in this FFmpeg" if device is None else "on this device"
            raise ValueError(f"no decoder {decoder.name!r} {where}: {error}") from error
        options = {"err_detect": "explode"} if strict else {}
        if ahead:
            context.thread_type = "SLICE" if in_parts else "AUTO"
            context.thread_count = threads
            if in_parts and decoder.name in _WITH_OWN_THREADS:
                options["max_frame_delay"] = "1"
        else:
            context.thread_count = 1
        context.options = options
        self._use(context)
        self._form = _FORMS.get(decoder.name, decoder.name)
        self._orientation = decoder.orientation

    def begin_again(self) -> None:
        """Take packets once more, beginning with a key frame. What decodes them knows nothing before
        it, but is not as new: its memory may be another."""
        self._context.flush_buffers()

    def _use(self, context: Any) -> None:
        import av

        self._context = context
        self._held: list[Any] = []
        self._letting_go: list[LetGo] = []
        """For the pictures of `_held`."""
        self._failed = av.error.FFmpegError
        self._ended = av.error.EOFError
        self._packet = av.Packet
        self._form = ""
        self._orientation = UPRIGHT
        self._turned: dict[int, int] = {}
        """By number, which way up packets say themselves that their pictures are shown."""
        self._displays: dict[int, Display] = {}
        """By number, what packets say of that for the pictures after them too."""
        self._display: int | None = None
        """What holds of it now."""
        self._has_display = False
        """Whether any packet said it: FFmpeg then says it of pictures of which it does not hold."""

    @property
    def lasts(self) -> bool:
        """Whether pictures may be kept: False, see `Take`."""
        return False

    @property
    def reorder(self) -> int:
        """How many pictures it holds back for their order, as far as it knows until now."""
        return int(self._context.reorder_depth)

    def decode(self, number: int, data: bytes | memoryview, take: Take, *, is_key: bool) -> bool:
        """Give the decoder packet `number`; False if it refuses it.

        data: MUST NOT be empty: that would end the stream.
        is_key: what the container says. A PNG that is no key frame is added to the one before.
        """
        # Nothing of Python's may be inside: freeing a decoder with frame threads would wait for ever
        # for them, and they for the GIL. So a copy, not `Packet(data)`; and the number as the time
        # stamp, which a decoder hands on to the picture, not as `opaque`.
        packet = self._packet(len(data))
        packet.update(data)
        packet.pts = packet.dts = number
        packet.is_keyframe = is_key
        orientation = exif_orientation(self._form, data)
        if orientation != UPRIGHT:
            self._turned[number] = orientation
        display = display_of(self._form, data)
        if display is None and is_key and self._has_display and closes(self._form, data):
            display = Display(None, lasts=True)
        if display is not None:
            self._displays[number], self._has_display = display, True
        return self._send(packet, take)

    def drain(self, take: Take) -> bool:
        """Have the pictures come out that are still inside; False if one could not be decoded. The
        decoder takes no packets any more."""
        return self._send(None, take)

    def _note_orientation(self, picture: Any) -> None:
        """Have the picture say which way up it is shown."""
        orientation = self._turned.pop(picture.pts, self._orientation)
        if self._has_display:
            orientation = self._displayed(picture.pts)
        if orientation != UPRIGHT or self._has_display:
            picture.opaque = Noted(
                orientation
            )  # PyAV knows objects by their addresses: one a picture

    def _displayed(self, number: int) -> int:
        """Which way up the next picture is shown, as packets say it."""
        found = self._displays.pop(number, None)
        orientation = self._display if found is None else found.orientation
        if found is None or found.lasts:
            self._display = orientation
        return self._orientation if orientation is None else orientation

    def _send(self, packet: Any, take: Take) -> bool:
        try:
            made: list[Any] = self._context.decode(packet)
        except self._ended:  # drained before
            return True
        except self._failed:
            return False
        for let_go in self._letting_go:
            let_go()
        self._letting_go.clear()
        self._held = made
        for picture in made:
            self._note_orientation(picture)
            later = take(picture.pts, picture)
            if later is not None:
                self._letting_go.append(later)
        return True


class ContainerDecoder(PacketDecoder):
    """Decodes the packets of a container's stream as they are, with what the container says besides
    their bytes.

    context: that of the stream.
    """

    def __init__(self, context: Any) -> None:
        if not context.is_open:
            context.thread_count = 1
        self._use(context)
        self._is_first = True

    def _note_orientation(self, picture: Any) -> None:
        if self._is_first:
            self._is_first = False
            self._orientation = matrix_orientation(picture)
        super()._note_orientation(picture)

    def decode(self, number: int, data: Any, take: Take, *, is_key: bool) -> bool:
        """As for `PacketDecoder`; `data` is the container's packet."""
        data.pts = data.dts = number
        data.is_keyframe = is_key
        return self._send(data, take)
