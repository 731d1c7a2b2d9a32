"""`flowrun replay` and `flowrun debug` on the command line."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import structlog
from PIL import Image

from flowrun.runtime.cli import main
from flowrun.runtime.clock import ManualClock
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.run.live import Run
from support import helpers
from support.helpers import START_NS, plan_of, record
from support.paths import TESTS
from support.pictures import pictures_run

SMALL = "logging: {slab_size_mib: 4, section_size_mib: 1, keyframe_interval: 4}"
FLOWRUN = Path(sys.executable).with_name("flowrun")


@pytest.fixture(autouse=True)
def _logs_as_they_were():
    yield
    structlog.reset_defaults()


@pytest.fixture
def run(tmp_path):
    """Ten numbers, multiplied and summed up, in cycles a microsecond apart."""
    tasks = "n=Numbers(limit: 10); x=Scale(factor: 2); s=Sum; g=Noise"
    record(plan_of(tmp_path, tasks, "n > x; x > s.a; n > g", SMALL), tmp_path / "run")
    return tmp_path / "run"


def flowrun(capsys, *words):
    status = main([str(word) for word in words])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


# -- replay ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "cycles"),
    [
        (["--from", "6"], 5),
        (["--from", "2", "--to", "5"], 4),
        (["--to", "+0.000005s"], 6),
        (["--from", "2023-11-14T22:13:20.000004Z"], 8),
        (["--from", "+0s", "--to", "9"], 10),
    ],
)
def test_a_part_of_a_run_is_replayed(run, capsys, options, cycles):
    status, out, _ = flowrun(capsys, "replay", run, *options)
    assert (status, out.split()[0]) == (0, str(cycles))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--from", "6", "--to", "3"], "--to 3 is before --from 6"),
        (["--from", "99"], "cycle 99 is not in the log, which holds cycles 0 to 10"),
        (["--from", "+9s"], "--from +9s is after the last cycle of the log"),
        (
            ["--to", "noon"],
            "--to 'noon': expected a cycle number (120), seconds since the first cycle "
            "(+12.5s), or a time (2026-03-01T08:15:02.5, of UTC unless it says otherwise)",
        ),
        (["--to", "1999-01-01"], "--to 1999-01-01 is before the first cycle of the log"),
        (["--speed", "fast"], "--speed fast: expected max, or a number above 0"),
        (["--report", "r.pdf"], "--report r.pdf: expected a name ending in .html or .json"),
        (["--report", "no/r.html"], "--report no/r.html: there is no folder no"),
        (["--task", "y"], "unknown task 'y'; tasks: n, x, s, g"),
        (
            ["--tolerance", "IntMsg"],
            "tolerance IntMsg: expected MSG=NUMBER, MSG.FIELD=NUMBER or "
            "MSG.FIELD=any, such as DetectionsMsg=0.001 or PromptResponseMsg.response=any",
        ),
        (
            ["--tolerance", "TextMsg=1"],
            "tolerance TextMsg: no such message or field in the graph; messages: GridMsg, IntMsg",
        ),
        (
            ["--tolerance", "IntMsg=any"],
            "tolerance IntMsg=any: name the field, IntMsg.FIELD=any; "
            "to leave a task out, feed it from the log",
        ),
        (["--verify-keyframes", "--verify-count", "0"], "--verify-count 0: expected 1 or more"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(run, capsys, options, said):
    assert flowrun(capsys, "replay", run, *options) == (2, "", f"{said}\n")


def test_only_one_task_runs(run, capsys):
    status, out, _ = flowrun(capsys, "replay", run, "--task", "s")
    assert (status, out.splitlines()[-1]) == (0, "10 messages identical (s 10)")


@pytest.mark.parametrize("key", ["x.factor", "n.limit"])
def test_a_value_that_would_change_nothing_is_refused(run, capsys, key):
    words = ("replay", run, "--task", "s", "--set", f"{key}=9")
    assert flowrun(capsys, *words) == (
        2,
        "",
        f"{key} would change nothing: task {key[0]!r} is not run: it is fed from the log\n",
    )


def test_ctrl_c_in_a_background_tasks_process_is_no_error_of_the_task(tmp_path, monkeypatch):
    plan = plan_of(tmp_path, "n=Numbers(limit: 4); f=Free!@on_error: skip", "n > f", SMALL)
    record(plan, tmp_path / "run")

    def process(self, ctx, number, text):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(helpers.Free, "process", process)
    with Log(tmp_path / "run") as log, pytest.raises(KeyboardInterrupt):
        Replay(log, env={}).run()


def test_another_graph_may_be_named_after_the_run(run, capsys):
    graph = run.parent / "other.yaml"
    with Log(run) as log:
        graph.write_text(log.attachments["graph.yaml"].decode().replace("factor: 2", "factor: 3"))
    status, out, _ = flowrun(capsys, "replay", run, graph)
    assert (status, out.splitlines()[-2:]) == (1, ["  recorded: 2", "  replayed: 3"])
    status, _, err = flowrun(capsys, "replay", run, graph, "--graph", graph)
    assert (status, err) == (2, f"two graphs: {graph} and --graph {graph}\n")


def test_numbers_may_be_off_by_the_tolerance(run, capsys):
    limits = "--set", "x.factor=3", "--tolerance"
    status, out, _ = flowrun(capsys, "replay", run, *limits, "IntMsg.value=9")
    assert (status, out.splitlines()[1:]) == (
        0,
        ["9 messages differ within the tolerance", "21 messages identical (x 10, s 10, g 10)"],
    )
    status, out, _ = flowrun(capsys, "replay", run, *limits, "IntMsg=8.5")
    # Of the one that is too far off, the sum gets the replayed value; else the recorded ones.
    assert (status, out.splitlines()[1:3]) == (
        1,
        ["8 messages differ within the tolerance", "2 of 30 messages differ; the first:"],
    )


def test_the_speed_is_that_of_the_recording_or_a_multiple(tmp_path, capsys):
    from flowrun.runtime.clock import ManualClock
    from flowrun.runtime.run.live import Run

    plan = plan_of(tmp_path, "n=Numbers(limit: 4)", "", SMALL)
    Run(plan, clock=ManualClock(START_NS, step_ns=20_000_000), directory=tmp_path / "run").run()
    with Log(tmp_path / "run") as log:
        length_s = (log.end_ns - log.start_ns) / 1e9
    for speed, least in (("1", length_s), ("2x", length_s / 2)):
        begin = time.perf_counter()
        assert flowrun(capsys, "replay", tmp_path / "run", "--speed", speed)[0] == 0
        assert time.perf_counter() - begin > least
    assert length_s == 0.08


def test_keyframes_are_verified(run, capsys):
    status, out, _ = flowrun(capsys, "replay", run, "--verify-keyframes")
    assert (status, out.splitlines()) == (
        0,
        [
            "11 cycles run from 3 keyframes (of cycles 0, 4, 8)",
            "no task forgets anything that its outputs depend on",
        ],
    )


def test_keyframes_that_a_freeze_has_failed_are_no_proof(tmp_path, capsys, monkeypatch):
    freeze = helpers.Sum.freeze
    monkeypatch.setattr(helpers.Sum, "freeze", lambda it: object() if it.total else freeze(it))
    plan = plan_of(tmp_path, "n=Numbers(limit: 6); s=Sum", "n > s.a", SMALL)
    record(plan, tmp_path / "run")
    status, out, _ = flowrun(capsys, "replay", tmp_path / "run", "--verify-keyframes")
    assert (status, out.splitlines()) == (
        1,
        [
            "note: no replay can begin at the keyframe of cycle 4: freeze of task 's' failed: "
            "WrongReturnError: freeze gave an object, which a keyframe cannot hold: numbers, texts, "
            "bytes, NumPy arrays, None, and lists and dicts of these",
            "7 cycles run from 1 keyframe (of cycles 0)",
            "1 keyframe cannot be verified: freeze of task 's' failed in the run",
        ],
    )


def test_a_forgetful_task_is_named(run, capsys, monkeypatch):
    from support import helpers

    monkeypatch.setattr(helpers.Sum, "thaw", lambda self, state: None)
    status, out, _ = flowrun(capsys, "replay", run, "--verify-keyframes", "--verify-count", "2")
    assert (status, out.splitlines()) == (
        1,
        [
            "task 's' forgets something: run from the keyframe of cycle 4, first in",
            "  cycle 4, task 's', port 'total', field 'value':",
            "    recorded: 20",
            "    replayed: 8",
            "11 cycles run from 2 keyframes (of cycles 0, 4)",
        ],
    )


def test_every_difference_is_in_the_report(run, capsys, tmp_path):
    for name in ("r.json", "r.html"):
        status, _, _ = flowrun(
            capsys, "replay", run, "--set", "x.factor=5", "--report", tmp_path / name
        )
        assert status == 1
    found = json.loads((tmp_path / "r.json").read_text())
    assert (found["differing"], found["compared"], len(found["differences"])) == (18, 30, 18)
    first = found["differences"][0]
    assert (first["task"], first["recorded_message"], first["replayed_message"]) == (
        "x",
        {"value": 2},
        {"value": 5},
    )
    page = (tmp_path / "r.html").read_text()
    data = page.partition('id="data">')[2].partition("</script>")[0]
    assert len(json.loads(data)["rows"]) == 18
    assert "18 of 30 messages differ" in page


def test_an_error_that_differs_is_in_the_report(tmp_path, capsys):

    tasks = "n=Numbers(limit: 6); f=Flaky(at: [3])@on_error: skip"
    record(plan_of(tmp_path, tasks, "n > f", SMALL), tmp_path / "run")
    status, _, _ = flowrun(
        capsys, "replay", tmp_path / "run", "--set", "f.at=[]", "--report", tmp_path / "r.html"
    )
    assert status == 1
    page = (tmp_path / "r.html").read_text()
    assert "ValueError: cannot stand 3" in page
    assert "All messages are identical" not in page


def test_a_replay_that_never_ran_leaves_no_run(run, capsys, tmp_path):
    status, _, _ = flowrun(capsys, "replay", run, "--from", "99", "--log-dir", tmp_path / "new")
    assert (status, (tmp_path / "new").exists()) == (2, False)
    status, _, err = flowrun(capsys, "replay", run, "--set", "n.limit=abc")
    assert status == 2
    assert "limit" in err
    status, _, err = flowrun(capsys, "replay", run, "--verify-keyframes", "--from", "3")
    assert (status, err) == (2, "--verify-keyframes cannot be combined with --from\n")


def test_pictures_are_in_the_report_next_to_what_is_said_of_them(tmp_path, capsys):
    pictures_run(tmp_path)
    status, _, _ = flowrun(
        capsys, "replay", tmp_path / "run", "--set", "d.by=4", "--report", tmp_path / "r.json"
    )
    assert status == 1
    found = json.loads((tmp_path / "r.json").read_text())["differences"]
    assert [(it["task"], list(it["pictures"])) for it in found[:2]] == [
        ("d", ["recorded", "replayed"]),
        ("m", ["frame"]),
    ]
    assert (found[0]["array"]["largest"], found[0]["array"]["count"]) == (2.0, 16 * 12 * 3)


def test_nothing_to_compare_is_said(run, capsys):
    status, out, _ = flowrun(capsys, "replay", run, "--feed", "x", "--feed", "s", "--feed", "g")
    assert (status, out.splitlines()[-1]) == (
        0,
        "nothing to compare: no task that ran published a logged message",
    )


def test_how_many_messages_have_no_payload_to_compare_is_said(tmp_path, capsys):
    tasks = "n=Numbers(limit: 3); x=Scale@logging: {payload: none}; y=Scale"
    record(plan_of(tmp_path, tasks, "n > x; n > y", SMALL), tmp_path / "run")
    page = tmp_path / "r.html"
    status, out, _ = flowrun(capsys, "replay", tmp_path / "run", "--report", page)
    assert (status, out.splitlines()[-2:]) == (
        0,
        [
            "6 messages identical (x 3, y 3)",
            "3 of them were logged without payload: compared is only whether and when they came",
        ],
    )
    assert ", 3 compared without payload, which the log does not hold" in page.read_text()


def test_a_replay_leaves_a_run_that_replays(run, capsys, tmp_path):
    status, _, _ = flowrun(
        capsys, "replay", run, "--from", "5", "--set", "x.factor=5", "--log-dir", tmp_path / "new"
    )
    assert status == 1
    with Log(tmp_path / "new") as log:
        assert [record.cycle for record in log.cycles()] == [5, 6, 7, 8, 9, 10]
        assert log.metadata["replay_of"] == "run"
        assert [m.fields["value"] for m in log.messages("/x/scaled")] == [25, 30, 35, 40, 45]
    status, out, _ = flowrun(capsys, "replay", tmp_path / "new")
    assert (status, out.splitlines()[-1]) == (0, "15 messages identical (x 5, s 5, g 5)")
    status, _, err = flowrun(capsys, "replay", run, "--log-dir", tmp_path / "new")
    assert (status, err) == (
        1,
        f"{tmp_path / 'new'}: holds a run already; a log is never written over\n",
    )


def test_interrupted_it_says_so_and_what_it_wrote_can_be_read(run, tmp_path):
    """With a bar on the terminal."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [FLOWRUN, "replay", run, "--speed", "1e-5", "--log-dir", tmp_path / "new"],
        stdout=subprocess.PIPE,
        stderr=child,
        env={**os.environ, "PYTHONPATH": str(TESTS), "TERM": "xterm"},
    )
    os.close(child)
    shown = b""
    while b"replay" not in shown:
        shown += os.read(parent, 1000)
    while not (tmp_path / "new").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=240)[0] == b""
    assert process.returncode == 130
    with contextlib.suppress(OSError):  # what a terminal says when its last writer has gone
        while chunk := os.read(parent, 1000):
            shown += chunk
    os.close(parent)
    assert shown.endswith(b"interrupted\r\n")
    with Log(tmp_path / "new") as log:
        assert log.finished
        assert log.end["reason"] == "interrupted"


