"""Messages with fields of all kinds, a source of them, and sinks that act outside the run."""

from __future__ import annotations

import socket
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs import IntMsg, Message
from flowrun.msgs.fields import Measured, Shape
from flowrun.runtime.clock import ManualClock
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import plan_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.run.live import Run
from flowrun.runtime.task import Context, Input, Task, TaskConfig
from support.helpers import START_NS


class MixedMsg(Message):
    text: str
    number: float
    maybe: int | None
    data: bytes
    nested: dict[str, list[Any]]
    items: list[Any]
    pose: Annotated[NDArray[np.float32], Shape("3")]
    points: Annotated[NDArray[np.float64], Shape("N 2")]
    cycle: int
    took_ms: Measured[float]


class Sends(Task):
    """Sends to nobody: keeps what came, for the test to look at; refuses what the test says."""

    acts_outside: ClassVar[bool] = True
    sent: ClassVar[list[int]] = []
    refused: ClassVar[set[int]] = set()
    started: ClassVar[int] = 0

    def start(self, ctx: Context) -> None:
        type(self).started += 1

    def process(self, ctx: Context, number: Input[IntMsg]) -> None:
        if number.value in self.refused:
            raise ConnectionError(f"refused {number.value}")
        self.sent.append(number.value)
        if number.value % 2:
            ctx.dropped(1, "odd")


class Keyed(Sends):
    """With a key."""

    class Config(TaskConfig):
        key: int = 0


class Meek(Task):
    """Ends the run at 4, if it may."""

    def process(self, ctx: Context, number: Input[IntMsg]) -> None:
        if number.value == 4:
            ctx.end_run("four")


class Ends(Meek):
    """It may."""

    acts_outside = True


def run_graph(tmp_path, text, *, directory=None):
    """Run the graph `text`, in the folder `tmp_path`; the run and its result."""
    graph = parse_graph(text, path=tmp_path / "g.yaml", env={})
    clock = ManualClock(START_NS, step_ns=1000)
    run = Run(plan_graph(bind(graph)), clock=clock, directory=directory)
    return run, run.run()


def receiver():
    """A UDP socket at a free port."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", 0))
    made.settimeout(30)
    return made
