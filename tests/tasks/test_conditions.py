"""Conditions of alerts: what they read, and what is said about a wrong one."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import numpy as np
import pytest

from flowrun.msgs import DetectionsMsg, LinesMsg, PromptResponseMsg, ZonesMsg
from flowrun.msgs.basic import FloatMsg
from flowrun.tasks.conditions.condition import Condition
from flowrun.tasks.conditions.language import ConditionError, Seen
from flowrun.tasks.conditions.template import Template

ANSWER = PromptResponseMsg(response="Two people, -3.5 degrees, FIRE!", tokens=7)
FOUND = DetectionsMsg(labels=["person", "car", "person", "dog"])
FOUND.boxes = np.zeros((4, 4), np.float32)
FOUND.scores = np.array([0.9, 0.5, 0.25, np.nan], np.float32)
FOUND.class_ids = np.full(4, -1, np.int32)
ZONES = ZonesMsg(
    names=["door", "yard"], counts=[2, 0], labels=[{"person": 1, "dog": 1}, {}], inside=[[4, 7], []],
    inside_s=[[0.5, 12.0], []], entered=[[7], []], left=[[], [3, 5]], totals=[9, 4], polygons=[[], []],
)  # fmt: skip
LINES = LinesMsg(
    names=["gate"], ins=[5], outs=[1], went_in=[[2, 8]], went_out=[[9]], in_labels=[{}],
    out_labels=[{}], lines=[[]],
)  # fmt: skip
SEEN = Seen(
    {
        "answer": ANSWER,
        "detections": FOUND,
        "zones": ZONES,
        "lines": LINES,
        "message": FloatMsg(value=21.5),
    },
    at_ns=1_772_323_200_000_000_000,  # Sunday, 1 March 2026, 0:00 UTC
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("said('fire')", True),
        ("said('fir', 'deg')", False),
        ("number()", -3.5),
        ("count()", 4),
        ("count('person', 'dog')", 3),
        ("count('person', score=0.5)", 1),
        ("best('person') > best('car') and best('cat') == 0", True),
        ("inside('door')", 2),
        ("inside('door', 'person')", 1),
        ("stay_s('door') + stay_s('yard')", 12.0),
        ("entered('door'), left('yard')", (1, 2)),
        ("crossed('gate'), crossed('gate', 'in'), crossed('gate', 'out')", (3, 2, 1)),
        ("answer.tokens if lower(answer.response) else 0", 7),
        ("sum(1 for label in detections.labels if label != 'dog')", 3),
        ("any(s > 0.8 for s in detections.scores)", True),
        ("message.value > 21", True),
        ("hour, minute, weekday", (0, 0, "sun")),
        ("\n  count('car') > 0\n  and hour < 6", True),
    ],
)
def test_a_condition_reads_what_was_seen(text: str, value: object) -> None:
    assert Condition(text).value(SEEN)[0] == value


def test_hours_are_those_of_the_time_zone() -> None:
    seen = Seen({}, SEEN.at_ns, ZoneInfo("America/New_York"))
    assert Condition("hour, weekday").value(seen)[0] == (19, "sat")


def test_a_condition_says_what_it_has_read_and_its_inputs() -> None:
    condition = Condition("count('person') > 1 and (said('fire') or hour > 22)")
    assert condition.inputs == {"answer", "detections"}
    assert condition.read(SEEN) == (True, {"count('person')": 2, "said('fire')": True})


def test_no_number_is_neither_more_nor_less() -> None:
    seen = Seen({"answer": PromptResponseMsg(response="none")})
    for text in ("number() > 0", "number() < 0", "number()"):
        assert not Condition(text).read(seen).holds
    assert Condition("number() > 0").read(seen).values == {"number()": None}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a condition is missing, such as count('person') > 0"),
        ("1 +", "character 3 of '1 +': invalid syntax; "),
        ("1 + cuont('x')", "character 5 of \"1 + cuont('x')\": unknown function 'cuont'; functions: "),
        ("houre > 3", "(did you mean 'hour'?)"),
        ("'é' != lable", "character 8 of \"'é' != lable\": unknown name 'lable'; known: "),
        ("said(red)", "crossed(); a text is in quotes: 'red'"),
        ("answer > 3", "character 1 of 'answer > 3': read a field of answer, such as answer.response"),
        ("answer.respons == 'x'", "answer has no field 'respons'; fields: prompt, response, "),
        ("count", "'count' is a function; call it: count(...)"),
        ("count(3) > 1", "'count(3) > 1': count takes texts, such as count('x'); got 3"),
        ("count('x', scor=1)", "unexpected keyword argument 'scor'; write count(..., score=0.0)"),
        ("crossed('x', 'up')", "crossed: a direction is 'in' or 'out'; got 'up'"),
        ("answer.response + 1", "fails: can only concatenate str"),
        ("detections.scores[0] > 1", "fails: list index out of range"),
        ("max(detections.scores) > 1", "fails: max()"),
        ("9**9**9 > 1", "comes to something too large"),
        ("__import__('os')", "unknown function '__import__'; "),
        ("answer.__class__", "answer has no field '__class__'; "),
        ("message.__class__", "a message has no field '__class__'"),
        ("'a'.upper()", "only functions are called; "),
        ("(lambda: 1)()", "only functions are called; "),
        ("f'{hour}'", "JoinedStr is not part of a condition"),
        ("b'x'", "b'x' is not part of a condition"),
        ("x" * 4097, "a condition has at most 4,096 characters; got 4,097; "),
        ("(" * 999 + ")" * 999, "a condition is an expression"),
    ],
)  # fmt: skip
def test_a_wrong_condition_is_found_before_the_run(text: str, said: str) -> None:
    with pytest.raises(ConditionError) as error:
        Condition(text)
    assert said in str(error.value)


def test_a_zone_that_there_is_not_is_named_when_zones_come() -> None:
    with pytest.raises(ConditionError) as error:
        Condition("inside('dor') > 0").read(SEEN)
    assert str(error.value) == (
        "\"inside('dor') > 0\": inside: unknown zone 'dor'; zones: door, yard (did you mean 'door'?)"
    )


def test_a_text_holds_what_expressions_come_to() -> None:
    made = Template("{count('person')} people, {{best}} {best():.1f}, {stay_s('door'):.0f} s")
    assert made.inputs == {"detections", "zones"}
    assert made.fill(SEEN) == "2 people, {best} 1.0, 12 s"


@pytest.mark.parametrize("text", ["{", "{}", "{cuont('x')}", "{hour!r}", "{best():q}"])
def test_a_wrong_text_is_found_before_the_run(text: str) -> None:
    with pytest.raises(ConditionError):
        Template(text)