# -- debug -------------------------------------------------------------------------------------


def debug(capsys, run, *commands):
    words = [word for command in commands for word in ("-c", command)]
    status, out, _ = flowrun(capsys, "debug", run, *words)
    return status, out.splitlines()


def test_commands_are_done_one_after_the_other(run, capsys):
    status, lines = debug(
        capsys, run, "goto 4; step 2", "print x.scaled; back; up; watch s.total", "n"
    )
    assert (status, lines) == (
        0,
        [
            "(0) goto 4",
            "cycle 4, +0.000 s: begins",
            "(4) step 2",
            "cycle 4, +0.000 s: next: s",
            "(4+2) print x.scaled",
            "x.scaled, of 1700000000.000 s",
            "  value = 8",
            "(4+2) back",
            "cycle 3, +0.000 s: all tasks have run",
            "(3+4) up",
            "cycle 3, +0.000 s: next: g",
            "(3+3) watch s.total",
            "  s.total = IntMsg(value=12)",
            "(3+3) n",
            "cycle 3, +0.000 s: all tasks have run",
            "  s.total = IntMsg(value=12)",
        ],
    )


def test_breakpoints_stop_it_both_ways(run, capsys):
    status, lines = debug(
        capsys,
        run,
        "break s.total.value > 30",
        "continue; print s.total * 2",
        "reverse; quit; x",
    )
    assert status == 0
    assert lines[:2] == ["(0) break s.total.value > 30", "breakpoint 1: s.total.value > 30"]
    assert lines[3:5] == ["breakpoint 1: s.total.value > 30", "cycle 6, +0.000 s: next: g"]
    assert lines[-4:] == [
        "(6+3) reverse",
        "the beginning of the run",
        "cycle 0, +0.000 s: begins",
        "(0) quit",
    ]
    assert lines[6] == "84"


