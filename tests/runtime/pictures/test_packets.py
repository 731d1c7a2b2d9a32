"""A source's own packets in the log, where things go wrong: kills, drops, live sources, odd films.

`Digest` says in the same run what the task after the source saw, so that nothing has to be played
twice.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from zlib_ng.zlib_ng import crc32

from flowrun.msgs import ImageRgb8Msg
from flowrun.msgs.image import VideoDecoder, VideoPackets
from flowrun.runtime.clock import LiveClock, ManualClock
from flowrun.runtime.errors import LogError
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import plan_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.log.check import check_log
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.recover import recover
from flowrun.runtime.pictures.decode import PictureDecoder
from flowrun.runtime.pictures.stored import PictureEncoder, StoredPicture
from flowrun.runtime.run.live import Run
from flowrun.tasks.video.packets import PacketQueue
from support import films
from support.packets import MORE, camera, run
from support.paths import TESTS
from support.rtsp import serving


def assert_gives_back_what_was_seen(log: Log) -> int:
    """How many pictures; in the order of the log, and then some of them at random."""
    seen = {message.cycle: message.fields["value"] for message in log.messages("/d/crc")}
    count = 0
    for message in log.messages("/a/image"):
        assert crc32(message.fields["pixels"].tobytes()) == seen[message.cycle], message.cycle
        count += 1
    assert count == len(seen)
    for cycle in np.random.default_rng(0).permutation(list(seen))[:5]:
        [message] = log.messages("/a/image", int(cycle), int(cycle) + 1)
        assert crc32(message.fields["pixels"].tobytes()) == seen[cycle], cycle
    return count


# -- killed --------------------------------------------------------------------------------------

KILLED = """
    import sys
    from pathlib import Path
    sys.path.insert(0, "{tests}")
    from support import packets
    folder = Path({folder!r})
    plan = packets.camera(folder, "source_uri: {film}, loop: true")
    packets.run(plan, folder / "run")
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain.mp4", "b_frames.mp4"])
def test_a_killed_run_gives_back_every_picture_it_committed(tmp_path: Path, name: str) -> None:
    film = films.draw(tmp_path / name, **films.FILMS[name])
    code = textwrap.dedent(KILLED).format(tests=TESTS, folder=str(tmp_path), film=film)
    writer = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        slab = tmp_path / "run" / "log_0000.mcap"
        while not slab.exists():
            assert writer.poll() is None
            threading.Event().wait(0.02)
        # Followed until it has looped; then killed in whatever it does.
        with Log(tmp_path / "run", follow=True, timeout_s=60) as log:
            for count, frame in enumerate(log.frames("/a/image")):
                assert frame.pixels.shape == (96, 128, 3)
                if count == 3 * films.FRAMES:
                    break
        assert writer.poll() is None
    finally:
        writer.kill()
        writer.wait()
    with Log(tmp_path / "run") as log:
        assert not log.finished
        count = assert_gives_back_what_was_seen(log)
        assert count > 3 * films.FRAMES
        assert log.loss is None
        assert check_log(log)[2] == []
    assert recover(tmp_path / "run").lost is None
    with Log(tmp_path / "run") as log:
        assert log.finished
        assert assert_gives_back_what_was_seen(log) == count
        assert check_log(log)[2] == []


def test_a_cut_log_is_recovered_with_the_pictures_before_the_cut(tmp_path: Path) -> None:
    film = films.draw(tmp_path / "b.mp4", **films.FILMS["b_frames.mp4"])
    whole = run(camera(tmp_path, f"source_uri: {film}"), tmp_path / "run")
    slab = whole / "log_0000.mcap"
    size = slab.stat().st_size
    counts = []
    for part in (0.4, 0.6, 0.8):
        cut = tmp_path / f"cut-{part}"
        cut.mkdir()
        shutil.copy(slab, cut)
        with (cut / slab.name).open("r+b") as file:
            file.truncate(int(size * part))
        assert recover(cut).lost is not None
        with Log(cut) as log:
            counts.append(assert_gives_back_what_was_seen(log))
            assert check_log(log)[2] == []
    assert 0 < counts[0] < counts[1] < counts[2] < films.FRAMES


