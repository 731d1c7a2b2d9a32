"""The command on a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios


class OnTerminal:
    """The command on a terminal of its own."""

    def __init__(self, *words, cwd, columns=100):
        self.terminal, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        env = {**os.environ, "TERM": "xterm-256color"}
        env.pop("COLUMNS", None)
        command = [sys.executable, "-m", "flowrun.runtime.cli", *map(str, words)]
        self.process = subprocess.Popen(
            command, cwd=cwd, stdin=child, stdout=child, stderr=child, env=env, process_group=0
        )
        os.close(child)
        self.shown = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.terminal)

    def until(self, pattern):
        """Read until `pattern` is shown; the match."""
        while not (found := re.search(pattern, self.shown)):
            self.shown += os.read(self.terminal, 65536).decode(errors="replace")
        return found

    def rest(self):
        with contextlib.suppress(OSError):  # what a pseudo-terminal says at its end
            while piece := os.read(self.terminal, 65536):
                self.shown += piece.decode(errors="replace")
        return self.process.wait(timeout=240)
