"""A run that was cut off goes on as if it had not been."""

import shutil
import threading

import pytest

from flowrun.msgs import IntMsg
from flowrun.runtime.clock import ManualClock
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import plan_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.recovery import recovered
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.run.live import Run
from flowrun.runtime.task import Context, Input, Output, Task
from support.engine_tasks import Held
from support.helpers import START_NS

TEXT = """
tasks:
  - {{id: n, type: support.helpers.Numbers, config: {{limit: {limit}}}}}
  - {{id: sum, type: {module}.Sums}}
  - {{id: draw, type: {module}.Draws, every: 2}}
cnx:
  - {{src: n, dst: sum, msg: IntMsg}}
  - {{src: n, dst: draw, msg: IntMsg}}
logging: {{slab_size_mib: 1, section_size_mib: 1, keyframe_interval: 10}}
"""


class Sums(Task):
    """How many numbers have come."""

    def start(self, ctx: Context) -> None:
        self.count = 0

    def process(self, ctx: Context, number: Input[IntMsg], total: Output[IntMsg]) -> None:
        self.count += 1
        total.value = self.count
        total.publish()

    def freeze(self) -> int:
        return self.count

    def thaw(self, state: int) -> None:
        self.count = state


class Draws(Task):
    """A random number for each second one."""

    def process(self, ctx: Context, number: Input[IntMsg], drawn: Output[IntMsg]) -> None:
        drawn.value = int(ctx.rng.integers(1 << 40))
        drawn.publish()


def plan_of(folder, text=TEXT, *, limit=60):
    text = text.format(module=__name__, limit=limit)
    return plan_graph(bind(parse_graph(text, path=folder / "g.yaml", env={})))


def run(plan, directory, *, cut_at=None, begins=None):
    """Run it; `cut_at`: leave what a SIGKILL after that cycle would, in <directory>.cut."""
    made = Run(plan, clock=ManualClock(START_NS, step_ns=1000), directory=directory, begins=begins)
    cut = directory.with_suffix(".cut")

    def look(cycle):
        if cycle.time.cycle == cut_at:
            shutil.copytree(directory, cut)

    made.watch(look)
    assert made.run().error is None
    return cut


def values(path, topic):
    with Log(path) as log:
        return [message.fields["value"] for message in log.messages(topic)]


@pytest.mark.parametrize("cut_at", [0, 9, 10, 37])
def test_it_goes_on_with_what_its_tasks_remembered(tmp_path, cut_at):
    plan = plan_of(tmp_path)
    whole = tmp_path / "whole"
    cut = run(plan, whole, cut_at=cut_at)
    begins = recovered(cut, plan)
    after = tmp_path / "after"
    run(plan_of(tmp_path, limit=60 - cut_at - 1), after, begins=begins)
    for topic in ("/sum/total", "/draw/drawn"):
        assert values(cut, topic) + values(after, topic) == values(whole, topic)
    with Log(after) as log:
        assert next(iter(log)).cycle == cut_at + 1
        assert log.metadata["continues"] == "whole"
        assert Replay(log, trust=True).run().identical


def test_a_run_that_has_ended_in_order_is_not_taken_up(tmp_path):
    plan = plan_of(tmp_path)
    run(plan, tmp_path / "whole")
    assert recovered(tmp_path / "whole", plan) is None


def test_what_a_background_task_was_working_on_is_done(tmp_path, monkeypatch):
    text = (
        "tasks:\n"
        "  - {{id: n, type: support.helpers.Numbers, config: {{limit: {limit}}}}}\n"
        "  - {{id: slow, type: support.engine_tasks.HeldCount, background: true}}\n"
        "cnx: [{{src: n, dst: slow, msg: IntMsg}}]\n"
        "logging: {{slab_size_mib: 1, section_size_mib: 1}}\n"
    )
    go_on = threading.Event()
    monkeypatch.setattr(Held, "hold", lambda _task, _number: go_on.wait(30))
    plan = plan_of(tmp_path, text, limit=1)
    made = Run(plan, clock=ManualClock(START_NS, step_ns=1000), directory=tmp_path / "whole")

    def look(cycle):
        if cycle.time.cycle == 0:
            shutil.copytree(tmp_path / "whole", tmp_path / "cut")
            go_on.set()

    made.watch(look)
    made.run()
    begins = recovered(tmp_path / "cut", plan)
    run(plan_of(tmp_path, text, limit=0), tmp_path / "after", begins=begins)
    assert values(tmp_path / "cut", "/slow/out") == []
    assert values(tmp_path / "after", "/slow/out") == [1]
    with Log(tmp_path / "after") as log:
        assert Replay(log, trust=True).run().identical
