"""A run to watch without a graph, and a browser to watch it with."""

from functools import partial

import pytest

from flowrun.runtime.recorded.runs import RecordedRuns
from flowrun.runtime.server.app import create_view_app
from flowrun.runtime.server.serve import Server
from support.api_client import asking
from support.browser import Browser
from support.fake_run import FakeRun
from support.stages import Stage


@pytest.fixture
def new_run():
    """Makes fake runs, and ends them."""
    runs = []

    def make(**options):
        runs.append(FakeRun(**options))
        return runs[-1]

    yield make
    for run in runs:
        run.join()


@pytest.fixture
def new_server():
    """Starts servers on free ports, and ends them."""
    servers = []

    def make(run, **options):
        servers.append(Server.start(run, port=0, **options))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def quiet():
    """A run and its server that many tests share, as they change nothing."""
    run = FakeRun()
    server = Server.start(run, port=0)
    yield run, server
    server.stop()
    run.join()


@pytest.fixture
def new_stage(tmp_path):
    """Starts runs of the command, and ends them."""
    stages = []

    def start(*words, **options):
        stages.append(Stage(tmp_path, words, **options))
        return stages[-1]

    yield start
    for stage in stages:
        stage.close()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("chromium") / "profile")
    yield browser
    browser.close()


@pytest.fixture
def browser(chromium):
    """A browser with an empty page; one process serves all tests of a module."""
    chromium.size(1360, 900)
    yield chromium
    chromium.forget()
    chromium.open("about:blank")
    chromium.wait_for("location.href == 'about:blank'")
    chromium.events.clear()


@pytest.fixture
def viewed(browser):
    """Opens the page of a recorded run. Nothing may go wrong on it."""
    servers = []

    def open_(run):
        app = partial(create_view_app, RecordedRuns.at(run))
        servers.append(Server.start_app(app, host="127.0.0.1", port=0, token=None))
        browser.size(1440, 900)
        browser.open(servers[-1].url)
        browser.wait_for("document.querySelector('.timeline')?.dataset.timeline == 'ready'")
        return browser

    yield open_
    wrong = [
        entry["entry"]["text"]
        for entry in browser.of("Log.entryAdded")
        if "readback" not in entry["entry"]["text"]  # of the tests themselves
    ]
    assert (browser.of("Runtime.exceptionThrown"), wrong) == ([], [])
    for server in servers:
        server.stop()


@pytest.fixture
def run(new_run):
    return new_run()


@pytest.fixture
def http(run, new_server):
    with asking(new_server(run)) as client:
        yield client


@pytest.fixture
def quiet_http(quiet):
    with asking(quiet[1]) as client:
        yield client
