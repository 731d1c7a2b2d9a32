"""What an index keeps, also after a killed process, and what it finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flowrun.runtime.errors import UsageError
from flowrun.tasks.search.index import Index
from flowrun.tasks.search.pictures import Picture, Said

AXES = np.eye(4, dtype=np.float32)


def filled(path: Path) -> Index:
    """Two runs of two pictures, whose vectors are the axes."""
    index = Index(path)
    with index.writing() as is_ours:
        assert is_ours
        for number, name in enumerate(("a", "b")):
            run = index.begin_run(name)
            pictures = [
                (0, 100, "a red circle"),
                (7, 107, f"a blue {'star' if number else 'ring'}"),
            ]
            index.add(run, "/cam/image", 0, 8, "cam", pictures, AXES[2 * number : 2 * number + 2])
            index.end_run(run, "whole")
    return index


def cycles(found) -> list[tuple[str, int]]:
    return [(it.picture.run, it.picture.cycle) for it in found]


def test_the_nearest_vector_comes_first_and_other_runs_do_not_come(tmp_path):
    with filled(tmp_path / "i") as index:
        query = np.array([0.1, 0.9, 0, 0.3], np.float32)
        [first, second, *_] = found = index.near(query, 4, runs=["a", "b"])
        assert cycles(found) == [("a", 7), ("b", 7), ("a", 0), ("b", 0)]
        assert (first.text, first.picture.task, first.picture.time_ns) == (
            "a blue ring",
            "cam",
            107,
        )
        assert (round(first.score, 3), round(second.score, 3)) == (0.9, 0.3)
        assert cycles(index.near(query, 1, runs=["b"])) == [("b", 7)]


def test_words_find_the_pictures_of_which_they_were_said(tmp_path):
    with filled(tmp_path / "i") as index:
        assert cycles(index.saying("Blue Rings", 5, runs=["a", "b"])) == [("a", 7), ("b", 7)]
        assert cycles(index.saying("red", 5, runs=["b"])) == [("b", 0)]
        assert index.saying("forklift", 5, runs=["a", "b"]) == []
        assert index.saying('" OR *', 5, runs=["a"]) == []


def test_of_many_texts_with_a_word_the_shortest_comes_first(tmp_path):
    with Index(tmp_path / "i") as index, index.writing():
        run = index.begin_run("a")
        longer = [(at, at, f"a star near ring number {at}") for at in range(600)]
        pictures = [*longer, (600, 600, "a star")]
        vectors = np.ones((len(pictures), 4), np.float32)
        index.add(run, "/cam/image", 0, 700, "cam", pictures, vectors)
        assert cycles(index.saying("star", 2, runs=["a"])) == [("a", 600), ("a", 9)]


def test_what_tasks_say_is_replaced_and_what_the_model_says_is_kept(tmp_path):
    with filled(tmp_path / "i") as index:
        run = index.begin_run("a")
        for text in ("a forklift", "a truck"):
            index.replace_said(run, [Said(Picture("a", "/cam/image", 3, 103, "vlm"), text)])
        assert index.saying("forklift", 5, runs=["a"]) == []
        [truck] = index.saying("truck", 5, runs=["a"])
        assert truck.picture == Picture("a", "/cam/image", 3, 103, "vlm")
        assert cycles(index.saying("red circle", 5, runs=["a"])) == [("a", 0)]


def test_a_run_that_is_gone_or_cut_is_forgotten(tmp_path):
    with filled(tmp_path / "i") as index:
        index.forget("a", before=5)
        assert cycles(index.near(AXES[0], 4, runs=["a"])) == [("a", 7)]
        index.forget("a")
        assert (len(index), list(index.stamps())) == (2, ["b"])
        assert index.saying("ring", 5, runs=["a", "b"]) == []


def test_one_process_fills_and_others_only_read(tmp_path):
    with filled(tmp_path / "i") as index, Index(tmp_path / "i") as other:
        with index.writing() as is_ours, other.writing() as is_theirs:
            assert (is_ours, is_theirs) == (True, False)
            assert len(other.near(AXES[0], 4, runs=["a", "b"])) == 4
        with other.writing() as is_theirs:
            assert is_theirs


def test_vectors_that_a_killed_process_left_without_a_picture_do_no_harm(tmp_path):
    with filled(tmp_path / "i") as index:
        with (tmp_path / "i.vectors").open("ab") as file:
            file.write(AXES[0].tobytes() + b"torn")
        with index.writing():
            run = index.begin_run("c")
            index.add(run, "/cam/image", 0, 1, "cam", [(9, 9, "")], -AXES[:1])
    with Index(tmp_path / "i") as index:
        found = index.near(-AXES[0], 1, runs=["a", "b", "c"])
        assert cycles(found) == [("c", 9)]
        assert cycles(index.near(AXES[0], 1, runs=["a", "b", "c"])) == [("a", 0)]


def test_an_index_whose_vectors_are_gone_begins_again(tmp_path):
    filled(tmp_path / "i").close()
    (tmp_path / "i.vectors").unlink()
    with Index(tmp_path / "i") as index:
        assert index.near(AXES[0], 4, runs=["a"]) == []
        with index.writing():
            assert (len(index), index.stamps()) == (0, {})
            run = index.begin_run("a")
            index.add(run, "/cam/image", 0, 1, "cam", [(1, 1, "")], np.eye(3, dtype=np.float32)[:1])


def test_a_damaged_file_is_made_again(tmp_path):
    filled(tmp_path / "i").close()
    for path in tmp_path.glob("i.sqlite*"):
        path.write_bytes(b"no database at all" * 300)
    with Index(tmp_path / "i") as index:
        assert len(index) == 0


def test_a_place_that_cannot_hold_an_index_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError) as caught:
        Index(tmp_path / "file" / "i")
    assert str(caught.value) == (
        f"{tmp_path}/file: no index can be kept there: [Errno 17] File exists: '{tmp_path}/file'; name "
        "a folder with --index"
    )
