"""A task that a user writes passes `mypy --strict`, and its mistakes do not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import ROOT

TASK = '''
from pydantic import PositiveFloat

from flowrun.msgs import ImageRgb8Msg, PromptResponseMsg, TextMsg
from flowrun.runtime.task import Context, Input, Live, Output, Task, TaskConfig


class Label(Task):
    """Say what the model said, with the picture's size."""

    class Config(TaskConfig):
        scale: PositiveFloat = 2.0
        prefix: Live[str] = "seen: "

    def start(self, ctx: Context) -> None:
        self.count = 0

    def process(
        self,
        ctx: Context,
        image: Input[ImageRgb8Msg],
        answer: Input[PromptResponseMsg] | None,
        label: Output[TextMsg],
        small: Output[ImageRgb8Msg],
    ) -> None:
        self.count += 1
        said: str = answer.response if answer is not None else "nothing"
        width = int(image.width * self.config.scale)
        label.value = f"{self.config.prefix.upper()}{said} {width} {ctx.rng.integers(3)}"
        label.publish(tov_ns=image.tov_ns)
        small.allocate_pixels(image.height // 2, image.width // 2)[:] = image.pixels[::2, ::2]
        small.publish()
        ctx.log.info("labelled", count=self.count)

    def configure(self, ctx: Context, changed: frozenset[str]) -> None:
        ctx.log.info("changed", keys=sorted(changed))

    def freeze(self) -> int:
        return self.count

    def thaw(self, state: int) -> None:
        self.count = state
'''

TEST = """
from flowrun.msgs import ImageRgb8Msg
from flowrun.runtime.testing import run_task
from label import Label


def test_label() -> None:
    [only] = run_task(Label, inputs=[{"image": ImageRgb8Msg()}], config={"scale": 1})
    assert only["label"].tov_ns == 0
"""

MISTAKES = {
    "image.width *": ("image.widht *", '"ImageRgb8Msg" has no attribute "widht"'),
    "self.config.scale": ("self.config.scael", '"Config" has no attribute "scael"'),
    "answer.response if answer is not None else": (
        "answer.response if label is not None else",
        'Item "None" of "PromptResponseMsg | None" has no attribute "response"',
    ),
    'label.value = f"': ('label.valeu = f"', '"TextMsg" has no attribute "valeu"'),
}


def mypy(folder: Path) -> subprocess.CompletedProcess[str]:
    """`mypy --strict` as in a user's own project; flowrun counts as an installed package, in which
    nothing is reported.
    """
    (folder / "mypy.ini").write_text(
        "[mypy]\nplugins = pydantic.mypy\n[mypy-flowrun.*]\nfollow_imports = silent\n"
    )
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "mypy.ini", "."],
        cwd=folder,
        env={**os.environ, "MYPYPATH": str(ROOT / ".src")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_users_task_and_its_mistakes_under_mypy_strict(tmp_path: Path) -> None:
    wrong = TASK
    for written, (mistaken, _) in MISTAKES.items():
        assert wrong.count(written) == 1
        wrong = wrong.replace(written, mistaken)
    (tmp_path / "label.py").write_text(TASK)
    (tmp_path / "test_label.py").write_text(TEST)
    (tmp_path / "wrong.py").write_text(wrong)
    lines = mypy(tmp_path).stdout.splitlines()
    errors = [line for line in lines if ": error: " in line]
    assert [line for line in errors if not line.startswith("wrong.py:")] == []
    assert len(errors) == len(MISTAKES), errors
    for _, message in MISTAKES.values():
        assert any(message in line for line in errors), errors
    assert lines[-1] == "Found 4 errors in 1 file (checked 3 source files)"
