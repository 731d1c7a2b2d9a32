"""Pictures in whichever order they are asked for, by a decoder that does what each packet says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from flowrun.msgs.image import ImageRgb8Msg, VideoDecoder, VideoPackets
from flowrun.runtime.pictures import decode, stored
from flowrun.runtime.pictures.convert import CONVERSION
from flowrun.runtime.pictures.decode import PictureDecoder
from flowrun.runtime.pictures.stored import PictureEncoder, StoredPicture
from support.packets import plain_decoder


class Decoded(NamedTuple):
    pixels: NDArray[np.uint8]
    is_corrupt: bool = False


class Scripted:
    """Gives for a packet the pictures whose numbers are its bytes, without its first; at its end those
    whose numbers are its extradata."""

    made: ClassVar[list[Any]] = []
    lies: ClassVar[set[int]] = set()
    """Numbers of pictures that come out otherwise where they are decoded ahead."""

    def __init__(self, decoder: VideoDecoder, *, ahead: bool = False) -> None:
        self.made.append(self)
        self.last, self.ahead = decoder.extradata, ahead
        self.fed: list[int] = []
        self.drained = 0

    def decode(self, number: int, data: memoryview, take: Any, *, is_key: bool) -> bool:
        assert is_key == (bytes(data[:1]) == b"k")
        self.fed.append(number)
        self._give(data[1:], take)
        return True

    def drain(self, take: Any) -> bool:
        self.drained += 1
        self._give(self.last, take)
        return True

    def _give(self, numbers: Any, take: Any) -> None:
        take(None, Decoded(pixels_of(0)))  # a picture of no packet
        for number in numbers:
            take(number, Decoded(pixels_of(number + (self.ahead and number in self.lies))))


class Converter:
    def __init__(self, version: int) -> None:
        assert version == CONVERSION

    def rgb(self, decoded: Decoded) -> NDArray[np.uint8]:
        return decoded.pixels


def pixels_of(number: int) -> NDArray[np.uint8]:
    return np.full((1, 1, 3), number, np.uint8)


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scripted, "made", [])
    monkeypatch.setattr(Scripted, "lies", set())
    monkeypatch.setattr(decode, "PacketDecoder", Scripted)
    monkeypatch.setattr(stored, "RgbConverter", Converter)


def fed(*, ahead: bool) -> list[list[int]]:
    """The numbers of the packets that each decoder got."""
    return [it.fed for it in Scripted.made if it.ahead == ahead]


class Topic:
    """A topic whose pictures are published one a cycle."""

    def __init__(self) -> None:
        self.messages: dict[int, bytes] = {}
        self.starts: list[int] = []
        """The cycles from which it was read."""
        self._encoder = PictureEncoder("packets")
        self._packets = 0

    def add(
        self, number: int, *packets: bytes, section: int = 0, begins: bool = False, **more: Any
    ) -> int:
        """Publish a picture with the packets that come next; its cycle."""
        last = more.get("last", b"")
        video = VideoPackets(
            plain_decoder("script", 1, 1, last),
            tuple((data, data.startswith(b"k")) for data in packets),
            more.get("first", self._packets),
            number,
            section,
            begins=begins,
            drained=more.get("drained", False),
        )
        self._packets += len(packets)
        image = ImageRgb8Msg(pixels=pixels_of(number))
        image.video = None if more.get("as_pixels") else video
        image.publish()
        cycle = len(self.messages)
        parts = self._encoder.encode(image, cycle, video=image.video)
        self.messages[cycle] = b"".join(map(bytes, parts))
        return cycle

    def read(self, start: int) -> Iterator[tuple[int, memoryview]]:
        self.starts.append(start)
        return (
            (cycle, memoryview(payload))
            for cycle, payload in list(self.messages.items())
            if cycle >= start
        )

    def decoder(self, *, ahead: bool) -> Asked:
        return Asked(self, PictureDecoder(self.read, ahead=ahead))


class Asked:
    def __init__(self, topic: Topic, decoder: PictureDecoder) -> None:
        self._topic, self._decoder = topic, decoder

    def __call__(self, *cycles: int) -> list[int]:
        """The numbers of the pictures of these cycles."""
        found = []
        for cycle in cycles:
            picture = StoredPicture.parse(memoryview(self._topic.messages[cycle]))
            pixels = self._decoder.picture(cycle, picture)
            assert isinstance(pixels, np.ndarray)
            assert not pixels.flags.writeable
            found.append(int(pixels[0, 0, 0]))
        return found


def plain(*lengths: int, last: bytes = b"") -> Topic:
    """Sections with `lengths` pictures, each in a packet of its own; `last` tells sections apart."""
    topic, number = Topic(), 0
    for section, length in enumerate(lengths):
        for at in range(length):
            kind = b"k" if at == 0 else b"p"
            topic.add(number, kind + bytes([number]), section=section, begins=at == 0, last=last)
            number += 1
    return topic


def refused(text: str) -> Any:
    return pytest.raises(ValueError, match=f"^{text}$")


BOTH = pytest.mark.parametrize("ahead", [False, True])


def span(begin: int, end: int) -> list[int]:
    return list(range(begin, end))


# -- as recorded -------------------------------------------------------------------------------


def test_in_order_each_packet_is_decoded_once_and_each_message_read_once() -> None:
    topic = plain(4, 5)
    assert topic.decoder(ahead=False)(*range(9)) == span(0, 9)
    assert fed(ahead=False) == [span(0, 4), span(4, 9)]
    assert topic.starts == [0]


def test_a_jump_decodes_what_is_between_the_picture_and_its_sections_beginning() -> None:
    topic = plain(4, 6, 5)
    ask = topic.decoder(ahead=False)
    assert ask(7, 9) == [7, 9]
    assert fed(ahead=False) == [span(4, 10)]
    assert ask(9, 9) == [9, 9]
    assert len(Scripted.made) == 1
    assert ask(8) == [8]
    assert fed(ahead=False)[1:] == [span(4, 9)]
    assert ask(1) == [1]
    assert fed(ahead=False)[2:] == [[0, 1]]
    assert ask(13, 14) == [13, 14]
    assert fed(ahead=False)[3:] == [span(10, 15)]
    assert topic.starts == [0, 4, 4, 0, 10]


@BOTH
def test_pictures_may_come_after_later_packets_and_at_the_end(ahead: bool) -> None:
    """As with B-frames: the picture of packet 2 is shown before that of packet 1."""
    topic = Topic()
    topic.add(0, b"k", b"p\0", begins=True, last=b"\3")
    topic.add(2, b"p\2")
    topic.add(1, b"p\1")
    topic.add(4, b"p\4")
    topic.add(3, drained=True)
    for order in [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (1, 3, 4), (0, 4), (2,)]:
        Scripted.made.clear()
        assert topic.decoder(ahead=ahead)(*order) == [[0, 2, 1, 4, 3][cycle] for cycle in order]
        if list(order) == sorted(order):
            assert fed(ahead=ahead) == [span(0, 5 if order[-1] == 4 else 4)]
            assert fed(ahead=not ahead) == []


def test_pictures_that_come_with_one_packet_may_be_another_messages() -> None:
    topic = Topic()
    topic.add(0, b"k\0", begins=True)
    topic.add(1, b"p\1\2\3")
    topic.add(2)
    topic.add(3)
    topic.add(4, b"p\4\5", b"p\6", b"p\7")  # neither 5 nor 6 was published
    topic.add(7)
    for order in [(0, 1, 2, 3, 4, 5), (2, 5), (3, 4), (1, 3), (5,)]:
        assert topic.decoder(ahead=False)(*order) == [[0, 1, 2, 3, 4, 7][it] for it in order]
    ask = topic.decoder(ahead=False)
    assert ask(3) == [3]
    topic.add(5)  # with a later message come only pictures of the last packet of another
    with refused("its packets do not give it"):
        ask(6)


@BOTH
def test_a_decoder_holds_back_no_more_than_64_pictures(ahead: bool) -> None:
    for count in (64, 65):
        topic = Topic()
        topic.add(0, b"k" + bytes(range(count)), begins=True)
        ask = topic.decoder(ahead=ahead)
        if count == 64:
            assert ask(0) == [0]
        else:
            with pytest.raises(ValueError, match="^its packets do not give it$"):
                ask(0)


def test_a_log_that_grows_is_read_on_from_where_it_ended() -> None:
    topic = Topic()
    ask = topic.decoder(ahead=False)
    for number in range(4):
        cycle = topic.add(number, b"kp"[number > 0 :][:1] + bytes([number]), begins=number == 0)
        assert ask(cycle) == [number]
    assert fed(ahead=False) == [span(0, 4)]
    assert topic.starts == [0, 1, 2, 3]


@BOTH
def test_pictures_that_are_stored_as_pixels_may_be_between(ahead: bool) -> None:
    topic = Topic()
    topic.add(9, as_pixels=True)
    topic.add(0, b"k\0", begins=True)
    topic.add(8, as_pixels=True)
    topic.add(1, b"p\1")
    ask = topic.decoder(ahead=ahead)
    assert ask(0, 1, 2, 3) == [9, 0, 8, 1]
    assert fed(ahead=ahead) == [[0, 1]]
    assert fed(ahead=not ahead) == []


# -- what the log does not give ----------------------------------------------------------------


@BOTH
def test_what_comes_before_the_first_key_frame_is_said(ahead: bool) -> None:
    topic = plain(4, 4)
    for cycle in range(5):
        del topic.messages[cycle]
    ask = topic.decoder(ahead=ahead)
    for cycle in (6, 5, 7):
        with refused("it comes before the first key frame in the log"):
            ask(cycle)
    del topic.messages[7]
    with refused("it comes before the first key frame in the log"):
        ask(6)


@BOTH
def test_a_section_needs_its_decoder(ahead: bool) -> None:
    topic = plain(4)
    picture = StoredPicture.parse(memoryview(topic.messages[3]))
    picture.own["key"] = 2
    with refused("a section without its decoder"):
        PictureDecoder(topic.read, ahead=ahead).picture(3, picture)


@BOTH
def test_missing_packets_are_said_and_what_is_before_them_is_given(ahead: bool) -> None:
    topic = plain(5, 2)
    del topic.messages[2]
    ask = topic.decoder(ahead=ahead)
    for cycle in (3, 4):
        with refused("packets before it are missing in the log"):
            ask(cycle)
    assert ask(0, 1, 5, 6) == [0, 1, 5, 6]


def test_packets_of_another_section_in_between_are_said() -> None:
    topic = plain(3, 1)
    topic.messages = {0: topic.messages[0], 1: topic.messages[3], 2: topic.messages[1]}
    ask = topic.decoder(ahead=False)
    with refused("packets of another section come before it"):
        ask(2)


@BOTH
def test_other_pixels_are_never_given(ahead: bool) -> None:
    topic = plain(4)
    picture = StoredPicture.parse(memoryview(topic.messages[2]))
    decoder = PictureDecoder(topic.read, ahead=ahead)
    own = picture.own | {"crc": picture.own["crc"] ^ 1}
    with refused("other pixels than were recorded"):
        decoder.picture(2, StoredPicture(own, picture.source, picture.data))
    assert np.array_equal(decoder.picture(2, picture), pixels_of(2))  # type: ignore[arg-type]


# -- ahead -------------------------------------------------------------------------------------


def test_four_pictures_are_ready_while_one_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    converted: list[tuple[int, bool]] = []

    def rgb(_: Converter, decoded: Decoded) -> NDArray[np.uint8]:
        is_main = threading.current_thread() is threading.main_thread()
        converted.append((int(decoded.pixels[0, 0, 0]), is_main))
        return decoded.pixels

    monkeypatch.setattr(Converter, "rgb", rgb)
    ask = plain(9).decoder(ahead=True)
    given = []
    for cycle in range(9):
        assert ask(cycle) == [cycle]
        given.append(len(fed(ahead=True)[0]))
    assert given == [1, 6, 7, 8, 9, 9, 9, 9, 9]
    assert sorted(converted) == [(number, number < 2) for number in range(9)]
    assert len(Scripted.made) == 1


def test_no_more_is_decoded_than_four_pictures_need() -> None:
    topic = Topic()
    topic.add(0, b"k\0", begins=True)
    topic.add(1, b"p\1")
    topic.add(2, b"p\2\3\4\5\6\7")
    for number in range(3, 8):
        topic.add(number, b"p" + bytes([number + 5]))
    ask = topic.decoder(ahead=True)
    assert ask(0, 1) == [0, 1]
    assert fed(ahead=True) == [[0, 1, 2]]
    assert ask(*range(2, 8)) == span(2, 8)
    assert fed(ahead=True) == [span(0, 7)]


def test_sections_that_follow_each_other_share_a_decoder() -> None:
    topic = plain(3, 1, 4)
    assert topic.decoder(ahead=True)(*range(8)) == span(0, 8)
    assert fed(ahead=True) == [span(0, 8)]
    assert [it.drained for it in Scripted.made] == [0]
    assert topic.starts[0] == 0


def test_a_section_of_another_decoder_or_elsewhere_begins_with_a_new_one() -> None:
    topic = Topic()
    topic.add(0, b"k", begins=True, last=b"\1\0")
    topic.add(1, b"p", last=b"\1\0", drained=True)
    topic.add(2, b"k\2", begins=True, section=1)  # another decoder
    topic.add(5, b"k\5", begins=True, section=2, first=5)  # packets are missing before it
    topic.add(6, b"p\6", section=2, first=6)
    topic.messages[0], topic.messages[1] = topic.messages[0], topic.messages[1]
    assert topic.decoder(ahead=True)(1, 2, 3, 4) == [1, 2, 5, 6]
    assert fed(ahead=True) == [[0, 1], [2], [5, 6]]
    assert [it.drained for it in Scripted.made] == [1, 1, 0]
    assert fed(ahead=False) == []


def test_what_comes_at_the_end_of_the_log_is_decoded_ahead_too() -> None:
    topic = Topic()
    topic.add(0, b"k", begins=True, last=b"\0\1\2")
    topic.add(1, b"p", last=b"\0\1\2")
    topic.add(2, b"p", drained=True)
    assert topic.decoder(ahead=True)(0, 1, 2) == [0, 1, 2]
    assert fed(ahead=True) == [[0, 1, 2]]
    assert fed(ahead=False) == []


def test_a_jump_ahead_begins_at_a_key_frame_that_was_not_read() -> None:
    topic = plain(6, 6, 6)
    ask = topic.decoder(ahead=True)
    assert ask(0, 1) == [0, 1]
    assert fed(ahead=True) == [span(0, 6)]
    assert ask(7) == [7]  # the section's first packet comes next
    assert fed(ahead=True) == [span(0, 6), [6, 7]]
    assert ask(8) == [8]
    assert ask(10, 11) == [10, 11]  # follow; the last one has the next section read too
    assert fed(ahead=True) == [span(0, 6), span(6, 16)]
    assert ask(14) == [14]
    assert ask(13) == [13]  # before what was asked for
    assert fed(ahead=True) == [span(0, 6), span(6, 18), [12, 13]]
    ask = topic.decoder(ahead=True)
    assert ask(0, 13) == [0, 13]
    assert fed(ahead=True)[3:] == [[0], [12, 13]]
    assert fed(ahead=False) == []


def test_what_decoding_ahead_gives_otherwise_is_decoded_as_recorded() -> None:
    Scripted.lies.add(2)
    topic = plain(4, 4)
    ask = topic.decoder(ahead=True)
    assert ask(*range(8)) == span(0, 8)
    assert fed(ahead=False) == [span(0, 4)]
    assert fed(ahead=True) == [span(0, 7), span(4, 8)]


@pytest.mark.parametrize("cycle", [0, 10])
def test_a_picture_that_does_not_come_within_64_messages_is_not_waited_for(cycle: int) -> None:
    topic = Topic()
    for number in range(100):
        data = b"p" + bytes([number]) if number else b"k"
        topic.add(number, b"p" if number == cycle > 0 else data, begins=number == 0)
    with refused("its packets do not give it"):
        topic.decoder(ahead=True)(cycle)
    assert fed(ahead=True) == [span(0, cycle + 65)]
    assert fed(ahead=False) == [span(0, cycle + 1)]


@pytest.mark.parametrize(("number", "is_kept"), [(36, True), (35, False)])
def test_64_pictures_that_were_not_asked_for_are_kept(number: int, is_kept: bool) -> None:
    topic = Topic()
    packets = [b"kp"[at > 0 :][:1] + bytes([at]) for at in range(100)]
    topic.add(number, *packets, begins=True)
    assert topic.decoder(ahead=True)(0) == [number]
    assert fed(ahead=True) == [span(0, 100)]
    assert fed(ahead=False) == ([] if is_kept else [span(0, 100)])
