"""The command as a user runs it: a process of its own, its output, its exit status, its run."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from flowrun.runtime.log.reader import Log
from support.model_servers.llama import free_port
from support.on_terminal import OnTerminal
from support.paths import GRAPHS

FOREVER = """
tasks:
  - {id: counter, type: Counter, config: {rate_hz: 200}}
  - {id: square, type: Square}
cnx: [{src: counter, dst: square, msg: IntMsg}]
logging: {slab_size_mib: 4, section_size_mib: 1}
"""

pytestmark = pytest.mark.slow


def flowrun(*words, cwd, **options):
    command = [sys.executable, "-m", "flowrun.runtime.cli", *map(str, words)]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=240, check=False, **options
    )


def start(*words, cwd):
    command = [sys.executable, "-m", "flowrun.runtime.cli", *map(str, words)]
    return subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_a_run_leaves_a_log_and_says_how_to_replay_it(tmp_path):
    done = flowrun(GRAPHS / "caterpillar.yaml", "--cycles", 50, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [run] = (tmp_path / "runs").glob("cater*")
    assert re.fullmatch(r"caterpillar-\d{8}T\d{6}Z", run.name)
    assert "caterpillar: 50 cycles in" in done.stdout
    assert f"replay: flowrun replay runs/{run.name}" in done.stdout
    again = flowrun("replay", f"runs/{run.name}", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "400 messages identical" in again.stdout  # 8 tasks after the source


def test_the_hint_can_be_pasted_whatever_the_path(tmp_path):
    graph = GRAPHS / "caterpillar.yaml"
    done = flowrun(graph, "--cycles", 2, "--log-dir", "my 'ünï' dir", cwd=tmp_path)
    [hint] = [line for line in done.stdout.splitlines() if "replay:" in line]
    [run] = (tmp_path / "my 'ünï' dir").glob("cater*")
    words = shlex.split(hint.partition("replay: ")[2])
    assert words == ["flowrun", "replay", f"my 'ünï' dir/{run.name}"]


def test_log_dir_and_no_log(tmp_path):
    flowrun(GRAPHS / "caterpillar.yaml", "--cycles", 2, "--log-dir", "elsewhere", cwd=tmp_path)
    assert len(list((tmp_path / "elsewhere").glob("cater*"))) == 1
    done = flowrun(GRAPHS / "caterpillar.yaml", "--cycles", 2, "--no-log", cwd=tmp_path)
    assert done.returncode == 0
    assert "replay" not in done.stdout
    assert not (tmp_path / "runs").exists()


def test_a_log_that_cannot_be_written_says_what_to_type(tmp_path):
    (tmp_path / "file").write_text("")
    done = flowrun(GRAPHS / "caterpillar.yaml", "--log-dir", "file", cwd=tmp_path)
    assert done.returncode == 1
    error, hint = done.stderr.splitlines()
    assert error.endswith(": cannot create the run's directory: Not a directory")
    assert hint == "choose another directory with --log-dir, or run with --no-log"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_a_finished_log(tmp_path, number):
    (tmp_path / "forever.yaml").write_text(FOREVER)
    process = start("forever.yaml", cwd=tmp_path)
    for line in process.stdout:
        if "logging to" in line:
            break
    run = None
    while run is None or not list(run.glob("*.mcap")) or not _has_cycles(run):
        run = next((tmp_path / "runs").glob("[!.]*"), None)
    process.send_signal(number)
    output = process.stdout.read()
    assert process.wait(timeout=240) == 0
    process.stdout.close()
    assert f"ended by {number.name}" in output
    with Log(run) as log:
        assert log.finished
        assert log.end["reason"] == number.name


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_tasks_start_ends_the_run_at_once_and_keeps_no_log(tmp_path, number):
    server = tmp_path / "server.sh"
    server.write_text("echo $$ > pid\nexec sleep 1000\n")
    (tmp_path / "noted.py").write_text(
        "from pathlib import Path\n"
        "from flowrun.msgs import ImageRgb8Msg\n"
        "from flowrun.runtime.task import Context, Output, Task\n"
        "class Noted(Task):\n"
        "    def process(self, ctx: Context, image: Output[ImageRgb8Msg]) -> None: ...\n"
        "    def stop(self, ctx: Context) -> None:\n"
        "        Path('stopped').touch()\n"
    )
    (tmp_path / "g.yaml").write_text(
        "tasks:\n"
        "  - {id: cam0, type: noted.Noted}\n"
        "  - id: vlm\n"
        "    type: Inference\n"
        "    background: true\n"
        "    config:\n"
        "      backend: mine\n"
        "      backends:\n"
        f"        mine: {{type: openai, base_url: 'http://127.0.0.1:{free_port()}/v1',\n"
        "               server: {command: [sh, server.sh]}}\n"
        "cnx: [{src: cam0, dst: vlm, msg: ImageRgb8Msg}]\n"
    )
    process = start("g.yaml", "--port", "-1", cwd=tmp_path)
    try:
        pid = ""
        while not pid:
            assert process.poll() is None, process.stdout.read()
            pid = (tmp_path / "pid").read_text() if (tmp_path / "pid").exists() else ""
        process.send_signal(number)
        output, _ = process.communicate(timeout=100)  # start_timeout_s is 120
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert process.returncode == 0
    assert "g: 0 cycles in" in output
    assert output.endswith(
        f"ended by {number.name}\n  no log is kept: the run ended before its tasks had started\n"
    )
    assert "Traceback" not in output
    assert "error" not in output.lower()
    assert not Path(f"/proc/{pid.strip()}").exists()
    assert (tmp_path / "stopped").exists()
    assert not [path for path in (tmp_path / "runs").iterdir() if path.is_dir()]


def _has_cycles(run):
    with Log(run) as log:
        return any(True for _ in log.cycles())


def test_mistakes_are_lines_with_places_and_no_traceback(tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text(
        "tasks:\n"
        "  - {id: a, typ: Counter}\n"
        "  - {id: b, type: Contr}\n"
        "  - {id: c, type: Square}\n"
        "cnx: [{src: c, dst: c, msg: IntMsg}]\n"
    )
    done = flowrun(bad, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert all(
        re.match(rf"{re.escape(str(bad))}:\d+:\d+: ", line) for line in done.stderr.splitlines()
    )
    assert not (tmp_path / "runs").exists()


def test_a_missing_graph_is_one_line(tmp_path):
    done = flowrun("no.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("graph file not found: no.yaml")
    assert len(done.stderr.splitlines()) == 1


def test_a_task_error_is_one_line_and_exit_status_1(tmp_path):
    (tmp_path / "boom.py").write_text(
        "from flowrun.msgs import IntMsg\n"
        "from flowrun.runtime.task import Context, Input, Task\n"
        "class Boom(Task):\n"
        "    def process(self, ctx: Context, n: Input[IntMsg]) -> None:\n"
        "        if n.value == 3:\n"
        "            raise ValueError('three')\n"
    )
    (tmp_path / "g.yaml").write_text(
        "tasks: [{id: n, type: Counter, config: {limit: 9}}, {id: b, type: boom.Boom}]\n"
        "cnx: [{src: n, dst: b, msg: IntMsg}]\n"
    )
    done = flowrun("g.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert "error: task 'b' failed in process, cycle 3: ValueError: three" in done.stderr
    assert "Traceback" not in done.stderr


MEDDLES = """
import multiprocessing, os, signal, sys, threading
from flowrun.msgs import IntMsg
from flowrun.runtime.task import Context, Input, Output, Task

