"""What a sender's log no longer has is a record at the receiver, not silence."""

import shutil

import pytest

from flowrun.runtime.links.fake import FakeNetwork, Faults
from support.link_processes import Pair

HOUR_NS = 3_600_000_000_000


def fill(pair, count):
    for _ in range(count):
        pair.sender.make((0,))


def settle(pair, *, steps=200):
    for _ in range(steps):
        pair.step(500)


@pytest.mark.slow
def test_what_a_flight_recorder_removed_is_a_gap_and_what_is_left_comes(tmp_path):
    pair = Pair(FakeNetwork(), tmp_path)
    pair.sender.begin(keep_slabs=1)
    pair.receiver.begin()
    fill(pair, 10)
    for _ in range(5):
        pair.step(500)
    assert len(pair.receiver.got()) == 10
    pair.network.cut("dock/0", "gpu/0")
    fill(pair, 12_000)
    pair.sender.writer._slabs._wait_for_finished()  # another thread removes the last one that is full
    pair.step(10)
    pair.sender.shipper._logs.close()  # it would still have what it held open
    pair.network.mend("dock/0", "gpu/0")
    settle(pair)
    got, sent = pair.receiver.got(), pair.sender.sent
    [gap] = [it for it in pair.receiver.origins() if it["gap"]]
    first = gap["gap_to"] + 1
    pair.sender.kill()
    pair.receiver.kill()
    assert (gap["gap_run"], gap["gap_from"]) == (pair.sender.run, 10)
    assert gap["gap"] == "the sender's log no longer has them"
    assert 10 < first < 12_000
    assert got == sent[:10] + sent[first:]


def test_a_run_that_was_removed_is_a_gap_to_its_end(tmp_path):
    pair = Pair(FakeNetwork(), tmp_path)
    pair.sender.begin()
    pair.receiver.begin()
    fill(pair, 10)
    for _ in range(5):
        pair.step(500)
    pair.network.cut("dock/0", "gpu/0")
    fill(pair, 5)
    pair.sender.kill()
    shutil.rmtree(pair.sender.path)
    pair.sender.begin()
    fill(pair, 7)
    pair.network.mend("dock/0", "gpu/0")
    settle(pair, steps=40)
    got, sent = pair.receiver.got(), pair.sender.sent
    [gap] = [it for it in pair.receiver.origins() if it["gap"]]
    pair.sender.kill()
    pair.receiver.kill()
    assert (gap["gap_run"], gap["gap_from"], gap["gap_to"]) == (1_000_000_000, 10, -1)
    assert got == sent[:10] + sent[15:]


def test_where_the_clock_was_set_back_no_run_is_left_out_after_one_that_was_removed(tmp_path):
    pair = Pair(FakeNetwork(), tmp_path)
    pair.sender.begin(clock_ns=HOUR_NS)
    pair.receiver.begin()
    fill(pair, 10)
    for _ in range(5):
        pair.step(500)
    pair.network.cut("dock/0", "gpu/0")
    pair.sender.kill()
    shutil.rmtree(pair.sender.path)
    for _ in range(2):
        pair.sender.begin()
        fill(pair, 7)
        pair.sender.kill()
    pair.sender.begin()
    pair.network.mend("dock/0", "gpu/0")
    settle(pair, steps=40)
    got, sent = pair.receiver.got(), pair.sender.sent
    [gap] = [it for it in pair.receiver.origins() if it["gap"]]
    pair.sender.kill()
    pair.receiver.kill()
    assert (gap["gap_from"], gap["gap_to"]) == (10, -1)
    assert got == sent


def test_a_sender_whose_clock_was_set_back_goes_on(tmp_path):
    """The run that begins has a smaller number than the one before it."""
    pair = Pair(FakeNetwork(), tmp_path)
    pair.receiver.begin()
    for clock_ns in (HOUR_NS, 0, 2 * HOUR_NS):
        pair.sender.begin(clock_ns=clock_ns)
        for _ in range(5):
            pair.sender.make((0,))
            pair.step(500)
        pair.sender.make((0, 1))  # nobody has heard of it when it is killed
        pair.sender.kill()
    pair.sender.begin()
    settle(pair, steps=20)
    assert pair.receiver.got() == pair.sender.sent
    assert not any(it["gap"] for it in pair.receiver.origins())
    pair.sender.kill()
    pair.receiver.kill()


def test_a_flipped_byte_is_named_and_comes_again(tmp_path):
    pair = Pair(FakeNetwork(3, Faults(flip=1.0)), tmp_path)
    pair.sender.begin()
    pair.receiver.begin()
    pair.step(500)
    pair.network.faults = Faults()
    pair.step(500)
    pair.network.faults = Faults(flip=1.0)
    fill(pair, 1)
    pair.step(10)
    [note] = [it for it in pair.receiver.notes if "cycle 0" in it]
    pair.network.faults = Faults()
    settle(pair, steps=10)
    got, sent = pair.receiver.got(), pair.sender.sent
    pair.sender.kill()
    pair.receiver.kill()
    assert note.startswith(
        "what dock/0 sent was changed on the way: run 1000000000, cycle 0: CRC-32 "
    )
    assert got == sent
