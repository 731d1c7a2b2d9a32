"""Many recorded runs, replayed on several processes: what was recorded, and what is made now.

jobs = [Job(run) for run in find_runs([Path("golden")])]
for replayed in replay_runs(jobs):
    for pair in replayed.pairs:
        print(pair.run, pair.cycle, pair.task, pair.recorded, pair.now)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs.image import ImageRgb8Msg
from flowrun.msgs.message import Message
from flowrun.runtime.clock import ticks_ns
from flowrun.runtime.errors import LogError
from flowrun.runtime.graph.find import importable
from flowrun.runtime.log.reader import Log
from flowrun.runtime.pictures.encode import jpeg
from flowrun.runtime.replay.about import pictures_before
from flowrun.runtime.replay.compare import Difference, Recorded
from flowrun.runtime.replay.cycles import ReplayReport
from flowrun.runtime.replay.replay import Replay, Tolerance
from flowrun.runtime.replay.values import fields_of, plain
from flowrun.runtime.run.log_lines import drop_logs
from flowrun.runtime.testbench.pairs import Pair, with_pictures
from flowrun.runtime.testbench.spread import Broken, Done, cores, spread

__all__ = ["Job", "Replayed", "collected", "replay_of", "replay_one", "replay_runs"]

_TELL_NS = 200_000_000
_MOST_SHOWN = 100
"""Messages that are pictures and differ, of which JPEGs are made, of each job."""
_SHOWN_WIDTH = 360


@dataclass(frozen=True, slots=True)
class Job:
    """A recorded run to replay, and how.

    run: its directory, or a slab of it.
    variant: a name of the caller's for this way to replay it.
    keep: which pairs are wanted: those that differ, all, or none.
    first, last: the cycles to compare; None for those of the log.
    graph, config, only, feed, tolerance, keyframes, trust: as `Replay` has them; the tolerance as
        `Tolerance` takes it.
    isolate: whether each task gets the recorded inputs whatever those before it made, so that each
        one's own differences are seen.
    """

    run: Path
    variant: str = ""
    keep: Literal["differing", "all", "none"] = "differing"
    first: int | None = None
    last: int | None = None
    graph: Path | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    only: tuple[str, ...] | None = None
    feed: tuple[str, ...] = ()
    tolerance: Mapping[str, float | None] = field(default_factory=dict)
    keyframes: bool = True
    trust: bool = False
    isolate: bool = False


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of a job.

    report: what the replay found; None where it could not be done: `error` says why then.
    pairs: those that the job keeps, in the order in which they were made.
    notes: a sentence on each part of the recording that could not be used, or is not as it was.
    graph: the name of the run's graph.
    begin_ns: time of the first cycle of the log, in nanoseconds since 1970 UTC.
    took_s: how long it took.
    """

    job: Job
    report: ReplayReport | None
    pairs: list[Pair] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: str | None = None
    graph: str = ""
    begin_ns: int = 0
    took_s: float = 0.0

    @property
    def identical(self) -> bool:
        """Whether the run could be replayed, and no message differs."""
        return self.error is None and self.report is not None and self.report.identical


