"""The page of real runs, in each of their states."""

import json
import signal

import httpx
import pytest

from support.axe import is_right, violations
from support.browser import nothing_went_wrong
from support.paths import MEDIA
from support.stages import SHOWN, STATE, TEXT, press

pytestmark = [pytest.mark.slow, pytest.mark.real]

GRAPH = """
tasks:
  - {{id: cam0, type: VideoCapture, config: {{source_uri: {film}, realtime: true, loop: true}}}}
  - id: player
    type: support.stage_tasks.Player
    on_error: skip
    deadline_ms: 300
    config: {{folder: {folder}, prompt: detect shapes, presets: [detect shapes, cap en]}}
  - {{id: parse, type: ParseDetections}}
  - {{id: chat, type: BroadcastChat}}
  - {{id: screen, type: BroadcastImage}}
cnx:
  - {{src: cam0, dst: player, msg: ImageRgb8Msg}}
  - {{src: player, dst: chat, msg: PromptResponseMsg}}
  - {{src: player, dst: parse, msg: PromptResponseMsg}}
  - {{src: cam0, dst: screen, msg: ImageRgb8Msg}}
"""


@pytest.fixture
def graph(tmp_path):
    path = tmp_path / "stage.yaml"
    path.write_text(GRAPH.format(film=MEDIA / "shapes.mp4", folder=tmp_path))
    return path


@pytest.fixture
def stage(new_stage, graph, tmp_path):
    return new_stage(graph, "--plain", "--port", "0", "--log-dir", tmp_path / "runs")


def streams_opened(browser):
    """What the page has opened since `browser.events` was cleared."""
    asked = [event["request"]["url"] for event in browser.of("Network.requestWillBeSent")]
    return [url for url in asked if "/api/v0/events" in url]


def test_each_state_of_a_run_is_shown(stage, browser):
    browser.size(1440, 900)
    browser.open(stage.url)
    browser.wait_for(f"{STATE} == 'loading' && {TEXT} == 'Loading 60 %player: weights'")
    is_right(browser, fits=False)

    stage.say("go")
    browser.wait_for(f"{STATE} == 'running' && document.querySelectorAll('#answers li').length")
    browser.wait_for(f"{SHOWN}?.dataset.form == 'packets'")
    assert browser.evaluate("document.documentElement.scrollHeight") <= 900
    is_right(browser, fits=False)
    nothing_went_wrong(browser)

    stage.say("raise")
    browser.wait_for(f"{STATE} == 'degraded' && {TEXT}.startsWith('Degradedplayer \u00d7')")
    errors = "document.querySelector('.errors li').textContent"
    browser.wait_for(f"{errors}.includes('ValueError: no <i>memory</i>')")
    assert browser.evaluate("document.querySelectorAll('.errors i').length") == 0
    assert streams_opened(browser) == []  # an error of a task is not one of the connection
    is_right(browser, fits=False)
    stage.unsay("raise")

    stage.say("hang")
    browser.wait_for(f"{STATE} == 'stuck' && /^Stuckplayer, for \\d+ s/.test({TEXT})")
    is_right(browser, fits=False)
    stage.unsay("hang")
    browser.wait_for(f"{STATE} != 'stuck'")

    press(browser, "Pause", ".top")
    browser.wait_for(f"{STATE} == 'paused'")
    is_right(browser, fits=False)
    press(browser, "Resume", ".top")
    browser.wait_for(f"{STATE} == 'degraded'")
    nothing_went_wrong(browser)

    stage.process.send_signal(signal.SIGKILL)
    browser.wait_for(f"{STATE} == 'gone' && !!document.getElementById('end')")
    is_right(browser, gone=stage.url, fits=False)


def test_a_stopped_run_says_why_it_ended(stage, browser):
    stage.say("go")
    browser.open(stage.url)
    browser.wait_for(f"{STATE} == 'running' && !!{SHOWN}")
    press(browser, "Stop", ".top")
    browser.wait_for(f"{STATE} == 'ended'")  # and its server ends with it
    why = browser.evaluate("document.querySelector('#end .why').textContent")
    assert why.startswith("Why: a client asked over HTTP")
    assert "flowrun replay" in browser.evaluate("document.getElementById('end').textContent")
    is_right(browser, gone=stage.url, fits=False)


