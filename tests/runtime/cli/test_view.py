"""`flowrun view --cycle`: the page at a moment of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowrun.runtime.cli import main
from support.helpers import plan_of, record


def test_the_page_begins_with_a_cycle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record(plan_of(tmp_path, "a=Numbers(limit: 3)"), tmp_path / "run")

    class Ended:
        def wait(self) -> None:
            raise KeyboardInterrupt

    from flowrun.runtime.cli import view

    monkeypatch.setattr(view, "threading", type("threading", (), {"Event": Ended}))
    run = str(tmp_path / "run")
    assert main(["view", run, "--cycle", "2", "--port", "0"]) == 0
    assert capsys.readouterr().out.endswith("/?cycle=2\n")
    assert main(["view", run, "--cycle", "9"]) == 2
    assert capsys.readouterr().err == "--cycle 9: the run has no such cycle\n"
    assert main(["view", str(tmp_path), "--cycle", "1"]) == 2
    assert capsys.readouterr().err == (
        f"--cycle is for one run, and {tmp_path} is a folder of runs; name the run\n"
    )
