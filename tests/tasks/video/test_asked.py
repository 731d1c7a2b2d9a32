"""`decode: asked`: the pictures of `decode: all`, decoded when somebody reads them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import av
import numpy as np
import pytest
from PIL import Image

from flowrun.runtime import Log
from flowrun.runtime.log.check import check_log
from flowrun.runtime.pictures.asked import AskedPicture
from flowrun.runtime.pictures.planar import PlanarPicture, kept
from flowrun.runtime.pictures.stored import StoredPicture
from flowrun.runtime.pictures.video import PacketDecoder
from flowrun.runtime.replay.replay import Replay
from flowrun.tasks.video.asked import AskedDecoder
from flowrun.tasks.video.decoding import Counts, SourceDecoder
from flowrun.tasks.video.sections import Emit, Picture
from support import damaged, films, helpers
from support.damaged import Chunk
from support.packets import counted

KINDS = (
    *("h264.mp4", "h264_b.mkv", "h264_b.ts", "h264_open.mkv"),
    *("h264_intra.mkv", "h265.mp4", "jpegs.avi"),
)


class Seen(NamedTuple):
    """What is in the log of a run.

    frames: number, nanoseconds since the first one, and pixels of each picture.
    stored: its own maps. packets: all of them.
    """

    frames: list[tuple[int, int, list[Any]]]
    stored: list[dict[str, Any]]
    packets: list[bytes]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("originals")


def recorded(folder: Path, film: Path, decode: str, task: str | None = "Digest") -> Path:
    """The log of a run in which `task` gets the pictures."""
    folder.mkdir()
    tasks = f"a=VideoCapture(source_uri: {film}, decode: {decode})"
    plan = (
        helpers.plan_of(folder, tasks)
        if task is None
        else helpers.plan_of(folder, f"{tasks}; d={task}", "a > d: ImageRgb8Msg")
    )
    _, result = helpers.record(plan, folder / "run")
    assert result.error is None
    return folder / "run"


def seen(path: Path) -> Seen:
    """Replays it, too."""
    with Log(path) as log:
        assert Replay(log, env={}).run().identical
        assert check_log(log)[2] == []
        messages = list(log.messages("/a/image"))
        pixels = [it.pixels for it in log.frames("/a/image")]
        start_ns = messages[0].tov_ns
        frames = [
            (it.fields["frame_id"], it.tov_ns - start_ns, found.tolist())
            for it, found in zip(messages, pixels, strict=True)
        ]
        pictures = [StoredPicture.parse(it.payload) for it in messages]
        packets = []
        for picture in pictures:
            packets += [bytes(data) for data, _ in picture.before]
            if picture.holds_packets:
                packets += [bytes(it.data) for it in picture.packets]
        return Seen(frames, [it.own for it in pictures], packets)


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_that_are_all_read_are_those_of_decode_all(
    originals: Path, tmp_path: Path, kind: str
) -> None:
    film = damaged.original(originals, kind)
    whole = seen(recorded(tmp_path / "all", film, "all"))
    asked = seen(recorded(tmp_path / "asked", film, "asked"))
    assert asked.frames == whole.frames
    assert asked.packets == whole.packets
    assert [it["crc"] for it in asked.stored] == [it["crc"] for it in whole.stored]


def four_colours(folder: Path) -> Path:
    """A stream of JPEGs, of which some in the middle are for a printer."""
    film = folder / "film.mjpeg"
    with film.open("wb") as out:
        for number in range(9):
            mode = "CMYK" if 3 <= number < 6 else "RGB"
            size = (17, 3) if number < 3 else (64, 48)
            colour = tuple(20 * number + 10 * at for at in range(len(mode)))
            Image.new(mode, size, colour).save(out, "JPEG")
    return film


def rgb_between(folder: Path) -> Path:
    """H.264 of which the middle is RGB."""
    film = folder / "film.ts"
    whole, other = (
        films.draw(folder / f"{codec}.ts", frames=24, size=(64, 48), codec=codec, bf="0")
        for codec in ("libx264", "libx264rgb")
    )
    with av.open(str(other)) as container:
        theirs = [bytes(it) for it in container.demux(video=0) if it.size]

    def change(chunks: list[Chunk]) -> None:
        for at in range(8, 16):
            chunks[at] = replace(chunks[at], data=theirs[at])

    damaged.remux(whole, film, change)
    return film


@pytest.mark.parametrize("draw", [four_colours, rgb_between])
def test_pictures_of_which_it_is_not_known_how_they_lie_are_decoded_as_they_come(
    tmp_path: Path, draw: Callable[[Path], Path]
) -> None:
    film = draw(tmp_path)
    whole = seen(recorded(tmp_path / "all", film, "all"))
    asked = seen(recorded(tmp_path / "asked", film, "asked"))
    assert len(whole.frames) > 8
    assert asked.frames == whole.frames
    assert asked.packets == whole.packets


@pytest.mark.parametrize("kind", ["h264_b.mkv", "jpegs.avi"])
def test_what_nobody_reads_is_logged_and_not_decoded(
    originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    film = damaged.original(originals, kind)
    with counted(monkeypatch) as fed:
        path = recorded(tmp_path / "asked", film, "asked", task=None)
        with Log(path) as log:
            assert Replay(log, env={}).run().identical
            assert check_log(log)[2] == []
    assert fed in ([0], [0, 0])  # to know how pictures lie
    asked = seen(path)
    assert not any("crc" in it for it in asked.stored)
    assert asked.frames == seen(recorded(tmp_path / "all", film, "all", task=None)).frames


@pytest.mark.parametrize("kind", ["h264_b.mkv", "jpegs.avi"])
def test_what_is_read_now_and_then_has_a_checksum(
    originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    film = damaged.original(originals, kind)
    with counted(monkeypatch) as fed:
        path = recorded(tmp_path / "asked", film, "asked", task="Glance")
    with counted(monkeypatch) as fed_again, Log(path) as log:
        assert Replay(log, env={}).run().identical
    asked = seen(path)
    assert [at for at, it in enumerate(asked.stored) if "crc" in it] == [4, 9, 14, 19]
    assert len(fed) <= (5 if kind == "jpegs.avi" else damaged.FRAMES + 1)
    assert len(fed_again) <= damaged.FRAMES
    assert asked.frames == seen(recorded(tmp_path / "all", film, "all", task="Glance")).frames


def test_a_picture_in_thirty_costs_few_decodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = films.draw(tmp_path / "film.mp4", frames=120, size=(64, 48), **damaged.X264)
    with counted(monkeypatch) as fed:
        given = fed_to_end(film, asked=True)
        for picture in given[::30]:
            assert picture.kept is not None
            assert not isinstance(picture.kept, np.ndarray)
            _ = picture.kept.luma()
    assert len(fed) <= 1 + 4 * 10


def fed_to_end(film: Path, *, asked: bool) -> list[Picture]:
    """The pictures of a film."""
    given: list[Picture] = []

    def emit(picture: Picture) -> None:
        found = picture.kept if picture.decoded is None else kept(picture.decoded)
        given.append(picture._replace(decoded=None, kept=found))

    feed(film, emit, asked=asked)
    return given


def feed(film: Path, emit: Emit, *, asked: bool) -> None:
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        decoder = (
            AskedDecoder(stream, None, after=Counts()) if asked else SourceDecoder(stream, None)
        )
        for packet in container.demux(stream):
            decoder.feed(packet, emit)
        decoder.drain(emit)


@pytest.mark.parametrize("kind", ["h264_b.mkv", "h264_open.mkv", "h265.mp4", "h264_intra.mkv"])
def test_pictures_may_be_read_in_any_order(originals: Path, kind: str) -> None:
    film = damaged.original(originals, kind)
    whole = [it.kept for it in fed_to_end(film, asked=False)]
    rng = np.random.default_rng(0)
    for _ in range(5):
        given = [it.kept for it in fed_to_end(film, asked=True)]
        assert len(given) == len(whole)
        for at in rng.permutation(len(given)):
            one, other = given[at], whole[at]
            assert isinstance(one, AskedPicture)
            assert isinstance(other, PlanarPicture)
            assert one.layout == other.layout
            assert one.data.tobytes() == other.data.tobytes()
            assert one.is_whole


@pytest.mark.parametrize("task", ["Digest", "Glance"])
@pytest.mark.parametrize("kind", ["h264_b.mkv", "jpegs.mkv"])
def test_a_damaged_packet_stays_in_the_log_and_what_was_read_of_it_too(
    originals: Path, tmp_path: Path, kind: str, task: str
) -> None:
    def spoil(chunks: list[Chunk]) -> None:
        is_jpeg = kind.startswith("jpegs")
        data = chunks[11].data
        spoilt = data[: len(data) // 2] if is_jpeg else b"\0\0\0\4\xff\xff\xff\xff"
        chunks[11] = replace(chunks[11], data=spoilt)

    film = tmp_path / f"film.{kind.split('.')[1]}"
    damaged.remux(damaged.original(originals, kind), film, spoil)
    asked = seen(recorded(tmp_path / "asked", film, "asked", task=task))
    assert len(asked.frames) == len(asked.packets) == damaged.FRAMES
    codecs = {it["codec"] for it in asked.stored}
    if kind.startswith("jpegs"):  # of decoders of which it is not known that they give them again
        assert codecs == ({"packets", "planes"} if task == "Digest" else {"packets"})
        return
    assert codecs == {"packets"}
    hurt = [at for at, it in enumerate(asked.stored) if "damaged" in it]
    read_after_it = range(9, 16) if task == "Digest" else [9, 14]
    assert hurt == list(read_after_it)


@pytest.mark.parametrize("every", [1, 3, 5])
@pytest.mark.parametrize("kind", ["h264.mp4", "h264_b.mkv", "h264_slices.ts", "h265.mp4"])
def test_pictures_that_are_read_late_are_marked_as_those_read_at_once(
    originals: Path, tmp_path: Path, kind: str, every: int
) -> None:
    """On a busy machine, a source is far past a picture when it is read."""
    rng = np.random.default_rng(every)

    def spoil(chunks: list[Chunk]) -> None:
        first, second = rng.integers(1, damaged.FRAMES, 2)
        data = bytearray(chunks[first].data)
        start = int(rng.integers(4, len(data)))
        data[start : start + 20] = b"U" * len(data[start : start + 20])
        chunks[first] = replace(chunks[first], data=bytes(data))
        chunks[second] = replace(chunks[second], data=b"\0\0\0\4\xff\xff\xff\xff")

    some_hurt = False
    for turn in range(6):
        film = tmp_path / f"{turn}-{kind}"
        damaged.remux(damaged.original(originals, kind), film, spoil)
        at_once, later, last = (marks(film, every, behind) for behind in (0, 4, damaged.FRAMES))
        assert at_once == later == last
        some_hurt |= any(it.hurt for it in at_once)
    assert some_hurt


class Mark(NamedTuple):
    came_hurt: bool
    hurt: bool
    is_sure: bool


def marks(film: Path, every: int, behind: int) -> list[Mark]:
    """What is known of each picture of a film of which one in `every` is read, when the source has given
    `behind` pictures more."""
    given: list[Picture] = []
    marks: list[Mark] = []

    def read(picture: Picture) -> None:
        assert isinstance(picture.kept, AskedPicture)
        assert picture.origin is not None
        if len(marks) % every == every - 1:
            _ = picture.kept.luma()
        hurt = picture.origin.is_damaged
        marks.append(Mark(hurt, not picture.kept.is_whole, picture.kept.is_sure))

    def emit(picture: Picture) -> None:
        given.append(picture)
        if len(given) > behind:
            read(given.pop(0))

    feed(film, emit, asked=True)
    for picture in given:
        read(picture)
    return marks


@pytest.mark.parametrize("kind", ["h264.mp4", "h264_b.mkv", "h264_slices.ts"])
def test_pictures_of_damaged_packets_are_marked_as_those_of_decode_all(
    originals: Path, tmp_path: Path, kind: str
) -> None:
    """The decoder takes the packet, and conceals what is not in it."""

    def spoil(chunks: list[Chunk]) -> None:
        data = bytearray(chunks[11].data)
        at = len(data) // 3
        data[at : at + 20] = b"U" * 20
        chunks[11] = replace(chunks[11], data=bytes(data))

    film = tmp_path / kind
    damaged.remux(damaged.original(originals, kind), film, spoil)
    whole = seen(recorded(tmp_path / "all", film, "all"))
    asked = seen(recorded(tmp_path / "asked", film, "asked"))
    assert asked.frames == whole.frames
    marks = [it.get("damaged") for it in asked.stored]
    assert marks == [it.get("damaged") for it in whole.stored]
    assert marks.index(True) >= 8
    assert {it["codec"] for it in asked.stored} == {"packets"}


def test_a_section_without_end_keeps_the_newest_packets_only(
    originals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import flowrun.runtime.pictures.asked as module

    monkeypatch.setattr(module, "_MOST_BYTES", 1000)
    monkeypatch.setattr(module, "_NEWEST", 4)
    film = damaged.original(originals, "h264_intra.mkv")
    whole = [it.kept for it in fed_to_end(film, asked=False)]
    given = [it.kept for it in fed_to_end(film, asked=True)]
    one, other = given[-1], whole[-1]
    assert isinstance(one, AskedPicture)
    assert isinstance(other, PlanarPicture)
    assert one.data.tobytes() == other.data.tobytes()
    early = given[0]
    assert isinstance(early, AskedPicture)
    with pytest.raises(ValueError, match=r"^the picture of packet 0 was read too late: what it"):
        _ = early.data


def test_other_codecs_are_decoded_as_they_come(originals: Path, tmp_path: Path) -> None:
    film = damaged.original(originals, "vp9.mp4")
    asked = seen(recorded(tmp_path / "asked", film, "asked"))
    assert asked.frames == seen(recorded(tmp_path / "all", film, "all")).frames


def test_packets_come_while_a_picture_is_decoded(
    originals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_decoding, may_go_on = Event(), Event()
    decode = PacketDecoder.decode

    def waiting(self: PacketDecoder, *args: Any, **more: Any) -> bool:
        is_decoding.set()
        assert may_go_on.wait(30)
        return decode(self, *args, **more)

    given: list[Picture] = []
    with (
        av.open(str(damaged.original(originals, "h264.mp4"))) as container,
        ThreadPoolExecutor(1) as pool,
    ):
        stream = container.streams.video[0]
        decoder = AskedDecoder(stream, None, after=Counts())
        packets = container.demux(stream)
        while len(given) < 3:
            decoder.feed(next(packets), given.append)
        picture = given[2].kept
        assert isinstance(picture, AskedPicture)
        monkeypatch.setattr(PacketDecoder, "decode", waiting)
        read = pool.submit(picture.luma)
        assert is_decoding.wait(30)
        decoder.feed(next(packets), given.append)
        may_go_on.set()
        assert read.result().shape == (48, 64)
    assert len(given) == 4
