"""Kills the real writer, takes pages from its files and cuts them, many times; `make torture-log`.

    PYTHONPATH=tests python -m support.torture [--kills 300] [--commands 20] [--losses 2000] [--seed 1]
        [--truncations 2000]

kills: a process that logs is killed by SIGKILL at a random instant. commands: the same with a run of
the command `flowrun`, its recovery and a next run. losses: pages of a log that never reached the
disk, as a power cut leaves them. truncations: a slab is cut at a random instant under a process that
writes it and two that read it. A finished and an unfinished log are also cut at every offset.
"""

from __future__ import annotations

import argparse
import contextlib
import mmap
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mcap.reader import make_reader

from flowrun.msgs import BytesMsg
from flowrun.runtime.errors import LogError
from flowrun.runtime.log.channels import LoggedOutput
from flowrun.runtime.log.check import check_log
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.recover import recover
from flowrun.runtime.log.slab import writer as log_slab
from flowrun.runtime.log.writer import LogWriter

TOPIC = "/t/out"
PAGE = 4096
GRAPH = """
tasks:
  - {id: counter, type: Counter, config: {rate_hz: 2000}}
  - {id: square, type: Square}
cnx: [{src: counter, dst: square, msg: IntMsg}]
logging: {slab_size_mib: 1, section_size_mib: 1}
"""


def payload(cycle: int, largest: int) -> bytes:
    """What cycle `cycle` logs: its bytes tell which one it is."""
    size = 1 + (cycle * 7919) % largest
    return (b"%d " % cycle * (size // 2 + 1))[:size]


class Cycles:
    """Commits cycle after cycle, and tells a shared counter as soon as each commit has returned."""

    def __init__(self, directory: Path, *, largest: int, **options: Any) -> None:
        sizes = {"slab_size_mib": 1, "section_size_mib": 1, **options}
        self.writer = LogWriter(
            directory,
            outputs=[LoggedOutput("t", "out", TOPIC, BytesMsg)],
            steps=1,
            metadata={"run_id": "torture"},
            **sizes,
        )
        self.message = BytesMsg()
        self.bound = self.writer.bind([self.message])
        self.largest = largest
        self.next = 0

    def commit(self) -> None:
        cycle = self.next
        self.message.value = payload(cycle, self.largest)
        self.message.publish(tov_ns=cycle)
        self.writer.commit(cycle, 1 + cycle, self.bound, start_ns=0, ends_ns=[cycle], events=[])
        self.next += 1


def read(path: Path, largest: int) -> tuple[list[int], str | None]:
    """The cycles that `path` holds, each checked against what was committed, and the stated loss."""
    found = []
    with Log(path) as log:
        for message in log.messages(TOPIC):
            value = message.fields["value"]
            assert value == payload(message.cycle, largest), f"{path}: a wrong message: {message}"
            assert message.tov_ns == message.cycle, f"{path}: {message}"
            found.append(message.cycle)
        return found, log.loss


# -- SIGKILL -------------------------------------------------------------------------------------


def kill_trial(directory: Path, rng: random.Random, *, ring: bool = False) -> int:
    """Kill a writer at a random instant; how many cycles it had committed."""
    run = directory / "run"
    largest = rng.choice([40, 3000, 90_000])
    options = {"keep_slabs": 2} if ring else {}
    with mmap.mmap(-1, PAGE) as shared:
        child = os.fork()
        if child == 0:
            try:
                _write_until_killed(
                    run, shared, largest, chunk=rng.choice([20_000, 8 << 20]), **options
                )
            finally:
                os._exit(1)
        while shared[0] == 0:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, rng.choice([0.01, 0.15])))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "the writer ended by itself"
        (committed,) = struct.unpack_from("<Q", shared, 8)
    slabs = list(run.glob("*.mcap"))
    if not slabs:
        assert committed == 0
        return 0
    try:
        before, loss = read(run, largest)
    except LogError:
        # Killed before its first slab was begun.
        assert committed == 0
        return 0
    assert loss is None, loss
    # It may have died between a commit and telling so.
    assert not before or before[-1] + 1 in (committed, committed + 1), (before[-1], committed)
    assert len(before) >= committed or ring
    assert before == list(
        range(before[0] if before else 0, before[0] + len(before) if before else 0)
    )
    assert ring or not before or before[0] == 0
    report = recover(run)
    assert report.lost is None, report.lost
    after, loss = read(run, largest)
    assert (after, loss) == (before, None)
    with Log(run) as log:
        assert log.finished
        assert check_log(log)[2] == []
    seen = 0
    for path in run.glob("*.mcap"):
        with path.open("rb") as file:
            seen += sum(1 for _ in make_reader(file, validate_crcs=True).iter_messages([TOPIC]))
    assert seen == len(after)
    return committed


