"""A class -> what a graph file calls it, and why a replay will not find it, if that is so.

A class of a module is `module.Class`, as in any graph file. One of the script that runs is
`script.Class`: a replay imports the script, up to where it runs the graph. A class of a notebook, of
an interactive session or of a function has no such name.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from flowrun.runtime.callers import is_file
from flowrun.runtime.graph.find import message_types, task_types
from flowrun.runtime.task import Task

__all__ = ["Name", "name_of"]


@dataclass(frozen=True, slots=True)
class Name:
    """What a graph file calls a class.

    text: its short name or its dotted path.
    lacks: why no file can name it; "" if one can.
    """

    text: str
    lacks: str = ""


def name_of(named: Any, folder: Path) -> Name:
    """The name of a task's class or function, or of a message's class.

    folder: that of the graph.
    """
    module, path = str(named.__module__), str(named.__qualname__)
    short = _short_name(named, module, path)
    if short is not None:
        return Name(short)
    text = f"{module}.{path}"
    if "<locals>" in path:
        return Name(text, f"{path} is defined inside a function; define it at the top of a module")
    if "." in path:
        return Name(text, f"{path} is defined inside a class; define it at the top of a module")
    if module != "__main__":
        found = getattr(sys.modules.get(module), path, None)
        lacks = f"{module} has no {path} any more" if found is None else ""
        return Name(text, lacks)
    main, why = _main_module(folder)
    if main is None:
        return Name(text, f"{path} is defined in {why}")
    return Name(f"{main}.{path}")


def _short_name(named: Any, module: str, path: str) -> str | None:
    if module.startswith("flowrun.msgs.") and message_types().get(path) is named:
        return path
    if isinstance(named, type) and issubclass(named, Task):
        for name, points in task_types().items():
            if [point.value for point in points] == [f"{module}:{path}"]:
                return name
    return None


def _main_module(folder: Path) -> tuple[str | None, str]:
    """The name by which a replay imports the script that runs, or why it cannot."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    file = getattr(main, "__file__", None)
    if file is None or not is_file(file):
        where = "a notebook" if "ipykernel" in sys.modules else "an interactive session"
        return None, f"{where}; put it into a module next to it"
    if spec is not None and spec.name:  # python -m package.module
        return str(spec.name), ""
    path = Path(file).resolve()
    others = [it for it in sys.path if Path(it).resolve() != path.parent]
    if not path.stem.isidentifier() or path.suffix != ".py":
        return (
            None,
            f"{path.name}, which cannot be imported; give the script a name such as my_graph.py",
        )
    if path.parent != folder.resolve():
        return None, f"{path.name}, which is not in the graph's folder; put it into a module there"
    if path.stem in sys.stdlib_module_names or PathFinder.find_spec(path.stem, others):
        return None, f"{path.name}, which has the name of an installed module; rename it"
    return path.stem, ""
