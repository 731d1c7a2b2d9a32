"""One server with OpenAI's HTTP API: what it is sent, what it says, and why it says nothing.

Its coroutines run on the loop of whoever asks; nothing here bounds how long they take.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import socket
import ssl
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from flowrun.runtime.wording import listed, mask_urls, nearest
from flowrun.tasks.addresses import is_this_machine
from flowrun.tasks.backends.backoff import retry_after_s
from flowrun.tasks.backends.chat import RETRIED, ServerError, models_in, refusal_text
from flowrun.tasks.backends.reply import LONGEST_REPLY, ReplyReader
from flowrun.tasks.models.question import Answer, ModelError

if TYPE_CHECKING:
    import httpx
    from pydantic import SecretStr

__all__ = ["ServerClient", "is_not_there"]

_NOT_THERE = {errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.ENETUNREACH}
"""What connecting to a server fails with while it, or its machine, starts."""
_TAIL_S = 1.0
"""How long the end of a reply may take after the end of the answer."""
_CONNECT_S = 5.0
"""How long a machine may take to accept a connection."""
_KEPT_ALIVE = {"TCP_KEEPIDLE": 2, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 5000}
"""A machine without power or network is as silent as a model that thinks. The kernels tell them apart:
ours asks the machine each second, and gives up the connection after 5 s without a word from it."""


class ServerClient:
    """A client of one server.

    url: where its API begins.
    model: what the server is asked to run; None: whatever it has.
    """

    def __init__(self, url: str, *, model: str | None, api_key: SecretStr | None) -> None:
        self.url = url.rstrip("/")
        self.where = mask_urls(self.url)
        self.model = model
        self.models_found: list[str] = []
        self._key = api_key.get_secret_value() if api_key is not None else ""
        self._http: httpx.AsyncClient | None = None

    def open(self) -> None:
        """Be ready to ask. Nothing is connected yet."""
        import httpx

        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        timeout = httpx.Timeout(None, connect=_CONNECT_S)
        near = is_this_machine(self.url)
        if not near and urllib.request.getproxies():  # httpx asks them only without a transport
            self._http = httpx.AsyncClient(headers=headers, timeout=timeout)
            return
        transport = httpx.AsyncHTTPTransport(trust_env=not near, socket_options=_socket_options())
        self._http = httpx.AsyncClient(headers=headers, timeout=timeout, transport=transport)

    async def close(self) -> None:
        """Give the connections back."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    async def ask(self, body: bytes, on_text: Callable[[str], None] | None) -> Answer:
        """The answer to a request, tried once. Raises `ModelError`."""
        async with self._sent("POST", "chat/completions", body) as response:
            return await self._read(response, on_text)

    async def models(self) -> list[str]:
        """The names of the models that it has. Raises `ModelError`."""
        reply = await self._reply("GET", "models", None)
        return models_in(reply, where=self.where)

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
                    f"{self.where}: the reply is longer than {LONGEST_REPLY >> 20} MiB"
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
                f"{self.where}: no answer ({_reason(error)}); is the server running?",
                may_pass=True,
            ) from error
        except httpx.ConnectTimeout as error:
            raise ServerError(
                f"{self.where}: no connection within {_CONNECT_S:g} s; is the machine on?",
                may_pass=True,
            ) from error
        except httpx.HTTPError as error:
            raise ServerError(f"{self.where}: {_first_line(error)}", may_pass=True) from error

    async def _send(self, method: str, path: str, body: bytes | None) -> httpx.Response:
        import httpx

        assert self._http is not None
        try:
            request = self._http.build_request(method, f"{self.url}/{path}", content=body)
            try:
                return await self._http.send(request, stream=True)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                # A server may close a connection that it has kept just when it is used again, as
                # llama-server does after 100 requests. A new one is no second try.
                return await self._http.send(request, stream=True)
        except (httpx.InvalidURL, ValueError, OverflowError, ExceptionGroup) as error:
            # What of a URL the settings let pass, and sockets do not.
            raise ModelError(f"{self.where}: cannot be asked: {_first_line(error)}") from error

    def _refusal(self, response: httpx.Response, reply: bytes) -> ServerError:
        status = response.status_code
        wait_s = retry_after_s(response.headers, now_s=time.time())
        text = f"{self.where}: status {status}: {refusal_text(reply)}"
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
        if status == 404 and self.model is not None and self.model not in self.models_found:
            hint = nearest(self.model, self.models_found)
            return f"; the server's models: {listed(self.models_found)}{hint}"
        if status in (404, 405):
            return "; base_url must be where the API begins, usually with /v1"
        if 300 <= status < 400:
            target = mask_urls(response.headers.get("location", "nowhere"))
            return f"; it redirects to {target}: give the final URL as base_url"
        if status in (400, 413, 422) and re.search(r"(?i)context.{0,20}(size|length|window)", text):
            return "; shorten the prompt, or start the server with a larger context"
        return ""

    async def _read(
        self, response: httpx.Response, on_text: Callable[[str], None] | None
    ) -> Answer:
        import httpx

        kind = response.headers.get("content-type", "").partition(";")[0].strip()
        reply = ReplyReader(self.where, kind=kind)
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
            f"{self.where}: the answer broke off after {len(reply.text)} characters: "
            f"{_first_line(error)}",
            may_pass=True,
        )


def is_not_there(error: Exception) -> bool:
    """Whether the server, or the machine that it is on, may still be starting. What accepts connections
    for a container that does not listen yet closes them without a word."""
    import httpx

    if isinstance(error.__cause__, httpx.ConnectTimeout):
        return True
    closed = str(error.__cause__).startswith("Server disconnected without")
    return closed or _of_system(error) is not None


def _socket_options() -> list[tuple[int, int, int]]:
    here = [(name, value) for name, value in _KEPT_ALIVE.items() if hasattr(socket, name)]
    return [
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        *((socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in here),
    ]


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
