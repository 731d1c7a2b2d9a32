"""The contract: record A == record B for the same inputs, and record A == replay(A).

Messages are compared, byte for byte, with their cycle and time of validity, and so is what happened
besides, in /flowrun/control; timings are not.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings

from flowrun.runtime.graph.plan import load_plan
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from support.determinism import (
    PROPERTIES,
    check_the_log_that_a_replay_leaves,
    check_two_recordings_and_replays_from_anywhere,
    check_whatever_a_run_meets_it_replays_from_everywhere,
)
from support.helpers import record


@given(*PROPERTIES[check_two_recordings_and_replays_from_anywhere])
@pytest.mark.timeout(900)  # a busy machine takes its time
@settings(max_examples=5)
def test_recording_twice_and_replaying_from_anywhere_gives_the_same_bytes(graph, jumps):
    check_two_recordings_and_replays_from_anywhere(graph, jumps)


@given(*PROPERTIES[check_the_log_that_a_replay_leaves])
@pytest.mark.timeout(900)  # a busy machine takes its time
@settings(max_examples=5)
def test_a_replay_leaves_the_same_log_as_its_run(graph, begin, step_ns):
    """Errors, restarts, live values, dropped and replaced inputs included; and so does a replay of what
    the replay left, and one that begins in the middle."""
    check_the_log_that_a_replay_leaves(graph, begin, step_ns)


@given(*PROPERTIES[check_whatever_a_run_meets_it_replays_from_everywhere])
@pytest.mark.timeout(900)  # a busy machine takes its time
@settings(max_examples=5)
def test_whatever_a_run_meets_it_replays_from_everywhere(graph, cycles, begin, step_ns):
    check_whatever_a_run_meets_it_replays_from_everywhere(graph, cycles, begin, step_ns)


PLANTED = """
import time
from flowrun.msgs import IntMsg, TextMsg
from flowrun.runtime.task import Context, Input, Output, Task

class ReadsTheClock(Task):
    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        out.value = time.time_ns()
        out.publish()

class IteratesASet(Task):
    def process(self, ctx: Context, number: Input[IntMsg], out: Output[TextMsg]) -> None:
        out.value = " ".join(set("left right above below near far".split()))
        out.publish()

class MutatesItsInput(Task):
    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        number.__dict__["value"] += 1000
        out.value = number.value
        out.publish()

class RemembersItsObjects(Task):
    def process(self, ctx: Context, number: Input[IntMsg], out: Output[TextMsg]) -> None:
        out.value = f"{id(self)}"
        out.publish()
"""


def planted(tmp_path, task, msg):
    """A graph of a counter and a task that is not deterministic."""
    (tmp_path / f"planted_{task.lower()}.py").write_text(PLANTED)
    path = tmp_path / "g.yaml"
    path.write_text(
        "tasks: [{id: n, type: Counter, config: {limit: 3}}, "
        f"{{id: bad, type: planted_{task.lower()}.{task}}}]\n"
        "cnx: [{src: n, dst: bad, msg: IntMsg}]\n"
        "logging: {slab_size_mib: 1, section_size_mib: 1}\n"
    )
    return path


@pytest.mark.parametrize(
    ("task", "msg"),
    [
        ("ReadsTheClock", "IntMsg"),
        ("RemembersItsObjects", "TextMsg"),
        ("MutatesItsInput", "IntMsg"),
    ],
)
def test_a_planted_nondeterminism_is_named(tmp_path, task, msg):
    plan = load_plan(planted(tmp_path, task, msg), env={})
    run, _ = record(plan, tmp_path / "run")  # `run` is kept: its objects keep their addresses
    with Log(tmp_path / "run") as log:
        first = Replay(log, env={}).run().first
    assert (first.cycle, first.task, first.port, first.field) == (0, "bad", "out", "value")
    del run


def test_a_task_that_iterates_a_set_is_named(tmp_path):
    """Within a process the order stays: it is another one in the next."""
    graph = planted(tmp_path, "IteratesASet", "TextMsg")
    flowrun = Path(sys.executable).with_name("flowrun")
    for seed, words, status in (
        ("1", [graph, "--log-dir", tmp_path / "runs", "--plain"], 0),
        ("1", ["replay", tmp_path / "runs"], 0),
        ("2", ["replay", tmp_path / "runs"], 1),
    ):
        if words[0] == "replay":
            [words[1]] = words[1].glob("[!.]*")
        done = subprocess.run(
            [flowrun, *words],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
    assert "cycle 0, task 'bad', port 'out', field 'value':" in done.stdout
