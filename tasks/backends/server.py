"""A model server as a child process: started with the run and ready when `start` returns, started
again when it dies, ended with the run.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from flowrun.runtime.children.process import ChildProcess, find_program, why_unusable
from flowrun.runtime.wording import mask_urls
from flowrun.tasks.backends.settings import ServerSettings
from flowrun.tasks.models.question import ModelError

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

__all__ = ["ServerProcess", "problems_of"]

_LOOK_S = 0.05
_SHOWN_LINES = 8
_SHORTEST_KEY = 4
"""Shorter keys are stand-ins, and parts of other words."""


def problems_of(server: ServerSettings, api_key: SecretStr | None, folder: Path) -> Iterator[str]:
    """What is wrong with a command that is valid in itself: a program whose file exists and cannot be
    run, a secret among the arguments.

    api_key: what the server's clients must send.
    folder: where relative paths start.
    """
    problem = unusable_program(server.command[0], folder)
    if problem is not None:
        yield problem
    key = api_key.get_secret_value() if api_key is not None else ""
    option = server.secret_option
    if option is not None:
        what = f"{option} puts a secret into the command"
    elif len(key) >= _SHORTEST_KEY and any(key in word for word in server.command):
        what = "the command holds the api_key"
    else:
        return
    yield (
        f"server: {what}, which everybody on this machine can read; give it by the environment, for "
        "example env: {LLAMA_API_KEY: ...} (llama-server), VLLM_API_KEY or HF_TOKEN"
    )


def unusable_program(name: str, folder: Path) -> str | None:
    """Why program `name` cannot be run though its file exists; None if it can be, or if there is no
    such file yet.
    """
    problem = why_unusable(name, folder)
    return None if problem is None else f"server: cannot start {name!r}: {problem}"


class ServerProcess:
    """A model server on this machine.

    command: program and arguments.
    folder: where it runs.
    ready_url: answers 200 when the server is ready; it must not answer before.
    start_timeout_s: how long `start` waits for that.
    env: environment variables besides those of this process.
    first_pause_s: seconds to wait before the first restart; doubled each time.
    """

    def __init__(
        self,
        command: list[str],
        *,
        folder: Path,
        ready_url: str,
        start_timeout_s: float,
        log: FilteringBoundLogger,
        env: Mapping[str, str] | None = None,
        first_pause_s: float = 1.0,
    ) -> None:
        self._program = command[0]
        self._folder = folder
        self._ready_url = ready_url
        self._shown_url = mask_urls(ready_url)
        self._start_timeout_s = start_timeout_s
        self._log = log
        found = find_program(self._program, folder)
        self._is_found = found is not None
        self._child = ChildProcess(
            [found or self._program, *command[1:]],
            folder=folder,
            name="flowrun-model-server",
            env=env,
            first_pause_s=first_pause_s,
        )

    def start(self) -> None:
        """Start the server and wait until it is ready. `ModelError` says why it is not."""
        started = time.perf_counter()
        self._check_program()
        if self._answers():
            raise ModelError(
                f"server: something answers at {self._shown_url} already, before "
                f"{self._program!r} was started; end it, or leave 'server' out to use it"
            )
        try:
            self._child.start()
            self._wait_until_ready(started + self._start_timeout_s)
        except BaseException:
            self._child.stop()
            raise
        self._child.keep_running(on_end=self._note_end, on_failure=self._note_failure)
        self._log.info(
            "model server ready",
            command=Path(self._program).name,
            url=self._shown_url,
            start_s=round(time.perf_counter() - started, 2),
        )

    def cancel(self) -> None:
        """Let a `start` that waits raise soon; from any thread."""
        self._child.cancel()

    def stop(self) -> None:
        """End the server and all that it has started."""
        self._child.stop()

    def _check_program(self) -> None:
        if self._is_found:
            return
        name = self._program
        problem = unusable_program(name, self._folder)
        if problem is None:
            place = self._folder / Path(name).expanduser()
            where = f"no such program: {place}" if "/" in name else "it is not on the PATH"
            problem = f"server: cannot start {name!r}: {where}"
        raise ModelError(problem)

    def _answers(self) -> bool:
        import httpx

        try:
            return httpx.get(self._ready_url, timeout=1.0, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False
        except (httpx.InvalidURL, ValueError, OverflowError, ExceptionGroup) as error:
            raise ModelError(f"server: cannot ask {self._shown_url}: {error}") from error

    def _wait_until_ready(self, deadline: float) -> None:
        name = repr(Path(self._program).name)
        while not self._child.cancelled:
            status = self._child.status
            if status is not None:
                raise ModelError(f"server: {name} ended with status {status}{self._said()}")
            if self._answers():
                return
            if time.perf_counter() > deadline:
                raise ModelError(
                    f"server: {name} was not ready within {self._start_timeout_s:g} s "
                    f"(start_timeout_s): {self._shown_url} gives no 200{self._said()}"
                )
            self._child.pause(_LOOK_S)
        raise ModelError(f"server: {name} is not needed any more")

    def _said(self) -> str:
        lines = self._child.last_lines
        return "; its last lines:\n  " + "\n  ".join(lines[-_SHOWN_LINES:]) if lines else ""

    def _note_end(self, status: int, pause_s: float) -> bool:
        self._log.warning(
            "model server ended; starting it again",
            status=status,
            pause_s=pause_s,
            said=self._said().strip("; "),
        )
        return True

    def _note_failure(self, error: OSError) -> None:
        self._log.error("model server not started", error=str(error))
