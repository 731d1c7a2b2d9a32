"""`flowrun replay RUN --loop`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flowrun.runtime.cli import main, replay_loop

DOUBLE = """\
from flowrun.msgs import IntMsg
from flowrun.runtime.task import Context, Input, Output, Task


class Double(Task):
    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        out.value = number.value * 2
        out.publish()
"""
GRAPH = """\
tasks: [{id: c, type: Counter, config: {limit: 5}}, {id: d, type: loop_double.Double}]
cnx: [{src: c, dst: d, msg: IntMsg}]
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(replay_loop, "_PAUSE_S", 0.0)
    Path("loop_double.py").write_text(DOUBLE)
    Path("g.yaml").write_text(GRAPH)
    assert main(["g.yaml"]) == 0
    [found] = Path("runs").glob("g-*")
    return found


def turns(monkeypatch: pytest.MonkeyPatch, *edits: str) -> None:
    """Before each turn but the first, give the task other code; interrupt after the last."""
    rest = iter(edits)
    note, fail = replay_loop._Seen.note, replay_loop._Seen.fail

    def edit() -> None:
        code = next(rest, None)
        if code is None:
            raise KeyboardInterrupt
        Path("loop_double.py").write_text(code)
        os.utime("loop_double.py", ns=(0, hash(code) % 10**15))

    def noted(*args: object) -> None:
        note(*args)  # type: ignore[arg-type]
        edit()

    def failed(*args: object) -> None:
        fail(*args)  # type: ignore[arg-type]
        edit()

    monkeypatch.setattr(replay_loop._Seen, "note", noted)
    monkeypatch.setattr(replay_loop._Seen, "fail", failed)


def test_each_turn_is_compared_with_the_code_as_it_is_then(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = DOUBLE.replace("* 2", "* 2 + (number.value > 3)")
    turns(monkeypatch, DOUBLE, wrong, wrong, DOUBLE + "bad(\n", DOUBLE)
    capsys.readouterr()
    assert main(["replay", str(run), "--loop"]) == 1
    shown = capsys.readouterr()
    lines = [line.partition(" s, ")[2] for line in shown.out.splitlines() if "turn " in line]
    assert lines[:4] == [
        "5 messages identical",
        "5 messages identical",
        "1 of 5 messages differ; the first:",
        "1 of 5 messages differ, as before",
    ]
    assert "6 turns: 3 identical, 2 different, 1 failed\n" in shown.out
    assert shown.out.endswith(
        "the first difference, in turn 3: cycle 4, task 'd', port 'out', field 'value':\n"
        "  recorded: 8\n  replayed: 9\n"
    )
    assert "module 'loop_double' cannot be imported" in shown.err


def test_turns_that_are_identical_end_well(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    turns(monkeypatch, DOUBLE)
    assert main(["replay", str(run), "--loop"]) == 0
    assert capsys.readouterr().out.endswith("2 turns: 2 identical, 0 different, 0 failed\n")


def test_what_is_wrong_at_first_ends_the_loop(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(run), "--loop", "--task", "nobody"]) == 2
    assert main(["replay", str(run), "--loop", "--log-dir", "other"]) == 2
    assert "--loop cannot be combined with --log-dir\n" in capsys.readouterr().err


@pytest.mark.long
def test_ctrl_c_ends_it(run: Path) -> None:
    command = [sys.executable, "-u", "-m", "flowrun.runtime.cli", "replay", str(run), "--loop"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "turn 1: " in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert " identical, 0 different, 0 failed\n" in process.stdout.read()
        assert process.wait(timeout=240) == 0
