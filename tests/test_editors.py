"""What a user writes in a folder of their own passes `mypy --strict` and pyright, which editors run; its
mistakes do not. flowrun is found as it was installed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flowrun.runtime.cli import main
from support.paths import ROOT

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text(encoding="utf-8")
QUICKSTART = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")

TASK = '''
from pydantic import PositiveFloat

from flowrun.msgs import ImageRgb8Msg, PromptResponseMsg, TextMsg
from flowrun.runtime.task import Context, Input, Live, Output, Task, TaskConfig, task


@task
def shout(ctx: Context, text: TextMsg, mark: TextMsg | None, *, times: int = 2) -> TextMsg | None:
    """A function."""
    end = mark.value if mark is not None else "!"
    return TextMsg(value=text.value.upper() + end * times)


@task(external=True)
def answer(text: TextMsg) -> TextMsg:
    return TextMsg(value=f"about {text.value}")


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


class Longer(Label):
    """A class of a class, with keys of its own."""

    class Config(Label.Config):
        times: int = 2

    def start(self, ctx: Context) -> None:
        self.count = self.config.times + len(self.config.prefix)


class Declared(Task):
    """The config's type written out, as it need not be."""

    class Config(TaskConfig):
        scale: PositiveFloat = 2.0

    config: Config

    def process(self, ctx: Context, text: Output[TextMsg]) -> None:
        text.value = f"{self.config.scale:g}"
        text.publish()


class Plain(Task):
    """A task without a config."""

    def process(self, ctx: Context, text: Input[TextMsg]) -> None:
        ctx.log.info("config", config=self.config.model_dump())
