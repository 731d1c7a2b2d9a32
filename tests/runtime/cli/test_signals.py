"""What signals do to the command: whom it waits for, and how it ends now."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flowrun.runtime.cli.signals import Ended, exit_status, listening
from flowrun.runtime.log.reader import Log


class Listener:
    """Notes what it hears; raises if it is asked to."""

    def __init__(self, *, raises=False):
        self.said = []
        self.heard = threading.Semaphore(0)
        self._raises = raises

    def interrupt(self, number):
        self.said.append(("interrupt", number))
        if self._raises:
            raise Ended(number)

    def first(self, number):
        self.said.append(("first", number))
        self.heard.release()

    def waiting(self, number, seconds): ...

    def again(self, number, *, is_stuck):
        self.said.append(("again", number, is_stuck))
        self.heard.release()


@pytest.fixture(autouse=True)
def _as_from_a_terminal():
    """No signal has a handler, as in a process that a terminal started."""
    before = {
        number: signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_and_the_second_signal_are_heard_on_a_thread(number):
    listener = Listener()
    with listening(listener):
        for _ in range(2):
            os.kill(os.getpid(), number)
            assert listener.heard.acquire(timeout=240)
    assert sorted(listener.said, key=str) == sorted(
        [
            ("interrupt", number),
            ("interrupt", number),
            ("first", number),
            ("again", number, False),
        ],
        key=str,
    )
    assert signal.getsignal(number) is signal.SIG_DFL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_was_ignored_stays_ignored(number):
    signal.signal(number, signal.SIG_IGN)
    listener = Listener()
    with listening(listener):
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert listener.heard.acquire(timeout=240)
    assert ("first", signal.SIGTERM) in listener.said
    assert all(number not in words for words in listener.said)


def kill_itself(number):
    with listening():
        os.kill(os.getpid(), number)
        threading.Event().wait(60)


def test_a_signal_raises_where_the_main_thread_is():
    with pytest.raises(Ended) as caught:
        kill_itself(signal.SIGTERM)
    assert exit_status(caught.value) == 143
    assert exit_status(KeyboardInterrupt()) == 130


def test_other_threads_listen_to_nothing():
    def work():
        with listening(Listener()):
            done.append(signal.getsignal(signal.SIGTERM))

    done = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [signal.SIG_DFL]


def test_signals_of_a_forked_child_are_not_heard():
    listener = Listener()
    with listening(listener):
        child = os.fork()
        if child == 0:
            threading.Event().wait(60)
            os._exit(0)
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
        os.kill(os.getpid(), signal.SIGHUP)
        assert listener.heard.acquire(timeout=240)
    assert ("first", signal.SIGHUP) in listener.said


def test_signals_are_heard_though_a_task_closed_all_descriptors(tmp_path):
    """Whose numbers other files have got, which may hold the numbers of signals."""
    listener = Listener()
    (tmp_path / "other").write_bytes(bytes([signal.SIGINT] * 9))
    before = _pipes()
    with listening(listener):
        ours = _pipes() - before
        assert len(ours) == 2
        with (tmp_path / "other").open("r+b") as other:
            for number in ours:
                os.dup2(other.fileno(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert listener.heard.acquire(timeout=240)
    assert {("interrupt", signal.SIGTERM), ("first", signal.SIGTERM)} == set(listener.said)
    for number in ours:
        os.close(number)


def _pipes():
    links = Path("/proc/self/fd").iterdir()
    return {int(it.name) for it in links if it.is_symlink() and "pipe:" in str(it.readlink())}


def test_a_forked_child_that_comes_out_of_the_command_ends_as_it_would():
    """As where a task calls `sys.exit` in the child."""
    try:
        with listening(Listener()):
            child = os.fork()
            if child == 0:
                sys.exit(3)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    except BaseException as error:
        if child == 0:
            os._exit(error.code if isinstance(error, SystemExit) else 99)
        raise


STUCK = """
import threading
from flowrun.msgs import IntMsg
from flowrun.runtime.task import Context, Input, Output, Task

