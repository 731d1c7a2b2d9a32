"""A web server that gives one film, as servers of all kinds do."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

__all__ = ["served"]

_PART = 1 << 15


@contextmanager
def served(
    film: Path,
    *,
    ranges: bool | None = True,
    says: Literal["length", "chunks", "nothing"] = "length",
    share: float = 1.0,
    pause_s: float = 0.0,
    location: str | None = None,
    certificate: tuple[Path, Path] | None = None,
) -> Iterator[str]:
    """Its host and port. It speaks HTTP/1.1, and closes each connection after its answer without saying
    so before.

    ranges: whether it gives parts; if not, it gives the whole; None: it refuses to (416), but for the
        part that is all.
    says: how long its answer is: that, in chunks, or nothing.
    share: of the film, the part after which it ends each connection.
    pause_s: how long it waits after each 32 KiB.
    location: sends on to there instead.
    certificate: it speaks TLS, with this certificate and key.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.close_connection = True
            asked = self.headers.get("Range", "bytes=0-").removeprefix("bytes=")
            first, data = int(asked.partition("-")[0]), film.read_bytes()
            last = int(share * len(data))
            if location is not None:
                self._answer(302, 0, b"", Location=location)
            elif first and ranges is None:
                self._answer(416, 0, b"")
            elif "Range" in self.headers and ranges is not False:
                part = {"Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}"}
                self._answer(206, len(data) - first, data[first:last], **part)
            else:
                self._answer(200, len(data), data[:last])

        def _answer(self, status: int, length: int, sent: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if says == "length":
                self.send_header("Content-Length", str(length))
            elif says == "chunks":
                self.send_header("Transfer-Encoding", "chunked")
                sent = b"%x\r\n%b\r\n" % (len(sent), sent) if sent else b""
                sent += b"0\r\n\r\n" if share == 1 else b""
            self.end_headers()
            for begin in range(0, len(sent), _PART):
                self.wfile.write(sent[begin : begin + _PART])
                time.sleep(pause_s)

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """Who asks may go away before the end."""

    with Server(("127.0.0.1", 0), Handler) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
