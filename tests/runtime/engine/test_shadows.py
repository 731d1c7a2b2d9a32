"""Shadows: asked about what their tasks have answered, acted on by nobody, and no trouble to anybody."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flowrun.runtime.cli import main
from flowrun.runtime.clock import ManualClock
from flowrun.runtime.engine.cycle import Cycle
from flowrun.runtime.errors import GraphError
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import Plan, plan_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.log import shadows
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.run.live import Run
from support.helpers import START_NS
from support.shadow_tasks import Answers

GRAPH = """
tasks:
  - {id: cam, type: support.pictures.Camera, config: {limit: 12}}
  - {id: vlm, type: support.shadow_tasks.Answers, MORE, config: {CONFIG}}
cnx:
  - {src: cam, dst: vlm, msg: ImageRgb8Msg}
CNX
logging: {keyframe_interval: 4}
"""


@pytest.fixture(autouse=True)
def is_free() -> Iterator[None]:
    Answers.free.clear()
    yield
    Answers.free.set()


def plan_of(
    folder: Path, config: str, *, more: str = "every: 1", cnx: str = "", limit: int = 12
) -> Plan:
    text = GRAPH.replace("CONFIG", config).replace("MORE", more).replace("CNX", cnx)
    text = text.replace("limit: 12", f"limit: {limit}")
    return plan_graph(bind(parse_graph(text, path=folder / "g.yaml", env={})))


def ran(plan: Plan, folder: Path, look: Callable[[Run, int], None] = lambda *_: None) -> Run:
    run = Run(plan, clock=ManualClock(START_NS, step_ns=1000), directory=folder / "run")

    def watch(cycle: Cycle) -> None:
        look(run, cycle.time.cycle)

    run.watch(watch)
    assert run.run().error is None
    return run


def answers(folder: Path, task: str) -> dict[int, str]:
    with Log(folder / "run") as log:
        found = list(log.messages(f"/{task}/answer"))
        return {it.fields["frame_cycle"]: it.fields["response"] for it in found}


@pytest.mark.parametrize("more", ["every: 1", "background: true"])
def test_a_shadow_answers_about_frames_that_its_task_has_answered(
    tmp_path: Path, more: str
) -> None:
    def look(run: Run, cycle: int) -> None:
        """Go on until there is something to see: workers answer when they get to it."""
        seen = run.report().tasks["vlm_shadow"].shadow
        if cycle >= 12 and seen is not None and seen.compared >= 3:
            run.stop("enough")
        time.sleep(0.001)

    config = "quiet: true, shadow: {quiet: false}"
    run = ran(plan_of(tmp_path, config, more=more, limit=30_000), tmp_path, look)
    own, shadow = answers(tmp_path, "vlm"), answers(tmp_path, "vlm_shadow")
    assert shadow
    assert shadow.items() <= own.items()
    report = run.report().tasks["vlm_shadow"].shadow
    assert report is not None
    assert (report.of, report.compared, report.disagreed) == ("vlm", len(shadow), 0)
    with Log(tmp_path / "run") as log:
        for start in (0, 8):
            assert Replay(log).run(start=start).first is None


def test_a_disagreement_is_counted_and_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ran(plan_of(tmp_path, "shadow: {prompt: SAY, wrong_at: 11}"), tmp_path)
    compared = len(answers(tmp_path, "vlm_shadow"))
    report = run.report().tasks["vlm_shadow"].shadow
    assert report is not None
    assert (report.compared, report.disagreed) == (compared, 1)
    assert report.last is not None
    assert (report.last.said, report.last.shadow_said) == ("say 11", "SAY -1")
    assert main(["log", "shadows", str(tmp_path / "run")]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = lines.index(f"vlm_shadow disagrees with vlm about 1 of {compared} frames")
    assert lines[at - 1].split() == ["11", "say", "11", "SAY", "-1"]
    assert main(["log", "shadows", str(tmp_path / "run"), "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)
    assert found["disagreed"] == [{"frame_cycle": 11, "said": "say 11", "shadow_said": "SAY -1"}]


def test_a_shadow_that_fails_stops_nothing(tmp_path: Path) -> None:
    run = ran(plan_of(tmp_path, "shadow: {breaks: true}"), tmp_path)
    assert len(answers(tmp_path, "vlm")) == 12
    with Log(tmp_path / "run") as log:
        [found] = shadows.compared(log)
    assert found.left_out["failed"] >= 1
    raised = run.report().tasks["vlm_shadow"].raised
    assert raised is not None
    assert raised.text == "ValueError: broken"
    with Log(tmp_path / "run") as log:
        assert Replay(log).run().first is None


@pytest.mark.parametrize("more", ["every: 1", "background: true"])
def test_each_frame_is_compared_or_the_log_says_why_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: str
) -> None:
    def look(_: Run, cycle: int) -> None:
        if cycle == 11:  # the shadow has been busy with the first frame meanwhile
            Answers.free.set()

    run = ran(plan_of(tmp_path, "shadow: {hangs: true}", more=more), tmp_path, look)
    with Log(tmp_path / "run") as log:
        [found] = shadows.compared(log)
        assert Replay(log).run().first is None
    both = found.compared + sum(found.left_out.values()) + found.unanswered
    assert both == found.answered == len(answers(tmp_path, "vlm"))
    assert found.left_out.keys() <= {"replaced"}
    assert found.unanswered <= 1
    if more == "every: 1":
        assert found.left_out["replaced"] >= 8
        assert run.report().tasks["vlm_shadow"].dropped_by["replaced"] >= found.left_out["replaced"]
    assert main(["log", "shadows", str(tmp_path / "run"), "--json"]) == 0
    [shown] = json.loads(capsys.readouterr().out)
    assert shown["left_out"] == found.left_out
    assert shown["answered"] == found.answered


def test_a_shadow_that_hangs_holds_no_cycle_up(tmp_path: Path) -> None:
    def look(_: Run, cycle: int) -> None:
        if cycle == 11:  # all pictures have been answered meanwhile
            Answers.free.set()

    ran(plan_of(tmp_path, "shadow: {hangs: true}"), tmp_path, look)
    assert len(answers(tmp_path, "vlm")) == 12
    held_up = answers(tmp_path, "vlm_shadow").keys()
    assert 11 in held_up
    assert len(held_up) <= 2


def test_what_is_set_for_a_task_is_set_for_its_shadow_unless_that_has_its_own(
    tmp_path: Path,
) -> None:
    def look(run: Run, cycle: int) -> None:
        if cycle == 5:
            run.set_live("vlm", {"prompt": "tell"})

    ran(plan_of(tmp_path, "shadow: {}"), tmp_path, look)
    with Log(tmp_path / "run") as log:
        sets = [
            it.fields["task"]
            for it in log.messages("/flowrun/control")
            if it.fields["kind"] == "set"
        ]
        assert sorted(sets) == ["vlm", "vlm_shadow"]
        assert Replay(log).run(start=8).first is None
    other = tmp_path / "own"
    other.mkdir()
    ran(plan_of(other, "shadow: {prompt: ask}"), other, look)
    assert {it.split()[0] for it in answers(other, "vlm_shadow").values()} == {"ask"}


@pytest.mark.parametrize(
    ("config", "cnx", "said"),
    [
        (
            "shadow: 3",
            "",
            "4:70: 'shadow' of task 'vlm' must be a mapping of what is other than in the task; got 3",
        ),
        (
            "shadow: {promt: x}",
            "",
            "4:79: unknown key 'promt' in the config of task 'vlm_shadow'; valid keys: prompt, "
            "wrong_at, wrong_each, breaks, hangs, quiet, budget, shadow (did you mean 'prompt'?)",
        ),
        (
            "shadow: {}",
            "  - {src: vlm_shadow, dst: act, msg: PromptResponseMsg}",
            "7:5: task 'vlm_shadow' is the shadow of 'vlm': nobody acts on what it says; leave this "
            "connection out",
        ),
    ],
)
def test_a_wrong_shadow_is_reported_at_its_place(
    tmp_path: Path, config: str, cnx: str, said: str
) -> None:
    with pytest.raises(GraphError) as error:
        plan_of(tmp_path, config, cnx=cnx)
    assert f"{tmp_path / 'g.yaml'}:{said}" in str(error.value)
