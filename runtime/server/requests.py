"""The bodies of requests: JSON objects."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from flowrun.runtime.server.errors import ApiError
from flowrun.runtime.wording import described

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["BODY_LIMIT", "described_body", "json_body", "json_object", "raw_body"]

BODY_LIMIT = 256 << 10
_PASSED_OVER = 16 << 20
"""Most bytes that are read of a body that is too large: a client that is still sending when the
connection is closed gets no reply."""


def described_body(schema: dict[str, Any]) -> dict[str, Any]:
    """The body of a request as OpenAPI describes it; any content type is taken for JSON, so that
    `curl -d` will do."""
    return {"requestBody": {"content": {"application/json": {"schema": schema}}, "required": True}}


async def json_body(request: Request) -> dict[str, Any]:
    """The request's body, which must be a JSON object."""
    return json_object(await raw_body(request))


async def raw_body(request: Request, limit: int = BODY_LIMIT) -> bytes:
    """The request's body; `ApiError` if it is too large."""
    size, most = 0, limit + _PASSED_OVER
    raw = bytearray()
    if int(request.headers.get("content-length", "0")) <= most:
        async for chunk in request.stream():
            size += len(chunk)
            if size <= limit:
                raw += chunk
            elif size > most:
                break
        if size <= limit:
            return bytes(raw)
    raise ApiError(413, f"the body is larger than {limit} bytes")


def json_object(raw: bytes) -> dict[str, Any]:
    """A body that must be a JSON object; `ApiError` if it is not."""
    try:
        # Strict: UTF-8, no NaN, no half surrogate pairs, no more than 200 levels.
        body = from_json(raw, allow_inf_nan=False)
        json.loads(raw, object_pairs_hook=_without_duplicates, parse_float=_finite)
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise ApiError(422, f"the body must be a JSON object, got {described(body)}")
    return body


def _without_duplicates(pairs: list[tuple[str, Any]]) -> None:
    seen = set()
    for key, _ in pairs:
        if key in seen:
            raise ValueError(f"key {described(key)} occurs twice in one object")
        seen.add(key)


def _finite(text: str) -> None:
    if math.isinf(float(text)):
        raise ValueError(f"number {text[:20]} is too large")
