"""What a log gives out: topics, cycles, messages, pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import msgpack
import numpy as np
from numpy.typing import NDArray

from flowrun.msgs.display import html_fields, png
from flowrun.msgs.image import ImageRgb8Msg
from flowrun.runtime.errors import LogDamaged
from flowrun.runtime.log.slab.cycles import Entry
from flowrun.runtime.log.slab.faults import is_cut
from flowrun.runtime.log.slab.format import CODEC, NO_PAYLOAD, PAYLOAD
from flowrun.runtime.log.slab.reader import SlabReader
from flowrun.runtime.log.values import decode
from flowrun.runtime.pictures.planar import Kept, PlanarPicture
from flowrun.runtime.pictures.stored import StoredPicture
from flowrun.runtime.wording import listed, nearest

if TYPE_CHECKING:
    from flowrun.runtime.pictures.decode import PictureDecoder

__all__ = ["Bounds", "Frame", "LateLines", "LogMessage", "LoggedCycle", "Range", "Topic"]


@dataclass(frozen=True, slots=True)
class Topic:
    """One stream of messages in the log: an output of a task, or one of the runtime's own."""

    name: str
    message_encoding: str
    schema_name: str
    schema_encoding: str
    schema: bytes = field(repr=False)
    metadata: Mapping[str, str]
    """"task" and "port" of an output."""

    @property
    def is_picture(self) -> bool:
        """Whether its messages are pictures, which `Log.frames` gives out."""
        return (self.message_encoding, self.schema_name) == (
            "protobuf",
            ImageRgb8Msg.schema_name,
        ) or CODEC in self.metadata


class LoggedCycle(NamedTuple):
    """One cycle; `entries` are (topic, tov_ns, payload) in the order in which they were published.

    Payloads are read-only views of the mapped file: copy what shall outlive the log.
    """

    cycle: int
    time_ns: int
    entries: list[Entry]


class LateLines(LoggedCycle):
    """Log lines whose cycle never came, or is damaged: `cycle` is the number that it would have."""

    __slots__ = ()


class Bounds(TypedDict, total=False):
    """start <= cycle < end and start_ns <= time < end_ns; None and what is left out is no bound."""

    start: int | None
    end: int | None
    start_ns: int | None
    end_ns: int | None


@dataclass(frozen=True, slots=True)
class Range:
    """Some of the cycles of a log; the bounds are those of `Bounds`."""

    start: int | None = None
    end: int | None = None
    start_ns: int | None = None
    end_ns: int | None = None

    @property
    def is_everything(self) -> bool:
        return self.begins_with_log and self.end is None and self.end_ns is None

    @property
    def begins_with_log(self) -> bool:
        return self.start is None and self.start_ns is None

    def contains(self, cycle: int, time_ns: int) -> bool:
        return not self.is_over(cycle, time_ns) and (
            (self.start is None or cycle >= self.start)
            and (self.start_ns is None or time_ns >= self.start_ns)
        )

    def is_over(self, cycle: int, time_ns: int) -> bool:
        """Whether this cycle and all that follow are past the end."""
        return (self.end is not None and cycle >= self.end) or (
            self.end_ns is not None and time_ns >= self.end_ns
        )


class Frame(NamedTuple):
    """One picture; `pixels` is a read-only uint8 array (height, width, 3): of a topic without a codec
    a view of the mapped file."""

    cycle: int
    tov_ns: int
    pixels: NDArray[np.uint8]

    def _repr_html_(self) -> str:
        return html_fields(f"Frame of cycle {self.cycle}", self._asdict(), self._repr_png_())

    def _repr_png_(self) -> bytes:
        return png(self.pixels)


