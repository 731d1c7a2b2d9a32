"""The picture at a moment on the page is the recorded one of that moment, wherever somebody jumps."""

import base64
import io
import json

import numpy as np
import pytest
import structlog
from PIL import Image

from flowrun.runtime.log.reader import Log
from support.answer_tasks import answered
from support.films import FILMS, KEY_EVERY

pytestmark = [pytest.mark.slow, pytest.mark.real]

SCREEN = "document.querySelector('.screen')"
SAID = f"{SCREEN}.querySelector('figcaption').innerText"
HELD = """
window.replies = [];
const real = fetch;
window.fetch = async (url, options) => {
  const reply = await real(url, options);
  if (!String(url).includes('/packets/') || !window.holds) return reply;
  const all = new Uint8Array(await reply.arrayBuffer());
  let at = 0;
  const size = () => 4 + (new DataView(all.buffer, at).getUint32(0, true) & 0x7fffffff);
  // The configuration, the key frame and some more, or nothing.
  for (let n = 0; n < (window.first ?? 6); n += 1) at += size();
  return new Response(new ReadableStream({start(controller) {
    controller.enqueue(all.slice(0, at));
    const gone = new DOMException('gone', 'AbortError');
    options.signal.addEventListener('abort', () => controller.error(gone));
    window.replies.push({
      signal: options.signal, go: () => { controller.enqueue(all.slice(at)); controller.close(); },
    });
  }}));
};
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Records runs of films, and remembers them."""
    runs = {}

    def of(name):
        if name not in runs:
            folder = tmp_path_factory.mktemp("jumps")
            own = {"bf": "3"} if "x264-params" in FILMS[name] else {}
            runs[name] = answered(folder, film={**own, **FILMS[name]}, name=name)
            structlog.reset_defaults()
        return runs[name]

    return of


def go(page, cycle):
    """Go to a moment as the page itself does."""
    page.evaluate(
        f"import('./page/known.js').then(({{run}}) => {{ run.look({cycle}); }}).then(() => null)"
    )


def is_exact(page, cycle):
    page.wait_for(
        f"{SCREEN}.dataset.past == 'exact' && {SCREEN}.dataset.cycle == {cycle}"
        f" && {SCREEN}.dataset.moment == {cycle}"
    )


def nearest(page, pictures, canvas=".screen canvas.past"):
    """The cycle of the recorded picture that is most like the one that is shown."""
    url = page.evaluate(f"document.querySelector('{canvas}').toDataURL()")
    shown = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")
    pixels = np.asarray(shown, np.int16)
    return min(pictures, key=lambda cycle: np.abs(pictures[cycle] - pixels).mean())


@pytest.mark.parametrize(
    ("name", "is_jpeg"),
    [
        ("plain.mp4", False),
        ("b_frames.mp4", False),
        ("open_gop.mp4", False),
        ("vp9.webm", False),
        ("jpegs.avi", False),
        ("mpeg4.avi", True),
    ],
)
def test_the_picture_at_a_moment_is_that_of_its_cycle(recorded, viewed, name, is_jpeg):
    run = recorded(name)
    with Log(run) as log:
        pictures = {it.cycle: it.pixels.astype(np.int16) for it in log.frames("/cam/image")}
    page = viewed(run)
    last = max(pictures)
    for cycle in (last, 5, 6, 4, 15, 14, 0, KEY_EVERY, last - 1, 1):
        go(page, cycle)
        is_exact(page, cycle)
        assert nearest(page, pictures) == cycle
        assert "exact" in page.evaluate(SAID)
    assert ("as JPEGs: browsers decode no mpeg4" in page.evaluate(SAID)) == is_jpeg


FAILS = """
window.taken = [];
const real = VideoDecoder.prototype.decode;
VideoDecoder.prototype.decode = function (chunk) {
  if (chunk.timestamp === 12) throw new DOMException("Decoding error.", "EncodingError");
  window.taken.push(chunk.timestamp);
  return real.call(this, chunk);
};
"""


def test_what_the_decoder_fails_at_costs_only_the_pictures_of_one_key_frame(
    recorded, viewed, browser
):
    browser.before_load(FAILS)
    run = recorded("plain.mp4")
    with Log(run) as log:
        pictures = {it.cycle: it.pixels.astype(np.int16) for it in log.frames("/cam/image")}
    page = viewed(run)
    for cycle in (15, 14, 13, 15, 14, 13, 20, 5, 15, 21):
        page.evaluate("taken.length = 0; null")
        go(page, cycle)
        is_exact(page, cycle)
        assert nearest(page, pictures) == cycle
        assert "as JPEGs" not in page.evaluate(SAID)
        if cycle in (20, 5):
            assert cycle in page.evaluate("taken")