def test_a_command_that_fails_ends_the_script(run, capsys):
    status, lines = debug(capsys, run, "goto 99", "step")
    assert (status, lines) == (
        1,
        ["(0) goto 99", "cycle 99 is not in the log, which holds cycles 0 to 10"],
    )
    assert debug(capsys, run, "stop")[1][1].startswith("'stop': unknown command: back, break, ")
    assert debug(capsys, run, "p")[1][1] == "'p': which of these: pdb, print"


def test_messages_are_saved(tmp_path, capsys):
    pictures_run(tmp_path)
    png, array, text = (tmp_path / name for name in ("a.png", "a.npy", "a.json"))
    status, lines = debug(
        capsys,
        tmp_path / "run",
        "goto 2; next",
        f"save d.darker {png}; save d.darker {array}; save m {text}",
        f"save m {png}",
    )
    assert (status, lines[-1]) == (1, f"{png}: there is no picture in it; save it as .json")
    assert np.array_equal(np.asarray(Image.open(png)), np.load(array))
    assert json.loads(text.read_text()) == {"value": np.load(array).mean()}


def test_pdb_stops_in_the_tasks_own_code(run):
    done = subprocess.run(
        [FLOWRUN, "debug", run, "-c", "goto 3; pdb s; where"],
        input="print('total before:', self.total)\nself.total = 0\ncontinue\n",
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "PYTHONPATH": str(TESTS), "PATH": "/usr/bin"},
    )
    assert "total before: 6" in done.stdout
    assert "self.total += a.value" in done.stdout
    assert "not as it was recorded: s" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")


