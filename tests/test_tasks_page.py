"""docs/tasks.md: its tasks run, and replay, as written there."""

from __future__ import annotations

import json
import re
import runpy
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

import flowrun
from flowrun.runtime.cli import main
from support.helpers import until, values
from support.paths import ROOT

PAGE = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
CYCLES = 12


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        [number] = parse_qs(urlsplit(self.path).query)["number"]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"said {number}".encode())

    def log_message(self, *_args: object) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}/"
        made.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tests = [it for it in blocks("python") if "def test_" in it]
    Path("seen.py").write_text("\n\n".join(it for it in blocks("python") if it not in tests))
    Path("test_seen.py").write_text("\n\n".join(tests))
    return tmp_path


def recorded(graph: str) -> Path:
    Path("g.yaml").write_text(graph)
    assert main(["g.yaml", "--plain", "--port", "-1", "--cycles", str(CYCLES)]) == 0
    [run] = Path("runs").glob("g-*")
    assert main(["replay", str(run)]) == 0
    return run


def test_the_function_runs(folder: Path) -> None:
    [entry] = re.findall(r"`(\{id: bright.*?\}\})`", PAGE)
    run = recorded(f"""\
tasks:
  - {{id: cam, type: VideoCapture, config: {{source_uri: test, width: 64, height: 48}}}}
  - {entry}
cnx: [{{src: cam, dst: bright, msg: ImageRgb8Msg}}]
""")
    assert len(values(run, "/bright/out")) == CYCLES


def test_the_task_with_a_state_runs_and_forgets_nothing(folder: Path) -> None:
    run = recorded(blocks("yaml")[0])
    assert len(values(run, "/motion/moves")) == CYCLES - 1
    assert main(["replay", str(run), "--verify-keyframes"]) == 0


def test_the_source_gives_messages_of_its_own(folder: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sensor:
        sensor.bind(("127.0.0.1", 0))
        port = sensor.getsockname()[1]
    Path("g.yaml").write_text(
        f"tasks: [{{id: roof, type: seen.Readings, config: {{port: {port}}}}}]"
    )
    run = flowrun.Graph.load("g.yaml").start()
    with run, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sensor:
        readings = run.messages("roof.reading")
        datagram = json.dumps({"sensor": "roof", "celsius": 20.5, "levels": [0.25, 1]}).encode()

        def has_come() -> bool:
            sensor.sendto(datagram, ("127.0.0.1", port))
            return run.report().cycles > 0

        until(has_come)
        reading = next(readings)
    assert (reading.sensor, reading.celsius, reading.levels.tolist()) == ("roof", 20.5, [0.25, 1])
    assert main(["messages", "seen.ReadingMsg"]) == 0


def test_the_test_of_a_task_passes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(folder)
    for name in ("seen", "test_seen"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    runpy.run_path("test_seen.py")["test_a_change_of_light_is_motion"]()


def test_two_rates_are_joined(folder: Path) -> None:
    run = recorded(blocks("yaml")[1])
    late = [it for _, it in values(run, "/late/out")]
    assert all(abs(it) <= 40 for it in late)


def test_a_server_is_asked_in_the_background(folder: Path, server: str) -> None:
    graph = blocks("yaml")[2].replace("http://127.0.0.1:8000/", server)
    assert "limit: 60, rate_hz: 20" in graph
    run = recorded(graph.replace("limit: 60, rate_hz: 20", "limit: 3"))  # it waits for the answers
    answers = [it for _, it in values(run, "/answers/out")]
    assert answers
    assert all(re.fullmatch(r"said \d+", it) for it in answers)


def test_an_answer_within_its_time_is_the_one_that_was_given_in_each_replay(folder: Path) -> None:
    run = recorded(blocks("yaml")[3].replace("limit: 30, rate_hz: 50", "limit: 3"))
    best = [it for _, it in values(run, "/pi/out")]
    assert best
    assert all(abs(it - 3.14159) < 0.1 for it in best)
    again = ["replay", str(run), "--task", "pi", "--tolerance", "FloatMsg=0.1"]
    assert main(again) == 0
