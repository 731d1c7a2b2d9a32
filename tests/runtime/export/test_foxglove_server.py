"""A run in Foxglove's app: what an app gets that connects, plays, pauses and seeks."""

import importlib.util
import json
import struct
import threading

import pytest
from websockets.sync.client import connect

from flowrun.runtime.cli import main
from flowrun.runtime.clock import LiveClock
from flowrun.runtime.errors import LogError, UsageError
from flowrun.runtime.export.foxglove_server import FoxgloveServer
from flowrun.runtime.graph.plan import load_plan
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.writer import LogWriter
from flowrun.runtime.run.live import Run
from support.helpers import plan_of, record, until

MS = 1_000_000
TOPIC = "/n/number"
PLAYING, PAUSED, ENDED = 0, 1, 3


class App:
    """Foxglove's app, as far as its protocol goes."""

    def __init__(self, socket):
        self._socket = socket
        self.info = json.loads(self._socket.recv(timeout=240))
        advertised = json.loads(self._socket.recv(timeout=240))
        self.topics = {it["id"]: it["topic"] for it in advertised["channels"]}

    def subscribe(self, topic):
        [channel] = [id_ for id_, name in self.topics.items() if name == topic]
        wanted = [{"id": 7, "channelId": channel}]
        self._socket.send(json.dumps({"op": "subscribe", "subscriptions": wanted}))

    def ask(self, *, play, speed=1.0, seek_ns=None):
        has_seek, at_ns = seek_ns is not None, seek_ns or 0
        head = struct.pack("<BBfBQ", 3, not play, speed, has_seek, at_ns)
        self._socket.send(head + struct.pack("<I", 2) + b"r1")

    def next(self):
        """("message", time, fields), or ("state", status, time, speed, whether it is after a seek)."""
        while True:
            data = self._socket.recv(timeout=240)
            if isinstance(data, str):
                continue
            if data[0] == 1:
                subscription, time_ns = struct.unpack_from("<IQ", data, 1)
                assert subscription == 7
                return "message", time_ns, json.loads(data[13:])
            if data[0] == 5:
                status, at_ns, speed, did_seek = struct.unpack_from("<BQfB", data, 1)
                return "state", status, at_ns, speed, bool(did_seek)

    def until(self, kind):
        """What comes before something of `kind`, and that."""
        came = [self.next()]
        while came[-1][0] != kind:
            came.append(self.next())
        return came


@pytest.fixture
def recorded(tmp_path):
    """The log of 40 numbers, 10 ms apart."""
    plan = plan_of(tmp_path, "n=Numbers(limit: 40); x=Scale", "n > x")
    record(plan, tmp_path / "run", step_ns=10 * MS)
    with Log(tmp_path / "run") as log:
        yield log


@pytest.fixture
def app(recorded):
    with FoxgloveServer(recorded, port=0) as server:
        thread = threading.Thread(target=server.play)
        thread.start()
        with connect(server.url, subprotocols=["foxglove.sdk.v1"]) as socket:
            yield App(socket)
        server.stop()
        thread.join()


def test_a_recorded_run_has_a_time_range_and_every_topic(recorded, app):
    assert app.info["capabilities"] == ["time", "playbackControl"]
    first, last = (app.info[name] for name in ("dataStartTime", "dataEndTime"))
    assert first["sec"] * 10**9 + first["nsec"] == recorded.start_ns
    assert last["sec"] * 10**9 + last["nsec"] == recorded.end_ns
    assert TOPIC in app.topics.values()


def test_it_plays_every_message_in_order_to_the_end_and_once_more(recorded, app):
    app.subscribe(TOPIC)
    for _ in range(2):
        app.ask(play=True, speed=20.0, seek_ns=recorded.start_ns)
        states, values = [], []
        while len(states) < 2 or values[-1:] != [39]:  # a state may overtake messages
            kind, *what = app.next()
            (states if kind == "state" else values).append(
                what if kind == "state" else what[1]["value"]
            )
        assert states[0] == [PLAYING, recorded.start_ns, 20.0, True]
        assert states[1][:3] == [ENDED, recorded.end_ns, 20.0]
        assert values[-40:] == list(range(40))


