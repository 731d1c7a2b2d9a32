"""`flowrun serve` and the commands that ask it, with real runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import httpx
import pytest

from flowrun.runtime.cli import main
from flowrun.runtime.log.reader import Log
from support.pipelines import KILLED, is_alive, wait_for

GRAPH = """
tasks:
  - {id: counter, type: Counter, config: {rate_hz: 20}}
  - {id: square, type: Square}
cnx: [{src: counter, dst: square, msg: IntMsg}]
logging: {slab_size_mib: 4, section_size_mib: 1}
"""

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path):
    """A server of `GRAPH`, as "counting", and its port."""
    (tmp_path / "counting.yaml").write_text(GRAPH)
    command = [sys.executable, "-m", "flowrun.runtime.cli", "serve", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        assert line.startswith(f"serving 1 graph of {tmp_path} at http://127.0.0.1:")
        yield process, line.rstrip("/\n").rpartition(":")[2]
        process.kill()


def test_runs_are_started_and_stopped_from_the_command_line(server, capsys):
    process, port = server

    def flowrun(*words):
        status = main([*words, "--port", port] if "pipeline" in words else [*words, port])
        said = capsys.readouterr()
        return status, said.out.rstrip("\n"), said.err.rstrip("\n")

    def listed():
        [one] = json.loads(flowrun("pipeline", "list", "--json")[1])
        return one

    assert flowrun("start-pipeline", "counting", "0.0.0.0") == (0, "Pipeline counting started", "")
    pid = listed()["pid"]
    assert flowrun("pipeline", "list")[1].splitlines()[1].split() == [
        "counting", "Running", "process", str(pid),
    ]  # fmt: skip
    assert flowrun("start-pipeline", "counting", "localhost") == (1, "", "Pipeline already exists")
    graph = json.loads(flowrun("pipeline", "config", "counting")[1])
    assert [task["id"] for task in graph["tasks"]] == ["counter", "square"]
    process.kill()
    wait_for(lambda: not is_alive(pid))
    status, _, error = flowrun("stop-pipeline", "counting", "::")
    assert status == 1
    assert error.startswith(f"no server answers at http://[::1]:{port} (")


@pytest.mark.long
def test_a_server_goes_on_when_nobody_reads_its_output(server, capsys):
    process, port = server
    process.stdout.close()
    for _ in range(2):
        assert main(["pipeline", "start", "counting", "--port", port]) == 0
        capsys.readouterr()
        assert main(["pipeline", "list", "--json", "--port", port]) == 0
        [one] = json.loads(capsys.readouterr().out)
        os.kill(one["pid"], signal.SIGKILL)
        assert wait_for(lambda: _status(port) == {"Error": KILLED})
    process.terminate()
    assert process.wait(60) in (0, 141)


def _status(port):
    url = f"http://127.0.0.1:{port}/api/v0/pipeline/list"
    return httpx.get(url, trust_env=False).json()[0]["status"]


@pytest.mark.long
def test_a_stopped_server_ends_its_runs_with_finished_logs(server, tmp_path):
    process, port = server
    assert main(["pipeline", "start", "counting", "--port", port]) == 0
    report = f"http://127.0.0.1:{port}/pipelines/counting/api/v0/report"
    wait_for(lambda: httpx.get(report, trust_env=False).json()["cycles"] > 0)
    process.terminate()
    assert process.wait(60) == 0
    lines = process.stdout.read().splitlines()
    said = [it for it in lines if not it.startswith("counting | ")]
    assert said == ["counting: started", "SIGTERM: stopping", "counting: stopped"]
    [run] = (tmp_path / "runs").glob("counting-*")
    with Log(run) as log:
        assert log.finished
