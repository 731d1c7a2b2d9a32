"""Takes docs/page.png, the picture of the README: a real run of graphs/inference.yaml, in chromium.

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

ANSWERS = 12  # well into a scene: the picture and the newest answer then agree


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            Path(sys.executable).parent / "flowrun", ROOT / "graphs" / "inference.yaml",
            "--plain", "--port", "0", "--log-dir", folder,
        ]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
            try:
                photograph(run, Path(folder))
            finally:
                run.terminate()


def photograph(run: subprocess.Popen[str], folder: Path) -> None:
    url, answers = None, 0
    for line in run.stdout or ():
        found = re.search(r"page and API at (\S+)", line)
        url = found[1] if found else url
        if url is not None and (answers := answers + ("(cap en," in line)) == 1:
            break
    assert url is not None
    browser = Browser(folder / "profile")
    try:
        browser.size(1280, 760)
        browser.open(url)
        for line in run.stdout or ():
            answers += "(cap en," in line
            if answers == ANSWERS:
                break
        browser.wait_for("[...document.images].some(image => image.naturalWidth > 0)")
        (ROOT / "docs" / "page.png").write_bytes(browser.screenshot())
    finally:
        browser.close()
    picture = Image.open(ROOT / "docs" / "page.png").convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(ROOT / "docs" / "page.png", optimize=True)


if __name__ == "__main__":
    main()
