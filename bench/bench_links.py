"""What links between partitions cost, and what Zenoh alone takes for the same bytes in the same run.

python bench/bench_links.py [--seconds 20]

- shipper: share of a core that following a log and sending it takes, where each cycle has the packets of
  100 cameras of 720p at 15 Hz: of its thread, and with Zenoh's, but without those of the log;
- latency: from when a cycle is committed to its place in the receiver's queue;
- catch-up: how fast a receiver that was away takes what the log has;
- lock-step: two runs of a graph, both with a log: from when a cycle of the sender is committed to when
  the next may begin, as it is in the receiver's log;
- cycles: memory of both after many.

Sender and receiver are processes of their own, over TCP on loopback. Zenoh alone has the same
configuration, and puts the same bytes as often.
"""

from __future__ import annotations

import argparse
import contextlib
import io
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
from flowrun.runtime.clock import LiveClock
from flowrun.runtime.graph.plan import load_plan
from flowrun.runtime.links.own import REST_S
from flowrun.runtime.links.receiver import Receiver
from flowrun.runtime.links.runs import Runs
from flowrun.runtime.links.sent import LogTail, SentLogs
from flowrun.runtime.links.shipper import Shipper
from flowrun.runtime.links.wire import Peer, Stream
from flowrun.runtime.links.zenoh import config_of, open_zenoh
from flowrun.runtime.log.channels import LoggedOutput
from flowrun.runtime.log.slab.format import PARTITION, RUN_NUMBER, STARTED_NS
from flowrun.runtime.log.writer import LogWriter
from flowrun.runtime.run.live import Run
from flowrun.runtime.wakeup import Wakeup

GRAPH, SENDER, RECEIVER = "bench", Peer("dock", "0", 0, 0), Peer("gpu", "0", 1, 0)
CAMERAS, FPS, PACKET = 100, 15, 4400
"""A packet of 720p at 15 Hz and 0.5 Mbit/s, as the main graph's cameras have."""
STALLED_S = 60


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
        self.committed_ns = []
        self.transport = open_zenoh(config_of([address], []))
        self.woken, self.stopped, self.cpu_s = Wakeup(), threading.Event(), 0.0
        self.failure = None
        runs = Runs(Path(folder), graph=GRAPH, partition=str(SENDER))
        self.shipper = Shipper(
            LogTail(self.path, self.writer.follow()), SentLogs(runs, 1000, SENDER), self.transport,
            graph=GRAPH, own=SENDER, run=1000, receivers={RECEIVER: streams_of(count)},
            wake=self.woken.set,
        )  # fmt: skip
        self.thread = threading.Thread(target=self.work, daemon=True)
        if ships:
            self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.transport.close(timeout_s=2)
        self.writer.finish({"reason": "bench"})

    def work(self):
        try:
            while not self.stopped.is_set():
                self.woken.wait(REST_S)
                self.shipper.pump(0)
                self.cpu_s = time.thread_time()
        except Exception as error:  # noqa: BLE001  # raised by `wait_for`
            self.failure = error

    def commit(self, data):
        for message in self.messages:
            message.value = data
            message.publish(tov_ns=time.time_ns())
        self.writer.commit(
            self.cycle, time.time_ns(), self.bound, start_ns=0, ends_ns=[1], events=[]
        )
        self.committed_ns.append(time.time_ns())
        self.cycle += 1
        self.woken.set()


def receive(address, count, pipe):
    """A receiver that takes what comes; asked, it sends when each cycle came, and its memory."""
    transport = open_zenoh(config_of([], [address]))
    came = Wakeup()
    receiver = Receiver(
        transport, graph=GRAPH, own=RECEIVER, sender=SENDER, streams=streams_of(count), cursor=None,
        wake=came.set,
    )  # fmt: skip
    taken, size, came_ns, first_s, last_s = 0, 0, {}, None, None
    while True:
        came.wait(0.02)
        receiver.pump(int(time.monotonic() * 1e9))
        while receiver.peek() is not None:
            item = receiver.take()
            now = time.time_ns()
            first_s = first_s or time.monotonic()
            last_s = time.monotonic()
            taken += 1
            size += len(item.payload)
            came_ns[item.head.cycle] = now
        if pipe.poll():
            if pipe.recv() == "end":
                transport.close(timeout_s=2)
                return
            pipe.send((taken, size, came_ns, first_s, last_s, own_mib()))
            came_ns = {}


