"""What a task remembers does not grow with the number of frames."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import pytest
import structlog

from flowrun.msgs import DetectionsMsg, ImageRgb8Msg, Message, PromptResponseMsg, TracksMsg
from flowrun.runtime.engine.alone import Alone
from flowrun.runtime.task import Task
from flowrun.tasks.backends.chat import ServerError
from flowrun.tasks.blur import Blur
from flowrun.tasks.broadcast import BroadcastChat, BroadcastImage
from flowrun.tasks.inference import Inference
from flowrun.tasks.models.question import Answer, ModelError, Question
from flowrun.tasks.parse_detections import ParseDetections
from flowrun.tasks.render_boxes import RenderBoxes
from flowrun.tasks.zones import LineCounter, Zones

S = 1_000_000_000
SERVER = {"type": "openai", "base_url": "http://127.0.0.1:9/v1"}


class Unsteady:
    """A backend that fails now and then, each time in other words."""

    where = ""

    def __init__(self, name: str, period: int) -> None:
        self.name, self.period, self.asked = name, period, 0

    def load(self) -> None: ...

    def answer(self, question: Question) -> Answer:
        self.asked = (self.asked + 1) % (1000 * self.period)
        if self.asked % self.period == 0:
            raise ServerError(f"{self.name} fails on question {self.asked}")
        return Answer(f"a ring, {self.asked}", 3)

    def healthy(self) -> bool:
        return self.asked % 3 != 0

    def cancel(self) -> None: ...

    def close(self) -> None: ...


def image(number: int) -> Message:
    pixels = np.full((24, 32, 3), number % 7 // 6 * 200, np.uint8)
    return ImageRgb8Msg(pixels=pixels, frame_id=number)


def answer(number: int) -> Message:
    text = "<loc0100><loc0100><loc0600><loc0600> ring" if number % 3 else "no boxes"
    return PromptResponseMsg(
        prompt="what?", response=text, frame_width=32, frame_height=24, frame_cycle=number
    )


def boxes(number: int) -> Message:
    return DetectionsMsg(
        boxes=np.array([[1, 1, 9, 9]], np.float32),
        scores=np.ones(1, np.float32),
        labels=[f"ring {number % 5}"],
        class_ids=np.zeros(1, np.int32),
        width=32,
        height=24,
        frame_cycle=number,
    )


def tracks(number: int) -> Message:
    """Each track is there for seven frames, and crosses the picture."""
    message = TracksMsg()
    message.fill(boxes(number))
    message.tracker_ids = np.array([number // 7])
    message.boxes = message.boxes + np.float32(number % 7 * 3)
    return message


ZONE = {"name": "all", "polygon": [[0, 0], [1, 0], [1, 1], [0, 1]]}
LINE = {"name": "middle", "start": [0.5, 0], "end": [0.5, 1]}
Make = dict[str, Callable[[int], Message]]
TASKS: list[Any] = [
    (ParseDetections, {}, {"answer": answer}),
    (RenderBoxes, {}, {"image": image, "detections": boxes}),
    pytest.param(
        RenderBoxes,
        {"trail_s": 2, "statistics": True},
        {"image": image, "detections": tracks},
        marks=pytest.mark.long,
    ),
    (Zones, {"zones": [ZONE]}, {"detections": tracks}),
    pytest.param(LineCounter, {"lines": [LINE]}, {"detections": tracks}, marks=pytest.mark.long),
    pytest.param(
        Blur, {"max_age_s": 1}, {"image": image, "detections": boxes}, marks=pytest.mark.long
    ),
    (BroadcastImage, {}, {"image": image}),
    (BroadcastChat, {}, {"answer": answer}),
    (
        Inference,
        {"backend": "a", "fallback": ["b"], "backends": {"a": SERVER, "b": SERVER}},
        {"image": image},
    ),
    (
        Inference,
        {"backend": "a", "skip_similar": 5.0, "backends": {"a": SERVER}},
        {"image": image},
    ),
]


def size_of(task: Task) -> int:
    """Bytes of what a task remembers, as far as data leads."""
    seen: dict[int, Any] = {}
    left = list(task.__dict__.values())
    while left:
        item = left.pop()
        if id(item) not in seen and not isinstance(item, (type, FunctionType, ModuleType)):
            seen[id(item)] = item
            left += gc.get_referents(item)
    return sum(map(sys.getsizeof, seen.values()))


def sizes(
    task_class: type[Task], config: dict[str, Any], make: Make, counts: list[int]
) -> list[int]:
    """The size after each of these numbers of frames."""
    alone = Alone(task_class, task_class.Config(**config), graph_dir=Path(), seed=0)
    alone.start()
    found = []
    for number in range(max(counts)):
        inputs = {port: made(number) for port, made in make.items()}
        for message in inputs.values():
            message.publish(tov_ns=number * S // 10 + 1)
        with suppress(ModelError):
            alone.run(inputs, cycle=10**6 + number, now_ns=10**6 * S + number * S // 10)
        if number + 1 in counts:
            found.append(size_of(alone._made.task))
    alone.stop()
    return found


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def backends(monkeypatch: pytest.MonkeyPatch) -> None:
    periods = {"a": 5, "b": 11}
    monkeypatch.setattr(Inference, "_make", lambda _self, name, _ctx: Unsteady(name, periods[name]))


@pytest.mark.parametrize(("task_class", "config", "make"), TASKS)
@pytest.mark.parametrize(
    "many", [600, pytest.param(20_000, marks=[pytest.mark.long, pytest.mark.timeout(900)])]
)
def test_what_a_task_remembers_does_not_grow(
    task_class: type[Task], config: dict[str, Any], make: Make, many: int
) -> None:
    few, *others = sizes(task_class, config, make, [300, many - 7, many])
    # Numbers and texts of the last frame may have some digits more, and other tracks are in view.
    assert max(others) <= few + 500
