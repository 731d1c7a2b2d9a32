"""The fewest mishaps with which a seed still fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["shrunk"]


def shrunk(
    numbers: Sequence[int], fails: Callable[[frozenset[int]], bool], *, attempts: int
) -> frozenset[int]:
    """Which of `numbers` can be left out, found with at most `attempts` calls of `fails`.

    Ever smaller runs of neighbours are tried, from the last to the first: what happened last before a
    failure most often is its cause, and what happened after it never is.

    fails: whether it still fails without those given.
    """
    left, without = list(numbers), frozenset[int]()
    size = len(left)
    while size and attempts:
        end = len(left)
        while end > 0 and attempts:
            chunk = left[max(0, end - size) : end]
            attempts -= 1
            if fails(without | set(chunk)):
                without |= set(chunk)
                left = [it for it in left if it not in without]
            end -= size
        size = 0 if size == 1 else (size + 1) // 2
    return without
