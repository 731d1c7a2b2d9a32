"""For the tests of the command."""

from __future__ import annotations

import signal

import pytest


@pytest.fixture(autouse=True)
def _signals_reach_the_command():
    """Also where whoever runs the tests has them ignore SIGINT, as shells do in the background: a
    process inherits that, and then rightly ignores it."""
    ignored = [
        number
        for number in (signal.SIGINT, signal.SIGHUP)
        if signal.getsignal(number) == signal.SIG_IGN
    ]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
