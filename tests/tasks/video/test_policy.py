"""Which frames wait for a cycle, and how those that do not are counted."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrun.runtime.task import Playback
from flowrun.tasks.video.policy import FrameQueue


class At(NamedTuple):
    time_ns: int


class Made:
    """A queue, and what is asked of and reported by its source."""

    def __init__(self, *, live: bool = False, newest: bool = False, **options: Any) -> None:
        self.playback: Playback = "running"
        self.reported: Counter[str] = Counter()
        self.queue: FrameQueue[At] = FrameQueue(
            newest_only=newest,
            is_live=live,
            size=options.get("size"),
            max_age_ns=options.get("max_age_ns"),
            playback=lambda: self.playback,
            report=self._report,
        )

    def _report(self, count: int, cause: str) -> None:
        self.reported[cause] += count

    def take_all(self, now_ns: int | None = None) -> list[int]:
        taken = []
        while (frame := self.queue.take(0.0, now_ns=now_ns)) is not None:
            taken.append(frame.time_ns)
        return taken


def test_a_live_source_loses_the_oldest_frame_that_waits():
    made = Made(live=True, size=3)
    assert all(made.queue.put(At(number)) for number in range(10))
    assert (made.take_all(), made.reported) == ([7, 8, 9], {"buffer full": 7})


def test_a_file_waits_until_there_is_room():
    made = Made(size=2)
    taken: list[int] = []
    thread = threading.Thread(target=lambda: [made.queue.put(At(number)) for number in range(9)])
    thread.start()
    while len(taken) < 9:
        frame = made.queue.take(600.0)
        assert frame is not None
        taken.append(frame.time_ns)
    thread.join()
    assert (taken, made.queue.lost) == ([*range(9)], {})


@pytest.mark.parametrize(
    ("frame_size", "ahead"), [(0, 4), (4 << 20, 4), (8 << 20, 3), (10 << 20, 2), (1 << 30, 2)]
)
def test_large_frames_of_a_file_are_decoded_less_far_ahead(frame_size, ahead):
    made = Made()
    made.queue.begin(newest_only=False, is_live=False, frame_size=frame_size)
    put: list[int] = []
    thread = threading.Thread(
        target=lambda: [put.append(n) for n in range(9) if made.queue.put(At(n))], daemon=True
    )
    thread.start()
    while len(put) < ahead:
        time.sleep(0.001)
    thread.join(0.02)
    assert len(put) == ahead
    made.queue.stop()
    thread.join()


@pytest.mark.parametrize("live", [True, False])
def test_a_frame_that_is_too_old_when_it_is_taken_is_left_out(live):
    made = Made(live=live, size=9, max_age_ns=10)
    for number in range(0, 40, 5):
        made.queue.put(At(number)) if number < 45 else None
    frame = made.queue.take(0.0, now_ns=30)
    assert frame == At(20)  # 10 old
    assert made.queue.lost == {"too old": 4}
    assert made.queue.take_lost() == ({} if live else {"too old": 4})
    assert made.reported == ({"too old": 4} if live else {})
    assert made.take_all(now_ns=99) == []
    assert made.queue.lost == {"too old": 7}


def test_without_a_time_no_frame_is_too_old():
    made = Made(size=9, max_age_ns=10)
    made.queue.put(At(0))
    assert made.take_all() == [0]


@pytest.mark.parametrize("playback", ["paused", "muted"])
def test_a_live_source_drops_what_waits_and_what_comes_while_nobody_wants_it(playback):
    made = Made(live=True, size=4)
    made.queue.put(At(0))
    made.playback = playback
    made.queue.put(At(1))
    made.queue.put(At(2))
    made.playback = "running"
    made.queue.put(At(3))
    assert (made.take_all(), made.reported) == ([3], {playback: 3})


def test_a_file_keeps_what_waits_while_it_is_paused():
    made = Made(size=4)
    made.queue.put(At(0))
    made.playback = "paused"
    made.queue.put(At(1))
    assert (made.take_all(), made.queue.lost) == ([0, 1], {})


def test_nothing_is_put_after_the_end_of_who_takes():
    for made in (Made(), Made(live=True), Made(newest=True)):
        made.queue.stop()
        assert made.queue.put(At(0)) is False


@given(
    live=st.booleans(),
    newest=st.booleans(),
    size=st.integers(1, 4),
    max_age_ns=st.none() | st.integers(1, 20),
    steps=st.lists(st.sampled_from(["put", "put", "take", "lose", "skip", "due"]), max_size=60),
)
def test_each_frame_is_taken_or_counted_once_before_a_later_one(
    live, newest, size, max_age_ns, steps
):
    made = Made(live=live, newest=newest, size=size, max_age_ns=max_age_ns)
    queue, put, taken, reported = made.queue, 0, [], Counter()
    for now, step in enumerate(steps):
        if step == "put" and (live or newest or len(queue._frames) < (1 if newest else size)):
            queue.put(At(now))
            put += 1
        elif step == "lose":
            queue.count(1, "max_fps")
            put += 1
        elif step in ("take", "skip", "due"):
            until_ns = now // 2 if step == "due" else None
            frame = queue.take(0.0, now_ns=now, until_ns=until_ns)
            if until_ns is not None:
                assert frame is None or frame.time_ns <= until_ns
            if frame is not None and step == "skip":
                frame = queue.skip_to(now, frame)
            if frame is not None:
                taken.append(frame.time_ns)
            reported += queue.take_lost()
    waiting = len(queue._frames)
    assert taken == sorted(set(taken))
    assert put == len(taken) + queue.lost.total() + waiting
    queue.end()
    taken += made.take_all()
    reported += queue.take_lost()
    if live:
        assert (made.reported, reported) == (queue.lost, Counter())
    else:
        assert (reported, made.reported) == (queue.lost, Counter())
