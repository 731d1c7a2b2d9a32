"""Pictures, answers and streams of the HTTP API, asked by a real client over a real socket."""

import io
import socket
import threading
import time

import pytest
from PIL import Image

from flowrun.runtime.server import status
from support.api_client import asking, events, until, while_waiting
from support.fake_run import START_NS

# -- pictures and answers --------------------------------------------------------------------------


def test_image_is_the_next_picture_as_jpeg_with_its_time_and_cycle(run, http):
    run.cycle()  # an old one, which must not be given
    reply = while_waiting(run, "screen", lambda: http.get("/api/v0/streaming/image"))
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "image/jpeg"
    assert reply.headers["x-cycle"] == "2"
    assert reply.headers["x-timestamp-nanos"] == str(START_NS + 80_000_000)
    assert Image.open(io.BytesIO(reply.content)).size == (640, 360)


def test_image_as_json_is_the_oldest_form(run, http):
    run.cycle()
    reply = http.get(
        "/api/v0/streaming/image?latest=1", headers={"Accept": "application/json"}
    ).json()
    assert list(reply) == ["Success"]
    assert list(reply["Success"]) == ["stamp_ns", "channel_id", "data", "encoding"]
    assert reply["Success"]["stamp_ns"] == START_NS + 40_000_000
    assert reply["Success"]["channel_id"] == 0
    assert reply["Success"]["encoding"] == "jpeg"
    assert reply["Success"]["data"][:2] == [255, 216]


def test_a_channel_is_a_number_or_a_task(run, http):
    for channel, number in (("0", 0), ("screen", 0), ("1", 1), ("small", 1)):
        run.cycle()
        reply = http.get(
            f"/api/v0/streaming/image/{channel}?latest=1", headers={"Accept": "application/json"}
        )
        assert reply.json()["Success"]["channel_id"] == number


@pytest.mark.parametrize(
    "channel",
    ["2", "-1", "chat", "cam0", "²", "00", "0000000001", "1.0", "+1", "99999999999999999999"],
)
def test_unknown_channel_lists_the_valid_ones(quiet_http, channel):
    reply = quiet_http.get(f"/api/v0/streaming/image/{channel}")
    assert reply.status_code == 404
    assert reply.json() == {
        "Error": {
            "error": f"unknown channel {channel!r}; the channels of pictures are: "
            "0 or screen, 1 or small"
        }
    }


def test_inference_image_is_a_list_of_bytes(run, http):
    run.cycle()
    success = http.get("/api/v0/inference/image?latest=1").json()["Success"]
    assert success["timestamp_nanos"] == START_NS + 40_000_000
    assert success["image"]["encoding"] == "jpeg"
    assert Image.open(io.BytesIO(bytes(success["image"]["data"]))).size == (640, 360)


@pytest.mark.parametrize("path", ["result", "results"])
def test_result_is_the_next_answer_with_the_time_of_its_frame(run, http, path):
    run.cycle()
    reply = while_waiting(run, "chat", lambda: http.get(f"/api/v0/inference/{path}"))
    assert reply.json() == {
        "Success": {
            "timestamp_nanos": START_NS + 80_000_000,
            "prompt": "What do you see?",
            "response": "A red ball rolls.",
            "truncated": False,
            "reasoning": "",
            "latency_ms": 120.0,
            "backend": "embedded",
            "cycle": 2,
        }
    }


def test_result_of_a_channel_has_its_number(run, http):
    run.cycle()
    success = http.get("/api/v0/inference/result/chat?latest=1").json()["Success"]
    assert (success["stamp_ns"], success["channel_id"]) == (START_NS + 40_000_000, 0)
    assert success["response"] == "A red ball rolls."


def test_latest_answer_is_given_at_once_whatever_its_age(run, http):
    run.cycle()
    run.broadcasts["chat"]._offered_at -= 1000
    assert http.get("/api/v0/inference/result?latest=1&timeout_s=0").status_code == 200


def test_latest_picture_that_is_old_is_not_given(run, http):
    run.cycle()
    run.broadcasts["screen"]._offered_at -= 100
    assert http.get("/api/v0/streaming/image?latest=1&timeout_s=0").status_code == 503


def test_no_message_in_time_is_503_and_says_how_to_wait_longer(quiet_http):
    before = time.monotonic()
    reply = quiet_http.get("/api/v0/inference/result?timeout_s=0.2")
    assert time.monotonic() - before >= 0.2
    assert reply.status_code == 503
    assert reply.json() == {
        "Error": {
            "error": "no new answer of task 'chat' within 0.2 s; wait longer with ?timeout_s= "
            "(60 at most), or see /api/v0/report"
        }
    }


