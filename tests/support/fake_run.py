"""A run to watch without a graph."""

import io
import threading

from PIL import Image, ImageDraw

from flowrun.msgs import ImageRgb8Msg, IntMsg
from flowrun.runtime.broadcast import Answer, Broadcast, PartialAnswer, Picture
from flowrun.runtime.errors import UnknownPort, UsageError
from flowrun.runtime.run.observed import Observed
from flowrun.runtime.run.report import LogReport, RunReport, TaskReport, newest_answer

START_NS = 1_700_000_000_000_000_000
"""The frame times of the fake run are far from the clock's: code that mixes them fails."""
_FRESH_FOR_S = 60

_TYPES = {
    "cam0": "VideoCapture",
    "vlm": "Inference",
    "screen": "BroadcastImage",
    "small": "BroadcastImage",
    "chat": "BroadcastChat",
    "saved": "WriteText",
}
_SHOWS = {
    "Inference": "partial answer",
    "BroadcastImage": "picture",
    "BroadcastChat": "answer",
}
_CNX = [("cam0", "vlm"), ("cam0", "screen"), ("cam0", "small"), ("vlm", "chat"), ("vlm", "saved")]


class FakeRun:
    """A `Watchable` whose thread offers drawn pictures and made-up answers.

    `cycle()` makes one cycle at once, for tests that need to know when; `start()` makes them go.
    """

    def __init__(self, *, name="inference", types=None, answer="A red ball rolls.", rate_hz=25.0):
        self.name = name
        self.directory = None
        self.directories = ()
        self.task_types = dict(types or _TYPES)
        self.shows = {task: _SHOWS.get(type_) for task, type_ in self.task_types.items()}
        self.channels = {
            task: number
            for kind in ("picture", "answer")
            for number, task in enumerate(t for t, shown in self.shows.items() if shown == kind)
        }
        sinks = [task for task in self.task_types if task != "cam0"]
        self.broadcasts = {task: Broadcast() for task in sinks}
        self.answer = answer
        self.prompt = "What do you see?"
        self.latency_ms = 120.0
        self.rate_hz = rate_hz
        self.cycles = 0
        self.encoded = 0
        self.set = []
        self.recording = True
        self.observed = Observed((), keeps_log=False)
        self.switched = []
        self.playback = "running"
        self.refuses_switches = False
        self.stop_is_stuck = False
        self.stops = 0
        """How often it was asked to stop."""
        self.published, self.pictures = [], []
        self.is_stuck = False
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

    def settings(self):
        return {"vlm": {"prompt": self.prompt, "max_new_tokens": 50}}

    def set_live(self, task_id, values):
        if not isinstance(values.get("prompt", ""), str):
            raise UsageError(f"{task_id}.prompt: must be a text; got {values['prompt']!r}")
        self.set.append((task_id, values))
        self.prompt = values.get("prompt", self.prompt)

    def publish(self, port, fields, *, tov_ns):
        if port not in self.ports():
            raise UnknownPort(
                f"unknown port {port!r}; ports to publish on: {', '.join(self.ports())}"
            )
        if "pixels" in fields:
            self.pictures.append(fields["pixels"])
        if set(fields) - {"value"}:
            raise UsageError(f"IntMsg has no field {min(fields)!r}; fields: value")
        self.published.append((port, fields, tov_ns))
        return not self.is_stuck

    def ports(self):
        return {"cam0.image": ImageRgb8Msg, "cam0.number": IntMsg}

    def _switch(self, source, playback):
        if self.refuses_switches:
            raise UsageError(f"source {source!r} has ended; nothing more comes from it")
        self.switched.append((source, playback))
        was, self.playback = self.playback, playback
        return was != playback

    def pause(self, source):
        return self._switch(source, "paused")

    def mute(self, source):
        return self._switch(source, "muted")

    def resume(self, source):
        return self._switch(source, "running")

    def record(self, on):
        if self.refuses_switches:
            raise UsageError("the run keeps no log")
        was, self.recording = self.recording, on
        return was != on

    def observe(self):
        return self.observed

    def report(self):
        times = {"vlm": (81_400.0, 203_000.0), "cam0": (412.0, 1_930.0)}
        size = 48_300_000 + self.cycles
        tasks = {}
        for task, type_ in self.task_types.items():
            p50_us, p99_us = times.get(task, (35.0, 96.0)) if self.cycles else (None, None)
            dropped_by = {"replaced": 3} if task == "vlm" else {}
            dropped = sum(dropped_by.values())
            state = self.playback if task == "cam0" else None
            tasks[task] = TaskReport(
                type_,
                p50_us,
                p99_us,
                rate_hz=(1.5 if task == "vlm" else self.rate_hz) if self.cycles else None,
                background=task == "vlm",
                dropped=dropped,
                state=state,
                dropped_by=dropped_by,
            )
        return RunReport(
            cycles=self.cycles,
            cycle_rate_hz=self.rate_hz if self.cycles else 0.0,
            uptime_s=self.cycles / self.rate_hz,
            at_ns=START_NS + int(self.cycles / self.rate_hz * 1e9),
            starting=None,
            progress=None,
            log=LogReport("runs/inference-20261120T101500Z", size, 3 * self.cycles),
            tasks=tasks,
            last_answer=newest_answer(self.broadcasts.values()),
        )

    def ask_backends(self):
        pass

    @property
    def may_run_again(self):
        return False

    def run_again(self):
        return False

    def stop(self, reason):
        self.stops += 1
        if not self.stop_is_stuck:
            self.end("Stopped")

    def end(self, state="Stopped"):
        self._ending.set()
        self._state = state
        for broadcast in self.broadcasts.values():
            broadcast.close()
        self.observed.close()

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
                # It is "latest" for a second: on a busy machine that is over before it is asked for.
                broadcast._offered_at += _FRESH_FOR_S
            elif self.task_types[task] == "BroadcastChat" and answers:
                broadcast.offer(
                    Answer(
                        picture.tov_ns,
                        self.cycles,
                        self.prompt,
                        self.answer,
                        False,
                        "",
                        "embedded",
                        7,
                        self.latency_ms,
                    )
                )

    def start(self):
        def work():
            while not self._ending.wait(1 / self.rate_hz):
                self.latency_ms = (95.0, 1640.0, 4310.0)[self.cycles // 20 % 3]
                self.cycle(answers=self.cycles % 20 == 0)

        self._thread = threading.Thread(target=work, name="fake-run")
        self._thread.start()
        return self

    def join(self):
        self.end()
        if self._thread is not None:
            self._thread.join()
