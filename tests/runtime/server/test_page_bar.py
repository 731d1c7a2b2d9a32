"""The bar at the top of the page of real runs, the values that may change, and the card of a task."""

import json

import httpx
import pytest

from support.axe import is_right
from support.browser import nothing_went_wrong
from support.model_servers.llama import free_port
from support.paths import MEDIA
from support.stages import SHOWN, STATE, TEXT, press

pytestmark = [pytest.mark.slow, pytest.mark.real]

SAID = "document.getElementById('said').textContent"
PICKER = "document.querySelector('select[aria-label=Run]')"
CAMERA = """
  - {{id: cam1, type: VideoCapture, config: {{source_uri: "rtsp://127.0.0.1:{port}/a",
     reconnect: {{at_start: true}}}}}}
  - {{id: screen1, type: BroadcastImage}}
"""
WIRE = "  - {src: cam1, dst: screen1, msg: ImageRgb8Msg}"
GRAPH = """
tasks:
  - {{id: cam0, type: VideoCapture, config: {{source_uri: {film}, realtime: true, loop: true}}}}
  - id: player
    type: support.stage_tasks.Player
    config: {{folder: {folder}}}
  - {{id: alarm, type: Alert, config: {{contains: scene, cooldown_s: 1, severity: critical}}}}
  - {{id: chat, type: BroadcastChat}}
  - {{id: screen, type: BroadcastImage}}
{more}
cnx:
  - {{src: cam0, dst: player, msg: ImageRgb8Msg}}
  - {{src: player, dst: chat, msg: PromptResponseMsg}}
  - {{src: player, dst: alarm, msg: PromptResponseMsg}}
  - {{src: cam0, dst: screen, msg: ImageRgb8Msg}}
{wires}
"""


@pytest.fixture
def start(new_stage, tmp_path):
    """Starts a run of the graph, whose player plays at once."""
    (tmp_path / "go").touch()

    def begin(*options, more="", wires=""):
        graph = tmp_path / "porch.yaml"
        film = MEDIA / "shapes.mp4"
        graph.write_text(GRAPH.format(film=film, folder=tmp_path, more=more, wires=wires))
        log_dir = tmp_path / "runs"
        return new_stage(graph, "--plain", "--port", "0", "--log-dir", log_dir, *options)

    return begin


def open_page(browser, stage):
    browser.size(1440, 900)
    browser.open(stage.url)
    browser.wait_for(f"{STATE} == 'running' && !!{SHOWN}", timeout_s=240)


def put(browser, element, value):
    """Give a field or a list a value, as a user does."""
    browser.evaluate(
        f"(field => {{ field.value = {json.dumps(value)};"
        " field.dispatchEvent(new Event('change', {bubbles: true})) })"
        f"({element})"
    )


def test_recorded_runs_are_chosen_and_the_live_one_again(start, browser, tmp_path):
    first = start("--cycles", "40")
    first.process.wait(60)
    [recorded] = [path.name for path in (tmp_path / "runs").iterdir() if path.is_dir()]
    stage = start()
    open_page(browser, stage)
    browser.wait_for(f"[...{PICKER}.options].map(it => it.text).join() == 'live,{recorded}'")
    put(browser, PICKER, recorded)
    browser.wait_for(f"{STATE} == 'ended' && {TEXT}.startsWith('Recorded')")
    browser.wait_for("!!document.querySelector('.screen[data-past=exact]')")
    browser.wait_for("document.querySelector('.timeline')?.dataset.shown == '39'")
    is_right(browser)
    put(browser, PICKER, "")
    browser.wait_for(f"{STATE} == 'running' && !!{SHOWN} && {PICKER}.value == ''")
    nothing_went_wrong(browser)


BAR = "document.querySelector('.top')"
LONG = "entrance-hall-and-loading-dock-cameras-of-the-north-building"
SIZES = [(1440, 900, 1), (1280, 800, 1), (900, 700, 3), (390, 844, 6)]


def test_the_bar_is_one_line_and_nothing_overflows(new_run, new_server, browser):
    run = new_run(name=LONG)
    browser.open(new_server(run).url)
    browser.wait_for(f"{STATE} == 'running'", timeout_s=60)
    run.end({"Error": "no room for the log: " + "the disk of this machine is full; " * 4})
    browser.wait_for(f"{STATE} == 'ended' && {TEXT}.includes('no room')", timeout_s=60)
    parts = f"[...{BAR}.querySelectorAll('*')]"
    cut = (
        f"{parts}.filter(it => it.scrollWidth > it.clientWidth && it.clientWidth"
        " && getComputedStyle(it).textOverflow == 'ellipsis')"
    )
    for width, height, lines in SIZES:
        browser.size(width, height)
        browser.wait_for(f"innerWidth == {width}", timeout_s=60)
        assert browser.evaluate(f"{BAR}.offsetHeight") < 20 + 34 * lines
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        right = f"Math.max(...{parts}.map(it => it.getBoundingClientRect().right))"
        assert browser.evaluate(right) <= width
        assert browser.evaluate(f"{cut}.every(it => it.title == it.textContent)")
        if lines == 1:
            assert browser.evaluate(f"{cut}.length") == 2  # the name and the reason


