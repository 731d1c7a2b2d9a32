"""A cycle compiled to one function, apart from the engine. That it does what a cycle does step by step
is held by the properties of `test_determinism`."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from flowrun.msgs import IntMsg
from flowrun.runtime.engine.compiled import compile_cycle
from flowrun.runtime.engine.policy import SkipCycle
from flowrun.runtime.engine.record import ALWAYS, AllPresent, CycleRecord
from support.helpers import GridMsg
from support.message_tasks import BagMsg


class Outside:
    """An outside from which comes what the test says.

    came: before the sources.
    reported: by them.
    """

    def __init__(self, *, came=(), reported=()):
        self.came, self.reported = came, reported

    def begin(self, _time, _start_ns):
        return self.came

    def after_sources(self, runs):
        self.runs = runs
        return self.reported


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
        self.names = {
            "cycle": self.cycle, "time": None, "ticks": lambda: next(ticks),
            "outside": Outside(), "apply": lambda _came: True,
            "late": (), "take_late": lambda: False,
            "has_taken": lambda: False,
            "skip": lambda at, ends: self.said.append(("skip", at, ends)),
            "fail": lambda at, error, ends: self.said.append(("fail", at, error, ends)),
        }  # fmt: skip
        self.compiled = partial(
            compile_cycle,
            record,
            before=record,
            index=0,
            source_count=sources,
            source_slots=range(sources),
            names=self.names,
        )
        self.run = self.compiled()


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


class OwnClear(IntMsg):
    """Counts how often it is cleared."""

    cleared: ClassVar[int] = 0

    def clear(self):
        type(self).cleared += 1
        super().clear()


def cleared(message):
    """The message, after the beginning of a cycle that publishes nothing."""
    record = CycleRecord((message,), ((ALWAYS, lambda: None),), ((),))
    run = compile_cycle(
        record, before=record, index=0, source_count=1, source_slots=[0],
        names={
            "cycle": SimpleNamespace(), "time": None, "ticks": lambda: 1, "late": (),
            "outside": Outside(), "has_taken": lambda: False,
        },
    )  # fmt: skip
    assert not run()
    return message


def test_a_cycle_begins_without_what_was_left_on_its_messages():
    number, grid, bag = IntMsg(), GridMsg(), BagMsg()
    number.value, number.extra = 3, 4
    grid.grid, grid.note = np.ones((1, 2), np.float32), "left"
    grid.publish(tov_ns=1)
    bag.items, bag.things = [1], {"a": 1}
    for message in (number, grid, bag):
        message.envelope.present = True
        assert not cleared(message).present
    assert (number.value, hasattr(number, "extra")) == (0, False)
    assert (grid.grid.size, grid.note) == (0, "")
    assert (bag.items, bag.things) == ([], {})
    assert grid.envelope.fields["grid"].size == 0  # its memory is free
    bag.items.append(1)
    assert BagMsg().items == []


def test_a_message_with_a_clear_of_its_own_is_cleared_by_that():
    OwnClear.cleared = 0
    cleared(OwnClear())
    assert OwnClear.cleared == 1


def test_what_the_outside_says_after_the_sources_is_in_the_cycle():
    made = Compiled([(), (0,)], sources=1)
    made.names["outside"] = Outside(reported=["ended"])
    assert made.compiled()()
    assert made.cycle.events == ["ended"]


@pytest.mark.parametrize(("name", "value"), [("apply", False), ("take_late", True)])
def test_an_error_from_outside_ends_the_cycle_before_its_first_step(name, value):
    made = Compiled([(), (0,)], sources=1, publishing=[0])
    made.names |= {"outside": Outside(came=["came"]), "late": ["published"]}
    assert made.compiled()()
    assert made.ran == [0, 1]
    made.ran.clear()
    made.names[name] = lambda *_: value
    assert made.compiled()()
    assert (made.ran, made.cycle.events) == ([], [])
