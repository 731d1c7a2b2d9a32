"""`flowrun alerts test` on what a fleet has recorded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowrun.runtime.cli import main
from support.paths import TESTS

pytestmark = pytest.mark.slow
pytest.importorskip("zenoh")

GRAPH = """\
partitions: {eye: {}, desk: {}}
tasks:
  - {id: cam, type: support.pictures.Camera, partition: eye, config: {limit: 12}}
  - {id: says, type: support.pictures.Answer, partition: eye}
  - {id: watch, type: Alert, partition: desk, config: {contains: ['2'], cooldown_s: 0}}
cnx:
  - {src: cam, dst: says, msg: ImageRgb8Msg}
  - {src: says, dst: watch, msg: PromptResponseMsg}
logging: {slab_size_mib: 8, section_size_mib: 1}
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
    [found] = (folder / "runs").iterdir()
    return found


def raised(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["alerts", "test", *words, "--json", "--processes", "1"]) == 0
    return [Path(it["run"]).parent.name for it in json.loads(capsys.readouterr().out)["alerts"]]


def test_the_alert_of_one_process_is_tried_on_its_run(
    fleet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(raised(capsys, str(fleet))) == {"desk-0"}


def test_a_condition_is_tried_where_what_it_reads_was_made(
    fleet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(raised(capsys, str(fleet), "--when", "said('2')")) == {"eye-0"}


def test_what_no_process_has_is_a_problem(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["alerts", "test", str(fleet), "--when", "count('x') > 1", "--processes", "1"]) == 1
    said = capsys.readouterr()
    assert (said.out + said.err).count("the condition reads detections, and the run has none") == 2
