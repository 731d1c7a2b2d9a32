"""A picture that several processes of a fleet have is one picture."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from flowrun.runtime.cli import main
from flowrun.runtime.fleet.record import fleet_runs
from flowrun.runtime.log.reader import Log
from flowrun.tasks.search import build
from flowrun.tasks.search.elsewhere import Elsewhere
from flowrun.tasks.search.origins import Origins
from support.in_process import spread_here
from support.paths import TESTS

pytestmark = pytest.mark.slow
pytest.importorskip("zenoh")

GRAPH = """\
partitions: {eye: {}, desk: {}}
tasks:
  - {id: cam, type: support.pictures.Camera, partition: eye, config: {limit: 12}}
  - {id: small, type: Resize, config: {width: 16, height: 16}, partition: desk}
cnx: [{src: cam, dst: small, msg: ImageRgb8Msg}]
logging: {slab_size_mib: 8, section_size_mib: 1}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "g.yaml").write_text(GRAPH)
    done = subprocess.run(
        [sys.executable, "-m", "flowrun.runtime.cli", "up", "g.yaml", "--port", "-1"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [fleet] = (folder / "runs").iterdir()
    return {it.part.partition: it.path for it in fleet_runs(fleet)}


def test_what_was_received_is_where_it_was_made(runs: dict[str, Path]) -> None:
    with Log(runs["desk"]) as log:
        received = [it.cycle for it in log.messages("/from_eye/cam_image")]
    with Log(runs["eye"]) as log:
        made = [it.cycle for it in log.messages("/cam/image")]
    with Origins() as origins:
        there = [origins.of(runs["desk"], "/from_eye/cam_image", cycle) for cycle in received]
        here = [origins.of(runs["eye"], "/cam/image", cycle) for cycle in made]
    assert len(here) == 12
    assert there == here
    assert None not in here


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches compute in this process, and keep nothing elsewhere."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "spread", spread_here([]))


@pytest.mark.usefixtures("here")
def test_a_search_lists_a_picture_of_a_fleet_once_with_the_run_of_its_camera(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Log(runs["eye"]) as log:
        Image.fromarray(next(iter(log.frames("/cam/image"))).pixels).save(tmp_path / "one.png")
    fleet = runs["eye"].parent.parent
    options = ["--every", "0", "--differ", "0", "--index", str(tmp_path / "index"), "--json"]
    assert main(["search", str(fleet), str(tmp_path / "one.png"), *options]) == 0
    [found] = json.loads(capsys.readouterr().out)  # all of its pictures are alike
    assert (Path(found["run"]).name, found["topic"]) == (runs["eye"].name, "/cam/image")


def searched(folder: Path, index: Path, capsys: pytest.CaptureFixture[str]) -> str:
    options = ["--every", "0", "--differ", "0", "--index", str(index)]
    main(["search", str(folder), "a circle", *options])
    return capsys.readouterr().out.splitlines()[-1].partition(";")[0]


@pytest.mark.usefixtures("here")
def test_a_picture_that_came_over_a_link_is_indexed_where_it_was_made(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet, index = runs["eye"].parent.parent, tmp_path / "index"
    alone, both = "12 pictures of 1 run searched", "12 pictures of 2 runs searched"
    assert searched(fleet, index, capsys) == both
    assert searched(fleet, index, capsys) == both
    assert searched(runs["desk"].parent, index, capsys) == alone
    twice = "24 pictures of 2 runs searched"  # what is in an index stays there
    assert searched(fleet, index, capsys) == twice
    assert searched(runs["eye"].parent, index, capsys) == alone


def test_what_the_sender_no_longer_has_is_not_left_out(runs: dict[str, Path]) -> None:
    with Log(runs["desk"]) as log:
        assert Elsewhere(runs.values()).has(log, "/from_eye/cam_image")
        assert not Elsewhere(runs.values()).has(log, "/small/image")
        assert not Elsewhere([runs["desk"]]).has(log, "/from_eye/cam_image")
        there = Elsewhere(runs.values())
        [number] = [it for it, path in there._senders.items() if path == runs["eye"]]
        there._cameras[number] = {"cam_image": (1, 11)}  # a flight recorder has removed the first
        assert not there.has(log, "/from_eye/cam_image")
