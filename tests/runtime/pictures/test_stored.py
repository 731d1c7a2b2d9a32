"""What the documents say of pictures is enough to read them: a reader of its own against ours."""

from __future__ import annotations

import ast
from typing import Any

import msgpack
import numpy as np
import pytest
from zlib_ng.zlib_ng import crc32

from flowrun.msgs import ImageRgb8Msg, protobuf
from flowrun.msgs.image import VideoDecoder, VideoPackets
from flowrun.runtime import Log
from flowrun.runtime.log.files import slab_paths
from flowrun.runtime.pictures import stored
from flowrun.runtime.pictures.stored import PictureEncoder, StoredPicture
from flowrun.runtime.replay.replay import Replay
from support import helpers, independent_pictures
from support.films import FILMS, FRAMES, KEY_EVERY, draw, recorded
from support.packets import camera, run
from support.paths import TESTS


def independent(run, topic):
    return independent_pictures.pictures([path.read_bytes() for path in slab_paths(run)], topic)


def compare(run, topic):
    """Both readers, picture by picture; how many there are."""
    theirs = independent(run, topic)
    with Log(run) as log:
        ours = [(message.cycle, message.fields) for message in log.messages(topic)]
    assert [cycle for cycle, _ in theirs] == [cycle for cycle, _ in ours]
    for (cycle, found), (_, fields) in zip(theirs, ours, strict=True):
        assert found["pixels"] is not None, f"cycle {cycle}"
        assert np.array_equal(found.pop("pixels"), fields.pop("pixels")), f"cycle {cycle}"
        assert found == fields
    return len(ours)


def test_the_reader_is_no_code_of_ours():
    for name in ("independent_reader", "independent_pictures"):
        tree = ast.parse((TESTS / "support" / f"{name}.py").read_text())
        modules = {
            name
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for name in [getattr(node, "module", None), *(it.name for it in node.names)]
            if name
        }
        assert not any(module.startswith("flowrun") for module in modules)


@pytest.mark.parametrize("name", FILMS)
@pytest.mark.parametrize("config", ["", ", max_fps: 11"])
def test_packets_are_read_by_the_document(tmp_path, name, config):
    run = recorded(tmp_path, draw(tmp_path / name, **FILMS[name]), config)
    count = compare(run, "/a/image")
    assert compare(run, "/b/image") == count
    assert count == FRAMES if not config else 5 < count < FRAMES


def test_a_looped_films_packets_are_read_by_the_document(tmp_path):
    film = draw(tmp_path / "b.mp4", **FILMS["b_frames.mp4"])
    plan = helpers.plan_of(tmp_path, f"a=VideoCapture(source_uri: {film}, loop: true)")
    helpers.record(plan, tmp_path / "run", cycles=2 * FRAMES + KEY_EVERY)
    assert compare(tmp_path / "run", "/a/image") == 2 * FRAMES + KEY_EVERY


@pytest.mark.parametrize("codec", ["raw", "zstd", "ffv1"])
def test_made_pictures_are_read_by_the_document(tmp_path, codec):
    plan = helpers.plan_of(tmp_path, f"c=Camera(width: 61, height: 33)@logging: {{codec: {codec}}}")
    helpers.record(plan, tmp_path / "run")
    assert compare(tmp_path / "run", "/c/image") == 5


def test_a_picture_that_decodes_otherwise_is_not_given_by_the_document(tmp_path):
    run = recorded(tmp_path, draw(tmp_path / "plain.mp4", **FILMS["plain.mp4"]))
    with Log(run) as log:
        messages = [
            (message.cycle, dict(independent_pictures.fields(bytes(message.payload))))
            for message in log.messages("/a/image")
        ]
    # As if this FFmpeg made another picture than the one that recorded.
    own = msgpack.unpackb(messages[1][1][1000])
    own["crc"] ^= 1
    messages[1][1][1000] = msgpack.packb(own)
    found = independent_pictures.stored(messages)
    assert [fields["pixels"] is None for _, fields in found] == [k == 1 for k in range(FRAMES)]


def test_a_flight_recorders_pictures_before_the_first_key_frame_are_not_given(tmp_path):
    film = draw(
        tmp_path / "plain.mp4", frames=8 * FRAMES, moves=False, bf="0", crf="1", sc_threshold="0"
    )
    plan = helpers.plan_of(
        tmp_path,
        f"a=VideoCapture(source_uri: {film})",
        more="logging: {slab_size_mib: 1, section_size_mib: 1, mode: ring, keep_slabs: 2}",
    )
    helpers.record(plan, tmp_path / "run")
    found = independent(tmp_path / "run", "/a/image")
    begin = next(cycle for cycle, _ in found if cycle % KEY_EVERY == 0)
    assert begin > found[0][0] > 0
    with Log(tmp_path / "run") as log:
        ours = {cycle: pixels for cycle, _, pixels in log.frames("/a/image", begin)}
    for cycle, fields in found:
        if cycle < begin:
            assert fields["pixels"] is None
        else:
            assert np.array_equal(fields["pixels"], ours[cycle])


