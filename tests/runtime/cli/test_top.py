"""`flowrun top`: a run that goes on, from another process's point of view."""

import json
import os
import signal
import socket

import pytest

from flowrun.runtime.cli import main
from flowrun.runtime.cli.announced import announced, running
from flowrun.runtime.server.serve import Server
from support.fake_run import FakeRun
from support.on_terminal import OnTerminal


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "flowrun"


@pytest.fixture
def run(tmp_path):
    made = FakeRun()
    made.directory = tmp_path / "runs" / "inference-1"
    made.cycles = 900
    yield made
    made.end()


def test_a_run_that_goes_on_is_found_by_its_graph_or_its_directory(folder, run, capsys):
    with announced(run, "http://127.0.0.1:3000/"):
        for words in ([], ["inference"], [str(run.directory)]):
            assert main(["top", *words]) == 0
            lines = capsys.readouterr().out.splitlines()
            assert lines[0] == "inference: Running  http://127.0.0.1:3000/"
            assert lines[1].startswith("  36.0 s  900 cycles  25.0/s  log 48.3 MB")
            [cam] = [line.split() for line in lines if line.startswith("cam0 ")]
            assert cam[:4] == ["cam0", "VideoCapture", "25.0", "412.0"]
    assert main(["top"]) == 1
    assert capsys.readouterr().err == (
        "no run of yours goes on on this machine; of one elsewhere: flowrun top URL\n"
    )


def test_another_name_lists_what_runs(folder, run, capsys):
    with announced(run, None):
        assert main(["top", "street"]) == 1
    assert capsys.readouterr().err == (
        f"'street' does not run on this machine; what does: inference ({run.directory})\n"
    )


def test_json_is_the_report_and_where_it_is_from(folder, run, capsys):
    with announced(run, None):
        assert main(["top", "--json"]) == main(["top", "inference", "--json"]) == 0
    decoder = json.JSONDecoder()
    text = capsys.readouterr().out
    [listed], end = decoder.raw_decode(text)
    assert decoder.raw_decode(text[end:].lstrip())[0] == listed
    assert listed["where"] == str(run.directory)
    assert listed["tasks"]["cam0"]["rate_hz"] == 25.0


def test_a_run_is_found_by_the_address_of_its_page(run, capsys, monkeypatch):
    server = Server.start(run, port=0, token="right")
    try:
        assert main(["top", server.url]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"inference: Running  http://127.0.0.1:{server.port}/"
        assert main(["top", str(server.port)]) == 1
        assert capsys.readouterr().err == (
            f"http://127.0.0.1:{server.port}/: its server asks for a token: give --token, or set "
            "FLOWRUN_TOKEN\n"
        )
        monkeypatch.setenv("FLOWRUN_TOKEN", "right")
        assert main(["top", str(server.port), "--once"]) == 0
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("url", "error"),
    [
        (
            "http://127.0.0.1:1",
            "http://127.0.0.1:1: nobody answers: [Errno 111] Connection refused",
        ),
        ("http://a:b", "'http://a:b' is no URL: Invalid port: 'b'"),
    ],
)
def test_an_address_where_no_run_is_says_why(url, error, capsys):
    assert main(["top", url]) in (1, 2)
    assert capsys.readouterr().err == f"{error}\n"


def test_what_a_killed_run_left_is_removed(folder, run):
    folder.mkdir(mode=0o700)
    left = folder / "12345.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(left))
    with announced(run, None):
        assert [it.pid for it in running()] == [os.getpid()]
    assert list(folder.iterdir()) == []


def test_a_folder_that_others_can_use_is_not_used(folder, run):
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    with announced(run, None):
        assert running() == []
    assert list(folder.iterdir()) == []


@pytest.mark.long
@pytest.mark.slow
def test_on_a_terminal_it_follows_the_run_to_its_end(tmp_path, folder):
    (tmp_path / "g.yaml").write_text(
        "tasks: [{id: counter, type: Counter, config: {rate_hz: 50}}, {id: p, type: Print}]\n"
        "cnx: [{src: counter, dst: p, msg: IntMsg}]\n"
    )
    with OnTerminal("g.yaml", cwd=tmp_path) as graph:
        graph.until("cycles")
        with OnTerminal("top", "g", cwd=tmp_path, columns=50) as top:
            top.until(r"counter +[1-9]")
            graph.process.send_signal(signal.SIGINT)
            assert graph.rest() == 0
            assert top.rest() == 0
            assert "g: ended" in top.shown
