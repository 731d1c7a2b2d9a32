"""Feeds the reader of logs with damaged ones, for as long as one likes; `make fuzz`.

    python tests/runtime/fuzz_log.py [--seconds 60 | --cases 1000] [--seed 1] [--kept runs/fuzz]
                                     [--coverage]

The laws, for any bytes: opening a log and reading everything in it, checking and recovering it ends,
soon, with an answer or a `FlowrunError`; takes no more memory than the file gives reason to; and never
gives a message that was not written so. Cases run in a child with little memory, whose end, whatever
it is, does not end the fuzzer; a log that breaks a law is kept. --coverage: let atheris choose what to
damage further, by the lines of the reader that it reached.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import films
import helpers
import pictures
from log_bytes import small
from log_mutations import mutate
from payload_mutations import with_wrong_payloads

from flowrun.runtime.cli import log as cli_log
from flowrun.runtime.cli import main as flowrun
from flowrun.runtime.errors import FlowrunError, LogError
from flowrun.runtime.log_check import check_log
from flowrun.runtime.log_diff import compare_logs
from flowrun.runtime.log_reader import CycleRecord, Log
from flowrun.runtime.log_recover import recover
from flowrun.tasks.video_capture import VideoCapture

CASE_S = 30
"""A case that takes longer hangs; the usual one takes some milliseconds."""
MORE_MEMORY = 512 << 20
"""What a case may take beside what the process takes; the logs are smaller than 2 MiB."""
NAME = "log_0000.mcap"

Written = tuple[int, tuple[tuple[str, int, bytes], ...]]
"""Time of a cycle and its messages."""


class BrokenLawError(Exception):
    """The reader did what it must never do."""


class Corpus:
    """Whole logs, and what is in them."""

    def __init__(self, samples: Iterable[bytes], directory: Path) -> None:
        self.samples = list(samples)
        self._directory = directory
        self._written: dict[bytes, dict[int, set[Written]]] = {}
        self._groups: dict[bytes, list[bytes]] = defaultdict(list)
        self._decoded: list[tuple[bytes, list[Any]]] = []
        """Preamble and cycles, as `with_wrong_payloads` takes them."""
        directory.mkdir(exist_ok=True)
        path = directory / NAME
        for sample in self.samples:
            path.write_bytes(sample)
            with Log(path) as log:
                assert log.loss is None
                preamble = sample[: log.slabs[0].preamble_end]
                written = self._written.setdefault(preamble, defaultdict(set))
                channels = {it.topic: it for it in log.slabs[0].channels.values()}
                cycles: list[Any] = []
                for record in log:
                    written[record.cycle].add(_plain(record))
                    entries = [
                        (
                            channels[topic].id,
                            channels[topic].message_encoding,
                            tov_ns,
                            bytes(payload),
                        )
                        for topic, tov_ns, payload in record.entries
                    ]
                    cycles.append((record.cycle, record.time_ns, entries))
                self._decoded.append((preamble, cycles))
            self._groups[preamble].append(sample)

    def written(self, data: bytes) -> dict[int, set[Written]] | None:
        """What may be read from a damaged log: cycle -> what was in it, in any of the logs that
        begin as it does. None where its beginning was changed and its checksums made to fit, so that
        no reader could tell."""
        return next(
            (written for preamble, written in self._written.items() if data.startswith(preamble)),
            None,
        )

    def case(self, rng: random.Random) -> bytes:
        """A damaged log."""
        if rng.random() < 0.4:
            return with_wrong_payloads(*rng.choice(self._decoded), rng)
        sample = rng.choice(self.samples)
        group = next(group for group in self._groups.values() if sample in group)
        return mutate(sample, rng, group)


def _plain(record: CycleRecord) -> Written:
    return record.time_ns, tuple((topic, tov, bytes(data)) for topic, tov, data in record.entries)


def built() -> list[bytes]:
    """Small logs made byte by byte, finished and not."""
    logs = []
    for big in (0, 5000):
        for first, cycles in ((0, 9), (0, 4)):
            end = {"reason": "test", "cycles": str(cycles), "ended_ns": "5"}
            logs += [
                bytes(small(first=first, cycles=cycles, big=big).finish(end).data),
                bytes(small(first=first, cycles=cycles, big=big + 1).leave_open().data),
            ]
    return logs


def recorded(directory: Path) -> list[bytes]:
    """Logs of real runs: every codec and encoding, finished and as a killed writer leaves them."""
    directory.mkdir(exist_ok=True)
    for kind in (pictures.Camera, pictures.Read, pictures.Find, pictures.Answer, VideoCapture):
        setattr(helpers, kind.__name__, kind)
    film = films.draw(
        directory / "film.mp4", size=(32, 16), **{"x264-params": "b-adapt=0:bframes=2"}
    )
    camera = "Camera(limit: 4, width: 16, height: 8)"
    graphs = {
        "made": (
            f"c={camera}; z={camera}@logging: {{codec: zstd}}; f={camera}@logging: {{codec: ffv1}};"
            " r=Read; d=Find; a=Answer@logging: {payload: none}",
            "c > r: ImageRgb8Msg; c > d: ImageRgb8Msg; c > a: ImageRgb8Msg",
        ),
        "numbers": ("n=Numbers(limit: 9); s=Sum; o=Noise", "n > s.a; n > o"),
        "film": (f"v=VideoCapture(source_uri: {film})", ""),
    }
    logs = []
    for name, (tasks, cnx) in graphs.items():
        more = "logging: {slab_size_mib: 1, section_size_mib: 1, keyframe_interval: 4}"
        plan = helpers.plan_of(directory, tasks, cnx, more)
        helpers.record(plan, directory / name, cycles=5 if name == "made" else None)
        logs.append((directory / name / NAME).read_bytes())
    left: list[bytes] = []
    helpers.Hooked.hook = lambda number: left.append(
        (directory / "left" / NAME).read_bytes() if number == 5 else b""
    )
    helpers.record(helpers.plan_of(directory, "n=Hooked(limit: 7); s=Sum", "n > s.a", more),
                   directory / "left")  # fmt: skip
    return [*logs, left[5]]


# -- the laws ------------------------------------------------------------------------------------


def examine(path: Path, corpus: Corpus, rng: random.Random) -> None:
    """Read everything at `path`, in every way. Raises on a broken law."""
    written = corpus.written(path.read_bytes())
    _read(path, written, rng)
    if rng.random() < 0.2:
        for verb in ("info", "ls", "cat", "check"):
            _command(["log", verb, str(path)])
    if rng.random() < 0.3:
        with contextlib.suppress(FlowrunError), Log(path, verify=False) as log:
            _all_fields(log)
            len(log)
    with contextlib.suppress(FlowrunError):
        recover(path)
        _read(path, written, rng)
        with Log(path) as log:
            if not log.finished:
                raise BrokenLawError("a recovered log is not finished")


def _read(path: Path, written: dict[int, set[Written]] | None, rng: random.Random) -> None:
    with contextlib.suppress(LogError), Log(path) as log:
        for told in (
            log.topics, log.metadata, log.attachments, log.finished, log.end, log.loss,
            log.start_ns, log.end_ns, len(log),
        ):  # fmt: skip
            repr(told)
        seen = []
        for record in log:
            _lawful(record, written)
            seen.append(record)
        for _ in range(3):
            _jump(log, seen, written, rng)
        _all_fields(log)
        for topic in list(log.topics):
            with contextlib.suppress(FlowrunError):
                list(log.frames(topic))
            with contextlib.suppress(FlowrunError):
                log.table(topic)
        check_log(log)
        with contextlib.suppress(FlowrunError), Log(path) as same:
            compare_logs(log, same)


def _lawful(record: CycleRecord, written: dict[int, set[Written]] | None) -> None:
    plain = _plain(record)
    if written is not None and plain not in written.get(record.cycle, ()):
        raise BrokenLawError(f"cycle {record.cycle} was never written so: {plain!r:.300}")


def _jump(
    log: Log,
    seen: list[CycleRecord],
    written: dict[int, set[Written]] | None,
    rng: random.Random,
) -> None:
    """Random access finds what reading in order found; where that ended early, it may find more."""
    cycle = rng.choice(seen).cycle if seen and rng.random() < 0.7 else rng.randrange(12)
    with contextlib.suppress(LogError):
        record = log[cycle]
        _lawful(record, written)
        if record.cycle != cycle:
            raise BrokenLawError(f"asked for cycle {cycle}, got {record.cycle}")
    time_ns = rng.choice(seen).time_ns if seen else rng.randrange(2**63)
    for record in log.cycles(start_ns=time_ns, end_ns=time_ns + 1000):
        _lawful(record, written)
        if not time_ns <= record.time_ns < time_ns + 1000:
            raise BrokenLawError(f"asked for time {time_ns}, got {record.time_ns}")


def _all_fields(log: Log) -> None:
    for message in log.messages():
        with contextlib.suppress(LogError):
            cli_log._json_line(message, message.outline)
        with contextlib.suppress(LogError):
            repr(message.fields)


def _command(arguments: list[str]) -> None:
    """What the command line makes of it: no traceback, and 0 or 1."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()) as said,
    ):
        code = flowrun(arguments)
    if code not in (0, 1) or "Traceback" in said.getvalue():
        raise BrokenLawError(f"flowrun {arguments}: exit {code}: {said.getvalue()}")


