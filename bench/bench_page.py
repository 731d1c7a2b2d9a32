"""How soon the page is there, in chromium: its first paint and picture, a prompt that another client
changes, and the timeline of a long run.

    python bench/bench_page.py [--rounds 5] [--hours 1] [--dir DIR]

The live page is that of graphs/inference.yaml, whose film goes on and on; nothing of it is in the
browser's cache. Times are the browser's own, from the begin of the navigation; that of a prompt begins
with the request that changes it, and ends with the frame in which the page shows it. The long run is
that of bench_timeline.py, which is kept in DIR. Exits with 1 where the first paint or the timeline take
more than 1 s, or a prompt more than 0.3 s, by their medians.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench_timeline import LEAST_FRAMES, viewing, write
from camera_films import FPS, film_of

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from support.browser import Browser  # noqa: E402  # the one of the page's own tests
from support.stages import SHOWN, STATE, Stage  # noqa: E402

PAINT_S, PROMPT_S, TIMELINE_S = 1.0, 0.3, 1.0
TIMELINE = "document.querySelector('.timeline')?.dataset.timeline == 'ready'"
PAINTS = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
PROMPT = "document.getElementById('prompt')"
ANSWERED = "document.querySelector('#answers .prompt')?.textContent"


def noting(what: str) -> str:
    """A script that notes when something is first true of the page, in `notedAt`."""
    return (
        f"(function look() {{ if (document.body && ({what})) window.notedAt = performance.now();"
        " else requestAnimationFrame(look) })()"
    )


def opened(browser: Browser, url: str, what: str) -> tuple[float, float]:
    """Seconds to the first paint of a page, and until something is true of it."""
    browser.open("about:blank")
    browser.wait_for("location.href == 'about:blank'")
    browser.before_load(noting(what))
    browser.open(url)
    painted, noted = browser.wait_for(
        f"window.notedAt && {PAINTS} && [{PAINTS}, window.notedAt]", timeout_s=120
    )
    browser.forget()
    return painted / 1e3, noted / 1e3


def changed(browser: Browser, prompt: str, shown: str) -> float:
    """Seconds from a request that changes the prompt until the page shows that."""
    body = json.dumps({"prompt": prompt})
    took: float = browser.evaluate(
        "(async () => { const begin = performance.now();"
        f" fetch('api/v0/inference/settings', {{method: 'POST', body: {json.dumps(body)}}});"
        " const frame = () => new Promise(done => requestAnimationFrame(done));"
        f" while ({shown} != {json.dumps(prompt)}) await frame();"
        " await frame(); return performance.now() - begin })()"
    )
    return took / 1e3


@contextmanager
def live(folder: Path) -> Iterator[str]:
    """The URL of a run of the main graph."""
    graph = folder / "inference.yaml"
    text = (ROOT / "graphs" / "inference.yaml").read_text()
    film = ROOT / "graphs" / "media" / "shapes.mp4"
    text = text.replace("media/shapes.mp4", f"{film}\n      loop: true")
    graph.write_text(text)
    stage = Stage(folder, [graph, "--plain", "--port", "0", "--log-dir", folder / "runs"])
    try:
        yield stage.url
    finally:
        stage.close()


def said(name: str, seconds: list[float], most_s: float | None = None) -> bool:
    """Print what was measured; whether its median is within the limit."""
    median = statistics.median(seconds)
    limit = "" if most_s is None else f"; asked: {most_s:.1f} s"
    print(f"{name}: {median:.2f} s ({min(seconds):.2f}-{max(seconds):.2f}{limit})", flush=True)
    return most_s is None or median <= most_s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument(
        "--dir", type=Path, default=Path(tempfile.gettempdir()) / "flowrun-timeline"
    )
    args = parser.parse_args()
    if shutil.which("chromium") is None:
        print("nothing is measured: there is no chromium here; apt-get install chromium")
        return 0
    cycles = round(args.hours * 3600 * FPS)
    run = args.dir / f"street-1080p-{cycles}"
    if not run.exists():
        film = film_of("1080p", LEAST_FRAMES, key_every=FPS)
        write(run, film, cycles, key_every=FPS, is_read=True)
    good = True
    with tempfile.TemporaryDirectory() as folder:
        browser = Browser(Path(folder) / "profile")
        try:
            browser.size(1440, 900)
            browser._call("Network.setCacheDisabled", cacheDisabled=True)
            with live(Path(folder)) as url:
                opened(browser, url, f"{STATE} == 'running'")  # the model is loaded
                seen = [opened(browser, url, SHOWN) for _ in range(args.rounds)]
                browser.wait_for(f"{ANSWERED} != null && !{PROMPT}.disabled")
                prompts = ["detect shapes", "cap en"] * args.rounds
                shown = [changed(browser, it, f"{PROMPT}.value") for it in prompts]
                answered = [changed(browser, it, ANSWERED) for it in prompts]
            paints, pictures = zip(*seen, strict=True)
            good &= said("first paint of the page", list(paints), PAINT_S)
            said("first picture of the camera", list(pictures))
            good &= said("a prompt that another client changes is shown", shown, PROMPT_S)
            said("its first answer is shown", answered)
            timelines = []
            for _ in range(args.rounds):  # each with a server that has read nothing of it
                with viewing(run) as client:
                    timelines.append(opened(browser, str(client.base_url), TIMELINE)[1])
            good &= said(f"timeline of {args.hours:g} h", timelines, TIMELINE_S)
        finally:
            browser.close()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
