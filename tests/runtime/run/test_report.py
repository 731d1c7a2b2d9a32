"""What a run reports of its rates."""

import numpy as np
import pytest

from flowrun.runtime.clock import ManualClock
from flowrun.runtime.run.live import Run
from flowrun.runtime.run.report import _rate_hz, _shown
from support.helpers import START_NS, plan_of

S = 1_000_000_000


@pytest.mark.parametrize(
    ("at_s", "now_s", "rate_hz"),
    [
        ([], 9, 0.0),
        ([8.0], 9, 0.0),
        ([7.0, 7.5, 8.0, 8.5], 9, 2.0),
        ([1.0, 2.0, 3.0, 7.5, 8.0, 8.5], 9, 2.0),  # what is older than 5 s says nothing of now
        ([1.0, 11.0], 20, 0.1),  # unless there is nothing newer
        ([1.0, 11.0], 31, 0.05),  # and it has ceased since
    ],
)
def test_a_rate_is_that_of_the_last_seconds(at_s, now_s, rate_hz):
    assert _rate_hz(np.array(at_s) * S, now_s * S) == rate_hz


def test_a_task_is_counted_when_it_publishes_or_gets_what_it_needs(tmp_path):
    plan = plan_of(
        tmp_path,
        "n=Numbers(limit: 8); x=Scale@every: 4; all=Collect; few=Collect; some=Collect@every: 2",
        "n > x; n > all; x > few; n > some",
    )
    run = Run(plan, clock=ManualClock(START_NS, step_ns=1000), directory=None)
    run.run()
    there = np.array([published for _, _, published in run.executor.timings])
    counted = {task: int(did.sum()) for task, did in _shown(plan, there).items()}
    assert counted == {"n": 8, "x": 2, "all": 8, "few": 2}  # when `some` ran is not known
    tasks = run.report().tasks
    assert tasks["some"].rate_hz is None
    assert tasks["n"].rate_hz > 0
