from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from structlog.testing import capture_logs

from flowrun.msgs import ImageRgb8Msg, IntMsg, Message, TextMsg
from flowrun.runtime.errors import GraphError
from flowrun.runtime.task import Context, Input
from flowrun.runtime.testing import run_task
from flowrun.tasks.sinks.places import SinkFileError
from flowrun.tasks.sinks.text_files import CsvWriter, JsonlWriter
from support import sink_tasks
from support.sink_tasks import MixedMsg, run_graph


def write(kind, tmp_path, messages, **config):
    config = {"path": f"out.{'csv' if kind is CsvWriter else 'jsonl'}"} | config
    run_task(kind, inputs=[{"message": it} for it in messages], config=config, graph_dir=tmp_path)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_a_line_a_message(tmp_path):
    write(JsonlWriter, tmp_path, [IntMsg(value=1), IntMsg(value=2)])
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(it)["fields"] for it in lines] == [{"value": 1}, {"value": 2}]


def test_a_second_run_appends_after_the_last_whole_line(tmp_path):
    write(JsonlWriter, tmp_path, [IntMsg(value=1)])
    with (tmp_path / "out.jsonl").open("a") as file:
        file.write('{"torn": ')
    with capture_logs() as logs:
        write(JsonlWriter, tmp_path, [IntMsg(value=2)])
    assert {"event": "cut off a torn last line", "bytes": 9} in [
        {"event": it["event"], "bytes": it.get("bytes")} for it in logs
    ]
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(it)["fields"]["value"] for it in lines] == [1, 2]


def test_replacing_leaves_nothing_of_what_was_there(tmp_path):
    (tmp_path / "out.csv").write_text("something\nelse\n" * 100)
    write(CsvWriter, tmp_path, [IntMsg(value=1)], if_exists="replace")
    assert rows(tmp_path / "out.csv")[1:] == [["0", "0", "0", "1"]]


def test_columns_follow_from_the_class(tmp_path):
    message = MixedMsg(
        text="=1+1",
        number=float("nan"),
        maybe=None,
        data=b"ab",
        nested={"a": [1]},
        items=["x,y", None],
        pose=np.array([1, 2, np.inf], np.float32),
        points=np.ones((1, 2)),
        cycle=9,
    )
    message.publish(tov_ns=5)
    write(CsvWriter, tmp_path, [message])
    [head, row] = rows(tmp_path / "out.csv")
    assert dict(zip(head, row, strict=True)) == {
        "cycle": "0",
        "time_ns": "0",
        "tov_ns": "5",
        "text": "'=1+1",
        "number": "NaN",
        "maybe": "",
        "data": "YWI=",
        "nested": '{"a":[1]}',
        "items": '["x,y",null]',
        "pose.0": "1.0",
        "pose.1": "2.0",
        "pose.2": "Infinity",
        "points": "[[1.0,1.0]]",
        "field.cycle": "9",
        "took_ms": "0.0",
    }


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-1", "'-1"),
        ("\t=1", "'\\t=1"),
        ("a\nb\r\x1b[2J", "a\\nb\\r\\u001b[2J"),
        ('say "hi", é', 'say "hi", é'),
        ("", ""),
    ],
)
def test_a_cell_is_text_and_a_row_a_line(tmp_path, text, cell):
    write(CsvWriter, tmp_path, [TextMsg(value=text)])
    assert rows(tmp_path / "out.csv")[1][3] == cell
    assert len((tmp_path / "out.csv").read_bytes().splitlines()) == 2


def test_a_picture_has_no_pixels_in_its_row(tmp_path):
    write(CsvWriter, tmp_path, [ImageRgb8Msg(pixels=np.zeros((4, 6, 3), np.uint8), source="cam")])
    [head, row] = rows(tmp_path / "out.csv")
    found = dict(zip(head, row, strict=True))
    assert (found["pixels"], found["source"]) == ('{"dtype":"|u1","shape":[4,6,3]}', "cam")


def test_other_columns_are_refused(tmp_path):
    write(CsvWriter, tmp_path, [IntMsg(value=1)])
    with pytest.raises(SinkFileError) as raised:
        write(CsvWriter, tmp_path, [MixedMsg()])
    assert str(raised.value) == (
        f"{tmp_path}/out.csv has other columns than a MixedMsg: cycle,time_ns,tov_ns,value; expected "
        "cycle,time_ns,tov_ns,text,number,maybe,data,nested,items,pose.0,pose.1,pose.2,points,"
        "field.cycle,took_ms; choose another path, or if_exists: replace"
    )
    assert len(rows(tmp_path / "out.csv")) == 2


GRAPH = """
tasks:
  - {{id: n, type: Counter, config: {{limit: 3}}}}
  - {{id: out, type: {kind}, config: {{path: "{path}"{more}}}, on_error: {policy}}}
cnx: [{{src: n, dst: out, msg: IntMsg}}]
"""


