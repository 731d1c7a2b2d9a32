"""WHAT RUNS: a graph, its log and its replay.

`Log` and `Replay` are loaded when they are first asked for: importing the package is free.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowrun.runtime.log.reader import Log
    from flowrun.runtime.replay.replay import Replay

__all__ = ["Log", "Replay"]

_MODULES = {"Log": "log.reader", "Replay": "replay.replay"}

if not TYPE_CHECKING:  # a type checker would take any name for one that exists

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
