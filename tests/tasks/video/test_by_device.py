"""`hwaccel`: what a device decodes replays without it, also where it is wrong, refuses or goes away."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from zlib_ng.zlib_ng import crc32

from flowrun.runtime import Log
from flowrun.runtime.log.check import check_log
from flowrun.runtime.pictures.asked import AskedPicture, Found, UnprovenPicture
from flowrun.runtime.pictures.planar import Layout, PlanarPicture, copied, kept, layout_of
from flowrun.runtime.pictures.stored import StoredPicture
from flowrun.runtime.pictures.video import LetGo, PacketDecoder
from flowrun.runtime.replay.replay import Replay
from flowrun.tasks.video import by_device, hwaccel
from flowrun.tasks.video.by_device import planes_like
from flowrun.tasks.video.decoding import SourceDecoder
from flowrun.tasks.video.hwaccel import Device, HardwareError, find_device, missing_hwaccel
from flowrun.tasks.video.packets import PacketQueue
from flowrun.tasks.video.sections import Picture
from support import damaged, films, helpers
from support.devices import Faults, as_devices_have_it, installed
from support.packets import plain_decoder

LONG = {"x264-params": "bframes=2:b-adapt=0:keyint=12:min-keyint=12:scenecut=0"}
LAYOUT = Layout("gray", 1, 3, 2, 0)


class Lines:
    """A log, as a device has it."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    warning = info

    @property
    def reasons(self) -> list[Any]:
        """Why the CPU decodes."""
        return [fields.get("reason") for _, fields in self.lines]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of three sections, 12 pictures each."""
    path = tmp_path_factory.mktemp("films") / "film.mp4"
    return films.draw(path, frames=36, size=(64, 48), **LONG)


def decoded(
    film: Path, faults: Faults, *, logs: bool = True, reads: bool = False
) -> tuple[list[Picture], Lines]:
    """The pictures of a film, decoded by such a device; their planes are copied where they do not last.

    reads: whether each picture is read when it comes.
    """
    given: list[Picture] = []
    lines = Lines()

    def emit(picture: Picture) -> None:
        if picture.kept is None:
            picture = picture._replace(decoded=kept(picture.decoded))
        elif reads:
            assert isinstance(picture.kept, PlanarPicture)
            _ = picture.kept.data
        given.append(picture)

    with installed(faults), av.open(str(film)) as container:
        stream = container.streams.video[0]
        device = Device("cuda", source="film", log=lines)
        queue = PacketQueue() if logs else None
        decoder = SourceDecoder(stream, queue, device=device)
        for packet in container.demux(stream):
            decoder.feed(packet, emit)
        decoder.drain(emit)
    assert decoder.damaged == 0
    return given, lines


def crcs(given: list[Picture]) -> list[int]:
    """Of what each shows to who reads it at once."""
    return [(it.decoded if it.kept is None else it.kept).crc for it in given]


def by_the_cpu(film: Path) -> list[int]:
    with av.open(str(film)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return [kept(it).crc for it in container.decode(video=0)]  # type: ignore[union-attr]


def are_proven(given: list[Picture]) -> list[bool]:
    """Of each, whether the CPU decoded it too."""
    return [not isinstance(it.kept, UnprovenPicture) for it in given]


@pytest.mark.parametrize("name", ["yuv420p", "yuvj420p", "yuv420p10le"])
@pytest.mark.parametrize("size", [(64, 48), (35, 17)])
def test_a_devices_planes_are_those_of_the_cpu(name: str, size: tuple[int, int]) -> None:
    picture = av.VideoFrame(*size, name)
    rng = np.random.default_rng(0)
    limit = 1023 if name.endswith("10le") else 255
    for plane in picture.planes:
        values = rng.integers(0, limit, plane.buffer_size // (1 + (limit > 255)))
        plane.update(values.astype("<u2" if limit > 255 else np.uint8).tobytes())
    layout = layout_of(picture)
    assert layout is not None
    theirs = as_devices_have_it(picture)
    assert theirs.format.name in ("nv12", "p010le")
    found = planes_like(theirs, layout)
    assert found is not None
    assert np.array_equal(found, copied(picture, layout))
    again = planes_like(picture, layout)
    assert again is not None
    assert np.array_equal(again, found)


def test_other_pictures_have_no_such_planes() -> None:
    theirs = av.VideoFrame(64, 48, "nv12")
    own = layout_of(theirs)
    assert own is not None
    for other in ({"format": "yuv444p"}, {"height": 46}, {"width": 62}, {"orientation": 3}):
        assert planes_like(theirs, own._replace(**other)) is None
    assert planes_like(av.VideoFrame(64, 48, "rgb24"), own) is None


def test_the_first_pictures_of_a_section_are_the_cpus_and_the_others_unproven(film: Path) -> None:
    given, lines = decoded(film, Faults())
    assert are_proven(given) == ([True] * 3 + [False] * 9) * 3
    assert lines.lines == []
    assert crcs(given) == by_the_cpu(film)
    origins = [it.origin for it in given]
    assert [None if it is None else it.section for it in origins] == [0] * 12 + [1] * 12 + [2] * 12


def test_sections_use_one_decoder_of_the_device(film: Path) -> None:
    faults = Faults()
    decoded(film, faults)
    assert faults.made <= 2  # the first section finds out how many pictures are held back


def test_where_no_log_gets_packets_all_pictures_are_the_devices(film: Path) -> None:
    given, lines = decoded(film, Faults(), logs=False, reads=True)
    assert [it.kept is not None for it in given] == ([False] * 3 + [True] * 9) * 3
    assert lines.lines == []
    assert crcs(given) == by_the_cpu(film)


REFUSES = "it refuses a packet that the CPU takes"
FEWER = "it gives fewer pictures than the CPU"
OTHERS = "its pictures are not those of the CPU"


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        (Faults(wrong=0), OTHERS),
        (Faults(wrong=12), OTHERS),
        *((Faults(refuses=at), REFUSES) for at in (0, 1, 4, 11, 12, 15)),
        (Faults(silent=0), FEWER),
        (Faults(silent=12), FEWER),
        (Faults(silent=6), FEWER),
        (Faults(dies=0), "cuda has gone"),
        (Faults(dies=9), REFUSES),
        *((Faults(raises=at), "it failed: illegal address") for at in (0, 1, 7, 11, 13)),
        (Faults(raises=12), "it failed: illegal address"),
        (Faults(twice=7), None),
        *((Faults(lag=at), None) for at in (1, 5)),
    ],
    ids=str,
)
@pytest.mark.parametrize("logs", [True, False])
def test_a_device_that_fails_loses_no_picture(
    film: Path, faults: Faults, reason: str | None, logs: bool
) -> None:
    given, lines = decoded(film, replace(faults), logs=logs)
    assert lines.reasons == ([] if reason is None else [reason])
    assert crcs(given) == by_the_cpu(film)
    assert None not in [it.origin for it in given]


def test_no_picture_is_asked_back_before_its_packet_was_decoded(film: Path) -> None:
    """The cycle gets the pictures of a camera then, and reads them in their decoder's memory."""
    fresh: set[int] = set()
    count = 0

    def let_go(number: int) -> None:
        assert number not in fresh

    def emit(picture: Picture) -> LetGo | None:
        nonlocal count
        count += 1
        if picture.kept is not None:
            return None
        fresh.add(count)
        return partial(let_go, count)

    with installed(Faults(silent=5)), av.open(str(film)) as container:
        stream = container.streams.video[0]
        device = Device("cuda", source="film", log=Lines())
        decoder = SourceDecoder(stream, PacketQueue(), device=device)
        for packet in container.demux(stream):
            decoder.feed(packet, emit)
            fresh.clear()
        decoder.drain(emit)
    assert count == 36