def run(tmp_path, path, *, kind="JsonlWriter", policy="stop", more=""):
    text = GRAPH.format(kind=kind, path=path, policy=policy, more=more)
    return run_graph(tmp_path, text)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("no/out.jsonl", "no such folder: {folder}/no; make it before the run"),
        ("out.mp4", "must end in one of .jsonl, .ndjson, .json, .txt, .log"),
        (
            "{{rnu}}.jsonl",
            "unknown placeholder '{{rnu}}'; placeholders: {{run}}, {{start}}, {{task}}",
        ),
        ("}}.jsonl", "a '}}' alone; placeholders: {{run}}, {{start}}, {{task}}"),
        ("./", "'./' is a folder; give the name of a file"),
        ("there.jsonl", "exists; write {{run}} or {{start}} into the name, or set if_exists"),
        ("there.jsonl/out.jsonl", "is no folder: {folder}/there.jsonl"),
    ],
)
def test_a_wrong_path_is_found_before_the_run(tmp_path, path, said):
    (tmp_path / "there.jsonl").touch()
    with pytest.raises(GraphError) as raised:
        run(tmp_path, path.format(), more=", if_exists: refuse")
    [problem] = raised.value.problems
    assert said.format(folder=tmp_path) in problem.message
    assert problem.where.line == 4


def test_placeholders_are_those_of_the_run_and_their_folders_are_made(tmp_path):
    _, result = run(tmp_path, "{run}/{task}-{start}.jsonl")
    assert result.error is None
    [folder] = [it for it in tmp_path.iterdir() if it.is_dir()]
    assert folder.name.startswith("g-20")
    [file] = folder.iterdir()
    assert file.name.startswith("out-20")
    assert len(file.read_text().splitlines()) == 3


class Stumbles(JsonlWriter):
    """Fails once, at the third message."""

    failed: ClassVar[bool] = False

    def process(self, ctx: Context, message: Input[Message]) -> None:
        if ctx.cycle == 2 and not self.failed:
            type(self).failed = True
            raise RuntimeError("once")
        super().process(ctx, message)


@pytest.mark.parametrize("if_exists", ["append", "refuse", "replace"])
def test_a_restart_goes_on_in_the_file_that_it_has_begun(tmp_path, monkeypatch, if_exists):
    monkeypatch.setattr(sink_tasks, "Stumbles", Stumbles, raising=False)
    monkeypatch.setattr(Stumbles, "failed", False)
    text = GRAPH.format(
        kind="support.sink_tasks.Stumbles",
        path="out.jsonl",
        policy="restart",
        more=f", if_exists: {if_exists}",
    )
    text = text.replace("limit: 3", "limit: 9, rate_hz: 2")  # a restart waits for a second
    _, result = run_graph(tmp_path, text)
    assert result.error is None
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    values = [json.loads(it)["fields"]["value"] for it in lines]
    assert values[:2] == [0, 1]
    assert values[-1] == 8


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_ends_the_run_or_not_as_on_error_says(tmp_path):
    (tmp_path / "out.jsonl").symlink_to("/dev/full")
    _, result = run(tmp_path, "out.jsonl")
    assert "No space left on device" in str(result.error)
    live, result = run(tmp_path, "out.jsonl", policy="skip", more=", queue: 1")
    assert (result.error, result.cycles >= 3) == (None, True)
    assert live.report().tasks["out"].raised.count > 0


KILLED = """
import os, signal, sys
from flowrun.msgs import TextMsg
from flowrun.runtime.task import Context, Input
from flowrun.runtime.testing import run_task
from flowrun.tasks.sinks.text_files import CsvWriter

class Killed(CsvWriter):
    def _write(self, kept):
        super()._write(kept)
        if kept.cycle == 40:
            os.kill(os.getpid(), signal.SIGKILL)

message = TextMsg(value="x" * 300)
run_task(Killed, inputs=[{"message": message}] * 1000, config={"path": sys.argv[1]})
"""


@pytest.mark.long
def test_what_a_killed_run_leaves_ends_with_a_whole_line(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "out.csv")], check=False)
    assert done.returncode == -signal.SIGKILL
    data = (tmp_path / "out.csv").read_bytes()
    assert data.endswith(b"\n")
    assert len(rows(tmp_path / "out.csv")) == 42
    assert {len(row) for row in rows(tmp_path / "out.csv")} == {4}


def test_two_tasks_do_not_write_one_file(tmp_path):
    _, result = run_graph(
        tmp_path,
        GRAPH.format(kind="JsonlWriter", path="a.jsonl", policy="stop", more="").replace(
            "cnx: [", "  - {id: two, type: JsonlWriter, config: {path: a.jsonl}}\n"
            "cnx: [{src: n, dst: two, msg: IntMsg}, "
        ),
    )  # fmt: skip
    assert "a.jsonl: another task or run is writing it" in str(result.error)
