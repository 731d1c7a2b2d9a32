"""A web server that gives one film, as servers of all kinds do."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["served"]


@contextmanager
def served(
    film: Path,
    *,
    ranges: bool = True,
    location: str | None = None,
    certificate: tuple[Path, Path] | None = None,
) -> Iterator[str]:
    """Its host and port. It speaks HTTP/1.1, and closes each connection after its answer without saying
    so before.

    ranges: whether it gives parts; if not, it refuses to (416), but for the part that is all.
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
            if location is not None:
                self._answer(302, b"", Location=location)
            elif first and not ranges:
                self._answer(416, b"")
            elif "Range" in self.headers:
                part = {"Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}"}
                self._answer(206, data[first:], **part)
            else:
                self._answer(200, data)

        def _answer(self, status: int, data: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

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
