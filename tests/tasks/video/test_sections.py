"""Where sections begin and end, by a decoder that does what each packet says."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from flowrun.msgs.image import VideoDecoder
from flowrun.runtime.pictures import video
from flowrun.tasks.video import decoding
from flowrun.tasks.video.decoding import SourceDecoder
from flowrun.tasks.video.packets import Origin
from flowrun.tasks.video.sections import Picture

CLOSED, OPEN, DELTA = b"\x80", b"\x88", b"\x84"
"""How VP9's key frames begin that close what is before them, others that a container calls key frames,
and all others."""


JPEG = b"\xff\xd8\xff"


class Packet:
    """Of a container. `gives`: the numbers of the packets whose pictures come out with it."""

    size = 1

    def __init__(self, head: bytes, gives: Iterable[int], **more: Any) -> None:
        self._data = head + b"".join(number.to_bytes(2) for number in gives)
        self.is_keyframe = head in (CLOSED, OPEN)
        self.is_corrupt = self.is_discard = False
        self.pts: int | None = None
        vars(self).update(more)

    def __bytes__(self) -> bytes:
        return self._data


class Scripted:
    """A decoder of such packets."""

    made: ClassVar[list[Any]] = []
    mute: ClassVar[dict[int, Any]] = {}
    """By number of the decoder, the pictures that it does not give."""
    refuses: ClassVar[dict[int, Any]] = {}
    """By number of the decoder, the packets that it refuses; at its end, None."""
    last: ClassVar[dict[int, Any]] = {}
    """By number of the decoder, the pictures that come out at its end."""
    corrupt: ClassVar[set[int]] = set()
    wrong: ClassVar[set[int]] = set()
    """Numbers of the decoders that give other pixels."""
    reorder = 0
    lasts = False

    def __init__(self, known: Any, *, strict: bool = False) -> None:
        self.at = len(self.made)
        self.made.append(self)
        self.known, self.strict = known, strict
        self.fed: list[int] = []

    def decode(self, number: int, data: Any, take: Any, *, is_key: bool) -> bool:
        content = bytes(data).replace(JPEG, b"")
        assert is_key == (content[:1] in (CLOSED, OPEN))
        self.fed.append(number)
        if number in self.refuses.get(self.at, ()):
            return False
        numbers = content[1:]
        self._give((int.from_bytes(numbers[k : k + 2]) for k in range(0, len(numbers), 2)), take)
        return True

    def drain(self, take: Any) -> bool:
        self._give(self.last.get(self.at, ()), take)
        return None not in self.refuses.get(self.at, ())

    def _give(self, numbers: Iterable[int], take: Any) -> None:
        for number in numbers:
            if number not in self.mute.get(self.at, ()):
                is_corrupt = number in self.corrupt
                shown = -number if self.at in self.wrong else number
                take(number, SimpleNamespace(number=number, is_corrupt=is_corrupt, shown=shown))


def kept(decoded: Any) -> Any:
    if decoded.number in Scripted.corrupt:
        raise ValueError("its colours cannot be converted")
    return np.full((1, 1, 3), decoded.shown % 256, np.uint8)


class Queue:
    """What the log gets."""

    overflowed = False

    def __init__(self) -> None:
        self.begun: list[tuple[int, int]] = []
        self.packets: list[tuple[int, int, bool]] = []

    def begin_section(self, section: int, _decoder: VideoDecoder, first: int) -> None:
        self.begun.append((section, first))

    def append(self, section: int, number: int, _data: bytes, *, is_key: bool) -> None:
        self.packets.append((section, number, is_key))


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "made": [],
        "mute": {},
        "refuses": {},
        "last": {},
        "corrupt": set(),
        "wrong": set(),
        "reorder": 0,
    }.items():
        monkeypatch.setattr(Scripted, name, value)
    monkeypatch.setattr(decoding, "PacketDecoder", Scripted)
    monkeypatch.setattr(decoding, "ContainerDecoder", Scripted)
    monkeypatch.setattr(decoding, "kept", kept)


class Source:
    """A stream whose packets are fed one after the other."""

    def __init__(self, codec: str = "vp9", pix_fmt: str = "yuv420p") -> None:
        context = SimpleNamespace(
            codec=SimpleNamespace(name=codec, canonical_name=codec),
            pix_fmt=pix_fmt,
            extradata=None,
            width=48,
            height=32,
            codec_tag="",
            bits_per_coded_sample=0,
            reorder_depth=0,
            colorspace=2,
            color_range=0,
        )
        self.context = context
        self.queue = Queue()
        container = SimpleNamespace(format=SimpleNamespace(name="mpegts"))
        stream = SimpleNamespace(
            codec_context=context, container=container, time_base=Fraction(1, 1000)
        )
        self.decoder = SourceDecoder(stream, self.queue)  # type: ignore[arg-type]
        self.found: list[Picture] = []
        self._next = 0

    def feed(self, head: bytes, *gives: int, **more: Any) -> None:
        self.decoder.feed(Packet(head, gives, pts=1000 + self._next, **more), self.emit)
        self._next += 1

    def own(self, head: bytes, count: int = 1) -> None:
        """Packets that give their own pictures."""
        for _ in range(count):
            self.feed(head, self._next)
            head = DELTA

    def drain(self) -> None:
        self.decoder.drain(self.emit)

    def emit(self, picture: Picture) -> None:
        self.found.append(picture)

    @property
    def given(self) -> list[tuple[int, int | None]]:
        """Number and section of each picture that came out."""
        return [
            (
                it.pts - 1000 if it.pts is not None else it.decoded.number,
                None if it.origin is None else it.origin.section,
            )
            for it in self.found
        ]

    @property
    def sections(self) -> list[int | None]:
        return [section for _, section in self.given]


# -- closed groups -----------------------------------------------------------------------------


def test_a_closed_key_frame_ends_the_section_before_with_all_its_pictures() -> None:
    source = Source()
    source.feed(CLOSED)
    source.feed(DELTA, 0)
    source.feed(DELTA, 2)
    Scripted.last = {0: [1], 1: [4]}
    source.feed(CLOSED)
    source.feed(DELTA, 3)
    source.drain()
    assert [(it.decoded.number, it.pts, it.origin) for it in source.found] == [
        (0, 1000, Origin(0, 0, 1, drained=False)),
        (2, 1002, Origin(0, 2, 2, drained=False)),
        (1, 1001, Origin(0, 1, 3, drained=True)),
        (3, 1003, Origin(1, 3, 4, drained=False)),
        (4, 1004, Origin(1, 4, 4, drained=True)),
    ]
    assert source.queue.begun == [(0, 0), (1, 3)]
    assert source.queue.packets == [
        *((0, 0, True), (0, 1, False), (0, 2, False), (1, 3, True), (1, 4, False))
    ]
    assert source.decoder.damaged == 0


def test_before_the_first_key_frame_nothing_is_sure() -> None:
    for head in (CLOSED, OPEN):
        source = Source()
        source.own(DELTA, 2)
        source.own(head, 2)
        assert source.given == [(0, None), (1, None), (2, 0), (3, 0)]
        assert source.queue.begun == [(0, 2)]
        assert source.queue.packets == [(0, 2, True), (0, 3, False)]
        Scripted.made.clear()


def test_a_section_starts_with_what_the_one_before_found_out() -> None:
    source = Source()
    source.own(CLOSED)
    Scripted.reorder = 2
    source.own(CLOSED)
    Scripted.reorder = 1
    source.own(CLOSED)
    assert [it.known.reorder for it in Scripted.made] == [0, 2, 2]
    assert {it.known.name for it in Scripted.made} == {"vp9"}


def test_the_stream_may_go_on_elsewhere() -> None:
    source = Source()
    source.own(CLOSED, 2)
    Scripted.last = {0: [0]}
    source.decoder.restart()
    source.feed(CLOSED, 1, 2)  # a number of before has no time any more
    source.own(DELTA)
    assert [(it.decoded.number, it.pts) for it in source.found] == [
        *((0, 1000), (1, 1001), (1, None), (2, 1002), (3, 1003))
    ]
    assert source.sections == [0, 0, None, 1, 1]
    source.decoder.restart()
    source.drain()
    assert len(source.found) == 5


# -- damage ------------------------------------------------------------------------------------


@pytest.fixture
def varying(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that may make something else of damaged packets each time."""
    monkeypatch.setattr(video, "REPEATED", frozenset())


