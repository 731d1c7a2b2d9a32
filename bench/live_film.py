"""A camera on http: plays a film as MPEG-TS, each picture at its time, to every client from its start.

    python bench/live_film.py FILM

Prints its port. It is a process of its own, so that its work does not count as the reader's.
"""

from __future__ import annotations

import io
import sys
import time
from fractions import Fraction
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import av
from camera_films import FPS


def pieces(film: str) -> list[bytes]:
    """The bytes of the film's pictures, one after the other, as MPEG-TS."""
    made, sink = [], io.BytesIO()
    with av.open(film) as source:
        [stream] = source.streams.video
        with av.open(sink, "w", format="mpegts", options={"flush_packets": "1"}) as target:
            copy = target.add_stream_from_template(stream)
            for packet in source.demux(stream):
                if packet.dts is None:
                    continue
                packet.stream = copy
                before = sink.tell()
                target.mux(packet)
                made.append(sink.getvalue()[before:])
    return made


class Camera(BaseHTTPRequestHandler):
    def __init__(self, sent: list[bytes], *args: object) -> None:
        self._sent = sent
        super().__init__(*args)

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "video/mp2t")
        self.end_headers()
        began = time.monotonic()
        try:
            for number, piece in enumerate(self._sent):
                time.sleep(max(0.0, began + float(Fraction(number, FPS)) - time.monotonic()))
                self.wfile.write(piece)
        except (BrokenPipeError, ConnectionResetError):
            return

    def log_message(self, *_: object) -> None:
        return


def main() -> None:
    sent = pieces(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Camera, sent))
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
