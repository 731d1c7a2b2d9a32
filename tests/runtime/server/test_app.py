"""The HTTP API, asked by a real client over a real socket."""

import io
import json
import socket
import subprocess
import sys
import threading
import time
from functools import cache
from urllib.parse import unquote

import httpx
import pytest
import structlog
from PIL import Image

from flowrun.runtime.broadcast import Broadcast, Picture
from flowrun.runtime.errors import UsageError
from flowrun.runtime.server import control, guard, status
from flowrun.runtime.server.app import create_app
from flowrun.runtime.server.serve import Server
from support.api_schema import ApiSchema
from support.fake_run import START_NS, FakeRun


def must_be_described(reply):
    """The API's own description allows the reply, of whatever test."""
    request, body = reply.request, None
    content_type = reply.headers.get("content-type", "")
    if content_type == "application/json":
        body = json.loads(reply.read() or "null")
    path = unquote(request.url.path)
    problem = schema().problem(request.method, path, reply.status_code, content_type, body)
    assert problem is None


@cache
def schema():
    return ApiSchema(create_app(FakeRun()).openapi())


def asking(server):
    address, _, query = server.url.partition("?")
    headers = {"Authorization": f"Bearer {query.removeprefix('token=')}"} if query else {}
    # verify=False: no certificates to load, which takes longer than most of these tests.
    return httpx.Client(
        base_url=address,
        headers=headers,
        timeout=10,
        trust_env=False,
        verify=False,
        event_hooks={"response": [must_be_described]},
    )


@pytest.fixture
def run(new_run):
    return new_run()


@pytest.fixture
def http(run, new_server):
    with asking(new_server(run)) as client:
        yield client


@pytest.fixture
def quiet_http(quiet):
    with asking(quiet[1]) as client:
        yield client


def until(condition, timeout_s=5.0):
    """For conditions of other threads that nothing announces."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def while_waiting(run, task, ask):
    """The reply to `ask()`, with a cycle made once it waits at the task's sink."""
    replies = []
    asker = threading.Thread(target=lambda: replies.append(ask()))
    asker.start()
    until(lambda: run.broadcasts[task]._listeners)
    run.cycle()
    asker.join()
    return replies[0]


# -- pictures and answers -----------------------------------------------------------------------


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
    run.broadcasts["screen"]._offered_at -= 2
    assert http.get("/api/v0/streaming/image?latest=1&timeout_s=0").status_code == 503


def test_no_message_in_time_is_503_and_says_how_to_wait_longer(quiet_http):
    before = time.monotonic()
    reply = quiet_http.get("/api/v0/inference/result?timeout_s=0.2")
    assert 0.2 <= time.monotonic() - before < 1.5
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


# -- streams ------------------------------------------------------------------------------------


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


def events(lines):
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


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


# -- settings and the pipeline ------------------------------------------------------------------


def test_settings_go_to_every_task_with_the_key(run, http):
    reply = http.post("/api/v0/inference/settings", json={"prompt": "Is there any human?"})
    assert (reply.status_code, reply.json()) == (200, {"success": True})
    reply = http.post("/api/v0/inference/settings", json={"task": "vlm", "max_new_tokens": 9})
    assert (reply.status_code, reply.json()) == (200, {"success": True})
    assert run.set == [("vlm", {"prompt": "Is there any human?"}), ("vlm", {"max_new_tokens": 9})]


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (
            422,
            '{"promt": "x"}',
            "unknown key 'promt'; keys that may be set: prompt, max_new_tokens (did you mean 'prompt'?)",
        ),
        (
            422,
            '{"prompt": "x", "a": 1, "b": 2}',
            "unknown key 'a', 'b'; keys that may be set: prompt, max_new_tokens",
        ),
        (
            422,
            '{"task": "cam0", "prompt": "x"}',
            "unknown task 'cam0'; tasks with keys that may be set: vlm",
        ),
        (
            422,
            '{"task": ["vlm"], "prompt": "x"}',
            "task: must be a text; got a list",
        ),
        (
            422,
            '{"prompt": 7}',
            "vlm.prompt: must be a text; got 7",
        ),
        (422, "{}", "nothing to set; keys that may be set: prompt, max_new_tokens"),
        (422, "[1]", "the body must be a JSON object, got list"),
        (
            400,
            '{"prompt": ',
            "the body is not JSON: EOF while parsing a value at line 1 column 11",
        ),
        (400, "", "the body is not JSON: EOF while parsing a value at line 1 column 0"),
        (413, '"' + 300_000 * "x" + '"', "the body is larger than 262144 bytes"),
    ],
)
def test_a_bad_setting_is_refused_whole(quiet, quiet_http, status, body, error):
    reply = quiet_http.post("/api/v0/inference/settings", content=body)
    assert (reply.status_code, reply.json()) == (status, {"error": error})
    assert quiet[0].set == []


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b'{"prompt": ' + b"[" * 900 + b"]" * 900 + b"}",
        b"\xff\xfe\x00",
        b'{"prompt": "\xff"}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": NaN}',
        b'{"prompt": -Infinity}',
        b'{"prompt": 1e999}',
        b'{"prompt": %s}' % (b"9" * 5000),
        b'{"prompt": "a", "prompt": "b"}',
        b'\xef\xbb\xbf{"prompt": "a"}',
        '{"prompt": "a"}'.encode("utf-16"),
        b"prompt=a",
    ],
)
def test_a_body_of_rubbish_is_400(quiet_http, body):
    reply = quiet_http.post("/api/v0/inference/settings", content=body)
    assert reply.status_code == 400
    assert reply.json()["error"].startswith("the body is not JSON: ")


