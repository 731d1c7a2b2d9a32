"""What error texts share: listing valid choices, naming the nearest, showing values, hiding secrets."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterable
from functools import cache
from typing import Any
from urllib.parse import quote, quote_plus, unquote

__all__ = [
    "MASK",
    "counted",
    "described",
    "escaped",
    "is_secret_between",
    "listed",
    "mask_secrets",
    "mask_urls",
    "mask_within",
    "nearest",
    "not_given_back",
    "one_line",
    "says_password",
    "says_secret",
    "secrets_in_urls",
    "spellings",
    "storable",
    "with_article",
]

_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_LINE_ENDS = {ord("\n"): r"\n", ord("\r"): r"\r", ord("\t"): r"\t"}

MASK = "***"
_SHORTEST_SECRET = 4

# A password may itself hold "@" (greedy up to the last one) or, unescaped, "/", "?" and "#"; but
# "host:8080/a@b" holds no password. Everything is bounded: this is searched in texts of any kind.
_USER_INFO = re.compile(
    r"(\b[A-Za-z][A-Za-z0-9+.-]{0,30}://)"
    r"(?!(?:\$\{(?:secret:)?\w{1,64}\}:?){1,2}@[^\s@]{0,512}(?:\s|$))"  # only names of variables
    r"([^\s/?#@:]{0,256}:(?!\d+(?:[/?#]|$))[^\s\"'<>,\[\]{}]{0,256}|[^\s/?#]{0,2048})@"
)
_QUERY = re.compile(r"([?&;#]([\w.-]+)=)((?:[^&;#\s\"'<>]|'(?=[^\s,\]})&;#]))+)")
_BEFORE_SECRET = re.compile(r"(?:://[^\s/?#@:]{0,256}:|[?&;#]([\w.-]{1,256})=)$")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SECRET_PARTS = ("password", "passwd", "passphrase", "secret", "apikey", "credential")
"""What a word of a secret's name holds."""
_SECRET_WORDS = {"authorization", "key", "pass", "pswd", "pw", "pwd", "token"}
_SECRET_PLURALS = {"keys", "tokens"}
_OF_SECRETS = {
    "access",
    "api",
    "auth",
    "bearer",
    "private",
    "refresh",
    "secret",
    "session",
    "signing",
}
"""Before a plural, or in a query before "key" and "token" too: `api_keys`, but not `max_new_tokens`."""
_NO_SECRET_BEFORE = {
    "cache", "dict", "foreign", "group", "hot", "index", "join", "lookup", "map", "partition",
    "primary", "public", "row", "sort",
}  # fmt: skip
"""Before "key": `sort_key`."""
_NO_SECRET_AFTER = {
    "budget", "column", "count", "field", "file", "folder", "frame", "frames", "header", "id", "index",
    "interval", "len", "length", "limit", "map", "name", "path", "point", "points", "rate", "size",
    "timeout", "type", "url",
}  # fmt: skip
"""After any of them: `token_limit`, `key_file`."""
_SECRET_PARAMETERS = {"auth", "code", "sig", "signature"}
"""More words that say it of a URL's parameter."""


def says_secret(name: str) -> bool:
    """Whether something called `name`, such as `api_key` or `RTSP_PASSWORD`, is a secret."""
    words = [word.lower() for word in _WORD.findall(name)]
    for i, word in enumerate(words):
        before = words[i - 1] if i else ""
        after = words[i + 1] if i + 1 < len(words) else ""
        if after in _NO_SECRET_AFTER:
            continue
        if any(part in word for part in _SECRET_PARTS):
            return True
        if word in _SECRET_WORDS and not (word == "key" and before in _NO_SECRET_BEFORE):
            return True
        if word in _SECRET_PLURALS and before in _OF_SECRETS:
            return True
    return False


def says_password(name: str) -> bool:
    """Whether it is one that may be a number: not a key, nor a token."""
    return says_secret(re.sub(r"(?i)keys?|tokens?", "", name))


