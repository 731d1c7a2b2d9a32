"""Keyframes that are tried: which, how many, and what is said of the tasks."""

from __future__ import annotations

import pytest

from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.replay.verify import verify_keyframes
from support import helpers
from support.helpers import plan_of, record


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """21 cycles, with a keyframe in every third."""
    folder = tmp_path_factory.mktemp("verified")
    more = "logging: {slab_size_mib: 1, section_size_mib: 1, keyframe_interval: 3}"
    record(
        plan_of(folder, "n=Numbers(limit: 20); f=Total; t=Total", "n > f; n > t", more),
        folder / "run",
    )
    with Log(folder / "run") as log:
        yield log


@pytest.mark.parametrize(
    ("count", "verified"),
    [
        (1, [0]),
        (2, [0, 9]),
        (3, [0, 6, 12]),
        (5, [0, 3, 6, 12, 15]),
        (7, [0, 3, 6, 9, 12, 15, 18]),
        (50, [0, 3, 6, 9, 12, 15, 18]),
    ],
)
def test_keyframes_are_spread_over_the_log_and_each_runs_to_the_next(log, count, verified):
    done = []
    found = verify_keyframes(Replay(log, env={}), count=count, progress=done.append)
    assert (found.verified, found.cycles) == (verified, 21)
    assert done == [*range(1, 43)]
    assert (found.forgetful, found.unsteady) == ({}, {})


def test_the_first_keyframe_and_the_first_difference_are_named(log, monkeypatch):
    def thaw(self, state):
        self.total = state["total"] + (state["total"] > 0)

    monkeypatch.setattr(helpers.Total, "thaw", thaw)
    found = verify_keyframes(Replay(log, env={}), count=7)
    assert {task: (begun, it.cycle) for task, (begun, it) in found.forgetful.items()} == {
        "f": (3, 3), "t": (3, 3)
    }  # fmt: skip
    assert found.unsteady == {}


def test_a_task_that_differs_from_the_start_is_not_judged(log):
    found = verify_keyframes(Replay(log, config={"f.factor": 2}, env={}), count=7)
    assert found.forgetful == {}
    assert {task: it.cycle for task, it in found.unsteady.items()} == {"f": 1}
