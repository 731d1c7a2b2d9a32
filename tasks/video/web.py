"""What a web server says of an address, where FFmpeg does not: its status, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from flowrun.tasks.video.settings import VideoSettings

__all__ = ["WebAnswer", "ask"]

_LONGEST_S = 2.0
_FRESH = timedelta(seconds=10)
"""What was changed sooner before may be changing all the time."""
_PAGES = ("text/html", "application/xhtml+xml")


@dataclass(frozen=True, slots=True)
class WebAnswer:
    """The head of an answer.

    kind: its Content-Type, without parameters.
    is_stored: whether it says that what it gives was there before: it was changed for the last time
        before it was asked, or it has an ETag, but no such date.
    """

    status: int
    kind: str
    is_stored: bool

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
        with httpx.stream(
            "GET",
            config.address.target,
            headers=_headers(config),
            timeout=min(config.timeout_s, _LONGEST_S),
            follow_redirects=True,
            verify=False,  # noqa: S501  # as FFmpeg does; nothing it says is trusted
        ) as answer:
            return _answer(answer.status_code, answer.headers)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError):
        return None


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