def test_a_flight_recorder_whose_key_frame_is_gone_keeps_pixels(tmp_path):
    """As of a camera that sends no other: its packets would never give a picture again."""
    film = draw(
        tmp_path / "one_key.mp4",
        frames=8 * FRAMES,
        moves=False,
        bf="0",
        crf="1",
        **{"x264-params": "keyint=1000:scenecut=0"},
    )
    ring = "slab_size_mib: 1, section_size_mib: 1, mode: ring, keep_slabs: 2, keyframe_interval: 5"
    run(camera(tmp_path, f"source_uri: {film}", more=f"logging: {{{ring}}}"), tmp_path / "run")
    with Log(tmp_path / "run") as log:
        first = next(log.cycles()).cycle
        assert first > 0
        seen = {it.cycle: it.fields["value"] for it in log.messages("/d/crc")}
        found = {cycle: crc32(pixels) for cycle, _, pixels in log.frames("/a/image")}
        assert found == seen
        assert list(found) == list(range(first, 8 * FRAMES))
        report = Replay(log, env={}).run()
    assert report.identical
    assert report.compared > FRAMES


def message_of(*size: int, video: VideoPackets | None = None, **fields: Any) -> ImageRgb8Msg:
    rng = np.random.default_rng(0)
    message = ImageRgb8Msg(pixels=rng.integers(0, 255, (*size, 3), np.uint8), **fields)
    message.video = video
    message.publish()
    return message


def stored_by(encoder: PictureEncoder, message: ImageRgb8Msg, cycle: int = 0) -> StoredPicture:
    payload = b"".join(map(bytes, encoder.encode(message, cycle, video=message.video)))
    return StoredPicture.parse(memoryview(payload))


def own_of(codec: str, *size: int, **fields: Any) -> dict[str, Any]:
    return stored_by(PictureEncoder(codec), message_of(*size, **fields)).own


def test_a_picture_too_large_for_a_codec_is_stored_raw(monkeypatch):
    monkeypatch.setattr(stored, "MOST_PIXELS", 6)
    assert own_of("zstd", 2, 3)["codec"] == "zstd"
    assert own_of("zstd", 1, 7)["codec"] == "raw"
    assert own_of("zstd", 0, 0)["codec"] == "raw"
    assert own_of("packets", 1, 1)["codec"] == "raw"


@pytest.mark.parametrize("codec", ["packets", "zstd", "ffv1"])
@pytest.mark.parametrize("size", [(5, 7), (1, 1), (0, 4), (4, 0), (0, 0)])
def test_a_picture_says_everything_of_itself(codec, size):
    fields = {"frame_id": 3, "pts": -5, "fps": 12.5, "source": "cam", "pixel_aspect": 1.5}
    message = message_of(*size, **fields)
    picture = stored_by(PictureEncoder(codec), message)
    pixels = np.asarray(message.view().pixels)
    assert picture.own == {
        "frame_id": 3,
        "pts": -5,
        "fps": 12.5,
        "pixel_aspect": 1.5,
        "size": list(size),
        "crc": crc32(pixels.tobytes()) if pixels.size else 0,
        "codec": codec if codec != "packets" and pixels.size else "raw",
    }
    given = picture.unpacked()
    assert not given.flags.writeable
    assert (given.shape, given.tobytes()) == (pixels.shape, pixels.tobytes())
    assert picture.fields(given) == {"pixels": given, **fields}
    assert picture.decoder is None


# -- packets -----------------------------------------------------------------------------------

DECODER = VideoDecoder("mpeg4", b"extra", 7, 5, "yuv420p", "XVID", 24, 2, (1, 3))


def video_of(first: int, *packets: bytes, section: int = 0, **more: Any) -> VideoPackets:
    keyed = tuple((data, data.startswith(b"key")) for data in packets)
    more = {"begins": False, "drained": False, **more}
    return VideoPackets(DECODER, keyed, first, more.pop("number", first), section, **more)


def own_of_packets(encoder: PictureEncoder, cycle: int, video: VideoPackets) -> dict[str, Any]:
    picture = stored_by(encoder, message_of(5, 7, video=video, fps=1.0), cycle)
    if picture.own["codec"] == "packets":
        assert bytes(picture.data) == b"".join(data for data, _ in video.packets)
    else:
        assert picture.unpacked().shape == (5, 7, 3)
    return picture.own


