"""What a reader, a recovery and a retention make of the files of a run: many, strange, changing ones."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import textwrap
import threading
from contextlib import contextmanager

import pytest

from flowrun.runtime.errors import LogError
from flowrun.runtime.log.check import check_log
from flowrun.runtime.log.directory import new_run_directory
from flowrun.runtime.log.lock import is_locked, locked
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.recover import recover
from flowrun.runtime.log.slab import opening
from support import torture
from support.log_bytes import small
from support.paths import TESTS

END = {"reason": "test"}


def slabs(directory, count):
    """A run of `count` small slabs, made byte by byte; how many cycles are in it."""
    directory.mkdir(exist_ok=True)
    for number in range(count):
        builder = small(cycles=2, first=2 * number, slab=number)
        (directory / f"log_{number:04}.mcap").write_bytes(
            builder.finish(END if number == count - 1 else None).data
        )
    return 2 * count


@contextmanager
def descriptors(count):
    """The process may open `count` more files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.dup(0) for _ in range(count + 1)]
    for fd in free:
        os.close(fd)
    try:
        yield resource.setrlimit(resource.RLIMIT_NOFILE, (max(free), before[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# -- many ----------------------------------------------------------------------------------------


def test_a_run_of_many_slabs_is_read_with_few_descriptors(tmp_path):
    cycles = slabs(tmp_path / "run", 60)
    with descriptors(4), Log(tmp_path / "run") as log:
        payloads = [m.payload for m in log.messages()]
        assert [cycle.cycle for cycle in log.cycles()] == list(range(cycles))
        assert (log.loss, len(log.slabs)) == (None, 60)
        assert log[cycles - 1].cycle == cycles - 1
    assert sum(map(len, payloads)) > 0  # they stay readable


def test_no_descriptor_left_is_an_error_not_a_loss(tmp_path):
    slabs(tmp_path / "run", 3)
    with descriptors(0), pytest.raises(LogError) as caught:
        Log(tmp_path / "run")
    assert "Too many open files" in str(caught.value)
    assert "damage" not in str(caught.value)


def test_a_follower_without_descriptors_ends_with_an_error(tmp_path):
    cycles = torture.Cycles(tmp_path / "run", largest=40)
    cycles.commit()
    with Log(tmp_path / "run", follow=True) as log:
        found = log.cycles()
        assert next(found).cycle == 0
        with descriptors(0), pytest.raises(LogError, match="Too many open files"):
            next(found)
    cycles.writer.finish({"reason": "test"})


def test_a_follower_of_a_removed_run_ends_with_an_error(tmp_path):
    cycles = torture.Cycles(tmp_path / "run", largest=40)
    cycles.commit()
    with Log(tmp_path / "run", follow=True) as log:
        found = log.cycles()
        next(found)
        (tmp_path / "run").rename(tmp_path / "moved")
        with pytest.raises(LogError) as caught:
            next(found)
    assert str(caught.value) == f"{tmp_path}/run: cannot be read: No such file or directory"


def test_asking_whether_a_run_is_written_keeps_nobody_from_writing_it(tmp_path):
    with locked(tmp_path) as is_ours:
        assert is_ours
        assert is_locked(tmp_path)
    asked = threading.Event()
    stop = threading.Event()

    def ask():
        while not stop.is_set():
            assert not is_locked(tmp_path) or stop.is_set()
            asked.set()

    thread = threading.Thread(target=ask)
    # Not while we hold it: then the answer is yes.
    with open(tmp_path / ".lock", "rb"):  # noqa: PTH123 - another description of the same file
        assert not is_locked(tmp_path)
    thread.start()
    asked.wait(30)
    stop.set()
    thread.join()
    for _ in range(100):
        with locked(tmp_path) as is_ours:
            assert is_ours
            assert is_locked(tmp_path)
        assert not is_locked(tmp_path)


# -- changing ------------------------------------------------------------------------------------


def test_a_slab_that_is_cut_while_it_is_opened_is_opened_again(tmp_path, monkeypatch):
    path = tmp_path / "log_0000.mcap"
    whole = small()
    path.write_bytes(whole.finish(END).data)
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(bytes(100_000))
    real, calls = opening.map_file, []

    def cutting(fd, asked):
        calls.append(asked)
        os.truncate(path, size)
        return real(fd, asked)

    monkeypatch.setattr(opening, "map_file", cutting)
    with Log(path) as log:
        assert len(list(log.cycles())) == 5
        assert log.loss is None
    assert calls == [size + 100_000, size]


READER = """
    import sys
    from flowrun.runtime.log.reader import Log

    with Log(sys.argv[1], verify=False) as log:
        found = log.cycles()
        next(found)
        print("there", flush=True)
        sys.stdin.readline()
        kept = sum(len(bytes(data)) for cycle in found for _, _, data in cycle.entries)
        print(kept)
"""


def test_a_reader_that_does_not_verify_outlives_a_recovery_that_cuts(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    builder = small(cycles=40, chunk_cycles=100, big=9000)
    data = bytearray(builder.leave_open().data)
    data[builder.ends[5] - 60] ^= 1  # in the sixth cycle
    path = run / "log_0000.mcap"
    path.write_bytes(data)
    reader = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(READER), run],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(TESTS)},
    )
    assert reader.stdout.readline() == "there\n"
    report = recover(run)
    assert report.cycles == 5
    assert path.stat().st_size < len(data) // 2
    told, _ = reader.communicate("go on\n", timeout=60)
    assert reader.returncode == 0
    assert int(told) > 170_000
    assert [item.name for item in run.iterdir() if item.name != ".lock"] == ["log_0000.mcap"]
    with Log(run) as log:
        assert check_log(log)[2] == []
        assert len(log) == 5


def test_the_leavings_of_an_interrupted_copy_are_removed(tmp_path):
    path = tmp_path / "log_0000.mcap"
    path.write_bytes(small().leave_open().data)
    (tmp_path / "log_0000.mcap.part").write_bytes(b"a part")
    assert recover(tmp_path).cycles == 5
    assert not (tmp_path / "log_0000.mcap.part").exists()


# -- strange -------------------------------------------------------------------------------------


def strange(run, kind, outside):
    """Make the run's second slab something else than a file of its own."""
    path = run / "log_0001.mcap"
    if kind == "symbolic link":
        path.symlink_to(outside)
    elif kind == "hard link":
        path.hardlink_to(outside)
    elif kind == "pipe":
        os.mkfifo(path)
    return path


@pytest.fixture
def victim(tmp_path):
    """A slab of another run, not finished."""
    directory = tmp_path / "other"
    directory.mkdir()
    path = directory / "log_0001.mcap"
    path.write_bytes(small(first=5, slab=1).leave_open().data)
    return path


WHY = {
    "symbolic link": "it is a symbolic link",
    "hard link": "the file has another name, too (a hard link)",
    "pipe": "it is not a regular file",
}


@pytest.mark.parametrize("kind", WHY)
@pytest.mark.parametrize("target", ["run", "slab"])
def test_recovery_changes_nothing_outside_of_the_run(tmp_path, victim, kind, target):
    run = tmp_path / "run"
    run.mkdir()
    (run / "log_0000.mcap").write_bytes(small().leave_open().data)
    path = strange(run, kind, victim)
    before = victim.read_bytes(), (run / "log_0000.mcap").read_bytes()
    with pytest.raises(LogError) as caught:
        recover(run if target == "run" else path)
    assert str(caught.value) == (
        f"{path}: is not recovered: {WHY[kind]}; recover a copy of the run (cp -rL)"
    )
    assert (victim.read_bytes(), (run / "log_0000.mcap").read_bytes()) == before


def test_a_slab_that_was_made_ahead_may_not_be_a_link_either(tmp_path, victim):
    run = tmp_path / "run"
    run.mkdir()
    (run / "log_0000.next").symlink_to(victim)
    with pytest.raises(LogError, match="it is a symbolic link"):
        recover(run)
    assert victim.exists()
    assert (run / "log_0000.next").is_symlink()


@pytest.mark.parametrize("kind", ["symbolic link", "pipe"])
def test_reading_leaves_out_what_is_no_file_of_the_run(tmp_path, victim, kind):
    run = tmp_path / "run"
    run.mkdir()
    (run / "log_0000.mcap").write_bytes(small().finish().data)
    path = strange(run, kind, victim)
    why = (
        "is a symbolic link; expected a file of the run itself"
        if kind == "symbolic link"
        else "is not a regular file"
    )
    with Log(run) as log:
        assert [cycle.cycle for cycle in log.cycles()] == [0, 1, 2, 3, 4]
        assert log.loss == f"{path}: {why}"
        assert f"{path}: {why}" in check_log(log)[2][0]


def test_a_link_that_the_user_names_is_followed(tmp_path, victim):
    (tmp_path / "link.mcap").symlink_to(victim)
    with Log(tmp_path / "link.mcap") as log:
        assert len(log) == 5


# -- directories ---------------------------------------------------------------------------------


def test_runs_of_the_same_second_get_directories_of_their_own(tmp_path):
    made = []
    threads = [
        threading.Thread(target=lambda: made.append(new_run_directory(tmp_path / "runs", "g-1")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = ["g-1", *(f"g-1-{number}" for number in range(2, 9))]
    assert sorted(path.name for path in made) == names
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == names


def test_a_run_directory_that_cannot_be_made_is_left_to_the_log(tmp_path):
    (tmp_path / "runs").write_text("a file")
    assert new_run_directory(tmp_path / "runs", "g-1") == tmp_path / "runs" / "g-1"