def test_settings_of_an_ended_run_are_503(run, http):
    run.end()
    reply = http.post("/api/v0/inference/settings", json={"prompt": "x"})
    assert (reply.status_code, reply.json()) == (
        503,
        {"error": "Failed to send inference settings: the run of 'inference' has ended"},
    )


def test_pipeline_list_tells_the_state(run, http):
    assert http.get("/api/v0/pipeline/list").json() == [{"id": "inference", "status": "Running"}]
    run.end({"Error": "task 'vlm' failed"})
    assert http.get("/api/v0/pipeline/list").json() == [
        {"id": "inference", "status": {"Error": "task 'vlm' failed"}}
    ]


@pytest.mark.parametrize("key", ["pipeline_id", "name"])
def test_pipeline_stop_ends_the_run(run, http, key):
    reply = http.post("/api/v0/pipeline/stop", json={key: "inference"})
    assert (reply.status_code, reply.json()) == (200, {"message": "Pipeline inference stopped"})
    assert run.state() == "Stopped"


@pytest.mark.parametrize(
    "body",
    [{"name": "other"}, {}, {"name": ["inference"]}, {"pipeline_id": "inference", "name": "x"}],
)
def test_pipeline_stop_of_another_is_400(run, http, body):
    reply = http.post("/api/v0/pipeline/stop", json=body)
    assert (reply.status_code, reply.json()) == (400, {"error": "Pipeline not found"})
    assert run.state() == "Running"


def test_pipeline_stop_returns_even_when_a_task_is_stuck(run, http, monkeypatch):
    assert control._STOP_S < 5
    monkeypatch.setattr(control, "_STOP_S", 0.1)
    run.stop_is_stuck = True
    reply = http.post("/api/v0/pipeline/stop", json={"name": "inference"})
    assert (reply.status_code, reply.json()) == (
        202,
        {"message": "Pipeline inference is stopping: a task has not returned yet"},
    )


@pytest.mark.parametrize(
    ("verb", "state", "done"),
    [
        ("pause", "paused", "paused"),
        ("mute", "muted", "muted"),
        ("resume", "running", "resumed"),
    ],
)
def test_a_source_or_all_sources_are_switched(run, http, verb, state, done):
    for body, what in [
        ({"source": "cam0"}, "Source cam0"),
        ({"pipeline_id": "inference"}, "Pipeline inference"),
        ({"name": "inference", "source": "cam0"}, "Source cam0"),
    ]:
        reply = http.post(f"/api/v0/pipeline/{verb}", json=body)
        assert (reply.status_code, reply.json()) == (
            200,
            {"message": f"{what} {done}", "sources": {"cam0": state}},
        )
    assert run.switched == [("cam0", state)] * 3
    assert http.get("/api/v0/report").json()["tasks"]["cam0"]["state"] == state


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"source": "cam1"}, 404, "unknown source 'cam1'; sources: cam0"),
        ({"source": "vlm"}, 404, "unknown source 'vlm'; sources: cam0"),
        ({"source": ["cam0"]}, 404, "unknown source a list; sources: cam0"),
        ({"source": None}, 404, "unknown source nothing; sources: cam0"),
        ({"pipeline_id": "other", "source": "cam0"}, 400, "Pipeline not found"),
        ({}, 422, "nothing to switch; give a source, or the pipeline_id for all of them"),
        ({"task": "cam0"}, 422, "unknown key 'task'; keys: source, pipeline_id, name"),
    ],
)
def test_what_cannot_be_switched_is_an_error_and_changes_nothing(run, http, body, status, error):
    reply = http.post("/api/v0/pipeline/pause", json=body)
    assert (reply.status_code, reply.json()) == (status, {"error": error})
    assert run.switched == []


