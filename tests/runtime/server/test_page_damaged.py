"""What the page shows of a camera of whose packets some are damaged or missing."""

from itertools import count

import av
import numpy as np
import pytest
import structlog

from flowrun.msgs.image import ImageRgb8Msg, VideoPackets
from flowrun.runtime.live_video import LiveVideo
from flowrun.runtime.log.reader import Log
from flowrun.runtime.pictures.stored import StoredPicture
from support import damaged
from support.answer_tasks import ran
from support.browser import nothing_went_wrong
from support.films import draw
from support.packets import plain_decoder
from support.stages import SHOWN

pytestmark = [pytest.mark.slow, pytest.mark.real]

GRAPH = """
tasks:
  - {{id: cam, type: VideoCapture, config: {{source_uri: {film}, realtime: true, loop: true}}}}
  - {{id: digest, type: support.packets.Digest}}
  - {{id: screen, type: BroadcastImage}}
cnx:
  - {{src: cam, dst: digest, msg: ImageRgb8Msg}}
  - {{src: cam, dst: screen, msg: ImageRgb8Msg}}
"""
GAP = f"{SHOWN}?.dataset.gap == 'yes'"
DAMAGED = (
    "packets of this picture, or before it, are missing or damaged"
    ": it shows what the run made of the others"
)
SAYS = "document.querySelector('.screen figcaption').textContent"
FORMS = "window.forms.join(' ')"

NOTING = """
window.forms = [];
const note = () => {
  const it = document.querySelector('.screen[data-shown]');
  const form = it && (it.dataset.gap ? 'gap' : it.dataset.form);
  if (form && form !== window.forms.at(-1)) window.forms.push(form);
};
document.addEventListener('DOMContentLoaded', () => new MutationObserver(note).observe(
  document.body, {subtree: true, childList: true, attributes: true}));
"""


