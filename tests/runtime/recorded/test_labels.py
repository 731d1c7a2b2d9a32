"""The labels of a run: what is written is what is read, and the last line about an answer counts."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrun.runtime.errors import LogDamaged, LogError
from flowrun.runtime.recorded.labels import LABELS_NAME, Label, Labels, read_labels

WRONG = Label(7, "says", "wrong", "a cat", "", 1, 2, "a dog", "what?", 6)
texts = st.text(max_size=30)
labels = st.builds(
    Label,
    cycle=st.integers(0, 2**40),
    task=st.sampled_from(["", "a", "b"]),
    label=texts,
    expected=texts,
    note=texts,
    at_ns=st.integers(0, 2**62),
    made_ns=st.integers(0, 2**62),
    answer=texts,
    prompt=texts,
    frame_cycle=st.none() | st.integers(0, 2**40),
)


@settings(max_examples=20)
@given(st.lists(labels, max_size=5))
def test_lines_are_read_as_they_were_written(tmp_path_factory, made):
    directory = tmp_path_factory.mktemp("labels")
    for label in made:
        Labels(directory).add(label)
    assert read_labels(directory / LABELS_NAME) == made


def test_the_last_line_about_an_answer_counts(tmp_path):
    found = Labels(tmp_path)
    assert found.all() == []
    other = replace(WRONG, task="", cycle=3)
    for label in (WRONG, other, replace(WRONG, label="right"), replace(other, label="")):
        found.add(label)
    assert found.all() == [replace(WRONG, label="right")]


def test_a_line_that_was_cut_off_costs_only_itself(tmp_path):
    found = Labels(tmp_path)
    found.add(WRONG)
    found.path.write_bytes(found.path.read_bytes() + b'{"cycle": 12')
    assert found.all() == [WRONG]
    found.add(replace(WRONG, cycle=9))
    with pytest.raises(LogDamaged) as error:
        found.all()
    assert str(error.value).startswith(f"{found.path}:2: not a label: ")


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
    with pytest.raises(LogDamaged) as error:
        Labels(tmp_path).all()
    assert str(error.value) == f"{tmp_path / LABELS_NAME}:2: not a label: {why}"


def test_labels_that_cannot_be_written_are_an_error(tmp_path):
    (tmp_path / LABELS_NAME).mkdir()
    with pytest.raises(LogError) as error:
        Labels(tmp_path).add(WRONG)
    assert str(error.value) == f"{tmp_path / LABELS_NAME}: cannot be written: Is a directory"
