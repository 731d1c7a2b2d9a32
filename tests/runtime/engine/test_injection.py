"""Messages that somebody publishes from outside while a graph runs."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flowrun.msgs import BytesMsg, DetectionsMsg, FloatMsg, ImageRgb8Msg, IntMsg, Message
from flowrun.runtime.clock import LiveClock
from flowrun.runtime.context import CycleTime
from flowrun.runtime.engine.injection import injected_message
from flowrun.runtime.engine.outside import LiveOutside
from flowrun.runtime.errors import UnknownPort, UsageError
from flowrun.runtime.events import Injected, Set
from flowrun.runtime.graph.plan import Slot
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.run.live import Run
from support.helpers import GridMsg, controls, plan_of, replay_from_everywhere, run_hooked, values

GRAPH = "n=Hooked(limit: 8); x=Scale; sum=Sum", "n > x; x > sum.a"


def run_published(
    folder: Path, at: dict[int, list[tuple[str, int]]], graph=GRAPH, more="", *, debug=False
) -> Path:
    """Publish ports and values before each number; see that the run replays from everywhere."""

    def publish(run: Run, number: int) -> None:
        for port, value in at.get(number, ()):
            assert run.publish(port, {"value": value})

    plan = plan_of(folder, *graph, f"logging: {{keyframe_interval: 3}}\n{more}")
    result = run_hooked(plan, folder / "run", publish)
    assert result.error is None
    _, notes = replay_from_everywhere(folder / "run")
    assert notes == []
    return folder / "run"


def test_a_source_waits_a_cycle_for_a_message_on_its_port(tmp_path):
    run = run_published(tmp_path, {2: [("n.number", 70)]})
    seen = values(run, "/n/number")
    assert seen == [(0, 0), (1, 1), (2, 2), (3, 70), (4, 3), (5, 4), (6, 5), (7, 6), (8, 7)]
    assert values(run, "/x/scaled") == [(cycle, 10 * value) for cycle, value in seen]
    assert [(cycle, task) for cycle, _, task, _ in controls(run, "injected")] == [(3, "n")]


def test_another_task_runs_as_ever_and_its_own_message_is_not_seen(tmp_path):
    graph = "n=Hooked(limit: 8); sum=Sum; x=Scale", "n > sum.a; sum > x"
    run = run_published(tmp_path, {2: [("sum.total", -5)], 5: [("x.scaled", 3)]}, graph)
    totals = [0, 1, 3, -5, 10, 15, 21, 28]  # it has added 3 to what it remembers, unseen
    assert [value for _, value in values(run, "/sum/total")] == totals
    scaled = [10 * value for value in totals]
    scaled[6] = 3
    assert [value for _, value in values(run, "/x/scaled")] == scaled


def test_of_two_messages_for_one_port_the_second_has_the_next_cycle(tmp_path):
    run = run_published(tmp_path, {1: [("x", 1), ("n", 7), ("x", 2), ("x", 3)]})
    assert values(run, "/x/scaled")[:6] == [(0, 0), (1, 10), (2, 1), (3, 2), (4, 3), (5, 40)]
    assert values(run, "/n/number")[:6] == [(0, 0), (1, 1), (2, 7), (3, 2), (4, 3), (5, 4)]


def test_a_background_result_waits_a_cycle_for_a_message_on_its_port(tmp_path):
    graph = "n=Hooked(limit: 30); b=Free!", "n > b"
    plan = plan_of(tmp_path, *graph)

    def publish(run: Run, number: int) -> None:
        if number in (3, 9, 20):
            assert run.publish("b", {"value": f"mine {number}"})

    assert run_hooked(plan, tmp_path / "run", publish).error is None
    text = [value for _, value in values(tmp_path / "run", "/b/text")]
    done = controls(tmp_path / "run", "completion")
    assert len(text) == len(done) + 3
    assert [it for it in text if it.startswith("mine")] == ["mine 3", "mine 9", "mine 20"]
    assert replay_from_everywhere(tmp_path / "run")[1] == []


def test_a_message_comes_also_where_the_task_is_not_called(tmp_path):
    graph = "n=Hooked(limit: 4); x=Scale@every: 1000; e=Evens", "n > x; n > e"
    run = run_published(tmp_path, {1: [("x", 5), ("e", 6)]}, graph)
    assert values(run, "/x/scaled") == [(0, 0), (2, 5)]
    assert values(run, "/e/even") == [(0, 0), (2, 6)]


def test_it_has_the_time_of_its_cycle_or_the_one_that_was_given(tmp_path):
    plan = plan_of(tmp_path, *GRAPH)

    def publish(run: Run, number: int) -> None:
        if number == 1:
            run.publish("x", {"value": 1})
            run.publish("x", {"value": 2}, tov_ns=77)

    run_hooked(plan, tmp_path / "run", publish)
    with Log(tmp_path / "run") as log:
        times = {m.cycle: (m.tov_ns, m.time_ns) for m in log.messages("/x/scaled")}
        assert times[2][0] == times[2][1]
        assert times[3][0] == 77
        assert Replay(log, env={}).run().identical


def test_a_message_of_a_port_that_is_gone_is_left_out_and_named(tmp_path):
    run = run_published(tmp_path, {1: [("x", 5)]})
    other = tmp_path / "other"
    other.mkdir()
    (other / "g.yaml").write_text(
        "tasks: [{id: n, type: support.helpers.Hooked, config: {limit: 8}}]"
    )
    with Log(run) as log, Replay(log, graph=other / "g.yaml", env={}) as replay:
        replay.run()
        assert replay.notes[-1] == (
            "cycle 2 had a message published on /x/scaled, which the graph does not have: left out"
        )


def test_as_many_wait_as_a_bound_allows():
    outside = LiveOutside(LiveClock(), sources=[], packets=())
    assert all(outside.inject(Injected("x", "out", b"1")) for _ in range(256))
    assert not outside.inject(Injected("x", "out", b"1"))
    outside.set("x", {"gain": 1})
    assert list(outside.begin(CycleTime(), 1)) == [Injected("x", "out", b"1")]
    assert outside.inject(Injected("y", "out", b"2"))
    for _ in range(255):
        events = list(outside.begin(CycleTime(), 1))
    assert events == [Injected("x", "out", b"1"), Set("x", {"gain": 1}), Injected("y", "out", b"2")]
    assert not outside.inject(Injected("x", "out", bytes(65 << 20)))


def ports(**kinds: type[Message]) -> Any:
    """A plan of tasks with one port `out` each, and a sink."""
    slots = [
        Slot(at, task, "out", f"/{task}/out", kind, logged=True)
        for at, (task, kind) in enumerate(kinds.items())
    ]
    steps = [SimpleNamespace(task=SimpleNamespace(id=id_)) for id_ in [*kinds, "sink"]]
    return SimpleNamespace(slots=slots, steps=steps)


PORTS = ports(n=IntMsg, f=FloatMsg, b=BytesMsg, g=GridMsg, i=ImageRgb8Msg, d=DetectionsMsg)


def made(port: str, values: dict[str, Any]) -> dict[str, Any]:
    [slot] = [slot for slot in PORTS.slots if slot.task_id == port]
    fields = slot.message_type.decode_fields(
        injected_message(PORTS, port, values, tov_ns=None).data
    )
    return {name: it.tolist() if isinstance(it, np.ndarray) else it for name, it in fields.items()}


def test_fields_are_made_of_what_json_holds():
    assert made("n", {"value": 3}) == {"value": 3}
    assert made("f", {"value": 3}) == {"value": 3}
    assert made("b", {"value": base64.b64encode(b"\0\xff").decode()}) == {"value": b"\0\xff"}
    assert made("g", {"grid": [[1, 2.5]]}) == {"grid": [[1.0, 2.5]], "note": ""}
    assert made("g", {"grid": [], "note": "none"}) == {"grid": [], "note": "none"}
    data = base64.b64encode(np.array([[1, 2]], "<f4")).decode()
    assert made("g", {"grid": {"dtype": "<f4", "shape": [1, 2], "data": data}})["grid"] == [[1, 2]]
    found = made(
        "d", {"boxes": [[0, 1, 2, 3]], "scores": [None], "labels": ["a"], "class_ids": [7]}
    )
    assert str(found["scores"]) == "[nan]"
    assert made("i", {"pixels": [[[1, 2, 3]]], "frame_id": 5})["pixels"] == [[[1, 2, 3]]]
    assert made("i", {"pixels": np.zeros((2, 2, 3), np.uint8)})["frame_id"] == 0


GRID = (
    "g.out: GridMsg.grid: expected float32 of shape (N 2) as nested lists, or as dtype, shape and "
)


@pytest.mark.parametrize(
    ("port", "values", "error"),
    [
        ("n", {"value": "3"}, "n.out: IntMsg.value: expected int, got str '3'"),
        ("n", {"valu": 3}, "IntMsg has no field 'valu'; fields: value (did you mean 'value'?)"),
        ("b", {"value": "ä"}, "b.out: BytesMsg.value: expected bytes in base64, got 'ä': string "
         "argument should contain only ASCII characters"),
        ("g", {"grid": [[1, 2], [3]]}, GRID + "data in base64; got [[1, 2], [3]]"),
        ("g", {"grid": [[1, "2"]]}, GRID + "data in base64; got [[1, '2']]"),
        ("g", {"grid": [[1, 1e300]]}, GRID + "data in base64; got [[1, 1e+300]]"),
        ("g", {"grid": {"dtype": "<f4"}}, GRID + "data in base64; got {'dtype': '<f4'}"),
        ("g", {"grid": [[1, 2, 3]]}, "g.out: GridMsg.grid: expected float32 of shape (N 2), got "
         "float32 of shape (1, 3)"),
        ("i", {"frame_id": 3}, "i.out: pixels are missing; a picture file has them"),
        ("i", {"pixels": [[[1, 2, 256]]]}, "i.out: ImageRgb8Msg.pixels: expected uint8 of shape "
         "(H W 3) as nested lists, or as dtype, shape and data in base64; got [[[1, 2, 256]]]"),
        ("i", {"pixels": [[[1, 2, 0.5]]]}, "i.out: ImageRgb8Msg.pixels: expected uint8 of shape "
         "(H W 3) as nested lists, or as dtype, shape and data in base64; got [[[1, 2, 0.5]]]"),
        ("d", {"labels": ["a"]}, "d.out: DetectionsMsg: every object has one box, score, label and "
         "class id; got boxes 0, scores 0, labels 1, class_ids 0"),
        ("i", {"pixels": np.zeros((4000, 4000, 3), np.uint8)}, "i.out: the message has 48,000,050 "
         "bytes; at most 33,554,432 can be published from outside"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(port, values, error):
    with pytest.raises(UsageError) as raised:
        injected_message(PORTS, port, values, tov_ns=None)
    assert re.sub("48,000,0..", "48,000,050", str(raised.value)) == error


@pytest.mark.parametrize(
    ("port", "error"),
    [
        ("y.out", "unknown port 'y.out'; ports to publish on: n.out, two.a, two.b"),
        ("two", "task 'two' has 2 ports; name one: two.a, two.b"),
        ("n.ouf", "task 'n' has no output 'ouf'; outputs: out (did you mean 'out'?)"),
        ("sink", "task 'sink' has no outputs; ports to publish on: n.out, two.a, two.b"),
    ],
)
def test_an_unknown_port_names_those_that_there_are(port, error):
    plan = ports(n=IntMsg, two=IntMsg)
    two = plan.slots.pop()
    plan.slots += [replace(two, port="a"), replace(two, port="b")]
    with pytest.raises(UnknownPort, match=f"^{re.escape(error)}"):
        injected_message(plan, port, {}, tov_ns=None)
