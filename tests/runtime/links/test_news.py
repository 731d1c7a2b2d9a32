"""What the processes of a fleet know of each other, on a network in memory."""

from __future__ import annotations

import json
from dataclasses import replace

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrun.runtime.links.fake import FakeNetwork, FakeTransport, Faults
from flowrun.runtime.links.news import News
from flowrun.runtime.links.status import LinkStatus, PartStatus, fleet_links
from flowrun.runtime.links.wire import Peer

PARTS = [Peer("a", "0", 0, 0), Peer("b", "0", 1, 0), Peer("c", "0", 2, 0)]
LINK = LinkStatus("a/0", "in", "connected", 7, 9, 2, gaps=1, clock_offset_ms=-4.0)


class Fleet:
    """Processes that tell each other how they are; only neighbours are connected."""

    def __init__(self, faults: Faults | None = None, *, seed: int = 0) -> None:
        self.network = FakeNetwork(seed, faults)
        self.now_s = 0.0
        self.ends: dict[str, FakeTransport] = {}
        self.news: dict[str, News] = {}
        self.said = {str(it): PartStatus(str(it), "running", cycles=1) for it in PARTS}
        for peer in PARTS:
            self.begin(peer, run=1)
        self.network.cut("a/0", "c/0")

    def begin(self, peer: Peer, *, run: int) -> None:
        name = str(peer)
        end = self.ends[name] = self.network.transport(name)
        self.news[name] = News(
            end,
            graph="g",
            own=peer,
            parts=PARTS,
            run=run,
            own_status=lambda: self.said[name],
            now_s=lambda: self.now_s,
        )

    def end(self, name: str) -> None:
        self.ends[name].close()
        del self.news[name]

    def go_on(self, seconds: int) -> None:
        for _ in range(10 * seconds):
            self.now_s += 0.1
            for it in self.news.values():
                it.pump(self.now_s)
            self.network.step(int(self.now_s * 1e9))

    def seen(self, by: str) -> dict[str, PartStatus]:
        return {it.part: it for it in self.news[by].all()}


def test_each_knows_all_though_only_neighbours_are_connected() -> None:
    fleet = Fleet()
    assert [it.state for it in fleet.news["a/0"].all()] == ["running", "unknown", "unknown"]
    fleet.said["c/0"] = replace(
        fleet.said["c/0"], cycles=12, errors=2, error="x", links=(LINK,), page="http://c:1/"
    )
    fleet.go_on(4)
    for name in fleet.news:
        found = fleet.seen(name)
        assert {it.state for it in found.values()} == {"running"}, name
        assert replace(found["c/0"], heard_s=None) == fleet.said["c/0"], name


def test_who_says_nothing_is_gone_and_comes_back_as_another_run() -> None:
    fleet = Fleet()
    fleet.go_on(3)
    fleet.said["c/0"] = replace(fleet.said["c/0"], cycle_rate_hz=20.0)
    fleet.go_on(3)
    fleet.end("c/0")
    fleet.go_on(4)
    assert fleet.seen("a/0")["c/0"].state == "running"  # it may be slow
    fleet.go_on(5)
    gone = fleet.seen("a/0")["c/0"]
    assert (gone.state, gone.cycle_rate_hz, gone.restarts) == ("gone", 0.0, 0)
    assert gone.heard_s is not None
    assert gone.heard_s > 5
    fleet.begin(PARTS[2], run=2)
    fleet.go_on(4)
    back = fleet.seen("a/0")["c/0"]
    assert (back.state, back.restarts) == ("running", 1)


@pytest.mark.parametrize("last", ["ended", "failed"])
def test_who_has_said_that_it_ends_is_not_gone(last: str) -> None:
    fleet = Fleet()
    fleet.go_on(3)
    fleet.said["c/0"] = replace(fleet.said["c/0"], state=last)
    fleet.news["c/0"].say(fleet.now_s)
    fleet.network.step(int(fleet.now_s * 1e9))
    fleet.end("c/0")
    fleet.go_on(20)
    assert fleet.seen("a/0")["c/0"].state == last


@pytest.mark.parametrize("seed", range(5))
def test_a_bad_network_tells_the_same_in_the_end(seed: int) -> None:
    fleet = Fleet(Faults(drop=0.3, duplicate=0.3, flip=0.3, delay_ns=2_000_000_000), seed=seed)
    fleet.go_on(20)
    fleet.said["c/0"] = replace(fleet.said["c/0"], cycles=99)
    fleet.go_on(40)
    assert fleet.seen("a/0")["c/0"].cycles == 99
    assert fleet.seen("a/0")["c/0"].restarts == 0


values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(key=st.sampled_from([*PartStatus("x").as_data(), "new"]), value=values)
def test_what_another_version_says_is_taken_or_left_out(key: str, value: object) -> None:
    said = {**PartStatus("x", "running", links=(LINK,)).as_data(), key: value}
    found = PartStatus.from_data(msgpack.unpackb(msgpack.packb(said)))
    if key == "new":
        assert found == PartStatus("x", "running", links=(LINK,))
    elif found is not None:
        model = PartStatus("x", heard_s=1.0, page="x")
        for name, got in found.as_data().items():
            numbers = isinstance(getattr(model, name), float) and isinstance(got, int)
            assert numbers or got is None or type(got) in (type(getattr(model, name)), list), name
        json.dumps(found.as_data(), allow_nan=False)


def test_a_link_is_said_once_by_the_end_that_knows_more() -> None:
    sent = LinkStatus("b/0", "out", "lost", 1, 9, 9)
    a = PartStatus("a/0", "running", links=(sent,))
    b = PartStatus("b/0", "running", links=(LINK,))
    assert fleet_links([a, b]) == [("a/0", "b/0", LINK)]
    assert fleet_links([a, replace(b, state="gone")]) == [("a/0", "b/0", sent)]
    assert fleet_links([PartStatus("a/0"), replace(b, state="gone")]) == [("a/0", "b/0", LINK)]
