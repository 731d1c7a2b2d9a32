"""What all tests share: which need more than `pip` installs, and how a terminal would start them."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest
import structlog
from httpx._config import DEFAULT_TIMEOUT_CONFIG

from flowrun.runtime.extras import load_video_libraries
from support import fault_tasks, helpers

load_video_libraries()

_REAL = {"browser", "camera", "chromium", "gguf", "llama"}
"""Fixtures that are real programs, installed by `make test-all`: a browser, an RTSP server, a
llama-server."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _REAL & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.real)


def pytest_configure() -> None:
    # An example may take long on a busy machine; `timeout` in pyproject.toml ends a test that hangs.
    hypothesis.settings.register_profile("unhurried", hypothesis.settings(), deadline=None)
    hypothesis.settings.load_profile("unhurried")
    # So may a reply, for which httpx waits 5 s where a test says nothing else.
    DEFAULT_TIMEOUT_CONFIG.read = DEFAULT_TIMEOUT_CONFIG.connect = 60
    # `make test &` and nohup let children ignore SIGINT and SIGHUP. Tests send both to theirs.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is collected lives as long as the tests do. The collector of garbage must not visit it again
    and again, nor each time that a test, or a run in the test's process, calls `gc.collect`.

    pytest keeps each test file as it compiled it, also where Python is asked to keep none: else each
    process compiles all of them, each time.
    """
    keeps_none = sys.dont_write_bytecode
    sys.dont_write_bytecode = False
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()
        sys.dont_write_bytecode = keeps_none


@pytest.fixture(autouse=True, scope="session")
def data_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's data folder: the tests sign runs with a key of their own."""
    folder = tmp_path_factory.mktemp("data_home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(folder))
        yield folder


@pytest.fixture(autouse=True, scope="module")
def same_scheduling() -> Iterator[None]:
    """No test leaves a real-time process behind, for which those after it would all wait."""
    before = os.sched_getscheduler(0)
    yield
    assert os.sched_getscheduler(0) == before


@pytest.fixture(autouse=True, scope="module")
def logging_of_module() -> Iterator[None]:
    """No module leaves behind where what tasks log goes, as a command does that drops it."""
    yield from _same_logging()


@pytest.fixture(autouse=True)
def logging_of_test() -> Iterator[None]:
    """No test does."""
    yield from _same_logging()


def _same_logging() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(autouse=True)
def fresh_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What task classes share with their test is new for each test, and gone after it."""
    monkeypatch.setattr(helpers.Hooked, "hook", staticmethod(lambda _number: None))
    monkeypatch.setattr(helpers.Slow, "gate", threading.Semaphore(0))
    monkeypatch.setattr(helpers.Slow, "began", threading.Semaphore(0))
    monkeypatch.setattr(helpers.Patient, "deaf", False)
    monkeypatch.setattr(helpers.Patient, "threads", [])
    monkeypatch.setattr(helpers.Flaky, "starts", 0)
    monkeypatch.setattr(helpers.FlakySource, "failed", False)
    monkeypatch.setattr(helpers.RoughNumbers, "run", None)
    monkeypatch.setattr(fault_tasks.Holds, "gate", staticmethod(lambda: None))
