"""What a run says of how its cameras and films are doing."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

from flowrun.runtime.clock import LiveClock, ManualClock
from flowrun.runtime.engine import policy
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.run.live import Run
from support.films import draw
from support.helpers import START_NS, Hooked, controls, plan_of


@pytest.fixture
def refusing() -> Iterator[str]:
    """The address of a camera at a port where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"rtsp://127.0.0.1:{taken.getsockname()[1]}/cam"


def shown(run: Run, task: str = "cam") -> tuple[str | None, str]:
    report = run.report().tasks[task]
    return report.state, report.code


def test_a_camera_is_starting_and_then_connecting_before_it_has_answered(
    tmp_path: Path, refusing: str
) -> None:
    config = f"source_uri: '{refusing}', reconnect: {{at_start: true}}"
    plan = plan_of(tmp_path, f"cam=VideoCapture({config}); n=Numbers")
    run = Run(plan, clock=LiveClock(), directory=tmp_path / "run")
    assert [shown(run, it) for it in ("cam", "n")] == [("starting", "")] * 2
    run.executor.begin()
    assert shown(run) in {("connecting", ""), ("connecting", "refused")}
    assert shown(run, "n") == ("starting", "")
    run.executor.finish()
    assert [shown(run, it) for it in ("cam", "n")] == [("ended", "")] * 2


def test_a_camera_that_a_run_cannot_begin_without_has_failed(tmp_path: Path, refusing: str) -> None:
    plan = plan_of(tmp_path, f"n=Numbers; cam=VideoCapture(source_uri: '{refusing}')")
    run = Run(plan, clock=LiveClock(), directory=tmp_path / "run")
    assert run.run().error is not None
    assert [shown(run, it) for it in ("n", "cam")] == [("ended", ""), ("error", "refused")]


def test_a_film_that_is_read_after_its_error_is_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "_FIRST_PAUSE_NS", 1)
    film = draw(tmp_path / "whole.mp4")
    content = bytearray(film.read_bytes())
    begin, end = content.index(b"mdat") + 4, content.index(b"moov") - 4
    content[begin:end] = bytes(end - begin)
    (tmp_path / "film.mp4").write_bytes(content)
    seen = []

    def look(number: int) -> None:
        seen.append(shown(run))
        if number == 20:
            shutil.copy(film, tmp_path / "film.mp4")

    tasks = f"n=Hooked(limit: 60); cam=VideoCapture(source_uri: '{tmp_path / 'film.mp4'}')"
    plan = plan_of(tmp_path, f"{tasks}@on_error: restart")
    run = Run(plan, clock=ManualClock(START_NS, step_ns=1000), directory=tmp_path / "run")
    Hooked.hook = look
    assert run.run().error is None
    states = [state for state, _ in groupby(seen)]
    assert states == [("running", ""), ("error", "codec"), ("running", ""), ("ended", "")]
    with Log(tmp_path / "run") as log:
        assert Replay(log, env={}).run().identical
    states = [it[2:] for it in controls(tmp_path / "run", "source_state")]
    assert states == [("cam", "codec"), ("cam", "")]
