"""A window that shows the pictures that come on stdin: a program of its own, which imports no more than
Python's own Tk.

    python -I window_process.py TITLE

It writes "WIDTH HEIGHT" of the screen to stdout when the window is there. On stdin it takes pictures:
width and height (two little-endian uint32), then RGB bytes, row by row. It ends with status 0 at the end
of stdin, 3 when somebody closes the window (or presses q or Escape), and 1, with a line on stderr, where
there is no window.
"""

import os
import struct
import sys
import threading
import tkinter as tk
from typing import BinaryIO

_HEAD = struct.Struct("<II")
_CLOSED = 3
_TICK_MS = 15


class _Newest:
    """The newest picture that has come, read by a thread."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._picture: tuple[int, int, bytes] | None = None
        self.has_ended = False
        threading.Thread(target=self._read, daemon=True).start()

    def take(self) -> tuple[int, int, bytes] | None:
        """Width, height and pixels; None if nothing has come since."""
        with self._lock:
            picture, self._picture = self._picture, None
            return picture

    def _read(self) -> None:
        while len(head := self._stream.read(_HEAD.size)) == _HEAD.size:
            width, height = _HEAD.unpack(head)
            pixels = self._stream.read(3 * width * height)
            if len(pixels) < 3 * width * height:
                break
            with self._lock:
                self._picture = width, height, pixels
        self.has_ended = True


def main() -> int:
    try:
        window = tk.Tk()
    except tk.TclError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    window.title(sys.argv[1])
    label = tk.Label(window, borderwidth=0)
    label.pack()
    status = 0

    def close(_event: object = None) -> None:
        nonlocal status
        status = _CLOSED
        window.destroy()

    window.protocol("WM_DELETE_WINDOW", close)
    for key in ("q", "<Escape>"):
        window.bind(key, close)
    newest = _Newest(sys.stdin.buffer)
    shown: list[tk.PhotoImage] = []

    def look() -> None:
        picture = newest.take()
        if picture is not None:
            width, height, pixels = picture
            photo = tk.PhotoImage(data=b"P6 %d %d 255\n%b" % (width, height, pixels))
            label.configure(image=photo)
            shown[:] = [photo]  # Tk shows it only as long as somebody holds it
        elif newest.has_ended:
            window.destroy()
            return
        window.after(_TICK_MS, look)

    print(window.winfo_screenwidth(), window.winfo_screenheight(), flush=True)  # noqa: T201
    look()
    window.mainloop()
    return status


if __name__ == "__main__":
    # Not sys.exit: the thread that reads stdin holds a lock that Python would wait for.
    os._exit(main())
