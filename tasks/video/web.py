"""What a web server says of an address, where FFmpeg does not: its status, and what it gives."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, TypeVar

from flowrun.tasks.video.settings import VideoSettings

__all__ = ["WebAnswer", "ask", "gives_parts", "missing_index"]

T = TypeVar("T")

_LONGEST_S = 2.0
"""How long one question may take, also of a server that gives its answer byte by byte."""
_PART = 8
"""Where the part of a film begins that a server is asked for, to find out whether it gives any."""
_BOX = struct.Struct(">I4s")
"""How each part of an MP4 begins: its size and its kind."""
_MOST_LOOKED_AT = 1 << 16
"""Bytes of the beginning of a film."""
_FRESH = timedelta(seconds=10)
"""What was changed sooner before may be changing all the time."""
_PAGES = ("text/html", "application/xhtml+xml")
_LISTS = (
    "application/vnd.apple.mpegurl",
    "application/x-mpegurl",
    "audio/mpegurl",
    "audio/x-mpegurl",
)


@dataclass(frozen=True, slots=True)
class WebAnswer:
    """The head of an answer.

    kind: its Content-Type, without parameters.
    is_stored: whether it says that what it gives was there before: it was changed for the last time
        before it was asked, or it has an ETag, but no such date.
    is_empty: whether it says that it gives nothing.
    elsewhere: the address to which it sends on, where that is no web server's, or none that answers.
    """

    status: int
    kind: str = ""
    is_stored: bool = False
    is_empty: bool = False
    elsewhere: str | None = None

    @property
    def is_refusal(self) -> bool:
        """Whether it gives nothing, by its status."""
        is_success = self.status // 100 == HTTPStatus.OK // 100
        return not is_success or self.status == HTTPStatus.NO_CONTENT

    @property
    def is_page(self) -> bool:
        return self.kind in _PAGES

    @property
    def is_list(self) -> bool:
        """Whether it is a list of parts (HLS)."""
        return self.kind in _LISTS

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

    async def look(answer: httpx.Response) -> WebAnswer:
        return _answer(answer.status_code, answer.headers)

    try:
        return _asked(config, look)
    except (httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
        return WebAnswer(HTTPStatus.FOUND, elsewhere=str(error.request.url))
    except httpx.ConnectError as error:
        there = str(error.request.url)
        is_sent_on = there != str(httpx.URL(config.address.target))
        return WebAnswer(HTTPStatus.FOUND, elsewhere=there) if is_sent_on else None
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

    async def has_index_last(answer: httpx.Response) -> bool:
        return await _has_index_last(answer.aiter_bytes())

    async def first_byte(answer: httpx.Response) -> bytes:
        return await anext(answer.aiter_raw(1), b"")

    try:
        if not _asked(config, has_index_last):
            return None
        length = _length_of_parts(config)
        if length is None:
            return BEGINNING_ONLY
        try:
            end = _asked(config, first_byte, Range=f"bytes={length - 1}-")
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

    async def length(answer: Any) -> int | None:
        part = answer.headers.get("content-range", "")
        whole = part.rpartition("/")[2]
        is_part = answer.status_code == HTTPStatus.PARTIAL_CONTENT
        is_part = is_part and part.startswith(f"bytes {_PART}-")
        return int(whole) if is_part and whole.isdecimal() else None

    return _asked(config, length, Range=f"bytes={_PART}-")


async def _has_index_last(chunks: AsyncIterable[bytes]) -> bool:
    """Whether what comes is an MP4 whose pictures are before its index, as far as its beginning says."""
    begin, at = b"", 0
    async for chunk in chunks:
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


def _asked(config: VideoSettings, look: Callable[[Any], Awaitable[T]], **headers: str) -> T:
    """What `look` makes of the `httpx.Response`, whose content is not read yet, within the time that a
    question may take. Raises `TimeoutError`, and httpx's errors."""
    import httpx

    limit_s = min(config.timeout_s, _LONGEST_S)
    asking = httpx.AsyncClient(
        timeout=limit_s,
        follow_redirects=True,
        limits=httpx.Limits(max_keepalive_connections=0),  # some servers close them unsaid
        verify=False,  # noqa: S501  # as FFmpeg does; nothing it says is trusted
    )

    async def bounded() -> T:
        async with (
            asyncio.timeout(limit_s),
            asking as client,
            client.stream(
                "GET", config.address.target, headers={**_headers(config), **headers}
            ) as answer,
        ):
            return await look(answer)

    return asyncio.run(bounded())


def _answer(status: int, headers: Mapping[str, str]) -> WebAnswer:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    changed, now = _time(headers.get("last-modified")), _time(headers.get("date"))
    is_old = changed is not None and now is not None and now - changed > _FRESH
    is_stored = is_old or (changed is None and "etag" in headers)
    return WebAnswer(
        status,
        kind,
        is_stored=is_stored and status == HTTPStatus.OK,
        is_empty=headers.get("content-length") == "0",
    )


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
