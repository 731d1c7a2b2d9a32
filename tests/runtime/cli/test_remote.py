"""`flowrun debug` and `flowrun replay` of a run that a server has."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest

from flowrun.runtime.cli import main
from flowrun.runtime.log.reader import Log
from flowrun.runtime.recorded.runs import RecordedRuns
from flowrun.runtime.server.app import create_view_app
from flowrun.runtime.server.serve import Server
from support.fake_run import FakeRun
from support.helpers import plan_of, record

TOKEN = "a-token-of-the-test"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of 2,001 cycles with a keyframe in every hundredth."""
    folder = tmp_path_factory.mktemp("elsewhere")
    more = "logging: {slab_size_mib: 4, section_size_mib: 1}"
    record(
        plan_of(folder, "n=Numbers(limit: 2000); t=Total", "n > t", more), folder / "runs" / "long"
    )
    return folder / "runs"


@pytest.fixture(scope="module")
def url(folder):
    app = partial(create_view_app, RecordedRuns.at(folder))
    server = Server.start_app(app, host="127.0.0.1", port=0, token=TOKEN)
    yield server.url.partition("?")[0]
    server.stop()


@pytest.fixture
def flowrun(tmp_path, monkeypatch, capsys):
    """Runs a command in a folder of its own; gives its status, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLOWRUN_TOKEN", TOKEN)

    def run(*words):
        status = main([*words])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_the_newest_cycles_of_a_server_are_debugged_here(flowrun, url):
    status, said, _ = flowrun("debug", url, "--trust", "-c", "goto 1500; step; step; print t.total")
    assert status == 0
    assert said.startswith(
        "cycles 1001 to 2000 of long, and those that they need, are in long-1001-2000.mcap ("
    )
    with Log(Path("long-1001-2000.mcap")) as log:
        assert next(log.cycles()).cycle == 1000  # the keyframe before
        [total] = [m for m in log.messages("/t/total") if m.cycle == 1500]
    assert str(total.fields["value"]) in said


def test_a_link_to_a_moment_says_which_cycles(flowrun, url):
    status, said, _ = flowrun("replay", f"{url}?run=long&cycle=120", "--trust", "--from", "100")
    assert status == 0
    assert "are in long-0-620.mcap (" in said
    assert "521 messages identical (t 521)" in said
    assert [it.name for it in Path().iterdir()] == ["long-0-620.mcap"]


def test_a_run_that_goes_on_is_meant_where_there_is_one(flowrun, folder, tmp_path, monkeypatch):
    monkeypatch.delenv("FLOWRUN_TOKEN")
    shutil.copytree(folder / "long", tmp_path / "runs" / "now")
    run = FakeRun()
    run.directories = (tmp_path / "runs" / "now",)
    server = Server.start(run, port=0)
    try:
        status, said, _ = flowrun("debug", server.url, "--trust", "-c", "goto 1999")
        assert (status, "of now, and" in said) == (0, True)
    finally:
        server.stop()
        run.join()


@pytest.mark.parametrize(
    ("link", "error"),
    [
        ("?run=none", "no run 'none'; runs: long"),
        ("?run=long&cycle=9000", "?run=long&cycle=9000: cycle=9000: expected one of 0 to 2000"),
        ("?run=long&cycle=x", "?run=long&cycle=x: cycle=x: expected one of 0 to 2000"),
    ],
)
def test_a_moment_that_is_not_there_is_a_clear_error(flowrun, url, link, error):
    status, said, wrong = flowrun("debug", url + link)
    assert (status != 0, said) == (True, "")
    assert wrong.strip().endswith(error)
    assert list(Path().iterdir()) == []


def test_a_file_that_cannot_be_written_is_named_and_nothing_is_left(flowrun, url, tmp_path):
    (tmp_path / "long-1001-2000.mcap").mkdir()
    status, _, wrong = flowrun("debug", url)
    assert status != 0
    assert "long-1001-2000.mcap: Is a directory" in wrong
    assert [it.name for it in Path().iterdir()] == ["long-1001-2000.mcap"]


def test_a_server_that_is_not_there_or_asks_for_a_token_is_an_error(flowrun, url, monkeypatch):
    _, _, wrong = flowrun("debug", "http://127.0.0.1:1")
    assert wrong.startswith("no server answers at http://127.0.0.1:1 (")
    monkeypatch.delenv("FLOWRUN_TOKEN")
    status, _, wrong = flowrun("debug", url)
    assert (status != 0, "token" in wrong) == (True, True)
