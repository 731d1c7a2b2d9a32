"""Pictures: stored as `foxglove.RawImage`, so that Foxglove and Rerun show a run as it is."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgpack
import numpy as np
from numpy.typing import NDArray

from flowrun.msgs import protobuf
from flowrun.msgs.message import Buffer, Message, MessageTypeError, Shape

__all__ = ["ImageRgb8Msg"]

# foxglove.RawImage's field numbers, and ours behind them, which every protobuf reader skips.
_TIMESTAMP, _WIDTH, _HEIGHT, _ENCODING, _STEP, _DATA, _FRAME_ID = 1, 2, 3, 4, 5, 6, 7
_FLOWRUN = 1000


class ImageRgb8Msg(Message):
    """A picture: 8 bits a channel, RGB.

    pixels: uint8 of shape (height, width, 3), C-contiguous. Either the slot's own array
        (`allocate_pixels`) or one that the task sets; publishing makes it read-only.
    frame_id: number of the frame at its source, counted from 0, skipped frames included.
    pts: presentation time stamp in the container's own units, None where there is none.
    fps: nominal frames per second of the source, 0 where unknown.
    source: which camera, file or task made it; never holds credentials.
    """

    pixels: Annotated[NDArray[np.uint8], Shape("H W 3")]
    frame_id: int
    pts: int | None
    fps: float
    source: str

    schema_name: ClassVar[str] = "foxglove.RawImage"
    schema_encoding: ClassVar[str] = "protobuf"
    message_encoding: ClassVar[str] = "protobuf"

    @property
    def height(self) -> int:
        """Rows of `pixels`."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns of `pixels`."""
        return int(self.pixels.shape[1])

    def allocate_pixels(self, height: int, width: int) -> NDArray[np.uint8]:
        """The slot's own (height, width, 3) array for writing; its old contents are undefined."""
        return self.allocate("pixels", (height, width, 3))

    def encode(self) -> tuple[Buffer, ...]:
        self._check_types()
        pixels = self.pixels
        if not pixels.flags.c_contiguous:
            pixels = np.ascontiguousarray(pixels)
        height, width = pixels.shape[:2]
        seconds, nanos = divmod(self.tov_ns, 1_000_000_000)
        stamp = protobuf.varint_field(1, seconds % 2**64) + protobuf.varint_field(2, nanos)
        try:
            own = msgpack.packb([self.frame_id, self.pts, self.fps])
            source = protobuf.text_field(_FRAME_ID, self.source)
        except (OverflowError, ValueError) as error:  # fps beyond 64 bits, source not UTF-8
            raise MessageTypeError(f"{type(self).__name__}: {error}") from error
        prefix = b"".join(
            (
                protobuf.bytes_field(_TIMESTAMP, stamp),
                source,
                protobuf.fixed32_field(_WIDTH, width),
                protobuf.fixed32_field(_HEIGHT, height),
                protobuf.text_field(_ENCODING, "rgb8"),
                protobuf.fixed32_field(_STEP, width * 3),
                protobuf.bytes_field(_FLOWRUN, own),
                protobuf.tag_and_length(_DATA, pixels.size),
            )
        )
        return (prefix, pixels.data.cast("B") if pixels.size else b"")

    @classmethod
    def decode_fields(cls, data: Buffer) -> dict[str, Any]:
        raw: dict[int, Any] = dict(protobuf.fields(memoryview(data)))
        try:
            frame_id, pts, fps = msgpack.unpackb(raw[_FLOWRUN])
            pixels = np.frombuffer(raw[_DATA], np.uint8)
            return {
                "pixels": pixels.reshape(raw[_HEIGHT], raw[_WIDTH], 3),
                "frame_id": frame_id,
                "pts": pts,
                "fps": fps,
                "source": bytes(raw[_FRAME_ID]).decode(),
            }
        except (KeyError, ValueError, TypeError) as error:
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
