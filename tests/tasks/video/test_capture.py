"""`VideoCapture` on small videos drawn here, and on a real RTSP server where there is one."""

from __future__ import annotations

import functools
import http.server
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import av
import numpy as np
import pytest
import structlog

from flowrun.msgs import ImageRgb8Msg
from flowrun.runtime.errors import UsageError
from flowrun.runtime.task import Context, Output
from flowrun.runtime.testing import run_task
from flowrun.tasks.video import capture as capture_module
from flowrun.tasks.video.capture import VideoCapture, VideoError
from flowrun.tasks.video.connection import Opened
from flowrun.tasks.video.opening import open_video, reason_of
from flowrun.tasks.video.reader import Reader
from support.damaged import Chunk, remux
from support.rtsp import serving

FRAMES = 12
FPS = 10


def draw(
    path: Path, *, frames: int = FRAMES, size: tuple[int, int] = (64, 48), codec: str = "h264"
):
    """A video whose frame k is grey of level 20 (k mod 12)."""
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for k in range(frames):
            pixels = np.full((height, width, 3), 20 * (k % FRAMES), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


class Timed(VideoCapture):
    """Remembers the cycles' times."""

    published_at: ClassVar[list[int]] = []

    def process(self, ctx: Context, image: Output[ImageRgb8Msg]) -> None:
        super().process(ctx, image)
        if image.present:
            self.published_at.append(ctx.now_ns)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    draw(folder / "grey.mp4")
    draw(folder / "odd.mp4", size=(66, 48))
    (folder / "notes.txt").write_text("not a video")
    return folder


def capture(folder: Path, *, cycles: int | None = None, **config: Any) -> list[Any]:
    out = run_task(VideoCapture, config=config, cycles=cycles, graph_dir=folder)
    return [cycle["image"] for cycle in out]


def levels(images: list[Any]) -> list[int]:
    return [round(float(image.pixels.mean()) / 20) for image in images]


def test_a_file_gives_every_frame_once_and_ends(folder: Path) -> None:
    images = capture(folder, source_uri="grey.mp4")
    assert levels(images) == list(range(FRAMES))
    assert [image.frame_id for image in images] == list(range(FRAMES))
    assert [image.tov_ns for image in images] == [k * 100_000_000 for k in range(FRAMES)]
    first = images[0]
    assert (first.pts, first.fps, first.source) == (0, 10.0, "grey.mp4")
    assert (first.pixels.dtype, first.pixels.shape) == (np.uint8, (48, 64, 3))


def test_twice_gives_the_same_bytes(folder: Path) -> None:
    once, twice = (
        [b"".join(map(bytes, image.encode())) for image in capture(folder, source_uri="grey.mp4")]
        for _ in range(2)
    )
    assert once == twice


def test_pixels_do_not_depend_on_the_width(folder: Path) -> None:
    images = capture(folder, source_uri="odd.mp4")
    assert levels(images) == list(range(FRAMES))
    assert {image.pixels.shape for image in images} == {(48, 66, 3)}
    assert all(image.pixels.flags.c_contiguous for image in images)


def test_an_aligned_frame_is_not_copied(folder: Path) -> None:
    given = []

    class Spy(VideoCapture):
        def _publish(self, ctx: Context, image: ImageRgb8Msg, frame: Any) -> None:
            super()._publish(ctx, image, frame)
            given.append(np.shares_memory(image.view().pixels, frame.kept.made()))

    run_task(Spy, config={"source_uri": "grey.mp4"}, graph_dir=folder)
    assert given == [True] * FRAMES


@pytest.mark.parametrize(
    ("max_fps", "kept"),
    [(5, [0, 2, 4, 6, 8, 10]), (4, [0, 3, 5, 8, 10]), (3, [0, 4, 7, 10]), (10, list(range(12)))],
)
def test_max_fps_keeps_the_same_frames_every_run(
    folder: Path, max_fps: float, kept: list[int]
) -> None:
    images = capture(folder, source_uri="grey.mp4", max_fps=max_fps)
    assert [image.frame_id for image in images] == kept == levels(images)


def later(by: int, chunks: list[Chunk]) -> None:
    chunks[:] = [replace(it, pts=(it.pts or 0) + by, dts=(it.dts or 0) + by) for it in chunks]


def test_a_clock_that_goes_back_before_the_first_frame_loses_none(tmp_path: Path) -> None:
    early = draw(tmp_path / "early.ts", codec="mpeg2video")
    remux(early, tmp_path / "late.ts", functools.partial(later, 900_000))
    film = tmp_path / "both.ts"
    film.write_bytes((tmp_path / "late.ts").read_bytes() + early.read_bytes())
    images = capture(tmp_path, source_uri="both.ts")
    assert [image.frame_id for image in images] == list(range(2 * FRAMES))
    assert levels(images) == [*range(FRAMES), *range(FRAMES)]


def test_a_time_that_no_clock_has_is_a_jump_of_the_clock(tmp_path: Path) -> None:
    def spoil(chunks: list[Chunk]) -> None:
        rest = chunks[6:]
        later(1 << 60, rest)
        chunks[6:] = rest

    remux(draw(tmp_path / "whole.nut", codec="mpeg2video"), tmp_path / "spoilt.nut", spoil)
    images = capture(tmp_path, source_uri="spoilt.nut")
    assert levels(images) == list(range(FRAMES))
    assert [image.tov_ns for image in images] == [k * 100_000_000 for k in range(FRAMES)]


def test_start_s_skips_to_the_frame_of_that_time(folder: Path) -> None:
    images = capture(folder, source_uri="grey.mp4", start_s=0.5)
    assert levels(images) == list(range(5, FRAMES))
    assert [images[0].tov_ns, images[1].tov_ns] == [0, 100_000_000]


def test_loop_goes_on_with_time_and_frame_id(folder: Path) -> None:
    images = capture(folder, source_uri="grey.mp4", loop=True, cycles=30)
    assert levels(images) == [k % FRAMES for k in range(30)]
    assert [image.frame_id for image in images] == list(range(30))
    assert [image.tov_ns for image in images] == [k * 100_000_000 for k in range(30)]


def test_realtime_publishes_each_frame_at_its_own_time(folder: Path) -> None:
    Timed.published_at.clear()
    config = {"source_uri": "grey.mp4", "realtime": True}
    out = run_task(Timed, config=config, graph_dir=folder, period_ns=1_000_000)
    tov_ns = [cycle["image"].tov_ns for cycle in out]
    assert [later - tov_ns[0] for later in tov_ns] == [k * 100_000_000 for k in range(FRAMES)]
    assert Timed.published_at == tov_ns


def test_realtime_latest_skips_what_is_over(folder: Path) -> None:
    out = run_task(
        VideoCapture,
        config={"source_uri": "grey.mp4", "realtime": True, "policy": "latest"},
        graph_dir=folder,
        period_ns=350_000_000,
    )
    images = [cycle["image"] for cycle in out]
    ids = [image.frame_id for image in images]
    assert ids[0] == 0
    assert levels(images) == ids == sorted(set(ids))
    assert len(ids) < FRAMES


def test_latest_counts_what_no_cycle_took(folder: Path) -> None:
    dropped = []

    class Watched(VideoCapture):
        def stop(self, ctx: Context) -> None:
            super().stop(ctx)
            assert self._reader is not None
            dropped.append(self._reader.frames.lost["latest"])

    out = run_task(Watched, config={"source_uri": "grey.mp4", "policy": "latest"}, graph_dir=folder)
    assert out[-1]["image"].frame_id == FRAMES - 1
    assert len(out) + dropped[0] == FRAMES


def test_latest_of_a_file_leaves_out_what_is_not_taken_in_time(folder: Path) -> None:
    reader = reader_of(folder, policy="latest")
    reader.start()
    reader._thread.join()
    frame = reader.take(0.0)
    assert frame is not None
    assert (frame.frame_id, reader.frames.drained) == (FRAMES - 1, True)
    assert reader.frames.lost == reader.frames.take_lost() == {"latest": FRAMES - 1}


def test_every_frame_of_a_file_waits_until_it_is_taken(folder: Path) -> None:
    reader = reader_of(folder)
    reader.start()
    ids = []
    while (frame := reader.take(10.0)) is not None:
        ids.append(frame.frame_id)
    assert (ids, reader.frames.lost) == (list(range(FRAMES)), {})


class Given:
    """A connection that is opened once."""

    def __init__(self, container: Any, *, is_live: bool = False) -> None:
        self.name = "grey.mp4"
        self.opened: Opened | None = Opened(container, is_live, is_again=False)

    def open(self, _lost: Any) -> Opened | None:
        opened, self.opened = self.opened, None
        return opened

    def is_repeated(self, _packet: object, _container: object) -> bool:
        return False

    def note_end(self, _plays_s: float) -> None:
        pass

    def note_picture(self) -> None:
        pass

    def stop(self) -> None:
        pass


def reader_of(folder: Path, *, connection: Any = None, **config: Any) -> Reader:
    settings = VideoCapture.Config(source_uri="grey.mp4", **config)
    return Reader(
        connection or Given(open_video(settings, folder)),
        settings,
        clock=lambda: 1,
        wake=lambda: None,
        playback=lambda: "running",
        dropped=lambda _count, _cause: None,
        keeps_packets=False,
    )


def test_frames_of_two_files_are_in_the_same_cycles(folder: Path, tmp_path: Path) -> None:
    """A cycle waits for a file's next frame; a run that drops nothing says nothing of it."""
    from flowrun.runtime.log.reader import Log
    from support import helpers

    film = f"VideoCapture(source_uri: {folder / 'grey.mp4'})"
    helpers.record(helpers.plan_of(tmp_path, f"a={film}; b={film}"), tmp_path / "run")
    with Log(tmp_path / "run") as log:
        frames = [(it.cycle, it.outline["frame_id"]) for it in log.messages("/a/image")]
        assert frames == [(k, k) for k in range(FRAMES)]
        assert frames == [(it.cycle, it.outline["frame_id"]) for it in log.messages("/b/image")]
        kinds = {message.fields["kind"] for message in log.messages("/flowrun/control")}
    assert kinds == {"end_of_source"}


def test_realtime_waits_for_the_first_frame(folder: Path) -> None:
    config = {"source_uri": "grey.mp4", "realtime": True}
    first = run_task(VideoCapture, config=config, graph_dir=folder, cycles=1, period_ns=1)
    assert [cycle["image"].frame_id for cycle in first] == [0]


def test_frames_before_an_error_of_the_container_are_given(folder: Path) -> None:
    whole = open_video(VideoCapture.Config(source_uri="grey.mp4"), folder)

    class Breaks:
        """A container that cannot be read to its end."""

        close, streams, format = whole.close, whole.streams, whole.format

        def demux(self, stream: Any) -> Iterator[Any]:
            for _, packet in zip(range(4), whole.demux(stream), strict=False):
                yield packet
            raise av.error.InvalidDataError(1, "Invalid data found when processing input")

    reader = reader_of(folder, policy="every_frame", connection=Given(Breaks()))
    reader.start()
    ids = []
    while (frame := reader.take(10.0)) is not None:
        ids.append(frame.frame_id)
    assert ids == [0, 1, 2, 3]
    text = (
        "'grey.mp4' is damaged, and FFmpeg cannot read on: Invalid data found when processing input"
    )
    assert str(reader.error) == text


def test_the_log_says_how_many_pictures_were_left_out(folder: Path, tmp_path: Path) -> None:
    from flowrun.runtime.clock import ManualClock
    from flowrun.runtime.log.reader import Log
    from flowrun.runtime.run.live import Run
    from support import helpers

    config = f"source_uri: {folder / 'grey.mp4'}, policy: latest, realtime: true"
    plan = helpers.plan_of(tmp_path, f"v=VideoCapture({config})")
    Run(plan, clock=ManualClock(1, step_ns=150_000_000), directory=tmp_path / "run").run()
    with Log(tmp_path / "run") as log:
        controls = [m.fields for m in log.messages("/flowrun/control")]
        dropped = [it["value"] for it in controls if it["kind"] == "dropped"]
        ids = [m.fields["frame_id"] for m in log.messages("/v/image")]
    assert sum(dropped) == FRAMES - len(ids) > 0
    assert ids == sorted(ids)


def test_stop_in_the_middle_ends_the_thread_and_closes_the_file(folder: Path) -> None:
    before = set(threading.enumerate())
    assert len(capture(folder, source_uri="grey.mp4", cycles=2)) == 2
    assert set(threading.enumerate()) <= before


def test_missing_file_names_similar_ones(folder: Path) -> None:
    with pytest.raises(VideoError) as caught:
        capture(folder, source_uri="gray.mp4")
    assert str(caught.value) == (
        f"no such video file: 'gray.mp4' (looked for {folder}/gray.mp4); "
        "that folder has: grey.mp4, odd.mp4"
    )


def test_missing_file_with_another_name_lists_the_videos(folder: Path) -> None:
    with pytest.raises(VideoError) as caught:
        capture(folder, source_uri="quite-different.avi")
    assert str(caught.value) == (
        f"no such video file: 'quite-different.avi' (looked for {folder}/quite-different.avi); "
        "that folder has: grey.mp4, odd.mp4"
    )


def test_missing_folder_is_said(folder: Path) -> None:
    with pytest.raises(VideoError) as caught:
        capture(folder, source_uri="none/grey.mp4")
    assert str(caught.value) == (
        f"no such video file: 'none/grey.mp4' (looked for {folder}/none/grey.mp4); "
        f"the folder {folder}/none does not exist either"
    )


def test_a_folder_is_no_video(folder: Path) -> None:
    with pytest.raises(VideoError) as caught:
        capture(folder, source_uri=".")
    assert str(caught.value) == (
        f"source_uri '.' is a folder without pictures: {folder}; name a video file in it; it has: "
        "grey.mp4, odd.mp4"
    )


def test_a_file_that_is_no_video(folder: Path) -> None:
    with pytest.raises(VideoError) as caught:
        capture(folder, source_uri="notes.txt")
    assert str(caught.value) == (
        f"cannot read the video '{folder}/notes.txt': not a video that FFmpeg can read"
    )


def test_a_film_that_was_never_begun_says_so(tmp_path: Path) -> None:
    (tmp_path / "film.mkv").touch()
    with pytest.raises(VideoError) as caught:
        capture(tmp_path, source_uri="film.mkv")
    assert str(caught.value) == (
        f"cannot read the video '{tmp_path}/film.mkv': it is empty (0 bytes)"
    )
    assert reason_of(av.error.EOFError(1, "End of file")) == "it ends before its first picture"


def test_damaged_packets_are_skipped_and_logged(folder: Path) -> None:
    whole = draw(folder / "whole.avi", codec="mjpeg").read_bytes()
    start = whole.index(b"\xff\xd8", len(whole) // 2)
    end = whole.index(b"\xff\xd9", start)  # of one JPEG
    (folder / "damaged.avi").write_bytes(whole[:start] + bytes(end - start) + whole[end:])
    with structlog.testing.capture_logs() as logs:
        images = capture(folder, source_uri="damaged.avi")
    assert len(images) == FRAMES - 1
    lost = [log for log in logs if log["event"] == "frames lost"]
    assert [(log.get("latest"), log["damaged"]) for log in lost] == [(None, 1)]


def test_a_start_after_the_end_is_an_error(folder: Path) -> None:
    with pytest.raises(VideoError) as caught:
        capture(folder, source_uri="grey.mp4", start_s=60)
    assert str(caught.value) == "'grey.mp4' has no frame after start_s 60"


def test_missing_device_lists_devices(folder: Path) -> None:
    with pytest.raises(VideoError, match=r"^no such device: /dev/video977; video devices: "):
        capture(folder, source_uri="977")


def test_an_unreachable_camera_is_named_without_its_password(folder: Path) -> None:
    with pytest.raises(VideoError) as caught:
        capture(folder, source_uri="rtsp://me:secret@127.0.0.1:9/cam?token=secret")
    assert str(caught.value) == (
        "nothing listens at 127.0.0.1:9 (connection refused); check address and port of "
        "rtsp://127.0.0.1:9/cam"
    )
    assert caught.value.__cause__ is None


def test_a_file_without_video_is_closed_when_that_is_found(folder: Path) -> None:
    before = set(threading.enumerate())
    with av.open(str(folder / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(VideoError, match="^'sound.wav' has no video stream; it has: audio$"):
        capture(folder, source_uri="sound.wav")
    assert set(threading.enumerate()) <= before


def test_a_missing_file_is_found_before_the_run(folder: Path) -> None:
    config = VideoCapture.Config
    assert list(VideoCapture.check(config(source_uri="grey.mp4"), folder)) == []
    [(field, text)] = VideoCapture.check(config(source_uri="none.mp4"), folder)
    assert field == "source_uri"
    assert text.startswith("no such video file: 'none.mp4' (looked for ")


# -- real HTTP servers -------------------------------------------------------------------------


@pytest.fixture
def web(folder: Path) -> Iterator[str]:
    """The address of an HTTP server: files of `folder`, and /live, which stalls after its start."""
    over = threading.Event()
    stream = draw(folder / "live.ts", frames=60).read_bytes()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/live":
                super().do_GET()
                return
            self.send_response(200)
            self.send_header("Content-Type", "video/mp2t")
            self.end_headers()
            self.wfile.write(stream)
            self.wfile.flush()
            over.wait()
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        over.set()
        server.shutdown()
        thread.join()


def test_a_file_on_a_web_server_is_a_file(web: str, folder: Path) -> None:
    images = capture(folder, source_uri=f"{web}/grey.mp4?token=secret")
    assert levels(images) == list(range(FRAMES))
    assert {image.source for image in images} == {f"{web}/grey.mp4"}


def test_a_missing_file_on_a_web_server_is_said(web: str, folder: Path) -> None:
    with pytest.raises(VideoError) as caught:
        capture(folder, source_uri=f"{web}/none.mp4")
    host = web.removeprefix("http://")
    assert str(caught.value) == (
        f"{host} answers, but has no stream '/none.mp4' (404); check the path"
    )


@pytest.mark.slow
def test_a_live_source_that_falls_silent_is_lost(web: str, folder: Path) -> None:
    reconnect = {"max_attempts": 0}
    with (
        structlog.testing.capture_logs() as logs,
        pytest.raises(VideoError, match="^'.*/live' gave no frame for timeout_s 1\n") as caught,
    ):
        capture(folder, source_uri=f"{web}/live", timeout_s=1, reconnect=reconnect)
    assert caught.value.code == "timeout"
    assert {
        "event": "source lost",
        "log_level": "warning",
        "task": "VideoCapture",
        "source": f"{web}/live",
        "reason": f"'{web}/live' gave no frame for timeout_s 1",
        "code": "timeout",
    } in logs


# -- a real RTSP server ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of GStreamer's RTSP server, which plays a video and asks for me:secret."""
    with serving(draw(tmp_path_factory.mktemp("camera") / "camera.mp4", frames=30)) as address:
        yield address


@pytest.mark.slow
def test_an_rtsp_camera_gives_live_frames(camera: str, folder: Path) -> None:
    images = capture(folder, source_uri=f"rtsp://me:secret@{camera}/cam", cycles=5)
    assert len(images) == 5
    assert {image.source for image in images} == {f"rtsp://{camera}/cam"}
    assert {image.pixels.shape for image in images} == {(48, 64, 3)}
    ids = [image.frame_id for image in images]
    assert ids == sorted(set(ids))


@pytest.mark.slow
def test_an_rtsp_stream_that_ends_is_asked_for_again(camera: str, folder: Path) -> None:
    config = {"reconnect": {"delay_s": 0.1}, "policy": "every_frame"}
    uri = f"rtsp://me:secret@{camera}/cam"
    images = capture(folder, source_uri=uri, cycles=35, **config)
    assert [image.frame_id for image in images] == list(range(35))


@pytest.mark.slow
def test_rtsp_errors_say_what_to_do(camera: str, folder: Path) -> None:
    wants = (
        f"; write rtsp://${{CAM_USER}}:${{CAM_PASSWORD}}@{camera}/... in the graph file and set "
        "both in the environment"
    )
    for uri, message in {
        f"rtsp://{camera}/cam": f"rtsp://{camera}/cam wants a user name and a password{wants}",
        f"rtsp://me:wrong@{camera}/cam": (
            f"rtsp://{camera}/cam refused the user name and password{wants}"
        ),
        f"rtsp://me:secret@{camera}/none": (
            f"{camera} answers, but has no stream '/none' (404); check the path"
        ),
    }.items():
        with pytest.raises(VideoError) as caught:
            capture(folder, source_uri=uri)
        assert str(caught.value) == message


@pytest.mark.slow
def test_a_silent_camera_times_out(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(VideoError) as caught:
            capture(folder, source_uri=f"rtsp://{host}/cam", timeout_s=1)
    assert str(caught.value) == (
        f"rtsp://{host}/cam did not answer within timeout_s 1: {host} accepts the connection, but "
        "gives no answer; check the port"
    )


def test_run_task_reports_a_bad_config(folder: Path) -> None:
    with pytest.raises(
        UsageError, match="config of VideoCapture: source_uri: .*no source_uri; write a path"
    ):
        run_task(VideoCapture, graph_dir=folder)


def test_hdr_and_a_missing_kernel_are_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from support import helpers

    path = tmp_path / "film.mp4"
    draw(path, frames=3)
    opened = Reader.wait_until_open

    def open_hdr(self: Reader) -> None:
        opened(self)
        self.is_hdr = True

    monkeypatch.setattr(Reader, "wait_until_open", open_hdr)
    monkeypatch.setattr(capture_module, "is_compiled", lambda: False)
    helpers.record(helpers.plan_of(tmp_path, f"a=VideoCapture(source_uri: {path})"), tmp_path / "r")
    said = capsys.readouterr().err
    assert said.count("HDR pictures are not tone mapped: they look pale") == 1
    assert said.count("pictures are converted ten times slower: install a C compiler") == 1
