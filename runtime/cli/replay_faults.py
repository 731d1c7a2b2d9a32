"""`flowrun replay RUN --fault TASK.KIND=WHICH`: what tasks do when messages come otherwise."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowrun.runtime.cli.failures import print_error
from flowrun.runtime.errors import TaskError
from flowrun.runtime.printing import print_text
from flowrun.runtime.wording import counted, one_line

if TYPE_CHECKING:
    from flowrun.runtime.replay.faults import Chosen, Fault
    from flowrun.runtime.replay.replay import Replay
    from flowrun.runtime.replay.violations import Tried, Violation

__all__ = ["replay_with_faults"]

_MOST_CYCLES = 100
"""Of a fault, that a command line names."""


def replay_with_faults(
    first: Replay,
    make: Callable[[], Replay],
    faults: Sequence[Fault],
    *,
    run: Path,
    config: Mapping[str, Any],
    log_dir: Path | None,
) -> int:
    """Replay with `faults`; where a task raises an error, find the fewest that are enough: 1 then.

    first: the first replay. make: makes another.
    config: the config values that they change.
    log_dir: where the first one is recorded; None where it is not.
    """
    from flowrun.runtime.replay.recorder import ReplayLog
    from flowrun.runtime.replay.violations import fewest, try_faults

    with ExitStack() as stack:
        recorder = None
        if log_dir is not None:
            changed = {fault.task for fault in faults}
            recorder = stack.enter_context(
                ReplayLog(first, log_dir, config=config, now_ns=time.time_ns(), changed=changed)
            )
        tried = try_faults(first, faults, recorder=recorder)
    for note in first.notes:
        print_text(one_line(f"note: {note}"))
    print_text(_counted(tried.happened, faults))
    hit = {it.fault for it in tried.happened}
    for fault in (fault for at, fault in enumerate(faults) if at not in hit):
        print_text(f"note: {fault.task}.{fault.kind} hit no message, so nothing of it was tried")
    if tried.violation is None:
        print_text(
            f"{counted(tried.cycles, 'cycle')}: no task raised an error that was not recorded"
        )
        return 0
    _print(tried.violation)
    bare = try_faults(make(), [])
    if tried.violation.is_like(bare.violation):
        print_text("it raises the same error without any fault")
        return 1

    def again(only: Collection[Chosen]) -> Tried:
        return try_faults(make(), faults, only=only)

    best, replays = fewest(tried, again)
    assert best.violation is not None
    enough, faults_in_all = len(best.happened), counted(len(tried.happened), "fault")
    what = f"{enough:,} of {faults_in_all} {'is' if enough == 1 else 'are'} enough"
    print_text(f"{what} ({counted(replays, 'replay')}), in cycle {best.violation.cycle:,}:")
    options = [f"--fault {shlex.quote(text)}" for text in _options(best.happened, faults)]
    print_text(f"  flowrun replay {shlex.quote(str(run))} {' '.join(options)}")
    return 1


def _counted(happened: Sequence[Chosen], faults: Sequence[Fault]) -> str:
    counts = Counter(it.fault for it in happened)
    return ", ".join(
        f"{fault.task}.{fault.kind}: {counted(counts[at], 'message')}"
        if fault.kind != "stop"
        else f"{fault.task}.stop: from cycle {fault.spans[0][0]:,} on"
        for at, fault in enumerate(faults)
    )


def _print(violation: Violation) -> None:
    if violation.error is None or not isinstance(violation.error, TaskError):
        print_text(f"cycle {violation.cycle:,}, task {violation.task!r}: {violation.text}")
    else:
        print_error(violation.error)


def _options(happened: Sequence[Chosen], faults: Sequence[Fault]) -> list[str]:
    found = []
    for at, fault in enumerate(faults):
        cycles = [it.cycle for it in happened if it.fault == at]
        if cycles:
            found.append(fault.at(cycles[:_MOST_CYCLES]))
    return found
