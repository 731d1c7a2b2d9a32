import json
import os
import shutil
import subprocess
import sys

import msgpack
import numpy as np
import pytest

from flowrun.runtime.cli import main
from support.log_bytes import Builder, small
from support.log_writing import T0, commit, writer_of


def builder_of_four():
    builder = Builder()
    array = {"dtype": "|u1", "shape": [4, 6, 3], "data": np.zeros(72, np.uint8).tobytes()}
    for cycle in range(4):
        builder.cycle(
            cycle,
            1_700_000_000_000_000_000 + cycle * 500_000_000,
            [
                (1, 1, msgpack.packb({"n": cycle, "pixels": array})),
                (2, 1, msgpack.packb({"text": 'a "cat"\n', "ok": True})),
            ],
        )
    return builder


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    data = builder_of_four().finish({"reason": "end of sources", "cycles": "4"}).data
    (path / "log_0000.mcap").write_bytes(data)
    return path


def flowrun(capsys, *words):
    status = main(["log", *map(str, words)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_cat_prints_a_line_a_message(run, capsys):
    status, out, err = flowrun(capsys, "cat", run, "--from", 1, "--to", 2)
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "2023-11-14T22:13:20.500000000Z 1 /cam/image n=1 pixels=<uint8 4x6x3>",
        '2023-11-14T22:13:20.500000000Z 1 /vlm/answer text="a \\"cat\\"\\n" ok=true',
        "2023-11-14T22:13:21.000000000Z 2 /cam/image n=2 pixels=<uint8 4x6x3>",
        '2023-11-14T22:13:21.000000000Z 2 /vlm/answer text="a \\"cat\\"\\n" ok=true',
    ]


def test_cat_by_time_and_topic_as_json(run, capsys):
    words = ("cat", run, "--json", "--topic", "/cam/image", "--from", "0.6s", "--to", "1.5s")
    status, out, _ = flowrun(capsys, *words)
    assert status == 0
    assert [json.loads(line) for line in out.splitlines()] == [
        {
            "cycle": cycle,
            "time_ns": 1_700_000_000_000_000_000 + cycle * 500_000_000,
            "tov_ns": 1,
            "topic": "/cam/image",
            "fields": {"n": cycle, "pixels": "<uint8 4x6x3>"},
        }
        for cycle in (2, 3)
    ]


def test_cat_of_a_payload_that_cannot_be_decoded_goes_on(tmp_path, capsys):
    builder = Builder()
    builder.cycle(0, 10, [(1, 1, b"\xc1")])
    builder.cycle(1, 11, [(1, 1, b"\x81\xa1a\x01")])
    path = tmp_path / "x.mcap"
    path.write_bytes(builder.leave_open().data)
    status, out, _ = flowrun(capsys, "cat", path)
    first, second = out.splitlines()
    assert status == 1
    assert "is not msgpack" in first
    assert second == "1970-01-01T00:00:00.000000011Z 1 /cam/image a=1"


def test_cat_follow_of_a_run_that_has_ended_prints_it_and_ends(run, capsys):
    assert flowrun(capsys, "cat", run, "--follow") == flowrun(capsys, "cat", run)


def test_info_says_what_ran(run, capsys):
    status, out, _ = flowrun(capsys, "info", run)
    rows = dict(line.split(None, 1) for line in out.splitlines() if len(line.split(None, 1)) == 2)
    assert status == 0
    assert rows["run_id"].strip() == "run-1"
    assert rows["cycles"].strip() == "4"
    assert rows["duration_s"].strip() == "1.5"
    assert "end reason" in out
    assert "end of sources" in out


def test_info_as_json(run, capsys):
    _, out, _ = flowrun(capsys, "info", run, "--json")
    info = json.loads(out)
    assert info["finished"] is True
    assert info["end"] == {"reason": "end of sources", "cycles": "4"}
    assert info["files"].keys() == {"log_0000.mcap"}
    assert info["attachments"] == {"graph.yaml": 10}
    assert info["loss"] is None


def test_log_lines_after_the_last_cycle_are_no_cycle(tmp_path, capsys):
    writer = writer_of(tmp_path / "run", sync_s=None)
    bound = writer.bind([])
    commit(writer, bound, 0)
    commit(writer, bound, 1)
    writer.log_record(T0 + 5, "info", "still here", "t", {})
    writer.finish({"reason": "test", "cycles": "2"})
    run = tmp_path / "run"
    info = json.loads(flowrun(capsys, "info", run, "--json")[1])
    assert (info["cycles"], info["end"]["cycles"], info["duration_s"]) == (2, "2", 1e-9)
    assert flowrun(capsys, "check", run)[1] == f"{run}: 2 cycles, 3 messages, 0 problems\n"
    rows = json.loads(flowrun(capsys, "ls", run, "--json")[1])
    assert {row["topic"]: row["messages"] for row in rows if row["messages"]} == {
        "/flowrun/steps": 2,
        "/flowrun/log": 1,
    }
    assert "still here" in flowrun(capsys, "cat", run)[1]


def test_ls_counts_each_topic(run, capsys):
    status, out, _ = flowrun(capsys, "ls", run)
    assert status == 0
    assert out.splitlines()[1].split() == ["/cam/image", "4", "2.0", "444", "Any", "msgpack"]
    _, out, _ = flowrun(capsys, "ls", run, "--json")
    assert [(row["topic"], row["messages"]) for row in json.loads(out)] == [
        ("/cam/image", 4),
        ("/vlm/answer", 4),
        ("/flowrun/log", 0),
    ]


def test_check_of_a_whole_log(run, capsys):
    assert flowrun(capsys, "check", run) == (
        0,
        f"{run}: 4 cycles, 8 messages, 0 problems\n",
        "",
    )


def test_check_of_a_folder_checks_each_run_of_it(run, tmp_path, capsys):
    folder = tmp_path / "fleet"
    for name in ("a-0", "b-0", "c-0"):
        shutil.copytree(run, folder / name / "r")
    (folder / "b-0" / "r" / "log_0000.mcap").write_bytes(b"")
    assert flowrun(capsys, "check", folder) == (
        1,
        f"{folder}/a-0/r: 4 cycles, 8 messages, 0 problems\n"
        f"{folder}/b-0/r/log_0000.mcap: the file is empty\n"
        f"{folder}/c-0/r: 4 cycles, 8 messages, 0 problems\n"
        f"{folder}: 3 runs, 1 with problems\n",
        "",
    )
    shutil.rmtree(folder / "b-0")
    assert flowrun(capsys, "check", folder)[0] == 0


def test_check_finds_a_damaged_message_index(run, capsys):
    path = run / "log_0000.mcap"
    builder = builder_of_four().finish({"reason": "x"})
    start, *_, places, _, _ = builder.chunks[0]
    builder.data[places[1] + 15 + 8] ^= 1
    path.write_bytes(builder.data)
    status, out, _ = flowrun(capsys, "check", run)
    assert status == 1
    assert out.startswith(
        f"{path}: byte {start}: message index at byte {places[1]} points to byte "
    )


def test_check_recover_check(tmp_path, capsys):
    path = tmp_path / "log_0000.mcap"
    path.write_bytes(small().leave_open().data)
    status, out, _ = flowrun(capsys, "check", path)
    assert (status, out) == (
        0,
        (
            f"{path}: 5 cycles, 6 messages, 0 problems, not finished: being written, or cut off "
            "(flowrun log recover)\n"
        ),
    )
    status, out, _ = flowrun(capsys, "recover", path)
    assert (status, out) == (
        0,
        f"{path}: kept 5 cycles with 6 messages, {path.stat().st_size} bytes\n",
    )
    assert flowrun(capsys, "check", path)[:2] == (0, f"{path}: 5 cycles, 6 messages, 0 problems\n")


def test_loss_is_reported_and_is_a_failure(tmp_path, capsys):
    builder = small(chunk_cycles=9).leave_open()
    builder.data[builder.ends[2] - 1] ^= 1
    path = tmp_path / "x.mcap"
    path.write_bytes(builder.data)
    for verb in ("cat", "ls"):
        status, _, err = flowrun(capsys, verb, path)
        assert status == 1
        assert err.startswith(
            f"flowrun log: not all could be read: {path}: byte {builder.ends[1]}: cycle 2 has CRC"
        )


@pytest.mark.parametrize("verb", ["info", "ls", "cat", "check", "recover"])
def test_errors_are_text(verb, tmp_path, capsys):
    path = tmp_path / "none"
    status, out, err = flowrun(capsys, verb, path)
    assert (status, out) == (1, "")
    assert err == f"{path}: cannot be read: No such file or directory\n"


def test_bad_bound(run, capsys):
    status, _, err = flowrun(capsys, "cat", run, "--from", "soon")
    assert status == 2
    assert err.startswith("--from 'soon': expected a cycle number (120), seconds since the first ")


def test_reader_of_the_pipe_may_go(tmp_path):
    builder = Builder()
    for cycle in range(3000):
        builder.cycle(cycle, cycle, [(1, 1, b"\x81\xa1a\x01")])
    path = tmp_path / "x.mcap"
    path.write_bytes(builder.leave_open().data)
    command = [
        sys.executable,
        "-c",
        "import sys; from flowrun.runtime.cli import main; sys.exit(main())",
    ]
    with subprocess.Popen(
        [*command, "log", "cat", path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ,
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode in (0, 128 + 13)
