"""The API against its own description, by Schemathesis. What each test asks is held to it as well: see
`must_be_described` in tests/support/api_client.py."""

import pytest

from flowrun.runtime.server import control
from support.torture_api import STREAMS, examine


@pytest.mark.long
def test_every_reply_is_one_that_the_api_describes(new_run, new_server, monkeypatch):
    monkeypatch.setattr(control, "_STOP_S", 0.0)
    run = new_run(rate_hz=500).start()
    run.stop_is_stuck = True
    assert examine(new_server(run).url, examples=20, seed=1, skip=STREAMS) > 300
