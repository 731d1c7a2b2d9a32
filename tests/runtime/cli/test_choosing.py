"""`--mission`, `--set` and `--for` of `flowrun GRAPH`, and what a replay makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flowrun.runtime.cli import main
from flowrun.runtime.cli.choosing import seconds
from flowrun.runtime.errors import UsageError
from flowrun.runtime.log.reader import Log

PART = """\
tasks: [{id: "{{name}}", type: Counter, config: {limit: 3}}]
"""
GRAPH = """\
missions: [plain, squared]
includes: [{path: part.yaml, params: {name: count}}]
tasks:
  - {id: square, type: Square, missions: [squared]}
  - {id: show, type: Print, missions: [squared]}
cnx:
  - {src: count, dst: square, msg: IntMsg}
  - {src: square, dst: show, msg: IntMsg}
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("part.yaml").write_text(PART)
    Path("g.yaml").write_text(GRAPH)


def test_the_log_knows_what_was_chosen_and_a_replay_needs_no_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    chosen = ["--mission", "squared", "--set", "count.limit=2", "--set", "runtime.seed=5"]
    assert main(["g.yaml", *chosen]) == 0
    [run] = Path("runs").glob("g-*")
    with Log(run) as log:
        metadata = log.metadata
        assert [message.fields["value"] for message in log.messages("/square/square")] == [0, 1]
        assert b"includes" not in log.attachments["graph.yaml"]
    assert (metadata["mission"], metadata["seed"]) == ("squared", "5")
    assert json.loads(metadata["settings"]) == ["count.limit=2", "runtime.seed=5"]
    assert list(json.loads(metadata["includes"])) == ["part.yaml"]
    assert main(["replay", str(run), "g.yaml"]) == 0  # the mission that was recorded
    assert "2 messages identical (square 2)" in capsys.readouterr().out
    Path("part.yaml").unlink()
    Path("g.yaml").unlink()
    assert main(["replay", str(run)]) == 0
    assert "2 messages identical (square 2)" in capsys.readouterr().out


def test_a_run_ends_after_the_time_that_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    Path("g.yaml").write_text("tasks: [{id: c, type: Counter, config: {rate_hz: 1000}}]")
    assert main(["g.yaml", "--for", "50ms"]) == 0
    assert "ended by the limit of 50ms" in capsys.readouterr().out
    [run] = Path("runs").glob("g-*")
    with Log(run) as log:
        assert log.end is not None
        assert log.end["reason"] == "the limit of 50ms"


@pytest.mark.parametrize(
    ("text", "found"),
    [("10s", 10.0), ("2m", 120.0), ("1h30m", 5400.0), ("1.5s", 1.5), ("20ms", 0.02)],
)
def test_a_time_has_a_unit(text: str, found: float) -> None:
    assert seconds("--for", text) == pytest.approx(found)


@pytest.mark.parametrize("text", ["10", "0", "-1", "", "s", "1s2", "1e3s", "ten", "1 s", "٣s"])
def test_what_has_none_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["g.yaml", "--for", text]) == 2
    assert capsys.readouterr().err == (
        f"--for {text}: expected a time with its unit, such as 500ms, 10s, 2m or 1h30m\n"
    )


@pytest.mark.parametrize("text", ["0s", "0ms", "8761h"])
def test_no_time_and_more_than_a_year_are_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        seconds("--for", text)
    assert str(caught.value) == (
        f"--for {text}: expected a time above 0, and at most a year (8760h)"
    )
