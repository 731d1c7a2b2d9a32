"""Modules of the user whose source has changed since this process loaded them.

A process that lives long (a notebook, pytest) binds graphs again and again. Each time it gets the code
that is on the disk then: changed modules are forgotten, with those that import them, and load again.
Objects of their old classes live on.

A module is the user's if it is in the graph's folder, or if the graph names its package; not if it is
installed, and not if it is flowrun's.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import linecache
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from types import ModuleType

__all__ = ["changed_modules", "forget_changed", "note_loaded"]

_digests: dict[str, tuple[ModuleType, bytes]] = {}
"""By name, a module that is loaded, and the SHA-256 of its source then."""


def forget_changed(folder: Path, names: Collection[str]) -> None:
    """Unload what has changed, so that the next import loads it.

    folder: that of the graph.
    names: dotted names that the graph says.
    """
    own = _own_modules(folder, names)
    forgotten = {name for name, module in own.items() if _has_changed(name, module)}
    more = set(forgotten)
    while more:
        left = own.keys() - forgotten
        more = {name for name in left if _imported_by(own[name]) & forgotten}
        forgotten |= more
    for name in forgotten:
        module = own[name]
        linecache.checkcache(module.__file__)
        with contextlib.suppress(OSError, TypeError):
            # Python takes it for that of the new source if the two have one second and one size.
            Path(module.__cached__).unlink()
        del sys.modules[name]
        package, _, last = name.rpartition(".")
        if getattr(sys.modules.get(package), last, None) is module:
            delattr(sys.modules[package], last)  # where `from package import last` looks first
        _digests.pop(name, None)


def note_loaded(folder: Path, names: Collection[str]) -> None:
    """Note the source of what is loaded now; see `forget_changed`."""
    for name, module in _own_modules(folder, names).items():
        if name not in _digests or _digests[name][0] is not module:
            digest = _digest(module)
            if digest is not None:
                _digests[name] = module, digest


def changed_modules(folder: Path, names: Collection[str]) -> list[str]:
    """The modules that have changed since they were loaded, by name; see `forget_changed`."""
    own = _own_modules(folder, names)
    return sorted(name for name, module in own.items() if _has_changed(name, module))


def _own_modules(folder: Path, names: Collection[str]) -> Mapping[str, ModuleType]:
    place = f"{folder.resolve()}/"
    tops = {name.partition(".")[0] for name in names} - {"flowrun"}
    own = {}
    for name, module in [*sys.modules.items()]:
        top = name.partition(".")[0]
        file = getattr(module, "__file__", None)
        if top in ("flowrun", "__main__") or not isinstance(file, str):
            continue
        is_own = file.startswith(place) or top in tops
        if is_own and file.endswith(".py") and "site-packages" not in file:
            own[name] = module
    return own


def _has_changed(name: str, module: ModuleType) -> bool:
    known, digest = _digests.get(name, (None, b""))
    if known is module:
        return _digest(module) not in (digest, None)
    try:
        header = Path(module.__cached__).read_bytes()[:16]
        source = Path(str(module.__file__)).stat()
    except (OSError, TypeError, AttributeError):
        return False
    made_of = int.from_bytes(header[8:12], "little"), int.from_bytes(header[12:16], "little")
    is_dated = header[4:8] == bytes(4)
    return is_dated and made_of != (int(source.st_mtime) & 2**32 - 1, source.st_size & 2**32 - 1)


def _digest(module: ModuleType) -> bytes | None:
    try:
        return hashlib.sha256(Path(str(module.__file__)).read_bytes()).digest()
    except OSError:
        return None  # its source is gone; what was loaded is all there is


def _imported_by(module: ModuleType) -> set[str]:
    """The names of all modules that the source of `module` may import, and their packages."""
    try:
        tree = ast.parse(Path(str(module.__file__)).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return set()
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {part for alias in node.names for part in _and_packages(alias.name)}
        elif isinstance(node, ast.ImportFrom):
            package = (module.__package__ or "").split(".")
            base = package[: len(package) + 1 - node.level] if node.level else []
            name = ".".join(filter(None, [*base, node.module or ""]))
            found |= {name, *_and_packages(name)}
            found |= {f"{name}.{alias.name}" for alias in node.names}
    return found


def _and_packages(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]
