"""Clients that open too much, send too slowly, or do not read."""

import json
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress

import httpx
import pytest
import structlog
from fastapi.responses import Response, StreamingResponse
from fastapi.websockets import WebSocket, WebSocketDisconnect

from flowrun.runtime.broadcast import Picture
from flowrun.runtime.server import connections, control

GET = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"


def until(condition, timeout_s=240.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


@pytest.fixture
def run(new_run):
    return new_run()


@pytest.fixture
def small(run, new_server, monkeypatch):
    """A server of 8 connections."""
    monkeypatch.setattr(connections, "_MOST", 8)
    return new_server(run)


@pytest.fixture
def connect(small):
    """Opens connections, sends what it is given, and closes them at the end."""
    with ExitStack() as stack:

        def connect(data=b""):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", small.port)))
            client.settimeout(60)
            client.sendall(data)
            return client

        yield connect


def reply(client):
    """Status and JSON body of the one reply that `client` gets."""
    with client.makefile("rb") as file:
        status = int(file.readline().split()[1])
        length = -1
        for line in iter(file.readline, b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return status, json.loads(file.read(length))


def is_closed(client):
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def open_connections(server):
    return server._uvicorn.server_state.connections


def test_half_open_connections_make_room_for_who_asks(small, connect):
    idle = [connect(half) for half in (b"", b"GET / HTT", GET[:-2] % b"/", b"") for _ in range(10)]
    status, body = reply(connect(GET % b"/api/v0/pipeline/list"))
    assert (status, body) == (200, [{"id": "inference", "status": "Running"}])
    assert len(open_connections(small)) <= 8
    assert all(map(is_closed, idle[:32]))  # those that had waited longest


def test_a_process_with_few_descriptors_has_fewer_connections(monkeypatch):
    for soft, most in ((100_000, 512), (-1, 512), (1024, 512), (256, 128), (4, 8)):
        monkeypatch.setattr(connections.resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert connections.most_connections() == most


def test_who_is_being_answered_is_not_closed_for_others(run, small, connect, monkeypatch):
    monkeypatch.setattr(control, "_STOP_S", 60)
    run.stop_is_stuck = True
    body = b'{"name": "inference"}'
    stop = POST % (b"/api/v0/pipeline/stop", len(body)) + body
    asking = [connect(stop) for _ in range(8)]
    until(lambda: run.stops == 8)  # a new connection waits for nobody either
    assert reply(connect()) == (503, {"error": "all connections are being answered"})
    run.end()
    assert {reply(client)[0] for client in asking} == {200}


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        GET[:-2] % b"/api/v0/report",
        POST % (b"/api/v0/inference/settings", 100) + b"{",
        POST % (b"/none", 100) + b"{",  # answered, but more is to come
        GET % b"/none" + b"GET ",
    ],
)
def test_what_does_not_come_in_time_is_not_waited_for(small, connect, monkeypatch, sent):
    monkeypatch.setattr(connections, "LIMITS_S", {"request": 0.1, "body": 0.1, "reply": 60})
    client = connect(sent)
    until(lambda: not open_connections(small))
    while not is_closed(client):
        pass  # the reply to what it did ask


def test_a_head_that_comes_byte_by_byte_is_not_waited_for(small, connect, monkeypatch):
    monkeypatch.setattr(connections, "LIMITS_S", {"request": 0.3, "body": 60, "reply": 60})
    client = connect(b"GET / HTTP/1.1\r\n")
    until(lambda: open_connections(small))
    pause = threading.Event()
    while open_connections(small):
        with suppress(ConnectionError):
            client.send(b"X: y\r\n")
        pause.wait(0.02)


def deaf(run, connect, size):
    """A client that asks for a picture of `size` bytes and does not read it."""
    screen = run.broadcasts["screen"]
    client = connect(GET % b"/api/v0/streaming/image")
    until(lambda: screen._listeners)
    screen.offer(Picture(1, 1, lambda: bytes(size)))
    until(lambda: not screen._listeners)
    return client


def test_who_does_not_read_is_not_waited_for(run, small, connect, monkeypatch):
    monkeypatch.setattr(connections, "LIMITS_S", {"request": 60, "body": 60, "reply": 0.1})
    deaf(run, connect, 30_000_000)
    until(lambda: not open_connections(small))


def test_replies_that_nobody_reads_are_bounded_in_all(run, small, connect, monkeypatch):
    monkeypatch.setattr(connections, "_UNSENT", 50_000_000)
    first = deaf(run, connect, 30_000_000)
    until(lambda: [it.waits_for for it in open_connections(small)] == ["reply"])
    assert next(iter(open_connections(small))).transport.get_write_buffer_size() < 200_000
    second = deaf(run, connect, 30_000_000)
    until(lambda: len(open_connections(small)) == 1)
    with second.makefile("rb") as file:
        while file.readline() != b"\r\n":
            pass
        assert len(file.read(30_000_000)) == 30_000_000
    with first.makefile("rb") as file, suppress(ConnectionResetError):
        assert len(file.read(30_000_000)) < 30_000_000


def test_a_slow_reader_gets_more_time_whenever_it_has_made_room(run, small, connect):
    client = deaf(run, connect, 30_000_000)
    (connection,) = open_connections(small)
    until(lambda: connection.waits_for == "reply")
    for _ in range(3):
        due = connection._timer.when()
        until(lambda: client.recv(1_000_000) and later(connection._timer, due))  # noqa: B023


def later(timer, due):
    return timer is not None and timer.when() > due


def test_streams_have_places_and_give_them_back(run, small, connect):
    full = (503, {"Error": {"error": "2 streams are open already, which is the limit"}})
    streams = [connect(GET % path) for path in (b"/api/v0/events", b"/api/v0/streaming/video/0")]
    for stream in streams:
        assert stream.recv(15) == b"HTTP/1.1 200 OK"
    for path in (b"/api/v0/events", b"/api/v0/streaming/video/0"):
        assert reply(connect(GET % path)) == full
    streams[0].close()
    until(lambda: reply_head(connect(GET % b"/api/v0/events")) == b"HTTP/1.1 200 OK")


def reply_head(client):
    with client:
        return client.recv(15)


def test_waiting_has_places_so_that_others_are_answered(run, small, connect):
    path = b"/api/v0/streaming/image"
    waiting = [connect(GET % path) for _ in range(5)]
    until(lambda: [it.waits_for for it in open_connections(small)] == [None] * 5)
    assert reply(connect(GET % path)) == (
        503,
        {"Error": {"error": "5 clients wait for messages already, which is the limit"}},
    )
    assert reply(connect(GET % b"/api/v0/pipeline/list"))[0] == 200
    run.cycle()
    for client in waiting:
        assert client.recv(15) == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01",
        POST % (b"/api/v0/inference/settings", 10),  # and then it leaves
        b"POST /none HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        b"POST /api/v0/inference/settings HTTP/1.1\r\nHost: localhost\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\nzz\r\n\r\n",
        GET % b"/none" + b"\x00\r\n\r\n",
    ],
)
def test_rubbish_leaves_nothing_in_the_log(small, connect, capfd, sent):
    with structlog.testing.capture_logs() as logged:
        for _ in range(3):
            client = connect(sent)
            client.shutdown(socket.SHUT_WR)
            while not is_closed(client):
                pass
        until(lambda: not open_connections(small))
    assert logged == []
    assert capfd.readouterr() == ("", "")


