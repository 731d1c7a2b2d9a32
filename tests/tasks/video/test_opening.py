"""An address -> an opened container, or an error that says what to do."""

from __future__ import annotations

import errno
import socket
import threading
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest

from flowrun.tasks.video import devices, opening
from flowrun.tasks.video.listener import refusal
from flowrun.tasks.video.opening import VideoError, is_live, name_of, open_video, problems_of
from flowrun.tasks.video.settings import VideoSettings

URI = "rtsp://127.0.0.1:9/cam"
AGAIN = {"reconnect": "1", "reconnect_on_network_error": "1", "reconnect_delay_max": "0"}
CAMERA = {"allowed_media_types": "video", "probesize": "32", "fpsprobesize": "0"}


def error_of(folder: Path, uri: str, **config: Any) -> str:
    with pytest.raises(VideoError) as caught:
        open_video(VideoSettings(source_uri=uri, **config), folder)
    return str(caught.value)


# -- files -------------------------------------------------------------------------------------


def test_at_most_three_similar_files_are_named(tmp_path: Path) -> None:
    for number in range(1, 6):
        (tmp_path / f"film{number}.mp4").touch()
    (tmp_path / "film7.mp4").mkdir()  # no file
    assert error_of(tmp_path, "film.mp4") == (
        f"no such video file: 'film.mp4' (looked for {tmp_path}/film.mp4); "
        "that folder has: film5.mp4, film4.mp4, film3.mp4"
    )


def test_no_file_of_another_kind_is_taken_for_the_film(tmp_path: Path) -> None:
    (tmp_path / "nope.yaml").touch()
    (tmp_path / "yard.mp4").touch()
    assert error_of(tmp_path, "nope.mp4") == (
        f"no such video file: 'nope.mp4' (looked for {tmp_path}/nope.mp4); that folder has: yard.mp4"
    )


def test_at_most_five_videos_are_named(tmp_path: Path) -> None:
    for name in "abcdefg":
        (tmp_path / f"{name * 9}.avi").touch()
    (tmp_path / "aaaa.txt").touch()
    listed = ", ".join(f"{name * 9}.avi" for name in "abcde")
    assert error_of(tmp_path, "zzz") == (
        f"no such video file: 'zzz' (looked for {tmp_path}/zzz); that folder has: {listed}"
    )


def test_a_folder_without_videos_has_none_to_name(tmp_path: Path) -> None:
    (tmp_path / "aaaa.txt").touch()
    assert error_of(tmp_path, "zzz") == f"no such video file: 'zzz' (looked for {tmp_path}/zzz)"


def test_only_a_file_can_be_missing(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    for uri in ("a.mp4", f"file://{tmp_path}/a.mp4", URI, "test"):
        assert list(problems_of(VideoSettings(source_uri=uri), tmp_path)) == []
    [(key, text)] = problems_of(VideoSettings(source_uri="~/none.mp4"), tmp_path)
    assert key == "source_uri"
    assert text.startswith(f"no such video file: '~/none.mp4' (looked for {Path.home()}/none.mp4)")


# -- devices -----------------------------------------------------------------------------------


@pytest.fixture
def device(tmp_path: Path) -> str:
    path = tmp_path / "video0"
    path.touch()
    return str(path)


def test_what_is_no_device_is_said(device: str, tmp_path: Path) -> None:
    reason = "Inappropriate ioctl for device"
    assert error_of(tmp_path, device, source_type="v4l2") == f"cannot open {device}: {reason}"
    size = {"width": 640, "height": 480, "fps": 12.5}
    assert error_of(tmp_path, f"v4l2://{device}", **size) == (
        f"cannot open {device} with {{'video_size': '640x480', 'framerate': '12.5'}}: {reason}"
    )


def test_a_device_that_is_not_there_lists_those_that_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "Path", lambda path: tmp_path / path.strip("/"))
    assert error_of(tmp_path, "7") == "no such device: /dev/video7; video devices: none"
    (tmp_path / "dev").mkdir()
    for name in ("video3", "video1", "null"):
        (tmp_path / "dev" / name).touch()
    assert error_of(tmp_path, "7") == (
        f"no such device: /dev/video7; video devices: {tmp_path}/dev/video1, {tmp_path}/dev/video3"
    )


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            av.error.PermissionError(errno.EACCES, "Permission denied"),
            "no permission to read {}; join its group: sudo usermod -aG video $USER",
        ),
        (
            av.error.OSError(errno.EBUSY, "Device or resource busy"),
            "{} is in use by another program",
        ),
        (av.error.OSError(errno.EIO, "Input/output error"), "cannot open {}: Input/output error"),
        (ValueError("no container format 'v4l2'"), "cannot open {}: no container format 'v4l2'"),
    ],
)
def test_a_device_that_refuses_says_why(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, text: str
) -> None:
    raising(monkeypatch, error)
    assert error_of(tmp_path, device, source_type="v4l2") == text.format(device)


