"""A reverse proxy: passes on what is asked below a path, WebSockets and endless replies too."""

from __future__ import annotations

import contextlib
import re
import socket
import socketserver
import threading

_HOP = re.compile(rb"\r\n(?:Connection|Keep-Alive):[^\r]*", re.IGNORECASE)


class ReverseProxy:
    """Listens on a free port of 127.0.0.1; has the server at `port` below `prefix`.

    strips: whether it takes the prefix away from what it passes on, as some are set up to.
    """

    def __init__(self, port: int, prefix: str, *, strips: bool) -> None:
        outer = self
        self.prefix, self.strips, self.behind = prefix, strips, port

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                outer._pass_on(self.request)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 50

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}{prefix}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _pass_on(self, client: socket.socket) -> None:
        """One request, and its reply: each has a connection of its own."""
        head = b""
        while b"\r\n\r\n" not in head:
            piece = client.recv(65536)
            if not piece:
                return
            head += piece
        head, _, rest = head.partition(b"\r\n\r\n")
        line, _, headers = head.partition(b"\r\n")
        verb, path, version = line.split(b" ", 2)
        prefix = self.prefix.encode()
        if not path.startswith(prefix + b"/"):
            client.sendall(
                b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            return
        if self.strips:
            path = path.removeprefix(prefix)
        headers = b"\r\n" + headers
        if b"upgrade: websocket" not in headers.lower():
            headers = _HOP.sub(b"", headers) + b"\r\nConnection: close"
        headers += b"\r\nX-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https"
        with socket.create_connection(("127.0.0.1", self.behind)) as server:
            server.sendall(b" ".join((verb, path, version)) + headers + b"\r\n\r\n" + rest)
            back = threading.Thread(target=_pump, args=(client, server), daemon=True)
            back.start()
            _pump(server, client)
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
