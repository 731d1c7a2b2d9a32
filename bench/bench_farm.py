"""How many answers a second a farm of 1, 2 and 4 servers gives, and what flowrun adds to each.

    python bench/bench_farm.py [--latency-ms 50] [--questions 320] [--cameras 16]

The servers are stubs in processes of their own, on 127.0.0.1. Each answers one question at a time, after
a fixed time, as a model on one GPU does; so N of them give at most N / latency answers a second, and the
share of that which is reached is what the choosing, the requests and this machine leave of it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import structlog

from flowrun.tasks.backends.openai import OpenAIBackend
from flowrun.tasks.backends.settings import OpenAISettings
from flowrun.tasks.models.question import Question

TARGET = 0.9
"""The least share of what the servers could give."""

SERVER = """
import http.server, json, sys, threading, time
latency_s, one = float(sys.argv[1]), threading.Lock()
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def log_message(self, *_): pass
    def reply(self, said):
        data = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def do_GET(self): self.reply({"data": [{"id": "stub"}]})
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        with one: time.sleep(latency_s)
        self.reply({"choices": [{"message": {"content": "a red circle"}}],
                    "usage": {"completion_tokens": 3}})
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


@contextlib.contextmanager
def stubs(count: int, latency_s: float) -> Iterator[list[str]]:
    """The URLs of so many servers."""
    started = [
        subprocess.Popen(  # this interpreter
            [sys.executable, "-c", SERVER, str(latency_s)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(count)
    ]
    try:
        yield [f"http://127.0.0.1:{int(it.stdout.readline())}/v1" for it in started if it.stdout]
    finally:
        for it in started:
            it.kill()
            it.wait()


def bench(count: int, latency_s: float, questions: int, cameras: int) -> tuple[float, Counter[str]]:
    """Answers a second, and how many each server gave."""
    picture = np.zeros((240, 320, 3), np.uint8)
    with stubs(count, latency_s) as urls:
        backend = OpenAIBackend(
            OpenAISettings(base_url=urls, timeout_s=60),
            graph_dir=Path(),
            log=structlog.get_logger(),
            rng=np.random.default_rng(0),
            max_batch=cameras,
        )
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
        backend.load()
        gave: Counter[str] = Counter()
        batch = [Question(picture, "cap en", 50)] * cameras
        began = time.perf_counter()
        for _ in range(questions // cameras):
            gave.update(answer.server for answer in backend.answers(batch))
        took_s = time.perf_counter() - began
        backend.close()
    return sum(gave.values()) / took_s, gave


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latency-ms", type=float, default=50.0)
    parser.add_argument("--questions", type=int, default=320)
    parser.add_argument("--cameras", type=int, default=16, help="asked about at the same time")
    args = parser.parse_args()
    latency_s = args.latency_ms / 1000
    load = f"{os.getloadavg()[0]:.1f}"
    print(f"{args.cameras} cameras, {args.latency_ms:g} ms an answer, load average {load}")
    print(f"{'servers':>8}  {'answers/s':>10}  {'of what they could give':>24}  each gave")
    for count in (1, 2, 4):
        rate, gave = bench(count, latency_s, args.questions, args.cameras)
        share = rate * latency_s / count
        verdict = "reached" if share >= TARGET else "MISSED"
        each = ", ".join(str(it) for it in gave.values())
        print(f"{count:8}  {rate:10.1f}  {100 * share:17.0f} % {verdict}  {each}")


if __name__ == "__main__":
    main()
