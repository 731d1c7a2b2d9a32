"""A command as a child process: restarted with pauses, and ended with all that it has started."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowrun.runtime.children.process import ChildProcess, find_program, why_unusable


def wait_for(condition: Callable[[], bool], timeout_s: float = 240.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def pids(tmp_path: Path) -> list[int]:
    file = tmp_path / "pids"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., ChildProcess]]:
    made: list[ChildProcess] = []

    def make(script: str, **options: Any) -> ChildProcess:
        command = ["sh", "-c", script]
        made.append(
            ChildProcess(command, folder=tmp_path, name="test", first_pause_s=0.05, **options)
        )
        return made[-1]

    yield make
    for child in made:
        child.stop()


def test_a_child_runs_in_its_folder_until_it_is_stopped(tmp_path, make):
    child = make("echo $$ > pids; pwd; echo; exec sleep 1000")
    child.start()
    wait_for(lambda: bool(child.last_lines))
    assert child.last_lines == [str(tmp_path)]
    assert child.status is None
    [pid] = pids(tmp_path)
    child.stop()
    assert not is_alive(pid)
    assert child.status == 128 + signal.SIGTERM


def test_what_a_child_has_started_ends_with_it(tmp_path, make):
    # One in the child's own process group, one that has left it.
    child = make(
        "sleep 1000 &\necho $! >> pids\nsetsid sleep 1000 &\necho $! >> pids\necho started\nwait"
    )
    child.start()
    wait_for(lambda: child.last_lines == ["started"])
    assert [is_alive(pid) for pid in pids(tmp_path)] == [True] * 2
    child.stop()
    assert [is_alive(pid) for pid in pids(tmp_path)] == [False] * 2


def test_a_child_that_ignores_sigterm_is_killed(tmp_path, make):
    child = make(
        "trap '' TERM; echo $$ > pids; echo started; sleep 1000; sleep 1000", patience_s=0.1
    )
    child.start()
    wait_for(lambda: child.last_lines == ["started"])
    child.stop()
    assert not is_alive(*pids(tmp_path))
    assert child.status == 128 + signal.SIGKILL


@pytest.mark.long
def test_a_child_that_does_not_end_is_asked_again(tmp_path, make):
    script = """\
asked() { trap 'echo again > again; exit 7' TERM; }
trap asked TERM
echo started
while true; do sleep 0.05; done
"""
    child = make(script, patience_s=8.0)
    child.start()
    wait_for(lambda: child.last_lines == ["started"])
    child.stop()
    assert child.status == 7


def test_a_child_that_ends_is_started_again_after_pauses_that_grow(tmp_path, make):
    ends: list[tuple[int, float]] = []
    child = make("echo run >> runs; exit 3")
    child.start()

    def on_end(status: int, pause_s: float) -> bool:
        ends.append((status, pause_s))
        return True

    child.keep_running(on_end=on_end, on_failure=pytest.fail)
    wait_for(lambda: len(ends) >= 4)
    child.stop()
    assert ends[:4] == [(3, 0.05), (3, 0.1), (3, 0.2), (3, 0.4)]
    assert (tmp_path / "runs").read_text().count("run") in (4, 5)


def test_a_child_that_is_not_to_be_started_again_is_not(tmp_path, make):
    ended = threading.Event()
    read: list[list[str]] = []
    child = make("echo run >> runs; echo here; echo there >&2; exit 3", drop_stdout=True)

    def on_end(status: int, pause_s: float) -> bool:
        read.append(child.last_lines)
        ended.set()
        return False

    child.start()
    child.keep_running(on_end=on_end, on_failure=pytest.fail)
    assert ended.wait(30)
    child.stop()
    assert read == [["there"]]
    assert (tmp_path / "runs").read_text() == "run\n"


def test_the_command_itself_has_a_pid(tmp_path, make):
    child = make("echo $$ > pids; sleep 1000 & echo started; wait")
    assert child.command_pid is None
    child.start()
    wait_for(lambda: child.last_lines == ["started"])
    assert child.command_pid == pids(tmp_path)[0]
    child.stop()
    assert child.command_pid is None


def test_what_is_told_reaches_the_command_and_those_started_after_it(tmp_path, make):
    heard = []
    child = make(
        "while read line; do echo $line; test $line = go && exit 1; done",
        hears=True,
        on_line=heard.append,
    )
    child.tell("one")
    child.start()
    child.keep_running(on_end=lambda _status, _pause_s: True, on_failure=lambda _: None)
    wait_for(lambda: heard == ["one"])
    child.tell("go")
    wait_for(lambda: heard.count("go") > 1)
    assert heard[:4] == ["one", "go", "one", "go"]
    child.stop()
    child.tell("nobody hears it")


def test_a_child_that_is_cancelled_is_not_started(tmp_path, make):
    child = make("touch started")
    child.cancel()
    child.start()
    assert child.cancelled
    assert child.pid is None
    assert child.pause(1000.0)


@pytest.mark.slow
def test_a_child_does_not_outlive_its_warden(tmp_path, make):
    child = make("echo $$ > pids; echo started; exec sleep 1000")
    child.start()
    wait_for(lambda: child.last_lines == ["started"])
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(*pids(tmp_path)))


@pytest.mark.parametrize("is_watched", [True, False], ids=["watched", "stopped later"])
def test_what_a_child_has_started_does_not_outlive_the_warden(tmp_path, make, is_watched):
    # One in the child's own process group, one in a group of its own.
    child = make(
        "sleep 1000 & echo $! >> pids; timeout 1000 sleep 1000 & echo $! >> pids; echo started; wait"
    )
    child.start()
    if is_watched:
        child.keep_running(on_end=lambda *_: False, on_failure=pytest.fail)
    wait_for(lambda: child.last_lines == ["started"])
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    if not is_watched:
        child.stop()
    wait_for(lambda: not any(map(is_alive, pids(tmp_path))))


def test_a_program_is_found_from_the_folder_or_on_the_path(tmp_path):
    (tmp_path / "run").touch(mode=0o755)
    assert find_program("./run", tmp_path) == str(tmp_path / "run")
    assert find_program("run", tmp_path) is None
    assert find_program("sh", tmp_path) is not None
    assert why_unusable("./run", tmp_path) is None
    assert why_unusable("./none", tmp_path) is None


def test_a_program_that_cannot_be_run_is_explained(tmp_path):
    (tmp_path / "text").touch()
    assert why_unusable("./text", tmp_path) == (
        f"{tmp_path}/text is not executable; chmod +x makes it so"
    )
    assert why_unusable(f"{tmp_path}/", tmp_path) == f"{tmp_path} is a folder"


def test_a_program_beside_a_graph_in_this_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "serve.sh"
    program.write_text("#!/bin/sh\n")
    assert find_program("./serve.sh", Path()) is None
    assert (
        why_unusable("./serve.sh", Path()) == f"{program} is not executable; chmod +x makes it so"
    )
    program.chmod(0o755)
    assert find_program("./serve.sh", Path()) == str(program)
    assert why_unusable("./serve.sh", Path()) is None
