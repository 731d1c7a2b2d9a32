"""Why a task may have made another message than in the run, as far as its code shows it."""

from __future__ import annotations

import builtins
import dis
import inspect
import os
import random
import re
import time
import uuid
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from flowrun.runtime.task import Task

__all__ = ["hint_of", "says_another_address"]

_CLOCK, _CHANCE = "ctx.now_ns", "ctx.rng"
_OUTSIDE = "its config, or a source"
_INSTEAD: list[tuple[Any, str]] = [
    (time.time, _CLOCK),
    (time.time_ns, _CLOCK),
    (time.monotonic, _CLOCK),
    (time.monotonic_ns, _CLOCK),
    (time.perf_counter, _CLOCK),
    (time.perf_counter_ns, _CLOCK),
    (uuid.uuid1, _CHANCE),
    (uuid.uuid4, _CHANCE),
    (os.urandom, _CHANCE),
    (os.environ, _OUTSIDE),
    (os.getenv, _OUTSIDE),
    (os.getpid, _OUTSIDE),
    (id, "a number of its own"),
    (hash, "zlib.crc32"),
]
"""What gives something else in another process, and what does not."""
_NOW = {"now", "utcnow", "today"}
_ADDRESS = re.compile("0x[0-9a-fA-F]+")


def says_another_address(recorded: str, replayed: str) -> bool:
    """Whether two values in words differ only in the addresses of objects."""
    return _ADDRESS.sub("", recorded) == _ADDRESS.sub("", replayed)


def hint_of(kind: type[Task]) -> str:
    """What the methods of a task use, or functions of its module that they name, and is something else
    in a replay; "" if there is nothing. Runs nothing of it."""
    seen: set[CodeType] = set()
    for owner in kind.__mro__:
        if owner.__module__.startswith("flowrun.") or owner is object:
            continue
        for method in vars(owner).values():
            function = inspect.unwrap(getattr(method, "__func__", method))
            if isinstance(function, FunctionType):
                for found in _found_in(function, function.__code__, seen):
                    return found
    return ""


def _found_in(function: FunctionType, code: CodeType, seen: set[CodeType]) -> Iterator[str]:
    if code in seen:
        return
    seen.add(code)
    for dotted, value, line in _named_in(function, code):
        instead = _instead(value)
        if instead is not None:
            where = f"{Path(code.co_filename).name}:{line}"
            yield f"it uses {dotted} ({where}), which differs in a replay; use {instead}"
        elif isinstance(value, FunctionType) and value.__module__ == function.__module__:
            yield from _found_in(value, value.__code__, seen)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _found_in(function, inner, seen)


def _named_in(function: FunctionType, code: CodeType) -> Iterator[tuple[str, Any, int]]:
    """What the code names: globals, what modules hold, and methods of `datetime`."""
    names, value, line = "", None, 0
    for it in dis.get_instructions(code):
        line = it.starts_line or line
        name = str(it.argval)
        if it.opname == "LOAD_GLOBAL":
            names, value = name, function.__globals__.get(name, getattr(builtins, name, None))
        elif it.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
            continue
        elif isinstance(value, ModuleType):
            names, value = f"{names}.{name}", vars(value).get(name)
        elif value is datetime or value is date:
            names, value = f"{names}.{name}", getattr(value, name, None)
        else:
            value = None
        yield names, value, line


def _instead(value: Any) -> str | None:
    for known, instead in _INSTEAD:
        if value is known:
            return instead
    owner = getattr(value, "__self__", None) if inspect.isroutine(value) else None
    if owner is None:
        return None
    if owner in (datetime, date):
        return _CLOCK if value.__name__ in _NOW else None
    # Python's generator, and NumPy's, that everybody in the process shares.
    is_shared = type(owner) is random.Random or type(owner).__name__ == "RandomState"
    return _CHANCE if is_shared else None
