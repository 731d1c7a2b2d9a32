"""What is drawn over pictures on the page: zones, lines, and boxes on the pictures that they are of."""

import base64
import io

import pytest
import structlog
from PIL import Image

from support.answer_tasks import ran
from support.axe import violations
from support.oriented import film

pytestmark = [pytest.mark.slow, pytest.mark.real]

GRAPH = """
tasks:
  - {{id: cam, type: VideoCapture, config: {{source_uri: {film}, realtime: true, loop: true}}}}
  - {{id: find, type: support.stage_tasks.Finder}}
  - id: zones
    type: Zones
    config:
      zones:
        - {{name: left, polygon: [[0.1, 0.4], [0.4, 0.4], [0.4, 0.9], [0.1, 0.9]]}}
        - {{name: around it, polygon: [[0.45, 0.5], [0.6, 0.5], [0.6, 0.9], [0.45, 0.9]]}}
  - id: gate
    type: LineCounter
    config: {{lines: [{{name: gate, start: [0.7, 0.7], end: [0.95, 0.7]}}]}}
  - {{id: whole, type: BroadcastImage}}
cnx:
  - {{src: cam, dst: find, msg: ImageRgb8Msg}}
  - {{src: find, dst: zones, msg: TracksMsg}}
  - {{src: find, dst: gate, msg: TracksMsg}}
  - {{src: cam, dst: whole, msg: ImageRgb8Msg}}
"""
CROPPED = """
tasks:
  - {{id: cam, type: VideoCapture, config: {{source_uri: {film}, realtime: true, loop: true}}}}
  - {{id: crop, type: flowrun.tasks.shaping.crop.Crop, config: {{box: [0, 0, 0.5, 0.5], unit: parts}}}}
  - {{id: find, type: support.stage_tasks.Finder}}
  - {{id: whole, type: BroadcastImage}}
  - {{id: part, type: BroadcastImage}}
cnx:
  - {{src: cam, dst: crop, msg: ImageRgb8Msg}}
  - {{src: crop, dst: find, msg: ImageRgb8Msg}}
  - {{src: cam, dst: whole, msg: ImageRgb8Msg}}
  - {{src: crop, dst: part, msg: ImageRgb8Msg}}
"""

TWO = """
tasks:
  - {{id: left, type: VideoCapture, config: {{source_uri: {film}, realtime: true, loop: true}}}}
  - {{id: right, type: VideoCapture, config: {{source_uri: {film}, realtime: true, loop: true}}}}
  - id: find
    type: support.stage_tasks.FinderOfMany
    config: {{inputs: [left, right]}}
  - {{id: show_left, type: BroadcastImage}}
  - {{id: show_right, type: BroadcastImage}}
cnx:
  - {{src: left, dst: find.left, msg: ImageRgb8Msg}}
  - {{src: right, dst: find.right, msg: ImageRgb8Msg}}
  - {{src: left, dst: show_left, msg: ImageRgb8Msg}}
  - {{src: right, dst: show_right, msg: ImageRgb8Msg}}
"""


def opened(new_stage, browser, tmp_path, text):
    """The page of a run of this graph, whose film lies on its side."""
    graph = tmp_path / "marks.yaml"
    graph.write_text(text.format(film=film(tmp_path / "film.mp4", orientation=6)), encoding="utf-8")
    stage = new_stage(graph, "--plain", "--port", "0", "--log-dir", tmp_path / "runs")
    browser.size(1440, 900)
    browser.open(stage.url)
    browser.wait_for(f"{chip('boxes')} && !!document.querySelector('.screen[data-shown]')")
    return browser


def chip(name):
    return (
        "[...document.querySelectorAll('.cameras .chips button')]"
        f".find(it => it.textContent == '{name}')"
    )


def of(name):
    return (
        "[...document.querySelectorAll('.screen')]"
        f".find(it => it.querySelector('b').textContent == '{name}').querySelector('canvas.marks')"
    )


def is_marked(name):
    return (
        f"{of(name)}.getContext('2d').getImageData(0, 0, {of(name)}.width, {of(name)}.height)"
        ".data.some(value => value)"
    )


def alpha(browser, name, x, y):
    """How much is drawn at a point of the picture, from 0 to 255."""
    url = browser.evaluate(f"{of(name)}.toDataURL()")
    marks = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).getchannel("A")
    at = int(x * marks.width), int(y * marks.height)
    return marks.crop((at[0] - 1, at[1] - 1, at[0] + 2, at[1] + 2)).getextrema()[1]


