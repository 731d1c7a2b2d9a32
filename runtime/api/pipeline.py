"""Frames of a source through a function, or a model, in one call.

flowrun.pipeline("street.mp4", on_frame=count_cars, on_result=print).run()
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, update_wrapper
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs.detections import DetectionsMsg
from flowrun.msgs.image import ImageRgb8Msg
from flowrun.msgs.message import Message
from flowrun.msgs.text import PromptResponseMsg
from flowrun.runtime.api.graph import Graph
from flowrun.runtime.api.naming import name_of
from flowrun.runtime.api.running import LiveRun
from flowrun.runtime.callers import caller
from flowrun.runtime.errors import UsageError
from flowrun.runtime.graph.find import give_callable, why_not_called
from flowrun.runtime.graph.scripts import leave_import
from flowrun.runtime.run.live import RunResult
from flowrun.runtime.wording import nearest, with_article

__all__ = ["Pipeline", "Result", "pipeline"]

_SOURCE, _CALL, _MODEL = "source", "on_frame", "model"
_CALLS = "on_frame", "on_result"
_WITH_RESULTS = re.compile(rf"(?:{_CALL}|{_MODEL})(?:_(\d+))?")
"""The tasks whose results `on_result` gets, with the number of their source where there are several."""


@dataclass(frozen=True, slots=True)
class Result:
    """Something that a pipeline has found in a frame.

    value: what `on_frame` has returned, as the log gives it back: a dict, a text, a float, an array of
        pixels, uint8 (height, width, 3), RGB, or a `DetectionsMsg`; of a model, its answer, a
        `PromptResponseMsg`.
    source: which of the sources the frame is of, from 0.
    tov_ns: when the frame was taken, nanoseconds since 1970 UTC.
    """

    value: dict[str, Any] | str | float | NDArray[np.uint8] | DetectionsMsg | PromptResponseMsg
    source: int
    tov_ns: int


class Pipeline:
    """A source, what happens to its frames, and where the results go; see `pipeline`.

    graph: the graph that it runs. It may be changed before.
    """

    def __init__(
        self, graph: Graph, on_result: Callable[[Result], object] | None, notes: list[str]
    ) -> None:
        self.graph = graph
        self._on_result = on_result
        self._notes = notes

    def start(
        self,
        *,
        settings: Mapping[str, Any] | None = None,
        cycles: int | None = None,
        log_dir: str | Path | None = "runs",
        port: int | None = None,
    ) -> LiveRun:
        """As `Graph.start`. `on_result` is called on threads of its own, one for each source and kind
        of result, as by `LiveRun.on_message`: with every result, also where it is slow; if it raises,
        the run ends."""
        leave_import()
        notes = [*self.graph.not_replayed, *self._notes]
        return LiveRun(
            self.graph.plan(settings=settings),
            cycles=cycles,
            log_dir=log_dir,
            port=port,
            notes=notes,
            before_start=self._listen,
        )

    def run(
        self,
        *,
        settings: Mapping[str, Any] | None = None,
        cycles: int | None = None,
        log_dir: str | Path | None = "runs",
        port: int | None = None,
    ) -> RunResult:
        """Run to the end of the sources; `on_result` has had all results then. See `Graph.run`."""
        return self.start(settings=settings, cycles=cycles, log_dir=log_dir, port=port).wait()

    def _listen(self, run: LiveRun) -> None:
        if self._on_result is None:
            return
        for output in run.outputs:
            found = _WITH_RESULTS.fullmatch(output.partition(".")[0])
            if found is not None:
                call = partial(self._hand_over, int(found[1] or 0))
                run.on_message(output, update_wrapper(call, self._on_result))

    def _hand_over(self, source: int, message: Message) -> None:
        assert self._on_result is not None
        value: Any = message
        if isinstance(message, ImageRgb8Msg):
            value = message.pixels
        elif not isinstance(message, (DetectionsMsg, PromptResponseMsg)):
            value = getattr(message, "value", message)
        self._on_result(Result(value, source, message.tov_ns))


def pipeline(
    source: str | int | os.PathLike[str] | Sequence[str | int | os.PathLike[str]],
    *,
    on_frame: Callable[[ImageRgb8Msg], object] | None = None,
    on_result: Callable[[Result], object] | None = None,
    prompt: str | None = None,
    model: str | None = None,
    name: str = "pipeline",
    **camera: Any,
) -> Pipeline:
    """A graph that takes frames from a source to a function, a model, or both; `run` runs it.

    source: whatever `source_uri` of `VideoCapture` takes: the number of a camera, a file, a URL; or a
        list of these, each with a function or model of its own.
    on_frame: called with each frame, an `ImageRgb8Msg`: `frame.pixels` is uint8 (height, width, 3), RGB,
        read-only; `frame.tov_ns` nanoseconds since 1970 UTC; `frame.frame_id` its number at the source.
        It may return a dict, a text, a number, pixels, a `DetectionsMsg`, several of these as a tuple,
        or None: the log keeps it, and `on_result` gets it. It runs within the cycle: the next frame of
        a file waits for it, of a camera frames are left out meanwhile. What it raises ends the run.
    on_result: called with each `Result`; see `Pipeline.start`.
    prompt: what a vision-language model is asked of frames; it answers in the background, at its own
        pace. With `model` alone, the prompt that `Inference` has by default.
    model: which model; None for the one that ships. See `Inference`.
    name: what its runs are called.
    camera: more of the config of `VideoCapture`, such as `fps=5`.

    A run of a function at the top of a script or a module replays; one of a lambda does not.
    """
    if on_frame is None and prompt is None and model is None:
        unknown = next((nearest(it, _CALLS) for it in camera if nearest(it, _CALLS)), "")
        raise UsageError(
            f"a pipeline needs on_frame, prompt or model: what happens to its frames{unknown}"
        )
    for what, function in zip(_CALLS, (on_frame, on_result), strict=True):
        _check_callable(what, function)
    graph = Graph(name)
    uri = source if isinstance(source, (str, int, os.PathLike)) else list(source)
    cam = graph.add("VideoCapture", id=_SOURCE, config={"source_uri": uri, **camera})
    notes = []
    if on_frame is not None:
        named = name_of(on_frame, caller().folder)
        if named.lacks:
            notes.append(named.lacks)
        text = give_callable(named.text, on_frame) if named.lacks else named.text
        config = {"callable": text, "takes": "message"}
        graph.connect(cam, graph.add("PythonCallable", id=_CALL, config=config))
    if prompt is not None or model is not None:
        asked = {} if prompt is None else {"prompt": prompt}
        if model is not None:
            asked |= {"backend": "transformers", "model": model}
        graph.connect(cam, graph.add("Inference", id=_MODEL, background=True, config=asked))
    return Pipeline(graph, on_result, notes)


def _check_callable(what: str, function: object) -> None:
    """`UsageError` unless it is None, or takes one argument."""
    if function is None:
        return
    if not callable(function):
        kind = with_article(type(function).__name__)
        raise UsageError(f"{what} must be a function; got {kind}: write {what}=f, and not f(...)")
    why = why_not_called(function, None)
    if why is not None:
        name = getattr(function, "__name__", repr(function))
        raise UsageError(f"{what}: {name} cannot be called with one argument: {why}")
