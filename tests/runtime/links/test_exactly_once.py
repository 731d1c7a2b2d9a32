"""Whatever the network does, and whoever is killed: each message that the sender's log has is in the
receiver's logs once, and in order."""

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowrun.runtime.links.fake import FakeNetwork, Faults
from support.link_processes import Pair

ENDS = "dock/0", "gpu/0"


def faults_of(chance):
    return Faults(
        drop=chance.choice([0.0, 0.05, 0.4]),
        duplicate=chance.choice([0.0, 0.3]),
        flip=chance.choice([0.0, 0.05]),
        delay_ns=chance.choice([0, 5_000_000, 300_000_000]),
    )


def play(pair, chance, *, acts=60, kills=True):
    """Have numbers sent while the network fails in changing ways and both are killed now and then."""
    pair.sender.begin()
    pair.receiver.begin()
    for _ in range(acts):
        act = chance.random()
        if act < 0.1:
            pair.network.faults = faults_of(chance)
        elif act < 0.16:
            pair.network.cut(*ENDS)
        elif act < 0.24:
            pair.network.mend(*ENDS)
        elif act < 0.32 and kills:
            process = chance.choice([pair.sender, pair.receiver])
            process.kill()
            process.begin()
        else:
            for _ in range(chance.randrange(8)):
                pair.sender.make(chance.choice([(), (0,), (1,), (0, 1)]))
            pair.step(chance.choice([1, 20, 400]), take=chance.random() < 0.8)
    pair.network.mend(*ENDS)
    pair.network.faults = Faults()
    for _ in range(60):
        pair.step(500)


def played(seed, **options):
    """What was sent, what was got, and the gaps."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        network = FakeNetwork(seed, faults_of(chance))
        # With room for 1 the sender falls behind in most steps, and reads its log.
        pair = Pair(network, Path(folder), most_followed=chance.choice([1, 4, 1024]))
        play(pair, chance, **options)
        got, sent = pair.receiver.got(), pair.sender.sent
        gaps = [it["gap"] for it in pair.receiver.origins() if it["gap"]]
        pair.sender.kill()
        pair.receiver.kill()
    return sent, got, gaps


@given(seed=st.integers(0, 2**32))
@example(seed=17135241)  # messages of an answer came twice, and as many were lost
@settings(max_examples=10, deadline=None)
def test_none_is_lost_none_comes_twice_and_all_are_in_order(seed):
    sent, got, gaps = played(seed)
    assert (got, gaps) == (sent, [])


@pytest.mark.long
@pytest.mark.timeout(1800)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_the_same_for_many_seeds(seed):
    sent, got, gaps = played(seed, acts=120)
    assert (got, gaps) == (sent, [])
