"""Zones and lines of a picture, and what is counted there, as the page gets them, live and recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["REGIONS", "regions"]

REGIONS = ("ZonesMsg", "LinesMsg")
"""Names of the messages that have some."""

_ZONES = {
    "name": "names",
    "polygon": "polygons",
    "count": "counts",
    "labels": "labels",
    "inside": "inside",
    "total": "totals",
}
_LINES = {"name": "names", "line": "lines", "in": "ins", "out": "outs"}


def regions(fields: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The `zones` and `lines` of a message's fields, one map each; their shapes are in pixels of the
    frame."""
    return {"zones": _each(fields, _ZONES), "lines": _each(fields, _LINES)}


def _each(fields: Mapping[str, Any], of: Mapping[str, str]) -> list[dict[str, Any]]:
    if any(name not in fields for name in of.values()):
        return []
    columns = [fields[name] for name in of.values()]
    return [dict(zip(of, values, strict=True)) for values in zip(*columns, strict=False)]
