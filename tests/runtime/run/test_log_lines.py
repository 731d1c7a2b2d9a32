"""Lines that are logged while others are."""

import gc
import io
import sys
from contextlib import contextmanager

import pytest
import structlog

from flowrun.runtime.broadcast import Series
from flowrun.runtime.run.log_lines import configure_logs

ALLOCATIONS = 150
"""More than a line makes."""


class Left:
    """Garbage that logs when it is collected, as a client's task does that nobody awaits."""

    def __init__(self, log):
        self._log, self._own = log, self

    def __del__(self):
        if not sys.is_finalizing():
            self._log.error("left")


@contextmanager
def collected_after(allocations, log):
    """Have garbage that logs collected after a number of allocations."""
    before = gc.get_threshold()
    gc.collect()
    Left(log)
    gc.set_threshold(allocations)
    gc.enable()
    try:
        yield
    finally:
        gc.disable()
        gc.set_threshold(*before)


@pytest.fixture
def lines():
    """Those of the log: a series, as the page reads them, and the logger."""
    series = Series(4096)

    class Target:
        def log_record(self, _time_ns, _level, message, _name, _fields):
            series.offer(message)

    before = structlog.get_config()
    folding = configure_logs(now_ns=lambda: 1, target=Target(), stream=io.StringIO())
    gc.freeze()  # else each collection looks at all that the tests have imported
    gc.disable()
    yield series, folding, structlog.get_logger().bind()
    gc.enable()
    structlog.configure(**before)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("what", ["logs", "reads lines", "flushes"])
def test_garbage_that_logs_is_collected_whatever_its_thread_does(lines, what):
    series, folding, log = lines
    acts = {
        "logs": lambda: log.info("line"),
        "reads lines": lambda: series.after(0),
        "flushes": lambda: folding.flush(log),
    }
    for allocations in range(1, ALLOCATIONS):
        with collected_after(allocations, log):
            acts[what]()
    gc.collect()
    folding.flush(log)
    _, came = series.after(0)
    assert "left" in came
    assert len(came) == series.number


@pytest.mark.usefixtures("lines")
def test_a_line_in_the_middle_of_another_comes_after_it_with_its_own_error():
    said = io.StringIO()

    class Target:
        def log_record(self, _time_ns, _level, message, _name, fields):
            said.write(f"{message} {fields.get('exception', '').rpartition(chr(10))[2]}|")
            if message == "outer":
                try:
                    raise ValueError("of the inner one")
                except ValueError:
                    structlog.get_logger().exception("inner")
                said.write("outer ends|")

    configure_logs(now_ns=lambda: 1, target=Target(), stream=io.StringIO())
    structlog.get_logger().info("outer")
    assert said.getvalue() == "outer |outer ends|inner ValueError: of the inner one|"
