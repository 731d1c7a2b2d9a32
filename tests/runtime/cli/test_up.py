"""`flowrun up`, with real processes."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flowrun.runtime.cli import main
from flowrun.runtime.cli.up import _summary
from flowrun.runtime.fleet.local import Fleet
from flowrun.runtime.fleet.record import fleet_runs, is_fleet
from flowrun.runtime.graph.read import load_graph
from flowrun.runtime.log.reader import Log
from flowrun.runtime.server.listening import listen

TWO = """\
partitions:
  one: {instances: {a: {n.limit: 3}, b: {n.limit: 4}}}
  two: {}
tasks:
  - {id: n, type: Counter, partition: one}
  - {id: show, type: Print, partition: one}
  - {id: m, type: Counter, config: {limit: LIMIT}, partition: two}
  - {id: show2, type: Print, partition: two}
cnx:
  - {src: n, dst: show, msg: IntMsg}
  - {src: m, dst: show2, msg: IntMsg}
logging: {slab_size_mib: 4, section_size_mib: 1}
"""
COMMAND = [sys.executable, "-m", "flowrun.runtime.cli", "up", "two.yaml"]


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (
            ["--port", "99999"],
            2,
            "--port 99999: expected 1 to 65535, 0 for free ones, or -1 for no page",
        ),
        (
            ["--log-dir", "two.yaml"],
            1,
            "two.yaml/two-NOW/fleet.json: cannot be written: Not a directory",
        ),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(
    tmp_path, monkeypatch, capsys, words, status, text
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda *_: "NOW")
    Path("two.yaml").write_text(TWO.replace("LIMIT", "5"))
    assert main(["up", "two.yaml", *words]) == status
    assert capsys.readouterr().err == f"{text}\n"


def test_a_port_that_is_taken_is_said_before_anything_starts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("two.yaml").write_text(TWO.replace("LIMIT", "5"))
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert main(["up", "two.yaml", "--port", str(port)]) == 2
    assert capsys.readouterr().err == (
        f"port {port} of '127.0.0.1' is taken; port 0 picks a free one\n"
    )
    assert [it.name for it in tmp_path.iterdir()] == ["two.yaml"]


@pytest.mark.slow
def test_each_partition_records_a_run_in_the_fleets_folder(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(TWO.replace("LIMIT", "5"))
    done = subprocess.run(COMMAND, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [fleet] = (tmp_path / "runs").iterdir()
    assert json.loads((fleet / "fleet.json").read_text()) == {
        "graph": "two",
        "graph_path": str(tmp_path / "two.yaml"),
        "parts": {"one/a": "one-a", "one/b": "one-b", "two/0": "two-0"},
    }
    assert is_fleet(fleet)
    cycles = {}
    for run in fleet_runs(fleet):
        with Log(run.path) as log:
            cycles[str(run.part)] = len(log)
    assert cycles == {"one/a": 3, "one/b": 4, "two/0": 5}
    assert done.stdout.endswith(
        f"  logs:   runs/{fleet.name}  (3 runs of 3 partitions)\n"
        f"  replay: flowrun replay runs/{fleet.name}\n"
    )


@pytest.mark.slow
def test_ctrl_c_ends_all_in_order(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(TWO.replace("LIMIT", "100000000"))
    with subprocess.Popen(COMMAND, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("two/0 |") and "value=" in line:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stdout.read()
        assert process.wait() == 0
    assert "SIGINT: stopping, senders first\n" in rest
    [fleet] = (tmp_path / "runs").iterdir()
    for run in fleet_runs(fleet):
        with Log(run.path) as log:
            assert log.end is not None, run


CHAIN = """\
partitions: {one: {}, two: {}, three: {}}
tasks:
  - {id: n, type: Counter, config: {rate_hz: 50}, partition: one}
  - {id: square, type: Square, partition: two}
  - {id: show, type: Print, partition: three}
cnx:
  - {src: n, dst: square, msg: IntMsg}
  - {src: square, dst: show, msg: IntMsg, link: {deliver: lockstep}}
logging: {slab_size_mib: 4, section_size_mib: 1}
"""


@pytest.mark.slow
def test_one_process_that_is_ended_has_those_after_it_take_all_and_end(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(CHAIN)
    with subprocess.Popen(COMMAND, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("three/0 |") and "value=" in line:
                os.kill(pid_of(tmp_path, "one/0"), signal.SIGTERM)
                break
        rest = process.stdout.read()
        assert process.wait() == 0
    assert {f"{it:<7} | ended" for it in ("one/0", "two/0", "three/0")} <= set(rest.splitlines())
    [fleet] = (tmp_path / "runs").iterdir()
    counts = {}
    for run in fleet_runs(fleet):
        topics = {"one": "/n/count", "two": "/square/square", "three": "/from_two/square_square"}
        with Log(run.path) as log:
            counts[run.part.partition] = sum(1 for _ in log.messages(topics[run.part.partition]))
    assert len(set(counts.values())) == 1, counts


def pid_of(folder: Path, part: str) -> int:
    """The process that runs a partition, with its logs below `folder`."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (path / "cmdline").read_bytes().decode(errors="replace").split("\0")
            is_here = (path / "cwd").readlink() == folder
            if is_here and f"--partition\0{part}" in "\0".join(words) and "warden" not in words[3]:
                return int(path.name)
    raise AssertionError(f"{part} does not run")


def test_a_run_that_cannot_be_read_at_the_end_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "g.yaml").write_text(
        "partitions: {a: {}}\ntasks: [{id: n, type: Counter, partition: a}]\n"
    )
    fleet = Fleet(
        load_graph(tmp_path / "g.yaml", env={}), tmp_path, options=lambda _part: [], say=print
    )
    slab = tmp_path / "a-0" / "run" / "log_0000.mcap"
    slab.parent.mkdir(parents=True)
    slab.write_bytes(b"no MCAP" * 100)
    assert _summary(fleet, tmp_path) == 0
    assert capsys.readouterr().out == (
        f"\n  logs:   {tmp_path}\n"
        f"  note:   {slab}: byte 0: not an MCAP file: it begins with b'no MCAPn'\n"
    )


@pytest.mark.parametrize("words", [["up", "two.yaml"], ["two.yaml", "--partition", "two"]])
def test_without_the_extra_nothing_begins(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two.yaml").write_text(TWO.replace("LIMIT", "5"))
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "zenoh" else find(name)
    )
    assert main(words) == 2
    assert capsys.readouterr().err == (
        "a graph with partitions needs eclipse-zenoh: pip install 'flowrun-runtime[links]'\n"
    )
    assert not Path("runs").exists()


def test_a_graph_without_partitions_is_run_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("one.yaml").write_text("tasks:\n  - {id: n, type: Counter}\n")
    assert main(["up", "one.yaml"]) == 2
    assert capsys.readouterr().err == ("one.yaml has no partitions; flowrun one.yaml runs it\n")
    assert not Path("runs").exists()


def test_one_process_cannot_run_all_partitions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two.yaml").write_text(TWO.replace("LIMIT", "5"))
    assert main(["two.yaml"]) == 2
    assert capsys.readouterr().err == (
        "two.yaml has the partitions one, two: flowrun up two.yaml runs all of them on this machine, "
        "--partition one/a one of them\n"
    )