class Floor:
    """Zenoh alone: the same bytes by put and subscribe, one message a cycle."""

    def __init__(self, address):
        self.transport = open_zenoh(config_of([address], []))

    def put(self, payload):
        self.transport.put("floor/cycles", payload, time.time_ns().to_bytes(8, "little"))


def receive_floor(address, pipe):
    transport, latencies, came = open_zenoh(config_of([], [address])), [], threading.Event()

    def take(sample):
        sent_ns = int.from_bytes(sample.attachment, "little")
        latencies.append((time.time_ns() - sent_ns) / 1e6)
        came.set()

    transport.subscribe("floor/cycles", take)
    came.wait()
    pipe.send("up")
    pipe.recv()
    pipe.send(latencies)
    transport.close(timeout_s=2)


def address():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"tcp/127.0.0.1:{found.getsockname()[1]}"


class Child:
    """A process that runs `target`, with a pipe as its last argument, and is killed at the end of the
    context. Asking one that has ended too soon raises `ChildProcessError`."""

    def __init__(self, target, *arguments):
        self.name = target.__name__
        self._here, there = multiprocessing.Pipe()
        self.process = multiprocessing.get_context("spawn").Process(
            target=target, args=(*arguments, there), daemon=True
        )
        self.process.start()
        there.close()  # so that its end is seen

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self._here.send("end")
        self.process.join(5)
        self.process.kill()
        self.process.join()

    def asked(self, question="tell"):
        self.send(question)
        return self.recv()

    def send(self, question):
        try:
            self._here.send(question)
        except OSError:
            self._fail()

    def recv(self):
        try:
            return self._here.recv()
        except (EOFError, OSError):
            self._fail()

    def has_said_something(self, timeout_s):
        return self._here.poll(timeout_s)

    def _fail(self):
        self.process.join(5)
        raise ChildProcessError(
            f"{self.name} has ended, with status {self.process.exitcode}"
        ) from None


def wait_for(receiver, sender, cycles, *, every_s):
    """What `receiver` says once it has `cycles` of the sender's. Raises where no more come."""
    most, seen_s = -1, time.monotonic()
    while True:
        found = receiver.asked()
        if found[0] >= cycles:
            return found
        if found[0] > most:
            most, seen_s = found[0], time.monotonic()
        if sender.failure is not None:
            raise sender.failure
        if time.monotonic() - seen_s > STALLED_S:
            raise TimeoutError(
                f"{found[0]} of {cycles} cycles have come, and none for {STALLED_S} s"
            )
        time.sleep(every_s)


def links_s():
    """Seconds of CPU of this process without those of the thread that calls it, which commits, and of
    the log's threads, which prepare pages and write them to the disk."""
    logs = [
        it.native_id for it in threading.enumerate() if it.name in ("flowrun-pages", "flowrun-log")
    ]
    return time.process_time() - time.thread_time() - sum(map(thread_s, logs))


def thread_s(native_id):
    return int(Path(f"/proc/self/task/{native_id}/schedstat").read_text().split()[0]) / 1e9


