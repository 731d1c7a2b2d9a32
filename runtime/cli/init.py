"""`flowrun init NAME`: a project of one's own: a graph, a task, its test and a README."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
from pathlib import Path

import flowrun.runtime
from flowrun.runtime.errors import FlowrunError, UsageError
from flowrun.runtime.extras import pytest_command
from flowrun.runtime.printing import print_text
from flowrun.runtime.wording import secrets_in_urls

__all__ = ["add_parser", "run"]

_FILM = Path(flowrun.runtime.__file__).parents[1] / "graphs" / "media" / "shapes.mp4"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_LOGIN = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<user>[^/@:]*)(?::.*)?@", re.IGNORECASE)
"""A password may hold "@" and "/": it ends at the last "@"."""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "init",
        description="Write a project into the new folder NAME: a graph with a camera and a page, a task "
        "of your own, its test, and a README that says how to go on.",
    )
    parser.add_argument("name", metavar="NAME", help="the folder, whose name is the graph's too")
    parser.add_argument(
        "--camera",
        metavar="URI",
        help="an address that you have: rtsp://..., webcam, a film, ... (a film of coloured shapes)",
    )
    parser.add_argument(
        "--detect",
        action="store_true",
        help="find things in the pictures with a model; needs flowrun-runtime[models] to run",
    )


def run(args: argparse.Namespace) -> int:
    """0; 2 where the folder exists, or cannot be made."""
    folder = Path(args.name)
    name = folder.name
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{args.name!r} does not end in a name of letters, digits, '-', '_' and '.', such as yard"
        )
    address, variables = _address(args.camera, folder)
    files = _files(name, address, variables, detect=args.detect)
    try:
        folder.mkdir(parents=True)
        for path, text in files.items():
            (folder / path).write_text(text, encoding="utf-8")
        if args.camera is None:
            (folder / "media").mkdir()
            shutil.copyfile(_FILM, folder / "media" / _FILM.name)
    except FileExistsError:
        raise UsageError(f"{folder} exists already; nothing was written") from None
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror}") from None
    print_text(f"wrote {folder}: {', '.join(files)}\n")
    print_text(f"  cd {folder}")
    if variables:
        print_text(f"  {_export(variables)}    as in the address that you gave")
    print_text(f"  flowrun {name}.yaml    run it; its page is at http://127.0.0.1:3000")
    print_text(f"  {pytest_command()}    test the task")
    if not variables:
        _warn(folder / f"{name}.yaml")
    return 0


def _warn(graph: Path) -> None:
    """Say what keeps the graph from running here, such as a camera that is not there."""
    from flowrun.runtime.graph.find import importable
    from flowrun.runtime.graph.plan import load_plan

    try:
        with importable(graph.parent):
            load_plan(graph, env=os.environ)
    except FlowrunError as error:
        print_text(f"\nwarning: it does not run yet:\n{error}", file=sys.stderr)


def _address(camera: str | None, folder: Path) -> tuple[str, list[str]]:
    """What the graph, in `folder`, says of the camera, and the variables of the environment that take
    the place of what must not be in a file."""
    if camera is None:
        return f"media/{_FILM.name}", []
    if Path(camera).exists() and not Path(camera).is_absolute():
        return os.path.relpath(camera, folder), []
    variables = []
    address = camera
    if (login := _LOGIN.match(camera)) is not None:
        variables = ["CAM_USER", "CAM_PASSWORD"]
        address = f"{login[1]}${{CAM_USER}}:${{secret:CAM_PASSWORD}}@{camera[login.end() :]}"
    for number, secret in enumerate(sorted(secrets_in_urls(camera[login.end() if login else 0 :]))):
        variables.append(f"CAM_TOKEN_{number + 1}" if number else "CAM_TOKEN")
        address = address.replace(secret, f"${{secret:{variables[-1]}}}")
    return address, variables


def _export(variables: list[str]) -> str:
    return f"export {' '.join(f'{name}=...' for name in variables)}"


def _files(name: str, address: str, variables: list[str], *, detect: bool) -> dict[str, str]:
    """File name -> contents, of all files of the project but the film."""
    task, test, graph, module, port = _COUNTING if detect else _MEASURING
    words = {
        "{name}": name,
        "{address}": json.dumps(address, ensure_ascii=False),
        "{loop}": "\n      loop: true" if address == f"media/{_FILM.name}" else "",
        "{export}": f"{_export(variables)}\n" if variables else "",
        "{module}": module,
        "{topic}": f"/{module}/{port}",
    }
    texts = {
        f"{name}.yaml": graph,
        f"{module}.py": task,
        f"test_{module}.py": test,
        "README.md": _README,
        "pyproject.toml": _PYPROJECT,
        ".gitignore": "runs/\n",
    }
    return {path: _filled(text, words) for path, text in texts.items()}


def _filled(text: str, words: dict[str, str]) -> str:
    return re.sub("|".join(map(re.escape, words)), lambda found: words[found[0]], text)


_GRAPH = """\
# A camera: its picture on the page, and how bright it is in the log.
#
#   flowrun {name}.yaml
#
#   cam0 --+--> brightness
#          +--> bcast_image

