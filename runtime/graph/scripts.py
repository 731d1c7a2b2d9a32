"""A script that runs a graph, imported for its classes: it is imported up to where it runs the graph.

A graph file, or a log, may name a class of a script that has no `if __name__ == "__main__"`. Whoever
imports it wants the class, and not another run. While the script itself runs, it is the module of its
name, so that there are no two of each class and variable.
"""

from __future__ import annotations

import importlib
import sys
import threading
from importlib.machinery import PathFinder
from pathlib import Path
from types import FrameType, ModuleType

from flowrun.runtime.callers import is_file
from flowrun.runtime.errors import UsageError

__all__ = ["import_module", "leave_import", "name_of_main"]


class _Left(BaseException):  # a script's `except Exception` is not meant
    def __init__(self, module: ModuleType) -> None:
        self.module = module
        super().__init__()


_importing = threading.local()


def import_module(name: str) -> ModuleType:
    """As `importlib.import_module`; of a script that runs a graph, what it defines before; of the
    script that runs now, that.

    `UsageError` where another module imports such a script.
    """
    if name == name_of_main()[0]:
        return sys.modules["__main__"]
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


def name_of_main() -> tuple[str | None, str]:
    """The name by which the script that runs now can be imported, or None and why it cannot."""
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if file is None or not is_file(file):
        where = "a notebook" if "ipykernel" in sys.modules else "an interactive session"
        return None, f"{where}; put it into a module next to it"
    if spec is not None and spec.name:  # python -m package.module
        return str(spec.name), ""
    path = Path(file).resolve()
    if not path.stem.isidentifier() or path.suffix != ".py":
        return (
            None,
            f"{path.name}, which cannot be imported; give the script a name such as my_graph.py",
        )
    others = [it for it in sys.path if Path(it).resolve() != path.parent]
    if path.stem in sys.stdlib_module_names or PathFinder.find_spec(path.stem, others):
        return None, f"{path.name}, which has the name of an installed module; rename it"
    return path.stem, ""


def leave_import() -> None:
    """To be called before a graph runs: ends the import of the script that runs it, if `import_module`
    imports that. Returns otherwise.

    `UsageError` in a process that multiprocessing has spawned and that still imports the script of its
    parent: the graph would run once more."""
    children = sys.modules.get("multiprocessing.process")
    if children is not None and getattr(children.current_process(), "_inheriting", False):
        raise UsageError(
            "this child process imports the script that has started it, which would run its graph "
            "again; put what runs a graph below `if __name__ == '__main__':`"
        )
    if not getattr(_importing, "is_so", False):
        return
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    if frame is not None:
        raise _Left(sys.modules[frame.f_globals["__name__"]])
