"""docs/alerts.md: its graphs are right, its table is the language, its commands do what they say."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from flowrun.msgs import DetectionsMsg, PromptResponseMsg
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import plan_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.testing import run_task
from flowrun.tasks.alert import Alert
from flowrun.tasks.commands import alerts
from flowrun.tasks.conditions.condition import Condition
from flowrun.tasks.conditions.language import COMPUTING, INPUTS, READS
from support.answer_tasks import ran
from support.paths import ROOT

PAGE = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")
BEFORE = """\
tasks:
  - {id: cam, type: support.pictures.Camera, config: {limit: 4}}
  - {id: says, type: support.pictures.Answer}
  - {id: finds, type: support.answer_tasks.Finds}
"""
AFTER = """
cnx:
  - {src: cam, dst: says, msg: ImageRgb8Msg}
  - {src: cam, dst: finds, msg: ImageRgb8Msg}
  - {src: FED, dst: watch, msg: KIND}
"""
FED = {"detections": ("finds", "DetectionsMsg"), "answer": ("says", "PromptResponseMsg")}
FOUND = DetectionsMsg(labels=["person"])
FOUND.boxes, FOUND.scores = np.zeros((1, 4), np.float32), np.zeros(1, np.float32)
FOUND.class_ids = np.zeros(1, np.int32)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def graph_of(block: str, fed: str) -> str:
    """The page's tasks in a graph that feeds them."""
    tasks, _, connections = block.partition("cnx:\n")
    source, kind = FED[fed]
    after = AFTER.replace("FED", source).replace("KIND", kind)
    return BEFORE + tasks.removeprefix("tasks:\n") + after + connections


@pytest.mark.parametrize(("number", "fed"), [(0, "detections"), (1, "answer")])
def test_its_graphs_are_right(number: int, fed: str, tmp_path: Path) -> None:
    text = graph_of(blocks("yaml")[number], fed)
    plan_graph(bind(parse_graph(text, path=tmp_path / "g.yaml", env={})))


def test_its_table_is_the_language() -> None:
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|$", PAGE, re.MULTILINE)
    described = {}
    for text, reads in rows:
        for expression in re.findall(r"`([a-z_]+\(.*?\))`", text):
            described[expression.partition("(")[0]] = reads.strip("`")
            assert Condition(expression).inputs == {reads.strip("`")}
    assert described == READS
    [computing] = re.findall(r"^`([a-z ]+)` compute with it", PAGE, re.MULTILINE)
    assert computing.split() == sorted(COMPUTING)
    for name in ("hour", "minute", "weekday"):
        assert f"`{name}`" in PAGE
        assert Condition(f"{name} == 1").inputs == frozenset()


def test_its_function_is_one(tmp_path: Path) -> None:
    [code] = blocks("python")
    names = {kind.__name__: kind for kind in INPUTS.values()}
    exec(code, names)
    many = DetectionsMsg(labels=["x"] * 10)
    assert names["crowded"](many) == "10 of them"  # type: ignore[call-arg]
    assert names["crowded"](DetectionsMsg()) is None  # type: ignore[call-arg]


def test_its_commands_do_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = "config: {when: \"count('ball') > 0\", cooldown_s: 0}"
    text = graph_of(f"tasks:\n  - {{id: watch, type: Alert, {config}}}\n", "detections")
    (tmp_path / "new.yaml").write_text(text)
    (tmp_path / "runs").mkdir()
    ran(text, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    parser = argparse.ArgumentParser()
    alerts.add_parser(parser.add_subparsers())
    commands = [it for it in "".join(blocks("console")).splitlines() if it]
    assert len(commands) == 3
    for command in commands:
        _, name, *args = shlex.split(command, comments=True)
        assert name == "flowrun"
        assert alerts.run(parser.parse_args(args)) == 0
    printed = capsys.readouterr().out
    assert printed.count("4 alerts in 1 run, of 4 messages: 4 as recorded, 0 new; 0 gone") == 2
    assert "0 alerts in 1 run, of 4 messages" in printed


def test_its_short_words_mean_the_long_ones() -> None:
    found = re.findall(r"`(contains|labels): \[(\w+)[^`]*`.*?`when: ([^`]*)`", PAGE, re.DOTALL)
    assert [key for key, *_ in found] == ["contains", "labels"]
    given = {
        "contains": {"answer": PromptResponseMsg(response="fire")},
        "labels": {"detections": FOUND},
    }
    for key, word, when in found:
        for config in ({key: word}, {"when": when}):
            [out] = run_task(Alert, config=config, inputs=[given[key]])
            assert out.get("alert") is not None
