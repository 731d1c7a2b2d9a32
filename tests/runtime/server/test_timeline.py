"""The timeline of the page, in a real browser, on a recorded run and on one that goes on."""

import json
import shutil
from functools import partial

import pytest
import structlog

from flowrun.msgs import IntMsg
from flowrun.runtime.log.reader import Log
from flowrun.runtime.recorded.runs import RecordedRuns
from flowrun.runtime.server.app import create_view_app
from flowrun.runtime.server.serve import Server
from support.answer_tasks import answered
from support.axe import violations
from support.browser import nothing_went_wrong
from support.fake_run import FakeRun
from support.log_writing import T0, commit, writer_of
from support.paths import TESTS
from support.stages import STATE, TEXT
from support.stages import press as press_button

pytestmark = [pytest.mark.slow, pytest.mark.real]

SAID = "document.getElementById('said').innerText"
TIMELINE = "document.querySelector('.timeline')"
CHART = f"{TIMELINE}.querySelector('canvas')"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    found = answered(tmp_path_factory.mktemp("timeline"))
    structlog.reset_defaults()
    return found


@pytest.fixture
def run(recorded, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(recorded, tmp_path / "run")


@pytest.fixture
def page(browser, run):
    app = partial(create_view_app, RecordedRuns.at(run))
    server = Server.start_app(app, host="127.0.0.1", port=0, token=None)
    browser.size(1440, 900)
    browser.open(server.url)
    browser.wait_for(f"{TIMELINE}.dataset.timeline == 'ready'")
    yield browser
    nothing_went_wrong(browser)
    server.stop()


def press(page, key):
    page.evaluate(
        f"{CHART}.focus(); {CHART}.dispatchEvent(new KeyboardEvent('keydown', "
        f"{{key: {json.dumps(key)}, bubbles: true}}))"
    )


def click(page, name):
    press_button(page, name, ".timeline")


def at(page, cycle):
    """Wait until the page shows that moment."""
    page.wait_for(f"{TIMELINE}.dataset.shown == '{cycle}'")


def drag(page, *parts, shift=False):
    """Drag over the lanes, from one part of their width to the next."""
    left, top, width = page.evaluate(
        f"(r => [r.left, r.top, r.width])({CHART}.getBoundingClientRect())"
    )

    def mouse(kind, part):
        page.mouse(kind, left + part * width, top + 20, shift=shift)

    mouse("mousePressed", parts[0])
    for part in parts:
        mouse("mouseMoved", part)
    mouse("mouseReleased", parts[-1])


def test_it_shows_the_lanes_of_the_log(page):
    names = page.evaluate(f"[...{TIMELINE}.querySelectorAll('.lane-names li')].map(it => it.title)")
    assert names == ["answers says", "errors says", "changes says", "keyframes "]
    chart = page.evaluate(f"({{...{CHART}.dataset}})")
    assert (chart["from"], chart["to"]) == ("0", "24")
    painted = f"""(c => {{
      const copy = new OffscreenCanvas(c.width, c.height).getContext('2d', {{willReadFrequently: true}});
      copy.drawImage(c, 0, 0);
      return new Set(copy.getImageData(0, 0, c.width, c.height).data).size;
    }})({CHART})"""
    page.wait_for(f"{painted} > 8")


def test_everything_on_the_page_is_of_the_moment_that_is_dragged_to(page, run):
    with Log(run) as log:
        expected = {it.cycle: it.fields["response"] for it in log.messages("/says/answer")}
    for part, cycle in ((0.999, 24), (0.001, 0), (0.55, None)):
        drag(page, 0.3, part)
        if cycle is not None:
            at(page, cycle)
        page.wait_for(f"{TIMELINE}.dataset.shown == {TIMELINE}.dataset.cycle")
        shown = int(page.evaluate(f"{TIMELINE}.dataset.shown"))
        answer = expected[max(it for it in expected if it <= shown)]
        page.wait_for(
            f"document.querySelector('.answers').innerText.includes({json.dumps(answer)})"
        )
        page.wait_for(
            f"document.querySelector('.screen[data-past=exact]')?.dataset.cycle == {min(shown, 23)}"
        )
    low, high = 4, 20
    assert low < shown < high


def test_until_a_moment_has_come_the_page_says_so(page):
    press(page, "Home")
    at(page, 0)
    page.evaluate("""(() => { const real = fetch; window.held = [];
      window.fetch = async (url, options) => {
        if (window.held && String(url).includes('/moment?'))
          await new Promise(go => window.held.push(go));
        return real(url, options); }; })()""")
    press(page, "End")
    state = "document.querySelector('.top .state.paused').textContent"
    heading = "document.querySelector('.answers h2').textContent"
    page.wait_for(f"{state} == 'cycle 24 …' && {heading} == 'Answers coming …'")
    page.evaluate("(() => { const { held } = window; window.held = null; held.map(go => go()) })()")
    at(page, 24)
    page.wait_for(rf"/^cycle 24, \d/.test({state}) && {heading} == 'Answers of this moment'")


def test_the_tabs_are_of_the_moment(page):
    def tab(name):
        page.click(f"document.getElementById('tab-{name}')")

    panel = "document.getElementById('panel')"
    drag(page, 0.3, 0.2)
    page.wait_for(f"{panel}.querySelector('text.hz')?.textContent.endsWith(' Hz')")
    tab("lines")
    page.wait_for(f"{panel}.innerText.includes('until this moment')")
    page.wait_for(f"{panel}.querySelectorAll('.lines li').length == 1")
    assert "picture 13" not in page.evaluate(f"{panel}.innerText")
    drag(page, 0.2, 0.9)
    page.wait_for(f"{panel}.innerText.includes('picture 13')")
    tab("seen")
    page.wait_for(f"Number({panel}.querySelector('td:last-child')?.textContent) > 15")
    drag(page, 0.9, 0.2)
    page.wait_for(f"Number({panel}.querySelector('td:last-child')?.textContent) < 10")
    tab("latencies")
    page.wait_for(f"!!{panel}.querySelector('.uplot canvas')?.width")


def test_each_run_of_a_folder_has_its_timeline(viewed, recorded, tmp_path):
    for number in range(3):
        shutil.copytree(recorded, tmp_path / f"run-{number}")
    writer = writer_of(tmp_path / "numbers", IntMsg)
    message = IntMsg()
    bound = writer.bind([message])
    for cycle in range(100):
        commit(writer, bound, cycle)
    writer.finish({"reason": "done", "cycles": "100", "ended_ns": "0"})
    page = viewed(tmp_path)
    picker = "document.querySelector('select[aria-label=Run]')"
    for name, last in (("numbers", 99), ("run-1", 24), ("numbers", 99), ("run-2", 24)):
        page.evaluate(f"{picker}.value = '{name}'; {picker}.dispatchEvent(new Event('change')); 0")
        page.wait_for(f"{TIMELINE}.dataset.shown == {last} && {CHART}.dataset.to == {last}")


def test_keys_step_play_mark_and_zoom(page):
    press(page, "Home")
    at(page, 0)
    for key, cycle in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 24)):
        press(page, key)
        at(page, cycle)
    press(page, "[")
    press(page, "ArrowLeft")
    press(page, "+")
    page.wait_for(f"{CHART}.dataset.from > 0")
    press(page, "0")
    page.wait_for(f"{CHART}.dataset.from == 0")
    press(page, "Home")
    at(page, 0)
    press(page, " ")
    page.wait_for(f"{TIMELINE}.dataset.playing == 'true'")
    at(page, 24)
    page.wait_for(f"{TIMELINE}.dataset.playing == 'false'")