# -- what FFmpeg is asked ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "config", "name", "asked"),
    [
        (
            "rtsp://me:p@ss@host:5/cam?token=x",
            {},
            "rtsp://host:5/cam",
            {"rtsp_flags": "prefer_tcp", **CAMERA},
        ),
        (
            "rtsp://host/cam",
            {"transport": "udp"},
            "rtsp://host/cam",
            {"rtsp_transport": "udp", **CAMERA},
        ),
        (
            "rtsp://host/cam",
            {"transport": "tcp"},
            "rtsp://host/cam",
            {"rtsp_transport": "tcp", **CAMERA},
        ),
        ("http://host/a.mp4", {"timeout_s": 2.5}, "http://host/a.mp4", AGAIN),
        ("{device}", {"source_type": "v4l2"}, "{device}", {}),
        (
            "v4l2://{device}",
            {"width": 32, "height": 16, "fps": 5},
            "{device}",
            {"video_size": "32x16", "framerate": "5"},
        ),
    ],
)
def test_what_the_settings_say_is_asked_of_the_source(
    device: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    uri: str,
    config: dict[str, Any],
    name: str,
    asked: dict[str, str],
) -> None:
    calls: list[Any] = []
    stream = SimpleNamespace(codec_context=SimpleNamespace(width=1))
    opened = SimpleNamespace(streams=SimpleNamespace(video=[stream]))
    monkeypatch.setattr(av, "open", lambda *args, **given: calls.append((args, given)) or opened)
    settings = VideoSettings(source_uri=uri.format(device=device), **config)
    name = name.format(device=device)
    assert open_video(settings, tmp_path) is opened
    assert name_of(settings) == name
    [((where,), given)] = calls
    assert where == (device if settings.kind == "v4l2" else settings.source_uri)
    assert given.pop("options") == asked
    assert given.pop("timeout") == settings.timeout_s
    how = {"format": "v4l2"} if settings.kind == "v4l2" else {"metadata_errors": "replace"}
    assert given == how


# -- what a server answers ---------------------------------------------------------------------


def raising(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(av, "open", refuse)


LOGIN = (
    "write rtsp://${CAM_USER}:${CAM_PASSWORD}@127.0.0.1:9/... in the graph file and set both in the "
    "environment"
)
NO_WAY = f"cannot reach 127.0.0.1:9: no way to it; check the network, and the address {URI}"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            av.error.HTTPUnauthorizedError(401, "no"),
            f"{URI} refused the user name and password; {LOGIN}",
        ),
        (
            av.error.HTTPForbiddenError(403, "no"),
            f"{URI} refused the user name and password; {LOGIN}",
        ),
        (
            av.error.HTTPNotFoundError(404, "no"),
            "127.0.0.1:9 answers, but has no stream '/cam' (404); check the path",
        ),
        (
            av.error.ConnectionRefusedError(errno.ECONNREFUSED, "no"),
            f"nothing listens at 127.0.0.1:9 (connection refused); check address and port of {URI}",
        ),
        (
            av.error.TimeoutError(errno.ETIMEDOUT, "no"),
            f"{URI} did not answer within timeout_s 2.5",
        ),
        (av.error.ExitError(1, "no"), f"{URI} did not answer within timeout_s 2.5"),
        (av.error.OSError(errno.EIO, "no"), f"cannot open {URI}: no"),
        (av.error.OSError(errno.ENETUNREACH, "no"), NO_WAY),
        (av.error.OSError(errno.EHOSTUNREACH, "no"), NO_WAY),
        (
            av.error.HTTPServerError(503, "Server returned 5XX Server Error reply"),
            f"127.0.0.1:9 answers {URI} with an error: Server returned 5XX Server Error reply",
        ),
        (
            av.error.HTTPOtherClientError(455, "Server returned 4XX"),
            f"127.0.0.1:9 answers {URI} with an error: Server returned 4XX; a stream of sound alone, "
            "without pictures, answers so",
        ),
        (
            av.error.OSError(errno.EPROTONOSUPPORT, "not by TCP"),
            f"{URI} does not send by TCP, nor by UDP",
        ),
        (av.error.OSError(errno.EPROTO, "Protocol error"), f"cannot open {URI}: Protocol error"),
        (av.error.InvalidDataError(errno.EIO, "odd"), f"cannot open {URI}: odd"),
        (ValueError("odd"), f"cannot open {URI}: odd"),
        (
            av.error.InvalidDataError(1, "Invalid data found when processing input"),
            f"cannot open {URI}: not a video that FFmpeg can read",
        ),
    ],
)
def test_what_a_server_answers_is_said_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, text: str
) -> None:
    raising(monkeypatch, error)
    uri = URI.replace("://", "://me:secret@")
    assert error_of(tmp_path, uri, timeout_s=2.5) == text


