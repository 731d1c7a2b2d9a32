"""Routes that describe themselves: the summary of each is what its function's docstring begins with."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from fastapi.routing import APIRoute

from flowrun.runtime.server.bodies import Json

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["new_router"]

_PREFIX = "/api/v0"


def new_router(prefix: str = _PREFIX) -> APIRouter:
    """A router for paths below `prefix`."""
    return APIRouter(prefix=prefix, route_class=_Route, default_response_class=Json)


class _Route(APIRoute):
    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        said = inspect.getdoc(endpoint) or ""
        first = said.partition("\n\n")[0].replace("\n", " ").partition(". ")[0]
        options["summary"] = options.get("summary") or first.rstrip(".:").replace("`", "")
        super().__init__(path, endpoint, **options)
