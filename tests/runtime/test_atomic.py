"""Names of files that come from somebody else's log."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrun.runtime.atomic import file_name
from flowrun.runtime.export.cases import Case


@given(st.text())
def test_a_name_of_any_text_is_one_file_of_the_folder(text: str) -> None:
    name = file_name(text)
    path = Path("/folder") / f"{name}.png"
    assert path.parent == Path("/folder")
    assert (Path("/folder") / name).resolve() == Path("/folder", name)
    assert 0 < len(name.encode()) <= 120
    assert "\0" not in name


@pytest.mark.parametrize("text", ["cam0", "front_door", "tür", "run-20260301T081502Z", "a.b"])
def test_an_ordinary_id_stays_as_it_is(text: str) -> None:
    assert file_name(text) == text


def test_the_folder_of_an_alert_is_in_that_of_its_run() -> None:
    case = Case("/x/alert", "x/../../../victim", 3, 0, {})
    assert case.name == "00000003-x-..-..-..-victim"
