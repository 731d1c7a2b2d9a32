"""Results by what they depend on."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from flowrun.runtime.errors import UsageError
from flowrun.runtime.testbench import store as module
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


def test_a_store_that_is_in_use_is_not_taken_for_a_damaged_one(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_WAIT_S", 0.01)
    path = tmp_path / "results.sqlite"
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("CREATE TABLE mine (value)")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UsageError) as caught:
            Store(path)
    assert str(caught.value) == (
        f"{path}: no results can be kept there: database is locked; choose another folder"
    )
    assert [it.name for it in tmp_path.iterdir()] == ["results.sqlite"]


def test_on_a_full_disk_what_is_known_is_given_and_nothing_more_is_kept(tmp_path):
    with Store(tmp_path / "results.sqlite") as store:
        store.put([(key_of(1), "known")])
        [(pages,)] = store._file.execute("PRAGMA page_count")
        store._file.execute(f"PRAGMA max_page_count = {pages}")
        store.put([(key_of(2), "x" * 100_000)])
        assert store.problem == f"{store.path}: results are not kept: database or disk is full"
        store.put([(key_of(3), "small")])
        assert store.get([key_of(1), key_of(2), key_of(3)]) == {key_of(1): "known"}


def test_damage_that_shows_late_costs_the_results_and_no_work(tmp_path):
    with Store(tmp_path / "results.sqlite") as store:
        store.put((key_of(number), "x" * 500) for number in range(2000))
    data = bytearray(store.path.read_bytes())
    for at in range(2 * 4096, len(data), 4096):
        data[at : at + 4096] = bytes(4096)
    store.path.write_bytes(data)
    with Store(store.path) as again:
        assert len(again.get([key_of(number) for number in range(2000)])) < 2000
        again.put([(key_of(1), 2)])
        assert again.get([key_of(1)]) == {key_of(1): 2}
        assert again.problem is None
    assert (tmp_path / "results.damaged").exists()


def test_a_value_that_is_none_is_not_known(tmp_path):
    with Store(tmp_path / "results.sqlite") as store:
        store._file.execute("INSERT INTO results VALUES (?, ?)", (key_of(1), b"\xc1"))
        assert store.get([key_of(1)]) == {}


def test_a_place_where_nothing_can_be_kept_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file/results.sqlite: no results can be kept there: "):
        Store(tmp_path / "file" / "results.sqlite")


def test_the_store_is_in_the_cache_of_the_user():
    assert store_path({"HOME": "/h"}) == Path("/h/.cache/flowrun/results.sqlite")
    assert store_path({"HOME": "/h", "XDG_CACHE_HOME": "/c"}) == Path("/c/flowrun/results.sqlite")
    assert store_path({"HOME": "/h", "XDG_CACHE_HOME": "c"}) == store_path({"HOME": "/h"})