def test_a_server_that_says_nothing_more_is_seen(stage, browser):
    stage.say("go")
    browser.open(stage.url)
    browser.wait_for(f"{STATE} == 'running' && !!{SHOWN}")
    stage.process.send_signal(signal.SIGSTOP)
    browser.wait_for(f"{STATE} == 'gone' && /^Server silentfor \\d+ s/.test({TEXT})")
    stage.process.send_signal(signal.SIGCONT)
    browser.wait_for(f"{STATE} == 'running'")


def test_a_run_that_takes_the_place_of_another_is_shown_without_its_answers(
    stage, new_stage, browser
):
    stage.say("go")
    browser.open(stage.url)
    answers = "document.querySelectorAll('#answers li').length"
    browser.wait_for(f"{STATE} == 'running' && {answers} > 0")
    stage.process.kill()
    browser.wait_for(f"{STATE} == 'gone'")
    stage.unsay("go")  # the next one starts, and answers nothing yet
    browser.evaluate("window.isBefore = true")
    port = str(httpx.URL(stage.url).port)
    new_stage(*stage.process.args[3:-4], "--port", port, *stage.process.args[-2:])
    browser.wait_for(f"!window.isBefore && {STATE} == 'loading' && {TEXT}.startsWith('Loading')")
    assert browser.evaluate(answers) == 0


def test_boxes_are_drawn_over_the_pictures(stage, browser):
    stage.say("go")
    browser.open(stage.url)
    pixels = (
        "(canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)"
        ".data.some(value => value))(document.querySelector('canvas.marks'))"
    )
    browser.wait_for(f"!!{SHOWN} && {pixels}")
    chip = "[...document.querySelectorAll('.cameras button')].find(b => b.textContent == 'boxes')"
    browser.click(chip)
    browser.wait_for(f"!{pixels}")
    # The picture is that of the film: its middle is not black, and it goes on.
    cycle = browser.evaluate(f"{SHOWN}.dataset.cycle")
    browser.wait_for(f"{SHOWN}.dataset.cycle > {cycle}")
    browser.wait_for("/answer is .* behind/.test(document.querySelector('.screen').textContent)")


def test_what_is_in_force_is_shown_after_a_reload_and_to_other_viewers(stage, browser):
    stage.say("go")
    browser.open(stage.url)
    prompt = "document.getElementById('prompt')"
    browser.wait_for(f"{prompt}?.value == 'detect shapes'")
    # Somebody else changes it, and it is shown at once.
    reply = httpx.post(f"{stage.url}api/v0/inference/settings", json={"prompt": "Who is there?"})
    assert reply.status_code == 200
    browser.wait_for(f"{prompt}.value == 'Who is there?'")
    browser.open(stage.url)
    browser.wait_for(f"{prompt}?.value == 'Who is there?'")
    # A preset is one press, and what was asked before is offered again.
    chips = "[...document.querySelectorAll('.ask .preset')]"
    preset = f"{chips}.find(chip => chip.textContent == 'cap en')"
    browser.wait_for(f"!!{preset}")
    browser.click(preset)
    browser.wait_for(f"{prompt}.value == 'cap en'")
    browser.wait_for(f"{chips}.some(chip => chip.textContent == 'Who is there?')")
    settings = httpx.get(f"{stage.url}api/v0/inference/settings").json()
    assert settings["player"]["prompt"] == "cap en"


