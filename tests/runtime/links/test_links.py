"""Runs of two partitions, over Zenoh on loopback."""

import socket
import sys
import threading
from functools import partial

import pytest

from flowrun.runtime.clock import LiveClock
from flowrun.runtime.errors import UsageError
from flowrun.runtime.events import Switched
from flowrun.runtime.fleet.record import fleet_runs
from flowrun.runtime.fleet.replay import FleetReplay
from flowrun.runtime.graph.plan import load_plan
from flowrun.runtime.links.check import received
from flowrun.runtime.links.links import LinkError
from flowrun.runtime.links.shipper import Shipper
from flowrun.runtime.links.spread import chosen
from flowrun.runtime.links.streams import streams_of
from flowrun.runtime.links.zenoh import ZenohTransport
from flowrun.runtime.log.reader import Log
from flowrun.runtime.pictures.stored import StoredPicture
from flowrun.runtime.replay.graph import recorded_graph
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.run.live import Run
from support.films import draw
from support.logged_runs import Lines
from support.paced_tasks import Paced

pytest.importorskip("zenoh")

PATIENT_S = 120
"""Seconds that something may take which takes one: the machine may be busy."""


def address():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"tcp/127.0.0.1:{found.getsockname()[1]}"


class Fleet:
    """The runs of a graph's partitions, each on a thread of its own."""

    def __init__(self, folder, tasks, cnx, *, network="", gpu="", logging=""):
        self.folder, self.path = folder, folder / "fleet.yaml"
        at = address()
        self.text = (
            f"partitions: {{dock: {{listen: [{at}]}}, gpu: {{connect: [{at}] {gpu}}}}}\n"
            f"network: {{{network}}}\n"
            f"tasks: [{tasks}]\n"
            f"cnx: [{cnx}]\n"
            f"logging: {{slab_size_mib: 8, section_size_mib: 1{logging}}}\n"
        )
        self.path.write_text(self.text)
        self.results, self.runs, self.threads, self.count = {}, {}, {}, 0
        self.lines = Lines()

    def begin(self, partition, told=None):
        self.count += 1
        plan = load_plan(self.path, env={}, partition=partition)
        directory = self.folder / partition.replace("/", "-") / f"fleet-{self.count}"
        run = Run(plan, clock=LiveClock(), directory=directory, console=self.lines, told=told)
        thread = threading.Thread(target=lambda: self.results.update({partition: run.run()}))
        self.runs[partition], self.threads[partition] = run, thread
        thread.start()
        return run

    def end(self, *partitions):
        for partition in partitions:
            self.threads[partition].join(PATIENT_S)
            assert not self.threads[partition].is_alive()
        return [self.results[it] for it in partitions]

    def stop(self, partition):
        self.runs[partition].stop("the test")
        self.end(partition)

    def log(self, partition):
        return Log(self.runs[partition].directory)


@pytest.fixture
def enough(monkeypatch):
    """Ends the sources without a limit."""
    event = threading.Event()
    monkeypatch.setattr(Paced, "enough", event)
    return event


NUMBERS = (
    "{{id: n, type: support.paced_tasks.Paced, partition: dock, config: {{{config}}}}},"
    "{{id: x, type: support.helpers.Scale, partition: gpu}}"
)


def numbers(config=""):
    return NUMBERS.format(config=config)


def link(options):
    return f"{{src: n, dst: x, msg: IntMsg, link: {{{options}}}}}"


def test_each_message_comes_once_and_both_logs_replay(tmp_path):
    fleet = Fleet(tmp_path, numbers(), link("deliver: every"))
    fleet.begin("gpu")
    fleet.begin("dock")
    assert [it.error for it in fleet.end("dock", "gpu")] == [None, None]
    with fleet.log("dock") as sent, fleet.log("gpu") as got:
        values = [it.fields["value"] for it in got.messages("/from_dock/n_number")]
        assert values == list(range(20))
        streams = streams_of(fleet.runs["gpu"].plan.graph.receives[0])
        for origin in got.messages("/from_dock/origin"):
            assert received(sent, got, origin, streams) is None
        for log in (sent, got):
            assert Replay(log, trust=True).run().identical


