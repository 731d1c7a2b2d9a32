"""All processes of a graph in one, with a clock moved by hand and a network that fails by a seed.

Nothing waits and nothing happens by itself: the same seed gives the same cycles, the same messages and
the same logs, but for how long steps took. Tasks in the background run in the cycle, since a thread of
their own would not be reproduced; so would not be a source that reads a clock or a camera itself.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import structlog

from flowrun.runtime.clock import ManualClock
from flowrun.runtime.engine.executor import Executor
from flowrun.runtime.errors import FlowrunError, UsageError
from flowrun.runtime.fleet.local import ending_order
from flowrun.runtime.fleet.record import folder_of, write_fleet
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import Plan, plan_graph
from flowrun.runtime.graph.spec import GraphSpec, PartId
from flowrun.runtime.links.fake import FakeNetwork, Faults
from flowrun.runtime.links.links import Links
from flowrun.runtime.log.directory import new_run_directory
from flowrun.runtime.run.recording import Recording
from flowrun.runtime.wording import listed, nearest

__all__ = ["FAULTS", "Simulation", "chosen_faults", "simulated"]

FAULTS = ("drop", "dup", "delay", "flip", "cut", "kill")
"""What may go wrong: messages are lost, come twice, come late and out of order, have a byte changed;
two processes cannot reach each other; a process is killed and started again."""

_START_NS = 1_767_225_600_000_000_000  # 2026-01-01
_QUIET_NS = 30_000_000_000
"""After the last fault, time for what is missing to be asked for again."""
_STEP_NS = 20_000_000
_MOST_CYCLES = 10_000
"""That a process runs at one moment."""


def chosen_faults(text: str) -> frozenset[str]:
    """What `drop,cut,...` names. `UsageError` for another word."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if word not in FAULTS:
            raise UsageError(
                f"there is no fault {word!r}; faults: {listed(FAULTS)}{nearest(word, FAULTS)}"
            )
    return frozenset(words)


