"""The names in a graph file -> task classes and message types: short names, and dotted paths."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from itertools import chain, count
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, cast

from pydantic import PydanticUserError

import flowrun.msgs
from flowrun.msgs.message import Message
from flowrun.runtime.errors import UsageError, text_of
from flowrun.runtime.extras import installation, load_video_libraries
from flowrun.runtime.graph.functions import is_task_function, task_class_of
from flowrun.runtime.graph.scripts import import_module
from flowrun.runtime.interrupts import is_users
from flowrun.runtime.places import place_of
from flowrun.runtime.task import Task
from flowrun.runtime.wording import listed, nearest, with_article

__all__ = [
    "TaskTypes",
    "dotted",
    "find_callable",
    "find_message_type",
    "find_task_class",
    "give_callable",
    "given_class",
    "importable",
    "in_one_line",
    "message_name",
    "message_types",
    "task_types",
    "unused_modules",
    "why_not_called",
]


TaskTypes = Mapping[str, tuple[EntryPoint, ...]]
"""Short name -> the entry points of that name: one, unless several packages offer it."""

_GROUP = "flowrun.tasks"
_OWN_PACKAGE = "flowrun-runtime"
_PROGRAM = "__main__"


def task_types() -> TaskTypes:
    """The task types that installed packages offer, flowrun itself among them; also those that have been
    installed since the program began."""
    return _task_types(installation())


@lru_cache(maxsize=1)
def _task_types(_installation: object) -> TaskTypes:
    types: dict[str, tuple[EntryPoint, ...]] = {}
    for point in entry_points(group=_GROUP):
        types[point.name] = (*types.get(point.name, ()), point)
    return MappingProxyType(types)


def find_task_class(type_name: str, *, folder: Path, types: TaskTypes) -> type[Task]:
    """The class that `type: type_name` means. `UsageError` says why there is none.

    folder: that of the graph, whose modules a dotted path may name.
    types: what a name without a dot may be, from `task_types`.
    """
    if "/" in type_name or type_name.endswith(".py") or ".py:" in type_name:
        raise UsageError(_not_a_path(type_name))
    path = dotted(type_name)
    path = path if "." in path else _path_of(type_name, types, folder)
    found = _find(path, folder=folder, base=Task, what="task")
    return task_class_of(found) if inspect.isfunction(found) else cast("type[Task]", found)


def given_class(given: Any) -> type[Task]:
    """The task class that a program has given: itself, or that of a function."""
    found: type[Task] = task_class_of(given) if inspect.isfunction(given) else given
    return found


def dotted(name: str) -> str:
    """`package.module.Name` of a name that may be written `package.module:Name`."""
    module, colon, last = name.partition(":")
    return f"{module}.{last}" if colon and module and last else name


def _not_a_path(type_name: str) -> str:
    """What to write in place of `./my_module.py:MyTask`."""
    file, _, name = type_name.removesuffix(".py").partition(".py:")
    parts = [part for part in file.split("/") if part not in ("", ".", "..")]
    module = ".".join(parts)
    better = f"{module}.{name}" if name else module
    if name or (parts and "." in parts[-1]):
        return f"{type_name!r} is a path; name module and task: {better}"
    return f"{type_name!r} names a file; name a task in it, such as {better}.MyTask"


def _defined_in(folder: Path, name: str) -> str:
    """` (did you mean 'module.name'?)` where a file of the graph's folder defines `name`. Nothing is
    imported."""
    defines = re.compile(rf"^(?:class|def) {re.escape(name)}\b", re.MULTILINE)
    try:
        for path in sorted(folder.glob("*.py")):
            if path.stem.isidentifier() and defines.search(path.read_text("utf-8", "replace")):
                return f" (did you mean '{path.stem}.{name}'?)"
    except OSError:
        return ""
    return ""


def _path_of(short_name: str, types: TaskTypes, folder: Path) -> str:
    offered = {point.value.replace(":", "."): point for point in types.get(short_name, ())}
    if len(offered) == 1:
        return next(iter(offered))
    if offered:
        packages = (f"{_package(point)} ({path})" for path, point in sorted(offered.items()))
        raise UsageError(
            f"task type {short_name!r} is ambiguous: it is offered by {' and by '.join(packages)}; "
            "uninstall one of them, or write its dotted path"
        )
    if all(_package(point) != _OWN_PACKAGE for points in types.values() for point in points):
        raise UsageError(
            f"unknown task type {short_name!r}: the installation of {_OWN_PACKAGE} offers no task at "
            "all, so it is older than this code; install it again"
        )
    raise UsageError(
        f"unknown task type {short_name!r}; types: {listed(sorted(types))}, "
        "or a dotted path such as my_module.MyTask"
        + (_defined_in(folder, short_name) or nearest(short_name, sorted(types)))
    )


def _package(point: EntryPoint) -> str:
    return "an unknown package" if point.dist is None else point.dist.name


def message_types() -> dict[str, type[Message]]:
    """Short name -> the message types that ship with flowrun."""
    return {
        name: value
        for name in flowrun.msgs.__all__
        if isinstance(value := getattr(flowrun.msgs, name), type)
        and issubclass(value, Message)
        and value is not Message
    }


def message_name(kind: type[Message]) -> str:
    """What a graph file calls a class of messages; "any message" for `Message`."""
    if kind is Message:
        return "any message"
    is_short = message_types().get(kind.__name__) is kind
    return kind.__name__ if is_short else f"{kind.__module__}.{kind.__qualname__}"


def find_message_type(name: str, *, folder: Path) -> type[Message]:
    """The class that `msg: name` means. `UsageError` says why there is none."""
    name = dotted(name)
    if "." not in name:
        short = message_types()
        if name in short:
            return short[name]
        raise UsageError(
            f"unknown message {name!r}; messages: {listed(sorted(short))}, "
            "or a dotted path such as my_module.MyMsg" + nearest(name, sorted(short))
        )
    found = _find(name, folder=folder, base=Message, what="message class")
    return cast("type[Message]", found)


_given: dict[str, Callable[..., Any]] = {}
"""By the names that graphs of this process have for them, functions that cannot be imported."""


def give_callable(name: str, given: Callable[..., Any]) -> str:
    """Let `find_callable` find what a program has given, in this process; returns the name for it.

    name: `module.name`, or with a number after it if that is another one already.
    """
    names = chain([name], (f"{name}_{number}" for number in count(2)))
    free = next(it for it in names if _given.get(it, given) is given)
    _given[free] = given
    return free


def find_callable(name: str, *, folder: Path) -> Callable[..., Any]:
    """What `module:name` means, which can be called: a function, a class, or an object.

    folder: that of the graph, whose modules it may name. `UsageError` says why there is none.
    """
    if name in _given:
        return _given[name]
    module_name, _, attribute = dotted(name).rpartition(".")
    if not module_name:
        raise UsageError(f"{name!r} names no function; write module:name, such as my_module:infer")
    module = _import(module_name, folder=folder)
    found = getattr(module, attribute, None)
    if callable(found):
        return cast("Callable[..., Any]", found)
    names = sorted(
        key
        for key, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", None) == module_name
    )
    known = f"it has {listed(names)}" + nearest(attribute, names)
    if found is None and module_name == _PROGRAM:
        raise _gone(name)
    if found is None:
        raise UsageError(f"module {module_name!r} has no {attribute!r}; {known}")
    raise UsageError(
        f"{name!r} is {with_article(type(found).__name__)}, and cannot be called; {known}"
    )


def why_not_called(function: Callable[..., Any], *given: Any, **named: Any) -> str | None:
    """What is wrong with calling `function` so, as far as its signature says; None if nothing is."""
    try:
        inspect.signature(function).bind(*given, **named)
    except TypeError as error:
        return str(error)
    except ValueError:  # it has no signature that Python could know
        return None
    return None


def _find(path: str, *, folder: Path, base: type, what: str) -> Any:
    """The class below `base` that `path` names; for a task, also a function."""
    module_name, _, class_name = path.rpartition(".")
    if module_name.startswith(f"{_PROGRAM}."):  # what a function of it has defined
        raise _gone(path)
    module = _import(module_name, folder=folder)
    found = getattr(module, class_name, None)
    unused = _unused_neighbour(module_name, folder)
    if isinstance(found, type) and issubclass(found, base) and found is not base:
        return found
    if base is Task and inspect.isfunction(found):
        return found
    names = sorted(
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module_name
        and (
            (isinstance(value, type) and issubclass(value, base))
            or (base is Task and is_task_function(value))
        )
    )
    plural = {"task": "tasks", "message class": "message classes"}[what]
    known = f"its {plural}: {listed(names)}" + nearest(class_name, names)
    if found is None and module_name == _PROGRAM:
        raise _gone(path)
    if found is None:
        raise UsageError(f"module {module_name!r} has no {class_name!r}; {unused or known}")
    kind = f"a class that does not derive from {base.__name__}"
    if isinstance(found, type) and found.__module__ == module_name and not unused:
        kind += f" (write `class {class_name}({base.__name__}):`)"
    if found is base:
        kind = "the base class itself"
    elif not isinstance(found, type):
        kind = with_article(type(found).__name__)
    raise UsageError(f"{path!r} is not a {what} but {kind}; {unused or known}")


def _gone(path: str) -> UsageError:
    """Of a name in a program that is over."""
    return UsageError(
        f"{path!r} was defined in a script or a session that cannot be imported: put it at the top of a "
        "module next to the graph, and name that; the log of its run says why, on its first lines"
    )


def _import(name: str, *, folder: Path) -> ModuleType:
    """The module `name`, which may be one in the graph's `folder`."""
    if not name.startswith("flowrun."):
        load_video_libraries()  # it may import OpenCV
    try:
        with _on_module_path(folder):
            _forget_namesake(name.partition(".")[0], folder.resolve())
            importlib.invalidate_caches()
            return import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name
        if missing is not None and (name == missing or name.startswith(f"{missing}.")):
            unused = _unused_neighbour(name, folder)
            raise UsageError(
                f"no module named {missing!r}; {unused}"
                if unused
                else f"no module named {missing!r}; looked in the graph's folder {folder} and on "
                "Python's module path" + nearest(missing, _modules_in(folder))
            ) from None
        raise UsageError(_not_importable(name, error, folder)) from error
    except BaseException as error:
        if is_users(error) or isinstance(error, UsageError):
            raise
        raise UsageError(_not_importable(name, error, folder)) from error


