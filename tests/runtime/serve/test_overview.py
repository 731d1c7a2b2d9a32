"""The first page of a server of pipelines, in a real browser."""

import os
import signal
import sys

import pytest

from support.axe import is_accessible
from support.browser import Browser
from support.pipelines import (
    ECHO,
    KILLED,
    SCRIPTED_UP,
    TWO_PARTITIONS,
    scripted_pipelines,
    serving,
    write_script,
)
from support.stages import Stage

pytestmark = pytest.mark.real

ROW = "document.querySelector('[data-pipeline=\"{}\"]')"
SAID = "document.getElementById('said').innerText"


@pytest.fixture(scope="module")
def browsers(tmp_path_factory):
    """Two windows that look at the same server."""
    folder = tmp_path_factory.mktemp("chromium")
    both = [Browser(folder / "one"), Browser(folder / "two")]
    yield both
    for browser in both:
        browser.close()


@pytest.fixture
def browser(browsers):
    return browsers[0]


@pytest.fixture
def page(tmp_path, browser):
    """The page of a server of a graph that runs, and ones that do not; the pipelines too."""
    write_script(tmp_path, "cam <b>", ECHO)
    write_script(tmp_path, "wrong", "echo 'error: no <i>camera</i>' >&2; exit 1")
    write_script(tmp_path, "slow", f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; {ECHO}")
    write_script(tmp_path, "stuck", f"trap '' TERM; {ECHO.removeprefix('exec ')} & wait; wait")
    write_script(tmp_path, "again", "exit 3")
    pipelines, _ = scripted_pipelines(tmp_path, first_pause_s=600)
    with serving(pipelines) as client:
        browser.size(1440, 900)
        browser.open(str(client.base_url))
        browser.wait_for("document.body.dataset.state == 'running'")
        yield browser, pipelines, client
    browser.open("about:blank")


def click(browser, name, word):
    browser.click(f"document.querySelector('[aria-label=\"{word} {name}\"]')")


def shows(browser, name, phase, timeout_s=240.0):
    browser.wait_for(f"{ROW.format(name)}.dataset.phase == '{phase}'", timeout_s)


def pill(browser, name):
    return browser.evaluate(f"{ROW.format(name)}.querySelector('.pill').innerText")


def enabled(browser, name):
    return browser.evaluate(
        f"[...{ROW.format(name)}.querySelectorAll('button:not(:disabled)')].map(it => it.innerText)"
    )


def is_usable(browser):
    is_accessible(browser, fits=False, phone=True)
    browser.size(390, 844)
    right = (
        "[...document.querySelectorAll('tbody button')].map(it => it.getBoundingClientRect().right)"
    )
    assert browser.evaluate(f"Math.max(0, ...{right})") <= 390
    browser.size(1440, 900)


def test_pipelines_are_started_and_stopped(page):
    browser, pipelines, _ = page
    rows = browser.evaluate("[...document.querySelectorAll('tbody tr')].map(row => row.innerText)")
    assert [row.split("\t")[:2] for row in rows] == [
        [name, "Stopped"] for name in ("again", "cam <b>", "slow", "stuck", "wrong")
    ]
    assert enabled(browser, "cam <b>") == ["Start"]
    click(browser, "cam <b>", "Start")
    shows(browser, "cam <b>", "running")
    assert pipelines.find("cam <b>").is_running
    links = "[...document.querySelectorAll('th a')].map(link => link.getAttribute('href'))"
    assert browser.evaluate(links)[1].endswith("/pipelines/cam%20%3Cb%3E/")
    click(browser, "wrong", "Start")
    shows(browser, "wrong", "failed")
    assert browser.evaluate(f"{ROW.format('wrong')}.querySelector('.error').innerText") == (
        "no <i>camera</i>"
    )
    browser.wait_for(f"{SAID} == 'no <i>camera</i>'")
    is_usable(browser)
    first = pipelines.find("cam <b>").state().pid
    click(browser, "cam <b>", "Restart")
    browser.wait_for(f"{SAID} == 'Pipeline cam <b> restarted'")
    assert pipelines.find("cam <b>").state().pid != first
    for name in ("cam <b>", "wrong"):
        click(browser, name, "Stop")
        shows(browser, name, "stopped")
    assert pipelines.running() == []


def test_each_phase_is_shown_in_every_window(page, browsers, tmp_path):
    browser, _, client = page
    other = browsers[1]
    other.size(1440, 900)
    other.open(str(client.base_url))
    other.wait_for("document.body.dataset.state == 'running'")

    click(browser, "slow", "Start")  # its server does not answer yet
    for window in (browser, other):
        shows(window, "slow", "starting")
        assert pill(window, "slow") == "Starting"
    assert enabled(other, "slow") == ["Stop", "Restart"]
    (tmp_path / "go").touch()
    for window in (browser, other):
        shows(window, "slow", "running")

    click(browser, "stuck", "Start")
    shows(other, "stuck", "running")
    click(other, "stuck", "Stop")  # its process does not listen: it is ended after 4 s
    shows(browser, "stuck", "stopping")
    assert (pill(browser, "stuck"), enabled(browser, "stuck")) == ("Stopping", [])
    is_usable(browser)
    for window in (browser, other):
        shows(window, "stuck", "stopped")

    client.post("/api/v0/pipeline/start", json={"pipeline_id": "again", "restart": "always"})
    for window in (browser, other):
        shows(window, "again", "waiting")
        assert pill(window, "again") == "Restarting"
    text = browser.evaluate(f"{ROW.format('again')}.innerText")
    assert "ended with status 3" in text
    assert "starts again in 600 s" in text or "starts again in 59" in text
    assert enabled(browser, "again") == ["Start", "Stop"]
    is_usable(browser)
    click(other, "again", "Stop")
    shows(browser, "again", "stopped")
    other.open("about:blank")


def test_a_run_that_is_killed_is_seen_at_once(page):
    browser, pipelines, _ = page
    click(browser, "cam <b>", "Start")
    shows(browser, "cam <b>", "running")
    os.kill(pipelines.find("cam <b>").state().pid, signal.SIGKILL)
    shows(browser, "cam <b>", "failed")
    assert browser.evaluate(f"{ROW.format('cam <b>')}.querySelector('.error').innerText") == KILLED
    assert enabled(browser, "cam <b>") == ["Start", "Stop"]


def test_a_list_that_comes_late_is_not_drawn_over_a_newer_one(page):
    browser, pipelines, _ = page
    # The next list is held back until a newer one has come.
    browser.evaluate("""(() => { const real = fetch; window.holds = true;
      window.fetch = async (url, options) => {
        const reply = await real(url, options);
        if (window.holds && String(url).includes('/list')) {
          window.holds = false;
          await new Promise(go => { window.go = go; });
          window.isOldRead = new Promise(done => {
            const json = reply.json.bind(reply);
            reply.json = async () => { const found = await json(); setTimeout(done); return found; };
          });
        }
        return reply; }; })()""")
    browser.wait_for("!!window.go")
    click(browser, "cam <b>", "Start")
    shows(browser, "cam <b>", "running")
    drawn = "window.phases"
    browser.evaluate(
        f"{drawn} = []; new MutationObserver(() => {drawn}.push({ROW.format('cam <b>')}.dataset.phase))"
        ".observe(document.body, {attributes: true, subtree: true}); null"
    )
    browser.evaluate("(go(), new Promise(done => setTimeout(done)).then(() => isOldRead))")
    assert "stopped" not in browser.evaluate(drawn)
    assert pipelines.find("cam <b>").is_running


def test_graphs_come_and_go_without_a_reload(page, tmp_path):
    browser, _, _ = page
    write_script(tmp_path, "new", ECHO)
    browser.wait_for(f"{ROW.format('new')}?.dataset.phase == 'stopped'")
    (tmp_path / "new.yaml").unlink()
    browser.wait_for(f"!{ROW.format('new')}")


def test_a_server_that_is_killed_is_seen_at_once(tmp_path, browser):
    write_script(tmp_path, "cam", ECHO)
    stage = Stage(tmp_path, ["serve", tmp_path, "--port", "0", "--log-dir", tmp_path / "runs"])
    try:
        browser.open(stage.url)
        browser.wait_for("document.body.dataset.state == 'running'")
        stage.process.kill()
        browser.wait_for("document.body.dataset.state == 'gone'")
        browser.wait_for(
            "document.querySelector('.state.gone').innerText.startsWith('Server gone')"
        )
        assert (pill(browser, "cam"), enabled(browser, "cam")) == ("was stopped", [])
        is_usable(browser)
    finally:
        stage.close()


def test_an_empty_folder_says_so(tmp_path, browser):
    pipelines, _ = scripted_pipelines(tmp_path)
    with serving(pipelines) as client:
        browser.open(str(client.base_url))
        browser.wait_for("document.body.innerText.includes('The folder holds no graph file yet.')")
        is_usable(browser)


def test_all_is_reached_by_keys(page):
    browser, _, _ = page
    reached = []
    for _ in range(10):
        browser.press("Tab")
        reached.append(
            browser.evaluate("(it => it.ariaLabel || it.textContent)(document.activeElement)")
        )
    for name in ("Recorded runs", "HTTP API", "again", "Start again", "cam <b>", "Start cam <b>"):
        assert name in reached, reached
    browser.evaluate("document.querySelector('[aria-label=\"Start cam <b>\"]').focus()")
    browser.press("Enter")
    shows(browser, "cam <b>", "running")


def test_the_partitions_of_a_graph_are_shown(browser, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.yaml").write_text(TWO_PARTITIONS)
    (tmp_path / "up.py").write_text(SCRIPTED_UP)
    command = (sys.executable, "-I", "-S", str(tmp_path / "up.py"))
    pipelines, _ = scripted_pipelines(tmp_path, fleet_command=command)
    parts = f"[...{ROW.format('two')}.querySelectorAll('.parts li')].map(it => it.innerText)"
    with serving(pipelines) as client:
        browser.open(str(client.base_url))
        browser.wait_for("document.body.dataset.state == 'running'")
        assert browser.evaluate(parts) == []
        click(browser, "two", "Start")
        browser.wait_for(f"{parts}.join() == 'a/0: started,b/0: started'")
        (tmp_path / "fail").touch()
        why = "failed: no camera; starts again in 1 s"
        browser.wait_for(f"{parts}.join() == 'a/0: started,b/0: {why}'")
        assert browser.evaluate(f"{ROW.format('two')}.querySelector('.failed').innerText") == (
            f"b/0: {why}"
        )
        is_usable(browser)
        click(browser, "two", "Stop")
        shows(browser, "two", "stopped")
        assert browser.evaluate(parts) == []
    browser.open("about:blank")
