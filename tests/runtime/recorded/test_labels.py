"""The labels of a run: what is written is what is read, and the last line about an answer counts."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrun.runtime.errors import LogError, LogNotFound
from flowrun.runtime.recorded.labels import LABELS_NAME, Label, Labels, labels_of, read_labels

WRONG = Label(7, "says", "wrong", "a cat", "", 1, 2, "a dog", "what?", 6)
texts = st.text(max_size=30)
labels = st.builds(
    Label,
    cycle=st.integers(0, 2**40),
    task=st.sampled_from(["", "a", "b"]),
    label=texts,
    expected=texts
    | st.lists(st.integers(-9, 9))
    | st.fixed_dictionaries({"boxes": st.just([[1.5, 2, 3, 4]])}),
    note=texts,
    at_ns=st.integers(0, 2**62),
    made_ns=st.integers(0, 2**62),
    answer=texts,
    prompt=texts,
    frame_cycle=st.none() | st.integers(0, 2**40),
    field=texts,
    who=texts,
)


@settings(max_examples=20)
@given(st.lists(labels, max_size=5))
def test_lines_are_read_as_they_were_written(tmp_path_factory, made):
    directory = tmp_path_factory.mktemp("labels")
    for label in made:
        Labels(directory).add(label)
    assert read_labels(directory / LABELS_NAME) == (made, [])


def test_the_last_line_about_an_answer_counts(tmp_path):
    found = Labels(tmp_path)
    assert found.all() == []
    other = replace(WRONG, task="", cycle=3)
    for label in (WRONG, other, replace(WRONG, label="right"), replace(other, label="")):
        found.add(label)
    assert found.all() == [replace(WRONG, label="right")]


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        (
            {"boxes": [[1, 2, 3]], "labels": ["a"]},
            (
                "boxes are lists of left, top, right and bottom in pixels, such as "
                '{"boxes": [[10, 20, 110, 220]], "labels": ["person"]}'
            ),
        ),
        ({"labels": "cat"}, "labels are a list of texts, one for each box"),
        ({"boxes": [[1, 2, 3, 4]], "labels": ["a", "b"]}, "1 boxes, but 2 labels"),
    ],
)
def test_boxes_that_are_none_make_no_label(tmp_path, expected, said):
    found = Labels(tmp_path)
    found.add(replace(WRONG, expected=expected))
    assert read_labels(found.path) == ([], [f"{found.path}:1: not a label: expected: {said}"])


def test_a_line_that_was_cut_off_costs_only_itself(tmp_path):
    found = Labels(tmp_path)
    found.add(WRONG)
    found.path.write_bytes(found.path.read_bytes() + b'{"cycle": 12')
    assert found.all() == [WRONG]
    found.add(replace(WRONG, cycle=9))
    assert found.all() == [WRONG, replace(WRONG, cycle=9)]
    [problem] = read_labels(found.path)[1]
    assert problem.startswith(f"{found.path}:2: not a label: ")


@pytest.mark.parametrize("ends", [b"", b"\n", b"\r\n"])
def test_a_file_of_another_program_is_read(tmp_path, ends):
    (tmp_path / LABELS_NAME).write_bytes(
        b"\xef\xbb\xbf" + '{"cycle": 1, "expected": "ein weißes Kreuz"}'.encode() + b"\r\n\r\n"
        b'{"cycle": 2, "label": "right"}' + ends
    )
    found, problems = read_labels(tmp_path / LABELS_NAME)
    assert [(it.cycle, it.expected, it.label) for it in found] == [
        (1, "ein weißes Kreuz", "wrong"),
        (2, "", "right"),
    ]
    assert problems == []


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("[1]", "a list; expected an object"),
        ('{"cycle": true}', "cycle: expected a whole number, got True"),
        ('{"cycle": 1, "task": 2}', "task: expected a text, got 2"),
        ('{"cycle": 1, "at_ns": "x"}', "at_ns: expected a whole number, got 'x'"),
    ],
)
def test_a_line_that_is_no_label_is_named(tmp_path, line, why):
    (tmp_path / LABELS_NAME).write_text(f"\n{line}\n")
    assert read_labels(tmp_path / LABELS_NAME) == (
        [],
        [f"{tmp_path / LABELS_NAME}:2: not a label: {why}"],
    )


def test_writers_at_the_same_time_lose_nothing(tmp_path):
    def write(who: str) -> None:
        for cycle in range(10):
            Labels(tmp_path).add(replace(WRONG, cycle=cycle, who=who))

    threads = [threading.Thread(target=write, args=(who,)) for who in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found, problems = read_labels(tmp_path / LABELS_NAME)
    assert problems == []
    assert sorted((it.who, it.cycle) for it in found) == [(w, c) for w in "abcd" for c in range(10)]


def test_a_file_for_several_runs_names_them(tmp_path):
    run, file = tmp_path / "run", tmp_path / "all.jsonl"
    lines = [
        {"cycle": 1, "label": "right", "run": "run-7"},
        {"cycle": 2, "label": "right", "run": "run"},
        {"cycle": 3, "label": "right", "run": "other"},
        {"cycle": 4, "label": "right"},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found, _ = labels_of(run, "run-7", file)
    assert sorted(it.cycle for it in found) == [1, 2, 4]
    with pytest.raises(LogNotFound, match="^nothing.jsonl: there is no such file$"):
        labels_of(run, "run-7", Path("nothing.jsonl"))


def test_labels_that_cannot_be_written_are_an_error(tmp_path):
    (tmp_path / LABELS_NAME).mkdir()
    with pytest.raises(LogError) as error:
        Labels(tmp_path).add(WRONG)
    assert str(error.value) == f"{tmp_path / LABELS_NAME}: cannot be written: Is a directory"
