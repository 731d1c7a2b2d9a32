"""Pictures over a WebSocket, asked by a real client over a real socket."""

import asyncio
import json
import socket
import threading
from dataclasses import replace

import numpy as np
import pytest
from starlette.websockets import WebSocket
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from flowrun.msgs.image import ImageRgb8Msg, VideoDecoder, VideoPackets
from flowrun.runtime.live_video import LiveVideo
from flowrun.runtime.server import connections
from flowrun.runtime.server.video import Video
from support.fake_run import START_NS

SPS = b"\x00\x00\x00\x01\x67\x4d\x40\x1f" + bytes(20)
DECODER = VideoDecoder("h264", b"", 1280, 720, "yuv420p", "", 0, 0, (2, 0))


def offer(run, cycle, *, begins=False, size=40, decoder=DECODER, is_damaged=False):
    image = ImageRgb8Msg(
        pixels=np.zeros((2, 2, 3), np.uint8), frame_id=0, pts=None, fps=30.0, source="cam"
    )
    data = (SPS if begins else b"\x00\x00\x01\x41") + bytes(size)
    image.video = VideoPackets(
        decoder, ((data, begins),), cycle, cycle, 0, begins=begins, drained=False,
        is_damaged=is_damaged,
    )  # fmt: skip
    image.publish(tov_ns=1_000 + cycle)
    run.observed.videos["cam0"].offer(cycle, image)


@pytest.fixture
def run(new_run):
    run = new_run()
    run.observed.videos = {"cam0": LiveVideo()}
    run.shows["cam0"] = "video"
    return run


@pytest.fixture
def server(run, new_server):
    return new_server(run)


def watching(server, channel="cam0", query="?format=packets", **options):
    address = f"ws://127.0.0.1:{server.port}/api/v0/streaming/ws/{channel}{query}"
    return connect(address, compression=None, proxy=None, max_size=None, **options)


def until(condition):
    while not condition():
        threading.Event().wait(0.005)


def cycle_of(message):
    return int.from_bytes(message[8:16], "little")


def test_packets_come_after_their_configuration(run, server):
    offer(run, 7, begins=True)
    offer(run, 8)
    with watching(server) as viewer:
        assert json.loads(viewer.recv(60)) == {
            "type": "config", "task": "cam0", "format": "h264", "codec": "avc1.4d401f",
            "description": None, "width": 1280, "height": 720, "orientation": 1, "fps": 30.0,
            "pixel_aspect": 1.0, "lost": 0,
            "color_space": {
                "primaries": "bt709", "transfer": "bt709", "matrix": "smpte170m", "fullRange": False,
            },
        }  # fmt: skip
        assert [cycle_of(viewer.recv(60)) for _ in range(2)] == [7, 8]
        offer(run, 9)
        message = viewer.recv(60)
        assert message[:8] == b"\x01\x00\x00\x00\x01\x00\x00\x00"
        numbers = [int.from_bytes(message[at : at + 8], "little") for at in range(8, 40, 8)]
        assert numbers == [9, 1_009, 9, 9]
        assert message[40:44] == (44).to_bytes(4, "little")
        assert message[44:] == b"\x00\x00\x01\x41" + bytes(40)


@pytest.mark.parametrize(
    ("pixels", "color", "said"),
    [
        (
            "yuv420p",
            (2, 0),
            ("smpte170m", False),
        ),  # nothing is said: as the run's own pixels are made
        ("yuv420p", (1, 1), ("bt709", False)),
        ("yuv420p", (6, 2), ("smpte170m", True)),
        ("yuv420p10le", (9, 1), ("bt2020-ncl", False)),
        ("yuvj420p", (5, 0), ("bt470bg", True)),
    ],
)
def test_a_browser_is_given_the_colours_that_the_run_sees(run, server, pixels, color, said):
    offer(run, 1, begins=True, decoder=replace(DECODER, pixel_format=pixels, color=color))
    with watching(server) as viewer:
        space = json.loads(viewer.recv(60))["color_space"]
    assert (space["matrix"], space["fullRange"]) == said