# -- running cases -------------------------------------------------------------------------------


def run_case(corpus: Corpus, directory: Path, seed: int, number: int) -> None:
    """Make and examine case `number`; `directory` keeps the log as it was damaged, `case.mcap`."""
    rng = random.Random(f"{seed}:{number}")
    damaged = corpus.case(rng)
    for name in (NAME, "case.mcap"):
        (directory / name).write_bytes(damaged)
    faulthandler.dump_traceback_later(CASE_S, exit=True)
    try:
        examine(directory / NAME, corpus, rng)
    finally:
        faulthandler.cancel_dump_traceback_later()


def limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MORE_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def child(args: argparse.Namespace, directory: Path) -> int:
    """Run cases until the time is over; a case that ends the process is left to the parent."""
    samples = [path.read_bytes() for path in sorted((directory / "samples").iterdir())]
    corpus = Corpus(samples, directory / "scratch")
    ends = time.monotonic() + args.seconds
    limit_memory()
    known: set[tuple[str, str]] = set()
    broken, number = 0, args.first
    while number < args.cases if args.cases else time.monotonic() < ends:
        (directory / "number").write_text(f"{number} {broken}")
        try:
            run_case(corpus, directory, args.seed, number)
        except Exception as error:  # noqa: BLE001 - the broken law
            broken += 1
            place = traceback.extract_tb(error.__traceback__)[-1]
            kind = type(error).__name__, f"{place.filename}:{place.lineno}"
            if kind not in known:
                known.add(kind)
                traceback.print_exc()
                _keep(args, directory, number)
        number += 1
    (directory / "number").write_text(f"{number} {broken}")
    return 0


