"""The figures of a whole run, from a log whose times are known."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowrun.msgs import IntMsg
from flowrun.runtime.cli import main
from flowrun.runtime.events import Completion, Dropped, Failed, Replaced
from flowrun.runtime.log.channels import LoggedOutput
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import GRAPH_RESOLVED, Attachment
from flowrun.runtime.log.writer import LogWriter
from flowrun.runtime.recorded import stats
from flowrun.runtime.recorded.stats import RunStats, run_stats

T0 = 1_700_000_000_000_000_000
MS = 1_000_000
CYCLES = 40

GRAPH: dict[str, Any] = {
    "tasks": [
        {"id": "cam"},
        {"id": "slow", "background": True},
        {"id": "half", "every": 2},
        {"id": "show"},
    ],
    "cnx": [
        {"src": "cam", "dst": "slow", "msg": "IntMsg"},
        {"src": "slow.out", "dst": "show", "msg": "IntMsg"},
        {"src": "cam", "dst": "half", "msg": "IntMsg"},
    ],
}


def write(directory: Path, *, tov_ms: int = 0) -> None:
    """A cycle every 100 ms. cam takes 1 ms, slow 1 ms to hand over, and its result comes two cycles
    later, half 4 ms in every second cycle, show 2 ms where slow gave something: in every fourth.

    tov_ms: how much later than its cycle a picture of cam says that it is.
    """
    steps = ["cam", "slow", "half", "show"]
    outputs = [LoggedOutput(task, "out", f"/{task}/out", IntMsg) for task in ("cam", "slow")]
    writer = LogWriter(
        directory,
        outputs=outputs,
        steps=4,
        metadata={"run_id": "x", "steps": " ".join(steps)},
        attachments=[
            Attachment(GRAPH_RESOLVED, "application/json", json.dumps(GRAPH).encode(), T0, T0)
        ],
        slab_size_mib=2,
        section_size_mib=1,
    )
    cam, slow = IntMsg(), IntMsg()
    bound = writer.bind([cam, slow])
    for cycle in range(CYCLES):
        now = T0 + cycle * 100 * MS
        cam.envelope.present = False
        slow.envelope.present = False
        cam.value = cycle
        cam.publish(tov_ns=now + tov_ms * MS)
        events: list[Any] = []
        if cycle % 4 == 3:
            slow.value = cycle
            slow.publish(tov_ns=now - 200 * MS + tov_ms * MS)
            events = [Completion("slow", cycle - 2, False), Replaced("slow", cycle - 1)]
        if cycle == 7:
            events += [Dropped("cam", 3, "too old"), Failed("show", "skip", "it broke")]
        start = cycle * 100 * MS
        took = [1, 1, 0 if cycle % 2 else 4, 2 if cycle % 4 == 3 else 0]
        ends = [start + int(at) * MS for at in np.cumsum(took)]
        writer.commit(cycle, now, bound, start_ns=start, ends_ns=ends, events=events)
    writer.finish({"reason": "test", "cycles": str(CYCLES), "peak_memory_bytes": "123456789"})


def figures(directory: Path) -> RunStats:
    with Log(directory) as log:
        return run_stats(log)


def near(value: float) -> Any:
    return pytest.approx(value, rel=0.01)


def test_each_step_has_its_times_share_rate_and_losses(tmp_path: Path) -> None:
    write(tmp_path)
    found = figures(tmp_path)
    steps = {step.task: step for step in found.steps}
    assert (found.cycles, found.duration_s, found.rate_hz) == (40, 3.9, 10.0)
    assert found.cycle.count == 40
    cam, slow, half, show = (steps[task] for task in ("cam", "slow", "half", "show"))
    assert (cam.times.p50_ms, cam.times.p99_ms, cam.times.max_ms) == (near(1), near(1), 1.0)
    assert (cam.cycles, cam.rate_hz, cam.dropped) == (40, 10.0, {"too old": 3})
    assert slow.background
    assert (slow.times.count, slow.times.p50_ms, slow.times.max_ms) == (10, near(200), 200.0)
    assert (slow.cycles, slow.dropped) == (10, {"replaced": 10})
    assert (half.times.count, half.times.p50_ms) == (20, near(4))  # not the cycles between
    assert (show.times.count, show.times.p50_ms, show.cycles, show.errors) == (10, near(2), 10, 1)
    assert sum(step.share or 0 for step in found.steps) == pytest.approx(1, abs=1e-5)
    assert half.share == pytest.approx(80 / (40 + 40 + 80 + 20), abs=1e-5)
    assert found.memory_bytes == 123456789


def test_paths_lead_from_a_source_to_a_sink(tmp_path: Path) -> None:
    write(tmp_path)
    by_tasks = {path.tasks: path for path in figures(tmp_path).paths}
    assert list(by_tasks) == [("cam", "half"), ("cam", "slow", "show")]
    late = by_tasks["cam", "slow", "show"]
    assert late.from_source is not None
    assert (late.from_source.count, late.from_source.p50_ms) == (10, near(204))
    assert (late.in_cycle.p50_ms, late.in_cycle.max_ms) == (near(4), 4.0)


def test_a_film_that_runs_faster_has_no_time_from_its_source(tmp_path: Path) -> None:
    write(tmp_path, tov_ms=5000)
    found = figures(tmp_path)
    assert [path.from_source for path in found.paths] == [None, None]
    assert found.paths[1].in_cycle.p50_ms == near(4)
    assert found.notes == (
        "a path without a time from its source begins with a film that is not played at its own speed",
    )


def test_ports_have_messages_and_bytes_by_second(tmp_path: Path) -> None:
    write(tmp_path)
    ports = {port.topic: port for port in figures(tmp_path).ports}
    cam = ports["/cam/out"]
    assert (cam.messages, cam.rate_hz, cam.bytes, cam.largest) == (40, 10.0, 40 * 8, 8)
    assert cam.bytes_per_s == round(320 / 3.9, 1)


def test_a_log_that_was_cut_has_the_figures_of_what_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path)
    [slab] = tmp_path.glob("*.mcap")
    data = slab.read_bytes()
    counts = []
    for size in range(len(data) - 1, 2000, -len(data) // 12):
        slab.write_bytes(data[:size])
        status = main(["log", "stats", str(tmp_path), "--json"])
        printed = capsys.readouterr()
        found = json.loads(printed.out)
        counts.append(found["cycles"])
        if found["cycles"] < CYCLES:
            assert (status, printed.err != "") == (1, True) or found["loss"] is None
        assert found["steps"][0]["cycles"] == found["cycles"]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == CYCLES > counts[-1]


def test_more_cycles_take_no_more_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    whole = asdict(figures(tmp_path))
    monkeypatch.setattr(stats, "_ROWS", 3)
    monkeypatch.setattr(stats, "_KEPT_STARTS", 5)
    assert asdict(figures(tmp_path)) == whole


def test_tables_and_the_plan_show_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "run")
    assert main(["log", "stats", "run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "cycles   40 in 3.9 s, 10.0 Hz"
    assert any(line.startswith("slow (background)  ") and "10 replaced" in line for line in lines)
    assert any(line.startswith("cam -> slow -> show  204 ") for line in lines)
    Path("g.yaml").write_text(
        "tasks: [{id: cam, type: Counter}, {id: half, type: Print}]\n"
        "cnx: [{src: cam, dst: half, msg: IntMsg}]\n"
    )
    assert main(["plan", "g.yaml", "--run", "run"]) == 0
    shown = capsys.readouterr()
    head, _, names, cam, half = shown.out.splitlines()
    assert head == "g.yaml: 2 tasks, 1 connection"
    assert names.split()[3:11] == ["p50", "ms", "p99", "ms", "max", "ms", "share", "Hz"]
    assert cam.split()[3:7] == ["1.000", "1.000", "1.000", "22.2"]
    assert half.split()[5] == "4.000"
    assert shown.err == "note: the run had other tasks too, which the graph lacks: slow, show\n"
    assert main(["plan", "g.yaml", "--run", "run", "--format", "svg"]) == 0
    assert "22.2 % of the cycle, 10.0 Hz" in capsys.readouterr().out


def test_a_plan_of_somebody_elses_run_loads_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path)
    assert main(["plan", "--run", str(tmp_path)]) == 1
    assert "the log holds no graph" in capsys.readouterr().err
    assert main(["plan"]) == 2
    assert capsys.readouterr().err == "which graph? give a GRAPH, or --run RUN\n"
