"""The recorded answers that are compared, and with what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from flowrun.runtime.recorded.labels import Label
from flowrun.tasks.evaluation.recorded import ANSWER, Asked, RecordedRun
from flowrun.tasks.evaluation.scores import Truth

__all__ = ["Chosen", "truth_of"]


class Chosen:
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