def test_packets_are_stored_with_what_decodes_them():
    encoder = PictureEncoder("packets")
    video = video_of(6, b"key", b"more", section=4, number=7, begins=True, drained=True)
    picture = stored_by(encoder, message_of(5, 7, video=video, fps=1.0), 9)
    assert {name: value for name, value in picture.own.items() if name not in ("crc", "fps")} == {
        "frame_id": 0,
        "pts": None,
        "size": [5, 7],
        "codec": "packets",
        "convert": 1,
        "section": 4,
        "number": 7,
        "first": 6,
        "sizes": [3, 4],
        "keys": [True, False],
        "key": 9,
        "drained": True,
        "decoder": ["mpeg4", b"extra", 7, 5, "yuv420p", "XVID", 24, 2, 1, 3, 1],
    }
    assert picture.decoder == DECODER
    assert picture.packets == [(4, 6, b"key", True), (4, 7, b"more", False)]
    with pytest.raises(ValueError, match="^unknown codec 'packets'$"):
        picture.unpacked()
    later = own_of_packets(encoder, 12, video_of(8, b"next", section=4))
    assert (later["key"], later["first"], "decoder" in later) == (9, 8, False)


def codecs_of(*steps: tuple[int, VideoPackets]) -> list[str]:
    encoder = PictureEncoder("packets")
    return [own_of_packets(encoder, cycle, video)["codec"] for cycle, video in steps]


def test_packets_are_stored_as_long_as_none_is_missing():
    begin = video_of(0, b"key", b"b", begins=True)
    assert codecs_of((0, video_of(0, b"a"))) == ["raw"]  # not from its beginning
    assert codecs_of((0, video_of(0))) == ["raw"]
    assert codecs_of((0, begin), (1, video_of(2, b"c"))) == ["packets", "packets"]
    assert codecs_of((0, begin), (1, video_of(9)), (2, video_of(2, b"c"))) == ["packets"] * 3
    for wrong in (1, 3):
        steps = (0, begin), (1, video_of(wrong, b"c")), (2, video_of(2, b"c")), (3, video_of(9))
        assert codecs_of(*steps) == ["packets", "raw", "raw", "raw"]
    again = video_of(5, b"key", section=1, begins=True), video_of(6, b"c", section=1)
    steps = (0, begin), (1, video_of(4, b"e")), (2, again[0]), (3, again[1])
    assert codecs_of(*steps) == ["packets", "raw", "packets", "packets"]
    assert codecs_of((0, begin), (1, video_of(2, b"c", section=1))) == ["packets", "raw"]


def test_a_cycle_that_is_encoded_twice_gives_the_same_bytes():
    encoder = PictureEncoder("packets")
    steps = [
        (0, video_of(0, b"key", begins=True)),
        (1, video_of(1, b"a", b"b")),
        (2, video_of(3, b"c")),
        (5, video_of(4)),
        (6, video_of(9, b"d")),
        (7, video_of(5, b"e", section=1, begins=True)),
    ]
    for cycle, video in steps:
        once, twice = (own_of_packets(encoder, cycle, video) for _ in range(2))
        assert once == twice
        assert once["codec"] == ("raw" if cycle == 6 else "packets")
        assert ("decoder" in once) == (cycle in (0, 7))


def test_only_packets_are_stored_as_packets():
    video = video_of(0, b"key", begins=True)
    assert own_of_packets(PictureEncoder("zstd"), 0, video)["codec"] == "zstd"


# -- what is no picture ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("frame_id", 1.0),
        ("frame_id", True),
        ("crc", None),
        ("crc", 1.0),
        ("pts", "3"),
        ("pts", 3.5),
        ("fps", "30"),
        ("fps", None),
        ("pixel_aspect", None),
        ("codec", 1),
        ("size", {0: 2, 1: 3}),
        ("size", (2, 3)),
        ("size", [2, -1]),
        ("size", [-1, 2]),
        ("size", [2, 2.0]),
        ("size", [1 << 31, 1]),
        ("size", [1, 1 << 31]),
        ("size", [1, (1 << 31) + 1]),
        ("planes", ["gray", 2, 3, 2, 0]),
        ("planes", ["gray", 2, 3, 2, 0, 1, 0]),
        ("planes", ["gray", 2, 3, 2, 0, 9]),
        ("planes", ["gray", 2, 3, 2, 0, 0]),
        ("planes", (*["gray", 2, 3, 2, 0, 1],)),
        ("planes", [1, 2, 3, 2, 0, 1]),
        ("planes", ["gray", 2, 3.0, 2, 0, 1]),
        ("planes", ["gray", -1, 3, 2, 0, 1]),
    ],
)
def test_what_a_picture_says_of_itself_has_the_right_types(field, value):
    own = own_of("zstd", 2, 3, pts=5)
    for right in (
        own,
        own | {"pts": None},
        own | {"fps": 3},
        own | {"planes": ["gray", 2, 3, 2, 0, 8]},
        own | {"size": [0, (1 << 31) - 1]},
    ):
        stored._check_own(right)
    with pytest.raises(
        ValueError,
        match="^frame_id, pts, fps, pixel_aspect, codec, size, planes or crc is of a wrong type or out "
        "of range$",
    ):
        stored._check_own(own | {field: value})


