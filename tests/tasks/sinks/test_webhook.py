"""`Webhook` with a real HTTP server: what it posts, what it does where that fails."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from structlog.testing import capture_logs

from flowrun.msgs import BoolMsg, DetectionsMsg, IntMsg, PromptResponseMsg
from flowrun.runtime.clock import ManualClock
from flowrun.runtime.errors import GraphError
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import plan_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.run.live import Run
from flowrun.runtime.testing import run_task
from flowrun.tasks.sinks.webhook import Webhook
from support.helpers import START_NS
from support.sink_tasks import run_graph


@contextmanager
def hook(answers=(), *, location=""):
    """A server that answers with these statuses, then 200: its address, and what was posted."""
    posted, left = [], list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posted.append((self.path, dict(self.headers), json.loads(body)))
            self.send_response(left.pop(0) if left else 200)
            if location:
                self.send_header("Location", location)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", posted
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr("flowrun.tasks.sinks.webhook._FIRST_PAUSE_S", 0.001)


def post(messages, url, **config):
    with capture_logs() as logs:
        inputs = [{"message": it} for it in messages]
        run_task(Webhook, inputs=inputs, config={"url": url} | config)
    return [it["event"] for it in logs]


def numbers(posted):
    return [body["fields"]["value"] for _, _, body in posted]


def test_each_message_is_posted_as_json_with_the_headers():
    with hook() as (url, posted):
        said = post([IntMsg(value=1), IntMsg(value=2)], url, token="t0p", headers={"X-Key": "k3y"})
    assert (numbers(posted), said) == ([1, 2], [])
    path, headers, body = posted[0]
    assert path == "/hook"
    assert headers["Authorization"] == "Bearer t0p"
    assert (headers["X-Key"], headers["Content-Type"]) == ("k3y", "application/json")
    assert body["type"] == "IntMsg"


def test_what_differs_is_posted():
    with hook() as (url, posted):
        post([IntMsg(value=it) for it in (1, 1, 2, 2, 1)], url, on="change")
    assert numbers(posted) == [1, 2, 1]


def test_which_picture_it_is_about_and_how_long_it_took_is_no_difference():
    answers = [
        PromptResponseMsg(response=it, frame_id=at, latency_ms=at / 7)
        for at, it in enumerate(["a cat", "a cat", "a dog"])
    ]
    with hook() as (url, posted):
        post(answers, url, on="change")
    assert [body["fields"]["response"] for _, _, body in posted] == ["a cat", "a dog"]


def test_what_becomes_true_is_posted():
    with hook() as (url, posted):
        values = [False, True, True, False, True]
        post([BoolMsg(value=it) for it in values], url, on="rising")
    assert [body["cycle"] for _, _, body in posted] == [1, 4]


def test_named_fields_are_looked_at():
    with hook() as (url, posted):
        post([DetectionsMsg(), DetectionsMsg()], url, on="rising", fields=["labels"])
    assert posted == []


def test_a_field_that_messages_lack_is_found_before_the_run():
    config = Webhook.Config(url="http://127.0.0.1:9", on="rising", fields=["vaule", "value"])
    assert list(Webhook.check_inputs(config, {"message": IntMsg})) == [
        ("fields", "IntMsg has no field 'vaule'; fields: value (did you mean 'value'?)")
    ]
    assert list(Webhook.check_inputs(config, {})) == []


def test_not_more_often_than_asked():
    with hook() as (url, posted):  # a cycle takes 10 ms
        post([IntMsg(value=it) for it in range(10)], url, min_interval_s=0.03)
    assert numbers(posted) == [0, 3, 6, 9]


def test_a_change_that_came_too_early_is_posted_later():
    with hook() as (url, posted):
        post([IntMsg(value=it) for it in (1, 2, 2, 2, 2)], url, on="change", min_interval_s=0.03)
    assert [(body["cycle"], body["fields"]["value"]) for _, _, body in posted] == [(0, 1), (3, 2)]


def test_it_is_tried_again_where_that_may_help():
    with hook([500, 429]) as (url, posted):
        assert post([IntMsg(value=7)], url) == []
    assert numbers(posted) == [7, 7, 7]


@pytest.mark.parametrize(
    ("answers", "times", "said"),
    [
        ([404], 1, ["dropped: status 404"]),
        ([503] * 9, 3, ["dropped: status 503"]),
        ([303], 1, []),
        ([204], 1, []),
    ],
)
def test_what_is_refused_is_dropped(answers, times, said):
    with hook(answers) as (url, posted):
        assert post([IntMsg()], url, retries=2) == said
    assert len(posted) == times


def test_a_receiver_that_is_away_costs_messages_and_no_run():
    with hook() as (url, _):
        pass
    assert post([IntMsg()], url, retries=1) == ["dropped: not reached"]


def test_a_redirect_is_followed_on_the_same_host_alone():
    with hook([307], location="/other") as (url, posted):
        assert post([IntMsg(value=3)], url) == []
    assert [path for path, _, _ in posted] == ["/hook", "/other"]
    with hook() as (elsewhere, stolen), hook([307, 302], location=elsewhere) as (url, posted):
        assert post([IntMsg()] * 2, url, token="t0p") == ["dropped: redirected to another host"]
    assert (len(posted), stolen) == (2, [])


def test_redirects_in_a_circle_end():
    with hook([307] * 9, location="/hook") as (url, posted):
        assert post([IntMsg()], url) == ["dropped: redirected too often"]
    assert len(posted) == 4


GRAPH = """
tasks:
  - {{id: n, type: Counter, config: {{limit: 3}}}}
  - {{id: out, type: Webhook, config: {{{config}}}}}
