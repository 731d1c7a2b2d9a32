"""A film of a run that decoded key frames alone has all pictures, when they were shown."""

from __future__ import annotations

from typing import Any

import av
import pytest

from flowrun.msgs.image import UnseenPacket
from flowrun.runtime.export.mp4 import export_mp4
from flowrun.runtime.export.selection import Selection
from flowrun.runtime.export.unseen import _Anchors, _Seen
from flowrun.runtime.log.reader import Log
from support import helpers
from support.films import FILMS, FRAMES, KEY_EVERY, draw


def exported(tmp_path: Any, film: Any, **bounds: int) -> tuple[list[str], list[tuple[Any, int]]]:
    """The notes, and (pixels, microseconds since the first one) of each picture."""
    plan = helpers.plan_of(tmp_path, f"a=VideoCapture(source_uri: {film}, decode: keyframes)")
    _, result = helpers.record(plan, tmp_path / "run")
    assert result.error is None
    with Log(tmp_path / "run") as log:
        report = export_mp4(log, Selection(("/a/image",), {**bounds}), tmp_path / "x.mp4")
    shown = pictures(tmp_path / "x.mp4")
    assert report.count == len(shown)
    return report.notes, shown


def pictures(path: Any) -> list[tuple[Any, int]]:
    with av.open(str(path)) as container:
        shown = [(it.to_ndarray().tolist(), it.time) for it in container.decode(video=0)]
    return [(made, round((time - shown[0][1]) * 1e6)) for made, time in shown]


@pytest.mark.parametrize("name", ["b_frames.mp4", "open_gop.mp4", "start_codes.ts", "h265.mp4"])
def test_the_film_of_key_frames_is_the_whole_film(tmp_path: Any, name: str) -> None:
    film = draw(tmp_path / name, **FILMS[name])
    notes, shown = exported(tmp_path, film)
    assert notes == []
    for (made, time), (pixels, expected) in zip(shown, pictures(film), strict=True):
        assert made == pixels
        assert abs(time - expected) <= 20


def test_a_part_has_what_is_between_its_key_frames(tmp_path: Any) -> None:
    film = draw(tmp_path / "plain.mp4", **FILMS["plain.mp4"])
    _, shown = exported(tmp_path, film, start=1, end=3)
    whole = [made for made, _ in pictures(film)]
    assert [made for made, _ in shown] == whole[KEY_EVERY : 2 * KEY_EVERY + 1]


def test_where_packets_are_not_copied_the_key_frames_are_the_film(tmp_path: Any) -> None:
    film = draw(tmp_path / "x.ts", codec="mpeg2video")
    with av.open(str(film)) as container:
        keys = [it.is_keyframe for it in container.demux(video=0) if it.size]
    between = len(keys) - sum(keys) - keys[::-1].index(True)
    notes, shown = exported(tmp_path, film)
    assert notes == [
        "encoded again, as MP4 does not hold mpeg2video",
        f"only the pictures that the run decoded: {between} packets between them are left out",
    ]
    times = [time for _, time in pictures(film)]
    assert len(times) == len(keys) == FRAMES
    expected = [time for time, is_key in zip(times, keys, strict=True) if is_key]
    assert [time for _, time in shown] == [pytest.approx(it, abs=20) for it in expected]


def seen(time_ns: int | None, tov_ns: int) -> _Seen:
    return _Seen(UnseenPacket(b"", is_key=True, time_ns=time_ns), tov_ns)


# fmt: off
BETWEEN = [
    (None, seen(0, 100), seen(30, 160), [10, 20], [120, 140]),
    (None, seen(0, 100), seen(None, 160), [10, 20], [110, 120]),
    (None, seen(0, 100), seen(30, 160), [None, None], [120, 140]),
    (None, seen(500, 100), seen(30, 160), [510, 520, 10, 20], [110, 120, 140, 150]),  # began again
    (None, seen(500, 100), seen(30, 160), [999, 10], [120, 140]),
    (seen(0, 100), seen(30, 160), seen(60, 200), [20, 45], [140, 180]),  # an open group
    (None, seen(0, 100), None, [10, 20, None], [110, 120, 121]),
    (None, seen(50, 100), None, [40, 60], [110]),  # what it needs is not there
    (None, None, seen(50, 100), [30, 20, 40], [80, 90]),
    (None, None, seen(50, 100), [None, None], [86, 93]),
]
# fmt: on


@pytest.mark.parametrize(("earlier", "here", "later", "times", "shown"), BETWEEN)
def test_when_a_packet_between_pictures_is_shown(
    earlier: Any, here: Any, later: Any, times: list[int | None], shown: list[int]
) -> None:
    packets = [UnseenPacket(b"", is_key=False, time_ns=it) for it in times]
    anchors = _Anchors(earlier, here, later, 7)
    assert [it.shown_ns for it in anchors.timed(packets)] == shown
