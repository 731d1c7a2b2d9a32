"""Decoded pictures as planes of their own."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from flowrun.msgs import ImageRgb8Msg
from flowrun.runtime import Log
from flowrun.runtime.clock import ManualClock
from flowrun.runtime.log.check import check_log
from flowrun.runtime.pictures import planar, stored
from flowrun.runtime.pictures.convert import resized
from flowrun.runtime.pictures.planar import (
    Demand,
    InPlace,
    Layout,
    PlanarPicture,
    is_same,
    kept,
    layout_of,
)
from flowrun.runtime.pictures.stored import StoredPicture
from flowrun.runtime.pictures.video import RgbConverter
from flowrun.runtime.replay.recorder import ReplayLog
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.run.live import Run
from flowrun.tasks.video import keeping
from support import helpers
from support.films import FILMS, FRAMES, codecs, draw, pictures, recorded

SIZES = [(48, 64), (5, 7), (1, 1), (2, 33)]
PLANAR = ["yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv411p", "yuva420p", "yuv420p10le"]
PLANAR += ["nv12", "nv24", "gray", "gray10le", "p010le", "yuv444p16le", "yuv440p"]
OTHERS = [
    "rgb24",
    "bgr0",
    "gbrp",
    "pal8",
    "monow",
    "yuyv422",
    "rgb565le",
    "ya8",
    "gray16be",
    "yuv420p10be",
]


def frame_of(form: str, height: int, width: int, seed: int = 0) -> Any:
    """A picture of noise."""
    frame: Any = av.VideoFrame(width, height, form)
    rng = np.random.default_rng(seed)
    for plane in frame.planes:
        plane.update(rng.integers(0, 256, plane.buffer_size, np.uint8).tobytes())
    frame.time_base = Fraction(1, 30)
    return frame


@pytest.mark.parametrize("form", PLANAR)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_planes_are_copied_without_their_gaps(form: str, height: int, width: int) -> None:
    frame = frame_of(form, height, width)
    found = kept(frame)
    assert isinstance(found, PlanarPicture)
    assert (found.height, found.width) == (height, width)
    assert not found.data.flags.writeable
    for plane, data in zip(frame.planes, found.planes.data, strict=True):
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        assert np.array_equal(rows[: data.shape[0], : data.shape[1]], data)
    assert found.data.size == found.layout.size == sum(it.size for it in found.planes.data)
    assert np.array_equal(found.made(), RgbConverter().rgb(frame))
    assert not np.shares_memory(found.data, np.frombuffer(frame.planes[0], np.uint8))


@pytest.mark.parametrize("form", PLANAR)
@pytest.mark.parametrize(("height", "width"), [*SIZES, (48, 640)])
def test_a_picture_in_its_decoders_memory_is_the_same(form: str, height: int, width: int) -> None:
    frame = frame_of(form, height, width)
    own, layout = kept(frame), layout_of(frame)
    assert isinstance(own, PlanarPicture)
    assert layout is not None
    made, summed, copied = (PlanarPicture(layout, InPlace(frame, layout)) for _ in range(3))
    assert np.array_equal(made.made(), own.made())
    assert made.is_in_place
    assert np.array_equal(made.luma(), own.luma())
    assert np.array_equal(made.resized(3, 3), own.resized(3, 3))
    assert summed.crc == own.crc
    assert is_same(copied, own)
    assert not copied.is_in_place
    assert not np.shares_memory(copied.data, np.frombuffer(frame.planes[0], np.uint8))
    assert is_same(pickle.loads(pickle.dumps(made)), own)


def test_what_is_given_of_a_picture_does_not_lie_in_memory_that_its_decoder_takes_back() -> None:
    frame = frame_of("yuv420p", 16, 16)
    own, layout = kept(frame), layout_of(frame)
    assert isinstance(own, PlanarPicture)
    assert layout is not None
    made, given, left = (
        PlanarPicture(layout, InPlace(frame, layout, stays=False)) for _ in range(3)
    )
    assert np.array_equal(made.made(), own.made())
    assert made.is_borrowed
    assert made.crc == own.crc
    planes = given.planes
    left.leave_decoder()
    assert not any(it.is_in_place for it in (given, left))
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    assert all(map(np.array_equal, planes.data, own.planes.data))
    assert np.array_equal(left.data, own.data)


def test_a_decoder_waits_for_who_reads_a_picture_in_its_memory() -> None:
    frame = frame_of("yuv420p", 16, 16)
    layout = layout_of(frame)
    assert layout is not None
    began, go_on = threading.Event(), threading.Event()

    class Slow(InPlace):
        @property
        def lines(self) -> Any:
            began.set()
            assert go_on.wait(30)
            return super().lines

    picture = PlanarPicture(layout, Slow(frame, layout, stays=False))
    with ThreadPoolExecutor(2) as pool:
        reads = pool.submit(picture.made)
        assert began.wait(30)
        leaves = pool.submit(picture.leave_decoder)
        assert not leaves.done()
        go_on.set()
        assert np.array_equal(reads.result(30), kept(frame).made())
        leaves.result(30)
    assert not picture.is_in_place


@pytest.mark.parametrize("form", PLANAR)
def test_bytes_of_planes_are_not_read_past_their_end(form: str) -> None:
    own = kept(frame_of(form, 48, 64))
    assert isinstance(own, PlanarPicture)
    with pytest.raises(ValueError, match=r"\d"):
        PlanarPicture(own.layout, own.data[:-65].copy()).made()


@pytest.mark.parametrize("form", OTHERS)
def test_a_picture_that_has_no_planes_of_luma_is_kept_as_pixels(form: str) -> None:
    frame = frame_of(form, 16, 16)
    assert layout_of(frame) is None
    found = kept(frame)
    assert isinstance(found, np.ndarray)
    assert np.array_equal(found, RgbConverter().rgb(frame))


def test_a_format_that_this_ffmpeg_lacks_has_no_planes() -> None:
    for form in ("newest", "rgb24"):
        with pytest.raises(ValueError, match=form):
            _ = Layout(form, 2, 2, 2, 0, 1).planes


def test_the_same_picture_has_the_same_planes_and_colours() -> None:
    one, other = (kept(frame_of("yuv420p", 4, 4, seed)) for seed in (1, 2))
    again = kept(frame_of("yuv420p", 4, 4, 1))
    assert isinstance(one, PlanarPicture)
    wide = PlanarPicture(one.layout._replace(span=2), one.data)
    pixels = one.made()
    assert is_same(one, again)
    assert is_same(pixels, pixels.copy())
    assert not any(is_same(one, it) for it in (other, wide, pixels))
    assert not is_same(pixels, one)


def test_pixels_are_made_once_whoever_asks_and_the_first_is_noted() -> None:
    asked: list[int] = []
    first = kept(frame_of("yuv420p", 40, 40), on_read=lambda: asked.append(1))
    assert isinstance(first, PlanarPicture)
    first.prepare()
    assert asked == []
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: first.made(), range(32)))
    assert all(it is found[0] for it in found)
    assert asked == [1]
    again = pickle.loads(pickle.dumps(first))
    assert is_same(first, again)
    assert again.crc == first.crc


def test_pixels_are_expected_where_those_before_were_read() -> None:
    demand = Demand()
    assert not demand.expects(0)
    demand.note(0)
    assert not demand.expects(1)
    demand.note(1)
    assert [demand.expects(number) for number in (0, 1, 2, 9, 10)] == [
        False,
        False,
        True,
        True,
        False,
    ]
    demand.note(3)  # every second one
    assert demand.expects(5)
    demand.note(30)
    assert not demand.expects(31)
    demand.note(4)  # the film begins again
    demand.note(5)
    assert demand.expects(6)


# -- through runs ------------------------------------------------------------------------------


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is converted, by the format of each."""
    found: list[str] = []
    converted = PlanarPicture._converted

    def counting(picture: PlanarPicture) -> Any:
        found.append(picture.layout.format)
        return converted(picture)

    monkeypatch.setattr(PlanarPicture, "_converted", counting)
    return found


