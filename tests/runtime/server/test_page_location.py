"""The run and the moment are in the page's address, whatever leads there."""

import shutil
from functools import partial

import pytest
import structlog

from flowrun.runtime.recorded.runs import RecordedRuns
from flowrun.runtime.server.app import create_view_app
from flowrun.runtime.server.serve import Server
from support.answer_tasks import answered
from support.browser import nothing_went_wrong
from support.paths import MEDIA
from support.stages import STATE, TEXT, played
from support.stages import press as press_button

pytestmark = [pytest.mark.slow, pytest.mark.real]

TIMELINE = "document.querySelector('.timeline')"
PICKER = "document.querySelector('select[aria-label=Run]')"
SAID = "document.getElementById('said').innerText"


def go(page, cycle):
    """Go to a moment as the page itself does."""
    page.evaluate(
        f"import('./page/known.js').then(({{run}}) => {{ run.look({cycle}); }}).then(() => null)"
    )


def choose(page, run):
    page.evaluate(
        f"{PICKER}.value = '{run}'; {PICKER}.dispatchEvent(new Event('change', {{bubbles: true}}))"
    )


def shows(page, run, cycle):
    """Wait until a moment of a recorded run is shown, and is in the address."""
    page.wait_for(f"{TIMELINE}?.dataset.shown == '{cycle}'")
    page.wait_for(f"location.search == '?run={run}&cycle={cycle}'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with two runs."""
    found = tmp_path_factory.mktemp("location")
    run = answered(tmp_path_factory.mktemp("recorded"))
    structlog.reset_defaults()
    for name in ("one", "two"):
        shutil.copytree(run, found / name)
    return found


@pytest.fixture
def url(folder):
    app = partial(create_view_app, RecordedRuns.at(folder))
    server = Server.start_app(app, host="127.0.0.1", port=0, token=None)
    yield server.url
    server.stop()


def test_a_reload_and_the_back_button_show_the_run_and_moment_that_were_shown(browser, url):
    browser.open(f"{url}?run=one&cycle=7#fleet")
    shows(browser, "one", 7)
    assert browser.evaluate("location.hash") == "#fleet"
    steps = browser.evaluate("history.length")
    for cycle in (3, 4, 5):
        go(browser, cycle)
    shows(browser, "one", 5)
    assert browser.evaluate("history.length") == steps
    browser.reload()
    shows(browser, "one", 5)
    choose(browser, "two")
    browser.wait_for("location.search.startsWith('?run=two&cycle=')")
    assert browser.evaluate("history.length") == steps + 1
    go(browser, 9)
    shows(browser, "two", 9)
    browser.evaluate("history.back()")
    shows(browser, "one", 5)
    assert browser.evaluate(f"{PICKER}.value") == "one"
    browser.evaluate("history.forward()")
    shows(browser, "two", 9)
    assert browser.evaluate("history.length") == steps + 1
    nothing_went_wrong(browser)


def test_the_address_of_a_page_that_was_opened_without_a_run_gets_that_which_it_shows(browser, url):
    browser.open(url)
    browser.wait_for(f"{TIMELINE}?.dataset.timeline == 'ready'")
    browser.wait_for("new URLSearchParams(location.search).has('cycle')")
    run, cycle = browser.evaluate("[...new URLSearchParams(location.search).values()]")
    assert run == browser.evaluate(f"{PICKER}.value")
    assert cycle == browser.evaluate(f"{TIMELINE}.dataset.cycle")


def test_a_run_that_is_no_more_is_said_and_stays_in_the_address(browser, url):
    browser.open(f"{url}?run=none&cycle=3")
    browser.wait_for(f"{STATE} == 'ended' && {TEXT}.startsWith('No run')")
    assert browser.evaluate("location.search") == "?run=none&cycle=3"
    choose(browser, "two")
    browser.wait_for("location.search.startsWith('?run=two&cycle=')")
    browser.evaluate("history.back()")
    browser.wait_for(f"{SAID}.includes(\"no run 'none'\")")
    browser.wait_for("location.search.startsWith('?run=two&cycle=')")


def test_a_live_run_has_an_address_of_its_own_only_where_somebody_looks_back(
    browser, new_stage, tmp_path
):
    graph, logs = tmp_path / "graph.yaml", tmp_path / "runs"
    graph.write_text(played(MEDIA / "shapes.mp4", tmp_path))
    stage = new_stage(graph, "--plain", "--port", "0", "--log-dir", logs)
    browser.open(stage.url)
    browser.wait_for(f"{STATE} == 'running' && {TIMELINE}?.dataset.timeline == 'ready'")
    browser.wait_for(f"{TIMELINE}.dataset.cycle == 'live'")
    assert browser.evaluate("location.search") == ""
    [run] = [path.name for path in logs.iterdir() if path.is_dir()]
    steps = browser.evaluate("history.length")
    go(browser, 3)
    shows(browser, run, 3)
    go(browser, 2)
    shows(browser, run, 2)
    assert browser.evaluate("history.length") == steps + 1
    browser.reload()
    shows(browser, run, 2)
    assert browser.evaluate(f"{TIMELINE}.dataset.state") == "running"
    press_button(browser, "back to now", ".top")
    browser.wait_for("location.search == ''")
    browser.evaluate("history.back()")
    shows(browser, run, 2)
    browser.evaluate("history.back()")
    browser.wait_for(f"{TIMELINE}.dataset.cycle == 'live' && location.search == ''")
    nothing_went_wrong(browser)
