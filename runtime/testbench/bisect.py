"""Which commit, or which value of a config key, changes what a recorded run gives.

Each is tried by a process of its own, `flowrun ci` of that one run: the commits of a repository in a
worktree, which `git bisect` leads from one to the next.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowrun.runtime.errors import FlowrunError, UsageError

__all__ = ["Change", "Found", "Trial", "Wanted", "bisect_commits", "bisect_values"]


@dataclass(frozen=True, slots=True)
class Change:
    """A message that is not as it was recorded.

    recorded, now: its value, as text. picture: topic and cycle of the picture that it is about.
    """

    cycle: int
    task: str
    port: str
    field: str
    recorded: str
    now: str
    picture: tuple[str, int] | None

    def __str__(self) -> str:
        output = f"{self.task}.{self.port}" if self.port else self.task
        field = f".{self.field}" if self.field else ""
        return f"cycle {self.cycle}, {output}{field}: {self.recorded} -> {self.now}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which changes count: None for any task, port and cycle."""

    task: str | None = None
    port: str | None = None
    cycle: int | None = None

    def holds(self, change: Change) -> bool:
        return (
            self.task in (None, change.task)
            and self.port in (None, change.port)
            and self.cycle in (None, change.cycle)
        )


@dataclass(frozen=True, slots=True)
class Trial:
    """A replay.

    name: the commit, as `git log --oneline` shows it, or the value.
    change: the first change that counts; None where there is none. error: why it could not be replayed.
    left: how many candidates there are still, at the most; None where that is not known.
    """

    name: str
    change: Change | None
    error: str | None = None
    left: int | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What was found.

    trials: how many replays it took.
    first: the first that changes what the run gives; None where others could not be replayed, so that
        it is one of `candidates`.
    """

    trials: int
    first: Trial | None
    candidates: list[str]


Tell = Callable[[Trial], None]


def bisect_values(
    run: Path, options: Sequence[str], key: str, values: Sequence[str], wanted: Wanted, tell: Tell
) -> Found:
    """Find the first of `values` with which the run gives something else.

    options: of `flowrun ci`.
    key: "task.key". values: as they are typed, from those with which the run is as recorded to those
        with which it is not.

    `UsageError` where it gives the same with the last one.
    """
    done: dict[int, Trial] = {}
    low, high = -1, len(values)  # what is before is as recorded, what is from there on is not

    def trial(at: int) -> Trial:
        change, error = _replayed([str(run), *options, "--set", f"{key}={values[at]}"], wanted)
        if error is not None:
            raise FlowrunError(f"{key}={values[at]}: the run cannot be replayed: {error}")
        found = done[at] = Trial(f"{key}={values[at]}", change, left=high - low - 1)
        tell(found)
        return found

    while high - low > 1:
        middle = (low + high) // 2
        if trial(middle).change is None:
            low = middle
        else:
            high = middle
    if high == len(values):
        raise UsageError(f"the run is as it was recorded also with {key}={values[-1]}")
    return Found(len(done), done[high], [])


def bisect_commits(
    run: Path,
    options: Sequence[str],
    *,
    folder: Path,
    good: str,
    bad: str,
    wanted: Wanted,
    tell: Tell,
) -> Found:
    """Find the first commit between `good` and `bad` at which the run gives something else.

    run: absolute. It is read where it is, whatever a commit has there.
    options: of `flowrun ci`; paths in them are relative to `folder`.
    folder: of the repository; a commit's replay runs in the same folder of a worktree, which is removed.

    Submodules are those of each commit, as far as the repository has them; hooks do not run.

    A commit at which the run cannot be replayed is passed over. `UsageError` for what git does not take,
    and where `bad` gives what was recorded, or `good` does not.
    """
    top = Path(_git(folder, "rev-parse", "--show-toplevel"))
    ends = {name: _commit(folder, name) for name in (good, bad)}
    _check_order(folder, good=good, bad=bad, ends=ends)
    modules = _modules(top)
    with _worktree(top, ends[bad]) as tree:
        place = tree / folder.absolute().resolve().relative_to(top.resolve())
        done: dict[str, Trial] = {}

        def trial(commit: str, left: int | None) -> Trial:
            name = _git(tree, "log", "-1", "--format=%h %s", commit)
            change, error = None, _settled(tree, modules)
            if error is None and not place.is_dir():
                error = "the folder is not there"
            if error is None:
                env = _environment(top, tree)
                change, error = _replayed([str(run), *options], wanted, place=place, env=env)
            found = done[commit] = Trial(name, change, error, left)
            tell(found)
            return found

        said = _git(tree, "bisect", "start", ends[bad], ends[good])
        while not (ended := _ended(tree)):
            commit = _commit(tree, "HEAD")
            tried = done.get(commit) or trial(commit, _left(said))
            word = "skip" if tried.error else "bad" if tried.change else "good"
            said = _git(tree, "bisect", word, may_fail=True)
        if len(ended) > 1:
            names = [_git(tree, "log", "-1", "--format=%h %s", commit) for commit in ended]
            return Found(len(done), None, names)
        first = _commit(tree, "refs/bisect/bad")
        if first not in done:
            _git(tree, "checkout", "--quiet", "--detach", first)
            trial(first, None)
        if done[first].change is None:
            why = done[first].error
            what = f"cannot be replayed: {why}" if why else "is as it was recorded"
            is_changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
            more = "; what is not committed is not tried" if is_changed else ""
            raise UsageError(
                f"at {bad} the run {what}; --bad takes a commit at which it is not{more}"
            )
        before = _git(tree, "rev-list", "--parents", "-n", "1", first).split()[1:]
        if ends[good] in before:
            _git(tree, "checkout", "--quiet", "--detach", ends[good])
            at_good = trial(ends[good], None)
            if at_good.change is not None:
                raise UsageError(
                    f"at {good} the run is not as it was recorded either: {at_good.change}"
                )
        return Found(len(done), done[first], [])


def _replayed(
    arguments: Sequence[str],
    wanted: Wanted,
    *,
    place: Path | None = None,
    env: dict[str, str] | None = None,
) -> tuple[Change | None, str | None]:
    """The first change that counts, or why there was no replay."""
    with tempfile.TemporaryDirectory(prefix="flowrun-bisect-") as folder:
        found = Path(folder, "found.json")
        done = subprocess.run(  # noqa: S603  # our own command
            [
                sys.executable,
                "-m",
                "flowrun",
                "ci",
                *arguments,
                "--jobs",
                "1",
                "--json",
                str(found),
            ],
            cwd=place,
            env=env,
            capture_output=True,
            text=True,
            errors="replace",  # what a task prints
            check=False,
        )
        if not found.exists():
            return None, (done.stderr or done.stdout).strip() or f"exit status {done.returncode}"
        [verdict] = json.loads(found.read_text())
    if verdict["state"] == "failed":
        return None, verdict["error"]
    for it in verdict["differences"]:
        change = _change(it)
        if wanted.holds(change):
            return change, None
    return None, None


def _change(it: dict[str, Any]) -> Change:
    picture = it["picture"]
    return Change(
        it["cycle"],
        it["task"],
        it["port"],
        it["field"],
        it["recorded"],
        it["now"],
        None if picture is None else (picture["topic"], picture["cycle"]),
    )


# -- git -------------------------------------------------------------------------------------------


def _git(folder: Path, *arguments: str, may_fail: bool = False) -> str:
    try:
        done = subprocess.run(  # noqa: S603
            ["git", "-c", f"core.hooksPath={os.devnull}", *arguments],  # noqa: S607  # the user's own
            cwd=folder,
            env={**_outside_hooks(), "LC_ALL": "C"},
            capture_output=True,
            text=True,
            errors="replace",  # old subjects, in other encodings
            check=False,
        )
    except OSError as error:
        raise UsageError(f"git cannot be run: {error.strerror}") from None
    if done.returncode and not may_fail:
        said = done.stderr.strip().partition("\n")[0].removeprefix("fatal: ")
        if said.startswith("not a git repository"):
            raise UsageError(
                f"{folder.absolute()} is in no git repository, whose commits could be tried; "
                "--over TASK.KEY=A,B tries values"
            )
        command = next((it for it in arguments if it.isalpha()), arguments[0])
        raise UsageError(f"git {command}: {said or f'exit status {done.returncode}'}")
    return done.stdout.strip()


def _commit(folder: Path, name: str) -> str:
    found = _git(
        folder,
        *("rev-parse", "--verify", "--quiet", "--end-of-options"),
        f"{name}^{{commit}}",
        may_fail=True,
    )
    if not found:
        is_shallow = _git(folder, "rev-parse", "--is-shallow-repository") == "true"
        more = "; it is a shallow clone: git fetch --unshallow gets them all" if is_shallow else ""
        raise UsageError(f"{name!r}: the repository has no such commit{more}")
    return found


def _check_order(folder: Path, *, good: str, bad: str, ends: dict[str, str]) -> None:
    if ends[good] == ends[bad]:
        raise UsageError(
            f"{good} and {bad} are the same commit; --good takes one before it, at which the run is as "
            "it was recorded"
        )
    if _git(folder, "merge-base", ends[good], ends[bad], may_fail=True) == ends[bad]:
        raise UsageError(f"--good {good} comes after --bad {bad}; expected it before")


@contextmanager
def _worktree(top: Path, commit: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="flowrun-bisect-") as folder:
        tree = Path(folder, "tree")
        try:
            _git(top, "worktree", "add", "--quiet", "--detach", str(tree), commit)
            yield tree
        finally:
            _git(top, "worktree", "remove", "--force", str(tree), may_fail=True)


def _modules(top: Path) -> list[str]:
    """What git has to know to take submodules from the repository itself, where they are: their remotes
    may be out of reach, and their commits there already."""
    folder = Path(_git(top, "rev-parse", "--path-format=absolute", "--git-common-dir"), "modules")
    keys = _git(
        top,
        "config",
        "--local",
        "--name-only",
        "--get-regexp",
        r"^submodule\..*\.url$",
        may_fail=True,
    )
    found = []
    for key in keys.splitlines():
        module = folder / key.removeprefix("submodule.").removesuffix(".url")
        found += ["-c", f"{key}={module}"] if module.is_dir() else []
    return found


def _settled(tree: Path, modules: Sequence[str]) -> str | None:
    """Have the worktree hold what its commit does, and nothing else: bytecode of the commit before would
    count as that of a file of the same size. Why it cannot; None if it does."""
    try:
        _git(tree, "clean", "--quiet", "-ffdx")
        if modules:
            local = ("-c", "protocol.file.allow=always", *modules)
            _git(tree, *local, "submodule", "--quiet", "update", "--init", "--recursive", "--force")
    except UsageError as error:
        return str(error)
    return None


def _environment(top: Path, tree: Path) -> dict[str, str]:
    """That of this process, in which modules of the repository come from the worktree."""
    inside = []
    for entry in filter(None, sys.path):
        path = Path(entry).resolve()
        if path.is_relative_to(top.resolve()):
            there = tree / path.relative_to(top.resolve())
            inside += [str(there)] if there.is_dir() else []
    found = _outside_hooks()
    paths = [*inside, *filter(None, [found.get("PYTHONPATH")])]
    return {**found, "PYTHONPATH": os.pathsep.join(paths)} if paths else found


def _outside_hooks() -> dict[str, str]:
    """The environment without what git tells its hooks, such as that of another repository."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}


def _ended(tree: Path) -> list[str]:
    """The commits of which one is the first bad one, once git has no other to try; until then, none.

    From the log of the search, whose lines no subject of a commit can look like.
    """
    ends = ("# first bad commit: [", "# possible first bad commit: [")
    return [
        line.partition("[")[2].partition("]")[0]
        for line in _git(tree, "bisect", "log").splitlines()
        if line.startswith(ends)
    ]


def _left(said: str) -> int | None:
    """How many commits git says that there are still, after the one that is tried now."""
    head, _, _ = said.partition(" revision")
    number = head.rpartition(" ")[2]
    return int(number) if number.isdecimal() else None
