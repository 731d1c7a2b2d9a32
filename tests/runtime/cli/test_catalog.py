"""`flowrun tasks` and `flowrun messages`."""

from __future__ import annotations

import json

import pytest

from flowrun.runtime.cli import main


@pytest.fixture
def flowrun(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(
        "from flowrun.msgs import IntMsg, Message\n"
        "from flowrun.runtime.task import Context, Input, Task\n"
        "class Mine(Task):\n    '''Mine alone.'''\n"
        "    def process(self, ctx: Context, number: Input[IntMsg] | None) -> None: ...\n"
        "class MineMsg(Message):\n    '''What is mine.'''\n    count: int\n"
    )

    def run(*words):
        status = main([*words])
        said = capsys.readouterr()
        return status, said.out.rstrip("\n"), said.err.rstrip("\n")

    return run


def test_tasks_and_messages_are_listed_with_those_of_the_folder(flowrun):
    lines = flowrun("tasks")[1].splitlines()
    assert lines[0].split() == ["name", "what", "it", "is"]
    assert "VideoCapture  " in "\n".join(lines)
    assert lines[-1].split(maxsplit=1) == ["own.Mine", "Mine alone"]
    found = json.loads(flowrun("messages", "--json")[1])
    assert found[-1] == {"name": "own.MineMsg", "path": "own.MineMsg", "sentence": "What is mine"}


def test_one_is_described(flowrun):
    assert flowrun("tasks", "own.Mine") == (
        0,
        "own.Mine  (own.Mine)\n\nMine alone.\n\nports\n\n"
        "port                     message\n"
        "number  input, optional  IntMsg\n\n"
        "example\n\n"
        "    tasks:\n"
        "      - id: counter\n"
        "        type: Counter\n"
        "      - id: mine\n"
        "        type: own.Mine\n"
        "    cnx:\n"
        "      - {src: counter, dst: mine, msg: IntMsg}",
        "",
    )
    said = flowrun("messages", "DetectionsMsg")[1]
    assert "array of float32 (N, 4)" in said
    assert "A measurement, which a replay does not compare." in said
    assert json.loads(flowrun("tasks", "Counter", "--json")[1])["ports"][0]["message"] == "IntMsg"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["tasks", "VideoCaptur"], "(did you mean 'VideoCapture'?)"),
        (["tasks", "Mine"], "; the folder has 'own.Mine'"),
        (["tasks", "owm.Mine"], "(did you mean 'own'?)"),
        (["messages", "own.MinMsg"], "(did you mean 'MineMsg'?)"),
        (["messages", "--path", "nowhere"], "--path nowhere: no such folder"),
    ],
)
def test_an_unknown_name_leads_to_the_right_one(flowrun, words, error):
    status, _, said = flowrun(*words)
    assert status == 2
    assert said.endswith(error)
