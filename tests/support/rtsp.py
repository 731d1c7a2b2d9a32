"""GStreamer's RTSP server: real cameras as far as a client can tell, to be switched on and off."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from flowrun.runtime.clock import LiveClock
from flowrun.runtime.graph.plan import load_plan
from flowrun.runtime.run.live import Run

_SERVER = """
import json, sys, gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer
Gst.init(None)
asked = json.loads(sys.argv[1])
server = GstRtspServer.RTSPServer(address="127.0.0.1", service=str(asked["port"]))
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(f"( {asked['launch']} )")
factory.set_shared(asked["is_shared"])
if asked["udp_only"]:
    factory.set_protocols(GstRtsp.RTSPLowerTrans.UDP)
if asked["password"]:
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("user", "media.factory.access", True)
    permissions.add_permission_for_role("user", "media.factory.construct", True)
    factory.set_permissions(permissions)
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    auth = GstRtspServer.RTSPAuth()
    if asked["digest"]:
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest("me", asked["password"], token)
    else:
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic("me", asked["password"]), token)
    server.set_auth(auth)
server.get_mount_points().add_factory("/cam", factory)
server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
"""

_ENCODERS = {
    "h264": "openh264enc gop-size=10 ! rtph264pay name=pay0 config-interval=1",
    "h265": "x265enc tune=zerolatency speed-preset=ultrafast key-int-max=10 "
    "! rtph265pay name=pay0 config-interval=1",
    "mjpeg": "jpegenc ! rtpjpegpay name=pay0",
}


@dataclass(frozen=True)
class _Asked:
    launch: str
    port: int = 0
    is_shared: bool = False
    udp_only: bool = False
    password: str = ""
    digest: bool = False


def _started(asked: _Asked) -> tuple[subprocess.Popen[str], int]:
    """The process of a server that listens, and its port."""
    python = shutil.which("python3", path="/usr/bin")
    if python is None:
        pytest.fail(NEEDS, pytrace=False)
    server = subprocess.Popen(
        [python, "-c", _SERVER, json.dumps(asdict(asked))],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    port = server.stdout.readline()
    if not port:
        server.communicate()
        pytest.fail(NEEDS, pytrace=False)
    return server, int(port)


NEEDS = (
    "needs python3-gi, gir1.2-gst-rtsp-server-1.0, gstreamer1.0-plugins-good and -bad: "
    "`make test-all` installs them"
)


class Camera:
    """A camera at rtsp://127.0.0.1:PORT/cam, which is off at first.

    codec: "h264", "h265" or "mjpeg".
    udp_only: whether it refuses to send by TCP.
    password: of the user "me"; "" lets everybody in.
    digest: whether the password is asked for by digest, and not as it is.
    """

    def __init__(
        self,
        *,
        codec: str = "h264",
        size: tuple[int, int] = (192, 112),
        rate_hz: int = 10,
        udp_only: bool = False,
        password: str = "",
        digest: bool = False,
    ) -> None:
        self.codec, self.size, self.rate_hz = codec, size, rate_hz
        self._more: dict[str, Any] = {
            "udp_only": udp_only,
            "password": password,
            "digest": digest,
            "is_shared": True,
        }
        self.port = 0
        self._server: subprocess.Popen[str] | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def uri(self, login: str = "") -> str:
        """login: "user:password"."""
        return f"rtsp://{login}{'@' if login else ''}{self.host}/cam"

    def on(self) -> None:
        """Switch it on; it listens then, on the same port as before."""
        width, height = self.size
        launch = (
            f"videotestsrc is-live=true ! video/x-raw,format=I420,width={width},height={height},"
            f"framerate={self.rate_hz}/1 ! {_ENCODERS[self.codec]}"
        )
        self._server, self.port = _started(_Asked(launch, self.port, **self._more))

    def off(self) -> None:
        """Switch it off, as by its plug."""
        if self._server is not None:
            self._server.kill()
            self._server.communicate()
            self._server = None

    def freeze(self) -> None:
        """Let it send nothing more, while its connections stay open."""
        assert self._server is not None
        os.kill(self._server.pid, 19)

    def __enter__(self) -> Self:
        self.on()
        return self

    def __exit__(self, *_: object) -> None:
        self.off()


@contextmanager
def serving(video: Path) -> Iterator[str]:
    """host:port of a server that plays `video`, H.264 in MP4, at /cam to the user me:secret."""
    launch = f'filesrc location="{video}" ! qtdemux ! rtph264pay name=pay0'
    server, port = _started(_Asked(launch, password="secret"))
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.kill()
        server.communicate()


class Watched:
    """A run of cameras, in a thread of its own.

    sources: by task id, the config of each, as in a graph file.
    """

    def __init__(self, folder: Path, sources: dict[str, str]) -> None:
        folder.mkdir(exist_ok=True)
        lines = [
            "logging: {slab_size_mib: 8, section_size_mib: 1}",
            "tasks:",
            *(
                f"  - {{id: {id_}, type: VideoCapture, config: {{{config}}}}}"
                for id_, config in sources.items()
            ),
        ]
        (folder / "g.yaml").write_text("\n".join(lines))
        plan = load_plan(folder / "g.yaml", env={})
        self.directory = folder / "run"
        self.run = Run(plan, clock=LiveClock(), directory=self.directory)
        self.result: Any = None
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        self.result = self.run.run()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.run.stop("the test")
        self._thread.join()

    def go_on(self, cycles: int) -> None:
        """Wait for that many more cycles."""
        last = self.run.report().cycles + cycles
        while self.run.report().cycles < last and self._thread.is_alive():
            time.sleep(0.005)

    def until_ended(self) -> None:
        """Wait for the run to end by itself."""
        self._thread.join()

    def state(self, task: str) -> tuple[str, str]:
        """How a source is doing, and the code."""
        report = self.run.report().tasks[task]
        return str(report.state), report.code

    def until(self, task: str, state: str, *, timeout_s: float = 240.0) -> tuple[float, str]:
        """Wait for a source to be in `state`; the seconds that took, and the code."""
        begin_s = time.monotonic()
        while (found := self.state(task))[0] != state or not self.run.executor.has_started:
            if not self._thread.is_alive() and self.result is not None:
                break
            if time.monotonic() - begin_s > timeout_s:
                raise AssertionError(f"{task} is {found}, not {state}")
            time.sleep(0.005)
        return time.monotonic() - begin_s, found[1]


def switched(
    folder: Path, *, times: int, delay_s: float = 1.0, seed: int = 0, config: str = ""
) -> tuple[list[float], Path]:
    """Switch a camera off and on while a run reads it: the seconds after which its pictures were back
    each time, counted from when it listened, and the run's directory.

    It is off for up to 2 s, and on for up to 2 s after it was back.
    """
    rng = random.Random(seed)
    took = []
    with Camera() as camera:
        source = f"source_uri: '{camera.uri()}', reconnect: {{delay_s: {delay_s}}}{config}"
        with Watched(folder, {"cam": source}) as watched:
            watched.until("cam", "running")
            for _ in range(times):
                time.sleep(rng.uniform(0.2, 2))
                camera.off()
                watched.until("cam", "lost")
                time.sleep(rng.uniform(0, 2))
                camera.on()
                took.append(watched.until("cam", "running")[0])
            watched.go_on(3)
    assert watched.result.error is None
    return took, watched.directory
