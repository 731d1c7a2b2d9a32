"""`--to rerun`, and what `--to foxglove` is to Rerun, read back by Rerun's own readers."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from flowrun.runtime.clock import ManualClock
from flowrun.runtime.errors import UsageError
from flowrun.runtime.events import (
    Completion,
    Dropped,
    Failed,
    Replaced,
    Restarted,
    SourceState,
    Switched,
)
from flowrun.runtime.export.foxglove import export_foxglove
from flowrun.runtime.export.rerun import control_line, export_rerun
from flowrun.runtime.export.selection import Selection
from flowrun.runtime.log.reader import Log
from flowrun.runtime.run.live import Run
from support import helpers
from support.films import FILMS, FRAMES, decoded, draw, pictures, recorded

WHY = "rerun-sdk is 170 MB, not in the dev extra: pip install -e '.[viewers]'"


@pytest.fixture
def chunk():
    return pytest.importorskip("rerun.chunk", reason=WHY)


def columns(reader):
    """Entity -> column -> values, a value a row, of what changes; and what does not."""
    changing, static = {}, {}
    pieces = [(piece, piece.to_record_batch()) for piece in reader.stream().to_chunks()]
    # Rerun cuts what is logged into chunks as time passes; rows carry their order.
    pieces.sort(key=lambda it: it[1]["rerun.controls.RowId"][0].as_py())
    for piece, batch in pieces:
        found = (static if piece.is_static else changing).setdefault(piece.entity_path, {})
        for name in batch.schema.names:
            column = batch[name]
            if str(column.type).startswith("timestamp"):
                column = column.cast("int64")
            found.setdefault(name, []).extend(column.to_pylist())
    return changing, static


def exported(chunk, run, path, selection=None):
    with Log(run) as log:
        report = export_rerun(log, selection or Selection(), path)
    reader = chunk.RrdReader(path)
    return report, reader, *columns(reader)


def test_packets_are_a_video_stream_on_three_timelines(tmp_path, chunk):
    run = recorded(tmp_path, draw(tmp_path / "plain.mp4", **FILMS["plain.mp4"]))
    report, reader, found, static = exported(chunk, run, tmp_path / "x.rrd")
    (recording,) = reader.recordings()
    assert (recording.application_id, recording.recording_id) == ("flowrun_g", "run")
    stream = found["/a/image"]
    with Log(run) as log:
        messages = list(log.messages("/a/image"))
        assert report.count == sum(it.topic != "/flowrun/keyframe" for it in log.messages())
        assert report.notes == []
        assert stream["cycle"] == [it.cycle for it in messages]
        assert stream["time"] == [it.time_ns for it in messages]
        assert stream["tov"] == [it.tov_ns for it in messages]
        assert static["/__properties"]["RecordingInfo:start_time"] == [[log.start_ns]]
        seen = pictures(log, "/b/image")
    assert static["/a/image"]["VideoStream:codec"] == [[int.from_bytes(b"avc1")]]
    made = decoded("h264", [bytes(one) for (one,) in stream["VideoStream:sample"]], (2, 1))
    assert len(made) == FRAMES
    assert all(map(np.array_equal, made, seen))
    raw = found["/b/image"]
    for (one,), (form,), pixels in zip(raw["Image:buffer"], raw["Image:format"], seen, strict=True):
        assert bytes(one) == pixels.tobytes()
        assert (form["height"], form["width"]) == pixels.shape[:2]


def test_b_frames_are_encoded_again_without(tmp_path, chunk):
    run = recorded(tmp_path, draw(tmp_path / "b.mp4", **FILMS["b_frames.mp4"]))
    report, _, found, _ = exported(chunk, run, tmp_path / "x.rrd", Selection(("/a/image",)))
    assert report.notes == [
        "/a/image: its stream has B-frames, which Foxglove and Rerun do not show: encoded again as "
        "H.264 (crf 18)"
    ]
    assert list(found) == ["/a/image"]
    packets = [bytes(one) for (one,) in found["/a/image"]["VideoStream:sample"]]
    assert len(decoded("h264", packets, (1, 1))) == len(packets) == FRAMES


def test_jpegs_stay_jpegs(tmp_path, chunk):
    run = recorded(tmp_path, draw(tmp_path / "jpegs.avi", **FILMS["jpegs.avi"]))
    _, _, found, _ = exported(chunk, run, tmp_path / "x.rrd", Selection(("/a/image",)))
    assert found["/a/image"]["EncodedImage:media_type"] == [["image/jpeg"]] * FRAMES
    (first,) = found["/a/image"]["EncodedImage:blob"][0]
    assert Image.open(io.BytesIO(bytes(first))).size == (128, 96)


def test_rerun_shows_a_finished_run_as_it_is(tmp_path, chunk):
    run = recorded(tmp_path, draw(tmp_path / "plain.mp4", **FILMS["plain.mp4"]))
    found, _ = columns(chunk.McapReader(run / "log_0000.mcap"))
    with Log(run) as log:
        assert found["/a/image"]["timestamp"] == [it.tov_ns for it in log.messages("/a/image")]
        seen = pictures(log, "/b/image")
    packets = [bytes(one) for (one,) in found["/a/image"]["VideoStream:sample"]]
    assert all(map(np.array_equal, decoded("h264", packets, (2, 1)), seen))
    assert [bytes(one) for (one,) in found["/b/image"]["Image:buffer"]] == [
        pixels.tobytes() for pixels in seen
    ]


def test_values_text_boxes_and_log_lines(tmp_path, chunk):
    plan = helpers.plan_of(
        tmp_path,
        "c=Camera(limit: 3); r=Read; f=Find; w=Answer",
        "c > r: ImageRgb8Msg; c > f: ImageRgb8Msg; c > w: ImageRgb8Msg",
    )
    helpers.record(plan, tmp_path / "run")
    _, _, found, _ = exported(chunk, tmp_path / "run", tmp_path / "x.rrd")
    assert found["/r/reading/count"]["Scalars:scalars"] == [[0.0], [1.0], [2.0]]
    assert found["/r/reading/ok"]["Scalars:scalars"] == [[1.0], [0.0], [1.0]]
    assert found["/r/reading/gap"]["cycle"] == [0, 2]  # None in between
    assert found["/r/reading/name"]["TextDocument:text"][1] == ['no. "1",\n']
    assert found["/r/reading/words"]["TextDocument:text"][2] == ['["a", "a"]']
    assert found["/w/answer"]["TextLog:text"] == [[f"cap en: ünï {k}"] for k in range(3)]
    assert found["/w/answer/response"]["TextDocument:text"][2] == ["ünï 2"]
    assert found["/flowrun/log"]["TextLog:text"][0] == ["w: answered number=0"]
    assert found["/flowrun/log"]["TextLog:level"][0] == ["INFO"]
    assert len(found["/flowrun/steps/cycle_ms"]["Scalars:scalars"]) == 4
    boxes = found["/f/found"]
    assert boxes["Boxes2D:labels"][2] == ["cat 0.50", "dog"]
    assert boxes["Boxes2D:centers"][2] == [[5.0, 11.0], [6.0, 11.0]]
    assert boxes["Boxes2D:half_sizes"][2] == [[5.0, 9.0], [5.0, 9.0]]
    assert boxes["Boxes2D:labels"][0] == []
    assert found["/f/found/frame_id"]["Scalars:scalars"] == [[0.0]] * 3
    assert "/f/found/boxes" not in found
    with Log(tmp_path / "run") as log:
        assert boxes["tov"] == [frame.tov_ns for frame in log.frames("/c/image")]


def shown_views(reader):
    """Kind, name -> what it shows: of the views that the file brings; and its timeline."""
    (blueprint,) = reader.blueprints()
    found, timeline = {}, None
    for piece in reader.stream(store=blueprint).to_chunks():
        batch, (kind, *rest) = piece.to_record_batch(), piece.entity_path.split("/")[1:]
        named = [name for name in batch.schema.names if ":" in name]
        values = {name.split(":")[1]: batch[name].to_pylist()[0] for name in named}
        if kind == "view" and (len(rest) == 1 or rest[1:] == ["ViewContents"]):
            found.setdefault(rest[0], {}).update(values)
        timeline = values["timeline"] if kind == "time_panel" else timeline
    views = {
        (*it["class_identifier"], *it["display_name"]): [
            query.replace("$origin", it["space_origin"][0]) for query in it["query"]
        ]
        for it in found.values()
    }
    return views, timeline


def test_it_opens_with_pictures_boxes_answers_plots_and_the_log(tmp_path, chunk):
    plan = helpers.plan_of(
        tmp_path,
        "c=Camera(limit: 3); d=Camera(limit: 3); r=Read; f=Find; w=Answer; v=Answer",
        "c > r: ImageRgb8Msg; d > f: ImageRgb8Msg; c > w: ImageRgb8Msg; d > v: ImageRgb8Msg",
    )
    helpers.record(plan, tmp_path / "run")
    _, reader, *_ = exported(chunk, tmp_path / "run", tmp_path / "x.rrd")
    assert shown_views(reader) == (
        {
            ("2D", "/c/image"): ["/c/image"],
            ("2D", "/d/image"): ["/d/image", "/f/found"],
            ("TextDocument", "/w/answer"): ["/w/answer/response/**"],
            ("TextDocument", "/v/answer"): ["/v/answer/response/**"],
            ("TextLog", "answers"): ["/w/answer", "/v/answer"],
            ("TimeSeries", "ms"): [
                "/r/reading/took_ms",
                "/f/found/latency_ms",
                "/w/answer/latency_ms",
                "/v/answer/latency_ms",
                "/flowrun/steps/cycle_ms",
            ],
            ("TimeSeries", "/r/reading"): [
                f"/r/reading/{it}" for it in ("count", "level", "ok", "gap")
            ],
            ("TimeSeries", "/w/answer"): ["/w/answer/truncated", "/w/answer/tokens"],
            ("TimeSeries", "/v/answer"): ["/v/answer/truncated", "/v/answer/tokens"],
            ("TextLog", "log"): ["/flowrun/log", "/flowrun/control"],
        },
        ["tov"],
    )


def test_numbers_alone_open_as_a_plot(tmp_path, chunk):
    helpers.record(helpers.plan_of(tmp_path, "n=Numbers(limit: 2)"), tmp_path / "run")
    selection = Selection(("/n/number",))
    _, reader, *_ = exported(chunk, tmp_path / "run", tmp_path / "x.rrd", selection)
    assert shown_views(reader)[0] == {("TimeSeries", "/n/number"): ["/n/number/value"]}


def test_control_messages_are_lines_and_metadata_properties(tmp_path, chunk):
    plan = helpers.plan_of(tmp_path, "n=Numbers(limit: 2); x=Scale", "n > x")
    run = Run(plan, clock=ManualClock(10**18, step_ns=1), directory=tmp_path / "run")
    run.set_live("x", {"factor": 3})
    assert run.run().error is None
    _, _, found, static = exported(chunk, tmp_path / "run", tmp_path / "x.rrd")
    lines = found["/flowrun/control"]
    assert lines["TextLog:text"] == [["x: set factor=3"], ["n: end of source"]]
    assert lines["TextLog:level"] == [["INFO"], ["INFO"]]
    assert static["/__properties/flowrun"]["graph"] == [["g"]]


@pytest.mark.parametrize(
    ("control", "line", "level"),
    [
        (Completion("a", 4, restarted=False).pack(), "a: result of cycle 4", "TRACE"),
        (Replaced("a", 4).pack(), "a: cycle 4 gave way to a newer one", "TRACE"),
        (Dropped("a", 2).pack(), "a: dropped 2", "TRACE"),
        (Dropped("a", 2, "too old").pack(), "a: dropped 2 (too old)", "TRACE"),
        (Switched("a", "muted").pack(), "a: muted, as somebody asked", "INFO"),
        (SourceState("a", "lost", "tls").pack(), "a: lost (tls)", "WARN"),
        (SourceState("a", "running").pack(), "a: running", "INFO"),
        (Failed("a", "skip", "E: x").pack(), "a: error (on_error: skip): E: x", "ERROR"),
        (Restarted("a").pack(), "a: restarted", "WARN"),
        ({**Restarted("a").pack(), "kind": "of the future"}, "a: of the future", "INFO"),
    ],
)
def test_control_messages_are_put_into_words(control, line, level):
    assert control_line(control) == (line, level)


def test_time_begins_with_the_first_cycle(tmp_path, chunk):
    """Not with the log lines of opening the source, seconds before its first picture."""
    plan = helpers.plan_of(tmp_path, "e=Early")
    helpers.record(plan, tmp_path / "run")
    _, _, found, _ = exported(chunk, tmp_path / "run", tmp_path / "x.rrd")
    with Log(tmp_path / "run") as log:
        (line,) = log.messages("/flowrun/log")
        assert line.fields["time_ns"] < log.start_ns
        assert found["/flowrun/log"]["tov"] == found["/flowrun/log"]["time"] == [log.start_ns]


def test_rerun_shows_the_foxglove_export_too(tmp_path, chunk):
    run = recorded(tmp_path, draw(tmp_path / "plain.mp4", **FILMS["plain.mp4"]))
    with Log(run) as log:
        export_foxglove(log, Selection(), tmp_path / "x.mcap")
        tovs = [it.tov_ns for it in log.messages("/a/image")]
    found, _ = columns(chunk.McapReader(tmp_path / "x.mcap"))
    assert found["/a/image"]["timestamp"] == tovs
    assert len(found["/a/image"]["VideoStream:sample"]) == FRAMES
    assert found["/a/image"]["VideoStream:codec"][0] == [int.from_bytes(b"avc1")]
    assert len(found["/b/image"]["Image:buffer"]) == FRAMES
    assert "TextLog:text" in found["/flowrun/log"]


def test_without_the_package_it_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rerun", None)
    helpers.record(helpers.plan_of(tmp_path, "n=Numbers(limit: 1)"), tmp_path / "run")
    with Log(tmp_path / "run") as log, pytest.raises(UsageError) as caught:
        export_rerun(log, Selection(), tmp_path / "x.rrd")
    assert str(caught.value) == (
        "an export to rerun needs rerun-sdk: pip install 'flowrun-runtime[rerun]'"
    )
