"""What a difference says of the task that made it."""

from __future__ import annotations

import os
import random
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic as now_s

import numpy as np
import pytest

from flowrun.msgs import IntMsg, TextMsg
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.hints import hint_of
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.task import Context, Input, Output, Task
from support.helpers import plan_of, record

KEYFRAME = "the run took a keyframe before this cycle; `freeze` must leave the task as it was"
GENERATOR = np.random.default_rng(3)


class Says(Task):
    def process(self, ctx: Context, number: Input[IntMsg], out: Output[TextMsg]) -> None:
        out.value = self.word()
        out.publish()

    def word(self):
        return "always the same"


def made(word):
    return type("Made", (Says,), {"word": word, "__module__": __name__})


def stamp():
    return f"{time.time_ns()}"


def shared(size):
    return max(random.random() for _ in range(size))


class Addresses(Says):
    def word(self):
        return f"{object()}"


class Clocks(Says):
    def word(self):
        return stamp()


@pytest.mark.parametrize(
    ("word", "name", "instead"),
    [
        (lambda _: stamp(), "time.time_ns", "ctx.now_ns"),
        (lambda _: now_s(), "now_s", "ctx.now_ns"),
        (lambda _: datetime.now(UTC).isoformat(), "datetime.now", "ctx.now_ns"),
        (lambda _: uuid.uuid4().hex, "uuid.uuid4", "ctx.rng"),
        (lambda _: shared(3), "random.random", "ctx.rng"),
        (lambda _: np.random.rand(), "np.random.rand", "ctx.rng"),  # noqa: NPY002  # as people do
        (lambda _: os.environ.get("HOME"), "os.environ", "its config, or a source"),
        (lambda self: hash(self.word), "hash", "zlib.crc32"),
        (staticmethod(lambda: id(os)), "id", "a number of its own"),
    ],
)
def test_what_differs_in_each_process_is_named(word, name, instead):
    hint = hint_of(made(word))
    assert hint.startswith(f"it uses {name} (test_hints.py:")
    assert hint.endswith(f"), which differs in a replay; use {instead}")


@pytest.mark.parametrize(
    "word",
    [
        lambda _: GENERATOR.random(),
        lambda _: datetime.fromtimestamp(0, UTC).isoformat(),
        lambda _: np.random.default_rng(3).random(),
        lambda _: random.Random(3).random(),
        lambda _: time.strftime("%Y", time.gmtime(0)),
        lambda self: self.time.time,
        lambda _: os.fspath(Path("a")),
    ],
)
def test_what_is_the_same_each_time_is_not(word):
    assert hint_of(made(word)) == ""


class Empties(Says):
    """Its `freeze` is no mere look."""

    def start(self, ctx: Context) -> None:
        self.kept: list[int] = []

    def word(self):
        self.kept.append(1)
        return str(len(self.kept))

    def freeze(self):
        kept, self.kept = self.kept, []
        return kept

    def thaw(self, state):
        self.kept = state


@pytest.mark.parametrize(
    ("task", "interval", "hint"),
    [
        ("Empties", 1, KEYFRAME),
        ("Empties", 2, KEYFRAME),
        ("Clocks", 2, "it uses time.time_ns (test_hints.py:"),
        ("Addresses", 2, "the values differ in the address of an object, as its `repr` has it"),
    ],
)
def test_a_difference_says_what_may_be_why(tmp_path, monkeypatch, task, interval, hint):
    from support import message_tasks

    monkeypatch.setattr(message_tasks, "Says", globals()[task], raising=False)
    logging = f"logging: {{keyframe_interval: {interval}}}"
    plan = plan_of(tmp_path, "n=Numbers(limit: 4); s=message_tasks.Says", "n > s", logging)
    record(plan, tmp_path / "run")
    with Log(tmp_path / "run") as log:
        report = Replay(log, env={}).run()
    assert report.first.hint.startswith(hint)
    assert f"\n  hint: {hint}" in str(report.first)
