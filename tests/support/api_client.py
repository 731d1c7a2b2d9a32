"""A client of a run's HTTP API, whose replies must be as the API describes them."""

import json
import threading
import time
from functools import cache
from urllib.parse import unquote

import httpx

from flowrun.runtime.server.app import create_app
from support.api_schema import ApiSchema
from support.fake_run import FakeRun


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
        timeout=240,
        trust_env=False,
        verify=False,
        event_hooks={"response": [must_be_described]},
    )


def until(condition, timeout_s=240.0):
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


def events(lines):
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))