def cut(chunks):
    """Lose most of a picture between two key frames."""
    at = chunks[50]
    chunks[50] = damaged.Chunk(at.data[: len(at.data) // 3], at.pts, at.dts, at.is_key)


def test_the_film_goes_on_at_the_key_frame_after_a_damaged_picture(new_stage, browser, tmp_path):
    clip = draw(tmp_path / "whole.ts", frames=120, **{"x264-params": "keyint=40:scenecut=0"})
    damaged.remux(clip, tmp_path / "film.ts", cut)
    graph = tmp_path / "graph.yaml"
    graph.write_text(GRAPH.format(film=tmp_path / "film.ts"), encoding="utf-8")
    stage = new_stage(graph, "--plain", "--port", "0", "--log-dir", tmp_path / "runs")
    browser.before_load(NOTING)
    browser.open(stage.url)
    browser.wait_for(f"{FORMS}.includes('packets gap packets gap packets')")
    assert set(browser.evaluate("window.forms")) <= {"packets", "gap"}
    nothing_went_wrong(browser)


def test_looking_back_damaged_pictures_are_marked_and_their_count_is_in_the_log(viewed, tmp_path):
    clip = draw(tmp_path / "whole.ts", frames=120, **{"x264-params": "keyint=40:scenecut=0"})
    damaged.remux(clip, tmp_path / "film.ts", cut)
    text = GRAPH.format(film=tmp_path / "film.ts").replace(", realtime: true, loop: true", "")
    run = ran(text, tmp_path)
    structlog.reset_defaults()
    with Log(run) as log:
        marked = [
            message.cycle
            for message in log.messages("/cam/image")
            if StoredPicture.parse(message.payload).is_damaged
        ]
        cycles = [message.cycle for message in log.messages("/cam/image")]
    assert 0 < marked[0] < marked[-1] < cycles[-1]
    page = viewed(run)
    caption = "document.querySelector('.screen figcaption')"
    for cycle in (marked[0], marked[0] - 1, marked[-1], marked[-1] + 1):
        page.evaluate(
            f"import('./page/known.js').then(({{run}}) => {{ run.look({cycle}); }}).then(() => null)"
        )
        page.wait_for(
            "(it => it.dataset.past == 'exact' && it.dataset.moment == it.dataset.cycle"
            f" && it.dataset.cycle == {cycle})(document.querySelector('.screen'))"
        )
        [title] = page.evaluate(
            f"[...{caption}.querySelectorAll('.form')].map(it => it.innerText + ': ' + it.title)"
        ) or [None]
        assert title == (f"damaged: {DAMAGED}" if cycle in marked else None)
    page.click("document.getElementById('tab-lines')")
    said = "document.querySelector('#panel').innerText"
    page.wait_for(f"{said}.includes('packets missing or damaged')")


@pytest.fixture
def camera(new_run, tmp_path):
    """Offers the pictures of a camera one by one: `camera(begins=True)` a key frame."""
    run = new_run()
    video = LiveVideo()
    run.observed.videos = {"cam0": video}
    run.shows["cam0"] = "video"
    path = draw(tmp_path / "film.ts", bf="0")
    with av.open(str(path)) as container:
        packets = [(bytes(it), it.is_keyframe) for it in container.demux(video=0) if it.size]
    keys, others = ([it for it in packets if it[1] is wanted] for wanted in (True, False))
    numbers = count(1)
    decoder = plain_decoder("h264", 128, 96)

    def offer(*, begins=False, data=None, is_damaged=False):
        run.cycle()
        number = next(numbers)
        packet = (keys if begins else others)[0] if data is None else (data, begins)
        image = ImageRgb8Msg(
            pixels=np.zeros((2, 2, 3), np.uint8), frame_id=0, pts=None, fps=30.0, source="cam"
        )
        image.video = VideoPackets(
            decoder, (packet,), number, number, 0, begins=begins, drained=False,
            is_damaged=is_damaged,
        )  # fmt: skip
        image.publish(tov_ns=1_000 + number)
        video.offer(run.cycles, image)
        return run.cycles

    offer.run = run
    return offer


def shows(browser, cycle):
    at = f"{SHOWN}?.dataset.cycle == '{cycle}' && {SHOWN}.dataset.form == 'packets'"
    browser.wait_for(f"{at} && !({GAP})")


def shows_jpegs(browser, camera, *, where=GAP, **offered):
    """Offer pictures that the film does not show, until one comes as a JPEG.

    where: what is true of the page as long as it shows JPEGs.
    """
    browser.wait_for(where)
    before = int(browser.evaluate(f"{SHOWN}.dataset.cycle"))
    for _ in range(1000):
        camera(**offered)
        browser.evaluate("new Promise(done => setTimeout(done, 50))")  # it may not listen yet
        if browser.evaluate(f"{SHOWN}.dataset.cycle > {before} && {where}"):
            return
    raise AssertionError("no JPEG came")


def open_camera(camera, new_server, browser):
    """The page, with the camera's first key frame on it."""
    server = new_server(camera.run)
    camera(begins=True)
    browser.open(server.url)
    shows(browser, 1)


def test_jpegs_stand_in_until_the_next_key_frame(camera, new_server, browser):
    open_camera(camera, new_server, browser)
    shows(browser, camera())
    camera(is_damaged=True)
    browser.wait_for(GAP)
    why = "as JPEGs until the next key frame: packets of its pictures were missing or damaged"
    browser.wait_for(f"{SAYS}.includes({why!r})")
    shows_jpegs(browser, camera)
    shows(browser, camera(begins=True))
    assert why not in browser.evaluate(SAYS)
    shows(browser, camera())
    nothing_went_wrong(browser)


NOISE = b"\x00\x00\x01\x65" + bytes(range(1, 200))


def test_a_picture_that_the_browser_fails_at_costs_no_more_than_those_up_to_a_key_frame(
    camera, new_server, browser
):
    open_camera(camera, new_server, browser)
    for _ in range(7):
        camera(data=NOISE)
        shows_jpegs(browser, camera)
        shows(browser, camera(begins=True))
        shows(browser, camera())
        shows(browser, camera(begins=True))
    nothing_went_wrong(browser)


def test_what_the_browser_fails_at_again_and_again_stays_with_jpegs(camera, new_server, browser):
    open_camera(camera, new_server, browser)
    for _ in range(4):
        camera(data=NOISE)
        browser.wait_for(GAP)
        shows(browser, camera(begins=True))
    camera(data=NOISE)
    for_good = f"{SHOWN}?.dataset.form == 'jpeg' && {SAYS}.includes('as JPEGs: ')"
    for _ in range(2):
        shows_jpegs(browser, camera, where=for_good, begins=True)
    nothing_went_wrong(browser)
