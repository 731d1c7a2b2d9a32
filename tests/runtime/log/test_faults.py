"""What becomes of a run, and of what it has logged, when the log cannot be written any more."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flowrun.runtime.cli.run import _print_summary
from flowrun.runtime.clock import ManualClock
from flowrun.runtime.errors import LogError
from flowrun.runtime.log import writer as log_writer
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.recover import recover
from flowrun.runtime.run.live import Run
from support import torture
from support.helpers import START_NS, Hooked, plan_of, record
from support.paths import TESTS

COUNT = 20_000
"""Cycles of a run that fills several slabs of 1 MiB."""


class Lines:
    """The console."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return False


def plan(tmp_path, on_error):
    logging = f"logging: {{slab_size_mib: 1, section_size_mib: 1, on_error: {on_error}}}"
    return plan_of(tmp_path, f"n=Hooked(limit: {COUNT}); x=Scale", "n > x", logging)


def run_with(tmp_path, on_error, *, at=None, fault=None):
    """A run whose `fault` strikes before number `at`; its result and its console."""

    def strike(number):
        if number == at:
            fault()

    Hooked.hook = staticmethod(strike)
    lines = Lines()
    run = Run(
        plan(tmp_path, on_error),
        clock=ManualClock(START_NS, step_ns=1000),
        directory=tmp_path / "runs" / "run",
        console=lines,
    )
    result = run.run()
    _print_summary(run, result)
    return result, lines.text


def values(path):
    """What is in the log of the run's second task, in order, its losses none."""
    with Log(path) as log:
        found = [m.fields["value"] for m in log.messages("/x/scaled")]
        assert log.loss is None
        return found, log.end


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond `size`: a new slab cannot be made then. It needs no privilege."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def limits():
    """Sets a limit of the process's; all are as before afterwards."""
    kinds = (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)
    before = {kind: resource.getrlimit(kind) for kind in kinds}
    yield lambda kind, value: resource.setrlimit(kind, (value, before[kind][1]))
    for kind, values in before.items():
        resource.setrlimit(kind, values)


def no_more_files(limits):
    """No file can be opened any more."""
    free = os.dup(0)
    os.close(free)
    limits(resource.RLIMIT_NOFILE, free)


def taken_over(tmp_path, name):
    """Closes the descriptors of the file `name` of the run, and gives their numbers to files of others;
    those files."""
    path = str(tmp_path / "runs" / "run" / name)
    numbers = []
    for number in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError):
            if str(number.readlink()) == path.rstrip("/"):
                numbers.append(int(number.name))
    assert numbers
    others = []
    for number in numbers:
        other = tmp_path / f"other-{number}"
        other.write_text("of others")
        with other.open("r+b", buffering=0) as file:
            os.dup2(file.fileno(), number)
        others.append((number, other))
    return others


@pytest.mark.parametrize("name", ["log_0000.mcap", ".lock", ""])
def test_closed_descriptors_cost_a_run_nothing_and_others_neither(tmp_path, name):
    others = []
    result, _ = run_with(
        tmp_path, "stop", at=100, fault=lambda: others.extend(taken_over(tmp_path, name))
    )
    assert (result.error, result.log_error) == (None, None)
    for number, other in others:
        os.close(number)  # it is still open: nobody else closed it
        assert other.read_text() == "of others"
    found, _ = values(tmp_path / "runs" / "run")
    assert found == [10 * i for i in range(COUNT)]


def test_no_next_slab_stops_the_run_and_keeps_the_log(tmp_path, capsys):
    run = tmp_path / "runs" / "run"
    result, console = run_with(tmp_path, "stop", at=100, fault=(run / "log_0001.next").mkdir)
    expected = f"{run}/log_0001.mcap: cannot create the log: File exists"
    assert (str(result.error), result.log_error, console) == (expected, None, "")
    found, end = values(run)
    assert 1000 < len(found) < COUNT
    assert found == [10 * i for i in range(len(found))]
    assert (end["reason"], end["error"], end["cycles"]) == ("error", expected, str(len(found)))
    printed = capsys.readouterr()
    assert printed.err == f"error: {expected}\n"
    assert "ended by an error" in printed.out


def test_no_next_slab_lets_the_run_go_on_if_it_shall(tmp_path, capsys):
    run = tmp_path / "runs" / "run"
    result, console = run_with(tmp_path, "continue", at=100, fault=(run / "log_0001.next").mkdir)
    expected = f"{run}/log_0001.mcap: cannot create the log: File exists"
    assert (result.error, str(result.log_error)) == (None, expected)
    assert (result.reason, result.cycles) == ("end of sources", COUNT + 1)
    assert console.count("the log ends here; the run goes on") == 1
    assert console.count(expected) == 1
    found, end = values(run)
    assert 1000 < len(found) < COUNT
    assert found == [10 * i for i in range(len(found))]
    assert (end["reason"], end["error"], end["cycles"]) == ("log error", expected, str(len(found)))
    printed = capsys.readouterr()
    assert printed.err == f"  log ended before the run did: {expected}\n"
    assert "ended by end of sources" in printed.out


