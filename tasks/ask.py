"""One model asked about one picture: what `flowrun ask` does.

It runs the very tasks that a graph would run, so that what answers here answers there.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from flowrun.msgs.detections import DetectionsMsg
from flowrun.msgs.image import ImageRgb8Msg
from flowrun.msgs.message import Message
from flowrun.msgs.text import PromptResponseMsg
from flowrun.runtime.engine.alone import Alone
from flowrun.runtime.errors import FlowrunError, UsageError
from flowrun.runtime.task import Task
from flowrun.runtime.wording import nearest
from flowrun.tasks.detect import Detect
from flowrun.tasks.drawing import DEFAULT_LABEL, LabelFormat, Style, draw_boxes
from flowrun.tasks.inference import Inference
from flowrun.tasks.models.checkpoints import (
    architecture_of,
    config_of,
    embedded,
    find_checkpoint,
    first_line,
    task_of,
)
from flowrun.tasks.models.installed import need_packages
from flowrun.tasks.models.question import ModelError
from flowrun.tasks.parse_detections import ParseDetections

__all__ = ["Reply", "ask", "check_save", "read_picture", "save_picture"]

M = TypeVar("M", bound=Message)

_EMBEDDED = "embedded"
_EMBEDDED_PROMPT = "cap en"
_PROMPT_OPTIONS = ("max_new_tokens",)
_DETECT_OPTIONS = ("threshold", "labels")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model said about a picture.

    model: as it was given.
    architecture: the model's class.
    prompt, response, tokens: None for a detector.
    detections: what a detector found, or the boxes in the response; None if it has none.
    latency_ms: from the picture to the answer, of a model that has been warmed up.
    load_s: everything before that, including the libraries.
    """

    model: str
    architecture: str
    prompt: str | None
    response: str | None
    tokens: int | None
    detections: DetectionsMsg | None
    latency_ms: float
    load_s: float


def ask(
    model: str, pixels: NDArray[np.uint8], prompt: str | None, options: dict[str, Any]
) -> Reply:
    """Load `model` and let it answer about the RGB picture `pixels` of shape (H, W, 3).

    model: "embedded", a checkpoint folder or a hub id.
    prompt: None for a detector, and for the embedded model's caption.
    options: config of `Inference` or of `Detect`; those that are None are left out.

    Raises `UsageError` for arguments that do not fit together, `ModelError` for a model that cannot
    be loaded or fails.
    """
    need_packages("asking a model")
    given = {name: value for name, value in options.items() if value is not None}
    architecture, task = _architecture_and_task(model, given)
    if task == "Detect":
        if prompt is not None:
            raise UsageError(
                f"model {model!r} is a detector ({architecture}): it finds the classes it knows and "
                "takes no prompt; --labels chooses among them"
            )
        _refuse(given, _PROMPT_OPTIONS, f"model {model!r} is a detector ({architecture})")
        found, load_s = _run(Detect, {"model": model, **given}, _picture(pixels), DetectionsMsg)
        return Reply(
            model=model,
            architecture=architecture,
            prompt=None,
            response=None,
            tokens=None,
            detections=found,
            latency_ms=found.latency_ms,
            load_s=load_s,
        )
    _refuse(given, _DETECT_OPTIONS, f"model {model!r} is no detector ({architecture})")
    if model == _EMBEDDED:
        given |= {"backend": _EMBEDDED, "prompt": prompt or _EMBEDDED_PROMPT}
    elif prompt is None:
        raise UsageError(f'model {model!r} needs a prompt, such as "What is in the picture?"')
    else:
        given |= {"backend": "transformers", "model": model, "prompt": prompt}
    answer, load_s = _run(Inference, given, _picture(pixels), PromptResponseMsg)
    parsed, _ = _run(ParseDetections, {}, answer, DetectionsMsg)
    return Reply(
        model=model,
        architecture=architecture,
        prompt=answer.prompt,
        response=answer.response,
        tokens=answer.tokens,
        detections=parsed if parsed.count else None,
        latency_ms=answer.latency_ms,
        load_s=load_s,
    )