def test_an_answer_has_the_picture_that_it_is_about(stage, browser):
    stage.say("go")
    browser.open(stage.url)
    browser.wait_for("[...document.querySelectorAll('.thumb img')].some(i => i.naturalWidth > 50)")
    search = "document.querySelector('input[type=search]')"
    browser.wait_for("document.querySelectorAll('#answers li').length >= 3")
    browser.evaluate(
        f"{search}.value = 'SCENE 1'; {search}.dispatchEvent(new Event('input', {{bubbles: true}}))"
    )
    browser.wait_for("document.querySelectorAll('#answers li').length == 1")
    assert browser.evaluate("document.querySelectorAll('#answers b').length") == 0
    nothing_went_wrong(browser)


def test_at_a_moment_all_of_the_page_is_of_that_moment(stage, browser):
    stage.say("go")
    browser.open(stage.url)
    browser.wait_for("document.querySelectorAll('#answers li').length >= 3")
    httpx.post(f"{stage.url}api/v0/inference/settings", json={"prompt": "later"})
    browser.wait_for("document.getElementById('prompt').value == 'later'")
    browser.wait_for("document.querySelector('.timeline')?.dataset.timeline == 'ready'")
    canvas = "document.querySelector('.lane-chart canvas')"
    browser.evaluate(f"{canvas}.scrollIntoView()")
    browser.evaluate("document.querySelector('.timeline .play').focus()")
    browser.evaluate(
        "document.querySelector('.timeline .play').dispatchEvent("
        "new KeyboardEvent('keydown', {key: 'Home', bubbles: true}))"
    )
    browser.wait_for("!!document.querySelector('.screen[data-past=exact]')")
    then = "document.querySelector('.settings').textContent"
    browser.wait_for(f"{then}.includes('In force then') && {then}.includes('detect shapes')")
    assert not browser.evaluate(f"{then}.includes('later')")
    browser.wait_for("document.querySelectorAll('#answers li').length <= 1")
    is_right(browser, fits=False)
    press(browser, "back to now", ".top")
    browser.wait_for("document.getElementById('prompt')?.value == 'later'")
    nothing_went_wrong(browser)


def test_a_recorded_run_is_shown_on_the_same_page(stage, new_stage, browser, tmp_path):
    stage.say("go")
    browser.open(stage.url)
    browser.wait_for("document.querySelectorAll('#answers li').length >= 2")
    browser.open("about:blank")
    browser.wait_for("location.href == 'about:blank'")
    stage.process.terminate()
    stage.process.wait()
    viewer = new_stage("view", tmp_path / "runs", "--port", "0")
    browser.open(viewer.url)
    browser.wait_for(f"{STATE} == 'ended' && {TEXT}.startsWith('Recorded')")
    browser.wait_for("!!document.querySelector('.screen[data-past=exact]')")
    browser.wait_for("document.querySelectorAll('#answers li').length == 1")
    is_right(browser, fits=False)
    nothing_went_wrong(browser)


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_all_of_it_below_each_other(stage, browser, dark):
    stage.say("go")
    browser.size(390, 844, dark=dark)
    browser.open(stage.url)
    browser.wait_for(f"!!{SHOWN} && document.querySelector('.timeline') != null")
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390
    assert violations(browser) == []


def test_every_part_is_reached_by_keys(stage, browser):
    stage.say("go")
    browser.open(stage.url)
    browser.wait_for(f"{STATE} == 'running' && !!{SHOWN}")
    reached = []
    for _ in range(60):
        browser.press("Tab")
        reached.append(
            browser.evaluate(
                "(e => e.id || e.getAttribute('aria-label') || e.textContent)(document.activeElement)"
            )
        )
    text = json.dumps(reached)
    for name in ("Pause", "Snapshot", "tab-graph", "prompt", "send", "Search the answers", "Play"):
        assert name in text, text
    browser.evaluate("document.getElementById('tab-graph').focus()")
    browser.press("ArrowRight")
    browser.wait_for("document.getElementById('tab-latencies').ariaSelected == 'true'")
    browser.wait_for("!!document.querySelector('.plot canvas')")
    browser.press("ArrowRight")
    browser.wait_for("document.querySelector('.lines li')?.textContent.includes('plays')")
    browser.press("ArrowRight")
    browser.wait_for("document.querySelector('#panel tbody tr')?.textContent.includes('parse')")
