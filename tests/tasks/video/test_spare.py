"""Which sections are decoded on several threads by the decoder of the one before: those of which one
that knows nothing makes the same."""

from __future__ import annotations

import re
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from flowrun.tasks.video import ahead
from support import damaged
from support.films import draw
from support.one_thread import everything, first_difference

ENCODED = (
    "bframes=0",
    "bframes=3:b-pyramid=normal:ref=4",
    "slices=3:cabac=0:bframes=1",
    "interlaced=1:bframes=2",
    "sps-id=1:weightp=2",
    "nal-hrd=vbr:vbv-bufsize=100:vbv-maxrate=100",
    "qp=0:bframes=0",
)
EVERY_6 = ":keyint=6:min-keyint=6:scenecut=0"


@pytest.fixture(autouse=True)
def no_other_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead.Cores, "_sources", weakref.WeakSet())


@pytest.fixture
def decoders(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What decoded each section on several threads, from now on; those before it too."""
    found: list[Any] = []
    real = ahead.AheadDecoder._new

    def new(self: Any) -> Any:
        found.append(real(self))
        return found[-1]

    monkeypatch.setattr(ahead.AheadDecoder, "_new", new)
    return found


def encoded(folder: Path, how: str, *, frames: int = 36, suffix: str = "ts", **more: Any) -> Path:
    path = folder / f"{how.replace(':', '-')}-{len(more)}.{suffix}"
    if not path.exists():
        draw(path, frames=frames, size=damaged.SIZE, **{"x264-params": how + EVERY_6, **more})
    return path


@pytest.mark.parametrize("suffix", ["ts", "mkv", "mp4"])
def test_a_decoder_goes_on_with_sections_that_are_set_up_as_the_one_before(
    tmp_path: Path, decoders: list[Any], suffix: str
) -> None:
    film = encoded(tmp_path, "bframes=2:b-adapt=0", suffix=suffix)
    assert first_difference(film, 3) is None
    # Its encoder is said with the first picture alone; how far pictures are held back is then found out.
    assert len(decoders) == 6
    assert 2 <= len({id(it) for it in decoders}) <= 3


def test_it_does_not_where_a_packet_lacks_the_parameters_that_it_uses(
    tmp_path: Path, decoders: list[Any]
) -> None:
    """A new decoder has none of them, one that has seen them before would."""
    one, other = (encoded(tmp_path, f"bframes=0:sps-id={number}") for number in (0, 1))
    ones, others = ([it.data for it in chunks(film)] for film in (one, other))

    def change(found: list[damaged.Chunk]) -> None:
        for at, chunk in enumerate(found):
            data = ones[at] if at < 12 or at >= 24 else others[at]
            if at == 6:  # both sets
                data = parameters(others[6]) + data
            if at in (12, 18):  # the set of the other one, and pictures that use this one
                data = parameters(ones[6]) + data[len(parameters(data)) :]
            found[at] = damaged.Chunk(data, chunk.pts, chunk.dts, chunk.is_key)

    film = tmp_path / "film.ts"
    damaged.remux(one, film, change)
    assert first_difference(film, 3) is None
    assert everything(film, 1)[1] > 0  # damaged


def test_it_does_not_where_the_encoder_has_another_name(
    tmp_path: Path, decoders: list[Any]
) -> None:
    """FFmpeg decodes what old versions of x264 made of colours in another way."""
    one = encoded(tmp_path, "bframes=0:cabac=0", frames=24, pix_fmt="yuv444p")

    def change(found: list[damaged.Chunk]) -> None:
        first = found[0]
        data = re.sub(rb"x264 - core \d+", b"x264 - core 100", first.data)
        assert data != first.data
        found[0] = damaged.Chunk(data, first.pts, first.dts, first.is_key)

    film = tmp_path / "film.ts"
    damaged.remux(one, film, change)
    assert first_difference(film, 3) is None
    assert decoders[0] is not decoders[1]


def test_it_does_not_where_other_packets_say_something_that_lasts(
    tmp_path: Path, decoders: list[Any]
) -> None:
    def change(found: list[damaged.Chunk]) -> None:
        repeated = parameters(found[6].data)
        for at in range(2, len(found), 6):
            it = found[at]
            found[at] = damaged.Chunk(repeated + it.data, it.pts, it.dts, it.is_key)

    film = tmp_path / "film.ts"
    damaged.remux(encoded(tmp_path, "bframes=0"), film, change)
    assert first_difference(film, 3) is None
    assert len({id(it) for it in decoders}) == len(decoders) == 6


def test_films_of_mixed_sections_are_those_of_one_thread(
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    decoders: list[Any],
) -> None:
    folder = tmp_path_factory.mktemp("encoded")
    monkeypatch.setattr(ahead.Cores, "report", lambda *_, **__: None)  # on several threads always
    for seed in range(24):
        rng = np.random.default_rng(seed)
        ways = [encoded(folder, str(how)) for how in rng.choice(ENCODED, 2)]
        film, spoilt = tmp_path / "film.ts", tmp_path / "spoilt.ts"
        damaged.remux(ways[0], film, partial(mix, chunks(ways[1]), rng))
        if rng.random() < 0.4:
            how = damaged.damaged(film, spoilt, rng)
        else:
            how, spoilt = "mixed", film
        try:
            differs = first_difference(spoilt, int(rng.choice([2, 3])))
        except (av.error.FFmpegError, IndexError):  # nothing is left of it
            continue
        assert differs is None, (seed, how, differs)
    again = len(decoders) - len({id(it) for it in decoders})
    assert again > 20


def chunks(film: Path) -> list[damaged.Chunk]:
    with av.open(str(film)) as container:
        return [
            damaged.Chunk(bytes(it), it.pts, it.dts, it.is_keyframe)
            for it in container.demux(video=0)
            if it.size
        ]


def parameters(packet: bytes) -> bytes:
    """What is before the picture: 00 00 01 and a unit of type 7 or 8, again and again."""
    first = re.search(rb"\x00\x00\x01[\x65\x41\x61\x25\x45]", packet)
    assert first is not None
    return packet[: first.start()]


def mix(others: list[damaged.Chunk], rng: np.random.Generator, found: list[damaged.Chunk]) -> None:
    """Some sections of another film in place of these, and some parameters lost."""
    for begin in range(0, len(found), 6):
        is_other, is_lost = rng.random() < 0.4, rng.random() < 0.2
        for at in range(begin, min(begin + 6, len(found))):
            it = found[at]
            data = others[at].data if is_other else it.data
            if is_lost and at == begin:
                data = re.sub(rb"\x00\x00\x01[\x67\x68][^\x00]+(?=\x00\x00)", b"", data, count=1)
            found[at] = damaged.Chunk(data, it.pts, it.dts, it.is_key)
