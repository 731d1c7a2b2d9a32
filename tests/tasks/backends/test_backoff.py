"""How long a server is left alone after it failed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flowrun.tasks.backends.backoff import Backoff, retry_after_s
from flowrun.tasks.backends.chat import ServerError

NOW_S = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC


class Bench:
    def __init__(self, seed: int = 0) -> None:
        self.now_s = 100.0
        self.backoff = Backoff(np.random.default_rng(seed), now_s=lambda: self.now_s)

    def rest_s(self, asked: Any = "cap en") -> float:
        """How long the server rests from now on, to 0.05 s."""
        rest_s = 0.0
        while True:
            self.now_s += 0.05
            try:
                self.backoff.check(asked)
            except ServerError:
                rest_s += 0.05
            else:
                return rest_s


def failure(after_s: float | None = None) -> ServerError:
    return ServerError("S: status 429: slow down", may_pass=True, retry_after_s=after_s)


def test_rests_double_up_to_thirty_seconds_and_vary() -> None:
    bench, rests = Bench(), []
    for _ in range(8):
        bench.backoff.note_failure(failure(), "cap en")
        rests.append(bench.rest_s())
    for rest_s, about_s in zip(rests, [1, 2, 4, 8, 16, 30, 30, 30], strict=True):
        assert 0.7 * about_s < rest_s < 1.3 * about_s
    assert len(set(rests)) == 8
    other = Bench(seed=1)
    other.backoff.note_failure(failure(), "cap en")
    assert other.rest_s() != rests[0]


def test_the_server_says_how_long_within_bounds() -> None:
    for asked_s, least_s, most_s in ((7.0, 6.9, 7.8), (0.0, 0.7, 1.3), (86400.0, 299, 331)):
        bench = Bench()
        bench.backoff.note_failure(failure(asked_s), "cap en")
        assert least_s < bench.rest_s() < most_s


def test_a_resting_server_repeats_its_failure_in_the_same_words() -> None:
    bench = Bench()
    bench.backoff.note_failure(failure(8), "cap en")
    assert bench.backoff.rests
    texts = set()
    for _ in range(5):
        bench.now_s += 1
        with pytest.raises(ServerError) as caught:
            bench.backoff.check("cap en")
        texts.add(str(caught.value))
    [text] = texts
    assert text.startswith("S: status 429: slow down; it is left alone for 8.")
    assert text.endswith(" s")


def test_another_question_and_an_answer_end_the_rest() -> None:
    bench = Bench()
    bench.backoff.note_failure(failure(60), "cap en")
    bench.backoff.check("what is it?")
    assert not bench.backoff.rests
    bench.backoff.note_failure(failure(), "cap en")
    bench.backoff.note_success()
    bench.backoff.check("cap en")
    bench.backoff.note_failure(failure(), "cap en")
    assert bench.rest_s() < 1.3  # counted from the first again


def test_a_server_that_is_ready_rests_only_if_it_asked_to() -> None:
    bench = Bench()
    bench.backoff.note_failure(failure(), "cap en")
    bench.backoff.note_health()
    bench.backoff.check("cap en")
    bench.backoff.note_failure(failure(), "cap en")
    assert bench.rest_s() > 1.4  # counted on
    bench.backoff.note_failure(failure(7), "cap en")
    bench.backoff.note_health()
    assert bench.backoff.is_wanted
    assert bench.rest_s() > 6.9
    assert not bench.backoff.is_wanted


def test_retries_of_one_question_double_and_heed_the_server() -> None:
    backoff = Bench().backoff
    for number, about_s in enumerate([0.1, 0.2, 0.4, 0.8]):
        assert 0.75 * about_s <= backoff.retry_s(number, failure()) <= 1.25 * about_s
    assert 3 <= backoff.retry_s(0, failure(3)) <= 3.3


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": " 0.5 "}, 0.5),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:50 GMT"}, 30.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:00 GMT"}, 0.0),
        # The server's own clock counts.
        (
            {
                "retry-after": "Tue, 14 Nov 2023 22:13:50 GMT",
                "date": "Tue, 14 Nov 2023 22:13:45 GMT",
            },
            5.0,
        ),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "Tue, 99 Nov 99999 22:13:50 GMT"}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: dict[str, str], wait_s: float | None) -> None:
    assert retry_after_s(headers, now_s=NOW_S) == wait_s
