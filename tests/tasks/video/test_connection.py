"""When a source is opened again, and what is said of it meanwhile."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from flowrun.tasks.video import connection as connection_module
from flowrun.tasks.video.connection import Backoff, Connection
from flowrun.tasks.video.opening import VideoError
from flowrun.tasks.video.settings import Reconnect, VideoSettings

REFUSED = VideoError("nothing listens", code="refused")
LOST = VideoError("was lost", code="ended")


def pauses(*passed_s: float, code: str = "refused", draw: float = 1.0, **config: Any) -> list[Any]:
    """The pauses after failed attempts that take so long, and are waited out."""
    now_s = 100.0
    backoff = Backoff(Reconnect(**config), draw=lambda: draw, now_s=now_s)
    found = []
    for took_s in passed_s:
        now_s += took_s
        pause_s = backoff.pause_s(now_s, code=code)
        found.append(None if pause_s is None else round(pause_s, 2))
        now_s += pause_s or 0.0
    return found


def test_a_source_that_stays_away_is_asked_less_and_less_often() -> None:
    found = pauses(*[0] * 60)
    assert found[:8] == [1, 1, 1, 1, 1, 1.25, 1.56, 1.95]
    assert found == sorted(found)
    assert found[-1] == 30
    assert pauses(*[0] * 3, draw=0.0) == [0.8, 0.8, 0.8]
    assert pauses(0, 0, 0, delay_s=60) == [60, 60, 60]
    assert pauses(50, delay_s=0.5, max_delay_s=10) == [10]


def test_a_wrong_password_is_not_tried_often() -> None:
    assert pauses(0, 0, code="auth") == [30, 30]


def test_attempts_are_used_up() -> None:
    assert pauses(0, 0, 0, max_attempts=2) == [1, 1, None]
    assert pauses(0, max_attempts=0) == [None]


def test_a_source_that_was_back_long_enough_begins_as_at_first() -> None:
    backoff = Backoff(Reconnect(max_attempts=3), draw=lambda: 1.0, now_s=0.0)
    for now_s in (10.0, 20.0):
        assert backoff.pause_s(now_s, code="ended") == now_s / 4
    backoff.note_back(40.0)
    assert backoff.pause_s(44.0, code="ended") == 6  # 40 s away, less 4 times 4 s
    backoff.note_back(48.0)
    assert backoff.pause_s(55.0, code="ended") == 1  # 28 s away, less 4 times 7 s
    assert [backoff.pause_s(55.0, code="ended") for _ in range(3)] == [1, 1, None]


@given(
    st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=50),
    st.floats(0.01, 5),
    st.floats(0.01, 60),
    st.floats(0, 1),
)
def test_a_pause_is_within_its_limits(
    passed: list[tuple[float, bool]], delay_s: float, max_delay_s: float, draw: float
) -> None:
    """It is at most a quarter of the time that the source was away in all, or `delay_s`."""
    config = Reconnect(delay_s=delay_s, max_delay_s=max_delay_s)
    backoff, now_s, away_s = Backoff(config, draw=lambda: draw, now_s=0.0), 0.0, 0.0
    for passed_s, is_back in passed:
        if is_back:
            backoff.note_back(now_s)
        else:
            away_s += passed_s
        now_s += passed_s
        pause_s = backoff.pause_s(now_s, code="ended")
        assert pause_s is not None
        most_s = max(delay_s, min(max_delay_s, away_s / 4))
        assert 0.8 * delay_s * 0.999 <= pause_s <= most_s * 1.001
        now_s += pause_s
        away_s += pause_s


# -- with a source that is scripted ------------------------------------------------------------


class World:
    """What each attempt to open gives, and what was said and waited meanwhile."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *steps: Any, **config: Any) -> None:
        self.steps = list(steps)
        self.now_s = 100.0
        self.said: list[Any] = []
        self.known: list[bool] = []
        monkeypatch.setattr(connection_module, "open_video", self.open)
        monkeypatch.setattr(connection_module, "is_live", lambda *_: True)
        monkeypatch.setattr(connection_module.time, "monotonic", lambda: self.now_s)
        self.connection = Connection(
            VideoSettings(**{"source_uri": "rtsp://me:secret@host/cam", **config}),
            Path(),
            report=lambda state, code: self.said.append((state, code)),
            log=structlog.get_logger(),
            draw=lambda: 1.0,
        )
        monkeypatch.setattr(self.connection._stopped, "wait", self.wait)

    def open(self, *_: Any, is_known: bool) -> Any:
        self.known.append(is_known)
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    def wait(self, pause_s: float) -> None:
        self.said.append(pause_s)
        self.now_s += pause_s


def test_a_first_connection_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, REFUSED)
    with pytest.raises(VideoError) as caught:
        world.connection.open()
    assert caught.value is REFUSED
    assert (world.connection.may_wait, world.said) == (False, [])


def test_a_first_connection_that_gives_no_picture_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch, "camera", "camera")
    world.connection.open()
    with pytest.raises(VideoError) as caught:
        world.connection.open(LOST)
    assert caught.value is LOST
    assert world.steps == ["camera"]


