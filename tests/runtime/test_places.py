"""Where in the user's own code an error was raised."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path

import pytest

from flowrun.runtime.places import explained, place_of

HELPER = """\
import json

def find(table):
    return table["boxes"]

def parse(text):
    return json.loads(text)

def chained(text):
    try:
        return find({})
    except KeyError as error:
        raise RuntimeError("no boxes") from error

def grouped(text):
    errors = []
    for call in (find, parse):
        try:
            call({})
        except Exception as error:
            errors.append(error)
    raise ExceptionGroup("two failed", errors)
"""


@pytest.fixture
def helper(tmp_path, monkeypatch):
    """A module of a user's, in the working directory."""
    (tmp_path / "places_helper.py").write_text(HELPER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("places_helper")
    del sys.modules["places_helper"]


def raised(call, *args):
    try:
        call(*args)
    except Exception as error:  # noqa: BLE001
        return error
    raise AssertionError("did not raise")


def test_the_deepest_line_of_the_user_is_named(helper):
    place = place_of(raised(helper.find, {}))
    assert str(place) == 'places_helper.py:4, in find: return table["boxes"]'


def test_libraries_are_passed_over(helper):
    error = raised(helper.parse, "{")
    assert str(place_of(error)) == "places_helper.py:7, in parse: return json.loads(text)"


def test_an_error_of_a_library_alone_has_no_place(monkeypatch):
    error = raised(json.loads, "{")
    error.__traceback__ = error.__traceback__.tb_next  # without this test
    assert place_of(error) is None
    assert explained(error) == []


def test_the_causes_are_named_with_their_places(helper):
    assert explained(raised(helper.chained, "")) == [
        'at places_helper.py:13, in chained: raise RuntimeError("no boxes") from error',
        "caused by KeyError: 'boxes', at places_helper.py:4, in find: return table[\"boxes\"]",
    ]


def test_the_errors_of_a_group_are_named_with_their_places(helper):
    lines = explained(raised(helper.grouped, ""))
    assert lines[0].startswith("at places_helper.py:22, in grouped: ")
    assert lines[1:3] == [
        "one of 2: KeyError: 'boxes'",
        '  at places_helper.py:4, in find: return table["boxes"]',
    ]
    assert re.match("one of 2: TypeError: ", lines[3])
    assert lines[4] == "  at places_helper.py:7, in parse: return json.loads(text)"


def test_a_syntax_error_is_where_the_module_has_it(helper):
    Path("places_broken.py").write_text("x = 1\ndef f(:\n    pass\n")
    assert str(place_of(raised(__import__, "places_broken"))) == "places_broken.py:2: def f(:"


def test_a_chain_that_is_a_circle_ends(helper):
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert explained(first) == ["caused by ValueError: b"]
