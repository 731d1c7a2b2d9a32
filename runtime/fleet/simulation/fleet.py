"""All processes of a graph on one network, by one clock."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from flowrun.runtime.clock import ManualClock
from flowrun.runtime.errors import FlowrunError, InternalError
from flowrun.runtime.fleet.ending import ending_order_of_plans
from flowrun.runtime.fleet.record import write_fleet
from flowrun.runtime.fleet.simulation.invariants import Verdict, verdict
from flowrun.runtime.fleet.simulation.mischief import Mischief, Mishap
from flowrun.runtime.fleet.simulation.process import Process
from flowrun.runtime.graph.plan import Plan
from flowrun.runtime.graph.spec import GraphSpec, PartId
from flowrun.runtime.links.fake import FakeNetwork
from flowrun.runtime.log.reader import Log
from flowrun.runtime.simulated import simulating

__all__ = ["DefectError", "Simulation"]

_START_NS = 1_767_225_600_000_000_000  # 2026-01-01
_RECOVER_NS = 3_000_000_000
"""After the last fault, time for the processes to find each other again."""
_QUIET_NS = 120_000_000_000
"""In which all that was sent must have come."""
_STEP_NS = 20_000_000


class DefectError(InternalError):
    """An exception that nobody expected; its cause. where: in which process, or when."""

    def __init__(self, where: str, error: Exception) -> None:
        super().__init__(f"a defect of flowrun, {where}: {type(error).__name__}: {error}")


@dataclass(slots=True)
class Simulation:
    """One execution by a seed.

    plans: of each process; see `plan_of`.
    folder: where the logs go.
    faults: which of `FAULTS` happen.
    duration_ns: of the time in which they do.
    without: see `Mischief`.
    """

    plans: Mapping[PartId, Plan]
    folder: Path
    seed: int
    faults: frozenset[str]
    duration_ns: int
    without: frozenset[int] = frozenset()
    _clock: ManualClock = field(init=False)
    _network: FakeNetwork = field(init=False)
    _mischief: Mischief = field(init=False)
    _processes: dict[PartId, Process] = field(init=False)

    def run(self) -> None:
        """Run all processes until their sources have ended, or the time is over and all that was sent
        has come. Raises what a process raised, naming it: `DefectError` for no `FlowrunError`."""
        self._clock = ManualClock(_START_NS)
        self._network = FakeNetwork(self.seed)
        self._processes = {}
        self._mischief = Mischief(
            self.seed, self.faults, self._network, [], self._pairs(), self.without
        )
        write_fleet(self.folder, next(iter(self.plans.values())).graph.spec)
        for part, plan in self.plans.items():
            self._processes[part] = Process(
                plan,
                self.folder,
                self._clock,
                self._network,
                seed=self.seed,
                ahead_ns=self._mischief.skew_ns(),
                others=self._processes,
                say=self._note,
            )
        self._mischief.victims = list(self._processes.values())
        with simulating(self._clock.now_ns), _named(self._at), ExitStack() as ending:
            for process in self._processes.values():
                ending.callback(process.kill)
            for process in self._turns():
                process.begin()
            self._play()
            self._settle()

    def verdict(self, specs: Callable[[Log], GraphSpec]) -> Verdict:
        """Whether all that must hold does, once `run` has returned. Raises as that.

        specs: as `FleetReplay` takes it.
        """
        with simulating(self._clock.now_ns), _named(lambda: "when the logs are checked"):
            found = verdict(self.folder, self.plans, specs, failed=self._failed)
        meanwhile = [text for it in self._processes.values() for text in it.promises.broken]
        return replace(found, broken=[*meanwhile, *found.broken])

    @property
    def happened(self) -> list[Mishap]:
        """What went wrong, in order."""
        return self._mischief.happened

    @property
    def digest(self) -> int:
        """CRC-32 of all messages that all processes have published, in order."""
        crc = 0
        for process in self._processes.values():
            crc = zlib.crc32(str(process.part).encode(), crc)
            crc = zlib.crc32(process.promises.crc.to_bytes(4, "little"), crc)
        return crc

    @property
    def cycles(self) -> int:
        """Number of cycles of all processes."""
        return sum(process.cycles for process in self._processes.values())

    # -- inside --------------------------------------------------------------------------------------

    def _turns(self, parts: Iterable[PartId] | None = None) -> Iterator[Process]:
        """Processes, all if not given; what one of them raises until the next is its own."""
        for part in self._processes if parts is None else parts:
            self._network.at = str(part)
            yield self._processes[part]

    def _at(self) -> str:
        return f"in {self._network.at}"

    @property
    def _failed(self) -> frozenset[PartId]:
        """The processes that have ended with an error, and were not to be started again."""
        return frozenset(it.part for it in self._processes.values() if it.has_failed)

    def _pairs(self) -> list[tuple[PartId, PartId]]:
        return [
            (part, boundary.peer)
            for part, plan in self.plans.items()
            for boundary in plan.graph.sends
        ]

    def _play(self) -> None:
        until_ns = _START_NS + self.duration_ns
        while self._clock.time_ns < until_ns and not self._is_over():
            self._mischief.act(self._at_s)
            self._advance(self._mischief.pause_ns())

    def _settle(self) -> None:
        """End all faults, let come what has been sent, then end the processes, senders first."""
        self._mischief.end()
        self._advance(_RECOVER_NS)
        for group in ending_order_of_plans(self.plans):
            ending = [self._processes[part] for part in group]
            for process in self._turns(group):
                process.stop()
            self._advance(_QUIET_NS, partial(_have_ended, ending))
            for process in ending:
                if not process.has_ended:
                    process.promises.broken.append(
                        f"{process.part} has ended, and its receivers do not say within "
                        f"{_QUIET_NS // 10**9} s that they have all"
                    )

    def _is_over(self) -> bool:
        return _have_ended(self._processes.values())

    @property
    def _at_s(self) -> float:
        return (self._clock.time_ns - _START_NS) / 1e9

    def _note(self, what: str) -> None:
        self._mischief.happened.append(Mishap(-1, self._at_s, what))

    def _advance(self, by_ns: int, is_enough: Callable[[], bool] = lambda: False) -> None:
        """Move the time on, from one moment at which something is due to the next."""
        until_ns = self._clock.time_ns + by_ns
        while True:
            self._network.step(self._clock.time_ns)
            for process in self._turns():
                process.pump()
            now_ns = self._clock.time_ns
            if now_ns >= until_ns or is_enough():
                return
            due = [self._network.next_ns, *(it.due_ns for it in self._processes.values())]
            soonest = min((it for it in due if it is not None and it > now_ns), default=until_ns)
            self._clock.advance_to(min(soonest, now_ns + _STEP_NS, until_ns))


@contextmanager
def _named(where: Callable[[], str]) -> Iterator[None]:
    """Name in an exception that nobody expected where it was raised."""
    try:
        yield
    except FlowrunError:
        raise
    except Exception as error:
        raise DefectError(where(), error) from error


def _have_ended(processes: Iterable[Process]) -> bool:
    return all(it.has_ended for it in processes)