tasks:
  - id: cam0
    type: VideoCapture
    config:
      source_uri: {address}
      realtime: true  # a film at its own speed; a camera has no other{loop}

  - id: brightness
    type: brightness.Brightness  # Brightness in brightness.py, next to this file
    config: {dark_below: 40}

  - id: bcast_image
    type: BroadcastImage

cnx:
  - {src: cam0, dst: brightness, msg: ImageRgb8Msg}
  - {src: cam0, dst: bcast_image, msg: ImageRgb8Msg}
"""

_DETECT_GRAPH = """\
# A camera, what a model finds in its pictures, drawn on the page, and how many things that are.
#
#   flowrun {name}.yaml
#
#   cam0 --+--> inference --> parse --+--> count_shapes
#          |                          |
#          +--------------------------+--> boxes --> bcast_image

tasks:
  - id: cam0
    type: VideoCapture
    config:
      source_uri: {address}
      realtime: true  # a film at its own speed; a camera has no other{loop}

  - id: inference
    type: Inference
    background: true  # the cycle never waits; the model gets the newest picture when it is free
    config:
      backend: embedded      # a small model that ships with flowrun, and knows coloured shapes
      prompt: detect shapes

  - id: parse                # the boxes in the answer's text
    type: ParseDetections

  # In place of the two above, a detector that knows people, cars and many other things. It is
  # downloaded once:
  #   - id: parse
  #     type: Detect
  #     background: true
  #     config: {model: PekingU/rtdetr_r18vd, threshold: 0.5, labels: [person, car]}
  # with cam0 as the src of its connection, and ImageRgb8Msg as the msg.

  - id: count_shapes
    type: count_shapes.CountShapes  # CountShapes in count_shapes.py, next to this file
    config: {label: ""}

  - id: boxes                # the newest boxes on each picture
    type: RenderBoxes
    logging: {payload: none}  # a replay draws them again

  - id: bcast_image
    type: BroadcastImage

cnx:
  - {src: cam0, dst: inference, msg: ImageRgb8Msg}
  - {src: inference, dst: parse, msg: PromptResponseMsg}
  - {src: parse, dst: count_shapes, msg: DetectionsMsg}
  - {src: cam0, dst: boxes, msg: ImageRgb8Msg}
  - {src: parse, dst: boxes, msg: DetectionsMsg}
  - {src: boxes, dst: bcast_image, msg: ImageRgb8Msg}
