"""Clients that were written for bubbaloop get from a run what they expect."""

import io
import socket
import threading

import numpy as np
import pytest
from PIL import Image

from flowrun.msgs.detections import DetectionsMsg
from flowrun.runtime.run.observed import Detected
from support.fake_run import START_NS
from support.seed_clients import (
    DetectionsClient,
    InferenceClient,
    StreamClient,
    StreamingClient,
)


@pytest.fixture
def run(new_run):
    run = new_run()
    ending = threading.Event()

    def go():  # each cycle answers
        while not ending.wait(0.02):
            run.cycle()

    thread = threading.Thread(target=go)
    thread.start()
    yield run
    ending.set()
    thread.join()


@pytest.fixture
def port(run, new_server):
    return new_server(run).port


def size_of(jpeg):
    return Image.open(io.BytesIO(jpeg)).size


def test_python_inference_polls_images_and_results_and_sets_the_prompt(run, port):
    client = InferenceClient(port)
    assert client.pipelines() == {"inference": "Running"}
    (image_ns, jpeg), (result_ns, prompt, response) = client.poll()
    assert size_of(jpeg) == (640, 360)
    assert START_NS < image_ns < result_ns
    assert (prompt, response) == ("What do you see?", "A red ball rolls.")
    assert client.prompt("answer Is there any human?") is True
    while client.poll()[1][1] != "answer Is there any human?":
        pass
    assert client.documented_result() == "A red ball rolls."
    assert client.stop("inference") == "Pipeline inference stopped"


def test_python_stream_polls_channels(port):
    client = StreamClient(port)
    for channel in (0, 1):
        stamp_ns, jpeg = client.poll(channel)
        assert stamp_ns > START_NS
        assert size_of(jpeg) == (640, 360)


def test_python_streaming_polls_json_and_raw(port):
    client = StreamingClient(port, host="localhost")
    stamp_ns, channel, jpeg = client.poll_json(1)
    assert (stamp_ns > START_NS, channel, size_of(jpeg)) == (True, 1, (640, 360))
    assert size_of(client.poll_raw(1)) == (640, 360)
    assert size_of(client.poll_oldest()) == (640, 360)
    stamp_ns, channel, prompt, response = client.result()
    assert (stamp_ns > START_NS, channel) == (True, 0)
    assert (prompt, response) == ("What do you see?", "A red ball rolls.")


def test_the_client_of_detections_polls_boxes_and_commands_recording(run, port):
    message = DetectionsMsg(
        boxes=np.array([[10, 20, 50, 40]], np.float32),
        scores=np.array([0.5], np.float32),
        labels=["cat"],
        class_ids=np.array([7], np.int32),
        width=640, height=360, frame_id=0, frame_cycle=3, latency_ms=1.0,
    )  # fmt: skip
    message.publish(tov_ns=99)
    run.observed.detecting = ["eye"]
    run.observed.detected.offer(Detected("eye", message))
    client = DetectionsClient(port, host="127.0.0.1")
    assert client.poll() == [(30.0, 30.0, 40.0, 20.0, 0.5, "cat", 7, None)]
    assert client.record("Stop") is True
    assert not run.recording
    assert client.record("Start") is True
    assert run.recording
    assert client.machine() == socket.gethostname()