def test_sources_that_have_ended_cannot_be_switched(run, http):
    run.playback = "ended"
    reply = http.post("/api/v0/pipeline/pause", json={"name": "inference"})
    assert (reply.status_code, reply.json()) == (409, {"error": "every source has ended"})
    run.refuses_switches = True
    reply = http.post("/api/v0/pipeline/pause", json={"source": "cam0"})
    assert (reply.status_code, reply.json()) == (
        409,
        {"error": "source 'cam0' has ended; nothing more comes from it"},
    )
    run.end()
    reply = http.post("/api/v0/pipeline/resume", json={"source": "cam0"})
    assert (reply.status_code, reply.json()) == (
        503,
        {"error": "the run of 'inference' has ended"},
    )


def test_config_is_the_graph_as_json(run, http):
    graph = http.get("/api/v0/pipeline/config?pipeline_id=inference").json()
    assert [task["id"] for task in graph["tasks"]] == list(run.task_types)
    assert graph["limit"] == "inf"  # which JSON has not
    reply = http.get("/api/v0/pipeline/config?pipeline_id=other")
    assert (reply.status_code, reply.json()) == (
        404,
        {"error": "Pipeline not found: 'other'; the pipeline is 'inference'"},
    )


def test_report_is_that_of_the_run_with_its_state(run, http):
    run.cycle()
    report = http.get("/api/v0/report").json()
    assert (report["id"], report["status"], report["cycles"]) == ("inference", "Running", 1)
    assert report["tasks"]["vlm"]["p50_us"] == 81_400.0


# -- the rest of the app ------------------------------------------------------------------------