def _modules_in(folder: Path) -> list[str]:
    try:
        return sorted(path.stem for path in folder.glob("*.py") if path.stem.isidentifier())
    except OSError:
        return []


def _not_importable(name: str, error: BaseException, folder: Path) -> str:
    text = f"module {name!r} cannot be imported: {in_one_line(error)}{_meant(error)}"
    culprit = None
    if isinstance(error, ImportError):
        culprit = error.name
    elif isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        culprit = error.obj.__name__
    unused = _unused_neighbour(culprit, folder) if culprit else ""
    return f"{text}; {unused}" if unused else text


def _meant(error: BaseException) -> str:
    """What may have been meant by a name that is not there: one of the module it is imported from, or
    one that flowrun offers and nobody has imported."""
    wrong = re.match(r"cannot import name '(\w+)' from '([\w.]+)'", str(error))
    if isinstance(error, ImportError) and wrong is not None:
        return nearest(wrong[1], _public_names(sys.modules.get(wrong[2])))
    if isinstance(error, NameError) and error.name:
        for module in ("flowrun.msgs", "flowrun.runtime.task"):
            offered = _public_names(import_module(module))
            if error.name in offered:
                return f"; write from {module} import {error.name}"
            if near := nearest(error.name, offered):
                return near
    return ""


