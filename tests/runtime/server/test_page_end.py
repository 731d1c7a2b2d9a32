"""The end of a run on its page, and several windows that look at the same run."""

import signal
import threading

import pytest

from support.axe import is_accessible
from support.browser import Browser
from support.on_terminal import OnTerminal
from support.oriented import film
from support.stages import CARD, SHOWN, STATE, TESTS, TEXT, played, press

pytestmark = [pytest.mark.slow, pytest.mark.real]

BUTTONS = f"[...{CARD}.querySelectorAll('a, button')].map(it => it.textContent)"


@pytest.fixture(scope="module")
def second_chromium(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("chromium") / "second")
    browser.size(1440, 900)
    yield browser
    browser.close()


@pytest.fixture
def windows(browser, second_chromium):
    """Two windows, which share nothing."""
    browser.size(1440, 900)
    yield browser, second_chromium
    second_chromium.open("about:blank")


@pytest.fixture
def new_run_on_terminal(tmp_path, monkeypatch):
    """Starts runs on a terminal, whose pages stay after the end; gives the URL too."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    path = tmp_path / "stage.yaml"
    path.write_text(played(film(tmp_path / "film.mp4"), tmp_path), encoding="utf-8")
    commands = []

    def start(*options):
        command = OnTerminal(path, "--port", 0, *options, cwd=tmp_path)
        commands.append(command)
        url = command.until(r"(http://[0-9.:]+/)")[1]
        # Somebody has to read what is drawn on the terminal.
        threading.Thread(target=command.rest, daemon=True).start()
        return command, url

    yield start
    for command in commands:
        command.process.kill()
        command.process.wait()


def runs(browser):
    browser.wait_for(f"{STATE} == 'running' && !!{SHOWN}", timeout_s=240)


def test_after_the_end_a_run_is_taken_away_and_run_again(new_run_on_terminal, windows, tmp_path):
    command, url = new_run_on_terminal("--cycles", 60)
    for window in windows:
        window.open(url)
        runs(window)
    one, other = windows
    for window in windows:
        window.wait_for(f"{STATE} == 'ended' && {BUTTONS}.includes('Run again')")
    text = one.evaluate(f"{CARD}.innerText")
    assert text.startswith("The run has ended\n\nWhy: the limit of 60 cycles"), text
    assert "60 cycles in " in text
    [folder] = (tmp_path / "runs").glob("stage-*")
    assert f"Have it again: flowrun replay runs/{folder.name}" in text
    is_accessible(one, phone=True)
    one.save_downloads_to(tmp_path)
    one.click(f"{CARD}.querySelector('a.button')")
    assert one.downloaded(tmp_path, "*.mcap").read_bytes()[:8] == b"\x89MCAP0\r\n"

    press(one, "Run again")
    one.wait_for(f"{CARD} == null || {CARD}.innerText.includes('It begins again ...')")
    for window in windows:  # also where nobody has pressed anything
        window.wait_for(
            f"!{CARD}.innerText.includes('{folder.name}') && {BUTTONS}.includes('Run again')",
            timeout_s=240,
        )
    assert len(list((tmp_path / "runs").glob("stage-*"))) == 2

    command.process.send_signal(signal.SIGINT)
    for window in windows:
        window.wait_for(f"{CARD}.innerText.includes('Its server cannot be reached.')")
        assert window.evaluate(BUTTONS) == ["Close"]
    press(other, "Close")
    other.wait_for(f"{CARD} == null && {STATE} == 'ended'")


def test_an_error_that_ends_a_run_is_on_its_card(new_run_on_terminal, browser, tmp_path):
    _, url = new_run_on_terminal()
    browser.size(1440, 900)
    browser.open(url)
    runs(browser)
    (tmp_path / "raise").touch()
    browser.wait_for(f"{STATE} == 'ended' && {BUTTONS}.includes('Run again')")
    text = browser.evaluate(f"{CARD}.innerText")
    assert text.startswith("The run ended with an error\n\ntask 'player' failed in process, cycle ")
    assert "ValueError: no <i>memory</i>" in text
    is_accessible(browser, phone=True)
    (tmp_path / "raise").unlink()
    press(browser, "Run again")
    runs(browser)


def test_a_prompt_that_one_changes_is_shown_to_all(new_run_on_terminal, windows):
    _, url = new_run_on_terminal()
    one, other = windows
    prompt = "document.getElementById('prompt')"
    for window in windows:
        window.open(url)
        window.wait_for(f"{prompt}?.value == 'detect shapes' && !{prompt}.disabled")
    # What somebody is typing stays, and says what is in force meanwhile.
    other.evaluate(
        f"({prompt}.focus(), {prompt}.value = 'my draft',"
        f" {prompt}.dispatchEvent(new Event('input', {{bubbles: true}})))"
    )
    one.evaluate(
        f"({prompt}.value = 'Is <b>anybody</b> there?',"
        f" {prompt}.dispatchEvent(new Event('input', {{bubbles: true}})))"
    )
    one.click("document.getElementById('send')")
    for window in windows:
        window.wait_for(
            "document.querySelector('#answers .prompt')?.textContent == 'Is <b>anybody</b> there?'"
        )
    assert other.evaluate(f"{prompt}.value") == "my draft"
    other.wait_for(
        "document.getElementById('in-force').innerText.includes('Is <b>anybody</b> there?')"
    )
    press(other, "keep it", "#in-force")
    other.wait_for(f"{prompt}.value == 'Is <b>anybody</b> there?'")
    # One pauses, and the other resumes.
    press(one, "Pause", ".top")
    for window in windows:
        window.wait_for(f"{STATE} == 'paused' && {TEXT} == 'Paused'")
    press(other, "Resume", ".top")
    for window in windows:
        runs(window)
    press(one, "Stop", ".top")
    for window in windows:
        window.wait_for(f"{CARD}?.innerText.includes('a client asked over HTTP')")