def test_index_is_text_for_curl_and_a_page_for_browsers(quiet_http):
    text = quiet_http.get("/", headers={"Accept": "*/*"})
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    assert text.text.startswith("flowrun: graph 'inference': Running\n\nGET  /api/v0/")
    assert "POST /api/v0/inference/settings" in text.text
    page = quiet_http.get("/", headers={"Accept": "text/html,application/xhtml+xml"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "unsafe" not in page.headers["content-security-policy"]
    assert '<script type="module" src="page/app.js">' in page.text


def test_unknown_path_and_method_are_said_in_json(quiet_http):
    reply = quiet_http.get("/api/v1/x")
    assert (reply.status_code, reply.json()) == (
        404,
        {"error": "no such path '/api/v1/x'; GET / lists all"},
    )
    reply = quiet_http.get("/api/v0/pipeline/stop")
    assert (reply.status_code, reply.json()) == (
        405,
        {"error": "GET is not for '/api/v0/pipeline/stop'; GET / lists all"},
    )
    reply = quiet_http.put("/api/v0/inference/settings")
    assert (reply.status_code, reply.headers["allow"]) == (405, "GET, POST")


def test_head_is_get_without_the_body_and_ends(run, quiet_http):
    for path in ("/", "/docs", "/api/v0/report", "/api/v0/events", "/api/v0/streaming/video/0"):
        reply = quiet_http.head(path)
        assert (reply.status_code, reply.content) == (200, b"")
    assert quiet_http.head("/none").status_code == 404
    assert quiet_http.head("/api/v0/pipeline/stop").status_code == 405


def test_our_own_defect_is_a_500_in_json_and_goes_to_the_log(run, http, monkeypatch):
    http.event_hooks = {}  # no description promises this one

    def report():
        raise ZeroDivisionError("rate")

    monkeypatch.setattr(run, "report", report)
    with structlog.testing.capture_logs() as logged:
        reply = http.get("/api/v0/report")
        assert (reply.status_code, reply.json()) == (
            500,
            {
                "error": "flowrun failed to answer (ZeroDivisionError); the run's log has the "
                "traceback"
            },
        )
        until(lambda: logged)
    assert logged[0]["log_level"] == "error"
    assert isinstance(logged[0]["exc_info"][1], ZeroDivisionError)


# -- who may ask --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:3000", 200),
        ("127.0.0.1", 200),
        ("[::1]:3000", 200),
        ("run.localhost", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("[", 403),
        ("", 403),
    ],
)
def test_on_loopback_the_host_must_name_this_machine(quiet_http, host, status):
    assert quiet_http.get("/api/v0/pipeline/list", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://["]
)
def test_a_page_of_another_site_may_not_change_the_run(quiet, quiet_http, origin):
    reply = quiet_http.post(
        "/api/v0/inference/settings", json={"prompt": "x"}, headers={"Origin": origin}
    )
    assert reply.status_code == 403
    assert reply.json() == {
        "error": f"a page of {origin!r} may not change the run of '127.0.0.1:{quiet[1].port}'"
    }
    assert quiet[0].set == []


def test_our_own_page_may_change_the_run(http):
    headers = {"Origin": str(http.base_url).rstrip("/")}
    reply = http.post("/api/v0/inference/settings", json={"prompt": "x"}, headers=headers)
    assert reply.status_code == 200


def test_every_path_needs_the_token(run, new_server, monkeypatch):
    monkeypatch.setattr(guard, "_FREE_S", 100)
    server = new_server(run, token="s3cret")
    assert server.url.endswith("/?token=s3cret")
    address = server.url.partition("/?")[0]
    good = {"Authorization": "Bearer s3cret"}
    bad = ({}, {"Authorization": "Bearer s3cre"}, {"Authorization": "Basic s3cret"})
    with httpx.Client(base_url=address, trust_env=False, verify=False) as http:
        for path in ("/", "/docs", "/docs/assets/swagger-ui.css", "/openapi.json", "/none"):
            for headers in bad:
                reply = http.get(path, headers=headers)
                assert reply.status_code == 401
                assert reply.headers["www-authenticate"] == "Bearer"
            assert http.get(f"{path}?token=wr%C3%B6ng").status_code == 401
            expected = 404 if path == "/none" else 200
            assert http.get(f"{path}?token=s3cret").status_code == expected
            assert http.get(path, headers=good).status_code == expected


def test_wrong_tokens_make_an_address_wait(run, new_server, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(guard, "monotonic_s", lambda: now)
    server = new_server(run, token="s3cret")
    address = server.url.partition("?")[0]
    with httpx.Client(base_url=address, trust_env=False, verify=False) as http:
        assert [http.get(f"/?token={n}").status_code for n in range(10)] == 10 * [401]
        for token in ("10", "s3cret"):
            reply = http.get(f"/?token={token}")
            assert reply.status_code == 429
            assert reply.headers["retry-after"] == "1"
            assert reply.json() == {"error": "too many wrong tokens from this address; wait 1 s"}
        assert http.get("/").status_code == 401  # no guess
        now += 1
        assert http.get("/?token=s3cret").status_code == 200
        assert http.get("/?token=11").status_code == 401
        assert http.get("/?token=s3cret").status_code == 429
        now += 100
        assert [http.get(f"/?token={n}").status_code for n in range(11)] == 10 * [401] + [429]


def test_wrong_tokens_are_counted_by_network_and_forgotten():
    guesses = guard._Guesses()

    def network(host):
        return guard._network({"client": (host, 1)})

    for _ in range(11):
        guesses.count(network("2001:db8::1"))
    assert guesses.wait_s(network("2001:db8::2")) > 0
    assert guesses.wait_s(network("2001:db8:0:1::1")) == 0
    assert network("::ffff:192.0.2.1") == network("192.0.2.1") == "192.0.2.1"
    assert network("fe80::1%eth0") == "fe80::/64"
    for n in range(5000):
        guesses.count(f"10.0.{n // 256}.{n % 256}")
    assert len(guesses._full_until) == 1024


@pytest.mark.parametrize(
    ("token", "error"),
    [
        ("", "the token is empty: leave it out to have one made, or give one"),
        (
            " s3cret",
            "the token's character 1 is a blank, which not every client can send: "
            "use letters, digits and signs such as - and _",
        ),
        (
            "s3crét",
            "the token's character 5 is not a visible ASCII character, which not every client can "
            "send: use letters, digits and signs such as - and _",
        ),
        ("x" * 1025, "the token has 1,025 characters; at most 1,024"),
    ],
)
def test_a_token_that_clients_could_not_send_is_refused_at_start(run, token, error):
    with pytest.raises(UsageError) as raised:
        Server.start(run, port=0, token=token)
    assert str(raised.value) == error


def test_any_other_token_is_taken_from_header_and_address(run, new_server):
    token = "".join(map(chr, range(33, 127)))
    server = new_server(run, token=token)
    headers = {"Authorization": f"Bearer {token}"}
    for address, given in ((server.url, {}), (server.url.partition("?")[0], headers)):
        assert httpx.get(address, headers=given, trust_env=False, verify=False).status_code == 200


def test_a_local_name_that_means_another_address_needs_a_token(run, new_server, monkeypatch):
    real = socket.getaddrinfo

    def names(host, *args, **options):
        return real("0.0.0.0" if host == "run.localhost" else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", names)
    assert len(new_server(run, host="run.localhost").token) >= 32


@pytest.mark.parametrize("path", ["/", "/docs", "/none", "/api/v0/report", "/openapi.json"])
def test_no_other_site_may_embed_or_keep_a_reply(quiet_http, path):
    headers = quiet_http.get(path, headers={"Accept": "text/html"}).headers
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]


def test_another_host_gets_a_token_of_its_own(run, new_server):
    server = new_server(run, host="0.0.0.0")
    assert len(server.token) >= 32
    with asking(server) as http:
        headers = {"Host": "camera.lan"}
        assert http.get("/api/v0/report", headers=headers).status_code == 200
        headers["Authorization"] = "Bearer x"
        assert http.get("/api/v0/report", headers=headers).status_code == 401


def test_no_app_for_another_host_without_a_token(run):
    with pytest.raises(UsageError) as error:
        create_app(run, host="0.0.0.0")
    assert str(error.value) == "host '0.0.0.0' is not a loopback address: it needs a token"


# -- start and stop -----------------------------------------------------------------------------


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
        assert time.monotonic() - started < 2
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


def test_the_command_line_loads_no_server():
    code = (
        "import sys, flowrun.runtime.cli; print([m for m in sys.modules if m.split('.')[0] in "
        "('fastapi', 'uvicorn', 'starlette', 'fastapi_offline')])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert out.stdout == "[]\n"


# -- what `Broadcast` promises to a listener ----------------------------------------------------


def test_a_listener_is_called_for_each_item_and_the_end_until_it_leaves():
    broadcast, calls = Broadcast(), []
    leave = broadcast.subscribe(lambda: calls.append(broadcast.number))
    leave_too = broadcast.subscribe(lambda: calls.append("too"))
    broadcast.offer("a")
    leave_too()
    broadcast.offer("b")
    broadcast.close()
    leave()
    leave()
    broadcast.offer("c")
    assert calls == [1, "too", 2, 2]
    assert broadcast.closed


def test_the_age_of_the_newest_is_infinite_before_the_first():
    broadcast = Broadcast()
    assert broadcast.age_s == float("inf")
    broadcast.offer("a")
    assert 0 <= broadcast.age_s < 1


# -- forms of pictures --------------------------------------------------------------------------

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


# -- recording ----------------------------------------------------------------------------------


def test_recording_is_stopped_and_begun(run, http):
    for command, on in (("Stop", False), ("Stop", False), ("Start", True)):
        reply = http.post("/api/v0/recording/command", json={"command": command})
        assert (reply.status_code, reply.json()) == (200, {"success": True})
        assert run.recording is on


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("{}", "command: expected Start or Stop, got nothing"),
        ('{"command": "stop"}', "command: expected Start or Stop, got 'stop'"),
        ('{"command": "Stop", "x": 1}', "unknown key 'x'; keys: command"),
    ],
)
def test_another_command_is_refused(run, http, body, error):
    reply = http.post("/api/v0/recording/command", content=body)
    assert (reply.status_code, reply.json()) == (422, {"error": error})
    assert run.recording


def test_why_recording_cannot_be_switched_is_said(run, http):
    run.refuses_switches = True
    reply = http.post("/api/v0/recording/command", json={"command": "Stop"})
    assert (reply.status_code, reply.json()) == (
        409,
        {"error": "Failed to send recording: the run keeps no log"},
    )
    run.end()
    reply = http.post("/api/v0/recording/command", json={"command": "Stop"})
    assert (reply.status_code, reply.json()) == (
        503,
        {"error": "Failed to send recording: the run of 'inference' has ended"},
    )


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"pipeline_id": "inference"}, "Pipeline already exists"),
        ({"name": "inference"}, "Pipeline already exists"),
        ({"pipeline_id": "cameras"}, "Pipeline not supported. Try 'inference'"),
        ({}, "Pipeline not supported. Try 'inference'"),
    ],
)
def test_the_pipeline_of_a_run_cannot_be_started_again(http, body, error):
    reply = http.post("/api/v0/pipeline/start", json=body)
    assert (reply.status_code, reply.json()) == (400, {"error": error})


