"""The page, in a real browser."""

import io
import time

import pytest
from PIL import Image

from support.browser import nothing_went_wrong

pytestmark = pytest.mark.slow

EVIL = "<img src=x onerror=\"document.title='broken into'\"><b>bold</b> & more"

STATE = "document.body.dataset.state"
RESPONSE = "document.querySelector('#answers .response')?.textContent"
SAID = "document.getElementById('said').textContent"
ANSWERS = "document.querySelectorAll('#answers li').length"
PICTURES = "document.querySelectorAll('.screen[data-shown]')"


@pytest.fixture
def opened(browser, new_run, new_server):
    """A run that goes, its server, and a browser that shows its page."""
    run = new_run(answer=EVIL).start()
    server = new_server(run)
    browser.open(server.url)
    return run, server, browser


def fact(name):
    """One of the figures in the bar at the top."""
    return (
        "[...document.querySelectorAll('.facts div')]"
        f".find(d => d.querySelector('dt').textContent == '{name}')?.querySelector('dd').textContent"
    )


def typed(selector, text):
    """A script that types a text into a field, as a user would."""
    return (
        f"(() => {{ const field = document.querySelector({selector!r}); field.focus();"
        f"field.value = {text!r}; field.dispatchEvent(new Event('input', {{bubbles: true}})) }})()"
    )


def addresses(browser):
    """All that the page has asked for; those of WebSockets as those of their server."""
    asked = {event["request"]["url"] for event in browser.of("Network.requestWillBeSent")}
    sockets = {event["url"] for event in browser.of("Network.webSocketCreated")}
    return asked | {url.replace("ws:", "http:", 1) for url in sockets}


def test_page_shows_the_run_and_takes_nothing_from_elsewhere(opened):
    run, server, browser = opened
    browser.wait_for(f"{PICTURES}.length == 2")
    browser.wait_for(f"{STATE} == 'running'")
    assert browser.evaluate("document.querySelector('h1').textContent") == "inference"
    browser.wait_for(f"{fact('cycles/s')} == '25.0' && {fact('log')} == '46 MiB'")

    # The picture goes on: two shots differ where the ball rolls.
    shots = []
    for _ in range(2):
        cycles = run.cycles
        browser.wait_for(f"parseInt({fact('cycle')}) > {cycles}")
        shots.append(Image.open(io.BytesIO(browser.screenshot())).convert("RGB"))
    box = (30, 100, 400, 330)
    assert shots[0].crop(box).tobytes() != shots[1].crop(box).tobytes()

    boxes = "[...document.querySelectorAll('svg text.id')].map(text => text.textContent)"
    assert browser.evaluate(boxes) == list(run.task_types)
    assert browser.evaluate("document.querySelectorAll('svg g.wire').length") == 5
    browser.wait_for("document.querySelector('svg g.task:nth-of-type(7) .facts') != null")

    asked = addresses(browser)
    assert all(url.startswith((server.url, "data:")) for url in asked), asked
    nothing_went_wrong(browser)


def test_an_answer_is_text_with_its_time_and_its_speed(opened):
    run, _, browser = opened
    browser.wait_for(f"{RESPONSE} != null")
    assert browser.evaluate(RESPONSE) == EVIL
    assert browser.evaluate("document.querySelectorAll('#answers b, #answers img').length") == 0
    assert browser.evaluate("document.title") == "inference - flowrun"
    meta = browser.evaluate("document.querySelector('#answers time').textContent")
    assert meta.partition(":")[2].startswith("13:2")  # of the frame, hours by the zone
    # Equal answers are one, with how often and how long.
    browser.wait_for(
        "document.querySelector('#answers .pill').textContent.startsWith('\u00d73, 95 ms')"
    )
    assert browser.evaluate(ANSWERS) == 1
    for number in range(3):
        run.answer = f"Answer {number}."
        browser.wait_for(f"{RESPONSE} == 'Answer {number}.'")
    browser.wait_for(
        "['good', 'fair', 'slow'].every(c => document.querySelector(`#answers .pill.${c}`))"
    )
    # The same prompt is shown once, below the newest of its answers.
    assert browser.evaluate("document.querySelectorAll('#answers .prompt').length") == 1
    nothing_went_wrong(browser)