def damage_of(source: Source) -> list[tuple[int, bool]]:
    """Section of each picture, and whether it is damaged."""
    origins = [it.origin for it in source.found]
    assert None not in origins
    return [(it.section, it.is_damaged) for it in origins if it is not None]


def test_a_section_goes_on_after_a_damaged_packet() -> None:
    source = Source()
    source.own(CLOSED, 2)
    source.feed(DELTA, 2, is_corrupt=True)
    source.own(DELTA)
    source.feed(CLOSED, 4, is_corrupt=True)  # nothing begins with it
    source.own(DELTA)
    source.own(OPEN, 2)
    whole, damaged = (0, False), (0, True)
    assert damage_of(source) == [whole, whole, *[damaged] * 4, (1, False), (1, False)]
    assert [number for _, number, _ in source.queue.packets] == [*range(7), 6, 7]


def test_a_damaged_key_frame_begins_a_section_where_there_is_none() -> None:
    source = Source()
    source.feed(CLOSED, 0, is_corrupt=True)
    source.own(DELTA)
    source.own(CLOSED)
    assert damage_of(source) == [(0, True), (0, True), (1, False)]
    assert source.queue.begun == [(0, 0), (1, 2)]


def test_a_packet_that_is_refused_is_counted_and_logged() -> None:
    source = Source()
    Scripted.refuses = {0: [1]}
    source.own(CLOSED, 3)
    source.own(CLOSED)
    assert source.given == [(0, 0), (2, 0), (3, 1)]
    assert damage_of(source) == [(0, False), (0, True), (1, False)]
    assert source.decoder.damaged == 1
    assert [number for _, number, _ in source.queue.packets] == [0, 1, 2, 3]


