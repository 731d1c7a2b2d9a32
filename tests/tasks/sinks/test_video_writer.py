"""`VideoWriter`: films that play, at the right times, whatever ends the run."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress
from fractions import Fraction
from typing import ClassVar

import av
import numpy as np
import pytest
from structlog.testing import capture_logs

from flowrun.msgs import AlertMsg, BoolMsg, ImageRgb8Msg, Message
from flowrun.runtime.errors import GraphError
from flowrun.runtime.export.film_writer import FilmError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.task import Context, Input
from flowrun.runtime.testing import run_task
from flowrun.tasks.sinks.places import NewFile, SinkFileError
from flowrun.tasks.sinks.video_writer import Moments, VideoWriter
from support.films import FILMS, FRAMES, draw, pictures, pixels_of
from support.sink_tasks import run_graph

MS, NS_PER_S = 1_000_000, 1_000_000_000


def picture(level, tov_ms, *, size=(48, 64), aspect=1.0):
    image = ImageRgb8Msg(pixels=np.full((*size, 3), level, np.uint8), pixel_aspect=aspect, fps=25.0)
    image.publish(tov_ns=tov_ms * MS)
    return image


def write(tmp_path, inputs, **config):
    config = {"path": "out.mp4"} | config
    run_task(VideoWriter, inputs=inputs, config=config, graph_dir=tmp_path)


def pictures_at(times_ms, **more):
    return [{"image": picture(10 * at % 250, ms, **more)} for at, ms in enumerate(times_ms)]


def film(path):
    """Its codec, duration in ms, and each picture's time in ms and pixels."""
    with av.open(str(path)) as opened:
        stream = opened.streams.video[0]
        shown = []
        for decoded in opened.decode(stream):
            decoded.colorspace, decoded.color_range = 2, 1
            shown.append((round(decoded.time * 1000), pixels_of(decoded)))
        return stream.codec_context.name, opened.duration and round(opened.duration / 1000), shown


def times(path):
    return [time for time, _ in film(path)[2]]


@pytest.mark.parametrize(
    ("name", "codec", "kind"),
    [
        ("out.mp4", "auto", "h264"),
        ("out.mkv", "auto", "h264"),
        ("out.webm", "auto", "vp9"),
        ("out.mp4", "h265", "hevc"),
        ("out.mov", "h264", "h264"),
        pytest.param("out.mp4", "av1", "libdav1d", marks=pytest.mark.long),
        pytest.param("out.mkv", "vp9", "vp9", marks=pytest.mark.long),
    ],
)
def test_each_picture_is_shown_at_its_own_time(tmp_path, name, codec, kind):
    at_ms = [1000, 1040, 1100, 1140, 1500, 3500, 3540]
    write(tmp_path, pictures_at(at_ms), path=name, codec=codec)
    found, duration, shown = film(tmp_path / name)
    assert found == kind
    assert [time for time, _ in shown] == [it - 1000 for it in at_ms]
    assert duration == 2540 + 50  # the median of the gaps
    for at, (_, pixels) in enumerate(shown):
        assert abs(pixels.astype(int) - 10 * at).max() < 12


def test_a_constant_rate_shows_each_picture_as_long(tmp_path):
    write(tmp_path, pictures_at([0, 40, 1000, 5000]), fps=10)
    _, duration, shown = film(tmp_path / "out.mp4")
    assert ([time for time, _ in shown], duration) == ([0, 100, 200, 300], 400)


def test_a_film_of_one_picture_lasts_as_its_source_says(tmp_path):
    write(tmp_path, pictures_at([70]))
    assert film(tmp_path / "out.mp4")[1] == 40


def test_pictures_that_are_not_later_come_right_after_the_one_before(tmp_path):
    write(tmp_path, pictures_at([100, 140, 140, 20, 180]))
    assert times(tmp_path / "out.mp4") == [0, 40, 40, 40, 80]


def test_another_size_begins_another_film(tmp_path):
    inputs = [*pictures_at([0, 40]), *pictures_at([80, 120, 160], size=(96, 64))]
    write(tmp_path, inputs)
    assert times(tmp_path / "out.mp4") == [0, 40]
    _, _, shown = film(tmp_path / "out-2.mp4")
    assert [time for time, _ in shown] == [0, 40, 80]
    assert shown[0][1].shape == (96, 64, 3)


