"""What fails on a link costs nothing: real processes over Zenoh, killed, cut off, started wrongly."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("zenoh")
pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


def run(module, *arguments):
    """What a tool of `support` prints."""
    done = subprocess.run(
        [sys.executable, "-m", f"support.{module}", *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "row",
    ["stop", "kills", "cuts", "flip", "full", "torn", "older", "twice", "gap", "gap_stop"],
)
def test_nothing_is_lost_where(row):
    assert run("link_failures", row).startswith("ok  ")


@pytest.mark.parametrize("deliver", ["every", "latest", "lockstep"])
def test_kills_at_any_moment_lose_nothing(deliver):
    options = ["--kills=16", "--cuts=4", "--stops=0", "--pairs=2", "--recover"]
    assert ", 0 lost, 0 twice, 2 of 2 fleets replay, the count goes on" in run(
        "torture_links", *options, f"--deliver={deliver}"
    )
