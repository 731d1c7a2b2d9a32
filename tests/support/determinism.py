"""Random graphs, and the laws of determinism that hold for each: for tests/test_determinism.py, and for
many graphs at once (`make torture-graphs`)."""

from __future__ import annotations

import math
import re
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import strategies as st

from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.recorder import ReplayLog
from flowrun.runtime.replay.replay import Replay
from support.helpers import START_NS, controls, plan_of, record
from support.rough_tasks import Lags, film

TYPES = ["Evens", "Scale", "Picky", "Sum", "Noise", "Collect", "Flaky", "Jobs"]
POLICIES = ["skip", "skip_cycle", "restart"]
ENDING = ["stop", *POLICIES]
RATES = ["", "@every: 2", "@every: 3", "@rate_hz: 100000"]
EXECUTORS = ["", ", executor: parallel, workers: 3"]
INPUT = {"Sum": "a"}


few = st.lists(st.integers(0, 12), max_size=3)
some = st.lists(st.integers(0, 4), min_size=1, max_size=3)


@st.composite
def source(draw, id_, most=12, kind="RoughNumbers"):
    """Numbers that end, fail now and then, and have live values of others changed."""
    config = f"limit: {draw(st.integers(0, most))}, fails_at: {draw(few)}"
    changes = {number: draw(st.integers(0, 4)) for number in draw(few)}
    given = {number: draw(st.integers(0, 40)) for number in draw(few)}
    policy = draw(st.sampled_from(["skip", "skip_cycle"]))  # restarted, it would not end
    return f"{id_}={kind}({config}, set_at: {changes}, publish_at: {given})@on_error: {policy}"


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
        f"{draw(st.integers(1, 7))}}}\n"
        f"runtime: {{ring_size: {draw(st.integers(1, 5))}{draw(st.sampled_from(EXECUTORS))}}}"
    )
    return "; ".join(tasks), "; ".join(connections), more


