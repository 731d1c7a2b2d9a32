"""What happens to a link when something fails, measured: the rows of docs/links.md.

    PYTHONPATH=tests python -m support.link_failures [NAME ...]

Two partitions as real processes over Zenoh on loopback. Each row ends with what was sent and what came;
the fleet must replay.
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from flowrun.runtime.log.files import slab_paths
from flowrun.runtime.log.lock import slab_number
from flowrun.runtime.log.reader import Log
from support.forked_partitions import Partition
from support.linked_pair import Pair, StalledError

STREAMS, PER_CYCLE, CYCLES_HZ = 100, 10, 150
"""Each of 100 streams has 15 messages a second: 1,500 in all."""


def _parameters(kind: str) -> str:
    return ", ".join(f"n{n}: {kind}[IntMsg]" for n in range(STREAMS))


_MANY = f'''
"""Numbers on many streams, each of which has its turn."""

from flowrun.msgs import IntMsg
from flowrun.runtime.task import Context, Input, Output, Task, TaskConfig

COUNT, PER_CYCLE = {STREAMS}, {PER_CYCLE}


class Ticks(Task):
    """{PER_CYCLE} numbers, {CYCLES_HZ} times a second."""

    class Config(TaskConfig):
        limit: int | None = None

    def start(self, ctx: Context) -> None:
        self.due_ns = self.here = 0

    def send(self, ctx: Context, outputs: list[IntMsg]) -> None:
        while ctx.now_ns >= self.due_ns:
            self.due_ns = max(self.due_ns, ctx.now_ns) + 1_000_000_000 // {CYCLES_HZ}
            for at in range(PER_CYCLE):
                output = outputs[(self.here * PER_CYCLE + at) % COUNT]
                output.value = ctx.now_ns
                output.publish()
            self.here += 1
        if self.here == self.config.limit:
            ctx.finish()
        else:
            ctx.wake_at(self.due_ns)

    def process(self, ctx: Context, {_parameters("Output")}) -> None:
        self.send(ctx, [{", ".join(f"n{n}" for n in range(STREAMS))}])


class Count(Task):
    """Takes them."""

    def process(self, ctx: Context, {_parameters("Input")}) -> None:
        """Nothing comes of it."""
'''


class Row(Pair):
    """One failure, and what came of it."""

    def messages(self, part: str) -> int:
        """Number of messages of the links in the logs of a process."""
        own = re.compile(r"/ticks/(number|large|n\d+)|/from_dock/ticks_.*")
        count = 0
        for run in self.logs[part].look():
            with Log(run.path) as log:
                for cycle in log.cycles():
                    count += sum(own.fullmatch(topic) is not None for topic, _, _ in cycle.entries)
        return count

    def restart(self, part: str) -> None:
        self.running[part].kill()
        self.start(part)

    def wait_said(self, part: str, text: str, timeout_s: float = 120) -> str:
        """The line of what a process prints that has `text` in it."""
        until = time.monotonic() + timeout_s
        while True:
            for line in (self.folder / f"{part}.txt").read_text(errors="replace").splitlines():
                if text in line:
                    return line
            if time.monotonic() > until:
                raise StalledError(f"{part} does not say {text!r}: {self.said(part)}")
            time.sleep(0.1)

    def finish(self) -> str:
        """Have both end in order and the fleet replay; how many of the messages came."""
        self.settle()
        self.end()
        if "n0:" not in (self.folder / "ticking.py").read_text():
            self.compare()
        self.replay()
        sent, got = self.messages("dock"), self.messages("gpu")
        if sent != got:
            self.tally.faults.append(f"{got} of {sent} came")
        return f"{got:,} of {sent:,}"


class ManyRow(Row):
    """With 100 streams."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "ticking.py").write_text(_MANY)
        text = (folder / "g.yaml").read_text()
        links = "\n".join(
            f"  - {{src: ticks.n{n}, dst: count.n{n}, msg: IntMsg}}" for n in range(STREAMS)
        )
        (folder / "g.yaml").write_text(
            re.sub(r"cnx:\n.*(?=logging:)", f"cnx:\n{links}\n", text, flags=re.DOTALL)
        )


def stop(folder: Path) -> tuple[Row, str]:
    """the receiver is stopped for 8 s, 100 streams, 1,500 messages/s"""
    row = ManyRow(folder)
    with row.watched():
        row.wait_grown("gpu", 50)
        row.running["gpu"].send(signal.SIGSTOP)
        time.sleep(8)
        row.running["gpu"].send(signal.SIGCONT)
        began = time.monotonic()
        row.settle()
        caught_s = time.monotonic() - began
        return row, f"{row.finish()}, caught up in {caught_s:.1f} s"
    return row, ""


def kills(folder: Path) -> tuple[Row, str]:
    """5 kills of the receiver, 1 of the sender, 100 streams, 1,500 messages/s"""
    row = ManyRow(folder)
    with row.watched():
        for part in ("gpu", "gpu", "dock", "gpu", "gpu", "gpu"):
            row.wait_grown(part, 30)
            row.restart(part)
        return row, row.finish()
    return row, ""


def cuts(folder: Path) -> tuple[Row, str]:
    """10 cuts of the link in 25 s"""
    row = Row(folder)
    with row.watched():
        row.wait_grown("gpu", 10)
        began, cpu_s = time.monotonic(), row.running["dock"].cpu_s
        for _ in range(10):
            time.sleep(2.3)
            row.proxy.cut()
            time.sleep(0.2)
            row.proxy.mend()
        spent, lasted = row.running["dock"].cpu_s - cpu_s, time.monotonic() - began
        return row, (
            f"{row.finish()}; the sending process took {100 * spent / lasted:.1f} % of a core over "
            f"{lasted:.0f} s"
        )
    return row, ""


