"""Changes the code in small ways, and looks whether a test near the change notices; `make mutation`.

    PYTHONPATH=tests python -m support.mutation [AREA ...] [--sample 40] [--seed 1] [--jobs 1] [--quick]

Cosmic Ray makes the mutants: a sample of them, drawn by the seed, in a copy of the project. Each runs
against the tests of its area, those of the changed module first, in a process of its own that ends with
the first test that fails. A mutant that takes much longer than the unchanged code counts as killed. The
survivors are printed; those that `mutation_equivalents.txt` lists change nothing that anybody could see,
and do not count.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib
import multiprocessing
import os
import queue
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

from support.paths import ROOT

EQUIVALENTS = Path(__file__).with_name("mutation_equivalents.txt")
EVERYWHERE = "tests/test_determinism.py"
AREAS = {
    "engine": (
        ["runtime/engine"],
        ["tests/runtime/engine", "tests/runtime/test_testing.py", EVERYWHERE],
    ),
    "replay": (["runtime/replay"], ["tests/runtime/replay", EVERYWHERE]),
    "log": (["runtime/log"], ["tests/runtime/log"]),
    "messages": (["msgs"], ["tests/msgs"]),
    "video": (["tasks/video", "runtime/pictures"], ["tests/tasks/video", "tests/runtime/pictures"]),
}
"""Name -> the folders whose code is changed, and the tests near them."""
_IMPORTED = (
    "numpy", "msgpack", "pydantic", "structlog", "networkx", "yaml", "av", "PIL.Image", "hypothesis",
    "fastapi", "httpx", "rich.live", "zstandard",
)  # fmt: skip
"""What the tests import besides flowrun: once, before the processes that run them are forked."""
_LEFT_OUT = (
    *("VariableReplacer", "VariableInserter"),  # need names to be given
    *("_Is_Eq", "_IsNot_NotEq", "_Eq_Is", "_NotEq_IsNot"),  # the same for nearly all values
)
_LEAST_S = 60.0


@dataclass(frozen=True)
class Mutant:
    """One change. `before` and `after`: the changed lines."""

    path: str
    line: int
    operator: str
    before: str
    after: str
    code: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line} ({self.operator})\n  - {self.before}\n  + {self.after}"

    @property
    def key(self) -> tuple[str, str, str]:
        return self.path, self.before, self.after


@dataclass(frozen=True)
class Place:
    """Where a module can be changed in one of several ways of the same kind.

    number: how many such places precede it in the module.
    """

    root: Path
    path: str
    line: int
    operators: tuple[str, ...]
    number: int

    def mutant(self, rng: random.Random) -> Mutant | None:
        """One of the changes; None where Cosmic Ray makes none that compiles."""
        from cosmic_ray.mutating import mutate_code
        from cosmic_ray.plugins import get_operator

        source, name = (self.root / self.path).read_text(), rng.choice(self.operators)
        try:
            code = mutate_code(source, get_operator(name)(), self.number)
        except AttributeError:  # an exception that is not a plain name
            return None
        if code is None or not is_valid(code):
            return None
        if "BinaryOperator" in name and operators(code) == operators(source):
            return None  # the star of a list of parameters
        lines = difflib.ndiff(source.splitlines(), code.splitlines())
        changed = [(line[0], line[2:].strip()) for line in lines if line[0] in "+-"]
        before, after = (" ".join(text for sign, text in changed if sign == it) for it in "-+")
        return Mutant(self.path, self.line, name, before, after, code)


def places_in(root: Path, path: str) -> Iterator[Place]:
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    source = (root / path).read_text()
    nodes = list(ast_nodes(get_ast(source)))
    unseen = list(never_run(source))
    kinds: dict[str, list[str]] = defaultdict(list)
    for name in operator_names():
        if not name.endswith(_LEFT_OUT):
            kinds["_".join(name.split("_")[:2])].append(name)
    for names in kinds.values():
        operator, number = get_operator(names[0])(), 0
        for node in nodes:
            for start, _end in operator.mutation_positions(node):
                if not any(begin <= start < end for begin, end in unseen):
                    yield Place(root, path, start[0], tuple(names), number)
                number += 1


def never_run(source: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """From and up to which (line, column) a change means nothing: types, which nothing evaluates, and
    what dataclasses are told to forbid."""
    for node in ast.walk(ast.parse(source)):
        parts = [getattr(node, name, None) for name in ("annotation", "returns")]
        if isinstance(node, ast.ClassDef):
            parts += [it for it in node.decorator_list if "dataclass" in ast.unparse(it)]
        for part in parts:
            if isinstance(part, ast.expr):
                end = part.end_lineno or 0, part.end_col_offset or 0
                yield (part.lineno, part.col_offset), end


def operators(code: str) -> list[type]:
    nodes = ast.walk(ast.parse(code))
    return [type(node.op) for node in nodes if isinstance(node, (ast.BinOp, ast.AugAssign))]


def is_valid(code: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("error", SyntaxWarning)  # 5 is None
        try:
            compile(code, "", "exec")
        except (SyntaxError, SyntaxWarning):
            return False
    return True


def sample_of(root: Path, area: str, size: int, seed: int) -> list[Mutant]:
    """The mutants of an area to try: the same for the same code, in `root`, and seed."""
    rng = random.Random(f"{seed} {area}")
    folders, _ = AREAS[area]
    paths = [path for folder in folders for path in sorted((root / folder).rglob("*.py"))]
    places = [
        place for path in paths for place in places_in(root, path.relative_to(root).as_posix())
    ]
    mutants = (place.mutant(rng) for place in rng.sample(places, len(places)))
    return list(islice((mutant for mutant in mutants if mutant is not None), size))


def near(root: Path, path: str, area: str, *, quick: bool = False) -> list[str]:
    """The tests of the area: first those that are named like the module or its folder, then those that
    import it, then, unless `quick`, all others."""
    _, tests = AREAS[area]
    parts = Path(path).with_suffix("").parts
    names, module = {f"test_{part}.py" for part in parts}, ".".join(["flowrun", *parts])
    files = [root / place for place in tests if place.endswith(".py")]
    files += [p for place in tests for p in sorted((root / place).rglob("test_*.py"))]
    named = [p for p in files if p.name in names]
    importing = [p for p in files if f"from {module} import" in p.read_text()]
    first = [p.relative_to(root).as_posix() for p in dict.fromkeys([*named, *importing])]
    return first if quick and first else [*first, *tests]


# -- running the tests of one mutant -----------------------------------------------------------


class Copy:
    """A copy of the project in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(
            ROOT,
            folder,
            symlinks=True,
            ignore=shutil.ignore_patterns(".git", ".venv", "runs", "*cache*", "build", "dist"),
        )

    def passes(self, mutant: Mutant | None, tests: Sequence[str], timeout_s: float) -> bool | None:
        """Whether all tests pass; None if they have not ended within `timeout_s`."""
        if mutant is None:
            return self._run(tests, timeout_s)
        path = self.folder / mutant.path
        whole = path.read_text()
        path.write_text(mutant.code)
        try:
            return self._run(tests, timeout_s)
        finally:
            path.write_text(whole)

    def _run(self, tests: Sequence[str], timeout_s: float) -> bool | None:
        context = multiprocessing.get_context("fork")
        child = context.Process(target=run_tests, args=[self.folder, list(tests)])
        child.start()
        child.join(timeout_s)
        has_ended = child.exitcode is not None
        with suppress(ProcessLookupError):  # also what the tests have started
            os.killpg(child.pid or 0, signal.SIGKILL)
        child.join()
        return child.exitcode == 0 if has_ended else None


