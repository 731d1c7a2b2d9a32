"""Packages that come with an extra, and are loaded when they are needed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from flowrun.runtime.errors import UsageError

__all__ = [
    "DISTRIBUTION",
    "Extra",
    "import_optional",
    "installation",
    "load_video_libraries",
    "missing",
    "pytest_command",
    "require",
]

DISTRIBUTION = "flowrun-runtime"
"""What pip and `importlib.metadata` call flowrun."""

Extra = Literal[
    "eval",
    "faces",
    "foxglove",
    "links",
    "models",
    "mqtt",
    "otel",
    "ray",
    "rerun",
    "tables",
    "text",
    "track",
    "viewers",
]


def installation() -> tuple[tuple[str, int], ...]:
    """Where packages are installed that Python can import, each folder with the time of its last change
    in nanoseconds: the same until one is installed or removed. To ask packages what they say of
    themselves takes milliseconds; this takes microseconds."""
    folders = ((folder, _changed_ns(folder)) for folder in sys.path)
    return tuple(it for it in folders if _holds_packages(*it))


def _changed_ns(folder: str) -> int:
    try:
        return Path(folder).stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=256)
def _holds_packages(folder: str, changed_ns: int) -> bool:
    if not changed_ns:
        return False
    try:
        return any(it.suffix in (".dist-info", ".egg-info") for it in Path(folder).iterdir())
    except OSError:  # no folder, but an archive
        return True


def missing(
    what: str, packages: Sequence[str], *, extra: Extra, install: Sequence[str] = ()
) -> str | None:
    """A sentence that says what to install for `what`; None if nothing is missing. Loads nothing.

    what: what needs the packages, as the user called it.
    packages: names of modules.
    extra: the extra that lists the packages.
    install: what pip calls them, where that is not the modules' names.
    """
    named = zip(packages, install or packages, strict=True)
    absent = [name for module, name in named if importlib.util.find_spec(module) is None]
    return _needs(what, " and ".join(absent), extra) if absent else None


def pytest_command(file: Path | None = None) -> str:
    """How a user runs the tests of a folder, or of `file`; with what to install before, if anything."""
    command = "pytest" if file is None else f"pytest {file}"
    installed = importlib.util.find_spec("pytest") is not None
    return command if installed else f"pip install pytest && {command}"


def import_optional(module: str, what: str, *, extra: Extra, install: str = "") -> Any:
    """The module `module`; a `UsageError` says what to install if it is missing.

    what: what needs it, as the user called it.
    extra: the extra that lists its package.
    install: what pip calls the package, if that is not the module's name.
    """
    load_video_libraries()
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(_needs(what, install or module.partition(".")[0], extra)) from error


def load_video_libraries() -> None:
    """Load those that PyAV comes with before others of their names, as OpenCV comes with. A source that
    shows the screen would use OpenCV's for X11 with its own, which ends the process by SIGSEGV."""
    importlib.import_module("av")


def require(module: str, what: str, *, extra: Extra, install: str) -> None:
    """As `import_optional`, but loads nothing."""
    if importlib.util.find_spec(module) is None:
        raise UsageError(_needs(what, install, extra))


def _needs(what: str, packages: str, extra: Extra) -> str:
    return f"{what} needs {packages}: pip install '{DISTRIBUTION}[{extra}]'"
