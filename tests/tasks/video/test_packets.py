"""Which packets the log gets with which picture."""

from __future__ import annotations

import pytest

from flowrun.msgs.image import VideoPackets
from flowrun.tasks.video.packets import Origin, PacketQueue
from support.packets import plain_decoder

ONE, OTHER = (plain_decoder(name, 2, 2) for name in ("h264", "mpeg4"))


def filled(*packets: tuple[int, int, bytes]) -> PacketQueue:
    """A queue of packets (section, number, data), with key frames at 0 and 3; sections 0 and 1 begin
    there."""
    queue = PacketQueue()
    queue.begin_section(0, ONE, 0)
    queue.begin_section(1, OTHER, 3)
    for section, number, data in packets:
        queue.append(section, number, data, is_key=number in (0, 3))
    return queue


PACKETS = (0, 0, b"a"), (0, 1, b"b"), (0, 2, b"c"), (1, 3, b"d"), (1, 4, b"e")


def test_a_picture_takes_what_its_decoder_has_got_since_the_one_before() -> None:
    queue = filled(*PACKETS)
    assert queue.take(Origin(0, 0, 1, drained=False)) == VideoPackets(
        ONE, ((b"a", True), (b"b", False)), 0, 0, 0, begins=True, drained=False
    )
    assert queue.take(Origin(0, 2, 2, drained=False)) == VideoPackets(
        ONE, ((b"c", False),), 2, 2, 0, begins=False, drained=False
    )
    # The section after it has begun already.
    assert queue.take(Origin(0, 1, 2, drained=True)) == VideoPackets(
        ONE, (), 3, 1, 0, begins=False, drained=True
    )
    assert queue.take(Origin(1, 3, 3, drained=False)) == VideoPackets(
        OTHER, ((b"d", True),), 3, 3, 1, begins=True, drained=False
    )
    assert queue.take(Origin(1, 4, 5, drained=False)) == VideoPackets(
        OTHER, ((b"e", False),), 4, 4, 1, begins=False, drained=False
    )
    assert queue.take(Origin(1, 5, 5, drained=False)) == VideoPackets(
        OTHER, (), 6, 5, 1, begins=False, drained=False
    )


def test_sections_before_a_pictures_own_are_over() -> None:
    queue = filled(*PACKETS)
    video = queue.take(Origin(1, 4, 4, drained=False))
    assert video is not None
    assert (video.packets, video.begins) == (((b"d", True), (b"e", False)), True)
    assert queue.take(Origin(0, 0, 0, drained=False)) is None
    assert queue.take(Origin(2, 5, 5, drained=False)) is None


def test_packets_that_are_no_more_than_64_mib_are_kept() -> None:
    mib = bytes(1 << 20)
    queue = filled(*((0, number, mib) for number in range(64)))
    assert not queue.overflowed
    video = queue.take(Origin(0, 0, 0, drained=False))
    assert video is not None
    assert len(video.packets) == 1
    queue.append(0, 64, mib[:-1], is_key=False)
    queue.append(0, 65, b"a", is_key=False)  # what was taken makes room
    assert not queue.overflowed
    queue.append(0, 66, b"b", is_key=False)
    assert queue.overflowed
    queue.append(0, 67, mib, is_key=False)
    video = queue.take(Origin(0, 67, 67, drained=False))
    assert video is not None
    assert (video.first, len(video.packets), video.begins) == (67, 1, False)
    for number in range(68, 68 + 64):
        queue.append(0, number, mib, is_key=False)
    video = queue.take(Origin(0, 131, 131, drained=False))
    assert video is not None
    assert (video.first, len(video.packets)) == (68, 64)
    for number in range(132, 132 + 64):
        queue.append(0, number, mib, is_key=False)
    queue.append(0, 196, b"a", is_key=False)
    video = queue.take(Origin(0, 196, 196, drained=False))
    assert video is not None
    assert video.packets == ()


@pytest.mark.parametrize("section", [0, 1])
def test_a_section_makes_an_end_of_what_overflowed(section: int) -> None:
    assert not PacketQueue().overflowed
    queue = filled((section, 3, bytes((64 << 20) + 1)))
    assert queue.overflowed
    queue.begin_section(2, ONE, 4)
    assert not queue.overflowed


def test_packets_that_no_picture_will_take_are_forgotten() -> None:
    queue = PacketQueue()
    for section in range(3):
        queue.begin_section(section, ONE, 2 * section)
        queue.append(section, 2 * section, b"key", is_key=True)
        queue.append(section, 2 * section + 1, b"other", is_key=False)
    queue.forget_before(2)
    assert queue.take(Origin(1, 2, 2, drained=False)) is None
    assert (queue._size, list(queue._sections)) == (8, [2])
    video = queue.take(Origin(2, 5, 5, drained=False))
    assert video is not None
    assert [data for data, _ in video.packets] == [b"key", b"other"]