def replay_runs(
    jobs: Sequence[Job],
    *,
    processes: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Iterator[Replayed]:
    """Replay recorded runs, each in a worker process with the code that is on the disk; yields what
    came of each when it is done, so not in the order of `jobs`.

    processes: the greatest number of processes; None for one a core.
    progress: called with the part of all that is done, from 0 to 1.

    A run that cannot be replayed, or whose replay raises an error that was not recorded or crashes its
    process, gives a `Replayed` with an `error`, and the others go on. To end early (a KeyboardInterrupt
    is the same), close the generator: the workers are ended.
    """
    sizes = [max(1, _cycles(job)) for job in jobs]
    done = [0.0] * len(jobs)
    workers = min(len(jobs), cores() if processes is None else processes)
    for event in spread(jobs, _replayer, processes=max(1, workers)):
        if isinstance(event, Done):
            yield event.value
        elif isinstance(event, Broken):
            yield Replayed(jobs[event.index], None, error=event.why)
        done[event.index] = (
            min(event.value, sizes[event.index])
            if not isinstance(event, (Done, Broken))
            else sizes[event.index]
        )
        if progress is not None:
            progress(sum(done) / sum(sizes))


def replay_one(job: Job, tell: Callable[[int], None] = lambda _: None) -> Replayed:
    """Replay one run in this process, on its main thread. Raises what `Replay` raises.

    tell: called now and then with the number of cycles done.
    """
    begun = ticks_ns()
    with Log(job.run) as log:
        replay = replay_of(job, log)
        keeps = collected(replay, job)
        told = begun

        def progress(cycles: int) -> None:
            nonlocal told
            if ticks_ns() - told > _TELL_NS:
                told = ticks_ns()
                tell(cycles)

        with importable(replay.plan.graph.spec.path.parent):
            report = replay.run(start=job.first, to=job.last, progress=progress)
        pairs = with_pictures(keeps, log, pictures_before(replay.plan)) if keeps else []
        loss = log.loss
        return Replayed(
            job,
            report,
            pairs,
            [*([loss] if loss else []), *replay.notes],
            graph=log.metadata.get("graph", ""),
            begin_ns=log.start_ns or 0,
            took_s=(ticks_ns() - begun) / 1e9,
        )


def replay_of(job: Job, log: Log) -> Replay:
    """The replay of an open log that a job says. Raises what `Replay` raises."""
    return Replay(
        log,
        graph=job.graph,
        feed=job.feed,
        only=job.only,
        config=job.config,
        tolerance=Tolerance(job.tolerance),
        keyframes=job.keyframes,
        trust=job.trust,
    )


def collected(replay: Replay, job: Job) -> list[Pair]:
    """A list which `replay` fills with the pairs that `job` keeps while it runs; they lack their
    pictures, which `with_pictures` finds."""
    keeper = _Keeper(replay, job)
    if job.keep != "none":
        replay.hook(
            on_difference=keeper.take_error,
            on_message=keeper.take_message,
            isolate=job.isolate,
        )
    else:
        replay.hook(isolate=job.isolate)
    return keeper.pairs


class _Keeper:
    def __init__(self, replay: Replay, job: Job) -> None:
        self.pairs: list[Pair] = []
        self._replay = replay
        self._job = job
        self._may_show = _MOST_SHOWN

    def take_error(
        self, difference: Difference, recorded: Recorded | None, made: Message | None
    ) -> None:
        """Keep an error that differs; messages come through `take_message`."""
        if recorded is None and made is None:
            self._keep(difference.task, "", "error", None, None, difference)

    def take_message(
        self,
        task: str,
        port: str,
        recorded: Recorded | None,
        made: Message,
        difference: Difference | None,
    ) -> None:
        if difference is None and (
            self._job.keep != "all" or (recorded is None and not made.present)
        ):
            return
        but = made.measured_fields
        if isinstance(made, ImageRgb8Msg):
            but |= {"pixels"}
            if difference is None:  # nobody need decode it
                fields = {name: getattr(made, name) for name in made.defaults if name != "pixels"}
                fields |= {"width": made.width, "height": made.height}
                self._keep(task, port, type(made).__name__, fields, fields, None, made.tov_ns)
                return
        before = None if recorded is None else fields_of(recorded, made)
        now = dict(made.all_fields()) if made.present else None
        kept = self._keep(
            task,
            port,
            made.own_class.__name__,
            plain(before, but=but),
            plain(now, but=but),
            difference,
            made.tov_ns if made.present or recorded is None else recorded.tov_ns,
        )
        if isinstance(made, ImageRgb8Msg) and self._may_show:
            self._may_show -= 1
            shown = {
                name: jpeg(_small(fields["pixels"]), quality=85)
                for name, fields in (("recorded", before), ("replayed", now))
                if fields is not None and "pixels" in fields and fields["pixels"].size
            }
            self.pairs[-1] = replace(kept, shown=shown)

    def _keep(
        self,
        task: str,
        port: str,
        kind: str,
        recorded: dict[str, Any] | None,
        now: dict[str, Any] | None,
        difference: Difference | None,
        tov_ns: int = 0,
    ) -> Pair:
        cycle, time_ns = self._replay.cycle, self._replay.time_ns
        assert cycle is not None
        assert time_ns is not None
        pair = Pair(
            self._job.run,
            self._job.variant,
            cycle,
            time_ns,
            task,
            port,
            kind,
            recorded,
            now,
            difference,
            tov_ns=tov_ns,
        )
        self.pairs.append(pair)
        return pair


def _small(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    image = ImageRgb8Msg(pixels=pixels)
    width = min(_SHOWN_WIDTH, image.width)
    return image.resized(width, max(1, round(image.height * width / image.width)))


def _replayer() -> Callable[[Job, Callable[[Any], None]], Replayed]:
    drop_logs()
    return replay_one


def _cycles(job: Job) -> int:
    """How many cycles a job has, as far as that is known without reading the log."""
    try:
        with Log(job.run, verify=False) as log:
            said = (log.end or {}).get("cycles", "")
    except LogError:  # the worker will say so
        return 1
    whole = int(said) if said.isdecimal() else 1000
    last = whole if job.last is None else min(job.last + 1, whole)
    return last - (job.first or 0)
