"""`flowrun ask MODEL PICTURE [PROMPT]`: load a model and print what it says about a picture."""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowrun.runtime.printing import print_table, print_text
from flowrun.runtime.wording import counted, one_line

if TYPE_CHECKING:
    from flowrun.msgs.detections import DetectionsMsg
    from flowrun.tasks.ask import Reply

__all__ = ["add_parser", "run"]


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "ask",
        description="Load a model and let it answer about a picture, or find objects in it, by the "
        "tasks that a graph would run: Inference, or Detect for a detector.",
    )
    parser.add_argument("model", metavar="MODEL", help="embedded, a checkpoint folder, or a hub id")
    parser.add_argument("picture", type=Path, metavar="PICTURE", help="a JPEG, PNG, ... file")
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="not for detectors")
    parser.add_argument(
        "--save",
        type=Path,
        metavar="FILE",
        help="write the picture to FILE, with the boxes drawn on it",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--max-new-tokens", type=_count, metavar="N", help="length of the answer (50)"
    )
    parser.add_argument(
        "--threshold",
        type=_score,
        metavar="SCORE",
        help="for a detector: the lowest score (0.5)",
    )
    parser.add_argument(
        "--labels", type=_labels, metavar="A,B", help="for a detector: show only these labels"
    )
    parser.add_argument("--device", type=_device, help="auto, cpu, cuda, cuda:N (auto)")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"))
    parser.add_argument(
        "--offline", action="store_true", help="never look on the network for the model"
    )


def run(args: argparse.Namespace) -> int:
    from flowrun.runtime.run.log_lines import drop_logs
    from flowrun.tasks.ask import ask, check_save, read_picture, save_picture

    pixels = read_picture(args.picture)
    if args.save is not None:
        check_save(args.save)
    drop_logs()
    options = {
        "max_new_tokens": args.max_new_tokens,
        "threshold": args.threshold,
        "labels": args.labels,
        "device": args.device,
        "dtype": args.dtype,
        "local_files_only": args.offline or None,
    }
    with _waiting(f"asking {args.model} ..."):
        reply = ask(args.model, pixels, args.prompt, options)
    if args.save is not None:
        save_picture(args.save, pixels, reply.detections)
    height, width = pixels.shape[:2]
    if args.json:
        print_text(json.dumps(_as_json(reply, args, width, height), ensure_ascii=False, indent=2))
        return 0
    if reply.response is not None:
        print_text(reply.response or "(an empty answer)")
    if reply.detections is not None:
        _print_detections(reply.detections)
    print_text()
    facts = [("model", f"{reply.model} ({reply.architecture})")]
    facts.append(("picture", f"{args.picture}, {width}x{height}"))
    if reply.prompt is not None:
        facts += [("prompt", reply.prompt), ("tokens", str(reply.tokens))]
    facts += [("latency", f"{reply.latency_ms:.0f} ms"), ("load", f"{reply.load_s:.1f} s")]
    if args.save is not None:
        found = reply.detections.count if reply.detections is not None else 0
        boxes = "1 box" if found == 1 else f"{found or 'no'} boxes"
        facts.append(("saved", f"{args.save}, with {boxes}"))
    print_table(("", ""), facts)
    return 0


def _print_detections(detections: DetectionsMsg) -> None:
    if not detections.count:
        print_text("no objects")
        return
    scored = not all(map(math.isnan, detections.scores))
    names = ("label", *(["score"] if scored else []), "left", "top", "right", "bottom")
    rows = [
        (
            item["label"] or "-",
            *([f"{item['score']:.2f}"] if scored else []),
            *(f"{edge:.0f}" for edge in item["box"]),
        )
        for item in _objects(detections)
    ]
    print_text(f"{counted(detections.count, 'object')}:")
    print_table(names, rows)


def _objects(detections: DetectionsMsg) -> list[dict[str, Any]]:
    return [
        {
            "label": label,
            "score": None if math.isnan(score) else round(float(score), 4),
            "class_id": None if number < 0 else int(number),
            "box": [round(float(edge), 1) for edge in box],
        }
        for label, score, number, box in zip(
            detections.labels,
            detections.scores,
            detections.class_ids,
            detections.boxes,
            strict=True,
        )
    ]


def _as_json(reply: Reply, args: argparse.Namespace, width: int, height: int) -> dict[str, Any]:
    return {
        "model": reply.model,
        "architecture": reply.architecture,
        "picture": str(args.picture),
        "width": width,
        "height": height,
        "prompt": reply.prompt,
        "response": reply.response,
        "tokens": reply.tokens,
        "detections": None if reply.detections is None else _objects(reply.detections),
        "latency_ms": round(reply.latency_ms, 3),
        "load_s": round(reply.load_s, 3),
        "saved": None if args.save is None else str(args.save),
    }


# argparse shows the text of an ArgumentTypeError; for a ValueError it says only that the value is
# invalid.


def _labels(text: str) -> tuple[str, ...]:
    labels = tuple(filter(None, (label.strip() for label in text.split(","))))
    if not labels:
        raise argparse.ArgumentTypeError("expected labels, such as cat,dog")
    return labels


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number, 1 or more; got {text!r}")
    return int(text)


def _score(text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1; got {text!r}")
    return score


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"expected auto, cpu, cuda or cuda:N; got {text!r}")
    return text


def _waiting(text: str) -> AbstractContextManager[Any]:
    """Say on a terminal what we are waiting for; only the answer goes to stdout."""
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console
    from rich.text import Text

    return Console(stderr=True).status(Text(one_line(text)))
