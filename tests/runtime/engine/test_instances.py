"""Tasks as objects: made, started, changed."""

from __future__ import annotations

import pytest

from flowrun.runtime.broadcast import Broadcast
from flowrun.runtime.context import CycleTime
from flowrun.runtime.engine.instances import changed_config, make_instances, start_all
from flowrun.runtime.errors import TaskError, UsageError
from support.helpers import plan_of


@pytest.fixture
def made(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers; x=Scale; b=Free!", "n > x; n > b")
    return make_instances(plan, CycleTime(3, 100), source=lambda _id: None)


def test_a_background_task_has_a_time_of_its_own(made):
    assert [it.time.cycle for it in made.values()] == [3, 3, 0]
    assert made["x"].ctx.cycle == 3
    made["b"].time.cycle = 8
    assert (made["b"].ctx.cycle, made["x"].ctx.cycle) == (8, 3)


def test_each_task_gets_its_broadcast_or_a_new_one(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers; x=Scale; y=Scale", "n > x; n > y")
    own = Broadcast()
    made = make_instances(plan, CycleTime(), broadcasts={"x": own})
    assert made["x"].ctx.broadcast is own
    assert isinstance(made["y"].ctx.broadcast, Broadcast)
    assert made["y"].ctx.broadcast is not own


@pytest.mark.parametrize(
    ("raised", "kind", "text"),
    [
        (UsageError("use it otherwise"), UsageError, "use it otherwise"),
        (OSError("no"), TaskError, "task 'x' failed in start: OSError: no"),
        (SystemExit(3), TaskError, "task 'x' failed in start: SystemExit: 3"),
    ],
)
def test_what_start_raises_is_the_tasks_or_says_itself_what_to_do(made, raised, kind, text):
    told, stopped = [], []

    def start(_ctx):
        raise raised

    made["x"].task.start = start
    for id_, it in made.items():
        it.task.stop = lambda _ctx, id_=id_: stopped.append(id_)
    with pytest.raises(kind) as caught:
        start_all(list(made.values()), on_start=told.append)
    assert str(caught.value) == text
    assert (told, stopped) == (["n", "x", None], ["x", "n"])


def test_all_that_start_are_told_of_and_then_that_it_is_over(made):
    told = []
    start_all(list(made.values()), on_start=told.append)
    assert told == ["n", "x", "b", None]
    start_all(list(made.values()))


def test_a_live_value_that_is_as_before_changes_nothing(made):
    bound, config = made["x"].bound, made["x"].task.config
    assert changed_config(bound, config, {"factor": 10}) is config
    assert changed_config(bound, config, {"factor": 2}).factor == 2
    assert config.factor == 10
