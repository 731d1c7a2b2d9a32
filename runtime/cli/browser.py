"""The user's browser."""

from __future__ import annotations

import os
import threading

__all__ = ["open_page"]

_SAY_WHERE = ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")
"""Without one of these `webbrowser` would take this terminal for a browser of text, such as w3m."""


def open_page(url: str) -> None:
    """Open `url`, if there is a browser with windows. Waits for nothing, and never fails."""
    if any(os.environ.get(name) for name in _SAY_WHERE):
        threading.Thread(target=_open, args=(url,), name="browser", daemon=True).start()


def _open(url: str) -> None:
    import webbrowser

    webbrowser.open(url)
