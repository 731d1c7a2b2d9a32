"""Real cameras that are switched off, silent, or ask for a password."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from flowrun.runtime.errors import TaskError
from flowrun.runtime.log.reader import Log
from flowrun.tasks.video.opening import VideoError
from support.helpers import controls, replay_from_everywhere
from support.rtsp import Camera, Watched, switched

pytestmark = [pytest.mark.real, pytest.mark.slow]


def states(directory: Path, task: str = "cam") -> list[tuple[str, str]]:
    """The states of a source in the log, and the codes."""
    with Log(directory) as log:
        return [
            (message.fields["key"], message.fields["value"])
            for message in log.messages("/flowrun/control")
            if message.fields["kind"] == "source_state" and message.fields["task"] == task
        ]


def ids(directory: Path, task: str = "cam") -> list[int]:
    """The frame ids of a source in the log."""
    with Log(directory) as log:
        return [message.outline["frame_id"] for message in log.messages(f"/{task}/image")]


@pytest.mark.parametrize("times", [2, pytest.param(10, marks=pytest.mark.long)])
def test_a_camera_that_was_off_is_back_and_its_log_replays(tmp_path: Path, times: int) -> None:
    took, directory = switched(tmp_path, times=times)
    assert len(took) == times
    found = ids(directory)
    assert found == sorted(set(found))
    assert len(found) > 2 * times
    said = states(directory)
    assert said.count(("running", "")) == times + 1
    assert [it for it in said if it[0] == "lost"]
    replay_from_everywhere(directory)


def test_a_camera_may_come_back_with_another_size_and_codec(tmp_path: Path) -> None:
    with Camera() as camera:
        source = f"source_uri: '{camera.uri()}', reconnect: {{delay_s: 0.2}}, policy: every_frame"
        with Watched(tmp_path, {"cam": source}) as watched:
            watched.until("cam", "running")
            for codec, size in (("h265", (64, 48)), ("mjpeg", (320, 240)), ("h264", (192, 112))):
                watched.go_on(3)
                camera.off()
                watched.until("cam", "lost")
                camera.codec, camera.size = codec, size
                camera.on()
                watched.until("cam", "running")
            watched.go_on(3)
    found = ids(watched.directory)
    assert found == sorted(set(found))
    with Log(watched.directory) as log:
        shapes = [frame.pixels.shape[:2] for frame in log.frames("/cam/image")]
    assert list(dict.fromkeys(shapes)) == [(112, 192), (48, 64), (240, 320)]
    assert shapes[-1] == (112, 192)
    replay_from_everywhere(watched.directory)


def test_a_camera_that_freezes_is_lost_and_the_others_go_on(tmp_path: Path) -> None:
    with Camera() as frozen, Camera() as other:
        sources = {
            "cam": f"source_uri: '{frozen.uri()}', timeout_s: 1, reconnect: {{delay_s: 0.2}}",
            "other": f"source_uri: '{other.uri()}'",
        }
        with Watched(tmp_path, sources) as watched:
            watched.until("cam", "running")
            frozen.freeze()
            _, code = watched.until("cam", "lost")
            assert code == "timeout"
            watched.go_on(10)
            assert watched.state("other") == ("running", "")
    assert len(ids(watched.directory, "other")) >= 10
    replay_from_everywhere(watched.directory)


def test_attempts_that_are_used_up_end_the_run_with_the_cameras_error(tmp_path: Path) -> None:
    with Camera() as camera:
        reconnect = "reconnect: {delay_s: 0.1, max_attempts: 2}"
        source = f"source_uri: '{camera.uri()}', {reconnect}"
        with Watched(tmp_path, {"cam": source}) as watched:
            watched.until("cam", "running")
            camera.off()
            watched.until("cam", "error")
        error = watched.result.error
        assert isinstance(error, TaskError)
        assert isinstance(error.__cause__, VideoError)
        assert str(error.__cause__).startswith(f"nothing listens at {camera.host}")
    assert watched.state("cam") == ("error", "refused")
    assert states(watched.directory)[-1] == ("error", "refused")
    assert [kind for _, kind, _, _ in controls(watched.directory)][-1] == "error"


@pytest.mark.parametrize("transport", ["auto", "udp"])
def test_a_camera_that_sends_by_udp_only_is_read(tmp_path: Path, transport: str) -> None:
    with Camera(udp_only=True) as camera:
        source = f"source_uri: '{camera.uri()}', transport: {transport}"
        with Watched(tmp_path, {"cam": source}) as watched:
            watched.until("cam", "running")
            watched.go_on(3)
    assert states(watched.directory) == [("connecting", ""), ("running", "")]


@pytest.mark.parametrize("digest", [False, True])
def test_a_password_is_given_and_never_shown(tmp_path: Path, digest: bool) -> None:
    with Camera(password="Geh3im", digest=digest) as camera:
        source = f"source_uri: '{camera.uri('me:Geh3im')}'"
        with Watched(tmp_path / "right", {"cam": source}) as watched:
            watched.until("cam", "running")
        wrong = f"source_uri: '{camera.uri('me:Fa1sch')}'"
        with Watched(tmp_path / "wrong", {"cam": wrong}) as refused:
            refused.until_ended()
    text = str(refused.result.error)
    assert "refused the user name and password" in text
    assert "Fa1sch" not in text
    assert refused.state("cam") == ("error", "auth")
    written = b"".join(path.read_bytes() for path in watched.directory.iterdir())
    assert b"Geh3im" not in written


def test_a_run_begins_without_its_camera_and_ends_while_it_connects(tmp_path: Path) -> None:
    camera = Camera()
    with camera:
        pass  # to have a port where nothing listens
    source = f"source_uri: '{camera.uri()}', reconnect: {{delay_s: 0.2, at_start: true}}"
    with Watched(tmp_path, {"cam": source}) as watched:
        while watched.state("cam") != ("connecting", "refused"):
            time.sleep(0.005)
        with camera:
            watched.until("cam", "running")
    assert states(watched.directory)[:2] == [("connecting", ""), ("connecting", "refused")]
    replay_from_everywhere(watched.directory)
