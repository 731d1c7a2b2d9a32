"""The memory of a published message's arrays: nobody writes to it while the message is read.

An array may share memory with what its maker still writes to: a tensor, a bytearray, shared memory, a
view taken earlier. No flag of NumPy shows all of these, so a published array is copied unless its
memory is known: the slot's own (`Message.allocate`), memory that the task hands over
(`Message.hand_over`), or that of a message published before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["is_published", "is_reused", "owner_of", "sampled", "shown"]

_SAMPLES = 64


class _Published(np.ndarray[Any, Any]):
    """The memory of a published array: the base of all arrays that show it.

    is_reused: whether a slot overwrites it; of a part of such memory nobody knows, so it may be.
    """

    is_reused: bool = True


def shown(array: NDArray[Any], *, is_reused: bool = False) -> NDArray[Any]:
    """A read-only array of the memory of `array`, known as published. Seals `array` and its bases.

    array: C-contiguous; nobody writes to its memory any longer.
    is_reused: whether the memory belongs to a slot, which overwrites it in a later cycle.
    """
    base: Any = array
    while isinstance(base, np.ndarray):
        # If one of them stayed writable, NumPy would let a reader set the flag of the result.
        base.setflags(write=False)
        base = base.base
    # NumPy shortens a chain of bases, except by an array of another class that is a view of its own.
    memory: Any = array.view(_Published)[...]
    memory.is_reused = is_reused
    seen: NDArray[Any] = memory.view(np.ndarray)
    return seen


def owner_of(array: NDArray[Any]) -> Any:
    """What owns the memory of `array`: the last array of its chain of bases, or what that one views."""
    owner: Any = array
    while (
        isinstance(owner, np.ndarray) and type(owner) is not _Published and owner.base is not None
    ):
        owner = owner.base
    return owner


def is_published(array: NDArray[Any]) -> bool:
    """Whether the memory of `array` is a published message's, or a `bytes`, which never changes."""
    return type(owner_of(array)) in (_Published, bytes)


def is_reused(array: NDArray[Any]) -> bool:
    """Whether a slot overwrites the memory of `array`, of a published message, in a later cycle."""
    owner = owner_of(array)
    return type(owner) is _Published and owner.is_reused


def sampled(array: NDArray[Any]) -> bytes:
    """A few of the bytes of a published array, spread over all of it: what changes in them shows most
    changes that are made in place, as to a whole picture, for some microseconds."""
    data = array.ravel().view(np.uint8)
    return data[:: data.size // _SAMPLES | 1].tobytes()  # odd: each byte of an element has its turn
