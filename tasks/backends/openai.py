"""`openai`: a server with OpenAI's HTTP API answers; the connection to it, and how long it may take."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from flowrun.runtime.wording import listed, mask_urls, nearest
from flowrun.tasks.addresses import is_this_machine
from flowrun.tasks.backends.backoff import Backoff, retry_after_s
from flowrun.tasks.backends.chat import (
    RETRIED,
    ServerError,
    chat_request,
    models_in,
    refusal_text,
)
from flowrun.tasks.backends.reply import LONGEST_REPLY, ReplyReader
from flowrun.tasks.backends.server import ServerProcess
from flowrun.tasks.backends.settings import OpenAISettings
from flowrun.tasks.models.progress import Tell
from flowrun.tasks.models.question import Answer, ModelError, Question
from flowrun.tasks.models.shared import Shared

if TYPE_CHECKING:
    import httpx
    import numpy as np
    from structlog.typing import FilteringBoundLogger

__all__ = ["OpenAIBackend"]

T = TypeVar("T")

_SERVERS: Shared[ServerProcess] = Shared(ServerProcess.stop)

_HEALTH_S = 0.5
_PROBE_S = 2.0
"""How long a server may take to list its models for those who look."""
_LOAD_S = 10.0
"""How long a server may take to list its models."""
_NOT_READY = {502, 503, 504}
"""What a server answers while it loads its model, or the proxy before it."""
_NOT_THERE = {errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.ENETUNREACH}
"""What connecting to a server fails with while it, or its machine, starts."""
_LOOK_S = 1.0
_LOGGED_PAUSE_S = 1.0
"""A longer pause before a retry is logged."""
_TAIL_S = 1.0
"""How long the end of a reply may take after the end of the answer."""
_CANCEL_S = 1.0
"""How long `close` waits for a request that it has cancelled."""


class OpenAIBackend:
    """A client of one server, which it starts if the settings say so.

    rng: varies the pauses after failures.
    tell: called with what `load` waits for.
    waits: whether the first `load` waits for a server that is starting, or loading its model.
    max_batch: how many questions that come together it is asked at the same time, at most.
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
    ) -> None:
        self._settings = settings
        self._max_batch = max_batch
        self._graph_dir = graph_dir
        self._log = log
        self._url = settings.base_url.rstrip("/")
        self._where = mask_urls(self._url)
        self._model = settings.model
        self._models_found: list[str] = []
        self._tell = tell
        self._backoff = Backoff(rng)
        self._may_wait = waits
        self._server_key: Hashable | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: httpx.AsyncClient | None = None
        self._in_use = threading.Lock()
        """Held by the thread that runs the loop."""
        self._cancelled = False
        self._starting: ServerProcess | None = None
        self._task: asyncio.Task[Any] | None = None

    def load(self) -> None:
        """Start the server if it is ours, and see that one answers."""
        if not self._url:
            raise ModelError("base_url is empty; give the URL at which the server's API begins")
        self._start_server()
        if self._client is None:
            self._open()
        self._models_found = found = self._models_when_ready()
        if self._settings.model is None:
            if len(found) != 1:
                raise ModelError(
                    f"{self._where} has {len(found)} models ({', '.join(found) or 'none'}); "
                    "give one as 'model'"
                )
            [self._model] = found
        self._log.info("model server found", url=self._where, model=self._model)

    def _models_when_ready(self) -> list[str]:
        """The server's models, once it is ready."""
        limit_s = self._settings.start_timeout_s if self._may_wait else 0.0
        began_s = time.monotonic()
        self._may_wait = False
        said = ""
        while True:
            try:
                return self._do(self._models(), timeout_s=_LOAD_S)
            except TimeoutError:
                raise ModelError(f"{self._where}: no list of models within {_LOAD_S:g} s") from None
            except ServerError as error:
                if error.status not in _NOT_READY and not _is_not_there(error):
                    raise
                waited_s = time.monotonic() - began_s
                if waited_s > limit_s:
                    waited = f"; waited {limit_s:g} s (start_timeout_s)"
                    raise ModelError(f"{error}{waited if limit_s else ''}") from None
                if said != str(error):
                    said = str(error)
                    self._log.info("waiting for the model server", up_to_s=limit_s, said=said)
                self._tell(
                    f"waiting for the model server, {waited_s:.0f} of {limit_s:g} s: {said}", None
                )
            self._do(asyncio.sleep(_LOOK_S), timeout_s=_LOOK_S + _LOAD_S)

    def answer(self, question: Question) -> Answer:
        return self._together([question])[0]

    def answers(self, questions: Sequence[Question]) -> list[Answer]:
        """As of `Backend`. `max_batch` are asked at the same time; each may take as long as if they were
        asked one after the other, as a server may answer them so."""
        found: list[Answer] = []
        for begin in range(0, len(questions), self._max_batch):
            found += self._together(questions[begin : begin + self._max_batch])
        return found

    def _together(self, questions: Sequence[Question]) -> list[Answer]:
        asked = [(it.prompt, it.max_new_tokens, it.stop) for it in questions]
        for words in asked:
            self._backoff.check(words)
        bodies = [
            chat_request(
                question,
                model=self._model,
                stream=self._settings.stream and question.on_text is not None,
                jpeg_quality=self._settings.jpeg_quality,
            )
            for question in questions
        ]
        limit_s = self._settings.timeout_s * len(questions)
        requests = [
            (body, question.on_text) for body, question in zip(bodies, questions, strict=True)
        ]
        try:
            answers = self._do(self._all(requests, limit_s), timeout_s=limit_s)
        except TimeoutError:
            raise ModelError(f"{self._where}: no answer within {limit_s:g} s (timeout_s)") from None
        except ServerError as error:
            self._backoff.note_failure(error, asked[0])
            raise
        self._backoff.note_success()
        return answers

    def healthy(self) -> bool:
        if self._backoff.is_wanted:
            return False
        try:
            self._do(self._models(), timeout_s=_HEALTH_S)
        except (ModelError, TimeoutError):
            return False
        self._backoff.note_health()
        return True

    def probe(self) -> None:
        """See that a server lists its models; none is started or waited for. Raises `ModelError`."""
        if not self._url:
            raise ModelError("base_url is empty")
        if self._client is None:
            self._open()
        try:
            self._do(self._models(), timeout_s=_PROBE_S)
        except TimeoutError:
            raise ModelError(f"{self._where}: no list of models within {_PROBE_S:g} s") from None

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
            self._log.warning("a request does not end; it is left running", url=self._where)
            return
        with contextlib.ExitStack() as steps:
            steps.callback(self._in_use.release)
            loop, client = self._loop, self._client
            self._loop = self._client = None
            if loop is not None:
                steps.callback(loop.close)
                if client is not None:
                    loop.run_until_complete(client.aclose())
                # Of replies that broke off; asyncio would complain of them on stderr.
                loop.run_until_complete(loop.shutdown_asyncgens())

    # -- the server ----------------------------------------------------------------------------

    def _start_server(self) -> None:
        server = self._settings.server
        if server is None or self._server_key is not None:
            return
        command = [str(word) for word in server.command]
        url = server.ready_url or f"{self._url}/models"
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
        import httpx

        # A loop of this object's own, run only within a call: the one way to bound a whole answer,
        # however slowly it drips in.
        self._loop = asyncio.new_event_loop()
        key = self._settings.api_key
        headers = {"Content-Type": "application/json"}
        if key is not None and key.get_secret_value():
            headers["Authorization"] = f"Bearer {key.get_secret_value()}"
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=None,  # noqa: S113  # see `_do`
            trust_env=not is_this_machine(self._url),
        )

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
        return ModelError(f"{self._where}: the request was withdrawn")

    async def _models(self) -> list[str]:
        reply = await self._reply("GET", "models", None)
        return models_in(reply, where=self._where)

    async def _reply(self, method: str, path: str, body: bytes | None) -> bytes:
        async with self._sent(method, path, body) as response:
            return await self._body(response)

    async def _body(self, response: httpx.Response, *, cut: bool = False) -> bytes:
        """cut: whether the beginning is enough of one that is too long."""
        body = bytearray()
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > LONGEST_REPLY:
                if cut:
                    break
                raise ServerError(
                    f"{self._where}: the reply is longer than {LONGEST_REPLY >> 20} MiB"
                )
        return bytes(body)

    @contextlib.asynccontextmanager
    async def _sent(
        self, method: str, path: str, body: bytes | None
    ) -> AsyncIterator[httpx.Response]:
        """The response to a request if its status is 200; `ModelError` otherwise."""
        import httpx

        try:
            async with contextlib.aclosing(await self._send(method, path, body)) as response:
                if response.status_code != 200:
                    raise self._refusal(response, await self._body(response, cut=True))
                yield response
        except httpx.ConnectError as error:
            raise ServerError(
                f"{self._where}: no answer ({_reason(error)}); is the server running?",
                may_pass=True,
            ) from error
        except httpx.HTTPError as error:
            raise ServerError(f"{self._where}: {_first_line(error)}", may_pass=True) from error

    async def _send(self, method: str, path: str, body: bytes | None) -> httpx.Response:
        import httpx

        assert self._client is not None
        try:
            request = self._client.build_request(method, f"{self._url}/{path}", content=body)
            try:
                return await self._client.send(request, stream=True)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                # A server may close a connection that it has kept just when it is used again, as
                # llama-server does after 100 requests. A new one is no second try.
                return await self._client.send(request, stream=True)
        except (httpx.InvalidURL, ValueError, OverflowError, ExceptionGroup) as error:
            # What of a URL the settings let pass, and sockets do not.
            raise ModelError(f"{self._where}: cannot be asked: {_first_line(error)}") from error

    def _refusal(self, response: httpx.Response, reply: bytes) -> ServerError:
        status = response.status_code
        wait_s = retry_after_s(response.headers, now_s=time.time())
        text = f"{self._where}: status {status}: {refusal_text(reply)}"
        if wait_s is not None:
            text += f" (it asks to wait {wait_s:,.0f} s)"
        return ServerError(
            text + self._advice(response, text),
            may_pass=status in RETRIED,
            status=status,
            retry_after_s=wait_s,
        )

    def _advice(self, response: httpx.Response, text: str) -> str:
        status = response.status_code
        if status in (401, 403):
            has_key = "authorization" in response.request.headers
            return "; it does not accept the api_key" if has_key else "; give its key as api_key"
        if status == 404 and self._model is not None and self._model not in self._models_found:
            hint = nearest(self._model, self._models_found)
            return f"; the server's models: {listed(self._models_found)}{hint}"
        if status in (404, 405):
            return "; base_url must be where the API begins, usually with /v1"
        if 300 <= status < 400:
            target = mask_urls(response.headers.get("location", "nowhere"))
            return f"; it redirects to {target}: give the final URL as base_url"
        if status in (400, 413, 422) and re.search(r"(?i)context.{0,20}(size|length|window)", text):
            return "; shorten the prompt, or start the server with a larger context"
        return ""

    async def _all(
        self, requests: Sequence[tuple[bytes, Callable[[str], None] | None]], limit_s: float
    ) -> list[Answer]:
        """The answers to requests that are sent at the same time, in their order; raises the first error
        of that order, when all have ended."""
        ended = await asyncio.gather(
            *(self._answer(body, on_text, limit_s) for body, on_text in requests),
            return_exceptions=True,
        )
        answers: list[Answer] = []
        for it in ended:
            if isinstance(it, BaseException):
                raise it
            answers.append(it)
        return answers

    async def _answer(
        self, body: bytes, on_text: Callable[[str], None] | None, limit_s: float
    ) -> Answer:
        until_s = asyncio.get_running_loop().time() + limit_s
        tried = 0
        while True:
            try:
                async with self._sent("POST", "chat/completions", body) as response:
                    return await self._read(response, on_text)
            except ServerError as error:
                if tried == self._settings.retries or not error.may_pass:
                    raise
                pause_s = self._backoff.retry_s(tried, error)
                if asyncio.get_running_loop().time() + pause_s >= until_s:
                    raise
                text = str(error)
            tried += 1
            if pause_s > _LOGGED_PAUSE_S:
                self._log.warning("waiting before a retry", error=text, pause_s=round(pause_s, 1))
            await asyncio.sleep(pause_s)

    async def _read(
        self, response: httpx.Response, on_text: Callable[[str], None] | None
    ) -> Answer:
        import httpx

        kind = response.headers.get("content-type", "").partition(";")[0].strip()
        reply = ReplyReader(self._where, kind=kind)
        pieces = response.aiter_bytes()
        until_s: float | None = None
        # Read to the end, also after the last word: only then can the connection be used again.
        try:
            while True:
                if reply.is_whole and until_s is None:
                    until_s = asyncio.get_running_loop().time() + _TAIL_S
                async with asyncio.timeout_at(until_s):
                    piece = await anext(pieces, None)
                if piece is None:
                    break
                if reply.add(piece) and on_text is not None and reply.text:
                    on_text(reply.text)
        except (TimeoutError, httpx.HTTPError) as error:
            if not reply.is_whole:
                raise self._broken_off(reply, error) from error
        return reply.answer()

    def _broken_off(self, reply: ReplyReader, error: Exception) -> ServerError:
        return ServerError(
            f"{self._where}: the answer broke off after {len(reply.text)} characters: "
            f"{_first_line(error)}",
            may_pass=True,
        )