def test_a_difference_between_both_logs_is_named(tmp_path):
    fleet = Fleet(tmp_path, numbers(), link("deliver: every"))
    fleet.begin("gpu")
    fleet.begin("dock")
    fleet.end("dock", "gpu")
    streams = streams_of(fleet.runs["gpu"].plan.graph.receives[0])
    with fleet.log("dock") as sent, fleet.log("gpu") as got:
        first, second, *_ = got.messages("/from_dock/origin")
        assert received(got, got, first, streams) == (
            f"cycle {first.cycle}: /from_dock/origin: crc {first.fields['crc']:08x}; what the sender's "
            f"log has of cycles {first.fields['first']} to {first.fields['cycle']} gives 00000000"
        )
        assert received(sent, got, second, streams) is None


def test_a_receiver_that_comes_back_goes_on_where_its_log_ends(tmp_path, enough):
    fleet = Fleet(tmp_path, numbers("limit: null"), link("deliver: every"))
    fleet.begin("dock")
    first = fleet.begin("gpu")
    came = threading.Event()
    first.watch(lambda cycle: came.set() if cycle.time.cycle > 5 else None)
    assert came.wait(PATIENT_S)
    fleet.stop("gpu")
    one = fleet.log("gpu")
    fleet.begin("gpu")
    enough.set()
    fleet.end("dock", "gpu")
    with one, fleet.log("gpu") as other, fleet.log("dock") as dock:
        values = [
            it.fields["value"] for log in (one, other) for it in log.messages("/from_dock/n_number")
        ]
        sent = [it.fields["value"] for it in dock.messages("/n/number")]
    assert values == sent == list(range(len(sent)))


def test_a_receiver_that_keeps_no_earlier_run_goes_on_where_it_was(tmp_path, enough):
    fleet = Fleet(tmp_path, numbers("limit: null"), link(""), logging=", keep: {runs: 1}")
    fleet.begin("dock")
    origins = []

    def note(came, cycle):
        origins.extend(
            (slot_message.first, slot_message.cycle)
            for slot, slot_message in zip(run.plan.slots, cycle.messages, strict=True)
            if slot.port == "origin" and slot_message.present
        )
        if cycle.time.cycle > 5:
            came.set()

    for _ in range(3):
        came = threading.Event()
        run = fleet.begin("gpu")
        run.watch(partial(note, came))
        assert came.wait(PATIENT_S)
        fleet.stop("gpu")
    enough.set()
    fleet.stop("dock")
    assert len(list((tmp_path / "gpu").glob("fleet-*"))) == 1
    assert [first for first, _ in origins[1:]] == [last + 1 for _, last in origins[:-1]]
    with fleet.log("gpu") as log:
        records = [it.fields for it in log.messages("/flowrun/control")]
    assert [it["task"] for it in records if it["kind"] == "reached"][:1] == ["from_dock"]


def test_the_latest_is_delivered_and_what_was_passed_over_is_counted(tmp_path):
    fleet = Fleet(tmp_path, numbers("limit: 50"), link("deliver: latest"))
    sent = threading.Event()
    dock = fleet.begin("dock")
    dock.watch(lambda cycle: sent.set() if cycle.time.cycle >= 49 else None)
    assert sent.wait(PATIENT_S)
    fleet.begin("gpu")
    fleet.end("dock", "gpu")
    with fleet.log("gpu") as got:
        values = [it.fields["value"] for it in got.messages("/from_dock/n_number")]
        origins = [it.fields for it in got.messages("/from_dock/origin")]
    assert values[-1] == 49
    assert len(values) + sum(it["skipped"] for it in origins) == 50
    assert sum(it["skipped"] for it in origins) > 0


def test_in_lock_step_the_sender_waits_for_each_cycle(tmp_path):
    fleet = Fleet(tmp_path, numbers("every_ms: 0"), link("deliver: lockstep"))
    gpu, dock = fleet.begin("gpu"), fleet.begin("dock")
    ahead = []
    dock.watch(lambda cycle: ahead.append(cycle.time.cycle - gpu.links.status()[0].cursor))
    fleet.end("dock", "gpu")
    assert len(ahead) >= 20
    assert max(ahead) <= 1  # the cycle itself, and the last one that brought no number


@pytest.fixture
def puts(monkeypatch):
    """Of each message that is put: what it is, and whether the links' own thread puts it."""
    found, put = [], ZenohTransport.put

    def look(self, key, payload, attachment):
        found.append((key.split("/")[4], threading.current_thread().name == "flowrun-links"))
        put(self, key, payload, attachment)

    monkeypatch.setattr(ZenohTransport, "put", look)
    return found


