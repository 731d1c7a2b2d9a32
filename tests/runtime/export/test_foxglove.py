"""`--to foxglove`, read by the mcap package, protobuf and FFmpeg as any viewer would."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import av
import jsonschema
import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given
from hypothesis import strategies as st
from mcap.reader import make_reader
from PIL import Image

from flowrun.runtime.errors import LogError
from flowrun.runtime.export import foxglove_messages as log_foxglove
from flowrun.runtime.export.foxglove import export_foxglove
from flowrun.runtime.export.selection import Selection
from flowrun.runtime.graph.plan import load_plan
from flowrun.runtime.log.lines import LOG_SCHEMA
from flowrun.runtime.log.reader import Log
from support import damaged, helpers
from support.films import FILMS, FRAMES, KEY_EVERY, decoded, draw, pictures, recorded
from support.paths import ROOT

NO_B_FRAMES = {
    "plain.mp4": ("h264", FILMS["plain.mp4"]),
    "start_codes.ts": ("h264", FILMS["start_codes.ts"]),
    "h265.mp4": ("h265", {"codec": "libx265", "x265-params": "log-level=none:bframes=0"}),
    "vp9.webm": ("vp9", FILMS["vp9.webm"]),
    "av1.mp4": ("av1", FILMS["av1.mp4"]),
}


def exported(run, path, selection=None):
    """The report, and what the file holds: topic -> its schema and messages."""
    with Log(run) as log:
        report = export_foxglove(log, selection or Selection(), path)
    found = {}
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        for channel in reader.get_summary().channels.values():
            found[channel.topic] = (reader.get_summary().schemas.get(channel.schema_id), [])
        for _, channel, message in reader.iter_messages():
            found[channel.topic][1].append(message)
    assert report.count == sum(len(messages) for _, messages in found.values())
    return report, found


def parsed(schema, message):
    files = descriptor_pb2.FileDescriptorSet.FromString(schema.data)
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName(schema.name))
    return kind.FromString(message.data)


def time_of(message):
    return message.timestamp.seconds * 10**9 + message.timestamp.nanos


@pytest.mark.parametrize("name", NO_B_FRAMES)
def test_packets_go_out_as_compressed_video(tmp_path, name):
    form, options = NO_B_FRAMES[name]
    run = recorded(tmp_path, draw(tmp_path / name, **options))
    report, found = exported(run, tmp_path / "out.mcap", Selection(("/a/image",)))
    assert (report.notes, report.unreadable, report.count) == ([], 0, FRAMES)
    schema, messages = found["/a/image"]
    assert schema.name == "foxglove.CompressedVideo"
    videos = [parsed(schema, message) for message in messages]
    assert {video.format for video in videos} == {form}
    with Log(run) as log:
        seen = list(log.messages("/a/image"))
        assert [(it.log_time, it.publish_time, it.sequence) for it in messages] == [
            (it.time_ns, it.tov_ns, it.cycle) for it in seen
        ]
        assert [time_of(video) for video in videos] == [it.tov_ns for it in seen]
        made = decoded(form, [video.data for video in videos], (2, 1))
        assert len(made) == FRAMES
        assert all(map(np.array_equal, made, pictures(log, "/b/image")))


def test_packets_of_dropped_pictures_are_messages_between_the_others(tmp_path):
    run = recorded(tmp_path, draw(tmp_path / "plain.mp4", **FILMS["plain.mp4"]), ", max_fps: 7")
    report, found = exported(run, tmp_path / "out.mcap", Selection(("/a/image",)))
    assert report.notes == []
    schema, messages = found["/a/image"]
    videos = [parsed(schema, message) for message in messages]
    with Log(run) as log:
        kept = list(log.messages("/a/image"))
        seen = pictures(log, "/b/image")
    assert len(kept) < FRAMES // 3
    assert len(messages) > FRAMES - KEY_EVERY
    times = [message.log_time for message in messages]
    assert times == sorted(set(times))
    stamps = [time_of(video) for video in videos]
    assert stamps == sorted(set(stamps))
    made = decoded("h264", [video.data for video in videos], (2, 1))
    at = {stamp: number for number, stamp in enumerate(stamps)}
    for message, pixels in zip(kept, seen, strict=True):
        assert np.array_equal(made[at[message.tov_ns]], pixels)
        assert times[at[message.tov_ns]] == message.time_ns


def test_a_part_of_a_film_begins_with_its_key_frame(tmp_path):
    run = recorded(tmp_path, draw(tmp_path / "plain.mp4", **FILMS["plain.mp4"]))
    start = KEY_EVERY + 3
    selection = Selection(("/a/image",), {"start": start, "end": start + 4})
    _, found = exported(run, tmp_path / "out.mcap", selection)
    schema, messages = found["/a/image"]
    assert len(messages) == 3 + 4
    with Log(run) as log:
        first = log[start].time_ns
        seen = pictures(log, "/b/image")[start : start + 4]
    assert [message.log_time - first for message in messages[:4]] == [-3000, -2000, -1000, 0]
    made = decoded("h264", [parsed(schema, message).data for message in messages], (2, 1))
    assert all(map(np.array_equal, made[3:], seen))


@pytest.mark.parametrize("config", ["", ", max_fps: 11"])
def test_b_frames_are_encoded_again_without_and_it_is_said(tmp_path, config):
    """Also where the pictures that come out of their packets' order were dropped."""
    run = recorded(tmp_path, draw(tmp_path / "b.mp4", **FILMS["b_frames.mp4"]), config)
    report, found = exported(run, tmp_path / "out.mcap", Selection(("/a/image",)))
    assert report.notes == [
        "/a/image: its stream has B-frames, which Foxglove and Rerun do not show: encoded again as "
        "H.264 (crf 18)"
    ]
    schema, messages = found["/a/image"]
    assert schema.name == "foxglove.CompressedVideo"
    videos = [parsed(schema, message) for message in messages]
    assert {video.format for video in videos} == {"h264"}
    made = decoded("h264", [video.data for video in videos], (1, 1))
    with Log(run) as log:
        frames = list(log.frames("/a/image"))
        assert [time_of(video) for video in videos] == [frame.tov_ns for frame in frames]
        for shown, frame in zip(made, frames, strict=True):
            # Noise of single pixels, whose colours yuv420p averages over four.
            assert np.abs(means(shown) - means(frame.pixels)).mean() < 6


