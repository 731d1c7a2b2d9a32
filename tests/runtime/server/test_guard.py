"""Who may ask a server: tokens, other sites, other names."""

import socket

import httpx
import pytest

from flowrun.runtime.errors import UsageError
from flowrun.runtime.server import guard
from flowrun.runtime.server.app import create_app
from flowrun.runtime.server.serve import Server
from support.api_client import asking


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
