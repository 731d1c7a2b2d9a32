"""Which runs there are, and what each is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flowrun.runtime.errors import LogError, LogNotFound
from flowrun.runtime.log.files import slab_paths
from flowrun.runtime.testbench import folders
from flowrun.runtime.testbench.folders import find_runs
from flowrun.runtime.testbench.runs import run_info
from support.helpers import plan_of, record


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three runs, one of them in a folder of its own, one ended by an error."""
    folder = tmp_path_factory.mktemp("runs")
    plan = plan_of(folder, "n=Numbers(limit: 4); x=Scale", "n > x")
    record(plan, folder / "b")
    record(plan, folder / "deep" / "c")
    record(plan_of(folder, "n=Numbers; b=Boom", "n > b"), folder / "a")
    (folder / "b" / "what-if" / "1").mkdir(parents=True)
    (folder / "b" / "what-if" / "1" / "log_0000.mcap").write_bytes(b"x")
    return folder


def test_a_folder_means_all_runs_below_it_once(folder):
    runs = [folder / "a", folder / "b", folder / "deep" / "c"]
    assert find_runs([folder]) == runs
    assert find_runs([folder / "b", folder]) == [runs[1], runs[0], runs[2]]
    slab = folder / "b" / "log_0000.mcap"
    assert find_runs([slab]) == [slab]


def test_where_no_run_is_the_path_is_named(tmp_path):
    with pytest.raises(LogNotFound, match=f"^{tmp_path}: there are no runs in it$"):
        find_runs([tmp_path])
    with pytest.raises(LogNotFound, match=f"^{tmp_path}/x: there is no such file$"):
        find_runs([tmp_path / "x"])


def test_a_run_that_may_not_be_looked_into_is_not_passed_over(folder, monkeypatch):
    def slabs(path: Path) -> list[Path]:
        if path.name == "b":
            raise LogError(f"{path}: cannot be read: Permission denied")
        return slab_paths(path)

    monkeypatch.setattr(folders, "slab_paths", slabs)
    assert find_runs([folder]) == [folder / "a", folder / "b", folder / "deep" / "c"]


def test_a_run_says_what_it_is(folder):
    ended, failed = (run_info(folder / name, env=os.environ) for name in "ba")
    assert (ended.graph, ended.state, ended.cycles, ended.errors) == ("g", "ended", 5, 0)
    assert ended.bytes == (folder / "b" / "log_0000.mcap").stat().st_size
    assert (failed.state, failed.errors) == ("error", 1)
    assert "ValueError: cannot stand 2" in (failed.why or "")


def test_what_is_no_log_is_unreadable_and_says_why(tmp_path):
    (tmp_path / "log_0000.mcap").write_bytes(b"nothing")
    found = run_info(tmp_path, env=os.environ)
    assert (found.state, found.bytes) == ("unreadable", 7)
    assert found.why == found.problem
    assert "log_0000.mcap" in (found.why or "")
