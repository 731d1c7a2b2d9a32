"""Damage of a log, as those who look at its run are told of it."""

from __future__ import annotations

import os

from flowrun.runtime.log.reader import Log

__all__ = ["damaged"]


def damaged(log: Log, why: str) -> str:
    """Why a part of `log` cannot be read, with its files by name: who reads it may be elsewhere."""
    folder = log.path if log.path.is_dir() else log.path.parent
    return f"a part of the log is damaged ({why.replace(f'{folder}{os.sep}', '')})"
