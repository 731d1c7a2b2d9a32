"""What a graph's `logging` keys do to a run's log."""

from __future__ import annotations

import re

import pytest
from helpers import START_NS, plan_of

from flowrun.runtime.clock import ManualClock
from flowrun.runtime.errors import ReplayError
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import plan_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.run.live import Run


class Lines:
    """The console, its lines without their times."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return False

    def lines(self):
        return [re.sub(r" +", " ", line[9:]).strip() for line in self.text.splitlines()]


def plan_with(tmp_path, *, source="", scale="", logging=""):
    text = (
        "tasks:\n"
        f"  - {{id: n, type: helpers.Numbers, logging: {{{source}}}}}\n"
        f"  - {{id: x, type: helpers.Scale, logging: {{{scale}}}}}\n"
        "  - {id: y, type: helpers.Scale}\n"
        "cnx: [{src: n, dst: x, msg: IntMsg}, {src: x, dst: y, msg: IntMsg}]\n"
        f"logging: {{slab_size_mib: 1, section_size_mib: 1, {logging}}}\n"
    )
    return plan_graph(bind(parse_graph(text, path=tmp_path / "g.yaml", env={})))


def run(plan, directory, *, start_ns=START_NS):
    lines = Lines()
    made = Run(
        plan, clock=ManualClock(start_ns, step_ns=1000), directory=directory, console=lines
    )  # fmt: skip
    result = made.run()
    assert result.error is None
    return lines.lines()


@pytest.mark.parametrize("scale", ["enabled: false", "payload: none"])
def test_replay_compares_what_was_logged_with_payload(tmp_path, scale):
    assert run(plan_with(tmp_path, scale=scale), tmp_path / "run") == []
    with Log(tmp_path / "run") as log:
        report = Replay(log, env={}).run()
    assert report.identical
    assert report.per_task == {"y": 5}


def test_payload_none_logs_every_message_empty(tmp_path):
    run(plan_with(tmp_path, scale="payload: none"), tmp_path / "run")
    with Log(tmp_path / "run") as log:
        empty = [(m.cycle, m.tov_ns, bytes(m.payload)) for m in log.messages("/x/scaled")]
        full = [(m.cycle, m.tov_ns) for m in log.messages("/n/number")]
    assert empty == [(cycle, tov_ns, b"") for cycle, tov_ns in full]
    assert len(full) == 5


@pytest.mark.parametrize(
    ("options", "recorded"),
    [
        ({"source": "payload: none"}, "/x/scaled, /y/scaled"),
        ({"source": "enabled: false"}, "/x/scaled, /y/scaled"),
        ({"logging": "enable_task_logging: false"}, "none"),
    ],
)
def test_a_source_that_cannot_be_replayed_is_told_at_the_start(tmp_path, options, recorded):
    assert run(plan_with(tmp_path, **options), tmp_path / "run") == [
        "[warning ] the run cannot be replayed: it logs no payload of a source topics=/n/number"
    ]
    with Log(tmp_path / "run") as log, pytest.raises(ReplayError) as caught:
        Replay(log, env={})
    assert str(caught.value) == (
        f"{tmp_path / 'run'}: nothing was recorded of /n/number, which replay must feed; "
        f"recorded: {recorded}"
    )


def test_a_run_without_a_log_warns_of_nothing(tmp_path):
    assert run(plan_with(tmp_path, source="enabled: false"), None) == []
    assert run(plan_of(tmp_path, "n=Numbers"), tmp_path / "run") == []
