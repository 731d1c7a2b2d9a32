"""What a person sees while a run starts."""

import pytest

from flowrun.runtime.cli.status import _line


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (None, "   2.0 s  starting vlm ..."),
        (
            {"what": "loading the libraries", "fraction": None},
            "   2.0 s  starting vlm: loading the libraries ...",
        ),
        (
            {"what": "loading weights", "fraction": 0.421},
            "   2.0 s  starting vlm: loading weights 42%",
        ),
    ],
)
def test_a_task_that_starts_says_how_far_it_is(progress, line):
    assert _line({"starting": "vlm", "progress": progress, "uptime_s": 2.0}) == line
