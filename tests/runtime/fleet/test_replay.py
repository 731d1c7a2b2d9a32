"""A fleet again: each run with its own log, and what came with what was sent."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowrun.runtime.cli import main
from flowrun.runtime.errors import ReplayError, UsageError
from flowrun.runtime.fleet.record import FleetRun, fleet_runs, folder_of
from flowrun.runtime.fleet.replay import FleetReplay, FleetReport
from flowrun.runtime.graph.find import importable
from flowrun.runtime.graph.spec import PartId
from flowrun.runtime.recorded.runs import RecordedRuns
from flowrun.runtime.replay.graph import recorded_graph
from support.fleets import rewritten

pytestmark = pytest.mark.slow
pytest.importorskip("zenoh")

GRAPH = """\
partitions:
  a: {}
  b: {}
  c: {}
tasks:
  - {id: n, type: Counter, config: {limit: 40, rate_hz: 100}, partition: a}
  - {id: twice, type: fleet_tasks.times, config: {by: 2}, partition: a}
  - {id: thrice, type: fleet_tasks.times, config: {by: 3}, partition: b}
  - {id: last, type: fleet_tasks.times, config: {by: 5}, partition: c}
cnx:
  - {src: n, dst: twice, msg: IntMsg}
  - {src: twice, dst: thrice, msg: IntMsg}
  - {src: thrice, dst: last, msg: IntMsg}
logging: {slab_size_mib: 4, section_size_mib: 1}
"""
TASKS = """\
from flowrun.msgs import IntMsg
from flowrun.runtime.task import task

@task
def times(number: IntMsg, *, by: int = 2) -> IntMsg:
    return IntMsg(value=number.value * by)
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fleet of three processes, recorded once."""
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "g.yaml").write_text(GRAPH)
    (folder / "fleet_tasks.py").write_text(TASKS)
    done = subprocess.run(
        [sys.executable, "-m", "flowrun.runtime.cli", "up", "g.yaml"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [fleet] = (folder / "runs").iterdir()
    return fleet


@pytest.fixture
def fleet(recorded: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it."""
    with importable(recorded.parent.parent):
        yield Path(shutil.copytree(recorded, tmp_path / recorded.name))


def replayed(fleet: Path, **options: object) -> FleetReport:
    def spec_of(log):  # type: ignore[no-untyped-def]
        return recorded_graph(log, os.environ)

    with FleetReplay(fleet_runs(fleet), specs=spec_of, **options) as replay:  # type: ignore[arg-type]
        return replay.run()


def run_of(fleet: Path, partition: str) -> FleetRun:
    [found] = [it for it in fleet_runs(fleet) if it.part == PartId(partition)]
    return found


def test_a_fleet_replays_identically(fleet: Path) -> None:
    report = replayed(fleet)
    assert report.is_identical
    compared = {str(it.run.part): it.report.compared for it in report.parts}
    assert compared == {"a/0": 40, "b/0": 40, "c/0": 40}
    assert (report.delivered, report.unverified) == (80, 0)


def test_what_if_in_one_partition_reaches_the_others(fleet: Path) -> None:
    report = replayed(fleet, config={"twice.by": 4})
    differing = {str(it.run.part): it.report.differing for it in report.parts}
    assert differing == {"a/0": 39, "b/0": 39, "c/0": 39}  # 0 stays 0
    assert report.first is not None
    run, first = report.first
    assert (str(run.part), first.task, first.recorded, first.replayed) == ("a/0", "twice", "2", "4")
    assert not report.links


def test_the_first_difference_is_the_first_by_cause(fleet: Path) -> None:
    report = replayed(fleet, config={"thrice.by": 7})
    assert report.first is not None
    assert (str(report.first[0].part), report.first[1].task) == ("b/0", "thrice")
    differing = {str(it.run.part): it.report.differing for it in report.parts}
    assert differing == {"a/0": 0, "b/0": 39, "c/0": 39}


def test_another_byte_in_a_senders_log_is_named(fleet: Path) -> None:
    rewritten(run_of(fleet, "a").path, "/twice/out", cycle=7, data=lambda it: it[:-1] + b"\x63")
    report = replayed(fleet)
    sender, receiver = run_of(fleet, "a"), run_of(fleet, "b")
    [found] = report.links
    assert str(found).splitlines()[0] == (
        f"link a/0 -> b/0, cycle 7 of {sender.path.name}, got in {receiver.path.name}:"
    )
    assert ": /from_a/origin: crc " in found.what
    assert not report.is_identical


