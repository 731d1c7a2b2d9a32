"""A real llama-server with the model that ships with flowrun."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from flowrun.tasks.embedded.training.to_gguf import convert
from support.model_servers.build_llama import server_path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def llama_command(gguf: Path, port: int) -> list[str]:
    """gguf: a folder with `model.gguf` and `mmproj.gguf`."""
    path = server_path()
    if not path.exists():
        pytest.fail(f"{path} is not there; `make llama-server` builds it, once")
    files = ["-m", str(gguf / "model.gguf"), "--mmproj", str(gguf / "mmproj.gguf")]
    small = ["-c", "512", "-np", "1", "-t", "1", "-tb", "1", "--jinja", "--no-warmup"]
    return [str(path), *files, *small, "--host", "127.0.0.1", "--port", str(port)]


def make_gguf(folder: Path) -> Path:
    convert(folder)
    return folder


class LlamaServer:
    """Runs from `start` to `stop`, any number of times, always on the same port."""

    def __init__(self, gguf: Path, port: int | None = None) -> None:
        self.port = port or free_port()
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        self._command = llama_command(gguf, self.port)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/health").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            assert self._process.poll() is None, "llama-server ended"
            assert time.monotonic() < deadline, "llama-server is not ready"
            time.sleep(0.02)

    def stop(self) -> None:
        """At once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