def test_a_device_that_gives_nothing_more_is_left_before_the_next_key_frame(
    film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_device, "_MOST_SILENT", 4)
    given, lines = decoded(film, Faults(silent=8))
    assert lines.reasons == ["it gives no pictures"]
    assert crcs(given) == by_the_cpu(film)


def test_a_device_that_decodes_wrongly_later_is_not_what_the_log_relies_on(film: Path) -> None:
    given, lines = decoded(film, Faults(wrong=6), reads=True)
    expected = by_the_cpu(film)
    shown = crcs(given)
    proven = are_proven(given)
    differ = [at for at in range(36) if shown[at] != expected[at]]
    assert differ
    assert not any(proven[at] for at in differ)
    assert OTHERS in lines.reasons or "most pictures are read" in str(lines.reasons)


def test_packets_past_what_is_kept_go_to_the_cpu(
    film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with av.open(str(film)) as container:
        sizes = [packet.size for packet in container.demux(video=0)]
    monkeypatch.setattr(by_device, "_MOST_KEPT", sum(sizes[:9]))
    given, lines = decoded(film, Faults())
    proven = are_proven(given)
    assert False in proven[:12]
    assert proven[11]
    assert lines.lines == []
    assert crcs(given) == by_the_cpu(film)


def test_where_most_pictures_are_read_the_cpu_decodes(film: Path) -> None:
    given, lines = decoded(film, Faults(), reads=True)
    assert [text for text in lines.reasons if "most pictures are read" in text]
    assert are_proven(given).count(False) == 25  # of 36
    assert crcs(given) == by_the_cpu(film)


def test_a_damaged_section_is_the_cpus_and_the_next_one_not(film: Path, tmp_path: Path) -> None:
    def cut(chunks: list[damaged.Chunk]) -> None:
        chunks[8] = damaged._with_data(chunks[8], b"\0\xff\xff\xff" + chunks[8].data[4:])

    path = tmp_path / "cut.mp4"
    damaged.remux(film, path, cut)
    given: list[Picture] = []
    lines = Lines()
    with installed(Faults()), av.open(str(path)) as container:
        stream = container.streams.video[0]
        decoder = SourceDecoder(
            stream, PacketQueue(), device=Device("cuda", source="film", log=lines)
        )
        for packet in container.demux(stream):
            decoder.feed(packet, lambda it: given.append(it._replace(decoded=None)))
        decoder.drain(lambda it: given.append(it._replace(decoded=None)))
    assert decoder.damaged == 1
    assert lines.lines == []
    by_device = [it.kept is not None for it in given]
    assert len(given) == 35
    assert by_device[3]
    assert not any(by_device[8:11])
    assert by_device[-1]
    assert [it.origin is None for it in given][:11].count(True) >= 3


def test_a_device_is_left_where_packets_are_always_damaged() -> None:
    lines = Lines()
    device = Device("cuda", source="film", log=lines)
    for _ in range(8):
        assert device.is_used
        device.note_damaged()
    assert not device.is_used
    assert lines.lines == [
        (
            "the CPU decodes from now on",
            {
                "source": "film",
                "hwaccel": "cuda",
                "reason": "8 times in a row, packets were damaged",
            },
        )
    ]


def test_a_device_that_cannot_begin_again_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    lines = Lines()
    device = Device("cuda", source="film", log=lines)
    known = plain_decoder("h264", 64, 48)
    decoder = PacketDecoder(known)
    monkeypatch.setattr(decoder, "begin_again", fail)
    device.put_back(known, decoder)
    assert device.decoder(known) is None
    assert lines.reasons == ["cuda RuntimeError"]
    assert not device.is_used


def test_codecs_of_single_pictures_are_the_cpus(tmp_path: Path) -> None:
    path = damaged.original(tmp_path, "jpegs.avi")
    given, lines = decoded(path, Faults())
    assert lines.reasons == ["mjpeg is decoded by the CPU alone"]
    assert all(are_proven(given))


# -- in the log --------------------------------------------------------------------------------


def unproven(reads: list[str] | None = None) -> UnprovenPicture:
    noted = [] if reads is None else reads
    by_packets = AskedPicture(LAYOUT, lambda: Found(np.array([4, 5, 6], np.uint8)))
    data = np.array([1, 2, 3], np.uint8)
    return UnprovenPicture(LAYOUT, lambda: data, by_packets, lambda: noted.append("read"))


def test_what_is_read_before_the_log_takes_it_is_the_devices() -> None:
    reads: list[str] = []
    picture = unproven(reads)
    assert picture.data.tolist() == [1, 2, 3]
    assert (picture.settle(), picture.is_read, picture.is_sure) == (True, True, False)
    assert picture.data.tolist() == [1, 2, 3]
    assert reads == ["read"]


def test_what_is_read_later_is_what_the_packets_give() -> None:
    reads: list[str] = []
    picture = unproven(reads)
    assert not picture.settle()
    assert picture.data.tolist() == [4, 5, 6]
    assert (picture.is_read, picture.is_sure) == (True, True)
    assert reads == []


@pytest.mark.parametrize(
    ("reader", "wrong"),
    [("g=Glance", float("inf")), ("g=Glance", 8), ("g=Digest!", 8), ("g=Digest", 8)],
)
def test_a_run_replays_without_the_device(
    film: Path, tmp_path: Path, reader: str, wrong: float
) -> None:
    plan = helpers.plan_of(
        tmp_path,
        f"a=VideoCapture(source_uri: {film}, hwaccel: auto); {reader}",
        "a > g: ImageRgb8Msg",
        "logging: {slab_size_mib: 4, section_size_mib: 1}",
    )
    with installed(Faults(wrong=wrong)):
        _, result = helpers.record(plan, tmp_path / "run")
    assert result.error is None
    with Log(tmp_path / "run") as log:
        assert Replay(log, env={}).run().identical
        assert check_log(log)[2] == []
        stored = [StoredPicture.parse(it.payload) for it in log.messages("/a/image")]
    whole = [at for at, it in enumerate(stored) if it.own["codec"] == "planes"]
    assert len(stored) == 36
    if reader == "g=Glance":
        assert whole
        assert all(at % 5 == 4 for at in whole)
    assert len(whole) < 18
    assert all("crc" in it.own for at, it in enumerate(stored) if at in whole)
    for at in whole:
        planes = stored[at].data[-(64 * 48 * 3 // 2) :]
        assert crc32(planes) == stored[at].own["crc"]


# -- which device ------------------------------------------------------------------------------


def test_a_device_that_ffmpeg_does_not_have_lists_those_that_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("av.codec.hwaccel.hwdevices_available", lambda: ["cuda", "drm"])
    assert missing_hwaccel("vaapi") == "this FFmpeg has no hwaccel 'vaapi'; valid: none, auto, cuda"
    assert [missing_hwaccel(it) for it in ("none", "auto", "cuda")] == [None] * 3


def test_one_that_is_named_must_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_kind: str, _codec: str) -> None:
        raise HardwareError("does not open (no such device)")

    monkeypatch.setattr("flowrun.tasks.video.hwaccel._open", fail)
    monkeypatch.setattr("av.codec.hwaccel.hwdevices_available", lambda: ["cuda"])
    with pytest.raises(HardwareError) as caught:
        find_device("cuda")
    assert str(caught.value) == "cuda does not open (no such device)"
    assert find_device("none") == (None, {})
    assert find_device("auto") == (
        None,
        {
            "cuda": "does not open (no such device)",
            "vaapi": "this FFmpeg has no hwaccel 'vaapi'; valid: none, auto, cuda",
        },
    )


def test_ffmpegs_own_word_is_in_the_error() -> None:
    """Whatever device the machine has: none decodes raw video."""
    with pytest.raises(HardwareError, match="^does not (decode rawvideo|open .+)$"):
        hwaccel._open("cuda", "rawvideo")


@pytest.mark.parametrize("wanted", ["cuda", "auto"])
def test_a_run_needs_the_device_that_is_named_and_no_other(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    def fail(_kind: str, _codec: str) -> None:
        raise HardwareError("does not open (no such device)")

    with installed(Faults()):
        monkeypatch.setattr(hwaccel, "_open", fail)
        plan = helpers.plan_of(
            tmp_path, f"a=VideoCapture(source_uri: {film.resolve()}, hwaccel: {wanted})"
        )
        _, result = helpers.record(plan, None)
    if wanted == "auto":
        assert (result.error, result.cycles) == (None, 37)
        return
    assert str(result.error).endswith(
        "film.mp4': hwaccel: cuda does not open (no such device); auto takes what opens, none decodes "
        "on the CPU"
    )
