"""Questions about recorded pictures, asked by as many processes as there is room for.

What asks is imported where something is asked: where all answers are known, a thousand of them take a
third of a second, most of which is imports.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowrun.runtime.errors import UsageError
from flowrun.tasks.evaluation.recorded import DETECTIONS, Asked, RecordedRun
from flowrun.tasks.evaluation.variants import Dependence, Variant, config_of

if TYPE_CHECKING:
    from flowrun.tasks.evaluation.asking import Piece

__all__ = ["Question", "answered", "at_once", "check"]

_LEAST_PIECE = 8
_KEPT = ("response", "reasoning", "truncated", "tokens", "prompt", "frame_width", "frame_height")
_KEPT_BOXES = ("boxes", "scores", "labels", "width", "height")
"""Fields of an answer that are kept."""


@dataclass(slots=True)
class Question:
    """A way to ask about a recorded answer's picture.

    key: under which the answer is kept; None where it is not known on what it depends.
    answer: None until it is there. is_known: whether it was kept before.
    """

    variant: Variant
    asked: Asked
    key: bytes | None
    answer: dict[str, Any] | None = None
    is_known: bool = False

    @property
    def made(self) -> dict[str, Any]:
        assert self.answer is not None
        return self.answer


def check(questions: Sequence[Question], runs: Sequence[RecordedRun], *, trust: bool) -> None:
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


def at_once(
    questions: Sequence[Question], runs: Sequence[RecordedRun], dependence: Dependence
) -> int:
    """How many processes ask: one a core, or one alone where a model is large."""
    from flowrun.runtime.testbench.spread import cores

    seen: dict[str, Question] = {}
    for question in questions:
        seen.setdefault(repr((question.variant, question.asked.asking)), question)
    is_large = any(
        dependence.fills_memory(it.variant, it.asked, runs[it.asked.run]) for it in seen.values()
    )
    return 1 if is_large else cores()


def answered(
    questions: Sequence[Question],
    runs: Sequence[RecordedRun],
    trust: bool,  # noqa: FBT001
    at_once: int,
) -> Iterator[Question]:
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
    questions: Sequence[Question], runs: Sequence[RecordedRun], *, trust: bool, processes: int
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


def _prompt(question: Question) -> str | None:
    if question.variant.prompt is not None:
        return question.variant.prompt
    prompt = question.asked.answer.get("prompt")
    return prompt if isinstance(prompt, str) else None
