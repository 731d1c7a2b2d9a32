"""GStreamer's RTSP server, a real camera as far as a client can tell."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SERVER = """
import sys, gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer(address="127.0.0.1", service="0")
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(f'( filesrc location="{sys.argv[1]}" ! qtdemux ! rtph264pay name=pay0 )')
permissions = GstRtspServer.RTSPPermissions()
permissions.add_permission_for_role("user", "media.factory.access", True)
permissions.add_permission_for_role("user", "media.factory.construct", True)
factory.set_permissions(permissions)
token = GstRtspServer.RTSPToken()
token.set_string("media.factory.role", "user")
auth = GstRtspServer.RTSPAuth()
auth.add_basic(GstRtspServer.RTSPAuth.make_basic("me", "secret"), token)
server.set_auth(auth)
server.get_mount_points().add_factory("/cam", factory)
server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
"""


@contextmanager
def serving(video: Path) -> Iterator[str]:
    """host:port of a server that plays `video`, H.264 in MP4, at /cam to the user me:secret."""
    python = shutil.which("python3", path="/usr/bin")
    has_server = (
        python
        and not subprocess.run(
            [python, "-c", "import gi; gi.require_version('GstRtspServer', '1.0')"],
            check=False,
            stderr=subprocess.DEVNULL,
        ).returncode
    )
    if not has_server or sys.platform != "linux":
        pytest.fail(
            "needs python3-gi, gir1.2-gst-rtsp-server-1.0, gstreamer1.0-plugins-good: "
            "`make test-all` installs them",
            pytrace=False,
        )
    server = subprocess.Popen(
        [str(python), "-c", SERVER, str(video)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        yield f"127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.kill()
        server.communicate()
