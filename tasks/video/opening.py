"""A video source's address -> an opened container, or an error that says what to do.

Credentials in an address never come out: not in a name, not in an error.
"""

from __future__ import annotations

import difflib
import errno
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flowrun.runtime.errors import FlowrunError
from flowrun.tasks.video.settings import VideoSettings

__all__ = ["VideoError", "is_live", "missing_file", "name_of", "open_video", "reason_of"]

_VIDEO_SUFFIXES = {".mp4", ".mkv", ".avi", ".mov", ".webm", ".ts", ".m4v", ".mpg", ".mjpeg", ".gif"}


class VideoError(FlowrunError):
    """A video source cannot be opened or read: which one, and what to do.

    code: the same in one word, for programs:

    | code        | meaning                                                             |
    |-------------|---------------------------------------------------------------------|
    | auth        | it wants a user name and a password, or refuses those               |
    | timeout     | it does not answer, or gives nothing more                           |
    | not_found   | there is no such file, stream or device                             |
    | refused     | nothing listens there, it is in use, or it answers with an error    |
    | unreachable | its name is not known, or there is no way to it                     |
    | tls         | no secure connection comes about                                    |
    | codec       | what it gives cannot be decoded                                     |
    | ended       | it was there, and has ended the connection                          |
    | failed      | anything else                                                       |
    """

    def __init__(self, text: str, *, code: str = "failed") -> None:
        super().__init__(text)
        self.code = code


def _without_credentials(uri: str) -> str:
    """`uri` without user, password and query, which may hold a token."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def name_of(config: VideoSettings) -> str:
    """The source's name: its address without credentials."""
    if config.kind == "v4l2":
        return _device(config)
    return config.source_uri if config.kind == "file" else _without_credentials(config.source_uri)


def open_video(config: VideoSettings, graph_dir: Path, *, is_known: bool = False) -> Any:
    """The opened container.

    is_known: whether it was open before, and is live: it then opens sooner, as less of the stream is
        looked at.
    """
    if config.kind == "file":
        return _open_file(config, graph_dir)
    if config.kind == "v4l2":
        return _open_device(config)
    return _open_url(config, is_brief=is_known or config.kind == "rtsp")


def is_live(container: Any, config: VideoSettings) -> bool:
    """Whether the pictures of an opened source come at their own time. What a web server gives to its
    end is a file: it has a duration, and a size or an index of its pictures."""
    if config.kind != "url":
        return config.kind != "file"
    if not container.duration:
        return True
    is_growing = container.size < 0 and container.streams.video[:1] != []
    return bool(
        is_growing
        and container.format.name.startswith("mov")
        and not container.streams.video[0].frames
    )


