"""Long work on logs, watched on a terminal and interrupted from it."""

from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flowrun.runtime.cli.progress import progress
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab import writer as log_slab
from support import torture

CYCLES = 300
# A log that takes as long as one of many gigabytes.
SLOW = """
import sys, threading
from flowrun.runtime.cli import main
from flowrun.runtime.log.slab.cycles import CycleReader

records, heads, pause = CycleReader.records, CycleReader.heads, threading.Event()

def slow(walk):
    def walked(*args):
        for item in walk(*args):
            pause.wait(0.005)
            yield item
    return walked

CycleReader.records = slow(records)
if sys.argv[2] == "recover":
    CycleReader.heads = slow(heads)
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of several chunks, as a kill left it."""
    monkeypatch.setattr(log_slab, "CHUNK_SIZE", 4000)
    cycles = torture.Cycles(tmp_path / "run", largest=300)
    for _ in range(CYCLES):
        cycles.commit()
    path = tmp_path / "run" / "log_0000.mcap"
    left = path.read_bytes()
    cycles.writer.finish({"reason": "test"})
    path.write_bytes(left)
    return tmp_path / "run"


def words(verb: str, run: Path) -> list[str]:
    more = {"export": ["-o", str(run.parent / "out.jsonl")], "diff": [str(run)]}.get(verb, [])
    return ["log", verb, str(run), *more]


def on_a_terminal(
    verb: str, run: Path, *, until: bytes = b"", code: str = SLOW
) -> tuple[int, str, str]:
    """Exit status, what stderr, a terminal, showed, and the standard output.

    until: send SIGINT, as Ctrl-C does, as soon as this was shown.
    """
    parent, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words(verb, run)],
        stdout=subprocess.PIPE,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(terminal)
    shown, sent = b"", False
    while True:
        try:
            piece = os.read(parent, 4096)
        except OSError:  # nobody has the terminal any more
            break
        shown += piece
        if until and until in shown and not sent:
            process.send_signal(signal.SIGINT)
            sent = True
        if not piece:
            break
    os.close(parent)
    out, _ = process.communicate(timeout=240)
    return process.returncode, shown.decode(), out.decode()


BAR = {"check": "check", "export": "export", "diff": "compare", "recover": "recover"}
VERBS = ["check", *(pytest.param(it, marks=pytest.mark.long) for it in BAR if it != "check")]
"""One of them in `make test`: they share what shows the bar."""


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_a_bar_is_shown_where_people_watch_and_goes_when_it_is_done(run: Path, verb: str) -> None:
    status, shown, out = on_a_terminal(verb, run)
    assert status == 0, shown
    assert BAR[verb] in shown
    assert "━" in shown
    assert any(f"{percent}%" in shown for percent in range(10, 100))
    assert shown.rstrip().endswith("\x1b[2K")  # the line is wiped
    assert "━" not in out


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_ctrl_c_ends_with_one_line_and_130(run: Path, verb: str) -> None:
    before = sorted(run.parent.rglob("*"))
    status, shown, out = on_a_terminal(verb, run, until=b"%")
    assert status == 130
    assert "Traceback" not in shown
    last = shown.rstrip().splitlines()[-1]
    again = f"interrupted: {run} can be recovered again"
    assert last.endswith(again if verb == "recover" else "interrupted")
    assert out == ""
    assert sorted(run.parent.rglob("*")) == before + [run / ".lock"] * (
        verb == "recover" and (run / ".lock" not in before)
    )
    with Log(run) as log:
        assert len(list(log.cycles())) == CYCLES
        assert log.loss is None


def test_nothing_is_shown_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr(stderr, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("TERM", "xterm")
    with progress("check", 10) as show:
        assert stderr.getvalue() == ""
        assert show is not None
        show(5)
        assert "check" in stderr.getvalue()


@pytest.mark.parametrize("verb", VERBS)
def test_nothing_is_shown_where_nobody_watches(run: Path, verb: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flowrun.runtime.cli", *words(verb, run)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
