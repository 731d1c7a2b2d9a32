"""Processes of two partitions without graphs: a sender that writes numbers into a log and ships them,
and a receiver that writes what it gets into a log of its own. Both can be killed and come back."""

from flowrun.msgs import IntMsg
from flowrun.runtime.events import Reached
from flowrun.runtime.links.delivery import next_batch
from flowrun.runtime.links.origin import OriginMsg
from flowrun.runtime.links.reached import reached_in, said_of
from flowrun.runtime.links.receiver import Receiver
from flowrun.runtime.links.runs import Runs
from flowrun.runtime.links.sent import LogTail, SentLogs
from flowrun.runtime.links.shipper import Shipper
from flowrun.runtime.links.wire import Keys, Peer, Stream
from flowrun.runtime.log.channels import LoggedOutput
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import PARTITION, RUN_NUMBER, STARTED_NS
from flowrun.runtime.log.writer import LogWriter

GRAPH = "fleet"
SENDER, RECEIVER = Peer("dock", "0", 0, 0), Peer("gpu", "0", 1, 0)
STREAMS = (Stream("/numbers/out", "numbers_out"), Stream("/others/out", "others_out"))
ORIGIN = "/from_dock/origin"


class Process:
    """One run after the other in `directory`, each with a log of the outputs given."""

    def __init__(self, network, directory, peer, outputs):
        self.network, self.directory, self.peer = network, directory, peer
        self.outputs, self.runs, self.writer = outputs, 0, None
        directory.mkdir(exist_ok=True)

    def begin(self, *, clock_ns=0, says=None, **options):
        """clock_ns: by how much its clock is wrong. says: what more the run's metadata says."""
        self.runs += 1
        self.run = 1_000_000_000 * self.runs + clock_ns
        self.path = self.directory / f"{GRAPH}-{self.runs}"
        metadata = {
            "run_id": self.path.name,
            "graph": GRAPH,
            PARTITION: str(self.peer),
            STARTED_NS: str(self.run),
            RUN_NUMBER: str(self.runs),
            **(says or {}),
        }
        sizes = {"slab_size_mib": 1, "section_size_mib": 1, "sync_s": None, **options}
        self.writer = LogWriter(
            self.path, outputs=self.outputs, steps=1, metadata=metadata, **sizes
        )
        self.messages = [output.message_type() for output in self.outputs]
        self.bound = self.writer.bind(self.messages)
        self.cycle = 0
        self.transport = self.network.transport(str(self.peer))

    def commit(self):
        now = self.run + self.cycle
        self.writer.commit(self.cycle, now, self.bound, start_ns=0, ends_ns=[1], events=[])
        self.cycle += 1
        for message in self.messages:
            message.clear()

    def logs(self):
        """Those of all runs, in order."""
        runs = Runs(self.directory, graph=GRAPH, partition=str(self.peer))
        return [run.path for run in runs.look()]

    def kill(self):
        """Nothing is finished; what was committed is in the page cache."""
        for upkeep in self.writer._upkeep:
            upkeep.stop()
        self.writer.let_go()
        self.writer._slabs._close()
        self.transport.close()
        self.writer = None


class SenderProcess(Process):
    def __init__(self, network, directory, *, streams=STREAMS, most_followed=1024):
        kinds = [LoggedOutput(it.topic.split("/")[1], "out", it.topic, IntMsg) for it in streams]
        super().__init__(network, directory, SENDER, kinds)
        self.streams, self.value = streams, 0
        self.most_followed = most_followed
        self.sent, self.notes = [], []

    def begin(self, **options):
        super().begin(**options)
        runs = Runs(self.directory, graph=GRAPH, partition=str(SENDER))
        self.shipper = Shipper(
            LogTail(self.path, self.writer.follow(most=self.most_followed)),
            SentLogs(runs, self.run, SENDER),
            self.transport,
            graph=GRAPH,
            own=SENDER,
            run=self.run,
            receivers={RECEIVER: self.streams},
            note=self.notes.append,
        )

    def make(self, streams):
        """Commit a cycle with a number on each of the streams given, by their numbers; maybe on none."""
        for number in streams:
            self.messages[number].value = self.value
            self.messages[number].publish(tov_ns=self.value)
            self.sent.append((number, self.value))
            self.value += 1
        self.commit()

    def pump(self, now_ns):
        if self.writer is not None:
            self.shipper.pump(now_ns)


