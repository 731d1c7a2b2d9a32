"""What a graph's `logging` keys do to a run's log."""

from __future__ import annotations

import pytest

from flowrun.runtime.errors import ReplayError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from support.helpers import plan_of
from support.logged_runs import plan_with, run


@pytest.mark.parametrize(
    ("scale", "compared"),
    [("enabled: false", {"y": 5}), ("payload: none", {"x": 5, "y": 5})],
)
def test_replay_compares_what_was_logged(tmp_path, scale, compared):
    assert run(plan_with(tmp_path, scale=scale), tmp_path / "run") == []
    with Log(tmp_path / "run") as log:
        report = Replay(log, env={}).run()
    assert report.identical
    assert report.per_task == compared


def test_payload_none_logs_every_message_empty(tmp_path):
    run(plan_with(tmp_path, scale="payload: none"), tmp_path / "run")
    with Log(tmp_path / "run") as log:
        empty = [(m.cycle, m.tov_ns, bytes(m.payload)) for m in log.messages("/x/scaled")]
        full = [(m.cycle, m.tov_ns) for m in log.messages("/n/number")]
    assert empty == [(cycle, tov_ns, b"") for cycle, tov_ns in full]
    assert len(full) == 5


@pytest.mark.parametrize("source", ["payload: none", "enabled: false"])
def test_a_source_that_is_not_logged_is_reported_at_the_start(tmp_path, source):
    assert run(plan_with(tmp_path, source=source), tmp_path / "run") == [
        "[info ] a replay does not run the tasks that work on what a source gives, since the log does "
        "not hold that; it begins with what they have made tasks=x topics=/n/number"
    ]
    with Log(tmp_path / "run") as log:
        assert Replay(log, env={}).run().per_task == {"y": 5}


def test_a_run_that_cannot_be_replayed_is_reported_at_the_start(tmp_path):
    options = {"logging": "enable_task_logging: false"}
    assert run(plan_with(tmp_path, **options), tmp_path / "run") == [
        "[warning ] the run cannot be replayed: it logs no payload of a source topics=/n/number"
    ]
    with Log(tmp_path / "run") as log, pytest.raises(ReplayError) as caught:
        Replay(log, env={})
    assert str(caught.value) == (
        f"{tmp_path / 'run'}: the log holds no messages of /n/number, which the replay must feed; "
        "it holds: none"
    )


def test_a_run_without_a_log_warns_of_nothing(tmp_path):
    assert run(plan_with(tmp_path, source="enabled: false"), None) == []
    assert run(plan_of(tmp_path, "n=Numbers"), tmp_path / "run") == []
