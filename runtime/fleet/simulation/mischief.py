"""What goes wrong in a simulation, and when: decided by the seed alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from flowrun.runtime.errors import UsageError
from flowrun.runtime.graph.spec import PartId
from flowrun.runtime.links.fake import FakeNetwork, Faults
from flowrun.runtime.wording import listed, nearest

__all__ = ["FAULTS", "Mischief", "Mishap", "Victim", "chosen_faults"]

FAULTS = ("drop", "dup", "delay", "flip", "cut", "kill", "slow", "skew")
"""What may go wrong: messages are lost, come twice, come late and out of order, have a byte changed;
two processes cannot reach each other; a process is killed and started again, between two cycles or
within one; its cycles take long for a while; its clock is wrong."""

_SKEWS_NS = (0, 0, 3_000_000, -40_000_000, 2_000_000_000, -5_000_000_000)
_AWAY_S = (0.0, 0.0, 3.0)
"""How long a killed process is gone at least: past 2 s, replicas take over from each other."""
_CYCLE_NS = 1_000_000
_SLOW_NS = (30_000_000, 150_000_000)


def chosen_faults(text: str) -> frozenset[str]:
    """What `drop,cut,...` names. `UsageError` for another word."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if word not in FAULTS:
            raise UsageError(
                f"there is no fault {word!r}; faults: {listed(FAULTS)}{nearest(word, FAULTS)}"
            )
    return frozenset(words)


class Victim(Protocol):
    """A process, as far as it can be harmed."""

    part: PartId
    cycle_ns: int
    """How long its cycles take."""
    dies: bool
    """Whether it dies in its next cycle, when its tasks have run and nothing is committed."""

    @property
    def is_running(self) -> bool: ...

    @property
    def waits_for_start(self) -> bool: ...

    def begin(self) -> None: ...

    def kill(self) -> None: ...


class Mishap(NamedTuple):
    """number: its place among those of the seed, by which it can be left out. at_s: when."""

    number: int
    at_s: float
    what: str

    def __str__(self) -> str:
        return f"{self.number:4}  {self.at_s:8.3f} s  {self.what}"


@dataclass(slots=True)
class Mischief:
    """Has things go wrong, one by one.

    seed: all that is drawn comes from it.
    faults: of `FAULTS`, which may happen.
    pairs: of processes that have a link.
    without: numbers of mishaps that are drawn, and do not happen.
    """

    seed: int
    faults: frozenset[str]
    network: FakeNetwork
    victims: Sequence[Victim]
    pairs: Sequence[tuple[PartId, PartId]]
    without: frozenset[int] = frozenset()
    happened: list[Mishap] = field(default_factory=list)
    _random: random.Random = field(init=False)
    _cut: set[tuple[PartId, PartId]] = field(default_factory=set)
    _away: dict[PartId, float] = field(default_factory=dict)
    """Until when processes that were killed are not started again, in seconds."""
    _count: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311  # reproducible on purpose

    def skew_ns(self) -> int:
        """By how much the clock of one more process is ahead."""
        drawn = self._random.choice(_SKEWS_NS)
        return drawn if "skew" in self.faults else 0

    def pause_ns(self) -> int:
        """How long nothing goes wrong."""
        return self._random.choice((1, 20, 400)) * 1_000_000

    def act(self, at_s: float) -> None:
        """Have something go wrong, now and then."""
        draw, faults = self._random, self.faults
        act = draw.random()
        if act < 0.1 and faults & {"drop", "dup", "delay", "flip"}:
            new = self._new_faults()
            self._do(at_s, f"{new}", lambda: setattr(self.network, "faults", new))
        elif act < 0.16 and "cut" in faults and self.pairs:
            pair = draw.choice(self.pairs)
            self._do(at_s, f"cut {pair[0]} - {pair[1]}", lambda: self._cut_off(pair))
        elif act < 0.26 and self._cut:
            pair = draw.choice(sorted(self._cut))
            self._do(at_s, f"mend {pair[0]} - {pair[1]}", lambda: self._mend(pair))
        elif act < 0.34 and "kill" in faults:
            victim = draw.choice(self.victims)
            in_cycle, away_s = draw.random() < 0.5, draw.choice(_AWAY_S)
            if victim.is_running:
                self._away[victim.part] = at_s + away_s
            if victim.is_running and in_cycle:
                what = f"kill {victim.part} in its next cycle"
                self._do(at_s, what, lambda: setattr(victim, "dies", True))
            elif victim.is_running:
                self._do(at_s, f"kill {victim.part}", victim.kill)
        elif act < 0.38 and "slow" in faults:
            victim, slow_ns = draw.choice(self.victims), draw.choice((_CYCLE_NS, *_SLOW_NS))
            what = f"cycles of {victim.part} take {slow_ns / 1e6:g} ms"
            self._do(at_s, what, lambda: setattr(victim, "cycle_ns", slow_ns))
        elif act < 0.54:
            for victim in self.victims:
                if victim.waits_for_start and at_s >= self._away.get(victim.part, 0):
                    self._do(at_s, f"start {victim.part}", victim.begin)

    def end(self) -> None:
        """Let all be well again, and start who is not there."""
        self.network.faults = Faults()
        for pair in sorted(self._cut):
            self._mend(pair)
        for victim in self.victims:
            victim.cycle_ns, victim.dies = _CYCLE_NS // 10, False
            if victim.waits_for_start:
                victim.begin()

    def _do(self, at_s: float, what: str, act: Callable[[], None]) -> None:
        number, self._count = self._count, self._count + 1
        if number not in self.without:
            self.happened.append(Mishap(number, at_s, what))
            act()

    def _cut_off(self, pair: tuple[PartId, PartId]) -> None:
        self._cut.add(pair)
        self.network.cut(*map(str, pair))

    def _mend(self, pair: tuple[PartId, PartId]) -> None:
        self._cut.discard(pair)
        self.network.mend(*map(str, pair))

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
