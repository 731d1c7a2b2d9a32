"""What a user writes as the address of a source -> what kind of source it is, and what is opened.

| written                                                    | kind   | opened                      |
|------------------------------------------------------------|--------|-----------------------------|
| `0`, `/dev/video0`, `v4l2://0`, `webcam`                   | v4l2   | the device                  |
| `rtsp://...`, `rtsps://...`                                | rtsp   | the camera                  |
| `http://...`, `udp://...`, any other `scheme://...`        | url    | as FFmpeg opens it          |
| `screen`, `screen://:1`                                    | screen | the display                 |
| `test`                                                     | test   | pictures drawn here         |
| `-`, `pipe:`, `pipe:0`, `/dev/stdin`                       | file   | standard input              |
| all else; `file:...`, `file://...`                         | file   | the path, see `files`       |

A file whose name looks like another form is written with its folder: `./test`, `./0`.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from flowrun.runtime.errors import FlowrunError
from flowrun.runtime.wording import described, nearest

__all__ = [
    "NO_LIST",
    "Address",
    "AddressError",
    "SourceType",
    "hint_of_host",
    "parse_address",
    "without_credentials",
]

SourceType = Literal["file", "rtsp", "url", "v4l2", "screen", "test"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(//)?")
"""Of two letters or more: `C:` is a drive."""
_RTSP = ("rtsp", "rtsps")
_ELSEWHERE = (
    *(
        "http",
        "https",
        "rtmp",
        "rtmps",
        "rtmpt",
        "rtmpe",
        "rtmpte",
        "rtmpts",
        "udp",
        "udplite",
        "tcp",
    ),
    *("tls", "rtp", "srtp", "srt", "rist", "mms", "mmsh", "mmst", "ftp", "sftp", "smb", "gopher"),
)
"""Schemes of addresses that FFmpeg opens, if it was built with them."""
_COMMON = (*_RTSP, "http", "https", "rtmp", "udp", "srt")
_STANDARD_INPUT = re.compile(r"-|(?:pipe|fd):0?|/dev/stdin|/dev/fd/0|/proc/self/fd/0")
_HOST = re.compile(r"(?:\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-fA-F:]+\]|localhost)(?::\d+)?(?:[/?].*)?$")
_ANY = "a path, rtsp://..., http://..., a device's number, webcam, screen or test"
NO_LIST = (
    "a list, where one source is expected; only a graph file may have it, and not within a list"
)
_EXAMPLES = {"rtsp": "rtsp://HOST/PATH", "url": "http://HOST/PATH", "v4l2": "0 or /dev/video0"}


class AddressError(FlowrunError):
    """An address that means no source, or one that is not there: which, and what to write instead.

    code: the same in one word, as of `opening.VideoError`.
    """

    def __init__(self, text: str, *, code: str = "not_found") -> None:
        super().__init__(text)
        self.code = code


class Address(NamedTuple):
    """What an address means.

    kind: the kind of source.
    target: a path (file), a URL (rtsp, url), a number or a path (v4l2), a display (screen), or ""
        for what needs no more: standard input, the first webcam, the display of the session.
    is_input: whether it is standard input.
    """

    kind: SourceType
    target: str
    is_input: bool = False


def parse_address(
    uri: str | int | list[str | int] | None, source_type: SourceType | None = None
) -> Address:
    """What `uri` means; `AddressError` where it can mean nothing.

    source_type: what the user says that it is; None if its form decides.
    """
    if uri is None:
        if source_type in ("screen", "test"):
            return Address(source_type, "")
        raise AddressError(f"no source_uri; write {_ANY}")
    if isinstance(uri, list):
        raise AddressError(NO_LIST)
    text = str(uri)
    if not text.strip():
        raise AddressError(f"an empty address; write {_ANY}")
    if "\0" in text:
        raise AddressError("an address with a zero byte, which no path holds")
    if source_type == "file":
        return _file(text)
    found = _by_form(text)
    if source_type is None or source_type == found.kind:
        return found
    if source_type == "v4l2" and found.kind == "file":  # a device of another name
        return Address("v4l2", found.target)
    if source_type == "screen" and re.fullmatch(r"[\w.-]*:\d+.*", text):
        return Address("screen", text)
    if source_type == "url" and found.kind == "rtsp":
        return Address("url", found.target)
    said = described(text)
    if source_type in ("screen", "test"):
        raise AddressError(
            f"{said} is no {source_type}; leave source_uri out with source_type: {source_type}"
        )
    raise AddressError(
        f"{said} is no {source_type} source, as source_type says; "
        f"write {_EXAMPLES[source_type]}, or another source_type"
    )


def _by_form(text: str) -> Address:
    if text.isdecimal() and text.isascii():
        return Address("v4l2", str(int(text)))
    if re.fullmatch(r"-\d+", text):
        raise AddressError(f"there is no device {text}; devices are numbered from 0")
    if text.lower() == "webcam":
        return Address("v4l2", "")
    if text.startswith("/dev/video"):
        return Address("v4l2", text)
    if text.lower() in ("screen", "test"):
        return Address("screen" if text.lower() == "screen" else "test", "")
    if _STANDARD_INPUT.fullmatch(text):
        return Address("file", "", is_input=True)
    url = text.strip()
    found = _SCHEME.match(url)
    scheme, has_slashes = (found[1].lower(), bool(found[2])) if found else ("", False)
    if found is None or scheme == "file":
        return _file(text)
    rest = url[found.end() :]
    if scheme == "v4l2" and has_slashes:
        return Address("v4l2", str(int(rest)) if rest.isdecimal() else rest)
    if scheme in ("screen", "x11grab") and has_slashes:
        return Address("screen", rest)
    known = (*_RTSP, *_ELSEWHERE)
    if not has_slashes:
        if scheme in known:
            raise AddressError(
                f"{described(text)} lacks '//'; write {scheme}://..., or ./{scheme}:... for a file"
            )
        return _file(text)
    meant = nearest(scheme, _COMMON)
    if scheme not in known and meant:
        raise AddressError(f"unknown protocol {scheme!r}{meant}")
    _check_url(url, scheme)
    return Address("rtsp" if scheme in _RTSP else "url", url)


def _check_url(url: str, scheme: str) -> None:
    rest = url[len(scheme) + 3 :]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    after = rest[len(authority) :]
    if "@" in after and "@" not in authority and _has_password(authority):
        raise AddressError(
            f"the user name or password of its {scheme}:// address holds {after[0]!r}, "
            f"which ends the name of the host; write %{ord(after[0]):02X} in its place"
        )
    try:
        parts = urlsplit(f"//{authority.rpartition('@')[2]}")
        has_host = parts.port is not None or bool(parts.hostname)
    except ValueError:  # not shown: it may be a password without a host after it
        raise AddressError(
            f"what follows the host of its {scheme}:// address is no port from 0 to 65535"
        ) from None
    if not has_host:
        raise AddressError(f"{without_credentials(url)} names no host; write {scheme}://HOST/...")


def _file(text: str) -> Address:
    """A path, or a `file:` address of one: percent-encoded, on this computer."""
    if text[:5].lower() != "file:":
        return Address("file", text)
    rest = text[5:]
    if rest.startswith("//"):
        rest = rest[2:]
        if rest.lower().startswith("localhost/"):
            rest = rest[len("localhost") :]
    if not rest:
        raise AddressError(f"{text!r} names no file; write file:///PATH, or the path alone")
    return Address("file", unquote(rest, errors="surrogateescape"))


def _has_password(authority: str) -> bool:
    """Whether a colon begins a password, and no port; "[" begins a host of colons."""
    return bool(re.search(r":(?!\d+$)", authority)) and not authority.startswith("[")


def hint_of_host(text: str) -> str:
    """What to write for a path that looks like an address without its protocol; "" for others."""
    return f"; for a camera write rtsp://{text}" if _HOST.match(text) else ""


def without_credentials(url: str) -> str:
    """`url` without user, password, query and fragment, which may hold a token.

    A password may hold "@" and "/": where there is one, all up to the last "@" is left out.
    """
    scheme, separator, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if _has_password(authority):
        rest = rest.rpartition("@")[2]
    elif "@" in authority:
        rest = rest[authority.rindex("@") + 1 :]
    return f"{scheme}{separator}{re.split(r'[?#]', rest, maxsplit=1)[0]}"
