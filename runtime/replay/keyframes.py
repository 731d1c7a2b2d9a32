"""Where in a log a replay can begin.

It can begin at a cycle if all of this holds:

- the log has a keyframe there, in which every task that runs could say what it remembers;
- the log holds the inputs of every job that was in flight there and whose result appears later, unless
  the task remembers nothing, also after it: then the result is taken from the log;
- the pictures that are fed from there on can be decoded: their key frames are in the log;
- no `thaw` refuses what its task remembered there, as that of changed code may. Only trying
  shows it: what gives a keyframe to the tasks says so with `refuse`.

It can also begin at the first cycle of the run, where no task remembers anything yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, cast

from flowrun.runtime.engine.keyframes import is_frozen, unpack_keyframe
from flowrun.runtime.errors import LogError, ReplayError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import KEYFRAME_INTERVAL, KEYFRAME_TOPIC
from flowrun.runtime.pictures.stored import StoredPicture
from flowrun.runtime.replay.recorded import RecordedOutside
from flowrun.runtime.wording import counted

__all__ = ["Keyframe", "RecordedKeyframes", "no_beginning"]

Keyframe = tuple[int, dict[str, dict[str, Any]]]
"""A cycle, and what each task remembered before it; see `engine.keyframes`."""


def no_beginning(cycles: Sequence[int], why: str) -> str:
    """What a replay notes of keyframes at which it cannot begin, for one reason; "" of none."""
    if not cycles:
        return ""
    others = counted(len(cycles) - 1, "other") if len(cycles) > 1 else ""
    more = f", nor at {others}" if others else ""
    return f"no replay can begin at the keyframe of cycle {cycles[0]}{more}: {why}"


class RecordedKeyframes:
    """The keyframes of a log at which a replay can begin.

    outside: knows what the replay feeds from the log, and which tasks run.
    note: called with a sentence on each keyframe at which no replay can begin.
    """

    def __init__(
        self, log: Log, outside: RecordedOutside, *, note: Callable[[str, str], None]
    ) -> None:
        self._log = log
        self._outside = outside
        self._note = note
        interval = log.metadata.get(KEYFRAME_INTERVAL, "0")
        self._interval = int(interval) if interval.isdigit() else 0
        first = next((record.cycle for record in log.cycles()), None)
        if first is None:
            raise ReplayError(f"{log.path}: the log holds no cycle")
        self.first_cycle: int = first
        """The first cycle of the log."""
        self._decodable: int | None = None
        self._passed_over: dict[str, list[int]] = {}
        """By the problem, the cycles of the keyframes at which no replay can begin."""
        self.unfrozen: dict[str, set[int]] = {}
        """By task, the cycles of the keyframes at which its `freeze` failed."""
        self.refused: set[int] = set()
        """The cycles of the keyframes that a task could not take up."""

    def refuse(self, cycle: int) -> None:
        """Note that a task cannot take up what it remembered at the keyframe of `cycle`."""
        self.refused.add(cycle)

    def __iter__(self) -> Iterator[int]:
        """The cycles of the keyframes at which a replay can begin. Reads the whole log."""
        for cycle, _ in self.forwards():
            yield cycle

    def forwards(self) -> Iterator[Keyframe]:
        """Those at which a replay can begin, the first one of the log first."""
        for cycle, tasks in self._readable():
            if self._can_begin(cycle, tasks):
                yield cycle, tasks

    def back_from(self, cycle: int) -> Iterator[Keyframe]:
        """Those at or before `cycle`, the last one first. Keyframes are in the log's first cycle, and in
        cycles whose number is a multiple of the interval."""
        if not self._interval:
            return
        last = cycle - cycle % self._interval
        for candidate in [*range(last, self.first_cycle, -self._interval), self.first_cycle]:
            try:
                entries = self._log[candidate].entries
            except LogError:
                continue
            for topic, _, payload in entries:
                if topic == KEYFRAME_TOPIC:
                    tasks = self._read(candidate, payload)
                    if tasks is not None and self._can_begin(candidate, tasks):
                        yield candidate, tasks

    @property
    def first_decodable(self) -> int:
        """The first cycle from which all fed pictures can be decoded: the log of a flight recorder
        begins between two key frames. Past the last cycle if there is none."""
        if self._decodable is None:
            topics = self._outside.fed_packets if self.first_cycle else []
            self._decodable = max([self.first_cycle, *map(self._decodable_from, topics)])
        return self._decodable

    def _decodable_from(self, topic: str) -> int:
        """The cycle after the last picture of `topic` that needs packets the log lacks."""
        begin: int | None = None
        found = self.first_cycle
        for message in self._log.messages(topic):
            begin = message.cycle if begin is None else begin
            picture = StoredPicture.parse(message.payload)
            if not picture.holds_packets or picture.own["key"] >= begin:
                break
            found = message.cycle + 1
        return found

    def _readable(self) -> Iterator[Keyframe]:
        """All keyframes of the log that can be read."""
        if KEYFRAME_TOPIC in self._log.topics:
            for message in self._log.messages(KEYFRAME_TOPIC):
                tasks = self._read(message.cycle, message.payload)
                if tasks is not None:
                    yield message.cycle, tasks

    def _read(self, cycle: int, payload: memoryview) -> dict[str, dict[str, Any]] | None:
        """What the tasks that run remembered; None for bytes that are no keyframe."""
        try:
            tasks = unpack_keyframe(payload)
        except ValueError as error:
            self._note(f"the keyframe of cycle {cycle} cannot be read: {error}", "")
            return None
        return {id_: frozen for id_, frozen in tasks.items() if id_ not in self._outside.fed}

    def _can_begin(self, cycle: int, tasks: Mapping[str, Mapping[str, Any]]) -> bool:
        if cycle < self.first_decodable or cycle in self.refused:
            return False
        for problem in self._problems(cycle, tasks).values():
            cycles = self._passed_over.setdefault(problem, [])
            if cycle not in cycles:
                before = no_beginning(cycles, problem)
                cycles.append(cycle)
                self._note(no_beginning(cycles, problem), before)
            return False
        return True

    def in_the_way(self) -> set[str]:
        """If the log begins in the middle of its run, and no replay can begin at any of its keyframes:
        the tasks of which one of them lacks what they remember. Of no keyframe there are fewer."""
        if not self.first_cycle:
            return set()
        found = [
            {*self._problems(cycle, tasks)}
            for cycle, tasks in self._readable()
            if cycle >= self.first_decodable
        ]
        return min(found, key=len, default=set())

    def _problems(self, cycle: int, tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        """Why no replay can begin at the keyframe of `cycle`, by task; empty if one can."""
        problems = {}
        for task_id, frozen in tasks.items():
            if "error" in frozen:
                problems[task_id] = f"freeze of task {task_id!r} failed: {frozen['error']}"
                self.unfrozen.setdefault(task_id, set()).add(cycle)
                continue
            missing = self._missing_input(cycle, task_id, frozen)
            if missing is not None:
                problems[task_id] = (
                    f"the log lacks the inputs of cycle {missing} of task {task_id!r}"
                )
        return problems

    def _missing_input(self, cycle: int, task_id: str, frozen: Mapping[str, Any]) -> int | None:
        """The first cycle whose inputs the log lacks, of those of the jobs that were in flight at the
        keyframe of `cycle`."""
        background = self._outside.background.get(task_id)
        if background is None:
            return None
        # The result of a task that remembers nothing can be taken from the log, if that has it. One
        # that is about to restart, or has drawn nothing yet, may remember something after it, and
        # one may refuse the live values of the job, which later jobs then do not get.
        remembers = is_frozen(type(background.made.task)) or "rng" in frozen
        for slot in self._outside.outputs_of(task_id):
            remembers = remembers or slot.topic not in self._outside.compared_topics
        for input_cycle, live, taken, _ in frozen.get("jobs", []):
            # That a result was taken is in the log only where that was before the keyframe.
            if not taken and not background.gives(input_cycle):
                continue
            if self._has_inputs(task_id, input_cycle):
                continue
            may_refuse = live != frozen.get("live", {})
            if (
                taken
                or remembers
                or may_refuse
                or self._may_draw(task_id, input_cycle, since=cycle)
            ):
                return cast("int", input_cycle)
        return None

    def _may_draw(self, task_id: str, input_cycle: int, *, since: int) -> bool:
        """Whether a job that was in flight at the keyframe of cycle `since` may have drawn the task's
        first random numbers, on which those of later jobs depend."""
        for cycle, in_flight in self._undrawn.get(task_id, []):
            if cycle > since and input_cycle not in in_flight:
                return False
        return self._outside.background[task_id].gives_after(input_cycle)

    @cached_property
    def _undrawn(self) -> dict[str, list[tuple[int, set[int]]]]:
        """The keyframes before which a background task had drawn no random numbers, with the inputs of
        the jobs in flight there, by task."""
        found: dict[str, list[tuple[int, set[int]]]] = {}
        for cycle, tasks in self._readable():
            for task_id, frozen in tasks.items():
                if "jobs" in frozen and not {"rng", "error"} & frozen.keys():
                    jobs = {input_cycle for input_cycle, *_ in frozen["jobs"]}
                    found.setdefault(task_id, []).append((cycle, jobs))
        return found

    def _has_inputs(self, task_id: str, cycle: int) -> bool:
        slots = self._outside.inputs_of(task_id)
        if any(slot.topic not in self._outside.compared_topics for slot in slots):
            return False
        if any(slot.topic in self._outside.fed_packets for slot in slots):
            return cycle >= self.first_decodable
        try:
            self._log[cycle]
        except LogError:
            return False
        return True
