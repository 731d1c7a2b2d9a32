"""A model server as a child process: started with the run, started again when it dies, ended with
the run, also where flowrun itself is killed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from flowrun.runtime.children import warden
from flowrun.runtime.wording import mask_urls
from flowrun.tasks.models.question import ModelError

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

__all__ = ["ServerProcess", "unusable_program"]

_WARDEN = Path(warden.__file__)
_LONGEST_PAUSE_S = 30.0
_STEADY_S = 60.0
"""A server that ran so long is started again at once the next time."""
_KEPT_LINES = 20
_STOP_S = 8.0
"""The warden itself takes 5 s at most to end a server."""
_LOOK_S = 0.05


def unusable_program(command: list[str], folder: Path) -> str | None:
    """Why the program of `command` cannot be run though its file is there; None if it can be, or if
    there is no such file yet.
    """
    name = command[0]
    place = folder / Path(name).expanduser()
    if "/" not in name or not place.exists() or shutil.which(str(place)) is not None:
        return None
    if place.is_dir():
        return f"server: cannot start {name!r}: {place} is a folder"
    return f"server: cannot start {name!r}: {place} is not executable; chmod +x makes it so"


class ServerProcess:
    """command: program and arguments. folder: where it runs.
    ready_url: answers 200 when the server is ready; it must not answer before.
    first_pause_s: before the first new start after a death; doubled each time.
    """

    def __init__(
        self,
        command: list[str],
        *,
        folder: Path,
        ready_url: str,
        start_timeout_s: float,
        log: FilteringBoundLogger,
        first_pause_s: float = 1.0,
    ) -> None:
        self._command = command
        self._folder = folder
        self._ready_url = ready_url
        self._start_timeout_s = start_timeout_s
        self._first_pause_s = first_pause_s
        self._log = log
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._life_line = -1
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._watcher = threading.Thread(
            target=self._watch, name="flowrun-model-server", daemon=True
        )

    def start(self) -> None:
        """Start the server and wait until it is ready. `ModelError` says why it is not."""
        started = time.perf_counter()
        program = self._program()
        if self._answers():
            raise ModelError(
                f"server: something answers at {self._shown_url} already, before "
                f"{self._command[0]!r} was started; end it, or leave 'server' out to use it"
            )
        self._command[0] = program
        try:
            self._spawn()
            self._wait_until_ready(started + self._start_timeout_s)
        except BaseException:
            self.stop()
            raise
        self._watcher.start()
        self._log.info(
            "model server ready",
            command=Path(program).name,
            url=self._shown_url,
            start_s=round(time.perf_counter() - started, 2),
        )

    def cancel(self) -> None:
        """Let a `start` that waits raise soon; from any thread."""
        self._stopping.set()

    def stop(self) -> None:
        """End the server and all that it has started."""
        self._stopping.set()
        with self._lock:
            self._cut_life_line()
            process = self._process
        if process is not None:
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()  # its child dies with it, by PR_SET_PDEATHSIG
                process.wait()
        if self._watcher.ident is not None:
            self._watcher.join()

    @property
    def _shown_url(self) -> str:
        return mask_urls(self._ready_url)

    def _program(self) -> str:
        name = self._command[0]
        place = str(self._folder / Path(name).expanduser()) if "/" in name else name
        found = shutil.which(place)
        if found is None:
            where = f"no such program: {place}" if "/" in name else "it is not on the PATH"
            problem = unusable_program(self._command, self._folder)
            raise ModelError(problem or f"server: cannot start {name!r}: {where}")
        return found

    def _spawn(self) -> None:
        with self._lock:
            if self._stopping.is_set():
                return
            reading, self._life_line = os.pipe()
            try:
                self._process = subprocess.Popen(  # noqa: S603  # the user's own command
                    [sys.executable, "-I", "-S", _WARDEN, str(reading), *self._command],
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    pass_fds=[reading],
                    start_new_session=True,  # Ctrl-C is for flowrun, which then ends the server
                )
            finally:
                os.close(reading)
            self._lines.clear()
            threading.Thread(
                target=self._read, args=[self._process], name="flowrun-model-server", daemon=True
            ).start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self._lines.append(line.rstrip())

    def _cut_life_line(self) -> None:
        if self._life_line >= 0:
            os.close(self._life_line)
            self._life_line = -1

    def _answers(self) -> bool:
        import httpx

        try:
            return httpx.get(self._ready_url, timeout=1.0, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False
        except (httpx.InvalidURL, ValueError, OverflowError, ExceptionGroup) as error:
            raise ModelError(f"server: cannot ask {self._shown_url}: {error}") from error

    def _wait_until_ready(self, deadline: float) -> None:
        while True:
            if self._stopping.is_set():
                raise ModelError(f"server: {self._name} is not needed any more")
            assert self._process is not None
            code = self._process.poll()
            if code is not None:
                raise ModelError(f"server: {self._name} ended with status {code}{self._said()}")
            if self._answers():
                return
            if time.perf_counter() > deadline:
                raise ModelError(
                    f"server: {self._name} was not ready within {self._start_timeout_s:g} s "
                    f"(start_timeout_s): {self._shown_url} gives no 200{self._said()}"
                )
            self._stopping.wait(_LOOK_S)

    @property
    def _name(self) -> str:
        return repr(Path(self._command[0]).name)

    def _said(self) -> str:
        lines = [line for line in self._lines if line.strip()]
        return "; its last lines:\n  " + "\n  ".join(lines[-8:]) if lines else ""

    def _watch(self) -> None:
        pause_s = self._first_pause_s
        while True:
            assert self._process is not None
            started = time.monotonic()
            code = self._process.wait()
            with self._lock:
                self._cut_life_line()
            if self._stopping.is_set():
                return
            if time.monotonic() - started > _STEADY_S:
                pause_s = self._first_pause_s
            self._log.warning(
                "model server ended; starting it again",
                status=code,
                pause_s=pause_s,
                said=self._said().strip("; "),
            )
            if self._stopping.wait(pause_s):
                return
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            try:
                self._spawn()
            except OSError as error:
                self._log.error("model server not started", error=str(error))
