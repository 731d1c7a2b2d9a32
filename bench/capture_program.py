"""Reads one source in a process of its own, and prints as JSON what that took.

    python bench/capture_program.py PROGRAM SOURCE [--log DIR] [--live SECONDS]

bench_capture.py starts it with the Python that has the program: cv2 and streamvision are in the venv of
`make bench-peers`, and nothing of flowrun is imported for them. `fps` and `cpu_ms` are those of the
frames after the first `WARM_UP`, which pay for opening; `peak_mib` is that of the whole process. Of a
live source the frames of `SECONDS` count, and the milliseconds from a decoded frame to the sink's entry
(and to its pixels in hand) are given for each.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WARM_UP = 30
SETTLE_S = 6.0
"""Seconds of a live source that do not count: what came while it was opened is read at once."""

GRAPH = """
tasks:
  - id: cam0
    type: VideoCapture
    config: {{source_uri: "{source}", decode: {decode}}}
    logging: {{codec: packets}}
  - {{id: sink, type: capture_sinks.{sink}}}
cnx: [{{src: cam0, dst: sink, msg: ImageRgb8Msg}}]
logging: {{slab_size_mib: 256, section_size_mib: 32}}
"""


class Meter:
    """What its program tells of each frame.

    stop_s: how long a live source is read; None reads a file to its end.
    """

    def __init__(self, stop_s: float | None) -> None:
        self.times: list[tuple[float, float]] = []
        self.entered_ms: list[float] = []
        self.pixels_ms: list[float] = []
        self.stop: Callable[[], object] = lambda: None
        """Ends a live source."""
        self._stop_s = stop_s
        self._began: float | None = None

    def frame(self) -> None:
        self.times.append((time.perf_counter(), time.process_time()))

    def live_frame(self, entered_s: float, pixels_s: float) -> None:
        """A frame of a live source: seconds since it was decoded."""
        self.frame()
        if self._began is None:
            self._began = self.times[-1][0]
        if self.times[-1][0] - self._began >= SETTLE_S:
            self.entered_ms.append(1e3 * entered_s)
            self.pixels_ms.append(1e3 * pixels_s)
        if self._stop_s is not None and self.times[-1][0] - self._began >= SETTLE_S + self._stop_s:
            self.stop()

    def report(self) -> dict[str, Any]:
        (began, worked), (ended, worked_to) = self.times[WARM_UP], self.times[-1]
        count = len(self.times) - WARM_UP - 1
        return {
            "frames": len(self.times),
            "fps": count / (ended - began),
            "cpu_ms": 1e3 * (worked_to - worked) / count,
            "peak_mib": peak_mib(),
            "entered_ms": self.entered_ms,
            "pixels_ms": self.pixels_ms,
        }


def peak_mib() -> float:
    """Of this program; `getrusage` would count the process that started it too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmHWM in /proc/self/status")


# -- flowrun -----------------------------------------------------------------------------------


def flowrun(
    source: str, meter: Meter, directory: Path | None, sink: str, decode: str = "all"
) -> None:
    """As the command does it."""
    import capture_sinks

    from flowrun.runtime.cli import main as run_command

    capture_sinks.meter = meter
    if sink == "Live":
        note_decoded(capture_sinks.decoded)
    meter.stop = lambda: os.kill(os.getpid(), signal.SIGINT)
    log = ["--no-log"] if directory is None else ["--log-dir", str(directory)]
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "graph.yaml"
        graph.write_text(GRAPH.format(source=source, sink=sink, decode=decode))
        status = run_command([str(graph), "--plain", "--port", "-1", *log])
    assert status == 0, status


def note_decoded(decoded: dict[int, float]) -> None:
    """From now on, keep when each picture came out of the decoder, by its time stamp."""
    from flowrun.tasks.video.decoding import SourceDecoder

    feed = SourceDecoder.feed

    def noting_feed(decoder: Any, packet: Any, emit: Callable[[Any], Any]) -> None:
        def noting(picture: Any) -> Any:
            decoded[picture.pts] = time.perf_counter()
            return emit(picture)

        feed(decoder, packet, noting)

    SourceDecoder.feed = noting_feed


