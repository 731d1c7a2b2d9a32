"""Accessibility, as axe-core sees it."""

from pathlib import Path

import pytest

from support.browser import nothing_went_wrong

SCRIPT = Path(__file__).parents[1] / "page" / "node_modules" / "axe-core" / "axe.min.js"


def violations(browser):
    """What axe finds wrong with the page as it is: rule, help, and the first elements."""
    if not SCRIPT.exists():
        pytest.fail("these tests need axe-core: make tests/page/node_modules", pytrace=False)
    browser.evaluate(SCRIPT.read_text(encoding="utf-8") + "; 0")
    return browser.evaluate(
        "axe.run(document, {resultTypes: ['violations']}).then(found => found.violations.map("
        "it => [it.id, it.help, it.nodes.slice(0, 3).map(node => node.html.slice(0, 200))]))"
    )


def is_accessible(browser, *, fits=True, phone=False):
    """axe finds nothing wrong with the page in a large window, in both schemes; its size after that.

    fits: whether all is in the window, so that nobody scrolls. phone: on a phone too, as wide as that.
    What axe leaves in the browser's log, as it tries styles that the page forbids, is forgotten.
    """
    browser.evaluate("0")
    before = list(browser.events)
    for dark in (False, True):
        browser.size(1440, 900, dark=dark)
        assert violations(browser) == []
        if fits:
            assert browser.evaluate("document.documentElement.scrollHeight") <= 900
        if phone:
            browser.size(390, 844, dark=dark)
            assert violations(browser) == []
            assert browser.evaluate("document.documentElement.scrollWidth") <= 390
    browser.size(1440, 900)
    browser.evaluate("0")
    browser.events.clear()
    browser.events.extend(before)


def is_right(browser, *, gone=None, fits=True):
    """`nothing_went_wrong` so far, which is then forgotten, and `is_accessible`."""
    nothing_went_wrong(browser, gone=gone)
    is_accessible(browser, fits=fits)
    browser.events.clear()
