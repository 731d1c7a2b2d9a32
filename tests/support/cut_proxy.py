"""A TCP proxy between two processes that can be cut, held up, and made to change a byte."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading

__all__ = ["CutProxy", "free_port"]


def free_port() -> int:
    """A TCP port of 127.0.0.1 at which nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


class CutProxy:
    """Carries what connects to `port` to 127.0.0.1:`target`, on threads of its own."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.carried = 0
        """Bytes, in both directions."""
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._is_cut = False
        self._flows = threading.Event()
        self._flows.set()
        self._flip: tuple[int, int] | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections, and take none until `mend`."""
        with self._lock:
            self._is_cut = True
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def hold(self) -> None:
        """Leave all connections open, and carry nothing until `mend`."""
        self._flows.clear()

    def mend(self) -> None:
        """Carry again."""
        self._is_cut = False
        self._flows.set()

    def flip(self, *, least: int, at: int) -> None:
        """Change one byte, once: that at `at` of the next piece of at least `least` bytes."""
        self._flip = least, at

    def _accept(self) -> None:
        while True:
            here, _ = self._listening.accept()
            threading.Thread(target=self._carry, args=(here,), daemon=True).start()

    def _carry(self, here: socket.socket) -> None:
        to = "127.0.0.1", self._target
        with contextlib.suppress(OSError), here, socket.create_connection(to) as there:
            with self._lock:
                if self._is_cut:
                    return
                self._open |= {here, there}
            try:
                self._pass_on(here, there)
            finally:
                with self._lock:
                    self._open -= {here, there}

    def _pass_on(self, here: socket.socket, there: socket.socket) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(here, selectors.EVENT_READ, there)
            ready.register(there, selectors.EVENT_READ, here)
            while True:
                for key, _ in ready.select():
                    self._flows.wait()
                    data = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                    if not data:
                        return
                    key.data.sendall(self._flipped(data))
                    self.carried += len(data)

    def _flipped(self, data: bytes) -> bytes:
        if self._flip is None or len(data) < self._flip[0]:
            return data
        at, self._flip = self._flip[1], None
        changed = bytearray(data)
        changed[at] ^= 1
        return bytes(changed)
