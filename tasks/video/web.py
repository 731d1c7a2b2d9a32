"""What a web server says of an address, where FFmpeg does not: its status, and what it gives."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from flowrun.tasks.video.settings import VideoSettings

__all__ = ["WebAnswer", "ask", "gives_parts", "missing_index"]

_LONGEST_S = 2.0
_PART = 8
"""Where the part of a film begins that a server is asked for, to find out whether it gives any."""
_BOX = struct.Struct(">I4s")
"""How each part of an MP4 begins: its size and its kind."""
_MOST_LOOKED_AT = 1 << 16
"""Bytes of the beginning of a film."""
_FRESH = timedelta(seconds=10)
"""What was changed sooner before may be changing all the time."""
_PAGES = ("text/html", "application/xhtml+xml")


@dataclass(frozen=True, slots=True)
class WebAnswer:
    """The head of an answer.

    kind: its Content-Type, without parameters.
    is_stored: whether it says that what it gives was there before: it was changed for the last time
        before it was asked, or it has an ETag, but no such date.
    elsewhere: the address to which it sends on, where no web server is asked.
    """

    status: int
    kind: str
    is_stored: bool
    elsewhere: str | None = None

    @property
    def is_page(self) -> bool:
        return self.kind in _PAGES

    @property
    def in_words(self) -> str:
        try:
            return f"{self.status} {HTTPStatus(self.status).phrase}"
        except ValueError:
            return str(self.status)


def ask(config: VideoSettings) -> WebAnswer | None:
    """What the server of an http address answers now; None where it is none, or gives no answer. What
    it gives is not read."""
    if not config.is_web:
        return None
    import httpx

    try:
        with _answers(config) as answer:
            return _answer(answer.status_code, answer.headers)
    except httpx.UnsupportedProtocol as error:
        return WebAnswer(HTTPStatus.FOUND, "", is_stored=False, elsewhere=str(error.request.url))
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError):
        return None


def gives_parts(config: VideoSettings) -> bool:
    """Whether the source can be gone back in: it is at no http address, or its server gives parts of it,
    or does not answer."""
    if not config.is_web:
        return True
    import httpx

    try:
        return _length_of_parts(config) is not None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError):
        return True


def missing_index(config: VideoSettings) -> str | None:
    """Why the index of an MP4 at an http address cannot be had, and what to do; None where it can, or
    where there is none, or no MP4."""
    if not config.is_web:
        return None
    import httpx

    try:
        with _answers(config) as answer:
            if not _has_index_last(answer.iter_bytes()):
                return None
        length = _length_of_parts(config)
        if length is None:
            return BEGINNING_ONLY
        try:
            with _answers(config, Range=f"bytes={length - 1}-") as answer:
                end = next(answer.iter_raw(1), b"")
        except httpx.RemoteProtocolError:
            end = b""
        return None if end else CUT_SHORT
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError):
        return None


BEGINNING_ONLY = (
    "its server gives films as a whole only (no ranges), which an MP4 with its index at the end does "
    "not allow; have the server allow ranges, move the index with ffmpeg -i IN -c copy -movflags "
    "+faststart OUT, or download the film"
)
CUT_SHORT = (
    "its server ends the connection before it has sent as much as it says there is, and the index of "
    "this MP4 is at its end; see whether the film there is whole"
)


def _length_of_parts(config: VideoSettings) -> int | None:
    """How long the whole is of which a server gives parts; None where it gives none."""
    with _answers(config, Range=f"bytes={_PART}-") as answer:
        part = answer.headers.get("content-range", "")
        whole = part.rpartition("/")[2]
        is_part = answer.status_code == HTTPStatus.PARTIAL_CONTENT
        is_part = is_part and part.startswith(f"bytes {_PART}-")
        return int(whole) if is_part and whole.isdecimal() else None


def _has_index_last(chunks: Iterable[bytes]) -> bool:
    """Whether what comes is an MP4 whose pictures are before its index, as far as its beginning says."""
    begin, at = b"", 0
    for chunk in chunks:
        begin += chunk
        while at + _BOX.size <= len(begin):
            size, kind = _BOX.unpack_from(begin, at)
            if kind == b"mdat":
                return at > 0
            if kind == b"moov" or (at == 0 and kind != b"ftyp") or size < _BOX.size:
                return False
            at += size
        if len(begin) > _MOST_LOOKED_AT:
            break
    return False


def _answers(config: VideoSettings, **headers: str) -> AbstractContextManager[Any]:
    """An `httpx.Response` whose content is not read yet."""
    import httpx

    return httpx.stream(
        "GET",
        config.address.target,
        headers={**_headers(config), **headers},
        timeout=min(config.timeout_s, _LONGEST_S),
        follow_redirects=True,
        verify=False,  # noqa: S501  # as FFmpeg does; nothing it says is trusted
    )


def _answer(status: int, headers: Mapping[str, str]) -> WebAnswer:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    changed, now = _time(headers.get("last-modified")), _time(headers.get("date"))
    is_old = changed is not None and now is not None and now - changed > _FRESH
    is_stored = is_old or (changed is None and "etag" in headers)
    return WebAnswer(status, kind, is_stored=is_stored and status == HTTPStatus.OK)


def _time(said: str | None) -> datetime | None:
    try:
        return None if said is None else parsedate_to_datetime(said)
    except ValueError:
        return None


def _headers(config: VideoSettings) -> dict[str, str]:
    """What FFmpeg is asked to send."""
    options = config.ffmpeg_options
    lines = [line.partition(":") for line in options.get("headers", "").splitlines()]
    headers = {name.strip(): value.strip() for name, colon, value in lines if colon}
    if "user_agent" in options:
        headers["User-Agent"] = options["user_agent"]
    return headers
