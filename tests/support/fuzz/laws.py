"""What reading a log must keep to, whatever is in its files.

1. Reading everything in it (cycles, messages, fields, pictures, tables, by number and time, unchecked
   too), `check_log`, `compare_logs`, `recover` and `flowrun log info|ls|cat|check` end with an answer
   or a `LogError` (those that say so: a `FlowrunError`) that has a text; commands exit with 0 or 1.
2. Where checksums were left alone, every cycle and picture that is given out, in whatever way, is one
   that was written so, before and after `recover`.
3. Then, too, what is missing is said by `Log.loss`; and what was read can be recovered.
4. Cycles come in order. One asked for by number has that number; those asked for by time are of it.
5. A picture that is given out has the CRC that is stored with it.
6. A recovered log is finished, if its last file can be read at all.

That it ends soon, with little memory and without a warning, is for `feed` to see.
"""

from __future__ import annotations

import contextlib
import io
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from zlib_ng.zlib_ng import crc32

from flowrun.runtime.cli import log as cli_log
from flowrun.runtime.cli import main as flowrun
from flowrun.runtime.errors import FlowrunError, LogError
from flowrun.runtime.log.check import check_log
from flowrun.runtime.log.diff import compare_logs
from flowrun.runtime.log.reader import Log, LoggedCycle, LogMessage
from flowrun.runtime.log.recover import recover
from flowrun.runtime.log.slab.format import CODEC
from flowrun.runtime.pictures.planar import PlanarPicture
from flowrun.runtime.pictures.stored import StoredPicture
from support.fuzz.mutations import Case
from support.fuzz.originals import plain


class BrokenLawError(AssertionError):
    """The reader did what it must never do."""


def hold(run: Path, case: Case, rng: random.Random) -> str:
    """Read everything in `run`, which holds the case's files; says how it was read."""
    alone = next(run.iterdir()).name if len(case.files) == 1 and rng.random() < 0.5 else ""
    try:
        whole, loss = _read(run / alone, case, rng)
    except LogError as error:
        whole, loss = set(), _text(error)
    missing = sorted(case.original.cycles.keys() - whole)
    if case.exact and not case.donors and missing and loss is None:
        raise BrokenLawError(f"cycles are missing, unsaid: {missing}")
    for verb in ("info", "check", "ls", "cat") if rng.random() < 0.2 else ("info", "check"):
        _command(["log", verb, str(run / alone)])
    if rng.random() < 0.3:
        with contextlib.suppress(LogError), Log(run / alone, verify=False) as log:
            for _ in _messages(log):
                pass
            len(log)
    copy = run.with_name("recovered")
    shutil.copytree(run, copy)
    try:
        report = recover(copy / alone)
        with Log(copy / alone) as log:
            if not log.finished and log.slabs[-1].path == report.slabs[-1].path:
                raise BrokenLawError("a recovered log is not finished")
        after, _ = _read(copy / alone, case, rng)
        if case.exact and not after >= whole:
            raise BrokenLawError(f"recovered, cycles are missing: {sorted(whole - after)}")
    except FlowrunError as error:
        _text(error)
        if case.exact and whole:
            raise BrokenLawError(f"read in part, but not recovered: {error}") from error
    if loss is None:
        return "read whole"
    return "read in part" if whole else "refused"