def read_picture(path: Path) -> NDArray[np.uint8]:
    """The picture in a file as RGB pixels of shape (H, W, 3), turned as its EXIF says.

    `UsageError` for a file that is not there, or that Pillow cannot read.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            return np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    except FileNotFoundError:
        raise UsageError(f"no such picture: {path}") from None
    except UnidentifiedImageError:
        raise UsageError(f"{path} is not a picture of a format that Pillow reads") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UsageError(f"cannot read the picture {path}: {reason}") from error


def check_save(path: Path) -> None:
    """`UsageError` where `save_picture` could not write to `path`, before time is spent on it."""
    from PIL import Image

    formats = Image.registered_extensions()
    if formats.get(path.suffix.lower()) not in Image.SAVE:
        raise UsageError(f"cannot write {path}: its name must end in .jpg, .png or the like")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"cannot write {path}: no such folder: {path.absolute().parent}")


def save_picture(path: Path, pixels: NDArray[np.uint8], detections: DetectionsMsg | None) -> None:
    """Write a picture with its detections drawn on it."""
    from PIL import Image

    drawn = pixels.copy()
    if detections is not None:
        style = Style.for_picture(drawn, None, label=LabelFormat(DEFAULT_LABEL))
        draw_boxes(drawn, detections, style)
    try:
        Image.fromarray(drawn).save(path, quality=90)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UsageError(f"cannot write {path}: {reason}") from error


def _architecture_and_task(model: str, options: dict[str, Any]) -> tuple[str, str]:
    if model == _EMBEDDED:
        return embedded().architecture, "Inference"
    if not any(mark in model for mark in "/.~") and not Path(model).is_dir():
        raise UsageError(
            f"unknown model {model!r}{nearest(model, [_EMBEDDED])}; give 'embedded', a checkpoint "
            "folder, or a hub id such as 'google/paligemma-3b-mix-224'; flowrun models lists what "
            "is on this machine"
        )
    local = bool(options.get("local_files_only"))
    config = config_of(find_checkpoint(model, Path.cwd()), local_files_only=local)
    # If it is not known what a model is for, loading it for Inference shows it.
    return architecture_of(config) or "of unknown architecture", task_of(config) or "Inference"


def _refuse(given: dict[str, Any], names: tuple[str, ...], why: str) -> None:
    for name in names:
        if name in given:
            raise UsageError(f"{why}: --{name.replace('_', '-')} has no meaning for it")


def _picture(pixels: NDArray[np.uint8]) -> ImageRgb8Msg:
    image = ImageRgb8Msg(pixels=pixels)
    image.publish()
    return image


def _run(
    task_class: type[Task], config: dict[str, Any], message: Message, kind: type[M]
) -> tuple[M, float]:
    """What the task publishes about `message`, of this kind, and how long its start took, in seconds;
    a message that is not present if it publishes nothing."""
    try:
        checked = task_class.Config(**config)
    except ValidationError as error:
        [first, *_] = error.errors()
        key = ".".join(map(str, first["loc"]))
        raise UsageError(f"{key}: {first['msg']}; got {first['input']!r}") from None
    alone = Alone(task_class, checked, graph_dir=Path.cwd(), seed=0)
    started = time.perf_counter()
    try:
        alone.start()
        load_s = time.perf_counter() - started
        [port] = alone.inputs
        published = alone.run({port: message}, cycle=0, now_ns=message.tov_ns)
    except FlowrunError:
        raise
    except Exception as error:
        raise ModelError(
            f"the model failed on the picture: {type(error).__name__}: {first_line(error)}"
        ) from error
    finally:
        alone.stop()
    [out] = [made for made in published.values() if isinstance(made, kind)] or [kind()]
    return out, load_s
