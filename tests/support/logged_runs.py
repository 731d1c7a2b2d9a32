"""Runs of a small graph with `logging` keys, and what they write to the console."""

import re

from flowrun.runtime.clock import ManualClock
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import plan_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.run.live import Run
from support.helpers import START_NS


class Lines:
    """The console, its lines without their times."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return False

    def lines(self):
        return [re.sub(r" +", " ", line[9:]).strip() for line in self.text.splitlines()]


def plan_with(tmp_path, *, source="", scale="", logging=""):
    text = (
        "tasks:\n"
        f"  - {{id: n, type: support.helpers.Numbers, logging: {{{source}}}}}\n"
        f"  - {{id: x, type: support.helpers.Scale, logging: {{{scale}}}}}\n"
        "  - {id: y, type: support.helpers.Scale}\n"
        "cnx: [{src: n, dst: x, msg: IntMsg}, {src: x, dst: y, msg: IntMsg}]\n"
        f"logging: {{slab_size_mib: 1, section_size_mib: 1, {logging}}}\n"
    )
    return plan_graph(bind(parse_graph(text, path=tmp_path / "g.yaml", env={})))


def run(plan, directory, *, start_ns=START_NS):
    lines = Lines()
    made = Run(plan, clock=ManualClock(start_ns, step_ns=1000), directory=directory, console=lines)
    result = made.run()
    assert result.error is None
    return lines.lines()
