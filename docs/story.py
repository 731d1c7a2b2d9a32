"""Makes the moving picture of README.md, docs/story.webp: a wrong answer, the moment at which it was
given, what another prompt would have been answered, the mended code, and the test that holds it.

All in it is real: a run whose code has a mistake, its page in chromium, and what commands print.

.venv/bin/python docs/story.py
"""

from __future__ import annotations

import html
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from support.browser import Browser  # noqa: E402  # the browser of the page's own tests

BIN = Path(sys.executable).parent
WIDTH, HEIGHT = 1000, 620
CAPTION = 56
WINDOW = (1140, 740)
TALL = (1140, 960)
"""For a panel that is larger than what the window leaves."""
SECONDS = 3.2

CODE = """\
from flowrun.msgs import ImageRgb8Msg
from flowrun.runtime.task import task


@task
def prepare(image: ImageRgb8Msg) -> ImageRgb8Msg:
    bgr = image.pixels[:, :, ::-1]  # as OpenCV has pictures
    return ImageRgb8Msg(pixels=bgr)
"""
GRAPH = """\
tasks:
  - {id: cam0, type: VideoCapture, config: {source_uri: shapes.mp4, realtime: true}}
  - {id: prepare, type: prepare.prepare}
  - {id: inference, type: Inference, background: true, config: {prompt: cap en}}
  - {id: answers, type: BroadcastChat}
  - {id: pictures, type: BroadcastImage}
cnx:
  - {src: cam0, dst: prepare, msg: ImageRgb8Msg}
  - {src: prepare, dst: inference, msg: ImageRgb8Msg}
  - {src: inference, dst: answers, msg: PromptResponseMsg}
  - {src: cam0, dst: pictures, msg: ImageRgb8Msg}
"""
WRONG, RIGHT = "a blue circle at the top", "a red circle at the top"

TIMELINE = "document.querySelector('.timeline')"
SHOWN = "!!document.querySelector('.screen[data-shown]')"
THEN = (
    "[...document.querySelectorAll('.screen')].every(it => it.dataset.past == 'exact')"
    " && [...document.querySelectorAll('.thumb img')].every(it => it.naturalWidth)"
)


