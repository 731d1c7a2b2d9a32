"""Two partitions as real processes, whose link is cut and which are killed, by a seed.

    PYTHONPATH=tests python -m support.torture_links [--kills 1000] [--cuts 200] [--stops 1] [--seed 1]
        [--recover] [--flowrun PATH]

`dock` sends numbers at 100 Hz through a proxy that the torture cuts; `gpu` counts them. At the end each
number that a log of `dock` holds must be in the logs of `gpu` once, in order, and with --recover the
count must go on as if nobody had been killed.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import RUN_NUMBER

TASKS = '''
"""Numbers, and how many have come."""

from flowrun.msgs import IntMsg
from flowrun.runtime.task import Context, Input, Output, Task


class Ticks(Task):
    """The time, at 100 Hz."""

    def start(self, ctx: Context) -> None:
        self.due_ns = 0

    def process(self, ctx: Context, number: Output[IntMsg]) -> None:
        if ctx.now_ns >= self.due_ns:
            self.due_ns = ctx.now_ns + 10_000_000
            number.value = ctx.now_ns
            number.publish()
        ctx.wake_at(self.due_ns)


class Count(Task):
    """How many have come."""

    def start(self, ctx: Context) -> None:
        self.count = 0

    def process(self, ctx: Context, number: Input[IntMsg], total: Output[IntMsg]) -> None:
        self.count += 1
        total.value = self.count
        total.publish(tov_ns=number.tov_ns)

    def freeze(self) -> int:
        return self.count

    def thaw(self, state: int) -> None:
        self.count = state
'''
GRAPH = """
partitions:
  dock: {{listen: [tcp/127.0.0.1:{there}]}}
  gpu: {{connect: [tcp/127.0.0.1:{here}]{more}}}
tasks:
  - {{id: ticks, type: ticking.Ticks, partition: dock}}
  - {{id: count, type: ticking.Count, partition: gpu}}
