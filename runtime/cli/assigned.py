"""KEY=VALUE on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flowrun.runtime.errors import UsageError

__all__ = ["assigned"]


def assigned(given: Sequence[str], *, before: str = "", example: str) -> dict[str, Any]:
    """The value of each key, read as YAML; `UsageError` for a text that is no KEY=VALUE.

    before: what comes before each text on the command line, for errors.
    example: of such a text, for errors.
    """
    import yaml

    values: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise UsageError(f"{before}{text}: expected KEY=VALUE, such as {example}")
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UsageError(f"{before}{text}: the value is not YAML; quote it") from None
    return values
