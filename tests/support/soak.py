"""Runs graphs for a long time and looks for what grows; `make soak MINUTES=10`.

    PYTHONPATH=tests python -m support.soak [--minutes 10] [--cycles 1000000]

minutes: how long the demo graph runs, looped, as the command does, while clients load its page, poll
pictures and answers, watch streams, post settings, leave connections half open and streams unread.
cycles: how many cycles the fastest graph runs before.

Either is left out if it is 0.

A log in ring mode keeps the size of both bounded. Memory (anonymous: what is mapped from the log is the
system's to take back), descriptors, threads and the log are looked at every second. Whether one of
them grows is read from a line through the means of equal spans of time, after a warm-up: its slope must
not be above what is allowed by more than three of its standard errors.
"""

from __future__ import annotations

import argparse
import itertools
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import yaml

from support.paths import GRAPHS

MIB = 1 << 20
_WARM_UP = 0.4
"""The part of the samples that the fit leaves out: caches fill, and the ring of the log."""
_SPANS = 16
_ERRORS = 3
_LONG = {"memory, MiB": 6.0, "descriptors": 4.0, "threads": 4.0, "log, MiB": 6.0}
"""What each may grow in an hour."""
_FAST = {"memory, MiB": 0.5, "descriptors": 1.0, "threads": 1.0, "log, MiB": 0.5}
"""What each may grow in 10^6 cycles; half a byte a cycle."""


class Growth(NamedTuple):
    """How a series of numbers grows.

    rate: by the fit, per unit of its times.
    error: standard error of `rate`.
    """

    rate: float
    error: float

    def exceeds(self, allowed: float) -> bool:
        return self.rate - _ERRORS * self.error > allowed


def growth(times: list[float], values: list[float]) -> Growth:
    """The slope of the line through the means of `_SPANS` equal parts, after the warm-up.

    Neighbouring samples are alike, so that a fit through all of them would be far too sure of itself.
    """
    first = int(len(times) * _WARM_UP)
    assert len(times) - first >= 4 * _SPANS, f"only {len(times)} samples"
    x, y = (
        np.array([part.mean() for part in np.array_split(np.array(series[first:], float), _SPANS)])
        for series in (times, values)
    )
    x -= x.mean()
    rate = float((x * y).sum() / (x * x).sum())
    left = y - y.mean() - rate * x
    return Growth(rate, float(np.sqrt((left * left).sum() / (_SPANS - 2) / (x * x).sum())))


# -- looking at a run ----------------------------------------------------------------------------


def look(process: int, log: Path) -> dict[str, float]:
    """What a process has at this moment."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines()
    )
    return {
        "memory, MiB": int(status["RssAnon"].split()[0]) / 1024,
        "descriptors": sum(1 for _ in Path(f"/proc/{process}/fd").iterdir()),
        "threads": int(status["Threads"]),
        "log, MiB": sum(_allocated(path) for path in log.rglob("*")) / MIB,
    }


def _allocated(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:  # the ring has dropped it
        return 0


class Samples:
    """What was looked at, and at what time or cycle."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.series: dict[str, list[float]] = {name: [] for name in _LONG}

    def add(self, at: float, seen: dict[str, float]) -> None:
        self.at.append(at)
        for name, value in seen.items():
            self.series[name].append(value)

    def grown(self, allowed: dict[str, float], *, unit: float, per: str) -> list[str]:
        """Print a line for each series; the names of those that grow too much.

        unit: how much of `at` is one `per`.
        """
        too_much = []
        for name, values in self.series.items():
            found = growth([at / unit for at in self.at], values)
            bad = found.exceeds(allowed[name])
            first = int(len(values) * _WARM_UP)
            print(
                f"  {name:<12} {min(values[first:]):8.1f} to {max(values[first:]):8.1f}, grows "
                f"{found.rate:+9.2f} +- {found.error:.2f} {per} (allowed: {allowed[name]:g})"
                f"{'  TOO MUCH' if bad else ''}",
                flush=True,
            )
            too_much += [name] if bad else []
        return too_much


