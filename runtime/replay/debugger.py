"""Moves through a recorded run: forwards and back, by tasks and by cycles, to the next or the last place
where something holds.

A place is a cycle, and the number of tasks that have run in it. To go back, the debugger goes to the
nearest keyframe and forwards from there, so that the tasks remember what they remembered then.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import yaml

from flowrun.runtime.errors import LogError, UsageError
from flowrun.runtime.replay.replay import Replay

__all__ = ["Breakpoint", "Debugger", "Place"]

_CONDITION = re.compile(
    r"(?P<output>[\w.]+?)\s*(?:(?P<compare>!~|~|==|!=|<=|>=|<|>)\s*(?P<value>.+))?"
)
# fmt: off
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le,
    ">": operator.gt, ">=": operator.ge,
    "~": lambda value, pattern: re.search(str(pattern), str(value)) is not None,
    "!~": lambda value, pattern: re.search(str(pattern), str(value)) is None,
}
# fmt: on


class Place(NamedTuple):
    """A cycle, and the number of tasks that have run in it. `cycle` is None after the last one."""

    cycle: int | None
    tasks: int


@dataclass(frozen=True, slots=True)
class Breakpoint:
    """Where to stop.

    task: stop before this task.
    condition: stop after the task `of_task` if this holds.
    of_task: the task whose message `condition` looks at.

    Without a task and a condition: stop after a task that made something else than was recorded.
    """

    number: int
    text: str
    task: str | None = None
    condition: Callable[[], bool] | None = None
    of_task: str | None = None


class Debugger:
    """Moves `replay`, which has been started, from place to place."""

    def __init__(self, replay: Replay) -> None:
        self.replay = replay
        self.breakpoints: dict[int, Breakpoint] = {}
        self._next_number = 1
        self._keyframes: list[int] | None = None
        self._ran = 0
        self._first = replay.cycle or 0
        self._last = self._first
        """The last cycle that has run or begun."""

    @property
    def place(self) -> Place:
        return Place(self.replay.cycle, self._ran)

    # -- forwards ------------------------------------------------------------------------------

    def step(self) -> str | None:
        """Run the next task that has something to do, in a later cycle if need be; returns its id, or
        None after the last one."""
        while (cycle := self.replay.cycle) is not None:
            ran = self.replay.step()
            if ran is not None:
                self._ran += 1
                self._last = cycle
                return ran
            self._ran = 0
        return None

    def next_cycle(self) -> bool:
        """Run the rest of the cycle, or all of the next one, and stay at its end, where its messages
        can be seen; False after the last cycle."""
        if self.step() is None:
            return False
        while self.replay.next_task is not None:
            self.step()
        return True

    def goto(self, cycle: int, tasks: int = 0) -> None:
        """Go to before `cycle`, or to after the first `tasks` tasks of it. `UsageError` for a cycle
        that the log does not have."""
        self.replay.seek(cycle)
        self._ran, self._last = 0, cycle
        for _ in range(tasks):
            self.step()

    def go_on(self) -> Breakpoint | None:
        """Run to the next breakpoint; None after the last cycle."""
        for hit in self._hits():
            return hit
        return None

    # -- back ----------------------------------------------------------------------------------

    def step_back(self) -> bool:
        """Go back to before the task that ran last; False at the beginning."""
        cycle, ran = self.place
        if cycle is not None and ran:
            self.goto(cycle, ran - 1)
            return True
        if not self.back():
            return False
        cycle, ran = self.place
        if cycle is not None and ran:
            self.goto(cycle, ran - 1)
        return True

    def back(self) -> bool:
        """Go back to the end of the cycle before; False at the beginning."""
        before = self._before(self.replay.cycle)
        while before is not None:
            self.goto(before)
            if self.step() is not None and self.replay.cycle == before:
                ran = self._ran
                while self.replay.next_task is not None:
                    self.step()
                    if self.replay.cycle != before:  # an error ended it
                        self.goto(before, ran)
                        break
                    ran = self._ran
                return True
            before = self._before(before)  # no task had anything to do in it
        self.goto(self._first)
        return False

    def go_back(self) -> Breakpoint | None:
        """Go back to the last breakpoint before this place; without one, to the beginning, and return
        None."""
        end, ran = self.place
        limit = (math.inf if end is None else end, ran)
        if self._keyframes is None:
            self._keyframes = self.replay.keyframes
        begins = {self._first, *(cycle for cycle in self._keyframes if cycle <= limit[0])}
        for begin in sorted(begins, reverse=True):
            self.goto(begin)
            found: tuple[Breakpoint, int, int] | None = None
            for hit in self._hits():
                cycle, ran = self.place
                if cycle is None or (cycle, ran) >= limit:
                    break
                found = hit, cycle, ran
            if found is not None:
                self.goto(*found[1:])
                return found[0]
            limit = (begin, 0)
        self.goto(self._first)
        return None

    # -- breakpoints ---------------------------------------------------------------------------

    def break_at(self, text: str) -> Breakpoint:
        """Set a breakpoint.

        text: a task ("inference"), to stop before it; "diff", to stop at a difference; an output
            ("inference.answer"), to stop when it publishes; or a condition on a field
            ("inference.answer.response ~ 'error'": ~ and !~ search a regular expression, == != < <=
            > >= compare with a value as in a graph file).
        """
        number, text = self._next_number, text.strip()
        ids = [step.task.id for step in self.replay.plan.steps]
        if text == "diff":
            made = Breakpoint(number, text)
        elif text in ids:
            made = Breakpoint(number, text, task=text)
        else:
            condition, task = self._condition(text)
            made = Breakpoint(number, text, condition=condition, of_task=task)
        self._next_number += 1
        self.breakpoints[number] = made
        return made

    def delete(self, number: int) -> None:
        """Delete a breakpoint; `UsageError` if there is none of that number."""
        if number not in self.breakpoints:
            known = ", ".join(map(str, self.breakpoints)) or "none"
            raise UsageError(f"no breakpoint {number}; there are: {known}")
        del self.breakpoints[number]

    def value(self, text: str) -> Any:
        """The present message of `task.port`, or the field `task.port.field` of it; None if there is
        no message. The port may be left out if the task has only one. `UsageError` for other texts."""
        output, field = self._split(text)
        message = self.replay.message(output)
        return message if message is None or field is None else getattr(message, field)

    def _condition(self, text: str) -> tuple[Callable[[], bool], str]:
        match = _CONDITION.fullmatch(text)
        if match is None:
            raise UsageError(
                f"cannot stop at {text!r}; expected a task, diff, TASK.PORT, or "
                "TASK.PORT.FIELD ~ 'text'"
            )
        place, compare = match["output"], match["compare"]
        output, field = self._split(place)
        task = output.partition(".")[0]
        if compare is None:
            return lambda: self.replay.message(output) is not None, task
        if field is None:
            raise UsageError(f"{place}: name the field to compare")
        try:
            wanted = yaml.safe_load(match["value"])
            if "~" in compare:
                re.compile(str(wanted))
        except (yaml.YAMLError, re.error) as error:
            raise UsageError(f"{match['value']}: {error}") from None

        def holds() -> bool:
            if self.replay.message(output) is None:
                return False
            try:
                holds = _COMPARE[compare](self.value(place), wanted)
            except (TypeError, ValueError):
                return False  # a text is not less than a number
            return np.size(holds) > 0 and bool(np.all(holds))

        return holds, task

    def _split(self, text: str) -> tuple[str, str | None]:
        """The output, and the field of its message if one is named."""
        slots = self.replay.plan.slots
        for slot in slots:
            own = [other for other in slots if other.task_id == slot.task_id]
            output = f"{slot.task_id}.{slot.port}"
            for name in [output, slot.task_id] if len(own) == 1 else [output]:
                if text == name:
                    return output, None
                field = text.removeprefix(f"{name}.")
                if field != text and field in slot.message_type.defaults:
                    return output, field
        known = [f"{slot.task_id}.{slot.port}" for slot in slots]
        fields = [
            f"{slot.task_id}.{slot.port}.{name}"
            for slot in slots
            if text.startswith(slot.task_id)
            for name in slot.message_type.defaults
        ]
        raise UsageError(f"nothing is called {text!r}; there are: {', '.join(fields or known)}")

    def _hits(self) -> Iterator[Breakpoint]:
        """Run on, and yield each breakpoint when it holds."""
        replay = self.replay
        found = replay.differences  # a list for each cycle
        known = len(found)
        while replay.cycle is not None:
            ran = self.step()
            if replay.differences is not found:
                found, known = replay.differences, 0
            differs = len(found) > known
            known = len(found)
            following = replay.next_task
            for it in list(self.breakpoints.values()):
                if it.condition is not None:
                    hit = ran == it.of_task and it.condition()
                elif it.task is not None:
                    hit = following == it.task
                else:
                    hit = differs
                if hit:
                    yield it

    def _before(self, cycle: int | None) -> int | None:
        if cycle is None:
            return self._last
        for candidate in range(cycle - 1, self._first - 1, -1):
            try:
                return self.replay.log[candidate].cycle
            except LogError:
                continue
        return None
