"""`flowrun new-task Name`: a working task, its test, and a graph that runs it."""

from __future__ import annotations

import argparse
import keyword
import re
import sys
import sysconfig
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from flowrun.runtime.errors import UsageError
from flowrun.runtime.extras import pytest_command
from flowrun.runtime.graph.find import task_types
from flowrun.runtime.printing import print_text

__all__ = ["add_parser", "run"]

_NAME = re.compile(r"[A-Z][A-Za-z0-9]*")
_INSTALLED = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
"""Where packages are installed. Modules of the user's own folder are not asked for."""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "new-task",
        description="Write name.py (the task), test_name.py and name.yaml (a graph that runs it).",
    )
    parser.add_argument("name", metavar="Name", help="name of the class, such as FindFaces")
    parser.add_argument("--dir", type=Path, default=Path(), help="where to (default: here)")


def run(args: argparse.Namespace) -> int:
    name: str = args.name
    module = _module_name(name)
    folder: Path = args.dir
    files = {
        folder / f"{module}.py": _TASK,
        folder / f"test_{module}.py": _TEST,
        folder / f"{module}.yaml": _GRAPH,
    }
    for path in files:
        if path.exists():
            raise UsageError(f"{path} exists already; nothing was written")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, template in files.items():
            written = template.replace("{Name}", name).replace("{module}", module)
            with path.open("x", encoding="utf-8") as file:
                file.write(written)
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror}") from error
    task, test, graph = files
    print_text(f"wrote {task}, {test}, {graph}\n")
    print_text(f"  flowrun {graph}    run it")
    print_text(f"  {pytest_command(test)}    test it")
    return 0


def _module_name(name: str) -> str:
    """FindFaces -> find_faces. `UsageError` for a name that cannot name both class and module."""
    if not _NAME.fullmatch(name):
        words = re.findall(r"[A-Za-z0-9]+", name)
        better = "".join(word[:1].upper() + word[1:] for word in words).lstrip("0123456789")
        hint = f" (did you mean {better!r}?)" if _NAME.fullmatch(better) else ""
        raise UsageError(f"{name!r} is not a name for a class, such as FindFaces{hint}")
    if name in task_types():
        raise UsageError(f"{name!r} is a task that is installed already; choose another name")
    module = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    if (
        module in sys.stdlib_module_names
        or keyword.iskeyword(module)
        or module in ("conftest", "flowrun")  # pytest would take the first for its own
        or PathFinder.find_spec(module, _INSTALLED) is not None
    ):
        raise UsageError(
            f"{name!r} would need a module {module!r}, which Python has already; "
            f"choose another name, such as {name}Task"
        )
    return module


_TASK = '''\
"""{Name}: describe here in a sentence what it does."""

from flowrun.msgs import IntMsg
from flowrun.runtime.task import Context, Input, Output, Task, TaskConfig


class {Name}(Task):
    """Adds `amount` to every number. Put your own work in its place."""

    class Config(TaskConfig):
        amount: int = 1

    def process(self, ctx: Context, number: Input[IntMsg], result: Output[IntMsg]) -> None:
        """Called once a cycle in which `number` is there. The parameters are the ports."""
        result.value = number.value + self.config.amount
        result.publish(tov_ns=number.tov_ns)
'''

_TEST = '''\
"""{Name}, run alone."""

from flowrun.msgs import IntMsg
from flowrun.runtime.testing import run_task

from {module} import {Name}


def test_adds_the_amount() -> None:
    [first, second] = run_task(
        {Name},
        inputs=[{"number": IntMsg(value=1)}, {"number": IntMsg(value=5)}],
        config={"amount": 2},
    )
    assert first.result.value == 3
    assert second.result.value == 7
'''

_GRAPH = """\
# Run it with: flowrun {module}.yaml
tasks:
  - id: counter
    type: Counter
    config: {limit: 10}
  - id: {module}
    type: {module}.{Name}     # {Name} in {module}.py, next to this file
    config: {amount: 100}
  - id: print
    type: Print

cnx:
  - {src: counter, dst: {module}, msg: IntMsg}
  - {src: {module}, dst: print, msg: IntMsg}
"""