cnx: [{{src: ticks, dst: count, msg: IntMsg}}]
"""
_GROWN_S = 120.0


class Proxy:
    """Carries connections of `port` to `target`; `cut` ends those that there are."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections, as a link that fails."""
        for end in list(self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            here, _ = self._listening.accept()
            threading.Thread(target=self._carry, args=(here,), daemon=True).start()

    def _carry(self, here: socket.socket) -> None:
        to = "127.0.0.1", self._target
        with contextlib.suppress(OSError), here, socket.create_connection(to) as there:
            self._open |= {here, there}
            try:
                _pass_on(here, there)
            finally:
                self._open -= {here, there}


def _pass_on(here: socket.socket, there: socket.socket) -> None:
    with selectors.DefaultSelector() as ready:
        ready.register(here, selectors.EVENT_READ, there)
        ready.register(there, selectors.EVENT_READ, here)
        while True:
            for key, _ in ready.select():
                data = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                if not data:
                    return
                key.data.sendall(data)


class Torture:
    """The two processes in `folder`."""

    def __init__(self, folder: Path, flowrun: str, seed: int, *, recover: bool) -> None:
        self.folder, self.flowrun = folder, flowrun
        self.chance = random.Random(seed)
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            there = found.getsockname()[1]
        self.proxy = Proxy(there)
        (folder / "ticking.py").write_text(TASKS)
        more = ", recover: replay" if recover else ""
        text = GRAPH.format(there=there, here=self.proxy.port, more=more)
        (folder / "g.yaml").write_text(text)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for part in ("dock", "gpu"):
            self.start(part)

    def start(self, part: str) -> None:
        command = [self.flowrun, "g.yaml", "--partition", part, "--log-dir", f"runs-{part}"]
        with (self.folder / f"{part}.txt").open("a") as out:
            self.processes[part] = subprocess.Popen(
                command, cwd=self.folder, stdout=out, stderr=subprocess.STDOUT
            )

    def runs(self, part: str) -> list[Path]:
        """Those that hold a slab, in order."""
        found = {}
        for path in (self.folder / f"runs-{part}").glob("g-*"):
            if list(path.glob("log_*.mcap")):
                with Log(path) as log:
                    found[path] = int(log.metadata[RUN_NUMBER])
        return sorted(found, key=lambda path: found[path])

    def wait_grown(self, part: str) -> None:
        """Until the process at work has run some cycles."""
        until = time.monotonic() + _GROWN_S
        while time.monotonic() < until:
            for path in self.runs(part)[-1:]:
                with Log(path) as log:
                    if log.is_written and len(log) > 10:
                        return
            time.sleep(0.1)
        raise SystemExit(f"{part} does not come up: {(self.folder / f'{part}.txt').read_text()}")

    def kill(self) -> None:
        part = self.chance.choice(["dock", "gpu"])
        self.processes[part].kill()
        self.processes[part].wait()
        self.start(part)
        self.wait_grown(part)
        time.sleep(self.chance.uniform(0, 1))

    def cut(self) -> None:
        self.proxy.cut()
        time.sleep(self.chance.uniform(0, 0.5))

    def stop(self, for_s: float) -> None:
        self.processes["gpu"].send_signal(signal.SIGSTOP)
        time.sleep(for_s)
        self.processes["gpu"].send_signal(signal.SIGCONT)

    def end(self, wait_s: float = 60.0) -> None:
        """End the sender, when the receiver has all of it, and then the receiver."""
        until = time.monotonic() + wait_s
        newest = self.sent()[-1]
        while self.got()[-1:] < [newest]:
            if time.monotonic() > until:
                raise SystemExit(f"gpu has not got what dock sent {wait_s:.0f} s ago")
            time.sleep(0.5)
        for part in ("dock", "gpu"):
            self.processes[part].send_signal(signal.SIGINT)
            self.processes[part].wait(30)
            time.sleep(2)

    def values(self, part: str, topic: str) -> list[int]:
        found = []
        for path in self.runs(part):
            with Log(path) as log:
                found += [it.fields["value"] for it in log.messages(topic)]
        return found

    def sent(self) -> list[int]:
        return self.values("dock", "/ticks/number")

    def got(self) -> list[int]:
        return self.values("gpu", "/from_dock/ticks_number")


def main() -> int:
    parser = argparse.ArgumentParser(description="torture of links")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--stops", type=int, default=1, help="of 8 s")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--recover", action="store_true")
    parser.add_argument("--flowrun", default=str(Path(sys.executable).with_name("flowrun")))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        torture = Torture(Path(folder), args.flowrun, args.seed, recover=args.recover)
        try:
            torture.wait_grown("dock")
            torture.wait_grown("gpu")
            acts = [torture.kill] * args.kills + [torture.cut] * args.cuts
            acts += [lambda: torture.stop(8)] * args.stops
            torture.chance.shuffle(acts)
            for act in acts:
                act()
            torture.wait_grown("gpu")
            torture.end()
            sent, got = torture.sent(), torture.got()
            totals = torture.values("gpu", "/count/total")
        finally:
            for process in torture.processes.values():
                process.kill()
                process.wait()
    # What was sent after the last look may have stayed in the sender's log.
    lost = len(set(sent[: len(got)]) - set(got))
    twice = len(got) - len(set(got))
    in_order = sent[: len(got)] == got
    goes_on = totals == list(range(1, len(totals) + 1))
    print(
        f"seed {args.seed}: {args.kills} kills, {args.cuts} cuts, {args.stops} stops of 8 s: "
        f"{len(sent)} sent, {len(got)} got, {lost} lost, {twice} twice, "
        f"{'in order' if in_order else 'NOT IN ORDER'}"
        + ((", the count goes on" if goes_on else ", THE COUNT IS BROKEN") if args.recover else "")
    )
    is_well = not lost and not twice and in_order and (goes_on or not args.recover)
    return 0 if is_well and len(got) > 100 else 1


if __name__ == "__main__":
    sys.exit(main())
