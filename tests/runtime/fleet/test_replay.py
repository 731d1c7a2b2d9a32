"""A fleet again: each run with its own log, and what came with what was sent."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flowrun.msgs import ImageRgb8Msg
from flowrun.runtime.cli import main
from flowrun.runtime.errors import LogError, LogNotFound, ReplayError, UsageError
from flowrun.runtime.fleet import lane
from flowrun.runtime.fleet import record as record_of_fleets
from flowrun.runtime.fleet.lane import RunLane
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
import numpy as np
from flowrun.msgs import ImageRgb8Msg, IntMsg
from flowrun.runtime.task import task

@task
def times(number: IntMsg, *, by: int = 2) -> IntMsg:
    return IntMsg(value=number.value * by)

@task
def grey(number: IntMsg, *, value: int = 100) -> ImageRgb8Msg:
    return ImageRgb8Msg(pixels=np.full((16, 16, 3), value, np.uint8))
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fleet of three processes, recorded once."""
    return record(tmp_path_factory.mktemp("fleet"), GRAPH)


def record(folder: Path, graph: str) -> Path:
    (folder / "g.yaml").write_text(graph)
    (folder / "fleet_tasks.py").write_text(TASKS)
    done = subprocess.run(
        [sys.executable, "-m", "flowrun.runtime.cli", "up", "g.yaml", "--port", "-1"],
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


def without_powers(words: list[str]) -> subprocess.CompletedProcess[str]:
    """A command by a user for whom permissions count, also where root runs the tests."""
    powers = "-dac_override,-dac_read_search"
    setpriv = ["setpriv", f"--bounding-set={powers}", f"--inh-caps={powers}"]
    return subprocess.run(
        [
            *(setpriv if os.geteuid() == 0 else []),
            sys.executable,
            "-m",
            "flowrun.runtime.cli",
            *words,
        ],
        capture_output=True,
        text=True,
        check=False,
    )


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


PICTURES = """\
partitions: {a: {}, b: {}}
tasks:
  - {id: n, type: Counter, config: {limit: 60, rate_hz: 200}, partition: a}
  - {id: grey, type: fleet_tasks.grey, partition: a}
  - {id: small, type: Resize, config: {width: 8, height: 8}, partition: b}
cnx:
  - {src: n, dst: grey, msg: IntMsg}
  - {src: grey, dst: small, msg: ImageRgb8Msg}
logging: {slab_size_mib: 4, section_size_mib: 1}
"""


def test_a_long_what_if_keeps_few_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However far the receiver was behind: here its clock says that it took all after the end."""
    fleet = record(tmp_path, PICTURES)
    hour_ns, next_of = 3600 * 10**9, RunLane.next.fget  # type: ignore[attr-defined]

    def later(lane: RunLane) -> tuple[int, int] | None:
        found = next_of(lane)
        is_late = found is not None and lane.run_of.part.partition == "b"
        return (found[0] + hour_ns, found[1]) if is_late else found

    alive = most = 0
    copy = ImageRgb8Msg.copy

    def counted(picture: ImageRgb8Msg) -> ImageRgb8Msg:
        nonlocal alive, most
        made = copy(picture)
        alive += 1
        most = max(most, alive)
        weakref.finalize(made.pixels, one_less)
        return made

    def one_less() -> None:
        nonlocal alive
        alive -= 1

    monkeypatch.setattr(RunLane, "next", property(later))
    monkeypatch.setattr(ImageRgb8Msg, "copy", counted)
    monkeypatch.setattr(lane, "_MOST_KEPT", 4)
    with importable(tmp_path):
        report = replayed(fleet, config={"grey.value": 200})
    assert {str(it.run.part): it.report.differing for it in report.parts} == {"a/0": 60, "b/0": 60}
    # Those that wait, and what task and link have published last.
    assert 4 <= most <= 6


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


def flipped(file: bytes) -> bytes:
    middle = len(file) // 2
    return file[:middle] + bytes([file[middle] ^ 8]) + file[middle + 1 :]


@pytest.mark.parametrize("damage", [flipped, lambda file: file[: len(file) // 2]])
def test_damage_of_a_senders_log_is_not_taken_for_another_message(
    fleet: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[bytes], bytes]
) -> None:
    [slab] = run_of(fleet, "a").path.glob("*.mcap")
    slab.write_bytes(damage(slab.read_bytes()))
    report = replayed(fleet)
    assert (report.is_identical, report.links) == (True, [])
    assert 0 < report.unverified < 40
    assert report.delivered == 80 - report.unverified
    assert main(["replay", str(fleet)]) == 0
    said = capsys.readouterr().out
    assert f"note: a/0: {slab}: byte " in said
    assert f" deliveries as sent, {report.unverified} that the senders' logs here lack; " in said


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


def test_a_process_without_a_run_is_mentioned(fleet: Path) -> None:
    shutil.rmtree(folder_of(fleet, PartId("c")))  # nobody receives from it
    report = replayed(fleet)
    assert report.notes == ["no run of c/0 is here"]
    assert report.is_identical


def test_a_run_that_is_there_twice_is_refused(fleet: Path) -> None:
    run = run_of(fleet, "a").path
    copy = shutil.copytree(run, fleet / "copy" / run.name)
    with pytest.raises(LogError) as caught:
        fleet_runs(fleet)
    assert str(caught.value) == f"{run} and {copy} are the same run of a/0: remove one of them"


def test_a_run_that_cannot_be_read_is_named_and_left_out_if_asked(
    fleet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slab = run_of(fleet, "b").path / "log_0000.mcap"
    slab.write_bytes(b"no MCAP" * 100)
    assert main(["replay", str(fleet)]) == 1
    why = f"{slab}: byte 0: not an MCAP file: it begins with b'no MCAPn'"
    assert capsys.readouterr().err == f"{why}; --partial replays the other runs\n"
    assert main(["replay", str(fleet), "--partial"]) == 0
    said = capsys.readouterr().out
    assert f"note: left out: {why}\n" in said
    assert "note: no run of b/0 is here\n" in said


@pytest.mark.parametrize("of_run", [False, True])
@pytest.mark.parametrize("mode", [0, stat.S_IRUSR])
def test_a_folder_that_cannot_be_read_is_named_and_left_out_if_asked(
    fleet: Path, of_run: bool, mode: int
) -> None:
    folder = run_of(fleet, "c").path if of_run else folder_of(fleet, PartId("c"))
    folder.chmod(mode)
    try:
        done = [without_powers(["replay", str(fleet), *more]) for more in ([], ["--partial"])]
    finally:
        folder.chmod(0o700)
    named = folder / "log_0000.mcap" if of_run and mode else folder
    why = f"{named}: cannot be read: Permission denied"
    assert (done[0].returncode, done[0].stderr) == (1, f"{why}; --partial replays the other runs\n")
    assert done[1].returncode == 0, done[1].stderr
    assert f"note: left out: {why}\n" in done[1].stdout


def test_a_fleet_that_is_removed_meanwhile_has_no_runs(
    fleet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remove_then_look(path: Path) -> bool:
        shutil.rmtree(path, ignore_errors=True)
        return False

    monkeypatch.setattr(record_of_fleets, "_is_run", remove_then_look)
    with pytest.raises(LogNotFound) as caught:
        fleet_runs(fleet)
    assert str(caught.value) == f"{fleet}: there are no runs of partitions in it"


def test_a_stretch_of_time_replays_in_all_processes(
    fleet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["replay", str(fleet), "--from", "a/0:10", "--to", "a/0:19", "--set", "twice.by=4"])
        == 1
    )
    first = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("a/0"))
    assert first.endswith(": 10 cycles, 10 messages fed, 10 of 10 differ")
    report = replayed(fleet, span=lambda log: (20, 29))
    assert {str(it.run.part): it.report.cycles for it in report.parts} == {
        "a/0": 10, "b/0": 10, "c/0": 10,
    }  # fmt: skip
    assert report.is_identical


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (
            ["--from", "12"],
            "--from 12: each process of a fleet counts its own cycles; say of which it is, as in "
            "--from a/0:12, or a time: +12.5s since the fleet's first cycle",
        ),
        (
            ["--to", "b/0:999"],
            "--to b/0:999: no run of b/0 here has cycle 999; processes: a/0, b/0, c/0",
        ),
        (["--from", "+2s", "--to", "+1s"], "--to +1s is before --from +2s"),
        (["--report", "x.md"], "--report x.md: expected a name ending in .html or .json"),
        (["--loop", "--report", "x.json"], "--loop cannot be combined with --report"),
    ],
)
def test_what_is_wrong_with_a_stretch_or_a_report(
    words: list[str], error: str, fleet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(fleet), *words]) == 2
    assert capsys.readouterr().err == f"{error}\n"


@pytest.mark.parametrize("option", ["--fault=n.drop=5%", "--log-dir=x", "--verify-keyframes"])
def test_what_is_for_one_run_names_the_runs(
    option: str, fleet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(fleet), option]) == 2
    name = option.partition("=")[0]
    runs = ", ".join(str(it.path) for it in fleet_runs(fleet))
    assert capsys.readouterr().err == (
        f"{name} is for the run of one process, of which {fleet} has 3: flowrun replay RUN {name} "
        f"..., where RUN is {runs}\n"
    )


def test_a_report_holds_the_differences_of_all_processes(fleet: Path, tmp_path: Path) -> None:
    words = ["replay", str(fleet), "--set", "thrice.by=7", "--report"]
    assert main([*words, str(tmp_path / "r.json")]) == 1
    said = json.loads((tmp_path / "r.json").read_text())
    found = {it["part"]: len(it["differences"]) for it in said["parts"]}
    assert found == {"a/0": 0, "b/0": 39, "c/0": 39}
    assert said["first"][0] == str(run_of(fleet, "b"))
    assert said["deliveries"] == {"as_sent": 80, "unverified": 0}
    assert main([*words, str(tmp_path / "r.html")]) == 1
    page = (tmp_path / "r.html").read_text()
    for run in fleet_runs(fleet):
        name = f"r-{run.path.name}.html"
        assert f'href="{name}"' in page
        assert (tmp_path / name).is_file()


def test_runs_of_one_process_are_not_in_memory_at_the_same_time(fleet: Path) -> None:
    def spec_of(log):  # type: ignore[no-untyped-def]
        return recorded_graph(log, os.environ)

    started: dict[str, bool] = {}
    with FleetReplay(fleet_runs(fleet), specs=spec_of) as replay:
        for lane in replay.lanes:
            assert lane.next is not None
            started[str(lane.run_of.part)] = lane.replay._is_started
        replay.run()
        assert not any(lane.replay._is_started for lane in replay.lanes)
    assert started == {"a/0": False, "b/0": False, "c/0": False}
