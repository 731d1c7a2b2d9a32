from __future__ import annotations

import pytest

from flowrun.runtime.errors import UsageError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.debugger import Debugger
from flowrun.runtime.replay.replay import Replay
from support.helpers import plan_of, record

SMALL = "logging: {slab_size_mib: 1, section_size_mib: 1, keyframe_interval: 3}"


@pytest.fixture
def debugger(tmp_path):
    tasks = "n=Numbers(limit: 20); t=Total; e=Evens; s=Sum"
    record(plan_of(tmp_path, tasks, "n > t; n > e; e > s.a", SMALL), tmp_path / "run")
    with Log(tmp_path / "run") as log, Replay(log, env={}) as replay:
        yield Debugger(replay)


def test_steps_go_through_the_tasks_that_have_something_to_do(debugger):
    debugger.goto(4)
    assert [debugger.step() for _ in range(7)] == ["n", "t", "e", "s", "n", "t", "e"]
    assert debugger.place == (5, 3)  # 5 is odd: nothing for s
    assert debugger.value("n.value") == 5


def test_stepping_back_undoes_one_task_after_the_other(debugger):
    totals = {}
    debugger.goto(7)
    while debugger.place < (12, 2):
        totals[debugger.place] = debugger.replay.task("t").total
        debugger.step()
    back = [debugger.place]
    while debugger.place > (7, 0):
        assert debugger.step_back()
        back.append(debugger.place)
        if debugger.place in totals:
            assert debugger.replay.task("t").total == totals[debugger.place]
    assert back[:9] == [
        (12, 2),
        (12, 1),
        (12, 0),
        (11, 2),
        (11, 1),
        (11, 0),
        (10, 3),
        (10, 2),
        (10, 1),
    ]
    assert totals[7, 1] < totals[7, 2]


def test_cycles_go_forwards_and_back_and_stay_at_their_ends(debugger):
    debugger.goto(10)
    debugger.next_cycle()
    assert (debugger.place, debugger.value("n.value")) == ((10, 4), 10)
    debugger.next_cycle()
    assert (debugger.place, debugger.value("n.value")) == ((11, 3), 11)
    debugger.back()
    assert (debugger.place, debugger.value("n.value")) == ((10, 4), 10)
    debugger.goto(0)
    assert not debugger.back()
    assert not debugger.step_back()
    debugger.goto(20)
    assert (debugger.next_cycle(), debugger.place) == (False, (None, 0))
    assert debugger.back()
    assert debugger.place == (19, 3)  # in cycle 20 the source ends, and no task runs


def test_breakpoints_stop_before_a_task_and_after_a_message(debugger):
    debugger.break_at("s")
    debugger.break_at("n.value >= 5")
    hits = []
    while (hit := debugger.go_on()) is not None and len(hits) < 6:
        hits.append((hit.number, *debugger.place))
    assert hits == [(1, 0, 3), (1, 2, 3), (1, 4, 3), (2, 5, 1), (2, 6, 1), (1, 6, 3)]
    debugger.delete(2)
    assert debugger.go_on().number == 1
    with pytest.raises(UsageError, match="^no breakpoint 2; there are: 1$"):
        debugger.delete(2)


def test_going_back_finds_the_same_places_in_reverse(debugger):
    debugger.break_at("s")
    debugger.break_at("e.value")
    forwards = []
    while debugger.go_on() is not None:
        if not forwards or forwards[-1] != debugger.place:
            forwards.append(debugger.place)
    back = []
    while debugger.go_back() is not None:
        back.append(debugger.place)
    assert back == forwards[::-1]
    assert debugger.place == (0, 0)


@pytest.mark.parametrize(
    ("condition", "cycle"),
    [
        ("n.number.value == 7", 7),
        ("n.value != 0", 1),
        ("n.value > 11", 12),
        ("n.value ~ '1[5-9]'", 15),
        ("n.value !~ '^[0-8]$'", 9),
        ("e", 0),
        ("n.value <= 3", 0),
        ("n.value < 'a'", None),
    ],
)
def test_conditions_on_messages(debugger, condition, cycle):
    debugger.goto(0)
    debugger.break_at(condition if condition != "e" else "e.even")
    hit = debugger.go_on()
    assert (debugger.place.cycle, hit is None) == (cycle, cycle is None)


def test_a_difference_stops_in_the_cycle_that_has_it(tmp_path):
    record(
        plan_of(tmp_path, "n=Numbers(limit: 20); x=Scale; s=Sum", "n > x; x > s.a", SMALL),
        tmp_path / "r",
    )
    with Log(tmp_path / "r") as log, Replay(log, config={"x.factor": 11}, env={}) as replay:
        debugger = Debugger(replay)
        debugger.break_at("diff")
        debugger.go_on()
        assert (debugger.place, [it.task for it in replay.differences]) == ((1, 2), ["x"])
        debugger.go_on()
        assert (debugger.place, [it.task for it in replay.differences]) == ((1, 3), ["x", "s"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("q", "nothing is called 'q'; there are: n.number, t.total, e.even, s.total"),
        ("n.valeu == 3", "nothing is called 'n.valeu'; there are: n.number.value"),
        ("n == 3", "n: name the field to compare"),
        ("n.value ~ '['", "'[': unterminated character set at position 0"),
        (
            "n.value == ",
            "cannot stop at 'n.value =='; expected a task, diff, TASK.PORT, or "
            "TASK.PORT.FIELD ~ 'text'",
        ),
    ],
)
def test_what_cannot_be_stopped_at_is_said(debugger, text, said):
    with pytest.raises(UsageError) as caught:
        debugger.break_at(text)
    assert str(caught.value) == said
