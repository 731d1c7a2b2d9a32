"""What viewers cost a run: CPU time of 20 of a camera's packets over WebSockets, and cycles next to 100
clients that do not read.

    python bench/bench_viewers.py [--seconds 10] [--viewers 20] [--idle 100]

The camera is a film of 1080p at 30 pictures a second, played at its own speed, on this machine's
loopback. CPU time is that of the run's process: with viewers, less that without, in percent of one
core. The viewers are a process of their own. p99 is of the cycles in the log, 500 a second
besides the camera's. Each is measured without and with clients, in turns: the range of
the rounds is the noise. All of it takes four minutes.
"""

import argparse
import asyncio
import base64
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from camera_films import film_of, long_film

from flowrun.runtime import Log

_GRAPH = """
tasks:
  - {{id: cam, type: VideoCapture, config: {{source_uri: {film}, realtime: true}}}}
  - {{id: screen, type: BroadcastImage}}
{tasks}
cnx:
{cnx}
  - {{src: cam, dst: screen, msg: ImageRgb8Msg}}
"""
_TICKS = {
    "tasks": "  - {id: tick, type: BoolSource, rate_hz: 500}\n  - {id: end, type: BoolSink}",
    "cnx": "  - {src: tick, dst: end, msg: BoolMsg}",
}
_PACKETS = "/api/v0/streaming/ws/cam?format=packets"
_UNREAD = (_PACKETS, "/api/v0/events", "/api/v0/streaming/video/screen")
_SETTLE_S = 2.0
_ROUNDS = 4
"""How often a run is looked at without and with clients, in turns."""


@contextmanager
def running(seconds, more):
    """A run of the film: its process and port."""
    with TemporaryDirectory() as folder:
        film = long_film(film_of("1080p", 240), Path(folder) / "film.mp4", seconds)
        graph = Path(folder) / "viewers.yaml"
        graph.write_text(_GRAPH.format(film=film, **more))
        command = [sys.executable, "-m", "flowrun.runtime.cli", graph, "--plain", "--port", "0"]
        run = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        try:
            port = None
            while port is None:
                found = re.search(r"http://127\.0\.0\.1:(\d+)/", run.stdout.readline())
                port = found and int(found[1])
            yield run, port, Path(folder) / "runs"
        finally:
            run.terminate()
            run.communicate()


def cpu_s(process):
    """CPU seconds that the process has used."""
    text = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(text[11]) + int(text[12])) / os.sysconf("SC_CLK_TCK")


def used(run, seconds):
    """CPU time of the run during `seconds`, in percent of a core."""
    before, began = cpu_s(run), time.monotonic()
    time.sleep(seconds)
    return 100 * (cpu_s(run) - before) / (time.monotonic() - began)


def cycles(port):
    """How many cycles the run has had."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v0/report") as reply:
        return json.load(reply)["cycles"]


def window(port, seconds):
    """The cycles of the next `seconds`: the first, and the one after the last."""
    first = cycles(port)
    time.sleep(seconds)
    return first, cycles(port)


def p99s_us(run, windows):
    """The 99th percentile of the cycles of each of `windows`, as the run has logged them."""
    with Log(run) as log:
        for first, end in windows:
            found = []
            for message in log.messages("/flowrun/steps", start=first, end=end):
                ticks = np.frombuffer(message.fields["ticks_ns"], "<u8")
                found.append(int(ticks[-1] - ticks[0]))
            yield np.percentile(found, 99) / 1e3


def said(values, form):
    """Their median, and their range."""
    low, middle, high = (format(it, form) for it in np.percentile(values, [0, 50, 100]))
    return f"{middle} ({low} to {high})"


async def connect(port, path):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1"]
    if "/ws/" in path:
        lines += ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
        lines += [f"Sec-WebSocket-Key: {key}"]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    await writer.drain()
    return reader, writer


async def view(port, count, seconds):
    """`count` viewers who read everything for `seconds`; prints how many bytes each got."""
    connections = [await connect(port, _PACKETS) for _ in range(count)]
    got = [0] * count

    async def read(number):
        while data := await connections[number][0].read(1 << 20):
            got[number] += len(data)

    reading = [asyncio.create_task(read(number)) for number in range(count)]
    await asyncio.wait(reading, timeout=seconds)
    print(json.dumps(got))


async def stay(port, count, seconds):
    """`count` clients of all streams who never read. For less than the 20 s after which they are cut."""
    connections = []
    until = time.monotonic() + seconds
    for number in range(count):
        connections.append(await connect(port, _UNREAD[number % len(_UNREAD)]))
        connections[-1][0]._transport.pause_reading()
    await asyncio.sleep(max(0, until - time.monotonic()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--viewers", type=int, default=20)
    parser.add_argument("--idle", type=int, default=100)
    parser.add_argument("--client", nargs=2, metavar=("WHAT", "PORT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    seconds = options.seconds
    if options.client:
        what, port = options.client
        count = options.viewers if what == "view" else options.idle
        asyncio.run({"view": view, "stay": stay}[what](int(port), count, seconds))
        return

    @contextmanager
    def clients(what, port, seconds):
        command = [sys.executable, __file__, "--client", what, str(port)]
        command += ["--seconds", str(seconds), "--viewers", str(options.viewers)]
        process = subprocess.Popen([*command, "--idle", str(options.idle)], stdout=subprocess.PIPE)
        time.sleep(_SETTLE_S)
        try:
            yield process
        finally:
            if what == "view":
                got = json.loads(process.communicate()[0])
                print(f"  each viewer got {min(got):,} to {max(got):,} bytes")
            process.terminate()
            process.wait()

    print(f"load {os.getloadavg()[0]:.1f}")
    long_s = _ROUNDS * (2 * seconds + 6 * _SETTLE_S) + 60
    with running(long_s, {"tasks": "", "cnx": ""}) as (run, port, _):
        time.sleep(_SETTLE_S)
        alone, watched = [], []
        for _ in range(_ROUNDS):
            alone.append(used(run, seconds))
            with clients("view", port, seconds + 2 * _SETTLE_S):
                watched.append(used(run, seconds))
        more = np.subtract(watched, alone)
        print(f"1080p30, {options.viewers} viewers of its packets")
        print(
            f"  alone {said(alone, '.1f')} % of a core, watched {said(watched, '.1f')} %: "
            f"{said(more, '.1f')} % more; asked of 20: 5 %"
        )
    with running(long_s, _TICKS) as (_, port, runs):
        quiet, crowded = [], []
        for _ in range(_ROUNDS):
            quiet.append(window(port, seconds))
            with clients("stay", port, seconds + 2 * _SETTLE_S):
                crowded.append(window(port, seconds))
        [log] = [it for it in runs.iterdir() if it.is_dir()]
        before, after = (list(p99s_us(log, it)) for it in (quiet, crowded))
        print(f"500 cycles a second, {options.idle} clients that do not read")
        print(f"  p99 of a cycle, us: {said(before, ',.0f')} without them")
        print(f"                      {said(after, ',.0f')} with them")


if __name__ == "__main__":
    main()