def test_a_run_that_has_ended_says_who_starts_pipelines(run, http):
    run.end()
    reply = http.post("/api/v0/pipeline/start", json={"pipeline_id": "inference"})
    assert (reply.status_code, reply.json()) == (
        400,
        {"error": "Pipeline inference has ended; start it with 'flowrun serve', or run it again"},
    )


def picture(*size, kind="PNG", **options):
    file = io.BytesIO()
    Image.new("RGB", size, (10, 20, 30)).save(file, kind, **options)
    return file.getvalue()


DAMAGED = picture(64, 64)[:80]


def test_a_message_is_published(run, http):
    reply = http.post("/api/v0/publish/cam0.number?tov_ns=7", json={"value": 3})
    assert (reply.status_code, reply.json()) == (200, {"message": "published on cam0.number"})
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn to the right
    for content in (picture(4, 2), picture(2, 4, kind="JPEG", exif=turned)):
        reply = http.post(
            "/api/v0/publish/cam0.image", content=content, headers={"Content-Type": "image/x"}
        )
        assert reply.status_code == 422  # the run of these tests has no such field
    assert [it.shape for it in run.pictures] == [(2, 4, 3), (2, 4, 3)]
    assert run.pictures[0][0, 0].tolist() == [10, 20, 30]
    assert run.published == [("cam0.number", {"value": 3}, 7)]