'''

TEST = """
from flowrun.msgs import ImageRgb8Msg, TextMsg
from flowrun.runtime.task import Context
from flowrun.runtime.testing import run_task
from label import Label, answer, shout


def test_functions(ctx: Context) -> None:
    said = shout(ctx, answer(TextMsg(value="x")), None, times=1)
    assert said is not None
    assert said.value == "ABOUT X!"
    [only] = run_task(shout, inputs=[{"text": TextMsg(value="y")}])
    assert only.out.value == "Y!!"


def test_label() -> None:
    [only] = run_task(Label, inputs=[{"image": ImageRgb8Msg()}], config={"scale": 1})
    assert only.label.value.startswith("seen: ")
    assert only["label"].tov_ns == 0
    assert list(only) == ["label", "small"]
"""

SCRIPT = """
from datetime import datetime
from pathlib import Path

import flowrun
from flowrun import Graph, IntMsg, Log, Replay, Result, TextMsg
from flowrun.tasks.inference import Inference
from flowrun.tasks.video.capture import VideoCapture
from label import Label, shout


def seen(result: Result) -> None:
    print(result.source + 1, result.tov_ns)


def main() -> None:
    g = Graph("inference", logging={"sync_s": 0.5}, runtime={"seed": 3})
    cam = g.add(VideoCapture, source_uri=0)
    cap = g.add(Inference, prompt="cap en", background=True, on_error="skip", rate_hz=2)
    label = g.add(Label, id="label", config={"scale": 2.0})
    g.connect(cam, cap)
    g.connect(cap.answer, label["answer"])
    g.connect(label.label, g.add(shout, times=3))
    g.save(Path("g.yaml"))
    with g.start(cycles=3, port=0) as run:
        for message in run.messages("label.label", keep=1):
            assert isinstance(message, TextMsg)
            print(message.value, run.url)
        run.set("inference", prompt="cap de")
        end = run.on_message("label.label", print)
        end()
        print(run.wait(2.0).reason)
    with Log("runs/a") as log:
        print(log[3].cycle, log["label.label"][1:2].df, log.timings()["cycle_ms"])
        print(log["label"].between(0, datetime.now())[4].fields)
        print(Replay(log).run().identical)
    print(flowrun.running(), flowrun.run("g.yaml").cycles, IntMsg(value=3).value)
    flowrun.pipeline([0, "a.mp4"], prompt="cap en", on_result=seen, max_fps=5).run()
"""

MISTAKES = {
    "image.width *": ("image.widht *", "widht"),
    "self.config.scale)": ("self.config.scael)", "scael"),
    "answer.response if answer is not None else": (
        "answer.response if label is not None else",
        "response",
    ),
    'label.value = f"': ('label.valeu = f"', "valeu"),
    "self.config.times": ("self.config.tiems", "tiems"),
}
"""What is written -> the mistake in its place, and the name that the error must say."""


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def mypy_errors(folder: Path) -> list[str]:
    """`path:line: error: text` of each. The plugin is pydantic's, as in any project that uses it."""
    (folder / "mypy.ini").write_text("[mypy]\nplugins = pydantic.mypy\n")
    cache = f"--cache-dir={folder.parent / 'mypy_cache'}"
    out = run(folder, "mypy", "--strict", "--config-file=mypy.ini", cache, ".")
    return [line for line in out.splitlines() if ": error: " in line]


def pyright_errors(folder: Path) -> list[str]:
    """The same of pyright, as it is without settings: basedpyright is that with its own Node.js."""
    config = {"typeCheckingMode": "standard", "include": ["."]}
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    report = json.loads(run(folder, "basedpyright", "--outputjson", "--pythonpath", sys.executable))
    assert report["summary"]["filesAnalyzed"] == len(list(folder.glob("*.py")))
    return [
        f"{Path(it['file']).name}:{it['range']['start']['line'] + 1}: error: {it['message']}"
        for it in report["generalDiagnostics"]
        if it["severity"] == "error"
    ]


CHECKERS = pytest.mark.parametrize(
    "errors",
    [
        pytest.param(mypy_errors, id="mypy", marks=pytest.mark.long),
        pytest.param(pyright_errors, id="pyright"),
    ],
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder: the README's task and its test, what `new-task` writes, and more of both."""
    function, task, test = re.findall(
        r"^```python\n(.*?)^```$", QUICKSTART, re.DOTALL | re.MULTILINE
    )
    (tmp_path / "doubles.py").write_text(function)
    (tmp_path / "smooth.py").write_text(task)
    (tmp_path / "test_smooth.py").write_text(test)
    assert main(["new-task", "FindFaces", "--dir", str(tmp_path)]) == 0
    (tmp_path / "label.py").write_text(TASK)
    (tmp_path / "test_label.py").write_text(TEST)
    return tmp_path


@CHECKERS
@pytest.mark.long
@pytest.mark.timeout(600)  # it reads all of flowrun
def test_a_script_with_graphs_has_no_errors(folder: Path, errors) -> None:
    five = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)[-1]
    typed = five.replace("def bright(frame)", "def bright(frame: flowrun.ImageRgb8Msg) -> object")
    assert typed != five
    (folder / "five.py").write_text(typed)
    (folder / "script.py").write_text(SCRIPT)
    assert errors(folder) == []


@CHECKERS
def test_a_users_folder_has_no_errors_but_its_mistakes(folder: Path, errors) -> None:
    """Each class's config is typed as it defines it, and one run of a checker finds it all."""
    wrong = TASK
    for written, (mistaken, _) in MISTAKES.items():
        assert wrong.count(written) == 1
        wrong = wrong.replace(written, mistaken)
    (folder / "wrong.py").write_text(wrong)
    shown = ["Label", "Longer", "Declared", "Plain"]
    lines = [f"    {name.lower()}.config.nothing" for name in shown]
    parameters = ", ".join(f"{name.lower()}: {name}" for name in shown)
    (folder / "hover.py").write_text(
        f"from label import {', '.join(shown)}\n\n\n"
        f"def hover({parameters}) -> None:\n" + "\n".join(lines) + "\n"
    )
    found = sorted(errors(folder))
    mistakes = [line for line in found if line.startswith("wrong.py:")]
    assert len(mistakes) == len(MISTAKES), found
    for _, name in MISTAKES.values():
        assert any(f'"{name}"' in line for line in mistakes), found
    hovers = [line for line in found if line.startswith("hover.py:")]
    configs = [re.search(r'"(Task)?Config"', line) for line in hovers]
    assert [it[0] for it in configs if it] == ['"Config"', '"Config"', '"Config"', '"TaskConfig"']
    assert len(found) == len(mistakes) + len(hovers), found
