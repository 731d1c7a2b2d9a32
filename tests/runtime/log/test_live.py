"""A file that another process writes meanwhile, copied at random instants, in the hands of strangers.

foxglove-sdk for Python only writes MCAP (0.30), so that it is no reader to try.
"""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from mcap.reader import make_reader

from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.recover import recover
from support.paths import TESTS

pytestmark = pytest.mark.slow

COPIES = 12
WRITING = """
    import sys
    from pathlib import Path
    sys.path.insert(0, "{tests}")
    from flowrun.runtime.log.slab import writer as log_slab
    from flowrun.msgs import BytesMsg
    from support.log_writing import commit, payload, writer_of

    log_slab.CHUNK_SIZE = 40_000
    message = BytesMsg()
    writer = writer_of(Path({run!r}), BytesMsg, slab_size_mib=256)
    bound = writer.bind([message])
    for cycle in range({cycles}):
        message.value = payload(cycle, 100 + cycle * 37 % 900)
        message.publish(tov_ns=cycle)
        commit(writer, bound, cycle)
        if cycle % 100 == 0:
            print(cycle, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, int]]:
    """Run directories with a copy of the one file, and the cycles committed before it was made."""
    folder = tmp_path_factory.mktemp("live")
    run = folder / "run"
    code = textwrap.dedent(WRITING)
    code = code.format(tests=TESTS, run=str(run), cycles=20_000)
    writer = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )
    made = []
    try:
        rng = random.Random(4)
        at = iter(sorted(rng.sample(range(200), COPIES)))
        until = next(at)
        for line in writer.stdout:
            if int(line) < 100 * until:
                continue
            copy = folder / f"copy{len(made)}"
            copy.mkdir()
            (copy / "log_0000.mcap").write_bytes((run / "log_0000.mcap").read_bytes())
            made.append((copy, int(line) + 1))
            until = next(at, None)
            if until is None:
                break
    finally:
        writer.kill()
        writer.communicate()
    assert len(made) == COPIES
    return made


def ours(run: Path) -> list[tuple[int, bytes]]:
    with Log(run) as log:
        assert log.loss is None
        return [(it.cycle, bytes(it.payload)) for it in log.messages("/t0/out")]


def test_the_mcap_package_reads_them_as_we_do(copies: list[tuple[Path, int]]) -> None:
    for run, committed in copies:
        with (run / "log_0000.mcap").open("rb") as file:
            messages = make_reader(file).iter_messages(topics=["/t0/out"])
            theirs = [(message.sequence, message.data) for _, _, message in messages]
        assert theirs == ours(run)
        assert [cycle for cycle, _ in theirs] == list(range(len(theirs)))
        assert len(theirs) >= committed


def read_by_rerun(path: Path) -> list[tuple[int, bytes]]:
    chunk = pytest.importorskip(
        "rerun.chunk",
        reason="rerun-sdk is 170 MB, not in the dev extra: pip install -e '.[viewers]'",
    )
    reader = chunk.McapReader(path, include_topic_regex=["^/t0/out$"])
    rows = []
    for piece in reader.stream().to_chunks():
        if piece.entity_path == "/t0/out" and not piece.is_static:
            columns = piece.to_record_batch()
            times = columns["message_publish_time"].cast("int64").to_pylist()
            data = columns["McapMessage:data"].to_pylist()
            rows += [(time, bytes(one)) for time, (one,) in zip(times, data, strict=True)]
    return rows


def test_rerun_reads_them_once_they_are_recovered(
    copies: list[tuple[Path, int]], tmp_path: Path
) -> None:
    for run, _ in copies[:: COPIES // 3]:
        finished = tmp_path / run.name
        finished.mkdir()
        (finished / "log_0000.mcap").write_bytes((run / "log_0000.mcap").read_bytes())
        recover(finished)  # a copy is not of one instant: it may have lost its last chunk
        assert read_by_rerun(finished / "log_0000.mcap") == ours(run)


@pytest.mark.xfail(
    raises=ValueError,
    reason="Rerun 0.41 reads no MCAP file without a summary. Its recovery, which a program can ask "
    "for, stops at the first private record outside a chunk, and drops chunks without index",
)
def test_rerun_reads_them_as_they_are(copies: list[tuple[Path, int]]) -> None:
    run, _ = copies[-1]
    assert read_by_rerun(run / "log_0000.mcap") == ours(run)
