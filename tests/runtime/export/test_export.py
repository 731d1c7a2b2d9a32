"""Each export, read back by a reader of its own and compared with the log."""

from __future__ import annotations

import base64
import csv
import io
import json

import av
import msgpack
import numpy as np
import pytest
from mcap.reader import make_reader

from flowrun.runtime.atomic import whole_file
from flowrun.runtime.clock import ManualClock
from flowrun.runtime.errors import LogError, UsageError
from flowrun.runtime.export.mcap import export_mcap
from flowrun.runtime.export.mp4 import export_mp4
from flowrun.runtime.export.selection import Selection
from flowrun.runtime.export.text import export_csv, export_jsonl, export_parquet
from flowrun.runtime.export.trace import export_trace
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.writer import LogWriter
from flowrun.runtime.run.live import Run
from support import helpers
from support.helpers import plan_of, record
from support.log_bytes import Builder
from support.pictures import record_pictures

ALL = Selection()

# -- JSON lines ----------------------------------------------------------------------------------


def jsonl(directory, selection=ALL, **options):
    stream = io.StringIO()
    with Log(directory) as log:
        report = export_jsonl(log, selection, stream, **options)
    return report, [json.loads(line) for line in stream.getvalue().splitlines()]


def test_jsonl_has_a_line_a_message(tmp_path):
    directory = record_pictures(tmp_path, "limit: 3")
    report, lines = jsonl(directory)
    with Log(directory) as log:
        messages = list(log.messages())
        assert (report.count, report.unreadable, report.notes) == (len(messages), 0, [])
        for line, message in zip(lines, messages, strict=True):
            assert list(line) == ["topic", "cycle", "time_ns", "tov_ns", "fields"]
            assert (line["topic"], line["cycle"]) == (message.topic, message.cycle)
            assert (line["time_ns"], line["tov_ns"]) == (message.time_ns, message.tov_ns)
            assert list(line["fields"]) == list(message.fields)
    readings = [line["fields"] for line in lines if line["topic"] == "/r/reading"]
    assert readings[2] == {
        "count": 2,
        "level": 1.0,
        "ok": True,
        "name": 'no. "2",\n',
        "raw": "Ag==",
        "gap": 2.0,
        "words": ["a", "a"],
        "took_ms": 1.0,
    }


def test_jsonl_holds_pixels_only_when_asked(tmp_path):
    directory = record_pictures(tmp_path, "limit: 2")
    only = Selection(("/c/image",))
    _, lines = jsonl(directory, only)
    assert [line["fields"]["pixels"] for line in lines] == [
        {"dtype": "|u1", "shape": [48, 64, 3]}
    ] * 2
    _, lines = jsonl(directory, only, pixels=True)
    with Log(directory) as log:
        for line, frame in zip(lines, log.frames("/c/image"), strict=True):
            assert base64.b64decode(line["fields"]["pixels"]["data"]) == frame.pixels.tobytes()


def test_jsonl_holds_other_arrays(tmp_path):
    record(plan_of(tmp_path, "n=Numbers(limit: 3); z=Noise", "n > z"), tmp_path / "run")
    _, lines = jsonl(tmp_path / "run", Selection(("/z/noise",)))
    with Log(tmp_path / "run") as log:
        grids = [message.fields["grid"] for message in log.messages("/z/noise")]
    for line, grid in zip(lines, grids, strict=True):
        found = line["fields"]["grid"]
        assert (found["dtype"], found["shape"]) == ("<f4", list(grid.shape))
        assert base64.b64decode(found["data"]) == grid.tobytes()


def built(tmp_path, *payloads):
    builder = Builder()
    for number, payload in enumerate(payloads):
        builder.cycle(number, 1000 + number, [(1, 1, payload)])
    path = tmp_path / "log_0000.mcap"
    path.write_bytes(builder.leave_open().data)
    return path


def test_jsonl_of_what_json_lacks(tmp_path):
    value = [float("nan"), float("inf"), float("-inf"), msgpack.ExtType(5, b"x"), {7: None}]
    _, lines = jsonl(built(tmp_path, msgpack.packb({"a": value})))
    assert lines[0]["fields"]["a"] == [
        "NaN",
        "Infinity",
        "-Infinity",
        "ExtType(code=5, data=b'x')",
        {"7": None},
    ]


