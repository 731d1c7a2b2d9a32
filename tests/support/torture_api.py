"""Sends a run everything that an HTTP client can; `make torture-api`.

    PYTHONPATH=tests python -m support.torture_api [--examples 300] [--raw 2000] [--seed 1]

The demo graph runs as the command does. Schemathesis makes requests from the API's own description,
valid and invalid ones, and checks that each reply is one that the description allows: no 5xx but the
documented 503. Then come requests with bytes changed, cut and repeated, and connections that are left
half open. The run must go on all the time, its console show no error, and its logs replay.

examples: how many requests Schemathesis makes up for each operation, besides those that it derives.
raw: how many damaged requests.
"""

from __future__ import annotations

import argparse
import random
import re
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import httpx
import yaml

from flowrun.runtime.log.reader import Log
from support.paths import GRAPHS

STREAMS = (
    "/events|/streaming/video/"  # without an end, so not for a client that reads all of a reply
)
STOP = "/pipeline/stop"
_FLOWRUN = [sys.executable, "-m", "flowrun.runtime.cli"]
_GENERATED = re.compile(r"([\d,]+) generated, ([\d,]+) passed")


def examine(url: str, *, examples: int, seed: int, skip: str) -> int:
    """Have Schemathesis try all operations of the server at `url`; the number of its requests, all of
    which were answered as described.

    skip: pattern of the paths to leave out.
    """
    words = [
        *(sys.executable, "-W", "ignore", "-m", "schemathesis.cli", "run", f"{url}openapi.json"),
        *("--exclude-path-regex", skip, "--max-examples", str(examples), "--seed", str(seed)),
        *("--phases", "examples,coverage,fuzzing", "--continue-on-failure", "--no-color"),
        # 503 is described, any other 5xx is not. Whether a value suits a task, only the task knows.
        *("--exclude-checks", "not_a_server_error,positive_data_acceptance"),
    ]
    with tempfile.TemporaryDirectory() as directory:  # it leaves a cache where it runs
        done = subprocess.run(words, cwd=directory, capture_output=True, text=True, check=False)
    found = _GENERATED.search(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert found is not None, done.stdout
    assert found[1] == found[2], done.stdout
    return int(found[1].replace(",", ""))


# -- damaged requests ----------------------------------------------------------------------------

_BODY = b'{"prompt": "cap en", "max_new_tokens": 20}'
_REQUESTS = [
    b"GET /api/v0/report HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n",
    b"GET /api/v0/streaming/image/0?timeout_s=0&latest=1 HTTP/1.1\r\nHost: 127.0.0.1:3000\r\n\r\n",
    b"GET /api/v0/inference/result?timeout_s=0 HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n",
    b"HEAD /api/v0/events HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\r\n",
    b"GET /docs/assets/favicon.png HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-9\r\n\r\n",
    b"POST /api/v0/inference/settings HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_BODY) + _BODY,
    b"POST /api/v0/inference/settings HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
    b"\r\n%x\r\n" % len(_BODY) + _BODY + b"\r\n0\r\n\r\n",
    b"POST /api/v0/pipeline/stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 12\r\n\r\n"
    b'{"name":"x"}',
]
_PIECES = [
    *(b"\r\n", b"\n", b"\0", b"\xff", b"%00", b"%", b"../", b"/", b"?", b"&token=", b" ", b":", b"0"),
    *(b"9" * 30, b"a" * 20_000, b'"', b"[" * 3000, b"\\ud800", b"NaN", b"1e999", b"Host: evil.example"),
    *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n"),
]  # fmt: skip


def damaged(rng: random.Random) -> bytes:
    """A request, or two in a row, of which something is wrong."""
    data = bytearray(b"".join(rng.choices(_REQUESTS, k=rng.choice([1, 1, 2]))))
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(data) + 1)
        end = min(len(data), start + rng.choice([0, 1, 1, 4, 40]))
        data[start:end] = rng.choice(
            [b"", rng.choice(_PIECES), rng.randbytes(rng.randint(1, 8)), bytes(data[:start][-30:])]
        )
    return bytes(data)


def send(port: int, data: bytes) -> int | None:
    """The status of the first reply to `data`; None if there was none."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(60)
        try:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            reply = client.recv(4096)
        except ConnectionError:
            return None
    if not reply:
        return None
    found = re.match(rb"HTTP/1\.1 (\d\d\d) ", reply)
    assert found is not None, (data, reply)
    return int(found[1])


# -- the run -------------------------------------------------------------------------------------


def torture(directory: Path, *, examples: int, raw: int, seed: int) -> None:
    graph = yaml.safe_load((GRAPHS / "inference.yaml").read_text())
    graph["tasks"][0]["config"] |= {
        "source_uri": str(GRAPHS / "media/shapes.mp4"),
        "loop": True,
    }
    (directory / "inference.yaml").write_text(yaml.safe_dump(graph))
    console = directory / "console.txt"
    run = subprocess.Popen(
        [*_FLOWRUN, "inference.yaml", "--port", "0", "--plain"],
        cwd=directory,
        stdout=console.open("w"),
        stderr=subprocess.STDOUT,
    )
    try:
        while not (found := re.search(r"http://127.0.0.1:(\d+)/", console.read_text())):
            assert run.poll() is None, console.read_text()
        url, port = found[0], int(found[1])

        def cycles() -> int:
            assert run.poll() is None, console.read_text()
            return int(httpx.get(f"{url}api/v0/report", timeout=60).json()["cycles"])

        before = cycles()
        requests = examine(url, examples=examples, seed=seed, skip=f"{STREAMS}|{STOP}")
        print(f"{requests:,} requests of Schemathesis, each answered as the API says", flush=True)
        assert cycles() > before

        rng = random.Random(seed)
        statuses: Counter[int | None] = Counter()
        for _ in range(raw):
            data = damaged(rng)
            status = send(port, data)
            assert status is None or status < 500 or status == 503, (status, data)
            statuses[status] += 1
        shown = ", ".join(f"{statuses[it]} x {it or 'closed'}" for it in sorted(statuses, key=str))
        print(f"{raw:,} damaged requests: {shown}", flush=True)
        before = cycles()
        with ExitStack() as stack:
            for _ in range(1100):
                stack.enter_context(socket.create_connection(("127.0.0.1", port))).send(b"GET /")
            while cycles() < before + 10:
                pass
        print("1,100 half-open connections: others are answered", flush=True)
        run.terminate()
        assert run.wait(60) == 0, console.read_text()
    finally:
        run.kill()
        run.wait()
    text = console.read_text()
    assert "Traceback" not in text, text
    assert "error" not in text.lower(), text
    logs = sorted((directory / "runs").glob("[!.]*"))  # recording was turned off and on
    assert logs
    for log in logs:
        with Log(log) as opened:
            if next(opened.cycles(), None) is None:  # off again at once
                continue
        replay = subprocess.run(
            [*_FLOWRUN, "replay", str(log)], capture_output=True, text=True, check=False
        )
        assert replay.returncode == 0, replay.stdout + replay.stderr
        print(replay.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--examples", type=int, default=300)
    parser.add_argument("--raw", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        torture(Path(directory), examples=args.examples, raw=args.raw, seed=args.seed)


if __name__ == "__main__":
    main()
