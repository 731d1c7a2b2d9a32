"""A video source's address -> an opened container, or an error that says what to do.

Credentials in an address never come out: not in a name, not in an error.
"""

from __future__ import annotations

import difflib
import errno
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flowrun.runtime.errors import FlowrunError
from flowrun.tasks.video.settings import VideoSettings

__all__ = ["VideoError", "missing_file", "open_video", "reason_of"]

_VIDEO_SUFFIXES = {".mp4", ".mkv", ".avi", ".mov", ".webm", ".ts", ".m4v", ".mpg", ".mjpeg", ".gif"}


class VideoError(FlowrunError):
    """A video source cannot be opened or read: which one, and what to do."""


def _without_credentials(uri: str) -> str:
    """`uri` without user, password and query, which may hold a token."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def open_video(config: VideoSettings, graph_dir: Path) -> tuple[Any, str]:
    """The opened container, and the name of the source without credentials."""
    opener = {"file": _open_file, "v4l2": _open_device, "rtsp": _open_url, "url": _open_url}
    return opener[config.kind](config, graph_dir)


def _open_file(config: VideoSettings, graph_dir: Path) -> tuple[Any, str]:
    import av

    path = _path(config, graph_dir)
    if not path.is_file():
        raise VideoError(_missing_file(config.source_uri, path))
    try:
        return av.open(str(path), metadata_errors="replace"), config.source_uri
    except av.error.FFmpegError as error:
        raise VideoError(f"cannot read the video {str(path)!r}: {reason_of(error)}") from error


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


def _open_device(config: VideoSettings, _graph_dir: Path) -> tuple[Any, str]:
    import av

    uri = config.source_uri.removeprefix("v4l2://")
    device = f"/dev/video{uri}" if uri.isdecimal() else uri
    if not Path(device).exists():
        devices = sorted(str(path) for path in Path("/dev").glob("video*"))
        raise VideoError(f"no such device: {device}; video devices: {', '.join(devices) or 'none'}")
    options = {}
    if config.width is not None:
        options["video_size"] = f"{config.width}x{config.height}"
    if config.fps is not None:
        options["framerate"] = f"{config.fps:g}"
    try:
        opened = av.open(device, format="v4l2", options=options, timeout=config.timeout_s)
    except PermissionError:
        raise VideoError(
            f"no permission to read {device}; join its group: sudo usermod -aG video $USER"
        ) from None
    except (av.error.FFmpegError, ValueError) as error:
        if getattr(error, "errno", None) == errno.EBUSY:
            raise VideoError(f"{device} is in use by another program") from None
        asked = f" with {options}" if options else ""
        raise VideoError(f"cannot open {device}{asked}: {reason_of(error)}") from error
    return opened, device


def _open_url(config: VideoSettings, _graph_dir: Path) -> tuple[Any, str]:
    import av

    name = _without_credentials(config.source_uri)
    # TCP: over UDP, lost packets show as smeared pictures.
    options = {"rtsp_transport": "tcp"} if config.kind == "rtsp" else {}
    asked_s = time.monotonic()
    try:
        opened = av.open(
            config.source_uri, options=options, timeout=config.timeout_s, metadata_errors="replace"
        )
    except (av.error.FFmpegError, ValueError) as error:
        # The text and the chain of FFmpeg's error hold the address with its password.
        # A camera that accepts the connection and stays silent ends as invalid data.
        silent = time.monotonic() - asked_s >= config.timeout_s
        raise VideoError(_refused(error, name, config, silent=silent)) from None
    return opened, name


def _refused(error: Exception, name: str, config: VideoSettings, *, silent: bool) -> str:
    import av

    host = urlsplit(name).netloc
    if isinstance(error, (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError)):
        scheme = urlsplit(name).scheme
        has_given = "@" in urlsplit(config.source_uri).netloc
        given = (
            "refused the user name and password"
            if has_given
            else "wants a user name and a password"
        )
        return (
            f"{name} {given}; write {scheme}://${{CAM_USER}}:${{CAM_PASSWORD}}@{host}/... in the "
            "graph file and set both in the environment"
        )
    if isinstance(error, av.error.HTTPNotFoundError):
        return f"{host} answers, but has no stream {urlsplit(name).path!r} (404); check the path"
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens at {host} (connection refused); check address and port of {name}"
    if silent or isinstance(error, (TimeoutError, av.error.ExitError)):
        return f"{name} did not answer within timeout_s {config.timeout_s:g}"
    if isinstance(error, OSError) and error.errno in (
        errno.EIO,
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
    ):
        return f"cannot reach {host}: unknown name, or no network; check the address {name}"
    return f"cannot open {name}: {reason_of(error)}"


def reason_of(error: BaseException) -> str:
    """What FFmpeg says, without the address that it appends."""
    text = getattr(error, "strerror", None) or str(error)
    return "not a video that FFmpeg can read" if text.startswith("Invalid data") else text
