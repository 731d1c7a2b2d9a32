"""Fills an index from recorded runs: what is not in it yet, on all cores.

Nothing of a run is executed. Of each camera, pictures that are `every_s` apart are looked at, and those
that something was said of; one that looks like the last that was taken is left out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs.image import ImageRgb8Msg
from flowrun.runtime.errors import FlowrunError, LogError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.recorded.places import Places
from flowrun.runtime.run.log_lines import drop_logs
from flowrun.runtime.testbench.spread import Broken, Part, cores, spread
from flowrun.runtime.testbench.store import key_of
from flowrun.tasks.backends.similar import SimilarFrames
from flowrun.tasks.evaluation.recorded import Asked, read_run
from flowrun.tasks.search.describing import Describer, Model
from flowrun.tasks.search.elsewhere import Elsewhere, cameras_of
from flowrun.tasks.search.index import Index
from flowrun.tasks.search.pictures import Picture, Said
from flowrun.tasks.search.words import said_in
from flowrun.tasks.thinning import Thinning

__all__ = ["Filled", "Sampling", "fill", "index_name"]

_PART_CYCLES = 1000
"""Cycles of a camera that one process takes at a time."""
_AT_ONCE = 16
"""Pictures that are kept at once, so that a killed search has lost no more."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which pictures are taken.

    every_s: seconds between pictures that are looked at.
    differ: by how much, of 255, the mean colour of a cell must differ from that of the picture taken
        before, on a grid of 32 x 32.
    """

    every_s: float = 1.0
    differ: float = 12.0


@dataclass(slots=True)
class Filled:
    """What came of it: numbers of pictures that were looked at and taken; what was left out, a sentence
    each."""

    looked_at: int = 0
    taken: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a camera's pictures: those of the cycles from `first` to before `end`.

    said: cycles of pictures that something was said of.
    """

    run: Path
    number: int
    topic: str
    task: str
    part: int
    first: int
    end: int
    said: Sequence[int]
    sampling: Sampling
    model: Model
    threads: int


@dataclass(frozen=True, slots=True)
class _Taken:
    """after: the cycle from which on the part is not done."""

    after: int
    looked_at: int
    pictures: list[tuple[int, int, str]]
    vectors: Any
    lost: list[str]


def index_name(model: Model, sampling: Sampling) -> str:
    """The name of the files of an index: another model, prompt or sampling has another one."""
    key = key_of("search", 2, model.identity, model.prompt, sampling.every_s, sampling.differ)
    return f"{model.file_name}-{key.hex()[:12]}"