@pytest.mark.parametrize(
    ("error", "config", "code"),
    [
        (av.error.HTTPUnauthorizedError(401, "no"), {}, "auth"),
        (av.error.HTTPNotFoundError(404, "no"), {}, "not_found"),
        (av.error.HTTPServerError(503, "no"), {}, "refused"),
        (av.error.HTTPOtherClientError(410, "no"), {}, "refused"),
        (av.error.ConnectionRefusedError(errno.ECONNREFUSED, "no"), {}, "refused"),
        (av.error.ExitError(1, "no"), {}, "timeout"),
        (av.error.OSError(errno.EHOSTUNREACH, "no"), {}, "unreachable"),
        (av.error.OSError(errno.EPROTONOSUPPORT, "no"), {"transport": "tcp"}, "refused"),
        (av.error.InvalidDataError(1, "no"), {}, "codec"),
        (ValueError("no"), {}, "failed"),
    ],
)
def test_what_a_server_answers_has_a_code(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    config: dict[str, Any],
    code: str,
) -> None:
    raising(monkeypatch, error)
    with pytest.raises(VideoError) as caught:
        open_video(VideoSettings(source_uri=URI, **config), tmp_path)
    assert caught.value.code == code


def test_an_error_that_ffmpeg_does_not_explain_is_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raising(monkeypatch, av.error.OSError(errno.EIO, "Input/output error"))
    assert error_of(tmp_path, "rtsp://me:secret@camera.invalid/cam") == (
        "cannot reach camera.invalid: unknown name, or no network; check the address "
        "rtsp://camera.invalid/cam"
    )
    assert error_of(tmp_path, "https://127.0.0.1:9/cam") == (
        "127.0.0.1:9 makes no secure connection for https://127.0.0.1:9/cam: check the port, or write "
        "http://"
    )


def test_a_camera_that_does_not_send_as_asked_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raising(monkeypatch, av.error.OSError(errno.EPROTONOSUPPORT, "Protocol not supported"))
    assert error_of(tmp_path, URI, transport="tcp") == (
        f"{URI} does not send by TCP; write transport: auto"
    )


@pytest.mark.parametrize(
    ("uri", "duration", "size", "container", "frames", "live"),
    [
        ("film.mp4", None, -38, "mov,mp4", 0, False),
        ("rtsp://host/cam", 5, 100, "rtsp", 0, True),
        ("0", 5, 100, "v4l2", 0, True),
        ("http://host/a", None, -38, "mpegts", 0, True),
        ("http://host/a", 0, -38, "flv", 0, True),
        ("http://host/a", 5, 100, "mov,mp4", 0, False),
        ("http://host/a", 5, -38, "mov,mp4", 15, False),
        ("http://host/a", 5, -38, "mov,mp4", 0, True),
        ("http://host/a", 5, -38, "matroska,webm", 0, False),
    ],
)
def test_what_has_no_end_is_live(
    uri: str, duration: int | None, size: int, container: str, frames: int, live: bool
) -> None:
    opened = SimpleNamespace(
        duration=duration,
        size=size,
        format=SimpleNamespace(name=container),
        streams=SimpleNamespace(video=[SimpleNamespace(frames=frames)]),
    )
    assert is_live(opened, VideoSettings(source_uri=uri)) is live


def test_a_camera_that_does_not_describe_its_pictures_is_looked_at_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    closed = []

    def opened(*_: Any, options: dict[str, str], **__: Any) -> Any:
        asked.append(options)
        stream = SimpleNamespace(codec_context=SimpleNamespace(width=len(asked) - 1))
        return SimpleNamespace(
            streams=SimpleNamespace(video=[stream]), close=lambda: closed.append(len(asked))
        )

    monkeypatch.setattr(av, "open", opened)
    settings = VideoSettings(source_uri=URI, transport="udp")
    found = open_video(settings, tmp_path)
    assert found.streams.video[0].codec_context.width == 1
    assert closed == [1]
    assert asked == [
        {"rtsp_transport": "udp", **CAMERA},
        {"rtsp_transport": "udp", "allowed_media_types": "video"},
    ]
    asked.clear()
    settings = VideoSettings(source_uri="http://host/cam")
    open_video(settings, tmp_path)
    assert asked == [AGAIN]
    open_video(settings, tmp_path, is_known=True)
    assert asked == [AGAIN, {**AGAIN, "analyzeduration": "200000"}]


