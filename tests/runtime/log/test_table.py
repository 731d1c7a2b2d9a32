"""Columns and pictures of a log, against the messages that it holds."""

from __future__ import annotations

import json
import sys

import msgpack
import numpy as np
import pytest

from flowrun.runtime.errors import LogError, UsageError
from flowrun.runtime.log.message import Topic
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.table import _column, arrow_table, make_table
from support.helpers import START_NS, plan_of, record
from support.log_bytes import Builder
from support.pictures import STEP_NS, record_pictures


def test_columns_have_the_types_of_the_fields(tmp_path):
    with Log(record_pictures(tmp_path, "limit: 3")) as log:
        table = log.table("/r/reading")
        messages = list(log.messages("/r/reading"))
    assert list(table) == [
        "cycle",
        "time_ns",
        "tov_ns",
        "count",
        "level",
        "ok",
        "name",
        "raw",
        "gap",
        "took_ms",
    ]
    kinds = {name: getattr(column, "dtype", list) for name, column in table.items()}
    assert kinds == {
        "cycle": np.int64,
        "time_ns": np.int64,
        "tov_ns": np.int64,
        "count": np.int64,
        "level": np.float64,
        "ok": np.bool_,
        "name": list,
        "raw": list,
        "gap": np.float64,
        "took_ms": np.float64,
    }
    assert table["cycle"].tolist() == [message.cycle for message in messages]
    assert table["time_ns"].tolist() == [message.time_ns for message in messages]
    assert table["tov_ns"].tolist() == [message.tov_ns for message in messages]
    for name in ("count", "level", "ok", "took_ms"):
        assert table[name].tolist() == [message.fields[name] for message in messages]
    assert table["name"] == ['no. "0",\n', 'no. "1",\n', 'no. "2",\n']
    assert table["raw"] == [b"\0", b"\1", b"\2"]
    np.testing.assert_array_equal(table["gap"], [0, np.nan, 2])
    assert table.left_out == {"words": "list"}


def test_arrays_and_pictures_are_left_out_by_name(tmp_path):
    with Log(record_pictures(tmp_path, "limit: 2")) as log:
        table = log.table("/c/image")
    assert table.left_out == {"pixels": "uint8 array"}
    assert list(table)[3:] == ["frame_id", "pts", "fps", "source", "pixel_aspect"]
    assert table["pts"] == [None, None]


def test_a_table_within_bounds(tmp_path):
    record(plan_of(tmp_path, "n=Numbers(limit: 9)"), tmp_path / "run")
    with Log(tmp_path / "run") as log:
        times = log.table("/n/number")["time_ns"]
        assert log.table("/n/number", 3, 6)["value"].tolist() == [3, 4, 5]
        found = log.table("/n/number", start_ns=int(times[2]), end_ns=int(times[4]))
        assert found["value"].tolist() == [2, 3]
        assert log.table("/n/number", 50)["cycle"].dtype == np.int64


def types_of(table):
    return {name: getattr(column, "dtype", list) for name, column in table.items()}


def test_a_table_without_messages_has_the_columns_of_the_schema(tmp_path):
    with Log(record_pictures(tmp_path, "limit: 1")) as log:
        for topic in ("/r/reading", "/c/image", "/flowrun/steps", "/flowrun/log"):
            whole, empty = log.table(topic), log.table(topic, 50)
            assert [len(column) for column in empty.values()] == [0] * len(empty)
            if len(whole["cycle"]):
                assert list(empty) == list(whole)
                assert empty.left_out == whole.left_out
        assert types_of(log.table("/r/reading", 50)) == types_of(log.table("/r/reading"))
        assert log.table("/c/image", 50)["pts"].dtype == np.int64
        assert list(log.table("/flowrun/log", 50)) == [
            "cycle",
            "time_ns",
            "tov_ns",
            "field.time_ns",
            "level",
            "message",
            "name",
        ]


@pytest.mark.parametrize(
    "schema",
    [
        b"{",
        b"[]",
        b'{"properties": 3}',
        b'{"properties": {"a": {"type": ["integer", "null"]}}}',
        b'{"properties": {"a": true}}',
        b'{"properties": {"a": {"anyOf": [true, 3]}}}',
    ],
)
def test_a_strange_schema_gives_an_empty_table_all_the_same(schema):
    topic = Topic("/a/b", "msgpack", "Strange", "jsonschema", schema, {})
    assert list(make_table([], topic))[:3] == ["cycle", "time_ns", "tov_ns"]


