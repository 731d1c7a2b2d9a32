"""Record the golden run again: `make golden`. Do so when the log's format or golden_tasks.py changes;
what `flowrun log diff` says of the old run and the new one is what the change did.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import golden_tasks

from flowrun.runtime.clock import ManualClock
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import plan_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.run.live import Run

FOLDER = Path(__file__).parent
START_NS = 1_700_000_000_000_000_000
STEP_NS = 10_000_000
# The log keeps the graph's path; that of the machine which recorded says nothing to the others.
RECORDED_PATH = Path("/golden/golden.yaml")


def record(directory: Path) -> None:
    """Record into `directory`, by a clock that is made. The factor of `scale` changes at 30."""
    graph = parse_graph((FOLDER / "golden.yaml").read_text(), path=RECORDED_PATH, env={})
    run = Run(
        plan_graph(bind(graph)), clock=ManualClock(START_NS, step_ns=STEP_NS), directory=directory
    )

    def before(number: int) -> None:
        if number == 30:
            run.set_live("scale", {"factor": 5})

    golden_tasks.Numbers.before = staticmethod(before)
    try:
        run.run()
    finally:
        golden_tasks.Numbers.before = None


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER / "run"
    shutil.rmtree(target, ignore_errors=True)
    record(target)
    (FOLDER / ".last_run").unlink(
        missing_ok=True
    )  # the counter of a log directory, which this is not
