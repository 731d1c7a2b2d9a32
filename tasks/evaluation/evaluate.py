"""Every way to ask, about every recorded frame; what was asked before is not asked again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowrun.runtime.errors import UsageError
from flowrun.runtime.recorded.labels import Label
from flowrun.runtime.testbench.store import Store
from flowrun.tasks.evaluation.chosen import Chosen
from flowrun.tasks.evaluation.questions import Question, answered, at_once, check
from flowrun.tasks.evaluation.recorded import Asked, RecordedRun, read_runs
from flowrun.tasks.evaluation.scores import Score, Truth, score
from flowrun.tasks.evaluation.standings import (
    Comparison,
    Standing,
    compared,
    percentile,
    ranked,
    wilson,
)
from flowrun.tasks.evaluation.variants import Dependence, Variant

__all__ = ["RECORDING", "Evaluation", "evaluate"]

RECORDING = "the recording"
"""The name of the recorded answers among the ways to ask."""


@dataclass(slots=True)
class Evaluation:
    """What came of it.

    runs: what was evaluated, without runs that could not be read. asked: all their recorded answers.
    answers: by variant's name, the answers in the order of `asked`; fields of the message, plain, with
        "ms" for how long it took, or {"error": text}. `RECORDING` has the recorded ones.
    truths: what the right answers are; None where that is not known.
    scores: of the answers, in the same order.
    by: "the recording" or "labels": what the right answers are from.
    standings: the best first. comparisons: of each two.
    known: number of answers that were known before; made: of those that were asked for now.
    notes: what was left out, a sentence each.
    """

    runs: list[RecordedRun]
    variants: list[Variant]
    asked: list[Asked]
    answers: dict[str, list[dict[str, Any]]]
    truths: list[Truth | None]
    scores: dict[str, list[Score | None]]
    by: str
    standings: list[Standing]
    comparisons: list[Comparison]
    known: int = 0
    made: int = 0
    notes: list[str] = field(default_factory=list)


def evaluate(
    paths: Sequence[Path],
    variants: Sequence[Variant],
    *,
    tasks: Collection[str] = (),
    labels: Mapping[Path, Sequence[Label]] | None = None,
    most: int | None = None,
    store: Store | None = None,
    trust: bool = False,
    processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Ask about the frames of recorded runs in each way of `variants`, and compare the answers.

    paths: the runs.
    tasks: those whose answers are compared; none: all that answer about pictures.
    labels: of each run, what somebody said of its answers: only these answers are compared, with what
        is right. None: all, with the recorded ones.
    most: the most answers that are compared, spread evenly over each run; None for all.
    store: where answers are kept and looked for.
    trust: whether the recorded graphs may run, as `Replay` has it.
    processes: how many ask at the same time; None: one a core, and one alone for models of more than
        500 MB, which compute on all cores.
    progress: called with the number of answers that are there, and that of all.

    A run that cannot be read, or has none of `tasks`, is left out, and named in the notes. Raises
    `LogError` or `UsageError` where none is left, `UsageError` and `GraphError` for a variant that a
    task does not take, and `UsageError` where a model cannot be started. What was answered until then,
    or until Ctrl-C, is in the store.
    """
    runs, left_out = read_runs(paths, tasks=tasks, store=store)
    found = Chosen(runs, labels, most)
    found.notes[:0] = left_out
    if not found.asked:
        raise UsageError(
            "nothing to evaluate: " + ("; ".join(found.notes) or "no task answers about pictures")
        )
    dependence = Dependence(store)
    questions = [
        Question(variant, asked, dependence.key(variant, asked, runs[asked.run]))
        for variant in variants
        for asked in found.asked
    ]
    keys = [it.key for it in questions if it.key is not None]
    kept = {} if store is None else store.get(keys)
    for question in questions:
        question.answer = kept.get(question.key) if question.key is not None else None
        question.is_known = question.answer is not None
    known = sum(it.is_known for it in questions)
    if progress is not None:
        progress(known, len(questions))
    same: dict[Any, list[Question]] = {}
    for place, question in enumerate(questions):
        if not question.is_known:
            same.setdefault(place if question.key is None else question.key, []).append(question)
    if same:
        left = [its[0] for its in same.values()]
        check(left, runs, trust=trust)
        done = known
        number = processes or at_once(left, runs, dependence)
        for question in answered(left, runs, trust, number):
            its = [question] if question.key is None else same[question.key]
            for it in its:
                it.answer = question.made
            if store is not None and question.key is not None and "error" not in question.made:
                store.put([(question.key, question.made)])
            done += len(its)
            if progress is not None:
                progress(done, len(questions))
    if store is not None and store.problem is not None:
        found.notes.append(f"{store.problem}; what was asked now will be asked again")
    return _evaluation(runs, variants, found, questions, labels is not None, store, known)


def _evaluation(
    runs: list[RecordedRun],
    variants: Sequence[Variant],
    found: Chosen,
    questions: Sequence[Question],
    by_labels: bool,  # noqa: FBT001
    store: Store | None,
    known: int,
) -> Evaluation:
    number = len(found.asked)
    of = {
        variant.name: questions[place * number : (place + 1) * number]
        for place, variant in enumerate(variants)
    }
    answers = {RECORDING: [{**it.answer, "ms": it.answer.get("latency_ms")} for it in found.asked]}
    answers |= {name: [it.made for it in its] for name, its in of.items()}
    scores = {
        name: [
            _score(asked.asking.kind, answer, truth)
            for asked, answer, truth in zip(found.asked, its, found.truths, strict=True)
        ]
        for name, its in answers.items()
    }
    judged = {name: its for name, its in scores.items() if by_labels or name != RECORDING}
    standings = [
        _standing(
            name, judged[name], answers[name], sum(it.is_known for it in of.get(name, ())), store
        )
        for name in judged
    ]
    return Evaluation(
        runs,
        list(variants),
        found.asked,
        answers,
        found.truths,
        scores,
        "labels" if by_labels else RECORDING,
        ranked(standings),
        compared(judged, store),
        known,
        len(questions) - known,
        found.notes,
    )


def _score(kind: str, answer: Mapping[str, Any], truth: Truth | None) -> Score | None:
    if truth is None:
        return None
    return Score(0.0, right=False) if "error" in answer else score(kind, answer, truth)


def _standing(
    name: str,
    scores: Sequence[Score | None],
    answers: Sequence[Mapping[str, Any]],
    cached: int,
    store: Store | None,
) -> Standing:
    scored = [it for it in scores if it is not None]
    right = sum(it.right for it in scored)
    times = [it["ms"] for it in answers if it.get("ms") is not None]
    tokens = [it["tokens"] for it in answers if "tokens" in it]
    return Standing(
        name,
        len(scored),
        right,
        sum(it.near for it in scored) / len(scored) if scored else 0.0,
        *wilson(right, len(scored), store),
        sum("error" in it for it in answers),
        percentile(times, 50),
        percentile(times, 99),
        sum(tokens) / len(tokens) if tokens else None,
        cached,
    )
