"""A run to watch without a graph, and a browser to watch it with."""

import base64
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from flowrun.runtime.broadcast import Answer, Broadcast, PartialAnswer, Picture
from flowrun.runtime.errors import UsageError
from flowrun.runtime.server.serve import Server

START_NS = 1_700_000_000_000_000_000
"""The frame times of the fake run are far from the clock's: whoever mixes them is found out."""

_TYPES = {
    "cam0": "VideoCapture",
    "vlm": "Inference",
    "screen": "BroadcastImage",
    "small": "BroadcastImage",
    "chat": "BroadcastChat",
    "saved": "WriteText",
}
_CNX = [("cam0", "vlm"), ("cam0", "screen"), ("cam0", "small"), ("vlm", "chat"), ("vlm", "saved")]


class FakeRun:
    """A `Watchable` whose thread offers drawn pictures and made-up answers.

    `cycle()` makes one cycle at once, for tests that need to know when; `start()` makes them go.
    """

    def __init__(self, *, name="inference", types=None, answer="A red ball rolls.", rate_hz=25.0):
        self.name = name
        self.task_types = dict(types or _TYPES)
        sinks = [task for task in self.task_types if task != "cam0"]
        self.broadcasts = {task: Broadcast() for task in sinks}
        self.answer = answer
        self.prompt = "What do you see?"
        self.latency_ms = 120.0
        self.rate_hz = rate_hz
        self.cycles = 0
        self.encoded = 0
        self.set = []
        self.stop_is_stuck = False
        self._state = "Running"
        self._ending = threading.Event()
        self._thread = None

    def state(self):
        return self._state

    def graph(self):
        config = {"vlm": {"prompt": self.prompt}, "cam0": {"source_uri": "rtsp://***@cam/1"}}
        tasks = [
            {"id": task, "type": type_, "config": config.get(task, {})}
            for task, type_ in self.task_types.items()
        ]
        cnx = [
            {"src": src, "dst": dst, "msg": "ImageRgb8Msg"}
            for src, dst in _CNX
            if {src, dst} <= self.task_types.keys()
        ]
        return {"tasks": tasks, "cnx": cnx, "limit": float("inf")}

    def live_keys(self):
        return {"vlm": ("prompt", "max_new_tokens"), "screen": ()} if "vlm" in _TYPES else {}

    def set_live(self, task_id, values):
        if not isinstance(values.get("prompt", ""), str):
            raise UsageError(f"{task_id}.prompt: must be a text; got {values['prompt']!r}")
        self.set.append((task_id, values))
        self.prompt = values.get("prompt", self.prompt)

    def report(self):
        times = {"vlm": (81_400.0, 203_000.0), "cam0": (412.0, 1_930.0)}
        return {
            "cycles": self.cycles,
            "cycle_rate_hz": self.rate_hz if self.cycles else None,
            "uptime_s": self.cycles / self.rate_hz,
            "log": {"path": "runs/inference-20261120T101500Z", "bytes": 48_300_000 + self.cycles},
            "tasks": {
                task: {
                    "type": type_,
                    "p50_us": times.get(task, (35.0, 96.0))[0] if self.cycles else None,
                    "p99_us": times.get(task, (35.0, 96.0))[1] if self.cycles else None,
                    "runs": self.cycles,
                    "dropped": 3 if task == "vlm" else 0,
                }
                for task, type_ in self.task_types.items()
            },
            "last_answer": None,
        }

    def stop(self, reason):
        if not self.stop_is_stuck:
            self.end("Stopped")

    def end(self, state="Stopped"):
        self._ending.set()
        self._state = state
        for broadcast in self.broadcasts.values():
            broadcast.close()

    def picture(self):
        cycle = self.cycles
        tov_ns = START_NS + int(cycle / self.rate_hz * 1e9)

        def encode():
            self.encoded += 1
            image = Image.new("RGB", (640, 360), (32, 46, 62))
            pen = ImageDraw.Draw(image)
            pen.rectangle((0, 250, 640, 360), fill=(66, 92, 74))
            x = 60 + cycle * 7 % 520
            pen.ellipse((x - 45, 190, x + 45, 280), fill=(214, 62, 52))
            pen.text((14, 12), f"cycle {cycle}", fill=(235, 235, 235), font_size=22)
            file = io.BytesIO()
            image.save(file, "JPEG", quality=85)
            return file.getvalue()

        return Picture(tov_ns, cycle, encode)

    def part(self, text):
        """The model has got so far with the next answer."""
        tov_ns = self.picture().tov_ns
        self.broadcasts["vlm"].offer(PartialAnswer(tov_ns, self.cycles + 1, self.prompt, text))

    def cycle(self, *, answers=True):
        self.cycles += 1
        picture = self.picture()
        for task, broadcast in self.broadcasts.items():
            if self.task_types[task] == "BroadcastImage":
                broadcast.offer(picture)
            elif self.task_types[task] == "BroadcastChat" and answers:
                broadcast.offer(
                    Answer(
                        picture.tov_ns, self.cycles, self.prompt, self.answer,
                        "embedded", 7, self.latency_ms,
                    )
                )  # fmt: skip

    def start(self):
        def work():
            while not self._ending.wait(1 / self.rate_hz):
                self.latency_ms = (95.0, 640.0, 2310.0)[self.cycles // 20 % 3]
                self.cycle(answers=self.cycles % 20 == 0)

        self._thread = threading.Thread(target=work, name="fake-run")
        self._thread.start()
        return self

    def join(self):
        self.end()
        if self._thread is not None:
            self._thread.join()


@pytest.fixture
def new_run():
    """Makes fake runs, and ends them."""
    runs = []

    def make(**options):
        runs.append(FakeRun(**options))
        return runs[-1]

    yield make
    for run in runs:
        run.join()


@pytest.fixture
def new_server():
    """Starts servers on free ports, and ends them."""
    servers = []

    def make(run, **options):
        servers.append(Server.start(run, port=0, **options))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def quiet():
    """A run and its server that many tests share, as they change nothing."""
    run = FakeRun()
    server = Server.start(run, port=0)
    yield run, server
    server.stop()
    run.join()


# The browser expects its pipe at the descriptors 3 and 4.
_AT_3_AND_4 = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
os.dup2(ends[0], 3)
os.dup2(ends[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class NavigatedError(Exception):
    """The page went to another while it was asked."""


class Browser:
    """A headless chromium, driven over its own pipe (DevTools protocol), with one page."""

    def __init__(self, profile: Path):
        program = shutil.which("chromium")
        if program is None:
            pytest.fail(
                "these tests need the browser chromium: apt-get install chromium", pytrace=False
            )
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()

        self._process = subprocess.Popen(
            [
                sys.executable, "-c", _AT_3_AND_4, str(to_browser), str(from_browser),
                program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                "--disable-background-networking", "--disable-component-update",
                "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-pipe",
                f"--user-data-dir={profile}", "about:blank",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            pass_fds=(to_browser, from_browser),
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        self._buffer = b""
        self._number = 0
        self.events = deque(maxlen=2000)
        targets = self._call("Target.getTargets", session=None)["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        self._session = None
        attached = self._call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")

    def open(self, url):
        self._call("Page.navigate", url=url)

    def evaluate(self, expression):
        """The value of a JavaScript expression in the page."""
        reply = self._call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    def wait_for(self, expression, timeout_s=30.0):
        """The value of the expression, as soon as it is true."""
        deadline = time.monotonic() + timeout_s
        while True:
            # Waits in the page, by its own frames, not here.
            with contextlib.suppress(NavigatedError):
                value = self.evaluate(
                    f"new Promise(done => {{ const end = Date.now() + 500; const look = () => {{"
                    f"let v; try {{ v = ({expression}) }} catch {{}};"
                    "v || Date.now() > end ? done(v) : setTimeout(look, 20) }; look() })"
                )
                if value:
                    return value
            assert time.monotonic() < deadline, (
                f"not true in the page within {timeout_s} s: {expression}\n"
                f"the page says:\n{self.evaluate('document.body.innerText')}"
            )

    def size(self, width, height, *, dark=False):
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self):
        """The window as a PNG file."""
        return base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])

    def of(self, method):
        """The parameters of all events of this name that have come so far."""
        self.evaluate("0")
        return [event["params"] for event in self.events if event["method"] == method]

    def close(self):
        self._number += 1
        self._send({"id": self._number, "method": "Browser.close"})
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def _send(self, message):
        os.write(self._out, json.dumps(message).encode() + b"\0")

    def _call(self, method, session=..., **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session is ... and getattr(self, "_session", None):
            message["sessionId"] = self._session
        self._send(message)
        while True:
            while b"\0" not in self._buffer:
                chunk = os.read(self._in, 1 << 20)
                assert chunk, f"chromium has ended (exit status {self._process.poll()})"
                self._buffer += chunk
            raw, _, self._buffer = self._buffer.partition(b"\0")
            reply = json.loads(raw)
            if reply.get("id") == self._number:
                error = reply.get("error", {}).get("message", "")
                if "navigated" in error or "context" in error:
                    raise NavigatedError(error)
                assert not error, f"{method}: {error}"
                return reply["result"]
            if "method" in reply:
                self.events.append(reply)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("chromium") / "profile")
    yield browser
    browser.close()


@pytest.fixture
def browser(chromium):
    """A browser with an empty page; one process serves all tests of a module."""
    chromium.size(1360, 900)
    yield chromium
    chromium.open("about:blank")
    chromium.wait_for("location.href == 'about:blank'")
    chromium.events.clear()
