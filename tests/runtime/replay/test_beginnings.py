"""Which keyframes of a log can be used: every reason by itself, on logs that hold nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgpack
import pytest

from flowrun.runtime.errors import LogNotFound, ReplayError
from flowrun.runtime.log.message import LoggedCycle
from flowrun.runtime.replay import keyframes as module
from flowrun.runtime.replay.keyframes import RecordedKeyframes
from support.engine_tasks import Held, HeldCount

TOPIC = "/flowrun/keyframe"


class FakeLog:
    """The cycles from `first` to `last`, of which some have a keyframe.

    keyframes: cycle -> what the tasks remembered, or the bytes of the record.
    pictures: cycle -> the first packet and the codec of the picture of "/c/image".
    gaps: cycles that cannot be read.
    """

    path = "runs/x"

    def __init__(self, *, first=0, last=20, interval="5", keyframes=(), pictures=(), gaps=()):
        self.metadata = {} if interval is None else {"keyframe_interval": interval}
        self.topics = {TOPIC: SimpleNamespace(metadata={})}
        self.present = [it for it in range(first, last + 1) if it not in gaps]
        self.pictures = dict(pictures)
        self.records = {
            cycle: it if isinstance(it, bytes) else msgpack.packb({"tasks": it})
            for cycle, it in dict(keyframes).items()
        }

    def cycles(self):
        return map(self.__getitem__, self.present)

    def __getitem__(self, cycle):
        if cycle not in self.present:
            raise LogNotFound(f"cycle {cycle}")
        others = [(topic, 0, memoryview(b"")) for topic in ("/c/image", "/n/number")]
        record = self.records.get(cycle)
        found = [] if record is None else [(TOPIC, 0, memoryview(record))]
        return LoggedCycle(cycle, 0, [*others, *found])

    def messages(self, topic):
        found = self.records if topic == TOPIC else self.pictures
        for cycle in self.present:
            if cycle in found:
                yield SimpleNamespace(cycle=cycle, payload=found[cycle])


class FakeBackground:
    """gives: the cycles whose inputs gave a result that appeared."""

    def __init__(self, task: Any, gives: tuple[int, ...]) -> None:
        self.made = SimpleNamespace(task=task.__new__(task))
        self._gives = gives

    def gives(self, cycle: int) -> bool:
        return cycle in self._gives

    def gives_after(self, cycle: int) -> bool:
        return any(it > cycle for it in self._gives)


def keyframes_of(log, *, task=Held, gives=(), fed=(), fed_packets=(), unlogged=()):
    """The keyframes of a graph whose background task h reads /i and makes /o; and the notes."""
    notes: list[str] = []
    outside = SimpleNamespace(
        fed=frozenset(fed),
        fed_packets=list(fed_packets),
        compared_topics=frozenset({"/i", "/o", "/c/image"}) - {*unlogged},
        background={"h": FakeBackground(task, gives)},
        inputs_of=lambda _: [SimpleNamespace(topic="/c/image" if fed_packets else "/i")],
        outputs_of=lambda _: [SimpleNamespace(topic="/o")],
    )
    return RecordedKeyframes(log, outside, note=lambda text, _: notes.append(text)), notes


def before(keyframes, cycle):
    """The last one at or before `cycle`."""
    return next(keyframes.back_from(cycle), None)


OK: dict[str, Any] = {"t": {"state": 1}}


@pytest.mark.parametrize(
    ("interval", "cycle", "found"),
    [
        ("5", 0, 0), ("5", 4, 0), ("5", 5, 5), ("5", 9, 5), ("5", 10, 10), ("5", 14, 10),
        ("5", 15, 10), ("5", 20, 10), ("0", 10, None), (None, 10, None), ("ten", 10, None),
        ("3", 10, 0),
    ],
)  # fmt: skip
def test_the_last_one_at_or_before_a_cycle(interval, cycle, found):
    log = FakeLog(interval=interval, keyframes={0: OK, 5: OK, 10: OK})
    begin = before(keyframes_of(log)[0], cycle)
    assert begin == (None if found is None else (found, OK))


def test_the_first_cycle_of_a_log_that_begins_in_the_middle_may_have_one():
    log = FakeLog(first=7, keyframes={7: OK, 15: OK})
    keyframes, _ = keyframes_of(log)
    assert (keyframes.first_cycle, list(keyframes)) == (7, [7, 15])
    assert [before(keyframes, cycle)[0] for cycle in (7, 9, 10, 14, 15)] == [7, 7, 7, 7, 15]
    assert next(keyframes.forwards(), None) == (7, OK)
    keyframes, _ = keyframes_of(FakeLog(first=7, keyframes={10: OK}))
    assert (before(keyframes, 9), before(keyframes, 12)) == (None, (10, OK))


def test_a_log_without_cycles_or_keyframes():
    with pytest.raises(ReplayError, match="^runs/x: the log holds no cycle$"):
        keyframes_of(FakeLog(first=1, last=0))
    log = FakeLog(first=3)
    assert next(keyframes_of(log)[0].forwards(), None) is None
    assert keyframes_of(log)[0].in_the_way() == set()
    log.topics = {}
    assert list(keyframes_of(log)[0]) == []


def test_cycles_that_cannot_be_read_are_passed_over():
    log = FakeLog(keyframes={0: OK, 5: OK, 10: OK}, gaps=[10])
    assert before(keyframes_of(log)[0], 12) == (5, OK)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xc1", ""),
        (b"\x81\xa5tasks", "Unpack failed: incomplete input"),
        (b"\x05", "not a keyframe"),
        (b"\x80", "not a keyframe"),
        (b"\x81\xa5tasks\x05", "not a keyframe"),
        (b"\x81\x90\x05", "not a keyframe: unhashable type: 'list'"),
        (msgpack.packb({"tasks": {}}) + b"\0", "unpack(b) received extra data."),
    ],
)
def test_one_that_is_damaged_is_passed_over_and_said(data, why):
    log = FakeLog(first=1, keyframes={5: OK, 10: data, 15: OK})
    keyframes, notes = keyframes_of(log)
    assert before(keyframes, 12) == (5, OK)
    assert list(keyframes) == [5, 15]
    assert keyframes.in_the_way() == set()
    assert {*notes} == {f"the keyframe of cycle 10 cannot be read: {why}"}


def test_what_is_fed_is_left_out_and_what_could_not_be_frozen_is_in_the_way():
    failed = {"t": {"error": "KeyError: 'a'"}, "u": {"state": 2}}
    log = FakeLog(keyframes={0: OK, 5: failed})
    keyframes, notes = keyframes_of(log)
    assert (before(keyframes, 6), list(keyframes)) == ((0, OK), [0])
    assert {*notes} == {
        "no replay can begin at the keyframe of cycle 5: freeze of task 't' failed: KeyError: 'a'"
    }
    keyframes, notes = keyframes_of(log, fed=["t"])
    assert (before(keyframes, 6), notes) == ((5, {"u": {"state": 2}}), [])


def test_only_the_first_reason_is_said():
    failed = {"t": {"error": "a"}, "u": {"error": "b"}}
    keyframes, notes = keyframes_of(FakeLog(keyframes={0: failed}))
    assert before(keyframes, 3) is None
    assert notes == ["no replay can begin at the keyframe of cycle 0: freeze of task 't' failed: a"]


def test_the_tasks_in_the_way_are_those_of_the_keyframe_that_has_the_fewest():
    one, other = {"u": {"error": "b"}}, {"t": {"error": "a"}}
    two = {**other, **one}
    for keyframes, expected in (
        ({5: two, 10: one}, {"u"}),
        ({5: two, 10: one, 15: other}, {"u"}),
        ({5: one, 10: two}, {"u"}),
        ({5: two, 10: OK, 15: one}, set()),
        ({5: two}, {"t", "u"}),
        ({}, set()),
    ):
        assert keyframes_of(FakeLog(first=1, keyframes=keyframes))[0].in_the_way() == expected
        assert keyframes_of(FakeLog(keyframes=keyframes))[0].in_the_way() == set()
    log = FakeLog(first=1, keyframes={5: two, 10: one})
    assert keyframes_of(log, fed=["u"])[0].in_the_way() == set()


# -- pictures --------------------------------------------------------------------------------------


@pytest.fixture
def parsed(monkeypatch):
    """Pictures of `FakeLog` in place of stored ones."""

    def parse(payload):
        key, codec = payload
        return SimpleNamespace(own={"codec": codec, "key": key}, holds_packets=codec == "packets")

    monkeypatch.setattr(module.StoredPicture, "parse", staticmethod(parse))


@pytest.mark.parametrize(
    ("first", "pictures", "decodable"),
    [
        (0, {3: (0, "packets")}, 0),  # a whole run
        (4, {5: (2, "packets"), 6: (2, "packets"), 7: (7, "packets"), 8: (7, "packets")}, 7),
        (4, {4: (4, "packets")}, 4),
        (4, {6: (6, "packets"), 9: (9, "packets")}, 4),  # cycles without a picture need none
        (4, {6: (5, "packets"), 7: (6, "packets")}, 7),
        (4, {5: (2, "packets"), 6: (2, "pixels"), 7: (7, "packets")}, 6),
        (4, {5: (2, "packets"), 6: (2, "packets")}, 7),  # none: past the last picture
        (4, {}, 4),
    ],
)
def test_a_replay_begins_where_pictures_can_be_decoded(parsed, first, pictures, decodable):
    log = FakeLog(first=first, keyframes=dict.fromkeys(range(first, 21), OK), pictures=pictures)
    keyframes, notes = keyframes_of(log, fed_packets=["/c/image"])
    assert keyframes.first_decodable == keyframes.first_decodable == decodable
    assert (next(iter(keyframes)), notes) == (max(decodable, first), [])
    assert keyframes_of(log)[0].first_decodable == first


def test_the_pictures_of_the_last_source_count(parsed):
    log = FakeLog(first=4, pictures={5: (2, "packets"), 6: (6, "packets")})
    log.messages = lambda topic: FakeLog.messages(log, topic) if topic == "/c/image" else iter(())
    keyframes, _ = keyframes_of(log, fed_packets=["/c/image", "/d/image"])
    assert keyframes.first_decodable == 6


def test_a_keyframe_before_the_first_decodable_picture_is_in_nobodys_way(parsed):
    failed = {"t": {"error": "a"}}
    pictures = {5: (2, "packets"), 6: (6, "packets")}
    log = FakeLog(first=4, keyframes={5: OK, 10: failed}, pictures=pictures)
    keyframes, notes = keyframes_of(log, fed_packets=["/c/image"])
    assert keyframes.in_the_way() == {"t"}
    assert (before(keyframes, 9), notes) == (None, [])


# -- jobs in flight --------------------------------------------------------------------------------

LACKS = "the log lacks the inputs of cycle {} of task 'h'"


@pytest.mark.parametrize(
    ("case", "jobs", "missing"),
    [
        ({}, [], None),
        ({"gives": (2,)}, [[2, {}, False, False]], None),  # from the log
        ({"gives": (2,)}, [[2, {}, True, False]], 2),  # that it was taken is not there any more
        ({"gives": (9,)}, [[2, {}, False, False]], None),  # its result does not appear
        ({"gives": (9,)}, [[2, {}, True, False]], 2),
        ({"gives": (2, 9)}, [[2, {}, False, False]], 2),  # it may draw for the later one
        ({"gives": (2,), "task": HeldCount}, [[2, {}, False, False]], 2),  # it remembers
        ({"gives": (2,), "rng": "a"}, [[2, {}, False, False]], 2),
        ({"gives": (2,), "unlogged": ["/o"]}, [[2, {}, False, False]], 2),  # no result in the log
        ({"gives": (2,)}, [[2, {"gain": 2}, False, False]], 2),  # it may refuse the value
        ({"gives": (2,), "live": {"gain": 2}}, [[2, {"gain": 2}, False, False]], None),
        ({"gives": (2,), "live": {"gain": 2}}, [[2, {}, False, False]], 2),
        (
            {"gives": (6, 9), "task": HeldCount},
            [[6, {}, True, False]],
            None,
        ),  # its inputs are there
        ({"gives": (6, 9), "task": HeldCount}, [[6, {}, True, False], [3, {}, True, False]], 3),
        ({"gives": (3, 9), "task": HeldCount}, [[2, {}, False, False], [3, {}, False, False]], 3),
        ({"gives": (6, 9), "unlogged": ["/i"]}, [[6, {}, False, False]], 6),
        ({"gives": (6,), "unlogged": ["/i"]}, [[6, {}, False, False]], None),
    ],
)
def test_a_job_in_flight_whose_inputs_the_log_lacks(case, jobs, missing):
    """In a log of the cycles from 4 on, of the keyframe of cycle 10."""
    case = dict(case)
    frozen = {name: case.pop(name) for name in ("rng", "live") if name in case}
    log = FakeLog(first=4, keyframes={10: {"h": {**frozen, "jobs": jobs}}})
    keyframes, notes = keyframes_of(log, **case)
    begins = before(keyframes, 12)
    assert (begins is None) is (missing is not None)
    why = "no replay can begin at the keyframe of cycle 10: " + LACKS.format(missing)
    assert notes == ([] if missing is None else [why])


def test_a_job_of_a_task_in_the_foreground_is_none():
    log = FakeLog(first=4, keyframes={10: {"t": {"jobs": [[2, {}, True, False]]}}})
    assert before(keyframes_of(log)[0], 10) is not None


@pytest.mark.parametrize(
    ("later", "is_free"),
    [
        ({}, False),
        ({15: {"jobs": []}}, True),  # it was given, and nothing had been drawn
        ({15: {"jobs": [[2, {}, False, False]]}}, False),  # still in flight
        ({15: {"jobs": [], "rng": "a"}}, False),
        ({15: {"jobs": [], "error": "a"}}, False),
        ({15: {}}, False),
        ({5: {"jobs": []}}, False),  # before
        ({15: {"jobs": [[2, {}, False, False]]}, 20: {"jobs": [[11, {}, False, False]]}}, True),
    ],
)
def test_a_job_drew_nothing_if_a_later_keyframe_says_so(later, is_free):
    begun = {10: {"jobs": [[2, {}, False, False]]}}
    records = {cycle: {"h": frozen} for cycle, frozen in {**begun, **later}.items()}
    log = FakeLog(first=4, keyframes=records)
    keyframes, _ = keyframes_of(log, gives=(2, 12))
    assert (10 in keyframes) is is_free


@pytest.mark.parametrize(("cycle", "is_there"), [(8, True), (6, True), (5, False)])
def test_inputs_that_are_pictures_are_there_if_they_can_be_decoded(parsed, cycle, is_there):
    frozen = {"jobs": [[cycle, {}, True, False]]}
    log = FakeLog(
        first=4, keyframes={10: {"h": frozen}}, pictures={5: (2, "packets"), 6: (6, "packets")}
    )
    keyframes, _ = keyframes_of(log, fed_packets=["/c/image"], gives=(cycle,))
    assert (10 in keyframes) is is_there
