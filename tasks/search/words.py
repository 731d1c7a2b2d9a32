"""Words: what of an answer may be searched for, and how well a text has what is asked for."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any

from flowrun.tasks.evaluation.recorded import DETECTIONS

__all__ = ["fit", "folded", "said_in"]

_WORD = re.compile(r"[^\W_]+")
_LOCATION = re.compile(r"<loc\d+>|<seg\d+>")
_NO = frozenset({"0", "false", "n", "nein", "no", "none", "non", "nothing", "unanswerable", ""})
_LONGEST_RUN = 4
"""Words in a row that count together: "red circle on left" is more than its four words."""
_MOST_WORDS = 40
_LONGEST_TEXT = 2000


def said_in(kind: str, fields: Mapping[str, Any]) -> str:
    """What of a recorded answer may be searched for; "" for nothing.

    An answer of one word means nothing without its question: "yes" to "Is there a car?" is found as
    that question, and "no" not at all, as it is about what is not there.
    """
    if kind == DETECTIONS:
        return ", ".join(dict.fromkeys(map(str, fields.get("labels", ()))))
    answer = " ".join(_LOCATION.sub(" ", str(fields.get("response", ""))).split())[:_LONGEST_TEXT]
    words = _WORD.findall(answer)
    if "".join(words).lower() in _NO:
        return ""
    if len(words) == 1:
        return f"{fields.get('prompt', '')} {answer}".strip()
    return answer


@lru_cache(maxsize=4096)
def folded(text: str) -> tuple[str, ...]:
    """The words of a text as they are compared: without case, accents and the s of plurals."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(it for it in plain if not unicodedata.combining(it))
    return tuple(_singular(it.group()) for it in islice(_WORD.finditer(plain), 400))


def _singular(word: str) -> str:
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def fit(
    asked: tuple[str, ...], weight: Callable[[str], float]
) -> Callable[[tuple[str, ...]], float]:
    """What says how much of `asked` a text has: from 0, nothing, to 1, all of it in that order.

    weight: how much a word says: the rarer, the more.

    Each word counts, and each run of two to four words, as much as its words together: so "red circle"
    is rather in "a red circle" than in "a red square and a blue circle".
    """
    asked = asked[:_MOST_WORDS]
    runs: dict[str, float] = {}
    for length in range(1, min(len(asked), _LONGEST_RUN) + 1):
        for begin in range(len(asked) - length + 1):
            run = asked[begin : begin + length]
            runs[f" {' '.join(run)} "] = sum(map(weight, run))
    total = sum(runs.values())

    def score(text: tuple[str, ...]) -> float:
        there = f" {' '.join(text)} "  # no word has a space
        return sum([worth for run, worth in runs.items() if run in there]) / total if total else 0.0

    return score
