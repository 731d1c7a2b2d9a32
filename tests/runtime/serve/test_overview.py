"""The first page of a server of pipelines, in a real browser."""

import pytest

from support.browser import Browser
from support.pipelines import ECHO, scripted_pipelines, serving, write_script

pytestmark = pytest.mark.real

ROW = "document.querySelector('[data-pipeline=\"{}\"]')"


@pytest.fixture
def page(tmp_path):
    """The page of a server of a graph that runs, and one that fails; the pipelines too."""
    write_script(tmp_path, "cam <b>", ECHO)
    write_script(tmp_path, "wrong", "echo 'error: no camera' >&2; exit 1")
    pipelines, _ = scripted_pipelines(tmp_path)
    browser = Browser(tmp_path / "profile")
    with serving(pipelines) as client:
        browser.size(1440, 900)
        browser.open(str(client.base_url))
        browser.wait_for("document.body.dataset.state == 'running'")
        yield browser, pipelines
        browser.close()


def click(browser, name, word):
    browser.evaluate(f"document.querySelector('[aria-label=\"{word} {name}\"]').click()")


def test_pipelines_are_started_and_stopped(page):
    browser, pipelines = page
    rows = browser.evaluate("[...document.querySelectorAll('tbody tr')].map(row => row.innerText)")
    assert [row.split("\t")[:2] for row in rows] == [["cam <b>", "Stopped"], ["wrong", "Stopped"]]
    click(browser, "cam <b>", "Start")
    browser.wait_for(f"{ROW.format('cam <b>')}.dataset.status == 'Running'")
    assert pipelines.find("cam <b>").is_running
    links = "[...document.querySelectorAll('th a')].map(link => link.getAttribute('href'))"
    assert browser.evaluate(links)[0].endswith("/pipelines/cam%20%3Cb%3E/")
    click(browser, "wrong", "Start")
    browser.wait_for(f"{ROW.format('wrong')}.dataset.status == 'Error'")
    assert browser.evaluate(f"{ROW.format('wrong')}.querySelector('.error').innerText") == (
        "no camera"
    )
    browser.wait_for("document.getElementById('said').innerText == 'no camera'")
    for name in ("cam <b>", "wrong"):
        click(browser, name, "Stop")
        browser.wait_for(f"{ROW.format(name)}.dataset.status == 'Stopped'")
    assert pipelines.running() == []


def test_a_pipeline_that_dies_is_seen_without_a_reload(page):
    browser, pipelines = page
    click(browser, "cam <b>", "Start")
    browser.wait_for(f"{ROW.format('cam <b>')}.dataset.status == 'Running'")
    pipelines.find("cam <b>").stop()
    browser.wait_for(f"{ROW.format('cam <b>')}.dataset.status == 'Stopped'")
