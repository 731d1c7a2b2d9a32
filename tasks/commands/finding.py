"""A line of what `flowrun doctor` reports."""

from __future__ import annotations

import dataclasses
from typing import Literal

__all__ = ["Finding", "State"]

State = Literal["ok", "warn", "fail"]


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """A line of the report.

    subject: what was looked at.
    text: what was found.
    hint: what to do about it; "" where nothing is to be done.
    """

    subject: str
    state: State
    text: str
    hint: str = ""
