"""Spans of a run, as a collector gets them."""

from __future__ import annotations

import io
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise

import pytest

from flowrun.runtime.cli import main, viewers
from flowrun.runtime.clock import ManualClock
from flowrun.runtime.export import otlp
from flowrun.runtime.export.otlp import Collector, CollectorError, JsonLines, export_otlp
from flowrun.runtime.export.selection import Selection
from flowrun.runtime.log.reader import Log
from flowrun.runtime.run.live import Run
from support.helpers import START_NS, plan_of, record, run_hooked

service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")

ROUGH = "n=Hooked(limit: 6); x=Scale; f=Boom(at: 2)@on_error: skip; b=Free!"
CNX = "n > x; n > f; n > b"


@pytest.fixture(scope="module")
def collector():
    """Takes OTLP over HTTP as a collector does; `answers` are its next statuses and bodies."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            made.requests.append((self.path, dict(self.headers), body))
            status, content = made.answers.pop(0) if made.answers else (200, b"")
            self.send_response(status)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_): ...

    made = HTTPServer(("127.0.0.1", 0), Handler)
    made.requests, made.answers = [], []
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def url(collector):
    collector.requests.clear()
    collector.answers.clear()
    return f"http://127.0.0.1:{collector.server_port}"


def received(collector):
    """The spans, and the attributes of the resource."""
    spans, resources = [], []
    for _, _, body in collector.requests:
        request = service.ExportTraceServiceRequest.FromString(body)
        [resource] = request.resource_spans
        resources.append(attributes(resource.resource))
        spans += resource.scope_spans[0].spans
    return spans, resources


def attributes(item):
    return {it.key: getattr(it.value, it.value.WhichOneof("value")) for it in item.attributes}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("otlp")

    def changes(live: Run, number: int) -> None:
        if number == 3:
            live.set_live("x", {"factor": 7})
            live.publish("x", {"value": 1})

    result = run_hooked(plan_of(folder, ROUGH, CNX), folder / "run", changes)
    assert result.error is None
    return folder / "run"


def test_a_collector_gets_run_cycles_and_steps(collector, url, run, capsys, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-token=abc, x-more=1")
    assert main(["log", "export", str(run), "--to", "otlp", "--endpoint", url]) == 0
    spans, resources = received(collector)
    assert capsys.readouterr().out == f"sent {len(spans)} spans\n"
    [(path, headers, _)] = collector.requests
    assert (path, headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
    assert (headers["x-token"], headers["x-more"]) == ("abc", "1")
    assert resources[0] | {"service.version": ""} == {
        "service.name": "g", "service.namespace": "flowrun", "service.version": "", "flowrun.run": "run",
    }  # fmt: skip
    assert len({span.trace_id for span in spans}) == 1
    assert len({span.span_id for span in spans}) == len(spans)
    by_id = {span.span_id: span for span in spans}
    [root] = [span for span in spans if not span.parent_span_id]
    cycles = [span for span in spans if span.name == "cycle"]
    with Log(run) as log:
        tables = {m.cycle: (m.time_ns, m) for m in log.messages("/flowrun/steps")}
    assert [attributes(span)["flowrun.cycle"] for span in cycles] == list(tables)
    for span in cycles:
        assert span.start_time_unix_nano == tables[attributes(span)["flowrun.cycle"]][0]
        assert span.parent_span_id == root.span_id
        steps = [it for it in spans if it.parent_span_id == span.span_id]
        assert [it.name for it in steps] == ["n", "x", "f", "b"]
        assert steps[0].start_time_unix_nano == span.start_time_unix_nano
        assert steps[-1].end_time_unix_nano == span.end_time_unix_nano
        for before, after in pairwise(steps):
            assert before.end_time_unix_nano == after.start_time_unix_nano
        assert attributes(steps[1])["flowrun.task.type"].endswith("Scale")
    assert root.start_time_unix_nano <= cycles[0].start_time_unix_nano
    assert root.end_time_unix_nano >= cycles[-1].end_time_unix_nano
    [failed] = [span for span in spans if span.status.code == 2]
    assert (failed.name, by_id[failed.parent_span_id].name) == ("f", "cycle")
    [raised] = failed.events
    assert raised.name == "exception"
    assert attributes(raised)["exception.type"] == "ValueError"
    told = [(event.name, attributes(event)) for span in cycles for event in span.events]
    assert ("set", {"flowrun.task": "x", "flowrun.keys": "factor"}) in told
    assert ("injected", {"flowrun.task": "x", "flowrun.key": "scaled"}) in told
    jobs = [span for span in spans if span.name == "b (background)"]
    assert jobs
    for job in jobs:
        of, result = (by_id[link.span_id] for link in job.links)
        assert attributes(of)["flowrun.cycle"] == attributes(job)["flowrun.input_cycle"]
        assert job.start_time_unix_nano == of.start_time_unix_nano
        assert job.end_time_unix_nano == result.start_time_unix_nano


def test_a_file_holds_the_same_in_the_json_of_otlp(collector, url, run, tmp_path):
    assert main(["log", "export", str(run), "--to", "otlp", "--endpoint", url]) == 0
    spans, _ = received(collector)
    path = tmp_path / "spans.otlp.jsonl"
    assert main(["log", "export", str(run), "-o", str(path)]) == 0
    found = [
        span
        for line in path.read_text().splitlines()
        for span in json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"]
    ]
    assert [(it["traceId"], it["spanId"], it["name"]) for it in found] == [
        (it.trace_id.hex(), it.span_id.hex(), it.name) for it in spans
    ]
    for item, span in zip(found, spans, strict=True):
        assert int(item["startTimeUnixNano"]) == span.start_time_unix_nano
        assert item["kind"] == 1
        assert item.get("parentSpanId", "") == span.parent_span_id.hex()


def test_a_part_of_a_run_is_sent(collector, url, run):
    words = ["--to", "otlp", "--endpoint", f"{url}/custom", "--from", "2", "--to", "3"]
    assert main(["log", "export", str(run), *words]) == 0
    assert collector.requests[0][0] == "/custom"
    spans, _ = received(collector)
    assert [attributes(it)["flowrun.cycle"] for it in spans if it.name == "cycle"] == [2, 3]


def test_spans_go_in_requests_of_a_bounded_size(collector, url, run, monkeypatch):
    monkeypatch.setattr("flowrun.runtime.export.otlp._BATCH", 10)
    assert main(["log", "export", str(run), "--to", "otlp", "--endpoint", url]) == 0
    assert len(collector.requests) > 3
    spans, _ = received(collector)
    assert len({span.span_id for span in spans}) == len(spans)


def test_a_run_that_goes_on_is_sent_as_it_goes(collector, url, tmp_path, monkeypatch):
    monkeypatch.setattr("flowrun.runtime.export.otlp._EVERY_S", 0)
    live = Run(
        plan_of(tmp_path, "n=Hooked(limit: 3)"),
        clock=ManualClock(START_NS, step_ns=1000),
        directory=tmp_path / "run",
    )
    has_come = threading.Event()

    def hold(number: int) -> None:
        if number == 2:
            assert has_come.wait(30)

    from support.helpers import Hooked

    Hooked.hook = hold
    running = threading.Thread(target=live.run)
    running.start()

    class Seen:
        requests = 0

        def take(self, request):
            self.requests += 1
            has_come.set()

    sink = Seen()
    with Log(tmp_path / "run", follow=True) as log:
        report = export_otlp(log, Selection(), sink)
    running.join()
    assert sink.requests > 1
    assert report.count == 1 + 2 * live.executor.cycles


def test_a_collector_that_is_busy_is_asked_again_and_what_it_refuses_is_said(
    collector, url, run, capsys
):
    response = service.ExportTraceServiceResponse()
    response.partial_success.rejected_spans = 3
    response.partial_success.error_message = "too old"
    collector.answers += [(503, b"busy"), (429, b"busy"), (200, response.SerializeToString())]
    assert main(["log", "export", str(run), "--to", "otlp", "--endpoint", url]) == 0
    assert len({body for *_, body in collector.requests}) == 1
    assert "note: the collector refused 3 spans: too old" in capsys.readouterr().err
    collector.answers += [(400, b"no such tenant")]
    assert main(["log", "export", str(run), "--to", "otlp", "--endpoint", url]) == 1
    assert capsys.readouterr().err == (
        f"the collector at {url}/v1/traces refuses the spans: status 400: no such tenant\n"
    )


def test_a_collector_that_is_away_is_waited_for_while_the_run_goes_on(
    collector, url, run, monkeypatch
):
    monkeypatch.setattr(otlp, "_AWAY_PAUSE_S", 0)
    monkeypatch.setattr(otlp, "_TRIES", 1)
    collector.answers += [(503, b"starting"), (503, b"starting")]
    reasons = []

    def away(why):
        reasons.append(why)
        return len(reasons) < 3

    with Log(run) as log:
        assert export_otlp(log, Selection(), Collector(url, away=away)).notes == []
        refuses = f"the collector at {url}/v1/traces refuses the spans: status 503: starting"
        assert reasons == [refuses, refuses]
        with pytest.raises(CollectorError, match="no collector answers"):
            export_otlp(log, Selection(), Collector("http://127.0.0.1:9", away=away))


def test_what_is_no_collector_is_refused_before_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "g.yaml").write_text("tasks: [{id: n, type: Counter, config: {limit: 3}}]")
    assert main(["g.yaml", "--otel", "localhost:4318"]) == 2
    assert "'localhost:4318' is no address of a collector" in capsys.readouterr().err
    assert main(["g.yaml", "--otel", "http://127.0.0.1:9", "--no-log"]) == 2
    assert "--otel shows what is in the log; leave out --no-log" in capsys.readouterr().err


@pytest.mark.long
def test_a_run_sends_all_of_its_spans_or_says_how_to_send_them(
    collector, url, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(viewers, "_REST_S", 60.0)
    (tmp_path / "g.yaml").write_text("tasks: [{id: n, type: Counter, config: {limit: 300}}]")
    assert main(["g.yaml", "--otel", url]) == 0
    assert "\nsent 601 spans\n" in capsys.readouterr().out
    assert len(received(collector)[0]) == 601
    assert main(["g.yaml", "--otel", "http://127.0.0.1:9"]) == 0
    assert re.search(
        r"--otel: not all was sent; the log has it: flowrun log export runs/g-\S+ --to otlp "
        r"--endpoint http://127.0.0.1:9\n", capsys.readouterr().out
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "status", "error"),
    [
        (["--to", "otlp", "--endpoint", "localhost:4318"], 2, "'localhost:4318' is no address of a "
         "collector; expected http://HOST:PORT, such as http://localhost:4318\n"),
        (["--to", "csv", "--endpoint", "http://x"], 2, "--endpoint is for --to otlp\n"),
        (["--to", "trace", "--follow"], 2, "--follow is for --to otlp\n"),
        (["--to", "otlp", "-o", "x", "--endpoint", "http://x"], 2, "--endpoint and -o: choose one\n"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(run, words, status, error, capsys):
    assert main(["log", "export", str(run), *words]) == status
    assert capsys.readouterr().err == error


def test_no_collector_is_an_error(run):
    with (
        Log(run) as log,
        pytest.raises(CollectorError, match=r"no collector answers at http://\*\*\*@"),
    ):
        export_otlp(log, Selection(), Collector("http://a:b@127.0.0.1:9"))


def test_a_log_without_names_of_steps_numbers_them(tmp_path, monkeypatch):
    _, result = record(plan_of(tmp_path, "n=Numbers(limit: 2)"), tmp_path / "run")
    assert result.error is None
    stream = io.StringIO()
    monkeypatch.setattr(Log, "metadata", {"graph": "g"})
    with Log(tmp_path / "run") as log:
        export_otlp(log, Selection(), JsonLines(stream))
    [resource] = json.loads(stream.getvalue())["resourceSpans"]
    names = {it["name"] for it in resource["scopeSpans"][0]["spans"]}
    assert names == {"cycle", "step 0", "g"}
