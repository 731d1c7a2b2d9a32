"""Whatever comes from a damaged film is given back; `make torture-video` tries many more."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from zlib_ng.zlib_ng import crc32

from flowrun.runtime.clock import LiveClock
from flowrun.runtime.log.reader import Log
from flowrun.runtime.pictures import decode
from flowrun.runtime.pictures.decode import PictureDecoder
from flowrun.runtime.pictures.planar import PlanarPicture
from flowrun.runtime.pictures.stored import StoredPicture
from flowrun.runtime.pictures.video import PacketDecoder, Take
from flowrun.runtime.run.live import Run
from support import damaged, torture_video
from support.films import FILMS, draw
from support.packets import camera, run

QUICK = ("h264.mp4", "h264_b.mkv", "h264_slices.ts", "vp8.mkv", "mpeg4_b.avi", "jpegs.avi")


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", QUICK)
def test_a_damaged_film_is_given_back(tmp_path: Path, kind: str, seed: int) -> None:
    torture_video.one(tmp_path, _folder(tmp_path), kind, seed)


@pytest.mark.parametrize(
    ("kind", "decode", "seed"),
    [
        ("h264_b.mkv", "asked", 2),
        ("h264_slices.ts", "asked", 2),
        ("h265_slices.ts", "asked", 2),
        ("h264_b.mkv", "keyframes", 15),
        ("h264_slices.ts", "keyframes", 15),
    ],
)
def test_packets_alone_give_what_is_decoded_when_it_is_read(
    tmp_path: Path, kind: str, decode: str, seed: int
) -> None:
    configs = [f", decode: {decode}"]
    counts = torture_video.one(tmp_path, _folder(tmp_path), kind, seed, configs=configs)
    assert counts["packets"] == sum(counts[it] for it in ("packets", "planes", "raw")) > 0


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10, 13))
@pytest.mark.parametrize("kind", damaged.KINDS)
def test_a_damaged_film_of_any_kind_is_given_back(tmp_path: Path, kind: str, seed: int) -> None:
    torture_video.one(tmp_path, _folder(tmp_path), kind, seed)


def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "one"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("name", ["b_frames.mp4", "open_gop.mp4", "jpegs.avi"])
def test_a_log_that_grows_is_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Each picture is there with its own message: nothing waits for a later one."""
    film = draw(tmp_path / name, **FILMS[name])
    with Log(run(camera(tmp_path, f"source_uri: {film}"), tmp_path / "run")) as log:
        messages = [(it.cycle, it.payload) for it in log.messages("/a/image")]
        seen = {it.cycle: it.fields["value"] for it in log.messages("/d/crc")}
        decoded = []

        class Counted(PacketDecoder):
            def decode(
                self, number: int, data: bytes | memoryview, take: Take, *, is_key: bool
            ) -> bool:
                decoded.append(number)
                return super().decode(number, data, take, is_key=is_key)

        monkeypatch.setattr(decode, "PacketDecoder", Counted)
        grown = 0
        decoder = PictureDecoder(
            lambda start: (it for it in messages[:grown] if it[0] >= start), ahead=False
        )
        for cycle, payload in messages:
            grown += 1
            found = decoder.picture(cycle, StoredPicture.parse(payload))
            assert isinstance(found, PlanarPicture)
            assert crc32(found.made().tobytes()) == seen[cycle]
        packets = sum(len(StoredPicture.parse(payload).packets) for _, payload in messages)
    assert decoded == list(range(packets))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["h264_b.mkv", "jpegs.avi"])
def test_a_damaged_film_is_followed_while_it_is_recorded(tmp_path: Path, kind: str) -> None:
    film = tmp_path / f"film{Path(kind).suffix}"
    rng = np.random.default_rng(5)
    damaged.remux(damaged.original(tmp_path, kind), film, lambda chunks: damaged.spoil(chunks, rng))
    plan = camera(tmp_path, f"source_uri: {film}, loop: true")
    live = Run(plan, clock=LiveClock(), directory=tmp_path / "run")
    worker = threading.Thread(target=live.run)
    worker.start()
    seen: dict[int, int] = {}
    try:
        with Log(tmp_path / "run", follow=True, timeout_s=30) as log:
            for message in log.messages(["/a/image", "/d/crc"]):
                if message.topic == "/a/image":
                    seen[message.cycle] = crc32(message.fields["pixels"].tobytes())
                else:
                    assert message.fields["value"] == seen[message.cycle]
                if len(seen) == 3 * damaged.FRAMES:
                    live.stop("enough")
    finally:
        live.stop("test")
        worker.join()
    assert len(seen) >= 3 * damaged.FRAMES
