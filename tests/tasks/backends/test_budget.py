"""A budget of questions and of slow answers: what is left out, and that a replay leaves out the same."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from flowrun.runtime.clock import ManualClock
from flowrun.runtime.errors import GraphError
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import plan_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.run.live import Run
from flowrun.tasks.backends.budget import PER_HOUR, SLOW, Budget, Spending
from support.helpers import START_NS

S = 1_000_000_000


class Asking:
    """A task that asks about each frame that its budget allows."""

    def __init__(self, **budget: Any) -> None:
        self.spending = Spending(Budget(**budget))
        self.dropped: list[tuple[int, str]] = []

    def asks(self, at_s: float, latency_ms: float = 1) -> bool:
        now_ns = round(at_s * S)
        ctx: Any = SimpleNamespace(
            now_ns=now_ns, cycle=0, dropped=lambda count, cause: self.dropped.append((count, cause))
        )
        if self.spending.leaves_out(ctx):
            return False
        self.spending.asked(now_ns)
        self.spending.answered(latency_ms, now_ns)
        return True


def test_no_hour_has_more_questions_than_its_budget() -> None:
    task = Asking(per_hour=3)
    asked = [at for at in range(0, 7200, 600) if task.asks(at)]
    assert asked == [0, 600, 1200, 3600, 4200, 4800]
    assert task.dropped == [(1, PER_HOUR)] * 6


def test_a_slow_model_rests_longer_and_longer_until_it_is_quick_again() -> None:
    task = Asking(p99_ms=100)
    slow = [at / 4 for at in range(60) if task.asks(at / 4, latency_ms=250)]
    assert slow == [0, 1.25, 3.5, 7.75]
    assert {cause for _, cause in task.dropped} == {SLOW}
    assert task.asks(16.5, latency_ms=99)
    assert task.asks(16.75, latency_ms=250)
    assert not task.asks(17.75)
    assert task.asks(18.0)


def test_one_slow_answer_of_a_hundred_is_no_reason_to_rest() -> None:
    task = Asking(p99_ms=100)
    for at in range(99):
        assert task.asks(at)
    assert task.asks(99, latency_ms=101)
    assert task.asks(99.1, latency_ms=101)
    assert not task.asks(99.2)


def test_what_is_left_out_is_counted_by_cause_in_one_line() -> None:
    task = Asking(per_hour=1)
    assert [task.asks(at_s) for at_s in range(3)] == [True, False, False]
    with capture_logs() as lines:
        task.spending.report_to(structlog.get_logger())
        task.spending.report_to(structlog.get_logger())
    assert lines == [
        {
            "event": "frames left out: the budget is spent",
            "log_level": "info",
            "first_cycle": 0,
            "last_cycle": 0,
            "left_out_by_hourly_budget": 2,
        }
    ]


def test_what_is_spent_is_frozen() -> None:
    task, other = Asking(per_hour=2, p99_ms=100), Asking(per_hour=2, p99_ms=100)
    assert task.asks(0)
    assert task.asks(1, latency_ms=200)
    other.spending.thaw(task.spending.freeze())
    for it in (task, other):
        assert not it.asks(2)
        assert it.asks(3600)
        assert not it.asks(3600.5)


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("{}", "'budget' of task 'vlm': a budget has per_hour, p99_ms, or both"),
        ("{per_hour: 0}", "'budget.per_hour' of task 'vlm' must be greater than 0; got 0"),
    ],
)
def test_a_wrong_budget_is_a_mistake_in_the_graph(budget: str, said: str, tmp_path: Path) -> None:
    text = f"tasks: [{{id: vlm, type: Inference, config: {{budget: {budget}}}}}]"
    with pytest.raises(GraphError) as error:
        bind(parse_graph(text, path=tmp_path / "g.yaml", env={}))
    assert said in str(error.value)


@pytest.mark.parametrize(
    "answers",
    [
        "{id: vlm, type: support.answer_tasks.Thrifty}",
        pytest.param(
            "{id: vlm, type: Inference, config: {budget: {per_hour: 3}}}",
            marks=[pytest.mark.slow, pytest.mark.long],
        ),
    ],
)
def test_a_run_says_what_was_left_out_and_its_replay_leaves_out_the_same(
    answers: str, tmp_path: Path
) -> None:
    text = f"""
tasks:
  - {{id: cam, type: support.scene_tasks.Scenes, config: {{limit: 8}}}}
  - {answers}
cnx: [{{src: cam, dst: vlm, msg: ImageRgb8Msg}}]
logging: {{keyframe_interval: 2}}
"""
    plan = plan_graph(bind(parse_graph(text, path=tmp_path / "g.yaml", env={})))
    clock = ManualClock(START_NS, step_ns=700 * S)  # an hour after the first three
    run = Run(plan, clock=clock, directory=tmp_path / "run")
    assert run.run().error is None
    assert run.report().tasks["vlm"].dropped_by == {PER_HOUR: 3}
    with Log(tmp_path / "run") as log:
        answered = [it.cycle for it in log.messages("/vlm/answer")]
        assert answered == [0, 1, 2, 6, 7]
        for start in (0, 4):
            report = Replay(log).run(start=start)
            assert (report.first, report.differing) == (None, 0)
        control = [it.fields for it in log.messages("/flowrun/control")]
    assert [it["value"] for it in control if it["key"] == PER_HOUR] == [1, 1, 1]
