"""Frames through a function or a model, in one call."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from flowrun.msgs import PromptResponseMsg
from flowrun.runtime.api.pipeline import Result, pipeline
from flowrun.runtime.errors import GraphError, TaskError, UsageError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from flowrun.tasks.basic import Counter
from support.paths import ROOT

FILM = ROOT / "graphs" / "media" / "shapes.mp4"


def brightness(frame):
    return {"mean": float(frame.pixels.mean())}, frame.pixels[::2, ::2].copy()


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_what_a_function_returns_is_a_result_and_replays():
    results = []
    live = pipeline(FILM, on_frame=brightness, on_result=results.append).start(cycles=3)
    live.wait()
    values = [it.value for it in results if isinstance(it.value, dict)]
    pictures = [it.value for it in results if isinstance(it.value, np.ndarray)]
    assert len(values) == len(pictures) == 3
    with Log(live.directory) as log:
        for result, picture, frame in zip(
            values, pictures, log.frames("/source/image"), strict=True
        ):
            assert result == {"mean": frame.pixels.mean()}
            assert (picture == frame.pixels[::2, ::2]).all()
        assert [it.tov_ns for it in results if isinstance(it.value, dict)] == [
            it.tov_ns for it in log["source"]
        ]
        assert Replay(log).run().identical


def test_each_of_several_sources_has_its_results():
    results = []
    pipeline(
        [FILM, str(FILM)], on_frame=lambda frame: frame.frame_id, on_result=results.append
    ).run(cycles=3, log_dir=None)
    for number in (0, 1):
        assert [it.value for it in results if it.source == number] == [0, 1, 2]


def test_a_task_of_ones_own_may_be_called_anything():
    results = []
    made = pipeline(FILM, on_frame=lambda frame: frame.frame_id, on_result=results.append)
    made.graph.add(Counter, id="model_check", limit=1)
    made.run(cycles=2, log_dir=None)
    assert {it.source for it in results} == {0}


def test_a_callable_object_runs_and_the_log_says_that_it_does_not_replay():
    call = functools.partial(lambda text, frame: text, "seen")
    results = []
    made = pipeline(FILM, on_frame=call, on_result=results.append)
    live = made.start(cycles=1)
    live.wait()
    assert [it.value for it in results] == ["seen"]
    with Log(live.directory) as log:
        lines = [it.fields for it in log["/flowrun/log"]]
    assert {"why": "an object of partial has no name; write a function"} in [
        it["fields"] for it in lines
    ]


def test_what_on_frame_raises_names_the_line():
    def fails(frame):
        raise ValueError("no light")

    with pytest.raises(TaskError, match=r"^task 'on_frame' failed in process, cycle 0: ValueError"):
        pipeline(FILM, on_frame=fails).run(log_dir=None)


def test_what_on_result_raises_ends_the_run():
    def fails(result):
        raise KeyError(result.source)

    with pytest.raises(KeyError):
        pipeline(FILM, on_frame=brightness, on_result=fails).run(log_dir=None)


def test_mistakes_are_reported_at_the_call(tmp_path):
    with pytest.raises(UsageError, match=r"^a pipeline needs on_frame, prompt or model"):
        pipeline(FILM)
    with pytest.raises(GraphError, match=r"test_pipeline\.py:\d+:45: unknown key 'fsp' in"):
        pipeline(FILM, on_frame=brightness, fsp=3).start()


def nothing():
    """Takes no frame."""


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: pipeline(FILM, on_fram=brightness),
            "a pipeline needs on_frame, prompt or model: what happens to its frames "
            "(did you mean 'on_frame'?)",
        ),
        (
            lambda: pipeline(FILM, on_frame=3),
            "on_frame must be a function; got an int: write on_frame=f, and not f(...)",
        ),
        (
            lambda: pipeline(FILM, on_frame=nothing),
            "on_frame: nothing cannot be called with one argument: too many positional arguments",
        ),
        (
            lambda: pipeline(FILM, on_frame=brightness, on_result=nothing),
            "on_result: nothing cannot be called with one argument: too many positional arguments",
        ),
        (
            lambda: pipeline(FILM, on_frame=brightness).start(cycles="3"),
            "cycles='3': expected a number of cycles, 0 or more, or None",
        ),
        (
            lambda: pipeline(FILM, on_frame=brightness).start(port="3000"),
            "port='3000': expected a number, 0 for a free port, or None",
        ),
    ],
)
def test_what_cannot_be_is_refused_at_once(call, text):
    with pytest.raises(UsageError) as caught:
        call()
    assert str(caught.value) == text
    assert not list(Path("runs").glob("*"))


def test_a_frame_that_is_written_to_says_what_to_do():
    def paints(frame):
        frame.pixels[0] = 0

    with pytest.raises(TaskError) as caught:
        pipeline(FILM, on_frame=paints).run(log_dir=None)
    assert str(caught.value) == (
        "task 'on_frame' failed in process, cycle 0: ValueError: assignment destination is read-only; "
        "what a task gets is read-only: change a copy, such as image.pixels.copy()"
    )


@pytest.mark.slow
@pytest.mark.long
def test_answers_of_a_model_are_results():
    results: list[Result] = []
    pipeline(FILM, prompt="cap en", on_result=results.append).run()
    assert results
    assert all(isinstance(it.value, PromptResponseMsg) for it in results)
