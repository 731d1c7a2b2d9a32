"""Faults in replays: which messages they happen to, what tasks see of it, and the fewest that matter."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowrun.runtime.cli import main
from flowrun.runtime.errors import UsageError
from flowrun.runtime.log.diff import compare_logs
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.faults import Chosen, parse_fault
from flowrun.runtime.replay.recorder import ReplayLog
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.replay.violations import Tried, Violation, fewest, try_faults
from support.helpers import START_NS, plan_of, record
from support.pictures import pictures_run

COUNT = 60
CYCLES = COUNT + 1
"""In the last one there is nothing more."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Numbers 0 to 59, a step of 1 ms after the other."""
    folder = tmp_path_factory.mktemp("faults")
    plan = plan_of(folder, f"n=Numbers(limit: {COUNT}); f=fault_tasks.Follows", "n > f: IntMsg")
    record(plan, folder / "run", step_ns=1_000_000)
    return folder / "run"


def seen(recorded: Path, *faults: str, **options: object) -> tuple[Tried, dict[int, int]]:
    """What came of it, and by cycle what the task made."""
    made: dict[int, int] = {}
    with Log(recorded) as log:
        replay = Replay(log, env={})

        def note(cycles: int) -> None:
            message = replay.message("f")
            if message is not None:
                made[cycles - 1] = message.value

        tried = try_faults(replay, [parse_fault(it) for it in faults], progress=note, **options)
    return tried, made


def test_without_faults_all_is_as_recorded(recorded):
    tried, made = seen(recorded)
    assert (tried.violation, tried.happened, tried.cycles) == (None, [], CYCLES)
    assert list(made.values()) == [0, *[1] * (COUNT - 1)]


def test_dropped_messages_do_not_come(recorded):
    tried, made = seen(recorded, "n.drop=3,10..11")
    assert tried.happened == [Chosen(0, 3), Chosen(0, 10), Chosen(0, 11)]
    assert made.keys() == {*range(COUNT)} - {3, 10, 11}
    assert (made[4], made[12]) == (2, 3)


def test_a_share_is_chosen_by_its_seed(recorded):
    by_seed = [
        [it.cycle for it in seen(recorded, f"n.drop=10%@{k}")[0].happened] for k in (1, 1, 2)
    ]
    assert by_seed[0] == by_seed[1] != by_seed[2]
    assert seen(recorded, "n.drop=0%")[0].happened == []
    assert len(seen(recorded, "n.drop=100%")[0].happened) == COUNT


@pytest.mark.parametrize("text", ["n.delay=2", "n.delay=2:0..59"])
def test_late_messages_come_in_their_order(recorded, text):
    _, made = seen(recorded, text)
    assert list(made) == list(range(2, CYCLES))
    assert list(made.values()) == [0, *[1] * (COUNT - 2)]


def test_one_late_message_keeps_back_those_behind_it(recorded):
    tried, made = seen(recorded, "n.delay=3:5")
    assert tried.happened == [Chosen(0, 5)]
    assert list(made) == [*range(5), *range(8, CYCLES)]
    assert list(made.values()) == [0, *[1] * (COUNT - 3)]


def test_a_delay_may_be_a_time(recorded):
    with Log(recorded) as log:
        times = [record.time_ns for record in log.cycles()]
    late = next(at for at, time in enumerate(times) if time >= times[0] + 20_000_000)
    _, made = seen(recorded, "n.delay=20ms")
    assert next(iter(made)) == late > 1


def test_repeated_messages_are_those_before(recorded):
    _, made = seen(recorded, "n.repeat=7")
    assert (made[7], made[8]) == (0, 2)


def test_what_stops_comes_no_more(recorded):
    tried, made = seen(recorded, "n.stop=20")
    assert list(made) == list(range(20))
    assert (tried.happened, tried.cycles) == ([Chosen(0, 20)], CYCLES)


def test_faults_happen_to_tasks_that_run_as_well(recorded):
    tried, made = seen(recorded, "f.drop=2..4")
    assert tried.violation is None
    assert made.keys() == {*range(COUNT)} - {2, 3, 4}


