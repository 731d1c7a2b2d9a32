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

from flowrun.runtime.graph.find import message_types, task_types
from flowrun.runtime.graph.scripts import name_of_main
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
    """The name of a task's class, of a function, or of a message's class.

    folder: that of the graph.
    """
    kind = named if hasattr(named, "__qualname__") else type(named)
    module, path = str(kind.__module__), str(kind.__qualname__)
    if kind is not named:
        return Name(f"{module}.{path}", f"an object of {path} has no name; write a function")
    short = _short_name(named, module, path)
    if short is not None:
        return Name(short)
    text = f"{module}.{path}"
    if "<locals>" in path:
        return Name(text, f"{path} is defined inside a function; define it at the top of a module")
    if path == "<lambda>":
        return Name(text, "a lambda has no name; write a function, with `def`")
    if "." in path:
        return Name(text, f"{path} is defined inside a class; define it at the top of a module")
    if module != "__main__":
        found = getattr(sys.modules.get(module), path, None)
        lacks = f"{module} has no {path} any more" if found is None else ""
        return Name(text, lacks)
    main, why = name_of_main()
    if main is None:
        return Name(text, f"{path} is defined in {why}")
    file = Path(str(sys.modules[module].__file__)).resolve()
    if "." in main:
        root = file.parents[main.count(".")]
        others = [it for it in sys.path if Path(it).resolve() != root]
        if PathFinder.find_spec(main.partition(".")[0], others) is None:
            why = f"{main}, which only {root} has; run the script itself, without -m"
            return Name(f"{main}.{path}", f"{path} is defined in {why}")
    elif file.parent != folder.resolve():
        why = f"{file.name}, which is not in the graph's folder; put it into a module there"
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