def test_zones_and_lines_lie_where_they_are_with_their_counts(new_stage, browser, tmp_path):
    page = opened(new_stage, browser, tmp_path, GRAPH)
    page.wait_for(f"!!{chip('zones')}")
    for name in ("boxes", "tracks"):
        page.click(chip(name))
    page.wait_for(is_marked("cam"))
    for x, y in ((0.1, 0.7), (0.4, 0.7), (0.25, 0.9), (0.525, 0.9), (0.6, 0.7), (0.8, 0.7)):
        assert alpha(page, "cam", x, y) > 150, (x, y)
    for x, y in ((0.05, 0.2), (0.43, 0.7), (0.65, 0.85), (0.9, 0.3)):
        assert alpha(page, "cam", x, y) == 0, (x, y)
    # One is in the second zone, which is filled more.
    assert 0 < alpha(page, "cam", 0.25, 0.7) < alpha(page, "cam", 0.525, 0.75) < 100
    # Along the line from left to right, "in" is below.
    assert alpha(page, "cam", 0.825, 0.72) > 150
    page.click("document.getElementById('tab-seen')")
    rows = (
        "[...document.querySelectorAll('#panel tbody tr')].map(row => row.innerText.split('\\t'))"
    )
    page.wait_for(f"{rows}.length == 4")
    assert page.evaluate(rows)[1:] == [
        ["zones", "left", "0", "0", "\u2013"],
        ["zones", "around it", "1", "1", "\u2013"],
        ["gate", "gate", "\u2013", "0", "0"],
    ]
    for dark in (False, True):
        page.size(1440, 900, dark=dark)
        assert violations(page) == []
    page.click(chip("zones"))
    page.wait_for(f"!({is_marked('cam')})")


def test_boxes_are_drawn_on_the_pictures_in_which_they_were_found(new_stage, browser, tmp_path):
    page = opened(new_stage, browser, tmp_path, CROPPED)
    page.wait_for(is_marked("part"))
    assert not page.evaluate(is_marked("cam"))


def test_boxes_of_several_cameras_are_on_their_own_pictures(new_stage, browser, tmp_path):
    page = opened(new_stage, browser, tmp_path, TWO)
    page.wait_for(is_marked("right"))
    assert not page.evaluate(is_marked("left"))


def recorded(folder, text):
    """A run of this graph on its film, once through."""
    clip = film(folder / "film.mp4", orientation=6)
    once = text.format(film=clip).replace(", realtime: true, loop: true", "")
    found = ran(once, folder)
    structlog.reset_defaults()
    return found


def is_exact(page):
    page.wait_for("!!document.querySelector('.screen[data-past=exact]')")


def test_zones_and_lines_are_there_at_a_past_moment(viewed, tmp_path):
    page = viewed(recorded(tmp_path, GRAPH))
    is_exact(page)
    page.wait_for(f"!!{chip('zones')}")
    page.click(chip("boxes"))
    page.wait_for(is_marked("cam"))
    for x, y in ((0.1, 0.7), (0.4, 0.7), (0.525, 0.9), (0.6, 0.7), (0.8, 0.7)):
        assert alpha(page, "cam", x, y) > 150, (x, y)
    assert 0 < alpha(page, "cam", 0.25, 0.7) < alpha(page, "cam", 0.525, 0.75) < 100
    page.click("document.getElementById('tab-seen')")
    page.wait_for("document.querySelector('#panel').innerText.includes('inside then')")
    rows = (
        "[...document.querySelectorAll('#panel tbody tr')].map(row => row.innerText.split('\\t'))"
    )
    page.wait_for(f"{rows}.length == 4")
    assert page.evaluate(rows)[2:] == [
        ["zones", "around it", "1", "1", "\u2013"],
        ["gate", "gate", "\u2013", "0", "0"],
    ]
    page.click(chip("zones"))
    page.wait_for(f"!({is_marked('cam')})")


@pytest.mark.parametrize(
    ("text", "marked", "bare"), [(CROPPED, "crop", "cam"), (TWO, "right", "left")]
)
def test_boxes_of_a_past_moment_are_on_the_pictures_in_which_they_were_found(
    viewed, tmp_path, text, marked, bare
):
    page = viewed(recorded(tmp_path, text))
    is_exact(page)
    page.wait_for(is_marked(marked))
    assert not page.evaluate(is_marked(bare))
