"""`MqttSink`: messages published to an MQTT broker, as JSON."""

from __future__ import annotations

import json
import re
import threading
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveInt, SecretStr

from flowrun.msgs.message import Message
from flowrun.runtime.extras import import_optional, missing
from flowrun.runtime.task import Context, Input, Task, TaskConfig
from flowrun.tasks.sinks.as_json import JsonSettings, Kept, to_json, unknown_fields
from flowrun.tasks.sinks.outbox import Complaints, Outbox
from flowrun.tasks.sinks.settings import Host, Port

__all__ = ["MqttSink"]

_END_S = 5.0
_TICK_S = 0.2
_PORT, _TLS_PORT = 1883, 8883
_LONGEST_PAUSE_S = 10
_LONGEST_TOPIC = 65_535


def _topic(text: str) -> str:
    if not text or len(text.encode()) > _LONGEST_TOPIC:
        raise ValueError("must be a topic of 1 to 65535 bytes, such as home/porch/people")
    if found := re.search(r"[+#\0]", text):
        raise ValueError(f"{found[0]!r} is for those who subscribe; a topic to publish to has none")
    return text


class Tls(TaskConfig):
    """How the connection is encrypted."""

    ca_file: str | None = None
    """The certificate of the authority that has signed the broker's; a relative path starts at the
    graph file; null: those of the system."""


class HomeAssistant(TaskConfig):
    """An entity of Home Assistant, which finds it by itself (MQTT discovery)."""

    name: Annotated[str, Field(min_length=1)]
    """What the entity is called."""
    field: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")] = "value"
    """The message's field that is its state."""
    component: Literal["sensor", "binary_sensor"] = "sensor"
    """binary_sensor: on where the field is true."""
    unit: str | None = None
    """The unit of the state."""
    prefix: Annotated[str, AfterValidator(_topic)] = "homeassistant"
    """Home Assistant's discovery prefix."""