def test_jpegs_come_with_their_cycle_and_time_if_that_is_asked_for(run, server):
    run.start()
    with watching(server, "screen", "?stamps=1") as viewer:
        for _ in range(2):
            stamp = json.loads(viewer.recv(60))
            assert stamp == {
                "type": "picture", "cycle": stamp["cycle"],
                "timestamp_nanos": START_NS + int(stamp["cycle"] / run.rate_hz * 1e9),
            }  # fmt: skip
            assert viewer.recv(60).startswith(b"\xff\xd8")
    with watching(server, "screen", "") as viewer:
        assert [type(viewer.recv(60)) for _ in range(3)] == [bytes] * 3


def test_a_channel_is_a_camera_or_a_sink_that_shows_it(run, server):
    offer(run, 1, begins=True)
    for channel in ("cam0", "screen", "0", "small", "1"):
        with watching(server, channel) as viewer:
            assert json.loads(viewer.recv(60))["task"] == "cam0"


def test_a_camera_that_changes_its_size_sends_another_configuration(run, server):
    offer(run, 1, begins=True)
    with watching(server) as viewer:
        assert [type(viewer.recv(60)) for _ in range(2)] == [str, bytes]
        offer(run, 2, begins=True)
        assert cycle_of(viewer.recv(60)) == 2
        offer(run, 3, begins=True, decoder=VideoDecoder(*[*DECODER_FIELDS[:2], 640, 480, *REST]))
        assert json.loads(viewer.recv(60))["width"] == 640
        assert cycle_of(viewer.recv(60)) == 3


DECODER_FIELDS = ("h264", b"")
REST = ("yuv420p", "", 0, 0, (2, 0))


def test_a_slow_viewer_goes_on_at_the_next_key_frame_and_is_sent_what_it_has_lost(run, server):
    offer(run, 0, begins=True)
    with watching(server) as viewer:
        assert [type(viewer.recv(60)) for _ in range(2)] == [str, bytes]
        viewer.socket.settimeout(None)
        # Nobody reads: the socket and the server's buffer fill, and the rest waits in the run.
        for cycle in range(1, 400):
            offer(run, cycle, begins=cycle % 100 == 0, size=60_000)
        known, cycles, lost = True, [0], 0
        while cycles[-1] < 399:
            message = viewer.recv(60)
            if isinstance(message, str):
                lost = json.loads(message)["lost"]
                known = False
            else:
                if known:
                    assert cycle_of(message) == cycles[-1] + 1
                else:
                    assert cycle_of(message) % 100 == 0
                cycles.append(cycle_of(message))
                known = True
        assert lost == 400 - len(cycles)
        assert lost > 0


def test_a_viewer_that_never_reads_is_closed(run, server, monkeypatch):
    monkeypatch.setitem(connections.LIMITS_S, "reply", 0.05)
    offer(run, 0, begins=True)
    video = run.observed.videos["cam0"]
    with socket.create_connection(("127.0.0.1", server.port), 60) as client:
        lines = [
            "GET /api/v0/streaming/ws/cam0?format=packets HTTP/1.1", "Host: localhost",
            "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", "",
        ]  # fmt: skip
        client.sendall("\r\n".join(lines).encode())
        until(lambda: video._listeners)
        for cycle in range(1, 400):
            offer(run, cycle, size=60_000)
        until(lambda: not video._listeners)


def test_without_a_format_each_message_is_a_jpeg(run, server):
    with watching(server, "screen", "") as viewer:
        until(lambda: run.broadcasts["screen"].watched)
        run.cycle()
        assert viewer.recv(60)[:2] == b"\xff\xd8"


@pytest.mark.parametrize(
    ("channel", "query", "reason"),
    [
        (
            "chat",
            "?format=packets",
            "unknown channel 'chat'; the channels of pictures are: 0 or screen, 1 or small",
        ),
        (
            "9",
            "",
            "unknown channel '9'; the channels of pictures are: 0 or screen, 1 or small",
        ),
    ],
)
def test_a_channel_without_pictures_is_closed_with_the_reason(run, server, channel, query, reason):
    with watching(server, channel, query) as viewer, pytest.raises(ConnectionClosed) as closed:
        viewer.recv(60)
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4404, reason)