def test_jsonl_says_which_message_cannot_be_decoded_and_goes_on(tmp_path):
    path = built(tmp_path, b"\xc1", msgpack.packb({"a": 1}))
    report, (first, second) = jsonl(path)
    assert report.unreadable == 1
    assert first["error"].startswith(f"{path}: cycle 0: /cam/image: the payload of 1 bytes is not ")
    assert second["fields"] == {"a": 1}


# -- CSV -----------------------------------------------------------------------------------------


def test_csv_has_the_scalar_columns_of_a_topic(tmp_path):
    directory = record_pictures(tmp_path, "limit: 3")
    stream = io.StringIO()
    with Log(directory) as log:
        report = export_csv(log, Selection(("/r/reading",)), stream)
        table = log.table("/r/reading")
    header, *rows = csv.reader(io.StringIO(stream.getvalue()))
    assert header == list(table)
    assert [row[3:] for row in rows] == [
        ["0", "0.0", "true", 'no. "0",\n', "AA==", "0.0", "1.0"],
        ["1", "0.5", "false", 'no. "1",\n', "AQ==", "nan", "1.0"],
        ["2", "1.0", "true", 'no. "2",\n', "Ag==", "2.0", "1.0"],
    ]
    assert [int(row[2]) for row in rows] == table["tov_ns"].tolist()
    assert report.count == 3
    assert report.notes == ["left out, as csv holds one value a cell: words (list)"]


def test_csv_of_several_topics_is_refused(tmp_path):
    directory = record_pictures(tmp_path, "limit: 1")
    with Log(directory) as log, pytest.raises(UsageError) as caught:
        export_csv(log, Selection(), io.StringIO())
    assert str(caught.value) == (
        f"{directory}: csv holds one topic; choose one: /c/image, /r/reading"
    )