class MqttSink(Task):
    """Publish each message to an MQTT broker.

    Takes messages of any class at `message`. The payload is one JSON object in UTF-8: task, port, type,
    cycle, time_ns, tov_ns, fields; docs/sinks.md describes it. MQTT 3.1.1.

    While the broker is away, messages wait, and are published when it is back; beyond `queue` the oldest
    is dropped, counted in the run's report and logged. With `qos: 0` what was under way when the
    connection broke may be lost. A broker that refuses the connection is asked again, every 10 s at
    most, and the log says so. A replay publishes nothing.
    """

    class Config(JsonSettings):
        topic: Annotated[str, AfterValidator(_topic)]
        """Where to publish, such as home/porch/people."""
        host: Host = "127.0.0.1"
        """The broker: a name or an address."""
        port: Port | None = None
        """Its port; null: 1883, or 8883 with TLS."""
        qos: Literal[0, 1, 2] = 1
        """0: sent once; 1: until the broker has it; 2: it has it once."""
        retain: bool = False
        """Whether the broker keeps the newest message for those who subscribe later."""
        tls: bool | Tls = False
        """Whether to encrypt the connection, and how."""
        user: str | None = None
        """Who connects."""
        password: SecretStr | None = None
        """That user's; write it as ${secret:NAME}."""
        client_id: str | None = None
        """The client's name, of which a broker knows one at a time; null: one of its own."""
        max_bytes: PositiveInt = 1_000_000
        """The largest message that is published; brokers end the connection for what they find too
        large."""
        queue: PositiveInt = 1000
        """The most messages that wait to be published; beyond that the oldest is dropped."""
        home_assistant: HomeAssistant | None = None
        """Have Home Assistant show the message as an entity."""

    acts_outside = True

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._outbox: Outbox[Kept] | None = None
        self._client: Any = None
        self._connected = threading.Event()
        self._taken_changed = threading.Condition()
        self._taken: set[int] = set()
        """Numbers of messages that the broker has."""

    @classmethod
    def check(cls, config: TaskConfig, graph_dir: Path) -> Iterator[tuple[str, str]]:
        assert isinstance(config, cls.Config)
        text = missing("MqttSink", ["paho"], extra="mqtt", install=["paho-mqtt"])
        if text is not None:
            yield "topic", text
        if config.password is not None and config.user is None:
            yield "password", "a password needs a user"
        ca_file = config.tls.ca_file if isinstance(config.tls, Tls) else None
        if ca_file is not None and not (graph_dir / ca_file).is_file():
            yield "tls.ca_file", f"no such file: {graph_dir / ca_file}"

    @classmethod
    def check_inputs(
        cls, config: TaskConfig, inputs: Mapping[str, type[Message]]
    ) -> Iterator[tuple[str, str]]:
        assert isinstance(config, cls.Config)
        if config.home_assistant is not None and "message" in inputs:
            for text in unknown_fields([config.home_assistant.field], inputs["message"]):
                yield "home_assistant.field", text

    def start(self, ctx: Context) -> None:
        config = self.config
        mqtt = import_optional("paho.mqtt.client", "MqttSink", extra="mqtt", install="paho-mqtt")
        self._ctx, self._complaints = ctx, Complaints(ctx)
        self._client = client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=config.client_id or ""
        )
        if config.user is not None:
            password = config.password
            client.username_pw_set(
                config.user, None if password is None else password.get_secret_value()
            )
        if config.tls:
            ca_file = config.tls.ca_file if isinstance(config.tls, Tls) else None
            client.tls_set(None if ca_file is None else str(ctx.graph_dir / ca_file))
        client.reconnect_delay_set(1, _LONGEST_PAUSE_S)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        port = config.port or (_TLS_PORT if config.tls else _PORT)
        client.connect_async(config.host, port)
        client.loop_start()
        self._outbox = Outbox(ctx, self._publish, most=config.queue)

    def process(self, ctx: Context, message: Input[Message]) -> None:
        assert self._outbox is not None
        self._outbox.put(Kept.of(ctx, message, max_array=self.config.max_array))

    def stop(self, ctx: Context) -> None:
        del ctx
        if self._outbox is not None:
            self._outbox.close(_END_S)
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()

    def _publish(self, kept: Kept) -> None:
        assert self._outbox is not None
        config, client = self.config, self._client
        body = to_json(kept.plain()).encode()
        if len(body) > config.max_bytes:
            self._ctx.dropped(1, "too large")
            self._complaints.say(
                "dropped: too large", bytes=len(body), max_bytes=config.max_bytes, cycle=kept.cycle
            )
            return
        while self._outbox.closing_s != 0:
            if self._connected.wait(_TICK_S):
                sent = client.publish(config.topic, body, qos=config.qos, retain=config.retain)
                if self._is_taken(sent.mid):
                    return
        self._outbox.give_back(kept)

    def _is_taken(self, number: int) -> bool:
        """Wait until the broker has the message, or may have it with `qos: 0`. What it has not when the
        connection breaks, the client sends again by itself where `qos` is 1 or 2."""
        assert self._outbox is not None
        with self._taken_changed:
            while number not in self._taken:
                is_lost = self.config.qos == 0 and not self._connected.is_set()
                if is_lost or self._outbox.closing_s == 0:
                    return False
                self._taken_changed.wait(_TICK_S)
            self._taken.clear()
        return True

    # -- called by the client, on its thread -----------------------------------------------------

    def _on_connect(
        self, client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any
    ) -> None:
        if reason.is_failure:
            self._complaints.say("the broker refuses the connection", why=str(reason))
            return
        self._ctx.log.info("connected to the broker", host=self.config.host)
        self._announce(client)
        self._connected.set()

    def _on_connect_fail(self, _client: Any, _data: Any) -> None:
        self._complaints.say("the broker is not reached", host=self.config.host)

    def _on_disconnect(
        self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any
    ) -> None:
        if self._connected.is_set() and reason.is_failure:
            self._complaints.say("the connection to the broker is lost", host=self.config.host)
        self._connected.clear()

    def _on_publish(
        self, _client: Any, _data: Any, number: int, _reason: Any, _properties: Any
    ) -> None:
        with self._taken_changed:
            self._taken.add(number)
            self._taken_changed.notify_all()

    def _announce(self, client: Any) -> None:
        """Tell Home Assistant of the entity."""
        entity = self.config.home_assistant
        if entity is None:
            return
        named = f"flowrun_{self.config.topic}_{entity.field}"
        own = f"{re.sub('[^A-Za-z0-9-]', '_', named)}_{zlib.crc32(named.encode()):08x}"
        state = f"value_json['fields']['{entity.field}']"
        about: dict[str, Any] = {
            "name": entity.name,
            "unique_id": own,
            "state_topic": self.config.topic,
            "value_template": f"{{{{ {state} }}}}",
        }
        if entity.component == "binary_sensor":
            about["value_template"] = f"{{{{ 'ON' if {state} else 'OFF' }}}}"
        if entity.unit is not None:
            about["unit_of_measurement"] = entity.unit
        topic = f"{entity.prefix}/{entity.component}/{own}/config"
        client.publish(topic, json.dumps(about), qos=1, retain=True)
