from __future__ import annotations

import errno
import os
import re
import shutil
import time
from pathlib import Path

import pytest

from flowrun.runtime.clock import ManualClock
from flowrun.runtime.errors import LogError
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import plan_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.log import retention
from flowrun.runtime.log import writer as log_writer
from flowrun.runtime.log.directory import make_directory, new_run_directory
from flowrun.runtime.log.lock import locked, take_lock
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.retention import number_run, remove_old_runs, tidy
from flowrun.runtime.log.slab import disk
from flowrun.runtime.run.live import Run
from support.helpers import START_NS
from support.log_bytes import small
from support.logged_runs import plan_with, run


def make_runs(tmp_path, count, **options):
    """`count` runs of the graph g, the oldest first."""
    plan = plan_with(tmp_path, **options)
    paths = [tmp_path / "runs" / f"g-{number}" for number in range(count)]
    for number, path in enumerate(paths):
        run(plan, path, start_ns=START_NS + number)
    return paths


def remove(tmp_path, *, runs=None, size=None, graph="g", graph_path=None):
    found = remove_old_runs(
        tmp_path / "runs",
        graph=graph,
        graph_path=graph_path or str(tmp_path / "g.yaml"),
        runs=runs,
        size=size,
    )
    return [old.path.name for old in found]


def left(tmp_path):
    return sorted(it.name for it in (tmp_path / "runs").iterdir() if it.name != ".last_run")


def test_the_oldest_runs_go_first(tmp_path):
    make_runs(tmp_path, 4)
    assert remove(tmp_path, runs=2) == ["g-0", "g-1"]
    assert left(tmp_path) == ["g-2", "g-3"]
    assert remove(tmp_path, runs=2) == []


def test_the_time_of_the_run_counts_not_its_name(tmp_path):
    paths = make_runs(tmp_path, 3)
    paths[0].rename(tmp_path / "runs" / "g-9")
    assert remove(tmp_path, runs=2) == ["g-9"]


def test_runs_stay_up_to_a_size(tmp_path):
    paths = make_runs(tmp_path, 4)
    each = {sum(512 * f.stat().st_blocks for f in p.glob("*.mcap")) for p in paths}
    assert remove(tmp_path, size=3 * max(each) - 1) == ["g-0", "g-1"]
    assert remove(tmp_path, size=1) == ["g-2", "g-3"]
    assert left(tmp_path) == []


def test_what_is_no_run_of_this_graph_stays(tmp_path):
    make_runs(tmp_path, 1)
    runs = tmp_path / "runs"
    shutil.copytree(runs / "g-0", tmp_path / "elsewhere")
    (runs / "g-link").symlink_to(tmp_path / "elsewhere")
    (runs / "g-notes").mkdir()
    (runs / "g-notes" / "log_0000.mcap").write_text("notes")
    (runs / "g-file").write_text("")
    shutil.copytree(runs / "g-0", runs / "other-0")
    before = left(tmp_path)
    assert remove(tmp_path, runs=0, graph_path="/other/g.yaml") == []
    assert remove(tmp_path, runs=0, graph="other") == []
    assert left(tmp_path) == before
    assert remove(tmp_path, runs=0) == ["g-0"]
    assert left(tmp_path) == [name for name in before if name != "g-0"]
    assert (tmp_path / "elsewhere" / "log_0000.mcap").exists()


def test_what_somebody_put_into_a_run_stays(tmp_path):
    [path] = make_runs(tmp_path, 1)
    (path / "notes.txt").write_text("mine")
    (path / "log_final.mcap").write_text("mine, too")
    assert remove(tmp_path, runs=0) == ["g-0"]
    assert sorted(item.name for item in path.iterdir()) == ["log_final.mcap", "notes.txt"]


def test_a_run_that_is_being_written_stays(tmp_path):
    make_runs(tmp_path, 2)
    live = Run(
        plan_with(tmp_path), clock=ManualClock(START_NS - 1), directory=tmp_path / "runs" / "g-live"
    )
    assert remove(tmp_path, runs=1) == ["g-0", "g-1"]
    assert left(tmp_path) == ["g-live"]
    assert live.run().error is None
    assert remove(tmp_path, runs=0) == ["g-live"]


def test_a_run_whose_process_was_killed_counts(tmp_path):
    paths = make_runs(tmp_path, 2)
    live = Run(plan_with(tmp_path), clock=ManualClock(START_NS), directory=tmp_path / "live")
    shutil.rmtree(paths[0])
    shutil.copytree(tmp_path / "live", paths[0])  # as it is while its writer lives: unfinished
    live.run()
    with Log(paths[0]) as log:
        assert not log.finished
    assert remove(tmp_path, runs=1) == ["g-0"]


