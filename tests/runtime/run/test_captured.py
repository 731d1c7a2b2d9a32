"""What tasks say other than by `ctx.log` is in the run's log, with the name of the task."""

from __future__ import annotations

import io
import logging
import threading
import warnings
from contextlib import contextmanager

import structlog

from flowrun.runtime.clock import ManualClock
from flowrun.runtime.log.reader import Log
from flowrun.runtime.run import log_lines
from flowrun.runtime.run.live import Run
from support.chatty_tasks import Reconfigures
from support.helpers import START_NS, plan_of


@contextmanager
def as_in_a_program():
    """Without the handlers of pytest, which would show what `logging` is given, or fail of it."""
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            yield
            assert root.handlers == []
    finally:
        root.handlers = handlers
        structlog.reset_defaults()


def lines_of(tmp_path, tasks, cnx):
    console = io.StringIO()
    live = Run(
        plan_of(tmp_path, tasks, cnx),
        clock=ManualClock(START_NS, step_ns=1000),
        directory=tmp_path / "run",
        console=console,
    )
    Reconfigures.run = live
    with as_in_a_program():
        assert live.run().error is None
    with Log(tmp_path / "run") as log:
        return [m.fields for m in log.messages("/flowrun/log")], console.getvalue()


def test_logging_warnings_and_threads_of_a_task_have_its_name(tmp_path):
    lines, console = lines_of(tmp_path, "n=Numbers(limit: 3); c=chatty_tasks.Chatty", "n>c:IntMsg")
    said = [(it["name"], it["level"], it["message"].splitlines()[0]) for it in lines]
    assert said[:3] == [
        ("c", "WARNING", "root says 1"),
        ("c", "ERROR", "a library says"),
        ("c", "WARNING", "%d %d (1,)"),
    ]
    assert said[3][:2] == ("c", "WARNING")
    assert said[3][2].endswith("UserWarning: deprecated")
    assert said[4] == ("c", "WARNING", "a thread says")
    assert said[5][1:] == ("ERROR", "thread 'mine' ended with an error")
    assert len(said) == 6
    assert lines[1]["fields"] == {"logger": "some.lib"}
    died_at = lines[5]["fields"]
    assert 'in died: raise OSError("the cable is out")' in died_at["at"]
    assert died_at["traceback"].endswith("OSError: the cable is out\n")
    assert "a library says" in console
    assert "in died: raise OSError" in console
    assert "Traceback" not in console


def test_nothing_is_captured_after_the_run(tmp_path):
    hooks = threading.excepthook, warnings.showwarning
    lines_of(tmp_path, "n=Numbers(limit: 3); c=chatty_tasks.Chatty", "n>c:IntMsg")
    assert hooks == (threading.excepthook, warnings.showwarning)


def test_lines_that_are_equal_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(log_lines, "_FOLD_S", 1000.0)
    lines, _ = lines_of(tmp_path, "n=Numbers(limit: 100); c=chatty_tasks.Repeats", "n>c:IntMsg")
    again = [it["fields"].get("repeated") for it in lines if it["message"] == "again"]
    assert again == [None] * 10 + [90]
    assert sum(it["message"].startswith("number") for it in lines) == 100


def test_a_program_that_sets_up_its_own_logging_is_still_heard(tmp_path):
    tasks = "n=Numbers(limit: 3); c=chatty_tasks.Reconfigures"
    lines, _ = lines_of(tmp_path, tasks, "n>c:IntMsg")
    assert [it["message"] for it in lines] == ["still heard"] * 3


def test_a_task_that_publishes_nothing_is_mentioned_at_the_end(tmp_path):
    tasks = "n=Numbers(limit: 3); q=chatty_tasks.Quiet; after=Scale; sum=Scale"
    lines, _ = lines_of(tmp_path, tasks, "n>q:IntMsg; q>after:IntMsg; n>sum:IntMsg")
    assert [(it["name"], it["message"]) for it in lines] == [
        ("q", "ran, and never published a message"),
        ("after", "never ran: what it needs did not come"),
    ]


def test_structlog_that_logs_to_logging_does_not_go_round(tmp_path):
    live = Run(
        plan_of(tmp_path, "n=Numbers(limit: 2); c=chatty_tasks.Chatty", "n>c:IntMsg"),
        clock=ManualClock(START_NS, step_ns=1000),
        directory=tmp_path / "run",
        console=io.StringIO(),
    )
    structlog.configure(logger_factory=structlog.stdlib.LoggerFactory())
    with as_in_a_program():
        assert live.run().error is None