cnx: [{{src: n, dst: out, msg: IntMsg}}]
"""


def test_secrets_are_masked_and_drops_are_in_the_report(tmp_path, capfd):
    with hook([404] * 3) as (url, _):
        config = f"url: '{url}?key=s3cr3t-k', token: t0p-s3cret, headers: {{X-Api: h34d-s3cret}}"
        run, result = run_graph(tmp_path, GRAPH.format(config=config), directory=tmp_path / "run")
    assert result.error is None
    assert run.report().tasks["out"].dropped_by == {"status 404": 3}
    said = capfd.readouterr()
    logged = b"".join(it.read_bytes() for it in (tmp_path / "run").iterdir() if it.is_file())
    for secret in ("s3cr3t-k", "t0p-s3cret", "h34d-s3cret"):
        assert secret not in said.out + said.err
        assert secret.encode() not in logged
        assert secret not in json.dumps(run.graph())


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("url: ftp://a/b", "'url' of task 'out': must begin with http:// or https:// and hold no"),
        ("url: ''", "is empty; expected a URL such as https://example.org/hook"),
        ("url: 'http://a/b', fields: [x]", "has no meaning with on: every"),
        ("url: 'http://a/b', headers: {'a b': c}", "'a b' is no name of a header"),
        ('url: "http://a/b", headers: {a: "b\\nc: d"}', "holds a character that no header has"),
        ("url: 'http://a/b', headers: {a: 'K\xfcche'}", "holds a character that no header has"),
        ("url: 'http://a/b', token: 'schl\xfcssel'", "holds a character that no header has"),
        ("url: 'http://a/b', on: sometimes", "must be 'every', 'change' or 'rising'"),
    ],
)
def test_mistakes_are_found_before_the_run(tmp_path, config, said):
    with pytest.raises(GraphError) as raised:
        run_graph(tmp_path, GRAPH.format(config=config))
    [problem] = raised.value.problems
    assert said in problem.message


def test_each_alert_is_posted_once_and_by_no_replay(tmp_path):
    text = """
tasks:
  - {id: cam, type: support.pictures.Camera, config: {limit: 12}}
  - {id: says, type: support.pictures.Answer}
  - {id: watch, type: Alert, config: {contains: ['2', '3', '8'], cooldown_s: 0.1}}
  - {id: post, type: Webhook, config: {url: 'URL', on: every}}
cnx:
  - {src: cam, dst: says, msg: ImageRgb8Msg}
  - {src: says, dst: watch, msg: PromptResponseMsg}
  - {src: watch, dst: post, msg: AlertMsg}
"""
    with hook() as (url, posted):
        spec = parse_graph(text.replace("URL", url), path=tmp_path / "g.yaml", env={})
        run = Run(
            plan_graph(bind(spec)),
            clock=ManualClock(START_NS, step_ns=1000),
            directory=tmp_path / "run",
        )
        assert run.run().error is None
        with Log(tmp_path / "run") as log:
            raised = [(it.cycle, it.fields["text"]) for it in log.messages("/watch/alert")]
            assert Replay(log).run().first is None
        sent = [(body["type"], body["cycle"], body["fields"]["text"]) for _, _, body in posted]
    assert sent == [("AlertMsg", cycle, said) for cycle, said in raised]
    assert [said for _, said in raised] == ["\u00fcn\u00ef 2", "\u00fcn\u00ef 8"]