def test_a_run_may_begin_without_its_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, REFUSED, REFUSED, "camera", reconnect={"at_start": True})
    with structlog.testing.capture_logs() as logs:
        opened = world.connection.open()
        assert opened is not None
        assert (opened.container, opened.is_live, opened.is_again) == ("camera", True, False)
        world.connection.note_picture()
        world.connection.note_picture()
    assert world.connection.may_wait
    refused = ("connecting", "refused")
    assert world.said == [refused, 1.0, refused, 1.0, ("running", "")]
    assert [(it["event"], it["code"]) for it in logs] == [("no connection", "refused")]


def test_what_is_lost_is_opened_again_whatever_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = VideoError("refused the user name and password", code="auth")
    world = World(monkeypatch, "camera", REFUSED, REFUSED, wrong, "camera again")
    world.connection.open()
    world.connection.note_picture()
    world.now_s += 60
    world.said.clear()
    with structlog.testing.capture_logs() as logs:
        opened = world.connection.open(LOST)
        assert opened is not None
        assert (opened.container, opened.is_again) == ("camera again", True)
        world.connection.note_picture()
    assert world.said == [
        *(("lost", "ended"), 1.0, ("lost", "refused"), 1.0, ("lost", "refused"), 1.0),
        *(("lost", "auth"), 30.0, ("running", "")),
    ]
    assert world.known == [False, True, True, True, True]
    assert [(it["log_level"], it["event"]) for it in logs] == [
        ("warning", "source lost"),
        ("warning", "no connection"),
        ("warning", "no connection"),
        ("info", "source is back"),
    ]
    assert logs[0] | {"reason": "was lost", "code": "ended", "source": "rtsp://host/cam"} == logs[0]
    assert logs[-1]["after_s"] == 33.0


class FirstPacket(bytes):
    pts = 7


def container(form: str = "mpegts") -> Any:
    return SimpleNamespace(format=SimpleNamespace(name=form))


# fmt: off
REPEATS = [
    (10.0, b"a", b"a", {}, "mpegts", True),
    (2.0, b"a", b"a", {}, "mpegts", False),  # as fast as it plays: a camera that shows nothing new
    (10.0, b"a", b"b", {}, "mpegts", False),
    (10.0, b"a", b"a", {"live": True}, "mpegts", False),
    (10.0, b"a", b"a", {}, "hls", False),
]
# fmt: on


@pytest.mark.parametrize(("plays_s", "first", "second", "config", "form", "expected"), REPEATS)
def test_what_comes_again_faster_than_it_plays_is_a_film(
    monkeypatch: pytest.MonkeyPatch,
    plays_s: float,
    first: bytes,
    second: bytes,
    config: dict[str, Any],
    form: str,
    expected: bool,
) -> None:
    world = World(monkeypatch, "one", "two", source_uri="http://host/a.ts", **config)
    connection = world.connection
    connection.open()
    assert connection.is_repeated(FirstPacket(first), container(form)) is False
    connection.note_picture()
    world.now_s += 1.5
    connection.note_end(plays_s)
    connection.open(LOST)
    with structlog.testing.capture_logs() as logs:
        assert connection.is_repeated(FirstPacket(second), container(form)) is expected
    assert [it["event"] for it in logs] == [
        "it was a film, not live: its server gives the same again, faster than it plays. "
        "live: false gives all its pictures"
    ] * expected


def test_attempts_that_are_used_up_give_the_last_error(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, "camera", REFUSED, REFUSED, reconnect={"max_attempts": 2})
    world.connection.open()
    world.connection.note_picture()
    with pytest.raises(VideoError) as caught:
        world.connection.open(LOST)
    assert caught.value is REFUSED
    assert world.steps == []


def test_a_source_that_was_stopped_is_not_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    camera = SimpleNamespace(close=lambda: closed.append(1))
    world = World(monkeypatch, camera, REFUSED, reconnect={"at_start": True})

    def stopping(*_: Any, is_known: bool) -> Any:
        world.connection.stop()
        return world.open(is_known=is_known)

    monkeypatch.setattr(connection_module, "open_video", stopping)
    assert world.connection.open() is None
    assert closed == [1]
    assert world.connection.open(LOST) is None
    world = World(monkeypatch, REFUSED)
    monkeypatch.setattr(connection_module, "open_video", stopping)
    assert world.connection.open() is None  # not an error of the source
    world.connection.note_picture()
    assert world.said == []
    world = World(monkeypatch, REFUSED, reconnect={"at_start": True})
    monkeypatch.setattr(world.connection._stopped, "wait", lambda _: world.connection.stop())
    assert world.connection.open() is None
    assert world.known == [False]


def test_a_file_only_says_that_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, "film", source_uri="film.mp4", reconnect={"at_start": True})
    assert not world.connection.may_wait
    world.connection.open()
    assert world.said == []
    world.connection.note_picture()
    assert world.said == [("running", "")]
