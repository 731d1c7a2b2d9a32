"""Every way to ask, about every recorded frame; what was asked before is not asked again.

What asks is imported where something is left to ask: where all answers are known, a thousand of them
take a third of a second, most of which is imports.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowrun.runtime.errors import UsageError
from flowrun.runtime.recorded.labels import Label
from flowrun.runtime.testbench.store import Store
from flowrun.tasks.evaluation.recorded import ANSWER, DETECTIONS, Asked, RecordedRun, read_runs
from flowrun.tasks.evaluation.scores import Score, Truth, score
from flowrun.tasks.evaluation.standings import (
    Comparison,
    Standing,
    compared,
    percentile,
    ranked,
    wilson,
)
from flowrun.tasks.evaluation.variants import Dependence, Variant, config_of

if TYPE_CHECKING:
    from flowrun.tasks.evaluation.asking import Piece

__all__ = ["RECORDING", "Evaluation", "evaluate", "truth_of"]

RECORDING = "the recording"
"""The name of the recorded answers among the ways to ask."""
_LEAST_PIECE = 8
_KEPT = ("response", "reasoning", "truncated", "tokens", "prompt", "frame_width", "frame_height")
_KEPT_BOXES = ("boxes", "scores", "labels", "width", "height")
"""Fields of an answer that are kept."""


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
    runs, left_out = read_runs(paths, tasks=tasks)
    found = _Chosen(runs, labels, most)
    found.notes[:0] = left_out
    if not found.asked:
        raise UsageError(
            "nothing to evaluate: " + ("; ".join(found.notes) or "no task answers about pictures")
        )
    dependence = Dependence(store)
    questions = [
        _Question(variant, asked, dependence.key(variant, asked, runs[asked.run]))
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
    same: dict[Any, list[_Question]] = {}
    for place, question in enumerate(questions):
        if not question.is_known:
            same.setdefault(place if question.key is None else question.key, []).append(question)
    if same:
        left = [its[0] for its in same.values()]
        _check(left, runs, trust=trust)
        done = known
        at_once = processes or _at_once(left, runs, dependence)
        for question in _answered(left, runs, trust, at_once):
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


@dataclass(slots=True)
class _Question:
    variant: Variant
    asked: Asked
    key: bytes | None
    answer: dict[str, Any] | None = None
    is_known: bool = False

    @property
    def made(self) -> dict[str, Any]:
        assert self.answer is not None
        return self.answer


class _Chosen:
    """The recorded answers that are compared, and with what."""

    def __init__(
        self,
        runs: Sequence[RecordedRun],
        labels: Mapping[Path, Sequence[Label]] | None,
        most: int | None,
    ) -> None:
        self.notes: list[str] = []
        self.asked: list[Asked] = []
        self.truths: list[Truth | None] = []
        for run in runs:
            if not run.askings:
                self.notes.append(f"{run.path}: no task of it answers about pictures")
            if run.without_picture:
                self.notes.append(
                    f"{run.path}: {run.without_picture:,} answers are left out: their pictures are not "
                    "in the log"
                )
            of_run: list[tuple[Asked, Truth | None]] = [
                (asked, Truth(asked.answer)) for asked in run.asked
            ]
            if labels is not None:
                of_run = self._labelled(run, labels.get(run.path, ()))
            self.asked += [asked for asked, _ in of_run]
            self.truths += [truth for _, truth in of_run]
        if most is not None and len(self.asked) > most:
            chosen = [at * len(self.asked) // most for at in range(most)]
            self.notes.append(f"{most:,} of {len(self.asked):,} answers, spread evenly")
            self.asked = [self.asked[at] for at in chosen]
            self.truths = [self.truths[at] for at in chosen]

    def _labelled(
        self, run: RecordedRun, labels: Sequence[Label]
    ) -> list[tuple[Asked, Truth | None]]:
        by_task: dict[tuple[int, str], Label] = {(it.cycle, it.task): it for it in labels}
        found: list[tuple[Asked, Truth | None]] = []
        used: Counter[tuple[int, str]] = Counter()
        for asked in run.asked:
            for name in (asked.asking.name, asked.asking.task):
                label = by_task.get((asked.cycle, name))
                if label is not None:
                    used[asked.cycle, name] += 1
                    found.append((asked, truth_of(asked, label)))
                    break
        lost = [key for key in by_task if not used[key]]
        if not labels:
            self.notes.append(f"{run.path}: it has no labels")
        for cycle, task in lost[:3]:
            self.notes.append(
                f"{run.path}: the label of cycle {cycle}, task {task!r}, is left out: there is no such "
                "answer about a picture"
            )
        if len(lost) > 3:
            self.notes.append(f"{run.path}: {len(lost) - 3:,} more labels are left out")
        return found


def truth_of(asked: Asked, label: Label) -> Truth | None:
    """What a label says is right about an answer."""
    is_answer = asked.asking.kind == ANSWER
    if label.field not in ("", *(("response",) if is_answer else ())):
        return None  # about something that is not compared
    if label.expected != "":
        if is_answer:
            return Truth({**asked.answer, "response": label.expected})
        if isinstance(label.expected, dict):
            return Truth({**asked.answer, **label.expected})
    if label.label == "right":
        return Truth(asked.answer)
    return Truth(asked.answer, is_wrong=True) if label.label == "wrong" else None


def _check(questions: Sequence[_Question], runs: Sequence[RecordedRun], *, trust: bool) -> None:
    """Raise for a variant that a task of a run does not take, before anything is asked."""
    from flowrun.tasks.evaluation.asking import bound_task  # not where all answers are known

    seen: set[str] = set()
    for question in questions:
        asked = question.asked
        config = config_of(question.variant, asked)
        key = repr((asked.run, asked.asking.task, config))
        if key not in seen:
            seen.add(key)
            task, folder, _ = bound_task(
                runs[asked.run].path, asked.asking.task, config, trust=trust
            )
            problems = [text for _, text in task.task_class.check(task.config, folder)]
            if problems:
                raise UsageError(f"task {task.id!r}: {'; '.join(problems)}")


def _at_once(
    questions: Sequence[_Question], runs: Sequence[RecordedRun], dependence: Dependence
) -> int:
    """How many processes ask: one a core, or one alone where a model is large."""
    from flowrun.runtime.testbench.spread import cores

    seen: dict[str, _Question] = {}
    for question in questions:
        seen.setdefault(repr((question.variant, question.asked.asking)), question)
    is_large = any(
        dependence.fills_memory(it.variant, it.asked, runs[it.asked.run]) for it in seen.values()
    )
    return 1 if is_large else cores()


def _answered(
    questions: Sequence[_Question],
    runs: Sequence[RecordedRun],
    trust: bool,  # noqa: FBT001
    at_once: int,
) -> Iterator[_Question]:
    """Ask; yields each question with its answer, as they come."""
    from flowrun.runtime.testbench.spread import Broken, Part, spread
    from flowrun.tasks.evaluation.asking import worker

    pieces = list(_pieces(questions, runs, trust=trust, processes=at_once))
    for event in spread(pieces, worker, processes=at_once):
        if isinstance(event, Broken):
            piece = pieces[event.index]
            raise UsageError(f"task {piece.task!r} of {piece.run}: {event.why}")
        if isinstance(event, Part):
            number, answer = event.value
            question = questions[number]
            question.answer = _short(answer, question.asked.asking.kind)
            yield question


def _short(answer: Mapping[str, Any], kind: str) -> dict[str, Any]:
    if "error" in answer:
        return dict(answer)
    names = _KEPT_BOXES if kind == DETECTIONS else _KEPT
    ms = answer.get("latency_ms") or answer["ms"]
    return {**{name: answer[name] for name in names if name in answer}, "ms": ms}


def _pieces(
    questions: Sequence[_Question], runs: Sequence[RecordedRun], *, trust: bool, processes: int
) -> Iterator[Piece]:
    """The work in pieces of one task and config each; large ones first, so that all processes end at
    the same time."""
    groups: dict[str, list[int]] = {}
    for number, question in enumerate(questions):
        asked = question.asked
        config = config_of(question.variant, asked)
        groups.setdefault(
            repr(
                (asked.run, asked.asking.task, asked.asking.port, sorted(config.items(), key=repr))
            ),
            [],
        ).append(number)
    left = len(questions)
    from flowrun.runtime.testbench.spread import cores
    from flowrun.tasks.evaluation.asking import Piece

    threads = max(1, cores() // processes)
    for numbers in groups.values():
        asked = questions[numbers[0]].asked
        prompts = list(dict.fromkeys(_prompt(questions[number]) for number in numbers))
        places = {prompt: place for place, prompt in enumerate(prompts)}
        pictures = sorted((questions[number].asked.picture.cycle, number) for number in numbers)
        begin = 0
        while begin < len(pictures):
            size = max(_LEAST_PIECE, left // (2 * processes))
            part = pictures[begin : begin + size]
            begin += len(part)
            left -= len(part)
            yield Piece(
                runs[asked.run].path,
                trust,
                asked.asking.task,
                asked.asking.port,
                asked.asking.input,
                asked.asking.topic,
                config_of(questions[numbers[0]].variant, asked),
                tuple(prompts),
                [(number, cycle, places[_prompt(questions[number])]) for cycle, number in part],
                threads,
            )


def _prompt(question: _Question) -> str | None:
    if question.variant.prompt is not None:
        return question.variant.prompt
    prompt = question.asked.answer.get("prompt")
    return prompt if isinstance(prompt, str) else None


def _evaluation(
    runs: list[RecordedRun],
    variants: Sequence[Variant],
    found: _Chosen,
    questions: Sequence[_Question],
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
