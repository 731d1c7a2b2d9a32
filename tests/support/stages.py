"""Runs of the command in processes of their own, for tests of their pages."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]

STATE = "document.body.dataset.state"
TEXT = "document.getElementById('state').textContent"
SHOWN = "document.querySelector('.screen[data-shown]')"
CARD = "document.getElementById('end')"

_PLAYED = """
tasks:
  - {{id: cam0, type: VideoCapture, config: {{source_uri: {film}, realtime: true, loop: true}}}}
  - id: player
    type: support.stage_tasks.Player
    config: {{folder: {folder}, prompt: detect shapes}}
  - {{id: chat, type: BroadcastChat}}
  - {{id: screen, type: BroadcastImage}}
cnx:
  - {{src: cam0, dst: player, msg: ImageRgb8Msg}}
  - {{src: player, dst: chat, msg: PromptResponseMsg}}
  - {{src: cam0, dst: screen, msg: ImageRgb8Msg}}
"""


def played(film, folder):
    """A graph of a film and of a player that plays at once and does what the files of `folder` say."""
    (folder / "go").touch()
    return _PLAYED.format(film=film, folder=folder)


def press(browser, name, where="#end"):
    """Press the button or link `name` in the element `where`, as soon as it may be pressed."""
    browser.click(
        f"[...document.querySelectorAll('{where} :is(a, button)')]"
        f".find(it => it.textContent.trim() == {json.dumps(name)})"
    )


class Stage:
    """A run of the command, in a process of its own, and the folder that says what its player does.

    url: the first one that the command prints.
    """

    def __init__(self, folder, words, env=None):
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flowrun.runtime.cli", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": str(TESTS), **(env or {})},
        )
        try:
            self.url = self.until(r"(http://\S+)")
        except AssertionError:
            self.close()
            raise

    def until(self, pattern):
        said = []
        for line in self.process.stdout:
            if found := re.search(pattern, line):
                return found[1]
            said.append(line)
        raise AssertionError(f"the command ended: {self.process.wait()}\n{''.join(said)}")

    def say(self, name):
        (self.folder / name).touch()

    def unsay(self, name):
        (self.folder / name).unlink()

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
