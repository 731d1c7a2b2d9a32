"""A graph with partitions, as one pipeline."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from flowrun.runtime.cli import main
from support.pipelines import (
    SCRIPTED_UP,
    TWO_PARTITIONS,
    listed,
    scripted_pipelines,
    serving,
    wait_for,
)


def test_the_list_says_which_partition_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two.yaml").write_text(TWO_PARTITIONS)
    Path("up.py").write_text(SCRIPTED_UP)
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
