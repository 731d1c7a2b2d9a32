"""Which replica gets what is sent."""

import tempfile
from pathlib import Path

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrun.msgs import BytesMsg, IntMsg
from flowrun.runtime.events import Assigned
from flowrun.runtime.links.spread import Spread, chosen
from flowrun.runtime.links.wire import Stream
from flowrun.runtime.log.channels import LoggedOutput
from flowrun.runtime.log.message import LoggedCycle
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import CONTROL_TOPIC
from flowrun.runtime.log.writer import LogWriter

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


@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, None, "0", "1", "2"]),
            st.booleans(),
            st.sampled_from([10, 300_000, 500_000]),
            st.booleans(),
        ),
        min_size=1,
        max_size=40,
    )
)
@settings(max_examples=15, deadline=None)
def test_what_is_left_of_a_log_says_the_same_of_each_cycle_as_all_of_it(cycles):
    """Of pictures: each cycle may have a record, a key frame, and any size; lines may begin a slab."""
    streams = [Stream("/cam/image", "cam_image", is_picture=True)]

    def spread():
        made = Spread("gpu", "0", streams, frozenset(["/cam/image"]))
        made._begins = lambda cycle: any(
            name == "/flag/out" and msgpack.unpackb(data)["value"]
            for name, _, data in cycle.entries
        )
        return made

    outputs = [
        LoggedOutput("flag", "out", "/flag/out", IntMsg),
        LoggedOutput("fill", "out", "/fill/out", BytesMsg),
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        writer = LogWriter(
            path, outputs=outputs, steps=1, metadata={"run_id": "x"}, slab_size_mib=1,
            section_size_mib=1, sync_s=None,
        )  # fmt: skip
        messages = [it.message_type() for it in outputs]
        bound, followed, kept = writer.bind(messages), writer.follow(most=2), spread()
        writer.restate = lambda: kept.restated("cam")
        for number, (replica, begins, size, lines) in enumerate(cycles):
            if lines:
                writer.log_record(0, "info", "x" * size, "", {})
                writer.write_lines()
            messages[0].value, messages[1].value = int(begins), bytes(size)
            for message in messages:
                message.publish(tov_ns=0)
            events = [] if replica is None else [Assigned("cam", "gpu", replica)]
            writer.commit(number, number, bound, start_ns=0, ends_ns=[1], events=events)
            if events or kept.is_going_over:
                kept.look(LoggedCycle(*followed.last()))
        writer.finish({"reason": "test"})
        with Log(path) as log:
            whole, found = spread(), list(log.cycles())
            for cycle in found:
                whole.look(cycle)
            firsts = [slab.first(0).cycle for slab in log.slabs]
        for first in firsts:
            part = spread()
            for cycle in found[first:]:
                part.look(cycle)
            for at in range(first, len(cycles)):
                assert part.at(at) == whole.at(at)
            assert part.current == whole.current
        assert kept.current == whole.current
    assert expected_of(cycles) == [whole.at(it) for it in range(len(cycles))]


def expected_of(cycles):
    present, wanted, found = "0", None, []
    for replica, begins, _, _ in cycles:
        wanted = replica or wanted
        if begins and wanted is not None:
            present, wanted = wanted, None
        found.append(present)
    return found