def test_a_part_is_marked_and_made_a_test(page):
    drag(page, 0.3, 0.6, shift=True)
    page.wait_for(f"!!{TIMELINE}.querySelector('.timeline-range')")
    click(page, "Make it a test")
    page.wait_for(f"!!{TIMELINE}.querySelector('.timeline-code')")
    link = page.evaluate(f"(a => [a.download, a.href])({TIMELINE}.querySelector('a.action'))")
    page.size(390, 844)
    assert violations(page) == []
    page.events.clear()  # axe tries styles that the page forbids
    test = page.evaluate(f"{TIMELINE}.querySelector('.timeline-code').textContent")
    assert link[0] in test
    first, last = link[0].removesuffix(".mcap").split("-")[1:]
    assert f"start={first}, to={last})" in test
    size = page.evaluate(
        f"fetch({json.dumps(link[1])}).then(r => r.arrayBuffer()).then(b => b.byteLength)"
    )
    assert size > 1000


def test_a_wrong_answer_is_marked_and_taken_back(page, run):
    press(page, "Home")
    press(page, "End")
    at(page, 24)
    click(page, "Wrong answer")
    page.wait_for(f"{TIMELINE}.querySelector('.timeline-answer')?.textContent == 'second: 21'")
    click(page, "Mark as wrong")
    page.wait_for(f"!!{TIMELINE}.querySelector('.lane-labels')")
    [label] = [json.loads(line) for line in (run / "labels.jsonl").read_text().splitlines()]
    assert (label["task"], label["answer"], label["label"]) == ("says", "second: 21", "wrong")
    click(page, "Take back")
    page.wait_for(f"!{TIMELINE}.querySelector('.lane-labels')")


