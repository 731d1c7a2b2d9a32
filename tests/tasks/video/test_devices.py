"""A webcam or a screen -> an opened container, or an error that says what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from flowrun.runtime.testing import run_task
from flowrun.tasks.video import devices
from flowrun.tasks.video.capture import VideoCapture
from flowrun.tasks.video.opening import VideoError, name_of, open_video, problems_of
from flowrun.tasks.video.settings import VideoSettings

NO_DISPLAY = (
    "there is no display: DISPLAY is not set; start flowrun in a desktop session of X11, or name one: "
    "screen://:0"
)


def problem(folder: Path, **config: Any) -> str:
    """What is said before the run, and in it."""
    settings = VideoSettings(**config)
    [(key, text)] = problems_of(settings, folder)
    with pytest.raises(VideoError) as caught:
        open_video(settings, folder)
    assert (key, text) == ("source_uri", str(caught.value))
    return text


def test_a_webcam_is_the_first_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "Path", lambda path: tmp_path / path.strip("/"))
    assert problem(tmp_path, source_uri="webcam") == (
        "there is no webcam: no /dev/video0; for pictures without one: test"
    )
    (tmp_path / "dev").mkdir()
    for number in (10, 2):
        (tmp_path / f"dev/video{number}").touch()
    assert name_of(VideoSettings(source_uri="webcam")) == f"{tmp_path}/dev/video2"


def test_a_device_may_come_later_where_the_run_waits_for_it(tmp_path: Path) -> None:
    assert problem(tmp_path, source_uri=977).startswith("no such device: /dev/video977; ")
    config = VideoSettings.model_validate({"source_uri": 977, "reconnect": {"at_start": True}})
    assert list(problems_of(config, tmp_path)) == []


def test_a_screen_needs_a_display(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert (
        problem(tmp_path, source_uri="screen")
        == NO_DISPLAY
        == problem(tmp_path, source_type="screen")
    )
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert "DISPLAY is not set; Wayland's is not supported; " in problem(
        tmp_path, source_uri="screen"
    )
    monkeypatch.setenv("DISPLAY", "nonsense")
    assert problem(tmp_path, source_uri="screen") == (
        "'nonsense' is no display; write :0, :0.1, or :0.0+10,20"
    )


def test_a_display_that_nobody_shows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(VideoError) as caught:
        open_video(VideoSettings(source_uri="screen://:977"), tmp_path)
    assert str(caught.value) == (
        "no X server shows the display ':977', or it refuses this user; see `echo $DISPLAY` and `xhost`"
    )


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("Xvfb") is None, reason="needs Xvfb: apt-get install xvfb")
def test_a_screen_is_shown(tmp_path: Path) -> None:
    ready, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "320x240x24"],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    try:
        with os.fdopen(ready) as numbers:
            display = f":{int(numbers.readline())}"
        config = {"source_uri": f"screen://{display}", "fps": 10}
        out = run_task(VideoCapture, config=config, graph_dir=tmp_path, cycles=3)
    finally:
        server.terminate()
        server.wait()
    images = [cycle["image"] for cycle in out]
    assert {image.pixels.shape for image in images} == {(240, 320, 3)}
    assert {image.source for image in images} == {f"screen {display}"}
