"""`--to mp4` of a camera's packets: copied where they are a film, encoded again where not."""

from __future__ import annotations

import re
from dataclasses import replace

import av
import numpy as np
import pytest

from flowrun.runtime.export.film import FilmTimes, film_times, last_duration
from flowrun.runtime.export.mp4 import export_mp4
from flowrun.runtime.export.selection import Selection
from flowrun.runtime.log.reader import Log
from support import damaged, helpers
from support.films import FILMS, FRAMES, KEY_EVERY, draw, pictures, pixels_of, recorded
from support.pictures import record_pictures

# fmt: off
COPIED = {
    "plain.mp4": "h264", "b_frames.mp4": "h264", "open_gop.mp4": "h264", "start_codes.ts": "h264",
    "h265.mp4": "hevc", "vp9.webm": "vp9", "av1.mp4": "libdav1d", "mpeg4.avi": "mpeg4",
}
# fmt: on
FRAME_US = 33_333


def film(path):
    """Codec, seconds, and each picture's time in microseconds and pixels."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        shown = []
        for picture in container.decode(stream):
            picture.colorspace, picture.color_range = 2, 1
            shown.append((round(picture.time * 1e6), pixels_of(picture)))
        seconds = float(stream.duration * stream.time_base)
        assert container.duration == pytest.approx(seconds * 1e6, abs=1000)
        return stream.codec_context.name, seconds, shown


def export(run, path, **bounds):
    with Log(run) as log:
        report = export_mp4(log, Selection(("/a/image",), bounds), path)
        messages = list(log.messages("/a/image", **bounds))
        times = [(message.tov_ns - messages[0].tov_ns) // 1000 for message in messages]
    assert report.count == len(messages)
    return report, times


@pytest.mark.parametrize("name", COPIED)
def test_packets_are_copied(tmp_path, name):
    """The film's pictures are those of the run, bit for bit, at their own times."""
    run = recorded(tmp_path, draw(tmp_path / name, **FILMS[name]))
    report, times = export(run, tmp_path / "x.mp4")
    assert report.notes == []
    codec, seconds, shown = film(tmp_path / "x.mp4")
    assert codec == COPIED[name]
    assert [time for time, _ in shown] == times
    with Log(run) as log:
        seen = pictures(log, "/b/image")
    assert len(shown) == FRAMES
    assert all(np.array_equal(made, pixels) for (_, made), pixels in zip(shown, seen, strict=True))
    # Each picture is one frame, the last too.
    assert seconds == pytest.approx((times[-1] + FRAME_US) / 1e6, abs=5e-4)


def test_a_part_that_begins_with_a_key_frame_is_copied(tmp_path):
    run = recorded(tmp_path, draw(tmp_path / "plain.mp4", **FILMS["plain.mp4"]))
    report, times = export(run, tmp_path / "x.mp4", start=KEY_EVERY, end=KEY_EVERY + 3)
    assert report.notes == []
    _, seconds, shown = film(tmp_path / "x.mp4")
    assert [time for time, _ in shown] == times
    assert seconds == pytest.approx(0.1, abs=5e-4)


@pytest.mark.parametrize("name", ["b_frames.mp4", "open_gop.mp4", "h265.mp4"])
def test_a_film_that_ends_among_b_frames_shows_no_more_than_was_selected(tmp_path, name):
    """The packet of a later picture is in it: those in front are decoded from it."""
    run = recorded(tmp_path, draw(tmp_path / name, **FILMS[name]))
    with Log(run) as log:
        seen = pictures(log, "/b/image")
    larger = 0
    for end in range(1, FRAMES):
        report, times = export(run, tmp_path / "x.mp4", end=end)
        assert report.notes == []
        _, _, shown = film(tmp_path / "x.mp4")
        assert [time for time, _ in shown] == times
        assert all(
            np.array_equal(made, pixels) for (_, made), pixels in zip(shown, seen, strict=False)
        )
        with av.open(str(tmp_path / "x.mp4")) as container:
            assert container.duration == pytest.approx(
                times[-1] + times[1] if end > 1 else 33_333, abs=1500
            )
            larger += sum(1 for packet in container.demux(video=0) if packet.size) > end
    assert larger > 0


