"""A webcam or a screen -> an opened container, or an error that says what to do."""

from __future__ import annotations

import errno
import os
import re
import sys
from pathlib import Path
from typing import Any

from flowrun.tasks.video.address import AddressError
from flowrun.tasks.video.settings import VideoSettings

__all__ = [
    "device_of",
    "display_of",
    "missing_device",
    "missing_display",
    "open_device",
    "open_screen",
]

_SCREEN_FPS = 30
_DISPLAY = re.compile(r"[\w.-]*:\d+(\.\d+)?(\+\d+,\d+)?")


def device_of(config: VideoSettings) -> str:
    """The path of the device: for `webcam` that of the first one; "webcam" where there is none."""
    target = config.address.target
    if target:
        return f"/dev/video{target}" if target.isdecimal() else target
    found = sorted(Path("/dev").glob("video*"), key=lambda it: (len(it.name), it.name))
    return str(found[0]) if found else "webcam"


def missing_device(config: VideoSettings) -> str | None:
    """What is wrong if the device is not there."""
    device = device_of(config)
    if device == "webcam":
        return "there is no webcam: no /dev/video0; for pictures without one: test"
    if Path(device).exists():
        return None
    devices = ", ".join(sorted(str(path) for path in Path("/dev").glob("video*")))
    return f"no such device: {device}; video devices: {devices or 'none'}"


def open_device(config: VideoSettings) -> Any:
    """The opened container of a V4L2 device."""
    import av

    missing = missing_device(config)
    if missing is not None:
        raise AddressError(missing)
    device = device_of(config)
    asked = _size_and_rate(config)
    if config.input_format is not None:
        asked["input_format"] = config.input_format
    options = {**asked, **config.ffmpeg_options}
    try:
        return av.open(device, format="v4l2", options=options, timeout=config.timeout_s)
    except PermissionError:
        raise AddressError(
            f"no permission to read {device}; join its group: sudo usermod -aG video $USER",
            code="refused",
        ) from None
    except (av.error.FFmpegError, ValueError) as error:
        if getattr(error, "errno", None) == errno.EBUSY:
            raise AddressError(f"{device} is in use by another program", code="refused") from None
        text = f"cannot open {device}{_with(asked)}: {_reason(error)}"
        raise AddressError(text, code="failed") from error


def display_of(config: VideoSettings) -> str:
    """The X11 display: the one that is named, or that of the session; "" where there is none."""
    return config.address.target or os.environ.get("DISPLAY", "")


def missing_display(config: VideoSettings) -> str | None:
    """What is wrong if no display is named, or what is named is none."""
    display = display_of(config)
    if not display:
        wayland = "; Wayland's is not supported" if "WAYLAND_DISPLAY" in os.environ else ""
        return (
            f"there is no display: DISPLAY is not set{wayland}; "
            "start flowrun in a desktop session of X11, or name one: screen://:0"
        )
    if not _DISPLAY.fullmatch(display):
        return f"{display!r} is no display; write :0, :0.1, or :0.0+10,20"
    return None


def open_screen(config: VideoSettings) -> Any:
    """The opened container of an X11 display."""
    import av

    missing = missing_display(config)
    if missing is not None:
        raise AddressError(missing)
    if "x11grab" not in av.formats_available:
        raise AddressError(
            f"this FFmpeg cannot grab a screen (x11grab) on {sys.platform}", code="failed"
        )
    display = display_of(config)
    asked = {"framerate": str(_SCREEN_FPS), **_size_and_rate(config)}
    options = {**asked, **config.ffmpeg_options}
    try:
        return av.open(display, format="x11grab", options=options, timeout=config.timeout_s)
    except (av.error.FFmpegError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.EIO:
            raise AddressError(
                f"no X server shows the display {display!r}, or it refuses this user; "
                "see `echo $DISPLAY` and `xhost`"
            ) from None
        text = f"cannot grab the screen {display!r}{_with(asked)}: {_reason(error)}"
        raise AddressError(text, code="failed") from error


def _size_and_rate(config: VideoSettings) -> dict[str, str]:
    asked = {}
    if config.width is not None:
        asked["video_size"] = f"{config.width}x{config.height}"
    if config.fps is not None:
        asked["framerate"] = f"{config.fps:g}"
    return asked


def _with(asked: dict[str, str]) -> str:
    return f" with {asked}" if asked else ""


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
