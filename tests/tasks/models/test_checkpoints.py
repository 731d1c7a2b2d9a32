"""A hub that cannot be reached, or only later: how long it takes, and what is said."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

pytestmark = pytest.mark.slow  # waiting is what they are about

CONFIG = b'{"architectures": ["RTDetrForObjectDetection"]}'


class Hub(BaseHTTPRequestHandler):
    """A hub with one model, `some-org/known`."""

    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.wfile.write(self.answer())

    def answer(self) -> bytes:
        self.asked.append(f"{self.command} {self.path}")
        is_known = self.path == "/some-org/known/resolve/main/config.json"
        body = CONFIG if is_known else b""
        self.send_response(200 if is_known else 404)
        self.send_header("Content-Length", str(len(body)))
        if is_known:
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("ETag", '"abc"')
        else:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        return body

    def log_message(self, *_: object) -> None:
        """Nothing."""


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def config_of(model: str, port: int, home: Path) -> tuple[str, float]:
    """What a fresh process finds, or why it finds nothing, and after how many seconds."""
    code = (
        "import json, time\n"
        "from flowrun.tasks.models.checkpoints import ModelError, config_of\n"
        "import huggingface_hub\n"
        "began = time.monotonic()\n"
        "try:\n"
        f"    said = json.dumps(config_of({model!r}, local_files_only=False))\n"
        "except ModelError as error:\n"
        "    said = str(error)\n"
        "print(json.dumps([said, time.monotonic() - began]))\n"
    )
    given = {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(home)}
    env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | given
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    said, took = json.loads(done.stdout.splitlines()[-1])
    return said, took


def test_a_hub_that_cannot_be_reached_is_an_error_within_seconds(tmp_path: Path) -> None:
    said, took = config_of("some-org/known", free_port(), tmp_path)
    assert said == (
        f"cannot load model 'some-org/known': it is not in the cache {tmp_path}/hub, and could not "
        "be downloaded ([Errno 111] Connection refused); check the id and the network, or give a "
        "folder"
    )
    assert 3 <= took < 20  # two pauses; the hub's client alone takes 24 s


@pytest.mark.long
def test_a_hub_that_is_reached_a_moment_later_is_used(tmp_path: Path) -> None:
    port = free_port()
    servers: list[HTTPServer] = []
    began = threading.Event()

    def serve() -> None:
        time.sleep(1.5)  # the process asks, is refused, and asks again
        servers.append(HTTPServer(("127.0.0.1", port), Hub))
        began.set()
        servers[0].serve_forever()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        said, _ = config_of("some-org/known", port, tmp_path)
        assert json.loads(said) == json.loads(CONFIG)
        Hub.asked.clear()
        said, _ = config_of("some-org/other", port, tmp_path)
        assert said == (
            "model 'some-org/other': the hub has no such model, or you must run `hf auth login`"
        )
        # The hub's client asks twice by itself; we do not try again what has been answered.
        assert Hub.asked.count("HEAD /some-org/other/resolve/main/config.json") <= 2
    finally:
        began.wait()
        servers[0].shutdown()
        servers[0].server_close()
        thread.join()
