"""What is kept of decoded pictures, and which thread makes what will be asked of it."""

from __future__ import annotations

import weakref
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest

from flowrun.runtime.pictures.planar import PlanarPicture, copied, layout_of
from flowrun.runtime.pictures.video import LetGo
from flowrun.tasks.video.ahead import Cores
from flowrun.tasks.video.decoding import SourceDecoder
from flowrun.tasks.video.keeping import Keeping
from flowrun.tasks.video.numbering import Frame
from flowrun.tasks.video.sections import Picture
from support import damaged


@pytest.mark.parametrize("is_awaited", [False, True])
def test_a_picture_that_the_cycle_waits_for_is_given_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_awaited: bool
) -> None:
    """The cycle then makes what it needs of it; otherwise that is ready when it comes."""
    monkeypatch.setattr(Cores, "_sources", weakref.WeakSet())  # all cores are this film's
    made: list[str] = []
    for name in ("_new_crc", "prepare"):
        original = getattr(PlanarPicture, name)

        def noting(picture: PlanarPicture, original=original, name=name) -> object:
            made.append(name)
            return original(picture)

        monkeypatch.setattr(PlanarPicture, name, noting)
    keeping = Keeping("film", needs_crc=True, lose=lambda: None, is_awaited=lambda: is_awaited)
    at_once: list[tuple[str, ...]] = []
    crcs: list[int] = []
    with av.open(str(damaged.original(tmp_path, "h264.mp4"))) as container:
        stream = container.streams.video[0]
        decoder = SourceDecoder(stream, None, cores=2)

        def read() -> None:
            for frame in keeping.take(len(keeping)):
                at_once.append(tuple(made))
                assert isinstance(frame.kept, PlanarPicture)
                crcs.append(frame.kept.crc)
                frame.kept.made()
                made.clear()

        for at, packet in enumerate(container.demux(stream)):
            framed = partial(Frame, frame_id=at, pts=0, time_ns=0)
            decoder.feed(packet, lambda it: keeping.begin(framed, it))  # noqa: B023
            read()
        decoder.drain(lambda it: keeping.begin(framed, it))
        read()
    keeping.stop()
    assert len(at_once) == damaged.FRAMES
    assert len(set(crcs)) == damaged.FRAMES
    assert at_once[0] == (() if is_awaited else ("_new_crc",))
    assert at_once[5] == (() if is_awaited else ("_new_crc", "prepare"))


@pytest.mark.parametrize("is_awaited", [False, True])
def test_a_live_picture_is_read_where_it_was_decoded_until_the_decoder_takes_that_back(
    tmp_path: Path, is_awaited: bool
) -> None:
    keeping = Keeping("film", needs_crc=False, lose=lambda: None, is_awaited=lambda: is_awaited)
    keeping.is_live = True
    frames: list[Frame] = []
    planes: list[np.ndarray] = []
    with av.open(str(damaged.original(tmp_path, "jpegs.avi"))) as container:
        stream = container.streams.video[0]
        decoder = SourceDecoder(stream, None)

        def begin(picture: Picture) -> LetGo | None:
            planes.append(copied(picture.decoded, layout_of(picture.decoded)))
            framed = partial(Frame, frame_id=len(planes), pts=0, time_ns=0)
            return keeping.begin(framed, picture)

        for packet in container.demux(stream):
            decoder.feed(packet, begin)
            frames += keeping.take(len(keeping))
            if is_awaited:  # otherwise a thread keeps them meanwhile
                in_place = [it.kept.is_in_place for it in frames]
                assert in_place == [False] * (len(frames) - 1) + [True]
    keeping.stop()
    assert len(frames) == damaged.FRAMES
    for frame, own in zip(frames, planes, strict=True):
        assert np.array_equal(frame.kept.data, own)