@pytest.mark.parametrize("options", ["deliver: every", "deliver: latest"])
def test_a_cycle_does_not_touch_the_network(tmp_path, enough, puts, options):
    fleet = Fleet(tmp_path, numbers("limit: null"), link(options))
    gpu, sent = fleet.begin("gpu"), threading.Event()
    kinds = {("cyc", True), ("ack", True)}
    gpu.watch(lambda _: sent.set() if kinds <= set(puts) and len(puts) > 40 else None)
    fleet.begin("dock")
    assert sent.wait(PATIENT_S)
    seen = set(puts)  # what is said at the end, when there are no more cycles, is left out
    enough.set()
    fleet.end("dock", "gpu")
    assert all(is_links_own for _, is_links_own in seen)


def test_in_lock_step_the_cycles_own_threads_send_and_acknowledge(tmp_path, enough, puts):
    fleet = Fleet(tmp_path, numbers("limit: null, every_ms: 0"), link("deliver: lockstep"))
    gpu, sent = fleet.begin("gpu"), threading.Event()
    gpu.watch(lambda cycle: sent.set() if cycle.time.cycle > 20 else None)
    fleet.begin("dock")
    assert sent.wait(PATIENT_S)
    seen = list(puts)
    enough.set()
    fleet.end("dock", "gpu")
    assert seen.count(("cyc", False)) > 10
    assert seen.count(("ack", False)) > 10


@pytest.mark.parametrize(("partition", "kind"), [("dock", "cyc"), ("gpu", "ack")])
def test_a_cycle_that_has_other_things_to_do_leaves_lock_step_to_the_links(
    tmp_path, enough, puts, partition, kind
):
    config = "{limit: null}"
    other = f"{{id: m, type: support.paced_tasks.Paced, partition: {partition}, config: {config}}}"
    fleet = Fleet(
        tmp_path,
        f"{numbers('limit: null')}, {other}, {{id: y, type: support.helpers.Scale, partition: gpu}}",
        f"{link('deliver: lockstep')}, {{src: m, dst: y, msg: IntMsg}}",
    )
    gpu, sent = fleet.begin("gpu"), threading.Event()
    gpu.watch(lambda _: sent.set() if [it for it, _ in puts].count(kind) > 5 else None)
    fleet.begin("dock")
    assert sent.wait(PATIENT_S)
    seen = set(puts)
    enough.set()
    fleet.end("dock", "gpu")
    assert (kind, True) in seen
    assert (kind, False) not in seen


def test_replicas_share_what_is_sent_and_one_that_was_away_gets_its_own(tmp_path, enough):
    fleet = Fleet(
        tmp_path,
        numbers("limit: null"),
        link("deliver: every, spread: instance"),
        gpu=", replicas: 2",
    )
    default = chosen("dock/0", ["0", "1"])
    other = {"0": "1", "1": "0"}[default]
    first, second = fleet.begin(f"gpu/{default}"), fleet.begin(f"gpu/{other}")
    came, went_over = threading.Event(), threading.Event()
    first.watch(lambda cycle: came.set() if cycle.time.cycle > 20 else None)
    second.watch(lambda cycle: went_over.set() if cycle.time.cycle > 20 else None)
    fleet.begin("dock")
    assert came.wait(PATIENT_S)
    fleet.stop(f"gpu/{default}")
    logs = [fleet.log(f"gpu/{default}")]
    assert went_over.wait(PATIENT_S)
    fleet.begin(f"gpu/{default}")
    enough.set()
    fleet.end("dock", f"gpu/{default}", f"gpu/{other}")
    logs += [fleet.log(f"gpu/{default}"), fleet.log(f"gpu/{other}")]
    values = [[it.fields["value"] for it in log.messages("/from_dock/n_number")] for log in logs]
    with fleet.log("dock") as dock:
        sent = [it.fields["value"] for it in dock.messages("/n/number")]
    assert sorted(it for found in values for it in found) == sent
    assert all(sorted(it) == it for it in values)
    assert min(map(len, values)) > 0