class Stuck(Task):
    def process(self, ctx: Context, n: Input[IntMsg], out: Output[IntMsg]) -> None:
        if n.value == 3:
            print("stuck", flush=True)
            threading.Event().wait()
        out.publish()
"""
GRAPH = """
tasks:
  - {id: n, type: Counter}
  - {id: s, type: stuck.Stuck}
cnx: [{src: n, dst: s, msg: IntMsg}]
logging: {slab_size_mib: 1, section_size_mib: 1}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.long),
    ],
)
def test_a_run_that_is_stuck_says_in_what_and_ends_at_the_second_signal(tmp_path, number):
    (tmp_path / "stuck.py").write_text(STUCK)
    (tmp_path / "g.yaml").write_text(GRAPH)
    command = [sys.executable, "-m", "flowrun.runtime.cli", "g.yaml", "--log-dir", "runs"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            for expected in ("stuck\n", f"{number.name}: waiting for task s ("):
                for line in process.stdout:
                    if line.startswith(expected):
                        break
                process.send_signal(number)
            output = process.stdout.read()
            assert process.wait(timeout=240) == 128 + number
        finally:
            process.kill()
    assert "g: 3 cycles in" in output
    assert f"ended by {number.name}, without waiting for task 's'" in output
    [run] = (tmp_path / "runs").glob("g-*")
    with Log(run) as log:
        assert log.finished
        assert log.end["reason"] == f"{number.name}, without waiting for task 's'"
        assert log.end["cycles"] == "3"
        assert len(log) == 3


@pytest.mark.long
def test_a_limited_run_that_is_stuck_ends_all_the_same(tmp_path):
    (tmp_path / "stuck.py").write_text(STUCK)
    (tmp_path / "g.yaml").write_text(GRAPH)
    command = [sys.executable, "-m", "flowrun.runtime.cli", "g.yaml", "--for", "1s"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 1
    assert "ended by the limit of 1s, without waiting for task 's'" in done.stdout
    [run] = (tmp_path / "runs").glob("g-*")
    with Log(run) as log:
        assert log.finished
        assert log.end["reason"] == "the limit of 1s, without waiting for task 's'"


@pytest.mark.long
def test_sigterm_alone_ends_a_run_that_is_stuck(tmp_path):
    (tmp_path / "stuck.py").write_text(STUCK)
    (tmp_path / "g.yaml").write_text(GRAPH)
    command = [sys.executable, "-m", "flowrun.runtime.cli", "g.yaml"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert "stuck\n" in iter(process.stdout.readline, "")
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=240) == 143
        finally:
            process.kill()
    [run] = (tmp_path / "runs").glob("g-*")
    with Log(run) as log:
        assert log.finished


SLOW_TO_END = """
import atexit, threading
from flowrun.msgs import IntMsg
from flowrun.runtime.task import task

@atexit.register
def end():
    print("ending", flush=True)
    threading.Event().wait(240)

@task
def seen(n: IntMsg) -> IntMsg:
    return IntMsg(value=n.value)
"""


@pytest.mark.slow
def test_ctrl_c_while_python_ends_shows_no_traceback(tmp_path):
    """As where a library, such as torch, has something to do at the end of Python."""
    (tmp_path / "slow.py").write_text(SLOW_TO_END)
    (tmp_path / "g.yaml").write_text(GRAPH.replace("stuck.Stuck", "slow.seen"))
    command = [sys.executable, "-m", "flowrun.runtime.cli", "g.yaml", "--cycles", "3"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert "ending\n" in iter(process.stdout.readline, "")
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=240)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGINT  # which a shell calls 130
    assert "Traceback" not in said
    [run] = (tmp_path / "runs").glob("g-*")
    with Log(run) as log:
        assert log.finished
