"""What links between partitions cost, and what Zenoh alone takes for the same bytes in the same run.

python bench/bench_links.py [--seconds 20]

- shipper: share of a core that following a log and sending it takes, where each cycle has the packets of
  100 cameras of 720p at 15 Hz;
- latency: from the commit of a cycle to its place in the receiver's queue;
- catch-up: how fast a receiver that was away takes what the log has;
- lock-step: there and back;
- cycles: memory of sender and receiver, at each tenth of many.

Sender and receiver are processes of their own, over TCP on loopback.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from flowrun.msgs import BytesMsg
from flowrun.runtime.links.receiver import Receiver
from flowrun.runtime.links.runs import Runs
from flowrun.runtime.links.sent import LogTail, SentLogs
from flowrun.runtime.links.shipper import Shipper
from flowrun.runtime.links.wire import Peer, Stream
from flowrun.runtime.links.zenoh import config_of, open_zenoh
from flowrun.runtime.log.channels import LoggedOutput
from flowrun.runtime.log.slab.format import PARTITION, RUN_NUMBER, STARTED_NS
from flowrun.runtime.log.writer import LogWriter

GRAPH, SENDER, RECEIVER = "bench", Peer("dock", "0", 0, 0), Peer("gpu", "0", 1, 0)
CAMERAS, FPS, PACKET = 100, 15, 4400
"""A packet of 720p at 15 Hz and 0.5 Mbit/s, as the main graph's cameras have."""


