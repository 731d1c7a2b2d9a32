"""A cycle compiled to one function, apart from the engine. That it does what a cycle does step by step
is held by the properties of `test_determinism`."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from flowrun.msgs import IntMsg
from flowrun.runtime.engine.compiled import compile_cycle
from flowrun.runtime.engine.policy import SkipCycle
from flowrun.runtime.engine.record import ALWAYS, AllPresent, CycleRecord


class Quiet:
    """An outside from which nothing comes."""

    reported = ()

    def begin(self, _time, _start_ns):
        return ()


class Compiled:
    """A record whose steps publish one message each, put together as `compile_cycle` does.

    gates: by step, the indices of the messages that it needs.
    publishing: the steps that publish.
    raising: what a step raises, by its index.
    """

    def __init__(self, gates, *, sources, publishing=(), raising=None):
        self.ran = []
        self.said = []
        self.cycle = SimpleNamespace(events=None, start_ns=None, ends_ns=None)
        messages = tuple(IntMsg() for _ in gates)
        ticks = iter(range(100, 200))

        def call(at):
            self.ran.append(at)
            if at in publishing:
                messages[at].publish(tov_ns=1)
            if raising and at in raising:
                raise raising[at]

        def gate(needs):
            if len(needs) > 1:
                return AllPresent([messages[at].envelope for at in needs])
            return messages[needs[0]].envelope if needs else ALWAYS

        record = CycleRecord(
            messages,
            tuple((gate(needs), lambda at=at: call(at)) for at, needs in enumerate(gates)),
            tuple((message.envelope,) for message in messages),
        )
        self.run = compile_cycle(
            record, index=0, source_count=sources, source_slots=range(sources),
            names={
                "cycle": self.cycle, "time": None, "ticks": lambda: next(ticks),
                "outside": Quiet(), "apply": lambda _came: True,
                "late": (), "take_late": lambda: False,
                "has_taken": lambda: False,
                "skip": lambda at, ends: self.said.append(("skip", at, ends)),
                "fail": lambda at, error, ends: self.said.append(("fail", at, error, ends)),
            },
        )  # fmt: skip


@pytest.mark.parametrize(
    ("publishing", "ran"),
    [((0, 1), [0, 1, 2]), ((0,), [0, 1]), ((1,), [0, 1])],
)
def test_a_step_with_several_required_inputs_runs_only_when_all_are_there(publishing, ran):
    made = Compiled([(), (), (0, 1)], sources=2, publishing=publishing)
    assert made.run()
    assert made.ran == ran
    assert made.cycle.ends_ns == [101, 102, 103]  # a step that did not run ended, too


def test_a_plan_of_sources_only_is_a_cycle_when_one_of_them_publishes():
    made = Compiled([(), ()], sources=2, publishing=[1])
    assert made.run()
    assert (made.ran, made.cycle.ends_ns) == ([0, 1], [101, 102])
    nothing = Compiled([(), ()], sources=2)
    assert not nothing.run()
    assert (nothing.ran, nothing.cycle.ends_ns) == ([0, 1], None)


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_an_error_gives_its_step_and_the_ends_of_those_before(at):
    error = ValueError("at a step")
    made = Compiled([(), (0,), (0,), (0,)], sources=1, publishing=[0], raising={at: error})
    assert made.run()
    assert made.said == [("fail", at, error, [101, 102, 103, 104][:at])]
    assert made.ran == list(range(at + 1))
    assert made.cycle.ends_ns is None


@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_step_that_skips_the_cycle_gives_the_ends_of_those_before(at):
    made = Compiled([(), (0,), (0,), (0,)], sources=1, publishing=[0], raising={at: SkipCycle()})
    assert made.run()
    assert made.said == [("skip", at, [101, 102, 103, 104][:at])]
