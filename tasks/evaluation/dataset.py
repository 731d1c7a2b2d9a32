"""Recorded pictures and what was answered about them, as a data set to train and to test with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flowrun.runtime.atomic import file_name, whole_folder
from flowrun.runtime.errors import LogError, UsageError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.shadows import compared
from flowrun.runtime.recorded.labels import Label
from flowrun.runtime.testbench.pairs import PictureAt
from flowrun.tasks.evaluation.chosen import truth_of
from flowrun.tasks.evaluation.recorded import DETECTIONS, Asked, RecordedRun, read_runs
from flowrun.tasks.evaluation.scores import boxes_in

__all__ = ["Written", "write_dataset"]

Only = Literal["labelled", "wrong", "disagreements"]

_MEANT: Mapping[Only, str] = {
    "labelled": "answers that are labelled",
    "wrong": "answers that are labelled as wrong",
    "disagreements": "answers to which a shadow said something else",
}


@dataclass(slots=True)
class Written:
    """What was written: numbers of pictures, answers and boxes; what is left out, a sentence each."""

    pictures: int = 0
    answers: int = 0
    boxes: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer about a picture: its fields, as they are right as far as is known.

    label: what somebody said of it; "" where nobody did.
    shadow_said: what the task's shadow said instead; None where that was not looked for.
    """

    asked: Asked
    fields: Mapping[str, Any]
    label: str
    shadow_said: str | None


@dataclass(frozen=True, slots=True)
class _Picture:
    """A picture that was written.

    file: its name. height, width: in pixels.
    """

    file: str
    run: RecordedRun
    at: PictureAt
    height: int
    width: int
    answers: Sequence[_Answer]


def write_dataset(
    runs: Sequence[Path],
    folder: Path,
    form: Literal["coco", "hf"],
    *,
    labels: Mapping[Path, Sequence[Label]],
    tasks: Sequence[str] = (),
    only: Only | None = None,
    progress: Callable[[float], None] | None = None,
) -> Written:
    """Write the pictures of recorded runs that were asked about, as PNG files with the pixels that the
    tasks saw, and the answers. Nothing that the runs name is executed.

    folder: a new one, which holds all or is not there.
    form: coco, `labels.json` in COCO's form next to the pictures in `data`, as FiftyOne reads it, too,
        and `captions.json` for answers in words. hf: `train` with `metadata.jsonl`, which
        `datasets.load_dataset("imagefolder", data_dir=folder)` loads.
    labels: of each run. What they say is right stands in place of what was answered.
    tasks: whose answers; all that answer about pictures if there are none.
    only: labelled, answers of which somebody said what is right; wrong, those labelled as wrong;
        disagreements, those to which the task's shadow said something else, which is written, too.
    progress: called with the part of all that is done.

    A run that cannot be read, or has none of `tasks`, is left out, and named in the notes. `UsageError`
    for a folder that is there, and where there is nothing to write; `LogError` where no run can be read.
    """
    written = Written()
    chosen = []
    readable, written.notes = read_runs(runs, tasks=tasks)
    for run in readable:
        if run.without_picture:
            written.notes.append(
                f"{run.path}: {run.without_picture:,} answers are left out: their pictures are not in "
                "the log"
            )
        by_picture = _chosen(run, labels.get(run.path, ()), only)
        if by_picture:
            chosen.append((run, by_picture))
    total = sum(len(by_picture) for _, by_picture in chosen)
    if not total:
        what = "answers about pictures" if only is None else _MEANT[only]
        raise UsageError(f"there are no {what} in {', '.join(map(str, runs))}")
    with whole_folder(folder) as whole:
        pictures = whole / ("data" if form == "coco" else "train")
        pictures.mkdir()
        found: list[_Picture] = []
        taken: set[str] = set()
        for number, (run, by_picture) in enumerate(chosen):
            name = file_name(run.name)
            name = f"{name}-{number}" if name in taken else name  # a copy of a run has its id
            taken.add(name)
            _write_pictures(run, name, by_picture, pictures, found, written, total, progress)
        _write_answers(whole, form, found, written)
    return written


def _chosen(
    run: RecordedRun, labels: Sequence[Label], only: Only | None
) -> dict[PictureAt, list[_Answer]]:
    """The answers that are written, by their pictures."""
    by_task = {(it.cycle, it.task): it for it in labels}
    found: dict[PictureAt, list[_Answer]] = {}
    disagreed = _disagreed(run) if only == "disagreements" else {}
    for asked in run.asked:
        names = (asked.asking.name, asked.asking.task)
        label = next(
            (by_task[asked.cycle, it] for it in names if (asked.cycle, it) in by_task), None
        )
        truth = None if label is None else truth_of(asked, label)
        is_known = truth is not None and not truth.is_wrong
        shadow_said = disagreed.get((asked.asking.task, asked.picture.cycle))
        is_meant = {
            None: True,
            "labelled": is_known,
            "wrong": label is not None and label.label == "wrong",
            "disagreements": shadow_said is not None,
        }[only]
        if not is_meant:
            continue
        fields = truth.fields if truth is not None and is_known else asked.answer
        answer = _Answer(asked, fields, "" if label is None else label.label, shadow_said)
        found.setdefault(asked.picture, []).append(answer)
    return found


def _disagreed(run: RecordedRun) -> dict[tuple[str, int], str]:
    """By task and cycle of the picture, what its shadow said where that was something else."""
    with Log(run.path) as log:
        return {
            (it.of, both.frame_cycle): both.shadow_said
            for it in compared(log)
            for both in it.disagreed
        }


