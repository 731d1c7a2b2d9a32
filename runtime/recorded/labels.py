"""What people say of a run: which answers are wrong, and what is right; in the file `labels.jsonl` of
the run's directory.

docs/labels.md says what its lines mean. Lines are only added, by any number of processes; of several
about the same answer the last one counts.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flowrun.runtime.errors import LogError, LogNotFound

__all__ = [
    "LABELS_NAME",
    "LONGEST",
    "Label",
    "Labels",
    "check_boxes",
    "labels_of",
    "read_labels",
]

LABELS_NAME = "labels.jsonl"
LONGEST = 16_384
"""The most characters of a text, and of the JSON of a right value."""
_TEXTS = ("task", "label", "note", "answer", "prompt", "field", "who", "run")


@dataclass(frozen=True, slots=True)
class Label:
    """What somebody says about a moment.

    cycle: the cycle of the answer, or of the moment.
    task: the task whose answer it is about, and its port where it has several ("detect.left"); "" for
        the moment as a whole.
    label: "wrong" or "right", or any word; "" takes back what was said before.
    expected: what is right: a text, or any value that JSON has; "" where nobody said.
    note: free text.
    at_ns: time of the cycle. made_ns: when the label was made.
    answer, prompt: what had been answered, and to what; "" where the moment has no answer.
    frame_cycle: the cycle of the picture that it is about; None where that is not known.
    field: the field of the message that `expected` is the right value of; "" for the answer's text, and
        where it holds several fields by name.
    who: who said it; "" where that is not known.
    run: the id of the run, in a file for several runs; "" for the run in whose directory it is.
    """

    cycle: int
    task: str
    label: str
    expected: Any
    note: str
    at_ns: int
    made_ns: int
    answer: str = ""
    prompt: str = ""
    frame_cycle: int | None = None
    field: str = ""
    who: str = ""
    run: str = ""


class Labels:
    """The labels of the run in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / LABELS_NAME

    def all(self) -> list[Label]:
        """The labels that count, by cycle and task; a damaged line is passed over. `LogError` where the
        file cannot be read."""
        return counting(read_labels(self.path)[0])

    def add(self, label: Label) -> None:
        """Add a line, which is on the disk when this returns. `LogError` if it cannot be written."""
        line = json.dumps(asdict(label), ensure_ascii=True) + "\n"
        try:
            with self.path.open("a+b", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                size = file.seek(0, 2)
                if size:  # a line that was cut off, as by a full disk, stays one line
                    file.seek(size - 1)
                    line = line if file.read(1) == b"\n" else "\n" + line
                file.write(line.encode())
                os.fsync(file.fileno())
        except OSError as error:
            raise LogError(f"{self.path}: cannot be written: {error.strerror}") from error


def counting(labels: Iterable[Label]) -> list[Label]:
    """Those of `labels` that count: the last one about each answer, unless it takes the others back."""
    found: dict[tuple[str, int, str], Label] = {}
    for label in labels:
        found[label.run, label.cycle, label.task] = label
    kept = (it for it in found.values() if it.label)
    return sorted(kept, key=lambda it: (it.run, it.cycle, it.task))


def labels_of(run: Path, run_id: str, file: Path | None = None) -> tuple[list[Label], list[str]]:
    """The labels that count of the run at `run`, and a sentence on each line that is none.

    run_id: the id of the run.
    file: where they are; None for the run's own. Of a file for several runs those of this one, and
        those that name none. `LogNotFound` if it is not there.
    """
    if file is not None and not file.exists():
        raise LogNotFound(f"{file}: there is no such file")
    directory = run if run.is_dir() else run.parent
    labels, problems = read_labels(file or directory / LABELS_NAME)
    own = [it for it in labels if it.run in ("", run_id, run.name)]
    return counting(own), problems


def read_labels(path: Path) -> tuple[list[Label], list[str]]:
    """All labels of a file, in its order, and a sentence on each line that is none; nothing where there
    is no file. A last line without its line end counts if it is whole; if it is none, it is being
    written or was cut off, and is passed over. `LogError` where the file cannot be read."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise LogError(f"{path}: cannot be read: {error.strerror}") from error
    labels, problems = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            labels.append(_label(json.loads(line)))
        except (ValueError, TypeError, RecursionError) as error:
            if number < len(lines):
                problems.append(f"{path}:{number}: not a label: {error}")
    return labels, problems


def _label(values: Any) -> Label:
    if not isinstance(values, dict):
        raise ValueError(f"a {type(values).__name__}; expected an object")  # noqa: TRY004
    cycle, frame = values.get("cycle"), values.get("frame_cycle")
    if not isinstance(cycle, int) or not _is_whole(cycle):
        raise ValueError(f"cycle: expected a whole number, got {cycle!r}")
    texts = {name: values.get(name, "wrong" if name == "label" else "") for name in _TEXTS}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise ValueError(f"{name}: expected a text, got {text!r}")  # noqa: TRY004
        _check_length(name, text)
    expected = values.get("expected", "")
    _check_length("expected", expected if isinstance(expected, str) else json.dumps(expected))
    check_boxes(expected)
    times = {name: values.get(name, 0) for name in ("at_ns", "made_ns")}
    for name, time in times.items():
        if not _is_whole(time):
            raise ValueError(f"{name}: expected a whole number, got {time!r}")
    return Label(
        cycle=cycle,
        expected=expected,
        frame_cycle=frame if _is_whole(frame) else None,
        **texts,
        **times,
    )


def check_boxes(expected: Any) -> None:
    """`ValueError` where `expected` has `boxes` that are none, or other than one label for each."""
    if not isinstance(expected, dict):
        return
    boxes, labels = expected.get("boxes", []), expected.get("labels", [])
    if not isinstance(boxes, list) or not all(map(_is_box, boxes)):
        raise ValueError(
            "expected: boxes are lists of left, top, right and bottom in pixels, such as "
            '{"boxes": [[10, 20, 110, 220]], "labels": ["person"]}'
        )
    if not isinstance(labels, list) or not all(isinstance(it, str) for it in labels):
        raise ValueError("expected: labels are a list of texts, one for each box")
    if {"boxes", "labels"} <= expected.keys() and len(labels) != len(boxes):
        raise ValueError(f"expected: {len(boxes)} boxes, but {len(labels)} labels")


def _is_box(box: Any) -> bool:
    return (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(it, (int, float)) and math.isfinite(it) for it in box)
    )


def _check_length(name: str, text: str) -> None:
    if len(text) > LONGEST:
        raise ValueError(f"{name}: {len(text):,} characters; at most {LONGEST:,}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