def test_parquet_is_the_table(tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow.parquet

    directory = record_pictures(tmp_path)
    with Log(directory) as log:
        export_parquet(log, Selection(("/r/reading",)), tmp_path / "x.parquet")
        table = log.table("/r/reading")
    found = pyarrow.parquet.read_table(tmp_path / "x.parquet")
    assert found.column_names == list(table)
    assert found["name"].to_pylist() == table["name"]


# -- MCAP ----------------------------------------------------------------------------------------


def test_mcap_holds_the_messages_of_all_slabs(tmp_path):
    """Slabs of 4 MiB, pictures of 0.6 MiB."""
    directory = record_pictures(tmp_path, "limit: 20, width: 640, height: 320")
    path = tmp_path / "out.mcap"
    with Log(directory) as log:
        assert len(log.slabs) > 1
        report = export_mcap(log, Selection(), path)
        wanted = [(m.topic, m.time_ns, m.tov_ns, m.cycle, bytes(m.payload)) for m in log.messages()]
        metadata, end, attachments = log.metadata, log.end, log.attachments
        topics = log.topics
    assert report.count == len(wanted)
    assert report.notes == []
    with path.open("rb") as file:
        reader = make_reader(file)
        found = [
            (channel.topic, message.log_time, message.publish_time, message.sequence, message.data)
            for _, channel, message in reader.iter_messages(log_time_order=False)
        ]
        summary = reader.get_summary()
        texts = {item.name: item.metadata for item in reader.iter_metadata()}
        files = {item.name: item.data for item in reader.iter_attachments()}
    assert found == wanted
    assert texts == {"flowrun": metadata, "flowrun.end": end}
    assert files == attachments
    assert {channel.topic for channel in summary.channels.values()} == set(topics)
    schemas = {item.name: item.data for item in summary.schemas.values()}
    assert schemas["foxglove.RawImage"] == topics["/c/image"].schema
    assert {index.compression for index in summary.chunk_indexes} == {"zstd"}
    assert path.stat().st_size < sum(len(data) for *_, data in wanted) / 4


def test_mcap_has_no_private_records(tmp_path):
    record(plan_of(tmp_path, "n=Numbers(limit: 5)"), tmp_path / "run")
    path = tmp_path / "out.mcap"
    with Log(tmp_path / "run") as log:
        export_mcap(log, Selection(("/n/number",), {"start": 1, "end": 4}), path)
    data, offset, opcodes = path.read_bytes(), 8, set()
    while offset < len(data) - 8:
        opcodes.add(data[offset])
        offset += 9 + int.from_bytes(data[offset + 1 : offset + 9], "little")
    assert max(opcodes) < 0x80
    with path.open("rb") as file:
        found = [message.sequence for _, _, message in make_reader(file).iter_messages()]
    assert found == [1, 2, 3]


# -- trace ---------------------------------------------------------------------------------------


def trace_of(directory, selection=ALL):
    stream = io.StringIO()
    with Log(directory) as log:
        report = export_trace(log, selection, stream)
        ticks = [
            np.frombuffer(message.fields["ticks_ns"], "<u8").tolist()
            for message in log.messages("/flowrun/steps")
        ]
    return report, json.loads(stream.getvalue()), ticks


def test_trace_has_a_slice_for_each_cycle_and_the_tasks_in_it(tmp_path):
    record(
        plan_of(tmp_path, "n=Numbers(limit: 3); x=Scale; s=Sum", "n > x; x > s.a"), tmp_path / "run"
    )
    report, trace, ticks = trace_of(tmp_path / "run")
    assert (report.count, report.notes) == (4, [])
    assert trace["otherData"]["run_id"] == "run"
    head, thread, *events = trace["traceEvents"]
    assert (head["ph"], head["args"]) == ("M", {"name": "flowrun g"})
    assert (thread["ph"], thread["args"]) == ("M", {"name": "cycles"})
    slices = [event for event in events if event["ph"] == "X"]
    assert [event["name"] for event in slices[:5]] == ["cycle 0", "n", "x", "s", "cycle 1"]
    assert len(slices) == 16
    origin = ticks[0][0]
    for cycle, found in enumerate(ticks):
        whole, *steps = slices[4 * cycle : 4 * cycle + 4]
        assert whole["args"]["cycle"] == cycle
        assert whole["ts"] == (found[0] - origin) / 1e3
        assert whole["dur"] == (found[-1] - found[0]) / 1e3
        for step, begin, end in zip(steps, found, found[1:], strict=False):
            assert (step["ts"], step["dur"]) == ((begin - origin) / 1e3, (end - begin) / 1e3)
        assert {event["tid"] for event in (whole, *steps)} == {1}
    last = events[-1]
    assert (last["ph"], last["name"]) == ("i", "end_of_source n")
    assert last["args"] == {"cycle": 3}


def test_trace_of_a_background_task_runs_from_its_input_to_its_result(tmp_path):
    plan = plan_of(tmp_path, "n=Hooked(limit: 4); s=Slow!", "n > s")
    live = Run(plan, clock=ManualClock(1, step_ns=10), directory=tmp_path / "run")

    def hook(number):
        if number == 1:
            assert helpers.Slow.began.acquire(timeout=240)
            live.set_live("s", {"word": "heard"})
        if number == 4:
            helpers.Slow.gate.release(2)

    helpers.Hooked.hook = hook
    live.run()
    _, trace, ticks = trace_of(tmp_path / "run")
    begins = [event for event in trace["traceEvents"] if event["ph"] == "b"]
    ends = [event for event in trace["traceEvents"] if event["ph"] == "e"]
    assert [event["id"] for event in begins] == [event["id"] for event in ends]
    first = begins[0]
    assert (first["name"], first["cat"]) == ("s", "background")
    assert first["args"]["input_cycle"] == 0
    assert first["ts"] == 0
    result = first["args"]["result_cycle"]
    assert ends[0]["ts"] == (ticks[result][0] - ticks[0][0]) / 1e3
    names = [event["name"] for event in trace["traceEvents"] if event["ph"] == "i"]
    assert "set s.word" in names


def test_steps_are_named_where_the_classes_of_the_graph_are_gone(tmp_path, monkeypatch):
    record(plan_of(tmp_path, "n=Numbers(limit: 1); x=Scale", "n > x"), tmp_path / "run")
    monkeypatch.delattr(helpers, "Scale")
    report, trace, _ = trace_of(tmp_path / "run")
    assert [event["name"] for event in trace["traceEvents"][2:5]] == ["cycle 0", "n", "x"]
    assert report.notes == []


@pytest.mark.parametrize("metadata", [{}, {"steps": "n"}])
def test_steps_that_the_log_does_not_name_are_numbered(tmp_path, metadata):
    writer = LogWriter(tmp_path / "run", outputs=[], steps=2, metadata=metadata)
    writer.commit(0, 7, writer.bind([]), start_ns=1, ends_ns=[2, 3], events=[])
    writer.finish({"reason": "test"})
    report, trace, _ = trace_of(tmp_path / "run")
    assert [event["name"] for event in trace["traceEvents"][2:5]] == ["cycle 0", "step 0", "step 1"]
    assert report.notes == ["steps are numbered: the log does not name the tasks of the plan"]


# -- film ----------------------------------------------------------------------------------------


def film(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        return stream, frames


def test_mp4_plays_the_pictures_at_their_own_times(tmp_path):
    directory = record_pictures(tmp_path, "limit: 12")
    path = tmp_path / "x.mp4"
    with Log(directory) as log:
        report = export_mp4(log, Selection(), path)
        recorded = [(frame.tov_ns, frame.pixels.copy()) for frame in log.frames("/c/image")]
    assert (report.count, report.notes) == (12, [])
    stream, frames = film(path)
    assert stream.codec_context.name == "h264"
    assert stream.codec_context.pix_fmt == "yuv420p"
    assert len(frames) == 12
    for frame, (tov_ns, pixels) in zip(frames, recorded, strict=True):
        assert round(frame.time * 1e6) == (tov_ns - recorded[0][0]) // 1000
        found = frame.to_ndarray(format="rgb24").astype(int)
        assert np.abs(found - pixels).mean() < 4


def test_mp4_cuts_odd_sizes_and_says_so(tmp_path):
    directory = record_pictures(tmp_path, "limit: 2, width: 65, height: 49")
    with Log(directory) as log:
        report = export_mp4(log, Selection(("/c/image",)), tmp_path / "x.mp4")
    assert report.notes == ["H.264 needs even sizes: 65x49 is cut to 64x48"]
    _, frames = film(tmp_path / "x.mp4")
    assert (frames[0].width, frames[0].height) == (64, 48)


def test_mp4_of_pictures_of_another_size_says_where(tmp_path):
    directory = record_pictures(tmp_path, "changes_at: 2")
    with Log(directory) as log, pytest.raises(LogError) as caught:
        export_mp4(log, Selection(), tmp_path / "x.mp4")
    assert str(caught.value) == (
        f"{directory}: cycle 2: /c/image: a picture of 32x48 after those of 64x48; a film has one "
        "size: begin with cycle 2, or end before it"
    )


def test_mp4_without_a_picture(tmp_path):
    directory = record_pictures(tmp_path, "limit: 2")
    with Log(directory) as log, pytest.raises(LogError) as caught:
        export_mp4(log, Selection(None, {"start": 90}), tmp_path / "x.mp4")
    assert str(caught.value) == f"{directory}: /c/image: no picture in the selected cycles"


def test_mp4_of_a_log_without_pictures(tmp_path):
    record(plan_of(tmp_path, "n=Numbers(limit: 1)"), tmp_path / "run")
    with Log(tmp_path / "run") as log, pytest.raises(UsageError) as caught:
        export_mp4(log, Selection(), tmp_path / "x.mp4")
    assert str(caught.value) == f"{tmp_path / 'run'}: the log has no topic that mp4 can hold"


def test_mp4_of_times_that_do_not_grow(tmp_path, monkeypatch):
    monkeypatch.setattr("support.pictures.STEP_NS", 0)
    directory = record_pictures(tmp_path, "limit: 4")
    with Log(directory) as log:
        report = export_mp4(log, Selection(), tmp_path / "x.mp4")
    assert report.notes == [
        "3 pictures were not taken later than the one before: 1 us after it instead"
    ]
    _, frames = film(tmp_path / "x.mp4")
    assert [round(frame.time * 1e6) for frame in frames] == [0, 1, 2, 3]


# -- files ---------------------------------------------------------------------------------------


def test_an_interrupted_export_leaves_what_was_there(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("before")

    def export():
        with whole_file(path) as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export()
    assert [item.name for item in tmp_path.iterdir()] == ["out.txt"]
    assert path.read_text() == "before"


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    path = tmp_path / "no such" / "out.txt"
    with pytest.raises(LogError) as caught, whole_file(path) as part:
        part.write_text("x")
    assert str(caught.value) == f"{path}: cannot be written: No such file or directory"
