"""The contract: record A == record B for the same inputs, and record A == replay(A).

Messages are compared, byte for byte, with their cycle and time of validity, and so is what happened
besides, in /flowrun/control; timings are not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrun.runtime.graph.plan import load_plan
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.recorder import ReplayLog
from flowrun.runtime.replay.replay import Replay
from support.helpers import START_NS, controls, plan_of, record

TYPES = ["Evens", "Scale", "Picky", "Sum", "Noise", "Collect", "Flaky", "Jobs"]
POLICIES = ["skip", "skip_cycle", "restart"]
ENDING = ["stop", *POLICIES]
RATES = ["", "@every: 2", "@every: 3", "@rate_hz: 100000"]
INPUT = {"Sum": "a"}


few = st.lists(st.integers(0, 12), max_size=3)
some = st.lists(st.integers(0, 4), min_size=1, max_size=3)


@st.composite
def source(draw, id_):
    """Numbers that end, fail now and then, and have live values of others changed."""
    config = f"limit: {draw(st.integers(0, 12))}, fails_at: {draw(few)}"
    changes = {number: draw(st.integers(0, 4)) for number in draw(few)}
    policy = draw(st.sampled_from(["skip", "skip_cycle"]))  # restarted, it would not end
    return f"{id_}=RoughNumbers({config}, set_at: {changes})@on_error: {policy}"


@st.composite
def graphs(draw, policies=POLICIES):
    """A random DAG: each task reads from earlier ones that make numbers."""
    sources = draw(st.integers(1, 2))
    tasks = [draw(source(f"n{i}")) for i in range(sources)]
    makers = [f"n{i}" for i in range(sources)]
    connections = []
    for i in range(draw(st.integers(0, 8) if policies is POLICIES else st.integers(3, 8))):
        kind = draw(st.sampled_from(TYPES))
        id_ = f"t{i}"
        background = kind == "Jobs" or (kind in ("Noise", "Picky") and draw(st.booleans()))
        config, keys = "", draw(st.sampled_from(RATES))
        if kind in ("Flaky", "Jobs", "Picky"):
            if kind != "Jobs":
                config = f"({'at' if kind == 'Flaky' else 'refuses'}: {draw(some)})"
            policy = draw(st.sampled_from(policies))
            keys += f"{', ' if keys else '@'}on_error: {policy}"
        tasks.append(f"{id_}={kind}{config}{'!' if background else ''}{keys}")
        connections.append(f"{draw(st.sampled_from(makers))} > {id_}.{INPUT.get(kind, 'number')}")
        if kind == "Sum" and draw(st.booleans()):
            connections.append(f"{draw(st.sampled_from(makers))} > {id_}.b")
        if kind in ("Evens", "Scale", "Picky", "Sum", "Flaky"):
            makers.append(id_)
    more = (
        f"logging: {{slab_size_mib: 1, section_size_mib: 1, keyframe_interval: "
        f"{draw(st.integers(1, 7))}}}\nruntime: {{ring_size: {draw(st.integers(1, 5))}}}"
    )
    return "; ".join(tasks), "; ".join(connections), more


def messages_of(directory, *, without=(), own=()):
    """Every message of every task, and of the runtime's own topics those of `own`: (cycle, topic,
    tov_ns, bytes), in the log's order."""
    with Log(directory) as log:
        return [
            (cycle.cycle, topic, tov_ns, bytes(payload))
            for cycle in log.cycles()
            for topic, tov_ns, payload in cycle.entries
            if topic in own
            or (not topic.startswith("/flowrun/") and topic.split("/")[1] not in without)
        ]


def first_difference(a, b):
    for left, right in zip(a, b, strict=False):
        if left != right:
            return f"cycle {left[0]}: {left} != {right}"
    return f"{len(a)} messages != {len(b)} messages"


def check_two_recordings_and_replays_from_anywhere(graph, jumps):
    tasks, connections, more = graph
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        for name in ("a", "b"):
            _, result = record(plan_of(path, tasks, connections, more), path / name)
            assert result.error is None
        # When a background result appears depends on the machine: that is recorded, not the same. So,
        # with an error, do the cycle that it ends and the clock, which its log line reads.
        background = {task.split("=")[0] for task in tasks.split("; ") if "!" in task}
        failed = {task for name in ("a", "b") for _, _, task, _ in controls(path / name, "error")}
        if not failed & background:
            a, b = (messages_of(path / name, without=background) for name in ("a", "b"))
            assert a == b, first_difference(a, b)
        with Log(path / "a") as log:
            report = Replay(log, env={}).run()
            assert report.first is None, str(report.first)
            with Replay(log, env={}) as replay:
                for cycle in [*replay.keyframes, *jumps]:
                    if cycle >= len(log):
                        continue
                    replay.seek(cycle)
                    for _ in range(9):
                        while replay.step() is not None:
                            assert replay.differences == []
                    assert replay.report.first is None, f"from {cycle}: {replay.report.first}"
                assert replay.notes == []


def check_the_log_that_a_replay_leaves(graph, begin, step_ns):
    tasks, connections, more = graph
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        plan = plan_of(path, tasks, connections, more)
        _, result = record(plan, path / "run", step_ns=step_ns)  # restarts come after 1 s
        assert result.log_error is None
        recorded = messages_of(path / "run", own=["/flowrun/control"])
        for name, of, start in (
            ("again", "run", None),
            ("twice", "again", None),
            ("part", "run", begin),
        ):
            with Log(path / of) as log:
                if start is not None and start >= len(log):
                    continue
                replay = Replay(log, env={})
                with ReplayLog(replay, path / name, config={}, now_ns=START_NS) as recorder:
                    report = replay.run(start=start, recorder=recorder)
            assert report.first is None, str(report.first)
            expected = [item for item in recorded if start is None or item[0] >= start]
            left = messages_of(path / name, own=["/flowrun/control"])
            assert left == expected, first_difference(left, expected)


PROPERTIES = {
    check_two_recordings_and_replays_from_anywhere: (
        graphs(), st.lists(st.integers(0, 30), max_size=6)
    ),
    check_the_log_that_a_replay_leaves: (
        graphs(ENDING), st.integers(0, 20), st.sampled_from([1000, 400_000_000])
    ),
}  # fmt: skip
"""What must hold for all graphs, and the arguments for which it is tried."""


@given(*PROPERTIES[check_two_recordings_and_replays_from_anywhere])
@pytest.mark.timeout(900)  # a busy machine takes its time
@settings(max_examples=15, deadline=None)
def test_recording_twice_and_replaying_from_anywhere_gives_the_same_bytes(graph, jumps):
    check_two_recordings_and_replays_from_anywhere(graph, jumps)


@given(*PROPERTIES[check_the_log_that_a_replay_leaves])
@pytest.mark.timeout(900)  # a busy machine takes its time
@settings(max_examples=15, deadline=None)
def test_a_replay_leaves_the_same_log_as_its_run(graph, begin, step_ns):
    """Errors, restarts, live values, dropped and replaced inputs included; and so does a replay of what
    the replay left, and one that begins in the middle."""
    check_the_log_that_a_replay_leaves(graph, begin, step_ns)


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
            [words[1]] = words[1].iterdir()
        done = subprocess.run(
            [flowrun, *words],
            env={"PYTHONHASHSEED": seed, "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
    assert "cycle 0, task 'bad', port 'out', field 'value':" in done.stdout