def own_mib():
    """MiB of memory of this process, without what it has mapped of files: the log."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024


def streams_of(count):
    return [Stream(f"/cam{n}/image", f"cam{n}_image", deliver="every") for n in range(count)]


class Sender:
    """A log of `count` streams, and its shipper on a thread as `Links` has it."""

    def __init__(self, folder, address, *, count, slab_mib=512, ships=True):
        self.path = Path(folder) / "bench-1"
        metadata = {
            "run_id": "bench-1",
            "graph": GRAPH,
            PARTITION: str(SENDER),
            STARTED_NS: "1000",
            RUN_NUMBER: "1",
        }
        outputs = [
            LoggedOutput(it.topic.split("/")[1], "image", it.topic, BytesMsg)
            for it in streams_of(count)
        ]
        self.writer = LogWriter(
            self.path, outputs=outputs, steps=1, metadata=metadata,
            slab_size_mib=slab_mib, section_size_mib=64, sync_s=None,
        )  # fmt: skip
        self.messages = [BytesMsg() for _ in range(count)]
        self.bound = self.writer.bind(self.messages)
        self.cycle = 0
        self.transport = open_zenoh(config_of([address], []))
        self.woken, self.stopped, self.cpu_s = threading.Event(), threading.Event(), 0.0
        runs = Runs(Path(folder), graph=GRAPH, partition=str(SENDER))
        self.shipper = Shipper(
            LogTail(self.path, self.writer.follow()), SentLogs(runs, 1000, SENDER), self.transport,
            graph=GRAPH, own=SENDER, run=1000, receivers={RECEIVER: streams_of(count)},
            wake=self.woken.set,
        )  # fmt: skip
        self.thread = threading.Thread(target=self.work, daemon=True)
        if ships:
            self.thread.start()

    def work(self):
        while not self.stopped.is_set():
            self.woken.wait(0.05)
            self.woken.clear()
            self.shipper.pump(0)
            self.cpu_s = time.thread_time()

    def commit(self, data):
        for message in self.messages:
            message.value = data
            message.publish(tov_ns=time.time_ns())
        self.writer.commit(
            self.cycle, time.time_ns(), self.bound, start_ns=0, ends_ns=[1], events=[]
        )
        self.cycle += 1
        self.woken.set()


def receive(address, count, pipe, echo):
    """A receiver that takes what comes, and sends the latencies and its memory when it is asked."""
    transport = open_zenoh(config_of([], [address]))
    came = threading.Event()
    receiver = Receiver(
        transport, graph=GRAPH, own=RECEIVER, sender=SENDER, streams=streams_of(count), cursor=None,
        wake=came.set,
    )  # fmt: skip
    taken, size, latencies, first_s, last_s = 0, 0, [], None, None
    while True:
        came.wait(0.02)
        came.clear()
        receiver.pump(int(time.monotonic() * 1e9))
        while receiver.peek() is not None:
            item = receiver.take()
            now = time.time_ns()
            first_s = first_s or time.monotonic()
            last_s = time.monotonic()
            taken += 1
            size += len(item.payload)
            latencies.append((now - item.head.time_ns) / 1e6)
            if echo:
                receiver.acknowledge(receiver.cursor)
        if pipe.poll():
            if pipe.recv() == "end":
                transport.close(timeout_s=2)
                return
            pipe.send((taken, size, latencies, first_s, last_s, own_mib()))
            latencies = []


class Floor:
    """Zenoh alone: the same bytes by put and subscribe, one message a cycle."""

    def __init__(self, address):
        self.transport = open_zenoh(config_of([address], []))

    def put(self, payload):
        self.transport.put("floor/cycles", payload, time.time_ns().to_bytes(8, "little"))


def receive_floor(address, pipe):
    transport = open_zenoh(config_of([], [address]))
    latencies = []
    transport.subscribe(
        "floor/cycles",
        lambda it: latencies.append(
            (time.time_ns() - int.from_bytes(it.attachment, "little")) / 1e6
        ),
    )
    pipe.recv()
    pipe.send(latencies)
    transport.close(timeout_s=2)


def address():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"tcp/127.0.0.1:{found.getsockname()[1]}"


def started(target, *arguments):
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=target, args=(*arguments[:1], *arguments[1:], there) if target is receive_floor
        else (*arguments[:2], there, *arguments[2:]), daemon=True,
    )  # fmt: skip
    process.start()
    return here, process


def quantiles(values):
    found = sorted(values)
    return found[len(found) // 2], found[min(len(found) - 1, len(found) * 99 // 100)]


def asked(pipe):
    pipe.send("tell")
    return pipe.recv()


def stream_cameras(seconds):
    data = os.urandom(PACKET)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        at = address()
        sender = Sender(folder, at, count=CAMERAS)
        pipe, process = started(receive, at, CAMERAS, False)
        while asked(pipe)[0] < 3:  # it is connected
            sender.commit(data)
            time.sleep(0.1)
        time.sleep(1.5)
        asked(pipe)
        before, began = sender.cpu_s, time.monotonic()
        for tick in range(seconds * FPS):
            sender.commit(data)
            time.sleep(max(0, began + (tick + 1) / FPS - time.monotonic()))
        time.sleep(0.5)
        took = time.monotonic() - began
        share = 100 * (sender.cpu_s - before) / took
        taken, _, latencies, _, _, _ = asked(pipe)
        p50, p99 = quantiles(latencies)
        print(
            f"shipper, {CAMERAS} x 720p{FPS} as packets: {share:.1f} % of a core (target 3); commit to "
            f"receiver p50 {p50:.2f} ms, p99 {p99:.2f} ms (target 3, 20); {taken} of {sender.cycle} "
            "cycles"
        )
        pipe.send("end")
        process.join(5)
        sender.stopped.set()
        sender.transport.close(timeout_s=2)
        sender.writer.finish({"reason": "bench"})
    payload = data * CAMERAS
    at = address()
    floor = Floor(at)
    pipe, process = started(receive_floor, at)
    time.sleep(3)
    before, began = time.thread_time(), time.monotonic()
    for tick in range(min(seconds, 10) * FPS):
        floor.put(payload)
        time.sleep(max(0, began + (tick + 1) / FPS - time.monotonic()))
    share = 100 * (time.thread_time() - before) / (time.monotonic() - began)
    pipe.send("tell")
    latencies = pipe.recv()
    if latencies:
        p50, p99 = quantiles(latencies)
        print(
            f"  floor, Zenoh alone with the same bytes: {share:.1f} % of a core, p50 {p50:.2f} ms, "
            f"p99 {p99:.2f} ms"
        )
    floor.transport.close(timeout_s=2)


def catch_up(mib):
    data = os.urandom(PACKET)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        at = address()
        sender = Sender(folder, at, count=CAMERAS, slab_mib=max(64, mib + 64), ships=False)
        for _ in range(mib * 2**20 // (PACKET * CAMERAS)):
            sender.commit(data)
        sender.shipper._outs[RECEIVER].is_on = False
        sender.thread.start()
        time.sleep(1)
        pipe, process = started(receive, at, CAMERAS, False)
        while True:
            time.sleep(0.2)
            taken, size, _, first_s, last_s, _ = asked(pipe)
            if taken >= sender.cycle:
                break
        rate = size / 1e6 / (last_s - first_s)
        print(f"catch-up: {rate:.0f} MB/s of {size / 1e6:.0f} MB (target 200)")
        pipe.send("end")
        process.join(5)
        sender.stopped.set()
        sender.transport.close(timeout_s=2)
        sender.writer.finish({"reason": "bench"})


def lock_step(count):
    with tempfile.TemporaryDirectory(dir=".") as folder:
        at = address()
        sender = Sender(folder, at, count=1)
        pipe, process = started(receive, at, 1, True)
        while asked(pipe)[0] < 3:
            sender.commit(b"x" * 100)
            time.sleep(0.1)
        said, took = sender.shipper.acknowledged[RECEIVER], []
        for _ in range(count):
            sender.commit(b"x" * 100)
            began, wanted = time.perf_counter(), sender.cycle
            while said.cycle < wanted and time.perf_counter() - began < 5:
                time.sleep(0)
            took.append(1e6 * (time.perf_counter() - began))
        p50, p99 = quantiles(took)
        print(
            f"lock-step, commit to acknowledgement: p50 {p50:.0f} us, p99 {p99:.0f} us, mean "
            f"{statistics.mean(took):.0f} us (target 150)"
        )
        pipe.send("end")
        process.join(5)
        sender.stopped.set()
        sender.transport.close(timeout_s=2)
        sender.writer.finish({"reason": "bench"})


def many_cycles(count):
    with tempfile.TemporaryDirectory(dir=".") as folder:
        at = address()
        sender = Sender(folder, at, count=1)
        pipe, process = started(receive, at, 1, False)
        here, there = [], []
        for _ in range(10):
            for n in range(count // 10):
                sender.commit(b"x" * 100)
                if n % 200 == 199:
                    time.sleep(0.01)
            while asked(pipe)[0] < sender.cycle:
                time.sleep(0.2)
            here.append(own_mib())
            there.append(asked(pipe)[5])
        for who, mib in (("sender", here), ("receiver", there)):
            print(
                f"{count} cycles: {who}'s memory {mib[0]:.0f} MiB after a tenth, {mib[-1]:.0f} MiB at "
                f"the end (target: the same); each tenth: {' '.join(f'{it:.0f}' for it in mib)}"
            )
        pipe.send("end")
        process.join(5)
        sender.stopped.set()
        sender.transport.close(timeout_s=2)
        sender.writer.finish({"reason": "bench"})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--mib", type=int, default=400, help="to catch up with")
    parser.add_argument("--cycles", type=int, default=1_000_000)
    parser.add_argument("--trips", type=int, default=2000)
    args = parser.parse_args()
    print("load", os.getloadavg(), "cores", os.cpu_count())
    stream_cameras(args.seconds)
    catch_up(args.mib)
    lock_step(args.trips)
    many_cycles(args.cycles)
    print("load", os.getloadavg())


if __name__ == "__main__":
    main()