def fill(
    index: Index,
    folder: Path,
    runs: Mapping[str, Path],
    model: Model,
    sampling: Sampling,
    *,
    elsewhere: Elsewhere | None = None,
    processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Filled:
    """Add to `index` what of the runs is not in it. Who holds `index.writing()` may call it.

    folder: the one that the runs are in. runs: by their names in it. Those that are gone from it are
        forgotten.
    elsewhere: whose cameras are left out; None leaves out none.
    progress: called with the number of cycles that are done, and that of all.

    A run that cannot be read is left out, and named in the notes. Raises `LogError` where that is each
    of them, and `FlowrunError` where the model cannot be loaded. What was done until then, or until
    Ctrl-C, is in the index.
    """
    filled, elsewhere = Filled(), elsewhere or Elsewhere(())
    stamps = index.stamps()
    for name in stamps:
        if name not in runs and not (folder / name).exists():
            index.forget(name)
    pieces: list[_Piece] = []
    ends: dict[int, tuple[int, str]] = {}
    at_once = processes or (1 if model.is_large else cores())
    unreadable: list[LogError] = []
    for name, path in runs.items():
        try:
            whole = _stamp(path)
            without = whole and key_of([whole, sorted(elsewhere.state.items())]).hex()
            if whole and stamps.get(name) in (whole, without):
                continue
            number = index.begin_run(name)
            threads = max(1, cores() // at_once)
            left_out = elsewhere.received(path)
            found = list(_pieces(index, number, name, path, model, sampling, threads, left_out))
            stamp = without if left_out else whole
        except LogError as error:
            unreadable.append(error)
            filled.notes.append(f"left out: {error}")
            continue
        pieces += found
        ends[number] = len(found), stamp
        if not found:
            index.end_run(number, stamp)
    if unreadable and len(unreadable) == len(runs):
        raise unreadable[0]
    total = sum(it.end - it.first for it in pieces)
    done = [0] * len(pieces)
    left = {number: count for number, (count, _) in ends.items()}
    if progress is not None and total:
        progress(0, total)
    for event in spread(pieces, _worker, processes=min(at_once, max(1, len(pieces)))):
        piece = pieces[event.index]
        if isinstance(event, Broken):
            raise FlowrunError(f"{piece.run}: {event.why}")
        if isinstance(event, Part):
            taken: _Taken = event.value
            index.add(
                piece.number,
                piece.topic,
                piece.part,
                taken.after,
                piece.task,
                taken.pictures,
                taken.vectors,
            )
            filled.looked_at += taken.looked_at
            filled.taken += len(taken.pictures)
            filled.notes += taken.lost
            done[event.index] = taken.after - piece.first
        else:
            done[event.index] = piece.end - piece.first
            left[piece.number] -= 1
            if not left[piece.number]:
                index.end_run(piece.number, ends[piece.number][1])
        if progress is not None:
            progress(sum(done), total)
    return filled


def _stamp(path: Path) -> str:
    """What a run is like: it changes when something is added to it, or removed. "" for one that has not
    ended: its files have their size from the beginning."""
    with Log(path, verify=False) as log:
        if log.end is None:
            return ""
    files = [path] if path.is_file() else sorted(path.glob("*.mcap"))
    stats = [(it.name, it.stat()) for it in files]
    return key_of([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]).hex()


def _pieces(
    index: Index,
    number: int,
    name: str,
    path: Path,
    model: Model,
    sampling: Sampling,
    threads: int,
    left_out: Collection[str],
) -> Iterator[_Piece]:
    """What is to do of a run; takes up what was said in it. left_out: topics of cameras."""
    run = read_run(path, 0)
    said = list(_said(name, run.asked))
    index.replace_said(number, said)
    known = index.parts(number)
    with Log(path, verify=False) as log:
        places = Places(log)
        places.update()
        cameras = [topic for topic in cameras_of(log) if len(places.of(topic))]
        if cameras:
            index.forget(name, before=min(places.of(topic).cycle(0) for topic in cameras))
        for topic in (it for it in cameras if it not in left_out):
            there = places.of(topic)
            first, last = there.cycle(0), there.cycle(len(there) - 1)
            cycles = sorted({it.picture.cycle for it in said if it.picture.topic == topic})
            task = log.topics[topic].metadata.get("task", "")
            for part in range(first // _PART_CYCLES, last // _PART_CYCLES + 1):
                begin = max(known.get((topic, part), part * _PART_CYCLES), first)
                end = min((part + 1) * _PART_CYCLES, last + 1)
                if begin < end:
                    some = cycles[bisect_left(cycles, begin) : bisect_left(cycles, end)]
                    yield _Piece(
                        path, number, topic, task, part, begin, end, some, sampling, model, threads
                    )


def _said(name: str, asked: Sequence[Asked]) -> Iterator[Said]:
    """What was said in a run, where it is not what the same task said before."""
    last: dict[tuple[str, str, str], str] = {}
    for it in asked:
        text = said_in(it.asking.kind, it.answer)
        key = it.asking.task, it.asking.port, it.picture.topic
        if text and last.get(key) != text:
            picture = Picture(name, it.picture.topic, it.picture.cycle, it.time_ns, it.asking.name)
            yield Said(picture, text)
        last[key] = text


def _worker() -> Callable[[_Piece, Callable[[Any], None]], None]:
    drop_logs()
    return _Worker().describe


class _Worker:
    """Keeps the model, which is that of all pieces."""

    def __init__(self) -> None:
        self._describer: Describer | None = None

    def describe(self, piece: _Piece, send: Callable[[Any], None]) -> None:
        if self._describer is None:
            self._describer = Describer(piece.model, threads=piece.threads)
        similar = SimilarFrames()
        looked_at = 0
        taken: list[tuple[int, int, str]] = []
        vectors: list[NDArray[np.float32]] = []
        lost: list[str] = []

        def give(after: int) -> None:
            nonlocal looked_at
            send(_Taken(after, looked_at, list(taken), np.array(vectors, np.float32), list(lost)))
            looked_at = 0
            for it in (taken, vectors, lost):
                it.clear()

        try:
            with Log(piece.run) as log:
                for cycle, time_ns, image in _candidates(log, piece):
                    looked_at += 1
                    try:
                        if similar.skips(image, [], cycle, limit=piece.sampling.differ):
                            continue
                        pixels = image.pixels
                    except LogError as error:
                        lost.append(f"left out: {error}")
                        continue
                    similar.answered()
                    vectors.append(self._describer.vectors([pixels])[0])
                    taken.append((cycle, time_ns, self._describer.words(pixels)))
                    if len(taken) >= _AT_ONCE:
                        give(cycle + 1)
        except LogError as error:  # a damaged cycle, after which nothing is read
            lost.append(f"left out: {error}")
        give(piece.end)


def _candidates(log: Log, piece: _Piece) -> Iterator[tuple[int, int, ImageRgb8Msg]]:
    """The pictures that are looked at, with cycle and time; they are decoded when they are read."""
    thinning = Thinning(1 / piece.sampling.every_s) if piece.sampling.every_s else None
    said = set(piece.said)
    for message in log.messages(piece.topic, piece.first, piece.end):
        is_due = thinning is None or thinning.keeps(Fraction(message.tov_ns, 1_000_000_000))
        if is_due or message.cycle in said:
            image = ImageRgb8Msg()
            try:
                image.restore(message.deferred, tov_ns=message.tov_ns)
            except LogError:  # the next one may be whole
                continue
            yield message.cycle, message.time_ns, image