def test_a_slab_made_ahead_by_a_run_that_was_killed_goes_with_it(tmp_path):
    paths = make_runs(tmp_path, 2)
    (paths[0] / "log_0001.next").write_bytes(bytes(5000))
    assert remove(tmp_path, runs=1) == ["g-0"]
    assert left(tmp_path) == ["g-1"]


def test_no_log_directory_yet(tmp_path):
    assert remove(tmp_path, runs=1) == []


def test_a_run_that_cannot_be_removed_is_reported_and_the_next_one_taken(tmp_path):
    paths = make_runs(tmp_path, 3)
    (paths[0] / "log_0001.mcap").mkdir()  # no slab, and no file that could be removed
    plan = plan_with(tmp_path, logging="keep: {runs: 2}")
    said = run(plan, tmp_path / "runs" / "g-new", start_ns=START_NS + 9)
    assert [re.sub(r"mib=[\d.]+", "mib=N", line) for line in said] == [
        f"[warning ] cannot remove an old run mib=N path={paths[0]} why='Is a directory'",
        f"[info ] removed an old run mib=N path={paths[1]}",
        f"[info ] removed an old run mib=N path={paths[2]}",
    ]
    assert left(tmp_path) == ["g-0", "g-new"]


def test_a_run_removes_old_ones_and_logs_it(tmp_path):
    make_runs(tmp_path, 3)
    plan = plan_with(tmp_path, logging="keep: {runs: 2}")
    said = run(plan, tmp_path / "runs" / "g-new", start_ns=START_NS + int(time.time()))
    assert [re.sub(r"mib=[\d.]+", "mib=N", line) for line in said] == [
        f"[info ] removed an old run mib=N path={tmp_path}/runs/g-{number}" for number in (0, 1)
    ]
    assert left(tmp_path) == ["g-2", "g-new"]
    with Log(tmp_path / "runs" / "g-new") as log:
        lines = [m.fields["message"] for m in log.messages("/flowrun/log")]
    assert lines == ["removed an old run", "removed an old run"]


def test_old_runs_make_room_while_a_run_grows(tmp_path):
    for path in make_runs(tmp_path, 3):
        (path / "log_0001.mcap").write_bytes(bytes(1 << 20))
    text = (
        "tasks: [{id: n, type: support.helpers.Numbers, config: {limit: 30000}}]\n"
        "logging: {slab_size_mib: 1, section_size_mib: 1, keep: {gib: 0.005}}\n"
    )
    long = parse_graph(text, path=tmp_path / "g.yaml", env={})
    directory = tmp_path / "runs" / "g-new"
    said = run(plan_graph(bind(long)), directory, start_ns=START_NS + 9)
    assert [line.rpartition("/")[2] for line in said] == ["g-0", "g-1", "g-2"]
    assert left(tmp_path) == ["g-new"]
    with Log(directory) as log:
        removed = [message.cycle for message in log.messages("/flowrun/log")]
        assert len(log.slabs) >= 4
    assert 0 < removed[0] < removed[1] < removed[2]


def test_what_a_killed_run_had_preallocated_is_given_back(tmp_path):
    [path] = make_runs(tmp_path, 1)
    slab = path / "log_0000.mcap"
    before, content = slab.stat(), slab.read_bytes()
    with slab.open("r+b") as file:
        assert disk.preallocate(file.fileno(), 8 << 20)
    (tmp_path / "runs" / "g-notes").write_text("")

    def held():
        return 512 * slab.stat().st_blocks

    with locked(path):  # as its writer does
        tidy(tmp_path / "runs", graph="g")
        assert held() >= 8 << 20
    run(plan_with(tmp_path), tmp_path / "runs" / "g-new")
    assert held() < before.st_size + 8192
    assert slab.read_bytes() == content


