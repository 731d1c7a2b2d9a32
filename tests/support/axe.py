"""Accessibility, as axe-core sees it."""

from pathlib import Path

import pytest

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
