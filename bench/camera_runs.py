"""Runs of many cameras by the command `flowrun`, looked at from outside; and what is in their logs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
from camera_films import FPS

from flowrun.runtime import Log
from flowrun.runtime.log.message import LogMessage
from flowrun.runtime.pictures.stored import StoredPicture

__all__ = [
    "Cameras",
    "Losses",
    "Usage",
    "Watched",
    "losses",
    "measured",
    "rtsp_server",
    "running",
]

HERE = Path(__file__).resolve().parent
FLOWRUN = Path(sys.executable).with_name("flowrun")
ENV = os.environ | {"PYTHONPATH": str(HERE)}
"""Of commands that find the tasks of capture_sinks.py."""
_TICKS = os.sysconf("SC_CLK_TCK")
_STOP_S = 60.0


@dataclass(frozen=True)
class Cameras:
    """A graph of cameras, logged as packets, and of a task for each that reads a picture at times.

    sources: the address of each camera.
    config: what else is said of all of them.
    answer_s: seconds from one picture that is read to the next.
    """

    sources: Sequence[str]
    config: Mapping[str, Any] = field(default_factory=dict)
    answer_s: float = 10.0

    def graph(self) -> str:
        tasks: list[dict[str, Any]] = []
        links = []
        for number, source in enumerate(self.sources):
            config = {"source_uri": source, **self.config}
            camera = {"id": f"cam{number}", "type": "VideoCapture", "config": config}
            tasks += [
                camera | {"logging": {"codec": "packets"}},
                {"id": f"see{number}", "type": "capture_sinks.Sees", "rate_hz": 1 / self.answer_s},
            ]
            links.append({"src": f"cam{number}", "dst": f"see{number}", "msg": "ImageRgb8Msg"})
        logging = {"slab_size_mib": 1024, "section_size_mib": 64}
        # A YAML reader reads JSON.
        return json.dumps({"tasks": tasks, "cnx": links, "logging": logging}, indent=1)


@dataclass(frozen=True)
class Usage:
    """What a process had used by a moment."""

    at_s: float
    cpu_s: float
    memory_mib: float


class Watched:
    """A process of `flowrun`, and its log's folder."""

    def __init__(self, process: subprocess.Popen[str], runs: Path) -> None:
        self.process = process
        self.runs = runs

    @property
    def log(self) -> Path:
        [run] = [path for path in self.runs.iterdir() if not path.name.startswith(".")]
        return run

    def usage(self) -> Usage:
        """Memory without what is mapped from the log, which is the system's to take back."""
        if self.process.poll() is not None:
            raise SystemExit(f"flowrun has ended with {self.process.returncode}")
        folder = Path(f"/proc/{self.process.pid}")
        numbers = (folder / "stat").read_text().rpartition(")")[2].split()
        [memory] = [
            line.split()[1]
            for line in (folder / "status").read_text().splitlines()
            if line.startswith("RssAnon")
        ]
        worked = (int(numbers[11]) + int(numbers[12])) / _TICKS
        return Usage(time.monotonic(), worked, int(memory) / 1024)

    def log_mib(self) -> float:
        return sum(path.stat().st_blocks for path in self.log.glob("*.mcap")) * 512 / (1 << 20)


