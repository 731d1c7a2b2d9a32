"""The numbers by which clients ask for what tasks show: the channels of the HTTP API.

A task's `channel_id` is its number, or that of the nearest task before it which has one, such as its
camera. The other tasks of a kind get the numbers that are left, in declaration order, from 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

__all__ = ["Claim", "channel_numbers", "claims", "conflicts"]

_KINDS = ("picture", "answer")


class Claim(NamedTuple):
    """A task's number, and the id of the task whose `channel_id` it is."""

    number: int
    owner: str


def claims(
    shows: Mapping[str, str | None],
    given: Mapping[str, int],
    sources: Mapping[str, Sequence[str]],
) -> dict[str, Claim]:
    """The numbers that the graph file gives to tasks that show pictures or answers.

    shows: what each task shows, in declaration order.
    given: the `channel_id` of those that have one.
    sources: for each task, those from which its inputs come.
    """
    found = {}
    for task, kind in shows.items():
        if kind in _KINDS and (claim := _nearest(task, given, sources)) is not None:
            found[task] = claim
    return found


def _nearest(
    task: str, given: Mapping[str, int], sources: Mapping[str, Sequence[str]]
) -> Claim | None:
    """Of the task itself, or of those before it that are nearest; None where they do not agree."""
    level, seen = [task], {task}
    while level:
        numbers = {it: given[it] for it in level if it in given}
        if numbers:
            owner, number = next(iter(numbers.items()))
            return Claim(number, owner) if len(set(numbers.values())) == 1 else None
        before = dict.fromkeys(src for it in level for src in sources.get(it, ()))
        level = [it for it in before if it not in seen]
        seen |= before.keys()
    return None


def conflicts(
    shows: Mapping[str, str | None], claimed: Mapping[str, Claim]
) -> Iterator[tuple[Claim, str, str]]:
    """Numbers that two tasks' `channel_id` give to tasks of one kind: the second claim, the id of the
    task whose `channel_id` was first, and the kind."""
    owners: dict[tuple[str | None, int], str] = {}
    for task, claim in claimed.items():
        first = owners.setdefault((shows[task], claim.number), claim.owner)
        if first != claim.owner:
            yield claim, first, str(shows[task])


def channel_numbers(
    shows: Mapping[str, str | None], claimed: Mapping[str, Claim]
) -> dict[str, int]:
    """The number of each task that shows pictures or answers; no two of a kind have the same."""
    numbers: dict[str, int] = {}
    for kind in _KINDS:
        tasks = [task for task, shown in shows.items() if shown == kind]
        taken: dict[int, str] = {}
        for task in tasks:
            if task in claimed:
                taken.setdefault(claimed[task].number, task)
        free = (number for number in range(len(tasks) + len(taken)) if number not in taken)
        has_one = {task: number for number, task in taken.items()}
        numbers |= {task: has_one[task] if task in has_one else next(free) for task in tasks}
    return numbers
