"""A run with three shadows: one that disagrees now and then, one that fails, one with a budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from flowrun.runtime.clock import ManualClock
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import plan_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.run.live import Run
from flowrun.runtime.run.report import TaskReport
from support.helpers import START_NS

GRAPH = """
tasks:
  - {id: cam, type: support.pictures.Camera, config: {limit: 30000}}
  - {id: vlm, type: support.shadow_tasks.Answers, config: {shadow: {wrong_each: 2}}}
  - {id: gate, type: support.shadow_tasks.Answers, config: {shadow: {breaks: true}}}
  - id: thrifty
    type: support.shadow_tasks.Answers
    config: {shadow: {prompt: tell, budget: {per_hour: 3}}}
cnx:
  - {src: cam, dst: vlm, msg: ImageRgb8Msg}
  - {src: cam, dst: gate, msg: ImageRgb8Msg}
  - {src: cam, dst: thrifty, msg: ImageRgb8Msg}
"""


def ran(
    folder: Path,
    graph: str = GRAPH,
    is_enough: Callable[[Mapping[str, TaskReport]], bool] = lambda _: False,
) -> Path:
    """A run of a graph, until it is enough by its report."""
    plan = plan_graph(bind(parse_graph(graph, path=folder / "g.yaml", env={})))
    run = Run(plan, clock=ManualClock(START_NS, step_ns=1000), directory=folder / "run")

    def look(_: object) -> None:
        if is_enough(run.report().tasks):
            run.stop("enough")
        time.sleep(0.001)  # shadows answer when they get to it

    run.watch(look)
    assert run.run().error is None
    return folder / "run"


def is_seen(tasks: Mapping[str, TaskReport]) -> bool:
    """Whether each shadow has done what it is here for."""
    vlm, gate, thrifty = (tasks[f"{it}_shadow"] for it in ("vlm", "gate", "thrifty"))
    return (
        (vlm.shadow is not None and 0 < vlm.shadow.disagreed < vlm.shadow.compared)
        and (gate.raised is not None and gate.raised.count > 1)
        and (thrifty.shadow is not None and thrifty.shadow.compared == 3)
        and thrifty.dropped_by.get("hourly budget", 0) > 3
    )
