from __future__ import annotations

from typing import get_args

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrun.msgs.image import UnseenPacket
from flowrun.runtime import events
from flowrun.runtime.events import (
    Assigned,
    Completion,
    Dropped,
    EndOfSource,
    Event,
    Failed,
    Injected,
    Met,
    Packets,
    Reached,
    Replaced,
    Restarted,
    Set,
    SourceState,
    Stays,
    Switched,
    unpack,
)
from flowrun.runtime.task import Playback, State

tasks = st.text()
cycles = st.integers(0, 2**63)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
packets = st.builds(
    UnseenPacket, st.binary(), st.booleans(), st.none() | st.integers(-(2**62), 2**62)
)
BY_KIND: dict[type[Event], st.SearchStrategy[Event]] = {
    Set: st.builds(Set, tasks, st.dictionaries(st.text(), plain, max_size=4)),
    Injected: st.builds(
        Injected, tasks, st.text(), st.binary(), st.none() | st.integers(0, 2**63 - 1)
    ),
    Completion: st.builds(Completion, tasks, cycles, st.booleans()),
    EndOfSource: st.builds(EndOfSource, tasks),
    Packets: st.builds(Packets, tasks, st.lists(packets, max_size=3).map(tuple)),
    Failed: st.builds(
        Failed, tasks, st.sampled_from(["stop", "skip", "skip_cycle", "restart"]), st.text(),
        st.sampled_from(["process", "publish", "configure"]), st.text(),
    ),
    Restarted: st.builds(Restarted, tasks),
    Dropped: st.builds(Dropped, tasks, cycles, st.text()),
    Replaced: st.builds(Replaced, tasks, cycles),
    Assigned: st.builds(Assigned, tasks, st.text(), st.text()),
    Met: st.builds(Met, tasks, st.integers(-(2**62), 2**62)),
    Stays: st.builds(Stays, tasks, st.text(), st.text()),
    Reached: st.builds(Reached, tasks, st.integers(0, 2**62), st.integers(0, 2**62)),
    Switched: st.builds(Switched, tasks, st.sampled_from(get_args(Playback))),
    SourceState: st.builds(SourceState, tasks, st.sampled_from(get_args(State)), st.text()),
}  # fmt: skip


def test_every_kind_is_tried():
    assert {kind.__name__ for kind in BY_KIND} == set(events.__all__) - {
        "Event",
        "OUTSIDE",
        "RESTATED",
        "unpack",
    }
    assert len({kind.kind for kind in BY_KIND}) == len(BY_KIND)


@given(st.one_of(*BY_KIND.values()))
def test_an_event_comes_back_from_its_record(event):
    record = event.pack()
    again = unpack(msgpack.unpackb(msgpack.packb(record)))
    assert (type(again), again) == (type(event), event)
    assert again.pack() == record


@given(st.one_of(*BY_KIND.values()))
def test_a_record_has_the_five_keys_and_those_of_an_error_that_say_something(event):
    record = event.pack()
    keys = ["kind", "task", "key", "value", "input_cycle"]
    if isinstance(event, Failed) and event.phase != "process":
        keys.append("phase")
    if isinstance(event, Failed) and event.place:
        keys.append("place")
    if isinstance(event, Packets):
        keys.append("packets")
    if isinstance(event, Injected) and event.tov_ns is not None:
        keys.append("tov_ns")
    assert list(record) == keys


@pytest.mark.parametrize("kind", ["stop", "", None, 3])
def test_a_record_of_unknown_kind_is_refused(kind):
    with pytest.raises(ValueError, match=f"^a control record of unknown kind {kind!r}$"):
        unpack({**EndOfSource("n").pack(), "kind": kind})


@given(st.one_of(*BY_KIND.values()), st.sampled_from(["kind", "task", "key", "value"]))
def test_a_record_that_lacks_a_key_is_refused(event, key):
    record = event.pack()
    del record[key]
    with pytest.raises(ValueError, match=f"^not a control record: KeyError\\('{key}'\\)$"):
        unpack(record)


@pytest.mark.parametrize("values", [3, None, "ab", [1]])
def test_live_values_that_are_no_map_are_refused(values):
    with pytest.raises(ValueError):  # Python's own text tells what the value is
        unpack({**Set("x", {}).pack(), "value": values})