def glancing(tmp_path: Path, more: str = "") -> Any:
    film = draw(tmp_path / "b.mp4", **FILMS["b_frames.mp4"])
    return helpers.plan_of(
        tmp_path, f"a=VideoCapture(source_uri: {film}){more}; g=Glance", "a > g: ImageRgb8Msg"
    )


def test_what_nobody_reads_is_converted_neither_in_a_run_nor_in_its_replay(
    tmp_path: Path, conversions: list[str]
) -> None:
    helpers.record(glancing(tmp_path), tmp_path / "run")
    assert len(conversions) == FRAMES // 5
    conversions.clear()
    with Log(tmp_path / "run") as log:
        report = Replay(log, env={}).run()
        assert (report.identical, report.compared) == (True, FRAMES)
        assert len(conversions) == FRAMES // 5
        assert check_log(log)[2] == []
        assert len(conversions) == FRAMES // 5


@pytest.mark.parametrize("codec", ["packets", "zstd", "raw"])
@pytest.mark.parametrize("name", ["b_frames.mp4", "jpegs.avi", "yuyv.avi", "png.mov"])
def test_luma_and_other_sizes_are_the_same_in_a_replay(
    tmp_path: Path, name: str, codec: str, conversions: list[str]
) -> None:
    film = draw(tmp_path / name, **FILMS[name])
    camera = f"a=VideoCapture(source_uri: {film})@logging: {{codec: {codec}}}"
    plan = helpers.plan_of(tmp_path, f"{camera}; s=Shades", "a > s: ImageRgb8Msg")
    helpers.record(plan, tmp_path / "run")
    assert len(conversions) == (
        0 if codec == "packets" or name in ("yuyv.avi", "png.mov") else FRAMES
    )
    with Log(tmp_path / "run") as log:
        report = Replay(log, env={}).run()
        assert (report.identical, report.compared) == (True, FRAMES)