def test_an_odd_row_and_column_are_cut_off_and_that_is_said_once(tmp_path):
    with capture_logs() as logs:
        write(tmp_path, pictures_at([0, 40], size=(49, 65)))
    assert film(tmp_path / "out.mp4")[2][0][1].shape == (48, 64, 3)
    said = [it for it in logs if it["event"] == "an odd last row or column is cut off"]
    assert [(it["width"], it["height"]) for it in said] == [(65, 49)]


def test_a_picture_that_is_too_small_is_an_error_of_the_task(tmp_path):
    with pytest.raises(ValueError, match="a picture of 64x1 is too small for H.264"):
        write(tmp_path, pictures_at([0], size=(1, 64)))


@pytest.mark.parametrize(
    ("path", "size", "aspect"),
    [
        ("out.mp4", (64, 48), Fraction(16, 11)),
        ("out.mkv", (64, 48), Fraction(16, 11)),
        ("out.webm", (94, 48), 1),  # VP9 cannot say it: made square
    ],
)
def test_pixels_that_are_not_square_are_shown_as_wide(tmp_path, path, size, aspect):
    write(tmp_path, pictures_at([0, 40], aspect=16 / 11), path=path)
    with av.open(str(tmp_path / path)) as opened:
        stream = opened.streams.video[0]
        assert (stream.width, stream.height) == size
        assert (stream.sample_aspect_ratio or 1) == aspect


def test_nothing_is_overwritten(tmp_path):
    for _ in range(2):
        write(tmp_path, pictures_at([0, 40]))
    write(tmp_path, pictures_at([0, 40, 80]), if_exists="replace")
    assert sorted(it.name for it in tmp_path.iterdir()) == ["out-2.mp4", "out.mp4"]
    assert times(tmp_path / "out-2.mp4") == [0, 40]
    assert times(tmp_path / "out.mp4") == [0, 40, 80]


# -- when ------------------------------------------------------------------------------------


def when(value, tov_ms):
    message = BoolMsg(value=value) if isinstance(value, bool) else AlertMsg(text=value)
    message.publish(tov_ns=tov_ms * MS)
    return {"when": message}


def film_times(path, tov):
    """When its pictures were taken, by their brightness, which is that of `pictures_at`."""
    return [min(tov, key=lambda it: abs(tov[it] - pixels.mean())) for _, pixels in film(path)[2]]


EVERY = list(range(0, 12_000, 250))
LEVELS = {ms: 4.0 * at + 20 for at, ms in enumerate(EVERY)}


def moving():
    return [{"image": picture(int(LEVELS[ms]), ms)} for ms in EVERY]


def shown(path):
    """From when to when the pictures of a film were taken, and their number."""
    found = film_times(path, LEVELS)
    return found[0], found[-1], len(found)


