"""The graphs that docs/graph.md and docs/sinks.md show are graphs: `flowrun check` takes them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flowrun.runtime.cli import main
from support.paths import ROOT


def graphs(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(r"^```yaml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", ["graph.md", "sinks.md"])
def test_graphs_are_checked(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        monkeypatch.setenv(f"CAM{number}", f"rtsp://192.168.1.2{number}/stream1")
    found = graphs(page)
    assert len(found) >= 2
    for number, text in enumerate(found):
        named = re.match(r"# (\w+\.yaml)\n", text)
        path = Path(named[1] if named else f"graph{number}.yaml")
        path.write_text(text)
        if not named:  # those are parts, which others include
            assert main(["check", "--elsewhere", str(path)]) == 0, capsys.readouterr().err
