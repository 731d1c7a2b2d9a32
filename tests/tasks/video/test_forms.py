"""`VideoCapture` on what is neither a film on the disk nor a camera: pipes, pictures, web servers."""

from __future__ import annotations

import fcntl
import http.server
import io
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from email.utils import formatdate
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import av
import numpy as np
import pytest
import structlog
from PIL import Image

from flowrun.msgs import ImageRgb8Msg
from flowrun.runtime.log.reader import Log
from flowrun.runtime.testing import run_task
from flowrun.tasks.video import connection
from flowrun.tasks.video.capture import VideoCapture
from flowrun.tasks.video.opening import VideoError, open_video, problems_of
from flowrun.tasks.video.pipes import Pipe
from flowrun.tasks.video.settings import VideoSettings
from flowrun.tasks.video.streams import chosen_stream
from support import films, helpers

FRAMES = 8


def draw(path: Path, **options: str) -> Path:
    """A film whose frame k is grey of level 20 k."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("h264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(FRAMES):
            pixels = np.full((48, 64, 3), 20 * k, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def sound(path: Path) -> Path:
    """Silence, without pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mp2", rate=48000)
        for number in range(40):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 2304), np.int16), layout="stereo")
            frame.rate, frame.pts = 48000, 1152 * number
            container.mux(stream.encode(frame))
    return path


def picture(level: int, codec: str = "mjpeg") -> bytes:
    """A file with one picture of that grey."""
    context: Any = av.CodecContext.create(codec, "w")
    context.width, context.height, context.time_base = 64, 48, Fraction(1)
    context.pix_fmt = "yuvj420p" if codec == "mjpeg" else "rgb24"
    frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
    return b"".join(map(bytes, [*context.encode(frame), *context.encode(None)]))


def bmp(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (level, level, level)).save(file, "bmp")
    return file.getvalue()


def capture(folder: Path, *, cycles: int | None = None, **config: Any) -> list[ImageRgb8Msg]:
    out = run_task(VideoCapture, config=config, graph_dir=folder, cycles=cycles, period_ns=1_000)
    return [cycle["image"] for cycle in out]


def levels(images: list[ImageRgb8Msg]) -> list[int]:
    return [round(float(image.pixels.mean()) / 20) for image in images]


def error_of(folder: Path, **config: Any) -> str:
    with pytest.raises(VideoError) as caught:
        capture(folder, **config)
    return str(caught.value)


# -- pipes -------------------------------------------------------------------------------------


@contextmanager
def written(pipe: Path, data: bytes) -> Iterator[None]:
    """Somebody who writes to the pipe, in small pieces."""

    def write() -> None:
        with pipe.open("wb") as file:
            for start in range(0, len(data), 1000):
                file.write(data[start : start + 1000])
                file.flush()

    writer = threading.Thread(target=write)
    writer.start()
    yield
    writer.join()


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def test_a_pipe_gives_every_frame_and_ends(pipe: Path, tmp_path: Path) -> None:
    film = draw(tmp_path / "a.mkv")
    with written(pipe, film.read_bytes()):
        images = capture(tmp_path, source_uri="pipe")
    assert levels(images) == list(range(FRAMES))
    assert [image.pixels.tobytes() for image in images] == [
        image.pixels.tobytes() for image in capture(tmp_path, source_uri="a.mkv")
    ]


def test_what_came_through_a_pipe_is_in_the_log(pipe: Path, tmp_path: Path) -> None:
    film = draw(tmp_path / "a.ts")
    plan = helpers.plan_of(tmp_path, f"v=VideoCapture(source_uri: {pipe})")
    with written(pipe, film.read_bytes()):
        _, result = helpers.record(plan, tmp_path / "run")
    assert result.error is None
    with Log(tmp_path / "run") as log:
        kept = [round(float(frame.pixels.mean()) / 20) for frame in log.frames("/v/image")]
    assert kept == list(range(FRAMES))


def test_a_pipe_that_holds_no_stream_says_which_can(pipe: Path, tmp_path: Path) -> None:
    with written(pipe, b"no film" * 9000):
        text = error_of(tmp_path, source_uri="pipe")
    assert text.startswith("cannot read the video from 'pipe': ")
    assert text.endswith(
        "; a pipe cannot be gone back in, as MP4 needs: write MPEG-TS, Matroska or fragmented MP4 to it"
    )


