"""What error texts share: listing valid choices, naming the nearest, showing values, hiding secrets."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

__all__ = [
    "MASK",
    "counted",
    "described",
    "listed",
    "mask_secrets",
    "mask_urls",
    "nearest",
    "storable",
]

MASK = "***"
_SHORTEST_SECRET = 4

# A password may itself hold "@" (greedy up to the last one) or, unescaped, "/"; but
# "host:8080/a@b" holds no password.
_USER_INFO = re.compile(
    r"(\b[A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s/?#]*|[^\s/?#@:]*:(?!\d+/)[^\s?#]*)@"
)


def nearest(word: str, options: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the option most like `word`, ignoring case; "" if none is like it."""
    by_lower = {option.lower(): option for option in reversed(list(options))}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return f" (did you mean {by_lower[close[0]]!r}?)" if close else ""


def listed(options: Iterable[str]) -> str:
    """The options in the order given, separated by commas; "none" if there are none."""
    return ", ".join(options) or "none"


def described(value: Any) -> str:
    """A value from a graph file as an error text shows it: YAML's words, at most 60 characters."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    text = repr(mask_urls(value) if isinstance(value, str) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def mask_urls(text: str) -> str:
    """`text` with the `user:password` of every URL in it replaced by `***`."""
    return _USER_INFO.sub(rf"\1{MASK}@", text)


def mask_secrets(text: str, secrets: Iterable[str], *, shortest: int = _SHORTEST_SECRET) -> str:
    """`text` as it may leave the process: without `secrets` and the user part of URLs.

    secrets: the texts to mask.
    shortest: length of the shortest secret that is masked. To mask shorter ones, such as `${CAMERA}` =
        "1", would make every 1 unreadable.
    """
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= shortest:
            text = text.replace(secret, MASK)
    return mask_urls(text)


def storable(text: str) -> str:
    """`text` with lone surrogates, as in a file name that is not UTF-8, escaped: UTF-8 lacks them."""
    return text.encode(errors="backslashreplace").decode()


def counted(number: int, noun: str) -> str:
    """`1 task`, `2 tasks`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