def nearest(word: str, options: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the option most like `word`, ignoring case; "" if none is like it."""
    by_lower = {option.lower(): option for option in reversed(list(options))}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return f" (did you mean {by_lower[close[0]]!r}?)" if close else ""


def listed(options: Iterable[str]) -> str:
    """The options in the order given, separated by commas; "none" if there are none."""
    return ", ".join(options) or "none"


def with_article(noun: str) -> str:
    """`an int`, `a str`."""
    return f"{'an' if noun[:1] in 'AEIOaeio' else 'a'} {noun}"


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
    """`text` with the `user:password` of every URL in it, and the values of parameters that are secret,
    replaced by `***`."""
    if "@" in text and "://" in text:
        text = _USER_INFO.sub(rf"\1{MASK}@", text)
    return _QUERY.sub(_masked_parameter, text) if "=" in text else text


def _masked_parameter(match: re.Match[str]) -> str:
    return f"{match[1]}{MASK}" if _is_secret_parameter(match[2]) else match[0]


def _is_secret_parameter(name: str) -> bool:
    return says_secret(name) or not _SECRET_PARAMETERS.isdisjoint(
        map(str.lower, _WORD.findall(name))
    )


def is_secret_between(before: str, after: str) -> bool:
    """Whether what is between two parts of a URL is a password or a secret parameter."""
    found = _BEFORE_SECRET.search(before)
    if found is None:
        return False
    if found[1] is not None:
        return _is_secret_parameter(found[1])
    return "@" in re.split(r"[\s/?#]", after, maxsplit=1)[0]


def secrets_in_urls(text: str) -> frozenset[str]:
    """The passwords and secret parameters of the URLs in `text`, as they are written there."""
    found = []
    for _, user_info in _USER_INFO.findall(text):
        parts = user_info.partition(":")[2].split("@")
        # Where the password ends is not known if the URL holds more than one "@".
        found += ["@".join(parts[:end]) for end in range(1, len(parts) + 1)]
    rest = _USER_INFO.sub(rf"\1{MASK}@", text)
    found += [value for _, name, value in _QUERY.findall(rest) if _is_secret_parameter(name)]
    return frozenset(found) - {"", MASK}


def mask_secrets(text: str, secrets: Collection[str], *, shortest: int = _SHORTEST_SECRET) -> str:
    """`text` as it may leave the process: without `secrets`, however they are spelled, and what is
    secret in URLs.

    secrets: the texts to mask.
    shortest: length of the shortest secret that is masked. To mask shorter ones, such as the password
        "1", would make every 1 unreadable.
    """
    for secret in spellings(frozenset(secrets)):
        if len(secret) >= shortest:
            text = text.replace(secret, MASK)
    return mask_urls(text)


def mask_within(value: Any, secrets: Collection[str], *, shortest: int = _SHORTEST_SECRET) -> Any:
    """As `mask_secrets`, for all texts in lists and mappings."""
    if isinstance(value, dict):
        return {key: mask_within(item, secrets, shortest=shortest) for key, item in value.items()}
    if isinstance(value, list):
        return [mask_within(item, secrets, shortest=shortest) for item in value]
    return mask_secrets(value, secrets, shortest=shortest) if isinstance(value, str) else value


@cache
def spellings(secrets: frozenset[str]) -> tuple[str, ...]:
    """The secrets as they are, as URLs write them, and as Python and JSON quote them; longest first."""
    found = set(secrets)
    for secret in secrets:
        plain = unquote(secret)
        found |= {plain, quote(secret, safe=""), quote(plain, safe=""), quote_plus(plain)}
    for secret in list(found):
        found |= {repr(secret)[1:-1], json.dumps(secret)[1:-1]}
    return tuple(sorted(found - {""}, key=len, reverse=True))


def escaped(text: str) -> str:
    r"""`text` as a terminal may get it: control characters (ESC among them), marks that reverse what
    follows, and lone surrogates as `\u001b`. Lines and tabs stay, and so do all scripts and emoji."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str) -> str:
    r"""`text` as `escaped` gives it, on one line: line ends and tabs as `\n`, `\r`, `\t`."""
    return escaped(text.translate(_LINE_ENDS))


def storable(text: str) -> str:
    """`text` with lone surrogates, as in a file name that is not UTF-8, escaped: UTF-8 lacks them."""
    return text.encode(errors="backslashreplace").decode()


def not_given_back(number: int) -> str:
    """That the log lacks pictures: how many."""
    return (
        f"{counted(number, 'picture')} {'is' if number == 1 else 'are'} not given back by the log"
    )


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 task`, `2 tasks`. plural: where it is not the noun with an s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
