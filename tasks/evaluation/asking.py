"""Recorded pictures, asked about by the graph's own task: what a worker process does."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowrun.msgs.image import ImageRgb8Msg
from flowrun.msgs.message import Message
from flowrun.runtime.clock import ticks_ns
from flowrun.runtime.engine.alone import Alone
from flowrun.runtime.errors import FlowrunError, LogError, UsageError, worded
from flowrun.runtime.graph.bind import BoundTask, bind
from flowrun.runtime.graph.find import importable
from flowrun.runtime.interrupts import is_users
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.graph import recorded_graph, with_config
from flowrun.runtime.replay.values import plain
from flowrun.runtime.run.log_lines import drop_logs
from flowrun.tasks.evaluation.recorded import MOST_NUMBERS

__all__ = ["Piece", "bound_task", "worker"]

_WITHOUT = {"skip_similar": 0.0, "fallback": [], "max_batch": 1, "budget": None, "shadow": None}
"""Values with which each picture is asked about, by the backend that is meant, and alone."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Pictures of one run, for one task with one config.

    config: values in place of those of the recorded graph, but for the prompt.
    prompts: what to ask about each picture; None for a task that takes no prompt.
    pictures: number of the question, cycle of the picture and place in `prompts`, in the order of the
        cycles.
    threads: CPU threads that torch may use, where the config does not say.
    """

    run: Path
    trust: bool
    task: str
    port: str
    input: str
    topic: str
    config: Mapping[str, Any]
    prompts: tuple[str | None, ...]
    pictures: Sequence[tuple[int, int, int]]
    threads: int


def bound_task(
    run: Path, task: str, config: Mapping[str, Any], *, trust: bool
) -> tuple[BoundTask, Path, int]:
    """A task of a recorded run with other values, checked; the folder of its graph, and the seed.

    Raises `GraphError` for a value that the task does not take, and `UntrustedRun`.
    """
    with Log(run) as log:
        spec = recorded_graph(log, os.environ, trust=trust)
    values = {f"{task}.{key}": value for key, value in config.items()}
    bound = bind(with_config(spec, values), ready=False)
    found = next(it for it in bound.tasks if it.id == task)
    return found, spec.path.parent, spec.runtime.seed


def worker() -> Callable[[Piece, Callable[[Any], None]], None]:
    """Makes what asks about a `Piece`: it sends (number, answer) for each picture. An answer is the
    plain fields of the message, with "ms", how long it took; {"error": text} where the task raised."""
    drop_logs()
    return _Worker().ask


class _Worker:
    """Keeps the tasks of the last piece, as long as the next one is for the same."""

    def __init__(self) -> None:
        self._key: Any = None
        self._tasks: list[Alone] = []

    def ask(self, piece: Piece, send: Callable[[Any], None]) -> None:
        key = piece.run, piece.task, piece.port, repr(piece.config), piece.prompts
        if key != self._key:
            new = [self._started(piece, prompt) for prompt in piece.prompts]
            self._stop()  # after the new ones have begun: they may share its model
            self._key, self._tasks = key, new
        first, last = piece.pictures[0][1], piece.pictures[-1][1]
        wanted: dict[int, list[tuple[int, int]]] = {}
        for number, cycle, prompt in piece.pictures:
            wanted.setdefault(cycle, []).append((number, prompt))
        with Log(piece.run) as log:
            for record in log.cycles(first, last + 1):
                if record.cycle not in wanted:
                    continue
                for entry in record.entries:
                    if entry[0] != piece.topic:
                        continue
                    try:
                        message = log.message(record, entry)
                        image = ImageRgb8Msg()
                        image.restore(message.deferred, tov_ns=message.tov_ns)
                    except LogError as error:
                        for number, _ in wanted[record.cycle]:
                            send((number, {"error": str(error)}))
                        continue
                    for number, prompt in wanted[record.cycle]:
                        arrived = {piece.input: image}
                        task = self._tasks[prompt]
                        made = _answer(
                            task, arrived, piece.port, cycle=record.cycle, now_ns=record.time_ns
                        )
                        send((number, made))

    def _started(self, piece: Piece, prompt: str | None) -> Alone:
        with Log(piece.run) as log:
            spec = recorded_graph(log, os.environ, trust=piece.trust)
        with importable(spec.path.parent):
            bound, folder, seed = bound_task(piece.run, piece.task, piece.config, trust=piece.trust)
            known = type(bound.config).model_fields
            values = {key: value for key, value in _WITHOUT.items() if key in known}
            if prompt is not None:
                values["prompt"] = prompt
            if "threads" in known and getattr(bound.config, "threads", None) is None:
                values["threads"] = piece.threads
            task = Alone(
                bound.task_class,
                bound.config.model_copy(update=values),
                graph_dir=folder,
                seed=seed,
                messages={_input(bound, piece.input): ImageRgb8Msg},
            )
            try:
                task.start()
            except FlowrunError:
                raise
            except BaseException as error:
                if is_users(error):
                    raise
                raise UsageError(f"task {piece.task!r} cannot be started: {error}") from error
        return task

    def _stop(self) -> None:
        for task in self._tasks:
            task.stop()
        self._tasks = []


def _input(bound: BoundTask, name: str) -> str:
    """The input port that a connection means, which may leave out the name of the only one."""
    return name or next(port.name for port in bound.ports if port.is_input)


def _answer(
    task: Alone, arrived: Mapping[str, Message], port: str, *, cycle: int, now_ns: int
) -> dict[str, Any]:
    arrived = {name or task.inputs[0]: message for name, message in arrived.items()}
    begun = ticks_ns()
    try:
        published = task.run(arrived, cycle=cycle, now_ns=now_ns)
    except BaseException as error:
        if is_users(error):
            raise
        return {"error": worded(error)}
    took_ms = (ticks_ns() - begun) / 1e6
    made = published.get(port)
    if made is None:
        return {"error": "the task published nothing"}
    return {**(plain(made.all_fields(), most=MOST_NUMBERS) or {}), "ms": took_ms}