def run_tests(folder: Path, tests: list[str]) -> None:
    """The whole life of a process that runs some tests on a copy of the project."""
    os.setsid()
    os.chdir(folder)
    with (folder / "tests.out").open("w") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    source = str(folder / ".src")
    sys.path[:] = [source, *(place for place in sys.path if not place.endswith("/tests"))]
    for name in [name for name in sys.modules if name.partition(".")[0] in ("flowrun", "support")]:
        del sys.modules[name]
    os.environ |= {"PYTHONPATH": source, "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    import pytest

    words = ["-x", "-q", "-m", "not real and not long", "-p", "no:cacheprovider"]
    words += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # plugins are imported already
    os._exit(int(pytest.main([*words, *tests])))


def tried(
    mutant: Mutant, area: str, copies: Any, timeout_s: float, *, quick: bool
) -> tuple[Mutant, bool | None, float]:
    copy = copies.get()
    began = time.monotonic()
    tests = near(copy.folder, mutant.path, area, quick=quick)
    try:
        survives = copy.passes(mutant, tests, timeout_s)
    finally:
        copies.put(copy)
    return mutant, survives, time.monotonic() - began


# -- the report --------------------------------------------------------------------------------


def known_equivalents() -> set[tuple[str, str, str]]:
    """Blocks of `path: why`, `- before`, `+ after`."""
    lines = [line for line in EQUIVALENTS.read_text().splitlines() if line.strip()]
    return {
        (lines[i].partition(":")[0], lines[i + 1][2:].strip(), lines[i + 2][2:].strip())
        for i in range(0, len(lines), 3)
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "areas", nargs="*", default=list(AREAS), metavar="AREA", help=", ".join(AREAS)
    )
    parser.add_argument("--sample", type=int, default=40, metavar="N", help="mutants an area (40)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="draws the sample (1)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="how many at once (1)")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="only the tests that are named like a module or import it",
    )
    args = parser.parse_args()
    unknown = set(args.areas) - set(AREAS)
    if unknown:
        parser.error(f"no such area: {', '.join(sorted(unknown))}; areas: {', '.join(AREAS)}")
    for name in _IMPORTED:
        importlib.import_module(name)
    equivalents = known_equivalents()
    held = True
    with tempfile.TemporaryDirectory(prefix="flowrun-mutation-") as scratch:
        Path(scratch).chmod(0o755)  # some tests become another user
        copies: queue.Queue[Copy] = queue.Queue()
        for number in range(args.jobs):
            copies.put(Copy(Path(scratch) / str(number)))
        for area in args.areas:
            held = report(area, args, copies, equivalents) and held
    return 0 if held else 1


