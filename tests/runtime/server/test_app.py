"""The HTTP app as a whole: its index, errors and HEAD."""

import structlog

from support.api_client import until


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
    reply = quiet_http.get("/api/v0/report/")
    assert reply.json()["error"] == (
        "no such path '/api/v0/report/' (did you mean '/api/v0/report'?); GET / lists all"
    )
    reply = quiet_http.get("/api/v0/pipeline/stop")
    assert (reply.status_code, reply.json()) == (
        405,
        {"error": "GET is not for '/api/v0/pipeline/stop'; GET / lists all"},
    )
    reply = quiet_http.put("/api/v0/inference/settings")
    assert (reply.status_code, reply.headers["allow"]) == (405, "GET, HEAD, POST")


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
