"""What an RTSP server answers to a request, where FFmpeg says no more than that it is an error."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from urllib.parse import urlsplit

from flowrun.tasks.video.settings import VideoSettings

__all__ = ["refusal"]

_LONGEST_S = 2.0
"""How long it may take to connect, and then to answer, also byte by byte."""
_LEAST_S = 0.001
_MOST_BYTES = 4096
_PORT = 554
_LEAST_ERROR, _UNAUTHORIZED = 400, 401


def refusal(config: VideoSettings) -> str | None:
    """The status with which the camera refuses to describe its stream, as `453 Not Enough Bandwidth`:
    too many look at it. None where it does not, wants a password first, or does not answer.

    It is asked without a password.
    """
    parts = urlsplit(config.address.target)
    if parts.scheme.lower() != "rtsp" or parts.hostname is None:
        return None
    host = parts.netloc.rpartition("@")[2]
    target = parts._replace(netloc=host).geturl()
    request = f"DESCRIBE {target} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n"
    line = b""
    with suppress(OSError, ValueError):  # ValueError: a port that is none, text that has no bytes
        with socket.create_connection((parts.hostname, parts.port or _PORT), _LONGEST_S) as asked:
            asked.sendall(request.encode())
            until_s = time.monotonic() + _LONGEST_S
            while b"\n" not in line and len(line) < _MOST_BYTES:
                asked.settimeout(max(until_s - time.monotonic(), _LEAST_S))
                more = asked.recv(1024)
                if not more:
                    break
                line += more
        version, status, phrase = line.partition(b"\n")[0].decode().strip().split(" ", 2)
        if version.startswith("RTSP/") and int(status) >= _LEAST_ERROR:
            return None if int(status) == _UNAUTHORIZED else f"{int(status)} {phrase[:80]}"
    return None
