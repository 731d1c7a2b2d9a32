"""Codecs of pictures in the log: whatever they store, what is read is what was recorded."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from flowrun.msgs.image import VideoDecoder
from flowrun.runtime import Log
from flowrun.runtime.errors import GraphError, LogError
from flowrun.runtime.log.check import check_log
from flowrun.runtime.log.diff import compare_logs
from flowrun.runtime.pictures.stored import StoredPicture
from flowrun.runtime.replay.replay import Replay
from flowrun.tasks.video.packets import Origin, PacketQueue
from support import helpers
from support.films import FILMS, FRAMES, KEY_EVERY, codecs, draw, pictures, recorded


@pytest.mark.parametrize("name", FILMS)
def test_packets_give_back_the_pixels_that_the_run_saw(tmp_path: Path, name: str) -> None:
    film = draw(tmp_path / name, **FILMS[name])
    with Log(recorded(tmp_path, film)) as log:
        seen, read = pictures(log, "/b/image"), pictures(log, "/a/image")
        assert len(read) == FRAMES
        for cycle, (one, other) in enumerate(zip(seen, read, strict=True)):
            assert np.array_equal(one, other), f"cycle {cycle}"
        assert codecs(log, "/a/image") == ["packets"] * FRAMES


@pytest.mark.parametrize("name", ["b_frames.mp4", "mpeg4.avi"])
@pytest.mark.parametrize("config", [", start_s: 0.39", ", loop: true"])
def test_packets_of_a_film_that_starts_elsewhere_give_its_pixels(
    tmp_path: Path, name: str, config: str
) -> None:
    film = draw(tmp_path / name, **FILMS[name])
    shared = f"VideoCapture(source_uri: {film}{config})"
    plan = helpers.plan_of(
        tmp_path,
        f"a={shared}; b={shared}@logging: {{codec: raw}}",
        more="logging: {slab_size_mib: 8, section_size_mib: 1}",
    )
    helpers.record(plan, tmp_path / "run", cycles=2 * FRAMES)
    with Log(tmp_path / "run") as log:
        seen, read = pictures(log, "/b/image"), pictures(log, "/a/image")
        assert len(read) == (2 * FRAMES if "loop" in config else FRAMES - 12)
        assert all(map(np.array_equal, seen, read))
        assert set(codecs(log, "/a/image")) == {"packets"}


@pytest.mark.parametrize("name", ["plain.mp4", "b_frames.mp4", "open_gop.mp4", "vp9.webm"])
def test_pictures_can_be_asked_for_in_any_order(tmp_path: Path, name: str) -> None:
    film = draw(tmp_path / name, **FILMS[name])
    with Log(recorded(tmp_path, film)) as log:
        seen = pictures(log, "/b/image")
        order = [*range(FRAMES)] * 2
        random.Random(1).shuffle(order)
        for cycle in order:
            (message,) = log.messages("/a/image", cycle, cycle + 1)
            assert np.array_equal(message.fields["pixels"], seen[cycle]), f"cycle {cycle}"


@pytest.mark.parametrize("config", [", max_fps: 7", ", start_s: 0.45"])
def test_pictures_that_were_left_out_leave_their_packets(tmp_path: Path, config: str) -> None:
    film = draw(tmp_path / "b.mp4", **FILMS["b_frames.mp4"])
    with Log(recorded(tmp_path, film, config)) as log:
        seen, read = pictures(log, "/b/image"), pictures(log, "/a/image")
        assert 0 < len(read) < FRAMES
        assert all(map(np.array_equal, seen, read))
        assert set(codecs(log, "/a/image")) == {"packets"}


def test_a_looped_film_begins_again_in_the_log_too(tmp_path: Path) -> None:
    film = draw(tmp_path / "b.mp4", **FILMS["b_frames.mp4"])
    shared = f"VideoCapture(source_uri: {film}, loop: true)"
    plan = helpers.plan_of(tmp_path, f"a={shared}; b={shared}@logging: {{codec: raw}}")
    helpers.record(plan, tmp_path / "run", cycles=3 * FRAMES)
    with Log(tmp_path / "run") as log:
        seen, read = pictures(log, "/b/image"), pictures(log, "/a/image")
        assert len(read) == 3 * FRAMES
        assert all(map(np.array_equal, seen, read))


def test_the_log_of_a_film_is_hardly_larger_than_the_film(tmp_path: Path) -> None:
    film = draw(tmp_path / "b.mp4", **FILMS["b_frames.mp4"])
    with Log(recorded(tmp_path, film)) as log:
        stored = sum(len(message.payload) for message in log.messages("/a/image"))
        assert stored < 1.1 * film.stat().st_size


def test_a_log_cut_anywhere_gives_a_prefix_of_the_pictures(tmp_path: Path) -> None:
    film = draw(tmp_path / "b.mp4", **FILMS["b_frames.mp4"])
    run = recorded(tmp_path, film)
    with Log(run) as log:
        seen = pictures(log, "/b/image")
    slab = run / "log_0000.mcap"
    size = slab.stat().st_size
    cut = tmp_path / "cut"
    lengths = set()
    for part in (0.3, 0.5, 0.7, 0.9):
        shutil.rmtree(cut, ignore_errors=True)
        cut.mkdir()
        (cut / slab.name).write_bytes(slab.read_bytes()[: int(size * part)])
        with Log(cut) as log:
            read = pictures(log, "/a/image")
        assert all(map(np.array_equal, seen, read))
        lengths.add(len(read))
    assert len(lengths) > 1
    assert max(lengths) > FRAMES // 2


def test_pictures_before_the_first_key_frame_are_said_to_be_missing(tmp_path: Path) -> None:
    film = draw(
        tmp_path / "plain.mp4", frames=8 * FRAMES, moves=False, bf="0", crf="1", sc_threshold="0"
    )
    plan = helpers.plan_of(
        tmp_path,
        f"a=VideoCapture(source_uri: {film})",
        more="logging: {slab_size_mib: 1, section_size_mib: 1, mode: ring, keep_slabs: 2}",
    )
    _, result = helpers.record(plan, tmp_path / "run")
    assert result.log_bytes > 2 << 20
    with Log(tmp_path / "run") as log:
        messages = list(log.messages("/a/image"))
        assert messages[0].cycle > 0
        firsts = [cycle for cycle in range(messages[0].cycle, 8 * FRAMES) if cycle % KEY_EVERY == 0]
        for message in messages:
            if message.cycle < firsts[0]:
                with pytest.raises(LogError, match="before the first key frame in the log"):
                    message.fields  # noqa: B018
            else:
                assert message.fields["pixels"].shape == (96, 128, 3)
        notes: list[str] = []
        assert check_log(log, note=notes.append)[2] == []  # that is no damage
        early = firsts[0] - messages[0].cycle
        text = f"/a/image: the first {early} pictures come before the first key frame in the log"
        assert notes == ([text] if early else [])


@pytest.mark.parametrize("codec", ["zstd", "ffv1"])
def test_lossless_codecs_give_back_made_pictures(tmp_path: Path, codec: str) -> None:
    plan = helpers.plan_of(
        tmp_path,
        f"c=Camera(width: 61, height: 33)@logging: {{codec: {codec}}}; d=Camera(width: 61, height: 33)",
    )
    helpers.record(plan, tmp_path / "run")
    with Log(tmp_path / "run") as log:
        made, read = pictures(log, "/d/image"), pictures(log, "/c/image")
        assert len(read) == 5
        assert all(map(np.array_equal, made, read))
        sizes = {
            name: sum(len(it.payload) for it in log.messages(name))
            for name in ("/c/image", "/d/image")
        }
        assert sizes["/c/image"] < sizes["/d/image"] / 4


@pytest.mark.parametrize("codec", ["packets", "zstd", "ffv1", "raw"])
def test_a_run_replays_from_every_codec(tmp_path: Path, codec: str) -> None:
    film = draw(tmp_path / "b.mp4", **FILMS["b_frames.mp4"])
    plan = helpers.plan_of(
        tmp_path,
        f"a=VideoCapture(source_uri: {film})@logging: {{codec: {codec}}}; r=Read",
        "a > r: ImageRgb8Msg",
    )
    helpers.record(plan, tmp_path / "run")
    with Log(tmp_path / "run") as log:
        report = Replay(log, env={}).run()
    assert report.compared == FRAMES
    assert report.identical
    assert report.fed == FRAMES


def test_other_pixels_than_recorded_are_an_error_and_never_shown(tmp_path: Path) -> None:
    film = draw(tmp_path / "plain.mp4", **FILMS["plain.mp4"])
    run = recorded(tmp_path, film)
    with Log(run) as log:
        (message,) = log.messages("/a/image", 0, 1)
        before = bytes(message.payload)
        crc = StoredPicture.parse(message.payload).own["crc"]
    # As if another version of the decoder made another picture of the same packets.
    changed = before.replace(
        b"\xa3crc\xce" + crc.to_bytes(4, "big"), b"\xa3crc\xce\x01\x02\x03\x04"
    )
    assert changed != before
    slab = run / "log_0000.mcap"
    slab.write_bytes(slab.read_bytes().replace(before, changed))
    with Log(run, verify=False) as log, pytest.raises(LogError) as caught:
        pictures(log, "/a/image")
    assert str(caught.value) == (
        f"{slab}: cycle 0: /a/image: the picture cannot be decoded: another picture than was recorded"
    )


def test_a_codec_whose_packets_do_not_say_everything_is_logged_as_pixels(tmp_path: Path) -> None:
    film = draw(tmp_path / "asus.avi", codec="asv1")
    with Log(recorded(tmp_path, film)) as log:
        assert all(map(np.array_equal, pictures(log, "/b/image"), pictures(log, "/a/image")))
        assert codecs(log, "/a/image") == ["planes"] * FRAMES
        lines = [
            it.fields["message"]
            for it in log.messages("/flowrun/log")
            if "packets" in it.fields["message"]
        ]
        assert lines == ["the log keeps pixels: packets do not give them back"]


def test_packets_that_nobody_takes_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowrun.tasks.video.packets._MOST_BYTES", 10)
    decoder = VideoDecoder("h264", b"", 2, 2, "yuv420p", tag="", bits=0, reorder=0, color=(2, 0))
    queue = PacketQueue()
    queue.begin_section(0, decoder, 0)
    for number in range(4):
        queue.append(0, number, b"abc", is_key=number == 0)
    assert queue.overflowed
    queue.append(0, 4, b"abc", is_key=False)
    video = queue.take(Origin(0, 4, 4, drained=False))
    assert video is not None
    assert (video.first, video.begins) == (4, False)  # what the log has no beginning of
    queue.begin_section(1, decoder, 5)
    assert not queue.overflowed
    queue.append(1, 5, b"abc", is_key=True)
    video = queue.take(Origin(1, 5, 5, drained=False))
    assert video is not None
    assert (video.first, video.begins, video.packets) == (5, True, ((b"abc", True),))
    assert queue.take(Origin(0, 3, 3, drained=False)) is None


def test_two_runs_of_different_codecs_are_compared_by_their_pixels(tmp_path: Path) -> None:
    film = draw(tmp_path / "plain.mp4", **FILMS["plain.mp4"])
    for codec in ("packets", "raw"):
        plan = helpers.plan_of(
            tmp_path, f"a=VideoCapture(source_uri: {film})@logging: {{codec: {codec}}}"
        )
        helpers.record(plan, tmp_path / codec)
    with Log(tmp_path / "packets") as one, Log(tmp_path / "raw") as other:
        found = compare_logs(one, other)
    assert found.difference is None
    assert found.identical == FRAMES + 1


@pytest.mark.parametrize(
    ("task", "problem"),
    [
        (
            "c=Camera@logging: {codec: packets}",
            "codec 'packets': task 'c' makes its pictures itself and has no packets of a source; "
            "codecs: raw, zstd, ffv1",
        ),
        (
            "n=Numbers@logging: {codec: zstd}",
            "task 'n' makes no pictures; leave 'codec' out",
        ),
        (
            "c=Camera@logging: {codec: jpeg}",
            "'codec' must be raw or packets or zstd or ffv1; got 'jpeg'",
        ),
    ],
)
def test_a_codec_that_cannot_be_is_refused(tmp_path: Path, task: str, problem: str) -> None:
    with pytest.raises(GraphError) as caught:
        helpers.plan_of(tmp_path, task)
    assert problem in str(caught.value)