def test_a_log_that_cannot_be_made_leaves_nothing(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(disk, "preallocate", refuse)
    with pytest.raises(LogError, match="the disk is full"):
        Run(plan_with(tmp_path), clock=ManualClock(1), directory=tmp_path / "runs" / "g-0")
    assert left(tmp_path) == []


@pytest.mark.parametrize("new", [0, 2_051_222_400_000_000_000])
def test_the_order_of_the_runs_counts_not_their_clock(tmp_path, new):
    """A clock that was never set says 1970; one that was set wrong says 2035."""
    plan = plan_with(tmp_path)
    starts = [START_NS, new, START_NS + 1]
    for number, start_ns in enumerate(starts):
        run(plan, tmp_path / "runs" / f"g-{number}", start_ns=start_ns)
    assert remove(tmp_path, runs=2) == ["g-0"]
    run(plan, tmp_path / "runs" / "g-3", start_ns=START_NS)
    assert remove(tmp_path, runs=2) == ["g-1"]
    assert left(tmp_path) == ["g-2", "g-3"]


def test_a_run_that_begins_with_a_wrong_clock_removes_others_not_itself(tmp_path):
    make_runs(tmp_path, 2)
    run(plan_with(tmp_path, logging="keep: {runs: 2}"), tmp_path / "runs" / "g-new", start_ns=5)
    assert left(tmp_path) == ["g-1", "g-new"]
    run(plan_with(tmp_path, logging="keep: {runs: 2}"), tmp_path / "runs" / "g-next")
    assert left(tmp_path) == ["g-new", "g-next"]


def test_a_lost_counter_is_made_again_from_the_runs(tmp_path):
    make_runs(tmp_path, 3)
    (tmp_path / "runs" / ".last_run").unlink()
    run(plan_with(tmp_path), tmp_path / "runs" / "g-new", start_ns=1)
    assert remove(tmp_path, runs=1) == ["g-0", "g-1", "g-2"]


def test_a_run_from_another_log_directory_is_as_old_as_its_coming(tmp_path):
    make_runs(tmp_path, 5)
    runs, other = tmp_path / "runs", tmp_path / "other"
    runs.rename(other)
    keeping = plan_with(tmp_path, logging="keep: {runs: 3}")
    run(keeping, runs / "g-5")
    shutil.copytree(other / "g-4", runs / "g-copied")
    run(keeping, runs / "g-6")
    run(keeping, runs / "g-7")
    assert left(tmp_path) == ["g-6", "g-7", "g-copied"]
    run(keeping, runs / "g-8")
    assert left(tmp_path) == ["g-6", "g-7", "g-8"]


def test_leftovers_of_killed_starts_and_removals_are_tidied(tmp_path):
    make_runs(tmp_path, 1)
    runs = tmp_path / "runs"
    for name in ("g-lock", "g-ahead", "g-held", "g-mine", "g-empty"):
        (runs / name).mkdir()
    for name in ("g-lock", "g-ahead", "g-held", "g-mine"):
        (runs / name / ".lock").write_bytes(b"")
    (runs / "g-ahead" / "log_0000.next").write_bytes(bytes(5000))
    (runs / "g-mine" / "notes.txt").write_text("mine")
    with locked(runs / "g-held"):
        run(plan_with(tmp_path), runs / "g-new")
        assert left(tmp_path) == ["g-0", "g-empty", "g-held", "g-mine", "g-new"]
    run(plan_with(tmp_path), runs / "g-newer")
    assert left(tmp_path) == ["g-0", "g-empty", "g-mine", "g-new", "g-newer"]


def test_a_slab_ahead_with_cycles_is_no_leftover(tmp_path):
    [path] = make_runs(tmp_path, 1)
    (path / "log_0000.mcap").rename(path / "log_0000.next")
    run(plan_with(tmp_path), tmp_path / "runs" / "g-new")
    assert left(tmp_path) == ["g-0", "g-new"]


def test_a_start_waits_for_another_that_looks_at_its_directory(tmp_path, monkeypatch):
    """It is empty but for the lock, as a leftover is."""
    tries = []

    def busy_once(directory):
        tries.append(directory)
        return None if len(tries) == 1 else take_lock(directory)

    monkeypatch.setattr(log_writer, "take_lock", busy_once)
    run(plan_with(tmp_path), tmp_path / "runs" / "g-new")
    assert len(tries) == 2


def test_removing_runs_follows_no_link_and_changes_no_other_file(tmp_path):
    paths = make_runs(tmp_path, 2)
    victim = tmp_path / "victim.mcap"
    shutil.copy(paths[1] / "log_0000.mcap", victim)
    with victim.open("r+b") as file:
        disk.preallocate(file.fileno(), 8 << 20)
    held = victim.stat().st_blocks
    (paths[0] / "log_0001.mcap").symlink_to(victim)
    (paths[0] / "log_0002.mcap").hardlink_to(victim)
    tidy(tmp_path / "runs", graph="g")
    assert remove(tmp_path, runs=1) == ["g-0"]
    assert not paths[0].exists()
    assert victim.stat().st_blocks == held


def test_removing_runs_keeps_no_lock(tmp_path):
    make_runs(tmp_path, 2)
    (tmp_path / "runs" / "g-0" / "notes.txt").write_text("the directory stays, and its lock goes")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - as a number
    assert remove(tmp_path, runs=0) == ["g-0", "g-1"]
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


# -- runs made byte by byte ----------------------------------------------------------------------


def old(tmp_path, name, *, held=0, **metadata):
    """A run of the graph g of one slab that holds `held` bytes of disk, at least 4,096."""
    path = tmp_path / "runs" / name
    path.mkdir(parents=True)
    more = {"graph_path": str(tmp_path / "g.yaml")} | metadata
    slab = path / "log_0000.mcap"
    slab.write_bytes(small(more=more).finish({"reason": "test"}).data)
    with slab.open("r+b") as file:
        disk.preallocate(file.fileno(), max(held, 4096))
    return path


def test_runs_go_in_the_order_of_number_start_and_name(tmp_path):
    for name, number, started in (
        ("g-f", "10", "1"), ("g-e", "9", "5"), ("g-d", "9", "4"), ("g-c", "9", "4"),
        ("g-b", "", "7"), ("g-a", "x", "8"), ("g-0", "3", "y"),
    ):  # fmt: skip
        old(tmp_path, name, run_number=number, started_ns=started)
    found = remove_old_runs(
        tmp_path / "runs", graph="g", graph_path=str(tmp_path / "g.yaml"), runs=0, size=None
    )
    assert [(it.path.name, it.number, it.started_ns, it.problem) for it in found] == [
        ("g-b", 0, 7, None), ("g-a", 0, 8, None), ("g-0", 3, 0, None), ("g-c", 9, 4, None),
        ("g-d", 9, 4, None), ("g-e", 9, 5, None), ("g-f", 10, 1, None),
    ]  # fmt: skip
    assert {it.size for it in found} == {4096}


def test_as_many_and_as_large_as_they_may_be_stay(tmp_path):
    for number, held in enumerate((8192, 4096, 16384)):
        old(tmp_path, f"g-{number}", run_number=str(number + 1), held=held)
    total = 8192 + 4096 + 16384
    assert remove(tmp_path, runs=3, size=total) == []
    assert remove(tmp_path, runs=3, size=total - 1) == ["g-0"]
    assert remove(tmp_path, runs=2, size=total - 8192) == []
    assert remove(tmp_path, size=total - 8192 - 1) == ["g-1"]
    assert remove(tmp_path, runs=1) == []
    assert remove(tmp_path) == []
    assert left(tmp_path) == ["g-2"]


def test_a_run_is_known_by_the_first_slab_that_can_be_read(tmp_path):
    path = old(tmp_path, "g-1", run_number="7")
    (path / "log_0000.mcap").rename(path / "log_0001.mcap")
    (path / "log_0000.mcap").write_bytes(b"damaged")
    (path / "log_0002.mcap").write_bytes(small(slab=2).finish().data)  # of another graph file
    found = remove_old_runs(
        tmp_path / "runs", graph="g", graph_path=str(tmp_path / "g.yaml"), runs=0, size=None
    )
    assert [it.number for it in found] == [7]
    assert not path.exists()


def test_the_present_run_is_passed_over(tmp_path):
    paths = [old(tmp_path, f"g-{number}", run_number=str(number)) for number in (1, 2)]
    found = remove_old_runs(
        tmp_path / "runs", graph="g", graph_path=str(tmp_path / "g.yaml"),
        runs=0, size=None, present=paths[0],
    )  # fmt: skip
    assert [it.path for it in found] == [paths[1]]


def test_a_run_is_removed_from_its_end_on(tmp_path, monkeypatch):
    """What an interruption leaves can be read, and is known for what it is."""
    path = old(tmp_path, "g-1")
    for number in (1, 2):
        (path / f"log_{number:04}.mcap").write_bytes(small(slab=number, first=5 * number).data)
    gone = []
    real = Path.unlink
    monkeypatch.setattr(
        Path, "unlink", lambda it, **options: (gone.append(it.name), real(it, **options))
    )
    assert remove(tmp_path, runs=0) == ["g-1"]
    assert gone == ["log_0002.mcap", "log_0001.mcap", "log_0000.mcap", ".lock"]


def test_a_slab_that_goes_while_its_run_is_removed_is_no_problem(tmp_path, monkeypatch):
    path = old(tmp_path, "g-1")
    real = retention.slab_files
    monkeypatch.setattr(
        retention, "slab_files", lambda it: [*real(it), *([path / "log_0009.mcap"] * (it == path))]
    )
    with pytest.raises(FileNotFoundError):
        (path / "log_0009.mcap").lstat()
    assert retention._remove(path)
    assert not path.exists()


def number(tmp_path, *, after_all=False):
    return number_run(
        tmp_path / "runs", graph="g", graph_path=str(tmp_path / "g.yaml"), after_all=after_all
    )


def test_runs_are_numbered_one_after_another(tmp_path):
    counter = tmp_path / "runs" / ".last_run"
    assert [number(tmp_path) for _ in range(3)] == [1, 2, 3]
    assert counter.read_bytes() == b"3" + b" " * 30 + b"\n"
    assert counter.stat().st_mode & 0o777 == 0o644 & ~current_umask()
    old(tmp_path, "g-copied", run_number="70")
    assert number(tmp_path) == 4
    assert number(tmp_path, after_all=True) == 71
    assert number(tmp_path, after_all=True) == 72
    for text in ("", "x", "-5\n", "0\n"):
        counter.write_text(text)
        assert number(tmp_path) == 71
    counter.write_text("1234567890123456789012345678901")
    assert number(tmp_path) == 1234567890123456789012345678902


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_counter_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "runs" / ".last_run").symlink_to(tmp_path / "victim")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - as a number
    with pytest.raises(OSError, match="symbolic links"):
        number(tmp_path)
    assert (tmp_path / "victim").read_text() == "mine"
    (tmp_path / "runs" / ".last_run").unlink()
    number(tmp_path)
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