# -- live ----------------------------------------------------------------------------------------


def rtsp_camera(tmp_path: Path, uri: str) -> Any:
    text = f"""
tasks:
  - {{id: a, type: VideoCapture, config: {{source_uri: "${{CAM}}"}}}}
  - {{id: d, type: support.packets.Digest}}
cnx: [{{src: a, dst: d, msg: ImageRgb8Msg}}]
{MORE}
"""
    return plan_graph(bind(parse_graph(text, path=tmp_path / "g.yaml", env={"CAM": uri})))


@pytest.mark.real
@pytest.mark.slow
def test_an_rtsp_camera_is_logged_as_its_packets_and_read_bit_for_bit(tmp_path: Path) -> None:
    film = films.draw(tmp_path / "camera.mp4", frames=90, **films.FILMS["plain.mp4"])
    with serving(film) as address:
        plan = rtsp_camera(tmp_path, f"rtsp://me:secret@{address}/cam")
        result = Run(plan, clock=LiveClock(), directory=tmp_path / "run").run(cycles=40)
    assert result.error is None
    with Log(tmp_path / "run") as log:
        assert assert_gives_back_what_was_seen(log) > 10
        assert set(films_codecs(log)) == {"packets"}
        assert check_log(log)[2] == []
        stored = sum(len(message.payload) for message in log.messages("/a/image"))
        assert b"secret" not in (tmp_path / "run" / "log_0000.mcap").read_bytes()
    assert stored < 2 * film.stat().st_size


def films_codecs(log: Log) -> list[str]:
    return [StoredPicture.parse(it.payload).own["codec"] for it in log.messages("/a/image")]


@pytest.mark.slow
def test_a_live_run_that_is_followed_gives_its_pictures_as_they_come(tmp_path: Path) -> None:
    film = films.draw(tmp_path / "b.mp4", **films.FILMS["b_frames.mp4"])
    plan = camera(tmp_path, f"source_uri: {film}, realtime: true, loop: true")
    live = Run(plan, clock=LiveClock(), directory=tmp_path / "run")
    worker = threading.Thread(target=live.run)
    worker.start()
    try:
        with Log(tmp_path / "run", follow=True, timeout_s=30) as log:
            seen = {}
            for message in log.messages(["/a/image", "/d/crc"]):
                if message.topic == "/a/image":
                    seen[message.cycle] = crc32(message.fields["pixels"].tobytes())
                else:
                    assert message.fields["value"] == seen[message.cycle]
                if len(seen) == 2 * films.FRAMES:
                    live.stop("enough")
    finally:
        live.stop("test")
        worker.join()
    assert len(seen) >= 2 * films.FRAMES


@pytest.mark.parametrize("name", ["plain.mp4", "b_frames.mp4", "h265.mp4"])
def test_packets_of_dropped_pictures_are_kept_for_those_that_need_them(
    tmp_path: Path, name: str
) -> None:
    film = films.draw(tmp_path / name, **films.FILMS[name])
    plan = camera(tmp_path, f"source_uri: {film}, realtime: true, policy: latest")
    with Log(run(plan, tmp_path / "run", step_ns=40_000_000)) as log:
        count = assert_gives_back_what_was_seen(log)
        ids = [message.outline["frame_id"] for message in log.messages("/a/image")]
        assert set(films_codecs(log)) == {"packets"}
    assert 2 < count < films.FRAMES
    assert ids == sorted(set(ids))