def report(area: str, args: Any, copies: Any, equivalents: set[tuple[str, str, str]]) -> bool:
    """Try the sample of an area; whether at least 95 % of what counts was killed."""
    began = time.monotonic()
    first = copies.get()
    passes = first.passes(None, AREAS[area][1], 3600)
    copies.put(first)
    if not passes:
        said = (first.folder / "tests.out").read_text()
        print(f"{area}: the tests fail without any change:\n{said}", flush=True)
        return False
    base_s = time.monotonic() - began
    timeout_s = _LEAST_S + 2 * base_s
    mutants = sample_of(first.folder, area, args.sample, args.seed)
    print(f"{area}: {len(mutants)} mutants; the tests take {base_s:.0f} s", flush=True)
    survivors, equal, late = [], 0, 0
    with ThreadPool(args.jobs) as pool:
        attempt = partial(tried, area=area, copies=copies, timeout_s=timeout_s, quick=args.quick)
        results = pool.imap_unordered(attempt, mutants)
        for number, (mutant, survives, took_s) in enumerate(results, 1):
            if mutant.key in equivalents:
                equal += 1
            elif survives:
                survivors.append(mutant)
                print(f"{number}: survived, {took_s:.0f} s: {mutant}", flush=True)
            elif survives is None:
                late += 1
                print(f"{number}: not done after {took_s:.0f} s: {mutant}", flush=True)
    counted = len(mutants) - equal
    killed = counted - len(survivors)
    print(
        f"{area}: {killed} of {counted} killed ({killed / max(1, counted):.0%}), {late} of them by "
        f"time; {len(survivors)} survived, {equal} equivalent, in {time.monotonic() - began:.0f} s",
        flush=True,
    )
    return killed >= 0.95 * counted


if __name__ == "__main__":
    sys.exit(main())
