"""`VideoCapture` with a reader that gives what a test says: which cycle gets which frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import structlog

from flowrun.runtime.engine.alone import SourceEnds
from flowrun.runtime.testing import run_task
from flowrun.tasks.video import capture as capture_module
from flowrun.tasks.video.capture import VideoCapture, VideoError
from flowrun.tasks.video.numbering import Frame
from flowrun.tasks.video.packets import Origin

S = 1_000_000_000


class Script:
    """A reader. `steps`: what each `take` gives: a time, or None for no frame; it is at its end after
    them. `damages`: how much is damaged after each. `origin`: that of each frame."""

    live, policy, fps = False, "every_frame", 29.97003
    is_hdr, pixel_aspect = False, 1.0
    name, width, height = "script", 4, 2
    error: VideoError | None = None
    has_packets = True
    origin: Origin | None = None

    def __init__(self, *steps: int | None, drops: int = 0, damages: int = 0, **more: Any) -> None:
        self.steps = list(steps)
        self.drops, self.damages = drops, damages
        self.dropped = self.damaged = 0
        self.frames = self
        self.reported: Counter[str] = Counter()
        self.waited: list[float] = []
        self.nows: list[int | None] = []
        self.skipped: list[tuple[int, int]] = []
        self.started = 0
        self.waited_for = self.interrupted = self.stopped = 0
        self.number = 0
        self.oldest: Frame | None = None
        vars(self).update(more)

    def take_rest(self) -> tuple[tuple[bytes, bool], ...]:
        return ()

    def start(self) -> None:
        self.started += 1

    def take(
        self, wait_s: float, *, now_ns: int | None = None, until_ns: int | None = None
    ) -> Frame | None:
        self.nows.append(now_ns)
        self.waited.append(wait_s)
        first_ns = self.steps[0] if self.steps else None
        self.oldest = None if first_ns is None else self.frame_at(first_ns)
        if first_ns is not None and until_ns is not None and first_ns > until_ns:
            return None
        time_ns = self.steps.pop(0) if self.steps else None
        if time_ns is None:
            return None
        self.dropped += self.drops
        self.damaged += self.damages
        self.number += 1
        return self.frame_at(time_ns)

    def frame_at(self, time_ns: int) -> Frame:
        pixels = np.full((2, 4, 3), self.number, np.uint8)
        return Frame(pixels, self.number, None, time_ns, self.origin)

    def skip_to(self, played_ns: int, frame: Frame, wait_s: float = 0.0) -> Frame:
        assert wait_s == 0
        self.skipped.append((played_ns, frame.frame_id))
        return frame

    @property
    def drained(self) -> bool:
        return not self.steps

    @property
    def lost(self) -> Counter[str]:
        return +Counter({"latest": self.dropped, "damaged": self.damaged})

    def take_lost(self) -> Counter[str]:
        found, self.reported = self.lost - self.reported, self.lost
        return found

    def has_more(self) -> bool:
        return bool(self.steps)

    def packets_of(self, _frame: Frame) -> None:
        return None

    def wait_until_open(self) -> None:
        self.waited_for += 1

    def interrupt(self) -> None:
        self.interrupted += 1

    def stop(self) -> bool:
        self.stopped += 1
        return True


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Played]:
    """Runs the task with a `Script`."""

    def play(
        script: Script, *, period_ns: int = 1, cycles: int | None = None, **config: Any
    ) -> Any:
        monkeypatch.setattr(capture_module, "Reader", lambda *_, **__: script)
        dropped: list[int] = []
        monkeypatch.setattr(SourceEnds, "_dropped", lambda _, count, _cause: dropped.append(count))
        with structlog.testing.capture_logs() as logs:
            config = {"source_uri": "grey.mp4", **config}
            out = run_task(
                VideoCapture, config=config, graph_dir=tmp_path, period_ns=period_ns, cycles=cycles
            )
        return Played([cycle["image"].tov_ns for cycle in out], dropped, logs)

    return play


class Played(NamedTuple):
    tov_ns: list[int]
    dropped: list[int]
    logs: list[Any]

    def lines(self, event: str) -> list[Any]:
        return [log for log in self.logs if log["event"] == event]


def test_a_cycle_waits_for_a_frame_of_a_file_only(play: Callable[..., Played]) -> None:
    script = Script(3, None, 5, 8)
    assert play(script, period_ns=100).tov_ns == [3, 5, 8]
    assert script.waited == [1.0] * 5
    script = Script(3, None, 5, live=True)
    assert play(script).tov_ns == [3, 5]
    assert script.waited == [0.0] * 4
    script = Script(None, 0, 5, None, 7)
    assert play(script, period_ns=100, realtime=True).tov_ns == [100, 105, 107]
    assert script.waited[:2] == [1.0, 1.0]
    assert set(script.waited[2:]) == {0.0}
    script = Script(3, live=True)
    play(script, realtime=True)
    assert script.waited == [0.0, 0.0]


def test_a_file_at_its_own_speed_skips_only_where_the_newest_is_wanted(
    play: Callable[..., Played],
) -> None:
    script = Script(0, 50, 250, policy="latest")
    assert play(script, period_ns=100, realtime=True).tov_ns == [0, 50, 250]
    assert script.skipped == [(0, 1), (100, 2), (250, 3)]
    for script in (Script(0, 50), Script(0, 50, live=True, policy="latest")):
        play(script, period_ns=100, realtime=True)
        assert script.skipped == []


def test_frames_have_an_age_where_they_have_a_time_of_their_own(
    play: Callable[..., Played],
) -> None:
    script = Script(0, 100, live=True)
    play(script, period_ns=100, policy={"max_age_ms": 5})
    assert script.nows[:2] == [0, 100]  # the cycle's time
    script = Script(0, 100, 200)
    played = play(script, period_ns=100, realtime=True, policy={"max_age_ms": 5})
    assert script.nows[:3] == [0, 100, 200]  # since the first frame
    assert played.lines("frames of a file have no age unless it has realtime: true") == []
    script = Script(0, 100)
    played = play(script, period_ns=100, policy={"max_age_ms": 5})
    assert set(script.nows) == {None}
    assert len(played.lines("frames of a file have no age unless it has realtime: true")) == 1


def test_times_before_1970_and_after_2262_are_cut(play: Callable[..., Played]) -> None:
    script = Script(-5, 2**63 - 1, 2**63, live=True)
    assert play(script).tov_ns == [0, 2**63 - 1, 2**63 - 1]


def test_what_was_dropped_is_counted_since_the_frame_before(play: Callable[..., Played]) -> None:
    assert play(Script(0, 1, 2, drops=3)).dropped == [3, 3, 3]
    assert play(Script(0, 1)).dropped == []

    class DropsAtItsEnd(Script):
        def take(self, wait_s: float, **limits: int | None) -> Frame | None:
            if not self.steps:
                self.dropped = 5
            return super().take(wait_s, **limits)

    assert play(DropsAtItsEnd(0, drops=1)).dropped == [1, 4]


def test_losses_are_logged_every_ten_seconds_and_at_the_end(play: Callable[..., Played]) -> None:
    played = play(Script(*range(25), drops=1, damages=2), period_ns=S)
    assert [(it["latest"], it["damaged"]) for it in played.lines("frames lost")] == [
        *((11, 22), (21, 42), (25, 50))
    ]
    played = play(Script(0, 1, 2, drops=1), period_ns=10 * S - 1)
    assert [it["latest"] for it in played.lines("frames lost")] == [3]
    for script in (Script(*range(11), drops=1), Script(*range(11), damages=1)):
        assert len(play(script, period_ns=S).lines("frames lost")) == 1
    assert play(Script(*range(12)), period_ns=S).lines("frames lost") == []
    played = play(Script(*range(10), drops=1), period_ns=S, cycles=10)
    assert played.lines("frames lost") == []


@pytest.mark.parametrize("is_damaged", [True, False])
def test_damaged_pictures_are_logged_every_ten_seconds_and_at_the_end(
    play: Callable[..., Played], is_damaged: bool
) -> None:
    origin = Origin(0, 0, 0, drained=False, is_damaged=is_damaged)
    lines = play(Script(*range(25), origin=origin), period_ns=S).lines("packets missing or damaged")
    assert [(it["source"], it["damaged_pictures"]) for it in lines] == [
        ("script", count) for count in (11, 21, 25) if is_damaged
    ]


def test_a_source_says_what_it_opened_and_stops(play: Callable[..., Played]) -> None:
    script = Script(0)
    played = play(script)
    [opened] = played.lines("source opened")
    assert opened == {
        "event": "source opened",
        "log_level": "info",
        "task": "VideoCapture",
        "source": "script",
        "width": 4,
        "height": 2,
        "fps": 29.97,
        "policy": "every_frame",
    }
    assert (script.started, script.waited_for, script.stopped) == (1, 1, 1)


@pytest.mark.parametrize("live", [False, True])
def test_an_error_ends_the_source_and_the_run(play: Callable[..., Played], live: bool) -> None:
    error = VideoError("odd", code="tls")
    script = Script(0, error=error, live=live)
    with pytest.raises(VideoError) as caught:
        play(script)
    assert caught.value is error
    assert script.stopped == 1


def test_a_source_whose_error_is_skipped_has_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support import helpers

    script = Script(0, error=VideoError("odd", code="tls"), live=True)
    monkeypatch.setattr(capture_module, "Reader", lambda *_, **__: script)
    (tmp_path / "grey.mp4").touch()
    film = f"VideoCapture(source_uri: {tmp_path / 'grey.mp4'})@on_error: skip"
    run, result = helpers.record(helpers.plan_of(tmp_path, f"a={film}"), tmp_path / "run")
    assert (result.error, result.reason) == (None, "end of sources")
    kinds = [(kind, value) for _, kind, _, value in helpers.controls(tmp_path / "run")]
    assert kinds == [
        ("error", "VideoError: odd"), ("source_state", "tls"), ("end_of_source", None)
    ]  # fmt: skip
    assert (run.report().tasks["a"].state, run.report().tasks["a"].code) == ("error", "tls")