def test_a_pipe_to_which_nobody_writes_is_an_error(pipe: Path, tmp_path: Path) -> None:
    assert error_of(tmp_path, source_uri="pipe", timeout_s=0.1) == (
        f"nobody wrote to {pipe} within timeout_s 0.1; start the program that writes to it, or raise "
        "timeout_s"
    )


@pytest.mark.parametrize("data", [b"no film", b"FLV\x01\x01\0\0\0\x09\0\0\0\0"])
def test_a_pipe_that_begins_and_falls_silent_is_an_error(
    pipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], data: bytes
) -> None:
    """A film may be silent for as long as it likes, once it gives pictures."""
    writer = os.open(pipe, os.O_RDWR)
    os.write(writer, data)
    text = error_of(tmp_path, source_uri="pipe", timeout_s=0.1)
    os.close(writer)
    assert text == (
        f"{pipe} has given {len(data)} bytes, too few to begin with, and nothing more within "
        "timeout_s 0.1; see whether the program that writes to it goes on"
    )
    assert capfd.readouterr() == ("", "")


@pytest.mark.timeout(60)
def test_a_picture_of_a_pipe_does_not_wait_for_later_ones(
    pipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a program writes what a camera sees, on a machine with many cores."""
    monkeypatch.setattr("flowrun.tasks.video.reader.available_cores", lambda: 16)
    film = films.draw(tmp_path / "film.avi", codec="mjpeg")
    with pipe.open("r+b", buffering=0) as writer:
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, film.stat().st_size)  # nobody has to read meanwhile
        writer.write(film.read_bytes())
        assert len(capture(tmp_path, source_uri="pipe", cycles=12)) == 12


def test_a_pipe_that_falls_silent_can_be_stopped(pipe: Path) -> None:
    writer = os.open(pipe, os.O_RDWR)
    os.write(writer, b"x")
    reader = Pipe(pipe, timeout_s=10)
    assert reader.read(10) == b"x"
    threading.Timer(0, reader.interrupt).start()
    assert reader.read(10) == b""
    reader.close()
    os.close(writer)


def test_a_pipe_is_read_once(pipe: Path, tmp_path: Path) -> None:
    for key, value in (("loop", True), ("start_s", 1.0)):
        config = VideoSettings(source_uri=str(pipe), **{key: value})  # type: ignore[arg-type]
        assert list(problems_of(config, tmp_path)) == [
            (key, "only for a file; a pipe can be read once")
        ]


INPUT = """
import sys
from pathlib import Path
from flowrun.runtime.testing import run_task
from flowrun.tasks.video.capture import VideoCapture
out = run_task(VideoCapture, config={"source_uri": "-"}, graph_dir=Path())
print(len(out))
"""


@pytest.mark.slow
def test_a_film_on_standard_input_is_read(tmp_path: Path) -> None:
    data = draw(tmp_path / "a.mkv").read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", INPUT], input=data, capture_output=True, check=True
    )
    assert done.stdout.split()[-1] == b"8"


def test_a_film_that_cannot_be_sought_is_opened_again_for_its_loop(tmp_path: Path) -> None:
    draw(tmp_path / "bare.h264")
    images = capture(tmp_path, source_uri="bare.h264", loop=True, cycles=20)
    assert levels(images) == [k % FRAMES for k in range(20)]
    assert [image.frame_id for image in images] == list(range(20))


# -- pictures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["mjpeg", "png"])
def test_pictures_are_a_film_of_fps_pictures_a_second(tmp_path: Path, codec: str) -> None:
    suffix = {"mjpeg": "jpg", "png": "png"}[codec]
    for level in range(11):
        (tmp_path / f"img{level}.{suffix}").write_bytes(picture(20 * level, codec))
    images = capture(tmp_path, source_uri=f"img*.{suffix}", fps=4)
    assert levels(images) == list(range(11))
    assert [image.tov_ns - images[0].tov_ns for image in images] == [
        k * 250_000_000 for k in range(11)
    ]
    assert {image.fps for image in images} == {4.0}
    assert levels(capture(tmp_path, source_uri=f"img%d.{suffix}", start_s=0.3)) == [8, 9, 10]
    looped = capture(tmp_path, source_uri=".", loop=True, cycles=25)
    assert levels(looped) == [k % 11 for k in range(25)]


def test_a_picture_that_is_damaged_is_left_out(tmp_path: Path) -> None:
    for name, data in {"1": picture(20), "2": b"no picture", "3": picture(60)}.items():
        (tmp_path / f"{name}.jpg").write_bytes(data)
    assert levels(capture(tmp_path, source_uri="*.jpg")) == [1, 3]


def test_an_empty_file_is_a_picture_that_is_damaged(tmp_path: Path) -> None:
    for number, data in enumerate([picture(0), b"", picture(20)]):
        (tmp_path / f"{number}.jpg").write_bytes(data)
    with structlog.testing.capture_logs() as logged:
        assert levels(capture(tmp_path, source_uri="*.jpg")) == [0, 1]
    assert sum(it["damaged"] for it in logged if it["event"] == "frames lost") == 1


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tiff", "webp", "ppm", "jp2", "tga"])
@pytest.mark.parametrize("count", [1, 3])
def test_pictures_of_any_codec_come_again_in_a_loop(
    tmp_path: Path, suffix: str, count: int
) -> None:
    for number in range(count):
        grey = (20 * number, 20 * number, 20 * number)
        Image.new("RGB", (64, 48), grey).save(tmp_path / f"{number}.{suffix}")
    images = capture(tmp_path, cycles=7, source_uri=f"*.{suffix}", loop=True)
    assert levels(images) == [k % count for k in range(7)]


@pytest.mark.parametrize("codec", ["mjpeg", "png", "bmp"])
@pytest.mark.parametrize("decode", ["all", "keyframes", "asked"])
def test_pictures_that_are_damaged_are_named_once(tmp_path: Path, codec: str, decode: str) -> None:
    suffix = {"mjpeg": "jpg"}.get(codec, codec)
    damaged = {1: b"", 3: b"no picture" * 20, 4: bytes(500)}
    whole = picture(100, codec) if codec != "bmp" else bmp(100)
    for number in range(6):
        (tmp_path / f"{number}.{suffix}").write_bytes(damaged.get(number, whole))
    config = {"source_uri": f"*.{suffix}", "decode": decode, "loop": True}
    with structlog.testing.capture_logs() as logged:
        levels(capture(tmp_path, cycles=12, **config))
    named = [it["file"] for it in logged if it["event"] == "the picture is damaged"]
    assert sorted(named) == [str(tmp_path / f"{number}.{suffix}") for number in damaged]


def test_no_more_pictures_than_one_reads_are_named(tmp_path: Path) -> None:
    for number in range(60):
        data = picture(100) if number % 2 else b"no picture"
        (tmp_path / f"{number}.jpg").write_bytes(data)
    with structlog.testing.capture_logs() as logged:
        assert len(capture(tmp_path, source_uri="*.jpg")) == 30
    named = [it for it in logged if it["event"] == "the picture is damaged"]
    assert [Path(it["file"]).stem for it in named] == [str(2 * k) for k in range(20)]
    assert [it.get("others") for it in named] == 19 * [None] + ["the next are not named"]


def test_fps_is_for_pictures(tmp_path: Path) -> None:
    draw(tmp_path / "a.mp4")
    stills = tmp_path / "stills"
    stills.mkdir()
    (stills / "1.png").write_bytes(b"")
    config = VideoSettings(source_uri="stills", options={"probesize": 5_000_000})
    assert list(problems_of(config, tmp_path)) == [
        ("options", "only for a film; pictures are read as they are")
    ]
    [(key, text)] = problems_of(VideoSettings(source_uri="a.mp4", fps=5), tmp_path)
    assert (key, text) == (
        "fps", "only for a device, a screen, the test pattern or pictures; a film has its own"
    )  # fmt: skip


def test_the_pattern_is_in_the_log_pixel_for_pixel(tmp_path: Path) -> None:
    plan = helpers.plan_of(tmp_path, "v=VideoCapture(source_uri: test, width: 96, height: 64)")
    _, result = helpers.record(plan, tmp_path / "run", cycles=5)
    assert result.error is None
    drawn = open_video(VideoSettings(source_uri="test", width=96, height=64), tmp_path)
    with Log(tmp_path / "run") as log:
        kept = [frame.pixels for frame in log.frames("/v/image")]
    assert len(kept) == 5
    assert all(np.array_equal(it, drawn.pixels(k)) for k, it in enumerate(kept))


# -- streams -----------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A film with two streams of pictures, the second one larger."""
    with av.open(str(tmp_path / "two.mkv"), "w") as container:
        streams: list[Any] = [container.add_stream("ffv1", rate=10) for _ in range(2)]
        for stream, size in zip(streams, (32, 64), strict=True):
            stream.width = stream.height = size
        for stream in streams:
            pixels = np.full((stream.height, stream.width, 3), 40, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux([*stream.encode(frame), *stream.encode(None)])
    return tmp_path


@pytest.mark.parametrize(("stream", "size"), [("best", 32), (0, 32), (1, 64)])
def test_a_stream_is_chosen(two: Path, stream: Any, size: int) -> None:
    [image] = capture(two, source_uri="two.mkv", stream=stream)
    assert image.pixels.shape == (size, size, 3)


@pytest.mark.parametrize("best", [0, 1, None])
def test_a_cover_picture_is_no_film(best: int | None) -> None:
    cover, film = (
        SimpleNamespace(type="video", disposition=it, codec_context=object()) for it in (0x400, 0)
    )

    class Streams(list[Any]):
        video: ClassVar = [cover, film]

        def best(self, _: str) -> Any:
            return None if best is None else self.video[best]

    assert chosen_stream(SimpleNamespace(streams=Streams()), "film", "best") is film
    Streams.video = [cover]
    assert chosen_stream(SimpleNamespace(streams=Streams()), "cover", 0) is cover


def test_a_stream_that_is_not_there_lists_those_that_are(two: Path) -> None:
    assert error_of(two, source_uri="two.mkv", stream=2) == (
        "'two.mkv' has no video stream 2; it has 0: ffv1 32x32; 1: ffv1 64x64"
    )


def test_a_film_that_ffmpeg_cannot_decode_says_so(two: Path) -> None:
    film = two / "two.mkv"
    first, *others = film.read_bytes().split(b"V_FFV1")
    film.write_bytes(b"V_NONE".join([first, b"V_FFV1".join(others)]))
    [image] = capture(two, source_uri="two.mkv")
    assert image.pixels.shape == (64, 64, 3), "the stream that can be decoded"
    undecodable = (
        "'two.mkv': FFmpeg has no decoder for its pictures; convert it to H.264, for example"
    )
    assert error_of(two, source_uri="two.mkv", stream=0) == undecodable
    assert error_of(two, source_uri="two.mkv", stream=2) == (
        "'two.mkv' has no video stream 2; it has 0: unknown codec; 1: ffv1 64x64"
    )
    film.write_bytes(b"V_NONE".join([first, *others]))
    assert error_of(two, source_uri="two.mkv") == undecodable
    with answering(lambda _: film.read_bytes()) as web:
        assert "FFmpeg has no decoder for its pictures" in error_of(two, source_uri=f"{web}/a.mkv")


def test_a_film_is_no_single_picture(tmp_path: Path) -> None:
    data = draw(tmp_path / "a.mp4", movflags="faststart").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data)
    text = "is a film (h264), not a single picture"
    assert error_of(tmp_path, source_uri="a.jpg") == f"'{tmp_path}/a.jpg' {text}"
    with answering(lambda _: data) as web:
        assert error_of(tmp_path, source_uri=f"{web}/a", poll_s=1) == f"'{web}/a' {text}"


def test_an_animated_png_is_a_film_also_where_it_is_called_png(tmp_path: Path) -> None:
    shades = [Image.new("RGB", (16, 8), (level, level, level)) for level in (0, 120, 240)]
    shades[0].save(tmp_path / "a.png", save_all=True, append_images=shades[1:], duration=100)
    assert levels(capture(tmp_path, source_uri="a.png")) == [0, 6, 12]
    assert error_of(tmp_path, source_uri="a.png", fps=5) == (
        f"'{tmp_path}/a.png' is an animated PNG, which has its own rate; leave fps out"
    )
    (tmp_path / "many").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "many" / "a.png")
    assert error_of(tmp_path, source_uri="many") == (
        f"'{tmp_path}/many/a.png' is a film (apng), not a single picture"
    )


