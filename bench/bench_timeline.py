"""How soon the timeline of a long run opens, and how many positions a second it can be dragged over.

    python bench/bench_timeline.py [--hours 1] [--size 1080p] [--key-s 2] [--unread] [--dir DIR]

The run is written without running it: the packets of a film of 8 s again and again, with an answer every
half second, boxes in every cycle, drops, errors and changed prompts, as a camera of 30 pictures a second
and a model make them. `flowrun view` then serves it. A browser goes to moments on the page, each when
the exact picture of the one before is shown, decoded from the packets of the log; then the pointer drags
over the timeline, and the page shows what is there soonest. A client asks for the same moments and the
server's JPEGs of their pictures, as a browser without a decoder does.

--key-s: seconds from one key frame to the next. --unread: no task had read the pictures, so that the log
has no checksums of them. --browser-only: leave the client out. The log is kept in DIR for the next time.
Exits with 1 if it takes more than 1 s to open, or the whole run is dragged over at fewer than 10
positions a second.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import av
import httpx
import msgpack
import numpy as np
from camera_films import FPS, film_of

from flowrun.msgs import DetectionsMsg, ImageRgb8Msg, PromptResponseMsg
from flowrun.msgs.image import VideoPackets
from flowrun.runtime.events import Completion, Dropped, Event, Failed, Set
from flowrun.runtime.log.channels import LoggedOutput
from flowrun.runtime.log.slab.format import Attachment
from flowrun.runtime.log.writer import LogWriter
from flowrun.runtime.pictures.asked import AskedPicture, Found
from flowrun.runtime.pictures.planar import Layout, PlanarPicture, copied, layout_of
from flowrun.runtime.pictures.video import described

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.browser import Browser  # the browser of the page's own tests

FLOWRUN = Path(sys.executable).with_name("flowrun")
LEAST_FRAMES = 8 * FPS
ANSWER_EVERY = FPS // 2
START_NS = 1_700_000_000_000_000_000
OPEN_S, POSITIONS_HZ = 1.0, 10.0
BINS = 450
"""Of a timeline of 1350 pixels."""
WIDTH = 960
"""Of the server's pictures, as a window of 1440 pixels shows them."""
SCREEN = "document.querySelector('.screen')"
GO = """(async cycles => {
  const {run} = await import(new URL('page/known.js', document.baseURI));
  const took = [], first = [];
  for (const cycle of cycles) {
    const begin = performance.now();
    let seen = null;
    run.look(cycle);
    for (;;) {
      await new Promise(requestAnimationFrame);
      const screen = document.querySelector('.screen'), {moment, past} = screen.dataset;
      if (Number(moment) !== cycle) continue;
      const near = screen.querySelector('figcaption').textContent.includes('key frame');
      seen ??= past === 'exact' || near ? performance.now() - begin : null;
      if (past === 'exact') break;
    }
    first.push(seen);
    took.push(performance.now() - begin);
  }
  return [took, first];
})"""
"""Goes to moments: the milliseconds until each exact picture, and until there is one for it at all."""
SEEN = """(() => {
  window.seen = [];
  const begin = performance.now(), screen = document.querySelector('.screen');
  const look = () => {
    const at = performance.now() - begin, {cycle} = screen.dataset;
    if (window.seen.at(-1)?.[1] !== cycle) window.seen.push([at, cycle]);
    requestAnimationFrame(look);
  };
  look();
})()"""
"""Notes which pictures the page shows from now on: milliseconds, and cycle."""
CLICKED = """window.clicked = new Promise(done => {
  const timeline = document.querySelector('.timeline'), before = timeline.dataset.cycle;
  addEventListener('pointerup', () => {
    const begin = performance.now();
    const look = () => {
      const {moment, past} = document.querySelector('.screen').dataset, {cycle} = timeline.dataset;
      if (cycle !== before && moment === cycle && past === 'exact') done(performance.now() - begin);
      else requestAnimationFrame(look);
    };
    look();
  }, {once: true, capture: true});
}); 0"""
"""Waits for a click on the timeline; `window.clicked` gives the milliseconds until the exact picture."""
DRAG_S, REST_S = 3.0, 20.0
HOVER_S, CLICKS = 1.0, 20
"""How long the pointer rests before a click, and how often."""
PART_S = 20
"""Of the part that is dragged in, once the timeline is zoomed."""
GRAPH = {
    "tasks": [
        {"id": "cam0", "type": "VideoCapture", "config": {"source_uri": "street.mp4"}},
        {"id": "vlm", "type": "Inference", "config": {"prompt": "What do you see?"}},
        {"id": "detect", "type": "Detect", "config": {}},
    ],
    "cnx": [{"src": "cam0", "dst": "vlm"}, {"src": "cam0", "dst": "detect"}],
}


