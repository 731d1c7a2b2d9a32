"""Work on several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowrun.runtime.errors import UsageError
from flowrun.runtime.testbench.spread import Broken, Done, Part, spread

_ENDLESS = """
import os, sys, time
from flowrun.runtime.testbench.spread import spread

def make():
    def work(piece, send):
        send(os.getpid())
        while True:
            time.sleep(0.01)
    return work

if __name__ == "__main__":
    for event in spread([1, 2], make, processes=2):
        print(event.value, flush=True)
"""


def _make() -> Callable[[str, Callable[[Any], None]], Any]:
    def work(piece: str, send: Callable[[Any], None]) -> Any:
        if piece == "wrong":
            raise UsageError("not that")
        if piece == "bug":
            raise ZeroDivisionError
        if piece == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        send(f"half of {piece}")
        return f"{piece} done"

    return work


@pytest.mark.slow
def test_each_piece_is_done_or_says_why_not():
    pieces = ["a", "wrong", "dies", "bug", "b"]
    events = list(spread(pieces, _make, processes=1))
    assert events == [
        Part(0, "half of a"),
        Done(0, "a done"),
        Broken(1, "not that", is_expected=True),
        Broken(2, "its process was ended by SIGKILL"),
        Broken(3, "ZeroDivisionError: "),
        Part(4, "half of b"),
        Done(4, "b done"),
    ]


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_the_one_that_started_it(tmp_path: Path, number: signal.Signals):
    (tmp_path / "endless.py").write_text(_ENDLESS)
    command = [sys.executable, str(tmp_path / "endless.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        workers = [int(process.stdout.readline()) for _ in range(2)]
        process.send_signal(number)
        process.wait(60)
    deadline = time.monotonic() + 60
    while any(map(_lives, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _lives(pid: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
