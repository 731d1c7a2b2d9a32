"""Which H.264 packets follow each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import pytest

from flowrun.runtime.pictures.frame_numbers import FrameNumbers
from support.films import draw

OPTIONS: dict[str, dict[str, str]] = {
    "plain": {"bf": "0"},
    "b_frames": {"x264-params": "bframes=3:b-pyramid=normal"},
    "slices": {"x264-params": "slices=3"},
    "scales": {"x264-params": "cqm=jvt"},
    "fields": {"x264-params": "interlaced=1:bframes=2"},
    "ordered": {"x264-params": "bframes=0:slices=2", "tune": "zerolatency"},
    "all_colours": {"profile": "high444"},
    "long": {"x264-params": "keyint=300:scenecut=0"},
}


def packets(path: Path, **film: Any) -> list[bytes]:
    draw(path, **film)
    with av.open(str(path)) as container:
        return [bytes(it) for it in container.demux(video=0) if it.size]


@pytest.mark.parametrize("name", OPTIONS)
def test_those_of_a_whole_film_follow(tmp_path: Path, name: str) -> None:
    frames = 40 if name == "long" else 16  # numbers have 4 bits
    numbers = FrameNumbers(b"")
    film = packets(tmp_path / "film.h264", size=(64, 48), frames=frames, **OPTIONS[name])
    assert [numbers.follows(it) for it in film] == [True] * frames


def test_a_picture_that_others_need_is_missed(tmp_path: Path) -> None:
    film = packets(tmp_path / "film.h264", size=(64, 48), **OPTIONS["plain"])
    for lost in (1, 3, 9):
        numbers = FrameNumbers(b"")
        left = film[:lost] + film[lost + 1 :]
        assert [numbers.follows(it) for it in left].index(False) == lost
    swapped = [*film[:3], film[4], film[3], *film[5:]]
    numbers = FrameNumbers(b"")
    assert [numbers.follows(it) for it in swapped][:7] == [True] * 3 + [False] * 3 + [True]


@pytest.mark.parametrize("lost", [1, 2, 7, 14, 15, 31])
def test_a_run_of_pictures_is_missed(tmp_path: Path, lost: int) -> None:
    """Also where the numbers, of 4 bits, come to the last one again. Of 16 they do not show it."""
    film = packets(tmp_path / "film.h264", size=(64, 48), frames=48, bf="0", **OPTIONS["long"])
    numbers = FrameNumbers(b"")
    assert [numbers.follows(it) for it in film[:5] + film[5 + lost :]].index(False) == 5


def test_one_that_comes_twice_does_not_follow(tmp_path: Path) -> None:
    film = packets(tmp_path / "film.h264", size=(64, 48), **OPTIONS["slices"])
    numbers = FrameNumbers(b"")
    assert [numbers.follows(it) for it in [*film[:4], *film[3:6]]] == [
        *[True] * 4, False, True, True
    ]  # fmt: skip


def test_one_that_none_needs_is_not_missed(tmp_path: Path) -> None:
    film = packets(
        tmp_path / "film.h264", size=(64, 48), **{"x264-params": "bframes=1:b-adapt=0:scenecut=0"}
    )
    [unneeded, *_] = [at for at, it in enumerate(film) if it[:5] == b"\x00\x00\x00\x01\x01"]
    numbers = FrameNumbers(b"")
    left = film[:unneeded] + film[unneeded + 1 :]
    assert all(numbers.follows(it) for it in left)


def test_parameters_may_be_the_containers(tmp_path: Path) -> None:
    film = packets(tmp_path / "film.h264", size=(64, 48), **OPTIONS["plain"])
    first = film[0].index(b"\x00\x00\x01\x65")
    bare = [film[0][first:], *film[1:8]]
    assert all(map(FrameNumbers(film[0][:first]).follows, bare))
    assert not any(map(FrameNumbers(b"").follows, bare))


def test_what_ends_too_early_does_not_follow(tmp_path: Path) -> None:
    film = packets(tmp_path / "film.h264", size=(64, 48), **OPTIONS["plain"])
    numbers = FrameNumbers(film[0])
    assert not numbers.follows(film[1][:5])
    assert not FrameNumbers(film[0][:8]).follows(film[1])
    assert FrameNumbers(film[0]).follows(b"\x00\x00\x01")  # no slice at all
