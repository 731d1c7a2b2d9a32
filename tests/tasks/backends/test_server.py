"""A model server as a child process: started, restarted, and never left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from flowrun.tasks.backends.server import ServerProcess
from flowrun.tasks.models.question import ModelError
from support.model_servers.llama import free_port, llama_command

PYTHON = sys.executable


def wait_for(condition: Callable[[], bool], timeout_s: float = 240.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    made: list[ServerProcess] = []

    def make(command: list[str], port: int, **more: Any) -> ServerProcess:
        url = f"http://127.0.0.1:{port}/"
        server = ServerProcess(
            command,
            folder=tmp_path,
            ready_url=url,
            log=structlog.get_logger(),
            **{"start_timeout_s": 20.0, "first_pause_s": 0.05, **more},
        )
        made.append(server)
        return server

    yield make
    for server in made:
        server.stop()


def test_a_server_gets_secrets_by_its_environment(make: Callable[..., ServerProcess]) -> None:
    program = (
        "import http.server, os, sys\n"
        "class Handler(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200 if os.environ.get('KEY') == 'ses' + 'ame' else 500)\n"
        "        self.end_headers()\n"
        "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()\n"
    )
    port = free_port()
    server = make([PYTHON, "-c", program, str(port)], port, env={"KEY": "sesame"})
    server.start()  # it answers 200 only with the key
    assert server._child.pid is not None
    assert "sesame" not in Path(f"/proc/{server._child.pid}/cmdline").read_text()
    assert "KEY" not in os.environ


def web_server(tmp_path: Path, port: int, *, before: str = "") -> list[str]:
    """A command that notes the pids of its processes, the server's last, and serves."""
    script = tmp_path / "serve.sh"
    script.write_text(
        f"{before}\necho $$ >> pids\nexec {PYTHON} -m http.server --bind 127.0.0.1 {port}\n"
    )
    return ["sh", str(script)]


def pids(tmp_path: Path) -> list[int]:
    file = tmp_path / "pids"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def test_a_server_is_ready_when_start_returns_and_gone_after_stop(
    tmp_path: Path, make: Any
) -> None:
    server = make(web_server(tmp_path, port := free_port()), port)
    server.start()
    assert server._answers()
    [pid] = pids(tmp_path)
    assert is_alive(pid)
    server.stop()
    assert not is_alive(pid)


def test_a_server_that_dies_is_started_again(tmp_path: Path, make: Any) -> None:
    server = make(web_server(tmp_path, port := free_port()), port)
    with capture_logs() as records:
        server.start()
        os.kill(pids(tmp_path)[0], signal.SIGKILL)
        wait_for(lambda: len(pids(tmp_path)) == 2 and server._answers())
    [died] = [r for r in records if r["event"].startswith("model server ended")]
    assert (died["status"], died["pause_s"]) == (128 + signal.SIGKILL, 0.05)
    server.stop()
    assert not any(is_alive(pid) for pid in pids(tmp_path))


@pytest.mark.slow
def test_a_server_does_not_outlive_a_killed_flowrun(tmp_path: Path) -> None:
    port = free_port()
    before = "setsid sleep 1000 &\necho $! >> pids"
    script = (
        "import sys, structlog, time\nfrom pathlib import Path\n"
        "from flowrun.tasks.backends.server import ServerProcess\n"
        f"server = ServerProcess({web_server(tmp_path, port, before=before)!r}, "
        f"folder=Path({str(tmp_path)!r}), ready_url='http://127.0.0.1:{port}/', "
        "start_timeout_s=20, log=structlog.get_logger())\n"
        "server.start()\nprint('ready', flush=True)\ntime.sleep(1000)\n"
    )
    flowrun = subprocess.Popen([PYTHON, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert flowrun.stdout is not None
        wait_for(lambda: "ready\n" in flowrun.stdout)
        assert [is_alive(pid) for pid in pids(tmp_path)] == [True] * 2
    finally:
        flowrun.kill()
        flowrun.communicate()
    wait_for(lambda: not any(is_alive(pid) for pid in pids(tmp_path)))


@pytest.mark.slow
def test_llama_server_is_started_and_ended(gguf: Path, tmp_path: Path) -> None:
    port = free_port()
    server = ServerProcess(
        llama_command(gguf, port),
        folder=tmp_path,
        ready_url=f"http://127.0.0.1:{port}/health",
        start_timeout_s=60,
        log=structlog.get_logger(),
    )
    server.start()
    assert server._answers()
    server.stop()
    assert not server._answers()


# -- mistakes ----------------------------------------------------------------------------------


def failure(server: ServerProcess) -> str:
    with pytest.raises(ModelError) as caught:
        server.start()
    return str(caught.value)


def test_a_missing_program_is_named(tmp_path: Path, make: Any) -> None:
    assert failure(make(["no-such-server", "-m", "x"], 1)) == (
        "server: cannot start 'no-such-server': it is not on the PATH"
    )
    assert failure(make(["./server"], 1)) == (
        f"server: cannot start './server': no such program: {tmp_path}/server"
    )


def test_a_program_that_is_not_executable_is_named(tmp_path: Path, make: Any) -> None:
    (tmp_path / "server").touch()
    assert failure(make(["./server"], 1)) == (
        f"server: cannot start './server': {tmp_path}/server is not executable; "
        "chmod +x makes it so"
    )


def test_a_ready_url_that_cannot_be_asked_is_named(tmp_path: Path, make: Any) -> None:
    assert failure(make(["sh"], "8x")) == (
        "server: cannot ask http://127.0.0.1:8x/: Invalid port: '8x'"
    )


def test_a_server_that_ends_at_once_shows_its_last_words(make: Any) -> None:
    words = "echo loading; echo 'no such model: x.gguf' >&2; exit 7"
    assert failure(make(["sh", "-c", words], free_port())) == (
        "server: 'sh' ended with status 7; its last lines:\n  loading\n  no such model: x.gguf"
    )


def test_a_server_that_never_gets_ready_is_ended(tmp_path: Path, make: Any) -> None:
    for timeout_s in (0.3, 3.0, 30.0):  # the first is too short for a shell on a busy machine
        port = free_port()
        command = ["sh", "-c", "echo $$ > pids; exec sleep 1000"]
        assert failure(make(command, port, start_timeout_s=timeout_s)) == (
            f"server: 'sh' was not ready within {timeout_s:g} s (start_timeout_s): "
            f"http://127.0.0.1:{port}/ gives no 200"
        )
        if pids(tmp_path):
            break
    [pid] = pids(tmp_path)
    assert not is_alive(pid)


def test_a_port_that_is_taken_is_named(tmp_path: Path, make: Any) -> None:
    port = free_port()
    first = make(web_server(tmp_path, port), port)
    first.start()
    assert failure(make(["sh", "-c", "exit 0"], port)) == (
        f"server: something answers at http://127.0.0.1:{port}/ already, before 'sh' was started; "
        "end it, or leave 'server' out to use it"
    )