def test_damaged_packets_are_not_copied(tmp_path):
    """Another decoder would make other pictures of them."""

    def cut(chunks):
        chunks[3] = replace(chunks[3], data=chunks[3].data[: len(chunks[3].data) // 2])

    whole = draw(tmp_path / "whole.ts", bf="0", size=(128, 96))
    damaged.remux(whole, tmp_path / "cut.ts", cut)
    run = recorded(tmp_path, tmp_path / "cut.ts")
    report, _ = export(run, tmp_path / "x.mp4")
    [why] = report.notes
    assert re.fullmatch(
        r"encoded again, as packets of cycle \d, or before it, are missing or damaged", why
    )
    with Log(run) as log:
        seen = pictures(log, "/b/image")
    shown = [pixels for _, pixels in film(tmp_path / "x.mp4")[2]]
    assert len(shown) == len(seen)
    differences = [
        np.abs(one.astype(int) - other).mean() for one, other in zip(shown, seen, strict=True)
    ]
    assert max(differences) < 16


@pytest.mark.parametrize(
    ("name", "config", "bounds", "why"),
    [
        (
            "plain.mp4",
            "",
            {"start": KEY_EVERY + 1},
            f"cycle {KEY_EVERY + 1} does not begin with a key frame",
        ),
        (
            "plain.mp4",
            ", max_fps: 7",
            {},
            "some of the packets are of pictures that are not selected, or were dropped",
        ),
        (
            "b_frames.mp4",
            ", max_fps: 11",
            {},
            "some of the packets are of pictures that are not selected, or were dropped",
        ),
        ("jpegs.avi", "", {}, "MP4 does not hold mjpeg"),
    ],
)
def test_what_is_no_film_by_itself_is_encoded_again(tmp_path, name, config, bounds, why):
    run = recorded(tmp_path, draw(tmp_path / name, **FILMS[name]), config)
    report, times = export(run, tmp_path / "x.mp4", **bounds)
    assert report.notes == [f"encoded again, as {why}"]
    codec, seconds, shown = film(tmp_path / "x.mp4")
    assert codec == "h264"
    assert [time for time, _ in shown] == times
    assert seconds == pytest.approx(
        (times[-1] + last_duration(FilmTimes(1, times, 0, 0), 30)) / 1e6, abs=5e-4
    )


def test_packets_that_ffmpeg_cannot_read_are_encoded_again(tmp_path, monkeypatch):
    run = recorded(tmp_path, draw(tmp_path / "plain.mp4", **FILMS["plain.mp4"]))
    monkeypatch.setattr("flowrun.runtime.export.film._bare", lambda *_: b"\0" * 100)
    report, times = export(run, tmp_path / "x.mp4")
    assert report.notes == ["encoded again, as FFmpeg finds no h264 in its packets"]
    assert [time for time, _ in film(tmp_path / "x.mp4")[2]] == times


def test_a_looped_film_is_one_film(tmp_path):
    source = draw(tmp_path / "b.mp4", **FILMS["b_frames.mp4"])
    shared = f"VideoCapture(source_uri: {source}, loop: true)"
    plan = helpers.plan_of(tmp_path, f"a={shared}; b={shared}@logging: {{codec: raw}}")
    helpers.record(plan, tmp_path / "run", cycles=2 * FRAMES)
    report, times = export(tmp_path / "run", tmp_path / "x.mp4")
    assert report.notes == []
    _, _, shown = film(tmp_path / "x.mp4")
    assert [time for time, _ in shown] == times
    with Log(tmp_path / "run") as log:
        seen = pictures(log, "/b/image")
    assert all(np.array_equal(made, pixels) for (_, made), pixels in zip(shown, seen, strict=True))


@pytest.mark.parametrize("config", ["", ", decode: keyframes"])
@pytest.mark.parametrize("name", ["open_gop.mp4", "h265.mp4"])
def test_a_jump_to_the_middle_of_a_group_is_encoded_again(tmp_path, name, config):
    """A player has no sign of it: it would order the pictures by those before the jump."""
    source = open_films(tmp_path, name)
    plan = helpers.plan_of(tmp_path, f"a=VideoCapture(source_uri: {source}, loop: true{config})")
    helpers.record(plan, tmp_path / "run", cycles=3 if config else FRAMES)
    report, times = export(tmp_path / "run", tmp_path / "x.mp4")
    assert report.notes[0].startswith("encoded again, as its stream jumps")
    _, _, shown = film(tmp_path / "x.mp4")
    assert [time for time, _ in shown] == times
    with Log(tmp_path / "run") as log:
        seen = pictures(log, "/a/image")
    for (_, made), pixels in zip(shown, seen, strict=True):
        assert np.abs(made.astype(int) - pixels).mean() < 15


def open_films(tmp_path, name):
    """A film that begins in an open group, without the pictures that are shown before its key frame."""
    whole = draw(tmp_path / name, **FILMS[name])
    with av.open(str(whole)) as source, av.open(str(tmp_path / "cut.mkv"), "w") as cut:
        stream = cut.add_stream_from_template(source.streams.video[0])
        packets = [it for it in source.demux(video=0) if it.size]
        begin = [it.is_keyframe for it in packets].index(True, 1)
        for packet in packets[begin:]:
            if packet.pts >= packets[begin].pts:
                packet.stream = stream
                cut.mux(packet)
    return tmp_path / "cut.mkv"


@pytest.mark.parametrize(("step_ns", "frame_s"), [(100_000_000, 0.1), (8_000_000, 0.008)])
def test_the_last_of_encoded_pictures_is_shown_as_long_as_the_others(
    tmp_path, monkeypatch, step_ns, frame_s
):
    monkeypatch.setattr("support.pictures.STEP_NS", step_ns)
    directory = record_pictures(tmp_path, "limit: 9")
    with Log(directory) as log:
        export_mp4(log, Selection(("/c/image",)), tmp_path / "x.mp4")
    _, seconds, shown = film(tmp_path / "x.mp4")
    assert len(shown) == 9
    assert seconds == pytest.approx(9 * frame_s, abs=1e-4)


@pytest.mark.parametrize(
    ("times", "fps", "expected"),
    [([0, 10, 20, 90], 30.0, 10), ([0], 50.0, 20_000), ([0], 0.0, 40_000), ([0, 1], 30.0, 1)],
)
def test_the_last_picture_is_shown_as_long_as_most_are(times, fps, expected):
    assert last_duration(FilmTimes(1, times, 0, 0), fps) == expected


@pytest.mark.parametrize("name", ["b_frames.mp4", "jpegs.avi"])
def test_pictures_that_are_an_hour_apart_are_a_film(tmp_path, name):
    def an_hour_later(chunks):
        ticks = 3600 * 1000  # a Matroska file counts milliseconds
        for at in range(KEY_EVERY, len(chunks)):
            it = chunks[at]
            chunks[at] = replace(it, pts=it.pts + ticks, dts=it.dts and it.dts + ticks)

    once = tmp_path / "once.mkv"
    damaged.remux(draw(tmp_path / name, **FILMS[name]), once, lambda _: None)
    damaged.remux(once, tmp_path / "gap.mkv", an_hour_later)
    run = recorded(tmp_path, tmp_path / "gap.mkv")
    _, times = export(run, tmp_path / "x.mp4")
    assert times[KEY_EVERY] - times[KEY_EVERY - 1] > 3600e6
    shown = [time for time, _ in film(tmp_path / "x.mp4")[2]]
    assert shown == pytest.approx(times, abs=1000)


@pytest.mark.parametrize(
    ("taken_s", "unit_us", "times", "notes"),
    [
        ([0, 1, 3], 1, [0, 1_000_000, 3_000_000], []),
        ([5, 5 + 3600], 1000, [0, 3_600_000], []),
        (
            [0, 3600, 3600],
            1000,
            [0, 3_600_000, 3_600_001],
            ["1 pictures were not taken later than the one before: 1000 us after it instead"],
        ),
        (
            [0, 86_400 * 1000, 86_400 * 1000 + 1],
            1000,
            [0, 1 << 29, (1 << 29) + 1000],
            ["1 pictures came days after the one before: sooner instead"],
        ),
    ],
)
def test_the_times_of_a_film_fit_what_mp4_holds(taken_s, unit_us, times, notes):
    found = film_times([second * 10**9 for second in taken_s])
    assert (found.unit_us, found.times, found.notes) == (unit_us, times, notes)