def test_a_film_is_in_the_receivers_log_as_packets(tmp_path):
    film = tmp_path / "film.mp4"
    draw(film, frames=40)
    fleet = Fleet(
        tmp_path,
        f"{{id: cam, type: VideoCapture, partition: dock, config: {{source_uri: {film}}}}},"
        "{id: small, type: Resize, partition: gpu, config: {width: 32, height: 24}}",
        "{src: cam, dst: small, msg: ImageRgb8Msg}",
    )
    fleet.begin("gpu")
    fleet.begin("dock")
    fleet.end("dock", "gpu")
    with fleet.log("dock") as sent, fleet.log("gpu") as got:
        one = [it.pixels for it in sent.frames("/cam/image")]
        other = [it.pixels for it in got.frames("/from_dock/cam_image")]
        assert len(one) == len(other) == 40
        assert all((a == b).all() for a, b in zip(one, other, strict=True))
        sizes = [
            sum(len(it.payload) for it in log.messages(topic))
            for log, topic in ((sent, "/cam/image"), (got, "/from_dock/cam_image"))
        ]
        assert abs(sizes[0] - sizes[1]) < 100 * 40
        report = Replay(got, trust=True).run()
        assert (report.identical, report.compared) == (True, 40)


@pytest.mark.parametrize("codec", ["raw", "zstd", "ffv1"])
@pytest.mark.parametrize("deliver", ["every", "latest"])
def test_pictures_that_a_task_makes_arrive_as_they_are(tmp_path, codec, deliver):
    film = tmp_path / "film.mp4"
    draw(film, frames=20)
    fleet = Fleet(
        tmp_path,
        f"{{id: cam, type: VideoCapture, partition: dock, config: {{source_uri: {film}}}}},"
        "{id: small, type: Resize, partition: dock, config: {width: 32, height: 24}, "
        f"logging: {{codec: {codec}}}}},"
        "{id: less, type: Resize, partition: gpu, config: {width: 16, height: 12}}",
        "{src: cam, dst: small, msg: ImageRgb8Msg}, "
        f"{{src: small, dst: less, msg: ImageRgb8Msg, link: {{deliver: {deliver}}}}}",
    )
    fleet.begin("gpu")
    fleet.begin("dock")
    fleet.end("dock", "gpu")
    with fleet.log("dock") as sent, fleet.log("gpu") as got:
        made = [it.pixels.tobytes() for it in sent.frames("/small/resized")]
        came = [it.pixels.tobytes() for it in got.frames("/from_dock/small_resized")]
        assert len(made) == 20
        if deliver == "every":
            assert came == made
        assert [it for it in made if it in came] == came
        assert came[-1] == made[-1]
        report = Replay(got, trust=True).run()
        assert (report.identical, report.compared) == (True, len(came))
    with FleetReplay(fleet_runs(tmp_path), specs=lambda log: recorded_graph(log, {})) as again:
        whole = again.run()
    assert (whole.links, whole.first) == ([], None)
    assert whole.delivered > 0


def film_fleet(folder, film, options):
    return Fleet(
        folder,
        f"{{id: cam, type: VideoCapture, partition: dock, config: {{source_uri: {film}}}}},"
        "{id: small, type: Resize, partition: gpu, config: {width: 32, height: 24}}",
        f"{{src: cam, dst: small, msg: ImageRgb8Msg, link: {{{options}}}}}",
    )


def test_the_latest_picture_of_a_film_is_right_and_the_log_has_all_packets(tmp_path):
    fleet = film_fleet(tmp_path, draw(tmp_path / "film.mp4", frames=60), "deliver: latest")
    dock, sent = fleet.begin("dock"), threading.Event()
    dock.watch(lambda cycle: sent.set() if cycle.time.cycle >= 59 else None)
    assert sent.wait(PATIENT_S)
    fleet.begin("gpu")
    fleet.end("dock", "gpu")
    with fleet.log("dock") as sent, fleet.log("gpu") as got:
        one = {it.cycle: it.pixels for it in sent.frames("/cam/image")}
        other = list(got.frames("/from_dock/cam_image"))
        taken = [it.fields["taken"][0] for it in got.messages("/from_dock/origin")]
        assert [it for it in taken if it >= 0][-1] == 59
        assert len(other) < 60
        for frame, cycle in zip(other, [it for it in taken if it >= 0], strict=True):
            assert (frame.pixels == one[cycle]).all()
        packets = [StoredPicture.parse(it.payload) for it in got.messages("/from_dock/cam_image")]
        assert sum(len(it.packets) + len(it.before) for it in packets) == 60
        assert Replay(got, trust=True).run().identical