def test_a_corrupt_picture_says_so_and_of_those_after_it() -> None:
    source = Source()
    Scripted.corrupt = {0, 3}
    source.own(CLOSED, 5)
    assert damage_of(source) == [(0, True), (0, False), (0, False), (0, True), (0, True)]


def test_numbers_of_packets_have_no_gap_where_one_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = Source()
    source.own(CLOSED, 2)
    with monkeypatch.context() as patch:
        patch.setattr(Packet, "__bytes__", lambda _: b"")
        source.decoder.feed(Packet(DELTA, []), source.emit)
    source.own(DELTA)
    assert damage_of(source) == [(0, False), (0, False), (0, True)]
    assert [number for _, number, _ in source.queue.packets] == [0, 1, 2]
    assert source.decoder.damaged == 1


@pytest.mark.usefixtures("varying")
def test_a_section_is_sure_up_to_a_damaged_packet() -> None:
    source = Source()
    source.own(CLOSED, 2)
    source.feed(DELTA, 2, is_corrupt=True)
    source.own(DELTA)
    source.feed(CLOSED, 4, is_corrupt=True)  # nothing begins with it
    source.own(DELTA)
    source.own(OPEN, 2)
    assert source.given == [
        (0, 0),
        (1, 0),
        (2, None),
        (3, None),
        (4, None),
        (5, None),
        (6, 1),
        (7, 1),
    ]
    assert [number for _, number, _ in source.queue.packets] == [0, 1, 6, 7]


@pytest.mark.usefixtures("varying")
def test_a_packet_that_is_refused_is_counted_and_not_logged() -> None:
    source = Source()
    Scripted.refuses = {0: [1]}
    source.own(CLOSED, 3)
    source.own(CLOSED)
    assert source.given == [(0, 0), (2, None), (3, 1)]
    assert source.decoder.damaged == 1
    assert [number for _, number, _ in source.queue.packets] == [0, 3]
    Scripted.refuses = {1: [None]}
    source.drain()
    assert source.decoder.damaged == 2


@pytest.mark.usefixtures("varying")
def test_a_corrupt_picture_leaves_the_section_in_doubt_once_it_has_begun() -> None:
    source = Source()
    Scripted.corrupt = {0, 3}
    source.own(CLOSED, 5)
    assert source.sections == [None, 0, 0, None, None]


def test_a_picture_that_comes_again_or_of_another_section_is_not_sure() -> None:
    source = Source()
    source.own(CLOSED)
    source.feed(DELTA, 0, 1, 1)
    source.feed(CLOSED, 1, 2)
    assert source.given == [(0, 0), (0, None), (1, 0), (1, None), (1, None), (2, 1)]
    source = Source()
    source.own(CLOSED, 64)
    source.feed(DELTA, 0)  # 63 came in between
    source.feed(DELTA, 64)
    source.feed(DELTA, 0)  # 64
    assert source.sections == [0] * 64 + [None, 0, 0]


