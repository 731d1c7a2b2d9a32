"""A viewer of a camera's packets who decodes them as `docs/http-api.md` says, and nothing else."""

import struct

import av

_DECODERS = {"h265": "hevc", "av1": "libdav1d"}


class Viewer:
    """Takes messages in their order.

    pictures: (packet number, pixels) of what the decoder gave, in its order.
    named: packet number -> cycle, of the pictures that the run has published.
    configurations: those that came.
    """

    def __init__(self):
        self.pictures = []
        self.named = {}
        self.configurations = []
        self._decoder = None
        self._begins = False

    def configure(self, message):
        assert message["type"] == "config"
        self.end()
        self.configurations.append(message)
        self._decoder = av.CodecContext.create(
            _DECODERS.get(message["format"], message["format"]), "r"
        )
        self._begins = True

    def take(self, message):
        version, count, cycle, tov_ns, number, first = struct.unpack_from("<B3xIQQQQ", message)
        assert version == 1
        assert tov_ns > 0
        self.named[number] = cycle
        at = 40 + 4 * count
        for place, word in enumerate(struct.unpack_from(f"<{count}I", message, 40)):
            size, is_key = word & 0x7FFFFFFF, bool(word >> 31)
            assert is_key or not self._begins
            self._begins = False
            packet = av.Packet(message[at : at + size])
            packet.pts = packet.dts = first + place
            self._decode(packet)
            at += size
        assert at == len(message)

    def end(self):
        """No more packets will come for this decoder."""
        if self._decoder is not None:
            self._decode(None)
            self._decoder = None

    def _decode(self, packet):
        for frame in self._decoder.decode(packet):
            self.pictures.append((frame.pts, frame.to_ndarray(format="rgb24")))
