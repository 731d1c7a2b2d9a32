"""Secrets are masked wherever a run leaves something: log, keyframes, errors, console, API."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import pytest
import structlog

from flowrun.runtime.clock import ManualClock
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import plan_graph
from flowrun.runtime.graph.read import load_graph
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.run.live import Run
from support.helpers import START_NS

SECRETS = ("hunter2", "abc1", "s3cret-word", "p@ss/w%rd", "it's-secret", 'say"it"', "schön-geheim")

PLACES = {
    "a name that says it": "password: '${DB_PASSWORD}'",
    "a mark": "headers: {x: '${secret:THING}'}",
    "a key that says it": "headers: {api_key: '${THING}'}",
    "a key in the file": "password: {yaml}",
    "a default": "headers: {x: '${HF_TOKEN:-{raw}}'}",
    "a URL": "uri: 'rtsp://joe:${THING}@cam.local/1'",
    "a URL in the file": "uri: {url}",
    "an encoded URL": "uri: 'rtsp://joe:{encoded}@cam.local/1'",
    "a parameter": "uri: 'http://cam.local/1?pwd=${THING}&n=1'",
}


@pytest.fixture(autouse=True)
def _logs_as_they_were():
    yield
    structlog.reset_defaults()


def written(folder: Path, config: str) -> Path:
    path = folder / "g.yaml"
    path.write_text(
        "tasks:\n"
        "  - {id: n, type: support.helpers.Numbers, config: {limit: 5}}\n"
        "  - id: front\n"
        "    type: support.secret_tasks.Leaks\n"
        "    on_error: skip\n"
        f"    config:\n      name: '${{CAM}}'\n      {config}\n"
        "cnx: [{src: n, dst: front, msg: IntMsg}]\n"
        "logging: {slab_size_mib: 1, section_size_mib: 1, keyframe_interval: 2}\n"
    )
    return path


@pytest.mark.parametrize("place", PLACES)
def test_a_secret_is_in_nothing_that_a_run_leaves(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, secret in enumerate(SECRETS):
        folder = tmp_path / str(number)
        folder.mkdir()
        config = (
            PLACES[place]
            .replace("{yaml}", json.dumps(secret))
            .replace("{url}", json.dumps(f"rtsp://joe:{secret}@cam.local/1"))
            .replace("{raw}", secret.replace("'", "''"))
            .replace("{encoded}", quote(secret, safe=""))
        )
        env = dict.fromkeys(("DB_PASSWORD", "THING"), secret) | {"CAM": "front"}
        plan = plan_graph(bind(load_graph(written(folder, config), env=env)))
        run = Run(plan, clock=ManualClock(START_NS), directory=folder / "run")
        shown = json.dumps(run.graph())
        run.run()
        shown += "".join(map(str, (run.state(), run.report())))
        said = capsys.readouterr()
        with Log(folder / "run") as log:
            [slab] = log.slabs
            data = slab.path.read_bytes()
            texts = [message.fields["value"] for message in log.messages("/front/text")]
        for spelled in (
            secret,
            quote(secret, safe=""),
            repr(secret)[1:-1],
            json.dumps(secret)[1:-1],
        ):
            assert spelled not in shown + said.out + said.err
            assert spelled.encode() not in data
        assert "task=front" in said.err  # the name of the camera is none
        assert texts == ["front"] * 5 or not texts


def test_a_replay_has_the_recorded_values_of_plain_variables(tmp_path: Path) -> None:
    path = written(tmp_path, "password: '${DB_PASSWORD}'").rename(tmp_path / "h.yaml")
    path.write_text(path.read_text().replace("secret_tasks.Leaks", "secret_tasks.Names"))
    plan = plan_graph(bind(load_graph(path, env={"CAM": "front", "DB_PASSWORD": "s3cret-word"})))
    Run(plan, clock=ManualClock(START_NS), directory=tmp_path / "run").run()
    for env in ({}, {"CAM": "back"}):
        report = Replay(tmp_path / "run", env=env).run()
        assert (report.compared, report.differing) == (5, 0)


def test_a_replay_of_ones_own_run_finds_its_secrets_in_the_graph_file(tmp_path: Path) -> None:
    path = written(tmp_path, "password: abcd-1234")
    path.write_text(path.read_text().replace("secret_tasks.Leaks", "secret_tasks.Names"))
    plan = plan_graph(bind(load_graph(path, env={"CAM": "front"})))
    Run(plan, clock=ManualClock(START_NS), directory=tmp_path / "run").run()
    replay = Replay(tmp_path / "run", env={})
    assert replay.task("front").config.password == "abcd-1234"  # type: ignore[attr-defined]
    assert replay.notes == []
    path.write_text(path.read_text() + "\n# later\n")
    replay = Replay(tmp_path / "run", env={})
    assert replay.task("front").config.password == "***"  # type: ignore[attr-defined]
    assert replay.notes == [
        "task 'front' is run with *** for a secret in its config: the log keeps none, and "
        f"{path} is gone or has changed"
    ]