class Meddles(Task):
    def start(self, ctx: Context) -> None:
        os.mkdir("elsewhere")
        os.chdir("elsewhere")
        threading.Thread(target=threading.Event().wait, name="reader").start()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def process(self, ctx: Context, n: Input[IntMsg], out: Output[IntMsg]) -> None:
        if n.value == 1:
            child = os.fork()
            if child == 0:
                return  # and goes on as a run of its own would
            os.waitpid(child, 0)
            print("printed")
            sys.stdout.close()
            os.close(1)
            sys.stderr = None
        out.value = n.value
        out.publish()
"""


def test_a_task_that_meddles_with_the_process_harms_neither_run_nor_log(tmp_path):
    (tmp_path / "meddles.py").write_text(MEDDLES)
    (tmp_path / "g.yaml").write_text(
        "tasks: [{id: n, type: Counter, config: {limit: 9}}, {id: m, type: meddles.Meddles}]\n"
        "cnx: [{src: n, dst: m, msg: IntMsg}]\n"
        "logging: {slab_size_mib: 1, section_size_mib: 1}\n"
    )
    done = flowrun("g.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "flowrun: ends without waiting for 1 thread: 'reader'\n"
    assert "printed" in done.stdout
    assert done.stdout.count("g: 9 cycles in") == 1
    [run] = (tmp_path / "runs").glob("g-*")
    with Log(run) as log:
        assert log.finished
        assert [m.fields["value"] for m in log.messages("/m/out")] == list(range(9))


ENDS = """
tasks:
  - {id: counter, type: Counter, config: {limit: 3}}
  - {id: square, type: Square}
