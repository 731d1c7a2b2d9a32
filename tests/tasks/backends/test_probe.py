"""A server that is asked for its models, and for nothing else."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import structlog

from flowrun.tasks.backends.probe import ServerProbe
from flowrun.tasks.backends.settings import OpenAISettings
from flowrun.tasks.models.question import ModelError
from support.model_servers.fault_server import FaultServer


def probe_of(url: str, **settings: object) -> ServerProbe:
    return ServerProbe(OpenAISettings(base_url=url, **settings), log=structlog.get_logger())


def test_a_server_is_asked_for_its_models_and_for_no_answer(
    fault_server: FaultServer,
) -> None:
    probe = probe_of(fault_server.base_url)
    probe.ask()
    probe.ask()
    fault_server.models_status = 401
    with pytest.raises(ModelError, match="401"):
        probe.ask()
    assert fault_server.bodies == []


def test_one_that_is_not_there_says_so_at_once(fault_server: FaultServer) -> None:
    fault_server.close()
    url = fault_server.base_url
    with pytest.raises(ModelError) as found:
        probe_of(url).ask()
    assert str(found.value) == (f"{url}: no answer (Connection refused); is the server running?")


def test_only_one_that_is_near_is_asked_often() -> None:
    assert probe_of("http://127.0.0.1:8080/v1").every_s == 5
    assert probe_of("https://api.openai.com/v1").every_s == 60


def test_one_that_says_nothing_is_left_when_the_run_ends(
    fault_server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()

    def silent(_handler: object) -> None:
        asked.set()
        fault_server.ending.wait(30)

    monkeypatch.setattr(fault_server.handler, "do_GET", silent)
    probe = probe_of(fault_server.base_url)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(probe.ask)
        assert asked.wait(60)
        probe.cancel()
        with pytest.raises(ModelError, match="the request was withdrawn$"):
            asking.result(10)
