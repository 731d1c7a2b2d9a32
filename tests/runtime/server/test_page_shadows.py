"""What the page says of shadows, in a real browser, of a recorded run and of one that goes on."""

import json

import pytest

from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.shadows import compared
from flowrun.runtime.recorded.run import RecordedRun
from support.axe import violations
from support.shadow_runs import GRAPH, is_seen, ran
from support.stages import STATE, press

pytestmark = [pytest.mark.slow, pytest.mark.real]

PANEL = "document.getElementById('panel')"
ROWS = f"[...{PANEL}.querySelectorAll('.shadow-list li[data-cycle]')]"
HOW = f"{PANEL}.querySelector('[data-how]')?.dataset.how"
TIMELINE = "document.querySelector('.timeline')"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return ran(tmp_path_factory.mktemp("shadows"), is_enough=is_seen)


def opened(page, shadow):
    """The page with its tab of shadows, at one of them."""
    page.wait_for("!!document.getElementById('tab-shadows')")
    page.click("document.getElementById('tab-shadows')")
    press(page, shadow, "#panel")
    page.wait_for(f"{PANEL}.querySelector('p b')?.textContent == '{shadow}'")


def test_the_last_disagreements_lead_to_their_moments(viewed, run):
    with Log(run) as log:
        [its] = [it for it in compared(log) if it.shadow == "vlm_shadow"]
    recorded = RecordedRun("x", run)
    last = recorded.shadows(None, bins=1, most=1)["vlm_shadow"]["last"][0]
    recorded.close()
    page = viewed(run)
    opened(page, "vlm_shadow")
    page.wait_for(f"{ROWS}[0]?.dataset.cycle == {last['cycle']}")
    [both] = [it for it in its.disagreed if it.frame_cycle == last["frame_cycle"]]
    shown = page.evaluate(f"{ROWS}[0].querySelector('.said').innerText")
    assert both.said in shown
    assert both.shadow_said in shown
    page.wait_for(f"{ROWS}[0].querySelector('img')?.naturalWidth > 0")
    assert f"cycle={last['frame_cycle']}" in page.evaluate(f"{ROWS}[0].querySelector('a').href")
    page.wait_for(f"{PANEL}.querySelectorAll('.rate .differ').length > 0")
    page.click(f"{ROWS}[0].querySelectorAll('button')[0]")
    page.wait_for(f"{TIMELINE}.dataset.shown == {last['cycle']}")
    page.wait_for(f"{ROWS}[0]?.dataset.cycle == {last['cycle']}")
    page.wait_for(
        f"document.querySelector('.answers').innerText.includes({json.dumps(both.shadow_said)})"
    )
    page.click(f"{ROWS}[0].querySelectorAll('button')[1]")
    frame = last["frame_cycle"]
    page.wait_for(f"{TIMELINE}.dataset.shown == {frame}")
    page.wait_for(f"document.querySelector('.screen[data-past=exact]')?.dataset.cycle == {frame}")


def test_at_a_moment_before_nothing_of_later_is_shown(viewed, run):
    page = viewed(run)
    opened(page, "vlm_shadow")
    page.wait_for(f"{ROWS}.length > 0")
    page.evaluate(
        f"{TIMELINE}.querySelector('canvas').dispatchEvent("
        "new KeyboardEvent('keydown', {key: 'Home', bubbles: true}))"
    )
    page.wait_for(f"{TIMELINE}.dataset.shown == 0 && {ROWS}.length == 0")
    page.wait_for(f"{PANEL}.innerText.includes('0 of 0 frames until this moment')")


def test_a_shadow_that_fails_and_one_that_has_spent_its_budget_say_so(viewed, run):
    page = viewed(run)
    opened(page, "gate_shadow")
    page.wait_for(f"{HOW} == 'fails' && {PANEL}.innerText.includes('ValueError: broken')")
    assert "No frame has been answered by both yet." in page.evaluate(f"{PANEL}.innerText")
    opened(page, "thrifty_shadow")
    page.wait_for(f"{HOW} == 'its budget is spent'")
    text = page.evaluate(f"{PANEL}.innerText")
    assert "3 of 3 questions in the hour before" in text
    assert "by the hourly budget" in text
    for size in ((1440, 900), (390, 844)):
        page.size(*size)
        assert violations(page) == []
    page.events.clear()  # axe tries styles that the page forbids


def test_of_a_run_that_goes_on_the_newest_come_by_themselves(new_stage, browser, tmp_path):
    (tmp_path / "g.yaml").write_text(
        GRAPH.replace("config: {limit: 30000}", "rate_hz: 20, config: {limit: 100000}"),
        encoding="utf-8",
    )
    stage = new_stage(
        str(tmp_path / "g.yaml"), "--port", "0", "--plain", "--log-dir", str(tmp_path / "runs")
    )
    browser.open(stage.url)
    browser.wait_for(f"['running', 'degraded'].includes({STATE})")
    opened(browser, "vlm_shadow")
    browser.wait_for(f"{ROWS}.length > 0")
    first = browser.evaluate(f"{ROWS}[0].dataset.cycle")
    browser.wait_for(f"Number({ROWS}[0].dataset.cycle) > {first}")
    browser.wait_for(f"{PANEL}.querySelectorAll('.rate .compared').length > 0")


def test_a_run_without_shadows_has_no_tab_for_them(viewed, tmp_path):
    graph = "tasks: [{id: n, type: Counter, config: {limit: 3}}]"
    page = viewed(ran(tmp_path, graph))
    assert page.evaluate("!!document.getElementById('tab-seen')")
    assert not page.evaluate("!!document.getElementById('tab-shadows')")