class Film:
    """The pictures of the story, each with a line above it that says what happens."""

    def __init__(self) -> None:
        self.pictures: list[Image.Image] = []
        self.seconds: list[float] = []
        self._font = ImageFont.load_default(25)

    def add(self, caption: str, picture: Image.Image, *, seconds: float = SECONDS) -> None:
        """Add a picture, made as large as there is room for."""
        whole = Image.new("RGB", (WIDTH, CAPTION + HEIGHT), "#0d1117")
        draw = ImageDraw.Draw(whole)
        draw.rectangle((0, 0, WIDTH, CAPTION), fill="#1f6feb")
        draw.text((18, CAPTION // 2), caption, "white", self._font, anchor="lm")
        assert draw.textlength(caption, self._font) < WIDTH - 36, caption
        scale = min(WIDTH / picture.width, HEIGHT / picture.height)
        fitted = picture.resize(
            (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS
        )
        whole.paste(fitted, ((WIDTH - fitted.width) // 2, CAPTION + (HEIGHT - fitted.height) // 2))
        self.pictures.append(whole)
        self.seconds.append(seconds)

    def save(self, path: Path) -> None:
        first, *others = self.pictures
        first.save(
            path, save_all=True, append_images=others, loop=0, quality=82, method=6,
            duration=[round(1000 * it) for it in self.seconds],
        )  # fmt: skip


class Page(Browser):
    """The browser, with what the story does on a page."""

    def picture(self, *marked: str, around: str | None = None) -> Image.Image:
        """The window, with a frame around each marked element; only the element `around`, if given."""
        boxes = None
        while boxes != (boxes := [self.box(element) for element in marked]):
            shot = self.screenshot()  # again, if a live page has moved what is marked
        picture = Image.open(io.BytesIO(shot)).convert("RGB")
        draw = ImageDraw.Draw(picture)
        for left, top, right, bottom in boxes:
            draw.rounded_rectangle(
                (left - 6, top - 6, right + 6, bottom + 6), 8, outline="#f0506e", width=4
            )
        return picture.crop(tuple(map(int, self.box(around)))) if around else picture

    def box(self, element: str) -> tuple[float, float, float, float]:
        left, top, right, bottom = self.evaluate(
            f"(it => [it.left, it.top, it.right, it.bottom])({element}.getBoundingClientRect())"
        )
        return left, top, right, bottom

    def click(self, text: str) -> None:
        self.evaluate(f"{button(text)}.click()")

    def write(self, field: str, text: str) -> None:
        self.evaluate(
            f"(it => {{ it.value = {json.dumps(text)};"
            f" it.dispatchEvent(new Event('input', {{bubbles: true}})) }})({field})"
        )

    def drag_to(self, part: float) -> None:
        """Drag the timeline from its end to a part of it, from 0 to 1."""
        left, top, right, _ = self.box("document.querySelector('.timeline canvas')")
        for kind, at in (("mousePressed", 0.97), ("mouseMoved", (0.97 + part) / 2),
                         ("mouseMoved", part), ("mouseReleased", part)):  # fmt: skip
            self.mouse(kind, left + at * (right - left), top + 20)
        self.wait_for(f"{TIMELINE}.dataset.shown && {THEN}")


def button(text: str) -> str:
    return (
        f"[...{TIMELINE}.querySelectorAll('button, a.action')]"
        f".find(it => it.textContent.trim() == {text!r})"
    )


@contextmanager
def served(folder: Path, *words: str) -> Iterator[str]:
    """A flowrun command that serves a page; gives the page's address."""
    command = [BIN / "flowrun", *words, "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stdout or ():
                if found := re.search(r"(http://127\.0\.0\.1:\S+)", line):
                    yield found[1]
                    break
        finally:
            process.terminate()


def terminal(page: Page, folder: Path, *steps: tuple[str, int]) -> Image.Image:
    """What commands print, each with the exit status that it must have."""
    said = ""
    for command, status in steps:
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=False,
            env={"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(Path.home()), "COLUMNS": "80"},
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        said += f"<b>$ {html.escape(command)}</b>\n{html.escape(done.stdout)}\n"
    path = folder / "terminal.html"
    path.write_text(
        "<!doctype html><meta charset=utf-8><style>body {background: #0d1117; color: #c9d1d9; margin: 0}"
        "pre {font: 18px/1.5 'DejaVu Sans Mono', monospace; padding: 24px; white-space: pre-wrap}"
        f"b {{color: #7ee787}}</style><pre>{said}</pre>",
        encoding="utf-8",
    )
    page.size(WIDTH, HEIGHT)
    page.open(path.as_uri())
    page.wait_for("!!document.querySelector('pre b')")
    return page.picture()


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "prepare.py").write_text(CODE)
        (folder / "porch.yaml").write_text(GRAPH)
        shutil.copy(ROOT / "graphs" / "media" / "shapes.mp4", folder)
        page = Page(folder / "profile")
        try:
            film = tell(page, folder)
        finally:
            page.close()
    film.save(ROOT / "docs" / "story.webp")


def tell(page: Page, folder: Path) -> Film:
    film = Film()
    page.size(*WINDOW)
    with served(folder, "porch.yaml", "--plain") as url:
        page.open(url)
        answer = "document.querySelector('#answers .response')"
        page.wait_for(
            f"{SHOWN} && {answer}.textContent.includes({WRONG!r})"
            " && document.querySelector('.thumb img')?.naturalWidth",
            timeout_s=180,
        )
        screen = "document.querySelector('.screen')"
        film.add(
            "1  A wrong answer: the model says blue, the circle is red",
            page.picture(screen, answer),
        )
        page.wait_for(f"{answer}.textContent.includes('ring')", timeout_s=60)
    [run] = (folder / "runs").glob("porch-*")
    with served(folder, "view", f"runs/{run.name}") as url:
        look_back(page, film, url)
    run.rename(run.with_name("porch"))
    mended = terminal(
        page,
        folder,
        ("grep -n bgr prepare.py", 0),
        (r"sed -i 's/\[:, :, ::-1\].*//' prepare.py", 0),
        ("flowrun replay runs/porch --log-dir runs/mended | head -4", 0),
        (
            "flowrun log cat runs/mended --topic /inference/answer | grep -om1 'a red .* bottom'",
            0,
        ),
    )
    film.add("5  Mend the code, and replay what the camera saw: now it is red", mended)
    page.size(*WINDOW)
    with served(folder, "view", "runs/mended") as url:
        test = make_test(page, film, url, folder)
    passed = terminal(
        page,
        folder,
        (f"cat {test}", 0),
        (f"pytest -q {test} | grep -o '. passed'", 0),
        ("sed -i 's/image.pixels/image.pixels[:, :, ::-1]/' prepare.py", 0),
        (f"pytest -q {test} | grep -Eo '^E.*|. failed'", 0),
    )
    film.add("7  From now on it fails if the mistake comes back", passed, seconds=5)
    return film


def look_back(page: Page, film: Film, url: str) -> None:
    page.open(url)
    page.wait_for(f"{TIMELINE}?.dataset.timeline == 'ready'")
    page.drag_to(0.66)
    page.wait_for(f"document.body.innerText.includes({WRONG!r})")
    chart = "document.querySelector('.lane-chart')"
    film.add("2  Drag the timeline back: the whole page is of that moment", page.picture(chart))
    page.click("Wrong answer")
    expected = f"{TIMELINE}.querySelector('.timeline-fields .wide input')"
    page.wait_for(f"!!{expected}")
    page.write(expected, RIGHT)
    page.click("Mark as wrong")
    page.wait_for(f"{TIMELINE}.textContent.includes('Marked')")
    panel = "document.querySelector('.timeline-panel')"
    film.add("3  Mark it as wrong, and say what is right", page.picture(panel))
    page.size(*TALL)
    page.click("What if …")
    prompt = f"{TIMELINE}.querySelector('textarea')"
    page.wait_for(f"!!{prompt}?.value")
    page.write(prompt, "answer en what color is the circle?")
    page.click("Run it again")
    pictures = f"[...{TIMELINE}.querySelectorAll('.what-if-picture img')]"
    page.wait_for(
        f"!!{TIMELINE}.querySelector('[data-what-if=done]')"
        f" && {pictures}.filter(it => it.naturalWidth).length == 2",
        timeout_s=180,
    )
    # Of the answers that differ, the one that was marked: the last about the circle until this moment.
    change = (
        f"[...{TIMELINE}.querySelectorAll('.change')].findLast(it =>"
        " Number(it.querySelector('small').textContent.replace(/\\D/g, ''))"
        f" <= Number({TIMELINE}.dataset.cycle)"
        f" && it.querySelector('del').textContent.includes({WRONG!r})"
        " && it.querySelector('ins').textContent == 'blue')"
    )
    page.evaluate(f"({change}.click(), {change}.scrollIntoView())")
    pressed = f"{TIMELINE}.querySelector('.change[aria-pressed=true] del')"
    page.wait_for(
        f"{pressed}.textContent.includes({WRONG!r})"
        f" && {pictures}.every(it => it.complete && it.naturalWidth)"
    )
    film.add(
        "4  What if the prompt were another? Still blue: it is not the prompt",
        page.picture(around=TIMELINE),
    )
    page.size(*WINDOW)


def make_test(page: Page, film: Film, url: str, folder: Path) -> str:
    """Save a part of the run and its test, as the page offers them; the name of the test's file."""
    page.open(url)
    page.wait_for(f"{TIMELINE}?.dataset.timeline == 'ready'")
    page.drag_to(0.66)
    page.click("Make it a test")
    text = f"{TIMELINE}.querySelector('.timeline-code')"
    page.wait_for(f"!!{text}")
    panel = "document.querySelector('.timeline-panel')"
    film.add("6  Make the moment a test", page.picture(panel))
    page.save_downloads_to(folder)
    page.click("Download the clip")
    page.downloaded(folder, "*.mcap")
    (folder / "test_porch.py").write_text(page.evaluate(f"{text}.textContent"))
    return "test_porch.py"


if __name__ == "__main__":
    main()
