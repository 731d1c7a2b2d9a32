"""Servers that are reached from elsewhere: below a path of a proxy, by pages of other sites."""

import json
import socket

import httpx
import pytest

from flowrun.runtime.errors import UsageError
from flowrun.runtime.server.site import Site

FRIEND = "https://cameras.example.org"


@pytest.fixture
def run(new_run):
    return new_run().start()


def asking(server, **headers):
    address = server.url.partition("?")[0]
    return httpx.Client(
        base_url=address, headers=headers, trust_env=False, timeout=240, verify=False
    )


# -- other sites --------------------------------------------------------------------------------


def test_a_page_of_a_friend_may_read_and_change(run, new_server):
    server = new_server(run, token="geheim", site=Site((FRIEND,)))
    with asking(server, Origin=FRIEND) as http:
        asked = http.options(
            "/api/v0/inference/settings",
            headers={
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization, content-type",
            },
        )
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == FRIEND
        bearer = {"Authorization": "Bearer geheim"}
        reply = http.post("/api/v0/inference/settings", json={"prompt": "x"}, headers=bearer)
        assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (200, FRIEND)
        picture = http.get("/api/v0/streaming/image?latest=1", headers=bearer)
        assert picture.headers["cross-origin-resource-policy"] == "cross-origin"
        assert picture.headers["access-control-expose-headers"] == "X-Timestamp-Nanos, X-Cycle"


@pytest.mark.parametrize("site", [Site(), Site((FRIEND,))])
def test_nobody_else_may(run, new_server, site):
    with asking(new_server(run, site=site), Origin="https://evil.example") as http:
        reply = http.post("/api/v0/inference/settings", json={"prompt": "x"})
        assert reply.status_code == 403
        reply = http.get("/api/v0/report")
        assert "access-control-allow-origin" not in reply.headers
        assert reply.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(
    ("origin", "shown"),
    [("*", "'*'"), ("example.org", "'example.org'"), (f"{FRIEND}/", f"'{FRIEND}/'"),
     ("https://a@b.org", "'https://***@b.org'"), ("https://x:port", "'https://x:port'")],
)  # fmt: skip
def test_what_is_no_origin_is_refused(origin, shown):
    with pytest.raises(UsageError) as refused:
        Site((origin,))
    assert str(refused.value) == (
        f"origin {shown}: expected a scheme, a host and no path, such as https://example.org or "
        "http://10.0.0.7:8080"
    )


# -- names --------------------------------------------------------------------------------------


def test_clients_call_this_machine_by_its_names(run, new_server):
    server = new_server(run)
    for name in ("0.0.0.0", "[::]", socket.gethostname(), "localhost"):
        with asking(server, Host=f"{name}:{server.port}") as http:
            assert http.get("/api/v0/pipeline/list").status_code == 200


def test_a_proxy_may_call_it_by_the_name_of_a_friend(run, new_server):
    with asking(new_server(run, site=Site((FRIEND,))), Host="cameras.example.org") as http:
        assert http.get("/api/v0/pipeline/list").status_code == 200
    with asking(new_server(run), Host="cameras.example.org") as http:
        assert http.get("/api/v0/pipeline/list").status_code == 403


# -- below a path -------------------------------------------------------------------------------


def test_below_a_path_all_works_whether_the_proxy_takes_it_away_or_not(run, new_server):
    server = new_server(run, site=Site(root_path="/cameras"))
    for before in ("", "/cameras"):
        all_works(server, before)


def all_works(server, before):
    with asking(server) as http:
        assert http.get(f"{before}/api/v0/streaming/image?latest=1").content[:2] == b"\xff\xd8"
        assert http.get(f"{before}/health").status_code == 200
        page = http.get(f"{before}/", headers={"Accept": "text/html"})
        assert (page.status_code, page.headers["content-type"][:9]) == (200, "text/html")
        docs = http.get(f"{before}/docs")
        assert '"/cameras/openapi.json"' in docs.text.replace("'", '"')
        assert 'src="/cameras/docs/assets/swagger-ui-bundle.js"' in docs.text
        assert http.get(f"{before}/docs/assets/swagger-ui-bundle.js").status_code == 200
        described = http.get(f"{before}/openapi.json").json()
        assert described["servers"] == [{"url": "/cameras"}]
        assert http.head(f"{before}/api/v0/report").status_code == 200
        missing = http.get(f"{before}/none")
        assert (missing.status_code, json.loads(missing.text)) == (
            404,
            {"error": "no such path '/cameras/none'; GET / lists all"},
        )


@pytest.mark.parametrize("path", ["cameras", "/cameras/", "//cameras", "/a//b"])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(UsageError) as refused:
        Site(root_path=path)
    assert str(refused.value) == (
        f"path '{path}': expected one that begins with / and does not end with it, such as /cameras"
    )
