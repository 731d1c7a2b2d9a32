"""An RTSP server that plays a film to each client from its start, over TCP or UDP, to its end.

    /usr/bin/python3 bench/rtsp_film.py FILM [PORT]

Prints its port; the film, H.264 in MP4, is at any of /cam0, /cam1, ... It needs GStreamer and the
system's own Python, which `make apt` installs.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

CAMERAS = 1000

Gst.init(None)
server = GstRtspServer.RTSPServer(address="127.0.0.1", service=(sys.argv[2:] or ["0"])[0])

for number in range(CAMERAS):
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(
        f'( filesrc location="{sys.argv[1]}" ! qtdemux ! rtph264pay name=pay0 config-interval=-1 )'
    )
    server.get_mount_points().add_factory(f"/cam{number}", factory)
server.set_backlog(CAMERAS)
server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
