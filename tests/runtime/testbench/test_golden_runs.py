"""Golden runs: with which graph each is replayed, what is said of it, and how a change is accepted."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from flowrun.runtime.cli import main
from flowrun.runtime.log.reader import Log
from flowrun.runtime.recorded.labels import Label
from flowrun.runtime.replay.compare import Difference
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.testbench.folders import find_runs
from flowrun.runtime.testbench.golden import GoldenRun, Verdict, accept, golden_runs, put_back
from flowrun.runtime.testbench.replays import Job, Replayed, replay_one
from flowrun.runtime.testbench.verdict_files import as_json, as_junit, as_markdown, headline
from flowrun.runtime.testbench.verdict_page import as_page
from support.helpers import START_NS, plan_of, record
from support.pictures import pictures_run

ANY_TEXT = "a | b\n<script>`x`</script> \x00\ud800 @all *b* ]]> & \u202e"
TWELVE = Job(Path(), config={"x.factor": 12})


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """A folder with a graph file, and a run of it: numbers 0 to 3, times 10."""
    folder = tmp_path_factory.mktemp("recorded")
    text = (
        "tasks:\n"
        "  - {id: n, type: support.helpers.Numbers, config: {limit: 4}}\n"
        "  - {id: x, type: support.helpers.Scale}\n"
        "cnx: [{src: n, dst: x, msg: IntMsg}]\n"
    )
    (folder / "g.yaml").write_text(text)
    record(plan_of(folder, "n=Numbers(limit: 4); x=Scale", "n > x"), folder / "golden" / "run")
    return folder


def verdict_of(recorded: Path, **config: int) -> Verdict:
    run = GoldenRun("run", recorded / "golden" / "run", None)
    job = Job(run.path, config={f"x.{key}": value for key, value in config.items()})
    return Verdict(run, replay_one(job))


def test_a_verdict_says_what_came_of_a_run(recorded):
    same = verdict_of(recorded)
    assert (same.state, same.summary) == ("identical", "4 messages identical")
    other = verdict_of(recorded, factor=12)
    assert (other.state, other.summary) == ("differs", "3 of 4 messages differ")
    assert [(it.cycle, it.recorded, it.replayed, count) for it, count in other.changes] == [
        (1, "10", "12", 1),
        (2, "20", "24", 1),
        (3, "30", "36", 1),
    ]
    failed = Verdict(same.run, Replayed(same.replayed.job, None, error="no task x\nmore"))
    assert (failed.state, failed.summary) == ("failed", "no task x")
    assert headline([same]) == "1 recorded run: all identical"
    assert headline([same, other, failed]) == "3 recorded runs: 1 changed, 1 could not be replayed"


def test_what_labels_say_is_right_is_no_fault(recorded):
    other = verdict_of(recorded, factor=12)
    labels = [Label(k, "x", "wrong", 12 * k, "", 0, 0, field="value") for k in (1, 2)]
    some = replace(other, labels=[*labels, Label(3, "x", "wrong", 31, "", 0, 0, field="value")])
    assert (some.state, some.is_fine) == ("differs", False)
    assert some.summary == "1 of 4 messages differ, 2 more are now as labels say is right"
    assert [change.cycle for change, _ in some.changes] == [3]
    every = replace(other, labels=[*labels, Label(3, "x.scaled", "wrong", {"value": 36}, "", 0, 0)])
    assert (every.state, every.is_fine, every.changes) == ("mended", True, [])
    assert every.summary == "1 message identical, 3 more are now as labels say is right"
    assert headline([every]) == "1 recorded run: 1 mended"


def test_equal_changes_are_one(recorded):
    verdict = verdict_of(recorded, factor=12)
    pairs = [
        replace(pair, difference=replace(pair.difference, recorded="no", replayed="yes"))
        for pair in verdict.replayed.pairs
    ]
    [(change, count)] = Verdict(verdict.run, replace(verdict.replayed, pairs=pairs)).changes
    assert (change.cycle, count) == (1, 3)


def test_reports_hold_whatever_messages_say(recorded):
    verdict = verdict_of(recorded, factor=12)
    [first, *_] = verdict.replayed.pairs
    difference = replace(first.difference, recorded=ANY_TEXT, replayed=ANY_TEXT[::-1])
    shown = replace(verdict.replayed, pairs=[replace(first, difference=difference)])
    odd = Verdict(replace(verdict.run, name="a|b\n*c*"), shown)
    [case] = ET.fromstring(as_junit([odd])).iter("testcase")
    assert case.get("name") == "a|b\n*c*"
    assert case.find("failure") is not None
    [found] = json.loads(as_json([odd]))
    assert found["differences"][0]["recorded"] == ANY_TEXT
    [row] = [line for line in as_markdown([odd]).splitlines() if line.startswith("| 1 |")]
    assert row.replace("\\|", "").count("|") == 7
    assert "<script" not in row


def test_the_page_holds_all_differences_and_the_pictures_of_messages(tmp_path):
    pictures_run(tmp_path)
    path = tmp_path / "run"
    run = GoldenRun("cams", path, None)
    replayed = replay_one(Job(path, keep="all"))
    pairs = [
        replace(
            pair, difference=Difference(pair.cycle, pair.task, pair.port, "value", "1", "</script>")
        )
        for pair in replayed.pairs
    ]
    text = as_page([Verdict(run, replace(replayed, pairs=pairs))], command="flowrun ci")
    assert text.count("</script>") == as_page([], command="flowrun ci").count("</script>")
    [data] = re.findall(r"<script[^>]*json[^>]*>(.*?)</script>", text, re.DOTALL)
    found = json.loads(data)
    assert len(found["rows"]) == len(pairs) > 0
    about = {f"0 {it.picture.topic} {it.picture.cycle}" for it in pairs if it.picture}
    assert found["pictures"].keys() == about != set()


def test_a_comment_is_short_enough_for_github(recorded):
    verdict = verdict_of(recorded, factor=12)
    text = as_markdown([verdict] * 500, report="https://example.com/report")
    assert 40_000 < len(text) <= 60_000
    assert "more runs do not fit here." in text
    assert text.endswith("[All differences, with pictures](https://example.com/report)\n")


def test_a_comment_names_those_that_are_other_ones(recorded):
    same, other = verdict_of(recorded), verdict_of(recorded, factor=12)
    assert "1 more: as they should be." in as_markdown([same, other])
    assert as_markdown([same]) == "### flowrun: 1 recorded run: all identical\n"


def test_each_run_gets_its_graph_file_as_it_is_now(recorded, tmp_path):
    [run] = find_runs([recorded / "golden"])
    [found] = golden_runs([run], folder=recorded, graph=None)
    assert (found.name, found.graph) == ("run", recorded / "g.yaml")
    [alone] = golden_runs([run], folder=tmp_path, graph=None)
    assert alone.graph is None
    [own] = golden_runs([run], folder=None, graph=tmp_path / "h.yaml")
    assert own.graph == tmp_path / "h.yaml"
    (tmp_path / "b").mkdir()
    shutil.copytree(run, tmp_path / "b" / "run")
    names = [it.name for it in golden_runs([run, tmp_path / "b" / "run"], folder=None, graph=None)]
    assert names == ["golden/run", "b/run"]


def test_what_is_accepted_is_what_a_replay_makes_then(recorded, tmp_path):
    shutil.copytree(recorded / "golden", tmp_path / "golden")
    path = tmp_path / "golden" / "run"
    (path / "labels.jsonl").write_text('{"cycle": 1, "label": "wrong"}\n')
    (path / "clips" / "00000001-x").mkdir(parents=True)
    (path / "clips" / "00000001-x" / "case.json").write_text("{}")
    (path / "README").write_text("why this run is golden")
    accept(GoldenRun("run", path, None), TWELVE, now_ns=START_NS)
    assert sorted(it.name for it in path.parent.iterdir() if it.name != ".last_run") == ["run"]
    with Log(path) as log:
        assert log.metadata["run_id"] == "run"
        assert [it.fields["value"] for it in log.messages("/x/scaled")] == [0, 12, 24, 36]
        assert Replay(log, config={"x.factor": 12}).run().identical
    assert (path / "labels.jsonl").exists()
    assert (path / "clips" / "00000001-x" / "case.json").exists()
    assert (path / "README").read_text() == "why this run is golden"


@pytest.mark.parametrize("after", [0, 1])
def test_an_accept_that_is_killed_while_it_moves_a_run_loses_none(
    recorded, tmp_path, monkeypatch, after
):
    folder = shutil.copytree(recorded / "golden", tmp_path / "golden")
    path = folder / "run"
    moved = []
    really = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self == path or target == path:
            if len(moved) == after:
                raise KeyboardInterrupt
            moved.append(self)
        return really(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with contextlib.suppress(KeyboardInterrupt):
        accept(GoldenRun("run", path, None), TWELVE, now_ns=START_NS)
    monkeypatch.undo()
    assert len(moved) == after
    assert put_back([folder]) == ([path] if after else [])
    with Log(path) as log:
        assert [it.fields["value"] for it in log.messages("/x/scaled")] == [0, 10, 20, 30]
    accept(GoldenRun("run", path, None), TWELVE, now_ns=START_NS)
    assert sorted(it.name for it in folder.iterdir() if it.name != ".last_run") == ["run"]


@pytest.mark.long
def test_the_command_says_which_runs_changed_and_writes_what_ci_needs(
    recorded, tmp_path, monkeypatch, capsys
):
    shutil.copytree(recorded, tmp_path, dirs_exist_ok=True)
    shutil.copytree(tmp_path / "golden" / "run", tmp_path / "golden" / "torn")
    [slab] = (tmp_path / "golden" / "torn").glob("*.mcap")
    slab.write_bytes(b"no log")
    monkeypatch.chdir(tmp_path)
    assert main(["ci", "golden/run"]) == 0
    assert "1 recorded run: all identical" in capsys.readouterr().out
    graph = (tmp_path / "g.yaml").read_text()
    (tmp_path / "g.yaml").write_text(
        graph.replace("support.helpers.Scale", "support.helpers.Scale, config: {factor: 12}")
    )
    files = [f"--{kind}=out.{kind}" for kind in ("junit", "markdown", "json", "html")]
    assert main(["ci", *files]) == 1
    out = capsys.readouterr().out
    assert "run: cycle 1, task 'x', port 'scaled', field 'value'" in out
    assert "2 recorded runs: 1 changed, 1 could not be replayed" in out
    suite = ET.parse(tmp_path / "out.junit").getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "1")
    assert "| x.scaled | value | 10 | 12 |" in (tmp_path / "out.markdown").read_text()
    assert {it["state"] for it in json.loads((tmp_path / "out.json").read_text())} == {
        "differs",
        "failed",
    }
    assert main(["ci", "golden/run", "--accept"]) == 0
    assert main(["ci", "nothing"]) == 1
    assert "nothing: there is no such file" in capsys.readouterr().err


def test_without_golden_runs_it_is_said_how_to_record_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["ci"]) == 2
    assert capsys.readouterr().err == (
        "there is no folder golden here: flowrun GRAPH --log-dir golden records a run into it; or name "
        "a folder of runs\n"
    )


def test_a_graph_that_is_not_there_is_named_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["ci", "--graph", "nope.yaml"]) == 2
    assert capsys.readouterr().err == (
        "graph file not found: nope.yaml; the current folder holds no .yaml file\n"
    )


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--html", "no/x.html"], "--html no/x.html: there is no folder no"),
        (["--junit", "."], "--junit .: it is a folder; name a file"),
    ],
)
def test_a_report_that_has_no_place_is_said_before_the_replays(
    tmp_path, monkeypatch, capsys, words, text
):
    monkeypatch.chdir(tmp_path)
    assert main(["ci", "nothing", *words]) == 2
    assert capsys.readouterr().err == f"{text}\n"
