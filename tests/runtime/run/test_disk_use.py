"""Which task's pictures fill a log, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flowrun.runtime.clock import LiveClock
from flowrun.runtime.graph.plan import Plan, load_plan
from flowrun.runtime.log.reader import Log
from flowrun.runtime.run import disk_use
from flowrun.runtime.run.disk_use import large_pictures
from flowrun.runtime.run.live import Run
from support.paths import MEDIA

GRAPH = """
tasks:
  - {{id: cam, type: VideoCapture, config: {{{source}}}}}
  - {{id: half, type: Resize, config: {{width: 32, height: 24}}{logging}}}
cnx:
  - {{src: cam, dst: half, msg: ImageRgb8Msg}}
"""
GIB = 1 << 30
RAW_HINT = (
    "`logging: {payload: none}` leaves them out, and a replay makes them again; "
    "`logging: {codec: zstd}` makes drawn ones smaller, and `ffv1` filmed ones"
)


PATTERN = "source_uri: test, width: 64, height: 48"


def plan(tmp_path: Path, logging: str = "", source: str = PATTERN) -> Plan:
    path = tmp_path / "g.yaml"
    path.write_text(GRAPH.format(logging=logging and f", logging: {logging}", source=source))
    return load_plan(path, env={})


def test_pictures_that_are_most_of_the_log_are_named_with_what_they_take(tmp_path):
    found = large_pictures(plan(tmp_path), {"/half/resized": GIB}, GIB + 1, 10.0)
    assert found == ("half", pytest.approx(107.37, abs=0.01), RAW_HINT)


def test_a_codec_that_is_chosen_is_not_proposed(tmp_path):
    found = large_pictures(plan(tmp_path, "{codec: zstd}"), {"/half/resized": GIB}, GIB, 10.0)
    assert found is not None
    assert found.hint == (
        "`logging: {payload: none}` leaves them out, and a replay makes them again"
    )


def test_of_a_source_nothing_is_proposed_that_a_replay_would_lack(tmp_path):
    found = large_pictures(plan(tmp_path), {"/cam/image": GIB}, GIB, 10.0)
    assert found is not None
    assert found.hint == "`logging: {codec: zstd}` makes drawn ones smaller, and `ffv1` filmed ones"


@pytest.mark.parametrize(
    ("taken", "log", "seconds"),
    [
        (200 << 20, 200 << 20, 1.0),  # not yet
        (GIB, 3 * GIB, 10.0),  # less than half of the log
        (GIB, GIB, 3600.0),  # slowly
        (GIB, GIB, 0.0),
    ],
)
def test_pictures_that_take_little_are_not_worth_a_word(tmp_path, taken, log, seconds):
    assert large_pictures(plan(tmp_path), {"/half/resized": taken}, log, seconds) is None


def said(tmp_path: Path, name: str, logging: str, source: str) -> list[dict[str, Any]]:
    run = Run(plan(tmp_path, logging, source), clock=LiveClock(), directory=tmp_path / name)
    run.run(cycles=20)
    with Log(tmp_path / name) as log:
        lines = [dict(it.fields) for it in log.messages("/flowrun/log")]
    return [it for it in lines if it["message"] == "its pictures are most of the log"]


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(disk_use, "_LARGE_BYTES", 1000)
    monkeypatch.setattr(disk_use, "_LARGE_SHARE", 0.0)
    monkeypatch.setattr(disk_use, "_LARGE_MB_PER_S", 0.0)


@pytest.mark.usefixtures("small")
def test_a_run_says_so_once_and_a_cameras_packets_do_not_count(tmp_path):
    [line] = said(tmp_path, "film", "", f"source_uri: {MEDIA / 'shapes.mp4'}")
    assert line["name"] == "half"
    assert line["fields"]["hint"] == RAW_HINT


@pytest.mark.usefixtures("small")
def test_compressed_pictures_count_as_they_are_stored(tmp_path):
    [line] = said(tmp_path, "ffv1", "{codec: ffv1}", PATTERN)
    assert line["fields"]["hint"] == (
        "`logging: {payload: none}` leaves them out, and a replay makes them again"
    )


@pytest.mark.usefixtures("small")
def test_a_run_that_keeps_no_such_pictures_says_nothing(tmp_path):
    assert said(tmp_path, "none", "{payload: none}", f"source_uri: {MEDIA / 'shapes.mp4'}") == []
