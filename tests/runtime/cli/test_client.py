"""The commands that ask a server: what they send, and what they print."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from flowrun.runtime.cli import main

ANSWER = {"prompt": "cap en", "response": "a red ball", "truncated": False, "cycle": 7}


@pytest.fixture(scope="module")
def server():
    """Gives the replies of `server.replies` by path, and notes what it is asked."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            length = int(self.headers.get("content-length", 0))
            body = self.rfile.read(length) if length else None
            if not self.headers.get("content-type", "").startswith("image/"):
                body = None if body is None else json.loads(body)
            made.asked.append((self.command, self.path, body, self.headers["authorization"]))
            status, reply = made.replies.get(self.path.partition("?")[0], made.other)
            content = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content) + made.missing))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *_): ...

    made = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def flowrun(server, capsys, monkeypatch):
    """Runs a command against the server; gives its status, output and errors."""
    monkeypatch.delenv("FLOWRUN_TOKEN", raising=False)
    server.asked, server.replies = [], {}
    server.other, server.missing = (404, b"<html>"), 0

    def run(*words):
        status = main([*words, "--port", str(server.server_port)])
        said = capsys.readouterr()
        return status, said.out.rstrip("\n"), said.err.rstrip("\n")

    return run


def test_the_next_answer_is_printed(server, flowrun):
    server.replies["/api/v0/inference/result"] = 200, {"Success": ANSWER}
    server.replies["/api/v0/inference/result/chat%201"] = (
        200,
        {"Success": ANSWER | {"truncated": True}},
    )
    assert flowrun("inference", "result") == (0, "cap en: a red ball", "")
    assert flowrun("inference", "result", "--channel", "chat 1", "--pipeline", "door") == (
        0,
        "cap en: a red ball ... (cut off)",
        "",
    )
    assert json.loads(flowrun("inference", "result", "--json", "--timeout", "2.5")[1]) == ANSWER
    assert [path for _, path, *_ in server.asked] == [
        "/api/v0/inference/result?timeout_s=60",
        "/api/v0/inference/result/chat%201?pipeline_id=door&timeout_s=60",
        "/api/v0/inference/result?timeout_s=2.5",
    ]


def test_values_are_changed(server, flowrun):
    server.replies["/api/v0/inference/settings"] = 200, {"success": True}
    words = ("inference", "settings", "--prompt", "Is there any human?")
    assert flowrun(*words) == (0, "changed", "")
    assert flowrun(*words, "--set", "max_new_tokens=20", "--task", "vlm")[0] == 0
    assert [body for *_, body, _ in server.asked] == [
        {"prompt": "Is there any human?"},
        {"task": "vlm", "prompt": "Is there any human?", "max_new_tokens": 20},
    ]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "nothing to change: give --prompt TEXT or --set KEY=VALUE"),
        (["--set", "tokens"], "--set tokens: expected KEY=VALUE, such as max_new_tokens=20"),
        (["--set", "a=["], "--set a=[: the value is not YAML; quote it"),
    ],
)
def test_wrong_values_are_not_sent(server, flowrun, words, error):
    assert flowrun("inference", "settings", *words) == (2, "", error)
    assert server.asked == []


def test_values_of_any_task_are_set_and_printed(server, flowrun):
    in_force = {"vlm": {"prompt": "cap en", "max_new_tokens": 50}, "scale": {"factor": 3}}
    server.replies["/api/v0/inference/settings"] = 200, {"success": True}
    assert flowrun("set", "vlm", "prompt=What?", "max_new_tokens=20") == (0, "changed", "")
    server.replies["/api/v0/inference/settings"] = 200, in_force
    assert json.loads(flowrun("set")[1]) == in_force
    assert json.loads(flowrun("set", "scale")[1]) == {"factor": 3}
    assert [(method, body) for method, _, body, _ in server.asked] == [
        ("POST", {"task": "vlm", "prompt": "What?", "max_new_tokens": 20}),
        ("GET", None),
        ("GET", None),
    ]
    assert flowrun("set", "scal") == (
        2,
        "",
        "task 'scal' has no values that may change, or does not exist; tasks with some: vlm, scale "
        "(did you mean 'scale'?)",
    )
    assert flowrun("set", "factor=2") == (
        2,
        "",
        "factor=2: name the task before it: flowrun set TASK factor=2",
    )


def test_the_address_of_a_page_is_one_of_a_server(server, capsys, monkeypatch):
    monkeypatch.delenv("FLOWRUN_TOKEN", raising=False)
    server.asked, server.replies = [], {"/pipelines/door/api/v0/inference/settings": (200, {})}
    url = f"http://127.0.0.1:{server.server_port}/pipelines/door/?token=abc#past"
    assert main(["set", "--url", url]) == 0
    assert main(["set", "--url", url, "--token", "own"]) == 0
    assert [token for *_, token in server.asked] == ["Bearer abc", "Bearer own"]
    assert main(["set", "--url", "http://a:b@127.0.0.1:1"]) == 1
    assert "no server answers at http://***@127.0.0.1:1 (" in capsys.readouterr().err


def test_messages_are_published(server, flowrun, tmp_path):
    server.replies |= {
        f"/api/v0/publish/{port}": (200, {"message": f"published on {port}"})
        for port in ("n.count", "cam0")
    }
    for name, content in (("m.json", b'{"value": 4}'), ("a.png", b"a picture")):
        (tmp_path / name).write_bytes(content)
    assert flowrun("publish", "n.count", '{"value": 3}') == (0, "published on n.count", "")
    assert flowrun("publish", "n.count", f"@{tmp_path}/m.json", "--tov-ns", "5")[0] == 0
    assert flowrun("publish", "cam0", f"@{tmp_path}/a.png", "--rate", "500", "--count", "2") == (
        0,
        "published on cam0, 2 times",
        "",
    )
    assert [(path, body) for _, path, body, _ in server.asked] == [
        ("/api/v0/publish/n.count", {"value": 3}),
        ("/api/v0/publish/n.count?tov_ns=5", {"value": 4}),
        ("/api/v0/publish/cam0", b"a picture"),
        ("/api/v0/publish/cam0", b"a picture"),
    ]


