"""`decode: keyframes`: fewer pictures, the same log of packets."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from flowrun.runtime import Log
from flowrun.runtime.clock import ManualClock
from flowrun.runtime.log.check import check_log
from flowrun.runtime.pictures.asked import AskedPicture
from flowrun.runtime.pictures.planar import PlanarPicture, is_same, kept
from flowrun.runtime.pictures.stored import StoredPicture
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.run.live import Run
from flowrun.tasks.video import key_frames
from flowrun.tasks.video.decoding import Counts
from flowrun.tasks.video.keeping import Keeping
from flowrun.tasks.video.key_frames import KeyFrameDecoder
from flowrun.tasks.video.numbering import Frame
from flowrun.tasks.video.opening import open_video
from flowrun.tasks.video.sections import Picture
from flowrun.tasks.video.settings import VideoSettings
from support import damaged, films, helpers
from support.damaged import Chunk
from support.packets import Ends, counted

KINDS = ("h264_b.mkv", "vp9.mp4", "mpeg2.ts")
"""In the last one pictures after a key frame are shown before it."""


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("originals")


def ids_and_times(log: Log) -> list[tuple[int, int]]:
    """Of each picture, its number and nanoseconds since the first one."""
    found = list(log.messages("/a/image"))
    return [(it.fields["frame_id"], it.tov_ns - found[0].tov_ns) for it in found]


def recorded(
    folder: Path, film: Path, config: str = ""
) -> tuple[list[tuple[int, int, Any]], list[bytes]]:
    """(frame_id, time, pixels) of each picture of a run, and all packets of its log; replays it."""
    folder.mkdir()
    plan = helpers.plan_of(
        folder, f"a=VideoCapture(source_uri: {film}{config}); d=Digest", "a > d: ImageRgb8Msg"
    )
    _, result = helpers.record(plan, folder / "run")
    assert result.error is None
    packets: list[bytes] = []
    with Log(folder / "run") as log:
        assert Replay(log, env={}).run().identical
        assert check_log(log)[2] == []
        pixels = [it.pixels for it in log.frames("/a/image")]
        frames = [(*it, seen) for it, seen in zip(ids_and_times(log), pixels, strict=True)]
        for message in log.messages("/a/image"):
            picture = StoredPicture.parse(message.payload)
            packets += [bytes(it.data) for it in picture.before]
            if picture.own["codec"] == "packets":
                packets += [bytes(it.data) for it in picture.packets]
        for message in log.messages("/flowrun/control"):
            packets += [data for data, _, _ in message.fields.get("packets", ())]
    return frames, packets


@pytest.mark.parametrize("kind", KINDS)
def test_key_frames_are_those_of_the_whole_film_and_all_packets_logged(
    originals: Path, tmp_path: Path, kind: str
) -> None:
    film = damaged.original(originals, kind)
    whole, all_packets = recorded(tmp_path / "all", film)
    some, packets = recorded(tmp_path / "some", film, ", decode: keyframes")
    with av.open(str(film)) as container:
        film_packets = [(it.pts or 0, it.is_keyframe) for it in container.demux(video=0) if it.size]
    order = sorted(pts for pts, _ in film_packets)
    keys = [at for at, (_, is_key) in enumerate(film_packets) if is_key]
    assert [it[0] for it in some] == [order.index(film_packets[at][0]) for at in keys]
    assert 1 < len(some) < len(whole) == damaged.FRAMES
    for frame_id, time_ns, pixels in some:
        assert (time_ns, pixels.tolist()) == (whole[frame_id][1], whole[frame_id][2].tolist())
    assert packets == all_packets


def test_open_groups_and_their_first_pictures(originals: Path, tmp_path: Path) -> None:
    film = damaged.original(originals, "h264_open.mkv")
    some, packets = recorded(tmp_path / "some", film, ", decode: keyframes")
    assert len(some) >= 2
    _, all_packets = recorded(tmp_path / "all", film)
    assert packets == all_packets
    assert len(packets) > damaged.FRAMES / 2


def decoder_of(
    stream: Any,
    *,
    waits: bool = False,
    is_read: Callable[[], bool] = lambda: True,
    is_stopped: Callable[[], bool] = lambda: False,
) -> KeyFrameDecoder:
    return KeyFrameDecoder(
        stream, None, waits=waits, after=Counts(), is_read=is_read, is_stopped=is_stopped
    )


def no_more() -> None:
    raise ValueError("no more")


@pytest.mark.parametrize("way", ["stopped", "failed"])
def test_a_run_that_ends_before_its_source_has_all_packets_that_came(
    originals: Path, tmp_path: Path, way: str
) -> None:
    film = damaged.original(originals, "h264.mp4")
    plan = helpers.plan_of(
        tmp_path,
        f"a=VideoCapture(source_uri: {film}, decode: keyframes); e=packets.Ends",
        "a > e: ImageRgb8Msg",
    )
    run = Run(plan, clock=ManualClock(1, step_ns=1), directory=tmp_path / "run")

    def end() -> None:
        camera: Any = run.executor.instances["a"].task
        helpers.until(lambda: camera._reader._ended)
        run.stop("enough") if way == "stopped" else no_more()

    Ends.end = end
    result = run.run()
    assert (result.reason, result.error is None) == (
        ("enough", True) if way == "stopped" else ("error", False)
    )
    with Log(tmp_path / "run") as log:
        last = len(log) - 1
        left = [
            (it.cycle, packet)
            for it in log.messages("/flowrun/control")
            for packet in it.fields.get("packets", ())
        ]
        assert {cycle for cycle, _ in left} == {last}
        assert last == (2 if way == "stopped" else 1)
        pictures = [StoredPicture.parse(it.payload) for it in log.messages("/a/image")]
        published = [it.data for p in pictures for it in (*p.before, *p.packets)]
        Ends.end = (lambda: None) if way == "stopped" else no_more
        assert Replay(log, env={}).run().identical
    with av.open(str(film)) as container:
        came = [(bytes(it), it.is_keyframe) for it in container.demux(video=0) if it.size]
    assert len(published) + len(left) == len(came)
    assert [is_key for _, (_, is_key, _) in left] == [it for _, it in came[len(published) :]]


def test_a_loop_is_as_long_as_the_film(originals: Path, tmp_path: Path) -> None:
    film = damaged.original(originals, "h264.mp4")
    folder = tmp_path / "run"
    folder.mkdir()
    plan = helpers.plan_of(
        folder, f"a=VideoCapture(source_uri: {film}, loop: true, decode: keyframes)"
    )
    helpers.record(plan, folder / "run", cycles=7)
    with Log(folder / "run") as log:
        frames = ids_and_times(log)
    assert [it for it, _ in frames] == [0, 8, 16, 20, 28, 36, 40]
    assert [round(time * 30 / 1e9) for _, time in frames] == [0, 8, 16, 20, 28, 36, 40]


def test_a_key_frame_that_is_damaged_is_left_out_and_its_packets_are_kept(
    tmp_path: Path,
) -> None:
    def spoil(chunks: list[Chunk]) -> None:
        at = films.KEY_EVERY
        chunks[at] = replace(chunks[at], data=b"\0\0\0\4\xff\xff\xff\xff")

    source = films.draw(tmp_path / "whole.mp4", bf="0")
    damaged.remux(source, tmp_path / "film.mp4", spoil)
    some, packets = recorded(tmp_path / "some", tmp_path / "film.mp4", ", decode: keyframes")
    assert [it[0] for it in some] == [0, 2 * films.KEY_EVERY]
    assert len(packets) == films.FRAMES
    assert np.ptp(some[1][2]) > 0


@pytest.mark.parametrize(("waits", "fed"), [(False, 1), (True, 17)])
def test_a_live_key_frame_waits_for_no_packet(originals: Path, waits: bool, fed: int) -> None:
    given: list[Picture] = []
    with av.open(str(damaged.original(originals, "h264.mp4"))) as container:
        stream = container.streams.video[0]
        decoder = decoder_of(stream, waits=waits)
        packets = container.demux(stream)
        for _ in range(fed - 1):
            decoder.feed(next(packets), given.append)
        assert given == []
        decoder.feed(next(packets), given.append)
        assert len(given) == 1
        for packet in packets:
            decoder.feed(packet, given.append)
        decoder.drain(given.append)
    assert [it.passed for it in given] == [0, 7, 7]
    assert decoder.passed == damaged.FRAMES - 17


def test_a_source_that_is_stopped_waits_for_no_turn_to_decode(
    originals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = threading.BoundedSemaphore(1)
    monkeypatch.setattr(key_frames, "_TURNS", turns)
    given: list[Picture] = []
    asked = iter([False, False, True])
    with av.open(str(damaged.original(originals, "h264.mp4"))) as container:
        stream = container.streams.video[0]
        decoder = decoder_of(stream, is_stopped=lambda: next(asked))
        packets = [packet for packet in container.demux(stream) if packet.size]
        keys = [packet for packet in packets if packet.is_keyframe]
        with turns:
            decoder.feed(keys[0], given.append)
        assert (given, list(asked)) == ([], [])
        decoder.feed(keys[1], given.append)
    assert len(given) == 1
    assert turns.acquire(blocking=False)


def test_a_live_key_frame_is_given_though_its_decoder_is_drained_at_once(
    originals: Path, tmp_path: Path
) -> None:
    """Its planes are copied after the cycle has it, and the decoder waits for that."""
    made = open_video(
        VideoSettings(source_uri=str(damaged.original(originals, "h264.mp4"))), tmp_path
    )
    stream = made.streams.video[0]
    keeping = Keeping("film", needs_crc=True, lose=lambda: None, is_awaited=lambda: False)
    keeping.is_live = True
    decoder = decoder_of(stream)
    packet = next(made.demux(stream))
    framed = partial(Frame, frame_id=0, pts=0, time_ns=0)
    fed = threading.Thread(
        target=decoder.feed, args=[packet, lambda it: keeping.begin(framed, it)], daemon=True
    )
    fed.start()
    fed.join(30)
    assert not fed.is_alive()
    [frame] = keeping.take(1)
    assert frame.kept.crc
    keeping.stop()
    made.close()


def key_pictures(film: Path, **config: Any) -> list[Picture]:
    given: list[Picture] = []
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        decoder = decoder_of(stream, **config)

        def take(picture: Picture) -> None:
            given.append(
                picture
                if picture.decoded is None
                else picture._replace(decoded=None, kept=kept(picture.decoded))
            )

        for packet in container.demux(stream):
            decoder.feed(packet, take)
        decoder.drain(take)
    return given


@pytest.mark.parametrize(
    ("kind", "waits"),
    [
        *(("h264.mp4", 2), ("jpegs.avi", damaged.FRAMES - 1)),
        *(("h264_open.mkv", 1), ("h265.mp4", 1)),  # the second one opens a group, as the third
        *(("vp9.mp4", 0), ("mpeg2.ts", 0)),
    ],
)
def test_pictures_that_wait_to_be_read_are_those_that_are_decoded_at_once(
    originals: Path, kind: str, waits: int
) -> None:
    film = damaged.original(originals, kind)
    at_once = key_pictures(film)
    asked = key_pictures(film, is_read=lambda: False)
    assert [(it.pts, it.passed) for it in asked] == [(it.pts, it.passed) for it in at_once]
    assert sum(isinstance(it.kept, AskedPicture) for it in asked) == waits
    for one, other in zip(at_once, asked, strict=True):
        assert one.kept is not None
        assert other.kept is not None
        assert is_same(one.kept, other.kept)


def test_what_is_not_read_is_not_decoded(originals: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = damaged.original(originals, "h264.mp4")
    with counted(monkeypatch) as fed:
        pictures = key_pictures(film, is_read=lambda: False)
        assert (len(pictures), fed) == (3, [0])
        assert isinstance(pictures[2].kept, AskedPicture)
        assert pictures[2].kept.data.size
    assert len(fed) == 2


def test_pictures_are_decoded_at_once_while_they_are_read(originals: Path) -> None:
    keeping = Keeping("film", needs_crc=False, lose=lambda: None, is_awaited=lambda: False)
    decoded = []
    with av.open(str(damaged.original(originals, "jpegs.avi"))) as container:
        stream = container.streams.video[0]
        decoder = decoder_of(stream, is_read=lambda: keeping.expects_next)
        for at, packet in enumerate(container.demux(stream)):
            framed = partial(Frame, frame_id=at, pts=0, time_ns=0)
            decoder.feed(packet, lambda it: keeping.begin(framed, it))  # noqa: B023
            for frame in keeping.take(len(keeping)):
                assert isinstance(frame.kept, PlanarPicture)
                decoded.append(not isinstance(frame.kept, AskedPicture))
                if at < 8:
                    frame.kept.made()
    keeping.stop()
    assert decoded[:5] == [True, False, True, True, True]
    assert all(decoded[5:8])
    assert not any(decoded[16:])
    assert len(decoded) == damaged.FRAMES


@pytest.mark.parametrize("spoilt", [False, True])
@pytest.mark.parametrize("kind", ["h264.mkv", "jpegs.mkv"])
def test_pictures_of_what_plays_in_its_own_time_are_decoded_when_they_are_read(
    originals: Path, tmp_path: Path, kind: str, *, spoilt: bool
) -> None:
    if kind == "jpegs.mkv":
        film = damaged.original(originals, kind)
    else:
        film = films.draw(tmp_path / kind, frames=damaged.FRAMES, g="1", bf="0")
    if spoilt:

        def spoil(chunks: list[Chunk]) -> None:
            chunks[9] = replace(chunks[9], data=chunks[9].data[: len(chunks[9].data) // 2])

        damaged.remux(film, tmp_path / "spoilt.mkv", spoil)
        film = tmp_path / "spoilt.mkv"
    plan = helpers.plan_of(
        tmp_path,
        f"a=VideoCapture(source_uri: {film}, decode: keyframes, realtime: true); d=packets.Glance",
        "a > d: ImageRgb8Msg",
    )
    _, result = helpers.record(plan, tmp_path / "run", step_ns=10_000_000)
    assert result.error is None
    with Log(tmp_path / "run") as log:
        assert Replay(log, env={}).run().identical
        assert check_log(log)[2] == []
        with_crc = {
            it.outline["frame_id"]
            for it in log.messages("/a/image")
            if "crc" in StoredPicture.parse(it.payload).own
        }
    assert with_crc >= {0, 4, 14, 19}
    assert with_crc <= {0, 4, 9, 14, 19}
