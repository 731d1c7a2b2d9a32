"""Decoding with all cores: everything that comes of a file is the same with one thread."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from flowrun.tasks.video import ahead, decoding
from flowrun.tasks.video.decoding import SourceDecoder
from flowrun.tasks.video.packets import PacketQueue
from flowrun.tasks.video.sections import Picture
from support import damaged
from support.one_thread import everything, first_difference

ALONE = ("jpegs.avi", "png.mov")
"""Films each packet of which is a section."""
DECODED_AHEAD = ("h264_b.mkv", "h264_open.mp4", "mpeg4_b.avi", "av1.mkv", *ALONE)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("originals")


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[Any]:
    """The arguments of each call of `owner.name` from now on."""
    calls: list[Any] = []
    real = getattr(owner, name)

    def call(*args: Any, **more: Any) -> Any:
        calls.append(args)
        return real(*args, **more)

    monkeypatch.setattr(owner, name, call)
    return calls


@pytest.mark.parametrize("kind", DECODED_AHEAD)
def test_the_pictures_and_the_log_are_those_of_one_thread(
    originals: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = damaged.original(originals, kind)
    begun = counted(monkeypatch, ahead, "PacketDecoder")
    for threads in (2, 5):
        assert first_difference(film, threads) is None
    # In one thread each section has its decoder; several threads need no more of them.
    assert 0 < len(begun) <= 2 * 3 * (20 if kind in ALONE else 1)


@pytest.mark.parametrize("kind", DECODED_AHEAD)
def test_so_are_those_of_damaged_films(
    originals: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        film = tmp_path / f"film{Path(kind).suffix}"
        how = damaged.damaged(damaged.original(originals, kind), film, rng)
        monkeypatch.setattr(decoding, "_LONGEST", int(rng.choice([6, 500])))
        try:
            differs = first_difference(film, int(rng.choice([2, 3, 8])))
        except (av.error.FFmpegError, IndexError):  # nothing is left of it
            continue
        assert differs is None, (seed, how, differs)


def test_a_section_that_is_too_long_to_be_kept_goes_on_in_one_thread(
    originals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = damaged.original(originals, "h264_b.mkv")
    monkeypatch.setattr(ahead, "_MOST_KEPT", 2000)
    again = counted(monkeypatch, ahead.AheadDecoder, "start_over")
    assert first_difference(film, 3) is None
    assert again


@pytest.fixture(autouse=True)
def no_other_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead.Cores, "_sources", weakref.WeakSet())


def test_sources_share_the_cores() -> None:
    one = ahead.Cores(8)
    assert one.threads() == 9  # one waits for another
    others = [ahead.Cores(8) for _ in range(3)]
    assert [it.threads() for it in (one, *others)] == [3, 3, 3, 3]
    more = [ahead.Cores(8) for _ in range(6)]
    assert one.threads() == 1
    for ended in more:
        ended.leave()
    assert one.threads() == 3
    del others
    assert one.threads() == 9
    assert ahead.Cores(100).threads() == 16
    assert ahead.Cores(8, has_spare=False).threads() == 4  # half of the cores


def test_after_damage_sections_are_decoded_in_one_thread_for_a_while() -> None:
    cores = ahead.Cores(2)
    for left_out in (1, 2, 4, 8, 16, 32, 64, 64):
        cores.report(is_damaged=True)
        assert [cores.threads() for _ in range(left_out + 1)] == [1] * left_out + [3]
    cores.report(is_damaged=False)
    cores.report(is_damaged=True)
    assert [cores.threads() for _ in range(2)] == [1, 3]


def test_a_decoder_goes_when_its_pictures_came_out(
    originals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    class Noting(ahead.PacketDecoder):
        def __init__(self, *args: Any, **more: Any) -> None:
            assert not [it for it in made if it() is not None]
            made.append(weakref.ref(self))
            super().__init__(*args, **more)

    monkeypatch.setattr(ahead, "PacketDecoder", Noting)
    everything(damaged.original(originals, "h264.mp4"), 3)
    assert len(made) > 1


def packets_until_a_picture(film: Path, cores: int, queue: PacketQueue | None = None) -> int:
    given: list[Picture] = []
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        decoder = SourceDecoder(stream, queue, cores=cores)
        packets = container.demux(stream)
        fed = 0
        while not given:
            decoder.feed(next(packets), given.append)
            fed += 1
    return fed


def test_a_live_source_and_what_has_no_threads_wait_for_no_packet(originals: Path) -> None:
    for kind, cores, waits in (
        ("h264.mp4", 1, False),
        ("h264.mp4", 3, True),
        ("vp9.mkv", 3, False),
        ("jpegs.avi", 3, True),
    ):
        fed = packets_until_a_picture(damaged.original(originals, kind), cores)
        assert fed == (5 if waits else 1), kind  # a thread more than cores


def test_large_pictures_that_are_logged_get_no_spare_thread(
    originals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = damaged.original(originals, "h264.mp4")
    assert packets_until_a_picture(film, 3, PacketQueue()) == 5
    monkeypatch.setattr(decoding, "_SMALL", 0)
    assert packets_until_a_picture(film, 3, PacketQueue()) == 4
    assert packets_until_a_picture(film, 3) == 5
