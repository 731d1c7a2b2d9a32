"""Chromium, driven over its own pipe, for the tests of the page."""

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from urllib.parse import urlsplit

import pytest

# The browser expects its pipe at the descriptors 3 and 4.
_AT_3_AND_4 = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
os.dup2(ends[0], 3)
os.dup2(ends[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class NavigatedError(Exception):
    """The page went to another while it was asked."""


class Browser:
    """A headless chromium, driven over its own pipe (DevTools protocol), with one page."""

    def __init__(self, profile: Path):
        program = shutil.which("chromium")
        if program is None:
            pytest.fail(
                "these tests need the browser chromium: apt-get install chromium", pytrace=False
            )
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()

        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _AT_3_AND_4,
                str(to_browser),
                str(from_browser),
                program,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--disable-dev-shm-usage",
                "--remote-debugging-pipe",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(to_browser, from_browser),
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer = b""
        self._number = 0
        self._scripts = []
        self.events = deque(maxlen=2000)
        targets = self._call("Target.getTargets", session=None)["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        self._session = None
        attached = self._call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")

    def open(self, url):
        self._call("Page.navigate", url=url)

    def reload(self):
        """Load the page again; the old one is gone when this returns."""
        self.evaluate("void (window.isOld = true)")
        self._call("Page.reload")
        self.wait_for("!window.isOld")

    def evaluate(self, expression):
        """The value of a JavaScript expression in the page."""
        reply = self._call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    def wait_for(self, expression, timeout_s=240.0):
        """The value of the expression, as soon as it is true."""
        deadline = time.monotonic() + timeout_s
        while True:
            # Waits in the page, by its own frames, not here.
            with contextlib.suppress(NavigatedError):
                value = self.evaluate(
                    f"new Promise(done => {{ const end = Date.now() + 500; const look = () => {{"
                    f"let v; try {{ v = ({expression}) }} catch {{}};"
                    "v || Date.now() > end ? done(v) : setTimeout(look, 20) }; look() })"
                )
                if value:
                    return value
            assert time.monotonic() < deadline, (
                f"not true in the page within {timeout_s} s: {expression}\n"
                f"the page says:\n{self.evaluate('document.body.innerText')}"
            )

    def click(self, element, timeout_s=240.0):
        """Click an element, once, as soon as it is there, shown and not disabled.

        element: a JavaScript expression. Looking and clicking are one step in the page, so that nothing
            comes between. Where the click leads to another page, this returns all the same.
        """
        self.wait_for(
            f"(it => it.checkVisibility() && !it.matches(':disabled, [aria-disabled=true]')"
            f" && (it.click(), true))({element})",
            timeout_s,
        )

    def size(self, width, height, *, dark=False):
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def mouse(self, kind, x, y, *, shift=False):
        """A mouse event with the left button: `mousePressed`, `mouseMoved` or `mouseReleased`."""
        self._call(
            "Input.dispatchMouseEvent",
            type=kind,
            x=x,
            y=y,
            button="left",
            buttons=0 if kind == "mouseReleased" else 1,
            clickCount=1,
            modifiers=8 if shift else 0,
        )

    def double_click(self, x, y):
        for count in (1, 2):
            for kind in ("mousePressed", "mouseReleased"):
                self._call(
                    "Input.dispatchMouseEvent",
                    type=kind,
                    x=x,
                    y=y,
                    button="left",
                    buttons=0 if kind == "mouseReleased" else 1,
                    clickCount=count,
                )

    def before_load(self, script):
        """Run a script before those of each page that is opened, until `forget`."""
        made = self._call("Page.addScriptToEvaluateOnNewDocument", source=script)
        self._scripts.append(made["identifier"])

    def forget(self):
        """Leave out the scripts of `before_load`."""
        while self._scripts:
            self._call("Page.removeScriptToEvaluateOnNewDocument", identifier=self._scripts.pop())

    def save_downloads_to(self, folder):
        """Save files that the page offers, without asking."""
        self._call(
            "Browser.setDownloadBehavior", session=None, behavior="allow", downloadPath=str(folder)
        )

    def downloaded(self, folder, pattern, timeout_s=240.0):
        """The file that was saved below a name, whole: until then the browser keeps it empty."""
        deadline = time.monotonic() + timeout_s
        while True:
            saved = (it for it in folder.glob(pattern) if not it.name.endswith(".crdownload"))
            found = [path for path in saved if path.stat().st_size]
            if found:
                return found[0]
            assert time.monotonic() < deadline, f"no {pattern} in {list(folder.iterdir())}"
            time.sleep(0.05)

    def press(self, key):
        """Press a key, such as "Tab"."""
        codes = {"Tab": 9, "Enter": 13, "ArrowRight": 39, "ArrowLeft": 37}
        for kind in ("keyDown", "keyUp"):
            self._call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=codes[key],
                **({"text": "\r"} if key == "Enter" and kind == "keyDown" else {}),
            )

    def screenshot(self):
        """The window as a PNG file."""
        return base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])

    def of(self, method):
        """The parameters of all events of this name that have come so far."""
        self.evaluate("0")
        return [event["params"] for event in self.events if event["method"] == method]

    def close(self):
        self._number += 1
        self._send({"id": self._number, "method": "Browser.close"})
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def _send(self, message):
        os.write(self._out, json.dumps(message).encode() + b"\0")

    def _call(self, method, session=..., **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session is ... and getattr(self, "_session", None):
            message["sessionId"] = self._session
        self._send(message)
        while True:
            while b"\0" not in self._buffer:
                chunk = os.read(self._in, 1 << 20)
                assert chunk, f"chromium has ended (exit status {self._process.poll()})"
                self._buffer += chunk
            raw, _, self._buffer = self._buffer.partition(b"\0")
            reply = json.loads(raw)
            if reply.get("id") == self._number:
                error = reply.get("error", {}).get("message", "")
                if "navigated" in error or "context" in error:
                    raise NavigatedError(error)
                assert not error, f"{method}: {error}"
                return reply["result"]
            if "method" in reply:
                self.events.append(reply)


def nothing_went_wrong(browser, *, gone=None):
    """The page has raised and logged no error so far.

    gone: the URL of a server that has ended, or may at any moment. A page cannot know that before it
        asks, and looks again and again whether it is back; the browser logs each time.
    """
    assert (thrown := browser.of("Runtime.exceptionThrown")) == [], thrown
    entries = [event["entry"] for event in browser.of("Log.entryAdded")]
    wrong = [(entry["text"], entry.get("url", "")) for entry in entries]
    if gone is not None:
        wrong = [(text, url) for text, url in wrong if not (_UNREACHED(text) and _is_of(gone, url))]
    assert wrong == [], wrong


_UNREACHED = re.compile(
    "Failed to load resource: net::ERR_|WebSocket connection to .* failed"
).match


def _is_of(server, url):
    """Whether an address is one of a server; a WebSocket's is too."""
    return urlsplit(url).netloc == urlsplit(server).netloc
