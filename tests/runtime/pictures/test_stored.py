"""What the documents say of pictures is enough to read them: a reader of its own against ours."""

from __future__ import annotations

import ast
from typing import Any

import msgpack
import numpy as np
import pytest

from flowrun.msgs import ImageRgb8Msg
from flowrun.runtime import Log
from flowrun.runtime.log.files import slab_paths
from flowrun.runtime.pictures import stored
from support import helpers, independent_pictures
from support.films import FILMS, FRAMES, KEY_EVERY, draw, recorded
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


def own_of(codec: str, *size: int, **fields: Any) -> dict[str, Any]:
    message = ImageRgb8Msg(pixels=np.zeros((*size, 3), np.uint8), **fields)
    message.publish()
    payload = b"".join(map(bytes, stored.PictureEncoder(codec).encode(message, 0)))
    return stored.StoredPicture.parse(payload).own


def test_a_picture_too_large_for_a_codec_is_stored_raw(monkeypatch):
    monkeypatch.setattr(stored, "MOST_PIXELS", 6)
    assert own_of("zstd", 2, 3)["codec"] == "zstd"
    assert own_of("zstd", 1, 7)["codec"] == "raw"
    assert own_of("zstd", 0, 0)["codec"] == "raw"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("frame_id", 1.0),
        ("frame_id", True),
        ("crc", None),
        ("pts", "3"),
        ("pts", 3.5),
        ("fps", "30"),
        ("codec", 1),
        ("size", {0: 2, 1: 3}),
        ("size", [2, -1]),
        ("size", [2, 2.0]),
    ],
)
def test_what_a_picture_says_of_itself_has_the_right_types(field, value):
    own = own_of("zstd", 2, 3, pts=5)
    stored._check_own(own)
    stored._check_own(own | {"pts": None})
    with pytest.raises(
        ValueError, match="^frame_id, pts, fps, codec, size or crc is of a wrong type"
    ):
        stored._check_own(own | {field: value})
