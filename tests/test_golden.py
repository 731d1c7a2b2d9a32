"""The golden run: recorded once and checked in, it replays with the code of today. Where that is no
longer wanted, `make golden` records it again; tests/golden/record.py says when."""

import subprocess
import sys

import pytest

from flowrun.runtime.log.diff import compare_logs
from flowrun.runtime.log.reader import Log
from flowrun.runtime.testing import assert_replays
from support.paths import TESTS

GOLDEN = TESTS / "golden"


def test_golden_run_replays():
    assert_replays(GOLDEN / "run", graph=GOLDEN / "golden.yaml")


def test_golden_run_holds_a_change_a_rate_and_errors():
    with Log(GOLDEN / "run") as log:
        controls = [message.fields for message in log.messages("/flowrun/control")]
        slow = list(log.messages("/slow/mean"))
        cycles = len(log)
    assert {item["kind"] for item in controls} >= {"set", "error"}
    assert {"factor": 5} in [item["value"] for item in controls]
    assert 1 < len(slow) < cycles / 10
    assert sum(path.stat().st_size for path in (GOLDEN / "run").iterdir()) < 200_000


@pytest.mark.slow
def test_recording_again_gives_the_golden_run(tmp_path):
    again = tmp_path / "again"
    subprocess.run([sys.executable, GOLDEN / "record.py", again], check=True, timeout=240)
    with Log(GOLDEN / "run") as golden, Log(again) as log:
        found = compare_logs(golden, log, times=True)
    assert found.difference is None
    assert found.identical > 300
