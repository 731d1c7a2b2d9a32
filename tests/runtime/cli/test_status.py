"""What a person sees while a run starts."""

import pytest

from flowrun.runtime.cli.status import _line
from flowrun.runtime.run.report import Progress, RunReport


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (None, "   2.0 s  starting vlm ..."),
        (
            Progress("loading the libraries", None),
            "   2.0 s  starting vlm: loading the libraries ...",
        ),
        (
            Progress("loading weights", 0.421),
            "   2.0 s  starting vlm: loading weights 42%",
        ),
    ],
)
def test_a_task_that_starts_says_how_far_it_is(progress, line):
    report = RunReport(
        cycles=0,
        cycle_rate_hz=0.0,
        uptime_s=2.0,
        starting="vlm",
        progress=progress,
        log=None,
        tasks={},
        last_answer=None,
    )
    assert _line(report) == line
