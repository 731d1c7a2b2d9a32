"""The files of the page."""

import re
from pathlib import Path

import httpx
import pytest

PAGE = Path(__file__).parents[3] / "runtime" / "server" / "page"
SCRIPTS = sorted(path for path in PAGE.rglob("*.js"))
IMPORTED = re.compile(
    r'(?:^(?:import|export)\b[^;"]*\bfrom ?|import\(|url\()"([^"]+)"', re.MULTILINE
)


@pytest.fixture
def http(quiet):
    with httpx.Client(base_url=quiet[1].url, trust_env=False) as client:
        yield client


def test_each_file_comes_with_its_type_and_once(http):
    for name, kind in (("app.js", "text/javascript"), ("style.css", "text/css")):
        reply = http.get(f"page/{name}")
        assert reply.headers["content-type"] == f"{kind}; charset=utf-8"
        assert reply.content == (PAGE / name).read_bytes()
        again = http.get(f"page/{name}", headers={"If-None-Match": reply.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["none.js", "../app.py", "vendor/README.md", "index.html", ""])
def test_what_is_no_file_of_the_page_is_not_found(http, name):
    reply = http.get("page/" + name.replace("..", "%2e%2e"))
    assert (reply.status_code, reply.json()) == (404, {"error": f"the page has no file {name!r}"})


def test_files_need_no_token_and_all_else_does(new_run, new_server):
    server = new_server(new_run(), token="s3cret")
    with httpx.Client(base_url=server.url.partition("?")[0], trust_env=False) as http:
        assert http.get("page/app.js").status_code == 200
        assert http.get("page/none.js").status_code == 404
        assert http.get("page").status_code == 401
        assert http.get("api/v0/report").status_code == 401


def test_what_a_file_imports_is_there():
    for path in (*SCRIPTS, PAGE / "style.css"):
        for name in IMPORTED.findall(path.read_text(encoding="utf-8")):
            assert name.startswith(("./", "../", "vendor/")), f"{path}: {name}"
            assert (path.parent / name).is_file(), f"{path}: {name}"


def test_the_page_names_only_files_that_it_has():
    index = (PAGE / "index.html").read_text(encoding="utf-8")
    names = re.findall(r'(?:src|href)="page/([^"]+)"', index)
    assert names
    assert [name for name in names if not (PAGE / name).is_file()] == []
