"""The HTTP API of one run, and its page."""

# No `from __future__ import annotations`: FastAPI reads the annotations of the endpoints.

import re
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, PlainTextResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import compile_path

from flowrun.runtime.errors import UsageError
from flowrun.runtime.recorded.runs import RecordedRuns
from flowrun.runtime.server.bodies import Json, Pipeline
from flowrun.runtime.server.channels import Channels
from flowrun.runtime.server.control import Control
from flowrun.runtime.server.errors import ApiError
from flowrun.runtime.server.guard import Guard, is_loopback
from flowrun.runtime.server.head import Head
from flowrun.runtime.server.machine import machine_router
from flowrun.runtime.server.metrics import Metrics
from flowrun.runtime.server.page_files import PageFiles
from flowrun.runtime.server.publish import Publish
from flowrun.runtime.server.runs import Runs
from flowrun.runtime.server.site import Site
from flowrun.runtime.server.status import Status
from flowrun.runtime.server.streaming import Streaming
from flowrun.runtime.server.video import Video
from flowrun.runtime.server.watchable import Watchable
from flowrun.runtime.wording import described

__all__ = ["create_app", "create_view_app", "new_app", "paths_of"]

_ASSETS = "/docs/assets"
_HERE = Site()

_DOCS_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def create_app(
    run: Watchable,
    *,
    token: str | None = None,
    host: str = "127.0.0.1",
    connections: int = 512,
    site: Site = _HERE,
) -> FastAPI:
    """The app that watches `run`.

    token: what every request must carry, or None.
    host: the address that it will be bound to; any but a loopback address needs a token.
    connections: how many the server has at most; a part of them is for streams, and for requests
        that wait.
    site: how it is reached from elsewhere.

    `app.state.close`, called on the loop's thread, ends its streams and answers what waits; without
    it a server that shuts down would wait for its clients.
    """
    status = Status(run)
    channels = Channels(status, connections=connections)
    page = PageFiles()
    app = new_app(
        title=f"flowrun: {run.name}",
        description="The HTTP API of one run. Times are nanoseconds since 1970 UTC.",
        token=token,
        host=host,
        site=site,
    )
    recorded = RecordedRuns(live=run)

    def close() -> None:
        channels.close()
        recorded.close()

    app.state.channels, app.state.close = channels, close
    app.include_router(Streaming(channels).router(), tags=["what the sinks show"])
    app.include_router(Video(channels).router())
    app.include_router(Control(status).router(), tags=["the run"])
    app.include_router(Publish(status).router(), tags=["the run"])
    app.include_router(machine_router(), tags=["the machine"])
    app.include_router(Metrics(channels).router(), tags=["the run"])
    app.include_router(page.router())
    app.include_router(Runs(recorded).router(), tags=["recorded runs"])

    @app.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return page.index()
        return PlainTextResponse(_index(app, status))

    return app


def create_view_app(
    runs: RecordedRuns, *, token: str | None = None, host: str = "127.0.0.1", connections: int = 512
) -> FastAPI:
    """The app that shows recorded runs on the same page; arguments as for `create_app`."""
    del connections  # none of its replies is without an end
    page = PageFiles()
    app = new_app(
        title="flowrun: recorded runs",
        description="The HTTP API of recorded runs. Times are nanoseconds since 1970 UTC.",
        token=token,
        host=host,
    )
    app.state.close = runs.close
    app.include_router(Runs(runs).router(), tags=["recorded runs"])
    app.include_router(page.router())

    @app.get("/api/v0/pipeline/list", tags=["the run"], responses={200: {"model": list[Pipeline]}})
    async def list_() -> Json:
        """The pipelines of this server: none, as it shows recorded runs."""
        return Json([])

    @app.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return page.index()
        return PlainTextResponse(f"flowrun: recorded runs\n\n{paths_of(app)}")

    return app


