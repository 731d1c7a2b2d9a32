"""Inputs that a config names: `inputs: [front, back]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field

__all__ = ["InputNames", "batched_pairs"]

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


def _differ(names: list[str]) -> list[str]:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} is there twice")
    return names


InputNames = Annotated[list[Name], Field(min_length=1), AfterValidator(_differ)]
"""Names of ports, each once."""


def batched_pairs(given: Sequence[Any]) -> list[tuple[Any, Any]]:
    """What `process` gets for a parameter such as `*answer`: each input, or None, with its output."""
    return list(zip(given[::2], given[1::2], strict=True))
