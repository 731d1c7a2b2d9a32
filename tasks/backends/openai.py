"""`openai`: servers with OpenAI's HTTP API answer; when each is asked, and how long it may take."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Coroutine, Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from flowrun.tasks.backends.backoff import Backoff
from flowrun.tasks.backends.chat import ServerError
from flowrun.tasks.backends.client import ServerClient, is_not_there
from flowrun.tasks.backends.farm import Farm, Member
from flowrun.tasks.backends.farm_client import FarmClient, all_errors, words_of
from flowrun.tasks.backends.server import ServerProcess
from flowrun.tasks.backends.servers_health import ServersHealth
from flowrun.tasks.backends.settings import OpenAISettings
from flowrun.tasks.models.progress import Tell
from flowrun.tasks.models.question import Answer, ModelError, Question
from flowrun.tasks.models.shared import Shared

if TYPE_CHECKING:
    import numpy as np
    from structlog.typing import FilteringBoundLogger

__all__ = ["OpenAIBackend"]

T = TypeVar("T")

_SERVERS: Shared[ServerProcess] = Shared(ServerProcess.stop)

_PROBE_S = 2.0
"""How long a server may take to list its models for those who look."""
_LONGEST_LOOK_S = 15.0
_GRACE_S = 5.0
"""How long work that has a limit of its own may take beyond it before it is cut off."""
_NOT_READY = {502, 503, 504}
"""What a server answers while it loads its model, or the proxy before it."""
_LOOK_S = 1.0
_CANCEL_S = 1.0
"""How long `close` waits for a request that it has cancelled."""


class OpenAIBackend:
    """A client of one server, which it starts if the settings say so, or of a farm of them.

    rng: varies the pauses after failures.
    tell: called with what `load` waits for.
    waits: whether the first `load` waits for a server that is starting, or loading its model.
    max_batch: how many questions that come together each server is asked at the same time, at most.
    seen: gets what questions show of each server.
    """

    where = ""

    def __init__(
        self,
        settings: OpenAISettings,
        *,
        graph_dir: Path,
        log: FilteringBoundLogger,
        rng: np.random.Generator,
        tell: Tell = lambda _what, _fraction: None,
        waits: bool = True,
        max_batch: int = 1,
        seen: ServersHealth | None = None,
    ) -> None:
        self._settings = settings
        self._max_batch = max_batch
        self._graph_dir = graph_dir
        self._log = log
        self._farm = Farm([self._member(url, rng) for url in settings.urls])
        self._seen = ServersHealth([it.client.where for it in self._farm.members])
        if seen is not None:
            self._seen = seen
        self._client = FarmClient(self._farm, settings, log=log, seen=self._seen)
        self._tell = tell
        self._may_wait = waits
        self._server_key: Hashable | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._in_use = threading.Lock()
        """Held by the thread that runs the loop."""
        self._cancelled = False
        self._starting: ServerProcess | None = None
        self._task: asyncio.Task[Any] | None = None

    def _member(self, url: str, rng: np.random.Generator) -> Member:
        settings = self._settings
        client = ServerClient(url, model=settings.model, api_key=settings.api_key)
        return Member(client, Backoff(rng))

    def load(self) -> None:
        """Start the server if it is ours, and see that one answers."""
        if not all(self._settings.urls):
            raise ModelError("base_url is empty; give the URL at which the server's API begins")
        self._start_server()
        if self._loop is None:
            self._open()
        self._find_when_ready()

    def _find_when_ready(self) -> None:
        """Wait for the models of a server; of a farm, one that is ready is enough."""
        limit_s = self._settings.start_timeout_s if self._may_wait else 0.0
        began_s = time.monotonic()
        self._may_wait = False
        said = ""
        while True:
            failed = self._do(self._client.look(), timeout_s=_LONGEST_LOOK_S)
            if len(failed) < len(self._farm.members):
                self._note_absent(failed)
                return
            error = all_errors(failed.values())
            if not any(map(_may_come, failed.values())):
                raise error
            text = str(error)
            waited_s = time.monotonic() - began_s
            if waited_s > limit_s:
                waited = f"; waited {limit_s:g} s (start_timeout_s)" if limit_s else ""
                raise ModelError(f"{text}{waited}") from None
            if said != text:
                said = text
                self._log.info("waiting for the model server", up_to_s=limit_s, said=said)
            self._tell(
                f"waiting for the model server, {waited_s:.0f} of {limit_s:g} s: {said}", None
            )
            self._do(asyncio.sleep(_LOOK_S), timeout_s=_LOOK_S + _GRACE_S)

    def _note_absent(self, failed: dict[Member, ServerError]) -> None:
        for member, error in failed.items():
            member.note_failure(error, None)
            self._log.warning(
                "model server not found; others answer", url=member.client.where, error=str(error)
            )

    def answer(self, question: Question) -> Answer:
        return self._together([question])[0]

    def answers(self, questions: Sequence[Question]) -> list[Answer]:
        """As of `Backend`. `max_batch` a server are asked at the same time; each may take as long as if
        they were asked one after the other, as a server may answer them so."""
        found: list[Answer] = []
        step = self._max_batch * len(self._farm.members)
        for begin in range(0, len(questions), step):
            found += self._together(questions[begin : begin + step])
        return found

    def _together(self, questions: Sequence[Question]) -> list[Answer]:
        limit_s = self._settings.timeout_s * len(questions)
        if self._farm.is_one:
            for question in questions:
                self._farm.members[0].backoff.check(words_of(question))
        return self._do(self._client.answers(questions, limit_s), timeout_s=limit_s + _GRACE_S)

    def healthy(self) -> bool:
        return self._do(self._any_is_back(), timeout_s=_GRACE_S)

    async def _any_is_back(self) -> bool:
        members = self._farm.members
        return any(await asyncio.gather(*(self._client.check(member) for member in members)))

    def probe(self) -> None:
        """See that a server lists its models, or one of a farm; none is started or waited for. Raises
        `ModelError`."""
        if not all(self._settings.urls):
            raise ModelError("base_url is empty")
        if self._loop is None:
            self._open()
        look = self._client.look(limit_s=_PROBE_S, only_there=True)
        failed = self._do(look, timeout_s=_PROBE_S + _GRACE_S)
        if len(failed) == len(self._farm.members):
            raise all_errors(failed.values())

    def cancel(self) -> None:
        self._cancelled = True
        loop, task, starting = self._loop, self._task, self._starting
        if starting is not None:
            starting.cancel()
        if loop is not None and task is not None:
            with contextlib.suppress(RuntimeError):  # of a loop that was closed just now
                loop.call_soon_threadsafe(task.cancel)

    def close(self) -> None:
        self.cancel()
        try:
            self._close_client()
        finally:
            key, self._server_key = self._server_key, None
            if key is not None:
                _SERVERS.release(key)

    def _close_client(self) -> None:
        if not self._in_use.acquire(timeout=_CANCEL_S):
            self._log.warning("a request does not end; it is left running", url=self._named())
            return
        with contextlib.ExitStack() as steps:
            steps.callback(self._in_use.release)
            loop, self._loop = self._loop, None
            if loop is not None:
                steps.callback(loop.close)
                for member in self._farm.members:
                    loop.run_until_complete(member.client.close())
                # Of replies that broke off; asyncio would complain of them on stderr.
                loop.run_until_complete(loop.shutdown_asyncgens())

    # -- the servers ---------------------------------------------------------------------------

    def _start_server(self) -> None:
        server = self._settings.server
        if server is None or self._server_key is not None:
            return
        command = [str(word) for word in server.command]
        url = server.ready_url or f"{self._farm.members[0].client.url}/models"
        env = {name: value.get_secret_value() for name, value in server.env.items()}
        key = (tuple(command), tuple(env.items()), url, self._graph_dir)

        def start() -> ServerProcess:
            process = ServerProcess(
                command,
                folder=self._graph_dir,
                ready_url=url,
                start_timeout_s=server.start_timeout_s,
                log=self._log,
                env=env,
            )
            self._starting = process
            try:
                if self._cancelled:
                    process.cancel()
                process.start()
            finally:
                self._starting = None
            return process

        _SERVERS.acquire(key, start)
        if self._cancelled:  # and perhaps closed
            _SERVERS.release(key)
            raise self._withdrawn()
        self._server_key = key

    # -- HTTP ----------------------------------------------------------------------------------

    def _open(self) -> None:
        # A loop of this object's own, run only within a call: the one way to bound a whole answer,
        # however slowly it drips in.
        self._loop = asyncio.new_event_loop()
        for member in self._farm.members:
            member.client.open()

    def _do(self, work: Coroutine[Any, Any, T], *, timeout_s: float) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(timeout_s):
                return await work

        with self._in_use:
            loop = self._loop
            if loop is None or self._cancelled:
                work.close()
                raise self._withdrawn()
            self._task = task = loop.create_task(bounded())
            if self._cancelled:  # while the task was made
                task.cancel()
            try:
                return loop.run_until_complete(task)
            except asyncio.CancelledError:
                raise self._withdrawn() from None
            finally:
                self._task = None
                _end(task, loop)
                work.close()  # which never began, if the task was cancelled before it did

    def _withdrawn(self) -> ModelError:
        return ModelError(f"{self._named()}: the request was withdrawn")

    def _named(self) -> str:
        return ", ".join(member.client.where for member in self._farm.members)


def _end(task: asyncio.Task[Any], loop: asyncio.AbstractEventLoop) -> None:
    """End a task that Ctrl-C has interrupted; its result is not needed."""
    if not task.done():
        task.cancel()
        loop.run_until_complete(asyncio.wait([task]))
    if not task.cancelled():
        task.exception()


def _may_come(error: ServerError) -> bool:
    """Whether a server may be there soon."""
    return error.status in _NOT_READY or is_not_there(error)
