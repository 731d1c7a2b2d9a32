"""Recorded runs replayed: pairs of messages, their pictures, and what one broken run does to others."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowrun.runtime.errors import LogNotFound
from flowrun.runtime.testbench.pairs import PictureAt
from flowrun.runtime.testbench.replays import Job, replay_one, replay_runs
from support.helpers import plan_of, record
from support.pictures import pictures_run


@pytest.fixture(scope="module")
def numbers(tmp_path_factory) -> Path:
    """Numbers 0 to 3, multiplied by 10 and summed up."""
    folder = tmp_path_factory.mktemp("numbers")
    record(plan_of(folder, "n=Numbers(limit: 4); x=Scale; s=Sum", "n > x; x > s.a"), folder / "run")
    return folder / "run"


def pairs_of(job: Job) -> list[tuple[int, str, str, object, object]]:
    return [
        (it.cycle, f"{it.task}.{it.port}", it.kind, it.recorded, it.now)
        for it in replay_one(job).pairs
    ]


def test_a_pair_is_what_was_recorded_and_what_is_made_now(numbers):
    job = Job(numbers, variant="twelve", config={"x.factor": 12})
    replayed = replay_one(job)
    first = replayed.pairs[0]
    assert (first.run, first.variant, first.cycle) == (numbers, "twelve", 1)
    assert (first.recorded, first.now, first.picture) == ({"value": 10}, {"value": 12}, None)
    assert first.difference is not None
    assert pairs_of(job)[1] == (1, "s.total", "IntMsg", {"value": 10}, {"value": 12})
    assert len(replayed.pairs) == 6
    assert replayed.report is not None
    assert replayed.report.differing == 6
    assert not replayed.identical
    assert replayed.graph == "g"


def test_all_pairs_or_none_are_kept_if_the_job_says_so(numbers):
    kept = pairs_of(Job(numbers, keep="all", only=("s",), first=1, last=2))
    assert kept == [
        (1, "s.total", "IntMsg", {"value": 10}, {"value": 10}),
        (2, "s.total", "IntMsg", {"value": 30}, {"value": 30}),
    ]
    replayed = replay_one(Job(numbers, keep="none", config={"x.factor": 12}))
    assert replayed.pairs == []
    assert not replayed.identical


def test_isolated_tasks_differ_by_what_they_do_themselves(numbers):
    kept = pairs_of(Job(numbers, config={"x.factor": 12}, isolate=True))
    assert {output for _, output, *_ in kept} == {"x.scaled"}


def test_a_message_has_the_picture_that_it_is_about(tmp_path):
    pictures_run(tmp_path)
    replayed = replay_one(Job(tmp_path / "run", keep="all"))
    means = [it for it in replayed.pairs if it.task == "m"]
    assert [it.picture for it in means] == [PictureAt("/d/darker", it.cycle) for it in means]
    assert len(means) == 5
    pictures = [it for it in replayed.pairs if it.task == "d"]
    assert [it.picture for it in pictures] == [PictureAt("/c/image", it.cycle) for it in pictures]
    assert (pictures[0].now or {})["width"] == 16
    assert pictures[0].shown == {}


def test_a_run_that_is_none_is_an_error(tmp_path):
    with pytest.raises(LogNotFound, match="nothing: cannot be read"):
        replay_one(Job(tmp_path / "nothing"))


@pytest.mark.long
def test_runs_are_replayed_by_processes_and_one_that_is_none_stops_no_other(numbers, tmp_path):
    parts: list[float] = []
    jobs = [
        Job(numbers, variant="12", config={"x.factor": 12}),
        Job(tmp_path / "nothing"),
        Job(numbers),
    ]
    found = {
        it.job.variant or str(it.job.run): it for it in replay_runs(jobs, progress=parts.append)
    }
    assert len(found["12"].pairs) == 6
    assert found[str(numbers)].identical
    broken = found[str(tmp_path / "nothing")]
    assert broken.error == f"{tmp_path}/nothing: cannot be read: No such file or directory"
    assert broken.report is None
    assert parts == sorted(parts)
    assert parts[-1] == 1.0