def test_key_frames_alone_are_sent_where_the_graph_says_so(tmp_path):
    film = draw(tmp_path / "film.mp4", frames=40)
    fleet = film_fleet(tmp_path, film, "deliver: every, carry: keyframes")
    fleet.begin("gpu")
    fleet.begin("dock")
    fleet.end("dock", "gpu")
    with fleet.log("dock") as sent, fleet.log("gpu") as got:
        one = [it.pixels for it in sent.frames("/cam/image")]
        frames = list(got.frames("/from_dock/cam_image"))
        numbers = [it.fields["frame_id"] for it in got.messages("/from_dock/cam_image")]
        assert 1 < len(frames) < 40
        for frame, number in zip(frames, numbers, strict=True):
            assert (frame.pixels == one[number]).all()
        assert Replay(got, trust=True).run().identical


def test_a_receiver_that_comes_back_within_a_section_shows_each_picture(tmp_path):
    film = draw(tmp_path / "film.mp4", frames=90, g="90")
    config = f"{{source_uri: {film}, realtime: true}}"
    fleet = Fleet(
        tmp_path,
        f"{{id: cam, type: VideoCapture, partition: dock, config: {config}}},"
        "{id: small, type: Resize, partition: gpu, config: {width: 32, height: 24}}",
        "{src: cam, dst: small, msg: ImageRgb8Msg}",
    )
    first = fleet.begin("gpu")
    came = threading.Event()
    first.watch(lambda cycle: came.set() if cycle.time.cycle > 12 else None)
    fleet.begin("dock")
    assert came.wait(PATIENT_S)
    fleet.stop("gpu")
    logs = [fleet.log("gpu")]
    fleet.begin("gpu")
    fleet.end("dock", "gpu")
    logs.append(fleet.log("gpu"))
    with fleet.log("dock") as sent:
        one = [it.pixels for it in sent.frames("/cam/image")]
    other = [it.pixels for log in logs for it in log.frames("/from_dock/cam_image")]
    assert len(one) == len(other) == 90
    assert all((a == b).all() for a, b in zip(one, other, strict=True))
    assert all(Replay(log, trust=True).run().identical for log in logs)


def test_a_sender_of_another_graph_is_refused_with_the_line(tmp_path):
    fleet = Fleet(tmp_path, numbers(), link("deliver: every"))
    fleet.begin("gpu")
    other = fleet.text.replace("IntMsg", "FloatMsg").replace(".Paced", ".PacedFloats")
    fleet.path.write_text(other.replace("support.helpers.Scale", "support.paced_tasks.Floats"))
    dock = fleet.begin("dock")
    [result] = fleet.end("gpu")
    dock.stop("the test")
    fleet.end("dock")
    assert isinstance(result.error, LinkError)
    line = 1 + fleet.text[: fleet.text.index("cnx:")].count("\n")
    assert str(result.error) == (
        f"{fleet.path}:{line}:7: dock/0 sends FloatMsg on /n/number; expected IntMsg: it runs another "
        "graph"
    )


def test_a_run_without_a_log_is_refused(tmp_path):
    fleet = Fleet(tmp_path, numbers(), link("deliver: every"))
    plan = load_plan(fleet.path, env={}, partition="dock")
    with pytest.raises(UsageError) as found:
        Run(plan, clock=LiveClock(), directory=None)
    assert str(found.value) == (
        "a partition needs its log: the log is what it sends, and where it goes on"
    )


def test_without_the_extra_the_run_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zenoh", None)
    fleet = Fleet(tmp_path, numbers(), link("deliver: every"))
    fleet.begin("dock")
    [result] = fleet.end("dock")
    assert str(result.error) == (
        "a graph with partitions needs eclipse-zenoh: pip install 'flowrun-runtime[links]'"
    )


def test_a_lost_sender_ends_the_run_where_the_graph_says_so(tmp_path):
    fleet = Fleet(
        tmp_path, numbers("limit: null"), link("deliver: every"), network="on_peer_lost: stop"
    )
    gpu, dock = fleet.begin("gpu"), fleet.begin("dock")
    came = threading.Event()
    gpu.watch(lambda cycle: came.set() if cycle.time.cycle > 5 else None)
    assert came.wait(PATIENT_S)
    dock.stop("the test")
    results = fleet.end("gpu", "dock")
    assert str(results[0].error) == "dock/0 is lost, and the graph says on_peer_lost: stop"
    assert results[1].error is None