@dataclass(slots=True)
class Simulation:
    """One execution of `graph` by a seed.

    graphs: the graph of each process, with its part chosen; see `simulated`.
    folder: where the logs go.
    faults: which of `FAULTS` happen.
    duration_ns: of the time in which they do.
    """

    graphs: Mapping[PartId, GraphSpec]
    folder: Path
    seed: int
    faults: frozenset[str]
    duration_ns: int
    happened: list[str] = field(default_factory=list)
    """What went wrong, in order."""
    _clock: ManualClock = field(init=False)
    _random: random.Random = field(init=False)
    _network: FakeNetwork = field(init=False)
    _processes: dict[PartId, _Process] = field(init=False)
    _cut: set[tuple[PartId, PartId]] = field(init=False)

    def run(self) -> None:
        """Run all processes until their sources have ended, or the time is over and all that was sent
        has come. Raises what a process raised, naming it."""
        self._clock = ManualClock(_START_NS)
        self._random = random.Random(self.seed)  # noqa: S311  # reproducible on purpose
        self._network = FakeNetwork(self.seed)
        self._cut = set()
        first = next(iter(self.graphs.values()))
        write_fleet(self.folder, first)
        self._processes = {
            part: _Process(part, graph, self.folder, self._clock, self._network)
            for part, graph in self.graphs.items()
        }
        try:
            for process in self._processes.values():
                process.begin()
            self._play()
            self._settle(first)
        finally:
            for process in self._processes.values():
                process.kill()

    @property
    def digest(self) -> int:
        """CRC-32 of all messages that all processes have published, in order."""
        crc = 0
        for process in self._processes.values():
            crc = zlib.crc32(str(process.part).encode(), crc)
            crc = zlib.crc32(process.crc.to_bytes(4, "little"), crc)
        return crc

    @property
    def plans(self) -> dict[PartId, Plan]:
        """The plan of each process."""
        return {part: process.plan for part, process in self._processes.items()}

    @property
    def cycles(self) -> int:
        """Number of cycles of all processes."""
        return sum(process.cycles for process in self._processes.values())

    # -- inside --------------------------------------------------------------------------------------

    def _play(self) -> None:
        until_ns = _START_NS + self.duration_ns
        while self._clock.time_ns < until_ns and not self._is_over():
            self._act()
            self._advance(self._random.choice((1, 20, 400)) * 1_000_000)

    def _settle(self, graph: GraphSpec) -> None:
        """End all faults, let come what has been sent, then end the processes, senders first."""
        self._network.faults = Faults()
        for pair in sorted(self._cut):
            self._network.mend(*map(str, pair))
        self._cut.clear()
        for process in self._processes.values():
            if not process.is_alive and not process.has_ended:
                process.begin()
        self._advance(_QUIET_NS)
        for group in ending_order(graph):
            for part in group:
                self._processes[part].stop()
            self._advance(_QUIET_NS)

    def _is_over(self) -> bool:
        return all(process.has_ended for process in self._processes.values())

    def _act(self) -> None:
        """Have something go wrong, now and then."""
        act = self._random.random()
        of_messages = self.faults & {"drop", "dup", "delay", "flip"}
        if act < 0.1 and of_messages:
            self._network.faults = self._new_faults()
            self._note(f"{self._network.faults}")
        elif act < 0.16 and "cut" in self.faults:
            pair = self._pair()
            if pair is not None:
                self._cut.add(pair)
                self._network.cut(*map(str, pair))
                self._note(f"cut {pair[0]} - {pair[1]}")
        elif act < 0.26 and self._cut:
            pair = self._random.choice(sorted(self._cut))
            self._cut.discard(pair)
            self._network.mend(*map(str, pair))
            self._note(f"mend {pair[0]} - {pair[1]}")
        elif act < 0.34 and "kill" in self.faults:
            process = self._random.choice(list(self._processes.values()))
            if process.is_running:
                process.kill()
                self._note(f"kill {process.part}")
        elif act < 0.5:
            for process in self._processes.values():
                if not process.is_alive and not process.has_ended:
                    process.begin()
                    self._note(f"start {process.part}")

    def _new_faults(self) -> Faults:
        choice, on = self._random.choice, self.faults
        drop, dup = choice([0.0, 0.05, 0.4]), choice([0.0, 0.3])
        delay, flip = choice([0, 5_000_000, 300_000_000]), choice([0.0, 0.05])
        return Faults(
            drop=drop if "drop" in on else 0.0,
            duplicate=dup if "dup" in on else 0.0,
            delay_ns=delay if "delay" in on else 0,
            flip=flip if "flip" in on else 0.0,
        )

    def _pair(self) -> tuple[PartId, PartId] | None:
        pairs = [
            (process.part, boundary.peer)
            for process in self._processes.values()
            for boundary in process.plan.graph.sends
        ]
        return self._random.choice(pairs) if pairs else None

    def _note(self, text: str) -> None:
        at_s = (self._clock.time_ns - _START_NS) / 1e9
        self.happened.append(f"{at_s:8.3f} s  {text}")

    def _advance(self, by_ns: int) -> None:
        """Move the time on, from one moment at which something is due to the next."""
        until_ns = self._clock.time_ns + by_ns
        while True:
            self._network.step(self._clock.time_ns)
            for process in self._processes.values():
                process.pump()
            now_ns = self._clock.time_ns
            if now_ns >= until_ns:
                return
            due = [self._network.next_ns, *(it.due_ns for it in self._processes.values())]
            soonest = min((it for it in due if it is not None and it > now_ns), default=until_ns)
            self._clock.advance_to(min(soonest, now_ns + _STEP_NS, until_ns))


