"""`MqttSink` with a real broker: mosquitto."""

from __future__ import annotations

import json
import queue
import re
import shutil
import socket
import subprocess
import threading
import time
from types import SimpleNamespace

import pytest

from flowrun.msgs import BytesMsg, IntMsg
from flowrun.runtime.errors import GraphError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.testing import run_task
from flowrun.tasks.sinks.mqtt import MqttSink
from support.helpers import until
from support.sink_tasks import run_graph

mqtt = pytest.importorskip("paho.mqtt.client")
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


def with_broker(test):
    """Mark a test that needs a broker."""
    skips = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
    return pytest.mark.real(skips(test))


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class Broker:
    """mosquitto at a port of this machine, which may be started again: it knows its subscribers then."""

    def __init__(self, folder, *, users=False):
        self.port, self._folder = free_port(), folder
        lines = [f"listener {self.port} 127.0.0.1", f"allow_anonymous {str(not users).lower()}"]
        if users:
            passwords = folder / "passwords"
            passwords.touch()
            command = ["mosquitto_passwd", "-b", str(passwords), "cam", "s3cret-pw"]
            subprocess.run(command, check=True)
            lines.append(f"password_file {passwords}")
            passwords.chmod(0o644)
        lines += ["user root", "persistence true", f"persistence_location {folder}/"]
        lines.append("queue_qos0_messages true")  # for subscribers that are away
        (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
        self._process = None

    def __enter__(self):
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self._folder / "mosquitto.conf")], stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                time.sleep(0.01)
        raise AssertionError("no broker")

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(30)


class Subscriber:
    """What comes on every topic.

    name: by which the broker knows it when it comes again, and keeps what came meanwhile.
    """

    def __init__(self, port, *, user=None, name=None):
        self.came = queue.Queue()
        self._subscribed = queue.Queue()
        self._client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=name or "", clean_session=name is None
        )
        if user is not None:
            self._client.username_pw_set(*user)
        self._client.on_message = lambda _c, _d, it: self.came.put(it)
        self._client.on_connect = lambda c, *_: c.subscribe("#", qos=2)
        self._client.on_subscribe = lambda *_: self._subscribed.put(True)
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._subscribed.get(timeout=240)

    def take(self, count):
        return [self.came.get(timeout=240) for _ in range(count)]

    def await_subscription(self):
        self._subscribed.get(timeout=240)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._client.disconnect()
        self._client.loop_stop()


def publish(messages, port, **config):
    config = {"topic": "a/b", "port": port} | config
    run_task(MqttSink, inputs=[{"message": it} for it in messages], config=config)


@with_broker
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_each_message_is_published(tmp_path, qos):
    with Broker(tmp_path) as broker, Subscriber(broker.port) as subscriber:
        publish([IntMsg(value=it) for it in range(20)], broker.port, qos=qos)
        came = subscriber.take(20)
    assert [json.loads(it.payload)["fields"]["value"] for it in came] == list(range(20))
    assert {(it.topic, it.qos, it.retain) for it in came} == {("a/b", qos, False)}


@with_broker
def test_who_has_no_password_waits_and_the_log_says_so(tmp_path, capfd):
    user = "cam"
    with Broker(tmp_path, users=True) as broker:
        with Subscriber(broker.port, user=(user, "s3cret-pw")) as subscriber:
            publish([IntMsg(value=1)], broker.port, user=user, password="s3cret-pw")
            [came] = subscriber.take(1)
            assert json.loads(came.payload)["fields"] == {"value": 1}
        publish([IntMsg(value=2)], broker.port, user=user, password="another-pw")
    said = "".join(capfd.readouterr())
    assert "the broker refuses the connection" in said
    assert "not delivered before the end of the run" in said
    assert "another-pw" not in said


@with_broker
def test_a_retained_message_is_there_for_who_comes_later(tmp_path):
    with Broker(tmp_path) as broker:
        publish([IntMsg(value=it) for it in range(3)], broker.port, retain=True)
        with Subscriber(broker.port) as subscriber:
            [came] = subscriber.take(1)
    assert (json.loads(came.payload)["fields"]["value"], came.retain) == (2, True)


@with_broker
@pytest.mark.parametrize("qos", [0, 1])
def test_a_broker_that_was_away_gets_what_waits(tmp_path, qos, monkeypatch, capfd):
    monkeypatch.setattr("flowrun.tasks.sinks.mqtt._END_S", 60)
    broker = Broker(tmp_path)
    with broker, Subscriber(broker.port, name="listener"):
        pass  # whatever is published from now on is kept for it
    config = f"topic: a/b, port: {broker.port}, qos: {qos}"
    graph = (
        "tasks:\n  - {id: n, type: Counter, config: {limit: 30}}\n"
        f"  - {{id: out, type: MqttSink, config: {{{config}}}}}\n"
        "cnx: [{src: n, dst: out, msg: IntMsg}]"
    )
    ended = []
    run = threading.Thread(target=lambda: ended.append(run_graph(tmp_path, graph)))
    run.start()
    said = []
    until(lambda: said.extend(capfd.readouterr()) or "the broker is not reached" in "".join(said))
    with broker, Subscriber(broker.port, name="listener") as subscriber:
        came = subscriber.take(30)
        run.join()
    assert [json.loads(it.payload)["fields"]["value"] for it in came] == list(range(30))
    assert ended[0][0].report().tasks["out"].dropped == 0


