"""Clients that do what they should not, while a run shows many cameras: it goes on, and ends well."""

import contextlib
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import httpx
import pytest

from flowrun.runtime import Log
from support.paths import MEDIA

pytestmark = [pytest.mark.slow, pytest.mark.long]

CAMERAS = 11
CLIENTS = 24
CYCLES = 250
UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def graph():
    tasks, cnx = [], []
    for number in range(CAMERAS):
        config = {"source_uri": str(MEDIA / "shapes.mp4"), "realtime": True, "loop": True}
        if number % 2:
            config = {"source_type": "test", "width": 320, "height": 240, "realtime": True}
        tasks.append({"id": f"cam{number}", "type": "VideoCapture", "config": config})
        tasks.append({"id": f"screen{number}", "type": "BroadcastImage"})
        cnx.append({"src": f"cam{number}", "dst": f"screen{number}", "msg": "ImageRgb8Msg"})
    return json.dumps({"tasks": tasks, "cnx": cnx})


def some_path(rng):
    """What asks most of the server: pictures in each form, and streams without an end."""
    camera = rng.randrange(CAMERAS)
    return rng.choice(
        [
            f"/api/v0/streaming/image/{camera}?timeout_s=2",
            f"/api/v0/streaming/image/{camera}?latest=1&format=json",
            f"/api/v0/inference/image/{camera}?timeout_s=2",
            f"/api/v0/streaming/video/screen{camera}",
            "/api/v0/events",
            "/api/v0/report",
            "/metrics",
        ]
    )


def harass(port, rng, over):
    """Ask, and leave in whatever way, until `over`."""
    while not over.is_set():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as client:
            client.settimeout(0.3)
            is_socket = rng.random() < 0.3
            path = f"/api/v0/streaming/ws/{rng.randrange(CAMERAS)}" if is_socket else some_path(rng)
            head = UPGRADE if is_socket else "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"
            request = head.format(path=path).encode()
            if rng.random() < 0.2:
                request = request[: rng.randrange(len(request))]
            client.sendall(request)
            leaves = rng.choice(["at once", "in the middle", "reset", "deaf", "rubbish", "half"])
            if leaves in ("in the middle", "reset"):
                with contextlib.suppress(TimeoutError):
                    client.recv(rng.choice([1, 100, 20_000]))
            if leaves == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif leaves == "deaf":
                over.wait(rng.random() * 2)
            elif leaves == "rubbish":
                client.sendall(rng.randbytes(rng.choice([1, 200, 9000])))
            elif leaves == "half":
                client.shutdown(socket.SHUT_WR)
                with contextlib.suppress(TimeoutError):
                    client.recv(5000)


@pytest.mark.timeout(300)
def test_a_run_of_eleven_cameras_outlives_them(tmp_path):
    (tmp_path / "yard.yaml").write_text(graph())
    command = [sys.executable, "-m", "flowrun.runtime.cli", "yard.yaml", "--port", "0", "--plain"]
    said = tmp_path / "said.txt"
    with said.open("w") as console:
        run = subprocess.Popen(command, cwd=tmp_path, stdout=console, stderr=subprocess.STDOUT)
    over = threading.Event()
    try:
        while not (found := re.search(r"http://127.0.0.1:(\d+)/", said.read_text())):
            assert run.poll() is None, said.read_text()
            time.sleep(0.02)
        seed = int.from_bytes(os.urandom(4))
        clients = [
            threading.Thread(target=harass, args=[int(found[1]), random.Random(seed + it), over])
            for it in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        cycles = 0
        with httpx.Client(base_url=found[0], timeout=240, trust_env=False) as http:
            while cycles < CYCLES:
                assert run.poll() is None, (seed, said.read_text())
                reply = http.get("api/v0/report")
                if reply.status_code == 200:
                    cycles = reply.json()["cycles"]
        run.send_signal(signal.SIGINT)  # while they are at it
        assert run.wait(60) == 0, (seed, said.read_text())
    finally:
        over.set()
        run.kill()
        run.wait()
    for client in clients:
        client.join()
    text = said.read_text()
    assert "Traceback" not in text, (seed, text)
    assert "error" not in text.lower(), (seed, text)
    [folder] = (tmp_path / "runs").glob("yard-*")
    with Log(folder) as log:
        assert log.finished
        assert len(log) >= CYCLES
