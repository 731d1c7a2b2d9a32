"""`InferenceBatch` and `DetectBatch`: the frames of several cameras in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowrun.msgs import ImageRgb8Msg
from flowrun.msgs.detections import DetectionsMsg
from flowrun.runtime.clock import ManualClock
from flowrun.runtime.errors import GraphError
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import Plan, plan_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.run.live import Run
from flowrun.runtime.task import Context, Input, Output, Task, TaskConfig
from flowrun.runtime.testing import run_task
from flowrun.tasks import detect
from flowrun.tasks.inference import Inference, InferenceBatch
from flowrun.tasks.models.detector import Found, Search
from flowrun.tasks.models.question import Question
from flowrun.tasks.models.shared import SharedModel
from flowrun.tasks.models.vlm import VisionLanguageModel
from support.paths import MEDIA

INPUTS = {"inputs": ["left", "right"]}


def image(level: int, *, number: int = 0, size: int = 48) -> ImageRgb8Msg:
    made = ImageRgb8Msg(pixels=np.full((size, size, 3), level, np.uint8), frame_id=number)
    made.publish(tov_ns=1000 + number)
    return made


# -- ports by config ---------------------------------------------------------------------------


class Adds(Task):
    """Publishes each input's level, plus the number of inputs that are there."""

    class Config(TaskConfig):
        inputs: list[str]

    def process(
        self, ctx: Context, base: Input[ImageRgb8Msg] | None,
        *level: Input[ImageRgb8Msg] | Output[DetectionsMsg],
    ) -> None:  # fmt: skip
        there = [it for it in level[::2] if it is not None]
        for given, out in zip(level[::2], level[1::2], strict=True):
            if isinstance(given, ImageRgb8Msg) and isinstance(out, DetectionsMsg):
                out.frame_id = int(given.pixels[0, 0, 0]) + len(there) + 100 * (base is not None)
                out.publish()


def graph(tasks: str, cnx: str, folder: Path) -> Plan:
    text = f"tasks:\n{tasks}\ncnx:\n{cnx}\nlogging: {{slab_size_mib: 64, section_size_mib: 8}}\n"
    return plan_graph(bind(parse_graph(text, path=folder / "g.yaml", env={})))


def test_each_name_of_the_config_is_an_input_and_an_output() -> None:
    out = run_task(
        Adds,
        config={"inputs": ["b", "a"]},
        inputs=[{"a": image(10), "b": image(20)}, {"a": image(30)}, {"base": image(1)}],
    )
    assert [{port: m.frame_id for port, m in it.items()} for it in out] == [
        {"b_level": 22, "a_level": 12},
        {"a_level": 31},
        {},
    ]


def test_an_unknown_input_names_those_of_the_config(tmp_path: Path) -> None:
    video = MEDIA / "shapes.mp4"
    with pytest.raises(GraphError) as caught:
        graph(
            f"  - {{id: cam, type: VideoCapture, config: {{source_uri: '{video}'}}}}\n"
            "  - {id: vlm, type: flowrun.tasks.inference.InferenceBatch, config: {inputs: [left]}}",
            "  - {src: cam, dst: vlm.lefd, msg: ImageRgb8Msg}",
            tmp_path,
        )
    assert "vlm.left (ImageRgb8Msg)" in str(caught.value)
    assert "did you mean 'left'?" in str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ("[left, left]", "'left' is there twice"),
        ("[]", "at least 1"),
        ("[a b]", "must be a text"),
    ],
)
def test_names_that_cannot_be_ports_are_refused(tmp_path: Path, inputs: str, text: str) -> None:
    with pytest.raises(GraphError) as caught:
        graph(
            "  - {id: vlm, type: flowrun.tasks.inference.InferenceBatch, "
            f"config: {{inputs: {inputs}}}}}",
            "  - {src: cam, dst: vlm.a, msg: ImageRgb8Msg}",
            tmp_path,
        )
    assert text in str(caught.value)