def test_an_empty_table_is_typed_in_arrow(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    with Log(record_pictures(tmp_path, "limit: 2")) as log:
        empty, whole = log.to_arrow("/r/reading", start=50), log.to_arrow("/r/reading")
    assert empty.schema == whole.schema
    assert empty.schema.field("raw").type == pyarrow.binary()


def table_of(tmp_path, *messages):
    builder = Builder()
    for number, fields in enumerate(messages):
        builder.cycle(number, 1000 + number, [(1, 1, msgpack.packb(fields))])
    path = tmp_path / "log_0000.mcap"
    path.write_bytes(builder.leave_open().data)
    with Log(path) as log:
        return log.table("/cam/image")


def test_fields_that_come_and_go_are_none(tmp_path):
    table = table_of(tmp_path, {"a": 1}, {"b": 2.5}, {"a": 3, "b": 1})
    assert table["a"] == [1, None, 3]
    np.testing.assert_array_equal(table["b"], [np.nan, 2.5, 1])


def test_integers_beyond_64_bits_signed_keep_their_value(tmp_path):
    table = table_of(tmp_path, {"big": 2**64 - 1, "mixed": -1}, {"big": 0, "mixed": 2**63})
    assert table["big"].dtype == np.uint64
    assert table["big"].tolist() == [2**64 - 1, 0]
    assert table["mixed"] == [-1, 2**63]


def test_a_field_that_is_once_a_list_is_left_out(tmp_path):
    table = table_of(tmp_path, {"a": 1}, {"a": [1]})
    assert "a" not in table
    assert table.left_out == {"a": "list"}


def test_fields_of_the_names_of_the_first_columns_stay(tmp_path):
    assert table_of(tmp_path, {"cycle": 7})["field.cycle"].tolist() == [7]


def test_table_of_an_unknown_topic_lists_those_there_are(tmp_path):
    record(plan_of(tmp_path, "n=Numbers(limit: 1)"), tmp_path / "run")
    with Log(tmp_path / "run") as log, pytest.raises(LogError) as caught:
        log.table("/n/nubmer")
    assert str(caught.value) == (
        f"{tmp_path / 'run'}: no topic '/n/nubmer'; topics: /n/number, /flowrun/steps, "
        "/flowrun/control, /flowrun/keyframe, /flowrun/log (did you mean '/n/number'?)"
    )


@pytest.mark.parametrize(("method", "package"), [("to_pandas", "pandas"), ("to_arrow", "pyarrow")])
def test_a_missing_package_is_named(tmp_path, monkeypatch, method, package):
    record(plan_of(tmp_path, "n=Numbers(limit: 1)"), tmp_path / "run")
    monkeypatch.setitem(sys.modules, package, None)
    with Log(tmp_path / "run") as log, pytest.raises(UsageError) as caught:
        getattr(log, method)("/n/number")
    assert str(caught.value) == (
        f"Log.{method} needs {package}: pip install 'flowrun-runtime[tables]'"
    )


def test_to_pandas_is_the_table(tmp_path):
    pandas = pytest.importorskip("pandas")
    with Log(record_pictures(tmp_path)) as log:
        table, frame = log.table("/r/reading", 1), log.to_pandas("/r/reading", start=1)
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame) == list(table)
    assert frame["count"].tolist() == table["count"].tolist()
    assert frame["name"].tolist() == table["name"]


def test_to_arrow_is_the_table(tmp_path):
    pytest.importorskip("pyarrow")
    with Log(record_pictures(tmp_path)) as log:
        table, arrow = log.table("/r/reading"), log.to_arrow("/r/reading")
    assert arrow.column_names == list(table)
    assert arrow["ok"].to_pylist() == table["ok"].tolist()
    assert arrow["raw"].to_pylist() == table["raw"]


# -- pictures ------------------------------------------------------------------------------------


def test_frames_are_read_only_views_of_the_file(tmp_path):
    with Log(record_pictures(tmp_path, "limit: 4")) as log:
        frames = list(log.frames("/c/image"))
        assert [frame.cycle for frame in frames] == [0, 1, 2, 3]
        assert frames[2].tov_ns == START_NS + 2 * STEP_NS + 14
        for number, (_, _, pixels) in enumerate(frames):
            assert (pixels.shape, pixels.dtype) == ((48, 64, 3), np.uint8)
            assert not pixels.flags.writeable
            assert not pixels.flags.owndata
            assert (pixels[:, :, 2] == 20 * number).all()
        assert [frame.cycle for frame in log.frames("/c/image", 1, 3)] == [1, 2]


