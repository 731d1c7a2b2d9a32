"""What people see of backends: whether each answers, and when a server is asked for that."""

from __future__ import annotations

import threading

import pytest

from flowrun.tasks.backends.health import BackendHealth
from flowrun.tasks.models.question import ModelError


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class ScriptedProbe:
    """Answers when it is let, with `error` or well."""

    def __init__(self, every_s: float) -> None:
        self.every_s = every_s
        self.error = ""
        self.asked = 0
        self.is_asked, self.lets = threading.Event(), threading.Event()
        self.lets.set()

    def ask(self) -> None:
        self.asked += 1
        self.is_asked.set()
        assert self.lets.wait(60)
        if self.error:
            raise ModelError(self.error)

    def cancel(self) -> None:
        self.error = "withdrawn"
        self.lets.set()


class Bench:
    def __init__(self) -> None:
        self.clock = Clock()
        self.order = ["own", "near"]
        self.near, self.far = ScriptedProbe(5), ScriptedProbe(60)
        self.health = BackendHealth(
            ["own", "near", "far"],
            order=lambda: self.order,
            probes={"near": self.near, "far": self.far},
            now_s=self.clock,
        )

    def look(self) -> None:
        """Somebody looks; returns when what that has begun is done."""
        self.health.ask()
        for thread in threading.enumerate():
            if thread.name == "flowrun-backend-health":
                thread.join(60)

    def of(self, name: str) -> tuple[object, ...]:
        it = self.health.health()[name]
        return it.state, it.for_s, it.seen_s, it.detail


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_questions_show_whether_a_backend_answers(bench: Bench) -> None:
    assert bench.of("own") == ("unused", 0, 0, "")
    bench.health.note_loading("own", "weights 60 %")
    bench.clock.now_s += 2
    assert bench.of("own") == ("loading", 2, 2, "weights 60 %")
    bench.health.note_ready("own")
    bench.clock.now_s += 3
    bench.health.note_answer("own")
    bench.clock.now_s += 1
    assert bench.of("own") == ("ok", 4, 1, "")
    for text in ("no answer within 30 s", "connection refused"):
        bench.health.note_loading("own")  # is no news of one that has failed
        bench.health.note_failure("own", text, by_question=True)
        bench.clock.now_s += 10
    assert bench.of("own") == ("failing", 20, 10, "connection refused")
    bench.health.note_answer("own")
    assert bench.of("own") == ("ok", 0, 0, "")
    assert [it.used for it in bench.health.health().values()] == [True, True, False]
    bench.order = ["far"]
    assert [it.used for it in bench.health.health().values()] == [False, False, True]


def test_servers_are_asked_while_somebody_looks_and_no_more_often_than_needed(bench: Bench) -> None:
    bench.far.error = "connection refused"
    for _ in range(3):
        bench.look()
    assert (bench.near.asked, bench.far.asked) == (1, 1)
    assert bench.of("near")[0] == "ok"
    assert bench.of("far") == ("failing", 0, 0, "connection refused")
    bench.clock.now_s += 5
    bench.look()
    assert (bench.near.asked, bench.far.asked) == (2, 1)
    # An answer shows as much: for as long, nobody asks.
    bench.clock.now_s += 54
    bench.health.note_answer("far")
    bench.clock.now_s += 59
    bench.look()
    assert (bench.near.asked, bench.far.asked) == (3, 1)
    bench.clock.now_s += 1
    bench.far.error = ""
    bench.look()
    assert bench.far.asked == 2
    assert bench.of("far") == ("ok", 60, 0, "")


def test_a_server_that_lists_its_models_and_fails_to_answer_is_failing(bench: Bench) -> None:
    bench.health.note_failure("near", "500", by_question=True)
    bench.clock.now_s += 100
    bench.look()
    assert bench.near.asked == 0
    assert bench.of("near")[0] == "failing"
    # One that could not be reached is asked again.
    bench.health.note_failure("near", "connection refused", by_question=False)
    bench.clock.now_s += 5
    bench.look()
    assert bench.of("near")[0] == "ok"


def test_what_a_question_shows_meanwhile_counts(bench: Bench) -> None:
    bench.near.lets.clear()
    bench.far.lets.clear()
    bench.health.ask()
    assert bench.near.is_asked.wait(60)
    bench.clock.now_s += 1
    bench.health.note_failure("near", "500", by_question=True)
    bench.near.lets.set()
    bench.far.lets.set()
    bench.look()
    assert bench.of("near")[0] == "failing"


def test_the_end_waits_for_no_server_and_keeps_what_is_known(bench: Bench) -> None:
    bench.near.lets.clear()
    bench.health.ask()
    assert bench.near.is_asked.wait(60)
    bench.health.note_answer("own")
    bench.health.close()
    assert not any(it.name == "flowrun-backend-health" for it in threading.enumerate())
    bench.clock.now_s += 50
    assert bench.of("own") == ("ok", 0, 0, "")
    assert bench.of("near")[0] == "unused"
    bench.look()
    assert (bench.near.asked, bench.far.asked) == (1, 0)