@pytest.mark.parametrize(
    ("status", "port", "kind", "body", "error"),
    [
        (404, "x", "", "{}", "unknown port 'x'; ports to publish on: cam0.image, cam0.number"),
        (422, "cam0.number", "", '{"valu": 3}', "IntMsg has no field 'valu'; fields: value"),
        (422, "cam0.number", "", "3", "the body must be a JSON object, got int"),
        (400, "cam0.number", "", "{", "the body is not JSON: EOF while parsing an object at line 1 "
         "column 1"),
        (422, "cam0.number?tov_ns=-1", "", "{}", "tov_ns: Input should be greater than or equal to 0, "
         "got '-1'"),
        (422, "cam0.image", "image/png", "{}", "not a picture file that is known: JPEG, PNG, WebP, BMP, "
         "TIFF or GIF"),
        (422, "cam0.image", "image/png", DAMAGED, "the picture file is damaged: "),
        (422, "cam0.image", "image/png", picture(4000, 2501), "the picture has 4000 x 2501 pixels; at "
         "most 10,000,000"),
        (413, "cam0.number", "", " " * (5 << 20), "the body is larger than 4194304 bytes"),
    ],
)  # fmt: skip
def test_what_is_no_message_is_refused(quiet, quiet_http, status, port, kind, body, error):
    reply = quiet_http.post(
        f"/api/v0/publish/{port}", content=body, headers={"Content-Type": kind} if kind else {}
    )
    assert (reply.status_code, reply.json()["error"][: len(error)]) == (status, error)
    assert quiet[0].published == []


def test_a_run_that_is_held_up_or_has_ended_takes_no_message(run, http):
    run.is_stuck = True
    reply = http.post("/api/v0/publish/cam0.number", json={})
    assert reply.status_code == 409
    assert reply.json() == {"error": "too many messages wait for a cycle: a task holds it up"}
    run.end()
    reply = http.post("/api/v0/publish/cam0.number", json={})
    assert reply.status_code == 503
