"""Takes the pictures of the page that README.md and docs/ show: a real run of graphs/inference.yaml, in
chromium.

.venv/bin/python docs/screenshot.py
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from support.browser import Browser  # noqa: E402  # the browser of the page's own tests

ANSWERS = "document.querySelectorAll('#answers li').length"
SHOWN = "!!document.querySelector('.screen[data-shown]')"
THUMBS = (
    "[...document.querySelectorAll('.thumb')].slice(0, 3)"
    ".every(it => it.querySelector('img')?.naturalWidth)"
)
SEES = "document.querySelector('#answers .response').textContent.includes(' on the ')"
MARKED = (
    "(it => it.width && it.getContext('2d').getImageData(0, 0, it.width, it.height).data.some(v => v))"
    "(document.querySelector('.screen canvas.marks'))"
)
"""Whether there are boxes on the picture."""
BARE = "document.querySelector('.screen figcaption').textContent.includes('no boxes')"
READY = "document.querySelector('.timeline')?.dataset.timeline == 'ready'"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "porch.yaml"
        graph.write_text(both_prompts((ROOT / "graphs" / "inference.yaml").read_text()))
        command = [
            Path(sys.executable).parent / "flowrun", graph,
            "--plain", "--port", "0", "--log-dir", Path(folder) / "runs",
        ]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
            try:
                photograph(run, Path(folder))
            finally:
                run.terminate()


def both_prompts(text: str) -> str:
    """The graph, with the film again and again, and a second task that says where things are."""
    film = ROOT / "graphs" / "media" / "shapes.mp4"
    text = text.replace("media/shapes.mp4", str(film)).replace(
        "realtime: true", "realtime: true\n      loop: true"
    )
    finder = """
  - id: finder
    type: Inference
    background: true
    config: {prompt: detect shapes}

  - id: boxes
    type: ParseDetections

  - id: stars
    type: Alert
    config: {contains: star, cooldown_s: 10}

cnx:
  - {src: cam0, dst: finder, msg: ImageRgb8Msg}
  - {src: finder, dst: boxes, msg: PromptResponseMsg}
  - {src: inference, dst: stars, msg: PromptResponseMsg}"""
    return text.replace("\ncnx:", finder)


def photograph(run: subprocess.Popen[str], folder: Path) -> None:
    url = None
    for line in run.stdout or ():
        if found := re.search(r"page and API at (\S+)", line):
            url = found[1]
            break
    assert url is not None
    browser = Browser(folder / "profile")
    try:
        browser.size(1440, 900)
        browser.open(url)
        browser.wait_for(
            f"{ANSWERS} >= 6 && {SHOWN} && {THUMBS} && {READY} && {SEES} && {MARKED}", timeout_s=180
        )
        save(browser, "page.png")
        browser.size(1440, 900, dark=True)
        back = (
            "document.querySelector('.timeline .play').dispatchEvent("
            "new KeyboardEvent('keydown', {key: 'ArrowLeft', shiftKey: true, bubbles: true}))"
        )
        for _ in range(30):
            browser.evaluate(back)
            browser.wait_for(
                "!!document.querySelector('.screen[data-past=exact]')"
                f" && document.querySelector('.timeline').dataset.shown && {THUMBS}"
            )
            if browser.evaluate(f"{SEES} && {MARKED} && !{BARE}"):
                break
        save(browser, "page-moment.png")
        what_if(browser)
        save(browser, "page-what-if.png")
        browser.size(390, 844)
        browser.open(url)
        browser.wait_for(f"{ANSWERS} >= 1 && {SHOWN} && {THUMBS}", timeout_s=60)
        save(browser, "page-phone.png")
    finally:
        browser.close()


def what_if(browser: Browser) -> None:
    """Ask the model about the last part of the run again, with another prompt."""
    timeline = "document.querySelector('.timeline')"
    buttons = f"[...{timeline}.querySelectorAll('button')]"
    browser.evaluate(f"{buttons}.find(it => it.textContent == 'What if …').click()")
    browser.wait_for(f"!!{timeline}.querySelector('textarea')?.value")
    browser.evaluate(
        f"(it => {{ it.value = 'answer en how many shapes are there?';"
        " it.dispatchEvent(new Event('input', {bubbles: true})) })"
        f"({timeline}.querySelector('textarea'))"
    )
    browser.evaluate(f"{buttons}.find(it => it.textContent == 'Run it again').click()")
    pictures = f"[...{timeline}.querySelectorAll('.what-if-picture img')]"
    browser.wait_for(
        f"!!{timeline}.querySelector('[data-what-if=done]')"
        f" && {pictures}.filter(it => it.naturalWidth).length == 2",
        timeout_s=180,
    )


def save(browser: Browser, name: str) -> None:
    path = ROOT / "docs" / name
    path.write_bytes(browser.screenshot())
    picture = Image.open(path).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
