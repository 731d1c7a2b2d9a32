"""The page of differences, in a real browser."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import structlog

from flowrun.runtime.recorded.runs import RecordedRuns
from flowrun.runtime.replay.page import Board, Entry, Page, Series
from flowrun.runtime.server.app import create_view_app
from flowrun.runtime.server.serve import Server
from support.answer_tasks import answered
from support.browser import nothing_went_wrong

pytestmark = [pytest.mark.slow, pytest.mark.real]

EVIL = "<img src=x onerror=document.title='broken'>"


@pytest.fixture
def page(browser: Any, tmp_path: Any) -> Any:
    """10,000 differences of two tasks and two cameras, each tenth of them with EVIL in it."""
    entries = [
        Entry(
            0,
            k,
            k / 10,
            "count.answer" if k % 2 else "caption.answer",
            "number" if k % 2 else "text",
            str(k) if k % 10 else EVIL,
            str(k + 1),
            [("response", str(k), str(k + 1), True), ("prompt", "p", "p", False)],
            camera="door" if k % 4 else "yard",
        )
        for k in range(10_000)
    ]
    made = Page(
        "10,000 differ",
        "lead",
        "flowrun replay",
        [("run", "runs/run")],
        entries,
        compared={"count.answer": 20_000, "caption.answer": 5_000},
        length_s=1000,
        series=[Series("count.answer value", [(k / 10, 1.0, float(k % 3)) for k in range(5000)])],
        board=Board(["#", "", "agrees"], [["1", "A", "100 %"]], ["A agrees everywhere."]),
    )
    (tmp_path / "r.html").write_text(made.text())
    browser.size(1300, 900)
    browser.open(f"file://{tmp_path}/r.html")
    browser.wait_for("document.querySelectorAll('.row').length > 0")
    yield browser
    nothing_went_wrong(browser)


def test_only_rows_in_sight_are_drawn_and_filters_choose_among_all(page):
    assert page.evaluate("document.querySelectorAll('.row').length") < 60
    assert page.evaluate("document.body.scrollHeight") < 3000
    assert page.evaluate("document.title") == "10,000 differ"
    summary = page.evaluate("document.getElementById('summary').innerText")
    assert "5,000 of 20,000, 25 %" in summary
    assert "A agrees everywhere." in summary
    page.evaluate(
        "Object.assign(document.getElementById('filter-camera'), {value: 'yard'})"
        ".dispatchEvent(new Event('change'))"
    )
    assert page.evaluate("document.getElementById('count').textContent") == "2,500 of 10,000"
    page.evaluate(
        "(it => { it.value = '9996'; it.dispatchEvent(new Event('input')); })"
        "(document.querySelector('input[type=search]'))"
    )
    assert page.evaluate("document.getElementById('count').textContent") == "1 of 10,000"
    link = page.evaluate("document.querySelector('#detail a').href")
    assert link == "http://127.0.0.1:3000/?run=run&cycle=9996"
    page.click("document.getElementById('clear')")
    page.evaluate(
        "document.getElementById('list').dispatchEvent(new KeyboardEvent('keydown', {key: 'End'}))"
    )
    page.wait_for("document.querySelector('#detail').innerText.includes('cycle 9,999')")
    assert page.evaluate("document.querySelectorAll('.row').length") < 60


def test_on_a_phone_nothing_is_wider_than_the_screen(page):
    page.size(390, 800, dark=True)
    page.wait_for("document.documentElement.clientWidth === 390")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_its_link_opens_the_moment_in_flowrun_view(browser, tmp_path):
    run = answered(tmp_path)
    structlog.reset_defaults()
    app = partial(create_view_app, RecordedRuns.at(run))
    server = Server.start_app(app, host="127.0.0.1", port=0, token=None)
    try:
        browser.open(f"{server.url}?run={run.name}&cycle=7")
        browser.wait_for("document.querySelector('.timeline')?.dataset.shown === '7'")
        nothing_went_wrong(browser)
    finally:
        server.stop()
