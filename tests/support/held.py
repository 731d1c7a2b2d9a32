"""A command that waits midway, so that a test can end it there however busy the machine is."""

from __future__ import annotations

import sys

__all__ = ["held"]

_CODE = """
import sys, threading
import {module} as module
from flowrun.runtime.cli import main

spread = module.spread

def held(*args, **names):
    events = spread(*args, **names)
    yield next(events)
    threading.Event().wait(600)

module.spread = held
sys.exit(main())
"""


def held(module: str, *words: str) -> list[str]:
    """The command that does what `flowrun` with these words does, and waits once the work that `module`
    spreads over processes has given something.

    module: the one that calls `spread`, by its name.
    """
    return [sys.executable, "-c", _CODE.format(module=module), *words]