@with_broker
def test_each_alert_is_published_once_and_by_no_replay(tmp_path):
    with Broker(tmp_path) as broker, Subscriber(broker.port) as subscriber:
        graph = f"""
tasks:
  - {{id: cam, type: support.pictures.Camera, config: {{limit: 12}}}}
  - {{id: says, type: support.pictures.Answer}}
  - {{id: watch, type: Alert, config: {{contains: ['2', '3', '8'], cooldown_s: 0.1}}}}
  - {{id: tell, type: MqttSink, config: {{topic: alerts, port: {broker.port}, qos: 1}}}}
cnx:
  - {{src: cam, dst: says, msg: ImageRgb8Msg}}
  - {{src: says, dst: watch, msg: PromptResponseMsg}}
  - {{src: watch, dst: tell, msg: AlertMsg}}
"""
        run_graph(tmp_path, graph, directory=tmp_path / "run")
        with Log(tmp_path / "run") as log:
            raised = [(it.cycle, it.fields["text"]) for it in log.messages("/watch/alert")]
            assert Replay(log).run().first is None
        publish([IntMsg(value=1)], broker.port)  # after all that a replay would have sent
        bodies = [json.loads(it.payload) for it in subscriber.take(len(raised) + 1)]
    assert [(it["cycle"], it["fields"]["text"]) for it in bodies[:-1]] == raised
    assert [it["type"] for it in bodies] == len(raised) * ["AlertMsg"] + ["IntMsg"]
    assert [said for _, said in raised] == ["\u00fcn\u00ef 2", "\u00fcn\u00ef 8"]


@with_broker
def test_home_assistant_finds_the_entity(tmp_path):
    with Broker(tmp_path) as broker:
        entity = {"name": "People", "component": "binary_sensor"}
        publish([IntMsg(value=1)], broker.port, home_assistant=entity, retain=True)
        with Subscriber(broker.port) as subscriber:
            came = {it.topic: json.loads(it.payload) for it in subscriber.take(2)}
    assert came.pop("a/b")["fields"]["value"] == 1
    [(topic, about)] = came.items()
    assert topic == f"homeassistant/binary_sensor/{about['unique_id']}/config"
    assert about["state_topic"] == "a/b"
    assert about["value_template"] == "{{ 'ON' if value_json['fields']['value'] else 'OFF' }}"


def announced(topic, field):
    sink = MqttSink(MqttSink.Config(topic=topic, home_assistant={"name": "A", "field": field}))
    said = []
    sink._announce(SimpleNamespace(publish=lambda topic, *_, **__: said.append(topic)))
    return said[0]


def test_each_entity_has_a_name_of_its_own_that_home_assistant_takes():
    topics = [
        announced(topic, field)
        for topic in ("a/b", "a_b", "k\xfcche/leute", "k\xf6che/leute")
        for field in ("value", "count")
    ]
    assert len(set(topics)) == len(topics)
    for topic in topics:  # of an object_id, from Home Assistant's pattern of discovery topics
        assert re.fullmatch(r"homeassistant/sensor/[a-zA-Z0-9_-]+/config", topic)


def test_a_field_that_messages_lack_is_found_before_the_run():
    entity = {"name": "A", "field": "vaule"}
    config = MqttSink.Config(topic="a/b", home_assistant=entity)
    assert list(MqttSink.check_inputs(config, {"message": IntMsg})) == [
        (
            "home_assistant.field",
            "IntMsg has no field 'vaule'; fields: value (did you mean 'value'?)",
        )
    ]


@with_broker
def test_what_is_too_large_is_dropped(tmp_path, capfd):
    with Broker(tmp_path) as broker, Subscriber(broker.port) as subscriber:
        messages = [BytesMsg(value=bytes(2000)), BytesMsg(value=b"a")]
        publish(messages, broker.port, max_bytes=1000)
        [came] = subscriber.take(1)
    assert json.loads(came.payload)["fields"] == {"value": "YQ=="}
    assert "dropped: too large" in "".join(capfd.readouterr())


def test_without_a_broker_the_run_ends_in_time_and_says_what_was_not_delivered(monkeypatch, capfd):
    monkeypatch.setattr("flowrun.tasks.sinks.mqtt._END_S", 0.3)
    publish([IntMsg()] * 3, free_port())
    said = "".join(capfd.readouterr())
    assert "the broker is not reached" in said
    assert "not delivered before the end of the run" in said
    assert "count=3" in said


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("topic: a/+/b", "'+' is for those who subscribe; a topic to publish to has none"),
        ("topic: ''", "must be a topic of 1 to 65535 bytes, such as home/porch/people"),
        ("topic: a, password: b", "a password needs a user"),
        ("topic: a, tls: {ca_file: no.pem}", "no such file: "),
        ("topic: a, qos: 3", "'qos' of task 'out' must be 0, 1 or 2; got 3"),
        ("topic: a, host: 'mqtt://b'", "must be a host alone"),
    ],
)
def test_mistakes_are_found_before_the_run(tmp_path, config, said):
    graph = (
        "tasks:\n  - {id: n, type: Counter}\n"
        f"  - {{id: out, type: MqttSink, config: {{{config}}}}}\n"
        "cnx: [{src: n, dst: out, msg: IntMsg}]"
    )
    with pytest.raises(GraphError) as raised:
        run_graph(tmp_path, graph)
    [problem] = raised.value.problems
    assert said in problem.message


def test_a_missing_package_is_named_before_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr("flowrun.runtime.extras.importlib.util.find_spec", lambda _: None)
    with pytest.raises(GraphError) as raised:
        run_graph(
            tmp_path,
            "tasks: [{id: n, type: Counter}, {id: out, type: MqttSink, config: {topic: a}}]\n"
            "cnx: [{src: n, dst: out, msg: IntMsg}]",
        )
    [problem] = raised.value.problems
    assert problem.message == "MqttSink needs paho-mqtt: pip install 'flowrun-runtime[mqtt]'"
