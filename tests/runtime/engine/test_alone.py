"""One task by itself."""

from __future__ import annotations

import pytest

from flowrun.msgs import IntMsg
from flowrun.runtime.context import CycleTime
from flowrun.runtime.engine.alone import SourceEnds
from flowrun.runtime.task import Context, Output, Task
from flowrun.runtime.testing import run_task


def test_what_a_source_says_is_kept() -> None:
    ends, time = SourceEnds(), CycleTime(0, 7)
    said = ends.functions(time)
    assert (ends.ever_woken, ends.finished, ends.due_ns) == (False, False, None)
    assert said.clock_ns() == 7
    said.wake()
    assert (ends.ever_woken, ends.woken.is_set()) == (True, True)
    said.wake_at(9)
    said.finish()
    assert (ends.due_ns, ends.finished) == (9, True)
    assert (said.playback(), said.paused_ns()) == ("running", 0)
    said.dropped(2, "late")
    with pytest.raises(TypeError):
        said.dropped(1.5)  # type: ignore[arg-type]


def test_time_passes_for_a_source_that_waits_for_it() -> None:
    class Later(Task):
        def process(self, ctx: Context, out: Output[IntMsg]) -> None:
            if ctx.now_ns >= 20:
                out.publish()
                ctx.finish()

    [only] = run_task(Later, period_ns=10)
    assert only.out.tov_ns == 20