def quantiles(values):
    found = sorted(values)
    return found[len(found) // 2], found[min(len(found) - 1, len(found) * 99 // 100)]


def stream_cameras(seconds):
    data = os.urandom(PACKET)
    at = address()
    with (
        tempfile.TemporaryDirectory(dir=".") as folder,
        Sender(folder, at, count=CAMERAS) as sender,
        Child(receive, at, CAMERAS) as receiver,
    ):
        until_s = time.monotonic() + STALLED_S
        while receiver.asked()[0] < 3:  # it is connected
            if sender.failure is not None or time.monotonic() > until_s:
                raise sender.failure or TimeoutError("the receiver gets nothing")
            sender.commit(data)
            time.sleep(0.1)
        time.sleep(1.5)
        receiver.asked()
        before, began = (sender.cpu_s, links_s()), time.monotonic()
        for tick in range(seconds * FPS):
            sender.commit(data)
            time.sleep(max(0, began + (tick + 1) / FPS - time.monotonic()))
        time.sleep(0.5)
        took = time.monotonic() - began
        thread, process_share = (
            100 * (now - then) / took
            for now, then in zip((sender.cpu_s, links_s()), before, strict=True)
        )
        taken, _, came_ns, _, _, _ = receiver.asked()
        p50, p99 = quantiles(
            [(at_ns - sender.committed_ns[cycle]) / 1e6 for cycle, at_ns in came_ns.items()]
        )
        print(
            f"shipper, {CAMERAS} x 720p{FPS} as packets: {thread:.1f} % of a core (target 3), with "
            f"Zenoh's threads {process_share:.1f} %; commit to receiver p50 {p50:.2f} ms, p99 "
            f"{p99:.2f} ms (target 3, 20); {taken} of {sender.cycle} cycles"
        )
    camera_floor(data * CAMERAS, seconds)


def camera_floor(payload, seconds):
    """The same bytes as often with Zenoh alone."""
    at = address()
    floor = Floor(at)
    with Child(receive_floor, at) as receiver:
        while not receiver.has_said_something(0.1):  # until it is connected
            floor.put(payload)
        receiver.recv()
        before, began = (time.thread_time(), time.process_time()), time.monotonic()
        sent = min(seconds, 10) * FPS
        for tick in range(sent):
            floor.put(payload)
            time.sleep(max(0, began + (tick + 1) / FPS - time.monotonic()))
        took = time.monotonic() - began
        share = 100 * (time.thread_time() - before[0]) / took
        process_share = 100 * (time.process_time() - before[1]) / took
        time.sleep(0.5)
        latencies = receiver.asked()[-sent:]
    if latencies:
        p50, p99 = quantiles(latencies)
        print(
            f"  floor, Zenoh alone with the same bytes: {share:.1f} % of a core, with its threads "
            f"{process_share:.1f} %, p50 {p50:.2f} ms, p99 {p99:.2f} ms; {len(latencies)} of {sent}"
        )
    floor.transport.close(timeout_s=2)


def catch_up(mib):
    data = os.urandom(PACKET)
    at = address()
    with (
        tempfile.TemporaryDirectory(dir=".") as folder,
        Sender(folder, at, count=CAMERAS, slab_mib=max(64, mib + 64), ships=False) as sender,
    ):
        for _ in range(mib * 2**20 // (PACKET * CAMERAS)):
            sender.commit(data)
        sender.thread.start()
        time.sleep(1)
        with Child(receive, at, CAMERAS) as receiver:
            _, size, _, first_s, last_s, _ = wait_for(receiver, sender, sender.cycle, every_s=0.2)
        rate = size / 1e6 / (last_s - first_s)
        print(f"catch-up: {rate:.0f} MB/s of {size / 1e6:.0f} MB (target 200)")


def write_pair(folder, address, count):
    path = Path(folder) / "pair.yaml"
    path.write_text(
        f"partitions: {{dock: {{listen: [{address}]}}, gpu: {{connect: [{address}]}}}}\n"
        "tasks:\n"
        "  - {id: n, type: support.paced_tasks.Paced, partition: dock,"
        f" config: {{limit: {count}, every_ms: 0}}}}\n"
        "  - {id: x, type: support.helpers.Scale, partition: gpu}\n"
        "cnx: [{src: n, dst: x, msg: IntMsg, link: {deliver: lockstep}}]\n"
    )
    return path


def part_of(path, partition):
    """A run of one of the two, with a log."""
    plan = load_plan(path, env={}, partition=partition)
    directory = path.parent / partition / "pair-1"
    return Run(plan, clock=LiveClock(), directory=directory, console=io.StringIO())


def run_part(path, partition, _pipe):
    part_of(path, partition).run()


def lock_step(count):
    took, committed = [], []
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path = write_pair(folder, address(), count)
        run = part_of(path, "dock")
        links, wait = run.links, run.links.wait_in_step

        def note_commit(_cycle):
            committed[:] = [time.perf_counter()]

        def wait_and_note(is_over):
            wait(is_over)
            if committed:
                took.append(1e6 * (time.perf_counter() - committed.pop()))

        links.wait_in_step = wait_and_note
        run.watch(note_commit)
        with Child(run_part, path, "gpu") as receiver:

            def stop_with_it():
                receiver.process.join()
                run.stop("the receiver has ended")  # it would be waited for

            # It alone waits for the process: of two threads that do, one would not see its status.
            watching = threading.Thread(target=stop_with_it, daemon=True)
            watching.start()
            run.run()
            watching.join(STALLED_S)
            if watching.is_alive():
                raise TimeoutError("the sender has ended, and the receiver does not")
            if receiver.process.exitcode != 0:
                raise ChildProcessError(f"the receiver ended with {receiver.process.exitcode}")
    took = took[100:]  # the first wait for the receiver to begin
    p50, p99 = quantiles(took)
    print(
        f"lock-step of two runs, commit to release: p50 {p50:.0f} us, p99 {p99:.0f} us, mean "
        f"{statistics.mean(took):.0f} us (target 150)"
    )
    step_floor(count)


def echo(address, pipe):
    transport = open_zenoh(config_of([], [address]))
    transport.subscribe("floor/there", lambda it: transport.put("floor/back", it.payload[:20], b""))
    pipe.send("up")
    pipe.recv()
    transport.close(timeout_s=2)


def step_floor(count):
    """There and back with Zenoh alone: the other side answers in the callback, and has no log."""
    at = address()
    transport, back, took = open_zenoh(config_of([at], [])), threading.Event(), []
    transport.subscribe("floor/back", lambda _: back.set())
    with Child(echo, at) as other:
        other.recv()
        until_s = time.monotonic() + STALLED_S
        while not back.wait(0.1):  # it is connected
            if time.monotonic() > until_s:
                raise TimeoutError("nothing comes back")
            transport.put("floor/there", b"x", b"y")
        time.sleep(1)  # what was sent meanwhile has come back
        back.clear()
        for _ in range(count):
            began = time.perf_counter()
            transport.put("floor/there", b"x" * 150, b"y" * 40)
            if back.wait(1):
                took.append(1e6 * (time.perf_counter() - began))
            back.clear()
    p50, p99 = quantiles(took)
    print(f"  floor, Zenoh alone, there and back: p50 {p50:.0f} us, p99 {p99:.0f} us")
    transport.close(timeout_s=2)


def many_cycles(count):
    at = address()
    with (
        tempfile.TemporaryDirectory(dir=".") as folder,
        Sender(folder, at, count=1) as sender,
        Child(receive, at, 1) as receiver,
    ):
        here, there = [], []
        for _ in range(10):
            for n in range(count // 10):
                sender.commit(b"x" * 100)
                if n % 200 == 199:
                    time.sleep(0.01)
            there.append(wait_for(receiver, sender, sender.cycle, every_s=0.2)[5])
            sender.committed_ns.clear()  # 40 bytes a cycle, of the benchmark alone
            here.append(own_mib())
        for who, mib in (("sender", here), ("receiver", there)):
            print(
                f"{count} cycles: {who}'s memory {mib[0]:.0f} MiB after a tenth, {mib[-1]:.0f} MiB at "
                f"the end (target: the same); each tenth: {' '.join(f'{it:.0f}' for it in mib)}"
            )


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
