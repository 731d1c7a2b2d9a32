"""`flowrun alerts test`: which alerts recorded runs would have raised, from their messages alone."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from flowrun.runtime.clock import ManualClock
from flowrun.runtime.engine.cycle import Cycle
from flowrun.runtime.errors import UsageError
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import plan_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.run.live import Run
from flowrun.tasks import rehearsal
from flowrun.tasks.commands import alerts
from support.answer_tasks import ran
from support.helpers import START_NS

GRAPH = """\
tasks:
  - {id: cam, type: support.pictures.Camera, config: {limit: 12}}
  - {id: says, type: support.pictures.Answer}
  - {id: finds, type: support.answer_tasks.Finds}
  - {id: watch, type: Alert, config: {contains: ['2', '3', '8'], cooldown_s: 0.02}}
cnx:
  - {src: cam, dst: says, msg: ImageRgb8Msg}
  - {src: cam, dst: finds, msg: ImageRgb8Msg}
  - {src: says, dst: watch, msg: PromptResponseMsg}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ran(GRAPH, tmp_path_factory.mktemp("alerts"))


def tried(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    """Exit status, and what `flowrun alerts` prints."""
    parser = argparse.ArgumentParser()
    alerts.add_parser(parser.add_subparsers())
    status = alerts.run(parser.parse_args(["alerts", *map(str, args)]))
    return status, *capsys.readouterr()


def raised(capsys: pytest.CaptureFixture[str], *args: object) -> list[tuple[Any, ...]]:
    status, out, _ = tried(capsys, "test", *args, "--json")
    assert status == 0
    return [(it["change"], it["task"], it["cycle"]) for it in json.loads(out)["alerts"]]


def test_a_run_raises_what_it_has_raised(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = raised(capsys, run)
    assert found
    assert {(change, task) for change, task, _ in found} == {("same", "watch")}
    status, out, _ = tried(capsys, "test", run)
    assert status == 0
    assert out.splitlines()[-1] == (
        f"{len(found)} alerts in 1 run, of 12 messages: {len(found)} as recorded, 0 new; 0 gone"
    )
    assert f"{run} --cycle {found[0][2]} " in out


def test_the_whole_name_of_the_task_is_as_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = GRAPH.replace("type: Alert", "type: 'flowrun.tasks.alert:Alert'")
    assert {it[:2] for it in raised(capsys, ran(graph, tmp_path))} == {("same", "watch")}


@pytest.mark.parametrize("how", ["every: 3", "rate_hz: 6", "every: 2, rate_hz: 4"])
def test_a_task_that_runs_now_and_then_raises_what_it_has_raised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    often = "{id: watch, type: Alert, HOW, config: {when: number() >= 0, cooldown_s: 0}}"
    graph = GRAPH.replace(GRAPH.splitlines()[4][4:], often.replace("HOW", how))
    run = ran(graph, tmp_path)
    found = raised(capsys, run)
    assert 0 < len(found) < 12
    assert {it[:2] for it in found} == {("same", "watch")}
    again = tmp_path / "often.yaml"
    again.write_text(graph.replace(f"{how}, ", ""))
    changes = [change for change, *_ in raised(capsys, run, "--graph", again)]
    assert (changes.count("same"), changes.count("gone")) == (len(found), 0)
    assert len(changes) == 12


def test_an_alert_in_the_background_is_known_by_its_frame(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Whichever frames it takes while the others pass it by, it raises an alert of each.
    watch = (
        "{id: watch, type: Alert, background: true, config: {when: number() >= 0, cooldown_s: 0}}"
    )
    found = raised(capsys, ran(GRAPH.replace(GRAPH.splitlines()[4][4:], watch), tmp_path))
    assert ("same", "watch") in {it[:2] for it in found}
    assert "gone" not in {change for change, *_ in found}


def test_another_graph_says_what_is_new_and_what_is_gone(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = tmp_path / "g.yaml"
    graph.write_text(GRAPH.replace("['2', '3', '8']", "['8', '10']"))
    before = {cycle for _, _, cycle in raised(capsys, run)}
    found = raised(capsys, run, "--graph", graph)
    cycles = {change: {cycle for it, _, cycle in found if it == change} for change, *_ in found}
    assert cycles["same"] | cycles["gone"] == before
    assert [len(cycles[it]) for it in ("same", "gone", "new")] == [1, len(before) - 1, 1]
    found = raised(capsys, run, "--graph", graph, "--set", "watch.contains=none")
    assert {change for change, *_ in found} == {"gone"}


def test_a_condition_reads_what_the_run_has(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    when = "count('ball', score=0.4) == 1 and said('3', '4')"
    found = raised(capsys, run, "--when", when, "--cooldown-s", 0)
    assert found == [(None, "when", cycle) for cycle in (3, 4)]
    status, out, error = tried(capsys, "test", run, "--when", "inside('door') > 0")
    assert (status, out) == (1, "0 alerts in 1 run, of 0 messages\n")
    assert error == (
        f"{run}: the condition reads zones, and the run has none; say which: --input "
        "zones=TASK.PORT, one of cam.image, says.answer, finds.out, watch.alert\n"
    )


def test_what_a_message_says_is_read_where_one_is_named(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = (run, "--when", "message.severity == 'warning'", "--cooldown-s", 0)
    found = raised(capsys, *args, "--input", "message=watch.alert")
    assert [cycle for *_, cycle in found] == [cycle for *_, cycle in raised(capsys, run)]


@pytest.mark.long  # each process loads all modules
def test_several_runs_are_tried_at_once_and_come_in_order(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").symlink_to(run)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "log_0000.mcap").write_bytes(b"x")
    status, out, error = tried(capsys, "test", run, tmp_path / "broken", "--processes", 2)
    assert status == 1
    assert "in 2 runs" in out
    assert error.startswith(f"{tmp_path / 'broken'}: ")


def test_live_values_that_were_set_apply(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_graph(bind(parse_graph(GRAPH, path=tmp_path / "g.yaml", env={})))
    run = Run(plan, clock=ManualClock(START_NS, step_ns=1000), directory=tmp_path / "run")

    def look(cycle: Cycle) -> None:
        if cycle.time.cycle == 5:
            run.set_live("watch", {"contains": "9"})

    run.watch(look)
    assert run.run().error is None
    found = raised(capsys, tmp_path / "run")
    assert {change for change, *_ in found} == {"same"}
    assert found[-1][2] > 6


def test_a_function_of_somebody_elses_run_is_not_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = GRAPH.replace("contains: ['2', '3', '8']", "when: 'support.answer_tasks:has_eight'")
    run = ran(text, tmp_path)
    assert [change for change, *_ in raised(capsys, run)] == ["same"]
    monkeypatch.setattr(rehearsal, "why_not_own", lambda *_: "it is not signed")
    status, _, error = tried(capsys, "test", run)
    assert status == 1
    assert error == (
        f"{run}: watch: it names the function support.answer_tasks:has_eight, and the run may not be "
        "yours: it is not signed; --trust runs it, --graph takes a graph of yours\n"
    )
    assert tried(capsys, "test", run, "--trust")[0] == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--hold-s", "1"], "--hold-s is for --when"),
        (["--set", "a.b=1"], "--set is for --graph"),
        (["--when", "1 +"], "--when: character 3 of '1 +': invalid syntax; a condition is an"),
        (["--when", "m:f"], "--when takes a condition; name a function in a graph: --graph GRAPH"),
        (["--when", "hour > 1", "--input", "x=y"], "--input x=y: expected INPUT=TASK.PORT, where"),
        (
            ["--when", "hour > 1", "--cooldown-s", "-1"],
            "--cooldown-s: expected seconds, at least 0",
        ),
    ],
)
def test_what_is_wrong_with_the_command(
    args: list[str], said: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError) as error:
        tried(capsys, "test", run, *args)
    assert str(error.value).startswith(said)
