from __future__ import annotations

import pytest

from flowrun.runtime.errors import LogNotFound, UsageError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.debugger import Debugger
from flowrun.runtime.replay.recorder import ReplayLog
from flowrun.runtime.replay.replay import Replay
from support.helpers import plan_of, record

SMALL = "logging: {slab_size_mib: 1, section_size_mib: 1, keyframe_interval: 3}"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("debugged")
    tasks = "n=Numbers(limit: 20); t=Total; e=Evens; s=Sum"
    record(plan_of(folder, tasks, "n > t; n > e; e > s.a", SMALL), folder / "run")
    return folder / "run"


@pytest.fixture
def debugger(run):
    with Log(run) as log, Replay(log, env={}) as replay:
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


def test_it_begins_before_the_first_task(debugger):
    assert debugger.place == (0, 0)
    assert not debugger.step_back()
    assert debugger.next_cycle()
    assert debugger.place == (0, 4)
    assert debugger.step_back()
    assert debugger.place == (0, 3)
    assert debugger.step() == "s"
    assert debugger.next_cycle()
    assert debugger.place == (1, 3)
    debugger.goto(1, 2)
    assert debugger.place == (1, 2)
    assert debugger.next_cycle()  # the rest of it
    assert debugger.place == (1, 3)


def test_a_log_that_begins_in_the_middle_has_its_beginning_there(tmp_path):
    record(plan_of(tmp_path, "n=Numbers(limit: 9); x=Scale", "n > x", SMALL), tmp_path / "run")
    with Log(tmp_path / "run") as log:
        replay = Replay(log, env={})
        with ReplayLog(replay, tmp_path / "part", config={}, now_ns=1) as recorder:
            replay.run(start=4, recorder=recorder)
    with Log(tmp_path / "part") as log, Replay(log, env={}) as replay:
        debugger = Debugger(replay)
        debugger.goto(5)
        assert debugger.back()
        assert debugger.place == (4, 2)
        debugger.goto(4)
        assert not debugger.back()
        assert debugger.place == (4, 0)
        debugger.goto(9)
        assert debugger.go_back() is None
        assert debugger.place == (4, 0)


def test_the_way_back_from_the_end_begins_in_the_last_cycle(debugger):
    while debugger.next_cycle():
        pass
    assert debugger.place == (None, 0)
    assert debugger.step() is None
    assert debugger.step_back()
    assert debugger.place == (19, 2)
    debugger.break_at("s")
    while debugger.next_cycle():
        pass
    assert debugger.go_back().text == "s"
    assert debugger.place == (18, 3)


def test_a_cycle_that_the_log_lacks_is_passed_over_on_the_way_back(debugger, monkeypatch):
    whole = Log.__getitem__

    def with_gaps(log, cycle):
        if cycle in (5, 6):
            raise LogNotFound("damaged")
        return whole(log, cycle)

    debugger.goto(7)
    monkeypatch.setattr(Log, "__getitem__", with_gaps)
    assert debugger.back()
    assert debugger.place == (4, 4)


def test_a_breakpoint_has_the_next_number_and_the_text_without_blanks(debugger):
    made = [debugger.break_at(text) for text in (" s ", "diff", "e.even.value > 3 ")]
    assert [(it.number, it.text) for it in made] == [
        (1, "s"),
        (2, "diff"),
        (3, "e.even.value > 3"),
    ]
    assert (made[0].task, made[2].of_task) == ("s", "e")
    for number in (1, 2, 3):
        debugger.delete(number)
    with pytest.raises(UsageError, match="^no breakpoint 1; there are: none$"):
        debugger.delete(1)
    assert debugger.break_at("s").number == 4


def test_a_breakpoint_holds_for_its_own_task_and_message(debugger):
    debugger.break_at("n.value == 4")
    debugger.break_at("e.even")
    hits = []
    while (hit := debugger.go_on()) is not None and len(hits) < 5:
        hits.append((hit.number, *debugger.place))
    assert hits == [(2, 0, 3), (2, 2, 3), (1, 4, 1), (2, 4, 3), (2, 6, 3)]