"""

_BRIGHTNESS = '''\
"""How bright the pictures are."""

from flowrun.msgs import BoolMsg, FloatMsg, ImageRgb8Msg
from flowrun.runtime.task import Context, Input, Output, Task, TaskConfig


class Brightness(Task):
    """The mean of all pixels, from 0 to 255, and whether that is dark."""

    class Config(TaskConfig):
        dark_below: float = 40.0

    def process(
        self,
        ctx: Context,
        image: Input[ImageRgb8Msg],
        mean: Output[FloatMsg],
        is_dark: Output[BoolMsg],
    ) -> None:
        """Called once a cycle in which a picture is there. The parameters are the ports."""
        mean.value = float(image.pixels.mean())
        mean.publish(tov_ns=image.tov_ns)
        is_dark.value = mean.value < self.config.dark_below
        is_dark.publish(tov_ns=image.tov_ns)
'''

_BRIGHTNESS_TEST = '''\
"""Brightness, run alone."""

import numpy as np
from flowrun.msgs import ImageRgb8Msg
from flowrun.runtime.testing import run_task

from brightness import Brightness


def picture(value: int) -> ImageRgb8Msg:
    return ImageRgb8Msg(pixels=np.full((4, 6, 3), value, np.uint8))


def test_a_night_is_dark_and_a_day_is_not() -> None:
    night, day = run_task(
        Brightness,
        inputs=[{"image": picture(10)}, {"image": picture(200)}],
        config={"dark_below": 50},
    )
    assert (night.mean.value, night.is_dark.value) == (10, True)
    assert (day.mean.value, day.is_dark.value) == (200, False)
'''

_COUNT = '''\
"""How many things were found."""

from flowrun.msgs import DetectionsMsg, IntMsg
from flowrun.runtime.task import Context, Input, Output, Task, TaskConfig


class CountShapes(Task):
    """The number of things in a picture whose label has `label` in it; of all things if that is
    empty."""

    class Config(TaskConfig):
        label: str = ""

    def process(
        self, ctx: Context, detections: Input[DetectionsMsg], number: Output[IntMsg]
    ) -> None:
        """Called once a cycle in which detections are there. The parameters are the ports."""
        number.value = sum(self.config.label in label for label in detections.labels)
        number.publish(tov_ns=detections.tov_ns)
'''

_COUNT_TEST = '''\
"""CountShapes, run alone."""

import numpy as np
from flowrun.msgs import DetectionsMsg
from flowrun.runtime.testing import run_task

from count_shapes import CountShapes


def found(*labels: str) -> DetectionsMsg:
    number = len(labels)
    return DetectionsMsg(
        boxes=np.zeros((number, 4), np.float32),
        scores=np.ones(number, np.float32),
        labels=list(labels),
        class_ids=np.zeros(number, np.int32),
    )


def test_things_of_a_label_are_counted() -> None:
    one, none = run_task(
        CountShapes,
        inputs=[{"detections": found("red circle", "blue ring")}, {"detections": found()}],
        config={"label": "red"},
    )
    assert one.number.value == 1
    assert none.number.value == 0
'''

_MEASURING = (_BRIGHTNESS, _BRIGHTNESS_TEST, _GRAPH, "brightness", "mean")
_COUNTING = (_COUNT, _COUNT_TEST, _DETECT_GRAPH, "count_shapes", "number")
"""A task, its test and a graph with it; its module, and an output of it."""

_README = """\
# {name}

```console
{export}flowrun {name}.yaml
```

The page is at <http://127.0.0.1:3000>. Every message is in a log under `runs/`:

```console
flowrun log cat runs/{name}-* --topic {topic}
flowrun replay runs/{name}-*
flowrun view runs
```

| file | what it is |
|---|---|
| `{name}.yaml` | the graph: its tasks, and what flows between them |
| `{module}.py` | a task of this project |
| `test_{module}.py` | its test |

After a change: `flowrun check` finds every mistake of the graph, `pytest` (`pip install pytest`) tests
the task, and `flowrun replay` says what a recorded run would have been like with the new code.
"""

_PYPROJECT = """\
[tool.pytest.ini_options]
pythonpath = ["."]
"""
