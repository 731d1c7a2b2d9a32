from __future__ import annotations

import json

import pytest
from structlog.testing import capture_logs

from flowrun.msgs import BytesMsg, IntMsg
from flowrun.runtime.errors import UsageError
from flowrun.runtime.testing import run_task
from flowrun.tasks.sinks.udp import UdpSink
from support.sink_tasks import receiver, run_graph


def test_each_message_is_a_datagram(tmp_path):
    with receiver() as taken:
        port = taken.getsockname()[1]
        run, result = run_graph(
            tmp_path,
            "tasks:\n"
            "  - {id: n, type: Counter, config: {limit: 3}}\n"
            f"  - {{id: out, type: UdpSink, config: {{port: {port}}}}}\n"
            "cnx: [{src: n, dst: out, msg: IntMsg}]",
        )
        got = [json.loads(taken.recv(65_535)) for _ in range(3)]
    assert result.error is None
    assert [it["fields"] for it in got] == [{"value": 0}, {"value": 1}, {"value": 2}]
    assert [it["cycle"] for it in got] == [0, 1, 2]
    assert {(it["task"], it["port"], it["type"]) for it in got} == {("n", "count", "IntMsg")}
    assert run.report().tasks["out"].dropped == 0


def test_what_is_too_large_is_dropped_and_reported(tmp_path):
    with receiver() as taken, capture_logs() as logs:
        config = {"port": taken.getsockname()[1], "max_bytes": 1000}
        messages = [BytesMsg(value=bytes(size)) for size in (900, 10)]
        run_task(UdpSink, inputs=[{"message": it} for it in messages], config=config)
        found = json.loads(taken.recv(65_535))
    assert found["cycle"] == 1
    [line] = logs
    assert (line["event"], line["max_bytes"], line["cycle"]) == ("dropped: too large", 1000, 0)
    assert line["bytes"] > 1200  # base64


def test_a_receiver_that_is_not_there_is_no_error():
    with receiver() as taken:
        port = taken.getsockname()[1]
    run_task(UdpSink, inputs=[{"message": IntMsg()}] * 3, config={"port": port})


def test_a_host_that_is_not_found_is_no_error():
    with capture_logs() as logs:
        run_task(
            UdpSink, inputs=[{"message": IntMsg()}] * 2, config={"host": "no.invalid", "port": 9}
        )
    assert [it["event"] for it in logs] == ["dropped: host not found"]


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("http://a/b", "must be a host alone, such as 192.168.1.20, not a URL"),
        ("a:80", "must be a host alone; the port is in 'port'"),
        ("a b", "is no name or address of a host"),
    ],
)
def test_what_is_no_host_is_a_mistake_of_the_graph(host, said):
    with pytest.raises(UsageError, match=said):
        run_task(UdpSink, inputs=[], config={"host": host, "port": 9})