def test_a_log_has_descriptors_of_its_own_where_the_process_has_no_more(tmp_path, limits):
    result, _ = run_with(tmp_path, "stop", at=100, fault=lambda: no_more_files(limits))
    limits(resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    assert (result.error, result.cycles) == (None, COUNT + 1)
    assert len(list((tmp_path / "runs" / "run").glob("*.mcap"))) >= 4
    found, _ = values(tmp_path / "runs" / "run")
    assert found == [10 * i for i in range(COUNT)]


def test_a_log_that_cannot_be_finished_is_whole_and_says_so(tmp_path, limits):
    cycles = torture.Cycles(tmp_path / "run", largest=40)
    while cycles.writer.size < 1_000_000:
        cycles.commit()
    limits(resource.RLIMIT_FSIZE, 1 << 20)
    with pytest.raises(LogError) as caught:
        cycles.writer.finish({"reason": "test"})
    assert str(caught.value) == (
        f"{tmp_path}/run/log_0000.mcap: cannot finish the log: File too large"
    )
    limits(resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
    assert torture.read(tmp_path / "run", 40) == (list(range(cycles.next)), None)
    assert recover(tmp_path / "run").lost is None
    assert torture.read(tmp_path / "run", 40) == (list(range(cycles.next)), None)


@pytest.mark.parametrize("on_error", ["stop", "continue"])
def test_a_slab_that_another_program_empties_ends_the_log(tmp_path, on_error, capsys):
    slab = tmp_path / "runs" / "run" / "log_0000.mcap"
    result, console = run_with(tmp_path, on_error, at=100, fault=lambda: os.truncate(slab, 0))
    expected = (
        f"{slab}: another program cut it to 0 bytes while it was written: what came after is lost"
    )
    error = result.error if on_error == "stop" else result.log_error
    assert str(error) == expected
    assert console.count(expected) == (on_error == "continue")
    assert result.cycles == (100 if on_error == "stop" else COUNT + 1)
    assert slab.stat().st_size == 0


@pytest.mark.parametrize("on_error", ["stop", "continue"])
def test_a_removed_directory_is_reported_when_the_next_slab_begins(tmp_path, on_error, monkeypatch):
    monkeypatch.setattr(log_writer, "_LOOK_S", 600.0)  # a look may come first
    run = tmp_path / "runs" / "run"
    result, console = run_with(
        tmp_path, on_error, at=100, fault=lambda: shutil.rmtree(tmp_path / "runs")
    )
    expected = f"{run}/log_0001.mcap: cannot create the log: No such file or directory"
    error = result.error if on_error == "stop" else result.log_error
    assert str(error) == expected
    assert console.count(expected) == (on_error == "continue")
    assert not (tmp_path / "runs").exists()


def test_a_removed_directory_is_reported_at_the_end_of_a_short_run(tmp_path):
    runs = tmp_path / "runs"
    Hooked.hook = staticmethod(lambda number: shutil.rmtree(runs) if number == 9 else None)
    _, result = record(plan_of(tmp_path, "n=Hooked(limit: 50)"), runs / "run")
    expected = f"{runs}/run/log_0000.mcap: the log was removed while it was written"
    assert str(result.error) == expected


@contextmanager
def may_not_write(directory: Path) -> Iterator[None]:
    """For this process, root or not, `directory` is not to be written."""
    directory.mkdir()
    directory.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        directory.chmod(0o755)


def test_a_read_only_directory_stops_the_run_before_it_begins(tmp_path):
    runs = tmp_path / "runs"
    made = plan(tmp_path, "stop")
    with may_not_write(runs), pytest.raises(LogError) as caught:
        Run(made, clock=ManualClock(START_NS), directory=runs / "run")
    assert str(caught.value) == (
        f"{runs / 'run'}: cannot create the run's directory: Permission denied"
    )


def test_a_read_only_directory_lets_the_run_go_on_if_it_shall(tmp_path, capsys):
    Hooked.hook = staticmethod(lambda _number: None)
    runs, lines = tmp_path / "runs", Lines()
    made = plan(tmp_path, "continue")
    with may_not_write(runs):
        run = Run(
            made, clock=ManualClock(START_NS, step_ns=1), directory=runs / "run", console=lines
        )
    result = run.run(cycles=10)
    expected = f"{runs / 'run'}: cannot create the run's directory: Permission denied"
    assert (result.error, str(result.log_error)) == (None, expected)
    assert (result.cycles, result.messages) == (10, 0)
    assert "the run is not logged" in lines.text
    assert list(runs.iterdir()) == []
    _print_summary(run, result)
    printed = capsys.readouterr()
    assert printed.err == f"  log ended before the run did: {expected}\n"
    assert "replay" not in printed.out


def test_a_first_slab_that_cannot_be_preallocated_stops_the_run(tmp_path):
    made = plan(tmp_path, "stop")
    with largest_file(64 << 10), pytest.raises(LogError) as caught:
        Run(made, clock=ManualClock(START_NS), directory=tmp_path / "run")
    assert str(caught.value) == (
        f"{tmp_path}/run/log_0000.mcap: cannot create the log: File too large"
    )
    assert list((tmp_path / "run").glob("*.mcap")) == []


def test_a_slab_that_cannot_grow_stops_the_writer_between_two_cycles(tmp_path):
    cycles = torture.Cycles(tmp_path / "run", largest=90_000, slab_size_mib=64)

    def commit_for_ever():
        while True:
            cycles.commit()

    with largest_file(34 << 20), pytest.raises(LogError) as caught:
        commit_for_ever()
    expected = f"{tmp_path}/run/log_0000.mcap: the log cannot grow: File too large"
    assert str(caught.value) == expected
    cycles.writer.finish({"reason": "test"})
    assert torture.read(tmp_path / "run", 90_000) == (list(range(cycles.next)), None)
    with Log(tmp_path / "run") as log:
        assert log.finished


FULL_DISK = """
    import sys
    sys.path.insert(0, "{tests}")
    from pathlib import Path
    from support import torture
    from flowrun.runtime.errors import LogFull

    run = Path("disk/run")
    cycles = torture.Cycles(run, largest=3000)
    try:
        while True:
            cycles.commit()
    except LogFull as error:
        print(error, error.errno)
    cycles.writer.finish({{"reason": "full"}})
    found, loss = torture.read(run, 3000)
    print(found == list(range(cycles.next)), loss, len(found) > 2000)
    with torture.Log(run) as log:
        print(log.finished, log.end["reason"], torture.check_log(log)[2])
"""


def test_a_full_disk_ends_the_log_after_the_last_cycle_that_fits(tmp_path):
    """A disk of 8 MiB of the test's own, in a user namespace: no privilege is needed."""
    own = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    (tmp_path / "disk").mkdir()
    mount = "mount -t tmpfs -o size=8m none disk"
    tried = subprocess.run([*own, mount], cwd=tmp_path, capture_output=True, check=False)
    if tried.returncode != 0:
        pytest.skip("this system lets nobody mount a tmpfs in a user namespace")
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(FULL_DISK).format(tests=TESTS))
    done = subprocess.run(
        [*own, f'{mount} && exec "$0" "$1"', sys.executable, script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.stderr == ""
    error, content, end = done.stdout.splitlines()
    assert re.fullmatch(
        r"disk/run/log_0007\.mcap: cannot preallocate 1 MiB: the disk is full; free some space, "
        r"or set a smaller logging: \{slab_size_mib\} 28",
        error,
    )
    assert content == "True None True"
    assert end == "True full []"


# -- crashes -------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.slow
def test_a_few_rounds_of_the_torture_programme():
    """A process of its own: it forks, which a process with threads must not."""
    options = "--kills 6 --commands 1 --losses 40 --stride 7 --truncations 20"
    done = subprocess.run(
        [sys.executable, "-m", "support.torture", *options.split()],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
        env=os.environ | {"PYTHONPATH": str(TESTS)},
    )
    assert (done.stderr, done.returncode) == ("", 0)
    said = [re.sub(r"\d+", "N", line) for line in done.stdout.splitlines()]
    assert said == [
        "N writers killed: N committed cycles, none lost, none wrong",
        "N commands killed: N committed cycles, none lost, none wrong",
        "N slabs cut by others: N committed cycles, each cut noticed by writer and readers, none wrong",
        "N cuts of a log (finished): each gave a prefix",
        "N cuts of a log (unfinished): each gave a prefix",
        "N logs with lost pages: N cycles read, none wrong, each loss stated",
    ]


@pytest.mark.long
@pytest.mark.slow
def test_a_few_power_cuts_and_full_disks():
    """Real ones, where root may mount; `make torture-disk` has more."""
    done = subprocess.run(
        [sys.executable, "-m", "support.torture_disk", "--cuts", "4"],
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
        env=os.environ | {"PYTHONPATH": str(TESTS)},
    )
    if done.stdout.startswith("skipped: "):
        pytest.skip(done.stdout.strip())
    assert (done.stderr, done.returncode) == ("", 0), done.stdout
    assert "WRONG" not in done.stdout
    assert done.stdout.count("\n") == 13
