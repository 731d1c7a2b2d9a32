"""A server is started and stopped."""

import socket
import threading
import time

import pytest

from flowrun.runtime.broadcast import Picture
from flowrun.runtime.errors import UsageError
from flowrun.runtime.server.serve import Server
from support.api_client import asking, events, until


def test_a_taken_port_is_said_with_what_to_do(run, new_server):
    port = new_server(run).port
    with pytest.raises(UsageError) as error:
        Server.start(run, port=port)
    assert str(error.value) == f"port {port} of '127.0.0.1' is taken; port 0 picks a free one"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"port": 70000}, "port 70000 is not a port: give 1 to 65535, or 0 for a free one"),
        (
            {"port": 0, "host": "a" * 64},
            f"host '{'a' * 56}... is no address of this machine: encoding with 'idna' codec failed "
            "(UnicodeError: label too long)",
        ),
        (
            {"port": 0, "host": "192.0.2.1", "token": "x"},
            "host '192.0.2.1' is no address of this machine: Cannot assign requested address",
        ),
    ],
)
def test_an_impossible_address_is_a_usage_error(run, options, error):
    with pytest.raises(UsageError) as raised:
        Server.start(run, **options)
    assert str(raised.value) == error


@pytest.mark.slow
def test_stop_ends_streams_and_waiting_clients_and_leaves_no_thread(new_run):
    before = set(threading.enumerate())
    run = new_run()
    server = Server.start(run, port=0)
    address = ("127.0.0.1", server.port)
    idle = socket.create_connection(address)
    deaf = socket.create_connection(address)  # asks for a video and never reads it
    deaf.sendall(b"GET /api/v0/streaming/video/screen HTTP/1.1\r\nHost: localhost\r\n\r\n")
    until(lambda: run.broadcasts["screen"]._listeners)
    huge = threading.Event()
    run.broadcasts["screen"].offer(Picture(0, 0, lambda: huge.set() or bytes(30_000_000)))
    huge.wait()
    replies = []
    with (
        asking(server) as http,
        http.stream("GET", "/api/v0/streaming/video/small") as video,
        http.stream("GET", "/api/v0/events") as stream,
    ):
        pictures, lines = video.iter_raw(), stream.iter_lines()
        next(pictures)
        next(lines)
        asker = threading.Thread(
            target=lambda: replies.append(http.get("/api/v0/streaming/image/saved?timeout_s=60"))
        )
        asker.start()
        until(lambda: run.broadcasts["saved"]._listeners)
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < 30  # who waits has asked for 60
        asker.join()
        assert replies[0].status_code == 503
        assert replies[0].json() == {"Error": {"error": "the server is stopping"}}
        assert [name for name, _ in events(lines)][-1] == "ended"
        assert list(pictures) == []
    idle.close()
    deaf.close()
    server.stop()  # again is nothing
    assert set(threading.enumerate()) <= before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