def test_pdb_stops_in_a_background_tasks_own_code(tmp_path):
    plan = plan_of(tmp_path, "n=Hooked(limit: 4); f=Free!", "n > f", SMALL)
    live = Run(plan, clock=ManualClock(1, step_ns=10), directory=tmp_path / "run")

    def hook(number):
        while number == 1 and not live.executor.workers["f"].jobs.has_done:
            time.sleep(0.001)

    helpers.Hooked.hook = hook
    live.run()
    done = subprocess.run(
        [FLOWRUN, "debug", tmp_path / "run", "-c", "goto 0; pdb f; where; pdb n"],
        input="where\nquit\n",
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "PYTHONPATH": str(TESTS), "PATH": "/usr/bin"},
    )
    stopped, _, after = done.stdout.partition("(Pdb) ")
    assert "process()" in stopped
    assert "--Call--" not in done.stdout
    assert "cycle 0, +0.000 s: all tasks have run" in after
    assert "n is not run: its messages come from the log" in after
    assert (done.returncode, done.stderr) == (1, "")


def test_a_terminal_session_ends_with_its_input(run):
    done = subprocess.run(
        [FLOWRUN, "debug", run],
        input="help\nstep\nfrobnicate\n\nquit\n",
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "PYTHONPATH": str(TESTS), "PATH": "/usr/bin"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "cycles 0 to 10" in done.stdout
    assert "cycle 0, +0.000 s: next: x" in done.stdout
    assert "'frobnicate': unknown command" in done.stdout
