"""How a source's packets are cut into sections, and what becomes of damaged ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from flowrun.runtime.pictures.video import PacketDecoder
from flowrun.tasks.video import decoding
from flowrun.tasks.video.decoding import SourceDecoder
from flowrun.tasks.video.packets import Origin, PacketQueue
from flowrun.tasks.video.sections import Picture
from support import damaged
from support.damaged import Chunk
from support.films import FILMS, FRAMES, KEY_EVERY, draw, pixels_of

B_FRAMES = {"x264-params": "b-adapt=0:bframes=2:b-pyramid=none:scenecut=0"}
OPEN = {"x264-params": "b-adapt=0:bframes=2:open-gop=1"}

Decoded = list[tuple[Any, Origin | None]]


def decoded(film: Path, queue: PacketQueue | None = None) -> tuple[Decoded, SourceDecoder]:
    """(pixels, origin) of each picture of a film, in the order in which they come."""
    found: Decoded = []

    def emit(picture: Picture) -> None:
        given = pixels_of(picture.decoded) if picture.kept is None else picture.kept
        pixels = given if isinstance(given, np.ndarray) else given.made()
        found.append((pixels, picture.origin))

    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        decoder = SourceDecoder(stream, queue)
        for packet in container.demux(stream):
            if packet.size:
                decoder.feed(packet, emit)
        decoder.drain(emit)
    return found, decoder


def by_ffmpeg(film: Path) -> list[Any]:
    """The pictures as the container's own decoder gives them."""
    with av.open(str(film)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return [pixels_of(picture) for picture in container.decode(video=0)]


def changed(tmp_path: Path, change: Any, suffix: str = ".mkv", **film: Any) -> Path:
    source = draw(tmp_path / f"whole{suffix}", **film)
    path = tmp_path / f"changed{suffix}"
    damaged.remux(source, path, change)
    return path


def sections(found: Decoded) -> list[int | None]:
    return [None if origin is None else origin.section for _, origin in found]


@pytest.mark.parametrize("name", [name for name in FILMS if name != "vp9.webm"])  # drawn slowly
def test_the_pictures_are_those_of_the_containers_own_decoder(tmp_path: Path, name: str) -> None:
    film = draw(tmp_path / name, **FILMS[name])
    found, decoder = decoded(film)
    expected = by_ffmpeg(film)
    assert len(found) == len(expected) == FRAMES
    assert all(map(np.array_equal, (pixels for pixels, _ in found), expected))
    assert decoder.damaged == 0
    assert None not in sections(found)


def test_packets_say_themselves_that_the_size_changes(tmp_path: Path) -> None:
    """In a container that still says the first size."""
    bare = tmp_path / "bare.hevc"
    params = "log-level=none:bframes=2:keyint=6:min-keyint=6"
    for size in ((64, 48), (128, 96)):
        draw(tmp_path / "one.hevc", codec="libx265", size=size, **{"x265-params": params})
        with bare.open("ab") as both:
            both.write((tmp_path / "one.hevc").read_bytes())

    def count(chunks: list[Chunk]) -> None:
        chunks[:] = [replace(it, pts=k, dts=k) for k, it in enumerate(chunks)]

    film = tmp_path / "both.mkv"
    damaged.remux(bare, film, count)
    found, _ = decoded(film)
    expected = by_ffmpeg(film)
    assert {pixels.shape[:2] for pixels in expected} == {(48, 64), (96, 128)}
    assert len(found) == len(expected) == 2 * FRAMES
    assert all(map(np.array_equal, (pixels for pixels, _ in found), expected))


def test_a_picture_that_its_container_hides_is_not_given(tmp_path: Path) -> None:
    """Those before the place where a film was cut are there for others only."""

    def cut(chunks: list[Chunk]) -> None:
        begin = chunks[3].pts or 0
        chunks[:] = [
            replace(it, pts=(it.pts or 0) - begin, dts=(it.dts or 0) - begin) for it in chunks
        ]

    found, _ = decoded(changed(tmp_path, cut, suffix=".mp4", bf="0"))
    whole = by_ffmpeg(tmp_path / "whole.mp4")
    assert len(found) == FRAMES - 3
    assert all(map(np.array_equal, (pixels for pixels, _ in found), whole[3:]))


def test_a_section_begins_with_each_closed_key_frame(tmp_path: Path) -> None:
    found, _ = decoded(draw(tmp_path / "b.mp4", **B_FRAMES))
    assert sections(found) == [k // KEY_EVERY for k in range(FRAMES)]


def test_groups_that_are_open_are_one_section_up_to_its_longest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures that are shown before the first of the next, and decoded after it, are still its own."""
    film = draw(tmp_path / "open.mp4", **OPEN)
    found, _ = decoded(film)
    assert sections(found) == [0] * FRAMES
    monkeypatch.setattr(decoding, "_LONGEST", KEY_EVERY - 2)
    cut, _ = decoded(film)
    assert len(cut) == FRAMES
    assert all(np.array_equal(one, other) for (one, _), (other, _) in zip(found, cut, strict=True))
    known = [it for it in sections(cut) if it is not None]
    assert known == sorted(known)
    assert len(known) == FRAMES
    assert len(set(known)) >= 3


def test_key_frames_with_which_no_decoder_begins_lose_no_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a camera that refreshes its picture bit by bit, and those that are none."""
    monkeypatch.setattr(decoding, "_LONGEST", 6)

    def claim(chunks: list[Chunk]) -> None:
        chunks[:] = [replace(it, is_key=True) for it in chunks]

    for film in (
        draw(tmp_path / "bits.ts", **{"x264-params": "intra-refresh=1:keyint=6:bframes=0"}),
        changed(tmp_path, claim, suffix=".nut", codec="mpeg4", bf="2"),
    ):
        found, decoder = decoded(film)
        expected = by_ffmpeg(film)
        assert len(found) == len(expected) == FRAMES
        assert all(map(np.array_equal, (pixels for pixels, _ in found), expected))
        assert set(sections(found)) == {0}
        assert decoder.damaged == 0


def test_what_the_log_gets_of_a_section_gives_its_pictures(tmp_path: Path) -> None:
    queue = PacketQueue()
    found, _ = decoded(draw(tmp_path / "b.mp4", **B_FRAMES), queue)
    made: dict[int | None, Any] = {}
    decoder: Any = None

    def take(number: int | None, picture: Any) -> None:
        made[number] = pixels_of(picture)

    for pixels, origin in found:
        assert origin is not None
        video = queue.take(origin)
        assert video is not None
        if video.begins:
            decoder = PacketDecoder(video.decoder)
        for number, (data, is_key) in enumerate(video.packets, video.first):
            decoder.decode(number, data, take, is_key=is_key)
        if video.drained:
            decoder.drain(take)
        assert np.array_equal(made[video.number], pixels)


def test_a_missing_packet_leaves_no_picture_unsaid(tmp_path: Path) -> None:
    """The packets that are left are decoded in the same way twice: nothing is in doubt."""

    def lose(chunks: list[Chunk]) -> None:
        del chunks[3]

    film = changed(tmp_path, lose, **B_FRAMES)
    found, _ = decoded(film)
    again, _ = decoded(film)
    assert len(found) >= FRAMES - 3
    assert all(
        np.array_equal(one, other) for (one, _), (other, _) in zip(found, again, strict=True)
    )


@pytest.mark.parametrize("at", [3, KEY_EVERY + 2])
def test_after_a_packet_that_cannot_be_read_pictures_are_damaged_up_to_a_key_frame(
    tmp_path: Path, at: int
) -> None:
    def break_length(chunks: list[Chunk]) -> None:
        chunks[at] = replace(chunks[at], data=b"\x00\xff\xff\xff" + chunks[at].data[4:])

    found, decoder = decoded(changed(tmp_path, break_length, ".mp4", bf="0"))
    assert decoder.damaged == 1
    assert len(found) == FRAMES - 1
    group = at // KEY_EVERY
    shown = [k for k in range(FRAMES) if k != at]
    assert sections(found) == [k // KEY_EVERY for k in shown]
    assert [origin is not None and origin.is_damaged for _, origin in found] == [
        at <= k < (group + 1) * KEY_EVERY for k in shown
    ]


def test_half_a_jpeg_is_shown_as_far_as_it_goes(tmp_path: Path) -> None:
    def cut(chunks: list[Chunk]) -> None:
        data = chunks[4].data
        chunks[4] = replace(chunks[4], data=data[: len(data) // 2] + b"\xff\xd9")

    found, decoder = decoded(changed(tmp_path, cut, ".avi", codec="mjpeg"))
    assert len(found) == FRAMES
    assert decoder.damaged == 1
    assert [k for k, section in enumerate(sections(found)) if section is None] == [4]


@pytest.mark.parametrize(
    ("suffix", "film"),
    [(".mjpeg", {"codec": "mjpeg"}), (".ts", {"bf": "2"})],
)
def test_pictures_may_change_their_size(tmp_path: Path, suffix: str, film: dict[str, Any]) -> None:
    parts = [
        draw(tmp_path / f"{at}{suffix}", size=size, **film).read_bytes()
        for at, size in enumerate([(128, 96), (96, 48), (128, 96)])
    ]
    whole = tmp_path / f"film{suffix}"
    whole.write_bytes(b"".join(parts))
    found, _ = decoded(whole)
    heights = [pixels.shape[0] for pixels, _ in found]
    assert heights == [96] * FRAMES + [48] * FRAMES + [96] * FRAMES
    assert sections(found).count(None) <= 12


def test_a_film_that_begins_in_the_middle_is_pixels_up_to_its_first_key_frame(
    tmp_path: Path,
) -> None:
    found, _ = decoded(changed(tmp_path, lambda chunks: chunks.__delitem__(0), codec="mpeg4"))
    known = sections(found)
    assert 0 in known
    begins = known.index(0)
    assert known[:begins] == [None] * begins
    assert None not in known[begins:]


def test_one_time_stamp_twice_is_two_pictures(tmp_path: Path) -> None:
    def twice(chunks: list[Chunk]) -> None:
        for at in range(1, len(chunks), 2):
            chunks[at - 1] = replace(chunks[at - 1], pts=chunks[at].pts)

    film = changed(tmp_path, twice, bf="0")
    found, _ = decoded(film)
    assert len(found) == FRAMES
    numbers = [origin.number for _, origin in found if origin is not None]
    assert numbers == list(range(FRAMES))


def test_a_key_frame_without_its_parameters_begins_no_section(tmp_path: Path) -> None:
    """Where parameters came in a packet, those that the container says may be old."""

    def strip(chunks: list[Chunk]) -> None:
        for at in range(1, len(chunks)):
            if chunks[at].is_key:
                data = chunks[at].data
                chunks[at] = replace(chunks[at], data=data[data.index(b"\x00\x00\x01\x65") :])

    found, _ = decoded(changed(tmp_path, strip, ".h264", bf="0"))
    assert sections(found) == [0] * FRAMES


def test_packets_that_no_picture_took_begin_a_section_when_they_were_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowrun.tasks.video.packets._MOST_BYTES", 1 << 40)
    film = draw(tmp_path / "open.mp4", **OPEN)
    queue = PacketQueue()
    whole, _ = decoded(film, queue)
    assert sections(whole) == [0] * FRAMES
    monkeypatch.setattr("flowrun.tasks.video.packets._MOST_BYTES", film.stat().st_size // 2)
    queue = PacketQueue()
    found, _ = decoded(film, queue)
    assert len(found) == FRAMES
    assert 1 in sections(found)


def test_an_empty_packet_does_not_end_the_stream(tmp_path: Path) -> None:
    """A decoder takes one of 0 bytes for the end."""
    film = draw(tmp_path / "plain.mp4", **FILMS["plain.mp4"])
    emitted: list[Picture] = []
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        decoder = SourceDecoder(stream, None)
        for at, packet in enumerate(container.demux(stream)):
            if packet.size:
                decoder.feed(packet, lambda picture: emitted.append(picture._replace(decoded=None)))
            if at == 3:
                decoder.feed(av.Packet(), lambda _: None)
        decoder.drain(lambda picture: emitted.append(picture._replace(decoded=None)))
    assert len(emitted) == FRAMES
    assert decoder.damaged == 0
