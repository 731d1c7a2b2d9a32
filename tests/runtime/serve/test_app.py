"""The server of many runs, over HTTP."""

import os
import signal

import pytest

from flowrun.runtime.server.site import Site
from support.pipelines import (
    ECHO,
    KILLED,
    listed,
    scripted_pipelines,
    serving,
    statuses,
    wait_for,
    write_script,
)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A client of a server of three graphs; each test stops what it has started."""
    folder = tmp_path_factory.mktemp("graphs")
    write_script(folder, "cam", ECHO)
    write_script(folder, "other cam", ECHO)
    write_script(folder, "wrong", "echo 'error: no camera' >&2; exit 1")
    pipelines, _ = scripted_pipelines(folder)
    with serving(pipelines) as client:
        client.folder = folder
        yield client


@pytest.fixture(autouse=True)
def _stopped(client):
    yield
    for name, status in statuses(client).items():
        if status != "Stopped":
            command(client, "stop", name)


def command(client, verb, name="cam", **more):
    reply = client.post(f"/api/v0/pipeline/{verb}", json={"pipeline_id": name, **more})
    return reply.status_code, reply.json()


def test_health_and_metrics_are_those_of_all_pipelines(client):
    assert client.get("/health").json() == {"status": "ok", "why": "", "running": []}
    command(client, "start")
    command(client, "start", "wrong")
    wait_for(lambda: isinstance(statuses(client)["wrong"], dict))
    assert client.get("/health").json() == {
        "status": "degraded",
        "why": "pipeline wrong: no camera",
        "running": ["cam"],
    }
    lines = client.get("/metrics").text.splitlines()
    assert 'flowrun_pipeline_phase{phase="running",pipeline="cam"} 1.0' in lines
    assert 'flowrun_pipeline_phase{phase="failed",pipeline="cam"} 0.0' in lines
    assert 'flowrun_pipeline_phase{phase="failed",pipeline="wrong"} 1.0' in lines
    assert 'flowrun_pipeline_restarts_total{pipeline="cam"} 0.0' in lines


def test_a_graph_is_started_listed_and_stopped_as_by_the_seed(client):
    assert statuses(client) == {"cam": "Stopped", "other cam": "Stopped", "wrong": "Stopped"}
    assert command(client, "start") == (200, {"message": "Pipeline cam started"})
    assert command(client, "start") == (400, {"error": "Pipeline already exists"})
    assert statuses(client)["cam"] == "Running"
    reply = client.post("/api/v0/pipeline/stop", json={"name": "cam"})
    assert (reply.status_code, reply.json()) == (200, {"message": "Pipeline cam stopped"})
    assert statuses(client)["cam"] == "Stopped"
    assert command(client, "stop") == (400, {"error": "Pipeline not found"})


def test_an_unknown_graph_is_refused_with_those_that_there_are(client):
    assert command(client, "start", "cm") == (
        400,
        {"error": "Pipeline not supported. Try cam, other cam, wrong (did you mean 'cam'?)"},
    )
    assert command(client, "stop", "cm") == (400, {"error": "Pipeline not found"})


def test_a_graph_that_fails_says_why_and_may_be_started_again(client):
    for _ in range(2):
        assert command(client, "start", "wrong") == (400, {"error": "no camera"})
        assert statuses(client)["wrong"] == {"Error": "no camera"}
    assert command(client, "restart", "wrong") == (400, {"error": "no camera"})
    assert command(client, "stop", "wrong") == (200, {"message": "Pipeline wrong stopped"})


def test_a_killed_run_is_an_error_that_a_start_ends(client):
    command(client, "start")
    os.kill(listed(client)["cam"]["pid"], signal.SIGKILL)
    wait_for(lambda: statuses(client)["cam"] != "Running")
    assert statuses(client)["cam"] == {"Error": KILLED}
    assert command(client, "start")[0] == 200
    assert statuses(client)["cam"] == "Running"


def test_a_killed_run_is_started_again_if_that_was_asked_for(client):
    command(client, "start", restart="on-failure")
    first = listed(client)["cam"]["pid"]
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: listed(client)["cam"]["restarts"] == 1)
    again = wait_for(lambda: (it := listed(client)["cam"])["phase"] == "running" and it)
    assert again == {
        "id": "cam",
        "status": "Running",
        "phase": "running",
        "pid": again["pid"],
        "restart": "on-failure",
        "restarts": 1,
        "next_start_s": None,
        "parts": {},
    }
    assert again["pid"] != first


def test_a_restart_keeps_the_policy_and_begins_a_new_process(client):
    command(client, "start", restart="always")
    first = listed(client)["cam"]["pid"]
    assert command(client, "restart") == (200, {"message": "Pipeline cam restarted"})
    again = listed(client)["cam"]
    assert again["pid"] != first
    assert again["restart"] == "always"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, "pipeline_id is missing: the name of a graph of the folder"),
        ({"name": 3}, "pipeline_id: must be a text; got 3"),
        ({"name": "a", "pipeline_id": "b"}, "pipeline_id and name are two names; give one"),
        ({"name": "cam", "port": 1}, "unknown key 'port'; keys: pipeline_id, name, restart"),
        (
            {"name": "cam", "restart": "maybe"},
            "restart: must be one of never, on-failure, always; got 'maybe'",
        ),
    ],
)
def test_a_wrong_start_is_refused(client, body, error):
    reply = client.post("/api/v0/pipeline/start", json=body)
    assert (reply.status_code, reply.json()) == (422, {"error": error})


def test_paths_below_a_pipeline_are_answered_by_its_own_server(client):
    refused = client.get("/pipelines/other%20cam/api/v0/report")
    assert refused.status_code == 503
    assert refused.json() == {"error": "pipeline 'other cam' does not run"}
    command(client, "start", "other cam")
    asked = client.post(
        "/pipelines/other%20cam/a%2Fb/c?x=%20y&z", content=b"body", headers={"X-Mine": "1"}
    )
    head, _, body = asked.text.partition("\r\n\r\n")
    first, *headers = head.split("\r\n")
    assert first == "POST /a%2Fb/c?x=%20y&z HTTP/1.1"
    assert "x-mine: 1" in map(str.lower, headers)
    assert "host: localhost" in map(str.lower, headers)
    assert "content-length: 4" in map(str.lower, headers)
    assert body == "body"
    assert client.get("/pipelines/nobody/").status_code == 404


def test_paths_of_a_run_are_answered_by_the_only_one_or_the_named_one(client):
    none = client.get("/api/v0/inference/result")
    assert none.status_code == 503
    assert none.json() == {
        "Error": {"error": "no pipeline runs; POST /api/v0/pipeline/start starts one"}
    }
    command(client, "start")
    assert client.get("/api/v0/inference/result").text.startswith("GET /api/v0/inference/result ")
    command(client, "start", "other cam")
    both = client.get("/api/v0/report")
    assert (both.status_code, both.json()) == (
        409,
        {"error": "several pipelines run: cam, other cam; say which with ?pipeline_id="},
    )
    named = client.get("/api/v0/report?pipeline_id=other%20cam")
    assert named.text.startswith("GET /api/v0/report?pipeline_id=other%20cam ")


def test_a_switch_of_a_source_goes_to_the_pipeline_that_its_body_names(client):
    command(client, "start")
    command(client, "start", "other cam")
    body = {"pipeline_id": "other cam", "source": "cam0"}
    reply = client.post("/api/v0/pipeline/pause", json=body)
    assert reply.text.startswith("POST /api/v0/pipeline/pause ")
    assert reply.text.endswith('"source":"cam0"}')


def test_every_request_needs_the_token(tmp_path):
    write_script(tmp_path, "cam", ECHO)
    pipelines, _ = scripted_pipelines(tmp_path)
    with serving(pipelines, token="sesame") as client:
        assert command(client, "start")[0] == 200
        assert client.get("/pipelines/cam/page/app.js", headers={"Authorization": ""}).is_success
        for path in ("/api/v0/pipeline/list", "/pipelines/cam/", "/api/v0/report", "/recorded/"):
            assert client.get(path).status_code == 200
            assert client.get(path, headers={"Authorization": ""}).status_code == 401
            assert client.get(path, headers={"Authorization": "", "Host": "a.b"}).status_code == 403


HTML = {"Accept": "text/html"}


def test_the_page_of_a_pipeline_is_there_also_while_it_does_not_run(client):
    page = client.get("/pipelines/other%20cam/", headers=HTML)
    assert page.status_code == 200
    assert 'src="page/app.js"' in page.text
    assert client.get("/pipelines/other%20cam/page/app.js").status_code == 200
    assert client.get("/pipelines/nobody/", headers=HTML).status_code == 404
    below = "/pipelines/other%20cam/api/v0"
    assert client.get(f"{below}/pipeline/list").json() == client.get("/api/v0/pipeline/list").json()
    assert client.get(f"{below}/runs").json() == []
    started = client.post(f"{below}/pipeline/start", json={"name": "other cam"})
    assert started.json() == {"message": "Pipeline other cam started"}
    current = client.get(f"{below}/runs/current/lanes?bins=2")
    assert current.text.startswith("GET /api/v0/runs/current/lanes?bins=2 ")
    assert client.get("/api/v0/runs/current").text.startswith("GET /api/v0/runs/current ")


def test_the_first_page_lists_the_pipelines(client):
    page = client.get("/", headers=HTML)
    assert 'src="page/overview.js"' in page.text
    assert client.get("/page/overview.js").status_code == 200
    lines = client.get("/").text.splitlines()
    assert lines[0].startswith("flowrun serve: graphs of ")
    assert lines[2:5] == [f"{name:<24} Stopped" for name in ("cam", "other cam", "wrong")]
    assert any(line.startswith("POST /api/v0/pipeline/start") for line in lines)
    assert 'src="page/app.js"' in client.get("/recorded/", headers=HTML).text
    assert client.get("/recorded/page/app.js").status_code == 200
    assert client.get("/recorded/api/v0/runs").json() == []


def test_a_graph_is_shown_as_its_file_is_or_as_it_runs(client):
    refused = client.get("/api/v0/pipeline/config?pipeline_id=cam")
    assert refused.status_code == 422  # a shell script
    assert refused.json()["error"].startswith(str(client.folder / "cam.yaml"))
    assert client.get("/api/v0/pipeline/config?pipeline_id=none").status_code == 404
    assert client.get("/api/v0/pipeline/config").status_code == 503
    command(client, "start")
    for query in ("", "?pipeline_id=cam"):
        found = client.get(f"/api/v0/pipeline/config{query}")
        assert found.text.startswith(f"GET /api/v0/pipeline/config{query} ")


def test_the_machine_is_known_without_a_pipeline(client):
    assert client.get("/api/v0/stats/whoami").json()["platform"] == "Linux"
    assert client.get("/api/v0/stats/sysinfo").json()["total_memory"] > 0


@pytest.mark.parametrize("passed_on", ["", "/house/cams"])
def test_below_the_path_of_a_proxy_all_is_as_it_is_without(tmp_path, passed_on):
    write_script(tmp_path, "cam <b>", ECHO)
    pipelines, _ = scripted_pipelines(tmp_path)
    with serving(pipelines, site=Site(root_path="/house/cams")) as client:
        body = {"pipeline_id": "cam <b>"}
        assert client.post(f"{passed_on}/api/v0/pipeline/start", json=body).status_code == 200
        page = f"{passed_on}/pipelines/cam%20%3Cb%3E/"
        html = client.get(page, headers={"Accept": "text/html"})
        assert (html.status_code, html.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert client.get(f"{page}page/app.js").status_code == 200
        assert client.get(f"{page}api/v0/pipeline/list").json()[0]["phase"] == "running"
        asked = client.get(f"{page}api/v0/report?a=%20").text.splitlines()[0]
        assert asked == "GET /api/v0/report?a=%20 HTTP/1.1"
        asked = client.get(f"{passed_on}/api/v0/report").text.splitlines()[0]
        assert asked == "GET /api/v0/report HTTP/1.1"
