"""`log["task.port"]`: the messages of a topic, by cycle, by time, as tables, in notebooks."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from flowrun.runtime.errors import LogNotFound, UsageError
from flowrun.runtime.log.reader import Log
from support.helpers import START_NS, plan_of, record


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    plan = plan_of(
        folder,
        "n=Numbers(limit: 50); even=Evens; cam=pictures.Camera(limit: 50)",
        "n > even",
    )
    record(plan, folder / "run", step_ns=100_000_000)
    with Log(folder / "run") as log:
        yield log


def values(found):
    return [message.fields["value"] for message in found]


@pytest.mark.parametrize("name", ["/even/even", "even.even", "even"])
def test_a_topic_is_found_by_each_of_its_names(log, name):
    topic = log[name]
    assert values(topic) == list(range(0, 50, 2))
    assert len(topic) == 25
    assert topic.name == "/even/even"
    assert topic.topic.schema_name == "IntMsg"


def test_an_unknown_topic_names_the_nearest(log):
    with pytest.raises(
        LogNotFound, match=r"no topic 'evn\.even'; .* \(did you mean 'even\.even'\?\)$"
    ):
        log["evn.even"]


def test_slices_are_cycles(log):
    topic = log["even"]
    assert values(topic[10:15]) == [10, 12, 14]
    assert values(topic[10:][:13]) == [10, 12]
    count = len(log)
    assert values(topic[48 - count :]) == [48]
    assert values(topic[: 4 - count]) == [0, 2]
    assert topic[4].fields["value"] == 4
    with pytest.raises(AttributeError, match=r"; a field is message\.fields\['value'\]$"):
        topic[4].value  # noqa: B018
    with pytest.raises(AttributeError, match=r"; fields: value \(did you mean 'value'\?\)$"):
        topic[4].valeu  # noqa: B018
    assert topic[np.int64(4)].cycle == 4
    assert values(topic[60:]) == []
    assert bool(topic[10:11])
    assert not topic[11:12]
    with pytest.raises(
        LogNotFound, match=r"/even has no message in cycle 5; the next one is in 6$"
    ):
        topic[5]
    with pytest.raises(LogNotFound, match=r" has no message in cycle 11; no later one has one$"):
        topic[:12][11]
    with pytest.raises(TypeError, match=r"^/even/even\[::2\]: a range of cycles has no step$"):
        topic[::2]


def test_negative_numbers_count_from_the_last_cycle(log):
    count = len(log)
    assert [log[-1].cycle, log[-count].cycle] == [count - 1, 0]
    assert log["n"][-count].cycle == 0
    assert log["n"][-count + 3].cycle == 3
    assert values(log["n"][-count - 9 : 2 - count]) == values(log["n"][:2])
    with pytest.raises(LogNotFound, match=rf"cycle -{count + 1} is not in the log$"):
        log[-count - 1]
    with pytest.raises(LogNotFound, match=rf"no message in cycle -{count + 1}; the next one is"):
        log["n"][-count - 1]


def test_times_are_seconds_since_the_beginning_or_moments(log):
    topic, all_times = log["n"], [message.time_ns for message in log["n"]]
    began = all_times[0]
    at = [(time - began) / 1e9 for time in all_times]
    middle = at[20]
    assert values(topic.between(middle, None)) == list(range(20, 50))
    assert values(topic.between(0, middle)) == list(range(20))
    assert values(topic.between(middle, at[25])[22:]) == [22, 23, 24]
    moment = datetime.fromtimestamp(START_NS // 10**9, UTC)
    assert values(topic.between(moment, None)) == list(range(50))
    assert values(topic.between(None, moment)) == []


@pytest.mark.parametrize("wrong", ["0:10", float("nan"), np.datetime64(0, "s")])
def test_another_time_is_refused(log, wrong):
    with pytest.raises(TypeError) as raised:
        log["n"].between(wrong, None)
    assert str(raised.value) == (
        f"between({wrong!r}): expected seconds since the first cycle, a datetime, or None"
    )


@pytest.mark.parametrize("wrong", ["value", 1.5])
def test_another_cycle_is_refused(log, wrong):
    for given in wrong, slice(wrong, None):
        with pytest.raises(TypeError) as raised:
            log["n"][given]
        assert str(raised.value) == f"/n/number[{wrong!r}]: a cycle is found by its number"


def test_a_topic_is_a_table(log):
    table = log["even"][10:15].table
    assert table["value"].tolist() == [10, 12, 14]
    assert list(table) == ["cycle", "time_ns", "tov_ns", "value"]


@pytest.mark.long
def test_a_topic_is_a_data_frame_of_each_library(log):
    pytest.importorskip("pandas")
    assert log["even"].df["value"].sum() == sum(range(0, 50, 2))


@pytest.mark.long
def test_a_topic_is_a_data_frame_of_polars(log):
    pytest.importorskip("polars")
    assert log["even"].pl["value"].sum() == sum(range(0, 50, 2))


def test_a_library_that_is_missing_is_named(log, monkeypatch):
    for name in ("pandas", "polars", "pyarrow"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(
        UsageError, match=r"^Table\.df needs pandas: pip install 'flowrun-runtime\["
    ):
        _ = log["even"].df
    with pytest.raises(UsageError, match=r"^Table\.pl needs polars: pip install polars$"):
        _ = log["even"].pl
    with pytest.raises(UsageError, match=r"^LogTopic\.arrow needs pyarrow: pip install"):
        _ = log["even"].arrow


def test_timings_are_those_of_the_step_table(log):
    timings = log.timings(start=5, end=9)
    assert list(timings) == ["cycle", "time_ns", "cycle_ms", "n_ms", "cam_ms", "even_ms"]
    assert timings["cycle"].tolist() == [5, 6, 7, 8]
    parts = timings["n_ms"] + timings["cam_ms"] + timings["even_ms"]
    assert np.allclose(parts, timings["cycle_ms"])
    assert (timings["cycle_ms"] > 0).all()
    assert list(log.timings(start=99)) == list(timings)


def test_a_notebook_shows_the_log_and_what_it_gives(log):
    assert "/even/even" in log._repr_html_()
    assert "end of sources" in log._repr_html_()
    assert ">14</td>" in log["even"][10:15]._repr_html_()
    assert "<img" in log["cam"]._repr_html_()
    assert "25 rows; the first 20" in log["even"].table._repr_html_()
    message, frame = log["cam"][3], next(log.frames("/cam/image"))
    assert message._repr_png_().startswith(b"\x89PNG")
    assert frame._repr_png_().startswith(b"\x89PNG")
    assert log["n"][3]._repr_png_() is None
    assert "<img" in message._repr_html_()
    assert "<img" in frame._repr_html_()
