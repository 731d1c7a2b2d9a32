"""Why a run ended, from its exit status and what it wrote."""

import pytest

from flowrun.runtime.children.endings import why_ended

KILLED = "killed by SIGKILL: by somebody, or by the system for want of memory"


@pytest.mark.parametrize(
    ("status", "lines", "why"),
    [
        (0, "error: of a task that was skipped", None),
        (3, "", "ended with status 3"),
        (1, "[info] loaded|error: first|error: a|  at x.py:3", "a|  at x.py:3"),
        (2, "warning: not used: json|g.yaml:1:1: a|g.yaml:2:1: b", "g.yaml:1:1: a|g.yaml:2:1: b"),
        (1, "1|2|3|4|5|6|7|8|9|10", "3|4|5|6|7|8|9|10"),
        (137, "10:00:00 [info] source opened", KILLED),
        (-9, "", KILLED),
        (143, "error: x", "killed by SIGTERM"),
        (139, "Fatal Python error: at", "killed by SIGSEGV|Fatal Python error: at"),
        (250, "", "killed by signal 122"),
    ],
)
def test_the_end_is_worded(status, lines, why):
    assert why_ended(status, lines.split("|")) == (why and why.replace("|", "\n"))
