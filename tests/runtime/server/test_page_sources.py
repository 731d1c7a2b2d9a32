"""Pictures of every kind of source on the page, each the right way up, in the right form."""

import base64
import io
import json
from fractions import Fraction

import httpx
import pytest
from PIL import Image

from support.axe import violations
from support.oriented import COLOURS, film, quarters
from support.stage_tasks import FOUND
from support.stages import STATE

pytestmark = [pytest.mark.slow, pytest.mark.real]

RED, GREEN, BLUE, YELLOW = range(4)
KINDS = {
    "plain": ("a.mp4", {}, (320, 192), (RED, GREEN, BLUE, YELLOW)),
    "mirrored": ("b.mp4", {"orientation": 2}, (320, 192), (GREEN, RED, YELLOW, BLUE)),
    "right": ("c.mp4", {"orientation": 6}, (192, 320), (BLUE, RED, YELLOW, GREEN)),
    "both": ("d.mp4", {"orientation": 7}, (192, 320), (YELLOW, GREEN, BLUE, RED)),
    "wide": ("e.mp4", {"aspect": Fraction(2)}, (640, 192), (RED, GREEN, BLUE, YELLOW)),
    "tall": (
        "f.mp4",
        {"aspect": Fraction(2), "orientation": 8},
        (192, 640),
        (GREEN, YELLOW, RED, BLUE),
    ),
    "vp9": ("g.webm", {"codec": "libvpx-vp9"}, (320, 192), (RED, GREEN, BLUE, YELLOW)),
    "mjpeg": ("h.avi", {"codec": "mjpeg"}, (320, 192), (RED, GREEN, BLUE, YELLOW)),
    "h265": (
        "i.mp4",
        {"codec": "libx265", "x265-params": "log-level=none"},
        (320, 192),
        (RED, GREEN, BLUE, YELLOW),
    ),
}
"""Films: file, how it is made, and its size and the colours of its quarters as they are shown."""
STILLS = {"stills": ((320, 192), (RED, GREEN, BLUE, YELLOW))}
CAMERAS = [*KINDS, "stills", "drawn"]


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """A graph with a camera of each kind, a sink for each, and a finder."""
    folder = tmp_path_factory.mktemp("sources")
    uris = {}
    for name, (file, made, _, _) in KINDS.items():
        uris[name] = film(folder / file, **made)
    (folder / "stills").mkdir()
    for number in range(6):
        Image.fromarray(quarters(320, 192)).save(folder / "stills" / f"{number}.png")
    uris |= {"stills": f"{folder}/stills/", "drawn": "test"}
    tasks, cnx = [], []
    for name, uri in uris.items():
        config = {"source_uri": str(uri), "realtime": True}
        tasks.append({"id": name, "type": "VideoCapture", "config": config})
        if name != "drawn":
            config["loop"] = True
        for task, type_ in (("find", "support.stage_tasks.Finder"), ("show", "BroadcastImage")):
            tasks.append({"id": f"{task}_{name}", "type": type_})
            cnx.append({"src": name, "dst": f"{task}_{name}", "msg": "ImageRgb8Msg"})
    path = folder / "sources.yaml"
    path.write_text(json.dumps({"tasks": tasks, "cnx": cnx}), encoding="utf-8")
    return path


@pytest.fixture
def stage(new_stage, graph, tmp_path):
    return new_stage(graph, "--plain", "--port", "0", "--log-dir", tmp_path / "runs")


def screen(name):
    return (
        "[...document.querySelectorAll('.screen')]"
        f".find(it => it.querySelector('b').textContent == '{name}')"
    )


def chip(name):
    return (
        "[...document.querySelectorAll('.cameras .chips button')]"
        f".find(it => it.textContent == '{name}')"
    )


def choose(browser, *names):
    """Show these cameras, as a user chooses them."""
    browser.wait_for(f"!!{chip(CAMERAS[-1])}")
    for name in CAMERAS:
        pressed = browser.evaluate(f"{chip(name)}.ariaPressed") == "true"
        if pressed != (name in names):
            browser.click(chip(name))
    browser.wait_for(f"document.querySelectorAll('.screen').length == {len(names)}")


def canvas(browser, name, which="picture"):
    """The pixels of a canvas of the page."""
    url = browser.evaluate(f"{screen(name)}.querySelector('canvas.{which}').toDataURL()")
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def quarters_of(picture):
    """The colours in the middle of its quarters, row by row."""
    picture = picture.convert("RGB")
    at = [(x, y) for y in (0.3, 0.7) for x in (0.3, 0.7)]
    return [picture.getpixel((int(x * picture.width), int(y * picture.height))) for x, y in at]


def are_near(found, wanted):
    return all(
        abs(a - b) <= 6
        for one, two in zip(found, wanted, strict=True)
        for a, b in zip(one, two, strict=True)
    )


@pytest.fixture
def page(stage, browser):
    browser.size(1440, 900)
    browser.open(stage.url)
    browser.wait_for(f"{STATE} == 'running'")
    return browser