@pytest.mark.parametrize(("late", "section"), [(65, 0), (66, None)])
def test_a_section_begins_within_64_packets(late: int, section: int | None) -> None:
    source = Source()
    source.feed(CLOSED)
    for number in range(1, late):
        source.feed(DELTA, *[number] * (number == 10))
    source.feed(DELTA, 0)
    source.own(DELTA)
    assert source.given == [(10, None), (0, section), (late + 1, section)]
    assert (len(source.queue.packets) == late + 2) == (section == 0)


@pytest.mark.parametrize(("late", "pts"), [(255, 1000), (256, None)])
def test_times_of_256_packets_are_kept(late: int, pts: int | None) -> None:
    source = Source()
    source.feed(CLOSED)
    for _ in range(1, late):
        source.feed(DELTA)
    source.feed(DELTA, 0, 1)
    assert [it.pts for it in source.found] == [pts, 1001]


def test_what_the_container_hides_is_decoded_and_not_given() -> None:
    source = Source()
    source.feed(CLOSED, 0, is_discard=True)
    source.own(DELTA, 2)
    source.decoder.feed(SimpleNamespace(size=0), source.emit)  # nothing new
    source.own(DELTA)
    assert source.given == [(1, 0), (2, 0), (3, 0)]
    assert len(source.queue.packets) == 4


# -- open groups -------------------------------------------------------------------------------


def test_open_groups_are_one_section_of_500_packets() -> None:
    source = Source()
    source.own(DELTA)
    source.own(CLOSED, 499)
    source.own(OPEN)
    source.own(OPEN, 3)
    source.own(OPEN, 2)
    assert source.sections == [None] + [0] * 500 + [1] * 5
    assert source.queue.begun == [(0, 1), (1, 501)]
    assert [it[:2] for it in source.queue.packets] == [
        *((0, number) for number in range(1, 502)),
        *((1, number) for number in range(501, 506)),
    ]


def test_packets_that_nobody_takes_end_a_section() -> None:
    source = Source()
    source.own(CLOSED, 2)
    source.own(OPEN)
    source.queue.overflowed = True
    source.own(DELTA)
    assert source.sections == [0] * 4
    source.own(OPEN)
    source.queue.overflowed = False
    source.own(OPEN)
    assert source.sections == [0] * 4 + [1] * 2


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_LONGEST", 3)


@pytest.mark.usefixtures("short")
def test_pictures_shown_before_a_sections_first_come_from_the_one_before() -> None:
    source = Source()
    source.own(CLOSED, 3)
    source.feed(OPEN)  # number 3: shown after 4 and 5
    source.feed(DELTA, 4)
    source.feed(DELTA, 5)
    assert source.given[3:] == [(4, 0), (5, 0)]
    source.feed(DELTA, 3)
    source.own(DELTA)
    assert source.given[3:] == [(4, 0), (5, 0), (3, 1), (7, 1)]
    assert [it.pts for it in source.found[3:]] == [1004, 1005, 1003, 1007]
    assert source.found[5].origin == Origin(1, 3, 6, drained=False)
    assert source.found[5].decoded is None
    assert source.queue.packets == [
        *((0, number, number in (0, 3)) for number in range(7)),
        *((1, number, number == 3) for number in range(3, 8)),
    ]
    assert [it.fed for it in Scripted.made] == [[0, 1, 2, 3, 4, 5, 6], [3, 4, 5, 6, 7]]


@pytest.mark.usefixtures("short")
def test_a_section_waits_for_the_one_before_with_four_pictures() -> None:
    source = Source()
    Scripted.mute = {0: range(3, 100)}
    source.own(CLOSED, 3)
    source.own(OPEN)
    for number in range(4, 7):
        source.own(OPEN)  # nothing begins while one waits
        assert len(source.found) == 3, number
    source.own(DELTA)
    assert source.given[3:] == [(number, 1) for number in range(3, 8)]
    source.own(DELTA)
    assert source.given[8:] == [(8, 1)]
    assert source.queue.begun == [(0, 0), (1, 3)]


@pytest.mark.usefixtures("short")
def test_what_waits_at_the_end_is_given() -> None:
    source = Source()
    Scripted.mute = {0: [3, 4]}
    source.own(CLOSED, 3)
    source.own(OPEN, 2)
    Scripted.last = {0: [1], 1: [5]}
    source.drain()
    assert source.given == [(0, 0), (1, 0), (2, 0), (1, None), (3, 1), (4, 1), (5, 1)]
    source.drain()
    assert len(source.found) == 7
    source.own(DELTA)
    assert source.given[7:] == [(5, None)]