# -- the peers ---------------------------------------------------------------------------------


def pyav(source: str, meter: Meter, convert: Callable[[Any], object]) -> None:
    import av

    with av.open(source) as container:
        container.streams.video[0].thread_type = "AUTO"
        for picture in container.decode(video=0):
            convert(picture)
            meter.frame()


def live_pyav(source: str, meter: Meter) -> None:
    """The least that a thread which decodes can do for another one: put the picture into a queue."""
    import av

    handed: queue.SimpleQueue[tuple[Any, float] | None] = queue.SimpleQueue()
    stopped = threading.Event()
    meter.stop = stopped.set

    def read() -> None:
        with av.open(source) as container:
            for picture in container.decode(video=0):
                if stopped.is_set():
                    break
                handed.put((picture, time.perf_counter()))
        handed.put(None)

    threading.Thread(target=read).start()
    while (item := handed.get()) is not None:
        picture, decoded = item
        entered = time.perf_counter()
        picture.to_ndarray(format="rgb24")
        meter.live_frame(entered - decoded, time.perf_counter() - decoded)


def cv2_grab(source: str, meter: Meter) -> None:
    import cv2

    video = cv2.VideoCapture(source)
    while video.grab():
        meter.frame()


def cv2_read(source: str, meter: Meter) -> None:
    import cv2

    video = cv2.VideoCapture(source)
    while video.read()[0]:
        meter.frame()


def inference_pipeline(source: str, meter: Meter) -> None:
    """Every frame of a file to a sink, by a model that does nothing."""
    from streamvision.stream.pipeline import InferencePipeline

    pipeline = InferencePipeline.init_with_custom_logic(
        video_reference=source,
        on_video_frame=lambda frames: [{} for _ in frames],
        on_prediction=lambda _predictions, _frame: meter.frame(),
    )
    pipeline.start(use_main_thread=False)
    pipeline.join()


def live_inference_pipeline(source: str, meter: Meter) -> None:
    from streamvision.camera.video_source import CV2VideoFrameProducer
    from streamvision.stream.pipeline import InferencePipeline

    decoded: dict[int, float] = {}

    class Noting(CV2VideoFrameProducer):
        """Notes when a picture is decoded; its own conversion to BGR is a part of that."""

        def retrieve(self):
            ok, image = super().retrieve()
            decoded[id(image)] = time.perf_counter()
            return ok, image

    def sink(_predictions: object, frame: Any) -> None:
        since = time.perf_counter() - decoded[id(frame.image)]
        meter.live_frame(since, since)

    pipeline = InferencePipeline.init_with_custom_logic(
        video_reference=lambda: Noting(source),
        on_video_frame=lambda frames: [{} for _ in frames],
        on_prediction=sink,
    )
    meter.stop = pipeline.terminate
    pipeline.start(use_main_thread=False)
    pipeline.join()


def play(program: str, source: str, meter: Meter, directory: Path | None) -> None:
    match program:
        case "flowrun-reads":
            flowrun(source, meter, directory, "Reads")
        case "flowrun-unread":
            flowrun(source, meter, directory, "Unread")
        case "flowrun-asked":
            flowrun(source, meter, directory, "Unread", decode="asked")
        case "flowrun-live":
            flowrun(source, meter, directory, "Live")
        case "pyav-decode":
            pyav(source, meter, lambda picture: picture)
        case "pyav-live":
            live_pyav(source, meter)
        case "pyav-rgb24":
            pyav(source, meter, lambda picture: picture.to_ndarray(format="rgb24"))
        case "cv2-grab":
            cv2_grab(source, meter)
        case "cv2-read":
            cv2_read(source, meter)
        case "streamvision":
            inference_pipeline(source, meter)
        case "streamvision-live":
            live_inference_pipeline(source, meter)
        case _:
            raise SystemExit(f"unknown program {program!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("source")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--live", type=float)
    args = parser.parse_args()
    meter = Meter(args.live)
    # What libraries print does not belong to the answer.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    play(args.program, args.source, meter, args.log)
    json.dump(meter.report(), answer)
    answer.close()
    sys.stdout.flush()


if __name__ == "__main__":
    main()
