"""What a reader, a recovery and a retention make of the files of a run: many, strange, changing ones."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import stat
import struct
import subprocess
import sys
import textwrap
import threading
import zlib
from contextlib import contextmanager
from pathlib import Path

import pytest

from flowrun.runtime.descriptor import Descriptor
from flowrun.runtime.errors import LogDamaged, LogError
from flowrun.runtime.log import files as files_module
from flowrun.runtime.log.check import check_log
from flowrun.runtime.log.directory import new_run_directory
from flowrun.runtime.log.files import LogFiles
from flowrun.runtime.log.lock import (
    ahead_path,
    begun_path,
    is_ahead,
    is_begun,
    is_locked,
    locked,
    remove_lock,
    slab_files,
    slab_number,
    slab_path,
    take_lock,
)
from flowrun.runtime.log.message import LateLines, LoggedCycle, Range
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.recover import recover
from flowrun.runtime.log.scan import scan
from flowrun.runtime.log.slab import opening
from flowrun.runtime.log.spare import SpareDescriptors
from support import log_bytes, torture
from support.fuzz.mutations import reseal
from support.log_bytes import Builder, small
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
    real, calls = opening.MappedFile, []

    def cutting(fd, asked):
        calls.append(asked)
        os.truncate(path, size)
        return real(fd, asked)

    monkeypatch.setattr(opening, "MappedFile", cutting)
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
    told, _ = reader.communicate("go on\n", timeout=240)
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


# -- what is missing of a run --------------------------------------------------------------------


def put(directory, number, builder, end=None):
    path = directory / f"log_{number:04}.mcap"
    path.write_bytes(builder.finish(end).data if end != "open" else builder.leave_open().data)
    return path


def loss_of(path):
    with Log(path) as log:
        for _ in log.cycles():
            pass
        return log.loss


def test_a_slab_begins_with_the_cycle_after_the_last_of_the_slab_before(tmp_path):
    """Within a slab numbers may be missing, but not between two: a power cut takes the end of one."""
    for second, says in ((5, None), (6, "begins with cycle 6; expected 5")):
        first = Builder()
        for number in (0, 2, 4):
            first.cycle(number, 1000 + number, [])
        follows = Builder(slab=1)
        for number in (second, second + 3, second + 7):
            follows.cycle(number, 2000 + number, [])
        put(tmp_path, 0, first, "open")
        path = put(tmp_path, 1, follows, END)
        assert loss_of(tmp_path) == (
            says and f"{path}: {says}, the one after the last of the slab before"
        )
        with Log(tmp_path) as log:
            assert [it.cycle for it in log.cycles(second)] == [second, second + 3, second + 7]
            assert log.loss is None  # nobody asked for what comes before
    # What is known to be damaged needs no second sentence.
    data = bytearray((tmp_path / "log_0000.mcap").read_bytes())
    data[first.ends[2] - 8] ^= 1
    (tmp_path / "log_0000.mcap").write_bytes(data)
    assert "cycle 4 has CRC" in loss_of(tmp_path)
    assert "begins with" not in loss_of(tmp_path)


def lines(builder, number):
    """Two log lines before the cycle `number`."""
    at = len(builder.data)
    builder.cycle(number, 1500, [(3, 7, b"\x80"), (3, 8, b"\x81")])
    builder.written.pop()
    builder.data[at] = 0x83
    crc = zlib.crc32(builder.data[at + 9 : at + 33], zlib.crc32(b"\x83"))
    struct.pack_into("<I", builder.data, at + 33, zlib.crc32(builder.data[at + 41 :], crc))


def test_lines_are_of_their_cycle_or_late(tmp_path):
    builder = Builder()
    builder.cycle(0, 1000, [(1, 1, b"\x80")])
    lines(builder, 1)
    lines(builder, 1)
    builder.cycle(1, 1600, [(1, 1, b"\x80")])
    lines(builder, 2)  # and cycle 2 did not come
    builder.cycle(3, 1700, [(1, 1, b"\x80")])
    lines(builder, 4)
    put(tmp_path, 0, builder, "open")
    with Log(tmp_path) as log:
        found = [(type(it), it.cycle, it.time_ns, len(it.entries)) for it in log.records()]
        assert found == [
            (LoggedCycle, 0, 1000, 1),
            (LoggedCycle, 1, 1600, 5),
            (LateLines, 2, 1500, 2),
            (LoggedCycle, 3, 1700, 1),
            (LateLines, 4, 1500, 2),
        ]
        assert [it.cycle for it in log] == [0, 1, 3]
        assert len(log) == 3
        assert [it.tov_ns for it in log.messages("/flowrun/log", 2)] == [7, 8, 7, 8]
        assert (log.start_ns, log.end_ns) == (1000, 1700)
        assert log.loss is None
        # The topic comes first in an entry, and lines come before the messages of their cycle.
        assert [topic for topic, _, _ in log[1].entries] == ["/flowrun/log"] * 4 + ["/cam/image"]


def test_only_who_reads_all_compares_what_the_summary_counts(tmp_path):
    builder = small().finish(END)
    at = builder.data.rindex(struct.pack("<BQQ", 11, 76, 6))
    builder.data[at + 9] = 5
    reseal(builder.data)
    path = tmp_path / "log_0000.mcap"
    path.write_bytes(builder.data)
    with Log(path) as log:
        for bounds in ((0,), (None, 9), (None, None, 0), (None, None, None, 10**9)):
            start, end, start_ns, end_ns = (*bounds, None, None, None)[:4]
            assert len(list(log.cycles(start, end, start_ns=start_ns, end_ns=end_ns))) == 5
            assert log.loss is None
        assert len(list(log.cycles())) == 5
        assert log.loss == (
            f"{path}: byte {builder.preamble_size}: 6 messages; the summary counts 5"
        )


def test_slabs_of_a_run_have_the_same_topics(tmp_path):
    put(tmp_path, 0, small())
    path = put(tmp_path, 1, small(first=5, slab=1, topics=("/a/b", "/c/d", "/e/f")), END)
    with pytest.raises(LogDamaged) as caught:
        Log(tmp_path)
    assert str(caught.value) == f"{path}: has other topics than log_0000.mcap"


@pytest.mark.parametrize("second", [2, 3])
def test_a_hole_in_a_run_is_where_a_number_is_missing(tmp_path, second):
    for number in (0, 1, second):
        path = put(tmp_path, number, small(first=5 * number, slab=number), "open")
    expected = f"{path}: follows log_0001.mcap: the slabs between are missing"
    assert loss_of(tmp_path) == (None if second == 2 else expected)


@pytest.mark.parametrize("number", [0, 1, 3, 9999, 10_000])
def test_a_slab_by_itself_misses_no_other(tmp_path, number):
    path = put(tmp_path, number, small(slab=number), "open")
    assert loss_of(path) is None
    assert loss_of(tmp_path) == (
        None if number == 0 else f"{path}: the slabs before it are missing"
    )


@pytest.mark.parametrize(
    ("keep", "count", "ended", "missing"),
    [
        ("3", 3, True, False), ("3", 4, True, False), ("3", 2, True, True), ("3", 2, False, False),
        ("3", 1, False, False), ("x", 3, True, True), ("", 3, False, True),
    ],
)  # fmt: skip
def test_a_flight_recorder_may_lack_what_it_removes_itself(tmp_path, keep, count, ended, missing):
    for number in range(5, 5 + count):
        builder = Builder(slab=number, more={"keep_slabs": keep})
        builder.cycle(number, 1000 + number, [])
        if ended and number == 4 + count:
            builder.close_chunk()
            builder.add_check(builder.add_metadata("flowrun.end", {"reason": "done"}))
            builder.data += log_bytes.TRAILER
        else:
            builder.leave_open()
        (tmp_path / f"log_{number:04}.mcap").write_bytes(builder.data)
    first = tmp_path / "log_0005.mcap"
    assert loss_of(tmp_path) == (f"{first}: the slabs before it are missing" if missing else None)


def test_names_of_slabs():
    for name, number, begun in (
        ("log_0000.mcap", 0, True), ("log_0012.mcap", 12, True), ("log_12345.mcap", 12345, True),
        ("log_0003.next", 3, False),
    ):  # fmt: skip
        path = Path("run") / name
        assert (slab_number(path), is_begun(path), is_ahead(path)) == (number, begun, not begun)
        assert slab_path(path.parent, number) == begun_path(path)
        assert ahead_path(begun_path(path)).name == name.replace(".mcap", ".next")
    for name in (
        "log_000.mcap", "log_0000.mcap2", "log_0000xmcap", "xlog_0000.mcap", "log_abcd.mcap",
        "log_0000.mcap.part", "log_0000", ".lock", "LOG_0000.mcap",
    ):  # fmt: skip
        path = Path(name)
        assert (slab_number(path), is_begun(path), is_ahead(path)) == (0, False, False)


def test_slabs_are_in_the_order_of_their_numbers(tmp_path):
    names = ["log_10000.mcap", "log_9999.mcap", "log_0010.next", "log_0002.mcap"]
    for name in [*names, "log_x.mcap", "other"]:
        (tmp_path / name).touch()
    assert [it.name for it in slab_files(tmp_path)] == names[::-1]


# -- its lock ------------------------------------------------------------------------------------


def test_a_lock_is_held_until_it_is_closed(tmp_path):
    fd = take_lock(tmp_path)
    assert not os.get_inheritable(fd)
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / ".lock").stat().st_mode) == 0o644 & ~mask
    assert take_lock(tmp_path) is None
    with locked(tmp_path) as is_ours:
        assert not is_ours
    assert is_locked(tmp_path)
    os.close(fd)
    assert not is_locked(tmp_path)
    with locked(tmp_path) as is_ours:
        assert is_ours
    assert not is_locked(tmp_path)


def test_a_run_without_a_lock_is_not_being_written(tmp_path):
    with locked(tmp_path, create=False) as is_ours:
        assert is_ours
    assert list(tmp_path.iterdir()) == []
    assert not is_locked(tmp_path)
    with pytest.raises(FileNotFoundError), locked(tmp_path / "none"):
        pass
    with locked(tmp_path):
        pass
    assert [it.name for it in tmp_path.iterdir()] == [".lock"]
    remove_lock(tmp_path)
    remove_lock(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["directory", "link", "pipe"])
def test_a_lock_that_is_no_file_is_an_error_or_nobodys(tmp_path, kind):
    lock = tmp_path / ".lock"
    if kind == "directory":
        lock.mkdir()
    elif kind == "link":
        (tmp_path / "victim").touch()
        lock.symlink_to(tmp_path / "victim")
    else:
        os.mkfifo(lock)
        with pytest.raises(OSError, match=r".*"):
            os.close(os.open(lock, os.O_WRONLY | os.O_NONBLOCK))  # nobody reads it
        assert not is_locked(tmp_path)  # and nobody waits for it
        return
    with pytest.raises(OSError, match=r"directory|symbolic links"):
        take_lock(tmp_path)
    if kind == "link":
        with pytest.raises(OSError, match="symbolic links"):
            is_locked(tmp_path)
        (tmp_path / "log_0000.mcap").write_bytes(small().leave_open().data)
        with Log(tmp_path, follow=True) as log, pytest.raises(LogError) as caught:
            list(log.cycles())
        assert str(caught.value) == (
            f"{tmp_path}: cannot find out whether it is being written: "
            "Too many levels of symbolic links"
        )


def test_a_lock_that_its_holder_removed_meanwhile_is_taken_again(tmp_path, monkeypatch):
    real, calls = fcntl.fcntl, []

    def removing(fd, *rest):
        calls.append(fd)
        if len(calls) == 1:
            (tmp_path / ".lock").unlink()
        return real(fd, *rest)

    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - as a number
    monkeypatch.setattr(fcntl, "fcntl", removing)
    fd = take_lock(tmp_path)
    assert len(calls) == 2
    assert os.fstat(fd).st_nlink == 1
    os.close(fd)
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.EACCES, errno.ENOLCK])
def test_a_lock_that_cannot_be_had_is_somebody_elses_or_an_error(tmp_path, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - as a number
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    if code == errno.ENOLCK:
        with pytest.raises(OSError, match=os.strerror(code)):
            take_lock(tmp_path)
    else:
        assert take_lock(tmp_path) is None
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


# -- descriptors ---------------------------------------------------------------------------------


@pytest.fixture
def spare(tmp_path):
    of = Descriptor(os.open(tmp_path, os.O_RDONLY))
    made = SpareDescriptors(of)
    yield made
    made.close()
    of.close()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE])
def test_spare_descriptors_are_lent_one_by_one_until_it_suffices(spare, code):
    held = []

    def make():
        held.append(len(spare._held))
        if len(held) < 4:
            raise OSError(code, "no more")
        return "made"

    assert spare.lend(make) == "made"
    assert held == [8, 7, 6, 5]
    spare.fill()
    assert len(spare._held) == 8
    assert not any(os.get_inheritable(it.number) for it in spare._held)

    def fail():
        held.append(len(spare._held))
        raise OSError(code, "no more")

    held.clear()
    with pytest.raises(OSError, match="no more"):
        spare.lend(fail)
    assert held == [8, 7, 6, 5, 4, 3, 2, 1, 0]


def test_spare_descriptors_are_not_lent_for_other_errors(spare):

    def fail():
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        spare.lend(fail)
    assert len(spare._held) == 8
    spare.close()
    assert spare._held == []


# -- while it is written -------------------------------------------------------------------------


def test_the_last_two_slabs_may_change_and_no_other(tmp_path):
    """The one before the last is finished after the last has begun."""
    for number in range(3):
        put(tmp_path, number, small(first=5 * number, slab=number), "open")
    files = LogFiles(tmp_path, verify=True)
    before = list(files.slabs)
    files.refresh()
    assert files.slabs == before  # nothing has changed
    for number in range(3):
        put(tmp_path, number, small(first=5 * number, slab=number))
    files.refresh()
    assert [old is new for old, new in zip(before, files.slabs, strict=True)] == [
        True,
        False,
        False,
    ]
    assert [it.structure.finished for it in files.slabs] == [False, True, True]
    put(tmp_path, 3, small(first=15, slab=3), END)
    put(tmp_path, 4, small(first=20, slab=4), END)
    (tmp_path / "log_0005.next").write_bytes(small(first=25, slab=5).leave_open().data)
    files.refresh()
    assert [it.path.name for it in files.slabs] == [f"log_{number:04}.mcap" for number in range(5)]
    assert files.losses == {}
    files.close()


def test_a_slab_that_was_damaged_is_opened_again_until_it_is_finished(tmp_path):
    path = put(tmp_path, 0, small(), "open")
    whole = path.read_bytes()
    path.write_bytes(whole[:-60])
    files = LogFiles(tmp_path, verify=True)
    assert files.losses != {}
    path.write_bytes(whole)
    files.refresh()
    assert files.losses == {}
    # What is finished and damaged stays so: it is not read again.
    builder = small().finish(END)
    data = bytearray(builder.data)
    data[builder.ends[4] - 8] ^= 1
    path.write_bytes(data)
    files = LogFiles(tmp_path, verify=True)
    [before] = files.slabs
    list(scan(files, Range()))
    assert len(files.losses) == 1
    path.write_bytes(builder.data)
    files.refresh()
    assert files.slabs == [before]
    assert len(files.losses) == 1


def test_slabs_that_were_removed_are_let_go_when_another_comes(tmp_path):
    for number in range(3):
        put(tmp_path, number, small(first=5 * number, slab=number), "open")
    files = LogFiles(tmp_path, verify=True)
    (tmp_path / "log_0000.mcap").unlink()
    files.refresh()
    assert len(files.slabs) == 3
    put(tmp_path, 3, small(first=15, slab=3), "open")
    files.refresh()
    assert [slab_number(it.path) for it in files.slabs] == [1, 2, 3]
    assert files.vanished is None
    (tmp_path / "log_0003.mcap").unlink()
    files.refresh()
    assert files.vanished == tmp_path / "log_0003.mcap"
    assert len(files.slabs) == 3


def test_a_slab_alone_gets_no_others(tmp_path):
    path = put(tmp_path, 0, small(), "open")
    files = LogFiles(path, verify=True)
    put(tmp_path, 1, small(first=5, slab=1), END)
    files.refresh()
    assert len(files.slabs) == 1
    assert not files.writer_lives()
    with locked(tmp_path):
        assert files.writer_lives()


@pytest.mark.parametrize("kind", ["damaged", "gone"])
def test_a_slab_that_cannot_be_opened_is_a_loss_unless_it_is_gone(tmp_path, monkeypatch, kind):
    put(tmp_path, 0, small(), "open")
    path = put(tmp_path, 1, small(first=5, slab=1), END)
    real = files_module.SlabReader

    def opened(where, *, verify):
        if where == path:
            if kind == "gone":
                path.unlink()
            raise LogError(f"{path}: something")
        return real(where, verify=verify)

    monkeypatch.setattr(files_module, "SlabReader", opened)
    with Log(tmp_path) as log:
        assert log.loss == (f"{path}: something" if kind == "damaged" else None)
        assert len(log.slabs) == 1


def test_a_run_whose_slabs_cannot_be_read_says_why_of_the_first(tmp_path):
    for number in range(2):
        (tmp_path / f"log_{number:04}.mcap").write_bytes(b"GIF89a..")
    with pytest.raises(LogDamaged) as caught:
        Log(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/log_0000.mcap: byte 0: not an MCAP file: it begins with b'GIF89a..'"
    )


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_slab_that_becomes_something_else_while_it_is_opened_is_refused(
    tmp_path, monkeypatch, victim, kind
):
    path = tmp_path / "log_0000.mcap"
    path.symlink_to(victim) if kind == "link" else os.mkfifo(path)
    real = os.lstat
    monkeypatch.setattr(os, "lstat", lambda it: real(victim if it == path else it))
    with (
        pytest.raises((LogError, OSError)) as caught,
        opening.open_file(path, os.O_RDONLY),
    ):
        pass
    expected = "Too many levels of symbolic links" if kind == "link" else "is not a regular file"
    assert expected in str(caught.value)


def test_a_run_that_is_recovered_keeps_its_files_from_child_processes(tmp_path, monkeypatch):
    builder = small()
    builder.leave_open()
    builder.data[builder.ends[3] - 8] ^= 1
    (tmp_path / "log_0000.mcap").write_bytes(builder.data)
    opened = []
    real = os.open

    def noting(*args, **options):
        fd = real(*args, **options)
        opened.append(os.get_inheritable(fd))
        return fd

    monkeypatch.setattr(os, "open", noting)
    recover(tmp_path)
    assert len(opened) > 4
    assert not any(opened)
