"""When a ring of partitions has ended."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrun.runtime.fleet.record import fleet_runs
from flowrun.runtime.fleet.replay import FleetReplay
from flowrun.runtime.graph.plan import load_plan
from flowrun.runtime.links.rest import Rest, have_ended
from flowrun.runtime.replay.graph import recorded_graph

from .test_links import Fleet


class Ring:
    """Processes that pass messages on: a model, in which what one of them says is as old as may be."""

    def __init__(self, seed, links):
        self.random = random.Random(seed)
        self.names = sorted({name for link in links for name in link})
        self.links = links
        self.under_way = dict.fromkeys(links, 0)
        self.sent, self.took = dict(self.under_way), dict(self.under_way)
        self.own = dict.fromkeys(self.names, 3)
        """How often each still sends by itself."""
        self.rests = {}

    @property
    def is_quiet(self):
        return not any(self.under_way.values()) and not any(self.own.values())

    def step(self):
        name = self.random.choice(self.names)
        comes = [link for link in self.links if link[1] == name and self.under_way[link]]
        if self.own[name] and self.random.random() < 0.5:
            self.own[name] -= 1
            self.send(name)
        elif comes:
            link = self.random.choice(comes)
            self.under_way[link] -= 1
            self.took[link] += 1
            if self.random.random() < 0.6:
                self.send(name)
        elif not self.own[name] and self.random.random() < 0.5:
            self.say(name)

    def send(self, name):
        link = self.random.choice([link for link in self.links if link[0] == name])
        self.under_way[link] += 1
        self.sent[link] += 1

    def say(self, name):
        self.rests[name] = Rest(
            1,
            {to: self.sent[name, to] for at, to in self.links if at == name},
            {at: (1, self.took[at, to]) for at, to in self.links if to == name},
        )


@given(
    seed=st.integers(0, 10_000),
    links=st.sampled_from(
        [["ab", "ba"], ["ab", "bc", "ca"], ["ab", "ba", "bc", "cb"], ["ab", "bc", "ca", "ac", "ba"]]
    ),
)
def test_who_says_that_a_ring_has_ended_is_right(seed, links):
    ring = Ring(seed, [tuple(link) for link in links])
    for _ in range(2000):
        ring.step()
        if have_ended(ring.names, ring.rests):
            assert ring.is_quiet
            return
    raise AssertionError("it never ended")


def test_another_run_of_a_sender_is_not_the_one_that_was_taken():
    rests = {"a": Rest(7, {"b": 3}, {"b": (1, 0)}), "b": Rest(1, {}, {"a": (7, 3)})}
    assert have_ended(("a", "b"), rests)
    assert not have_ended(("a", "b"), rests | {"a": rests["a"]._replace(run=8)})
    assert not have_ended(("a", "b", "c"), rests)


@pytest.mark.parametrize("data", [None, 3, [1, {}], [1, {}, {"a": 3}], [1, [2], {}], ["x", {}, {}]])
def test_what_another_version_says_is_no_rest(data):
    assert Rest.from_data(data) is None


def test_what_was_said_is_read():
    said = Rest(1, {"b/0": 3}, {"b/0": (5, 2)})
    assert Rest.from_data([1, {"b/0": 3}, {"b/0": [5, 2]}]) == said


TASKS = (
    "{id: n, type: support.paced_tasks.Paced, partition: dock},"
    "{id: x, type: Square, partition: gpu},"
    "{id: y, type: Print, partition: dock}"
)
CNX = "{src: n, dst: x, msg: IntMsg, link: LINK}, {src: x, dst: y, msg: IntMsg, link: LINK}"


@pytest.mark.parametrize("deliver", ["every", "latest"])
def test_partitions_that_send_to_each_other_end_with_all_that_was_sent(tmp_path, deliver):
    pytest.importorskip("zenoh")
    fleet = Fleet(tmp_path, TASKS, CNX.replace("LINK", f"{{deliver: {deliver}}}"))
    fleet.begin("gpu")
    fleet.begin("dock")
    results = fleet.end("dock", "gpu")
    assert [(it.reason, it.error) for it in results] == [("end of sources", None)] * 2
    with fleet.log("gpu") as gpu, fleet.log("dock") as dock:
        made = [it.fields["value"] for it in gpu.messages("/x/square")]
        came = [it.fields["value"] for it in dock.messages("/from_gpu/x_square")]
        assert came[-1] == made[-1] == 19 * 19
        if deliver == "every":
            assert came == made == [it * it for it in range(20)]
    with FleetReplay(fleet_runs(tmp_path), specs=lambda log: recorded_graph(log, {})) as replay:
        assert replay.run().is_identical


def test_a_ring_is_of_those_that_lead_back(tmp_path):
    path = tmp_path / "g.yaml"
    path.write_text(
        """\
partitions: {a: {}, b: {replicas: 2}, c: {}, d: {}, e: {}}
tasks:
  - {id: n, type: Counter, partition: a}
  - {id: x, type: Square, partition: b}
  - {id: y, type: Square, partition: c}
  - {id: z, type: Print, partition: a}
  - {id: last, type: Print, partition: d}
  - {id: first, type: Counter, partition: e}
  - {id: taken, type: Print, partition: a}
cnx:
  - {src: n, dst: x, msg: IntMsg}
  - {src: x, dst: y, msg: IntMsg}
  - {src: y, dst: z, msg: IntMsg}
  - {src: y, dst: last, msg: IntMsg}
  - {src: first, dst: taken, msg: IntMsg}
"""
    )
    rings = {
        part: [str(it) for it in load_plan(path, env={}, partition=part).graph.ring]
        for part in ("a", "b/1", "c", "d", "e")
    }
    whole = ["a/0", "b/0", "b/1", "c/0"]
    assert rings == {"a": whole, "b/1": whole, "c": whole, "d": [], "e": []}
