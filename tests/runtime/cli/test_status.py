"""What a person sees of a run on a terminal."""

import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, Group

from flowrun.runtime.cli.board import board, fleet_lines, link_lines, status_line, troubles
from flowrun.runtime.engine.policy import Raised
from flowrun.runtime.engine.whereabouts import Busy
from flowrun.runtime.links.status import LinkStatus, PartStatus
from flowrun.runtime.run.report import LogReport, Progress, RunReport, TaskReport

S = 1_000_000_000
REPORT = RunReport(
    cycles=1_234_567,
    cycle_rate_hz=29.97,
    uptime_s=41_523.4,
    at_ns=1_000 * S,
    starting=None,
    progress=None,
    log=LogReport("runs/g", 1_234_567_890, 9),
    tasks={
        "cam": TaskReport("VideoCapture", 41.0, 1234.5, 29.97, dropped=12, state="running"),
        "vlm": TaskReport("Inference", 9.5, 12.0, 0.31, background=True),
        "chat": TaskReport("BroadcastChat"),
    },
    last_answer=None,
)


def having(task, **changes):
    tasks = dict(REPORT.tasks)
    tasks[task] = replace(tasks[task], **changes)
    return replace(REPORT, tasks=tasks)


LINKS = (
    LinkStatus("dock/0", "in", "connected", 7, 9, 3, gaps=1, skipped=1200, clock_offset_ms=-4.25),
    LinkStatus("desk/0", "out", "lost", 7, 9, 0),
    LinkStatus("desk/1", "out", "refused", 0, 9, 0, refused="desk/1 sends IntMsg"),
)


def test_links_have_a_line_each_and_those_that_do_not_work_are_troubles():
    report = replace(REPORT, part="gpu/0", links=LINKS)
    assert list(link_lines(report)) == [
        "from dock/0: connected, 3 behind, 1 gap, 1,200 passed over, clock -4.2 ms",
        "to desk/0: lost, 0 behind",
        "to desk/1: refused, 0 behind",
    ]
    assert list(troubles(report)) == [
        "to desk/0: lost",
        "to desk/1: refused (desk/1 sends IntMsg)",
    ]


def test_a_fleet_has_a_line_for_each_process_and_each_link():
    fleet = (
        PartStatus("dock/0", "running", cycles=1234, cycle_rate_hz=29.97, dropped=3, restarts=1),
        PartStatus(
            "gpu/0", "gone", cycles=7, heard_s=12.5, errors=1, error="no card", links=LINKS[:1]
        ),
        PartStatus(
            "desk/0", "ended", links=(replace(LINKS[0], peer="gpu/0", reconnects=2, gaps=0),)
        ),
        PartStatus("hub/0"),
    )
    assert fleet_lines(fleet) == [
        "1 of 4 partitions run, 1 ended",
        "  dock/0: running, 1,234 cycles, 30.0/s, 3 dropped, 1 restart",
        "  gpu/0: gone for 12.5 s, 7 cycles, 0.0/s, 1 error, the last: no card",
        "  desk/0: ended, 0 cycles, 0.0/s",
        "  hub/0: nothing was heard of it yet",
        "  dock/0 -> gpu/0: connected, 3 behind, 1 gap, 1,200 passed over, clock -4.2 ms",
        "  gpu/0 -> desk/0: connected, 3 behind, 1,200 passed over, 2 reconnects, clock -4.2 ms",
    ]


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (None, "2.0 s  starting vlm ..."),
        (Progress("loading the libraries", None), "2.0 s  starting vlm: loading the libraries ..."),
        (Progress("loading weights", 0.421), "2.0 s  starting vlm: loading weights 42%"),
    ],
)
def test_a_task_that_starts_says_how_far_it_is(progress, line):
    report = replace(REPORT, starting="vlm", uptime_s=2.0, progress=progress)
    assert status_line(report) == line


def test_a_line_says_how_far_and_how_fast_a_run_is():
    assert status_line(REPORT) == ("11:32:03  1,234,567 cycles  30.0/s  log 1.2 GB  12 dropped")
    assert status_line(REPORT, width=50) == "11:32:03  1,234,567 cycles  30.0/s  log 1.2 GB"


@given(
    uptime_s=st.floats(0, 3e7),
    cycles=st.integers(0, 10**11),
    rate_hz=st.floats(0, 1e6),
    size=st.integers(0, 10**14),
    dropped=st.integers(0, 10**9),
)
def test_whatever_a_run_has_done_its_line_fits_50_columns(uptime_s, cycles, rate_hz, size, dropped):
    report = replace(
        having("cam", dropped=dropped),
        uptime_s=uptime_s,
        cycles=cycles,
        cycle_rate_hz=rate_hz,
        log=LogReport("runs/g", size, 9),
    )
    line = status_line(report, width=50)
    assert len(line) <= 50
    assert "/s" in line


def test_what_is_wrong_has_a_line_each():
    report = having("cam", state="lost", code="timeout")
    report = replace(report, tasks={**report.tasks, "x": TaskReport("X", late_s=12.0)})
    assert list(troubles(report, [Busy("chat", "process", 3.0), Busy("x", "process", 12.0)])) == [
        "chat: 3 s in process",
        "cam: lost (timeout)",
        "x hangs: 12 s in one call",
    ]


def test_errors_of_a_task_are_one_line_with_their_number_and_the_newest():
    raised = Raised(232, "ValueError: no\nsuch thing", 1_000, 998 * S)
    assert list(troubles(having("vlm", raised=raised))) == [
        r"vlm: x232, last 2.0 s ago: ValueError: no\nsuch thing"
    ]


@pytest.mark.parametrize("width", [40, 50, 79, 80, 120])
def test_no_line_is_longer_than_the_terminal_is_wide(width):
    report = having("chat", raised=Raised(9_999_999, "ValueError: " + "very 長い " * 20, 5, 5))
    report = replace(
        report,
        tasks={**report.tasks, "a_task_with_a_very_long_name": TaskReport("X" * 60, late_s=9)},
    )
    console = Console(file=io.StringIO(), width=width)
    console.print(Group(*board(report, width=width)))
    lines = console.file.getvalue().splitlines()
    assert max(map(cell_len, lines)) <= width
    assert len(lines) == 3 + 1 + len(report.tasks)  # none is folded
    assert "12" in "".join(lines)  # what was dropped
