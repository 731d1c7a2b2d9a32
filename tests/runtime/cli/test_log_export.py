"""`flowrun log export` and `flowrun log diff`, as they are called."""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mcap.reader import make_reader

from flowrun.runtime.cli import main
from support.films import FILMS, FRAMES, draw, recorded
from support.helpers import plan_of, record
from support.log_bytes import small

FORMATS = "jsonl, csv, parquet, mp4, trace, foxglove, mcap, rerun, otlp"


@pytest.fixture
def run(tmp_path, monkeypatch):
    record(plan_of(tmp_path, "n=Numbers(limit: 6); x=Scale", "n > x"), tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return Path("run")


def flowrun(capsys, *words):
    status = main(["log", *map(str, words)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_jsonl_is_printed(run, capsys):
    words = ("--to", "jsonl", "--topic", "/x/scaled", "--from", 2, "--to", 3)
    status, out, err = flowrun(capsys, "export", run, *words)
    assert (status, err) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [(line["cycle"], line["fields"]) for line in lines] == [
        (2, {"value": 20}),
        (3, {"value": 30}),
    ]


@pytest.mark.parametrize(("end", "count"), [("+0.000002s", 3), ("2023-11-14T22:13:20.000002", 2)])
def test_an_export_ends_at_a_time_too(run, capsys, end, count):
    words = ("export", run, "--to", "jsonl", "--topic", "/n/number", "--to", end)
    status, out, _ = flowrun(capsys, *words)
    assert (status, len(out.splitlines())) == (0, count)


def test_csv_goes_to_a_file_whose_name_says_the_format(run, capsys):
    words = ("--topic", "/x/scaled", "-o", "out.csv")
    status, out, err = flowrun(capsys, "export", run, *words)
    size = Path("out.csv").stat().st_size
    assert (status, out, err) == (0, f"out.csv: 6 messages, {size:,} bytes\n", "")
    header, *rows = Path("out.csv").read_text().splitlines()
    assert header == "cycle,time_ns,tov_ns,value"
    assert [row.rsplit(",", 1)[1] for row in rows] == ["0", "10", "20", "30", "40", "50"]


def test_what_is_no_file_stays_what_it_is(run, capsys):
    """A pipe is written into, a link followed; a directory is refused before anything is read."""
    words = ("export", run, "--to", "csv", "--topic", "/x/scaled", "-o")
    _, printed, _ = flowrun(capsys, *words, "-")
    assert len(printed.splitlines()) == 7
    os.mkfifo("pipe")
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(Path("pipe").read_text)
        assert flowrun(capsys, *words, "pipe") == (0, "", "")
        assert read.result(timeout=240) == printed
    assert Path("pipe").is_fifo()
    Path("target.csv").write_text("old")
    Path("link.csv").symlink_to("target.csv")
    assert flowrun(capsys, *words, "link.csv")[0] == 0
    assert (Path("link.csv").is_symlink(), Path("target.csv").read_text()) == (True, printed)
    status, out, err = flowrun(capsys, *words, "run")
    assert (status, out, err) == (1, "", "run: cannot be written: it is a directory\n")
    status, _, err = flowrun(capsys, "export", run, "--to", "mcap", "-o", "-")
    assert (status, err) == (2, "-o -: mcap is not printed; give a file\n")


@pytest.mark.parametrize(
    ("kind", "name", "count"),
    [
        ("trace", "run.trace.json", "7 cycles"),
        ("mcap", "run.mcap", "21 messages"),
        ("foxglove", "run.foxglove.mcap", "20 messages"),
    ],
)
def test_binary_formats_get_the_runs_name(run, capsys, kind, name, count):
    status, out, _ = flowrun(capsys, "export", run, "--to", kind)
    assert (status, out) == (0, f"{name}: {count}, {Path(name).stat().st_size:,} bytes\n")
    assert sorted(item.name for item in Path().glob("[!.]*")) == sorted(["run", name])


def test_the_name_of_the_file_says_foxglove_too(run, capsys):
    assert flowrun(capsys, "export", run, "-o", "x.foxglove.mcap")[0] == 0
    with Path("x.foxglove.mcap").open("rb") as file:
        channels = make_reader(file).get_summary().channels.values()
    assert {it.message_encoding for it in channels} == {"json", "protobuf"}


def test_rerun_without_its_package(run, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    assert flowrun(capsys, "export", run, "-o", "x.rrd") == (
        2,
        "",
        "an export to rerun needs rerun-sdk: pip install 'flowrun-runtime[rerun]'\n",
    )
    assert [item.name for item in Path().glob("[!.]*")] == ["run"]


def test_what_a_viewer_does_not_show_is_said(tmp_path, capsys):
    directory = recorded(tmp_path, draw(tmp_path / "b.mp4", **FILMS["b_frames.mp4"]))
    output = tmp_path / "x.mcap"
    words = ("--to", "foxglove", "--topic", "/a/image", "-o", output)
    capsys.readouterr()
    assert flowrun(capsys, "export", directory, *words) == (
        0,
        f"{output}: {FRAMES} messages, {output.stat().st_size:,} bytes\n",
        "note: /a/image: its stream has B-frames, which Foxglove and Rerun do not show: encoded again "
        "as H.264 (crf 18)\n",
    )


def test_the_trace_names_the_tasks(run, capsys):
    flowrun(capsys, "export", run, "--to", "trace")
    events = json.loads(Path("run.trace.json").read_text())["traceEvents"]
    assert [event["name"] for event in events[2:5]] == ["cycle 0", "n", "x"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ((), f"which format? choose one with --to: {FORMATS}"),
        (
            ["--to", "coco"],
            "--to coco: a data set is written by flowrun dataset RUN --to coco -o DIR",
        ),
        (
            ("--to", "mp5"),
            f"--to 'mp5': expected one of {FORMATS}, or where to end: a cycle number (120), seconds "
            "since the first cycle (+12.5s), or a time (2026-03-01T08:15:02.5, of UTC unless it says "
            "otherwise)",
        ),
        (("--to", "csv", "--from", "3", "--to", "2"), "--to 2 is before --from 3"),
        (("--to", "csv", "--from", "+3s", "--to", "+2s"), "--to +2s is before --from +3s"),
        (("--to", "csv", "--from", "99"), "--from 99 is after the last cycle of the log"),
        (("--to", "csv", "--to", "mp4"), "--to 'csv' and --to 'mp4': choose one"),
        (("--to", "csv", "--pixels"), "--pixels is for --to jsonl"),
        (
            ("--to", "mcap", "-o", "run/log_0000.mcap"),
            "-o run/log_0000.mcap is a file of this log; choose another name",
        ),
        (("--to", "mp4"), "run: the log has no topic that mp4 can hold"),
        (
            ("--to", "csv", "--topic", "/x/scaled", "--from", "x"),
            "--from 'x': expected a cycle number (120), seconds since the first cycle (+12.5s), "
            "or a time (2026-03-01T08:15:02.5, of UTC unless it says otherwise)",
        ),
    ],
)
def test_what_cannot_be_exported(run, capsys, words, error):
    assert flowrun(capsys, "export", run, *words) == (2, "", error + "\n")
    assert [item.name for item in Path().glob("[!.]*")] == ["run"]


def test_what_is_missing_of_the_log_is_said(tmp_path, capsys):
    path = tmp_path / "log_0000.mcap"
    builder = small().leave_open()
    builder.data[builder.ends[2] + 20] ^= 1
    path.write_bytes(builder.data)
    status, out, err = flowrun(capsys, "export", path, "--to", "jsonl")
    assert status == 1
    assert len(out.splitlines()) == 3
    assert err.startswith(f"flowrun log: not all could be read: {path}: byte {builder.ends[2]}: ")


def test_diff_of_equal_runs(run, capsys, tmp_path):
    record(plan_of(tmp_path, "n=Numbers(limit: 6); x=Scale", "n > x"), tmp_path / "other")
    assert flowrun(capsys, "diff", run, "other") == (
        0,
        "13 messages identical (times not compared)\n",
        "",
    )
    assert flowrun(capsys, "diff", run, "other", "--times") == (
        0,
        "13 messages identical (times too)\n",
        "",
    )


def test_diff_shows_the_first_difference(run, capsys, tmp_path):
    record(plan_of(tmp_path, "n=Numbers(limit: 6); x=Scale(factor: 3)", "n > x"), tmp_path / "b")
    assert flowrun(capsys, "diff", run, "b") == (
        1,
        "3 messages identical, then a difference:\n"
        "cycle 1, task 'x', port 'scaled', field 'value':\n  run: 10\n  b: 3\n",
        "",
    )
