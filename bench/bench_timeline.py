"""How soon the timeline of a long run opens, and how many positions a second it can be dragged over.

    python bench/bench_timeline.py [--hours 1] [--size 1080p] [--unread] [--dir DIR]

The run is written without running it: the packets of a film of 8 s again and again, with an answer every
half second, boxes in every cycle, drops, errors and changed prompts, as a camera of 30 pictures a second
and a model make them. `flowrun view` then serves it, and a client asks as the page does: for the lanes,
then for moments and their pictures, one after the other. --unread: no task had read the pictures, so
that the log has no checksums of them. The log is kept in DIR for the next time. Exits with 1 if it takes
more than 1 s to open, or the whole run is dragged over at fewer than 10 positions a second.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import httpx
import msgpack
import numpy as np
from camera_films import FPS, KEY_EVERY, film_of

from flowrun.msgs import DetectionsMsg, ImageRgb8Msg, PromptResponseMsg
from flowrun.msgs.image import VideoPackets
from flowrun.runtime.events import Completion, Dropped, Event, Failed, Set
from flowrun.runtime.log.channels import LoggedOutput
from flowrun.runtime.log.slab.format import Attachment
from flowrun.runtime.log.writer import LogWriter
from flowrun.runtime.pictures.asked import AskedPicture, Found
from flowrun.runtime.pictures.planar import Layout, PlanarPicture, copied, layout_of
from flowrun.runtime.pictures.video import described

FLOWRUN = Path(sys.executable).with_name("flowrun")
FRAMES = 8 * FPS
ANSWER_EVERY = FPS // 2
START_NS = 1_700_000_000_000_000_000
OPEN_S, POSITIONS_HZ = 1.0, 10.0
BINS = 450
"""Of a timeline of 1350 pixels."""
WIDTH = 960
"""Of the pictures, as a window of 1440 pixels shows them."""
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


def write(directory: Path, film: Path, cycles: int, *, is_read: bool) -> None:
    """Write a run of that many cycles."""
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
        is_key = cycle % KEY_EVERY == 0
        image.frame_id, image.fps, image.source = cycle, float(FPS), "street.mp4"
        image.show(_Known(layout, crcs[at]) if is_read else AskedPicture(layout, _nothing))
        image.video = VideoPackets(
            decoder,
            (packets[at],),
            first=cycle,
            number=cycle,
            section=cycle // KEY_EVERY,
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--size", default="1080p", choices=["1080p", "480p"])
    parser.add_argument("--unread", action="store_true")
    parser.add_argument(
        "--dir", type=Path, default=Path(tempfile.gettempdir()) / "flowrun-timeline"
    )
    args = parser.parse_args()
    cycles = round(args.hours * 3600 * FPS)
    run = args.dir / f"street-{args.size}-{cycles}{'-unread' if args.unread else ''}"
    if not run.exists():
        took = timed(
            lambda: write(run, film_of(args.size, FRAMES), cycles, is_read=not args.unread)
        )
        print(f"written in {took:.0f} s")
    size = sum(path.stat().st_size for path in run.iterdir()) / 2**20
    print(f"{cycles:,} cycles, {size:,.0f} MiB")
    base = f"/api/v0/runs/{run.name}"
    places = random.Random(0)
    drags = {
        "in a part, cycle by cycle": list(range(cycles // 2, cycles))[:60],
        "in a part, seven cycles forth": list(range(cycles // 2, cycles, 7))[:60],
        "in a part, seven cycles back": list(range(cycles // 2, 0, -7))[:60],
        "to and fro between two key frames": [
            cycles // 3 // KEY_EVERY * KEY_EVERY + places.randrange(KEY_EVERY) for _ in range(60)
        ],
        "exactly anywhere": [places.randrange(cycles) for _ in range(60)],
    }
    is_good = True
    opened = []
    for _ in range(3):
        with viewing(run) as client:

            def ask(path: str, **query: int) -> httpx.Response:
                reply = client.get(f"{base}{path}", params=query)
                reply.raise_for_status()
                return reply

            def position(cycle: int) -> None:
                ask("/moment", cycle=cycle)
                ask("/image/cam0", cycle=cycle, width=WIDTH)

            opened.append(
                (timed(lambda: ask("/lanes", bins=BINS)), timed(lambda: position(cycles - 1)))
            )
            if len(opened) < 3:
                continue
            # A part of the timeline is longer than from one key frame to the next: the page shows the
            # picture of a key frame in it.
            keys = ask("/lanes", bins=BINS, keys=1).json()["keys"]
            whole = {
                "dragged over all of it": keys[BINS // 4 :][:60],
                "jumped to anywhere": places.sample(keys, 60),
            }
            for name, at in {**whole, **drags}.items():
                took = [timed(lambda cycle=cycle: position(cycle)) for cycle in at]
                rate = len(took) / sum(took)
                is_good &= rate >= POSITIONS_HZ or name not in whole
                print(
                    f"{name}: {rate:.1f} positions/s "
                    f"(median {1e3 * statistics.median(took):.0f} ms, most {1e3 * max(took):.0f} ms)"
                )
            zoomed = timed(lambda: ask("/lanes", bins=BINS, **{"from": 3000, "to": 9000}))
            print(f"lanes of a part: {1e3 * zoomed:.0f} ms")
    lanes, first = (statistics.median(it) for it in zip(*opened, strict=True))
    print(f"opens in {lanes:.2f} s, and shows its last picture {first:.2f} s later")
    return 0 if is_good and lanes <= OPEN_S else 1


if __name__ == "__main__":
    sys.exit(main())
