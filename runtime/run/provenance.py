"""What a run was made with: versions of Python, of packages, of the tasks' code, and the commit."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

from flowrun.runtime.extras import DISTRIBUTION, installation
from flowrun.runtime.graph.plan import Plan
from flowrun.runtime.graph.scripts import name_of_main

__all__ = ["changes", "provenance", "versions"]

_PACKAGES = ("flowrun", "numpy", "msgpack", "av", "torch", "transformers")
_VERSION = "version_"
_CODE = "code_"
_MAIN = "__main__"
_GIT_TIMEOUT_S = 2.0


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide what a message's bytes are."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    return found | {package: _version(package) for package in _PACKAGES}


def provenance(plan: Plan) -> dict[str, str]:
    """Keys of a log's metadata: "version_<package>", also of the packages that tasks come from;
    "code_<module>", the SHA-256 of the source file, of tasks that are in none; "git_commit" of the
    graph's folder, with "-dirty" after it where files were changed, missing where there is none."""
    found = {f"{_VERSION}{name}": text for name, text in versions().items()} | _code_of(plan)
    commit = _git_commit(plan.graph.spec.path.absolute().parent)
    return found | ({"git_commit": commit} if commit else {})


def changes(recorded: Mapping[str, str], plan: Plan) -> list[str]:
    """What is not as it was when `recorded`, the metadata of a log, was written, a sentence each."""
    now = {f"{_VERSION}{name}": text for name, text in versions().items()} | _code_of(plan)
    sentences = []
    for key, text in now.items():
        before = recorded.get(key)
        if before is None or before == text or key == f"{_VERSION}platform":
            continue
        if key.startswith(_VERSION):
            name = key.removeprefix(_VERSION)
            sentences.append(f"recorded with {name} {before}, replayed with {name} {text}")
        else:
            sentences.append(
                f"the code of {key.removeprefix(_CODE)} has changed since it was recorded"
            )
    return sentences


def _version(package: str) -> str:
    return _installed_version(package, installation())


@functools.lru_cache(maxsize=64)
def _installed_version(package: str, _installation: object) -> str:
    try:
        return version(DISTRIBUTION if package == "flowrun" else package)
    except PackageNotFoundError:
        return "not installed"


def _code_of(plan: Plan) -> dict[str, str]:
    """Of tasks that are not flowrun's own: the version of their package, or a hash of their file; of
    classes of a notebook, a hash of their source."""
    modules = {task.task_class.__module__ for task in plan.graph.tasks}
    for task in plan.graph.tasks:
        modules.update(task.task_class.code(task.config))
    modules = {name for name in modules if not name.startswith("flowrun.")}
    main = name_of_main()[0] or _MAIN
    found: dict[str, str] = {}
    for name in sorted({main if name == _MAIN else name for name in modules}):
        module = sys.modules.get(_MAIN if name == main else name)
        path = getattr(module, "__file__", None)
        installed = path is not None and _is_installed(path)
        distributions = _packages().get(name.partition(".")[0]) if installed else None
        if distributions:
            found |= {f"{_VERSION}{it}": _version(it) for it in distributions}
        elif path is not None and Path(path).is_file():
            found[f"{_CODE}{name}"] = _sha256(Path(path).read_bytes())
        elif name == _MAIN:
            found[f"{_CODE}{name}"] = _sha256("\n".join(_sources(plan, name)).encode())
    return found


def _is_installed(path: str) -> bool:
    """Whether a file is in one of the folders that pip installs into."""
    file = Path(path).absolute()
    return any(file.is_relative_to(Path(folder).absolute()) for folder, _ in installation())


def _sources(plan: Plan, module: str) -> Iterator[str]:
    """Of the task classes of a module that is in no file."""
    classes = {it.task_class for it in plan.graph.tasks if it.task_class.__module__ == module}
    for task_class in sorted(classes, key=lambda it: it.__qualname__):
        with contextlib.suppress(OSError, TypeError):
            yield inspect.getsource(task_class)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@functools.cache
def _packages() -> Mapping[str, list[str]]:
    """The distributions of each top-level module. Finding them reads the list of files of all that is
    installed, for a quarter of a second."""
    return packages_distributions()


def _git_commit(folder: Path) -> str:
    options = ["--always", "--dirty", "--abbrev=40", "--exclude=*"]
    # The repository's fsmonitor would run a command of its config; GIT_DIR, set where a hook of git runs
    # flowrun, would name another repository.
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), "describe", *options]
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(  # noqa: S603  # the arguments are ours
            command,
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT_S,
            check=True,
            stdin=subprocess.DEVNULL,
            env={**env, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return done.stdout.strip()
