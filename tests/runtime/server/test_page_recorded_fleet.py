"""A recorded fleet on one page: its time line, its links, and a press that shows a partition then."""

import pytest

from support.axe import is_accessible
from support.fleets import chain_of_clocks, two_processes

pytestmark = [pytest.mark.real, pytest.mark.slow]

SHOWN = "document.querySelector('select[aria-label=Run]').value"
CYCLE = "document.querySelector('.timeline[data-timeline=ready]')?.dataset.shown"


def press_line(browser, row, part, *, rows=4):
    """Press the time line in a row of it, at a part of its width."""
    browser.evaluate(f"""(() => {{
        const line = document.querySelector('.fleet-line svg');
        const {{left, top, width, height}} = line.getBoundingClientRect();
        const at = {{clientX: left + width * {part}, clientY: top + ({row} + .5) * height / {rows}}};
        line.dispatchEvent(new MouseEvent('click', {{bubbles: true, ...at}}));
    }})()""")


def await_mark(browser, part):
    """Wait until the mark of the moment is at a part of the line's width: the run has told its cycle."""
    mark = "parseFloat(document.querySelector('.fleet-line path.at').getAttribute('d').slice(1))"
    browser.wait_for(f"Math.abs({mark} - {1000 * part}) < 1")


def row(browser, kind, name):
    return browser.evaluate(
        f"[...document.querySelector('[data-{kind}=\"{name}\"]').children].map(it => it.textContent)"
    )


def test_a_recorded_fleet_is_seen_at_once_and_each_partition_at_the_same_moment(
    viewed, browser, tmp_path
):
    two_processes(tmp_path / "f")
    viewed(tmp_path / "f")
    browser.click("document.getElementById('tab-fleet')")
    browser.wait_for("document.querySelectorAll('.fleet-line rect').length == 3")
    assert browser.evaluate(f"{SHOWN}") == "a2"
    assert row(browser, "part", "a/0") == [
        "a/0 this page", "ended", *row(browser, "part", "a/0")[2:3], "11 s", "13", "0", "0", "1"
    ]  # fmt: skip
    assert row(browser, "part", "b/0")[3:] == ["20 s", "5", "1", "7", "0"]
    assert row(browser, "part", "c/left")[:2] == ["c/left", "no log here"]
    assert row(browser, "link", "a/0 b/0") == [
        "a/0 → b/0", "3", "498 ms, 991 ms", "1.0 s", "2", "1", "2", "1", "+1.5 ms"
    ]  # fmt: skip
    said = "document.querySelector('[aria-label=Links]').textContent"
    assert "cycles 4 to the end of its run of a/0 never come: gone" in browser.evaluate(said)
    # The line begins at second 1 and ends at 23: the first run of a was at its cycle of second 5.
    press_line(browser, 0, 4.5 / 22)
    browser.wait_for(f"{SHOWN} == 'a1' && {CYCLE} == '4'")
    await_mark(browser, 4 / 22)
    # b then: its clock is 1.5 ms behind, so that its cycle of second 5.0 was later than that of a.
    browser.click("document.querySelector('[data-part=\"b/0\"] button')")
    browser.wait_for(f"{SHOWN} == 'b1' && {CYCLE} == '1'")
    # Before b began, it is shown at its begin; a row of a link is the receiver's.
    press_line(browser, 3, 0)
    browser.wait_for(f"{SHOWN} == 'b1' && {CYCLE} == '0'")
    # A gap leads to where it was noted.
    browser.click("document.querySelector('[aria-label=Links] .said-last button')")
    browser.wait_for(f"{SHOWN} == 'b1' && {CYCLE} == '3'")
    assert browser.of("Log.entryAdded") == []
    is_accessible(browser, fits=False, phone=True)


def test_partitions_with_other_clocks_are_shown_at_the_same_moment(viewed, browser, tmp_path):
    chain_of_clocks(tmp_path / "f")
    viewed(tmp_path / "f")
    browser.click("document.getElementById('tab-fleet')")
    browser.wait_for("document.querySelectorAll('.fleet-line rect').length == 3")
    # The line begins at second 1 and ends at 3, by the clock of a; b's is an hour behind.
    press_line(browser, 1, 0.8, rows=5)
    browser.wait_for(f"{SHOWN} == 'b1' && {CYCLE} == '1'")
    await_mark(browser, 1.5 / 2)
    browser.click("document.querySelector('[data-part=\"a/0\"] button')")
    browser.wait_for(f"{SHOWN} == 'a1' && {CYCLE} == '1'")
    await_mark(browser, 1 / 2)
    browser.click("document.querySelector('[data-part=\"c/0\"] button')")
    browser.wait_for(f"{SHOWN} == 'c1' && {CYCLE} == '0'")
    await_mark(browser, 1 / 2)
    browser.click("document.querySelector('[data-part=\"b/0\"] button')")
    browser.wait_for(f"{SHOWN} == 'b1' && {CYCLE} == '0'")
    # A gap is noted by the clock of who noted it.
    browser.click("document.querySelector('[aria-label=Links] .said-last button')")
    browser.wait_for(f"{SHOWN} == 'c1' && {CYCLE} == '1'")
    assert browser.of("Log.entryAdded") == []


def test_a_clock_that_is_not_known_is_said(viewed, browser, tmp_path):
    chain_of_clocks(tmp_path / "f", c_knows=False)
    viewed(tmp_path / "f")
    browser.click("document.getElementById('tab-fleet')")
    browser.wait_for("document.querySelectorAll('.fleet-line rect').length == 3")
    assert row(browser, "link", "a/0 b/0")[2:4] == ["500 ms, 500 ms", "500 ms"]
    assert row(browser, "link", "b/0 c/0")[2:4] == ["60.5 s, 60.5 s", "60.5 s"]
    assert row(browser, "link", "b/0 c/0")[-1] == "not known"
    said = "[...document.querySelectorAll('.fleet .unsure')].map(it => it.textContent)"
    assert [" ".join(it.split()) for it in browser.evaluate(said)] == [
        "c/0: the logs do not say how far its clock was from the others'. Its times are by its own.",
        "b/0 → c/0: the logs do not say by how much the clocks differed. How late what came was is by "
        "the clock of each.",
    ]
    assert browser.of("Log.entryAdded") == []
    is_accessible(browser, fits=False)