def test_a_missing_log_is_named_and_left_out_if_asked(fleet: Path) -> None:
    number = run_of(fleet, "a").number
    shutil.rmtree(folder_of(fleet, PartId("a")))
    with pytest.raises(UsageError) as caught:
        replayed(fleet)
    receiver = run_of(fleet, "b")
    text = str(caught.value)
    assert text.startswith("cycle ")
    assert text.endswith(
        f"of {receiver} received from a/0, run {number}, whose log is not here; --partial replays "
        "what there is"
    )
    report = replayed(fleet, partial=True)
    assert report.is_identical
    assert (report.delivered, report.unverified) == (40, 40)


def test_an_unknown_task_lists_those_of_all_partitions(fleet: Path) -> None:
    with pytest.raises(UsageError) as caught:
        replayed(fleet, config={"twise.by": 4})
    assert str(caught.value) == (
        "unknown task 'twise'; tasks: n, twice, thrice, last (did you mean 'twice'?)"
    )


def test_an_error_names_its_partition(fleet: Path) -> None:
    with pytest.raises(ReplayError) as caught:
        replayed(fleet, config={"thrice.by": 10**30})
    assert str(caught.value).startswith(f"{run_of(fleet, 'b')}: task 'thrice'")


def test_the_command_says_the_same(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(fleet)]) == 0
    lines = capsys.readouterr().out.splitlines()
    runs = {it.part.partition: it.path.name for it in fleet_runs(fleet)}
    assert sorted(lines[:3]) == [
        f"a/0  {runs['a']}: 40 cycles, 40 messages fed, 40 identical",
        f"b/0  {runs['b']}: {lines_of(lines, 'b')} cycles, 80 messages fed, 40 identical",
        f"c/0  {runs['c']}: {lines_of(lines, 'c')} cycles, 80 messages fed, 40 identical",
    ]
    assert lines[3].startswith("links: 80 deliveries as sent; all in causal order, in ")
    assert main(["replay", str(fleet), "--set", "twice.by=4"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[4:] == [
        f"the first message that differs is of partition a/0, {runs['a']}:",
        "cycle 1, task 'twice', port 'out', field 'value':",
        "  recorded: 2",
        "  replayed: 4",
    ]


def lines_of(lines: list[str], partition: str) -> str:
    [line] = [it for it in lines if it.startswith(f"{partition}/0")]
    return line.split(": ")[1].split(" ")[0]


@pytest.mark.parametrize("option", ["--loop", "--verify-keyframes", "--from=3"])
def test_options_of_one_run_are_refused(
    fleet: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert main(["replay", str(fleet), option]) == 2
    name = option.partition("=")[0]
    assert capsys.readouterr().err == (
        f"{name} is for the run of one process: name one of those in {fleet}\n"
    )


def test_partial_is_for_fleets(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(fleet, "a").path
    assert main(["replay", str(run), "--partial"]) == 2
    assert capsys.readouterr().err == (
        f"--partial: {run} is the run of one process, and no fleet's folder\n"
    )


def test_two_fleets_are_compared_process_by_process(
    fleet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(fleet, other)
    assert main(["log", "diff", str(fleet), str(other)]) == 0
    lines = sorted(capsys.readouterr().out.splitlines())
    assert [line.partition(":")[0] for line in lines] == ["a/0", "b/0", "c/0"]
    assert all(line.endswith(" messages identical") for line in lines)
    rewritten(run_of(other, "a").path, "/twice/out", cycle=7, data=lambda it: it[:-1] + b"\x63")
    assert main(["log", "diff", str(fleet), str(other)]) == 1
    assert "task 'twice', port 'out', field 'value':" in capsys.readouterr().out


def test_the_page_of_recorded_runs_has_those_of_all_processes(fleet: Path) -> None:
    names = {it.path.name for it in fleet_runs(fleet)}
    assert len(names) == 3
    for folder in (fleet, fleet.parent):
        runs = RecordedRuns.at(folder)
        assert {it["id"] for it in runs.summaries()} == names
        assert all(runs.get(name) is not None for name in names)
        runs.close()
