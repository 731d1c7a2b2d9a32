"""What a recorded run asked, read once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from flowrun.runtime.log.reader import Log
from flowrun.runtime.testbench.store import Store
from flowrun.tasks.evaluation import recorded
from flowrun.tasks.evaluation.recorded import read_run
from support.answer_tasks import answered


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return answered(tmp_path_factory.mktemp("answers"))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The logs whose cycles were read."""
    found: list[Path] = []
    cycles = Log.cycles

    def noted(log: Log, *args: int) -> object:
        found.append(log.slabs[0].path.parent)
        return cycles(log, *args)

    monkeypatch.setattr(Log, "cycles", noted)
    return found


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "run")


def test_what_an_ended_run_asked_is_read_once_and_again_for_other_tasks(run, tmp_path, reads):
    first = read_run(run, 0)
    with Store(tmp_path / "s.sqlite") as store:
        kept, known = (read_run(run, 0, store=store) for _ in range(2))
        assert first == kept == known
        assert reads == 2 * [run]
        [says] = {it.task for it in first.askings if it.task == "says"}
        one = read_run(run, 3, tasks=[says], store=store)
        assert reads == 3 * [run]
        assert {it.asking.task for it in one.asked} == {says}
        assert {it.run for it in read_run(run, 3, tasks=[says], store=store).asked} == {3}
        assert reads == 3 * [run]


def test_a_run_whose_file_has_changed_is_read_again(run, tmp_path, reads):
    with Store(tmp_path / "s.sqlite") as store:
        read_run(run, 0, store=store)
        os.utime(run / "log_0000.mcap", (1, 1))
        read_run(run, 0, store=store)
    assert len(reads) == 2


def test_a_run_that_is_removed_meanwhile_is_read_all_the_same(run, tmp_path, monkeypatch):
    known = read_run(run, 0)
    graph_of = recorded.graph_of

    def removed(log: Log) -> object:
        shutil.rmtree(run)
        return graph_of(log)

    monkeypatch.setattr(recorded, "graph_of", removed)
    with Store(tmp_path / "s.sqlite") as store:
        assert read_run(run, 0, store=store) == known


def test_what_a_run_asked_is_not_kept_before_it_has_ended_or_while_some_of_it_is_lost(
    run, tmp_path, reads
):
    path = run / "log_0000.mcap"
    data = path.read_bytes()
    with Log(run) as log:
        chunk = log.slabs[0].structure.chunks[0]
        middle = (chunk.start + chunk.end) // 2
    for damaged in (data[: len(data) // 2], data[:middle] + b"\xff" * 64 + data[middle + 64 :]):
        path.write_bytes(damaged)
        del reads[:]
        with Store(tmp_path / "s.sqlite") as store:
            for _ in range(2):
                read_run(run, 0, store=store)
        assert len(reads) == 2
