"""Who listens at the address of a source, where FFmpeg does not say it: it is asked."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from flowrun.tasks.video.address import AddressError
from flowrun.tasks.video.settings import VideoSettings

__all__ = ["Listener", "listener", "refusal"]

_LONGEST_S = 2.0
"""How long all questions may take, also of who answers byte by byte."""
_LEAST_S = 0.001
_MOST_BYTES = 4096
_MOST_SHOWN = 60
_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443, "rtmp": 1935, "rtmps": 443}
_LEAST_ERROR, _UNAUTHORIZED = 400, 401
_ASKED = {
    "rtsp": "DESCRIBE {url} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n",
    "http": "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n",
    "rtmp": "\x03" + "\0" * 1536,
}
"""What is sent to hear whether somebody speaks a protocol; without a password."""
_SPOKEN = {
    "rtsp": (b"rtsp/",),
    "http": (b"http/", b"icy ", b"<!doctype html", b"<html"),
    "rtmp": (b"\x03",),
    "an SSH server": (b"ssh-",),
    "a mail or FTP server": (b"220 ", b"220-"),
}
"""How an answer begins in lower case, by its protocol, or by who gives it."""
_WHO = {"rtsp": "an RTSP camera", "http": "a web server", "rtmp": "an RTMP server"}


class Listener(NamedTuple):
    """Who answers.

    who: a key of `_SPOKEN`; "" if nothing is known that begins so.
    is_secure: whether it speaks TLS.
    line: the first line of what it said; empty if it accepts connections and says nothing.
    """

    who: str
    is_secure: bool
    line: bytes

    def misfit(self, config: VideoSettings) -> AddressError | None:
        """Why it cannot give what the address asks for, and what to write; None if it may."""
        parts = _parts(config)
        protocol, is_secure = _protocol(parts)
        own, host = f"{parts.scheme}://", parts.netloc
        code = "refused"
        if self.who in _WHO and self.who != protocol:
            other = f"{self.who}{'s' if self.is_secure else ''}://"
            port = ", or the port of RTSP, mostly 554" if protocol == "rtsp" else ""
            text = f"{_WHO[self.who]} answers at {host}; write {other} in place of {own}{port}"
        elif self.who and self.who != protocol:
            text = f"{self.who} answers at {host} ({self._shown}); check the port"
        elif self.is_secure and not is_secure:
            text = f"{host} speaks TLS alone; write {protocol}s:// in place of {own}"
            code = "tls"
        elif self.who and not self.is_secure and is_secure:
            text, code = f"{host} speaks no TLS; write {protocol}:// in place of {own}", "tls"
        elif self.who:
            return None
        elif self.line:
            text = f"{host} answers {self._shown}, which is no {protocol.upper()}; check the port"
        else:
            text = f"{host} accepts the connection, but gives no answer; check the port"
        return AddressError(text, code=code)

    @property
    def _shown(self) -> str:
        text = self.line.decode("ascii", errors="replace").strip()[:_MOST_SHOWN]
        return repr(text) if text.isascii() and text.isprintable() else "what is no text"


def listener(config: VideoSettings) -> Listener | None:
    """Who listens at the address; None where nobody does, or it is of no protocol that is known here."""
    parts = _parts(config)
    protocol, is_secure = _protocol(parts)
    if protocol not in _ASKED or parts.hostname is None:
        return None
    ends_s = time.monotonic() + _LONGEST_S
    found: Listener | None = None
    for asked, tls in _ways(protocol, is_secure=is_secure):
        left_s = ends_s - time.monotonic()
        if left_s < _LEAST_S:
            break
        try:  # half of what is left: who is silent may wait for something else
            with _connected(parts, left_s / 2) as connection:
                found = found or Listener("", is_secure=False, line=b"")
                line = _first_line(connection, parts, asked, is_secure=tls, limit_s=left_s / 2)
        except (OSError, ValueError):  # ValueError: a port that is none, text that has no bytes
            continue
        heard = Listener(_who(line), tls, line)
        if heard.who:
            return heard
        if (heard.is_secure, bool(line)) > (found.is_secure, bool(found.line)):
            found = heard
    return found


def refusal(config: VideoSettings) -> str | None:
    """The status with which a camera refuses to describe its stream, as `453 Not Enough Bandwidth`:
    too many look at it. None where it does not, wants a password first, or does not answer.

    It is asked without a password.
    """
    parts = _parts(config)
    if parts.scheme.lower() != "rtsp" or parts.hostname is None:
        return None
    with suppress(OSError, ValueError):
        with _connected(parts, _LONGEST_S) as connection:
            line = _first_line(connection, parts, "rtsp", is_secure=False, limit_s=_LONGEST_S)
        version, status, phrase = line.decode().strip().split(" ", 2)
        if version.startswith("RTSP/") and int(status) >= _LEAST_ERROR:
            return None if int(status) == _UNAUTHORIZED else f"{int(status)} {phrase[:80]}"
    return None


def _parts(config: VideoSettings) -> SplitResult:
    """The address without its user and password."""
    parts = urlsplit(config.address.target)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2])


def _protocol(parts: SplitResult) -> tuple[str, bool]:
    """What an address says that is spoken there, and whether by TLS."""
    scheme = parts.scheme.lower()
    is_secure = scheme in ("rtsps", "https", "rtmps")
    return scheme[:-1] if is_secure else scheme, is_secure


def _ways(protocol: str, *, is_secure: bool) -> Iterator[tuple[str, bool]]:
    """The ways to ask, the likeliest first: a protocol, and whether by TLS."""
    others = [it for it in _ASKED if it != protocol]
    yield protocol, is_secure
    yield protocol, not is_secure
    for other in others:
        yield other, is_secure
    for other in others:
        yield other, not is_secure


def _connected(parts: SplitResult, limit_s: float) -> socket.socket:
    port = parts.port or _PORTS[parts.scheme.lower()]
    return socket.create_connection((parts.hostname or "", port), limit_s)


def _first_line(
    connection: socket.socket, parts: SplitResult, asked: str, *, is_secure: bool, limit_s: float
) -> bytes:
    """The first line of what is said to a question, as far as it comes in time.

    Raises `OSError` if TLS does not come about.
    """
    path = parts.path or "/"
    path += f"?{parts.query}" if parts.query else ""
    request = _ASKED[asked].format(url=parts.geturl(), path=path, host=parts.netloc).encode()
    until_s = time.monotonic() + limit_s
    line = b""
    talk = _secured(connection, parts.hostname or "") if is_secure else connection
    with talk, suppress(OSError):  # what came before it broke off counts
        talk.sendall(request)
        while b"\n" not in line and len(line) < _MOST_BYTES:
            talk.settimeout(max(until_s - time.monotonic(), _LEAST_S))
            more = talk.recv(1024)
            if not more:
                break
            line += more
    return line.partition(b"\n")[0]


def _secured(connection: socket.socket, host: str) -> socket.socket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(connection, server_hostname=host)


def _who(line: bytes) -> str:
    said = line.lower()
    return next((who for who, begins in _SPOKEN.items() if said.startswith(begins)), "")