@pytest.mark.parametrize(("behind", "freed"), [(1 << 20, False), ((1 << 20) + 4096, True)])
def test_more_than_a_mib_after_the_end_of_a_slab_is_given_back(tmp_path, behind, freed):
    path = old(tmp_path, "g-1") / "log_0000.mcap"
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(4096)
        disk.preallocate(file.fileno(), 4096 + behind)
    tidy(tmp_path / "runs", graph="g")
    assert 512 * path.stat().st_blocks == 4096 + (0 if freed else behind)
    assert path.stat().st_size == 4096 > size
    assert not (path.parent / ".lock").exists()


# -- directories ---------------------------------------------------------------------------------


def test_each_new_directory_is_brought_to_the_disk_from_above(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(disk, "sync_directory", lambda fd: synced.append(os.fstat(fd).st_ino))
    make_directory(tmp_path / "a" / "b")
    assert synced == [tmp_path.stat().st_ino, (tmp_path / "a").stat().st_ino]
    make_directory(tmp_path / "a" / "b")
    assert len(synced) == 2
    made = [new_run_directory(tmp_path / "a", "g") for _ in range(3)]
    assert [it.name for it in made] == ["g", "g-2", "g-3"]
    assert synced[2:] == [(tmp_path / "a").stat().st_ino] * 3
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_directory(tmp_path / "file")


def test_a_directory_that_may_not_be_read_may_hold_another(tmp_path, monkeypatch):
    real = os.open

    def refuse(path, *rest):
        if path == tmp_path:
            raise PermissionError(errno.EACCES, "no")
        return real(path, *rest)

    monkeypatch.setattr(os, "open", refuse)
    make_directory(tmp_path / "a")
    assert (tmp_path / "a").is_dir()


def test_runs_without_a_cycle_go_before_all_others(tmp_path):
    paths = make_runs(tmp_path, 3)
    plan = plan_with(tmp_path)
    for number in (7, 8):
        made = Run(
            plan, clock=ManualClock(START_NS + number), directory=paths[0].parent / f"g-{number}"
        )
        made.log.error("a task cannot start")
        made._finish("error", "a task cannot start")
    assert remove(tmp_path, runs=4) == ["g-7"]
    assert remove(tmp_path, runs=2) == ["g-8", "g-0"]


def test_the_runs_of_another_process_of_the_fleet_stay(tmp_path):
    make_runs(tmp_path, 2)
    path = str(tmp_path / "g.yaml")
    runs = tmp_path / "runs"
    assert (
        remove_old_runs(runs, graph="g", graph_path=path, runs=0, size=0, partition="gpu/0") == []
    )
    assert left(tmp_path) == ["g-0", "g-1"]