def _public_names(module: ModuleType | None) -> list[str]:
    """What a module says that it offers; else all its names without an underscore in front."""
    return [it for it in getattr(module, "__all__", dir(module)) if not it.startswith("_")]


def _unused_neighbour(name: str, folder: Path) -> str:
    """What to do about the file in the graph's `folder` that module `name` would be in if no installed
    module had its name; "" if there is none."""
    top, folder = name.partition(".")[0], folder.resolve()
    own = next((it for it in (folder / f"{top}.py", folder / top) if it.exists()), None)
    loaded = sys.modules.get(top)
    if own is None or loaded is None:
        return ""
    places = [Path(it).resolve() for it in getattr(loaded, "__path__", ())]
    if getattr(loaded, "__file__", None) is not None:
        places.append(Path(str(loaded.__file__)).resolve())
    if any(it in (own, own / "__init__.py") for it in places):
        return ""
    return (
        f"{own.name} in the graph's folder is not used, since the installed module {top!r} has its "
        "name; rename it"
    )


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Put the graph's `folder` on the module path: tasks may import their neighbours there, also
    later than their own module, in `start`.

    It comes last, so that no file there hides an installed module that anybody else imports. If the
    folder is the current one and has such files, the Python processes that tasks start (those of
    multiprocessing, for example) do not look there first either.
    """
    keeps_safe = folder.resolve() == Path.cwd() and "PYTHONSAFEPATH" not in os.environ
    with _on_module_path(folder):
        keeps_safe = keeps_safe and bool(unused_modules(folder))
        if keeps_safe:
            os.environ["PYTHONSAFEPATH"] = "1"
        try:
            yield
        finally:
            if keeps_safe:
                os.environ.pop("PYTHONSAFEPATH", None)


@contextmanager
def _on_module_path(folder: Path) -> Iterator[None]:
    place = str(folder.resolve())
    is_there = place in sys.path
    if not is_there:
        sys.path.append(place)
    try:
        yield
    finally:
        if not is_there:
            sys.path.remove(place)


def unused_modules(folder: Path) -> list[str]:
    """The Python files and packages in `folder` that are never imported from there, because an
    installed module has their name."""
    place = folder.resolve()
    others = [it for it in sys.path if Path(it).resolve() != place]
    if len(others) < len(sys.path) - 1 or sys.path[-1:] != [str(place)]:
        return []  # the user has put the folder on the path, before others
    found = []
    for path in sorted(place.iterdir()) if place.is_dir() else ():
        is_module = path.suffix == ".py" or (path / "__init__.py").is_file()
        name = path.stem if path.suffix == ".py" else path.name
        if is_module and name.isidentifier() and name != "__init__":
            spec = PathFinder.find_spec(name, others)
            if name in sys.builtin_module_names or (spec is not None and spec.loader is not None):
                found.append(path.name)
    return found


def _forget_namesake(top: str, folder: Path) -> None:
    """Unload `top` if it was loaded from another graph's folder: this graph means its own."""
    loaded = sys.modules.get(top)
    file = getattr(loaded, "__file__", None)
    if file is None or not ((folder / f"{top}.py").is_file() or (folder / top).is_dir()):
        return
    home = Path(file).parent.parent if Path(file).name == "__init__.py" else Path(file).parent
    if home.resolve() not in [Path(place).resolve() for place in sys.path]:
        for name in [key for key in sys.modules if key == top or key.startswith(f"{top}.")]:
            del sys.modules[name]


def in_one_line(error: BaseException) -> str:
    """The exception in one line, with the place in the user's code where it was raised; pydantic's go on
    with advice and links."""
    said = error.msg if isinstance(error, SyntaxError) else text_of(error)
    said = said.strip().partition("\n")[0]
    line = f"{type(error).__name__}: {said}" if said else type(error).__name__
    untyped = re.match(r"A non-annotated attribute was detected: `(\w+) = (.*?)`", said)
    if isinstance(error, PydanticUserError) and untyped is not None:
        line = f"{untyped[1]} = {untyped[2]} needs a type in a Config: {untyped[1]}: TYPE = {untyped[2]}"
    place = place_of(error)
    return line if place is None else f"{line} (at {place})"
