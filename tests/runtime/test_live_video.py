"""What viewers of a camera's packets get of a run."""

import numpy as np
import pytest

from flowrun.msgs.image import ImageRgb8Msg, UnseenPacket, VideoDecoder, VideoPackets
from flowrun.runtime import Log
from flowrun.runtime import live_video as module
from flowrun.runtime.clock import ManualClock
from flowrun.runtime.live_video import LiveVideo
from flowrun.runtime.run.live import Run
from flowrun.runtime.server.packets import configuration, pack
from support import helpers
from support.films import FILMS, draw
from support.viewer import Viewer

DECODER = VideoDecoder("h264", b"", 16, 16, "yuv420p", "", 0, 0, (2, 0))


def image(first, *, count=1, begins=False, before=0, size=10):
    packets = tuple((bytes(size), begins and k == 0) for k in range(count))
    earlier = tuple(UnseenPacket(bytes(size), is_key=False, time_ns=None) for _ in range(before))
    message = ImageRgb8Msg(
        pixels=np.zeros((16, 16, 3), np.uint8), frame_id=0, pts=None, fps=30.0, source="cam"
    )
    message.video = VideoPackets(
        DECODER, packets, first, first, 0, begins=begins, drained=False, before=earlier
    )
    message.publish(tov_ns=1)
    return message


def test_a_viewer_begins_with_the_newest_key_frame_and_misses_nothing():
    video = LiveVideo()
    for first in range(8):
        video.offer(100 + first, image(first, begins=first in (0, 4)))
    entry = video.entry()
    assert [shown.cycle for shown in video.after(entry - 1)] == [104, 105, 106, 107]
    assert video.after(video.number) == []


def test_who_is_a_little_late_at_a_key_frame_loses_nothing():
    video = LiveVideo()
    for first in range(100):
        video.offer(first, image(first, begins=first in (0, 90)))
    assert [shown.cycle for shown in video.after(58)] == list(range(58, 100))
    assert video.after(57) is None


def test_after_missing_packets_nothing_comes_until_a_key_frame():
    video = LiveVideo()
    video.offer(0, image(0, begins=True))
    video.offer(1, image(2))
    video.offer(2, image(3))
    assert video.entry() is None
    assert video.after(0) is None
    video.offer(3, image(9, begins=True))
    assert [shown.cycle for shown in video.after(video.entry() - 1)] == [3]


def test_packets_of_pictures_that_were_not_decoded_belong_to_the_row():
    video = LiveVideo()
    video.offer(0, image(0, begins=True))
    video.offer(1, image(6, begins=True, before=5))
    assert [shown.first for shown in video.after(0)] == [0, 1]
    assert [shown.first for shown in video.after(video.entry() - 1)] == [1]


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "_MOST_BYTES", 1000)
    video = LiveVideo()
    for first in range(300):
        video.offer(first, image(first, begins=first == 0))
    assert video.entry() is None  # a viewer that comes now waits for a key frame
    assert len(video.after(250)) == 50  # one that watches goes on
    assert video.after(150) is None


def test_a_picture_without_packets_is_told_from_one_that_is_to_come():
    video = LiveVideo()
    assert not video.withheld
    bare = image(0)
    bare.video = None
    video.offer(0, bare)
    assert (video.withheld, video.entry()) == ("its pictures come without packets", None)
    assert not video.had_packets
    video.offer(1, image(1))
    assert video.had_packets


def test_damaged_packets_are_not_for_viewers():
    """They would make other pictures of them than the run."""
    video = LiveVideo()
    video.offer(0, image(0))
    hurt = image(1)
    hurt.video = hurt.video._replace(is_damaged=True)
    video.offer(1, hurt)
    why = "packets of its pictures were missing or damaged"
    assert (video.withheld, video.entry()) == (why, None)
    assert video.after(1) is None  # who has seen the first one learns that there is another
    video.offer(2, image(2))
    assert (video.withheld, video.entry()) == (why, None)
    video.offer(3, image(3, begins=True))
    assert (video.withheld, video.entry()) == ("", 4)


def test_who_comes_between_key_frames_that_are_not_kept_is_told(monkeypatch):
    monkeypatch.setattr(module, "_MOST_BYTES", 100)
    video = LiveVideo()
    for first in range(30):
        video.offer(first, image(first, begins=first == 0))
    assert video.withheld == "its last key frame is not kept"
    video.offer(30, image(30, begins=True))
    assert video.withheld == ""


@pytest.mark.parametrize(
    ("film", "codec"),
    [
        ("plain.mp4", "avc1.64000a"),
        pytest.param("b_frames.mp4", "avc1.64000a", marks=pytest.mark.long),
        pytest.param("start_codes.ts", "avc1.64000a", marks=pytest.mark.long),
        pytest.param("h265.mp4", "hev1.1.6.L30.90", marks=pytest.mark.long),
        pytest.param("vp9.webm", "vp09.00.51.08", marks=pytest.mark.long),
        ("jpegs.avi", None),
        pytest.param("av1.mp4", "av01.0.00M.08", marks=pytest.mark.long),
    ],
)
def test_a_viewer_sees_the_pictures_that_the_log_gives_back(tmp_path, film, codec):
    path = draw(tmp_path / film, **FILMS[film])
    plan = helpers.plan_of(tmp_path, f"cam=VideoCapture(source_uri: {path})")
    run = Run(plan, clock=ManualClock(10**18, step_ns=10**7), directory=tmp_path / "run")
    video = run.observe().videos["cam"]
    offered = []
    video.subscribe(lambda: offered.extend(video.after(len(offered)) or []))
    assert run.run().error is None
    viewer = Viewer()
    for number, shown in enumerate(offered):
        if number == 0:
            viewer.configure(configuration("cam", shown).message(lost=0))
        viewer.take(pack(shown, is_entry=number == 0))
    viewer.end()
    assert viewer.configurations[0]["codec"] == codec
    with Log(tmp_path / "run") as log:
        logged = {it.cycle: it.fields["pixels"] for it in log.messages("/cam/image")}
    assert len(logged) == 24
    assert set(viewer.named.values()) == logged.keys()
    for number, pixels in viewer.pictures:
        # Of noise: another picture would be 60 away.
        assert np.abs(pixels.astype(int) - logged[viewer.named[number]]).mean() < 4
    assert len(viewer.pictures) == 24