def test_an_error_that_was_not_recorded_is_found(recorded):
    tried, made = seen(recorded, "n.drop=10..12")
    assert tried.violation is not None
    assert (tried.violation.cycle, tried.violation.task) == (13, "f")
    assert tried.violation.text == "ValueError: 4 steps at once"
    assert max(made) == 9


def test_the_fewest_are_found(recorded):
    faults = ["n.drop=2,5..6,10..14,20", "n.delay=1:3"]
    tried, _ = seen(recorded, *faults)
    best, replays = fewest(tried, lambda only: seen(recorded, *faults, only=only)[0])
    assert [it.cycle for it in best.happened] in ([10, 11, 12], [11, 12, 13], [12, 13, 14])
    assert best.violation is not None
    assert best.violation.text == "ValueError: 4 steps at once"
    assert replays <= 40


def test_the_search_ends_where_it_may_not_go_on():
    events = [Chosen(0, cycle) for cycle in range(1000)]
    violation = Violation(0, "f", "ValueError: x")

    def again(only):
        return Tried(violation if {*events[::2]} <= {*only} else None, list(only), 0)

    best, replays = fewest(Tried(violation, events, 0), again, most_replays=30)
    assert replays == 30
    assert {*events[::2]} <= {*best.happened}


def test_the_same_faults_give_the_same_log_which_replays(tmp_path):
    pictures_run(tmp_path)
    for name in ("one", "two"):
        with Log(tmp_path / "run") as log:
            replay = Replay(log, env={})
            recorder = ReplayLog(replay, tmp_path / name, config={}, now_ns=START_NS, changed={"c"})
            faults = [parse_fault("c.drop=30%@3"), parse_fault("c.repeat=30%@4")]
            with recorder:
                happened = try_faults(replay, faults, recorder=recorder).happened
        assert happened
    with Log(tmp_path / "one") as one, Log(tmp_path / "two") as two:
        assert compare_logs(one, two, times=True).identical
        assert Replay(one, env={}).run().identical


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("n", "expected TASK.KIND=..., such as cam.drop=5%@7"),
        ("n.drop=", "expected TASK.KIND=..."),
        (".drop=5%", "expected TASK.KIND=..."),
        ("n.dorp=5%", "there is no fault 'dorp'; faults: drop, delay, repeat, stop"),
        ("n.drop=101%", "'101%' says no messages"),
        ("n.drop=-1", "'-1' says no messages"),
        ("n.stop=5%", "expected a cycle, such as n.stop=100"),
        ("n.delay=soon", "expected how long, such as n.delay=2s"),
        ("n.delay=2s:", "expected how long"),
        ("x.drop=5%", "unknown task 'x'; tasks: n, f"),
    ],
)
def test_texts_that_are_no_faults_are_refused(recorded, text, said):
    with pytest.raises(UsageError) as raised:
        seen(recorded, text)
    assert said in str(raised.value)


def test_the_command_says_what_happened_and_how_to_see_it_again(recorded, capsys):
    run = ["replay", str(recorded)]
    assert main([*run, "--fault", "n.drop=5,9..15"]) == 1
    out, err = capsys.readouterr()
    assert "task 'f' failed in process, cycle 16: ValueError: 8 steps at once" in err
    assert "n.drop: 8 messages" in out
    [command] = [line for line in out.splitlines() if line.startswith("  flowrun replay ")]
    assert "3 of 8 faults are enough" in out
    assert main([*run, "--fault", command.rpartition(" ")[2]]) == 1
    assert main([*run, "--fault", "n.delay=1"]) == 0
    out = capsys.readouterr().out
    assert f"{CYCLES} cycles: no task raised an error" in out
    assert "note: " not in out
    for fault in ("n.drop=100000", "n.stop=100000"):
        assert main([*run, "--fault", fault]) == 0
        said = f"note: {fault.partition('=')[0]} hit no message, so nothing of it was tried\n"
        assert said in capsys.readouterr().out
    assert main([*run, "--fault", "n.drop=1", "--loop"]) == 2