def test_the_menu_of_the_log_gives_it_and_says_how_to_open_it(start, browser, tmp_path):
    stage = start()
    open_page(browser, stage)
    browser.save_downloads_to(tmp_path)
    path = httpx.get(f"{stage.url}api/v0/report").json()["log"]["path"]
    for name, command in (
        ("Copy the replay command", f"flowrun replay {path}"),
        ("Copy: open in Foxglove", f"flowrun view {path} --foxglove"),
        ("Copy: open in Rerun", f"flowrun view {path} --rerun"),
    ):
        press(browser, "Log", ".top")
        browser.wait_for("document.querySelectorAll('[role=menuitem]').length == 5")
        is_right(browser)
        press(browser, name, ".top")
        browser.wait_for(f"{SAID}.endsWith({json.dumps(command)})")
    press(browser, "Log", ".top")
    press(browser, "Download MCAP", ".top")
    file = browser.downloaded(tmp_path, "*.mcap")
    assert file.read_bytes()[:8] == b"\x89MCAP0\r\n"
    nothing_went_wrong(browser)


def test_the_theme_that_is_chosen_stays(start, browser):
    stage = start()
    open_page(browser, stage)
    back = "getComputedStyle(document.body).backgroundColor"
    colours = {"light": "rgb(244, 245, 247)", "dark": "rgb(13, 17, 21)"}
    press(browser, "\u25d0", ".top")
    browser.wait_for(f"{back} == '{colours['light']}'")
    press(browser, "\u2600", ".top")
    browser.wait_for(f"{back} == '{colours['dark']}'")
    browser.open(stage.url)
    browser.wait_for(f"{STATE} == 'running' && {back} == '{colours['dark']}'")
    press(browser, "\u263e", ".top")
    browser.wait_for(f"{back} == '{colours['light']}' && !localStorage.length")
    nothing_went_wrong(browser)


def test_each_value_in_force_is_shown_set_and_refused_with_the_reason(start, browser):
    stage = start()
    open_page(browser, stage)
    field = "document.getElementById('set-max_new_tokens')"
    browser.wait_for(f"{field}?.value == '50'")
    put(browser, field, "20")
    browser.wait_for(f"{SAID}.startsWith('Set') && {field}.value == '20'")
    settings = httpx.get(f"{stage.url}api/v0/inference/settings").json()
    assert settings["player"]["max_new_tokens"] == 20
    put(browser, field, "-1")
    browser.wait_for(f"{SAID}.includes('player.max_new_tokens') && {field}.value == '20'")
    browser.events.clear()  # the browser logs the refusal
    reply = httpx.post(f"{stage.url}api/v0/inference/settings", json={"max_new_tokens": 7})
    assert reply.status_code == 200
    browser.wait_for(f"{field}.value == '7'")  # somebody else has set it
    browser.open(stage.url)
    browser.wait_for(f"{field}?.value == '7'")
    nothing_went_wrong(browser)


def test_a_task_says_what_it_is_and_alerts_are_counted(start, browser):
    stage = start()
    open_page(browser, stage)
    alert = "document.querySelector('.alerts li')?.innerText"
    browser.wait_for(f"/^alarm critical \u00d7\\d/.test({alert})")
    lanes = "[...document.querySelectorAll('.lane-names li')].map(it => it.innerText)"
    browser.wait_for(f"{lanes}.includes('alerts alarm')")
    node = (
        "[...document.querySelectorAll('svg g.task')]"
        ".find(it => it.querySelector('.id').textContent == 'alarm')"
    )
    browser.evaluate(f"{node}.dispatchEvent(new MouseEvent('click', {{bubbles: true}}))")
    browser.wait_for(
        "(text => text.includes('Alert') && /contains\\s+scene/.test(text))"
        "(document.querySelector('aside.card[aria-label=alarm]').innerText)"
    )
    is_right(browser)


def test_a_camera_that_does_not_answer_degrades_the_run(start, browser):
    stage = start(more=CAMERA.format(port=free_port()), wires=WIRE)
    browser.size(1440, 900)
    browser.open(stage.url)
    browser.wait_for(f"{STATE} == 'degraded' && {TEXT} == 'Degradedcam1: refused'", timeout_s=240)
    browser.wait_for(f"!!{SHOWN}")  # the other one goes on
    is_right(browser)


def test_a_run_whose_sources_are_muted_says_so(start, browser):
    stage = start()
    open_page(browser, stage)
    api = f"{stage.url}api/v0/pipeline"
    httpx.post(f"{api}/mute", json={"source": "cam0"}).raise_for_status()
    browser.wait_for(f"{STATE} == 'paused' && {TEXT} == 'Muted'")
    is_right(browser)
    press(browser, "Resume", ".top")
    browser.wait_for(f"{STATE} == 'running'")


def test_a_run_without_a_log_has_no_timeline_and_says_so(start, browser):
    stage = start("--no-log")
    open_page(browser, stage)
    browser.wait_for("document.querySelector('.facts').innerText.includes('off')")
    browser.wait_for("document.querySelectorAll('#answers li').length > 1")
    assert browser.evaluate("document.querySelector('.timeline')") is None
    is_right(browser)