@st.composite
def rough_graphs(draw):
    """A random DAG of all that is hard to replay, with the options of its run.

    Background tasks that lag and fail, inputs that are not logged, a log of mode `ring`, states that
    cannot be frozen, pictures as packets, arrays of memory that is written to, and an end with jobs
    in flight.
    """
    makers, tasks, connections = [], [], []
    rings = draw(st.booleans())
    for i in range(draw(st.integers(1, 2))):
        tasks.append(draw(source(f"n{i}", 40 if rings else 20, "rough_tasks.Paced")))
        makers.append(f"n{i}")
    if draw(st.integers(0, 4)) == 0:
        kind = draw(st.sampled_from(["plain", "b_frames"]))
        tasks += [f"film=VideoCapture(source_uri: {film(kind)})", "crc=Digest"]
        connections.append("film > crc: ImageRgb8Msg")
        makers.append("crc")
    kinds = [*TYPES, "Lags", "Lags", "Lags", "Melts", "Both", "Chatty"]
    for i in range(draw(st.integers(2, 9))):
        kind, id_ = draw(st.sampled_from(kinds)), f"t{i}"
        background = kind in ("Jobs", "Lags") or (
            kind in ("Noise", "Picky", "Flaky", "Melts") and draw(st.booleans())
        )
        keys = [f"on_error: {draw(st.sampled_from(ENDING if i % 4 == 3 else POLICIES))}"]
        keys += [draw(st.sampled_from(RATES)).removeprefix("@")]
        if draw(st.integers(0, 4)) == 0:
            keys.append(
                f"logging: {{{draw(st.sampled_from(['enabled: false', 'payload: none']))}}}"
            )
        config = {
            "Flaky": f"(at: {draw(some)})",
            "Picky": f"(refuses: {draw(some)})",
            "Lags": f"(lag: {draw(st.integers(0, 6))}, fails: {draw(st.sampled_from([0, 2, 3]))}, "
            f"refuses: {draw(st.integers(0, 4))})",
        }.get(kind, "")
        module = {"Lags": "rough_tasks.", "Melts": "rough_tasks.", "Both": "engine_tasks."}
        name = f"{module.get(kind, '')}{kind}" if kind != "Chatty" else "rough_tasks.Heavy"
        tasks.append(
            f"{id_}={name}{config}{'!' if background else ''}@{', '.join(filter(None, keys))}"
        )
        first = {"Sum": "a", "Melts": "a", "Both": "a"}.get(kind, "number")
        connections.append(f"{draw(st.sampled_from(makers))} > {id_}.{first}")
        if kind == "Both" or (first == "a" and draw(st.booleans())):
            connections.append(f"{draw(st.sampled_from(makers))} > {id_}.b")
        if kind in ("Evens", "Scale", "Picky", "Sum", "Flaky", "Lags", "Melts", "Both"):
            makers.append(id_)
    if draw(st.booleans()):
        tasks += [
            "lent=rough_tasks.Borrows",
            "grid=rough_tasks.Gathers",
            "later=rough_tasks.Gathers!",
        ]
        connections += [f"{draw(st.sampled_from(makers))} > lent", "lent > grid: GridMsg"]
        connections.append("lent > later: GridMsg")
    if rings:
        tasks.append("heavy=rough_tasks.Heavy")
        connections.append("n0 > heavy")
    mode = f"mode: ring, keep_slabs: {draw(st.integers(2, 3))}, " if rings else ""
    pace = draw(st.sampled_from(["", ", rate_hz: 1000"]))
    more = (
        f"logging: {{{mode}slab_size_mib: 1, section_size_mib: 1, keyframe_interval: "
        f"{draw(st.integers(1, 7))}}}\nruntime: {{ring_size: {draw(st.integers(1, 5))}{pace}"
        f"{draw(st.sampled_from(EXECUTORS))}}}"
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
            return f"cycle {left[0]}: {left!r:.500} != {right!r:.500}"
    return f"{len(a)} messages != {len(b)} messages"


def check_two_recordings_and_replays_from_anywhere(graph, jumps):
    tasks, connections, more = graph
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        serial = more.replace(EXECUTORS[1], "")
        for name, how in (("a", serial), ("b", f"{serial[:-1]}{EXECUTORS[1]}}}")):
            _, result = record(plan_of(path, tasks, connections, how), path / name)
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


NOWHERE = "the log begins at cycle "
"""The beginning of a note on the log of a flight recorder, or of its replay, that has no keyframe at
which a replay can begin."""
EXPECTED = re.compile(
    "^no replay can begin at the keyframe of cycle |^the log begins in the middle of its run: "
    "|is not run: no keyframe of the log, which begins in the middle of its run, holds all"
    "|: results that were being made at a keyframe are taken from the log$"
)
"""What may be noted on a run that replays as it was recorded."""


begun: Counter[str] = Counter()
"""How often a replay of a run, or of what a replay wrote, has begun in the middle."""


def check_whatever_a_run_meets_it_replays_from_everywhere(graph, cycles, begin, step_ns):
    """The run whole, from `begin` and from every keyframe, and so what a replay of it wrote.

    cycles: end the run after that number; jobs are in flight then.
    """
    tasks, connections, more = graph
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        plan = plan_of(path, tasks, connections, more)
        Lags.number = -1
        try:
            _, result = record(plan, path / "run", step_ns=step_ns, cycles=cycles)
        finally:
            Lags.number = math.inf
        assert result.log_error is None
        with Log(path / "run") as log:
            if not len(log):
                return
            replay = Replay(log, env={})
            with ReplayLog(replay, path / "again", config={}, now_ns=START_NS) as recorder:
                report = replay.run(recorder=recorder)
            if any(note.startswith(NOWHERE) for note in replay.notes):
                begun["nowhere"] += 1
                return
            assert report.first is None, str(report.first)
            [first, *_] = [cycle.cycle for cycle in Log(path / "again").cycles()]
        recorded, left = (
            # A stored picture names the cycles of the key frames that its log has.
            messages_of(path / name, without=["film"], own=["/flowrun/control"])
            for name in ("run", "again")
        )
        expected = [item for item in recorded if item[0] >= first]
        assert left == expected, first_difference(left, expected)
        for name in ("run", "again"):
            with Log(path / name) as log, Replay(log, env={}) as replay:
                if any(note.startswith(NOWHERE) for note in replay.notes):
                    begun["nowhere"] += 1
                    continue
                last = replay.last_cycle
                for cycle in [*replay.keyframes, begin]:
                    if first <= cycle <= last:
                        begun[name] += 1
                        replay.seek(cycle, fresh=name == "run")
                        while replay.next_cycle():
                            pass
                        difference = replay.report.first
                        assert difference is None, f"{name} from {cycle}: {difference}"
                notes = [note for note in replay.notes if not EXPECTED.search(note)]
                assert notes == [], f"{name}: {notes}"


PROPERTIES = {
    check_two_recordings_and_replays_from_anywhere: (
        graphs(), st.lists(st.integers(0, 30), max_size=6)
    ),
    check_the_log_that_a_replay_leaves: (
        graphs(ENDING), st.integers(0, 20), st.sampled_from([1000, 400_000_000])
    ),
    check_whatever_a_run_meets_it_replays_from_everywhere: (
        rough_graphs(), st.none() | st.integers(1, 20), st.integers(0, 30),
        st.sampled_from([1000, 400_000_000]),
    ),
}  # fmt: skip
"""What must hold for all graphs, and the arguments for which it is tried."""
