"""A graph with partitions, as one pipeline."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from flowrun.runtime.cli import main
from support.pipelines import listed, scripted_pipelines, serving, wait_for

GRAPH = """\
partitions: {a: {}, b: {}}
tasks:
  - {id: n, type: Counter, partition: a}
  - {id: p, type: Print, partition: b}
cnx: [{src: n, dst: p, msg: IntMsg}]
"""
UP = """\
import os, socket, sys, time
words = sys.argv[1:]
assert "--plain" not in words, words
server = socket.socket(socket.AF_UNIX)
server.bind(words[words.index("--socket") + 1])
server.listen()
print("a/0 | started", "b/0 | started", "a/0 | 08:15 [info] started", sep="\\n", flush=True)
while not os.path.exists("fail"):
    time.sleep(0.01)
print("b/0 | failed: no camera; starts again in 1 s", flush=True)
while not os.path.exists("end"):
    time.sleep(0.01)
print("a/0 | ended", "b/0 | failed: no camera", sep="\\n", flush=True)
print("error: b/0 failed: no camera", file=sys.stderr)
sys.exit(1)
"""


def test_the_list_says_which_partition_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two.yaml").write_text(GRAPH)
    Path("up.py").write_text(UP)
    command = (sys.executable, "-I", "-S", str(tmp_path / "up.py"))
    pipelines, said = scripted_pipelines(tmp_path, fleet_command=command)
    with serving(pipelines) as client:
        reply = client.post("/api/v0/pipeline/start", json={"name": "two"})
        assert reply.json() == {"message": "Pipeline two started"}
        wait_for(lambda: listed(client)["two"]["parts"] == {"a/0": "started", "b/0": "started"})
        Path("fail").touch()
        why = "failed: no camera; starts again in 1 s"
        wait_for(lambda: listed(client)["two"]["parts"]["b/0"] == why)
        assert listed(client)["two"]["status"] == "Running"
        words = ["pipeline", "list", "--url", str(client.base_url)]
        assert main(words) == 0
        assert f"b/0 {why}" in capsys.readouterr().out
        Path("end").touch()
        wait_for(lambda: listed(client)["two"]["phase"] == "failed")
        found = listed(client)["two"]
        assert found["status"] == {"Error": "b/0 failed: no camera"}
        assert found["parts"] == {"a/0": "ended", "b/0": "failed: no camera"}
        assert client.post("/api/v0/pipeline/stop", json={"name": "two"}).status_code == 200
        assert listed(client)["two"]["parts"] == {}
    assert "two | b/0 | failed: no camera" in said
