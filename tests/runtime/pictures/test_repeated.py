"""What is known of decoders holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from flowrun.runtime.pictures.video import REPEATED
from flowrun.tasks.video.codecs import LOGGED
from support import damaged
from support.paths import ROOT

_DECODE = """
import sys
from pathlib import Path
import av
from zlib_ng.zlib_ng import crc32
from flowrun.runtime.pictures.planar import kept
from flowrun.tasks.video.decoding import SourceDecoder

def emit(picture):
    try:
        found = kept(picture.decoded) if picture.kept is None else picture.kept
    except ValueError as error:
        print(error)
    else:
        print(picture.origin, crc32(bytes(found.data)))

for film in sorted(Path(sys.argv[1]).iterdir()):
    print(film.name)
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        decoder = SourceDecoder(stream, None)
        try:
            for packet in container.demux(stream):
                decoder.feed(packet, emit)
        except av.error.FFmpegError as error:
            print(error)
        decoder.drain(emit)
"""


@pytest.mark.long
def test_damaged_packets_give_the_same_pictures_whatever_was_in_memory(tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    decoders = set()
    for seed, kind in enumerate(it for it in damaged.KINDS for _ in range(3)):
        source = damaged.original(tmp_path, kind)
        with av.open(str(source)) as container:
            codec = container.streams.video[0].codec_context.codec
            if codec.canonical_name in LOGGED:
                decoders.add(codec.name)
        rng = np.random.default_rng(seed)
        film = films / f"{seed:03d}_{kind}"
        damaged.remux(source, film, lambda chunks, rng=rng: damaged.spoil(chunks, rng))  # type: ignore[misc]
        try:
            av.open(str(film)).close()
        except av.error.FFmpegError:
            film.unlink()
    assert decoders >= REPEATED
    with_bytes = [
        subprocess.run(
            [sys.executable, "-c", _DECODE, str(films)],
            env={**os.environ, "MALLOC_PERTURB_": fill, "PYTHONPATH": str(ROOT / "tests")},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
            text=True,
        ).stdout
        for fill in ("0", "85", "170")
    ]
    assert with_bytes[0].count("is_damaged=True") > 100
    assert with_bytes[1] == with_bytes[0]
    assert with_bytes[2] == with_bytes[0]
