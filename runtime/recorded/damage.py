"""Damage of a log, as those who look at its run are told of it."""

from __future__ import annotations

import os
from pathlib import Path

from flowrun.runtime.log.reader import Log

__all__ = ["damaged", "without_folder"]


def damaged(log: Log, why: str) -> str:
    """Why a part of `log` cannot be read, with its files by name: who reads it may be elsewhere."""
    folder = log.path if log.path.is_dir() else log.path.parent
    return f"a part of the log is damaged ({without_folder(why, folder)})"


def without_folder(text: str, folder: Path) -> str:
    """A text with the files of `folder` by their names in it."""
    return text.replace(f"{folder}{os.sep}", "") if folder.name else text
