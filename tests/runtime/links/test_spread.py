"""Which replica gets what is sent."""

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from flowrun.runtime.events import Assigned
from flowrun.runtime.links.spread import Spread, chosen
from flowrun.runtime.links.wire import Stream
from flowrun.runtime.log.message import LoggedCycle
from flowrun.runtime.log.slab.format import CONTROL_TOPIC

replicas = st.sets(st.integers(0, 20).map(str), min_size=2, max_size=8)
KEYS = [f"dock/dock{n}" for n in range(60)]


@given(replicas, st.data())
def test_where_a_replica_goes_only_its_own_keys_move(names, data):
    gone = data.draw(st.sampled_from(sorted(names)))
    for key in KEYS:
        before = chosen(key, names)
        if before != gone:
            assert chosen(key, names - {gone}) == before


def test_keys_are_spread_evenly():
    counts = [0, 0, 0, 0]
    for number in range(4000):
        counts[int(chosen(f"dock/dock{number}", ["0", "1", "2", "3"]))] += 1
    assert min(counts) > 900


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["0", "1", "2"])), max_size=10))
def test_each_cycle_belongs_to_the_replica_recorded_last(moves):
    spread = Spread("gpu", "0", [Stream("/n/out", "n_out")], frozenset())
    expected, cycle, present = [], 0, "0"
    for passes, replica in moves:
        for _ in range(passes):
            spread.look(LoggedCycle(cycle, 0, []))
            expected.append(present)
            cycle += 1
        present = replica
        record = memoryview(msgpack.packb(Assigned("n", "gpu", replica).pack()))
        other = memoryview(msgpack.packb(Assigned("n", "other", "9").pack()))
        entries = [(CONTROL_TOPIC, 0, record), (CONTROL_TOPIC, 0, other)]
        spread.look(LoggedCycle(cycle, 0, entries))
        expected.append(present)
        cycle += 1
    assert [spread.at(it) for it in range(cycle)] == expected
    assert spread.current == present