def test_a_run_that_ends_answers_who_waits(run, http):
    replies = []
    asker = threading.Thread(target=lambda: replies.append(http.get("/api/v0/inference/result")))
    asker.start()
    until(lambda: run.broadcasts["chat"]._listeners)
    run.end({"Error": "task 'vlm' failed in process, cycle 7: ValueError: no memory"})
    asker.join()
    assert replies[0].status_code == 503
    assert replies[0].json() == {
        "Error": {
            "error": "the run of 'inference' has ended with an error: "
            "task 'vlm' failed in process, cycle 7: ValueError: no memory"
        }
    }


def test_image_and_video_of_an_ended_run_are_503(run, http):
    run.end()
    for path in ("image", "video/screen"):
        reply = http.get(f"/api/v0/streaming/{path}")
        assert reply.status_code == 503
        assert reply.json() == {"Error": {"error": "the run of 'inference' has ended"}}


def test_a_graph_without_such_a_sink_says_so(new_run, new_server):
    with asking(new_server(new_run(types={"cam0": "VideoCapture", "saved": "WriteText"}))) as http:
        reply = http.get("/api/v0/streaming/image")
        assert reply.status_code == 503
        assert reply.json() == {
            "Error": {
                "error": "no task of graph 'inference' shows pictures; its tasks are: cam0, saved"
            }
        }
        assert http.get("/api/v0/inference/result").status_code == 503


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("timeout_s=99", "timeout_s: Input should be less than or equal to 60, got '99'"),
        ("timeout_s=-1", "timeout_s: Input should be greater than or equal to 0, got '-1'"),
        (
            "timeout_s=soon",
            (
                "timeout_s: Input should be a valid number, unable to parse string as a number, "
                "got 'soon'"
            ),
        ),
    ],
)
def test_a_bad_timeout_is_422(quiet_http, query, error):
    reply = quiet_http.get(f"/api/v0/inference/result?{query}")
    assert (reply.status_code, reply.json()) == (422, {"error": error})


# -- streams ---------------------------------------------------------------------------------------


def test_video_is_multipart_and_every_part_is_complete_at_once(run, http):
    with http.stream("GET", "/api/v0/streaming/video/screen") as reply:
        assert reply.headers["content-type"] == (
            "multipart/x-mixed-replace; boundary=flowrun-frame"
        )
        raw, seen = b"", reply.iter_raw()
        for cycle in (1, 2):
            until(lambda: run.broadcasts["screen"]._listeners)
            run.cycle()
            while raw.count(b"--flowrun-frame\r\n") < cycle + 1:
                raw += next(seen)
            head, _, jpeg = raw.split(b"--flowrun-frame\r\n")[cycle].partition(b"\r\n\r\n")
            assert f"X-Cycle: {cycle}".encode() in head
            assert Image.open(io.BytesIO(jpeg)).size == (640, 360)


def test_events_tell_answers_statistics_and_the_end(run, http):
    run.cycle()
    with http.stream("GET", "/api/v0/events") as reply:
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        stream = events(reply.iter_lines())
        first = dict([next(stream), next(stream)])
        assert first["result"] == {
            "task": "chat",
            "timestamp_nanos": START_NS + 40_000_000,
            "prompt": "What do you see?",
            "response": "A red ball rolls.",
            "truncated": False,
            "reasoning": "",
            "latency_ms": 120.0,
            "backend": "embedded",
            "cycle": 1,
            "tokens": 7,
            "event_type": "INFERENCE_COMPLETED",
        }
        assert first["statistics"]["id"] == "inference"
        assert first["statistics"]["live"] == {"vlm": ["prompt", "max_new_tokens"]}
        run.end({"Error": "full disk"})
        name, last = list(stream)[-1]
        assert (name, last["status"]) == ("ended", {"Error": "full disk"})


def test_streams_share_the_statistics(run, http, monkeypatch):
    monkeypatch.setattr(status, "_RECENT_S", 100.0)
    reports, real = [], run.report
    monkeypatch.setattr(run, "report", lambda: reports.append(1) or real())
    for _ in range(3):
        with http.stream("GET", "/api/v0/events") as reply:
            assert next(events(reply.iter_lines()))[0] == "statistics"
    assert reports == [1]