# -- odd films -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "pixel_format", "size"),
    [
        ("libx264", "yuv444p", (129, 97)),
        ("libx264", "yuv420p", (130, 98)),
        ("mjpeg", "yuvj444p", (33, 17)),
        ("libx264", "yuv420p", (2, 2)),
    ],
)
def test_pictures_of_any_size_come_back(
    tmp_path: Path, codec: str, pixel_format: str, size: tuple[int, int]
) -> None:
    film = tmp_path / "odd.mkv"
    rng = np.random.default_rng(0)
    with av.open(str(film), "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format
        for _ in range(9):
            drawn = rng.integers(0, 255, (size[1], size[0], 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(drawn, format="rgb24")))
        container.mux(stream.encode(None))
    with Log(run(camera(tmp_path, f"source_uri: {film}"), tmp_path / "run")) as log:
        assert assert_gives_back_what_was_seen(log) == 9
        assert set(films_codecs(log)) == {"packets"}
        assert next(log.frames("/a/image")).pixels.shape == (size[1], size[0], 3)


@pytest.mark.parametrize("name", ["plain.mp4", "b_frames.mp4"])
def test_a_stream_without_time_stamps_is_logged_as_packets(tmp_path: Path, name: str) -> None:
    bare = films.draw(tmp_path / "bare.h264", **films.FILMS[name])
    with Log(run(camera(tmp_path, f"source_uri: {bare}"), tmp_path / "run")) as log:
        assert assert_gives_back_what_was_seen(log) == films.FRAMES
        assert set(films_codecs(log)) == {"packets"}
        assert {it.fields["pts"] for it in log.messages("/a/image")} == {None}


# -- nobody wants them ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("logging", "more"),
    [
        ("codec: raw", MORE),
        ("codec: zstd", MORE),
        ("enabled: false", MORE),
        ("payload: none", MORE),
        ("", "logging: {enable_task_logging: false}"),
    ],
)
def test_packets_that_no_log_wants_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logging: str, more: str
) -> None:
    queues = made_queues(monkeypatch)
    film = films.draw(tmp_path / "plain.mp4", frames=3, bf="0")
    run(camera(tmp_path, f"source_uri: {film}", logging=logging, more=more), tmp_path / "run")
    assert queues == []


def test_packets_are_not_kept_without_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queues = made_queues(monkeypatch)
    film = films.draw(tmp_path / "plain.mp4", frames=3, bf="0")
    plan = camera(tmp_path, f"source_uri: {film}")
    assert Run(plan, clock=ManualClock(1, step_ns=1000), directory=None).run().error is None
    assert queues == []
    run(plan, tmp_path / "run")
    assert len(queues) == 1


def made_queues(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    made = []

    class Counted(PacketQueue):
        def __init__(self, *, keeps_all: bool) -> None:
            made.append(self)
            super().__init__(keeps_all=keeps_all)

    monkeypatch.setattr("flowrun.tasks.video.reader.PacketQueue", Counted)
    return made


# -- a topic without messages --------------------------------------------------------------------


def test_a_picture_of_a_topic_without_messages_is_an_error_not_the_end_of_an_iterator() -> None:
    image = ImageRgb8Msg(pixels=np.zeros((4, 6, 3), np.uint8), frame_id=0, fps=0.0, source="")
    described = VideoDecoder("mpeg4", b"", 6, 4, "yuv420p", tag="", bits=0, reorder=0, color=(2, 0))
    image.video = VideoPackets(described, ((b"abc", True),), 0, 0, 0, begins=True, drained=False)
    image.publish()
    payload = b"".join(map(bytes, PictureEncoder("packets").encode(image, 3, video=image.video)))
    picture = StoredPicture.parse(memoryview(payload))
    decoder = PictureDecoder(lambda _cycle: iter(()), ahead=False)
    with pytest.raises(ValueError, match="it comes before the first key frame in the log"):
        decoder.picture(3, picture)


def test_a_topic_without_pictures_has_no_frames(tmp_path: Path) -> None:
    film = films.draw(tmp_path / "plain.mp4", frames=3, bf="0")
    plan = camera(tmp_path, f"source_uri: {film}, realtime: true, start_s: 0")
    with Log(run(plan, tmp_path / "run", cycles=0)) as log:
        assert list(log.frames("/a/image")) == []
        assert len(log.table("/a/image")["cycle"]) == 0
        with pytest.raises(LogError, match="cycle 3 is not in the log"):
            log[3]