def test_each_kind_of_picture_is_shown_upright_with_its_colours(page, stage):
    choose(page, *CAMERAS)
    for name in CAMERAS:
        page.wait_for(f"{screen(name)}?.dataset.shown == 'yes'")
    for name, (_, _, size, colours) in {**KINDS, "stills": ("", {}, *STILLS["stills"])}.items():
        picture = canvas(page, name)
        assert picture.size == size, name
        shown = quarters_of(picture)
        assert are_near(shown, [COLOURS[number] for number in colours]), (name, shown)
        # It is the run's own picture, pixel by pixel but for the coding.
        reply = httpx.get(f"{stage.url}api/v0/streaming/image/show_{name}", params={"latest": 1})
        seen = Image.open(io.BytesIO(reply.content))
        assert abs(seen.width / seen.height - size[0] / size[1]) < 0.01
        assert are_near(shown, quarters_of(seen)), name
    forms = {name: page.evaluate(f"{screen(name)}.dataset.form") for name in CAMERAS}
    can_h265 = page.evaluate(
        "VideoDecoder.isConfigSupported({codec: 'hev1.1.6.L60.90'}).then(it => it.supported)"
    )
    jpegs = {"stills", "drawn"} | (set() if can_h265 else {"h265"})
    assert forms == {name: "jpeg" if name in jpegs else "packets" for name in CAMERAS}
    if not can_h265:
        text = page.evaluate(f"{screen('h265')}.textContent")
        assert "as JPEGs: this browser cannot decode H.265" in text
    assert "as JPEGs: browsers decode no PNG video" in page.evaluate(
        f"{screen('drawn')}.textContent"
    )
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollHeight") <= 900


def test_boxes_and_tracks_lie_on_what_they_are_about(page):
    names = ["plain", "right", "tall", "stills"]
    choose(page, *names)
    left, top, right, bottom = FOUND
    for name in names:
        marked = (
            f"{screen(name)}?.dataset.shown == 'yes' && (it => it.getContext('2d')"
            ".getImageData(0, 0, it.width, it.height).data.some(value => value))"
            f"({screen(name)}.querySelector('canvas.marks'))"
        )
        page.wait_for(marked)
        marks = canvas(page, name, "marks")
        picture = canvas(page, name)
        assert marks.size == picture.size
        unit = max(marks.size) / 100
        # The label is above the box; below its upper edge only the lines are drawn.
        box = marks.getchannel("A").crop((0, int(marks.height * (top + bottom) / 2), *marks.size))
        drawn = box.getbbox()
        wanted = (left * marks.width, 0, right * marks.width, bottom * marks.height)
        assert abs(drawn[0] - wanted[0]) <= 2 * unit, (name, drawn, wanted)
        assert abs(drawn[2] - wanted[2]) <= 2 * unit, (name, drawn, wanted)
        lower = drawn[3] + int(marks.height * (top + bottom) / 2)
        assert abs(lower - wanted[3]) <= 2 * unit, (name, drawn, wanted)
    for what in ("boxes", "tracks"):
        page.click(chip(what))
    page.wait_for(f"!({marked})")


ALONE = "[...document.querySelectorAll('.tools button[aria-pressed]')].map(it => it.textContent)"


def test_four_cameras_are_a_grid_and_a_double_click_shows_one(page):
    names = CAMERAS[:4]
    page.wait_for("document.querySelectorAll('.screen[data-shown]').length == 4")
    places = json.loads(
        page.evaluate(
            "JSON.stringify([...document.querySelectorAll('.screen')]"
            ".map(it => it.getBoundingClientRect()))"
        )
    )
    assert len({round(it["x"]) for it in places}) == len({round(it["y"]) for it in places}) == 2
    assert page.evaluate(ALONE) == ["Alone"] * 4
    for name in (names[2], names[0]):
        middle = json.loads(
            page.evaluate(
                f"JSON.stringify({screen(name)}.querySelector('canvas').getBoundingClientRect())"
            )
        )
        at = middle["x"] + middle["width"] / 2, middle["y"] + middle["height"] / 2
        page.double_click(*at)
        page.wait_for(
            "document.querySelectorAll('.screen').length == 1 && "
            f"document.querySelector('.screen[data-shown] b')?.textContent == '{name}'"
        )
        assert page.evaluate(ALONE) == ["All"]
        assert (
            page.evaluate(f"{screen(name)}.getBoundingClientRect().width") > 1.5 * middle["width"]
        )
        page.double_click(*at)
        page.wait_for("document.querySelectorAll('.screen[data-shown]').length == 4")


