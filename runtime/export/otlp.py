"""The step table as OpenTelemetry spans: run > cycle > step, to a file or to a collector.

One trace a run. A cycle begins by the run's clock, and its steps follow by the monotonic one. A job of a
background task is a span of the run, with links to the cycle of its inputs and to that of its result.
What happened besides are events: errors at their step, all else at its cycle.

Identifiers are made of the run's own data, so that exporting a run twice gives the same spans.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import msgpack
import numpy as np

from flowrun.runtime.clock import monotonic_s
from flowrun.runtime.errors import FlowrunError, LogDamaged, UsageError
from flowrun.runtime.export.selection import ExportReport, Selection
from flowrun.runtime.extras import import_optional
from flowrun.runtime.log.message import LogMessage
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import (
    CONTROL_TOPIC,
    GRAPH_RESOLVED,
    STARTED_NS,
    STEP_TASKS,
    STEPS_TOPIC,
)
from flowrun.runtime.printing import Writable
from flowrun.runtime.wording import mask_urls

__all__ = ["Collector", "CollectorError", "JsonLines", "Sink", "export_otlp"]

_BATCH = 2000
"""Spans of one request, or of one line of a file."""
_EVERY_S = 1.0
"""A run that goes on is sent this often."""
_STARTS = 10_000
"""Cycles whose beginnings are known, for background jobs that end later."""
_TIMEOUT_S = 10.0
_TRIES = 5
_LONGEST_PAUSE_S = 30.0
_AWAY_PAUSE_S = 1.0
_AGAIN = (429, 502, 503, 504)
"""Statuses after which OTLP asks to send once more."""
_ERROR = 2


class CollectorError(FlowrunError):
    """A collector cannot be reached, or refuses spans; the text says why."""


class Sink(Protocol):
    """Where spans go."""

    def take(self, request: Any) -> str | None:
        """Take an `ExportTraceServiceRequest`; returns what of it was refused, in a sentence."""
        ...


def export_otlp(log: Log, selection: Selection, sink: Sink) -> ExportReport:
    """Give the spans of the selected cycles to `sink`; `report.count` is their number.

    A log that is followed is given as it grows; the run's own span comes when the run has ended.
    """
    report = ExportReport()
    spans = _Spans(log)
    last_s = monotonic_s()
    controls: list[dict[str, Any]] = []

    def flush() -> None:
        report.count += len(spans.waiting)
        refused = sink.take(spans.take())
        if refused:
            report.notes.append(refused)

    for message in selection.messages(log, STEPS_TOPIC, CONTROL_TOPIC):
        # The step table is the last message of a cycle: its control messages come before it.
        if message.topic == CONTROL_TOPIC:
            controls.append(message.fields)
            continue
        spans.add_cycle(message, controls)
        controls = []
        if len(spans.waiting) >= _BATCH or (log.follow and monotonic_s() - last_s >= _EVERY_S):
            flush()
            last_s = monotonic_s()
    spans.add_run(log)
    flush()
    return report


class _Spans:
    """Makes the spans of a log."""

    def __init__(self, log: Log) -> None:
        trace = import_optional(
            "opentelemetry.proto.trace.v1.trace_pb2", "--to otlp", extra="otel",
            install="opentelemetry-proto",
        )  # fmt: skip
        service = import_optional(
            "opentelemetry.proto.collector.trace.v1.trace_service_pb2", "--to otlp", extra="otel",
            install="opentelemetry-proto",
        )  # fmt: skip
        self._span, self._request = trace.Span, service.ExportTraceServiceRequest
        meta = log.metadata
        self._steps = meta.get(STEP_TASKS, "").split()
        self._types = _task_types(log)
        self._graph = meta.get("graph", "flowrun")
        self._run = log.path.absolute().name
        self._version = meta.get("version_flowrun-runtime", meta.get("version_flowrun", ""))
        self._started_ns = int(meta.get(STARTED_NS, "0"))
        self._trace = _hash(16, self._graph, self._started_ns, meta.get("run_id", ""))
        self._root = self._id("run")
        self._last_ns = self._started_ns
        self._starts: dict[int, int] = {}
        self.waiting: list[Any] = []

    def take(self) -> Any:
        """The request with the spans that wait."""
        request = self._request()
        resource = request.resource_spans.add()
        _set(
            resource.resource.attributes,
            {
                "service.name": self._graph,
                "service.namespace": "flowrun",
                "service.version": self._version,
                "flowrun.run": self._run,
            },
        )
        scope = resource.scope_spans.add()
        scope.scope.name = "flowrun"
        scope.spans.extend(self.waiting)
        self.waiting = []
        return request

    def add_run(self, log: Log) -> None:
        """Add the span of the run."""
        end = log.end or {}
        span = self._add(self._graph, self._root, None, self._started_ns, self._last_ns)
        if end.get("ended_ns", "").isdecimal():
            span.end_time_unix_nano = max(int(end["ended_ns"]), self._last_ns)
        _set(span.attributes, {"flowrun.reason": end.get("reason", "")})
        if end.get("error"):
            span.status.code, span.status.message = _ERROR, end["error"]

    def add_cycle(self, message: LogMessage, controls: Sequence[Mapping[str, Any]]) -> None:
        """Add the spans of a cycle and its steps. `LogDamaged` if it has no step table."""
        try:
            ticks = np.frombuffer(msgpack.unpackb(message.payload)["ticks_ns"], "<u8").tolist()
            begin = ticks[0]
        except (ValueError, TypeError, LookupError, msgpack.UnpackException) as error:
            raise LogDamaged(
                f"cycle {message.cycle}: {message.topic}: no step table: {error}"
            ) from error
        number, at = message.cycle, message.time_ns - begin
        self._starts[number] = message.time_ns
        while len(self._starts) > _STARTS:
            del self._starts[next(iter(self._starts))]
        self._last_ns = max(self._last_ns, ticks[-1] + at)
        cycle = self._add(
            "cycle", self._id("cycle", number), self._root, message.time_ns, ticks[-1] + at
        )
        _set(cycle.attributes, {"flowrun.cycle": number})
        named = len(self._steps) == len(ticks) - 1
        names = self._steps if named else [f"step {it}" for it in range(len(ticks) - 1)]
        steps = {}
        for name, (start, end) in zip(names, pairwise(ticks), strict=True):
            step = self._add(
                name, self._id("step", number, name), cycle.span_id, start + at, end + at
            )
            _set(step.attributes, {"flowrun.cycle": number, "flowrun.task": name})
            if name in self._types:
                _set(step.attributes, {"flowrun.task.type": self._types[name]})
            steps[name] = step
        for control in controls:
            self._add_control(control, cycle, steps, message)

    def _add_control(
        self, control: Mapping[str, Any], cycle: Any, steps: Mapping[str, Any], message: LogMessage
    ) -> None:
        kind, task = str(control.get("kind", "")), str(control.get("task", ""))
        if kind == "completion":
            self._add_job(task, control, message)
            return
        is_error = kind == "error"
        span = steps.get(task, cycle) if is_error else cycle
        event = span.events.add()
        event.time_unix_nano = message.time_ns
        event.name = "exception" if is_error else kind
        attributes: dict[str, Any] = {"flowrun.task": task}
        value, key = control.get("value"), str(control.get("key", ""))
        if is_error:
            kind_of, _, text = str(value).partition(": ")
            attributes |= {"exception.type": kind_of, "exception.message": text}
            attributes |= {"flowrun.on_error": key, "code.stacktrace": control.get("place", "")}
            span.status.code, span.status.message = _ERROR, str(value)
        elif kind == "set" and isinstance(value, dict):
            attributes["flowrun.keys"] = ", ".join(map(str, value))  # values may be anything
        else:
            attributes |= {"flowrun.key": key} if key else {}
            attributes |= {"flowrun.value": value} if isinstance(value, (int, str)) else {}
        _set(event.attributes, attributes)

    def _add_job(self, task: str, control: Mapping[str, Any], message: LogMessage) -> None:
        of = control.get("input_cycle", -1)
        begun = self._starts.get(of)
        if begun is None:
            return  # its input is before the selected cycles
        job = self._add(
            f"{task} (background)", self._id("job", task, of), self._root, begun, message.time_ns
        )
        _set(job.attributes, {"flowrun.task": task, "flowrun.input_cycle": of})
        _set(job.attributes, {"flowrun.cycle": message.cycle, "flowrun.background": True})
        for number in (of, message.cycle):
            link = job.links.add()
            link.trace_id, link.span_id = self._trace, self._id("cycle", number)

    def _add(
        self, name: str, span_id: bytes, parent: bytes | None, start_ns: int, end_ns: int
    ) -> Any:
        span = self._span()
        span.name, span.kind = name, 1  # internal
        span.trace_id, span.span_id = self._trace, span_id
        if parent is not None:
            span.parent_span_id = parent
        span.start_time_unix_nano, span.end_time_unix_nano = start_ns, max(start_ns, end_ns)
        self.waiting.append(span)
        return span

    def _id(self, *parts: object) -> bytes:
        return _hash(8, self._trace, *parts)


def _protobuf(module: str) -> Any:
    return import_optional(
        f"google.protobuf.{module}", "--to otlp", extra="otel", install="protobuf"
    )


def _hash(size: int, *parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()[:size]


def _task_types(log: Log) -> dict[str, str]:
    try:
        tasks = json.loads(log.attachments.get(GRAPH_RESOLVED, b"{}")).get("tasks", [])
        return {str(task["id"]): str(task["type"]) for task in tasks}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _set(attributes: Any, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if value == "":
            continue
        found = attributes.add()
        found.key = key
        if isinstance(value, bool):
            found.value.bool_value = value
        elif isinstance(value, int) and -(2**63) <= value < 2**63:
            found.value.int_value = value
        else:
            found.value.string_value = str(value)


# -- to a file ---------------------------------------------------------------------------------------


class JsonLines:
    """OTLP's JSON: an `ExportTraceServiceRequest` a line, as collectors read and write files."""

    def __init__(self, stream: Writable) -> None:
        self._stream = stream

    def take(self, request: Any) -> None:
        found = _protobuf("json_format").MessageToDict(request, use_integers_for_enums=True)
        for span in _spans_of(found):
            for holder in (span, *span.get("links", ())):
                for key in ("traceId", "spanId", "parentSpanId"):
                    if key in holder:  # OTLP has hexadecimal where protobuf's JSON has base64
                        holder[key] = base64.b64decode(holder[key]).hex()
        self._stream.write(json.dumps(found, ensure_ascii=False, separators=(",", ":")) + "\n")


