"""Folders of the repository."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
GRAPHS = ROOT / "graphs"
MEDIA = GRAPHS / "media"
TESTS = ROOT / "tests"