@contextmanager
def running(directory: Path, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A run of `graph.yaml` in `directory`, and what it writes to the console."""
    console = directory / "console.txt"
    with console.open("w") as out:
        run = subprocess.Popen(
            [sys.executable, "-m", "flowrun.runtime.cli", "graph.yaml", "--plain", *words],
            cwd=directory,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield run, console
    finally:
        run.kill()
        run.wait()


# -- clients -------------------------------------------------------------------------------------


class Clients:
    """Threads that use the server at `url` until `end`; what they did is counted in `done`."""

    def __init__(self, url: str) -> None:
        self.done: Counter[str] = Counter()
        self._url = url
        self._port = int(url.rstrip("/").rpartition(":")[2])
        self._ending = threading.Event()
        self._failed: list[Exception] = []
        kinds = [self._page, self._pictures, self._answers, self._video, self._events]
        kinds += [self._settings, self._half_open, self._deaf]
        self._threads = [threading.Thread(target=self._repeat, args=[kind]) for kind in kinds]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()
        self.must_go_on()

    def must_go_on(self) -> None:
        """Raise what a client has met, if anything."""
        if self._failed:
            raise self._failed[0]

    def _repeat(self, kind: Callable[[httpx.Client, random.Random], None]) -> None:
        rng = random.Random(kind.__name__)
        while not self._ending.is_set():
            try:
                with httpx.Client(base_url=self._url, timeout=120, trust_env=False) as http:
                    for _ in range(20):
                        if self._ending.is_set():
                            return
                        kind(http, rng)
                        self.done[kind.__name__.strip("_")] += 1
            except Exception as error:  # noqa: BLE001  # raised again by `end`
                self._failed.append(error)
                return

    def _page(self, http: httpx.Client, _rng: random.Random) -> None:
        for path in ("/", "/docs", "/openapi.json", "/api/v0/pipeline/config", "/api/v0/report"):
            assert http.get(path, headers={"Accept": "text/html"}).status_code == 200
        self._ending.wait(1)

    def _pictures(self, http: httpx.Client, rng: random.Random) -> None:
        accept = rng.choice(["image/jpeg", "application/json"])
        path = f"/api/v0/streaming/image{rng.choice(['', '/0', '/bcast_image'])}"
        reply = http.get(path, headers={"Accept": accept})
        assert reply.status_code in {200, 503}, reply.text

    def _answers(self, http: httpx.Client, rng: random.Random) -> None:
        query = rng.choice(["", "?latest=1", "?timeout_s=0.5"])
        assert http.get(f"/api/v0/inference/result{query}").status_code in {200, 503}
        self._ending.wait(0.2)

    def _video(self, http: httpx.Client, rng: random.Random) -> None:
        self._watch(http, "/api/v0/streaming/video/bcast_image", rng.randint(1, 300))

    def _events(self, http: httpx.Client, rng: random.Random) -> None:
        self._watch(http, "/api/v0/events", rng.randint(1, 10))

    def _watch(self, http: httpx.Client, path: str, pieces: int) -> None:
        with http.stream("GET", path) as reply:
            assert reply.status_code == 200
            for _ in itertools.islice(reply.iter_raw(), pieces):
                if self._ending.is_set():
                    return

    def _settings(self, http: httpx.Client, rng: random.Random) -> None:
        good = {"prompt": rng.choice(["cap en", "answer en how many shapes are there?"])}
        bad = rng.choice([{"prompt": "x" * 20_000}, {"promt": "x"}, {"max_new_tokens": "x"}])
        for values, status in ((good, 200), (bad, 422)):
            assert http.post("/api/v0/inference/settings", json=values).status_code == status
        self._ending.wait(0.5)

    def _half_open(self, _http: httpx.Client, rng: random.Random) -> None:
        self._raw(
            b"POST /api/v0/inference/settings HTTP/1.1\r\nHost: localhost\r\n"[: rng.randrange(60)]
        )

    def _deaf(self, _http: httpx.Client, rng: random.Random) -> None:
        path = rng.choice([b"events", b"streaming/video/0", b"streaming/image"])
        self._raw(b"GET /api/v0/%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)

    def _raw(self, data: bytes) -> None:
        """Send `data`, and read nothing for as long as the server bears it, or less."""
        with socket.create_connection(("127.0.0.1", self._port)) as client, suppress(OSError):
            client.sendall(data)
            self._ending.wait(2)


# -- the two runs --------------------------------------------------------------------------------


def demo(directory: Path, minutes: float) -> list[str]:
    """The demo graph with clients; what grows too much."""
    graph = yaml.safe_load((GRAPHS / "inference.yaml").read_text())
    source = {"source_uri": str(GRAPHS / "media/shapes.mp4"), "loop": True}
    graph["tasks"][0]["config"] |= source
    graph["logging"] = _RING
    (directory / "graph.yaml").write_text(yaml.safe_dump(graph))
    samples = Samples()
    with running(directory, "--port", "0") as (run, console):
        while not (found := re.search(r"http://127.0.0.1:\d+/", console.read_text())):
            assert run.poll() is None, console.read_text()
            time.sleep(0.1)
        clients = Clients(found[0])
        began = time.monotonic()
        try:
            while (at := time.monotonic() - began) < minutes * 60:
                assert run.poll() is None, console.read_text()
                clients.must_go_on()
                samples.add(at, look(run.pid, directory / "runs"))
                time.sleep(1)
        finally:
            clients.end()
        cycles = httpx.get(f"{found[0]}api/v0/report").json()["cycles"]
        run.terminate()
        assert run.wait(60) == 0, console.read_text()
    assert "Traceback" not in console.read_text(), console.read_text()
    print(f"demo graph, {minutes:g} min, {cycles:,} cycles; clients: {dict(clients.done)}")
    return samples.grown(_LONG, unit=3600, per="an hour")


def fastest(directory: Path, cycles: int) -> list[str]:
    """A graph that does next to nothing, as fast as it goes; what grows too much."""
    tasks = [{"id": "n", "type": "Counter"}, {"id": "square", "type": "Square"}]
    connections = [{"src": "n", "dst": "square", "msg": "IntMsg"}]
    graph = {"tasks": tasks, "cnx": connections, "logging": _RING}
    (directory / "graph.yaml").write_text(yaml.safe_dump(graph))
    samples = Samples()
    began = time.monotonic()
    with running(directory, "--cycles", str(cycles)) as (run, console):
        while run.poll() is None:
            with suppress(FileNotFoundError, KeyError):  # it has just ended
                samples.add(time.monotonic() - began, look(run.pid, directory / "runs"))
            time.sleep(0.1)
        assert run.returncode == 0, console.read_text()
    took_s = time.monotonic() - began
    print(f"fastest graph, {cycles:,} cycles in {took_s:.0f} s")
    return samples.grown(_FAST, unit=took_s * 1e6 / cycles, per="in 10^6 cycles")


_RING = {"slab_size_mib": 1, "section_size_mib": 1, "mode": "ring", "keep_slabs": 2}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--cycles", type=int, default=1_000_000)
    args = parser.parse_args()
    grown = []
    for soak, amount in ((fastest, args.cycles), (demo, args.minutes)):
        if not amount:
            continue
        with tempfile.TemporaryDirectory() as directory:
            grown += soak(Path(directory), amount)
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