def test_frames_of_a_topic_without_pictures(tmp_path):
    with (
        Log(record_pictures(tmp_path, "limit: 1")) as log,
        pytest.raises(LogError) as caught,
    ):
        log.frames("/r/reading")
    assert str(caught.value) == (
        f"{tmp_path / 'run'}: /r/reading: holds ReadingMsg, no pictures; "
        "topics with pictures: /c/image"
    )


def topic_of(**declared):
    schema = json.dumps({"properties": declared}).encode()
    return Topic("/a/b", "msgpack", "Any", "jsonschema", schema, {})


def test_the_columns_of_an_empty_table_by_what_the_schema_says():
    null = {"type": "null"}
    table = make_table(
        [],
        topic_of(
            whole={"type": "integer"},
            real={"type": "number"},
            truth={"type": "boolean"},
            text={"type": "string"},
            raw={"type": "string", "contentEncoding": "base64"},
            maybe={"anyOf": [{"type": "integer"}, null]},
            nothing_first={"anyOf": [null, {"type": "string"}]},
            either={"anyOf": [{"type": "integer"}, {"type": "string"}]},
            unsaid={},
            some={"type": "array"},
            plain={"type": "object"},
            pixels={
                "type": "object",
                "properties": {"dtype": {}, "shape": {}, "data": {}},
                "description": "uint8 array of 3 axes",
            },
            cycle={"type": "string"},
        ),
    )
    kinds = {name: getattr(column, "dtype", list) for name, column in table.items()}
    assert kinds == {
        "cycle": np.int64, "time_ns": np.int64, "tov_ns": np.int64, "whole": np.int64,
        "real": np.float64, "truth": np.bool_, "text": list, "raw": list, "maybe": np.int64,
        "nothing_first": list, "either": list, "unsaid": list, "field.cycle": list,
    }  # fmt: skip
    assert all(len(column) == 0 for column in table.values())
    assert table.left_out == {"some": "list", "plain": "map", "pixels": "uint8 array"}
    assert table.arrow_types == {
        "text": "string", "raw": "binary", "nothing_first": "string", "field.cycle": "string",
    }  # fmt: skip


def test_arrow_gets_the_types_of_empty_lists():
    class PyArrow:
        @staticmethod
        def array(values, type):  # noqa: A002 - pyarrow's name
            return values, type

        @staticmethod
        def table(columns):
            return columns

    made = arrow_table(make_table([], topic_of(text={"type": "string"})), PyArrow)
    assert made["text"] == ([], "string")
    assert made["cycle"].dtype == np.int64


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([], np.int64), ([1, 2], np.int64), ([-(2**63), 2**63 - 1], np.int64),
        ([0, 2**63], np.uint64), ([2**64 - 1], np.uint64), ([-1, 2**63], list), ([2**64], list),
        ([-(2**63) - 1], list), ([True, False], np.bool_), ([True, 1], list),
        ([1.5, 2], np.float64), ([1.5, None], np.float64), ([1, None], list), ([None], list),
        ([1.5, True], list), (["a"], list), ([1.5, "a"], list),
    ],
)  # fmt: skip
def test_the_type_of_a_column_holds_all_its_values(values, kind):
    column = _column(values)
    assert getattr(column, "dtype", list) == kind
    for value, kept in zip(values, column, strict=True):
        assert kept == value or (value is None and (kept is None or np.isnan(kept)))


def test_fields_that_are_left_out_say_what_of(tmp_path):
    array = {"dtype": "<i2", "shape": [2], "data": bytes(4)}
    table = table_of(
        tmp_path,
        {"a": [1], "b": {"x": 1}, "c": array, "d": b"raw", "e": 1},
        {"a": {"y": 2}, "e": [1], "f": 7, "d": b""},
    )
    assert table.left_out == {"a": "list", "b": "map", "c": "int16 array", "e": "list"}
    assert list(table)[3:] == ["d", "f"]
    assert (table["d"], table["f"]) == ([b"raw", b""], [None, 7])
