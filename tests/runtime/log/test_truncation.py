"""A slab that another program cuts, or writes over, while it is written or read."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from flowrun.msgs import BytesMsg
from flowrun.runtime.errors import LogDamaged
from flowrun.runtime.log.check import check_log
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.recover import recover
from flowrun.runtime.log.slab import faults
from flowrun.runtime.log.slab import writer as log_slab
from flowrun.runtime.log.slab.mapping import MappedFile
from support import torture
from support.log_writing import commit, payload, writer_of

CUT = "another program cut it to {} bytes while it was written: what came after is lost"


def commits(cycles, count):
    for _ in range(count):
        cycles.commit()


def commit_for_ever(cycles):
    while True:
        cycles.commit()


# -- under its writer ----------------------------------------------------------------------------


@pytest.mark.parametrize("largest", [40, 90_000, 400_000])
def test_an_emptied_slab_is_an_error_of_the_cycle_that_comes_next(tmp_path, monkeypatch, largest):
    """A large payload goes through the file, not the mapping, where pages are not ready: it must not
    make the file long again unnoticed."""
    monkeypatch.setattr(log_slab, "_TOO_FAST_NS_PER_BYTE", 1e9)
    cycles = torture.Cycles(tmp_path / "run", largest=largest, slab_size_mib=64, sync_s=None)
    commits(cycles, 9)
    slab = tmp_path / "run" / "log_0000.mcap"
    os.truncate(slab, 0)
    before = cycles.writer.messages
    with pytest.raises(LogDamaged) as caught:
        cycles.commit()
    assert str(caught.value) == f"{slab}: {CUT.format(0)}"
    assert cycles.writer.messages == before
    with pytest.raises(LogDamaged, match="another program cut it"):
        cycles.writer.finish({"reason": "test"})
    assert slab.stat().st_size == 0


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_what_was_committed_before_a_cut_stays(tmp_path, share):
    cycles = torture.Cycles(tmp_path / "run", largest=3000, slab_size_mib=4, sync_s=None)
    commits(cycles, 100)
    slab = tmp_path / "run" / "log_0000.mcap"
    cut = int(share * cycles.writer.size)
    before = slab.read_bytes()[:cut]
    os.truncate(slab, cut)
    with pytest.raises(LogDamaged) as caught:
        commits(cycles, 1)
    assert str(caught.value) == f"{slab}: {CUT.format(cut)}"
    with pytest.raises(LogDamaged):
        cycles.writer.finish({"reason": "test"})
    after = slab.read_bytes()
    assert len(after) == cut
    found, loss = torture.read(tmp_path / "run", 3000)
    assert found == list(range(len(found)))
    assert len(found) > 80 * share
    assert "truncated" in loss
    # The chunk's head may say that it was closed; no byte of a cycle is another.
    assert after[5000:] == before[5000:]
    assert recover(tmp_path / "run").lost is not None
    assert torture.read(tmp_path / "run", 3000)[0] == found


def test_a_cut_after_the_last_cycle_is_noticed_at_the_end(tmp_path):
    cycles = torture.Cycles(tmp_path / "run", largest=40, sync_s=None)
    commits(cycles, 20)
    slab = tmp_path / "run" / "log_0000.mcap"
    os.truncate(slab, slab.stat().st_size - 1)
    with pytest.raises(LogDamaged, match="another program cut it"):
        cycles.writer.finish({"reason": "test"})
    assert torture.read(tmp_path / "run", 40)[0] == list(range(20))


def test_a_slab_that_was_cut_and_is_as_long_again_is_noticed(tmp_path):
    """As where another file was copied over it."""
    cycles = torture.Cycles(tmp_path / "run", largest=40, sync_s=None)
    commits(cycles, 20)
    slab = tmp_path / "run" / "log_0000.mcap"
    size = slab.stat().st_size
    slab.write_bytes(b"\xff" * size)
    with pytest.raises(LogDamaged) as caught:
        cycles.writer._slabs.look(cycles.writer._lock)
    assert (
        str(caught.value) == f"{slab}: another program cut it or wrote over it while it was written"
    )
    with pytest.raises(LogDamaged):
        cycles.writer.finish({"reason": "test"})
    assert slab.read_bytes() == b"\xff" * size


def test_a_cut_within_the_page_that_is_written_is_noticed_when_the_chunk_is_closed(
    tmp_path, monkeypatch
):
    """The system keeps the page, and has zeros after the cut: no store misses it."""
    monkeypatch.setattr(log_slab, "CHUNK_SIZE", 10_000)
    cycles = torture.Cycles(tmp_path / "run", largest=40, sync_s=None)
    slab = cycles.writer._slabs.slab
    while slab.position % 4096 < 3000 or slab.position - slab.records_at < 9000:
        cycles.commit()
    at = slab.cycles[-1]
    os.truncate(slab.path, at)
    slab.mapping[at : slab.position] = bytes(slab.position - at)
    slab.position = slab.records_at + 10_001
    with pytest.raises(LogDamaged) as caught:
        slab.attend()
    assert str(caught.value) == f"{slab.path}: {CUT.format(at)}"


def test_a_slab_that_was_cut_while_it_grows_is_noticed(tmp_path, monkeypatch):
    """The new trailer would make it long again, with nothing before it."""
    monkeypatch.setattr(log_slab, "_LOOK_AHEAD", 100_000)
    cycles = torture.Cycles(tmp_path / "run", largest=3000, slab_size_mib=8, sync_s=None)
    commits(cycles, 10)
    slab = cycles.writer._slabs.slab
    os.truncate(slab.path, 0)
    with pytest.raises(LogDamaged) as caught:
        slab.reserve(slab.room_ends_at + 1)
    assert str(caught.value) == f"{slab.path}: {CUT.format(0)}"
    assert slab.path.stat().st_size == 0
    with pytest.raises(LogDamaged):
        cycles.writer.finish({"reason": "test"})


def test_a_slab_that_is_cut_the_moment_it_grows_is_not_said_to_be_on_a_full_disk(
    tmp_path, monkeypatch
):
    """The new trailer has made it long again: its length does not tell any more."""
    monkeypatch.setattr(log_slab, "_LOOK_AHEAD", 100_000)
    cycles = torture.Cycles(tmp_path / "run", largest=3000, slab_size_mib=8, sync_s=None)
    commits(cycles, 10)
    slab = cycles.writer._slabs.slab
    check = slab._check_length

    def check_and_cut():
        check()
        os.truncate(slab.path, 0)

    monkeypatch.setattr(slab, "_check_length", check_and_cut)
    with pytest.raises(LogDamaged) as caught:
        slab.reserve(slab.room_ends_at + 1)
    why = "another program cut it or wrote over it while it was written"
    assert str(caught.value) == f"{slab.path}: {why}"


def test_an_earlier_slab_that_is_cut_is_noticed(tmp_path):
    run = tmp_path / "run"
    cycles = torture.Cycles(run, largest=3000, sync_s=None)
    while not (run / "log_0002.mcap").exists():
        cycles.commit()
    size = (run / "log_0000.mcap").stat().st_size
    os.truncate(run / "log_0000.mcap", 1000)
    with pytest.raises(LogDamaged) as caught:
        cycles.writer._slabs.look(cycles.writer._lock)
    assert str(caught.value) == (
        f"{run}/log_0000.mcap: another program cut it from {size} to 1000 bytes while the run was logged"
    )
    cycles.writer.finish({"reason": "test"})


def test_slabs_that_are_cut_at_random_instants_end_nobody(tmp_path):
    """A process of its own: it forks, which a process with threads must not."""
    script = (
        "import sys, random, pathlib; from support import torture; rng = random.Random(7)\n"
        "for at in range(3):\n"
        "    folder = pathlib.Path(sys.argv[1]) / str(at); folder.mkdir()\n"
        "    print(torture.truncation_trial(folder, rng) > 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
        cwd=Path(torture.__file__).parents[1],
    )
    assert (done.stdout, done.stderr) == ("True\n" * 3, "")


# -- under a reader ------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path):
    """A finished run of three slabs."""
    cycles = torture.Cycles(tmp_path / "run", largest=3000, sync_s=None)
    while not (tmp_path / "run" / "log_0002.mcap").exists():
        cycles.commit()
    commits(cycles, 50)
    cycles.writer.finish({"reason": "test"})
    return tmp_path / "run"


@pytest.mark.parametrize("verify", [True, False])
def test_a_file_that_is_cut_while_it_is_read_is_a_loss_that_names_it(written, verify):
    cut = 400_000 & -4096
    with Log(written, verify=verify) as log:
        whole = len(log)
        messages = log.messages(torture.TOPIC)
        found = [next(messages).cycle]
        os.truncate(written / "log_0000.mcap", cut)
        found += [message.cycle for message in messages if message.fields]
        assert found == sorted(set(found))
        assert found[-1] == whole - 1  # the next slabs are whole
        missing = set(range(whole)) - set(found)
        assert min(missing) > 200
        assert max(missing) < whole - 500
        assert log.loss == (
            f"{written}/log_0000.mcap: byte {cut}: another program cut the file while it was read"
        )


def test_a_held_message_whose_bytes_are_gone_has_no_fields(written):
    with Log(written) as log:
        held = list(log.messages(torture.TOPIC))
        os.truncate(written / "log_0001.mcap", 0)
        lost = [message for message in held if message._slab.path.name == "log_0001.mcap"]
        assert set(bytes(lost[-1].payload)) == {0}
        assert held[0].fields["value"] == payload(0, len(held[0].fields["value"]))
        with pytest.raises(LogDamaged) as caught:
            _ = lost[-1].fields
        assert str(caught.value) == (
            f"{written}/log_0001.mcap: cycle {lost[-1].cycle}: {torture.TOPIC}: another program cut "
            "the file while it was read"
        )
        assert log.loss is not None


def test_check_says_which_file_was_cut_while_it_looked(written):
    with Log(written) as log:
        os.truncate(written / "log_0002.mcap", 8192)
        _, _, problems = check_log(log)
        assert (
            f"{written}/log_0002.mcap: byte 8192: another program cut the file while it was read"
            in problems
        )


def test_a_follower_of_a_slab_that_is_cut_ends_with_its_writer(tmp_path):
    message = BytesMsg(value=payload(0, 5000))
    writer = writer_of(tmp_path / "run", BytesMsg, sync_s=None)
    bound = writer.bind([message])
    message.publish(tov_ns=0)
    commit(writer, bound, 0)
    with Log(tmp_path / "run", follow=True) as log:
        cycles = log.cycles()
        assert next(cycles).cycle == 0
        os.truncate(tmp_path / "run" / "log_0000.mcap", 4096)
        with pytest.raises(LogDamaged):
            commit(writer, bound, 1)
        with pytest.raises(LogDamaged):
            writer.finish({"reason": "test"})
        assert list(cycles) == []
        assert f"{tmp_path}/run/log_0000.mcap: " in log.loss


# -- what is not ours ----------------------------------------------------------------------------

STRANGER = """
    import faulthandler, mmap, os, signal, sys
    from flowrun.runtime.log.slab.mapping import MappedFile
    {before}
    ours = open(sys.argv[1] + ".ours", "w+b")
    ours.write(b"x" * 8192)
    ours.flush()
    mapped = MappedFile(ours.fileno(), 8192)
    ours.truncate(4096)
    assert (mapped.view[4095], mapped.view[4096], mapped.region.whole_to) == (120, 0, 4096)
    theirs = open(sys.argv[1] + ".theirs", "w+b")
    theirs.truncate(8192)
    stranger = mmap.mmap(theirs.fileno(), 8192)
    theirs.truncate(0)
    {fault}
    print("not reached")
