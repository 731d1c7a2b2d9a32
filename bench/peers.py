"""The other writers and readers of recordings that the log is measured against.

Each writes the same messages: a writer is made for a new folder and the sizes at hand, `write` takes
what one cycle brings, `close` ends the file. Each message is encoded inside `write`, by msgpack where
it is small; pictures are handed over as they are. None compresses, as a raw picture would not shrink,
except those labelled "defaults", which use their own default: zstd.
What is not installed is left out, with the name of its package: `pip install -e .[bench]`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgpack

__all__ = ["READERS", "WRITERS", "PeerWriter", "missing"]

_ENCODING = "msgpack"


class PeerWriter(Protocol):
    """Writes one file. `write` takes one message for each topic."""

    def write(self, time_ns: int, messages: Sequence[Any]) -> None: ...

    def close(self) -> None: ...


_pack = msgpack.Packer(use_bin_type=True).pack  # twice as fast as `packb`, which makes a new one


def pack_fields(message: Any) -> bytes:
    data: bytes = _pack(message.__dict__)
    return data


def pack_pixels(message: Any) -> memoryview:
    return memoryview(message.pixels).cast("B")


Encode = Callable[[Any], Any]
MakeWriter = Callable[[Path, Sequence[str], Encode], PeerWriter]


class PlainFile:
    """What is written when nothing is needed: the payloads, one after the other."""

    def __init__(self, folder: Path, topics: Sequence[str], encode: Encode) -> None:
        del topics
        self._encode = encode
        self._file = (folder / "plain").open("wb")

    def write(self, time_ns: int, messages: Sequence[Any]) -> None:
        del time_ns
        write, encode = self._file.write, self._encode
        for message in messages:
            write(encode(message))

    def close(self) -> None:
        self._file.close()


class McapWriter:
    """The `mcap` package; chunked: None for its defaults."""

    def __init__(
        self, folder: Path, topics: Sequence[str], encode: Encode, *, chunked: bool | None
    ) -> None:
        from mcap.writer import CompressionType, Writer

        self._encode = encode
        options = (
            {}
            if chunked is None
            else {"compression": CompressionType.NONE, "use_chunking": chunked}
        )
        self._writer = Writer(str(folder / "peer.mcap"), **options)
        self._writer.start()
        self._channels = [self._writer.register_channel(name, _ENCODING, 0) for name in topics]

    def write(self, time_ns: int, messages: Sequence[Any]) -> None:
        add, encode = self._writer.add_message, self._encode
        for channel, message in zip(self._channels, messages, strict=True):
            add(channel, time_ns, encode(message), time_ns)

    def close(self) -> None:
        self._writer.finish()


class RosbagsWriter:
    """rosbags' rosbag2 writer; storage: "MCAP" or "SQLITE3"."""

    def __init__(
        self, folder: Path, topics: Sequence[str], encode: Encode, *, storage: str
    ) -> None:
        from rosbags.rosbag2 import StoragePlugin, Writer
        from rosbags.typesys import Stores, get_typestore

        self._encode = encode
        self._writer = Writer(folder / "bag", version=9, storage_plugin=StoragePlugin[storage])
        self._writer.open()
        store = get_typestore(Stores.ROS2_JAZZY)
        self._connections = [
            self._writer.add_connection(name, "std_msgs/msg/UInt8MultiArray", typestore=store)
            for name in topics
        ]

    def write(self, time_ns: int, messages: Sequence[Any]) -> None:
        write, encode = self._writer.write, self._encode
        for connection, message in zip(self._connections, messages, strict=True):
            write(connection, time_ns, encode(message))

    def close(self) -> None:
        self._writer.close()


class FoxgloveWriter:
    """foxglove-sdk, whose writer is Rust; plain: without compression."""

    def __init__(self, folder: Path, topics: Sequence[str], encode: Encode, *, plain: bool) -> None:
        import foxglove
        from foxglove.mcap import MCAPWriteOptions

        self._context = foxglove.Context()
        # The pixels it takes are `bytes` only: the copy is part of what it costs.
        self._encode = encode if encode is pack_fields else lambda message: bytes(encode(message))
        self._writer = foxglove.open_mcap(
            folder / "peer.mcap",
            context=self._context,
            writer_options=MCAPWriteOptions(compression=None) if plain else None,
        )
        schema = foxglove.Schema(name="Peer", encoding="jsonschema", data=b'{"type":"object"}')
        self._log = [
            foxglove.Channel(
                name, schema=schema, message_encoding=_ENCODING, context=self._context
            ).log
            for name in topics
        ]

    def write(self, time_ns: int, messages: Sequence[Any]) -> None:
        encode = self._encode
        for log, message in zip(self._log, messages, strict=True):
            log(encode(message), log_time=time_ns)

    def close(self) -> None:
        self._writer.close()


def _mcap(*, chunked: bool | None) -> MakeWriter:
    return lambda folder, topics, encode: McapWriter(folder, topics, encode, chunked=chunked)


def _foxglove(*, plain: bool) -> MakeWriter:
    return lambda folder, topics, encode: FoxgloveWriter(folder, topics, encode, plain=plain)


def _rosbags(storage: str) -> MakeWriter:
    return lambda folder, topics, encode: RosbagsWriter(folder, topics, encode, storage=storage)


WRITERS: dict[str, tuple[str, MakeWriter]] = {
    "file.write": ("", PlainFile),
    "foxglove-sdk": ("foxglove", _foxglove(plain=True)),
    "foxglove-sdk, defaults": ("foxglove", _foxglove(plain=False)),
    "mcap, unchunked": ("mcap", _mcap(chunked=False)),
    "mcap, chunked": ("mcap", _mcap(chunked=True)),
    "mcap, defaults": ("mcap", _mcap(chunked=None)),
    "rosbags, mcap": ("rosbags", _rosbags("MCAP")),
    "rosbags, sqlite": ("rosbags", _rosbags("SQLITE3")),
}
"""Label -> module that must be installed, and the writer."""


def read_mcap(folder: Path) -> Iterator[Any]:
    """The `mcap` package's reader: the payload of each message, in the order of time."""
    from mcap.reader import make_reader

    with (folder / "peer.mcap").open("rb") as file:
        for _, _, message in make_reader(file).iter_messages():
            yield message.data


def read_mcap_in_file_order(folder: Path) -> Iterator[Any]:
    """The same as it lies in the file, with the chunks' CRCs checked: its fastest way."""
    from mcap.reader import make_reader

    with (folder / "peer.mcap").open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        for _, _, message in reader.iter_messages(log_time_order=False):
            yield message.data


def read_rosbags(folder: Path) -> Iterator[Any]:
    from rosbags.rosbag2 import Reader

    with Reader(folder / "bag") as reader:
        for _, _, data in reader.messages():
            yield data


READERS: dict[str, tuple[str, str, Callable[[Path], Iterator[Any]]]] = {
    "mcap, by time": ("mcap", "mcap, chunked", read_mcap),
    "mcap, file order, CRC": ("mcap", "mcap, chunked", read_mcap_in_file_order),
    "rosbags, mcap": ("rosbags", "rosbags, mcap", read_rosbags),
    "rosbags, sqlite": ("rosbags", "rosbags, sqlite", read_rosbags),
}
"""Label -> module that must be installed, the writer whose file it reads, and the reader."""


def missing(module: str) -> bool:
    return bool(module) and importlib.util.find_spec(module) is None
