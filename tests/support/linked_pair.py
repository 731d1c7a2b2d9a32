"""Two partitions as real processes, with a proxy between them, and what came of what was sent."""

from __future__ import annotations

import contextlib
import io
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from zlib_ng.zlib_ng import crc32

from flowrun.runtime.cli import main as flowrun
from flowrun.runtime.errors import LogError
from flowrun.runtime.links.reached import last_cursor
from flowrun.runtime.links.runs import OwnRun, Runs
from flowrun.runtime.log.message import LoggedCycle
from flowrun.runtime.log.reader import Log
from support.cut_proxy import CutProxy, free_port
from support.forked_partitions import Partition, forking

__all__ = ["ENDS", "GRAPH", "TASKS", "Pair", "StalledError", "Tally"]

TASKS = '''
"""Numbers and large messages, and how many have come."""

from flowrun.msgs import BytesMsg, IntMsg
from flowrun.runtime.task import Context, Input, Output, Task, TaskConfig


class Ticks(Task):
    """The time, at 50 Hz; with every seventh, bytes."""

    class Config(TaskConfig):
        limit: int | None = None

    def start(self, ctx: Context) -> None:
        self.due_ns = self.count = self.here = 0

    def process(
        self, ctx: Context, number: Output[IntMsg], made: Output[IntMsg], large: Output[BytesMsg]
    ) -> None:
        if ctx.now_ns >= self.due_ns:
            self.due_ns = ctx.now_ns + 20_000_000
            self.count += 1
            self.here += 1
            number.value = ctx.now_ns
            number.publish()
            made.value = self.count
            made.publish()
            if self.count % 7 == 0:
                large.value = b"%19d" % ctx.now_ns * (ctx.now_ns // 1000 % 7000)
                large.publish()
        if self.here == self.config.limit:
            ctx.finish()
        else:
            ctx.wake_at(self.due_ns)

    def freeze(self) -> int:
        return self.count

    def thaw(self, state: int) -> None:
        self.count = state


class Count(Task):
    """How many numbers have come."""

    def start(self, ctx: Context) -> None:
        self.count = 0

    def process(
        self, ctx: Context, number: Input[IntMsg], large: Input[BytesMsg], total: Output[IntMsg]
    ) -> None:
        if number.present:
            self.count += 1
            total.value = self.count
            total.publish(tov_ns=number.tov_ns)

    def freeze(self) -> int:
        return self.count

    def thaw(self, state: int) -> None:
        self.count = state
'''
GRAPH = """
partitions:
  dock: {{listen: [tcp/127.0.0.1:{there}]{recover}}}
  gpu: {{connect: [tcp/127.0.0.1:{here}]{recover}}}
tasks:
  - {{id: ticks, type: ticking.Ticks, partition: dock}}
  - {{id: count, type: ticking.Count, partition: gpu}}
cnx:
  - {{src: ticks.number, dst: count.number, msg: IntMsg, link: {link}}}
  - {{src: ticks.large, dst: count.large, msg: BytesMsg, link: {link}}}
logging: {{slab_size_mib: 4, section_size_mib: 1, keyframe_interval: 100{logging}}}
"""
ENDS = ("dock", "gpu")
_GROWN_S = 20.0
"""Seconds to wait for a process to get on before it is killed all the same."""
_SETTLE_S = 300.0
"""Seconds within which a receiver must have got what its sender had, at any load of the machine."""


class StalledError(Exception):
    """A receiver does not get on, or a process has ended."""


@dataclass
class Tally:
    """What was done, and what was found."""

    done: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


class Sent(NamedTuple):
    """What a log of the sender has of one cycle. number, large: CRC-32 of the messages."""

    run: int
    cycle: int
    number: int | None
    large: int | None


class Got(NamedTuple):
    """What a log of the receiver has of one cycle, which took those from `first` to `last`."""

    run: int
    first: int
    last: int
    number: int | None
    large: int | None