class ReceiverProcess(Process):
    def __init__(self, network, directory, *, streams=STREAMS):
        kinds = [LoggedOutput("from_dock", "origin", ORIGIN, OriginMsg)]
        kinds += [
            LoggedOutput("from_dock", it.port, f"/from_dock/{it.port}", IntMsg) for it in streams
        ]
        super().__init__(network, directory, RECEIVER, kinds)
        self.streams = streams
        self.notes = []

    def begin(self, **options):
        reached = reached_in(self.logs()[::-1], ["from_dock"])
        self.reached = cursor = reached.get("from_dock")
        super().begin(says=said_of(reached), **options)
        self.writer.restate = self.restate
        self.receiver = Receiver(
            self.transport,
            graph=GRAPH,
            own=RECEIVER,
            sender=SENDER,
            streams=self.streams,
            cursor=cursor,
            note=self.notes.append,
            run=self.run,
        )
        self.transport.watch_alive(
            Keys.of(GRAPH, SENDER).alive, lambda there: there and self.receiver.reconnected()
        )

    def restate(self):
        return [] if self.reached is None else [Reached("from_dock", *self.reached)]

    def pump(self, now_ns):
        if self.writer is not None:
            self.receiver.pump(now_ns)

    def take(self, now_ns):
        """A cycle with what has come; whether there was any."""
        _, batch = next_batch(self.receiver, self.streams, now_ns)
        if batch is None:
            return False
        origin, *messages = self.messages
        taken = [-1] * len(messages)
        for passed in batch.passed:
            if passed.shown:
                message = messages[passed.message.stream]
                message.restore(
                    IntMsg.decode_fields(passed.message.data), tov_ns=passed.message.tov_ns
                )
                taken[passed.message.stream] = passed.cycle
        origin.restore(
            {
                "partition": "dock", "instance": "0", "run": batch.run, "first": batch.first,
                "cycle": batch.cycle, "time_ns": batch.time_ns, "taken": taken, "crc": batch.crc,
                "skipped": batch.skipped,
                "gap": batch.gap.reason if batch.gap else "",
                "gap_run": batch.gap.run if batch.gap else 0,
                "gap_from": batch.gap.first if batch.gap else 0,
                "gap_to": batch.gap.last if batch.gap else -1,
            },
            tov_ns=batch.time_ns,
        )  # fmt: skip
        self.reached = batch.after
        self.commit()
        self.receiver.acknowledge(batch.after)
        return True

    def got(self):
        """(stream, value) of each message in all logs, in order."""
        found = []
        ports = {f"/from_dock/{it.port}": n for n, it in enumerate(self.streams)}
        for path in self.logs():
            with Log(path) as log:
                found += [(ports[m.topic], m.fields["value"]) for m in log.messages(list(ports))]
        return found

    def origins(self):
        found = []
        for path in self.logs():
            with Log(path) as log:
                found += [m.fields for m in log.messages(ORIGIN)]
        return found


class Pair:
    """A sender, a receiver and the network between them, moved by hand."""

    def __init__(self, network, folder, *, streams=STREAMS, most_followed=1024):
        self.network, self.now_ns = network, 0
        self.sender = SenderProcess(
            network, folder / "dock", streams=streams, most_followed=most_followed
        )
        self.receiver = ReceiverProcess(network, folder / "gpu", streams=streams)

    def step(self, ms=10, *, take=True):
        self.now_ns += ms * 1_000_000
        self.sender.pump(self.now_ns)
        self.network.step(self.now_ns)
        self.receiver.pump(self.now_ns)
        self.network.step(self.now_ns)
        while take and self.receiver.writer is not None and self.receiver.take(self.now_ns):
            pass
