"""What the verbs have in common that ask a server: `flowrun GRAPH` or `flowrun serve`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

from flowrun.runtime.cli.shape import fits
from flowrun.runtime.errors import FlowrunError
from flowrun.runtime.wording import mask_urls

if TYPE_CHECKING:
    import httpx

__all__ = ["MESSAGE", "SUCCESS", "Client", "RefusedError", "add_address", "add_pipeline"]

MESSAGE = {"message": str}
SUCCESS = {"success": True}
"""The replies of a server that has done what it was asked to."""

DEFAULT_PORT = 3000
_TIMEOUT_S = 90.0
"""A server answers within 60 s whatever it waits for."""
_NOTHING: Mapping[str, str] = {}
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "::1"}  # noqa: S104
"""Where a server that listens at every address is reached."""


class RefusedError(FlowrunError):
    """A server does not do what it was asked to, or cannot be reached; the text says why."""


def add_address(parser: argparse.ArgumentParser, *, positional: bool = False) -> None:
    """Add the options of a server's address to `parser`.

    positional: as arguments HOST and PORT.
    """
    host: dict[str, Any] = {"default": "127.0.0.1", "help": "the server's host (127.0.0.1)"}
    port: dict[str, Any] = {
        "type": int, "default": DEFAULT_PORT, "help": f"its port ({DEFAULT_PORT})",
    }  # fmt: skip
    if positional:
        parser.add_argument("host", nargs="?", **host)
        parser.add_argument("port", nargs="?", **port)
    else:
        parser.add_argument("--host", **host)
        parser.add_argument("--port", metavar="N", **port)
    parser.add_argument(
        "--url",
        help="its address in place of host and port, as of its page, such as https://box.example/flowrun",
    )
    parser.add_argument(
        "--token", help="what the server asks for; FLOWRUN_TOKEN in the environment if not given"
    )


def add_pipeline(parser: argparse.ArgumentParser) -> None:
    """Add the option that says which pipeline of a server is meant."""
    parser.add_argument(
        "--pipeline", metavar="NAME", help="the graph that is meant, if several run"
    )


class Client:
    """Asks the server of the options that `add_address` has added."""

    def __init__(self, args: argparse.Namespace, *, timeout_s: float = _TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        host = _ANY.get(args.host, args.host)
        host = f"[{host}]" if ":" in host and not host.startswith("[") else host
        self._url, token = f"http://{host}:{args.port}", os.environ.get("FLOWRUN_TOKEN")
        if args.url is not None:
            address = urlsplit(args.url)
            self._url = urlunsplit((*address[:2], address.path.rstrip("/"), "", ""))
            token = parse_qs(address.query).get("token", [token])[0]
        self._token = token if args.token is None else args.token
        pipeline = getattr(args, "pipeline", None)
        self._query = {} if pipeline is None else {"pipeline_id": pipeline}

    def get(self, path: str, shape: Any, **query: str) -> Any:
        """What GET of a path below /api/v0 gives, which has that shape."""
        return self._ask("GET", path, shape, params=self._query | query)

    def download(self, path: str, to: Path, *, query: Mapping[str, str]) -> int:
        """Write what GET of a path below /api/v0 gives into a file; returns its size in bytes. If that
        fails, nothing is left there."""
        import httpx

        partial = to.with_name(f"{to.name}.part")
        try:
            with (
                self._reach("GET", path, params={**self._query, **query}) as reply,
                partial.open("wb") as file,
            ):
                if reply.is_error:
                    reply.read()
                    self._found(reply, path, object)
                for part in reply.iter_bytes():
                    file.write(part)
            partial.replace(to)
        except httpx.HTTPError as error:
            raise RefusedError(
                f"{mask_urls(self._url)}: the download ended early: {error}"
            ) from None
        except OSError as error:
            raise RefusedError(f"{to}: {error.strerror or error}") from None
        finally:
            partial.unlink(missing_ok=True)
        return to.stat().st_size

    def post(self, path: str, body: dict[str, Any], shape: Any) -> Any:
        """What POST of `body` to a path below /api/v0 gives, which has that shape."""
        return self._ask("POST", path, shape, params=self._query, json=body)

    def post_content(
        self, path: str, content: bytes, kind: str, *, query: Mapping[str, str] = _NOTHING
    ) -> Any:
        """What POST of a body of that type to a path below /api/v0 gives, a message."""
        return self._ask(
            "POST", path, MESSAGE, params={**self._query, **query}, content=content,
            kind={"Content-Type": kind},
        )  # fmt: skip

    def _ask(
        self,
        method: str,
        path: str,
        shape: Any,
        *,
        kind: Mapping[str, str] = _NOTHING,
        **content: Any,
    ) -> Any:
        import httpx

        with self._reach(method, path, kind=kind, **content) as reply:
            try:
                reply.read()
            except httpx.HTTPError as error:
                raise RefusedError(
                    f"{mask_urls(self._url)}: the reply ended early: {error}"
                ) from None
            return self._found(reply, path, shape)

    @contextmanager
    def _reach(
        self, method: str, path: str, *, kind: Mapping[str, str] = _NOTHING, **content: Any
    ) -> Iterator[httpx.Response]:
        """The reply, whose body has not been read."""
        import httpx

        headers = {} if not self._token else {"Authorization": f"Bearer {self._token}"}
        with ExitStack() as stack:
            try:
                client = stack.enter_context(httpx.Client(timeout=self._timeout_s, trust_env=False))
                reply = stack.enter_context(
                    client.stream(
                        method,
                        f"{self._url}/api/v0/{quote(path)}",
                        headers={**headers, **kind},
                        **content,
                    )
                )
            except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
                raise RefusedError(
                    f"no server answers at {mask_urls(self._url)} ({error}); flowrun GRAPH "
                    "--port 3000 serves a run, flowrun serve DIR many"
                ) from None
            yield reply

    def _found(self, reply: httpx.Response, path: str, shape: Any) -> Any:
        shown = mask_urls(self._url)
        try:
            found = reply.json()
        except (ValueError, RecursionError):
            raise RefusedError(f"what answers at {shown} is not flowrun") from None
        if reply.is_error:
            raise RefusedError(_why(found) or f"{shown}/api/v0/{path}: status {reply.status_code}")
        if not fits(found, shape):
            raise RefusedError(
                f"what answers at {shown} is not flowrun, or another version of it: its reply to "
                f"/api/v0/{path} is another"
            )
        return found


def _why(found: Any) -> str:
    """The error in a reply, in any of its forms."""
    match found:
        case {"error": str(text)} | {"Error": {"error": str(text)}}:
            return text
        case _:
            return ""
