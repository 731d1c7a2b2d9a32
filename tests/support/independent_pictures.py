"""Pictures of a log, by a reader written from FORMAT.md alone.

It shares no code with flowrun. Libraries: msgpack, zstandard, FFmpeg (by PyAV), NumPy.
"""

import zlib

import av
import msgpack
import numpy as np
import zstandard
from av.video.reformatter import VideoReformatter

from support import independent_reader

FLAGS = 0x2 | 0x40000 | 0x80000


def pictures(slabs, topic):
    """[(cycle, fields)] of a run's files, in order; fields hold "pixels", None of a picture that the
    log does not give back, frame_id, pts, fps and source."""
    schema, encoding, metadata = independent_reader.channels(slabs[0])[topic]
    assert encoding == "protobuf"
    messages = [
        (cycle, dict(fields(payload)))
        for data in slabs
        for cycle, _, entries in independent_reader.read(data)[0]
        for name, _, payload in entries
        if name == topic
    ]
    if "codec" not in metadata:
        assert schema == "foxglove.RawImage"
        return [(cycle, raw_image(message)) for cycle, message in messages]
    assert schema == "foxglove.CompressedVideo"
    return stored(messages)


def stored(messages):
    """Pictures of a channel with a codec."""
    described = [(cycle, message, msgpack.unpackb(message[1000])) for cycle, message in messages]
    decoded = decode(
        [(own, message.get(3, b"")) for _, message, own in described if own["codec"] == "packets"]
    )
    found = []
    for cycle, message, own in described:
        if own["codec"] == "packets":
            pixels = decoded.get(own["number"])
        else:
            pixels = alone(own, message.get(3, b""))
        if pixels is not None and zlib.crc32(pixels.tobytes()) != own["crc"]:
            pixels = None
        rest = {name: own[name] for name in ("frame_id", "pts", "fps")}
        found.append((cycle, {"pixels": pixels, **rest, "source": message.get(2, b"").decode()}))
    return found


def raw_image(message):
    frame_id, pts, fps = msgpack.unpackb(message[1000])
    height, width = message.get(3, 0), message.get(2, 0)
    pixels = np.frombuffer(message.get(6, b""), np.uint8).reshape(height, width, 3)
    return {
        "pixels": pixels,
        "frame_id": frame_id,
        "pts": pts,
        "fps": fps,
        "source": message.get(7, b"").decode(),
    }


def alone(own, data):
    """The pixels of a message that needs no other."""
    height, width = own["size"]
    if own["codec"] == "zstd":
        data = zstandard.ZstdDecompressor().decompress(data)
    if own["codec"] == "ffv1":
        size = int.from_bytes(data[:4], "little")
        decoder = av.CodecContext.create("ffv1", "r")
        decoder.extradata = data[4 : 4 + size]
        decoder.width, decoder.height, decoder.pix_fmt = width, height, "bgr0"
        (picture,) = [*decoder.decode(padded(data[4 + size :])), *decoder.decode(None)]
        assert picture.format.name == "bgr0"
        stride = picture.planes[0].line_size
        rows = np.frombuffer(picture.planes[0], np.uint8).reshape(-1, stride)[:height, : 4 * width]
        return rows.reshape(height, width, 4)[:, :, 2::-1]
    return np.frombuffer(data, np.uint8).reshape(height, width, 3)


def decode(stream):
    """Packet's number -> pixels. One decoder a section, in one thread, from its first packet on; each
    picture is given back after the next packet."""
    made, section, decoder, held = {}, None, None, []

    def put(packet):
        pictures = decoder.decode(packet)
        held.clear()
        held.extend(pictures)
        for picture in pictures:
            made[picture.pts] = rgb(picture)

    for own, data in stream:
        if own["section"] != section:
            section, decoder = own["section"], None
        if "decoder" in own:
            name, extradata, width, height, form, tag, bits, reorder, *color = own["decoder"]
            decoder = av.CodecContext.create(name, "r")
            decoder.thread_count = 1
            decoder.extradata = extradata
            decoder.width, decoder.height = width, height
            if form:
                decoder.pix_fmt = form
            if tag:
                decoder.codec_tag = tag
            decoder.bits_per_coded_sample, decoder.reorder_depth = bits, reorder
            decoder.colorspace, decoder.color_range = color
        if decoder is None:  # the section began before the log
            continue
        at = 0
        for number, (size, key) in enumerate(
            zip(own["sizes"], own["keys"], strict=True), own["first"]
        ):
            packet = padded(data[at : at + size])
            packet.pts = packet.dts = number
            packet.is_keyframe = key
            put(packet)
            at += size
        if own["drained"]:
            put(None)
            decoder = None
    return made


def padded(data):
    packet = av.Packet(len(data))
    packet.update(data)
    return packet


def rgb(picture):
    made = VideoReformatter().reformat(picture, format="rgb24", interpolation=FLAGS)
    return made.to_ndarray()


def fields(data):
    """Protobuf: number and value of each field."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        else:
            size, at = {1: (8, at), 5: (4, at)}.get(key & 7) or varint(data, at)
            value = data[at : at + size]
            if key & 7 != 2:
                value = int.from_bytes(value, "little")
            at += size
        yield key >> 3, value


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        if data[at] < 0x80:
            return value, at + 1
        at, shift = at + 1, shift + 7