def _end(task: asyncio.Task[Any], loop: asyncio.AbstractEventLoop) -> None:
    """End a task that Ctrl-C has interrupted; its result is not needed."""
    if not task.done():
        task.cancel()
        loop.run_until_complete(asyncio.wait([task]))
    if not task.cancelled():
        task.exception()


def _is_not_there(error: Exception) -> bool:
    """Whether the server, or the machine that it is on, may still be starting. What accepts connections
    for a container that does not listen yet closes them without a word."""
    closed = str(error.__cause__).startswith("Server disconnected without")
    return closed or _of_system(error) is not None


def _reason(error: Exception) -> str:
    """Why there is no connection, in words."""
    of_system = _of_system(error)
    return _first_line(error) if of_system is None else os.strerror(of_system.errno or 0)


def _of_system(error: BaseException) -> OSError | None:
    """The error of `_NOT_THERE` that `error` came from."""
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, OSError) and at.errno in _NOT_THERE and not _is_of_library(at):
            return at
        at = at.__cause__ or at.__context__
    return None


def _is_of_library(error: OSError) -> bool:
    """Whether its numbers are not the system's."""
    return isinstance(error, (socket.gaierror, ssl.SSLError))


def _first_line(error: Exception) -> str:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return str(error).strip().partition("\n")[0] or type(error).__name__
