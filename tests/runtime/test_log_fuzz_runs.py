"""Some cases of `fuzz_runs`: what no writer wrote, in the hands of the reader."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import fuzz_runs
import msgpack
import pytest


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> fuzz_runs.Fuzzer:
    return fuzz_runs.Fuzzer(tmp_path_factory.mktemp("fuzz"), seed=0)


@pytest.mark.parametrize("part", range(4))
def test_changed_runs_give_what_was_written_or_an_error(
    fuzzer: fuzz_runs.Fuzzer, part: int
) -> None:
    for number in range(10 * part, 10 * part + 10):
        try:
            fuzzer.one(number)
        except Exception as error:
            case, _ = fuzzer.case(number)
            error.add_note(f"case {number}: {case.original.name}: {case.changes}, {case.exact=}")
            raise


def test_the_laws_notice_a_message_that_was_not_written(fuzzer: fuzz_runs.Fuzzer) -> None:
    [original] = [it for it in fuzzer.originals if it.name == "small, finished"]
    [(name, data)] = original.files.items()
    changed = bytearray(data)
    at = data.index(msgpack.packb({"value": 16}))
    changed[at : at + 8] = msgpack.packb({"value": 17})
    fuzz_runs.make_right(changed)
    case = fuzz_runs.Case(original, {name: bytes(changed)}, exact=True, changes=[], donors=[])
    with pytest.raises(fuzz_runs.BrokenLawError, match="cycle 4: /n/number: not the message"):
        fuzzer.hold(case, fuzzer.case(0)[1])


def test_the_laws_notice_cycles_of_which_nobody_says_that_they_are_missing(
    fuzzer: fuzz_runs.Fuzzer,
) -> None:
    original, shorter = (
        next(it for it in fuzzer.originals if it.name == f"small, {state}")
        for state in ("finished", "unfinished")
    )
    case = fuzz_runs.Case(original, dict(shorter.files), exact=True, changes=[], donors=[])
    with pytest.raises(fuzz_runs.BrokenLawError, match="cycles are missing, unsaid"):
        fuzzer.hold(case, fuzzer.case(0)[1])


FAILS = """
import sys
from pathlib import Path

import fuzz_runs

fuzzer = fuzz_runs.Fuzzer(Path(sys.argv[1]) / "run", seed=0)
bad = fuzzer.case(1)[0].changes
hold = fuzz_runs.Fuzzer.hold

def fails(self, case, rng):
    hold(self, case, rng)
    if case.changes == bad:
        raise MemoryError

fuzz_runs.Fuzzer.hold = fails
print(*fuzz_runs.fuzz(fuzzer, cases=3, minutes=0, keep=Path(sys.argv[1])))
"""


def test_the_fuzzer_goes_on_behind_a_case_that_ends_its_process(tmp_path: Path) -> None:
    """In a process of its own: it forks, which one with the threads of other tests must not."""
    (tmp_path / "run").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", FAILS, tmp_path], capture_output=True, text=True, timeout=100,
        check=True, cwd=Path(__file__).parent,
    )  # fmt: skip
    found = done.stdout.splitlines()[-1]
    assert "case 1 (" in done.stdout
    assert "MemoryError" in done.stdout, found
    assert (tmp_path / "case-0-1" / "traceback.txt").exists()
