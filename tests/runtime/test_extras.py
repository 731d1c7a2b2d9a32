"""Packages that come with an extra."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

GRAPH = """
from pathlib import Path
from flowrun.runtime.graph.plan import load_plan
load_plan(Path("g.yaml"), env={})
import mine
print(mine.had)
"""
OPTIONAL = """
import sys
from flowrun.runtime.extras import import_optional
import_optional("colorsys", "Track", extra="track")
print("av" in sys.modules)
"""


@pytest.mark.parametrize("program", [GRAPH, OPTIONAL])
def test_the_libraries_of_video_come_before_those_of_others(tmp_path: Path, program: str) -> None:
    """A process that loads OpenCV's first crashes where it shows the screen."""
    (tmp_path / "g.yaml").write_text("tasks: [{id: a, type: mine.A}]\n")
    (tmp_path / "mine.py").write_text(
        "import sys\n"
        "from flowrun.msgs import IntMsg\n"
        "from flowrun.runtime.task import Context, Output, Task\n"
        "had = 'av' in sys.modules\n"
        "class A(Task):\n"
        "    def process(self, ctx: Context, out: Output[IntMsg]) -> None: ...\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("True\n", "")