EXPECTED = "expected an object, such as '{\"value\": 3}', or @FILE"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["3"], "the message: expected a JSON object of the message's fields, such as "
         "'{\"value\": 3}', got 3"),
        (["{"], "the message is not JSON: Expecting property name enclosed in double quotes: line 1 "
         f"column 2 (char 1); {EXPECTED}"),
        (["@missing.png"], "missing.png: No such file or directory"),
        (["{}", "--rate", "0"], "--rate 0: expected more than 0, and at most 1000"),
        (["{}", "--count", "2"], "--count 2: expected 1 or more, and --rate HZ with it"),
    ],
)  # fmt: skip
def test_what_is_no_message_is_not_sent(server, flowrun, words, error):
    assert flowrun("publish", "n", *words) == (2, "", error)
    assert server.asked == []


def test_recording_is_turned_on_and_off(server, flowrun):
    server.replies["/api/v0/recording/command"] = 200, {"success": True}
    assert flowrun("recording", "stop") == (0, "recording stopped", "")
    assert flowrun("recording", "start", "--pipeline", "door") == (0, "recording started", "")
    assert [(path, body) for _, path, body, _ in server.asked] == [
        ("/api/v0/recording/command", {"command": "Stop"}),
        ("/api/v0/recording/command?pipeline_id=door", {"command": "Start"}),
    ]


def test_the_machine_is_printed_as_json(server, flowrun):
    server.replies["/api/v0/stats/whoami"] = 200, {"hostname": "box"}
    server.replies["/api/v0/stats/sysinfo"] = 200, {"cpus": []}
    assert json.loads(flowrun("stats", "whoami")[1]) == {"hostname": "box"}
    assert json.loads(flowrun("stats", "sysinfo")[1]) == {"cpus": []}


def test_pipelines_are_listed_in_a_table(server, flowrun):
    server.replies["/api/v0/pipeline/list"] = (
        200,
        [
            {"id": "a", "status": "Running", "pid": 7, "restarts": 2},
            {"id": "b", "status": {"Error": "no camera\nat b.yaml:3"}, "next_start_s": 4.0},
            {"id": "c", "status": "Stopped"},
        ],
    )
    status, table, _ = flowrun("pipeline", "list")
    assert status == 0
    assert [line.split(maxsplit=2) for line in table.splitlines()] == [
        ["pipeline", "status"],
        ["a", "Running", "process 7; started again 2 times"],
        ["b", "Error", "no camera; starts again in 4 s"],
        ["c", "Stopped"],
    ]


def test_a_start_says_when_to_start_again(server, flowrun):
    server.replies["/api/v0/pipeline/start"] = 200, {"message": "Pipeline a started"}
    assert flowrun("pipeline", "start", "a", "--restart", "always")[1] == "Pipeline a started"
    assert server.asked[0][2] == {"pipeline_id": "a", "restart": "always"}


def test_the_token_is_sent(server, flowrun, monkeypatch):
    server.replies["/api/v0/pipeline/list"] = 200, []
    flowrun("pipeline", "list", "--token", "given")
    monkeypatch.setenv("FLOWRUN_TOKEN", "of the environment")
    flowrun("pipeline", "list")
    assert [token for *_, token in server.asked] == ["Bearer given", "Bearer of the environment"]


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ((400, {"error": "Pipeline not found"}), "Pipeline not found"),
        ((503, {"Error": {"error": "no pipeline runs"}}), "no pipeline runs"),
        ((500, {}), "http://127.0.0.1:PORT/api/v0/pipeline/list: status 500"),
        ((200, b"<html>"), "what answers at http://127.0.0.1:PORT is not flowrun"),
    ],
)
def test_a_refusal_is_an_error(server, flowrun, reply, error):
    server.replies["/api/v0/pipeline/list"] = reply
    assert flowrun("pipeline", "list") == (1, "", error.replace("PORT", str(server.server_port)))


VERBS = [
    "pipeline list", "pipeline start a", "pipeline config a", "inference result",
    "inference settings --prompt x", "recording stop", "stats whoami", "set cam", "set cam a=1",
    "publish a.b {}",
]  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    "reply", [3, None, "x", [3], {"Success": 3}, b"[" * 100_000], ids=lambda it: repr(it)[:20]
)
def test_no_verb_takes_another_server_for_flowrun(server, flowrun, verb, reply):
    if isinstance(reply, (dict, list)) and verb in ("stats whoami", "pipeline config a", "set cam"):
        pytest.skip("it prints what it gets")
    server.other = 200, reply
    status, out, err = flowrun(*verb.split())
    assert (status, out) == (1, "")
    said, _, more = err.partition(", ")
    assert said == f"what answers at http://127.0.0.1:{server.server_port} is not flowrun"
    assert more == "" or more.startswith("or another version of it: its reply to /api/v0/")


def test_a_reply_that_is_cut_off_is_told(server, flowrun):
    server.other, server.missing = (200, b"[1, 2"), 1
    assert flowrun("pipeline", "list") == (
        1,
        "",
        f"http://127.0.0.1:{server.server_port}: the reply ended early: peer closed connection without "
        "sending complete message body (received 5 bytes, expected 6)",
    )
