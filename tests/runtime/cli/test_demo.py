"""`flowrun demo`."""

import queue
import socket
import webbrowser

import pytest

from flowrun.runtime.cli import demo, main
from flowrun.runtime.log.reader import Log

TINY = """
tasks: [{id: n, type: Counter, config: {limit: 3}}]
"""


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """What the browser is told to open."""
    urls = queue.SimpleQueue()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BROWSER", "some")
    monkeypatch.setattr(webbrowser, "open", urls.put)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return urls


def test_it_opens_its_page_at_a_port_that_is_free(opened, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "_GRAPH", tmp_path / "tiny.yaml")
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        monkeypatch.setattr(demo.run_verb, "DEFAULT_PORT", taken)
        assert main(["demo", "--plain"]) == 0
    url = opened.get(timeout=240)
    assert f"page and API at {url}\n" in capsys.readouterr().out
    assert str(taken) not in url
    assert main(["demo", "--plain", "--port", "0", "--no-browser"]) == 0
    assert opened.empty()


def test_any_page_can_be_opened(opened, monkeypatch):
    assert main(["tiny.yaml", "--plain", "--port", "0", "--open"]) == 0
    assert opened.get(timeout=240).startswith("http://127.0.0.1:")
    for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert main(["tiny.yaml", "--plain", "--port", "0", "--open"]) == 0
    assert opened.empty()  # a browser of text would take the terminal


@pytest.mark.long
@pytest.mark.slow
def test_it_answers_and_goes_on_after_the_end_of_its_film(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["demo", "--plain", "--port", "0", "--no-browser", "--cycles", "600"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "(cap en, " in out
    [run] = (tmp_path / "runs").glob("demo-*")
    with Log(run) as log:
        assert sum(1 for _ in log.messages("/cam0/image")) > 220  # pictures of the film