def flip(folder: Path) -> tuple[Row, str]:
    """a byte is changed on the way"""
    row = Row(folder)
    with row.watched():
        row.wait_grown("gpu", 10)
        row.proxy.flip(least=4000, at=2000)
        line = row.wait_said("gpu", "was changed on the way")
        came = row.finish()
        if (
            re.search(r"dock/0 sent was changed on the way: run \d+, cycle \d+: CRC-32", line)
            is None
        ):
            row.tally.faults.append(f"the log line is {line!r}")
        return row, f"{came}; the log names dock/0, run and cycle"
    return row, ""


def full(folder: Path) -> tuple[Row, str]:
    """the disk is full, at the receiver, then at the sender"""
    row, said = Row(folder), []
    with row.watched():
        for part in ("gpu", "dock"):
            row.wait_grown(part, 10)
            row.running[part].limit_files(1 << 20)
            if row.running[part].wait(120) != 1:
                raise StalledError(f"{part} goes on: {row.said(part)}")
            said.append(next((it for it in row.said(part).splitlines() if "error:" in it), ""))
            row.start(part)
            row.wait_grown(part, 10)
        return row, f"{row.finish()}; each ends with a sentence: {said[0]!r}"
    return row, ""


def torn(folder: Path) -> tuple[Row, str]:
    """the end of the receiver's log is lost, as by a power cut"""
    row = Row(folder)
    with row.watched():
        row.wait_grown("gpu", 60)
        row.running["gpu"].kill()
        newest = slab_paths(row.logs["gpu"].look()[-1].path)[-1]
        with Log(newest) as log:
            used = log.slabs[-1].structure.chunks[-1]
            cut = (used.records_start + used.records_end) // 2
        with newest.open("r+b") as file:
            file.truncate(cut)
        row.start("gpu")
        row.wait_grown("gpu", 20)
        return row, row.finish()
    return row, ""


def older(folder: Path) -> tuple[Row, str]:
    """the receiver is started with an older copy of its log folder"""
    row = Row(folder)
    with row.watched():
        row.wait_grown("gpu", 30)
        row.running["gpu"].kill()
        logs = folder / "fleet" / "gpu-0"
        shutil.copytree(logs, folder / "copy")
        row.start("gpu")
        row.wait_grown("gpu", 30)
        row.running["gpu"].kill()
        shutil.rmtree(logs)
        shutil.move(folder / "copy", logs)
        row.start("gpu")
        return row, row.finish()
    return row, ""


def twice(folder: Path) -> tuple[Row, str]:
    """the receiver is started twice, with the same log folder and with another"""
    row = Row(folder)
    with row.watched():
        row.wait_grown("gpu", 20)
        for logs, text in (
            ("fleet/gpu-0", "runs as gpu/0 already"),
            ("other", "another process runs as gpu/0, since"),
        ):
            second = Partition(row.forking, folder, "gpu", logs=logs)
            if second.wait(120) != 1:
                second.kill()
                raise StalledError(f"a second gpu/0 goes on: {row.said('gpu')}")
            row.wait_said("gpu", text)
        return row, f"{row.finish()}; the second one ends, and says why"
    return row, ""


def _gap(row: Row) -> list[str]:
    return [
        it.fields["gap"]
        for run in row.logs["gpu"].look()
        for it in Log(run.path).messages("/from_dock/origin")
        if it.fields["gap"]
    ]


def gap(folder: Path) -> tuple[Row, str]:
    """the sender's log no longer has what the receiver lacks, on_gap: record"""
    row = Row(folder, logging=", mode: ring, keep_slabs: 2", more=", on_gap: record")
    with row.watched():
        _outlast(row)
        row.start("gpu")
        # Its own log is a ring too, which may no longer have what it said.
        row.wait_said("gpu", "never come: the sender's log no longer has them")
        row.settle()
        found = _gap(row)
        if found not in ([], ["the sender's log no longer has them"]):
            row.tally.faults.append(f"gaps: {found}")
        return row, "the gap is told, and what follows comes"
    return row, ""


def gap_stop(folder: Path) -> tuple[Row, str]:
    """the same, on_gap: stop"""
    row = Row(folder, logging=", mode: ring, keep_slabs: 2", more=", on_gap: stop")
    with row.watched():
        _outlast(row)
        row.start("gpu")
        if row.running["gpu"].wait(120) != 1:
            raise StalledError(f"gpu goes on: {row.said('gpu')}")
        row.wait_said(
            "gpu", "never come: the sender's log no longer has them; on_gap: record goes on"
        )
        return row, "the receiver's run ends, and says why"
    return row, ""


def _outlast(row: Row) -> None:
    """Have the receiver away until the sender has removed what it lacks."""
    row.wait_grown("gpu", 20)
    row.running["gpu"].kill()
    [run] = row.logs["dock"].look()
    # The sender holds the slab open that it answered from last.
    until, needed = time.monotonic() + 300, slab_number(slab_paths(run.path)[-1]) + 2
    while slab_number(slab_paths(run.path)[0]) < needed:
        if time.monotonic() > until:
            raise StalledError("dock keeps all its slabs")
        time.sleep(0.2)


ROWS: tuple[Callable[[Path], tuple[Row, str]], ...] = (
    stop, kills, cuts, flip, full, torn, older, twice, gap, gap_stop,
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description="what happens when something fails")
    parser.add_argument("names", nargs="*", help=", ".join(it.__name__ for it in ROWS))
    args = parser.parse_args()
    wrong = 0
    for row in ROWS:
        if args.names and row.__name__ not in args.names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            made, text = row(Path(folder))
        faults = made.tally.faults
        wrong += bool(faults)
        print(
            f"WRONG {row.__doc__}: {faults}" if faults else f"ok  {row.__doc__}: {text}", flush=True
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
