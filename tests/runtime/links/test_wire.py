"""The bytes on the wire."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrun.runtime.links.hello import WIRE, Hello
from flowrun.runtime.links.wire import (
    Carried,
    Head,
    Question,
    Status,
    Stream,
    WireError,
    opened,
    pack_run,
    packed,
    sealed,
    unpack_run,
    unpacked,
)

u64 = st.integers(0, 2**64 - 1)
u16 = st.integers(0, 2**16 - 1)
heads = st.builds(Head, u64, u16, u16, st.integers(0, 2), u64, u64, u64)
STREAMS = [Stream(f"/t{n}/out", f"t{n}_out") for n in range(3)]
messages = st.lists(st.builds(Carried, st.integers(0, 2), u64, st.binary(max_size=50)), max_size=5)
statuses = st.builds(
    Status, u64, u64, u64, u64, st.booleans(), st.booleans(), u64, u64, st.booleans(), st.text()
)


@given(heads, messages)
def test_what_was_packed_comes_back(head, sent):
    payload = packed(sent)
    assert opened(sealed(head, payload), payload) == head
    assert [it._replace(data=bytes(it.data)) for it in unpacked(payload, STREAMS)] == sent


@given(heads, messages, st.data())
def test_each_flipped_bit_is_found(head, sent, data):
    payload = packed(sent)
    attachment = sealed(head, payload)
    whole = bytearray(attachment + payload)
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(WireError):
        opened(bytes(whole[: len(attachment)]), bytes(whole[len(attachment) :]))


@given(st.binary(max_size=80))
def test_other_bytes_are_refused_or_are_messages(data):
    try:
        found = unpacked(data, STREAMS)
    except WireError:
        return
    assert packed(found) == data


@given(st.binary(max_size=60))
def test_other_bytes_are_no_head_question_or_status(data):
    for read in (lambda it: opened(it, b""), Question.unpack, Status.unpack):
        try:
            read(data)
        except WireError:
            continue
        assert read == Question.unpack
        assert len(data) == len(Question(0, 0, 0, context=False).pack())


@given(st.builds(Question, u64, u64, st.integers(0, 2**32 - 1), st.booleans()), statuses)
def test_questions_and_statuses_come_back(question, status):
    assert Question.unpack(question.pack()) == question
    assert unpack_run(pack_run(question.run)) == question.run
    assert Status.unpack(status.pack()) == status


def test_a_message_that_is_cut_off_says_where():
    payload = packed([Carried(0, 5, b"abc")])
    texts = []
    for data in (payload[:5], payload[:-1], packed([Carried(7, 5, b"")])):
        with pytest.raises(WireError) as found:
            unpacked(data, STREAMS)
        texts.append(str(found.value))
    assert texts == [
        "a message's head at byte 0 of 5 is cut off",
        "a message of 3 bytes at byte 14 of 16",
        "a message of stream 7; there are 3",
    ]


@given(st.data())
def test_a_question_a_hello_and_a_run_with_a_changed_bit_are_refused(data):
    asked = Question(1, 2, 3, context=True).pack()
    said = Hello(WIRE, [["/n/out", "IntMsg", 7]], 5).pack()
    run = pack_run(1_767_225_600_000_000_000)
    for sent in (asked, said, run):
        bit = data.draw(st.integers(0, 8 * len(sent) - 1))
        changed = bytearray(sent)
        changed[bit // 8] ^= 1 << (bit % 8)
        if sent is said:
            assert Hello.unpack(bytes(changed)) is None
        else:
            with pytest.raises(WireError):
                (Question.unpack if sent is asked else unpack_run)(bytes(changed))