class Pair:
    """`dock` and `gpu` in `folder`, whose logs are a fleet's.

    `dock` sends a number at 50 Hz, and with every seventh up to 130 kB; `gpu` counts the numbers.

    recover: whether both go on with what their tasks remembered. deliver: of both links.
    more: further options of both links. logging: of both.
    """

    def __init__(
        self,
        folder: Path,
        *,
        recover: bool = False,
        deliver: str = "every",
        more: str = "",
        logging: str = "",
    ) -> None:
        self.folder, self._recover = folder, recover
        self.forking = forking()
        there = free_port()
        self.proxy = CutProxy(there)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ticking.py").write_text(TASKS)
        (folder / "g.yaml").write_text(
            GRAPH.format(
                there=there,
                here=self.proxy.port,
                recover=", recover: replay" if recover else "",
                link=f"{{deliver: {deliver}{more}}}",
                logging=logging,
            )
        )
        self.logs = {
            part: Runs(folder / "fleet" / f"{part}-0", graph="g", partition=f"{part}/0")
            for part in ENDS
        }
        self.running: dict[str, Partition] = {}
        self.tally = Tally()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Start both; note what goes wrong within as a fault, and end both."""
        try:
            for part in ENDS:
                self.start(part)
            yield
        except StalledError as error:
            self.tally.faults.append(str(error))
        except Exception:  # noqa: BLE001  # other pairs go on
            self.tally.faults.append(traceback.format_exc())
        finally:
            for process in self.running.values():
                process.kill()

    # -- the processes -----------------------------------------------------------------------------

    def start(self, part: str, *options: str) -> None:
        self.running[part] = Partition(
            self.forking, self.folder, part, *options, logs=f"fleet/{part}-0"
        )

    def check_running(self) -> None:
        """A process that has ended by itself is a fault."""
        for part, process in self.running.items():
            if not process.is_alive:
                raise StalledError(f"{part} has ended by itself: {self.said(part)}")

    def said(self, part: str) -> str:
        return (self.folder / f"{part}.txt").read_text(errors="replace")[-2000:]

    def wait_grown(self, part: str, by: int) -> None:
        """Until the logs of a process have at least `by` cycles more of the sender's."""
        began = self.newest(part)
        self._wait(part, (began[0], began[1] + by), _GROWN_S)

    def settle(self) -> None:
        """Until the receiver has in its log what the sender has in its own now."""
        wanted = self.newest("dock")
        if not self._wait("gpu", wanted, _SETTLE_S):
            raise StalledError(
                f"gpu has {self.newest('gpu')} and not {wanted} after {_SETTLE_S:g} s: "
                f"{self.said('gpu')}"
            )

    def _wait(self, part: str, wanted: tuple[int, int], timeout_s: float) -> bool:
        until = time.monotonic() + timeout_s
        while self.newest(part) < wanted:
            self.check_running()
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True

    def newest(self, part: str) -> tuple[int, int]:
        """The newest of the sender's cycles in the logs of a process: its run, counted, and number."""
        numbers = [it.run for it in self.logs["dock"].look()]
        for run in reversed(self.logs[part].look()):
            with contextlib.suppress(LogError, ValueError), Log(run.path) as log:
                if part == "dock":
                    return numbers.index(run.run), _last_cycle(log)
                cursor = last_cursor(log, "from_dock")
                if cursor is not None:
                    return numbers.index(cursor.run), cursor.cycle - 1
        return -1, -1

    def end(self) -> None:
        """Have the sender end in order, and the receiver after it has all."""
        self.running["dock"].kill()
        self.start("dock", "--set", "ticks.limit=50")
        for part in ENDS:
            status = self.running[part].wait(_SETTLE_S)
            if status != 0:
                raise StalledError(f"{part} ended with {status}: {self.said(part)}")

    # -- what came ---------------------------------------------------------------------------------

    def compare(self) -> None:
        sent, got = list(self._sent()), list(self._got())
        done = self.tally.done
        for part in ENDS:
            runs = self.logs[part].look()
            done["runs"] += len(runs)
            done["runs without a cycle"] += sum(not _holds_cycle(it) for it in runs)
        there = {(it.run, it.cycle) for it in sent}
        taken = Counter(
            (it.run, cycle)
            for it in got
            for cycle in range(it.first, it.last + 1)
            if (it.run, cycle) in there
        )
        done["sent"], done["got"] = len(sent), taken.total()
        done["lost"] = len(there - taken.keys())
        done["twice"] = sum(count > 1 for count in taken.values())
        wrong = _first_wrong(sent, got)
        if wrong is not None:
            self.tally.faults.append(wrong)
        if self._recover:
            self._check_count("gpu", "/count/total")

    def _check_count(self, part: str, topic: str) -> None:
        counts = []
        for run in self.logs[part].look():
            with Log(run.path) as log:
                counts += [it.fields["value"] for it in log.messages(topic)]
        for expected, count in enumerate(counts, 1):
            if count != expected:
                self.tally.faults.append(f"{topic} is {count}; expected {expected}")
                return

    def _sent(self) -> Iterator[Sent]:
        for run in self.logs["dock"].look():
            with Log(run.path) as log:
                for cycle in log.cycles():
                    crcs = _crcs(cycle, "/ticks/number", "/ticks/large")
                    if any(it is not None for it in crcs):
                        yield Sent(run.run, cycle.cycle, *crcs)

    def _got(self) -> Iterator[Got]:
        for run in self.logs["gpu"].look():
            with Log(run.path) as log:
                for origin in log.messages("/from_dock/origin"):
                    said = origin.fields
                    if said["gap"]:
                        self.tally.faults.append(f"a gap: {said}")
                    ports = "/from_dock/ticks_number", "/from_dock/ticks_large"
                    crcs = _crcs(log[origin.cycle], *ports)
                    yield Got(said["run"], said["first"], said["cycle"], *crcs)

    def replay(self) -> None:
        """As `flowrun replay FLEET`."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            status = flowrun(["replay", str(self.folder / "fleet")])
        lines = out.getvalue().splitlines()
        if status:
            self.tally.faults.append("the fleet does not replay: " + "\n".join(lines[-8:]))
        self.tally.done["replays"] += not status


def _last_cycle(log: Log) -> int:
    """`ValueError` where there is none."""
    first = next(log.cycles(), None)
    if first is None:
        raise ValueError(log.path)
    return first.cycle + len(log) - 1


def _holds_cycle(run: OwnRun) -> bool:
    with Log(run.path) as log:
        return next(log.cycles(), None) is not None


def _crcs(cycle: LoggedCycle, number: str, large: str) -> tuple[int | None, int | None]:
    found = {topic: crc32(payload) for topic, _, payload in cycle.entries}
    return found.get(number), found.get(large)


def _first_wrong(sent: Sequence[Sent], got: Sequence[Got]) -> str | None:
    """The first of what came that is not what follows in what was sent; None if all is as sent."""
    at = 0
    for it in got:
        begins = at
        while at < len(sent) and sent[at].run == it.run and it.first <= sent[at].cycle <= it.last:
            at += 1
        taken = sent[begins:at]
        newest = [
            next((one for one in reversed(crcs) if one is not None), None)
            for crcs in ([one.number for one in taken], [one.large for one in taken])
        ]
        if not taken or newest != [it.number, it.large]:
            return f"got {it}; what follows there is {sent[begins : begins + 3]}"
    return None if at == len(sent) else f"{len(sent) - at} never came, from {sent[at]} on"
