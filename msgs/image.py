"""Pictures: stored as `foxglove.RawImage`, so that Foxglove and Rerun show a run as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    NamedTuple,
    Protocol,
    Self,
    SupportsIndex,
    cast,
)

import msgpack
import numpy as np
from numpy.typing import NDArray

from flowrun.msgs import protobuf
from flowrun.msgs.envelope import NOTHING_LATER, Later
from flowrun.msgs.fields import Buffer, MessageTypeError, Shape
from flowrun.msgs.message import Message, worded
from flowrun.msgs.scaling import luma_of, resized_pixels
from flowrun.msgs.values import as_stored

__all__ = ["DecodedPicture", "ImageRgb8Msg", "UnseenPacket", "VideoDecoder", "VideoPackets"]

# The field numbers of foxglove.RawImage, then our own, which every protobuf reader skips.
_TIMESTAMP, _WIDTH, _HEIGHT, _ENCODING, _STEP, _DATA, _FRAME_ID = 1, 2, 3, 4, 5, 6, 7
_FLOWRUN = 1000

_pack = msgpack.Packer().pack


@dataclass(frozen=True, slots=True)
class VideoDecoder:
    """What a decoder must know before it gets a source's first packet.

    name: FFmpeg's name of the decoder.
    extradata: bytes that are not in the packets; b"" where the packets hold everything.
    width, height: the size of the picture in pixels.
    pixel_format: FFmpeg's name of the decoder's pixel format.
    tag: the container's four letters for the codec; "" where there are none.
    bits: bits of a pixel as the container says; 0 where it does not.
    reorder: how many pictures the decoder holds back for their order, as far as is known before.
    color: FFmpeg's numbers of the colour space and range that the container says.
    orientation: which way up the container says that pictures are shown, by EXIF's numbers.
    """

    name: str
    extradata: bytes
    width: int
    height: int
    pixel_format: str
    tag: str
    bits: int
    reorder: int
    color: tuple[int, int]
    orientation: int = 1


class UnseenPacket(NamedTuple):
    """A compressed packet of which no picture was decoded.

    time_ns: when its picture is shown, in nanoseconds on its stream's own clock; None where the stream
        does not say.
    """

    data: bytes | memoryview
    is_key: bool
    time_ns: int | None


class VideoPackets(NamedTuple):
    """The compressed packets of a picture, which the log can keep instead of its pixels.

    A decoder that got the packets of a section, from its first one up to these, in one thread, has
    given the picture by the last of them.

    packets: (bytes, is a key frame), in decoding order: all that the source's decoder got after those
        of the previously published picture, until it gave this one. They include packets of pictures
        that were never published, because later ones refer to them.
    first: the number of the first of them at the source.
    number: the number of the picture's own packet; it may be less than `first`, since pictures do not
        come in decoding order.
    section: how often the decoder has started over, as at key frames.
    begins: whether the first packet is the first one of its section.
    drained: whether the picture came when the section was at its end, after all its packets.
    conversion: the number of the one that made its pixels, of a picture that an older log gave; None:
        that of today.
    before: packets of earlier sections, of which no picture was decoded.
    time_ns: as of `UnseenPacket`, of the picture's own packet; None also where all pictures are decoded.
    is_sure: False where decoding them again may give another picture, so that the log must have the
        picture besides.
    is_damaged: whether packets that the picture may need are known to be missing or damaged: a decoder
        other than the source's may make another picture of them.
    """

    decoder: VideoDecoder
    packets: tuple[tuple[bytes, bool], ...]
    first: int
    number: int
    section: int
    begins: bool
    drained: bool
    conversion: int | None = None
    before: tuple[UnseenPacket, ...] = ()
    time_ns: int | None = None
    is_sure: bool = True
    is_damaged: bool = False

    @property
    def with_unseen(self) -> list[tuple[bytes | memoryview, bool]]:
        """All that came, as `packets`: those `before` too."""
        if not self.before:
            return list(self.packets)
        return [*((it.data, it.is_key) for it in self.before), *self.packets]


class DecodedPicture(Later, Protocol):
    """A picture as its decoder gave it; `made` gives its pixels. For any thread.

    height, width: of the pixels.
    """

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    def luma(self) -> NDArray[np.uint8]:
        """As `ImageRgb8Msg.luma`."""
        ...

    def resized(self, width: int, height: int) -> NDArray[np.uint8]:
        """As `ImageRgb8Msg.resized`."""
        ...


class ImageRgb8Msg(Message):
    """A picture: 8 bits a channel, RGB.

    pixels: uint8 of shape (height, width, 3), C-contiguous. The slot's own array (`allocate_pixels`),
        one that the task hands over, or one that it sets, which publishing copies. Those of a video
        are made when somebody first reads them, once for all who do; `luma` and `resized` cost less.
    frame_id: number of the frame at its source, counted from 0, skipped frames included.
    pts: presentation time stamp in the container's own units, None where there is none.
    fps: nominal frames per second of the source, 0 where unknown.
    source: which camera, file or task made it; never holds credentials.
    pixel_aspect: width of a pixel divided by its height; not 1 for anamorphic film and DVDs, whose
        pictures are to be shown that much wider.

    video: the source's own packets of this picture, None where there are none. It is no field: it is
        for the log, and for tasks that `acts_outside`; a replay has none.
    """

    __slots__ = ("_own_picture",)

    pixels: Annotated[NDArray[np.uint8], Shape("H W 3")]
    frame_id: int
    pts: int | None
    fps: float
    source: str
    pixel_aspect: float = 1.0

    schema_name: ClassVar[str] = "foxglove.RawImage"
    schema_encoding: ClassVar[str] = "protobuf"
    message_encoding: ClassVar[str] = "protobuf"

    def __init__(self, **fields: Any) -> None:
        self._own_picture: DecodedPicture | None = None
        super().__init__(**fields)

    if not TYPE_CHECKING:  # a checker would take every name for an attribute

        def __getattr__(self, name: str) -> Any:
            """`pixels`, where nobody has read them before."""
            picture = self.picture if name == "pixels" else None
            if picture is None:
                return super().__getattr__(name)
            return self.envelope.make(name) if self.is_view else picture.made()

    @property
    def video(self) -> VideoPackets | None:
        """See the class."""
        return cast("VideoPackets | None", self.envelope.beside)

    @video.setter
    def video(self, packets: VideoPackets | None) -> None:
        self.envelope.beside = packets

    @property
    def picture(self) -> DecodedPicture | None:
        """What `pixels` are made of; None where there is nothing but them."""
        if self.is_view:
            return cast("DecodedPicture | None", self.envelope.later.get("pixels"))
        return None if "pixels" in self.__dict__ else self._own_picture

    @property
    def height(self) -> int:
        """Rows of `pixels`."""
        picture = self.picture
        return int(self.pixels.shape[0]) if picture is None else picture.height

    @property
    def width(self) -> int:
        """Columns of `pixels`."""
        picture = self.picture
        return int(self.pixels.shape[1]) if picture is None else picture.width

    @property
    def luma(self) -> NDArray[np.uint8]:
        """The brightness, uint8 (height, width): a new array, made at each reading.

        Of a video it is what its decoder gave, from 16 to 235 where that is the range of its colours,
        the upper 8 bits where there are more; no pixels are made. Of other pictures, and where the log
        stores pixels, it is computed of these, from 0 to 255. A replay gives the same.
        """
        picture = self.picture
        return luma_of(self.pixels) if picture is None else picture.luma()

    def resized(self, width: int, height: int) -> NDArray[np.uint8]:
        """The picture as uint8 (height, width, 3), a new array.

        A video is scaled before it is converted, so that no larger pixels are made; of other pictures,
        and where the log stores pixels, these are scaled. A replay gives the same.

        Made smaller, each pixel is the mean of those around it; made larger, it is in between its
        neighbours. `ValueError` where one of the sizes is below 1.
        """
        picture = self.picture
        if picture is None:
            return resized_pixels(self.pixels, width, height)
        return picture.resized(width, height)

    def show(self, picture: DecodedPicture) -> None:
        """Set `pixels` to those of `picture`, to be made when somebody first reads them; at once where
        the log will hold nothing else."""
        if self.envelope.defers:
            self._defer(picture)
        else:
            self.hand_over("pixels", picture.made())

    def describe_as(self, image: ImageRgb8Msg) -> None:
        """Set all fields but `pixels` to those of `image`, the picture that this one is made of."""
        self.frame_id, self.pts, self.fps = image.frame_id, image.pts, image.fps
        self.source, self.pixel_aspect = image.source, image.pixel_aspect

    def _defer(self, picture: DecodedPicture) -> None:
        self.__dict__.pop("pixels", None)
        self._own_picture = picture

    def clear(self) -> None:
        self._own_picture = None
        self.envelope.beside = None
        self.envelope.later = NOTHING_LATER
        super().clear()

    def restore(self, fields: Mapping[str, Any], *, tov_ns: int) -> None:
        """As `Message.restore`; `fields["pixels"]` may be a `DecodedPicture`."""
        picture = fields.get("pixels")
        if picture is not None and not isinstance(picture, np.ndarray):
            self._defer(picture)
            fields = {name: value for name, value in fields.items() if name != "pixels"}
        super().restore(fields, tov_ns=tov_ns)

    def copy(self) -> Self:
        other = super().copy()
        picture = self.picture
        if picture is not None:
            other._defer(picture)  # noqa: SLF001  # of this class
            if self.present:
                other.envelope.defer({"pixels": picture})
        return other

    def fill(self, other: Message) -> None:
        super().fill(other)
        picture = other.picture if isinstance(other, ImageRgb8Msg) else None
        if picture is not None:
            self.show(picture)

    def all_fields(self) -> dict[str, Any]:
        if self.picture is None:
            return super().all_fields()
        return {name: getattr(self, name) for name in self.defaults}

    def __repr__(self) -> str:
        picture = self.picture
        if picture is None:
            return super().__repr__()
        outline = np.broadcast_to(np.uint8(0), (picture.height, picture.width, 3))
        return worded(type(self).__name__, {"pixels": outline, **self.__dict__})

    def _repr_html_(self) -> str:
        from flowrun.msgs.display import html_fields  # for notebooks only

        fields = {name: getattr(self, name) for name in self.defaults}
        shown = {**fields, "tov_ns": self.tov_ns}
        return html_fields(type(self).__name__, shown, self._repr_png_())

    def _repr_png_(self) -> bytes:
        from flowrun.msgs.display import png

        return png(self.pixels)

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        picture = self.picture
        if picture is None:
            return super().__reduce_ex__(protocol)
        fields = {name: value for name, value in self.__dict__.items() if name != "pixels"}
        return _unpickled, (self._writer, fields, picture, self.tov_ns if self.present else None)

    def _checked(self) -> tuple[bytes | None, dict[str, Any]]:
        picture = self.picture
        if picture is None:
            return super()._checked()
        own = self.__dict__
        if self._writer is ImageRgb8Msg and own.keys() == _BESIDES_PIXELS.keys():
            if ImageRgb8Msg.gives_back(own):
                return None, {name: own[name] for name in _BESIDES_PIXELS}
            return as_stored(type(self).__name__, own, _BESIDES_PIXELS)
        own["pixels"] = self.defaults["pixels"]
        try:
            packed, fields = super()._checked()
        finally:
            del own["pixels"]
        del fields["pixels"]
        return packed, fields

    def _show(self, tov_ns: SupportsIndex) -> None:
        picture = self.picture
        super()._show(tov_ns)
        self.envelope.defer(NOTHING_LATER if picture is None else {"pixels": picture})

    def allocate_pixels(self, height: int, width: int) -> NDArray[np.uint8]:
        """The slot's own (height, width, 3) array for writing; its old contents are undefined."""
        return self.allocate("pixels", (height, width, 3))

    def checked_pixels(self) -> NDArray[np.uint8]:
        """`pixels`, C-contiguous; `MessageTypeError` names a field of the message that is wrong."""
        if not self.is_view:
            self._checked()
        return np.ascontiguousarray(self.pixels)

    def pack_front(
        self, own: Any, fields: Sequence[bytes], *, source: int, data: int, size: int
    ) -> bytes:
        """A Foxglove protobuf message, up to the contents of its last field.

        Raises `MessageTypeError` if one of the message's fields does not fit.

        own: values that the schema has no field for; packed by msgpack.
        fields: the packed fields besides the time stamp, the source and the data.
        source: the number of the field that names the source.
        data: the number of the last field.
        size: the length of its contents in bytes.
        """
        try:
            return b"".join(
                (
                    protobuf.timestamp_field(_TIMESTAMP, self.tov_ns),
                    protobuf.text_field(source, self.source),
                    *fields,
                    protobuf.bytes_field(_FLOWRUN, _pack(own)),
                    protobuf.tag_and_length(data, size),
                )
            )
        except (OverflowError, ValueError) as error:  # fps beyond 64 bits, source not UTF-8
            raise MessageTypeError(f"{type(self).__name__}: {error}") from error

    def encode(self) -> tuple[Buffer, ...]:
        pixels = self.checked_pixels()
        height, width = pixels.shape[:2]
        fields = (
            protobuf.fixed32_field(_WIDTH, width),
            protobuf.fixed32_field(_HEIGHT, height),
            protobuf.text_field(_ENCODING, "rgb8"),
            protobuf.fixed32_field(_STEP, width * 3),
        )
        own = [self.frame_id, self.pts, self.fps]
        if self.pixel_aspect != 1:
            own.append(self.pixel_aspect)
        front = self.pack_front(own, fields, source=_FRAME_ID, data=_DATA, size=pixels.size)
        return (front, pixels.data.cast("B") if pixels.size else b"")

    @classmethod
    def decode_fields(cls, data: Buffer) -> dict[str, Any]:
        raw: dict[int, Any] = dict(protobuf.fields(memoryview(data)))
        try:
            frame_id, pts, fps, *aspect = msgpack.unpackb(raw[_FLOWRUN])
            pixels = np.frombuffer(protobuf.contents(raw[_DATA]), np.uint8)
            size = protobuf.number(raw[_HEIGHT]), protobuf.number(raw[_WIDTH])
            return {
                "pixels": pixels.reshape(*size, 3),
                "frame_id": frame_id,
                "pts": pts,
                "fps": fps,
                "source": bytes(protobuf.contents(raw[_FRAME_ID])).decode(),
                "pixel_aspect": aspect[0] if aspect else 1.0,
            }
        except (KeyError, ValueError, TypeError, msgpack.UnpackException) as error:
            raise ValueError(f"not an ImageRgb8Msg: {error!r}") from error

    @classmethod
    def schema(cls) -> bytes:
        return protobuf.descriptor_set(
            "foxglove",
            "RawImage",
            [
                (_TIMESTAMP, "timestamp", "timestamp"),
                (_WIDTH, "width", "fixed32"),
                (_HEIGHT, "height", "fixed32"),
                (_ENCODING, "encoding", "string"),
                (_STEP, "step", "fixed32"),
                (_DATA, "data", "bytes"),
                (_FRAME_ID, "frame_id", "string"),
            ],
        )


_BESIDES_PIXELS = {k: it for k, it in ImageRgb8Msg.field_types.items() if k != "pixels"}
"""The types of the fields that a picture has before its pixels are made."""


def _unpickled(
    kind: type[ImageRgb8Msg], fields: dict[str, Any], picture: DecodedPicture, tov_ns: int | None
) -> ImageRgb8Msg:
    message = kind(**fields)
    message.show(picture)
    if tov_ns is not None:
        message.publish(tov_ns=tov_ns)
    return message