def test_an_option_that_ffmpeg_lacks_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "a.mp4")
    config = VideoSettings(source_uri="a.mp4", options={"probsize": 1, "probesize": 5000})
    assert list(problems_of(config, tmp_path)) == [
        (
            "options.probsize",
            "FFmpeg has no option 'probsize' for demuxers and protocols (did you mean 'probesize'?)",
        )
    ]
    options = {"probesize": "many", "headers": "X-Token: secret"}
    assert error_of(tmp_path, source_uri="a.mp4", options=options) == (
        f"cannot read the video '{tmp_path}/a.mp4' with options probesize, headers: Invalid argument"
    )


# -- web servers -------------------------------------------------------------------------------


@contextmanager
def answering(
    answer: Callable[[http.server.BaseHTTPRequestHandler], bytes],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """The address of a server that gives what `answer` says, and no length of it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = answer(self)
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):  # who asks for the head alone has gone
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_a_file_of_unknown_length_on_a_web_server_is_whole(tmp_path: Path, name: str) -> None:
    data = draw(tmp_path / name, movflags="faststart").read_bytes()
    with answering(lambda _: data) as web:
        assert levels(capture(tmp_path, source_uri=f"{web}/{name}")) == list(range(FRAMES))


def test_a_file_of_unknown_length_that_breaks_off_is_an_error(tmp_path: Path) -> None:
    data = draw(tmp_path / "a.mp4", movflags="faststart").read_bytes()
    with answering(lambda _: data[:-100]) as web:
        text = error_of(tmp_path, source_uri=f"{web}/a.mp4")
    assert text == f"'{web}/a.mp4' has ended the connection before the end of the film"


def test_a_snapshot_is_fetched_again_and_again(tmp_path: Path) -> None:
    given = []

    def answer(_: object) -> bytes:
        given.append(picture(20 * (len(given) % 12)))
        return b"" if len(given) == 4 else given[-1]

    with answering(answer) as web:
        config: dict[str, Any] = {
            "source_uri": f"{web}/snap.jpg",
            "poll_s": 0.02,
            "policy": "every_frame",
        }
        config["reconnect"] = {"delay_s": 0.01}
        images = capture(tmp_path, cycles=5, **config)
    assert levels(images) == [0, 1, 2, 4, 5], "the fourth answer was empty"
    assert [image.frame_id for image in images] == [0, 1, 2, 3, 4]
    assert {image.fps for image in images} == {50.0}


def test_a_snapshot_that_is_fetched_once_says_how_to_fetch_it_again(tmp_path: Path) -> None:
    data = picture(20)
    length = {"Content-Length": str(len(data))}
    with (
        answering(lambda _: data, headers=length) as web,
        structlog.testing.capture_logs() as logs,
    ):
        assert levels(capture(tmp_path, source_uri=f"{web}/snap.jpg")) == [1]
    [line] = [it for it in logs if "poll_s" in it["event"]]
    assert line["event"] == "a single picture came: poll_s: 1 fetches it again every second"


OLD = {"Last-Modified": "Sat, 03 Jan 2015 10:00:00 GMT"}


@pytest.mark.parametrize("headers", [OLD, {"ETag": '"a1"'}, {"Content-Length": "all"}])
def test_a_film_that_has_no_duration_ends_where_its_server_knows_it(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    data = draw(tmp_path / "a.ts").read_bytes()
    if "Content-Length" in headers:
        headers = {"Content-Length": str(len(data))}
    with answering(lambda _: data, headers=headers) as web:
        images = capture(tmp_path, source_uri=f"{web}/a.ts", policy="every_frame")
    assert levels(images) == list(range(FRAMES))


@pytest.mark.parametrize(
    ("headers", "live"),
    [({}, "auto"), ({"ETag": '"a1"', "Last-Modified": "now"}, "auto"), (OLD, True)],
)
def test_what_ends_and_may_be_live_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], live: bool | str
) -> None:
    monkeypatch.setattr(connection, "_QUICK", math.inf)  # as if it came at its own speed
    data = draw(tmp_path / "a.ts").read_bytes()
    if headers.get("Last-Modified") == "now":
        headers = {**headers, "Last-Modified": formatdate(usegmt=True)}
    with answering(lambda _: data, headers=headers) as web:
        config: dict[str, Any] = {"source_uri": f"{web}/a.ts", "live": live}
        config["reconnect"] = {"delay_s": 0.01}
        images = capture(tmp_path, policy="every_frame", cycles=FRAMES + 2, **config)
    assert levels(images) == [*range(FRAMES), 0, 1]
    assert [image.frame_id for image in images] == list(range(FRAMES + 2))


def test_what_comes_again_at_once_is_a_film(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_QUICK", 0)  # also on a machine that is slower than the film
    data = draw(tmp_path / "a.ts").read_bytes()
    with answering(lambda _: data) as web:
        config = {"source_uri": f"{web}/a.ts", "reconnect": {"delay_s": 0.01}}
        images = capture(tmp_path, policy="every_frame", cycles=2 * FRAMES, **config)
    assert levels(images) == list(range(FRAMES))


def test_what_is_said_to_be_a_film_ends(tmp_path: Path) -> None:
    data = draw(tmp_path / "a.ts").read_bytes()
    with answering(lambda _: data) as web:
        images = capture(tmp_path, source_uri=f"{web}/a.ts", live=False)
    assert levels(images) == list(range(FRAMES))


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (410, "not_found", "410 Gone"),
        (500, "refused", "500 Internal Server Error"),
        (503, "refused", "503 Service Unavailable"),
        (504, "timeout", "504 Gateway Timeout"),
        (599, "refused", "599"),
    ],
)
def test_an_error_of_a_web_server_is_named(
    tmp_path: Path, status: int, code: str, words: str
) -> None:
    with answering(lambda _: b"", status=status) as web, pytest.raises(VideoError) as caught:
        capture(tmp_path, source_uri=f"{web}/cam?token=sesame")
    assert str(caught.value) == f"{web.removeprefix('http://')} answers {web}/cam with {words}"
    assert caught.value.code == code


def test_a_page_of_a_camera_is_no_video(tmp_path: Path) -> None:
    page = b"<!doctype html><html><body>Live view</body></html>" * 40
    headers = {"Content-Type": "text/html; charset=utf-8"}
    with answering(lambda _: page, headers=headers) as web, pytest.raises(VideoError) as caught:
        capture(tmp_path, source_uri=f"{web}/")
    assert str(caught.value) == (
        f"{web}/ is a web page, not video; look on it, or in the camera's manual, for an address of "
        "RTSP, MJPEG or a snapshot (a single JPEG, with poll_s)"
    )
    assert caught.value.code == "codec"


def test_a_web_server_is_asked_as_ffmpeg_asks(tmp_path: Path) -> None:
    """With the user's headers and password, and past redirects."""
    asked = []

    def answer(request: http.server.BaseHTTPRequestHandler) -> bytes:
        asked.append((request.headers.get("X-Key"), request.headers.get("Authorization")))
        return b""

    with answering(answer, status=503) as web:
        address = web.replace("//", "//me:sesame@")
        text = error_of(tmp_path, source_uri=address, options={"headers": "X-Key: k\r\n"})
    assert "503 Service Unavailable" in text
    assert "sesame" not in text
    assert {key for key, _ in asked} == {"k"}
    assert asked[-1] == ("k", "Basic bWU6c2VzYW1l")


@pytest.mark.parametrize(
    ("kinds", "at_start"),
    [(["film", "sound", "sound", "film"], False), (["sound", "sound", "film", "film"], True)],
)
def test_a_camera_that_gives_sound_only_is_asked_again(
    tmp_path: Path, kinds: list[str], at_start: bool
) -> None:
    draw(tmp_path / "film.ts")
    sound(tmp_path / "sound.ts")
    given: list[str] = []

    def answer(_: object) -> bytes:
        given.append(kinds[min(len(given), 3)])
        return (tmp_path / f"{given[-1]}.ts").read_bytes()

    with answering(answer) as web:
        images = capture(
            tmp_path,
            cycles=FRAMES + 3,
            source_uri=f"{web}/cam",
            live=True,
            policy="every_frame",
            reconnect={"delay_s": 0.01, "at_start": at_start},
        )
    assert given[:4] == kinds
    assert levels(images) == [*range(FRAMES), 0, 1, 2]
    assert [image.frame_id for image in images] == list(range(FRAMES + 3))


def test_a_source_that_never_gave_pictures_ends_the_run(tmp_path: Path) -> None:
    data = sound(tmp_path / "sound.ts").read_bytes()
    with answering(lambda _: data) as web:
        text = error_of(tmp_path, source_uri=f"{web}/cam", live=True)
    assert text == f"'{web}/cam' has no video stream; it has: audio"