def means(pixels):
    """Of each 4x4 pixels."""
    height, width, _ = pixels.shape
    return pixels.reshape(height // 4, 4, width // 4, 4, 3).astype(float).mean((1, 3))


def test_odd_sizes_become_jpegs(tmp_path):
    """H.264 has none in the format that viewers decode."""
    film = draw(tmp_path / "odd.avi", codec="mpeg4", size=(97, 65))
    run = recorded(tmp_path, film)
    report, found = exported(run, tmp_path / "out.mcap", Selection(("/a/image",)))
    assert report.notes == ["/a/image: viewers do not show mpeg4: written as JPEGs (quality 90)"]
    schema, messages = found["/a/image"]
    assert schema.name == "foxglove.CompressedImage"
    with Log(run) as log:
        for message, frame in zip(messages, log.frames("/a/image"), strict=True):
            image = parsed(schema, message)
            assert (image.format, time_of(image)) == ("jpeg", frame.tov_ns)
            shown = np.asarray(Image.open(io.BytesIO(image.data))).astype(int)
            assert shown.shape == frame.pixels.shape == (65, 97, 3)
            assert abs(shown.mean() - frame.pixels.mean()) < 2


def test_packets_that_are_jpegs_stay_as_they_are(tmp_path):
    film = draw(tmp_path / "jpegs.avi", **FILMS["jpegs.avi"])
    run = recorded(tmp_path, film)
    report, found = exported(run, tmp_path / "out.mcap", Selection(("/a/image",)))
    assert report.notes == []
    schema, messages = found["/a/image"]
    with av.open(str(film)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    images = [parsed(schema, message) for message in messages]
    assert [image.data for image in images] == packets
    assert {image.format for image in images} == {"jpeg"}


def test_a_codec_that_no_viewer_knows_is_encoded_again(tmp_path):
    run = recorded(tmp_path, draw(tmp_path / "mpeg4.avi", **FILMS["mpeg4.avi"]))
    report, _ = exported(run, tmp_path / "out.mcap", Selection(("/a/image",)))
    assert report.notes == ["/a/image: viewers do not show mpeg4: encoded again as H.264 (crf 18)"]


def test_damaged_packets_are_encoded_again(tmp_path):
    """A viewer's decoder would make other pictures of them."""

    def cut(chunks):
        chunks[3] = replace(chunks[3], data=chunks[3].data[: len(chunks[3].data) // 2])

    damaged.remux(draw(tmp_path / "whole.ts", bf="0", size=(128, 96)), tmp_path / "cut.ts", cut)
    report, _ = exported(recorded(tmp_path, tmp_path / "cut.ts"), tmp_path / "x.mcap")
    assert report.notes == [
        "/a/image: some of its packets are missing or damaged: encoded again as H.264 (crf 18)"
    ]


def test_pictures_before_the_first_key_frame_are_counted(tmp_path):
    film = draw(
        tmp_path / "plain.mp4", frames=8 * FRAMES, moves=False, bf="0", crf="1", sc_threshold="0"
    )
    plan = helpers.plan_of(
        tmp_path,
        f"a=VideoCapture(source_uri: {film})",
        more="logging: {slab_size_mib: 1, section_size_mib: 1, mode: ring, keep_slabs: 2}",
    )
    helpers.record(plan, tmp_path / "run")
    report, found = exported(tmp_path / "run", tmp_path / "out.mcap", Selection(("/a/image",)))
    schema, messages = found["/a/image"]
    with Log(tmp_path / "run") as log:
        cycles = [message.cycle for message in log.messages("/a/image")]
    first = next(cycle for cycle in cycles if cycle % KEY_EVERY == 0)
    assert [message.sequence for message in messages] == list(range(first, cycles[-1] + 1))
    assert report.unreadable == cycles.index(first)
    packets = [parsed(schema, message).data for message in messages]
    assert len(decoded("h264", packets, (2, 1))) == len(messages)


@pytest.mark.parametrize("codec", ["raw", "zstd", "ffv1"])
def test_made_pictures_are_raw_images(tmp_path, codec):
    helpers.record(
        helpers.plan_of(tmp_path, f"c=Camera@logging: {{codec: {codec}}}"), tmp_path / "run"
    )
    _, found = exported(tmp_path / "run", tmp_path / "out.mcap")
    schema, messages = found["/c/image"]
    assert schema.name == "foxglove.RawImage"
    with Log(tmp_path / "run") as log:
        for message, frame in zip(messages, log.frames("/c/image"), strict=True):
            image = parsed(schema, message)
            assert (image.width, image.height, image.encoding, image.step) == (64, 48, "rgb8", 192)
            assert image.frame_id == "test"
            assert time_of(image) == frame.tov_ns
            assert image.data == frame.pixels.tobytes()


def test_values_are_json_of_their_schema_and_log_lines_say_all_fields(tmp_path):
    plan = helpers.plan_of(
        tmp_path,
        "c=Camera(limit: 3); r=Read; w=Answer",
        "c > r: ImageRgb8Msg; c > w: ImageRgb8Msg",
    )
    helpers.record(plan, tmp_path / "run")
    _, found = exported(tmp_path / "run", tmp_path / "out.mcap")
    schema, messages = found["/r/reading"]
    assert (schema.name, schema.encoding) == ("ReadingMsg", "jsonschema")
    values = [json.loads(message.data) for message in messages]
    for value in values:
        jsonschema.validate(value, json.loads(schema.data))
    assert values[2] == {
        "count": 2,
        "level": 1.0,
        "ok": True,
        "name": 'no. "2",\n',
        "raw": "Ag==",
        "gap": 2.0,
        "words": ["a", "a"],
        "took_ms": 1.0,
    }
    schema, messages = found["/w/answer/log"]
    lines = [parsed(schema, message) for message in messages]
    assert [(it.message, it.name, it.level) for it in lines] == [
        (f"cap en: ünï {k}", "w", 2) for k in range(3)
    ]
    with Log(tmp_path / "run") as log:
        recorded_lines = [it.fields for it in log.messages("/flowrun/log")]
        tovs = [it.tov_ns for it in log.messages("/w/answer")]
    assert [time_of(it) for it in lines] == tovs
    schema, messages = found["/flowrun/log"]
    lines = [parsed(schema, message) for message in messages]
    assert [(it.name, it.level, it.message) for it in lines] == [
        ("w", 2, f"answered number={k}") for k in range(3)
    ]  # the text has the fields too, as viewers show nothing else
    assert [time_of(it) for it in lines] == [it["time_ns"] for it in recorded_lines]
    assert not any(UnknownFieldSet(it) for it in lines)


def test_boxes_are_annotations_of_their_picture(tmp_path):
    plan = helpers.plan_of(tmp_path, "c=Camera(limit: 3); f=Find", "c > f: ImageRgb8Msg")
    helpers.record(plan, tmp_path / "run")
    _, found = exported(tmp_path / "run", tmp_path / "out.mcap")
    assert json.loads(found["/f/found"][1][2].data)["labels"] == ["cat", "dog"]
    schema, messages = found["/f/found/annotations"]
    with Log(tmp_path / "run") as log:
        tovs = [frame.tov_ns for frame in log.frames("/c/image")]
    shown = [parsed(schema, message) for message in messages]
    assert [time_of(it) for it in shown] == tovs
    assert [len(it.points) for it in shown] == [0, 1, 2]
    outline = shown[2].points[1]
    assert [(point.x, point.y) for point in outline.points] == [(1, 2), (11, 2), (11, 20), (1, 20)]
    assert outline.type == 2
    assert [text.text for text in shown[2].texts] == ["cat 0.50", "dog"]
    colors = [
        (it.outline_color.r, it.outline_color.g, it.outline_color.b) for it in shown[2].points
    ]
    assert colors[0] == log_foxglove.label_color("cat")
    assert colors[0] != colors[1]
    assert time_of(outline) == time_of(shown[2].texts[0]) == tovs[2]


def test_zones_and_lines_are_annotations_too(tmp_path):
    pytest.importorskip("trackers")
    plan = load_plan(ROOT / "graphs" / "cookbook" / "zones.yaml", env={})
    _, result = helpers.record(plan, tmp_path / "run", cycles=3)
    assert result.error is None
    _, found = exported(tmp_path / "run", tmp_path / "out.mcap")
    shapes = {}
    for topic in ("/zones/zones", "/lines/lines"):
        schema, messages = found[f"{topic}/annotations"]
        shown = parsed(schema, messages[2])
        with Log(tmp_path / "run") as log:
            fields = list(log.messages(topic))[2].fields
        points = [[[it.x, it.y] for it in shape.points] for shape in shown.points]
        flat = [
            np.reshape(it, (-1, 2)).tolist() for it in fields.get("polygons") or fields["lines"]
        ]
        assert points == flat
        texts = [it.text for it in shown.texts]
        assert all(it.startswith(name) for it, name in zip(texts, fields["names"], strict=True))
        shapes[topic] = {it.type for it in shown.points}
    assert shapes == {"/zones/zones": {2}, "/lines/lines": {3}}


@given(st.text(max_size=20))
def test_each_labels_colour_is_read_under_black_text_and_on_black(label):
    red, green, blue = log_foxglove.label_color(label)
    assert max(red, green, blue) <= 1
    assert 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.449
    assert (red, green, blue) == log_foxglove.label_color(label)


def test_a_topic_without_payloads_has_empty_messages(tmp_path):
    plan = helpers.plan_of(tmp_path, "n=Numbers(limit: 2)@logging: {payload: none}")
    helpers.record(plan, tmp_path / "run")
    _, found = exported(tmp_path / "run", tmp_path / "out.mcap")
    assert [message.data for message in found["/n/number"][1]] == [b"{}", b"{}"]


def test_what_the_tasks_remembered_is_left_out_unless_asked_for(tmp_path):
    helpers.record(helpers.plan_of(tmp_path, "n=Numbers(limit: 2)"), tmp_path / "run")
    _, found = exported(tmp_path / "run", tmp_path / "out.mcap")
    assert sorted(found) == ["/flowrun/control", "/flowrun/log", "/flowrun/steps", "/n/number"]
    _, found = exported(tmp_path / "run", tmp_path / "x.mcap", Selection(("/flowrun/keyframe",)))
    assert list(found) == ["/flowrun/keyframe"]


def test_a_topic_that_is_not_there_is_named(tmp_path):
    helpers.record(helpers.plan_of(tmp_path, "n=Numbers(limit: 2)"), tmp_path / "run")
    with pytest.raises(LogError, match="no topic '/n/numbers'; .*did you mean"):
        exported(tmp_path / "run", tmp_path / "out.mcap", Selection(("/n/numbers",)))


@pytest.mark.parametrize(
    "name", ["RawImage", "CompressedImage", "CompressedVideo", "ImageAnnotations", "Log"]
)
def test_schemas_are_those_of_foxglove(name):
    """Each member of each message, against the descriptors that foxglove-sdk ships."""
    import foxglove.messages

    ours = {
        "RawImage": log_foxglove.RAW_IMAGE[1],
        "CompressedImage": log_foxglove.COMPRESSED_IMAGE[1],
        "CompressedVideo": log_foxglove.COMPRESSED_VIDEO[1],
        "ImageAnnotations": log_foxglove.IMAGE_ANNOTATIONS[1],
        "Log": lambda: LOG_SCHEMA,
    }[name]()
    theirs = getattr(foxglove.messages, name).get_schema().data
    assert members(ours, kinds=name != "Log") == members(theirs, kinds=name != "Log")


def members(data, *, kinds):
    found = {}
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        for message in file.message_type:
            for it in message.field:
                kind = (it.type, it.label, it.type_name) if kinds else (it.type, it.label)
                found[file.package, message.name, it.name] = (it.number, kind)
    return found
