"""A video source's address -> an opened container, or an error that says what to do.

Credentials in an address never come out: not in a name, not in an error.
"""

from __future__ import annotations

import errno
import re
import socket
import time
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flowrun.runtime.errors import FlowrunError
from flowrun.runtime.wording import escaped, listed, nearest
from flowrun.tasks.video.address import AddressError, without_credentials
from flowrun.tasks.video.devices import (
    device_of,
    display_of,
    missing_device,
    missing_display,
    open_device,
    open_screen,
)
from flowrun.tasks.video.files import find_file
from flowrun.tasks.video.hwaccel import missing_hwaccel
from flowrun.tasks.video.lengths import NO_INDEX, lacks_index
from flowrun.tasks.video.listener import listener, refusal
from flowrun.tasks.video.options import option_names
from flowrun.tasks.video.pattern import open_pattern
from flowrun.tasks.video.pipes import Pipe, PipedContainer
from flowrun.tasks.video.secure import fault_of
from flowrun.tasks.video.settings import VideoSettings, exact_rate
from flowrun.tasks.video.stills import PictureFiles, Snapshots, StillStream
from flowrun.tasks.video.streams import chosen_stream
from flowrun.tasks.video.web import WebAnswer, ask, missing_index

__all__ = [
    "VideoError",
    "is_live",
    "may_be_whole",
    "name_of",
    "open_video",
    "problems_of",
    "reason_of",
]

_PICTURES_FPS = 25
_NEVER_WHOLE = ("hls", "dash", "mpjpeg", Snapshots.format.name)
_PICTURES = ("png", "gif")
"""Codecs of single pictures of which FFmpeg does not say that their pictures need no other."""
_FILE = "file:"
"""Without it FFmpeg takes what is before a colon for a protocol."""


