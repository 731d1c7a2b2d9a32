"""Model servers for the tests of `Inference`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.model_servers.fault_server import FaultServer
from support.model_servers.llama import LlamaServer, make_gguf


@pytest.fixture(scope="session")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model as GGUF files."""
    return make_gguf(tmp_path_factory.mktemp("gguf"))


@pytest.fixture(scope="session")
def llama(gguf: Path) -> Iterator[LlamaServer]:
    """A llama-server that runs as long as the tests."""
    server = LlamaServer(gguf)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def fault_server() -> Iterator[FaultServer]:
    server = FaultServer()
    yield server
    server.close()