class _Known(PlanarPicture):
    """A picture of which only the checksum is looked at."""

    def __init__(self, layout: Layout, crc: int) -> None:
        super().__init__(layout, lambda: np.zeros(0, np.uint8))
        self.known = crc

    @property
    def crc(self) -> int:
        return self.known


def _nothing() -> Found:
    raise AssertionError("nobody reads it")


def write(directory: Path, film: Path, cycles: int, *, key_every: int, is_read: bool) -> None:
    """Write a run of that many cycles. key_every: from one key frame of the film to the next."""
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        decoder = described(stream.codec_context, b"")
        to_annexb = av.bitstream.BitStreamFilterContext("h264_mp4toannexb", stream)
        packets = [
            (bytes(made), made.is_keyframe)
            for packet in container.demux(stream)
            if packet.dts is not None
            for made in to_annexb.filter(packet)
        ]
    with av.open(str(film)) as container:
        pictures = list(container.decode(video=0)) if is_read else [next(container.decode(video=0))]
        layout = layout_of(pictures[0])
        crcs = [PlanarPicture(layout, copied(it, layout)).crc for it in pictures]
        del pictures
    outputs = [
        LoggedOutput("cam0", "image", "/cam0/image", ImageRgb8Msg, codec="packets"),
        LoggedOutput("vlm", "answer", "/vlm/answer", PromptResponseMsg),
        LoggedOutput("detect", "objects", "/detect/objects", DetectionsMsg),
    ]
    writer = LogWriter(
        directory,
        outputs=outputs,
        steps=3,
        metadata={
            "run_id": directory.name,
            "graph": "street",
            "steps": "cam0 vlm detect",
            "keyframe_interval": "100",
            "started_ns": str(START_NS),
        },
        attachments=[
            Attachment(
                "graph.json", "application/json", json.dumps(GRAPH).encode(), START_NS, START_NS
            )
        ],
        sync_s=None,
    )
    image, answer, objects = ImageRgb8Msg(), PromptResponseMsg(), DetectionsMsg()
    bound = writer.bind([image, answer, objects])
    keyframe = msgpack.packb({"tasks": {"vlm": {"live": {}}, "detect": {"live": {}}}})
    prompt = "What do you see?"
    for cycle in range(cycles):
        now = START_NS + cycle * 1_000_000_000 // FPS
        for message in (image, answer, objects):
            message.clear()
        at = cycle % len(packets)
        is_key = cycle % key_every == 0
        image.frame_id, image.fps, image.source = cycle, float(FPS), "street.mp4"
        image.show(_Known(layout, crcs[at]) if is_read else AskedPicture(layout, _nothing))
        image.video = VideoPackets(
            decoder,
            (packets[at],),
            first=cycle,
            number=cycle,
            section=cycle // key_every,
            begins=is_key,
            drained=False,
        )
        image.publish(tov_ns=now)
        events: list[Event] = []
        if cycle % ANSWER_EVERY == 0 and cycle:
            answer.prompt, answer.response = prompt, f"{cycle % 7} cars on the street"
            answer.frame_cycle, answer.frame_id = cycle - 10, cycle - 10
            answer.latency_ms = 330.0
            answer.publish(tov_ns=now)
            events.append(Completion("vlm", cycle - 10, restarted=False))
        if cycle % 37 == 0:
            events.append(Dropped("cam0", 2, "too old"))
        if cycle % (40 * FPS) == 11:
            events.append(Failed("vlm", "skip", "ModelError: the server is busy"))
        if cycle % (300 * FPS) == 600:
            prompt = f"What do you see? ({cycle})"
            events.append(Set("vlm", {"prompt": prompt}))
        objects.boxes = np.array([[9, 9, 99, 99]], np.float32)
        objects.scores, objects.labels = np.array([0.9], np.float32), ["car"]
        objects.class_ids = np.array([2], np.int32)
        objects.width, objects.height, objects.frame_cycle = 1920, 1080, cycle
        objects.publish(tov_ns=now)
        writer.commit(
            cycle,
            now,
            bound,
            start_ns=cycle,
            ends_ns=[cycle + 1, cycle + 2, cycle + 3],
            events=events,
            keyframe=None if cycle % 100 else keyframe,
        )
    writer.finish({"reason": "end of sources", "cycles": str(cycles), "ended_ns": str(now)})