def test_a_new_prompt_is_set_and_a_refused_one_is_explained(opened, monkeypatch):
    run, _, browser = opened
    browser.wait_for("document.getElementById('prompt')?.value == 'What do you see?'")
    browser.evaluate(typed("#prompt", "Is <i>it</i> red?"))
    browser.click("document.getElementById('send')")
    browser.wait_for(f"{SAID}.startsWith('Set')")
    assert run.set == [("vlm", {"prompt": "Is <i>it</i> red?"})]
    browser.wait_for(
        "document.querySelector('#answers .prompt').textContent == 'Is <i>it</i> red?'"
    )

    monkeypatch.setattr(run, "live_keys", lambda: {"vlm": ("max_new_tokens",)})
    browser.click("document.getElementById('send')")
    browser.wait_for(f"{SAID} == \"unknown key 'prompt'; keys that may be set: max_new_tokens\"")


def test_the_end_of_a_run_is_shown_with_its_error(opened):
    run, _, browser = opened
    browser.wait_for(f"{PICTURES}.length == 2")
    run.end({"Error": "task 'vlm' failed in process, cycle 88: ValueError: no <i>memory</i>"})
    browser.wait_for(f"{STATE} == 'ended'")
    assert browser.evaluate("document.querySelector('#end .why').textContent") == (
        "task 'vlm' failed in process, cycle 88: ValueError: no <i>memory</i>"
    )
    assert browser.evaluate("document.getElementById('send').disabled") is True
    assert browser.evaluate("document.querySelectorAll('.screen.over').length") == 2
    nothing_went_wrong(browser)


def test_a_run_that_ends_with_its_server_is_shown_as_ended(opened):
    run, server, browser = opened
    browser.wait_for(f"{STATE} == 'running'")
    run.end()
    server.stop()
    browser.wait_for(f"{STATE} == 'ended'")
    assert browser.evaluate("document.querySelector('#end h2').textContent") == "The run has ended"
    nothing_went_wrong(browser, gone=server.url)


def test_a_server_without_a_place_for_a_viewer_is_not_gone(opened, monkeypatch):
    _, server, browser = opened
    browser.wait_for(f"{STATE} == 'running'")
    browser.open("about:blank")
    browser.wait_for("location.href == 'about:blank'")
    streams = server._app.state.channels.streams
    monkeypatch.setattr(streams, "_most", 0)
    browser.open(server.url)
    browser.wait_for(
        f"{STATE} == 'loading' && document.getElementById('state').textContent"
        " == 'ConnectingThe server has no place for another viewer. Trying again \u2026'"
    )
    monkeypatch.setattr(streams, "_most", 100)
    browser.wait_for(f"{STATE} == 'running' && {PICTURES}.length == 2")


def test_page_fits_its_window_in_both_schemes(opened):
    _, _, browser = opened
    browser.wait_for(f"{ANSWERS} >= 1")
    browser.size(1440, 900)
    assert browser.evaluate("document.documentElement.scrollHeight") <= 900
    for dark in (False, True):
        browser.size(390, 844, dark=dark)
        assert browser.evaluate("document.documentElement.scrollWidth") <= 390
        back = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        assert back == ("rgb(13, 17, 21)" if dark else "rgb(244, 245, 247)")


def test_page_and_docs_work_with_a_token_and_without_a_network(browser, new_run, new_server):
    run = new_run().start()
    server = new_server(run, token="s3cret/+%&")
    browser.open(server.url)
    browser.wait_for(f"{PICTURES}.length == 2")
    browser.wait_for(f"{ANSWERS} >= 1 && !document.getElementById('send').disabled")
    browser.click("document.getElementById('send')")
    browser.wait_for(f"{SAID}.startsWith('Set')")

    browser.click("document.querySelector('.menu button')")
    browser.wait_for("!!document.querySelector('.items a[href*=docs]')")
    browser.click("document.querySelector('.items a[href*=docs]')")
    browser.wait_for("document.querySelectorAll('.opblock').length >= 12")
    asked = addresses(browser)
    own = server.url.partition("?")[0]
    assert all(url.startswith((own, "data:")) for url in asked), asked
    nothing_went_wrong(browser)


def test_an_answer_that_takes_long_is_shown_as_it_grows(browser, new_run, new_server):
    run = new_run()
    browser.open(new_server(run).url)
    browser.wait_for(f"{STATE} == 'running'")
    growing = "document.querySelector('.growing')"
    parts = iter(range(1, 1000))

    def shown():
        run.part("word " * next(parts))
        return browser.evaluate(f"!!{growing}?.textContent.startsWith('word')")

    deadline = time.monotonic() + 60
    while not shown():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    run.cycle()
    browser.wait_for(f"!{growing} && {ANSWERS} == 1")
    nothing_went_wrong(browser)
