"""Whether a reply is one that the API's own description allows."""

from __future__ import annotations

import re
from typing import Any

import jsonschema

_EVERYWHERE = {405}  # no operation of a path describes the methods that it has not


class ApiSchema:
    """The description (OpenAPI) that a server gives of itself."""

    def __init__(self, description: dict[str, Any]) -> None:
        self._components = description["components"]
        self._paths = [
            (re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))), operations)
            for path, operations in description["paths"].items()
        ]

    def problem(
        self, method: str, path: str, status: int, content_type: str, body: Any
    ) -> str | None:
        """What is wrong with a reply, or None.

        body: of JSON, as data; not looked at otherwise.
        """
        operations = next((found for at, found in self._paths if at.fullmatch(path)), None)
        if operations is None or status in _EVERYWHERE:
            return None
        operation = operations.get("get" if method == "HEAD" else method.lower())
        if operation is None:
            return f"{method} {path} is not described, and was answered with {status}"
        if str(status) not in operation["responses"]:
            return f"{method} {path} may not be answered with {status}: {body!r:.200}"
        media = content_type.partition(";")[0]
        content = operation["responses"][str(status)]["content"]
        if media not in content:
            return f"{method} {path} answered {status} with {media!r}, not {', '.join(content)}"
        if media != "application/json" or method == "HEAD":
            return None
        schema = {**content[media]["schema"], "components": self._components}
        error = jsonschema.Draft202012Validator(schema).iter_errors(body)
        return next((f"{method} {path}: {found.message:.300}" for found in error), None)