def test_what_another_prompt_would_have_answered(page, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    press(page, "End")
    at(page, 24)
    click(page, "What if …")
    page.wait_for(f"{TIMELINE}.querySelector('textarea')?.value == 'second'")
    page.evaluate(
        f"(t => {{ t.value = 'third'; t.dispatchEvent(new Event('input', {{bubbles: true}})) }})"
        f"({TIMELINE}.querySelector('textarea'))"
    )
    click(page, "Run it again")
    page.wait_for(f"!!{TIMELINE}.querySelector('[data-what-if=done]')", timeout_s=240)
    changes = page.evaluate(
        f"[...{TIMELINE}.querySelectorAll('.change ins')].map(it => it.textContent)"
    )
    assert changes
    assert all(text.startswith("third: ") for text in changes)
    page.wait_for(f"!!{TIMELINE}.querySelector('.lane-what-if')")
    pictures = f"[...{TIMELINE}.querySelectorAll('.what-if-picture img')]"
    page.wait_for(f"{pictures}.filter(it => it.naturalWidth).length == 2")


def test_the_log_of_a_run_that_goes_on_is_dragged_in(browser, tmp_path):
    """It grows while somebody looks at another moment of it, and back at what is live."""
    writer = writer_of(tmp_path / "live", IntMsg)
    message = IntMsg()
    bound = writer.bind([message])

    def write(cycles):
        for cycle in cycles:
            message.clear()
            message.publish(tov_ns=T0)
            commit(writer, bound, cycle)

    run = FakeRun()
    run.directories = (tmp_path / "live",)
    run.start()
    server = Server.start(run, port=0)
    try:
        write(range(10))
        browser.size(1440, 900)
        browser.open(server.url)
        browser.wait_for(f"{TIMELINE}.dataset.timeline == 'ready' && {CHART}.dataset.to == 9")
        assert browser.evaluate(f"{TIMELINE}.dataset.cycle") == "live"
        press(browser, "Home")
        at(browser, 0)
        write(range(10, 30))
        browser.wait_for(f"{CHART}.dataset.to == 29")
        assert browser.evaluate(f"{TIMELINE}.dataset.cycle") == "0"
        press(browser, "l")
        browser.wait_for(f"{TIMELINE}.dataset.cycle == 'live'")
        # The part that becomes a test stays what it is while the run goes on.
        click(browser, "Make it a test")
        ends = f"[...{TIMELINE}.querySelectorAll('input[type=number]')].map(it => it.value).join()"
        browser.wait_for(f"{ends} == '0,29'")
        write(range(30, 40))
        browser.wait_for(f"{CHART}.dataset.to == 39")
        assert browser.evaluate(ends) == "0,29"
        drag(browser, 0.5, 0.2)
        browser.wait_for(f"{TIMELINE}.dataset.shown > 2 && {TIMELINE}.dataset.shown < 12")
        writer.finish({"reason": "done", "cycles": "40", "ended_ns": "0"})
        browser.wait_for(f"{TIMELINE}.dataset.state == 'ended'")
    finally:
        server.stop()
        run.join()


def test_a_run_that_cannot_be_read_is_said_and_another_may_be_chosen(browser, run, tmp_path):
    shutil.copytree(run, tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "log_0000.mcap").write_bytes(b"nothing of a log")
    app = partial(create_view_app, RecordedRuns.at(tmp_path))
    server = Server.start_app(app, host="127.0.0.1", port=0, token=None)
    picker = "document.querySelector('select[aria-label=Run]')"
    try:
        for name, why in (("bad", "not an MCAP file"), ("none", "no run 'none'; runs: ")):
            browser.open(f"{server.url}?run={name}")
            browser.wait_for(f"{STATE} == 'ended' && {TEXT}.startsWith('No run')")
            assert why in browser.evaluate(TEXT)
            assert why in browser.evaluate("document.querySelector('.cameras').innerText")
            assert str(tmp_path) not in browser.evaluate("document.documentElement.outerHTML")
            assert violations(browser) == []
            # What is chosen is what cannot be read, and nothing can be done with it.
            assert browser.evaluate(f"{picker}.value") == ("bad" if name == "bad" else "")
            assert (
                browser.evaluate("document.querySelectorAll('.top .buttons > button').length") == 1
            )
        changed = f"{picker}.dispatchEvent(new Event('change', {{bubbles: true}}))"
        browser.evaluate(f"{picker}.value = 'good'; {changed}")
        browser.wait_for(
            f"{TEXT}.startsWith('Recorded') && {TIMELINE}?.dataset.timeline == 'ready'"
        )
        browser.evaluate(f"{picker}.value = 'bad'; {changed}")
        browser.wait_for(f"{SAID}.includes('not an MCAP file') && {picker}.value == 'good'")
        assert browser.evaluate(TEXT).startswith("Recorded")
    finally:
        server.stop()