def test_who_gives_no_name_is_asked_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raising(monkeypatch, av.error.HTTPUnauthorizedError(401, "no"))
    assert error_of(tmp_path, URI) == f"{URI} wants a user name and a password; {LOGIN}"


@pytest.mark.parametrize(
    ("took_s", "text"),
    [(2.49, "was no video"), (2.5, "did not answer within timeout_s 2.5")],
)
def test_a_source_that_was_silent_for_the_timeout_did_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, took_s: float, text: str
) -> None:
    """A camera that takes the connection and stays silent ends as if it sent no video."""
    raising(monkeypatch, av.error.InvalidDataError(1, "was no video"))
    monkeypatch.setattr(opening, "listener", lambda _: None)
    times = iter([100.0, 100.0 + took_s])
    monkeypatch.setattr(opening.time, "monotonic", lambda: next(times))
    assert error_of(tmp_path, URI, timeout_s=2.5).endswith(text)


def test_a_camera_that_answers_and_sends_nothing_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FFmpeg opens it, and knows nothing of its pictures."""
    closed = []
    now = SimpleNamespace(s=50.0)

    def opened(*_: Any, timeout: float, **__: Any) -> Any:
        now.s += timeout
        stream = SimpleNamespace(codec_context=SimpleNamespace(width=0))
        return SimpleNamespace(
            streams=SimpleNamespace(video=[stream]), close=lambda: closed.append(now.s)
        )

    monkeypatch.setattr(av, "open", opened)
    monkeypatch.setattr(opening.time, "monotonic", lambda: now.s)
    assert error_of(tmp_path, URI, timeout_s=2.5) == (
        f"{URI} answers, but has sent nothing within timeout_s 2.5 with which decoding can begin; where "
        "its key frames come less often, write a longer timeout_s"
    )
    assert closed == [52.5]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"RTSP/1.0 453 Not Enough Bandwidth\r\nCSeq: 1\r\n\r\n", "453 Not Enough Bandwidth"),
        (b"RTSP/1.0 503 \x1b[31mbusy\r\n\r\n", "503 \\u001b[31mbusy"),
        (b"RTSP/1.0 401 Unauthorized\r\n\r\n", None),
        (b"RTSP/1.0 200 OK\r\n\r\n", None),
        (b"HTTP/1.1 500 Error\r\n\r\n", None),
        (b"RTSP/1.0 many words\r\n\r\n", None),
        (b"\xff\xfe" * 5000, None),
        (b"", None),
    ],
)
def test_a_camera_is_asked_for_the_status_that_ffmpeg_does_not_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes, said: str | None
) -> None:
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as connection:
                asked.append(connection.recv(4096))
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        kind = av.error.HTTPOtherClientError if b" 453" in answer else av.error.HTTPServerError
        raising(monkeypatch, kind(5, "Server returned 5XX"))
        host = f"127.0.0.1:{server.getsockname()[1]}"
        text = error_of(tmp_path, f"rtsp://me:p%40ss@{host}/cam?a=1")
        thread.join()
    begins = f"{host} answers rtsp://{host}/cam with "
    assert text == begins + (said or "an error: Server returned 5XX")
    assert asked == [
        f"DESCRIBE rtsp://{host}/cam?a=1 RTSP/1.0\r\nCSeq: 1\r\n"
        "Accept: application/sdp\r\n\r\n".encode()
    ]


def test_a_status_of_another_kind_is_that_of_the_second_question_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "refusal", lambda _: "503 Service Unavailable")
    raising(monkeypatch, av.error.HTTPOtherClientError(4, "Server returned 4XX"))
    assert error_of(tmp_path, "rtsp://127.0.0.1:9/sound") == (
        "127.0.0.1:9 answers rtsp://127.0.0.1:9/sound with an error: Server returned 4XX; a stream of "
        "sound alone, without pictures, answers so"
    )


@pytest.mark.timeout(60)
def test_a_camera_that_gives_its_status_byte_by_byte_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flowrun.tasks.video.listener._LONGEST_S", 0.2)
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as connection, suppress(OSError):
                while not done.wait(0.1):
                    connection.sendall(b"R")

        thread = threading.Thread(target=serve)
        thread.start()
        uri = f"rtsp://127.0.0.1:{server.getsockname()[1]}/cam"
        assert refusal(VideoSettings(source_uri=uri)) is None
        done.set()
        thread.join()


def test_an_address_that_cannot_be_written_is_refused_without_its_password(tmp_path: Path) -> None:
    assert error_of(tmp_path, "http://me:secret@127.0.0.1:9/\ud800") == (
        "cannot open http://127.0.0.1:9/\ud800: 'utf-8' codec can't encode character '\\ud800' in "
        "position 29: surrogates not allowed"
    )
