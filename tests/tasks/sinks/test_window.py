"""`Window` on a real X server: Xvfb."""

from __future__ import annotations

import os
import shutil
import subprocess

import numpy as np
import pytest
from PIL import ImageGrab

from flowrun.msgs import ImageRgb8Msg
from flowrun.runtime.errors import GraphError, UsageError
from flowrun.runtime.testing import run_task
from flowrun.tasks.sinks.window import Window
from support.paths import GRAPHS
from support.sink_tasks import run_graph
from support.window_tasks import Looks

SHAPES = GRAPHS / "media" / "shapes.mp4"
XVFB = shutil.which("Xvfb")


def picture(color, *, aspect=1.0, size=(96, 128)):
    image = ImageRgb8Msg(pixels=np.full((*size, 3), color, np.uint8), pixel_aspect=aspect)
    image.publish()
    return image


@pytest.fixture
def screen(monkeypatch):
    """A display of 800x600."""
    if XVFB is None:
        pytest.skip("Xvfb is not installed")
    pytest.importorskip("_tkinter", reason="python3-tk is not installed")
    reading, writing = os.pipe()
    command = [XVFB, "-displayfd", str(writing), "-screen", "0", "800x600x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL)
    os.close(writing)
    with os.fdopen(reading) as ready:
        display = f":{ready.readline().strip()}"
    monkeypatch.setenv("DISPLAY", display)
    try:
        yield display
    finally:
        server.terminate()
        server.wait(30)


def seen(display, color):
    """Rows and columns of the screen that are of this colour."""
    shown = np.asarray(ImageGrab.grab(xdisplay=display).convert("RGB"))
    rows, columns = np.nonzero((np.abs(shown.astype(int) - color) <= 2).all(axis=2))
    return (np.ptp(rows) + 1, np.ptp(columns) + 1) if len(rows) else (0, 0)


@pytest.mark.real
@pytest.mark.parametrize(
    ("aspect", "size", "config", "shown"),
    [
        (1.0, (96, 128), {}, (96, 128)),
        (2.0, (96, 128), {}, (96, 256)),
        (1.0, (96, 128), {"width": 64}, (48, 64)),
        (1.0, (1200, 800), {}, (540, 360)),
    ],
)
def test_the_picture_is_on_the_screen(screen, monkeypatch, aspect, size, config, shown):
    color = (200, 30, 90)
    monkeypatch.setattr(Looks, "is_right", staticmethod(lambda: seen(screen, color) == shown))
    images = [{"image": picture(color, aspect=aspect, size=size)}]
    run_task(Looks, inputs=images, config=config)
    assert seen(screen, color) == (0, 0)  # it is closed at the end


@pytest.mark.real
@pytest.mark.parametrize("on_close", ["continue", "end"])
def test_closing_it_ends_the_run_or_not(screen, tmp_path, on_close):
    if shutil.which("xdotool") is None:
        pytest.skip("xdotool is not installed")
    _, result = run_graph(
        tmp_path,
        f"tasks:\n  - {{id: cam, type: VideoCapture, config: {{source_uri: {SHAPES}}}}}\n"
        f"  - {{id: win, type: support.window_tasks.Closes, config: {{title: closes me, on_close: "
        f"{on_close}}}}}\n"
        "cnx: [{src: cam, dst: win, msg: ImageRgb8Msg}]",
    )
    if on_close == "end":
        assert result.reason == "somebody closed the window of task 'win'"
        assert result.cycles < 10
    else:
        assert (result.reason, result.error) == ("end of sources", None)


GRAPH = """
tasks: [{id: cam, type: VideoCapture, config: {source_type: test}}, {id: win, type: Window}]
cnx: [{src: cam, dst: win, msg: ImageRgb8Msg}]
"""


def test_without_a_display_the_graph_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("_tkinter", reason="python3-tk is not installed")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(GraphError) as raised:
        run_graph(tmp_path, GRAPH)
    [problem] = raised.value.problems
    assert problem.message == (
        "no display: DISPLAY is not set. Run it on a desktop, or with ssh -X; without one leave the "
        "task out: the page shows BroadcastImage"
    )


def test_a_display_that_is_not_there_is_an_error_before_the_first_cycle(monkeypatch):
    pytest.importorskip("_tkinter", reason="python3-tk is not installed")
    monkeypatch.setenv("DISPLAY", ":59999")
    with pytest.raises(UsageError, match="cannot open a window: couldn't connect to display"):
        run_task(Window, inputs=[{"image": picture(1)}])