@pytest.mark.usefixtures("short")
def test_a_section_that_cannot_begin_is_given_up() -> None:
    source = Source()
    Scripted.refuses = {1: [3]}
    source.own(CLOSED, 3)
    source.own(OPEN, 2)
    source.own(OPEN)  # as many packets must come as in a section before another is tried
    assert [it.fed for it in Scripted.made] == [[0, 1, 2, 3, 4, 5], [3]]
    source.own(OPEN, 2)
    assert source.given == [*((number, 0) for number in range(6)), (6, 1), (7, 1)]
    assert source.queue.begun == [(0, 0), (1, 6)]
    assert [it[:2] for it in source.queue.packets] == [
        *((0, number) for number in range(7)),
        *((1, 6), (1, 7)),
    ]
    assert source.decoder.damaged == 0


@pytest.mark.usefixtures("short")
def test_a_section_whose_first_picture_is_another_is_given_up() -> None:
    """As where the container calls a frame a key frame that is none."""
    source = Source()
    Scripted.wrong = {1}
    source.own(CLOSED, 3)
    source.own(OPEN, 2)
    assert source.given == [(number, 0) for number in range(5)]
    assert [it.fed for it in Scripted.made] == [[0, 1, 2, 3, 4], [3]]
    source = Source()
    Scripted.made.clear()
    source.own(CLOSED, 2)
    source.feed(DELTA, 2, is_corrupt=True)
    source.own(OPEN)  # the one before is damaged: it cannot say so
    assert source.given[2:] == [(2, 0), (3, 1)]


@pytest.mark.usefixtures("short")
def test_a_section_that_does_not_begin_within_64_packets_is_given_up() -> None:
    source = Source()
    source.own(CLOSED, 3)
    Scripted.mute = {0: [3], 1: [3]}
    source.own(OPEN, 65)
    waiting = len(Scripted.made[1].fed)
    source.own(DELTA)
    source.own(DELTA)
    assert (waiting, len(Scripted.made[1].fed)) == (65, 66)
    assert source.sections == [0] * 69
    source.own(DELTA)
    source.own(OPEN)
    assert source.sections == [0] * 70 + [1]


@pytest.mark.usefixtures("short")
def test_pictures_that_wait_may_be_hidden_or_have_no_colours() -> None:
    source = Source()
    Scripted.mute = {0: range(3, 6)}
    Scripted.corrupt = {4}
    source.own(CLOSED, 3)
    source.own(OPEN, 2)
    source.feed(DELTA, 5, is_discard=True)
    source.drain()
    assert source.given[3:] == [(3, 1)]
    assert source.decoder.damaged == 1


# -- other codecs ------------------------------------------------------------------------------


def test_a_codec_that_is_not_logged_is_decoded_by_its_container() -> None:
    assert Source(pix_fmt="gray").decoder.logs_packets
    for source in (Source("asv1"), Source(pix_fmt="pal8")):
        assert not source.decoder.logs_packets
        source.own(CLOSED, 2)
        source.own(CLOSED, 2)
        source.drain()
        assert source.given == [(number, None) for number in range(4)]
        assert (source.queue.begun, source.queue.packets) == ([], [])
        [made] = Scripted.made
        assert made.known is source.context
        Scripted.refuses = {0: [4]}
        Scripted.made.clear()
        source.own(DELTA)
        assert source.decoder.damaged == 1
        Scripted.made.clear()
        Scripted.refuses = {}


def test_a_jpeg_that_is_refused_is_decoded_as_far_as_it_goes() -> None:
    source = Source("mjpeg")
    Scripted.refuses = {0: [1]}
    source.own(CLOSED, 2)
    source.own(CLOSED)
    assert source.given == [(0, 0), (1, None), (2, 1)]
    assert source.decoder.damaged == 1
    assert [(it.strict, it.fed) for it in Scripted.made] == [
        *((True, [0, 1]), (False, [1]), (True, [2]))
    ]


@pytest.mark.parametrize(("jpegs", "size"), [(0, (48, 32)), (1, (0, 0)), (2, (48, 32))])
def test_only_one_jpeg_says_its_own_size(jpegs: int, size: tuple[int, int]) -> None:
    for codec in ("mjpeg", "vp9"):
        source = Source(codec)
        source.feed(JPEG * jpegs + CLOSED, is_keyframe=True)
        known = Scripted.made[-1].known
        assert (known.width, known.height) == (size if codec == "mjpeg" else (48, 32))
        assert Scripted.made[-1].strict == (codec == "mjpeg")