def test_a_camera_whose_pictures_have_no_packets_says_so(run, server):
    with watching(server) as viewer:
        image = ImageRgb8Msg(
            pixels=np.zeros((2, 2, 3), np.uint8), frame_id=0, pts=None, fps=30.0, source="cam"
        )
        image.publish(tov_ns=1)
        run.observed.videos["cam0"].offer(0, image)
        with pytest.raises(ConnectionClosed) as closed:
            viewer.recv(60)
    assert closed.value.rcvd.code == 4404
    assert closed.value.rcvd.reason == "its pictures come without packets: ask for JPEGs"


def test_after_a_damaged_picture_viewers_are_told_and_go_on_at_the_next_key_frame(run, server):
    gap = {"type": "gap", "reason": "packets of its pictures were missing or damaged"}
    offer(run, 0, begins=True)
    with watching(server) as before:
        assert [type(before.recv(60)) for _ in range(2)] == [str, bytes]
        offer(run, 1, is_damaged=True)
        assert json.loads(before.recv(60)) == gap
        with watching(server) as during:
            assert json.loads(during.recv(60)) == gap
            offer(run, 2)
            offer(run, 3, begins=True)
            for viewer, lost in ((before, 2), (during, 0)):
                config = json.loads(viewer.recv(60))
                assert (config["type"], config["lost"]) == ("config", lost)
                assert cycle_of(viewer.recv(60)) == 3
        offer(run, 4, is_damaged=True)
        assert json.loads(before.recv(60)) == gap


def test_viewers_are_given_the_end_of_the_run_and_of_the_server(run, server):
    offer(run, 0, begins=True)
    with watching(server) as one, watching(server) as other:
        for viewer in (one, other):
            assert [type(viewer.recv(60)) for _ in range(2)] == [str, bytes]
        server.stop()
        with pytest.raises(ConnectionClosed) as closed:
            one.recv(60)
        assert closed.value.rcvd.code in (1001, 1012)


def test_the_end_of_the_run_closes_with_1000(run, server):
    offer(run, 0, begins=True)
    with watching(server) as viewer:
        assert [type(viewer.recv(60)) for _ in range(2)] == [str, bytes]
        run.end()
        with pytest.raises(ConnectionClosed) as closed:
            viewer.recv(60)
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1000, "the run has ended")


def test_another_sites_page_may_not_watch(run, server):
    with pytest.raises(InvalidStatus) as refused:
        watching(server, origin="http://evil.example")
    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body) == {
        "error": "a page of 'http://evil.example' may not watch the run of "
        f"'127.0.0.1:{server.port}'"
    }
    with watching(server, origin=f"http://127.0.0.1:{server.port}"):
        pass


def test_a_viewer_needs_the_token(run, new_server):
    server = new_server(run, token="geheim")
    with pytest.raises(InvalidStatus) as refused:
        watching(server)
    assert refused.value.response.status_code == 401
    with watching(server, query="?format=packets&token=geheim"):
        pass


def test_viewers_take_the_places_of_streams(run, server, monkeypatch):
    offer(run, 0, begins=True)
    monkeypatch.setattr(server._app.state.channels.streams, "_most", 1)
    with watching(server) as viewer:
        viewer.recv(60)
        with watching(server) as other, pytest.raises(ConnectionClosed) as closed:
            other.recv(60)
    assert closed.value.rcvd.code == 1013
    assert closed.value.rcvd.reason == "1 streams are open already, which is the limit"


def test_what_is_no_websocket_is_refused(run, server):
    with socket.create_connection(("127.0.0.1", server.port), 60) as client:
        client.sendall(b"GET /api/v0/streaming/ws/cam0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("step", ["websocket.accept", "websocket.send", "websocket.close"])
def test_a_viewer_may_leave_at_any_step(run, server, step):
    offer(run, 0, begins=True)
    run.observed.videos["cam0"].close()
    steps = []

    async def receive():
        if not steps:
            return {"type": "websocket.connect"}
        await asyncio.Event().wait()
        raise AssertionError("nothing comes")

    async def send(message):
        steps.append(message["type"])
        if message["type"] == step:
            raise ConnectionResetError("gone")

    scope = {
        "type": "websocket",
        "path": "/api/v0/streaming/ws/cam0",
        "headers": [],
        "subprotocols": [],
    }
    video = Video(server._app.state.channels)
    asyncio.run(video.watch(WebSocket(scope, receive, send), "cam0", "packets"))
    assert steps[-1] == step
