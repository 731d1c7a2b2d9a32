"""How an error is shown: in a line, with the place in the user's code below it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Collection

from flowrun.runtime.errors import FlowrunError, TaskDefinitionError, TaskError
from flowrun.runtime.printing import print_text

__all__ = ["print_error", "say"]


_LONGEST = 4000
"""Number of characters of a task's error that are shown; the log has all."""


def print_error(
    error: FlowrunError, *, secrets: Collection[str] = frozenset(), before: str = ""
) -> None:
    """Print the error on stderr; that of a task with the place where its code raised it.

    secrets: texts that are masked.
    before: what its first line begins with.
    """
    text = f"{before}{error}"
    if isinstance(error, TaskError) and len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}... ({len(text):,} characters)"
    lines = [text]
    if isinstance(error, TaskError) and error.__cause__ is not None:
        from flowrun.runtime.places import explained

        lines += [f"  {line}" for line in explained(error.__cause__)]
    elif isinstance(error, TaskDefinitionError):
        from flowrun.runtime.places import place_of

        place = place_of(error)
        lines += [] if place is None else [f"  at {place}"]
    text = "\n".join(lines)
    if secrets:
        from flowrun.runtime.wording import mask_secrets

        text = mask_secrets(text, secrets)
    say(text)


def say(text: str) -> None:
    """Print `text` on stderr, if anybody reads that."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        print_text(text, file=sys.stderr, flush=True)