def test_the_key_frame_is_shown_and_said_until_the_exact_picture_comes(recorded, viewed, browser):
    browser.before_load(HELD)
    run = recorded("plain.mp4")
    with Log(run) as log:
        pictures = {it.cycle: it.pixels.astype(np.int16) for it in log.frames("/cam/image")}
    page = viewed(run)
    page.wait_for(f"{SCREEN}.dataset.past == 'exact'")
    # What is seen has been there for some time.
    page.evaluate("const it = performance, at = it.now() + 1000; it.now = () => at; null")
    page.evaluate(
        f"window.holds = true; window.said = []; new MutationObserver(() => said.push({SAID}))"
        f".observe({SCREEN}, {{childList: true, characterData: true, subtree: true}}); null"
    )
    go(page, 15)
    page.wait_for("said.some(it => it.includes('key frame, 0.2 s before; the exact one comes'))")
    # Others may follow, and be shown.
    page.wait_for(f"{SCREEN}.dataset.cycle >= 8 && {SCREEN}.dataset.past == 'coming'")
    assert 8 <= nearest(page, pictures) <= 12
    assert page.evaluate(f"{SCREEN}.querySelector('canvas.marks').hidden")
    # Nobody wants it any more: its packets are not waited for.
    go(page, 6)
    page.wait_for("window.replies.length == 2")
    page.wait_for("window.replies[0].signal.aborted")
    page.evaluate("window.holds = false; window.replies[1].go(); null")
    is_exact(page, 6)
    assert nearest(page, pictures) == 6


DRAG = """(async () => {
  const {Film} = await import('./page/timeline/film.js');
  const {drawPicture} = await import('./page/live/draw.js');
  const packets = 'api/v0/runs/%(run)s/packets/cam';
  const film = new Film(packets), shown = [];
  const canvas = document.body.appendChild(document.createElement('canvas'));
  canvas.id = 'dragged';
  const to = async cycle => {
    const moment = await (await fetch(`api/v0/runs/%(run)s/moment?cycle=${cycle}`)).json();
    return {cycle, ...moment.images.cam.packets};
  };
  const wishes = await Promise.all([%(cycles)s].map(to));
  const draw = picture => {
    drawPicture(canvas, picture);
    shown.push(picture.cycle);
    picture.image.close();
  };
  return {film, shown, wishes, draw, near: (picture, key) => { draw(picture); window.key = key; }};
})().then(it => Object.assign(window, it)).then(() => null)"""
"""A camera's film of its own in the page, and what somebody wishes who drags: a test says when."""


@pytest.fixture
def dragged(recorded, viewed, browser):
    """Makes a film of a run, and gives the recorded pictures."""

    def of(*cycles):
        browser.before_load(HELD)
        run = recorded("plain.mp4")
        page = viewed(run)
        page.wait_for(f"{SCREEN}.dataset.past == 'exact'")
        page.evaluate(DRAG % {"run": run.name, "cycles": ", ".join(map(str, cycles))})
        page.evaluate("[window.holds, window.first] = [true, 0]; null")
        with Log(run) as log:
            return page, {it.cycle: it.pixels.astype(np.int16) for it in log.frames("/cam/image")}

    return of


def test_the_key_frame_that_a_fast_hand_passes_is_shown(dragged):
    page, pictures = dragged(KEY_EVERY + 3, 5)
    # The second wish comes before anything of the first one. Time stands still, as for a busy machine.
    page.evaluate("const at = performance.now(); performance.now = () => at; null")
    page.evaluate("window.first_wish = film.picture(wishes[0], near); null")
    page.wait_for("replies.length == 1")
    page.evaluate("window.second_wish = film.picture(wishes[1], near); replies[0].go(); null")
    assert page.evaluate("first_wish") is None
    page.wait_for("shown.length == 1 && replies.length == 2")
    assert page.evaluate("[shown[0], key]") == [KEY_EVERY, KEY_EVERY]
    assert nearest(page, pictures, "#dragged") == KEY_EVERY
    page.evaluate("holds = false; replies[1].go(); second_wish.then(draw)")
    assert page.evaluate("shown.at(-1)") == 5
    assert nearest(page, pictures, "#dragged") == 5