class LogMessage:
    """One message of the log.

    payload: its bytes, a read-only view of the mapped file; zeros, if another program cuts the file
        while the view is held, which the next reading of the log says.
    """

    __slots__ = ("_decoders", "_slab", "cycle", "payload", "time_ns", "topic", "tov_ns")

    def __init__(
        self,
        slab: SlabReader,
        topic: str,
        cycle: int,
        time_ns: int,
        tov_ns: int,
        payload: memoryview,
        decoders: Callable[[str], PictureDecoder],
    ) -> None:
        self._slab = slab
        self._decoders = decoders
        self.topic = topic
        self.cycle = cycle
        self.time_ns = time_ns
        self.tov_ns = tov_ns
        self.payload = payload

    if not TYPE_CHECKING:  # a checker would take every name for an attribute

        def __getattr__(self, name: str) -> Any:
            text = f"{type(self).__name__!r} object has no attribute {name!r}"
            if name.startswith("_"):
                raise AttributeError(text)
            fields = self.outline
            hint = (
                f"; a field is message.fields[{name!r}]"
                if name in fields
                else f"; fields: {listed(fields)}{nearest(name, fields)}"
            )
            raise AttributeError(text + hint)

    @property
    def fields(self) -> dict[str, Any]:
        """The message's fields, decoded by what the log says of its encoding, at each call.

        None of a topic of which the log keeps no payloads. Arrays are views of the file, but of a
        picture that a codec stored. Protobuf messages other than pictures and log lines come as
        field number -> value. Raises `LogError` for bytes that are not of that encoding, and for a
        picture that what is stored does not give back bit for bit.
        """
        preamble = self._slab.preamble
        channel = preamble.channel_of[self.topic]
        if channel.metadata.get(PAYLOAD) == NO_PAYLOAD:
            return {}
        if CODEC in channel.metadata:
            fields = self.deferred
            kept = fields["pixels"]
            return {**fields, "pixels": kept.made() if isinstance(kept, PlanarPicture) else kept}
        schema = preamble.schemas.get(channel.schema_id)
        try:
            fields = decode(self.payload, channel.message_encoding, schema.name if schema else "")
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            self._check_uncut()
            raise LogDamaged(
                f"{self._slab.path}: cycle {self.cycle}: {self.topic}: the payload of "
                f"{len(self.payload)} bytes is not {channel.message_encoding}: {error}"
            ) from error
        self._check_uncut()
        return fields

    def _check_uncut(self) -> None:
        if is_cut(self.payload):
            raise LogDamaged(
                f"{self._slab.path}: cycle {self.cycle}: {self.topic}: another program cut the file "
                "while it was read"
            )

    @property
    def deferred(self) -> dict[str, Any]:
        """`fields` for `Message.restore`: a picture is decoded, and its pixels are made when somebody
        reads them, where the log says how."""
        channel = self._slab.preamble.channel_of[self.topic]
        if CODEC not in channel.metadata:
            return self.fields
        return self._picture(lambda it: self._decoders(self.topic).picture(self.cycle, it))

    @property
    def outline(self) -> dict[str, Any]:
        """`fields`, where a picture need not be decoded: its pixels are then zeros that take no
        memory, of the right shape."""
        channel = self._slab.preamble.channel_of[self.topic]
        if CODEC not in channel.metadata:
            return self.fields
        return self._picture(lambda it: np.broadcast_to(np.uint8(0), (*it.own["size"], 3)))

    def _picture(self, decode: Callable[[StoredPicture], Kept]) -> dict[str, Any]:
        try:
            picture = StoredPicture.parse(self.payload)
            return picture.fields(decode(picture))
        except ValueError as error:
            raise LogDamaged(
                f"{self._slab.path}: cycle {self.cycle}: {self.topic}: the picture cannot be "
                f"decoded: {error}"
            ) from error

    def _repr_html_(self) -> str:
        title = f"{self.topic}, cycle {self.cycle}"
        shown = {"time_ns": self.time_ns, "tov_ns": self.tov_ns}
        return html_fields(title, self.fields | shown, self._repr_png_())

    def _repr_png_(self) -> bytes | None:
        """The picture; None for a message that is none."""
        pixels = self.fields.get("pixels")
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
            return None
        return png(pixels) if pixels.shape[2:] == (3,) else None

    def __repr__(self) -> str:
        return (
            f"LogMessage({self.topic!r}, cycle={self.cycle}, time_ns={self.time_ns}, "
            f"tov_ns={self.tov_ns}, {len(self.payload)} bytes)"
        )