def _write_pictures(
    run: RecordedRun,
    name: str,
    by_picture: Mapping[PictureAt, Sequence[_Answer]],
    folder: Path,
    found: list[_Picture],
    written: Written,
    total: int,
    progress: Callable[[float], None] | None,
) -> None:
    from PIL import Image

    with Log(run.path) as log:
        for topic in dict.fromkeys(it.topic for it in by_picture):
            wanted = {it.cycle: it for it in by_picture if it.topic == topic}
            for message in log.messages(topic, start=min(wanted), end=max(wanted) + 1):
                if message.cycle not in wanted:
                    continue
                try:
                    pixels: NDArray[np.uint8] = message.fields["pixels"]
                except LogError as error:
                    written.notes.append(f"left out: {error}")
                    continue
                at = wanted[message.cycle]
                file = f"{name}-{file_name(topic.strip('/'))}-{message.cycle:08}.png"
                Image.fromarray(pixels).save(folder / file, compress_level=3)
                height, width = pixels.shape[:2]
                found.append(_Picture(file, run, at, height, width, by_picture[at]))
                if progress is not None:
                    progress(len(found) / total)


def _write_answers(
    folder: Path, form: Literal["coco", "hf"], found: Sequence[_Picture], written: Written
) -> None:
    written.pictures = len(found)
    written.answers = sum(len(it.answers) for it in found)
    if form == "hf":
        rows = [_row(it, written) for it in found]
        if not any(score is not None for row in rows for score in row["objects"]["score"]):
            for row in rows:  # datasets 5.2 cannot read lists of nothing but null
                del row["objects"]["score"]
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (folder / "train" / "metadata.jsonl").write_text("\n".join([*lines, ""]), encoding="utf-8")
        return
    names = sorted({name for it in found for name, _, _ in _objects(it)})
    numbers = {name: number for number, name in enumerate(names, 1)}
    images = [
        {"id": number, "file_name": it.file, "width": it.width, "height": it.height, **_about(it)}
        for number, it in enumerate(found, 1)
    ]
    boxes = [
        {
            "id": 0,
            "image_id": number,
            "category_id": numbers[name],
            "bbox": box,
            "area": round(box[2] * box[3], 2),
            "iscrowd": 0,
            **({} if score is None else {"score": score}),
        }
        for number, it in enumerate(found, 1)
        for name, box, score in _objects(it)
    ]
    for number, annotation in enumerate(boxes, 1):
        annotation["id"] = number
    written.boxes = len(boxes)
    info = {"description": "recorded by flowrun"}
    _write_json(
        folder / "labels.json",
        {
            "info": info,
            "licenses": [],
            "images": images,
            "annotations": boxes,
            "categories": [{"id": number, "name": name} for name, number in numbers.items()],
        },
    )
    captions = [
        {"id": 0, "image_id": number, **_words(answer)}
        for number, it in enumerate(found, 1)
        for answer in it.answers
        if "response" in answer.fields
    ]
    for number, caption in enumerate(captions, 1):
        caption["id"] = number
    if captions:
        _write_json(
            folder / "captions.json",
            {"info": info, "licenses": [], "images": images, "annotations": captions},
        )


def _objects(picture: _Picture) -> list[tuple[str, list[float], float | None]]:
    """Of each object of a picture its class, its box (left, top, width, height) within the picture, and
    its score."""
    found = []
    for answer in picture.answers:
        boxes = boxes_in(answer.asked.asking.kind, answer.fields)
        if boxes is None:
            continue
        scores = list(answer.fields.get("scores", ()))
        prefix = "" if answer.asked.asking.kind == DETECTIONS else "frame_"
        width = picture.width / (answer.fields.get(f"{prefix}width") or 1)
        height = picture.height / (answer.fields.get(f"{prefix}height") or 1)
        for at, (edges, name) in enumerate(zip(boxes.boxes, boxes.labels, strict=True)):
            if not np.isfinite(edges).all():
                continue  # of a model that computed no number
            left, top, right, bottom = edges * np.array([width, height, width, height])
            left, right = sorted(np.clip([left, right], 0, picture.width))
            top, bottom = sorted(np.clip([top, bottom], 0, picture.height))
            box = [round(float(it), 2) for it in (left, top, right - left, bottom - top)]
            score = scores[at] if len(scores) == len(boxes.labels) else None
            found.append((name, box, score if isinstance(score, float) else None))
    return found


def _about(picture: _Picture) -> dict[str, Any]:
    """Where a picture comes from."""
    time_ns = picture.answers[0].asked.time_ns
    return {
        "date_captured": datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(),
        "run": picture.run.name,
        "camera": picture.answers[0].asked.asking.camera,
        "topic": picture.at.topic,
        "cycle": picture.at.cycle,
    }


def _words(answer: _Answer) -> dict[str, Any]:
    return {
        "task": answer.asked.asking.name,
        "prompt": str(answer.fields.get("prompt", "")),
        "caption": str(answer.fields.get("response", "")),
        "label": answer.label,
        **({} if answer.shadow_said is None else {"shadow": answer.shadow_said}),
    }


def _row(picture: _Picture, written: Written) -> dict[str, Any]:
    objects = _objects(picture)
    written.boxes += len(objects)
    words = [_words(it) for it in picture.answers if "response" in it.fields]
    first = words[0] if words else {"prompt": "", "caption": ""}
    return {
        "file_name": picture.file,
        "prompt": first["prompt"],
        "response": first["caption"],
        "answers": [
            {"response" if name == "caption" else name: value for name, value in it.items()}
            for it in words
        ],
        "objects": {
            "bbox": [box for _, box, _ in objects],
            "category": [name for name, _, _ in objects],
            "score": [score for _, _, score in objects],
        },
        **_about(picture),
    }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False) + "\n", encoding="utf-8")