def test_a_receivers_own_sources_are_held_while_a_sender_is_lost(tmp_path):
    own = "{id: own, type: support.paced_tasks.Paced, partition: gpu, config: {limit: null}}"
    fleet = Fleet(
        tmp_path,
        f"{numbers('limit: null')}, {own}",
        link("deliver: every"),
        network="on_peer_lost: hold",
    )
    gpu, dock = fleet.begin("gpu"), fleet.begin("dock")
    came, held, goes_on = (threading.Event() for _ in range(3))

    def look(cycle):
        if gpu.links.status()[0].cursor > 5:  # not its own cycles: a sender must have been there
            came.set()
        for event in cycle.events:
            if type(event) is Switched:
                (held if event.playback == "paused" else goes_on).set()

    gpu.watch(look)
    assert came.wait(PATIENT_S)
    dock.stop("the test")
    fleet.end("dock")
    assert held.wait(PATIENT_S)
    dock = fleet.begin("dock")
    assert goes_on.wait(PATIENT_S)
    gpu.stop("the test")
    dock.stop("the test")
    fleet.end("gpu", "dock")


def test_the_log_of_a_partition_cannot_be_stopped(tmp_path):
    fleet = Fleet(tmp_path, numbers("limit: null"), link("deliver: every"))
    dock = fleet.begin("dock")
    with pytest.raises(UsageError) as found:
        dock.record(False)
    assert str(found.value) == "the log of a partition is what it sends: it cannot be stopped"
    dock.stop("the test")
    fleet.end("dock")


def test_a_failure_of_the_links_ends_the_run_and_says_why(tmp_path, monkeypatch):
    def fail(_self, _now_ns):
        raise RuntimeError("no more")

    monkeypatch.setattr(Shipper, "pump", fail)
    fleet = Fleet(tmp_path, numbers("limit: null"), link("deliver: every"))
    fleet.begin("dock")
    [result] = fleet.end("dock")
    assert str(result.error) == "the links have failed: RuntimeError: no more"


@pytest.mark.long
@pytest.mark.parametrize("spread", ["instance", "one"])
def test_pictures_go_over_to_another_replica_at_a_key_frame(tmp_path, spread):
    film = draw(tmp_path / "film.mp4", frames=300, g="10")
    config = f"{{source_uri: {film}, realtime: true}}"
    fleet = Fleet(
        tmp_path,
        f"{{id: cam, type: VideoCapture, partition: dock, config: {config}}},"
        "{id: small, type: Resize, partition: gpu, config: {width: 32, height: 24}}",
        f"{{src: cam, dst: small, msg: ImageRgb8Msg, link: {{spread: {spread}}}}}",
        gpu=", replicas: 2",
    )
    default = chosen("dock/0" if spread == "instance" else "gpu", ["0", "1"])
    other = {"0": "1", "1": "0"}[default]
    first, second = fleet.begin(f"gpu/{default}"), fleet.begin(f"gpu/{other}")
    came, went_over = threading.Event(), threading.Event()
    first.watch(lambda cycle: came.set() if cycle.time.cycle > 12 else None)
    second.watch(lambda cycle: went_over.set() if cycle.time.cycle > 12 else None)
    fleet.begin("dock")
    assert came.wait(PATIENT_S)
    fleet.stop(f"gpu/{default}")
    assert went_over.wait(PATIENT_S)
    fleet.begin(f"gpu/{default}")
    fleet.end("dock", f"gpu/{default}", f"gpu/{other}")
    taken = {}
    with fleet.log("dock") as dock:
        sent = {it.cycle: it.pixels for it in dock.frames("/cam/image")}
        keys = {
            it.cycle: StoredPicture.parse(it.payload).own.get("key", it.cycle)
            for it in dock.messages("/cam/image")
        }
        records = [it.fields for it in dock.messages("/flowrun/control")]
    for run in fleet_runs(tmp_path):
        if run.part.partition == "gpu":
            with Log(run.path) as log:
                pixels = [it.pixels for it in log.frames("/from_dock/cam_image")]
                cycles = [it.fields["taken"][0] for it in log.messages("/from_dock/origin")]
            assert all((sent[at] == it).all() for at, it in zip(cycles, pixels, strict=True))
            taken.setdefault(run.part.instance, []).extend(cycles)
    assert sorted([*taken["0"], *taken["1"]]) == sorted(sent)
    begins = taken[other][0]
    assert keys[begins] == begins > taken[default][0]
    assigned = [(it["key"], it["value"]) for it in records if it["kind"] == "assigned"]
    assert assigned[0] == ("gpu", other)
    with FleetReplay(fleet_runs(tmp_path), specs=lambda log: recorded_graph(log, {})) as replay:
        report = replay.run()
    assert report.is_identical
    assert (report.delivered, report.unverified) == (len(sent), 0)