class VideoError(FlowrunError):
    """A video source cannot be opened or read: which one, and what to do.

    code: the same in one word, for programs:

    | code        | meaning                                                             |
    |-------------|---------------------------------------------------------------------|
    | auth        | it wants a user name and a password, or refuses those               |
    | timeout     | it does not answer, or gives nothing more                           |
    | not_found   | there is no such file, stream or device                             |
    | refused     | nothing listens there, it is in use, or it answers with an error,   |
    |             | or in another protocol                                              |
    | unreachable | its name is not known, or there is no way to it                     |
    | tls         | no secure connection comes about                                    |
    | codec       | what it gives cannot be decoded                                     |
    | ended       | it was there, and has ended the connection                          |
    | failed      | anything else                                                       |

    is_lasting: whether it is no use to ask again.
    """

    def __init__(self, text: str, *, code: str = "failed", is_lasting: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.is_lasting = is_lasting


def problems_of(config: VideoSettings, graph_dir: Path) -> Iterator[tuple[str, str]]:
    """What is wrong before anything is opened: pairs of a key and a text."""
    known = option_names()
    for name in config.options:
        if known and name not in known:
            yield (
                f"options.{name}",
                f"FFmpeg has no option {name!r} for demuxers and protocols{nearest(name, known)}",
            )
    text = missing_hwaccel(config.hwaccel)
    if text is not None:
        yield "hwaccel", text
    if config.kind in ("v4l2", "screen") and not config.reconnect.at_start:
        text = missing_device(config) if config.kind == "v4l2" else missing_display(config)
        if text is not None:
            yield "source_uri", text
    if config.kind != "file":
        return
    try:
        found = find_file(config.address, config.uri, graph_dir)
    except AddressError as error:
        yield "source_uri", str(error)
        return
    if config.options and found.pictures:
        yield "options", "only for a film; pictures are read as they are"
    if config.fps is not None and not found.pictures:
        yield "fps", "only for a device, a screen, the test pattern or pictures; a film has its own"
    for key in ("loop", "start_s"):
        if found.is_pipe and getattr(config, key):
            yield key, "only for a file; a pipe can be read once"


def name_of(config: VideoSettings) -> str:
    """The source's name: its address without credentials."""
    match config.kind:
        case "file" | "test":
            return config.uri
        case "v4l2":
            return device_of(config)
        case "screen":
            return f"screen {display_of(config)}".rstrip()
        case _:
            return without_credentials(config.address.target)


def open_video(config: VideoSettings, graph_dir: Path, *, is_known: bool = False) -> Any:
    """The opened container.

    is_known: whether it was open before, and is live: it then opens sooner, as less of the stream is
        looked at.
    """
    try:
        match config.kind:
            case "file":
                return _open_file(config, graph_dir)
            case "v4l2":
                return open_device(config)
            case "screen":
                return open_screen(config)
            case "test":
                return open_pattern(config)
        is_brief = is_known or config.kind == "rtsp"
        if config.poll_s is not None:
            return _open_snapshots(config)
        return _open_url(config, is_brief=is_brief)
    except AddressError as error:
        raise VideoError(str(error), code=error.code) from error.__cause__


def is_live(container: Any, config: VideoSettings) -> bool:
    """Whether the pictures of an opened source come at their own time. What a web server gives to its
    end is a file: it has a length, or a duration and an index of its pictures."""
    if config.kind != "url":
        return config.may_be_live
    if config.live != "auto":
        return config.live
    if config.poll_s is not None:
        return True
    if not container.duration:
        return not (config.is_web and container.size >= 0 and may_be_whole(container))
    is_growing = container.size < 0 and container.streams.video[:1] != []
    return bool(
        is_growing
        and container.format.name.startswith("mov")
        and not container.streams.video[0].frames
    )


def may_be_whole(container: Any) -> bool:
    """Whether what an address gives may be a film: no list of parts, no picture that changes."""
    return container.format.name not in _NEVER_WHOLE


def _open_file(config: VideoSettings, graph_dir: Path) -> Any:
    import av

    found = find_file(config.address, config.uri, graph_dir)
    if found.pictures and not (found.pictures == (found.path,) and _is_animated(found.path)):
        return _open_pictures(config, found.pictures)
    if found.pictures and config.fps is not None:
        text = f"{str(found.path)!r} is an animated PNG, which has its own rate; leave fps out"
        raise VideoError(text)
    if found.is_pipe:
        return _open_pipe(config, found.path)
    options = config.ffmpeg_options
    try:
        return av.open(f"{_FILE}{found.path}", options=options, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as error:
        assert found.path is not None
        if not found.path.stat().st_size:
            reason = "it is empty (0 bytes)"
        else:
            reason = NO_INDEX if lacks_index(found.path) else reason_of(error)
        text = f"cannot read the video {str(found.path)!r}{_with(config)}: {reason}"
        raise VideoError(text, code="codec") from error


def _is_animated(path: Path | None) -> bool:
    """Whether a PNG is a film: most programs that write one call it .png too."""
    import av

    try:
        with av.open(f"{_FILE}{path}", options={"pattern_type": "none"}) as opened:
            return bool(opened.format.name == "apng")
    except (av.error.FFmpegError, ValueError):
        return False


def _open_pictures(config: VideoSettings, files: tuple[Path, ...]) -> PictureFiles:
    import av

    problem: Exception | None = None
    for file in files:  # the first that can be read says what they are
        try:
            model = av.open(f"{_FILE}{file}", options={"pattern_type": "none"})
        except (av.error.FFmpegError, ValueError) as error:
            problem = problem or error
            continue
        with model:
            rate = exact_rate(config.fps or _PICTURES_FPS)
            return PictureFiles(files, _still_stream(model, str(file), rate))
    assert problem is not None
    text = f"cannot read the picture {str(files[0])!r}: {reason_of(problem)}"
    raise VideoError(text, code="codec") from problem


def _still_stream(model: Any, name: str, rate: Fraction) -> StillStream:
    """The stream of pictures such as the one in the container `model`, which is called `name`."""
    stream = chosen_stream(model, name, "best")
    codec = stream.codec_context.codec
    if not codec.intra_only and codec.name not in _PICTURES:
        raise VideoError(f"{name!r} is a film ({codec.name}), not a single picture", code="codec")
    return StillStream(stream.codec_context, rate, stream)


def _open_pipe(config: VideoSettings, path: Path | None) -> PipedContainer:
    import av

    pipe = Pipe(path, timeout_s=config.timeout_s)
    opened = None
    try:
        opened = av.open(pipe, options=config.ffmpeg_options, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as error:
        if pipe.silence is None:
            raise VideoError(
                f"cannot read the video from {config.uri!r}{_with(config)}: {reason_of(error)}; a pipe "
                "cannot be gone back in, as MP4 needs: write MPEG-TS, Matroska or fragmented MP4 to it",
                code="codec",
            ) from error
    finally:
        if opened is None:
            pipe.close()
    if pipe.silence is not None:
        if opened is not None:
            opened.close()
        pipe.close()
        raise pipe.silence
    pipe.note_begun()
    return PipedContainer(opened, pipe)


def _with(config: VideoSettings) -> str:
    """The names of the user's own options; their values may be secret."""
    return f" with options {listed(config.options)}" if config.options else ""


_BRIEF = {
    "rtsp": {"probesize": "32", "fpsprobesize": "0"},
    "url": {"analyzeduration": "200000"},
}
"""Look at one packet, or at 0.2 s, of a live stream, and not at up to 5 s, before its pictures are
given. What a camera says of its stream mostly has the size of the pictures."""
_TRANSPORTS = {
    "auto": {"rtsp_flags": "prefer_tcp"},
    "tcp": {"rtsp_transport": "tcp"},
    "udp": {"rtsp_transport": "udp"},
}


_WEB = {"reconnect": "1", "reconnect_on_network_error": "1", "reconnect_delay_max": "0"}
"""Ask once more, at once, where a server has closed a connection that FFmpeg goes on to use. Without
that FFmpeg 8 passes over the packet that it wanted, without a word."""
_DATAGRAMS = {"overrun_nonfatal": "1", "reuse": "1", "fifo_size": "100000"}
"""What is not read in time is lost, and not the source; others may listen too; 19 MB wait to be read."""


def _open_snapshots(config: VideoSettings) -> Snapshots:
    assert config.poll_s is not None
    with _open_url(config, is_brief=False) as opened:
        first = _snapshot(opened, config)
        described = _still_stream(opened, name_of(config), 1 / exact_rate(config.poll_s))
    return Snapshots(described, fetch=partial(_fetched, config), first=first)


def _fetched(config: VideoSettings) -> bytes:
    with _open_url(config, is_brief=False, has_given=True) as opened:
        return _snapshot(opened, config)


def _snapshot(opened: Any, config: VideoSettings) -> bytes:
    """The first picture of a container."""
    if opened.streams.video:
        for packet in opened.demux(opened.streams.video[0]):
            if packet.size:
                return bytes(packet)
    raise VideoError(f"{name_of(config)} gave no picture, as poll_s expects", code="codec")


def _open_url(config: VideoSettings, *, is_brief: bool, has_given: bool = False) -> Any:
    """has_given: whether it has given a picture before; who listens is known then."""
    import av

    options: dict[str, str] = {}
    if config.kind == "rtsp":
        # Without its sound, a camera whose pictures stop is silent.
        options = {**_TRANSPORTS[config.transport], "allowed_media_types": "video"}
    elif urlsplit(name_of(config)).scheme.lower() in ("udp", "rtp"):
        options = _DATAGRAMS
    elif config.is_web:
        options = _WEB
    asked_s = time.monotonic()
    try:
        opened = _opened(config, {**options, **_BRIEF[config.kind]} if is_brief else options)
        if is_brief and not _is_described(opened) and not _is_late(asked_s, config):
            opened.close()
            opened = _opened(config, options)
    except (av.error.FFmpegError, ValueError) as error:
        # The text and the chain of FFmpeg's error hold the address with its password.
        # A camera that accepts the connection and stays silent ends as invalid data.
        silent = _is_late(asked_s, config)
        raise _refused_by(error, config, silent=silent, has_given=has_given) from None
    if not _is_described(opened) and _is_late(asked_s, config):  # nothing came, which is no error
        opened.close()
        raise _undescribed(config)
    if not opened.streams.video and (answer := ask(config)) is not None and answer.is_page:
        opened.close()
        raise _page(config)
    return opened


def _refused_by(
    error: Exception, config: VideoSettings, *, silent: bool, has_given: bool
) -> VideoError:
    """What is wrong, asked of a web server where FFmpeg does not say it."""
    import av

    name = name_of(config)
    unsaid = (av.error.HTTPOtherClientError, av.error.HTTPServerError, av.error.InvalidDataError)
    number = getattr(error, "errno", None)
    is_empty = number == errno.EIO and config.poll_s is None
    is_unsaid = isinstance(error, unsaid) or is_empty or number in _UNSAID
    misfit = None if has_given or not silent else _misfit(error, name, config, silent=True)
    answer = ask(config) if misfit is None and (is_unsaid or silent) else None
    if answer is None:
        if not (has_given or silent):
            misfit = _misfit(error, name, config, silent=False)
        return misfit or _refused(error, name, config, silent=silent)
    said = _said(answer, name)
    if said is not None:
        return said
    if answer.is_page:
        return _page(config)
    # Without ranges FFmpeg reads a film to its end to find its index, for as long as it may.
    if config.poll_s is None and (lack := missing_index(config)) is not None:
        return VideoError(f"cannot open {name}: {lack}", code="codec", is_lasting=True)
    if answer.is_list and not silent:
        text = f"{name} is a list (HLS) of which no part can be read; see whether they are there"
        return VideoError(text, code="codec")
    return _undescribed(config) if silent else _refused(error, name, config, silent=False)


def _misfit(
    error: Exception, name: str, config: VideoSettings, *, silent: bool
) -> VideoError | None:
    """Who listens at the address instead; None where nobody does, or who should, or it has said why."""
    import av

    if isinstance(error, (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError)):
        return None
    by_status = (av.error.HTTPError, av.error.HTTPClientError, av.error.HTTPServerError)
    if isinstance(error, by_status) and not config.is_web:  # a camera answers HTTP so, too
        return None
    heard = None if getattr(error, "errno", None) in _NOBODY else listener(config)
    misfit = None if heard is None else heard.misfit(config)
    if heard is None or misfit is None:
        return None
    if silent and not heard.line and not heard.is_secure:
        return VideoError(f"{_late(config)}: {misfit}", code="timeout")
    return VideoError(f"cannot open {name}: {misfit}", code=misfit.code)


def _said(answer: WebAnswer, name: str) -> VideoError | None:
    """What a web server says that it does not give; None where it says that it gives something."""
    host = urlsplit(name).netloc
    if answer.elsewhere is not None:
        there = escaped(without_credentials(answer.elsewhere))
        is_web = urlsplit(there).scheme in ("http", "https")
        what = ", which leads nowhere" if is_web else "; if you trust that, write it as source_uri"
        return VideoError(f"{host} sends {name} on to {there}{what}", code="refused")
    if answer.is_refusal:
        code = _CODES.get(answer.status, "refused")
        return VideoError(f"{host} answers {name} with {answer.in_words}", code=code)
    if answer.is_empty:
        return VideoError(f"{host} answers {name} with nothing (0 bytes)", code="ended")
    return None


def _page(config: VideoSettings) -> VideoError:
    return VideoError(
        f"{name_of(config)} is a web page, not video; look on it, or in the camera's manual, for an "
        "address of RTSP, MJPEG or a snapshot (a single JPEG, with poll_s)",
        code="codec",
    )


def _is_described(opened: Any) -> bool:
    """Whether the size of its pictures is known, if it has any."""
    contexts = [it.codec_context for it in opened.streams.video[:1]]
    return all(context is None or context.width for context in contexts)


def _is_late(asked_s: float, config: VideoSettings) -> bool:
    return time.monotonic() - asked_s >= config.timeout_s


def _late(config: VideoSettings) -> VideoError:
    text = f"{name_of(config)} did not answer within timeout_s {config.timeout_s:g}"
    return VideoError(text, code="timeout")


def _undescribed(config: VideoSettings) -> VideoError:
    text = (
        f"{name_of(config)} answers, but has sent nothing within timeout_s {config.timeout_s:g} with "
        "which decoding can begin; where its key frames come less often, write a longer timeout_s"
    )
    return VideoError(text, code="timeout")


def _opened(config: VideoSettings, options: dict[str, str]) -> Any:
    import av

    return av.open(
        config.address.target,
        options={**options, **config.ffmpeg_options},
        timeout=config.timeout_s,
        metadata_errors="replace",
    )


def _refused(error: Exception, name: str, config: VideoSettings, *, silent: bool) -> VideoError:
    import av

    parts = urlsplit(name)
    host = parts.netloc
    if isinstance(error, (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError)):
        has_given = "@" in urlsplit(config.uri).netloc
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
    if isinstance(error, (av.error.HTTPError, av.error.HTTPClientError, av.error.HTTPServerError)):
        status, is_fault = refusal(config), isinstance(error, av.error.HTTPServerError)
        # A server that is busy with the question before may refuse this one for a reason of its own.
        if status is not None and status.startswith("5") == is_fault:
            return VideoError(f"{host} answers {name} with {escaped(status)}", code="refused")
        sound = isinstance(error, av.error.HTTPOtherClientError) and parts.scheme == "rtsp"
        hint = "; a stream of sound alone, without pictures, answers so" if sound else ""
        reason = reason_of(error)
        said = reason.removeprefix("Server returned ")
        with_what = said if _STATUS.match(said) else f"an error: {reason}{hint}"
        return VideoError(f"{host} answers {name} with {with_what}", code="refused")
    if isinstance(error, av.error.ProtocolNotFoundError):
        return VideoError(f"this FFmpeg has no protocol {parts.scheme!r}; it cannot open {name}")
    if isinstance(error, ConnectionRefusedError):
        return VideoError(
            f"nothing listens at {host} (connection refused); check address and port of {name}",
            code="refused",
        )
    if silent or isinstance(error, (TimeoutError, av.error.ExitError)):
        return _late(config)
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
    has_ended = number in (errno.EIO, errno.ECONNRESET) or isinstance(error, av.error.EOFError)
    if has_ended and parts.scheme in ("https", "rtsps"):
        fault = fault_of(config) or f"check the port, or write {parts.scheme[:-1]}://"
        return VideoError(f"{host} makes no secure connection for {name}: {fault}", code="tls")
    if number == errno.EPROTONOSUPPORT and config.kind == "rtsp":
        is_auto = config.transport == "auto"
        how = "TCP, nor by UDP" if is_auto else f"{config.transport.upper()}; write transport: auto"
        return VideoError(f"{name} does not send by {how}", code="refused")
    if has_ended and parts.scheme in ("http", "https"):
        return VideoError(
            f"{host} answers, but gives no video at {name}, or ends the connection before it has begun",
            code="ended",
        )
    code = "codec" if isinstance(error, av.error.InvalidDataError) else "failed"
    return VideoError(f"cannot open {name}{_with(config)}: {reason_of(error)}", code=code)


_STATUS = re.compile(r"\d{3} ")
_UNSAID = (errno.EINVAL, errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH)
"""Errors that may be those of an address to which a server sends on."""
_NOBODY = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EPROTONOSUPPORT)
"""Errors that say that nobody listens, or what the right one refuses."""
_CODES = {
    401: "auth",
    403: "auth",
    404: "not_found",
    407: "auth",
    408: "timeout",
    410: "not_found",
    504: "timeout",
}
"""Of an error's status."""


def _is_known(host: str | None) -> bool:
    """Whether there is a machine of that name. FFmpeg does not say so."""
    try:
        return bool(socket.getaddrinfo(host, None))
    except (OSError, UnicodeError):
        return False


def reason_of(error: BaseException) -> str:
    """What FFmpeg says, without the address that it appends."""
    text = getattr(error, "strerror", None) or str(error)
    if text == "End of file":
        return "it ends before its first picture"
    return "not a video that FFmpeg can read" if text.startswith("Invalid data") else text