def test_values_are_messages_and_their_fields(debugger):
    debugger.goto(3, 3)
    assert debugger.value("n").value == debugger.value("n.number").value == 3
    assert debugger.value("n.value") == debugger.value("n.number.value") == 3
    assert debugger.value("e.even") is debugger.value("e.value") is None
    with pytest.raises(UsageError, match="^nothing is called 'n.number.number'; there are: n.numb"):
        debugger.value("n.number.number")


def test_all_elements_of_an_array_must_meet_a_condition(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers(limit: 4); z=Noise", "n > z", SMALL)
    record(plan, tmp_path / "r")
    with Log(tmp_path / "r") as log, Replay(log, env={}) as replay:
        debugger = Debugger(replay)
        for condition, cycle in (
            ("z.grid < 2", 1),  # in cycle 0 it is empty
            ("z.grid > 2", None),
            (f"z.grid >= {log[1].cycle - 1}", 1),
            ("z.note ~ 2", 2),
            ("z.grid == 'a'", None),
        ):
            debugger.goto(0)
            number = debugger.break_at(condition).number
            debugger.go_on()
            assert (condition, debugger.place.cycle) == (condition, cycle)
            debugger.delete(number)


def test_tasks_with_several_outputs_are_named_with_the_port(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers(limit: 4); w=Wrong(at: [])", "n > w", SMALL)
    record(plan, tmp_path / "r")
    with Log(tmp_path / "r") as log, Replay(log, env={}) as replay:
        debugger = Debugger(replay)
        debugger.next_cycle()
        assert debugger.value("w.total.value") == 0
        assert debugger.value("w.text.value") == "a good message of cycle 0"
        for text, said in (
            ("w", "nothing is called 'w'; there are: w.total.value, w.text.value"),
            ("w.value", "nothing is called 'w.value'; there are: w.total.value, w.text.value"),
        ):
            with pytest.raises(UsageError) as caught:
                debugger.value(text)
            assert str(caught.value) == said


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
        ("n.value < 1", 0),
        ("n.value <= -1", None),
        ("n.value >= 19", 19),
        ("n.value > 19", None),
        ("n.value == '7'", None),
        ("n.value ~ 17", 17),
    ],
)
def test_conditions_on_messages(debugger, condition, cycle):
    debugger.goto(0)
    debugger.break_at(condition if condition != "e" else "e.even")
    hit = debugger.go_on()
    assert (debugger.place.cycle, hit is None) == (cycle, cycle is None)


def test_a_difference_stops_after_the_task_that_made_it(tmp_path):
    """Once for each; t and u come after a difference, and make none."""
    tasks = "n=Numbers(limit: 20); x=Scale; t=Scale; s=Sum; u=Scale"
    record(plan_of(tmp_path, tasks, "n > x; n > t; x > s.a; n > u", SMALL), tmp_path / "r")
    with Log(tmp_path / "r") as log, Replay(log, config={"x.factor": 11}, env={}) as replay:
        debugger = Debugger(replay)
        debugger.break_at("diff")
        hits = []
        for _ in range(4):
            assert debugger.go_on().number == 1
            hits.append((*debugger.place, [it.task for it in replay.differences]))
        assert hits == [(1, 2, ["x"]), (1, 4, ["x", "s"]), (2, 2, ["x"]), (2, 4, ["x", "s"])]
        assert [debugger.go_back().text for _ in range(3)] == ["diff"] * 3
        assert debugger.place == (1, 2)
        assert debugger.go_back() is None
        assert debugger.place == (0, 0)


def test_a_difference_of_the_last_task_is_not_counted_in_the_next_cycle(tmp_path):
    tasks = "n=Numbers(limit: 9); a=Evens; x=Scale"
    record(plan_of(tmp_path, tasks, "n > a; n > x", SMALL), tmp_path / "r")
    with Log(tmp_path / "r") as log, Replay(log, config={"x.factor": 11}, env={}) as replay:
        debugger = Debugger(replay)
        debugger.break_at("diff")
        places = []
        while debugger.go_on() is not None:
            places.append(debugger.place)
        assert places == [(cycle, 3) for cycle in range(1, 9)]
        debugger.goto(0)
        debugger.break_at("a")
        assert debugger.go_on().task == "a"
        assert debugger.place == (0, 1)


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
