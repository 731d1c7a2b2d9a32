"""Who answers: a backend while it works, its fallbacks while it does not."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest
import structlog
from structlog.testing import capture_logs

from flowrun.tasks.backends.chain import Chain
from flowrun.tasks.backends.health import BackendHealth
from flowrun.tasks.models.question import Answer, ModelError, Question

QUESTION = Question(np.zeros((2, 2, 3), np.uint8), "cap en", 5)
S = 1_000_000_000


class Scripted:
    """Fails on demand: `errors` are raised by the next questions, `load_errors` by the next loads."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.errors: deque[Exception] = deque()
        self.load_errors: deque[Exception] = deque()
        self.is_healthy = True
        self.calls: list[str] = []

    def load(self) -> None:
        self.calls.append("load")
        if self.load_errors:
            raise self.load_errors.popleft()

    def answer(self, question: Question) -> Answer:
        self.calls.append("answer")
        if self.errors:
            raise self.errors.popleft()
        return Answer(f"{self.name} says {question.prompt}", 1)

    def healthy(self) -> bool:
        self.calls.append("healthy")
        return self.is_healthy

    def cancel(self) -> None:
        self.calls.append("cancel")

    def close(self) -> None:
        self.calls.append("close")


class Bench:
    def __init__(self) -> None:
        self.backends: dict[str, Scripted] = {}
        self.health = BackendHealth("abcde", order=list, probes={})
        self.chain = Chain(self.__getitem__, structlog.get_logger(), self.health)

    def __getitem__(self, name: str) -> Scripted:
        return self.backends.setdefault(name, Scripted(name))

    def who(self, *names: str, at_s: float = 0) -> str:
        name, answer = self.chain.answer(QUESTION, names, now_ns=int(at_s * S))
        assert answer.text == f"{name} says cap en"
        return name


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_first_answers_and_others_are_not_even_made(bench: Bench) -> None:
    assert bench.who("a", "b") == "a"
    assert list(bench.backends) == ["a"]
    assert bench["a"].calls == ["load", "answer"]


def test_the_next_answers_until_the_first_has_rested_and_is_healthy(bench: Bench) -> None:
    bench["a"].errors += [ModelError("no")]
    with capture_logs() as records:
        assert bench.who("a", "b", at_s=0) == "b"
        assert bench.who("a", "b", at_s=0.9) == "b"
        bench["a"].is_healthy = False
        assert bench.who("a", "b", at_s=1) == "b"  # asked, and rests 2 s more
        bench["a"].is_healthy = True
        assert bench.who("a", "b", at_s=2.9) == "b"
        assert bench.who("a", "b", at_s=3) == "a"
        assert bench.who("a", "b", at_s=3.1) == "a"
    assert bench["a"].calls == ["load", "answer", "healthy", "healthy", "answer", "answer"]
    assert [(r["event"], r["backend"]) for r in records] == [
        ("backend failed", "a"),
        ("backend answers again", "a"),
    ]
    assert (records[0]["error"], records[0]["next"]) == ("no", "b")


def test_pauses_double_up_to_thirty_seconds(bench: Bench) -> None:
    bench["a"].errors += [ModelError("no")] * 20
    at_s, pauses = 0.0, []
    bench.who("a", "b", at_s=at_s)
    for _ in range(8):
        asked, began = bench["a"].calls.count("answer"), at_s
        while bench["a"].calls.count("answer") == asked:
            at_s += 0.5
            bench.who("a", "b", at_s=at_s)
        pauses.append(at_s - began)
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]


def test_one_that_cannot_be_loaded_is_tried_again_later(bench: Bench) -> None:
    bench["a"].load_errors += [ModelError("no server")]
    bench.chain.load(["a", "b"], now_ns=0)
    assert bench.who("a", "b", at_s=0.5) == "b"
    assert bench.who("a", "b", at_s=1) == "a"
    assert bench["a"].calls == ["load", "load", "answer"]


def test_without_fallbacks_each_question_is_tried_and_each_error_raised(bench: Bench) -> None:
    bench["a"].errors += [ModelError("first"), RuntimeError("second")]
    with pytest.raises(ModelError, match="^first$"):
        bench.who("a")
    with pytest.raises(RuntimeError, match="^second$"):
        bench.who("a")
    assert bench.who("a") == "a"


def test_when_all_fail_the_error_names_each(bench: Bench) -> None:
    bench["a"].errors += [ModelError("timed out")] * 2
    bench["b"].errors += [RuntimeError("no memory")] * 2
    expected = "^no backend answers; a: timed out; b: RuntimeError: no memory$"
    with pytest.raises(ModelError, match=expected):
        bench.who("a", "b", at_s=0)
    with pytest.raises(ModelError, match=expected):  # both rest, but nobody else is left
        bench.who("a", "b", at_s=0.1)
    assert bench.who("a", "b", at_s=0.2) == "a"


def test_load_fails_only_if_all_do(bench: Bench) -> None:
    bench["a"].load_errors += [ModelError("x")]
    bench["b"].load_errors += [ModelError("y")]
    with pytest.raises(ModelError, match="^no backend answers; a: x; b: y$"):
        bench.chain.load(["a", "b"], now_ns=0)


def test_every_backend_is_closed_though_one_raises(bench: Bench) -> None:
    bench["a"].errors += [ModelError("no")]
    bench.who("a", "b")

    def fails() -> Any:
        raise OSError("stuck")

    bench["b"].close = fails  # type: ignore[method-assign]
    bench.chain.close()
    assert bench["a"].calls[-1] == "close"


def test_a_thawed_chain_rests_as_the_frozen_one_did(bench: Bench) -> None:
    bench["a"].errors += [ModelError("no")]
    bench.who("a", "b", at_s=0)
    other = Bench()
    other.chain.thaw(bench.chain.freeze())
    assert not other.backends  # nothing is made for it
    assert other.chain.freeze() == bench.chain.freeze() == {"a": [1, S]}
    assert other.who("a", "b", at_s=0.9) == "b"
    assert other.who("a", "b", at_s=1) == "a"


def test_a_question_that_is_withdrawn_asks_no_fallback() -> None:
    bench = Bench()
    bench.chain.load(["a"], now_ns=0)

    def withdraw(question: Question) -> Answer:
        bench.chain.cancel()
        raise ModelError("withdrawn")

    bench["a"].answer = withdraw  # type: ignore[method-assign]
    with capture_logs() as records, pytest.raises(ModelError, match="^withdrawn$"):
        bench.who("a", "b")
    assert bench["a"].calls == ["load", "cancel"]
    assert bench["b"].calls == []
    assert records == []
    with pytest.raises(ModelError, match="^the question was withdrawn$"):
        bench.who("b")


def test_what_is_asked_shows_how_each_is_doing(bench: Bench) -> None:
    bench["a"].load_errors += [ModelError("no server")]
    bench["b"].errors += [ModelError("500 at http://me:pass@there")]
    bench.chain.load(["a", "b"], now_ns=0)
    bench.who("b", "c")

    def seen() -> dict[str, tuple[str, str]]:
        return {name: (it.state, it.detail) for name, it in bench.health.health().items()}

    assert seen() == {
        "a": ("failing", "no server"),
        "b": ("failing", "500 at http://***@there"),
        "c": ("ok", ""),
        "d": ("unused", ""),
        "e": ("unused", ""),
    }
    bench.who("a", "b", at_s=1)
    assert seen()["a"] == ("ok", "")
