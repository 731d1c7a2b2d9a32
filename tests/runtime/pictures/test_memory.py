"""Memory of pictures that is used again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from flowrun.runtime.pictures import memory
from flowrun.runtime.pictures.memory import give_back_freed, new_array

SHAPE = (400, 300, 3)


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    memory._free.clear()


def address(array: np.ndarray) -> int:
    return array.ctypes.data


def test_memory_is_used_again_when_nobody_refers_to_it() -> None:
    array = new_array(*SHAPE)
    assert (array.shape, array.dtype, array.flags.c_contiguous) == (SHAPE, np.uint8, True)
    first = address(array)
    row = memoryview(array[7])
    del array
    other = new_array(*SHAPE)
    assert address(other) != first
    del row
    assert address(new_array(SHAPE[0] * SHAPE[1] * 3)) == first
    assert address(new_array(*SHAPE)) == first
    assert address(new_array(400, 301, 3)) != first


def test_what_was_freed_last_is_used_first() -> None:
    one, other = new_array(*SHAPE), new_array(*SHAPE)
    addresses = address(one), address(other)
    del one
    del other
    one, other = new_array(*SHAPE), new_array(*SHAPE)
    assert (address(other), address(one)) == addresses


@pytest.mark.parametrize("shape", [(0,), (3, 4), (6000, 6000)])
def test_memory_of_other_sizes_is_not_kept(shape: tuple[int, ...]) -> None:
    assert new_array(*shape).shape == shape
    assert not memory._free


def test_not_all_memory_that_was_in_use_at_once_is_kept() -> None:
    arrays = [new_array(*SHAPE) for _ in range(20)]
    assert len({address(it) for it in arrays}) == 20
    del arrays
    assert [len(kept) for kept in memory._free.values()] == [16]
    for number in range(1, 8):
        new_array(*SHAPE, number + 1)
    assert SHAPE[0] * SHAPE[1] * SHAPE[2] in memory._free
    new_array(*SHAPE, 10)
    assert len(memory._free) == 8
    assert SHAPE[0] * SHAPE[1] * SHAPE[2] not in memory._free


def test_no_two_threads_get_the_same_memory() -> None:
    def fill(number: int) -> bool:
        size = (300_000, 400_000)[number % 2]
        array = new_array(size)
        array[:] = number % 256
        give_back_freed()
        return bool((array == number % 256).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(fill, range(200)))


def test_memory_is_given_back_a_few_times_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = iter([10.0, 10.0, 10.1, 10.19, 10.3, 10.3])
    monkeypatch.setattr(memory, "_gave_back_s", 0.0)
    monkeypatch.setattr(memory.time, "monotonic", lambda: next(now_s))
    said: list[int] = []
    library = SimpleNamespace(malloc_trim=said.append)
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _name: library)
    counts = []
    for _ in range(4):
        give_back_freed()
        counts.append(len(said))
    assert counts == [1, 1, 1, 2]
    monkeypatch.setattr(memory, "_PAUSE_S", 0.0)
    monkeypatch.setattr(memory.time, "monotonic", lambda: 20.0)
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _name: SimpleNamespace())
    give_back_freed()  # no glibc