def _keep(args: argparse.Namespace, directory: Path, number: int) -> None:
    args.kept.mkdir(parents=True, exist_ok=True)
    kept = args.kept / f"{args.seed}-{number}.mcap"
    shutil.copy(directory / "case.mcap", kept)
    print(f"case {number} breaks a law; kept {kept}", flush=True)


def with_coverage(args: argparse.Namespace, directory: Path) -> None:
    """Cases as atheris chooses them; it ends the process."""
    import atheris

    seeds = directory / "samples"
    corpus = Corpus([path.read_bytes() for path in seeds.iterdir()], directory / "scratch")
    for name, module in list(sys.modules.items()):
        if name.startswith(("flowrun.runtime.log_", "flowrun.msgs.protobuf")):
            for value in list(vars(module).values()):
                _instrument(atheris, name, value)
    path = directory / NAME

    def one_input(data: bytes) -> None:
        path.write_bytes(data)
        examine(path, corpus, random.Random(len(data)))

    def mutator(data: bytes, max_size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if len(data) < 64 or rng.random() < 0.02:
            return corpus.case(rng)[:max_size]
        group = [it for it in corpus.samples if it[:200] == data[:200]]
        return mutate(data, rng, group)[:max_size]

    options = [
        f"-max_total_time={args.seconds}", f"-timeout={CASE_S}", "-rss_limit_mb=2048",
        "-malloc_limit_mb=512", "-max_len=1200000", "-len_control=0", "-print_final_stats=1",
        f"-artifact_prefix={args.kept}/", f"-seed={args.seed}",
    ]  # fmt: skip
    if args.cases:
        options.append(f"-runs={args.cases}")
    args.kept.mkdir(parents=True, exist_ok=True)
    atheris.Setup([sys.argv[0], *options, str(seeds)], one_input, custom_mutator=mutator)
    atheris.Fuzz()


def _instrument(atheris: Any, module: str, value: Any) -> None:
    """Count the branches of the module's own functions and methods."""
    members = vars(value).values() if isinstance(value, type) else [value]
    for member in members:
        function = getattr(member, "fget", None) or getattr(member, "__func__", member)
        if getattr(function, "__module__", "") == module and hasattr(function, "__code__"):
            with contextlib.suppress(Exception):
                function.__code__ = atheris.instrument_func(function).__code__


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--cases", type=int, default=0, help="up to this, however long it takes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kept", type=Path, default=Path("runs/fuzz"), help="where logs are kept")
    parser.add_argument("--coverage", action="store_true", help="let atheris choose")
    parser.add_argument("--first", type=int, default=0, help="begin with this case")
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.directory:
        return child(args, args.directory)
    shared = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(prefix="flowrun-fuzz-", dir=shared if shared.is_dir() else None))
    try:
        (root / "samples").mkdir()
        for number, sample in enumerate([*built(), *recorded(root / "made")]):
            (root / "samples" / f"{number:02}").write_bytes(sample)
        if args.coverage:
            with_coverage(args, root)
        return _watch(args, root)
    finally:
        shutil.rmtree(root)


def _watch(args: argparse.Namespace, root: Path) -> int:
    """Children, one after the other, until the time is over."""
    begun, first, broken = time.monotonic(), args.first, 0
    code = 1
    while code and (args.cases or time.monotonic() - begun < args.seconds):
        left = max(1, args.seconds - int(time.monotonic() - begun))
        code = subprocess.run(
            [sys.executable, __file__, "--directory", root, "--seconds", str(left), "--first",
             str(first), "--seed", str(args.seed), "--cases", str(args.cases), "--kept", args.kept],
            check=False, env={**os.environ, "MALLOC_ARENA_MAX": "1"},  # an arena a thread is 64 MiB
        ).returncode  # fmt: skip
        number, found = map(int, (root / "number").read_text().split())
        broken += found + bool(code)
        if code:
            print(f"case {number} ended the process: {code}")
            _keep(args, root, number)
        first = number + 1
    print(f"{number - args.first} damaged logs in {time.monotonic() - begun:.0f} s: "
          f"{broken} broke a law")  # fmt: skip
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