def test_events_tell_an_answer_as_far_as_it_is(run, http):
    run.cycle()
    with http.stream("GET", "/api/v0/events") as reply:
        stream = events(reply.iter_lines())
        next(stream)
        until(lambda: run.broadcasts["vlm"].watched)
        run.part("A red")
        assert next(part for name, part in stream if name == "partial") == {
            "task": "vlm",
            "timestamp_nanos": START_NS + 40_000_000,
            "cycle": 2,
            "prompt": "What do you see?",
            "text": "A red",
        }
        run.end()


def test_three_hundred_waiting_clients_get_one_encoding(run, new_server):
    server = new_server(run)
    request = (
        b"GET /api/v0/streaming/image?timeout_s=60 HTTP/1.1\r\n"
        b"Host: localhost\r\nConnection: close\r\n\r\n"
    )
    threads = threading.active_count()
    clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(300)]
    for client in clients:
        client.sendall(request)
    # They are all in when a report that was asked for later has been answered.
    with asking(server) as http:
        until(lambda: run.broadcasts["screen"]._listeners)
        for _ in range(3):
            assert http.get("/api/v0/report").status_code == 200
    assert threading.active_count() <= threads + 1
    before = time.thread_time()
    run.cycle()
    assert time.thread_time() - before < 0.01  # however many they are, the cycle wakes one loop
    for client in clients:
        with client, client.makefile("rb") as file:
            assert file.readline() == b"HTTP/1.1 200 OK\r\n"
    assert run.encoded == 1


def test_a_sink_counts_as_watched_while_a_client_waits(run, http):
    screen = run.broadcasts["screen"]
    assert not screen.watched
    reply = while_waiting(run, "screen", lambda: http.get("/api/v0/streaming/image"))
    assert reply.status_code == 200
    until(lambda: not screen._listeners)
    assert screen.watched  # for some seconds more, for a client that asks again and again


# -- forms of pictures -----------------------------------------------------------------------------

OLDEST = ["stamp_ns", "channel_id", "data", "encoding"]


@pytest.mark.parametrize(
    ("path", "accept", "form"),
    [
        ("streaming/image", None, "jpeg"),
        ("streaming/image", "*/*", "jpeg"),
        ("streaming/image", "application/json", OLDEST),
        ("streaming/image", "application/json, image/jpeg", "jpeg"),
        ("streaming/image?format=json", "image/jpeg", OLDEST),
        ("streaming/image/1?format=json", None, OLDEST),
        ("streaming/image/small?format=jpeg", "application/json", "jpeg"),
        ("inference/image", None, ["timestamp_nanos", "image"]),
        ("inference/image", "*/*", ["timestamp_nanos", "image"]),
        ("inference/image/0", None, ["timestamp_nanos", "image"]),
        ("inference/image/small", "image/avif,image/webp,*/*;q=0.8", "jpeg"),
        ("inference/image/1?format=jpeg", "application/json", "jpeg"),
    ],
)
def test_a_picture_has_the_form_that_is_asked_for(run, http, path, accept, form):
    run.cycle()
    headers = {} if accept is None else {"Accept": accept}
    reply = http.get(f"/api/v0/{path}{'&' if '?' in path else '?'}latest=1", headers=headers)
    assert reply.status_code == 200
    assert reply.headers["x-cycle"] == "1"
    if form == "jpeg":
        assert reply.headers["content-type"] == "image/jpeg"
        assert reply.content[:2] == b"\xff\xd8"
    else:
        assert list(reply.json()["Success"]) == form


def test_a_form_that_there_is_not_is_refused(quiet_http):
    reply = quiet_http.get("/api/v0/streaming/image?format=png")
    assert reply.status_code == 422
    assert reply.json() == {"error": "format: Input should be 'jpeg' or 'json', got 'png'"}


def test_channels_have_the_numbers_that_the_run_says(new_run, new_server):
    run = new_run()
    run.channels = {"screen": 5, "small": 2, "chat": 9}
    run.cycle()
    with asking(new_server(run)) as http:
        first = http.get("/api/v0/streaming/image?latest=1&format=json").json()
        assert first["Success"]["channel_id"] == 2
        other = http.get("/api/v0/streaming/image/5?latest=1&format=json").json()
        assert other["Success"]["channel_id"] == 5
        answer = http.get("/api/v0/inference/result/9?latest=1").json()
        assert answer["Success"]["channel_id"] == 9
        assert http.get("/api/v0/streaming/image/0").json() == {
            "Error": {
                "error": "unknown channel '0'; the channels of pictures are: 2 or small, 5 or screen"
            }
        }
