"""The thread that reads ahead, with a container and a decoder that give what each test says."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from flowrun.tasks.video import keeping, numbering
from flowrun.tasks.video import reader as reader_module
from flowrun.tasks.video.connection import Opened
from flowrun.tasks.video.decoding import Counts
from flowrun.tasks.video.numbering import Frame
from flowrun.tasks.video.opening import VideoError, is_live
from flowrun.tasks.video.packets import Origin
from flowrun.tasks.video.reader import Reader
from flowrun.tasks.video.sections import Picture
from flowrun.tasks.video.settings import VideoSettings
from support import films
from support.packets import plain_decoder

S = 1_000_000_000


class Container:
    """Gives `packets`, each the list of pictures that come out with it, or an error."""

    def __init__(self, *packets: Any, **stream: Any) -> None:
        given: dict[str, Any] = {
            "type": "video",
            "average_rate": Fraction(10),
            "guessed_rate": None,
            "sample_aspect_ratio": None,
            "start_time": None,
            "time_base": Fraction(1, 10),
            "codec_context": SimpleNamespace(
                width=48, height=32, color_trc=2, reorder_depth=16, name="h264", pix_fmt="odd"
            ),
            "frames": 0,
            "disposition": 0,
            **stream,
        }
        self.streams = Streams([SimpleNamespace(type="audio")])
        self.streams += [SimpleNamespace(**given), SimpleNamespace(**given)]
        self.duration: int | None = 5
        self.size = -1
        self.format = SimpleNamespace(name="nut", flags=0)
        self.packets = packets
        self.read = 0
        """How many packets were read."""
        self.sought: list[int] = []
        self.closed = 0

    def demux(self, stream: Any) -> Iterator[Any]:
        assert stream is self.streams[1]  # the first one with pictures
        for packet in self.packets:
            self.read += 1
            if isinstance(packet, Exception):
                raise packet
            yield Packet(packet)

    def seek(self, offset: int) -> None:
        self.sought.append(offset)

    def close(self) -> None:
        self.closed += 1


class Packet(list[Any]):
    """The pictures that come out with a packet; its time stamp is that of the first."""

    is_corrupt = False

    @property
    def size(self) -> int:
        return len(self)

    @property
    def dts(self) -> int | None:
        return self[0].pts if self else None


class Once:
    """A `Connection` that gives each container once.

    live: whether they are.
    """

    def __init__(self, *containers: Any, live: bool = False) -> None:
        self.name = "film"
        self.containers = list(containers)
        self.live = live
        self.lost: list[Any] = []
        """What each call was told."""
        self.pictures = 0
        self.stopped = 0

    def open(self, lost: Any = None) -> Opened | None:
        self.lost.append(lost)
        if self.stopped or not self.containers:
            return None
        is_again = len(self.lost) > 1
        return Opened(self.containers.pop(0), self.live, is_again)

    def is_over(self, _container: object) -> bool:
        return False

    def is_repeated(self, _packet: object, _container: object) -> bool:
        return False

    def note_end(self, _plays_s: float) -> None:
        pass

    def note_picture(self) -> None:
        self.pictures += 1

    def stop(self) -> None:
        self.stopped += 1


class Streams(list[Any]):
    @property
    def video(self) -> list[Any]:
        return [it for it in self if it.type == "video"]

    def best(self, _kind: str) -> Any:
        return self.video[0]


class Decoder:
    """A `SourceDecoder` whose packets are lists of pictures; `last` come out at the end."""

    last: Iterable[Picture] = ()

    def __init__(self, _stream: Any, queue: Any, *, cores: int, device: Any, after: Counts) -> None:
        assert device is None
        self.cores = cores
        self.passed = 0
        self.queue = queue
        self.after = after
        self.logs_packets = True
        self.damaged = after.damaged
        self.counts = Counts(after.packets + 1, 0, 0)
        self.restarted = 0
        self.is_closed = False

    def feed(self, packet: Any, emit: Any) -> None:
        for picture in packet:
            emit(picture)

    def drain(self, emit: Any) -> None:
        self.feed(self.last, emit)

    def close(self) -> None:
        self.is_closed = True

    def restart(self) -> None:
        self.restarted += 1


def kept(decoded: int) -> Any:
    """What is kept of a picture, which is a number; a negative one cannot be converted."""
    if decoded < 0:
        raise ValueError("its colours cannot be converted")
    return np.full((2, 2, 3), decoded, np.uint8)


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "SourceDecoder", Decoder)
    monkeypatch.setattr(keeping, "layout_of", lambda _: None)
    monkeypatch.setattr(keeping, "kept", kept)
    monkeypatch.setattr(Decoder, "last", ())


def shown(*pts: int | None) -> list[list[Picture]]:
    """Packets of one picture each."""
    return [[Picture(at, None, it, None)] for at, it in enumerate(pts)]


def unopened(
    connection: Any, *, uri: str = "film.mp4", keeps_packets: bool = False, **config: Any
) -> Reader:
    times = iter(range(100, 200))
    settings = VideoSettings(source_uri=uri, **config)
    return Reader(
        connection,
        settings,
        clock=lambda: next(times),
        wake=lambda: None,
        playback=lambda: "running",
        dropped=lambda _count, _cause: None,
        keeps_packets=keeps_packets,
    )


def reader_of(container: Any, *, uri: str = "film.mp4", **more: Any) -> Reader:
    """A reader that has opened the container, and will open it once more."""
    live = is_live(container, VideoSettings(source_uri=uri))
    reader = unopened(Once(container, live=live), uri=uri, **more)
    reader._use(Opened(container, live, is_again=False))
    return reader


def frames(reader: Reader, most: int = 20) -> list[Frame]:
    """What the thread gives, without it."""
    return [frame for frame, _ in zip(reader._frames(), range(most), strict=False)]


def times(reader: Reader, most: int = 20) -> list[tuple[int, int]]:
    return [(frame.frame_id, frame.time_ns) for frame in frames(reader, most)]


def started(reader: Reader) -> list[Frame]:
    """What the thread gives up to its end."""
    reader.start()
    found = []
    while (frame := reader.take(600.0)) is not None:
        found.append(frame)
    reader._thread.join()
    return found


# -- what a source is --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "duration", "live"),
    [
        ("film.mp4", 5, False),
        ("film.mp4", None, False),
        ("http://host/film.mp4", 5, False),
        ("http://host/film.mp4", None, True),
        ("rtsp://host/cam", 5, True),
        ("rtsp://host/cam", None, True),
        ("0", 5, True),
    ],
)
def test_what_has_no_duration_is_live(uri: str, duration: int | None, live: bool) -> None:
    container = Container()
    container.duration = duration
    reader = reader_of(container, uri=uri)
    assert reader.live is live
    assert reader.policy == ("latest" if live else "every_frame")
    assert reader._thread.daemon  # a silent source does not keep the process
    for policy in ("latest", "every_frame"):
        assert reader_of(container, uri=uri, policy=policy).policy == policy


@pytest.mark.parametrize(
    ("average", "guessed", "fps"),
    [(25, 30, 25.0), (0, 30, 30.0), (None, Fraction(5, 2), 2.5), (None, None, 0.0)],
)
def test_the_rate_is_what_the_container_says(average: Any, guessed: Any, fps: float) -> None:
    reader = reader_of(Container(average_rate=average, guessed_rate=guessed))
    assert (reader.fps, reader.width, reader.height) == (fps, 48, 32)


def test_the_rate_of_a_live_source_is_not_guessed() -> None:
    reader = reader_of(Container(average_rate=None, guessed_rate=25), uri="rtsp://host/cam")
    assert reader.fps == 0.0


@pytest.mark.parametrize(("types", "text"), [(["audio", "data"], "audio, data"), ([], "none")])
def test_a_container_without_video_is_refused(types: list[str], text: str) -> None:
    container = Container()
    container.streams = Streams(SimpleNamespace(type=it) for it in types)
    with pytest.raises(VideoError) as caught:
        reader_of(container)
    assert str(caught.value) == f"'film' has no video stream; it has: {text}"


# -- times -------------------------------------------------------------------------------------


def test_times_are_those_since_the_first_frame() -> None:
    found = frames(reader_of(Container(*shown(5, 7, 6, 17), start_time=3)))
    assert [(it.frame_id, it.pts, it.time_ns) for it in found] == [
        *((0, 5, 0), (1, 7, S // 5), (2, 6, S // 5), (3, 17, 6 * S // 5))
    ]
    assert [it.kept[0, 0, 0] for it in found] == [0, 1, 2, 3]


def test_a_frame_without_a_time_comes_a_period_after_the_one_before() -> None:
    container = Container(*shown(None, None, 30, None), average_rate=Fraction(1))
    assert times(reader_of(container)) == [(0, 0), (1, S), (2, 3 * S), (3, 4 * S)]
    container = Container(*shown(None, None), average_rate=None)
    assert times(reader_of(container)) == [(0, 0), (1, S // 25)]


def test_frames_before_start_s_are_left_out() -> None:
    container = Container(*shown(*range(20, 30)), start_time=20)
    reader = reader_of(container, start_s=0.5)
    found = frames(reader)
    assert [(it.frame_id, it.pts) for it in found] == [(k, 25 + k) for k in range(5)]
    assert [it.time_ns for it in found] == [k * S // 10 for k in range(5)]
    assert container.sought == [2_500_000]
    assert reader._decoder.restarted == 1  # type: ignore[attr-defined]
    container = Container(*shown(*range(10)))
    assert len(times(reader_of(container, start_s=0.5))) == 5
    assert container.sought == [500_000]
    container = Container(*shown(-3, 0, 1), start_time=0)  # what is before the start is there
    assert times(reader_of(container)) == [(0, 0), (1, 3 * S // 10), (2, 2 * S // 5)]
    assert container.sought == []


def test_a_loop_goes_on_a_period_after_its_last_frame() -> None:
    container = Container(*shown(5, 7, 8), start_time=5)
    reader = reader_of(container, loop=True)
    assert times(reader, 8) == [
        (k, time * S // 10) for k, time in enumerate([0, 2, 3, 4, 6, 7, 8, 10])
    ]
    assert container.sought == [500_000, 500_000]
    assert reader._decoder.restarted == 2  # type: ignore[attr-defined]


def test_a_live_source_has_the_time_of_the_clock() -> None:
    reader = reader_of(Container(*shown(5, 7)), uri="rtsp://host/cam")
    assert times(reader) == [(0, 100), (1, 101)]


@pytest.mark.parametrize("uri", ["film.mp4", "rtsp://host/cam"])
def test_max_fps_goes_by_the_sources_own_time_stamps(uri: str) -> None:
    """The clock of a live source that is read says nothing."""
    container = Container(*shown(*range(8)))
    assert [it.frame_id for it in frames(reader_of(container, uri=uri, max_fps=5))] == [0, 2, 4, 6]
    assert len(frames(reader_of(container, uri=uri, max_fps=20))) == 8
    uneven = Container(*shown(0, 1, 2, 20, 21, None, None, 50, 3, 4, 5))
    kept = [it.frame_id for it in frames(reader_of(uneven, uri=uri, max_fps=5))]
    assert kept == [0, 2, 3, 5, 7, 9]


def test_where_a_live_source_has_no_clock_max_fps_goes_by_when_pictures_come() -> None:
    def counted() -> Container:
        container = Container(*shown(0, 1, 2, 3))
        container.format.flags = 0x80
        return container

    live = reader_of(counted(), uri="rtsp://host/cam", max_fps=500_000_000)
    assert times(live) == [(0, 100), (2, 102)]
    film = reader_of(counted(), max_fps=5)
    assert times(film) == [(0, 0), (2, 2 * S // 10)]


def test_the_rounds_of_a_loop_are_one_film_for_max_fps() -> None:
    reader = reader_of(Container(*shown(0, 1, 2)), loop=True, max_fps=5)
    assert times(reader, 4) == [(k, k * S // 10) for k in (0, 2, 4, 6)]


# -- pictures ----------------------------------------------------------------------------------


def test_what_has_ended_needs_no_cores() -> None:
    reader = reader_of(Container(*shown(0, 1)))
    assert len(started(reader)) == 2
    decoder: Any = reader._decoder
    assert decoder.is_closed


@pytest.mark.parametrize(("uri", "read"), [("rtsp://host/cam", 1), ("film.mp4", 2)])
def test_only_a_live_picture_does_not_wait_for_the_next_packet(uri: str, read: int) -> None:
    container = Container(*shown(0, 1, 2), average_rate=None)
    given = reader_of(container, uri=uri)._frames()
    for number in range(3):
        assert next(given).frame_id == number
        assert container.read == min(3, number + read)
    assert list(given) == []


def test_pictures_come_in_order_and_those_at_the_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    made = np.full((2, 2, 3), 77, np.uint8)
    monkeypatch.setattr(Decoder, "last", [Picture(8, None, 8, None), Picture(9, None, 9, None)])
    origin = Origin(0, 1, 2, drained=False)
    packets = [[], [Picture(1, None, 1, origin), Picture(None, made, 2, None)], [], shown(3)[0]]
    reader = reader_of(Container(*packets))
    found = frames(reader)
    assert [it.pts for it in found] == [1, 2, 3, 8, 9]
    assert [it.kept[0, 0, 0] for it in found] == [1, 77, 0, 8, 9]
    assert [it.origin for it in found] == [origin, None, None, None, None]
    assert reader._keeping._pool._max_workers == 1  # frames are kept in their order


def test_what_cannot_be_converted_is_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [Picture(colour, None, at, None) for at, colour in enumerate([3, -1, 5, -2, 7])]
    reader = reader_of(Container(*([it] for it in pictures)))
    assert [it.frame_id for it in frames(reader)] == [0, 2, 4]
    assert reader.damaged == 2
    monkeypatch.setattr(Decoder, "last", pictures)
    assert [it.frame_id for it in frames(reader_of(Container()))] == [0, 2, 4]


@pytest.mark.parametrize("keeps", [False, True])
def test_packets_are_given_where_a_log_wants_them(keeps: bool) -> None:
    reader = reader_of(Container(), keeps_packets=keeps)
    queue = reader._decoder.queue  # type: ignore[attr-defined]
    assert (queue is not None) == reader.has_packets == keeps
    pixels = np.zeros((2, 2, 3), np.uint8)
    frame = Frame(pixels, 0, None, 0, Origin(0, 0, 0, drained=False))
    if keeps:
        queue.begin_section(0, plain_decoder("h264", 2, 2), 0)
        queue.append(0, 0, b"a", is_key=True)
        assert reader.packets_of(Frame(pixels, 0, None, 0)) is None
        video = reader.packets_of(frame)
        assert video is not None
        assert video.packets == ((b"a", True),)
        reader._decoder.logs_packets = False
        assert not reader.has_packets
    else:
        assert reader.packets_of(frame) is None


# -- the buffer --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "config", "newest"),
    [
        ("film.mp4", {}, False),
        ("film.mp4", {"realtime": True}, False),
        ("film.mp4", {"policy": "latest"}, True),
        ("film.mp4", {"policy": "latest", "realtime": True}, False),
        ("http://host/live", {}, True),
        ("http://host/live", {"realtime": True}, True),
        ("http://host/live", {"policy": "every_frame"}, False),
    ],
)
def test_four_frames_are_ready_or_the_newest_one(
    uri: str, config: dict[str, Any], newest: bool
) -> None:
    container = Container()
    container.duration = None
    reader = reader_of(container, uri=uri, **config)
    waits: list[bool] = []
    reader.frames._changed.wait_for = lambda ready, *_: waits.append(not ready())  # type: ignore[assignment]
    for number in range(20):
        assert reader._put(Frame(np.zeros((2, 2, 3), np.uint8), number, None, number)) is True
    held = [frame.frame_id for frame, _ in reader.frames._frames]
    if newest:
        assert (waits, held, dict(reader.frames.lost)) == ([], [19], {"latest": 19})
    elif reader.live:
        assert (held, dict(reader.frames.lost)) == ([*range(4, 20)], {"buffer full": 4})
        assert not any(waits)
    else:
        assert (waits, held) == ([True] * 16, [*range(20)])
    reader.stop()
    assert reader._put(Frame(np.zeros((2, 2, 3), np.uint8), 6, None, 6)) is False


def test_frames_are_taken_one_after_the_other() -> None:
    reader = reader_of(Container())
    assert reader.take(0.0) is None
    for number in range(3):
        reader._put(Frame(np.zeros((2, 2, 3), np.uint8), number, None, number))
    first = reader.take(0.0, until_ns=0)
    assert first is not None
    assert (first.frame_id, reader.frames.drained) == (0, False)
    assert reader.take(0.0, until_ns=0) is None
    taken = [reader.take(0.0, until_ns=2) for _ in range(3)]
    assert [it and it.frame_id for it in taken] == [1, 2, None]
    assert not reader.frames.drained
    reader.frames.end()
    assert reader.frames.drained
    assert reader.take(600.0) is None


def test_the_newest_frame_that_is_due_is_taken_and_what_is_late_left_out() -> None:
    reader = reader_of(
        Container(average_rate=1, time_base=Fraction(1, S)),
        policy="latest",
        realtime=True,
    )
    made = [Frame(np.zeros((2, 2, 3), np.uint8), number, None, 10 * number) for number in range(5)]
    for frame in made[1:]:
        reader._put(frame)
    assert reader.skip_to(9, made[0]) is made[0]
    assert not reader.frames.lost
    assert reader.skip_to(30, made[0]) is made[3]
    assert (reader.frames.lost, reader.take(0.0)) == ({"latest": 3}, made[4])
    assert reader.skip_to(3 * S, made[4]) is made[4]
    due = 0, S, 2 * S, 2 * S + 1, 3 * S
    given = [reader._numbering.framed(Picture(None, None, pts, None)) for pts in due][1:]
    pixels = np.zeros((2, 2, 3), np.uint8)
    assert [it and it(pixels).frame_id for it in given] == [None, None, 3, 4]
    assert reader.frames.lost == {"latest": 6}


def test_the_cycle_is_woken_for_each_frame_and_at_the_end() -> None:
    woken = []
    reader = reader_of(Container(*shown(0, 1, 2)))
    reader._wake = lambda: woken.append(threading.current_thread().name)
    assert [it.frame_id for it in started(reader)] == [0, 1, 2]
    assert woken == ["flowrun-read film"] * 4
    assert reader.frames.drained
    assert reader.error is None
    assert reader._container.closed >= 1


# -- its end -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({}, "'film' has no frames"),
        ({"loop": True}, "'film' has no frames"),
        ({"start_s": 2.5}, "'film' has no frame after start_s 2.5"),
    ],
)
def test_a_file_without_frames_is_an_error(config: dict[str, Any], text: str) -> None:
    reader = reader_of(Container(), **config)
    assert started(reader) == []
    assert str(reader.error) == text


@pytest.mark.parametrize("loop", [False, True])
def test_a_file_of_which_nothing_can_be_shown_is_an_error(loop: bool) -> None:
    pictures = [Picture(colour, None, at, None) for at, colour in enumerate([-1, -2])]
    reader = reader_of(Container(*([it] for it in pictures)), loop=loop)
    assert started(reader) == []
    assert str(reader.error) == "'film' has pictures that cannot be converted (odd)"


@pytest.mark.parametrize("loop", [False, True])
def test_a_file_of_which_nothing_can_be_decoded_is_an_error(
    monkeypatch: pytest.MonkeyPatch, loop: bool
) -> None:
    def refuse(decoder: Decoder, _packet: Any, _emit: Any) -> None:
        decoder.damaged += 1

    monkeypatch.setattr(Decoder, "feed", refuse)
    reader = reader_of(Container(*shown(0, 1)), loop=loop)
    assert started(reader) == []
    assert str(reader.error) == "'film' has no frame that can be decoded (h264)"


def test_a_live_source_may_end_without_frames() -> None:
    reader = reader_of(Container(), uri="rtsp://host/cam")
    assert started(reader) == []
    assert reader.error is None


@pytest.mark.parametrize("loop", [False, True])
def test_what_breaks_ends_the_source_after_its_frames(loop: bool) -> None:
    reader = reader_of(Container(*shown(0, 1), TypeError("odd"), *shown(2)), loop=loop)
    with pytest.raises(TypeError):
        frames(reader)
    reader = reader_of(Container(*shown(0, 1), TypeError("odd"), *shown(2)), loop=loop)
    assert [it.frame_id for it in started(reader)] == [0]
    assert str(reader.error) == "'film': reading failed: TypeError: odd"
    lost = av.error.InvalidDataError(1, "odd")
    container = Container(*shown(0, 1), lost, *shown(2))
    reader = reader_of(container, loop=loop)
    assert [it.frame_id for it in started(reader)] == [0, 1]
    assert str(reader.error) == "'film' is damaged, and FFmpeg cannot read on: odd"
    assert (container.read, container.closed) == (3, 1)


def test_a_picture_that_is_removed_meanwhile_is_named() -> None:
    gone = FileNotFoundError(errno.ENOENT, "No such file or directory", "frames/13.png")
    reader = reader_of(Container(*shown(0, 1), gone))
    assert [it.frame_id for it in started(reader)] == [0]
    assert reader.error is not None
    assert reader.error.code == "not_found"
    assert str(reader.error) == "cannot read 'frames/13.png': No such file or directory"


@pytest.mark.parametrize(
    ("error", "silent_s", "text", "code"),
    [
        (av.error.InvalidDataError(1, "odd"), 1.79, "was lost: odd", "ended"),
        (av.error.InvalidDataError(1, "odd"), 1.81, "gave no frame for timeout_s 2", "timeout"),
        (av.error.ExitError(1, "odd"), 0.0, "gave no frame for timeout_s 2", "timeout"),
    ],
)
def test_a_live_source_that_gave_nothing_for_its_timeout_is_silent(
    monkeypatch: pytest.MonkeyPatch, error: Exception, silent_s: float, text: str, code: str
) -> None:
    now = SimpleNamespace(s=50.0)
    monkeypatch.setattr(numbering.time, "monotonic", lambda: now.s)

    class Silent(Container):
        def demux(self, stream: Any) -> Iterator[Any]:
            now.s += 100
            yield from super().demux(stream)

    reader = reader_of(Silent(*shown(0)), uri="rtsp://host/cam", timeout_s=2)
    assert len(frames(reader)) == 1
    now.s += silent_s
    lost = reader._loss(error)
    assert (str(lost), lost.code) == (f"'film' {text}", code)


@pytest.mark.parametrize(
    ("error", "text", "code"),
    [
        (av.error.ExitError(1, "odd"), "gave no frame for timeout_s 2", "timeout"),
        (
            av.error.OSError(errno.EIO, "odd"),
            "has ended the connection before the end of the film",
            "ended",
        ),
        (av.error.InvalidDataError(1, "odd"), "cannot be decoded: odd", "codec"),
    ],
)
def test_a_film_that_breaks_off_says_how(error: Exception, text: str, code: str) -> None:
    reader = reader_of(Container(*shown(0)), uri="http://host/film.mp4", timeout_s=2)
    reader.live = False  # as its server says
    reader._came_s -= 100  # as while the graph has other things to do
    lost = reader._loss(error)
    assert (str(lost), lost.code) == (f"'film' {text}", code)


def test_a_reader_that_was_not_started_has_nothing_to_close() -> None:
    connection = Once(Container())
    assert unopened(connection).stop() is True
    assert (connection.stopped, connection.lost) == (1, [])


@pytest.mark.parametrize("uri", ["film.mp4", "rtsp://host/cam"])
def test_a_reader_whose_source_is_silent_is_left_running(
    monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    began, gate = threading.Event(), threading.Event()

    class Silent(Container):
        def demux(self, stream: Any) -> Iterator[Any]:
            began.set()
            gate.wait()
            yield from super().demux(stream)

    container = Silent(*shown(0, 1, 2, 3, 4))
    connection = Once(container, live=uri != "film.mp4")
    reader = unopened(connection, uri=uri)
    reader.start()
    began.wait()
    monkeypatch.setattr(reader_module, "_STOP_S", 0.001)
    assert reader.stop() is False
    gate.set()
    reader._thread.join()
    assert reader.stop() is True
    assert (container.closed, reader.take(0.0)) == (1, None)
    assert connection.lost == [None]


def test_a_live_source_ends_between_packets_that_give_no_picture() -> None:
    began = threading.Event()

    class Endless(Container):
        def demux(self, stream: Any) -> Iterator[Any]:
            while True:
                yield []
                began.set()

    reader = unopened(Once(Endless(), live=True), uri="rtsp://host/cam")
    reader.start()
    began.wait()
    reader.stop()
    reader._thread.join()


def test_who_waits_for_a_source_to_open_is_interrupted() -> None:
    asked = threading.Event()

    class Dark(Once):
        def open(self, lost: Any = None) -> Opened | None:
            asked.wait()
            return super().open(lost)

    reader = unopened(Dark(Container()))
    reader.start()
    waiting = threading.Thread(target=reader.wait_until_open)
    waiting.start()
    reader.interrupt()
    waiting.join()
    assert reader.error is None
    asked.set()
    reader._thread.join()


# -- lost and opened again ---------------------------------------------------------------------


def test_what_is_lost_is_opened_again_and_goes_on() -> None:
    lost = av.error.InvalidDataError(1, "odd")
    containers = [
        Container(*shown(0, 1), lost, *shown(2)),
        Container(
            *shown(7),
            average_rate=5,
            codec_context=SimpleNamespace(width=4, height=2, color_trc=2, reorder_depth=16),
        ),
        Container(),
    ]
    connection = Once(*containers, live=True)
    reader = unopened(connection, uri="rtsp://host/cam", policy="every_frame")
    found = started(reader)
    assert [(it.frame_id, it.pts) for it in found] == [(0, 0), (1, 1), (2, 7)]
    assert [it.time_ns for it in found] == sorted(it.time_ns for it in found)
    assert [it and (str(it), it.code) for it in connection.lost] == [
        None,
        ("'film' was lost: odd", "ended"),
        ("'film' has ended", "ended"),
        ("'film' has ended", "ended"),
    ]
    assert [it.closed > 0 for it in containers] == [True] * 3
    assert (connection.pictures, reader.error) == (3, None)
    assert reader._decoder.after == Counts(2, 0, 0)  # type: ignore[attr-defined]
    assert (reader.width, reader.fps) == (48, 10.0)


def test_a_live_source_that_has_become_a_film_is_over() -> None:
    connection = Once(Container(*shown(0)), Container(*shown(0)), live=True)

    class Ends(Once):
        def open(self, lost: Any = None) -> Opened | None:
            opened = connection.open(lost)
            return opened and opened._replace(is_live=lost is None)

    reader = unopened(Ends(), uri="http://host/live.m3u8")
    assert [it.frame_id for it in started(reader)] == [0]
    assert reader.error is None


def test_a_source_that_cannot_be_opened_is_an_error_for_who_waits() -> None:
    class Refuses(Once):
        def open(self, lost: Any = None) -> Opened | None:
            raise VideoError("nothing listens", code="refused")

    reader = unopened(Refuses(), uri="rtsp://host/cam")
    assert reader.live
    reader.start()
    with pytest.raises(VideoError, match="^nothing listens$"):
        reader.wait_until_open()


def test_pictures_that_waited_when_a_source_was_opened_are_as_old_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = SimpleNamespace(s=50.0)
    monkeypatch.setattr(numbering.time, "monotonic", lambda: now.s)

    class Late(Container):
        def demux(self, stream: Any) -> Iterator[Any]:
            for number, packet in enumerate(super().demux(stream)):
                now.s += 0 if number < 3 else 0.1
                yield packet

    reader = unopened(
        Once(Late(*shown(20, 21, 22, 23, 24, None)), live=True), uri="rtsp://host/cam"
    )
    times = iter(range(S, 9 * S, S))
    reader._numbering._clock = lambda: next(times)
    found = frames(reader)
    assert [it.time_ns for it in found] == [
        7 * S // 10,
        8 * S // 10,
        9 * S // 10,
        5 * S,
        6 * S,
        7 * S,
    ]


def test_a_source_that_gives_a_picture_now_and_then_does_not_keep_one_back() -> None:
    container = Container(*shown(0, 1, 2), average_rate=1)
    given = unopened(Once(container, live=True), uri="rtsp://host/cam")._frames()
    assert next(given).frame_id == 0
    assert container.read == 1


def test_what_was_ready_before_an_error_is_given() -> None:
    connection = Once(Container(*shown(0, 1), av.error.InvalidDataError(1, "odd")), live=True)
    assert len(frames(unopened(connection, uri="rtsp://host/cam"))) == 2


def test_a_live_source_may_end_before_its_first_picture_is_awaited(tmp_path: Path) -> None:
    """All of it was ready when it was opened; PyAV's iterators must not be asked again after their
    end."""
    path = films.draw(tmp_path / "film.ts", bf="0")
    with av.open(str(path)) as container:
        [stream] = container.streams.video
        numbers = numbering.Numbering(
            VideoSettings(source_uri="http://host/film"),
            clock=lambda: S,
            leave_out=lambda _number, _cause: None,
        )
        numbers.begin(stream, is_live=True)
        packets = list(numbers.watched(container.demux(stream)))
    assert sum(bool(it.size) for it in packets) == films.FRAMES
