"""What of the messages that have come enters a cycle."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from flowrun.runtime.links.arrived import Gap, Taken
from flowrun.runtime.links.delivery import next_batch
from flowrun.runtime.links.runs import Cursor
from flowrun.runtime.links.wire import CONTEXT, CYCLE, Carried, Head, Stream

MS = 1_000_000
EVERY = Stream("/a/out", "a_out", deliver="every")
LATEST = Stream("/b/out", "b_out", deliver="latest")
AGED = Stream("/c/out", "c_out", deliver="every", max_age_ms=500)
STREAMS = [EVERY, LATEST, AGED]


class Waiting:
    """What has come, in place of a receiver."""

    def __init__(self, items):
        self.items = deque(items)

    def peek(self):
        return self.items[0] if self.items else None

    def take(self):
        return self.items.popleft()


def taken(cycle, streams, *, tov_ns=0, run=1, kind=CYCLE):
    messages = [Carried(it, tov_ns, b"%d" % cycle) for it in streams]
    return Taken(Head(run, 0, 0, kind, cycle, cycle, 0), messages, b"%d" % cycle)


def batches(items, now_ns=0):
    waiting, found = Waiting(items), []
    while waiting.items:
        found.append(next_batch(waiting, STREAMS, now_ns))
    return found


@given(st.lists(st.sets(st.integers(0, 2), min_size=1), max_size=30))
def test_each_message_is_passed_once_and_none_of_every_is_passed_over(cycles):
    items = [taken(cycle, sorted(streams)) for cycle, streams in enumerate(cycles)]
    found = [batch for _, batch in batches(items)]
    passed = [it for batch in found for it in batch.passed]
    assert [(it.cycle, it.message) for it in passed] == [
        (item.head.cycle, message) for item in items for message in item.messages
    ]
    assert all(it.shown for it in passed if it.message.stream != 1)
    for batch in found:
        newest = [it for it in batch.passed if it.message.stream == 1]
        assert [it.shown for it in newest] == [False] * (len(newest) - 1) + [True] * bool(newest)


def test_a_run_of_the_latest_is_one_batch_up_to_a_cycle_that_is_not():
    [(_, one), (_, two), (_, three)] = batches(
        [taken(3, [1]), taken(4, [1]), taken(5, [0, 1]), taken(6, [1])]
    )
    assert [(it.first, it.cycle, it.skipped) for it in (one, two, three)] == [
        (3, 4, 1),
        (5, 5, 0),
        (6, 6, 0),
    ]


def test_a_message_that_is_too_old_is_not_shown():
    items = [taken(0, [2], tov_ns=0), taken(1, [2], tov_ns=300 * MS)]
    [(_, old), (_, young)] = batches(items, now_ns=600 * MS)
    assert [(it.passed[0].shown, it.passed[0].is_old) for it in (old, young)] == [
        (False, True),
        (True, False),
    ]


def test_cycles_of_two_runs_are_never_one_batch():
    found = batches([taken(3, [1], run=1), taken(0, [1], run=2)])
    assert [(batch.run, batch.cycle) for _, batch in found] == [(1, 3), (2, 0)]


def test_a_gap_is_a_batch_of_its_own_after_what_came_before():
    gap = Gap(1, 4, 7, "gone", Cursor(1, 8))
    [(_, before), (_, missing), (_, after)] = batches([taken(3, [1]), gap, taken(8, [1])])
    assert (before.cycle, before.gap) == (3, None)
    assert (missing.gap, missing.passed, missing.after) == (gap, [], Cursor(1, 8))
    assert (after.first, after.cycle) == (8, 8)


def test_a_context_is_given_apart():
    context = taken(2, [1], kind=CONTEXT)
    [(given_apart, batch)] = batches([context, taken(3, [1])])
    assert given_apart == [context]
    assert batch.cycle == 3
