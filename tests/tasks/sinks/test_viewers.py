"""`RerunSink` and `FoxgloveSink`: what their viewers get."""

from __future__ import annotations

import io
import json
import struct

import numpy as np
import pytest
from PIL import Image
from websockets.sync.client import connect

from flowrun.msgs import DetectionsMsg, ImageRgb8Msg, IntMsg, PromptResponseMsg
from flowrun.runtime.errors import GraphError, UsageError
from flowrun.runtime.export.live import FoxgloveViewer, LiveMessage
from flowrun.runtime.testing import run_task
from flowrun.tasks.sinks.viewers import FoxgloveSink, RerunSink
from support.sink_tasks import run_graph


def cycles(count=3, aspect=1.0):
    found = []
    for at in range(count):
        image = ImageRgb8Msg(pixels=np.full((48, 64, 3), 50, np.uint8), pixel_aspect=aspect)
        boxes = DetectionsMsg(
            boxes=np.array([[4, 4, 20, 30]], np.float32),
            scores=np.array([0.5], np.float32),
            labels=["cat"],
            class_ids=np.array([-1], np.int32),
        )
        answer = PromptResponseMsg(prompt="what", response="a cat")
        inputs = {"image": image, "detections": boxes, "answer": answer}
        found.append(inputs | {"message": IntMsg(value=at)})
    for at, inputs in enumerate(found):
        for message in inputs.values():
            message.publish(tov_ns=10**18 + at * 10**8)
    return found


def test_a_recording_of_rerun_holds_what_was_connected(tmp_path):
    chunk = pytest.importorskip("rerun.chunk", reason="rerun-sdk is not in the dev extra")
    for _ in range(2):
        run_task(RerunSink, inputs=cycles(), config={"path": "out.rrd"}, graph_dir=tmp_path)
    assert sorted(it.name for it in tmp_path.iterdir()) == ["out-2.rrd", "out.rrd"]
    found = {}
    for piece in chunk.RrdReader(tmp_path / "out.rrd").stream().to_chunks():
        rows = piece.to_record_batch()
        for name in rows.schema.names:
            found.setdefault((piece.entity_path, name), []).extend(rows[name].to_pylist())
    [jpeg] = found["/inputs/image", "EncodedImage:blob"][0]
    assert Image.open(io.BytesIO(bytes(jpeg))).size == (64, 48)
    assert [it[0] for it in found["/inputs/message/value", "Scalars:scalars"]] == [0.0, 1.0, 2.0]
    assert found["/inputs/detections", "Boxes2D:labels"][0] == ["cat 0.50"]
    assert found["/inputs/answer", "TextLog:text"][0] == ["what: a cat"]


def test_foxglove_gets_what_was_connected():
    viewer = FoxgloveViewer("run", host="127.0.0.1", port=0)
    try:
        with connect(viewer.where, subprotocols=["foxglove.sdk.v1"]) as socket:
            json.loads(socket.recv(timeout=240))
            [first, *_] = cycles(aspect=2.0)
            for port, message in first.items():
                viewer.show(LiveMessage(message.view().copy(), f"/cam/{port}", 5, 10**18))
            names = {}
            while len(names) < 6:
                advertised = json.loads(socket.recv(timeout=240))
                names |= {it["topic"]: it["id"] for it in advertised["channels"]}
            assert set(names) == {
                "/cam/image",
                "/cam/detections",
                "/cam/detections/annotations",
                "/cam/answer",
                "/cam/answer/log",
                "/cam/message",
            }
            wanted = [{"id": 7, "channelId": names["/cam/message"]}]
            socket.send(json.dumps({"op": "subscribe", "subscriptions": wanted}))
            came = None
            while came is None:  # subscribing takes a moment
                viewer.show(LiveMessage(first["message"].view().copy(), "/cam/message", 5, 10**18))
                try:
                    came = socket.recv(timeout=0.05)
                except TimeoutError:
                    continue
        _, time_ns = struct.unpack_from("<IQ", came, 1)
        assert (time_ns, json.loads(came[13:])) == (10**18, {"value": 0})
    finally:
        viewer.close()


def test_the_sink_says_where_the_app_connects_and_a_port_is_taken_once(tmp_path, capfd):
    run_task(FoxgloveSink, inputs=cycles(1), config={"port": 0})
    assert "where=ws://127.0.0.1:" in "".join(capfd.readouterr())
    viewer = FoxgloveViewer("run", host="127.0.0.1", port=0)
    port = int(viewer.where.rpartition(":")[2])
    with pytest.raises(UsageError, match=f"cannot serve Foxglove at port {port} of '127.0.0.1'"):
        run_task(FoxgloveSink, inputs=cycles(1), config={"port": port})
    viewer.close()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("RerunSink", "RerunSink needs rerun-sdk: pip install 'flowrun-runtime[rerun]'"),
        (
            "FoxgloveSink",
            "FoxgloveSink needs foxglove-sdk: pip install 'flowrun-runtime[foxglove]'",
        ),
    ],
)
def test_a_missing_package_is_named_before_the_run(tmp_path, monkeypatch, kind, said):
    monkeypatch.setattr("flowrun.runtime.extras.importlib.util.find_spec", lambda _: None)
    with pytest.raises(GraphError) as raised:
        run_graph(
            tmp_path,
            f"tasks: [{{id: n, type: Counter}}, {{id: out, type: {kind}}}]\n"
            "cnx: [{src: n, dst: out.message, msg: IntMsg}]",
        )
    [problem] = raised.value.problems
    assert (problem.message, problem.where.line) == (said, 1)
