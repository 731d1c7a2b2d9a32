"""The logs that the fuzzer begins with, and what is in them.

Made byte by byte, written by the writer with slabs and chunks of some KiB, and recorded by runs of
graphs: every codec and encoding, one slab and several, a flight recorder's, finished and as a killed
writer leaves them.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from zlib_ng.zlib_ng import crc32

from flowrun.msgs import BytesMsg, ImageRgb8Msg, IntMsg, TextMsg
from flowrun.msgs.image import VideoDecoder, VideoPackets
from flowrun.runtime.events import Set
from flowrun.runtime.log import writer as log_writer
from flowrun.runtime.log.channels import LoggedOutput
from flowrun.runtime.log.reader import Log, LoggedCycle
from flowrun.runtime.log.slab import writer as log_slab
from flowrun.runtime.log.writer import LogWriter
from flowrun.runtime.pictures.planar import PlanarPicture, kept
from flowrun.runtime.pictures.video import PacketDecoder
from support import films, helpers
from support.log_bytes import small

CYCLES = 24
PICTURES = ("raw", "zstd", "ffv1", "packets")
NAME = "log_0000.mcap"

Made = list[tuple[LoggedOutput, Callable[[int], Any]]]
"""What a run logs, and what makes the message of a cycle."""
Cycle = tuple[int, tuple[tuple[str, int, bytes], ...]]
"""Time, and topic, tov_ns and payload of each message."""


@dataclass(frozen=True)
class Slab:
    """A file; preamble: what comes before its cycles; channels: topic -> id, encoding."""

    data: bytes
    preamble: bytes
    channels: dict[str, tuple[int, str]]
    numbers: list[int]
    """Of its cycles."""


@dataclass(frozen=True)
class Original:
    """A whole log: its files, and what is in them."""

    name: str
    slabs: dict[str, Slab]
    cycles: dict[int, Cycle] = field(repr=False)
    pixels: dict[tuple[int, str], int] = field(repr=False)
    """CRC of the picture of each cycle and topic."""

    @property
    def run(self) -> str:
        """What the states of one run have in common: a cycle of one can be read in another."""
        return self.name.partition(",")[0]


def plain(record: LoggedCycle) -> Cycle:
    return record.time_ns, tuple((topic, tov, bytes(data)) for topic, tov, data in record.entries)


def originals(folder: Path) -> list[Original]:
    """All of them; `folder` is for their files."""
    return [*built(folder / "built"), *written(folder / "written"), *recorded(folder / "recorded")]


def _original(run: Path, name: str) -> Original:
    with Log(run) as log:
        slabs = {
            slab.path.name: Slab(
                slab.path.read_bytes(),
                bytes(slab.view[: slab.preamble.size]),
                {it.topic: (it.id, it.message_encoding) for it in slab.preamble.channels.values()},
                [
                    head.cycle
                    for index in range(len(slab.structure.chunks))
                    for head in slab.cycles.heads(index)
                ],
            )
            for slab in log.slabs
        }
        cycles = {record.cycle: plain(record) for record in log.records()}
        pixels = {
            (message.cycle, message.topic): crc32(message.fields["pixels"].tobytes())
            for message in log.messages([name for name, it in log.topics.items() if it.is_picture])
        }
        assert log.loss is None
    return Original(name, slabs, cycles, pixels)


# -- made byte by byte ---------------------------------------------------------------------------


def built(folder: Path) -> list[Original]:
    """Small ones, without any code of the writer."""
    folder.mkdir(parents=True)
    made = []
    for big in (0, 5000):
        for first, cycles in ((0, 9), (0, 4)):
            end = {"reason": "test", "cycles": str(cycles), "ended_ns": "5"}
            whole = small(first=first, cycles=cycles, big=big).finish(end)
            left = small(first=first, cycles=cycles, big=big + 1).leave_open()
            for state, builder in (("finished", whole), ("unfinished", left)):
                (folder / NAME).write_bytes(builder.data)
                made.append(_original(folder, f"built, {cycles} cycles, big {big}, {state}"))
    return made


# -- recorded ------------------------------------------------------------------------------------


def recorded(folder: Path) -> list[Original]:
    """Runs of graphs."""
    folder.mkdir(parents=True)
    film = films.draw(folder / "film.mp4", size=(32, 16), **{"x264-params": "b-adapt=0:bframes=2"})
    camera = "Camera(limit: 4, width: 16, height: 8)"
    graphs = {
        "made": (
            f"c={camera}; z={camera}@logging: {{codec: zstd}}; f={camera}@logging: {{codec: ffv1}};"
            " r=Read; d=Find; a=Answer@logging: {payload: none}",
            "c > r: ImageRgb8Msg; c > d: ImageRgb8Msg; c > a: ImageRgb8Msg",
        ),
        "numbers": ("n=Numbers(limit: 9); s=Sum; o=Noise", "n > s.a; n > o"),
        "film": (f"v=VideoCapture(source_uri: {film})", ""),
        "killed": ("n=Hooked(limit: 7); s=Sum", "n > s.a"),
    }
    killed = folder / "killed" / NAME
    left: list[bytes] = []
    helpers.Hooked.hook = lambda number: left.append(killed.read_bytes() if number == 5 else b"")
    more = "logging: {slab_size_mib: 1, section_size_mib: 1, keyframe_interval: 4}"
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for name, (tasks, cnx) in graphs.items():
            plan = helpers.plan_of(folder, tasks, cnx, more)
            helpers.record(plan, folder / name, cycles=5 if name == "made" else None)
    killed.write_bytes(left[5])
    return [_original(folder / name, name) for name in graphs]


# -- written -------------------------------------------------------------------------------------


def written(folder: Path) -> list[Original]:
    """Runs of the writer, each as it was left in the middle, and finished."""
    before = log_writer.MIB, log_slab.CHUNK_SIZE, log_slab._LOOK_AHEAD
    made = []
    try:
        log_slab._LOOK_AHEAD = 8 << 10
        for name, outputs, size, chunk, more in (
            ("small", _small_outputs, 64 << 10, 900, {}),
            ("slabs", _small_outputs, 8 << 10, 1500, {}),
            ("ring", _small_outputs, 8 << 10, 1500, {"keep_slabs": 2}),
            ("pictures", _picture_outputs, 256 << 10, 6000, {}),
        ):
            log_writer.MIB, log_slab.CHUNK_SIZE = size, chunk
            made += _written(folder / name, outputs(), more)
    finally:
        log_writer.MIB, log_slab.CHUNK_SIZE, log_slab._LOOK_AHEAD = before
    return made


def _written(run: Path, outputs: Made, more: dict[str, Any]) -> list[Original]:
    writer = LogWriter(
        run,
        outputs=[output for output, _ in outputs],
        steps=2,
        metadata={"run_id": run.name, "graph": "g"},
        slab_size_mib=1,
        section_size_mib=1,
        **more,
    )
    found = []
    for cycle in range(CYCLES):
        messages = [make(cycle) for _, make in outputs]
        events = [Set("t", {"k": cycle})] if cycle % 7 == 3 else []
        if cycle % 5 == 2:
            writer.log_record(1000 + cycle, "info", f"line {cycle}", "t", {"n": cycle, "w": [1.5]})
        writer.commit(
            cycle,
            1_000_000 + 1000 * cycle,
            writer.bind(messages),
            start_ns=cycle,
            ends_ns=[cycle + 1, cycle + 2],
            events=events,
        )
        if cycle == CYCLES - 5:
            writer._slabs._wait_for_finished()
            found.append(_original(run, f"{run.name}, unfinished"))
    writer.finish({"reason": "end of sources", "cycles": str(CYCLES), "ended_ns": "5"})
    found.append(_original(run, f"{run.name}, finished"))
    return found


def _small_outputs() -> Made:
    def number(cycle: int) -> IntMsg:
        message = IntMsg(value=cycle * cycle)
        message.publish(tov_ns=cycle)
        return message

    def words(cycle: int) -> TextMsg:
        message = TextMsg(value="word " * (cycle % 9))
        if cycle % 3:
            message.publish(tov_ns=cycle + 1)
        return message

    def grid(cycle: int) -> helpers.GridMsg:
        message = helpers.GridMsg(grid=np.full((cycle % 4, 2), cycle, np.float32), note="n")
        message.publish(tov_ns=cycle + 2)
        return message

    def large(cycle: int) -> BytesMsg:
        message = BytesMsg(value=bytes([cycle]) * (5000 if cycle % 11 == 5 else 3))
        message.publish()
        return message

    return [
        (LoggedOutput("n", "number", "/n/number", IntMsg), number),
        (LoggedOutput("w", "words", "/w/words", TextMsg), words),
        (LoggedOutput("g", "grid", "/g/grid", helpers.GridMsg), grid),
        (LoggedOutput("b", "data", "/b/data", BytesMsg), large),
        (LoggedOutput("q", "quiet", "/q/quiet", IntMsg, payload=False), number),
    ]


def _picture_outputs() -> Made:
    film = _film()

    def maker(codec: str) -> Callable[[int], ImageRgb8Msg]:
        def picture(cycle: int) -> ImageRgb8Msg:
            kept, video = film[cycle]
            message = ImageRgb8Msg(
                frame_id=cycle,
                pts=None if codec == "zstd" else cycle,
                fps=30.0,
                source="test",
            )
            if codec == "packets":
                message.show(kept)
                message.video = video
            else:
                message.pixels = kept.made()
            message.publish(tov_ns=cycle)
            return message

        return picture

    return [
        (LoggedOutput(codec, "image", f"/{codec}/image", ImageRgb8Msg, codec=codec), maker(codec))
        for codec in PICTURES
    ]


def _film() -> list[tuple[PlanarPicture, VideoPackets]]:
    """The pictures of a small film of MPEG-4, with the packets that give them."""
    import av

    encoder: Any = av.CodecContext.create("mpeg4", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 32, 16, "yuv420p"
    encoder.framerate, encoder.gop_size, encoder.max_b_frames = 30, 6, 0
    packets = []
    for cycle in range(CYCLES):
        drawn = np.full((16, 32, 3), 10 * cycle % 256, np.uint8)
        drawn[:, cycle % 32] = 255
        packets += encoder.encode(av.VideoFrame.from_ndarray(drawn, format="rgb24"))
    packets += encoder.encode(None)
    described = VideoDecoder(
        "mpeg4",
        bytes(encoder.extradata or b""),
        32,
        16,
        "yuv420p",
        tag="",
        bits=0,
        reorder=0,
        color=(2, 0),
    )
    decoder, made = PacketDecoder(described), []
    decoded: list[PlanarPicture] = []

    def take(number: int | None, picture: Any) -> None:
        assert number == len(decoded)
        found = kept(picture)
        assert isinstance(found, PlanarPicture)
        decoded.append(found)

    for number, packet in enumerate(packets):
        assert decoder.decode(number, bytes(packet), take, is_key=packet.is_keyframe)
        assert len(decoded) == number + 1
    for number, (picture, packet) in enumerate(zip(decoded, packets, strict=True)):
        video = VideoPackets(
            described,
            ((bytes(packet), bool(packet.is_keyframe)),),
            number,
            number,
            0,
            begins=number == 0,
            drained=False,
        )
        made.append((picture, video))
    return made