def _read(path: Path, case: Case, rng: random.Random) -> tuple[set[int], str | None]:
    """The cycles that were found, and what the log says is lost."""
    with Log(path) as log:
        for answer in (
            log.topics,
            log.metadata,
            log.attachments,
            log.finished,
            log.end,
            log.loss,
            log.start_ns,
            log.end_ns,
            len(log),
        ):
            repr(answer)
        found = {}
        previous = -1
        for record in log.records():
            _check_cycle(case, record)
            if record.cycle <= previous:
                raise BrokenLawError(f"cycle {record.cycle} after cycle {previous}")
            previous = record.cycle
            found[record.cycle] = record.time_ns
        loss = log.loss
        for cycle in [*rng.sample(sorted(found), min(3, len(found))), rng.randrange(40)]:
            _find(log, case, cycle, found.get(cycle, rng.randrange(2**63)))
        stored = [name for name, topic in log.topics.items() if CODEC in topic.metadata]
        for message, fields in _messages(log):
            _check_entry(case, message.cycle, message.topic, message.tov_ns, message.payload)
            pixels = fields.get("pixels")
            _check_pixels(case, message.cycle, message.topic, pixels)
            if pixels is not None and pixels.size and message.topic in stored:
                crc = StoredPicture.parse(message.payload).own["crc"]
                kept = message.deferred["pixels"]
                if crc32(kept.data if isinstance(kept, PlanarPicture) else kept) != crc:
                    raise BrokenLawError(f"{message.topic}: other pixels than CRC {crc:#x} says")
        for topic in list(log.topics):
            with contextlib.suppress(FlowrunError):
                for frame in log.frames(topic):
                    _check_pixels(case, frame.cycle, topic, frame.pixels)
            with contextlib.suppress(FlowrunError):
                log.table(topic)
        check_log(log)
        follow = rng.random() < 0.5
        with contextlib.suppress(FlowrunError), Log(path, follow=follow, timeout_s=0) as other:
            compare_logs(log, other)
    return set(found), loss


def _find(log: Log, case: Case, cycle: int, time_ns: int) -> None:
    """Random access finds what reading in order found; where that ended early, it may find more."""
    with contextlib.suppress(LogError):
        record = log[cycle]
        _check_cycle(case, record)
        if record.cycle != cycle:
            raise BrokenLawError(f"asked for cycle {cycle}, got {record.cycle}")
        for entry in record.entries:
            with contextlib.suppress(FlowrunError):
                log.raw_payload(record, entry)
                fields = log.message(record, entry).fields
                _check_pixels(case, cycle, entry[0], fields.get("pixels"))
    for end in (None, cycle + 2):
        for record in log.records(end=end, start_ns=time_ns - 1, end_ns=time_ns + 1000):
            _check_cycle(case, record)
            if not time_ns - 1 <= record.time_ns < time_ns + 1000:
                raise BrokenLawError(f"asked for time {time_ns}, got {record.time_ns}")
            if end is not None and record.cycle >= end:
                raise BrokenLawError(f"asked for cycles up to {end}, got {record.cycle}")


def _messages(log: Log) -> Iterator[tuple[LogMessage, dict[str, Any]]]:
    """Each message, shown, with its fields, as far as they can be decoded."""
    for message in log.messages():
        with contextlib.suppress(LogError):
            cli_log._json_line(message, message.outline)
        fields: dict[str, Any] = {}
        with contextlib.suppress(LogError):
            fields = message.fields
        yield message, fields


def _check_cycle(case: Case, record: LoggedCycle) -> None:
    if case.exact:
        seen = plain(record)
        if not any(it.cycles.get(record.cycle) == seen for it in case.sources):
            raise BrokenLawError(f"cycle {record.cycle} was never written so: {seen!r:.300}")


def _check_entry(case: Case, cycle: int, topic: str, tov_ns: int, payload: memoryview) -> None:
    if case.exact:
        seen = topic, tov_ns, bytes(payload)
        if not any(seen in it.cycles.get(cycle, (0, ()))[1] for it in case.sources):
            raise BrokenLawError(f"cycle {cycle}: {topic}: not the message that was written")


def _check_pixels(case: Case, cycle: int, topic: str, pixels: Any) -> None:
    if case.exact and pixels is not None:
        crc = crc32(np.ascontiguousarray(pixels))
        if not any(it.pixels.get((cycle, topic)) == crc for it in case.sources):
            raise BrokenLawError(f"cycle {cycle}: {topic}: not the picture that was written")


def _command(arguments: list[str]) -> None:
    """What the command line makes of it: no traceback, and 0 or 1."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()) as said,
    ):
        code = flowrun(arguments)
    if code not in (0, 1) or "Traceback" in said.getvalue():
        raise BrokenLawError(f"flowrun {arguments}: exit {code}: {said.getvalue()}")


def _text(error: FlowrunError) -> str:
    if not str(error):
        raise BrokenLawError(f"an error without a text: {error!r}")
    return str(error)
