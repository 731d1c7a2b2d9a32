"""Tasks that act outside the run: a replay neither starts nor calls them."""

from __future__ import annotations

import pytest

from flowrun.runtime.errors import UsageError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.recorder import ReplayLog
from flowrun.runtime.replay.replay import Replay
from support.helpers import START_NS, controls
from support.sink_tasks import Sends, run_graph

GRAPH = """
tasks:
  - {id: n, type: support.helpers.Numbers, config: {limit: 6}}
  - {id: x, type: support.helpers.Scale}
  - {id: out, type: support.sink_tasks.Sends, on_error: skip}
cnx: [{src: n, dst: x, msg: IntMsg}, {src: x, dst: out, msg: IntMsg}]
"""


@pytest.fixture
def sends(monkeypatch):
    monkeypatch.setattr(Sends, "sent", [])
    monkeypatch.setattr(Sends, "started", 0)
    monkeypatch.setattr(Sends, "refused", set())
    return Sends


def record(tmp_path, text=GRAPH):
    return run_graph(tmp_path, text, directory=tmp_path / "run")


def test_a_replay_sends_nothing_and_gives_back_what_was_refused_and_dropped(tmp_path, sends):
    sends.refused = {20}
    run, result = record(tmp_path)
    assert result.error is None
    assert (sends.sent, sends.started) == ([0, 10, 30, 40, 50], 1)
    assert run.report().tasks["out"].raised.count == 1
    sends.refused = set()
    with Log(tmp_path / "run") as log:
        again = Replay(log, env={})
        with ReplayLog(again, tmp_path / "again", config={}, now_ns=START_NS) as recorder:
            report = again.run(recorder=recorder)
        assert again.notes == []
    assert report.identical
    assert report.per_task == {"x": 6}
    assert (sends.sent, sends.started) == ([0, 10, 30, 40, 50], 1)
    recorded = controls(tmp_path / "run")
    assert [it[1:3] for it in recorded if it[1] == "error"] == [("error", "out")]
    assert controls(tmp_path / "again") == recorded


def test_what_it_dropped_is_in_the_log_the_report_and_the_replay(tmp_path, sends):
    run, _ = record(tmp_path, GRAPH.replace("support.helpers.Scale", "Square"))
    assert sends.sent == [0, 1, 4, 9, 16, 25]
    assert run.report().tasks["out"].dropped_by == {"odd": 3}
    dropped = controls(tmp_path / "run", "dropped")
    assert [it[1:] for it in dropped] == [("dropped", "out", 1)] * 3
    with Log(tmp_path / "run") as log:
        assert Replay(log, env={}).run().identical


def test_naming_it_as_a_task_to_run_says_why_it_does_not(tmp_path, sends):
    record(tmp_path)
    with Log(tmp_path / "run") as log:
        again = Replay(log, env={}, only=["x", "out"])
        assert again.run().identical
        assert again.notes == [
            "task 'out' is not run: it acts outside the run, where a replay does nothing"
        ]
        with pytest.raises(
            UsageError, match="it acts outside the run, where a replay does nothing"
        ):
            Replay(log, env={}, config={"out.key": 1}, graph=with_key(tmp_path))
    assert sends.started == 1


def with_key(tmp_path):
    path = tmp_path / "keyed.yaml"
    path.write_text(GRAPH.replace("support.sink_tasks.Sends", "support.sink_tasks.Keyed"))
    return path


def test_it_may_end_the_run(tmp_path):
    text = GRAPH.replace("Sends, on_error: skip", "Ends")
    _, result = record(tmp_path, text.replace("support.helpers.Scale", "Square"))
    assert (result.reason, result.cycles, result.error) == ("four", 3, None)


def test_other_tasks_may_not(tmp_path):
    text = GRAPH.replace("Sends, on_error: skip", "Meek")
    _, result = record(tmp_path, text.replace("support.helpers.Scale", "Square"))
    assert str(result.error.__cause__) == "task 'out' does not declare that it acts_outside"
