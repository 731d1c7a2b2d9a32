"""`flowrun label` and `flowrun runs`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flowrun.runtime.cli import main
from support.helpers import plan_of, record


@pytest.fixture
def run(tmp_path) -> Path:
    record(plan_of(tmp_path, "n=Numbers(limit: 4); x=Scale", "n > x"), tmp_path / "run")
    return tmp_path / "run"


def test_a_label_is_written_listed_and_taken_back(run, capsys):
    assert main(["label", str(run), "2", "x", "--expected", "[3]", "--field", "value"]) == 0
    assert main(["label", str(run), "3", "x", "--right", "--who", "ana", "--json"]) == 0
    assert main(["label", str(run), "2", "x", "--undo"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("cycle 2, x: wrong, right is [3]\n{")
    assert json.loads((run / "labels.jsonl").read_text().splitlines()[0])["expected"] == [3]
    assert main(["label", str(run), "--json"]) == 0
    [label] = json.loads(capsys.readouterr().out)
    assert (label["cycle"], label["task"], label["label"], label["who"]) == (3, "x", "right", "ana")


def test_a_damaged_line_is_named_and_costs_only_itself(run, capsys):
    main(["label", str(run), "3", "x", "--right", "--who", "ana"])
    with (run / "labels.jsonl").open("a") as file:
        file.write("nothing\n")
    capsys.readouterr()
    assert main(["label", str(run)]) == 1
    printed = capsys.readouterr()
    assert printed.out == (
        "cycle  task  label  answer  right is  who  note\n"
        "3      x     right                    ana\n"
        "1 label\n"
    )
    assert printed.err == (
        f"left out: {run}/labels.jsonl:2: not a label: Expecting value: line 1 column 1 (char 0)\n"
    )
    assert main(["label", str(run), "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)) == 1


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["2", "y"], "task 'y' has no answer at cycle 2; those that have: n, x"),
        (["2", "x", "--field", "valu"], "task 'x' gives no field 'valu'; its fields: value "),
        (["4", "--as", ""], "--as: expected a word; --undo takes back what was said"),
        (["99", "x"], "cycle 99 is not in the log, which holds cycles 0 to 4"),
        (["--wrong"], "--wrong: name the cycle of the answer too"),
    ],
)
def test_what_cannot_be_labelled_is_a_clear_error(run, capsys, words, error):
    assert main(["label", str(run), *words]) in (1, 2)
    assert capsys.readouterr().err.startswith(error)
    assert not (run / "labels.jsonl").exists()


def test_the_runs_of_a_folder_are_listed(run, capsys):
    broken = run.parent / "broken"
    broken.mkdir()
    (broken / "log_0000.mcap").write_bytes(b"nothing")
    assert main(["runs", str(run.parent), "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["path"], first["state"]) == (str(broken), "unreadable")
    assert (second["graph"], second["cycles"]) == ("g", 5)
    assert main(["runs", str(run.parent)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["run", "graph"]
    assert lines[-1].startswith("2 runs, ")
    assert any(line.startswith("broken: ") for line in lines)
