"""Random graphs, and the laws of determinism that hold for each: for tests/test_determinism.py, and for
many graphs at once (`make torture-graphs`)."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import strategies as st

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
        # When a background result appears depends on the machine: that is recorded, not the same. So
        # do the messages that others make of it and, with an error, the cycle that it ends and the
        # clock, which its log line reads.
        late = {task.split("=")[0] for task in tasks.split("; ") if "!" in task}
        for connection in connections.split("; ") if connections else []:  # sources first
            src, _, dst = connection.partition(" > ")
            if src in late:
                late.add(dst.partition(".")[0])
        failed = {task for name in ("a", "b") for _, _, task, _ in controls(path / name, "error")}
        if not failed & late:
            a, b = (messages_of(path / name, without=late) for name in ("a", "b"))
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