@contextmanager
def viewing(run: Path) -> Iterator[httpx.Client]:
    with subprocess.Popen(
        [FLOWRUN, "view", run, "--port", "0"], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().rpartition(" ")[2].strip()
            with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
                client.get("/page/app.js")  # what a browser asks for first
                yield client
        finally:
            server.terminate()


def timed(question: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    question()
    return time.perf_counter() - begin


def said(took_s: list[float]) -> str:
    return (
        f"{len(took_s) / sum(took_s):.1f} positions/s (median {1e3 * statistics.median(took_s):.0f} ms, "
        f"most {1e3 * max(took_s):.0f} ms)"
    )


@contextmanager
def browsing(url: str) -> Iterator[Browser]:
    """A browser that shows the page."""
    profile = Path(tempfile.mkdtemp(prefix="flowrun-browser-"))
    browser = Browser(profile)
    try:
        browser.size(1440, 900)
        browser.open(url)
        browser.wait_for(f"{SCREEN}?.dataset.past == 'exact'", timeout_s=120)
        yield browser
    finally:
        browser.close()
        shutil.rmtree(profile, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--size", default="1080p", choices=["1080p", "480p"])
    parser.add_argument("--key-s", type=int, default=2)
    parser.add_argument("--unread", action="store_true")
    parser.add_argument("--browser-only", action="store_true")
    parser.add_argument(
        "--dir", type=Path, default=Path(tempfile.gettempdir()) / "flowrun-timeline"
    )
    args = parser.parse_args()
    cycles, key_every = round(args.hours * 3600 * FPS), args.key_s * FPS
    name = f"street-{args.size}-{cycles}-key{args.key_s}{'-unread' if args.unread else ''}"
    run = args.dir / name
    if not run.exists():
        film = film_of(args.size, -(-LEAST_FRAMES // key_every) * key_every, key_every=key_every)
        took = timed(lambda: write(run, film, cycles, key_every=key_every, is_read=not args.unread))
        print(f"written in {took:.0f} s")
    size = sum(path.stat().st_size for path in run.iterdir()) / 2**20
    print(f"{cycles:,} cycles, {size:,.0f} MiB, a key frame every {args.key_s} s")
    opened = []
    for is_last in (False, False, True):
        with viewing(run) as client:
            ask = asking(client, run.name)
            opened.append(
                (
                    timed(partial(ask, "/lanes", bins=BINS)),
                    timed(partial(position, ask, cycles - 1)),
                )
            )
            if is_last:
                is_good = dragged(client, ask, cycles, key_every, with_client=not args.browser_only)
    lanes, first_s = (statistics.median(it) for it in zip(*opened, strict=True))
    print(f"opens in {lanes:.2f} s, and the server's last picture is there {first_s:.2f} s later")
    return 0 if is_good and lanes <= OPEN_S else 1


def dragged(
    client: httpx.Client, ask: Asking, cycles: int, key_every: int, *, with_client: bool
) -> bool:
    """Print how many positions a second there are; whether they are enough over the whole run."""
    is_good = True
    # A part of the timeline is mostly longer than from one key frame to the next: while somebody drags
    # the page goes to a key frame in it.
    drags = drags_of(cycles, key_every, ask("/lanes", bins=BINS, keys=1).json()["keys"])
    with browsing(str(client.base_url)) as browser:
        print("in a browser, decoded there:")
        for name, at in drags.items():
            exact, seen = (
                [ms / 1e3 for ms in it] for it in browser.evaluate(f"{GO}({json.dumps(at)})")
            )
            is_good &= name not in WHOLE or len(exact) / sum(exact) >= POSITIONS_HZ
            print(f"  {name}: {said(exact)}")
            if (early := statistics.median(seen)) < 0.8 * statistics.median(exact):
                print(f"    the key frame is there after {1e3 * early:.0f} ms")
        print(f"with the pointer, {DRAG_S:g} s each:")
        for name, is_zoomed, ends in (
            ("over all of it", False, (0.1, 0.9)),
            (f"in a part of {PART_S} s", True, (0.1, 0.9)),
            (f"in a part of {PART_S} s, back", True, (0.9, 0.1)),
        ):
            zoom(browser, PART_S * FPS if is_zoomed else cycles)
            shown_hz, rested_s = pointed(browser, *ends)
            is_good &= shown_hz >= POSITIONS_HZ or is_zoomed
            print(
                f"  {name}: {shown_hz:.1f} pictures/s, the exact one after {1e3 * rested_s:.0f} ms"
            )
        zoom(browser, cycles)
        print(
            f"clicked anywhere, where the pointer has been for {HOVER_S:g} s: {said(clicks(browser))}"
        )
    if with_client:
        print("JPEGs of the server:")
        for name, at in drags.items():
            print(f"  {name}: {said([timed(partial(position, ask, cycle)) for cycle in at])}")
    zoomed = timed(partial(ask, "/lanes", bins=BINS, **{"from": cycles // 4, "to": cycles // 2}))
    print(f"lanes of a part: {1e3 * zoomed:.0f} ms")
    return is_good


def zoom(browser: Browser, cycles: int) -> None:
    """Let the timeline show that many cycles, or fewer, around the middle of the run; or all."""
    timeline = "document.querySelector('.timeline')"
    canvas = f"{timeline}.querySelector('canvas')"
    key = f"{canvas}.dispatchEvent(new KeyboardEvent('keydown', {{key: %r, bubbles: true}}))"
    long = f"(({{from, to}}) => to - from)({canvas}.dataset)"
    browser.evaluate(key % "0")
    browser.wait_for(f"{timeline}.querySelector('[aria-label=\"Zoom out\"]').disabled")
    while (before := browser.evaluate(long)) > cycles:
        browser.evaluate(key % "+")
        browser.wait_for(f"{long} < {before}")


def pointed(browser: Browser, begin: float, end: float) -> tuple[float, float]:
    """Drag from one part of the timeline's width to another, as somebody does in `DRAG_S`: how many
    pictures a second are shown meanwhile, and the seconds from the end until the exact one is."""
    canvas = "document.querySelector('.timeline canvas')"
    left, width, top = browser.evaluate(
        f"(it => [it.left, it.width, it.top])({canvas}.getBoundingClientRect())"
    )
    browser.evaluate(SEEN)
    browser.mouse("mousePressed", left + begin * width, top + 20)
    started = time.perf_counter()
    while (passed := (time.perf_counter() - started) / DRAG_S) < 1:
        browser.mouse("mouseMoved", left + (begin + (end - begin) * passed) * width, top + 20)
        time.sleep(1 / 120)
    last_ms = browser.evaluate("window.seen.at(-1)[0]")
    browser.mouse("mouseReleased", left + end * width, top + 20)
    ended = time.perf_counter()
    wanted = "document.querySelector('.timeline').dataset.cycle"
    browser.wait_for(
        f"{SCREEN}.dataset.past == 'exact' && {SCREEN}.dataset.moment == {wanted}", timeout_s=REST_S
    )
    rested_s = time.perf_counter() - ended
    pictures = {it[1] for it in browser.evaluate("window.seen") if it[0] <= last_ms}
    return len(pictures) / DRAG_S, rested_s


def clicks(browser: Browser) -> list[float]:
    """The seconds from clicks on the timeline, where the pointer has rested, to their exact pictures."""
    places, took = random.Random(1), []
    left, width, top = browser.evaluate(
        "(it => [it.left, it.width, it.top])"
        "(document.querySelector('.timeline canvas').getBoundingClientRect())"
    )
    for _ in range(CLICKS):
        x = left + places.uniform(0.05, 0.95) * width
        browser.mouse("mouseMoved", x, top + 20)
        time.sleep(HOVER_S)
        browser.evaluate(CLICKED)
        browser.mouse("mousePressed", x, top + 20)
        browser.mouse("mouseReleased", x, top + 20)
        took.append(browser.evaluate("window.clicked") / 1e3)
    return took


Asking = Callable[..., httpx.Response]


def asking(client: httpx.Client, run: str) -> Asking:
    def ask(path: str, **query: int) -> httpx.Response:
        reply = client.get(f"/api/v0/runs/{run}{path}", params=query)
        reply.raise_for_status()
        return reply

    return ask


def position(ask: Asking, cycle: int) -> None:
    """What the page asks for at a moment where it cannot decode."""
    ask("/moment", cycle=cycle)
    ask("/image/cam0", cycle=cycle, width=WIDTH)


WHOLE = ("dragged over all of it", "jumped to anywhere, to a key frame")


def drags_of(cycles: int, key_every: int, keys: list[int]) -> dict[str, list[int]]:
    """What somebody does -> the cycles to which it leads."""
    places = random.Random(0)
    near = list(dict.fromkeys(keys))
    begin = cycles // 3 // key_every * key_every
    return {
        WHOLE[0]: near[len(near) // 4 :][:60],
        WHOLE[1]: places.sample(near, min(60, len(near))),
        "in a part, cycle by cycle": list(range(cycles // 2, cycles))[:60],
        "in a part, seven cycles forth": list(range(cycles // 2, cycles, 7))[:60],
        "in a part, cycle by cycle back": list(range(cycles // 2 + key_every - 1, 0, -1))[:60],
        "in a part, seven cycles back": list(range(cycles // 2, 0, -7))[:60],
        "to and fro between two key frames": [
            begin + places.randrange(key_every) for _ in range(60)
        ],
        "exactly anywhere": [places.randrange(cycles) for _ in range(60)],
    }


if __name__ == "__main__":
    sys.exit(main())