def test_while_it_is_true_is_written_with_what_is_before_and_after(tmp_path):
    inputs = moving()
    inputs[16] |= when(True, 4000)
    inputs[24] |= when(False, 6000)
    write(tmp_path, inputs, before_s=1.0, after_s=0.5, fps="source")
    assert [it.name for it in tmp_path.iterdir()] == ["out.mp4"]
    begin, end, count = shown(tmp_path / "out.mp4")
    assert 2000 <= begin <= 3000  # from the key frame before on
    assert (end, count) == (6500, (6500 - begin) // 250 + 1)
    assert film(tmp_path / "out.mp4")[1] == 250 * count


def test_each_alert_is_a_film_and_may_come_late(tmp_path):
    inputs = moving()
    inputs[10] |= when("first", 1000)  # 1.5 s late
    inputs[36] |= when("second", 9000)
    write(tmp_path, inputs, before_s=0.25, after_s=1.0)
    [first, second] = sorted(tmp_path.iterdir(), key=lambda it: it.stat().st_mtime_ns)
    begin, end, _ = shown(first)
    assert (begin <= 750, end) == (True, 2000)
    begin, end, _ = shown(second)
    assert (7750 <= begin <= 8750, end) == (True, 10_000)


def test_alerts_that_follow_each_other_are_one_film(tmp_path):
    inputs = moving()
    for at in (8, 12, 16):
        inputs[at] |= when("again", 250 * at)
    write(tmp_path, inputs, after_s=1.0)
    assert [it.name for it in tmp_path.iterdir()] == ["out.mp4"]
    assert shown(tmp_path / "out.mp4")[1] == 5000


def test_what_is_asked_for_waits_for_pictures_that_are_far_behind():
    moments = Moments(0, 0)
    for at in range(300):
        moments.note(when("again", 40 * at)["when"])
    assert [moments.begin_ns(40 * at * MS) for at in range(300)] == [
        40 * at * MS for at in range(300)
    ]
    assert len(moments._closed) <= 52  # what is 2 s late
    moments = Moments(NS_PER_S, NS_PER_S)
    for at in range(300):
        moments.note(when("again", 40 * at)["when"])
    assert moments.begin_ns(0) == -NS_PER_S
    assert len(moments._closed) == 1


def test_more_than_can_be_kept_before_a_moment_costs_no_more_than_the_oldest(tmp_path, monkeypatch):
    monkeypatch.setattr("flowrun.tasks.sinks.video_writer._MOST_KEPT", 80)
    inputs = pictures_at(range(0, 40 * 115, 40))
    inputs[-1] |= when("now", 40 * 114)
    write(tmp_path, inputs, before_s=1000.0, queue=1)
    assert len(times(tmp_path / "out.mp4")) == 90  # from the key frame at 1 s on


def test_two_tasks_do_not_write_the_same_film(tmp_path):
    file = NewFile(tmp_path / "out.mp4")
    with pytest.raises(SinkFileError, match=r"out\.mp4: another task or run is writing it"):
        write(tmp_path, pictures_at([0, 40]), if_exists="replace")
    file.close()
    write(tmp_path, pictures_at([0, 40]), if_exists="replace")
    assert times(tmp_path / "out.mp4") == [0, 40]


def test_nothing_comes_and_nothing_is_written(tmp_path):
    inputs = moving()
    inputs[0] |= when(False, 0)
    write(tmp_path, inputs, path="out.mp4", before_s=2.0)
    assert list(tmp_path.iterdir()) == []


# -- a camera's packets ----------------------------------------------------------------------

CAMERA = """
tasks:
  - {{id: cam, type: VideoCapture, config: {{source_uri: {film}}}}}
  - {{id: seen, type: VideoCapture, config: {{source_uri: {film}}}, logging: {{codec: raw}}}}
  - {{id: out, type: VideoWriter, config: {{path: {path}, codec: {codec}}}}}
cnx: [{{src: {src}, dst: out, msg: ImageRgb8Msg}}]
logging: {{slab_size_mib: 8, section_size_mib: 1}}
"""


def copied(tmp_path, source, path, *, codec="copy", src="cam"):
    text = CAMERA.format(film=source, path=path, codec=codec, src=src)
    _, result = run_graph(tmp_path, text, directory=tmp_path / "run")
    return result


@pytest.mark.parametrize(
    ("name", "path"),
    [
        pytest.param("plain.mp4", "out.mp4", marks=pytest.mark.long),
        ("b_frames.mp4", "out.mp4"),
        pytest.param("b_frames.mp4", "out.mkv", marks=pytest.mark.long),
        pytest.param("open_gop.mp4", "out.mp4", marks=pytest.mark.long),
        pytest.param("start_codes.ts", "out.mp4", marks=pytest.mark.long),
        pytest.param("h265.mp4", "out.mp4", marks=pytest.mark.long),
        pytest.param("h265.mp4", "out.mkv", marks=pytest.mark.long),
        pytest.param("vp9.webm", "out.webm", marks=pytest.mark.long),
        pytest.param("av1.mp4", "out.webm", marks=pytest.mark.long),
        pytest.param("mpeg4.avi", "out.mkv", marks=pytest.mark.long),
    ],
)
def test_a_copy_gives_the_camera_s_pictures_back(tmp_path, name, path):
    source = draw(tmp_path / name, **FILMS[name])
    assert copied(tmp_path, source, path).error is None
    kind, duration, shown = film(tmp_path / path)
    with Log(tmp_path / "run") as log:
        seen = pictures(log, "/seen/image")
        tovs = [it.tov_ns for it in log.messages("/cam/image")]
    assert kind == {"h265": "hevc", "av1": "libdav1d"}.get(
        name.partition(".")[0], {"vp9": "vp9", "mpeg4": "mpeg4"}.get(name.partition(".")[0], "h264")
    )
    assert len(shown) == FRAMES
    assert all(np.array_equal(made, it) for (_, made), it in zip(shown, seen, strict=True))
    wanted = [round((it - tovs[0]) / MS) for it in tovs]
    assert all(abs(time - it) <= 1 for (time, _), it in zip(shown, wanted, strict=True))
    assert duration == pytest.approx(wanted[-1] + 33, abs=2)


@pytest.mark.parametrize(
    "name", [pytest.param("plain.mp4", marks=pytest.mark.long), "b_frames.mp4"]
)
def test_pictures_that_the_run_left_out_are_at_their_times_in_a_copy(tmp_path, name):
    options = {"x264-params": "b-adapt=0:bframes=3:keyint=24", **FILMS[name]}
    source = draw(tmp_path / name, frames=72, **options)
    text = CAMERA.format(film=source, path="out.mp4", codec="copy", src="cam")
    text = text.replace(
        f"{source}}}}}\n  - {{id: seen", f"{source}, max_fps: 10}}}}\n  - {{id: seen"
    )
    _, result = run_graph(tmp_path, text, directory=tmp_path / "run")
    assert result.error is None
    with Log(tmp_path / "run") as log:
        seen = pictures(log, "/seen/image")
        assert len(list(log.messages("/cam/image"))) == 24
    _, _, shown = film(tmp_path / "out.mp4")
    assert 60 < len(shown) <= 72  # not those that no other picture needs
    assert [time for time, _ in shown] == sorted(time for time, _ in shown)
    for time, made in shown[:-2]:
        [at] = [at for at, it in enumerate(seen) if np.array_equal(made, it)]
        assert abs(time - at * 100 / 3) < 100 / 3  # where one is missing, its neighbour is nearer


def test_a_copy_says_why_it_cannot_be_made(tmp_path):
    source = draw(tmp_path / "plain.mp4", **FILMS["plain.mp4"])
    text = (
        "codec: copy: the pictures come without a camera's packets: a task has drawn them, or the log "
        "does not keep packets; codec: auto encodes them"
    )
    assert text in str(copied(tmp_path, source, "out.mp4", src="seen").error)
    (tmp_path / "webm").mkdir()
    error = copied(tmp_path / "webm", source, "out.webm").error
    assert "a .webm does not hold h264 as it comes from this camera" in str(error)


def test_what_cannot_be_copied_is_encoded(tmp_path):
    source = draw(tmp_path / "plain.mp4", **FILMS["plain.mp4"])
    assert copied(tmp_path, source, "out.webm", codec="auto").error is None
    kind, _, shown = film(tmp_path / "out.webm")
    assert (kind, len(shown)) == ("vp9", FRAMES)


# -- ends and mistakes -----------------------------------------------------------------------

ENDS = """
import os, signal, sys, threading
import numpy as np
from flowrun.msgs import ImageRgb8Msg
from flowrun.runtime.cli import main
from flowrun.runtime.task import Context, Input, Output, Task

class Draws(Task):
    def start(self, ctx):
        self.count = 0
    def process(self, ctx: Context, image: Output[ImageRgb8Msg]) -> None:
        image.allocate_pixels(48, 64)[...] = self.count % 200
        image.publish(tov_ns=10**18 + self.count * 40_000_000)
        self.count += 1
        ctx.wake()

class Ends(Task):
    def process(self, ctx: Context, image: Input[ImageRgb8Msg]) -> None:
        if ctx.cycle == 150:
            if HOW.isdigit():
                os.kill(os.getpid(), int(HOW))
            else:
                raise RuntimeError("a task's own")

HOW = sys.argv[2]
sys.modules["ends"] = sys.modules["__main__"]
open("g.yaml", "w").write('''
tasks:
  - {id: cam, type: ends.Draws}
  - {id: out, type: VideoWriter, config: {path: %s, queue: 2}}
  - {id: ends, type: ends.Ends}
cnx: [{src: cam, dst: out, msg: ImageRgb8Msg}, {src: cam, dst: ends, msg: ImageRgb8Msg}]
''' % sys.argv[1])
sys.exit(main(["g.yaml", "--no-log", "--plain", "--port", "-1"]))
"""


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("path", ["out.mp4", "out.mkv"])
@pytest.mark.parametrize(
    "how",
    [str(int(it)) for it in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)] + ["error"],
)
def test_the_film_plays_whatever_ends_the_run(tmp_path, how, path):
    done = subprocess.run(
        [sys.executable, "-c", ENDS, path, how],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0 or how in (str(int(signal.SIGTERM)), str(int(signal.SIGINT)))
    _, duration, shown = film(tmp_path / path)
    assert [time for time, _ in shown] == [40 * at for at in range(len(shown))]
    if how == str(int(signal.SIGKILL)):
        assert 100 < len(shown) < 151  # all but the last second, and what waits
    else:
        assert len(shown) >= 150
        assert duration == 40 * len(shown)


class Peeks(VideoWriter):
    """Looks at the file while it is written."""

    seen: ClassVar[list[int]] = []

    def process(
        self, ctx: Context, image: Input[ImageRgb8Msg] | None, when: Input[Message] | None
    ) -> None:
        super().process(ctx, image, when)
        if ctx.cycle % 40 == 39:
            with av.open(str(ctx.graph_dir / self.config.path)) as opened:
                self.seen.append(len(list(opened.decode(video=0))))


@pytest.mark.parametrize("path", ["out.mp4", "out.mkv"])
def test_the_film_plays_while_it_is_written(tmp_path, monkeypatch, path):
    monkeypatch.setattr(Peeks, "seen", [])
    inputs = pictures_at(range(0, 4000, 40))
    config = {"path": path, "queue": 1}
    run_task(Peeks, inputs=inputs, config=config, graph_dir=tmp_path)
    for at, count in enumerate(Peeks.seen):
        assert 40 * at + 20 <= count <= 40 * (at + 1)  # half a second is 13 pictures


def mistakes(tmp_path, config):
    text = (
        "tasks:\n  - {id: cam, type: VideoCapture, config: {source_type: test}}\n"
        f"  - {{id: out, type: VideoWriter, config: {{{config}}}}}\n"
        "cnx: [{src: cam, dst: out, msg: ImageRgb8Msg}]"
    )
    with pytest.raises(GraphError) as raised:
        run_graph(tmp_path, text)
    return [it.message for it in raised.value.problems]


def test_mistakes_are_found_before_the_run(tmp_path):
    assert mistakes(tmp_path, "path: out.avi") == [
        "'out.avi': must end in one of .mp4, .m4v, .mov, .mkv, .webm"
    ]
    assert mistakes(tmp_path, "path: no/out.mp4") == [
        f"'no/out.mp4': no such folder: {tmp_path}/no; make it before the run"
    ]
    assert mistakes(tmp_path, "path: out.webm, codec: h264") == [
        "a .webm holds no h264; codecs: auto, copy, vp9, av1"
    ]
    assert mistakes(tmp_path, "path: out.mp4, crf: 60") == ["auto takes at most 51; got 60"]
    [text] = mistakes(tmp_path, "path: out.mp4, fps: fast")
    assert text.startswith("'fps' of task 'out' must be 'source', or a number; got 'fast'")


def test_without_pictures_it_is_no_use(tmp_path):
    _, result = run_graph(
        tmp_path,
        "tasks:\n  - {id: b, type: BoolSource}\n"
        "  - {id: out, type: VideoWriter, config: {path: out.mp4}}\n"
        "cnx: [{src: b, dst: out, msg: BoolMsg}]",
    )
    assert str(result.error) == "task 'out': nothing is connected to its input 'image'"


FULL = """
import resource, sys
import numpy as np
from flowrun.msgs import ImageRgb8Msg
from flowrun.runtime.task import Context, Input
from flowrun.runtime.testing import run_task
from flowrun.tasks.sinks.places import NewFile, SinkFileError
from flowrun.tasks.sinks.video_writer import Moments, VideoWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
rng = np.random.default_rng(0)
inputs = []
for at in range(60):
    image = ImageRgb8Msg(pixels=rng.integers(0, 255, (96, 128, 3), np.uint8))
    image.publish(tov_ns=at * 40_000_000)
    inputs.append({"image": image})
try:
    run_task(VideoWriter, inputs=inputs, config={"path": sys.argv[1]})
except OSError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.long
@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_a_full_disk_is_an_error_and_what_is_there_plays(tmp_path, name):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / name)],
        check=True,
        capture_output=True,
        text=True,
    )
    said = done.stdout.splitlines()[-1]
    assert said == f"FilmError cannot write {tmp_path / name}: File too large", done.stderr
    assert [it.name for it in tmp_path.iterdir()] == [name]
    shown = []
    with av.open(str(tmp_path / name)) as opened, suppress(av.error.InvalidDataError):
        shown.extend(it.pts for it in opened.decode(video=0))  # the last one is torn
    assert len(shown) > 2


def test_a_film_error_is_an_os_error():
    assert issubclass(FilmError, OSError)
