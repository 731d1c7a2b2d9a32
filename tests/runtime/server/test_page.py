"""The page, in a real browser."""

import io
import time

import pytest
from PIL import Image

pytestmark = pytest.mark.slow

EVIL = "<img src=x onerror=\"document.title='broken into'\"><b>bold</b> & more"


@pytest.fixture
def opened(browser, new_run, new_server):
    """A run that goes, its server, and a browser that shows its page."""
    run = new_run(answer=EVIL).start()
    server = new_server(run)
    browser.open(server.url)
    return run, server, browser


def text(id_):
    return f"document.getElementById('{id_}').textContent"


def nothing_went_wrong(browser):
    assert browser.of("Runtime.exceptionThrown") == []
    assert [entry["entry"]["text"] for entry in browser.of("Log.entryAdded")] == []


def test_page_shows_the_run_and_takes_nothing_from_elsewhere(opened):
    run, server, browser = opened
    browser.wait_for("document.querySelectorAll('#screens img').length == 2")
    browser.wait_for("[...document.querySelectorAll('#screens img')].every(i => i.naturalWidth)")
    browser.wait_for(f"{text('state')} == 'Running' && {text('name')} == 'inference'")
    assert browser.evaluate(text("rate")) == "25.0"
    assert browser.evaluate(text("logpath")) == "runs/inference-20261120T101500Z"
    assert browser.evaluate(text("logsize")) == "46 MiB"

    # The picture goes on: two shots differ where the ball rolls.
    shots = []
    for _ in range(2):
        cycles = run.cycles
        browser.wait_for(f"parseInt({text('cycles')}) > {cycles}")
        shots.append(Image.open(io.BytesIO(browser.screenshot())).convert("RGB"))
    assert (
        shots[0].crop((40, 120, 780, 330)).tobytes() != shots[1].crop((40, 120, 780, 330)).tobytes()
    )

    boxes = "[...document.querySelectorAll('#graph svg > text:not(.type)')].map(t => t.textContent)"
    assert browser.evaluate(boxes) == list(run.task_types)
    assert browser.evaluate("document.querySelectorAll('#graph path.wire').length") == 5
    assert browser.evaluate("document.querySelectorAll('#tasks tr').length") == 6
    rows = (
        "[...document.querySelectorAll('#tasks tr')].map(r => r.innerText.split(/\\s+/).join(' '))"
    )
    browser.wait_for(f"({rows})[1].startsWith('vlm Inference 81.4 ms 203 ms')")

    asked = {event["request"]["url"] for event in browser.of("Network.requestWillBeSent")}
    assert all(url.startswith((server.url, "data:")) for url in asked), asked
    nothing_went_wrong(browser)


def test_an_answer_is_text_with_its_time_and_its_speed(opened):
    _, _, browser = opened
    browser.wait_for("document.querySelectorAll('#answers .response').length >= 3")
    assert browser.evaluate("document.querySelector('#answers .response').textContent") == EVIL
    assert browser.evaluate("document.querySelectorAll('#answers b, #answers img').length") == 0
    assert browser.evaluate("document.title") == "inference - flowrun"
    meta = browser.evaluate("document.querySelector('#answers time').textContent")
    assert meta.partition(":")[2].startswith("13:2")  # of the frame, hours by the zone
    browser.wait_for(
        "['good', 'fair', 'slow'].every(c => document.querySelector(`#answers .pill.${c}`))"
    )
    # The same prompt is shown once, above its answers.
    assert browser.evaluate("document.querySelectorAll('#answers .prompt').length") == 1
    nothing_went_wrong(browser)


def test_a_new_prompt_is_set_and_a_refused_one_is_explained(opened, monkeypatch):
    run, _, browser = opened
    browser.wait_for("document.getElementById('prompt').value == 'What do you see?'")
    browser.evaluate(
        "document.getElementById('prompt').value = 'Is <i>it</i> red?';"
        "document.getElementById('send').click()"
    )
    browser.wait_for(f"{text('said')}.startsWith('Asked')")
    assert run.set == [("vlm", {"prompt": "Is <i>it</i> red?"})]
    prompt = "document.querySelector('#answers .prompt').textContent"
    browser.wait_for(f"{prompt} == 'Is <i>it</i> red?'")

    monkeypatch.setattr(run, "live_keys", lambda: {"vlm": ("max_new_tokens",)})
    browser.evaluate("document.getElementById('send').click()")
    browser.wait_for(
        f"{text('said')} == \"unknown key 'prompt'; keys that may be set: max_new_tokens\""
    )


def test_the_end_of_a_run_is_shown_with_its_error(opened):
    run, _, browser = opened
    browser.wait_for(
        "[...document.querySelectorAll('#screens img')].filter(i => i.naturalWidth).length == 2"
    )
    run.end({"Error": "task 'vlm' failed in process, cycle 88: ValueError: no <i>memory</i>"})
    browser.wait_for(f"{text('state')} == 'Error'")
    assert browser.evaluate(text("notice")) == (
        "The run has ended with an error: "
        "task 'vlm' failed in process, cycle 88: ValueError: no <i>memory</i>"
    )
    assert browser.evaluate("document.getElementById('send').disabled") is True
    assert browser.evaluate("[...document.querySelectorAll('.screen.over')].length") == 2
    nothing_went_wrong(browser)


def test_a_run_that_ends_with_its_server_is_shown_as_ended(opened):
    run, server, browser = opened
    browser.wait_for(f"{text('state')} == 'Running'")
    run.end()
    server.stop()
    browser.wait_for(
        f"{text('notice')} == 'The run has ended. What this page shows is its last state.'"
    )
    assert browser.evaluate(text("state")) == "Ended"


def test_page_fits_a_phone_in_both_schemes(opened):
    _, _, browser = opened
    browser.wait_for("document.querySelectorAll('#answers .response').length >= 1")
    for dark in (False, True):
        browser.size(390, 844, dark=dark)
        assert browser.evaluate("document.documentElement.scrollWidth") <= 390
        back = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        assert back == ("rgb(15, 19, 23)" if dark else "rgb(245, 246, 248)")


def test_page_and_docs_work_with_a_token_and_without_a_network(browser, new_run, new_server):
    run = new_run().start()
    server = new_server(run, token="s3cret/+%&")
    browser.open(server.url)
    browser.wait_for("document.querySelector('#screens img')?.naturalWidth")
    browser.wait_for("document.querySelectorAll('#answers .response').length >= 1")
    browser.evaluate("document.getElementById('send').click()")
    browser.wait_for(f"{text('said')}.startsWith('Asked')")

    browser.evaluate("document.getElementById('docs').click()")
    browser.wait_for("document.querySelectorAll('.opblock').length >= 12")
    asked = {event["request"]["url"] for event in browser.of("Network.requestWillBeSent")}
    own = server.url.partition("?")[0]
    assert all(url.startswith((own, "data:")) for url in asked), asked
    nothing_went_wrong(browser)


def test_an_answer_that_takes_long_is_shown_as_it_grows(browser, new_run, new_server):
    run = new_run()
    browser.open(new_server(run).url)
    browser.wait_for(f"{text('state')} == 'Running'")
    growing = "document.getElementById('growing')"
    parts = iter(range(1, 1000))

    def shown():
        run.part("word " * next(parts))
        return browser.evaluate(f"!{growing}.hidden && {growing}.textContent.startsWith('word')")

    deadline = time.monotonic() + 10
    while not shown():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    run.cycle()
    browser.wait_for(f"{growing}.hidden && !!document.querySelector('#answers .response')")
    nothing_went_wrong(browser)