def _open_file(config: VideoSettings, graph_dir: Path) -> Any:
    import av

    path = _path(config, graph_dir)
    if not path.is_file():
        raise VideoError(_missing_file(config.source_uri, path), code="not_found")
    try:
        return av.open(str(path), metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise VideoError(
            f"cannot read the video {str(path)!r}: {reason_of(error)}", code="codec"
        ) from error


def _path(config: VideoSettings, graph_dir: Path) -> Path:
    return graph_dir / Path(config.source_uri.removeprefix("file://")).expanduser()


def missing_file(config: VideoSettings, graph_dir: Path) -> str | None:
    """What is wrong if the source is a file that is not there."""
    path = _path(config, graph_dir)
    if config.kind != "file" or path.is_file():
        return None
    return _missing_file(config.source_uri, path)


def _missing_file(uri: str, path: Path) -> str:
    if path.is_dir():
        return f"source_uri {uri!r} is a folder: {path}; name a video file in it"
    text = f"no such video file: {uri!r} (looked for {path})"
    if not path.parent.is_dir():
        return f"{text}; the folder {path.parent} does not exist either"
    files = sorted(item.name for item in path.parent.iterdir() if item.is_file())
    close = difflib.get_close_matches(path.name, files, n=3, cutoff=0.5)
    close = close or [name for name in files if Path(name).suffix in _VIDEO_SUFFIXES][:5]
    return f"{text}; that folder has: {', '.join(close)}" if close else text


def _device(config: VideoSettings) -> str:
    uri = config.source_uri.removeprefix("v4l2://")
    return f"/dev/video{uri}" if uri.isdecimal() else uri


def _open_device(config: VideoSettings) -> Any:
    import av

    device = _device(config)
    if not Path(device).exists():
        devices = sorted(str(path) for path in Path("/dev").glob("video*"))
        raise VideoError(
            f"no such device: {device}; video devices: {', '.join(devices) or 'none'}",
            code="not_found",
        )
    options = {}
    if config.width is not None:
        options["video_size"] = f"{config.width}x{config.height}"
    if config.fps is not None:
        options["framerate"] = f"{config.fps:g}"
    try:
        return av.open(device, format="v4l2", options=options, timeout=config.timeout_s)
    except PermissionError:
        raise VideoError(
            f"no permission to read {device}; join its group: sudo usermod -aG video $USER",
            code="refused",
        ) from None
    except (av.error.FFmpegError, ValueError) as error:
        if getattr(error, "errno", None) == errno.EBUSY:
            text = f"{device} is in use by another program"
            raise VideoError(text, code="refused") from None
        asked = f" with {options}" if options else ""
        raise VideoError(f"cannot open {device}{asked}: {reason_of(error)}") from error


_BRIEF = {"analyzeduration": "200000", "fpsprobesize": "0"}
"""Look at 0.2 s of a live stream, and not at up to 5, before its pictures are given. The size of the
pictures mostly is in the stream's description."""
_TRANSPORTS = {
    "auto": {"rtsp_flags": "prefer_tcp"},
    "tcp": {"rtsp_transport": "tcp"},
    "udp": {"rtsp_transport": "udp"},
}


def _open_url(config: VideoSettings, *, is_brief: bool) -> Any:
    import av

    options: dict[str, str] = {}
    if config.kind == "rtsp":
        # Without its sound, a camera whose pictures stop is silent.
        options = {**_TRANSPORTS[config.transport], "allowed_media_types": "video"}
    asked_s = time.monotonic()
    try:
        opened = _opened(config, {**options, **_BRIEF} if is_brief else options)
        if is_brief and not all(it.codec_context.width for it in opened.streams.video[:1]):
            opened.close()
            opened = _opened(config, options)
    except (av.error.FFmpegError, ValueError) as error:
        # The text and the chain of FFmpeg's error hold the address with its password.
        # A camera that accepts the connection and stays silent ends as invalid data.
        silent = time.monotonic() - asked_s >= config.timeout_s
        raise _refused(error, name_of(config), config, silent=silent) from None
    return opened


def _opened(config: VideoSettings, options: dict[str, str]) -> Any:
    import av

    return av.open(
        config.source_uri, options=options, timeout=config.timeout_s, metadata_errors="replace"
    )


def _refused(error: Exception, name: str, config: VideoSettings, *, silent: bool) -> VideoError:
    import av

    parts = urlsplit(name)
    host = parts.netloc
    if isinstance(error, (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError)):
        has_given = "@" in urlsplit(config.source_uri).netloc
        given = (
            "refused the user name and password"
            if has_given
            else "wants a user name and a password"
        )
        return VideoError(
            f"{name} {given}; write {parts.scheme}://${{CAM_USER}}:${{CAM_PASSWORD}}@{host}/... in "
            "the graph file and set both in the environment",
            code="auth",
        )
    if isinstance(error, av.error.HTTPNotFoundError):
        return VideoError(
            f"{host} answers, but has no stream {parts.path!r} (404); check the path",
            code="not_found",
        )
    if isinstance(error, av.error.HTTPError):
        return VideoError(
            f"{host} answers {name} with an error: {reason_of(error)}", code="refused"
        )
    if isinstance(error, ConnectionRefusedError):
        return VideoError(
            f"nothing listens at {host} (connection refused); check address and port of {name}",
            code="refused",
        )
    if silent or isinstance(error, (TimeoutError, av.error.ExitError)):
        text = f"{name} did not answer within timeout_s {config.timeout_s:g}"
        return VideoError(text, code="timeout")
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        return VideoError(
            f"cannot reach {host}: no way to it; check the network, and the address {name}",
            code="unreachable",
        )
    if number == errno.EIO and not _is_known(parts.hostname):
        return VideoError(
            f"cannot reach {host}: unknown name, or no network; check the address {name}",
            code="unreachable",
        )
    if number == errno.EIO and parts.scheme in ("https", "rtsps"):
        return VideoError(
            f"{host} makes no secure connection for {name}; check the port, or write "
            f"{parts.scheme[:-1]}://",
            code="tls",
        )
    if number == errno.EPROTONOSUPPORT and config.transport != "auto":
        return VideoError(
            f"{name} does not send by {config.transport.upper()}; write transport: auto",
            code="refused",
        )
    code = "codec" if isinstance(error, av.error.InvalidDataError) else "failed"
    return VideoError(f"cannot open {name}: {reason_of(error)}", code=code)


def _is_known(host: str | None) -> bool:
    """Whether there is a machine of that name. FFmpeg does not say so."""
    try:
        return bool(socket.getaddrinfo(host, None))
    except (OSError, UnicodeError):
        return False


def reason_of(error: BaseException) -> str:
    """What FFmpeg says, without the address that it appends."""
    text = getattr(error, "strerror", None) or str(error)
    return "not a video that FFmpeg can read" if text.startswith("Invalid data") else text