cnx: [{src: counter, dst: square, msg: IntMsg}]
logging: {slab_size_mib: 1, section_size_mib: 1}
"""
FAILS = ENDS.replace("type: Square", "type: boom.Boom").replace("dst: square", "dst: square.n")


@pytest.mark.parametrize(
    ("graph", "status"), [(ENDS, 0), pytest.param(FAILS, 1, marks=pytest.mark.long)]
)
def test_on_a_terminal_the_page_stays_until_ctrl_c(tmp_path, graph, status):
    (tmp_path / "g.yaml").write_text(graph)
    (tmp_path / "boom.py").write_text(
        "from flowrun.msgs import IntMsg\n"
        "from flowrun.runtime.task import Context, Input, Task\n"
        "class Boom(Task):\n"
        "    def process(self, ctx: Context, n: Input[IntMsg]) -> None:\n"
        "        raise ValueError(n.value)\n"
    )
    with OnTerminal("g.yaml", "--port", 0, cwd=tmp_path) as command:
        url = command.until(r"page: +(\S+)  stays until Ctrl-C")[1]
        assert "replay: flowrun replay runs/g-" in command.shown
        [run] = httpx.get(f"{url}api/v0/pipeline/list", trust_env=False).json()
        assert (run["status"] == "Stopped") == (status == 0)
        command.process.send_signal(signal.SIGINT)
        assert command.rest() == status


@pytest.mark.long
def test_a_run_whose_page_stays_is_run_again_by_its_page(tmp_path):
    (tmp_path / "g.yaml").write_text(ENDS)
    with OnTerminal("g.yaml", "--port", 0, cwd=tmp_path) as command:
        url = command.until(r"page: +(\S+)  stays until Ctrl-C")[1]
        assert httpx.get(f"{url}api/v0/report", trust_env=False).json()["may_run_again"]
        asked = httpx.post(
            f"{url}api/v0/pipeline/start", json={"pipeline_id": "g"}, trust_env=False
        )
        assert asked.json() == {"message": "Pipeline g started"}
        command.shown = ""
        assert command.until(r"page: +(\S+)  stays until Ctrl-C")[1] == url
        assert len(list((tmp_path / "runs").glob("g-*"))) == 2
        command.process.send_signal(signal.SIGINT)
        assert command.rest() == 0


@pytest.mark.long
@pytest.mark.parametrize("words", [["--exit"], ["--port", -1]])
def test_a_run_on_a_terminal_ends_by_itself_if_asked_to_or_without_a_page(tmp_path, words):
    (tmp_path / "g.yaml").write_text(ENDS)
    with OnTerminal("g.yaml", "--port", 0, *words, cwd=tmp_path) as command:
        assert command.rest() == 0
        assert "ended by end of sources" in command.shown
        assert "stays" not in command.shown


@pytest.mark.long
def test_ctrl_c_during_the_run_ends_its_page_too(tmp_path):
    (tmp_path / "forever.yaml").write_text(FOREVER)
    with OnTerminal("forever.yaml", "--port", 0, cwd=tmp_path) as command:
        command.until("cycles")
        command.process.send_signal(signal.SIGINT)
        assert command.rest() == 0
        assert "ended by SIGINT" in command.shown
        assert "stays" not in command.shown


def test_a_terminal_shows_a_live_status(tmp_path):
    (tmp_path / "forever.yaml").write_text(FOREVER)
    with OnTerminal("forever.yaml", "--cycles", 300, cwd=tmp_path) as command:
        assert command.rest() == 0
    for text in ("Hz", "p99", "counter", "300 cycles in"):
        assert text in command.shown