def new_app(
    *, title: str, description: str, token: str | None, host: str, site: Site = _HERE
) -> FastAPI:
    """An app without paths of its own but `/docs`: it guards itself, and says what is wrong with a
    request.

    token: what every request must carry, or None.
    host: the address that it will be bound to; any but a loopback address needs a token.
    site: how it is reached from elsewhere.
    """
    if token is None and not is_loopback(host):
        raise UsageError(f"host {host!r} is not a loopback address: it needs a token")
    app = FastAPIOffline(
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        static_url=_ASSETS,
        title=title,
        description=description,
    )

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        # The browser asks for the parts of the page without a header: they carry the token too.
        root = request.scope.get("root_path", "")
        given = request.query_params.get("token")
        query = "" if given is None else f"?token={quote(given, safe='')}"
        reply = get_swagger_ui_html(
            title=app.title,
            openapi_url=f"{root}{app.openapi_url}{query}",
            swagger_js_url=f"{root}{_ASSETS}/swagger-ui-bundle.js{query}",
            swagger_css_url=f"{root}{_ASSETS}/swagger-ui.css{query}",
            swagger_favicon_url=f"{root}{_ASSETS}/favicon.png{query}",
            swagger_ui_parameters={"requestSnippetsEnabled": True},
        )
        reply.headers["Content-Security-Policy"] = _DOCS_POLICY
        return reply

    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(HTTPException, _not_found)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _failed)
    app.add_middleware(Head)
    app.add_middleware(Guard, token=token, host=host, site=site)
    site.open(app)
    return app


def _index(app: FastAPI, status: Status) -> str:
    state = status.run.state()
    shown = state if isinstance(state, str) else f"Error: {state['Error']}"
    return f"flowrun: graph {status.run.name!r}: {shown}\n\n{paths_of(app)}"


def paths_of(app: FastAPI) -> str:
    lines = []
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            lines.append(f"{method.upper():<5}{path:<36}{operation['summary']}")
    lines += [
        f"{'GET':<5}{'/docs':<36}This list, to try out in a browser",
        f"{'GET':<5}{'/':<36}The page of the run, in a browser",
    ]
    return "\n".join(lines) + "\n"


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return Json(error.content, status_code=error.status)


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = described(request.scope["path"])  # `request.url` needs a Host header that can be one
    text = {
        404: f"no such path {path}{_near(request)}; GET / lists all",
        405: f"{request.method} is not for {path}; GET / lists all",
    }.get(error.status_code, error.detail)
    headers = dict(error.headers or {}) | (_allowed(request) if error.status_code == 405 else {})
    return Json({"error": text}, status_code=error.status_code, headers=headers)


def _allowed(request: Request) -> dict[str, str]:
    """All methods of the path: each of its routes knows one of them."""
    path = _own_path(request)
    for template, operations in request.app.openapi()["paths"].items():
        if compile_path(template)[0].match(path):
            methods = {*map(str.upper, operations), *(("HEAD",) if "get" in operations else ())}
            return {"Allow": ", ".join(sorted(methods))}
    return {}


def _near(request: Request) -> str:
    """The path that is the same but for its slashes and its case."""
    plain = re.sub("/+", "/", _own_path(request)).rstrip("/").lower()
    known = plain in request.app.openapi()["paths"]
    return f" (did you mean {plain!r}?)" if known else ""


def _own_path(request: Request) -> str:
    """The path as the app has it, without what a proxy has put before it."""
    path: str = request.scope["path"]
    return path.removeprefix(request.scope.get("root_path", ""))


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems: list[dict[str, Any]] = list(error.errors())
    text = "; ".join(
        f"{problem['loc'][-1]}: {problem['msg']}, got {described(problem['input'])}"
        for problem in problems
    )
    return Json({"error": text}, status_code=422)


async def _gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=400)  # nobody gets it


async def _failed(_request: Request, error: Exception) -> Response:
    # The server that runs the app logs all of it; a client gets no text that nobody has read.
    text = f"flowrun failed to answer ({type(error).__name__}); the run's log has the traceback"
    return Json({"error": text}, status_code=500)