def test_the_next_key_frame_comes_while_the_one_that_is_passed_is_decoded(dragged):
    page, pictures = dragged(KEY_EVERY + 3, 5)
    page.evaluate("const at = performance.now(); performance.now = () => at; null")
    page.evaluate("window.first_wish = film.picture(wishes[0], near); null")
    page.wait_for("replies.length == 1")
    page.evaluate("window.second_wish = film.picture(wishes[1], near); null")
    page.wait_for("replies.length == 2")
    assert not page.evaluate("replies[0].signal.aborted || shown.length")
    # Whichever comes first is decoded: nobody waits for the other one.
    page.evaluate("replies[1].go(); null")
    page.wait_for("replies[0].signal.aborted")
    page.evaluate("holds = false; second_wish.then(draw)")
    assert page.evaluate("shown.at(-1)") == 5
    assert nearest(page, pictures, "#dragged") == 5
    assert not page.evaluate(f"shown.includes({KEY_EVERY})")


def test_packets_that_came_in_parts_give_the_exact_picture(dragged):
    """What a drag has left of a group's packets is completed, not asked for twice."""
    last = KEY_EVERY - 1
    page, pictures = dragged(KEY_EVERY + 3, 1, last)
    page.evaluate("const at = performance.now(); performance.now = () => at; null")
    for wish in (0, 1):
        page.evaluate(f"film.picture(wishes[{wish}], near); null")
        page.wait_for(f"replies.length == {wish + 1}")
    page.evaluate("holds = false; replies[1].go(); film.picture(wishes[2], near).then(draw)")
    assert page.evaluate("shown.at(-1)") == last
    assert nearest(page, pictures, "#dragged") == last
    cycles = page.evaluate("film.groups.get(0).messages.map(it => it.cycle)")
    pictured = cycles[1:]  # after the configuration
    assert pictured == list(range(len(pictured)))
    assert len(pictured) > last


def test_a_key_frame_that_does_not_come_is_not_waited_for(dragged):
    page, _ = dragged(KEY_EVERY + 3, 5)
    page.evaluate("film.picture(wishes[0], near); null")
    page.wait_for("replies.length == 1")
    page.evaluate("window.second_wish = film.picture(wishes[1], near); null")
    page.wait_for("replies.length == 2 && replies[0].signal.aborted")
    page.evaluate("holds = false; replies[1].go(); second_wish.then(draw)")
    assert page.evaluate("shown.at(-1)") == 5


def test_no_picture_is_shown_that_is_farther_away_than_what_is_seen(dragged):
    page, pictures = dragged(KEY_EVERY, KEY_EVERY - 1)
    page.evaluate("holds = false; film.picture(wishes[0], near).then(draw)")
    page.evaluate("film.picture(wishes[1], near).then(draw)")
    assert page.evaluate("shown") == [KEY_EVERY, KEY_EVERY - 1]
    assert nearest(page, pictures, "#dragged") == KEY_EVERY - 1


def test_where_packets_give_other_pictures_the_server_gives_the_recorded_one(
    recorded, viewed, browser
):
    """As for a browser that cannot decode them."""
    browser.before_load("delete window.VideoDecoder")
    run = recorded("plain.mp4")
    with Log(run) as log:
        pictures = {it.cycle: it.pixels.astype(np.int16) for it in log.frames("/cam/image")}
    page = viewed(run)
    for cycle in (12, 13, 3):
        go(page, cycle)
        is_exact(page, cycle)
        assert nearest(page, pictures) == cycle
    why = json.dumps("as JPEGs: this browser cannot decode H.264 (no WebCodecs)")
    assert page.evaluate(f"{SAID}.includes({why})")


def test_where_the_pointer_rests_the_picture_comes_before_a_click(recorded, viewed):
    run = recorded("plain.mp4")
    with Log(run) as log:
        pictures = {it.cycle: it.pixels.astype(np.int16) for it in log.frames("/cam/image")}
    page = viewed(run)
    page.wait_for(f"{SCREEN}.dataset.past == 'exact'")
    asked = "performance.getEntriesByType('resource').filter(it => it.name.includes('/packets/')).length"
    left, top, width = page.evaluate(
        "(r => [r.left, r.top, r.width])"
        "(document.querySelector('.timeline canvas').getBoundingClientRect())"
    )
    at = left + 0.42 * width, top + 20
    page.mouse("mouseMoved", *at)
    page.wait_for("document.querySelector('.timeline').dataset.foreseen")
    before = page.evaluate(asked)
    shown = page.evaluate(f"{SCREEN}.dataset.moment")
    page.mouse("mousePressed", *at)
    page.mouse("mouseReleased", *at)
    page.wait_for(f"{SCREEN}.dataset.moment != {shown} && {SCREEN}.dataset.past == 'exact'")
    cycle = int(page.evaluate(f"{SCREEN}.dataset.cycle"))
    assert nearest(page, pictures) == cycle
    assert KEY_EVERY < cycle < 2 * KEY_EVERY
    assert page.evaluate(asked) == before
    # One camera is alone anyway.
    assert "Alone" not in page.evaluate(f"{SCREEN}.innerText")