MOST = (1 << 62) - 1


@pytest.mark.parametrize(
    "wrong",
    [
        *(
            {name: value}
            for name in ("section", "number", "first", "key")
            for value in (-1, MOST + 1, MOST + 2, 1.0, True, None)
        ),
        {"sizes": [3, 5]},
        {"sizes": [3, 3]},
        {"sizes": [7, 0]},
        {"sizes": [8, -1]},
        {"sizes": [3, 4.0]},
        {"sizes": (3, 4)},
        {"sizes": [7]},
        {"sizes": [3, 3, 1]},
        {"keys": [True]},
        {"keys": [True, False, False]},
        {"keys": (True, False)},
        {"drained": 1},
        {"drained": None},
    ],
)
def test_packets_that_do_not_fit_their_data_are_refused(wrong):
    own = packets_own()
    with pytest.raises(ValueError, match="^packets that do not fit the data$"):
        stored._check_packets(own | wrong, 7)


def packets_own() -> dict[str, Any]:
    video = video_of(0, b"key", b"more", begins=True)
    return own_of_packets(PictureEncoder("packets"), 0, video)


def test_packets_have_numbers_up_to_what_ffmpeg_takes_for_a_time():
    for name in ("section", "number", "first", "key"):
        stored._check_packets(packets_own() | {name: MOST}, 7)
        stored._check_packets(packets_own() | {name: 0}, 7)
    stored._check_packets(packets_own() | {"sizes": [], "keys": []}, 0)
    stored._check_packets(packets_own() | {"sizes": [1, 6]}, 7)


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, b"mpeg4"),
        (1, "extra"),
        *(
            (at, value)
            for at in (2, 3, 6, 7, 8, 9)
            for value in (-1, 1 << 31, (1 << 31) + 1, 1.0, "1")
        ),
        (4, None),
        (5, b"XVID"),
    ],
)
def test_a_decoder_has_the_right_types(at, value):
    own = packets_own()
    refused = pytest.raises(
        ValueError, match="^a decoder with a field of a wrong type or out of range$"
    )
    right = own["decoder"]
    for most in (0, (1 << 31) - 1):
        fields = [*right[:2], most, most, *right[4:6], *[most] * 4, 8]
        stored._check_packets(own | {"decoder": fields}, 7)
    with refused:
        stored._check_packets(own | {"decoder": [*right[:at], value, *right[at + 1 :]]}, 7)
    stored._check_packets(own | {"decoder": right[:10]}, 7)  # as older logs have it
    for length in (9, 12):
        with refused:
            stored._check_packets(own | {"decoder": [*right, 0][:length]}, 7)
    for orientation in (0, 9, 1.0):
        with refused:
            stored._check_packets(own | {"decoder": [*right[:10], orientation]}, 7)


def test_what_is_no_stored_picture_is_refused():
    for payload in (b"", protobuf.text_field(4, "zstd")):
        with pytest.raises(ValueError, match=r"^not a stored picture: KeyError\(1000\)$"):
            StoredPicture.parse(memoryview(payload))
    own = {"size": [1, 2], "codec": "new", "crc": 0}
    with pytest.raises(ValueError, match="^unknown codec 'new'$"):
        StoredPicture(own, "", memoryview(b"")).unpacked()
    for height, width in [(0, 2), (2, 0)]:
        empty = StoredPicture(own | {"size": [height, width]}, "", memoryview(b""))
        assert empty.unpacked().shape == (height, width, 3)


def test_pixels_are_given_only_if_they_are_the_recorded_ones():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    own = {"size": [2, 4], "crc": crc32(pixels.tobytes())}
    picture = StoredPicture(own, "", memoryview(b""))
    apart = np.zeros((2, 5, 3), np.uint8)[:, :4]
    apart[...] = pixels
    given = picture.checked(apart)
    assert given.flags.c_contiguous
    assert not given.flags.writeable
    assert np.array_equal(given, pixels)
    for other in (pixels + 1, pixels.reshape(4, 2, 3), pixels[:1], pixels[:0]):
        with pytest.raises(ValueError, match="^other pixels than were recorded$"):
            picture.checked(other.copy())
    for crc in (own["crc"] - 1, own["crc"] + 1):
        with pytest.raises(ValueError, match="^other pixels than were recorded$"):
            StoredPicture(own | {"crc": crc}, "", memoryview(b"")).checked(pixels)


def test_viewers_get_foxgloves_name_of_a_format():
    names = ["h264", "hevc", "libdav1d", "libaom-av1", "vp9"]
    assert [stored.shown_format(name) for name in names] == ["h264", "h265", "av1", "av1", "vp9"]