def test_rubbish_after_a_reply_leaves_nothing_in_the_log(small, connect, capfd):
    chunked = b"POST /none HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with structlog.testing.capture_logs() as logged:
        client = connect(chunked)
        assert client.recv(13) == b"HTTP/1.1 404 "
        client.sendall(b"zz\r\n\r\n")
        while not is_closed(client):
            pass
    assert logged == []
    assert capfd.readouterr() == ("", "")


def reset(client):
    """End a connection as a browser does that gives up a request: what is still sent is refused."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


async def pieces(clients, given):
    for number in range(1000):
        if number == 2:
            reset(clients.pop())
        given.append(number)
        yield b"piece"


@pytest.mark.parametrize(
    ("answer", "most"),
    [
        (lambda *of: StreamingResponse(pieces(*of)), 10),
        (lambda clients, _: reset(clients.pop()) or Response(bytes(50_000_000)), 0),
    ],
    ids=["long", "large"],
)
def test_a_reply_ends_where_its_client_leaves(small, connect, caplog, capfd, answer, most):
    """Also one whose pieces are all there, so that the loop has no turn in which it hears of that."""
    clients, given, ended = [], [], threading.Event()

    async def app(scope, receive, send):
        try:
            await answer(clients, given)(scope, receive, send)
        finally:
            ended.set()

    small._app.mount("/reply", app)
    clients.append(connect())
    clients[0].sendall(GET % b"/reply/")
    assert ended.wait(240)
    until(lambda: not open_connections(small))
    assert len(given) <= most
    assert (caplog.messages, capfd.readouterr()) == ([], ("", ""))


UPGRADE = b"""\
Connection: Upgrade\r
Upgrade: websocket\r
Sec-WebSocket-Version: 13\r
Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r
\r
"""


def test_a_websocket_ends_where_its_client_leaves(small, connect, caplog, capfd):
    clients, given, ended = [], [], threading.Event()

    async def app(scope, receive, send):
        socket = WebSocket(scope, receive, send)
        await socket.accept()
        try:
            async for piece in pieces(clients, given):
                await socket.send_bytes(piece)
        except WebSocketDisconnect:
            pass
        finally:
            ended.set()

    small._app.mount("/socket", app)
    clients.append(connect())
    clients[0].sendall(GET[:-2] % b"/socket/" + UPGRADE)
    assert ended.wait(240)
    until(lambda: not open_connections(small))
    assert len(given) <= 10
    assert (caplog.messages, capfd.readouterr()) == ([], ("", ""))


@pytest.mark.long
def test_a_run_outlives_more_half_open_connections_than_it_has_descriptors(tmp_path):
    graph = tmp_path / "graph.yaml"
    graph.write_text("tasks: [{id: n, type: Counter, config: {rate_hz: 100}}]")
    command = f"ulimit -n 256; exec {sys.executable} -m flowrun.runtime.cli {graph} --port 0"
    run = subprocess.Popen(
        ["bash", "-c", f"{command} --plain --log-dir {tmp_path}"], stdout=subprocess.PIPE, text=True
    )
    try:
        address = re.search(r"http://\S+", run.stdout.readline() + run.stdout.readline())[0]
        port = int(address.strip("/").rpartition(":")[2])
        with ExitStack() as stack:
            for _ in range(300):
                client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                client.send(b"GET / HTTP/1.1\r\n")
            http = stack.enter_context(httpx.Client(trust_env=False, verify=False))
            before = http.get(f"{address}api/v0/report").json()["cycles"]
            until(lambda: http.get(f"{address}api/v0/report").json()["cycles"] > before + 10)
        run.terminate()
        assert run.wait(30) == 0
    finally:
        run.kill()
        run.communicate()


@pytest.mark.parametrize("path", ["inference/settings", "publish/cam0.number"])
def test_who_sends_too_much_is_told_though_it_sends_all_of_it(connect, path):
    body = bytes(9 << 20)
    client = connect()
    client.sendall(
        f"POST /api/v0/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
    )
    client.sendall(body)
    assert reply(client)[0] == 413
