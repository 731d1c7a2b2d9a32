"""A script that runs a graph, imported for its classes: it is imported up to where it runs the graph.

A graph file, or a log, may name a class of a script that has no `if __name__ == "__main__"`. Whoever
imports it wants the class, and not another run.
"""

from __future__ import annotations

import importlib
import sys
import threading
from types import FrameType, ModuleType

from flowrun.runtime.errors import UsageError

__all__ = ["import_module", "leave_import"]


class _Left(BaseException):  # a script's `except Exception` is not meant
    def __init__(self, module: ModuleType) -> None:
        self.module = module
        super().__init__()


_importing = threading.local()


def import_module(name: str) -> ModuleType:
    """As `importlib.import_module`; of a script that runs a graph, what it defines before.

    `UsageError` where another module imports such a script.
    """
    outer = getattr(_importing, "is_so", False)
    _importing.is_so = True
    try:
        return importlib.import_module(name)
    except _Left as left:
        if left.module.__name__ != name:
            raise UsageError(
                f"importing {name!r} imports the script {left.module.__name__!r}, which runs a graph; "
                "put that below `if __name__ == '__main__':`"
            ) from None
        sys.modules[name] = left.module  # Python forgets a module whose import was left
        return left.module
    finally:
        _importing.is_so = outer


def leave_import() -> None:
    """To be called before a graph runs: ends the import of the script that runs it, if `import_module`
    imports that. Returns otherwise."""
    if not getattr(_importing, "is_so", False):
        return
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    if frame is not None:
        raise _Left(sys.modules[frame.f_globals["__name__"]])
