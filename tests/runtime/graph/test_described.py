"""What is said of tasks and messages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flowrun.runtime.engine.injection import injected_message
from flowrun.runtime.graph.catalog import Listed, listed_messages, listed_tasks
from flowrun.runtime.graph.described import (
    DescribedField,
    DescribedKey,
    DescribedPort,
    describe_message,
    describe_task,
)
from flowrun.runtime.graph.find import find_message_type, message_types, task_types
from flowrun.runtime.graph.plan import Slot, load_plan

OWN = '''
from typing import Annotated
import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat
from flowrun.msgs import ImageRgb8Msg, Message, Shape
from flowrun.runtime.task import Context, Input, Live, Output, Task, TaskConfig
import nowhere_to_be_found

class DepthMsg(Message):
    """How far things are. More of it.

    depth_m: how far each pixel is.
    near, far: the range.

    And the rest.
    """
    depth_m: Annotated[NDArray[np.float32], Shape("H W")]
    near: float = 0.5
    far: float
    words: list[str]

class Measure(Task):
    """Measure how far things are: slowly."""

    class Config(TaskConfig):
        timeout_s: PositiveFloat = 2.0
        """How long one may take."""
        mode: Live[str]

    def process(self, ctx: Context, image: Input[ImageRgb8Msg], depth: Output[DepthMsg]) -> None: ...

class Faster(Measure):
    """Measure e.g. twice as fast"""

class _Hidden(Task): ...
class Other: ...
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own_depth.py").write_text(OWN.replace("import nowhere_to_be_found\n", ""))
    return tmp_path


def test_lists_are_made_without_importing_what_they_list(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "test_own.py").write_text(OWN)
    (tmp_path / "broken.py").write_text("class (")
    assert listed_tasks({}, tmp_path) == [
        Listed("own.Measure", "own.Measure", "Measure how far things are"),
        Listed("own.Faster", "own.Faster", "Measure e.g. twice as fast"),
    ]
    assert listed_messages(tmp_path)[-1] == Listed(
        "own.DepthMsg", "own.DepthMsg", "How far things are"
    )


@pytest.mark.long
def test_a_list_of_what_is_installed_imports_none_of_it() -> None:
    code = (
        "import sys; from pathlib import Path; from flowrun.runtime.graph.catalog import listed_tasks;"
        "from flowrun.runtime.graph.find import task_types;"
        "found = listed_tasks(task_types(), Path('/'));"
        "assert all(it.sentence for it in found), found; assert len(found) > 10;"
        "print(sorted({'torch', 'av', 'flowrun.tasks.detect'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


TIMEOUT = "How long one may take."
FAR = "How far each pixel is. In metres."


def test_a_task_is_described(folder: Path) -> None:
    found = describe_task("own_depth.Measure", folder=folder)
    assert found.path == "own_depth.Measure"
    assert found.ports == (
        DescribedPort("image", "input", "ImageRgb8Msg", required=True),
        DescribedPort("depth", "output", "own_depth.DepthMsg", required=True),
    )
    assert found.config == (
        DescribedKey(
            "timeout_s", "number (above 0)", 2.0, False, "seconds", False, "How long one may take."
        ),
        DescribedKey("mode", "text", None, True, "", True, ""),
    )
    assert found.example == (
        "tasks:\n"
        "  - id: video_capture\n"
        "    type: VideoCapture\n"
        "    config: {source_uri: test}\n"
        "  - id: measure\n"
        "    type: own_depth.Measure\n"
        "    config: {mode: example}\n"
        "cnx:\n"
        "  - {src: video_capture, dst: measure, msg: ImageRgb8Msg}\n"
    )
    (folder / "g.yaml").write_text(found.example)
    load_plan(folder / "g.yaml", env=os.environ)


def test_a_message_is_described(folder: Path) -> None:
    found = describe_message("own_depth.DepthMsg", folder=folder)
    assert found.text == "How far things are. More of it.\n\nAnd the rest."
    assert found.fields == (
        DescribedField(
            "depth_m", "array of float32", "(H, W)", [], False, "How far each pixel is. In metres."
        ),
        DescribedField("near", "float", "", 0.5, False, "The range."),
        DescribedField("far", "float", "", 0.0, False, "The range."),
        DescribedField("words", "list[str]", "", [], False, ""),
    )
    assert found.example == {"depth_m": [[0.0]], "near": 0.5, "far": 0.0, "words": [""]}


QUICK = ("Alert", "VideoCapture", "Zones")


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.long)
        for name in sorted(task_types())
    ],
)
def test_every_task_says_what_it_is_and_its_example_passes_check(name: str, tmp_path: Path) -> None:
    found = describe_task(name, folder=tmp_path)
    assert not [key.name for key in found.config if not key.sentence]
    (tmp_path / "g.yaml").write_text(found.example)
    load_plan(tmp_path / "g.yaml", env=os.environ, ready=False)


@pytest.mark.parametrize("name", sorted(message_types()))
def test_every_message_says_what_it_is_and_its_example_is_published(name: str) -> None:
    found = describe_message(name, folder=Path())
    assert not [field.name for field in found.fields if not field.sentence]
    kind = find_message_type(name, folder=Path())
    plan: Any = SimpleNamespace(slots=[Slot(0, "x", "out", "/x/out", kind, logged=True)], steps=[])
    injected_message(plan, "x", json.loads(json.dumps(found.example)), tov_ns=None)
