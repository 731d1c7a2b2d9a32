"""`flowrun view`: the page at a moment of a run, and of a fleet as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowrun.runtime.cli import main, view
from flowrun.runtime.fleet.record import FLEET_FILE
from support.fleets import two_processes
from support.helpers import plan_of, record


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends the server as soon as it has said where it is."""

    class Ended:
        def wait(self) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(view, "threading", type("threading", (), {"Event": Ended}))


@pytest.mark.usefixtures("ended")
def test_the_page_begins_with_a_cycle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(plan_of(tmp_path, "a=Numbers(limit: 3)"), tmp_path / "run")
    run = str(tmp_path / "run")
    assert main(["view", run, "--cycle", "2", "--port", "0"]) == 0
    assert capsys.readouterr().out.endswith("/?cycle=2\n")
    assert main(["view", run, "--cycle", "9"]) == 2
    assert capsys.readouterr().err == "--cycle 9: the run has no such cycle\n"
    assert main(["view", str(tmp_path), "--cycle", "1"]) == 2
    assert capsys.readouterr().err == (
        f"--cycle is for one run, and {tmp_path} is a folder of runs; name the run\n"
    )


@pytest.mark.usefixtures("ended")
def test_the_page_of_a_fleet_begins_with_all_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two_processes(tmp_path)
    (tmp_path / FLEET_FILE).touch()
    assert main(["view", str(tmp_path), "--port", "0"]) == 0
    assert capsys.readouterr().out.endswith("/#fleet\n")
    assert main(["view", str(tmp_path / "a-0"), "--port", "0"]) == 0
    assert capsys.readouterr().out.endswith("/\n")