@contextmanager
def running(cameras: Cameras, folder: Path) -> Iterator[Watched]:
    """The cameras run until the block ends, and the log is finished then."""
    (folder / "cameras.yaml").write_text(cameras.graph())
    runs = folder / "runs"
    words = ["cameras.yaml", "--plain", "--port", "-1", "--log-dir", runs]
    with (folder / "console").open("w") as console:
        process = subprocess.Popen(
            [FLOWRUN, *words],
            cwd=folder,
            env=ENV,
            stdout=console,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            _wait_for_pictures(process, runs, len(cameras.sources), folder / "console")
            yield Watched(process, runs)
        finally:
            process.terminate()
            status = process.wait(_STOP_S)
            if status:
                print(f"flowrun ended with {status}:\n{tail(folder / 'console')}")
    if status:
        raise SystemExit(1)


def _wait_for_pictures(
    process: subprocess.Popen[str], runs: Path, cameras: int, console: Path
) -> None:
    """Wait until each camera has been opened."""
    until = time.monotonic() + 30 + cameras
    while console.read_text().count("source opened") < cameras:
        if process.poll() is not None or time.monotonic() > until:
            raise SystemExit(f"the cameras do not run:\n{tail(console)}")
        time.sleep(0.1)


def tail(console: Path) -> str:
    return "\n".join(console.read_text().splitlines()[-15:])


@contextmanager
def rtsp_server(film: Path, port: int = 0) -> Iterator[int]:
    """The port of a server that plays the film at /cam0, /cam1, ..., on 127.0.0.1."""
    python = shutil.which("python3", path="/usr/bin")
    if python is None:
        raise SystemExit("no /usr/bin/python3, which has GStreamer's RTSP server")
    with subprocess.Popen(
        [python, HERE / "rtsp_film.py", film, str(port)], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            answer = server.stdout.readline().strip()
            if not answer:
                raise SystemExit("the RTSP server needs GStreamer: `make apt` installs it")
            yield int(answer)
        finally:
            server.kill()


def measured(cameras: Cameras, folder: Path, *, settle_s: float, seconds: float) -> Usage:
    """What the cameras use in `seconds`, after `settle_s` that do not count."""
    with running(cameras, folder) as watched:
        time.sleep(settle_s)
        first = watched.usage()
        time.sleep(seconds)
        last = watched.usage()
    return Usage(last.at_s - first.at_s, last.cpu_s - first.cpu_s, last.memory_mib)


# -- what is in the log --------------------------------------------------------------------------


@dataclass
class Losses:
    """What the log has of one camera.

    packets: number of them.
    pixels: number of pictures of which it has the pixels, as packets do not give them back.
    seconds: for how long it was there, from its first message to its last.
    gaps: places in the film at which packets are missing, or come again.
    """

    packets: int = 0
    pixels: int = 0
    seconds: float = 0.0
    gaps: list[str] = field(default_factory=list)

    @property
    def late_s(self) -> float:
        """By how much the packets are fewer than a camera sends in that time."""
        return self.seconds - self.packets / FPS


def losses(log: Path, cameras: Cameras, film: Path) -> list[Losses]:
    """Compare the pictures' bytes in the log, of each camera, with its film's, in their order.

    film: that of cameras whose address is no file.

    A film that is looped goes from its last picture to a key frame; the same one every time.
    """
    known: dict[Path, tuple[dict[int, int], set[int]]] = {}
    found = []
    for source in cameras.sources:
        played = Path(source) if Path(source).exists() else film
        if played not in known:
            known[played] = _pictures_of(played)
        found.append(_Follower(*known[played]))
    by_topic = {f"/cam{number}/image": follower for number, follower in enumerate(found)}
    with Log(log) as opened:
        for message in opened.messages(by_topic.keys()):
            by_topic[message.topic].take(message)
    return [follower.losses for follower in found]


class _Follower:
    """Compares the packets of one camera with the pictures of its film."""

    def __init__(self, place: Mapping[int, int], keys: Collection[int]) -> None:
        self._place, self._keys = place, keys
        self._at: int | None = None
        self._again: int | None = None
        """Where the film goes on after its last picture."""
        self._began_ns: int | None = None
        self.losses = Losses()

    def take(self, message: LogMessage) -> None:
        losses = self.losses
        if self._began_ns is None:
            self._began_ns = message.time_ns
        losses.seconds = 1e-9 * (message.time_ns - self._began_ns)
        stored = StoredPicture.parse(message.payload)
        if stored.own["codec"] != "packets":
            losses.pixels += 1
            return
        before = [data for data, *_ in stored.before]
        for data in (*before, *(packet.data for packet in stored.packets)):
            now = self._place.get(_picture(bytes(data)), -1)
            if not self._follows(now):
                losses.gaps.append(f"picture {now} after {self._at} in cycle {message.cycle}")
            self._at = now
            losses.packets += 1

    def _follows(self, now: int) -> bool:
        if self._at is None:
            return True
        if self._at != len(self._place) - 1:
            return now == self._at + 1
        if self._again is None:
            self._again = now
        return now == self._again and now in self._keys


def _pictures_of(film: Path) -> tuple[dict[int, int], set[int]]:
    """The place of each picture of the film, by its bytes, and those of the key frames."""
    places: dict[int, int] = {}
    keys = set()
    with av.open(str(film)) as container:
        bare = av.BitStreamFilterContext("h264_mp4toannexb", container.streams.video[0])
        for packet in container.demux(video=0):
            for whole in bare.filter(packet if packet.dts is not None else None):
                if whole.is_keyframe:
                    keys.add(len(places))
                places[_picture(bytes(whole))] = len(places)
    return places, keys


def _picture(data: bytes) -> int:
    """The hash of the slices of an H.264 packet: what a picture is, whatever is sent before it."""
    slices = [
        unit.rstrip(b"\0") for unit in data.split(b"\0\0\1") if unit and unit[0] & 31 in (1, 5)
    ]
    return hash(b"".join(slices))
