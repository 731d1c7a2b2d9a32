"""Moments of a run that somebody marked: the file `labels.jsonl` in the run's directory.

docs/labels.md says what its lines mean. Lines are only added; of several about the same answer the last
one counts.
"""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flowrun.runtime.errors import LogDamaged, LogError

__all__ = ["LABELS_NAME", "Label", "Labels", "read_labels"]

LABELS_NAME = "labels.jsonl"
_LONGEST = 16_384
_WRITING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Label:
    """What somebody says about a moment.

    cycle: the cycle of the answer, or of the moment.
    task: the task whose answer it is about; "" for the moment as a whole.
    label: "wrong" or "right", or any word; "" takes back what was said before.
    expected: what the answer should have been; "" where nobody said.
    note: free text.
    at_ns: time of the cycle. made_ns: when the label was made.
    answer, prompt: what had been answered, and to what; "" where the moment has no answer.
    frame_cycle: the cycle of the picture that it is about; None where that is not known.
    """

    cycle: int
    task: str
    label: str
    expected: str
    note: str
    at_ns: int
    made_ns: int
    answer: str = ""
    prompt: str = ""
    frame_cycle: int | None = None


class Labels:
    """The labels of the run in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / LABELS_NAME

    def all(self) -> list[Label]:
        """The labels that count, by cycle and task. `LogDamaged` for a line that is none."""
        found: dict[tuple[int, str], Label] = {}
        for label in read_labels(self.path):
            found[label.cycle, label.task] = label
        return sorted((it for it in found.values() if it.label), key=lambda it: (it.cycle, it.task))

    def add(self, label: Label) -> None:
        """Add a line. `LogError` if the file cannot be written."""
        line = json.dumps(asdict(label), ensure_ascii=True) + "\n"
        with _WRITING:
            try:
                with self.path.open("a+b") as file:
                    size = file.seek(0, 2)
                    if size:  # a line that was cut off, as by a full disk, stays one line
                        file.seek(size - 1)
                        line = line if file.read(1) == b"\n" else "\n" + line
                    file.write(line.encode())
            except OSError as error:
                raise LogError(f"{self.path}: cannot be written: {error.strerror}") from error


def read_labels(path: Path) -> list[Label]:
    """All lines of a labels file, in its order; none where there is no file. `LogDamaged` names a line
    that is no label, but for a last one that was cut off; `LogError` where it cannot be read."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LogError(f"{path}: cannot be read: {error.strerror}") from error
    labels = []
    # What is after the last line's end is a line that is being written, or was cut off.
    for number, line in enumerate(lines[:-1], 1):
        if not line.strip():
            continue
        try:
            labels.append(_label(json.loads(line)))
        except (ValueError, TypeError) as error:
            raise LogDamaged(f"{path}:{number}: not a label: {error}") from None
    return labels


def _label(values: Any) -> Label:
    if not isinstance(values, dict):
        raise ValueError(f"a {type(values).__name__}; expected an object")  # noqa: TRY004
    cycle, frame = values.get("cycle"), values.get("frame_cycle")
    if not isinstance(cycle, int) or not _is_whole(cycle):
        raise ValueError(f"cycle: expected a whole number, got {cycle!r}")
    texts = {
        name: values.get(name, "")
        for name in ("task", "label", "expected", "note", "answer", "prompt")
    }
    for name, text in texts.items():
        if not isinstance(text, str):
            raise ValueError(f"{name}: expected a text, got {text!r}")  # noqa: TRY004
        if len(text) > _LONGEST:
            raise ValueError(f"{name}: {len(text):,} characters; at most {_LONGEST:,}")
    times = {name: values.get(name, 0) for name in ("at_ns", "made_ns")}
    for name, time in times.items():
        if not _is_whole(time):
            raise ValueError(f"{name}: expected a whole number, got {time!r}")
    return Label(cycle=cycle, **texts, **times, frame_cycle=frame if _is_whole(frame) else None)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
