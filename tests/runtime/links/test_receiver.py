"""What a receiver says to the thread that pumps it."""

from flowrun.runtime.links.arrived import Taken
from flowrun.runtime.links.fake import FakeNetwork
from flowrun.runtime.links.receiver import Receiver
from flowrun.runtime.links.runs import Cursor
from flowrun.runtime.links.transport import Sample
from flowrun.runtime.links.wire import CYCLE, STATUS, Carried, Head, Peer, Stream, packed, sealed

SENDER, OWN = Peer("dock", "0", 0, 0), Peer("gpu", "0", 1, 0)
RUN = 7


def receiver_of(urged):
    made = Receiver(
        FakeNetwork().transport("gpu/0"),
        graph="g",
        own=OWN,
        sender=SENDER,
        streams=[Stream("/n/value", "n_value")],
        cursor=Cursor(RUN, 0),
        urge=lambda: urged.append(True),
    )
    made._arrived.is_behind = False
    return made


def sample_of(cycle, *, kind=CYCLE, flipped=False):
    payload = packed([Carried(0, 1, b"x")])
    seal = sealed(Head(RUN, 0, 0, kind, cycle, cycle, 1), payload)
    return Sample("", payload[:-1] + b"y" if flipped else payload, seal)


def test_what_comes_in_order_urges_nobody():
    urged = []
    receiver = receiver_of(urged)
    for cycle in range(3):
        receiver.on_sample(sample_of(cycle))
    assert not receiver.is_behind
    assert urged == []
    assert isinstance(receiver.take(), Taken)


def test_what_is_missing_is_asked_for_at_once_and_urged_once():
    urged = []
    receiver = receiver_of(urged)
    for cycle in (0, 2, 3):
        receiver.on_sample(sample_of(cycle))
    assert receiver.is_behind
    assert urged == [True]


def test_a_message_that_was_changed_and_the_end_of_the_sender_urge():
    urged = []
    receiver = receiver_of(urged)
    receiver.on_sample(sample_of(0, flipped=True))
    assert (receiver.is_behind, len(urged)) == (True, 1)
    receiver = receiver_of(urged)
    receiver.on_sample(sample_of(0, kind=STATUS))
    assert (receiver.is_behind, len(urged)) == (True, 2)