def _write_until_killed(
    run: Path, shared: mmap.mmap, largest: int, *, chunk: int, **options: int
) -> None:
    log_slab.CHUNK_SIZE, log_slab._LOOK_AHEAD = chunk, 200_000
    shared[0] = 1
    committed = memoryview(shared).cast("Q")  # a store of one number is atomic
    cycles = Cycles(run, largest=largest, **options)
    while True:
        cycles.commit()
        committed[1] = cycles.next


def command_trial(directory: Path, rng: random.Random) -> int:
    """Kill a run of the command; recover it, and run again, by the command."""
    graph = directory / "g.yaml"
    graph.write_text(GRAPH)
    running = subprocess.Popen(
        [*_flowrun(), graph, "--plain"],
        cwd=directory,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not list(directory.glob("runs/*/log_0000.mcap")):
        assert running.poll() is None
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 1.5))
    running.kill()
    running.wait()
    [run] = (directory / "runs").glob("[!.]*")
    for verb in ("recover", "check"):
        subprocess.run([*_flowrun(), "log", verb, run], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(
        [*_flowrun(), graph, "--cycles", "5"],
        cwd=directory,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    with Log(run) as log:
        assert log.finished
        numbers = [m.fields["value"] for m in log.messages("/square/square")]
        assert numbers == [n * n for n in range(len(numbers))] or numbers == [
            n * n for n in range(1, len(numbers) + 1)
        ]
        return len(log)


def _flowrun() -> list[str]:
    return [sys.executable, "-m", "flowrun.runtime.cli"]


# -- another program cuts a slab -----------------------------------------------------------------

_AT_MOST_S = 20.0
"""Seconds after the cut in which its writer must have noticed it; it does within one. A busy disk may
keep the cut itself waiting for longer."""
_BEFORE_CUT = 64 << 20
"""Bytes that a writer has written at most before the cut: more of them would keep the cut waiting."""
_UNNOTICED = "nothing was noticed"
_BEGUN, _CUT = 1, 2
"""What `numbers[2]` says of the cut."""


def truncation_trial(directory: Path, rng: random.Random) -> int:
    """Cut a slab under its writer and two readers; how many cycles had been committed."""
    run = directory / "run"
    largest = rng.choice([40, 3000, 90_000, 400_000])
    options = {"slab_size_mib": rng.choice([1, 4, 64]), "sync_s": rng.choice([None, 0.02])}
    chunk, ahead = rng.choice([20_000, 200_000, 8 << 20]), rng.choice([200_000, 32 << 20])
    with mmap.mmap(-1, PAGE) as shared:
        numbers = memoryview(shared).cast("Q")
        writer = _forked(lambda: _write_until_cut(run, numbers, largest, chunk, ahead, options))
        while numbers[0] == 0 and os.waitpid(writer, os.WNOHANG) == (0, 0):
            time.sleep(0.0005)
        readers = [
            _forked(lambda verify=verify: _read_until_cut(run, numbers, largest, verify=verify))
            for verify in (True, False)
        ]
        time.sleep(rng.uniform(0, 0.05))
        path = max(run.glob("log_*.mcap"))
        size = path.stat().st_size
        to = rng.choice(
            [0, rng.randrange(size + 1), rng.randrange(min(size, 50_000) + 1), max(size - 20, 0)]
        )
        numbers[2] = _BEGUN
        os.truncate(path, to)
        numbers[2] = _CUT
        _, status = os.waitpid(writer, 0)
        numbers[1] = 1  # nothing comes any more
        endings = [os.waitpid(reader, 0)[1] for reader in readers]
        text = bytes(shared[64:]).rstrip(b"\0").decode()
        committed = numbers[0]
        numbers.release()
    outcome = f"{path} cut from {size} to {to}: {status}, {endings}: {text}"
    if text == _UNNOTICED:  # the cut took nothing: the slab was being made, or was finished shorter
        assert status == 0, outcome
        assert read(run, largest) == (list(range(committed)), None), outcome
        return committed
    assert (status, endings) == (0, [0, 0]), outcome
    assert f"{path}: another program cut it " in text, text
    try:
        found, loss = read(run, largest)
    except LogError:
        return committed
    assert loss is not None
    assert found == sorted(set(found))
    assert len(found) <= committed + 1
    return committed


def _forked(work: Callable[[], None]) -> int:
    """The process that does `work`; its status is 0 if that went as it should."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - a copy of this process must not go on
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def _write_until_cut(
    run: Path,
    numbers: memoryview,
    largest: int,
    chunk: int,
    ahead: int,
    options: dict[str, Any],
) -> None:
    log_slab.CHUNK_SIZE, log_slab._LOOK_AHEAD = chunk, ahead
    cycles = Cycles(run, largest=largest, section_size_mib=1, **options)
    until = None
    text = _UNNOTICED
    try:
        while until is None or time.monotonic() < until:
            if until is None and numbers[2] == _CUT:
                until = time.monotonic() + _AT_MOST_S
            if until is None and cycles.writer.size > _BEFORE_CUT:
                time.sleep(0.0005)
                continue
            cycles.commit()
            numbers[0] = cycles.next
    except LogError as error:
        text = str(error)
    with contextlib.suppress(LogError):
        cycles.writer.finish({"reason": "test"})
    data = text.encode()
    numbers.cast("B")[64 : 64 + len(data)] = data


def _read_until_cut(run: Path, numbers: memoryview, largest: int, *, verify: bool) -> None:
    while True:
        is_last = numbers[1] != 0
        try:
            with Log(run, verify=verify) as log:
                for message in log.messages(TOPIC):
                    value = message.fields["value"]
                    # What is cut off between its check and its use, in a page that stays, is zeros.
                    is_right = value == payload(message.cycle, largest)
                    assert is_right or not verify or numbers[2], message
                    held = message.payload  # read again, when it may be gone
                    len(bytes(held))
                if is_last:
                    is_noticed = bytes(numbers[8:]).rstrip(b"\0") != _UNNOTICED.encode()
                    assert not is_noticed or log.loss is not None, "the reader noticed nothing"
                    return
        except LogError as error:
            if str(run) not in str(error):
                raise
            if is_last:
                return


# -- power loss ----------------------------------------------------------------------------------


def small_log(directory: Path, *, finished: bool, cycles: int = 12, largest: int = 120) -> Path:
    """A log of the real writer with several chunks; the path of its only slab."""
    before = log_slab.CHUNK_SIZE, log_slab._LOOK_AHEAD
    log_slab.CHUNK_SIZE, log_slab._LOOK_AHEAD = cycles * largest // 8, 100_000
    try:
        written = Cycles(directory, largest=largest)
        for _ in range(cycles):
            written.commit()
        path = directory / "log_0000.mcap"
        left = path.read_bytes()
        written.writer.finish({"reason": "test"})
        if not finished:
            path.write_bytes(left)
    finally:
        log_slab.CHUNK_SIZE, log_slab._LOOK_AHEAD = before
    return path


def assert_prefix(path: Path, *, data: bytes, cycles: int, largest: int) -> int:
    """The law: a `LogError`, or the first cycles and, where some are missing, a stated loss."""
    path.write_bytes(data)
    try:
        found, loss = read(path, largest)
    except LogError as error:
        if str(path) not in str(error):
            raise
        return 0
    assert found == list(range(len(found)))
    assert len(found) == cycles or loss is not None, f"{cycles - len(found)} cycles missing, unsaid"
    return len(found)


def cut_everywhere(path: Path, *, stride: int = 1, cycles: int = 12, largest: int = 120) -> int:
    """Cut the log at every `stride`th offset of what was written; how many cuts."""
    data = path.read_bytes()
    written = len(data.rstrip(b"\0")) if path.stat().st_size < 1 << 16 else _end_of_data(data)
    sizes = range(0, written, stride)
    for size in sizes:
        assert_prefix(path, data=data[:size], cycles=cycles, largest=largest)
    return len(sizes)


def _end_of_data(data: bytes) -> int:
    """Where the zeros of an unfinished slab's PAD begin."""
    return len(data[: len(data) - 50].rstrip(b"\0")) + 16


def lose_pages(path: Path, rng: random.Random, *, cycles: int, largest: int) -> int:
    """Drop random pages, and some of the file's end; how many cycles were read all the same."""
    data = bytearray(path.read_bytes())
    end = min(len(data), _end_of_data(bytes(data)))
    pages = range(0, end, PAGE)
    for at in rng.sample(pages, rng.randint(1, min(len(pages), 4))):
        data[at : at + PAGE] = bytes(len(data[at : at + PAGE]))
    if rng.random() < 0.3:
        del data[rng.randrange(end) :]
    copy = path.with_name("copy.mcap")
    return assert_prefix(copy, data=bytes(data), cycles=cycles, largest=largest)


def power_loss(directory: Path, rng: random.Random, trials: int) -> int:
    """How many cycles were kept in all `trials`, half of them with an unfinished log."""
    kept = 0
    for finished in (True, False):
        folder = directory / str(finished)
        path = small_log(folder, finished=finished, cycles=200, largest=900)
        for _ in range(trials // 2):
            kept += lose_pages(path, rng, cycles=200, largest=900)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--commands", type=int, default=20)
    parser.add_argument("--losses", type=int, default=2000)
    parser.add_argument("--truncations", type=int, default=2000)
    parser.add_argument("--stride", type=int, default=1, help="cut at every N bytes")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    root = Path(tempfile.mkdtemp(prefix="flowrun-torture-"))

    def trials(
        name: str,
        count: int,
        trial: Callable[[Path, int], int],
        claim: str = "none lost, none wrong",
    ) -> None:
        cycles = 0
        for number in range(count):
            folder = root / f"{name}-{number}"
            folder.mkdir()
            cycles += trial(folder, number)
            shutil.rmtree(folder)
        print(f"{count} {name}: {cycles} committed cycles, {claim}", flush=True)

    trials("writers killed", args.kills, lambda at, n: kill_trial(at, rng, ring=n % 2 == 1))
    trials("commands killed", args.commands, lambda at, _n: command_trial(at, rng))
    trials(
        "slabs cut by others",
        args.truncations,
        lambda at, _n: truncation_trial(at, rng),
        "each cut noticed by writer and readers, none wrong",
    )
    for finished in (True, False):
        path = small_log(root / f"cut-{finished}", finished=finished)
        cuts = cut_everywhere(path, stride=args.stride)
        print(f"{cuts} cuts of a log ({'un' * (not finished)}finished): each gave a prefix")
    kept = power_loss(root, rng, args.losses)
    print(f"{args.losses} logs with lost pages: {kept} cycles read, none wrong, each loss stated")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