"""


@pytest.mark.parametrize("before", ["pass", "faulthandler.enable()"])
@pytest.mark.parametrize("fault", ["stranger[5000]", "os.kill(os.getpid(), signal.SIGBUS)"])
def test_a_bus_error_of_somebody_else_ends_the_process_as_ever(tmp_path, before, fault):
    script = textwrap.dedent(STRANGER.format(before=before, fault=fault))
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "file"],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert (done.returncode, done.stdout) == (-signal.SIGBUS, "")
    assert ("Fatal Python error: Bus error" in done.stderr) == (before != "pass")
    assert "Traceback" not in done.stderr


def test_the_action_of_a_signal_is_put_back_once_at_the_end(monkeypatch):
    """Afterwards there is no interpreter that could answer it."""
    registered = []
    faults._install()
    monkeypatch.setattr(faults.atexit, "register", registered.append)
    faults._uninstall()
    monkeypatch.setattr(faults, "_earlier", None)
    faults._install()
    faults._uninstall()
    faults._install()
    assert registered == [faults._uninstall]


@pytest.fixture
def uncollected():
    """Nothing is collected meanwhile: regions that other tests have left find themselves in `_REGIONS`
    when they go."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("beyond", [-1, 8192])
def test_a_fault_next_to_a_region_is_somebody_elses(tmp_path, monkeypatch, beyond):
    with (tmp_path / "file").open("w+b") as file:
        file.truncate(8192)
        mapped = MappedFile(file.fileno(), 8192)
    put_back = []
    monkeypatch.setattr(faults, "_REGIONS", {mapped.region.address: mapped.region})
    monkeypatch.setattr(faults, "_uninstall", lambda: put_back.append(True))
    for offset, is_ours in ((beyond, False), (0, True), (8191, True)):
        put_back.clear()
        info = faults._Info(signal.SIGBUS, 0, 2, mapped.region.address + offset)
        faults._answer(signal.SIGBUS, ctypes.pointer(info), None)
        assert (put_back == []) == is_ours
        assert mapped.region.is_cut == is_ours
        mapped.region.whole_to = mapped.region.size
    faults._CUT.pop(mapped.region.address, None)
