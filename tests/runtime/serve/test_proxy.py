"""What is passed on to the server of a pipeline, and how its replies come back."""

import json
import threading
from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from flowrun.runtime.serve.app import create_app
from flowrun.runtime.server.errors import ReplyBroken
from flowrun.runtime.server.listening import listen_at
from flowrun.runtime.server.serve import Server


class Behind:
    """A pipeline's own server, which does what servers of runs do."""

    def __init__(self):
        self.left = threading.Event()
        self.more = threading.Event()
        self.app = app = FastAPI()
        app.state.close = self.more.set

        @app.post("/echo")
        async def echo(request: Request):
            body = await request.body()
            return Response(body, headers={"X-Length": str(len(body)), "X-Mine": "kept"})

        @app.get("/stream")
        async def stream(request: Request):
            async def pieces():
                yield b"first\n"
                while not self.more.is_set():
                    if await request.is_disconnected():
                        self.left.set()
                        return
                yield b"second\n"

            return StreamingResponse(pieces(), media_type="text/event-stream")

        @app.get("/broken")
        async def broken():
            async def pieces():
                yield b"first\n"
                raise ReplyBroken

            return StreamingResponse(pieces())

        @app.websocket("/ws")
        async def ws(websocket: WebSocket):
            await websocket.accept("film" if websocket["subprotocols"] else None)
            await websocket.send_text(websocket.query_params["q"])
            try:
                while True:
                    message = await websocket.receive_bytes()
                    if message == b"end":
                        await websocket.close(4404, "no more")
                        return
                    await websocket.send_bytes(message * 20_000)
            except WebSocketDisconnect:
                self.left.set()

        @app.websocket("/closed")
        async def closed(websocket: WebSocket):
            await websocket.send_denial_response(Response("not here", 418, media_type="text/x"))


@pytest.fixture(scope="module")
def behind():
    return Behind()


@pytest.fixture(scope="module")
def pipeline(behind, tmp_path_factory):
    """What a pipeline with that server is to one that passes on."""
    socket = tmp_path_factory.mktemp("sockets") / "1.sock"
    inner = Server(lambda **_: behind.app, listen_at(socket), host="localhost", token=None)
    inner._begin()
    yield SimpleNamespace(name="cam", socket=socket, is_running=True)
    inner.stop()


@pytest.fixture(scope="module")
def address(pipeline):
    """Where a server listens that passes on."""
    pipelines = SimpleNamespace(
        find=lambda _: pipeline,
        running=lambda: [pipeline],
        place=SimpleNamespace(log_dir=pipeline.socket.with_name("runs")),
    )
    outer = Server.start_app(
        lambda **options: create_app(pipelines, **options), host="127.0.0.1", port=0, token=None
    )
    yield f"127.0.0.1:{outer.port}/pipelines/cam"
    outer.stop()


@pytest.fixture
def client(address, behind):
    behind.left.clear()
    behind.more.clear()
    with httpx.Client(base_url=f"http://{address}", timeout=240, trust_env=False) as client:
        yield client
    behind.more.set()


def test_a_large_body_goes_there_and_back(client):
    body = bytes(range(256)) * 8192
    for content in (
        body,
        (body[start : start + 100_000] for start in range(0, len(body), 100_000)),
    ):
        reply = client.post("/echo", content=content)
        assert reply.content == body
        assert reply.headers["x-mine"] == "kept"
        assert len(reply.headers.get_list("date")) == 1


def test_a_stream_comes_as_it_is_made(client, behind):
    with client.stream("GET", "/stream") as reply:
        pieces = reply.iter_text()
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert next(pieces) == "first\n"
        behind.more.set()
        assert next(pieces) == "second\n"


def test_a_client_that_leaves_ends_its_request(client, behind):
    with client.stream("GET", "/stream") as reply:
        assert next(reply.iter_text()) == "first\n"
    assert behind.left.wait(60)


def test_a_reply_that_breaks_off_is_not_taken_for_whole(client):
    with pytest.raises(httpx.TransportError), client.stream("GET", "/broken") as reply:
        for _ in reply.iter_text():
            pass


def test_a_server_that_is_gone_does_not_answer(client, address, pipeline, monkeypatch):
    monkeypatch.setattr(pipeline, "socket", pipeline.socket.with_name("none.sock"))
    reply = client.get("/echo")
    assert reply.status_code == 503
    assert reply.json() == {"error": "pipeline 'cam' does not answer; it may be starting"}
    with pytest.raises(InvalidStatus) as caught:
        connect(f"ws://{address}/ws", proxy=None)
    assert json.loads(caught.value.response.body) == reply.json()


def test_messages_go_both_ways(address, behind):
    behind.left.clear()
    with connect(
        f"ws://{address}/ws?q=a%20b", subprotocols=["film"], max_size=None, proxy=None
    ) as socket:
        assert socket.subprotocol == "film"
        assert socket.recv() == "a b"
        socket.send(bytes(range(256)))
        assert socket.recv() == bytes(range(256)) * 20_000
    assert behind.left.wait(60)


def test_the_end_of_a_websocket_says_why(address):
    with connect(f"ws://{address}/ws?q=1", proxy=None) as socket:
        assert socket.recv() == "1"
        socket.send(b"end")
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv()
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4404, "no more")


def test_a_refused_websocket_is_refused_in_the_same_words(address, capsys):
    with pytest.raises(InvalidStatus) as caught:
        connect(f"ws://{address}/closed", proxy=None)
    assert caught.value.response.status_code == 418
    assert caught.value.response.body == b"not here"
    assert capsys.readouterr().out == ""  # no error of uvicorn's


def test_the_path_of_a_pipeline_leads_to_its_page(client, address):
    path = f"http://{address}?token=a%20b"
    reply = client.get(path)
    assert (reply.status_code, reply.headers["location"]) == (307, "cam/?token=a%20b")
