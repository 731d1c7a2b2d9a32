"""Results by what they depend on."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowrun.runtime.errors import UsageError
from flowrun.runtime.testbench.store import Store, key_of, store_path


def test_what_was_put_is_there_for_the_next_one(tmp_path):
    value = {"text": "é", "numbers": [1, 2.5, None], "data": b"\x00"}
    with Store(tmp_path / "a" / "results.sqlite") as store, Store(store.path) as other:
        store.put((key_of(number), value | {"n": number}) for number in range(1200))
        wanted = [key_of(number) for number in range(1100, 1300)]
        found = other.get(wanted)
    assert found == {key_of(n): value | {"n": n} for n in range(1100, 1200)}


def test_a_key_depends_on_each_part_and_not_on_the_order_of_a_dict():
    assert key_of("a", {"x": 1, "y": [1, 2]}) == key_of("a", {"y": (1, 2), "x": 1})
    keys = [
        key_of("a", "b"),
        key_of("ab"),
        key_of("a", ["b"]),
        key_of(b"a", "b"),
        key_of("a", None),
    ]
    assert len(set(keys)) == len(keys)


def test_a_damaged_store_is_moved_aside(tmp_path):
    path = tmp_path / "results.sqlite"
    path.write_bytes(b"no database, but long enough to look like one" * 100)
    with Store(path) as store:
        store.put([(key_of(1), 2)])
        assert store.get([key_of(1)]) == {key_of(1): 2}
    assert (tmp_path / "results.damaged").read_bytes().startswith(b"no database")


def test_a_place_where_nothing_can_be_kept_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file/results.sqlite: no results can be kept there: "):
        Store(tmp_path / "file" / "results.sqlite")


def test_the_store_is_in_the_cache_of_the_user():
    assert store_path({"HOME": "/h"}) == Path("/h/.cache/flowrun/results.sqlite")
    assert store_path({"HOME": "/h", "XDG_CACHE_HOME": "/c"}) == Path("/c/flowrun/results.sqlite")
    assert store_path({"HOME": "/h", "XDG_CACHE_HOME": "c"}) == store_path({"HOME": "/h"})
