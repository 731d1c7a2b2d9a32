"""What all tests share: which need more than `pip` installs, and how a terminal would start them."""

from __future__ import annotations

import signal

import pytest

_REAL = {"browser", "camera", "chromium", "gguf", "llama"}
"""Fixtures that are real programs, installed by `make test-all`: a browser, an RTSP server, a
llama-server."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _REAL & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.real)


def pytest_configure() -> None:
    # A shell that starts `make test &` lets its children ignore Ctrl-C. Tests send it to theirs.
    signal.signal(signal.SIGINT, signal.default_int_handler)
