"""What a web server says of an address, where FFmpeg does not: its status, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from flowrun.tasks.video.settings import VideoSettings

__all__ = ["WebAnswer", "ask", "gives_beginning_only"]

_LONGEST_S = 2.0
_PART = 8
"""Where the part of a film begins that a server is asked for, to find out whether it gives any."""
_BOX = slice(4, 8)
"""Where an MP4 says what its first box is."""
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


def gives_beginning_only(config: VideoSettings) -> bool:
    """Whether an http address is that of an MP4 of which its server gives no part, but only all of it:
    where its index is at the end it can then not be read."""
    if not config.is_web:
        return False
    import httpx

    try:
        with _answers(config) as answer:
            first = next(answer.iter_bytes(64), b"")
        if first[_BOX] != b"ftyp":
            return False
        with _answers(config, Range=f"bytes={_PART}-") as answer:
            part = answer.headers.get("content-range", "").startswith(f"bytes {_PART}-")
            return not (answer.status_code == HTTPStatus.PARTIAL_CONTENT and part)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError):
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