def test_luma_and_other_sizes_are_made_of_the_planes() -> None:
    found = kept(frame_of("yuv420p", 20, 30))
    assert isinstance(found, PlanarPicture)
    image = ImageRgb8Msg()
    image.show(found)
    image.publish()
    view = image.view()
    assert np.array_equal(view.luma, found.planes.data[0])
    assert np.array_equal(view.resized(7, 5), resized(found.planes, 7, 5))
    assert np.array_equal(view.resized(30, 20), view.pixels)
    view.luma[...] = 0  # a new array
    assert np.array_equal(image.luma, found.planes.data[0])


def test_pixels_are_let_go_after_their_cycle_and_made_once_more_for_who_reads_them() -> None:
    found = kept(frame_of("yuv420p", 20, 30))
    assert isinstance(found, PlanarPicture)
    image = ImageRgb8Msg()
    image.show(found)
    image.publish()
    first = image.view().pixels
    before = first.copy()
    image.envelope.forget_made()
    again = image.view().pixels
    assert not np.shares_memory(first, again)
    assert np.array_equal(first, before)
    assert np.array_equal(again, before)
    assert image.view().pixels is again


@pytest.mark.parametrize("stepped", [False, True])
def test_a_run_holds_the_pixels_of_its_last_cycle_alone(
    tmp_path: Path, stepped: bool, conversions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """stepped: as a replay runs cycles."""
    seen: list[int] = []
    pictures: list[PlanarPicture] = []
    show = ImageRgb8Msg.show

    def showing(image: ImageRgb8Msg, picture: Any) -> None:
        pictures.append(picture)
        seen.append(sum(it._pixels is not None for it in pictures[:-1]))
        show(image, picture)

    monkeypatch.setattr(ImageRgb8Msg, "show", showing)
    monkeypatch.setattr(Demand, "expects", lambda _self, _number: False)
    film = draw(tmp_path / "b.mp4", **FILMS["b_frames.mp4"])
    plan = helpers.plan_of(
        tmp_path, f"a=VideoCapture(source_uri: {film}); s=Digest", "a > s: ImageRgb8Msg"
    )
    executor = Run(plan, clock=ManualClock(0), directory=None).executor
    if stepped:
        monkeypatch.setattr(executor.cycle, "runs", [partial(_step_all, executor.cycle)])
    executor.run()
    assert len(seen) == FRAMES
    assert not any(seen)
    assert len(conversions) == FRAMES


def _step_all(cycle: Any) -> bool:
    cycle.begin()
    while cycle.step() is not None:
        pass
    return bool(cycle.messages[0].present)


def test_what_the_log_stores_as_pixels_is_converted_once(
    tmp_path: Path, conversions: list[str]
) -> None:
    helpers.record(glancing(tmp_path, "@logging: {codec: zstd}"), tmp_path / "run")
    assert len(conversions) == FRAMES


def test_a_log_of_pixels_checksums_is_read_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that was written before planes were."""
    film = draw(tmp_path / "b.mp4", **FILMS["b_frames.mp4"])
    with monkeypatch.context() as patched:
        patched.setattr(keeping, "layout_of", lambda _: None)
        patched.setattr(planar, "layout_of", lambda _: None)
        patched.setattr(planar, "RgbConverter", partial(RgbConverter, 0))
        patched.setattr(stored, "CONVERSION", 0)
        run = recorded(tmp_path, film)
    with Log(run) as log:
        found = [StoredPicture.parse(it.payload) for it in log.messages("/a/image")]
        assert {(it.layout, it.own["convert"]) for it in found} == {(None, 0)}
        assert codecs(log, "/a/image") == ["packets"] * FRAMES
        assert all(map(np.array_equal, pictures(log, "/a/image"), pictures(log, "/b/image")))
        assert check_log(log)[2] == []
        replay = Replay(log, env={})
        with ReplayLog(replay, tmp_path / "new", config={}, now_ns=1) as recorder:
            assert replay.run(recorder=recorder).fed == 2 * FRAMES
        with Log(tmp_path / "new") as new:
            assert check_log(new)[2] == []
            assert codecs(new, "/a/image") == ["packets"] * FRAMES
            assert all(map(np.array_equal, pictures(new, "/a/image"), pictures(log, "/b/image")))


def test_a_decoder_that_gives_other_planes_or_colours_is_found(tmp_path: Path) -> None:
    run = recorded(tmp_path, draw(tmp_path / "b.mp4", **FILMS["b_frames.mp4"]))
    with Log(run) as log:
        message = next(log.messages("/a/image"))
        picture = StoredPicture.parse(message.payload)
        found = message.deferred["pixels"]
        assert picture.checked(found) is found
        flipped = np.array(found.data)
        flipped[-1] ^= 1
        others = [
            PlanarPicture(found.layout, flipped),
            PlanarPicture(found.layout._replace(space=1), found.data),
            PlanarPicture(found.layout._replace(format="yuvj420p"), found.data),
            found.made(),
        ]
        for other in others:
            with pytest.raises(ValueError, match="^another picture than was recorded$"):
                picture.checked(other)
        picture.own["convert"] = 2
        with pytest.raises(ValueError, match="^pixels made by a conversion 2$"):
            picture.checked(found)