def test_a_seek_while_paused_shows_that_moment(recorded, app):
    app.subscribe(TOPIC)
    assert app.until("message")[-1][2] == {"value": 0}  # paused at the beginning
    wanted = next(it for it in recorded.messages(TOPIC) if it.fields["value"] == 30)
    app.ask(play=False, seek_ns=wanted.time_ns + 1)
    came = [app.next()]
    while {it[0] for it in came} != {"message", "state"}:  # in any order
        came.append(app.next())
    assert (PAUSED, wanted.time_ns + 1, 1.0, True) in [it[1:] for it in came]
    assert ("message", wanted.time_ns, {"value": 30}) in came
    app.ask(play=False)
    assert app.until("state")[-1][1:] == (PAUSED, wanted.time_ns + 1, 1.0, False)


def test_a_run_without_a_cycle_and_a_port_that_is_taken_are_errors(tmp_path, recorded):
    LogWriter(tmp_path / "empty", outputs=(), steps=0, metadata={}).finish({"reason": "test"})
    with Log(tmp_path / "empty") as log, pytest.raises(LogError) as caught:
        FoxgloveServer(log, port=0)
    assert str(caught.value) == f"{log.path}: no cycle in it: there is nothing to show"
    with FoxgloveServer(recorded, port=0) as server:
        with pytest.raises(UsageError) as refused:
            FoxgloveServer(recorded, port=server.port)
        start = f"cannot serve Foxglove at port {server.port} of '127.0.0.1': "
        assert str(refused.value).startswith(start)


@pytest.mark.parametrize(
    ("option", "package"), [("foxglove", "foxglove-sdk"), ("rerun", "rerun-sdk")]
)
def test_a_viewer_that_is_missing_names_its_extra(
    tmp_path, recorded, capsys, monkeypatch, option, package
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == option else find(name)
    )
    (tmp_path / "g.yaml").write_text("tasks: [{id: n, type: Counter, config: {limit: 3}}]")
    for words in (["view", str(recorded.path)], [str(tmp_path / "g.yaml")]):
        assert main([*words, f"--{option}"]) == 2
        assert capsys.readouterr().err == (
            f"--{option} needs {package}: pip install 'flowrun-runtime[{option}]'\n"
        )
    assert not (tmp_path / "runs").exists()


def test_a_viewer_of_a_run_without_a_log_is_refused(tmp_path, capsys):
    (tmp_path / "g.yaml").write_text("tasks: [{id: n, type: Counter, config: {limit: 3}}]")
    assert main([str(tmp_path / "g.yaml"), "--no-log", "--foxglove"]) == 2
    assert "--foxglove shows what is in the log; leave out --no-log" in capsys.readouterr().err


def test_a_run_that_goes_on_is_followed_to_its_end(tmp_path):
    (tmp_path / "g.yaml").write_text("tasks: [{id: n, type: Counter, config: {rate_hz: 100}}]")
    plan = load_plan(tmp_path / "g.yaml", env={})
    run = Run(plan, clock=LiveClock(), directory=tmp_path / "run")
    running = threading.Thread(target=run.run)
    running.start()
    until(lambda: run.executor.cycles > 3)
    with Log(tmp_path / "run") as log, FoxgloveServer(log, port=0) as server:
        assert server.is_live
        following = threading.Thread(target=server.follow)
        following.start()
        with connect(server.url, subprotocols=["foxglove.sdk.v1"]) as socket:
            app = App(socket)
            assert app.info["capabilities"] == ["time"]
            [topic] = [name for name in app.topics.values() if name.startswith("/n/")]
            app.subscribe(topic)
            values = [app.next()[2]["value"] for _ in range(5)]
            assert values == list(range(values[0], values[0] + 5))
            run.stop("the test has seen it")
            running.join()
            following.join(timeout=240)
            assert not following.is_alive()