class _Process:
    """One process: its runs, one after the other."""

    def __init__(
        self, part: PartId, graph: GraphSpec, folder: Path, clock: ManualClock, network: FakeNetwork
    ) -> None:
        self.part, self.plan = part, plan_graph(bind(graph, ready=False))
        self.cycles = self.crc = 0
        self.has_ended = False
        self._log_dir = folder_of(folder, part)
        self._clock, self._network = clock, network
        self._executor: Executor | None = None
        self._recording: Recording | None = None
        self._links: Links | None = None
        self._is_finished = False
        self._end_said_ns = 0

    @property
    def is_alive(self) -> bool:
        return self._executor is not None

    @property
    def is_running(self) -> bool:
        """Whether it has a run that goes on. One that has ended in order is not killed while it waits
        for its receivers: started again, it would send from its first cycle, and they have ended."""
        return self._executor is not None and not self._is_finished

    @property
    def due_ns(self) -> int | None:
        if self._executor is None or self._is_finished:
            return None
        return self._executor.due_ns

    def begin(self) -> None:
        """Start a run."""
        self._clock.time_ns += 1  # no two runs begin at once
        started_ns = self._clock.time_ns
        directory = new_run_directory(self._log_dir, f"{self.plan.graph.spec.name}-{started_ns}")
        self._recording = recording = Recording(
            self.plan, directory, started_ns=started_ns, now_ns=self._clock.now_ns
        )
        log = structlog.get_logger().bind(part=str(self.part))
        recording.report_to(log)
        self._executor = executor = Executor(
            self.plan, clock=self._clock, log=recording.writer, run_id=directory.name
        )
        self._links = links = Links(
            self.plan,
            directory,
            started_ns=started_ns,
            clock=self._clock,
            log=log,
            committed=recording.writer.follow() if recording.writer is not None else None,
            transport=lambda _: self._network.transport(str(self.part)),
            now_s=lambda: self._clock.time_ns / 1e9,
        )
        links.on_error = executor.stop
        executor.observer = self._look
        self._is_finished = False
        links.start(executor.instances, threaded=False)
        self._named(executor.begin)

    def pump(self) -> None:
        """Do all that can be done now."""
        if self._executor is None or self._links is None:
            return
        self._links.pump()
        if self._is_finished:
            self._wait_for_receivers()
            return
        for _ in range(_MOST_CYCLES):
            if not self._named(self._executor.try_cycle):
                break
        if self._links.error is not None:
            raise FlowrunError(f"{self.part}: {self._links.error}")
        if self._executor.stop_reason is not None:
            self._finish(self._executor.stop_reason)
        else:
            self._links.pump()

    def stop(self) -> None:
        """End the run in order, unless it has ended."""
        if self._executor is not None and not self._is_finished:
            self._finish("the end of the simulation")

    def kill(self) -> None:
        """End the process as SIGKILL does: nothing is finished."""
        if self._executor is None:
            return
        if self._recording is not None and not self._is_finished:
            self._recording.abandon()
        if self._links is not None:
            self._links.end(in_order=False)
        self._executor = self._recording = self._links = None

    def _finish(self, reason: str) -> None:
        assert self._executor is not None
        assert self._recording is not None
        self._named(self._executor.finish)
        self._recording.finish(reason, None, cycles=self._executor.cycles)
        self._is_finished = True
        self._end_said_ns = 0

    def _wait_for_receivers(self) -> None:
        assert self._links is not None
        if self._clock.time_ns - self._end_said_ns < 1_000_000_000:
            return
        self._end_said_ns = self._clock.time_ns
        if self._links.say_end():
            self.has_ended = True
            self._links.end(in_order=True)
            self._executor = self._recording = self._links = None

    def _look(self, cycle: Any) -> None:
        self.cycles += 1
        for slot, message in zip(self.plan.slots, cycle.messages, strict=True):
            if message.present:
                self.crc = zlib.crc32(slot.topic.encode(), self.crc)
                self.crc = zlib.crc32(b"".join(message.view().encode()), self.crc)
        assert self._links is not None
        self._links.look(cycle)

    def _named(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except FlowrunError as error:
            raise FlowrunError(f"{self.part}: {error}") from error


def simulated(graph: GraphSpec) -> GraphSpec:
    """A process's graph as it is simulated: nothing runs in the background, and nothing is brought to
    the disk before it must."""
    tasks = tuple(replace(task, background=False) for task in graph.tasks)
    logging = replace(graph.logging, slab_size_mib=4, section_size_mib=1, sync_s=1e6)
    runtime = replace(graph.runtime, executor="serial", affinity=None, nice=None)
    return replace(graph, tasks=tasks, logging=logging, runtime=runtime)