@pytest.mark.parametrize("name", ["tall", "drawn"])
def test_a_snapshot_is_the_picture_as_a_file(page, name, tmp_path):
    choose(page, name)
    page.wait_for(f"{screen(name)}?.dataset.shown == 'yes'")
    page.save_downloads_to(tmp_path)
    page.click(f"{screen(name)}.querySelector('.tools button')")
    file = page.downloaded(tmp_path, f"{name}-cycle-*.png")
    with Image.open(file) as opened:
        picture = opened.copy()
    assert picture.size == ((192, 640) if name == "tall" else (640, 480))
    if name == "tall":
        assert are_near(quarters_of(picture), [COLOURS[it] for it in KINDS[name][3]])


def test_without_webcodecs_pictures_come_as_jpegs(stage, browser):
    browser.size(1440, 900)
    browser.before_load("delete window.VideoDecoder")
    browser.open(stage.url)
    browser.wait_for("document.querySelectorAll('.screen[data-shown]').length == 4")
    for name, (_, _, size, colours) in list(KINDS.items())[:4]:
        browser.wait_for(
            f"{screen(name)}?.dataset.form == 'jpeg' && {screen(name)}.dataset.cycle > 0"
        )
        assert "cannot decode H.264 (no WebCodecs)" in browser.evaluate(
            f"{screen(name)}.textContent"
        )
        picture = canvas(browser, name)
        assert abs(picture.width / picture.height - size[0] / size[1]) < 0.01
        assert are_near(quarters_of(picture), [COLOURS[number] for number in colours])


HELD = """
window.came = [];
window.made = [];
window.WebSocket = class extends WebSocket {
  constructor(...words) {
    super(...words);
    let stamp;
    this.addEventListener('message', ({data}) => {
      if (typeof data === 'string') stamp = JSON.parse(data); else window.came.push(stamp.cycle);
    });
  }
};
const make = createImageBitmap;
window.createImageBitmap = async (...words) => {
  await new Promise(go => window.made.push(go));
  return make(...words);
};
"""


def test_of_jpegs_that_come_while_one_is_made_the_newest_is_shown(new_run, new_server, browser):
    run = new_run()
    browser.before_load(HELD)
    browser.open(new_server(run).url)
    while not browser.evaluate("window.made.length == 2"):
        run.cycle()
        browser.evaluate("new Promise(done => setTimeout(done, 50))")  # it may not listen yet
    run.cycle()
    browser.wait_for(f"window.came.filter(it => it == {run.cycles}).length == 2")
    browser.evaluate(
        "setInterval(() => { while (window.made.length) window.made.pop()(); }, 10) && null"
    )
    browser.wait_for(
        f"document.querySelectorAll('.screen[data-cycle=\"{run.cycles}\"]').length == 2"
    )


def test_without_websockets_pictures_come_as_an_image_that_is_replaced(stage, browser):
    browser.size(1440, 900)
    browser.before_load(
        "window.WebSocket = class extends EventTarget { constructor() { super();"
        " setTimeout(() => this.onclose?.({code: 1006, reason: ''})) } close() {} }"
    )
    browser.open(stage.url)
    browser.wait_for(f"{screen('plain')}?.dataset.form == 'img'")
    browser.wait_for(f"{screen('plain')}.querySelector('img').naturalWidth == 320")


def test_answers_about_several_cameras_have_the_frames_of_their_own(new_stage, browser, tmp_path):
    graph = tmp_path / "two.yaml"
    for name, made in (("left", {}), ("right", {"orientation": 3})):
        film(tmp_path / f"{name}.mp4", **made)
    tasks, cnx = [], []
    for name in ("left", "right"):
        config = {"source_uri": str(tmp_path / f"{name}.mp4"), "realtime": True, "loop": True}
        tasks.append({"id": name, "type": "VideoCapture", "config": config})
        tasks.append({"id": f"says_{name}", "type": "BroadcastChat"})
        cnx.append({"src": name, "dst": f"see.{name}", "msg": "ImageRgb8Msg"})
        cnx.append({"src": f"see.{name}_answer", "dst": f"says_{name}", "msg": "PromptResponseMsg"})
    see = {"prompt": "cap en", "inputs": ["left", "right"]}
    tasks.append({"id": "see", "type": "InferenceBatch", "background": True, "config": see})
    graph.write_text(json.dumps({"tasks": tasks, "cnx": cnx}), encoding="utf-8")
    stage = new_stage(graph, "--plain", "--port", "0", "--log-dir", tmp_path / "runs")
    browser.size(1440, 900)
    browser.open(stage.url)
    seen = set()
    shown = (
        "JSON.stringify([...document.querySelectorAll('#answers li')]"
        ".filter(it => it.querySelector('img')?.naturalWidth)"
        ".map(it => [it.querySelector('.chip').textContent,"
        " new URL(it.querySelector('img').src).pathname]))"
    )
    browser.wait_for(
        f"['left', 'right'].every(it => JSON.parse({shown}).some(([name]) => name == `see: ${{it}}`))",
        timeout_s=240,
    )
    for name, path in json.loads(browser.evaluate(shown)):
        assert path.endswith(f"/image/{name.removeprefix('see: ')}")
        seen.add(name)
    assert seen == {"see: left", "see: right"}
