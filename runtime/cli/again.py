"""The same command once more, in the place of this process."""

from __future__ import annotations

import os
import sys

__all__ = ["Again"]


class Again:
    """The command as it was begun: its words, its folder and its environment, whatever tasks have made
    of them since. To be made before they run."""

    def __init__(self) -> None:
        self._words = list(sys.orig_argv[1:])
        self._folder = os.getcwd()  # noqa: PTH109  # as it is written
        self._env = dict(os.environ)

    def begin(self, *, port: int, token: str | None) -> None:
        """Begin it; does not return. The code is what is on the disk now.

        port, token: of the page that is to be found again; 0 where it was at a socket.
        """
        env = self._env if token is None else {**self._env, "FLOWRUN_TOKEN": token}
        os.chdir(self._folder)
        words = [*self._words, "--port", str(port)] if port else self._words
        os.execve(sys.executable, [sys.executable, *words], env)  # noqa: S606  # no shell
