"""How often shadows disagree with the tasks whose shadows they are, while a run goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowrun.msgs.text import PromptResponseMsg
from flowrun.runtime.log.shadows import Both, Pairing

if TYPE_CHECKING:
    from flowrun.runtime.engine.cycle import Cycle
    from flowrun.runtime.graph.plan import Plan

__all__ = ["ShadowReport", "Shadows"]


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """What a shadow has said so far.

    of: the task whose shadow it is.
    compared: number of frames about which both have answered.
    disagreed: of these, those about which they said different things.
    last: the newest of those; None without one.
    """

    of: str
    compared: int = 0
    disagreed: int = 0
    last: Both | None = None


class Shadows:
    """Counts, cycle by cycle. What it keeps is bounded; `reports` may be read by any thread."""

    def __init__(self, plan: Plan) -> None:
        self.reports: dict[str, ShadowReport] = {}
        """By shadow."""
        self._slots: list[tuple[int, str, bool]] = []
        self._pairings: dict[str, Pairing[str]] = {}
        answers = [it for it in plan.slots if issubclass(it.message_type, PromptResponseMsg)]
        for task in plan.graph.tasks:
            of = task.spec.shadow_of
            if not of:
                continue
            self.reports[task.id] = ShadowReport(of)
            self._pairings[task.id] = Pairing()
            self._slots += [
                (slot.index, task.id, slot.task_id == task.id)
                for slot in answers
                if slot.task_id in {task.id, of}
            ]

    def look(self, cycle: Cycle) -> None:
        """A cycle has been committed."""
        for index, shadow, is_shadow in self._slots:
            message = cycle.messages[index]
            if not message.present:
                continue
            answer: Any = message.view()
            both = self._pairings[shadow].add(
                answer.frame_cycle, answer.response, is_shadow=is_shadow
            )
            if both is not None:
                self._note(shadow, Both(answer.frame_cycle, *both))

    def _note(self, shadow: str, both: Both) -> None:
        found = self.reports[shadow]
        self.reports[shadow] = ShadowReport(
            found.of,
            found.compared + 1,
            found.disagreed + (not both.agree),
            found.last if both.agree else both,
        )
