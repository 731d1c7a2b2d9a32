"""The pages of pipelines of a real server, in a real browser: with a token, behind a reverse proxy."""

import contextlib
import os
import signal

import httpx
import pytest

from support.axe import is_accessible
from support.browser import Browser, nothing_went_wrong
from support.paths import MEDIA
from support.reverse_proxy import ReverseProxy
from support.stages import CARD, SHOWN, STATE, TEXT, Stage, played, press

pytestmark = [pytest.mark.slow, pytest.mark.real]

TOKEN = "s3cret+%26"  # as it is in an address
SAID = "document.getElementById('said').textContent"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("chromium") / "profile")
    browser.size(1440, 900)
    yield browser
    browser.close()


@pytest.fixture
def browser(chromium):
    yield chromium
    chromium.open("about:blank")
    chromium.wait_for("location.href == 'about:blank'")
    chromium.events.clear()


@pytest.fixture
def graphs(tmp_path):
    """A folder of graphs, whose player plays at once."""
    folder = tmp_path / "graphs"
    folder.mkdir()
    text = played(MEDIA / "shapes.mp4", tmp_path)
    (folder / "front door.yaml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def new_server(tmp_path, graphs):
    """Starts real servers of the graphs, and ends them."""
    stages = []

    def start(*options):
        words = ["serve", graphs, "--port", "0", "--log-dir", tmp_path / "runs", *options]
        stages.append(Stage(tmp_path, words))
        return stages[-1]

    yield start
    for stage in stages:
        stage.process.terminate()
        stage.process.wait(20)
        stage.close()


@pytest.fixture
def client_of():
    """Makes clients of servers that want `TOKEN`."""
    with contextlib.ExitStack() as clients:
        yield lambda stage: clients.enter_context(
            httpx.Client(
                base_url=stage.url.partition("?")[0],
                headers={"Authorization": f"Bearer {TOKEN}"},
                timeout=240,
            )
        )


def runs(browser):
    browser.wait_for(
        f"{STATE} == 'running' && !!{SHOWN} && {SHOWN}.dataset.form == 'packets'"
        " && document.querySelectorAll('#answers li').length > 0",
        timeout_s=240,
    )


def note_texts(browser):
    """Keep in `texts` what the state says from now on, also for a moment."""
    browser.evaluate(
        "const state = document.getElementById('state');"
        "window.texts = [];"
        "new MutationObserver(() => texts.push(state.textContent))"
        ".observe(state, {childList: true, characterData: true, subtree: true})"
    )


def test_a_pipelines_page_follows_it_through_its_life(new_server, browser, client_of, tmp_path):
    stage = new_server("--token", TOKEN)
    client = client_of(stage)
    browser.open(stage.url)
    browser.wait_for("document.querySelector('th a')?.textContent == 'front door'")
    browser.click("document.querySelector('th a')")
    browser.wait_for(f"{TEXT} == 'Stopped' && {CARD}.textContent.includes('is not running')")
    is_accessible(browser)
    browser.events.clear()  # axe tries styles that the page forbids
    press(browser, "Start")
    runs(browser)
    nothing_went_wrong(browser)

    [one] = client.get("api/v0/pipeline/list").json()
    os.kill(one["pid"], signal.SIGKILL)
    browser.wait_for(f"{STATE} == 'ended' && {TEXT}.startsWith('Errorkilled by SIGKILL')")
    card = browser.evaluate(f"{CARD}.innerText")
    assert card.startswith("The run ended with an error\n\nkilled by SIGKILL")
    assert "flowrun replay" in card
    # The last report was a second old when the run was killed; its log has all cycles.
    cycles = client.get("api/v0/runs").json()[0]["cycles"]
    browser.wait_for(f"{CARD}.innerText.includes('{cycles:,} cycles in ')")
    is_accessible(browser)
    # Its log is there to look at and to take away, though its own server is not.
    browser.wait_for("document.querySelector('.timeline')?.dataset.timeline == 'ready'")
    browser.save_downloads_to(tmp_path)
    browser.click(f"{CARD}.querySelector('a.button')")
    file = browser.downloaded(tmp_path, "*.mcap")
    assert file.read_bytes()[:8] == b"\x89MCAP0\r\n"

    press(browser, "Run again")
    runs(browser)
    note_texts(browser)
    press(browser, "Restart", ".top")
    browser.wait_for("texts.some(it => it.startsWith('Restarting') || it.startsWith('Starting'))")
    runs(browser)
    press(browser, "Stop", ".top")
    browser.wait_for(f"{STATE} == 'ended' && {CARD}.textContent.includes('asked to end')")
    # Somebody starts it elsewhere, and the page goes on with that run.
    browser.wait_for(f"{CARD}.textContent.includes('Run again')")
    client.post("api/v0/pipeline/start", json={"pipeline_id": "front door"}).raise_for_status()
    runs(browser)
    stage.process.kill()
    browser.wait_for(f"{STATE} == 'gone' && {TEXT}.startsWith('Server gone')")
    assert browser.evaluate(f"{CARD}.querySelector('a.button')") is None


@pytest.mark.parametrize("strips", [True, False])
def test_all_of_it_works_below_a_path_of_a_proxy(new_server, browser, strips):
    stage = new_server("--root-path", "/house/cams", "--token", "s3cret")
    port = httpx.URL(stage.url).port
    proxy = ReverseProxy(port, "/house/cams", strips=strips)
    try:
        browser.open(f"{proxy.url}?token=s3cret")
        browser.wait_for("document.querySelector('th a')?.textContent == 'front door'")
        browser.click("document.querySelector('[aria-label=\"Start front door\"]')")
        browser.wait_for("document.querySelector('tbody tr').dataset.phase == 'running'")
        browser.click("document.querySelector('th a')")
        runs(browser)
        browser.wait_for("[...document.querySelectorAll('.thumb img')].some(it => it.naturalWidth)")
        browser.wait_for("document.querySelector('.timeline')?.dataset.timeline == 'ready'")
        browser.wait_for("!document.getElementById('send').disabled")
        browser.click("document.getElementById('send')")
        browser.wait_for(f"{SAID}.startsWith('Set')")
        nothing_went_wrong(browser)
        asked = {event["request"]["url"] for event in browser.of("Network.requestWillBeSent")}
        asked |= {
            event["url"].replace("ws:", "http:", 1)
            for event in browser.of("Network.webSocketCreated")
        }
        assert all(url.startswith((proxy.url, "data:", "blob:", "about:")) for url in asked), asked
        # Back to the first page, and to the recorded runs, with the token.
        browser.click("document.querySelector('h1 a')")
        browser.wait_for("document.querySelector('tbody tr')?.dataset.phase == 'running'")
        press(browser, "Recorded runs", ".top")
        browser.wait_for(f"{STATE} == 'ended' && {TEXT}.startsWith('Recorded')")
        browser.wait_for("!!document.querySelector('.screen[data-past=exact]')")
        nothing_went_wrong(browser)
    finally:
        proxy.close()


def test_without_the_token_nothing_is_shown(new_server, browser):
    stage = new_server("--token", "s3cret")
    base = stage.url.partition("?")[0]
    for path in ("", "pipelines/front%20door/", "recorded/"):
        reply = httpx.get(base + path, headers={"Accept": "text/html"})
        assert reply.status_code == 401
        assert "front door" not in reply.text
        browser.open(base + path)
        browser.wait_for("document.body.innerText.includes('token')")