def _spans_of(request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for resource in request.get("resourceSpans", ()):
        for scope in resource.get("scopeSpans", ()):
            yield from scope.get("spans", ())


# -- to a collector ----------------------------------------------------------------------------------


class Collector:
    """A collector that takes OTLP over HTTP, as protobuf.

    endpoint: its address; `/v1/traces` is added to one without a path.
    away: called each time that it does not answer, or is still too busy, with why; returns whether to
        go on trying. None: that is an error at once.

    `OTEL_EXPORTER_OTLP_HEADERS` of the environment, `name=value,name=value`, are headers of each
    request, such as a token.

    Raises `UsageError` for what is no address.
    """

    def __init__(self, endpoint: str, *, away: Callable[[str], bool] | None = None) -> None:
        address = urlsplit(endpoint)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise UsageError(
                f"{mask_urls(endpoint)!r} is no address of a collector; expected http://HOST:PORT, such "
                "as http://localhost:4318"
            )
        path = address.path if address.path not in ("", "/") else "/v1/traces"
        self._away = away
        self._url = urlunsplit((address.scheme, address.netloc, path, address.query, ""))
        given = os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", "")
        pairs = (it.partition("=") for it in given.split(",") if "=" in it)
        self._headers = {name.strip(): value.strip() for name, _, value in pairs}

    def take(self, request: Any) -> str | None:
        """As `Sink`. Raises `CollectorError` where the collector does not answer, or refuses."""
        import httpx

        shown, body, waiting = mask_urls(self._url), request.SerializeToString(), threading.Event()
        tried = 0
        while True:
            tried += 1
            pause_s, can_answer_later = _AWAY_PAUSE_S, True
            try:
                reply = httpx.post(
                    self._url,
                    content=body,
                    headers={**self._headers, "Content-Type": "application/x-protobuf"},
                    timeout=_TIMEOUT_S,
                    trust_env=False,
                )
            except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
                why = f"no collector answers at {shown}: {error}"
            else:
                if reply.is_success:
                    return self._refused(reply.content)
                why = (
                    f"the collector at {shown} refuses the spans: status {reply.status_code}: "
                    f"{reply.text[:200]}"
                )
                can_answer_later = reply.status_code in _AGAIN
                if can_answer_later and tried < _TRIES:
                    asked = reply.headers.get("retry-after", "")
                    pause_s = float(asked) if asked.isdecimal() else 0.5 * 2**tried
                    waiting.wait(min(pause_s, _LONGEST_PAUSE_S))
                    continue
            if not can_answer_later or self._away is None or not self._away(why):
                raise CollectorError(why)
            waiting.wait(pause_s)

    def _refused(self, content: bytes) -> str | None:
        service = import_optional(
            "opentelemetry.proto.collector.trace.v1.trace_service_pb2", "--to otlp", extra="otel",
            install="opentelemetry-proto",
        )  # fmt: skip
        try:
            partial = service.ExportTraceServiceResponse.FromString(content).partial_success
        except _protobuf("message").DecodeError:  # it took them, and answers in words
            return None
        if not partial.rejected_spans:
            return None
        return f"the collector refused {partial.rejected_spans:,} spans: {partial.error_message}"
