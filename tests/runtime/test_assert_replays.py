"""`assert_replays`, as a function and as pytest's fixture: a recorded run as a regression test."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib import import_module

import pytest

from flowrun.msgs import IntMsg
from flowrun.runtime.errors import LogError, TaskError
from flowrun.runtime.task import Context, Input, Output
from flowrun.runtime.testing import assert_replays
from support import helpers
from support.helpers import plan_of, record
from support.paths import ROOT, TESTS


@pytest.fixture
def run(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers(limit: 5); x=Scale; s=Sum", "n > x; x > s.a")
    record(plan, tmp_path / "run")
    return tmp_path / "run"


class WrongAt3(helpers.Scale):
    def process(self, ctx: Context, number: Input[IntMsg], scaled: Output[IntMsg]) -> None:
        ctx.log.warning("noise")
        scaled.value = number.value * self.config.factor + (number.value == 3)
        scaled.publish(tov_ns=number.tov_ns)


class FailsAt3(helpers.Scale):
    def process(self, ctx: Context, number: Input[IntMsg], scaled: Output[IntMsg]) -> None:
        if number.value == 3:
            raise RuntimeError("new")
        super().process(ctx, number, scaled)


def test_unchanged_code_passes_and_says_nothing(run, capfd):
    assert_replays(run)
    assert_replays(str(run), to=2)
    assert capfd.readouterr() == ("", "")


def test_a_difference_is_shown_whole_and_nothing_else(run, monkeypatch, capfd):
    monkeypatch.setattr(helpers, "Scale", WrongAt3)
    with pytest.raises(AssertionError) as caught:
        assert_replays(run)
    assert str(caught.value) == (
        f"{run}: 3 of 10 messages differ; the first:\n"
        "cycle 3, task 'x', port 'scaled', field 'value':\n  recorded: 30\n  replayed: 31"
    )
    assert capfd.readouterr() == ("", "")


def test_cycles_after_to_and_fed_messages_are_not_compared(run, monkeypatch):
    monkeypatch.setattr(helpers, "Scale", WrongAt3)
    assert_replays(run, to=2)
    assert_replays(run, feed=["x"])


def test_another_config_and_another_graph_are_replayed(run, tmp_path):
    with pytest.raises(AssertionError, match="field 'value'"):
        assert_replays(run, config={"x.factor": 3})
    graph = tmp_path / "other.yaml"
    graph.write_text(
        "tasks:\n  - {id: n, type: support.helpers.Numbers}\n"
        "  - {id: x, type: support.helpers.Scale, config: {factor: 10}}\n"
        "cnx: [{src: n, dst: x, msg: IntMsg}]\n"
    )
    assert_replays(run, graph=graph)


def test_a_test_that_compares_nothing_fails(run):
    with pytest.raises(AssertionError) as caught:
        assert_replays(run, feed=["x", "s"])
    assert str(caught.value) == (
        f"{run}: nothing was compared in 6 cycles: all messages come from sources or `feed`, or "
        "were not logged"
    )


def test_an_error_that_is_new_comes_out_with_task_and_cycle(run, monkeypatch):
    monkeypatch.setattr(helpers, "Scale", FailsAt3)
    path = list(sys.path)
    with pytest.raises(TaskError, match="^task 'x' failed in process, cycle 3: RuntimeError: new$"):
        assert_replays(run)
    assert sys.path == path


def test_an_error_that_no_longer_comes_is_a_failure(tmp_path, monkeypatch):
    record(plan_of(tmp_path, "n=Numbers; b=Boom", "n > b"), tmp_path / "run")

    class Sound(helpers.Boom):
        def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
            out.value = number.value
            out.publish()

    monkeypatch.setattr(helpers, "Boom", Sound)
    with pytest.raises(AssertionError, match="cycle 2: task 'b' .* did not raise in the replay$"):
        assert_replays(tmp_path / "run")


def test_a_damaged_log_fails(run):
    [slab] = run.glob("*.mcap")
    data = bytearray(slab.read_bytes())
    at = data.rindex(b"\x81\xa5value\x04")
    data[at + 7] = 9
    slab.write_bytes(data)
    with pytest.raises(AssertionError, match="log_0000.mcap"):
        assert_replays(run)


def test_a_run_that_is_not_there_is_said(tmp_path):
    with pytest.raises(LogError, match="nowhere"):
        assert_replays(tmp_path / "nowhere")


@pytest.mark.long
@pytest.mark.slow
def test_the_fixture_takes_paths_from_the_test_files_folder(run, tmp_path):
    (tmp_path / "test_recorded.py").write_text(
        "def test_good(assert_replays):\n"
        '    assert_replays("run")\n\n'
        "def test_bad(assert_replays):\n"
        '    assert_replays("run", config={"x.factor": 3})\n'
    )
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:flowrun",
            "-p", "flowrun.runtime.pytest_plugin", str(tmp_path / "test_recorded.py"),
        ],
        cwd="/", capture_output=True, text=True, check=False, timeout=240,
        env=os.environ | {"PYTHONPATH": str(TESTS)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "1 failed, 1 passed" in done.stdout
    assert "cycle 1, task 'x', port 'scaled', field 'value':" in done.stdout
    assert "testing.py" not in done.stdout  # its own lines are hidden
    assert done.stdout.count("\n") < 30


def test_pytest_finds_the_plugin_by_its_entry_point():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [module] = project["entry-points"]["pytest11"].values()
    assert hasattr(import_module(module), "assert_replays")


@pytest.mark.slow
def test_loading_the_plugin_loads_no_library_of_flowruns():
    code = (
        "import pytest, sys; before = set(sys.modules); import flowrun.runtime.pytest_plugin;"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["flowrun", "flowrun.runtime", "flowrun.runtime.pytest_plugin"]


def test_a_part_may_be_held_and_numbers_may_be_a_little_off(run, monkeypatch):
    monkeypatch.setattr(helpers, "Scale", WrongAt3)
    assert_replays(run, start=4, feed=["s"])
    assert_replays(run, to=2)
    assert_replays(run, tolerance={"IntMsg.value": 1})
    with pytest.raises(AssertionError, match="cycle 3, task 'x', port 'scaled', field 'value'"):
        assert_replays(run, start=2, tolerance={"IntMsg.value": 0.5})