# -- Inference ---------------------------------------------------------------------------------


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many questions the model was asked together, each time, without those of its warm-up."""
    sizes: list[int] = []
    answers = VisionLanguageModel.answers

    def counted(self: VisionLanguageModel, questions: Sequence[Question]) -> Any:
        if questions[0].pixels.shape[0] != 240 or len(questions) > 1:
            sizes.append(len(questions))
        return answers(self, questions)

    monkeypatch.setattr(VisionLanguageModel, "answers", counted)
    return sizes


@pytest.mark.slow
def test_frames_of_one_cycle_are_answered_together_and_by_input(batches: list[int]) -> None:
    given = [
        {"left": image(10, number=1), "right": image(250, number=2)},
        {"right": image(200, number=3)},
        {},
        {"left": image(10, number=4), "right": image(250, number=5)},
    ]
    out = run_task(InferenceBatch, config=INPUTS, inputs=given)
    assert batches == [2, 1, 2]
    assert [{port: m.frame_id for port, m in it.items()} for it in out] == [
        {"left_answer": 1, "right_answer": 2},
        {"right_answer": 3},
        {},
        {"left_answer": 4, "right_answer": 5},
    ]
    alone = run_task(Inference, inputs=[{"image": image(250, number=2)}])[0]["answer"]
    assert out[0]["right_answer"].response == alone.response
    assert out[0]["left_answer"].latency_ms == out[0]["right_answer"].latency_ms > 0


@pytest.mark.slow
def test_more_frames_than_max_batch_are_answered_after_each_other(batches: list[int]) -> None:
    names = list("abcde")
    frames = {name: image(10 * number) for number, name in enumerate(names)}
    run_task(InferenceBatch, config={"inputs": names, "max_batch": 2}, inputs=[frames])
    assert batches == [2, 2, 1]
    batches.clear()
    run_task(InferenceBatch, config={"inputs": names, "do_sample": True}, inputs=[frames])
    assert batches == [1] * 5  # what is drawn depends on who else is there


@pytest.mark.slow
def test_a_frame_like_the_last_one_of_its_camera_is_left_out(batches: list[int]) -> None:
    given = [
        {"left": image(10), "right": image(200)},
        {"left": image(10), "right": image(10)},
        {"left": image(200), "right": image(10)},
    ]
    run_task(InferenceBatch, config={**INPUTS, "skip_similar": 8}, inputs=given)
    assert batches == [2, 1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("background", [False, True])
def test_a_replay_computes_the_same_batches(
    tmp_path: Path, batches: list[int], background: bool
) -> None:
    video = MEDIA / "shapes.mp4"
    plan = graph(
        f"  - {{id: a, type: VideoCapture, config: {{source_uri: '{video}', start_s: 21.4}}}}\n"
        f"  - {{id: b, type: VideoCapture, config: {{source_uri: '{video}', start_s: 21.4}}}}\n"
        "  - {id: vlm, type: flowrun.tasks.inference.InferenceBatch, "
        f"background: {str(background).lower()}, config: {{inputs: [left, right]}}}}",
        "  - {src: a, dst: vlm.left, msg: ImageRgb8Msg}\n"
        "  - {src: b, dst: vlm.right, msg: ImageRgb8Msg}",
        tmp_path,
    )
    clock = ManualClock(1, step_ns=1000)
    result = Run(plan, clock=clock, directory=tmp_path / "run").run()
    assert result.error is None
    live = list(batches)
    batches.clear()
    with Log(tmp_path / "run") as log:
        report = Replay(log, env={}).run()
    assert report.identical
    assert batches == live
    assert 2 in live
    assert report.per_task["vlm"] == sum(live)


# -- Detect ------------------------------------------------------------------------------------


def test_what_is_found_is_by_input_and_frames_of_one_size_are_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[list[int]] = []

    def answers(searches: Sequence[Search]) -> list[Found]:
        asked.append([int(it.pixels[0, 0, 0]) for it in searches])
        one = np.ones((1, 4), np.float32), np.ones(1, np.float32), np.ones(1, np.int32)
        return [Found(*one, labels=[f"{it.pixels[0, 0, 0]}"]) for it in searches]

    class Given(detect.DetectBatch):
        def start(self, _ctx: Context) -> None:
            self._shared = SharedModel[Any, Search, Found](None, answers)
            self._only = None

        def stop(self, _ctx: Context) -> None: ...

    frames = {"a": image(1), "b": image(2, size=32), "c": image(3)}
    config = {"model": "somebody/model", "inputs": ["a", "b", "c"]}
    [out] = run_task(Given, config=config, inputs=[frames])
    assert asked == [[1, 3], [2]]
    assert {port: m.labels for port, m in out.items()} == {
        "a_detections": ["1"],
        "b_detections": ["2"],
        "c_detections": ["3"],
    }
    assert not Given.is_external(Given.Config(**config))  # type: ignore[arg-type]
