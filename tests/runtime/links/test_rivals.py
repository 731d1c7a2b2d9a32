"""Two processes that were started as the same one, by mistake."""

import subprocess
import sys

import pytest

from flowrun.runtime.errors import UsageError
from flowrun.runtime.links.fake import FakeNetwork
from flowrun.runtime.links.rivals import Rival, Rivals, only_one
from support.link_processes import RECEIVER, Pair, ReceiverProcess, SenderProcess

S = 1_000_000_000


def test_a_process_that_follows_a_killed_one_is_no_rival():
    heard = Rivals()
    said = [(1, 0), (1, 5), (2, 5.5), (1, 6), (2, 7), (2, 9)]  # what was under way comes at 6
    assert [heard.hear(run, int(at_s * S)) for run, at_s in said] == [None] * 6


def test_a_process_that_goes_on_beside_a_later_one_is_its_rival():
    heard = Rivals()
    said = [(1, 0), (2, 5), (1, 6), (2, 7), (1, 7.5)]
    assert [heard.hear(run, int(at_s * S)) for run, at_s in said][-1] == Rival(earlier=1, later=2)


def test_a_later_process_that_has_ended_is_no_rival():
    heard = Rivals()
    heard.hear(1, 0)
    heard.hear(2, 1 * S)
    assert heard.hear(1, 20 * S) is None


HOLD = """
import sys
from pathlib import Path
from flowrun.runtime.links.rivals import only_one
from flowrun.runtime.links.wire import Peer
with only_one(Path(sys.argv[1]), "g", Peer("gpu", "0", 1, 0)):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_with_the_same_log_folder_is_refused(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UsageError) as found, only_one(tmp_path, "g", RECEIVER):
            pass
        with only_one(tmp_path, "another", RECEIVER):
            pass
        holder.kill()
    assert str(found.value) == (
        f"process {holder.pid} runs as gpu/0 already, with its logs in {tmp_path}: two would take the "
        "same messages; end it first"
    )
    with only_one(tmp_path, "g", RECEIVER):
        pass


def test_the_second_of_two_receivers_is_told_and_does_not_move_the_first_ones_cursor(tmp_path):
    pair = Pair(FakeNetwork(), tmp_path)
    pair.sender.begin()
    pair.receiver.begin()
    second = ReceiverProcess(pair.network, tmp_path / "other")
    second.runs = 50
    for step in range(20):
        if step == 3:
            second.begin()
        pair.sender.make((0,))
        pair.step(500)
        if step >= 3:
            second.pump(pair.now_ns)
            second.take(pair.now_ns)
    rival = Rival(pair.receiver.run, second.run)
    assert second.receiver.rival == pair.receiver.receiver.rival == rival
    assert pair.sender.notes == [
        f"two processes run as gpu/0: run {second.run} began while run {pair.receiver.run} goes on"
    ]
    said = pair.sender.shipper.acknowledged[RECEIVER]
    assert said.cycle == 19  # the second one is behind
    assert pair.receiver.got() == pair.sender.sent
    for process in (pair.sender, pair.receiver, second):
        process.kill()


def test_what_a_second_sender_sends_is_not_taken_while_the_first_one_is_at_work(tmp_path):
    pair = Pair(FakeNetwork(), tmp_path)
    pair.sender.begin()
    pair.receiver.begin()
    second = SenderProcess(pair.network, tmp_path / "other")
    second.runs = 50
    for step in range(40):
        if step == 5:
            second.begin()
        pair.sender.make((0,))
        if step >= 5:
            second.make((1,))
            second.pump(pair.now_ns)
        pair.step(200)
    assert pair.receiver.got() == pair.sender.sent
    assert not any(it["gap"] for it in pair.receiver.origins())
    assert pair.receiver.notes == [
        f"two processes run as dock/0: run {second.run} began while run {pair.sender.run} goes on; "
        "nothing of it is taken before that one ends"
    ]
    for process in (pair.sender, pair.receiver, second):
        process.kill()
