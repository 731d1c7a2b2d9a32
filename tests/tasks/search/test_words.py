"""Which words of an answer may be searched for, and how well a text fits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrun.tasks.search.words import fit, folded, said_in


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"response": "a red circle"}, "a red circle"),
        ({"response": "Yes.", "prompt": "is there a car?"}, "is there a car? Yes."),
        ({"response": "2", "prompt": "how many cars?"}, "how many cars? 2"),
        ({"response": "No.", "prompt": "is there a car?"}, ""),
        ({"response": "0", "prompt": "how many cars?"}, ""),
        ({"response": ""}, ""),
        ({"response": "<loc0104><loc0408><loc0456><loc0664> red circle"}, "red circle"),
    ],
)
def test_an_answer_of_one_word_is_found_by_its_question_and_no_not_at_all(fields, said):
    assert said_in("PromptResponseMsg", fields) == said


def test_objects_are_found_by_their_names_each_once():
    fields = {"labels": ["car", "person", "car"]}
    assert said_in("DetectionsMsg", fields) == "car, person"


def test_case_accents_and_plurals_do_not_count():
    assert folded("Two CAFÉS, a bus's glass_door") == (
        "two", "cafe", "a", "bus", "s", "glass", "door"
    )  # fmt: skip


def test_all_words_in_their_order_fit_best():
    score = fit(folded("red circle"), lambda word: 1.0)
    texts = [
        "a red circle on the left",
        "a red square and a blue circle",
        "a red square",
        "a blue star",
    ]
    assert [score(folded(it)) for it in texts] == [1.0, 0.5, 0.25, 0.0]
    assert fit((), lambda word: 1.0)(folded("a")) == 0


def test_a_rare_word_counts_more():
    weights = {"a": 0.1, "forklift": 4.0, "person": 1.0}
    score = fit(folded("a person, a forklift"), weights.__getitem__)
    assert score(folded("a forklift")) > score(folded("a person"))


WORDS = st.lists(st.sampled_from(["a", "b", "ab", "c"]), max_size=8).map(tuple)


@given(WORDS, WORDS)
def test_each_run_of_up_to_four_words_counts_where_it_is_as_a_whole(asked, text):
    def runs_of(words):
        return {
            words[begin : begin + n] for n in range(1, 5) for begin in range(len(words) - n + 1)
        }

    wanted = runs_of(asked)
    share = sum(map(len, wanted & runs_of(text))) / max(1, sum(map(len, wanted)))
    assert fit(asked, lambda word: 1.0)(text) == pytest.approx(share)
