"""Pictures of a log, by a reader written from FORMAT.md alone.

It shares no code with flowrun. Libraries: msgpack, zstandard, FFmpeg (by PyAV), NumPy.
"""

import math
import zlib
from fractions import Fraction

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
            picture = decoded.get(own["number"])
        else:
            picture = alone(own, message.get(3, b""))
        pixels = None if picture is None else pixels_of(own, *picture)
        rest = {name: own[name] for name in ("frame_id", "pts", "fps")}
        rest["pixel_aspect"] = own.get("pixel_aspect", 1.0)
        found.append((cycle, {"pixels": pixels, **rest, "source": message.get(2, b"").decode()}))
    return found


def raw_image(message):
    frame_id, pts, fps, *aspect = msgpack.unpackb(message[1000])
    height, width = message.get(3, 0), message.get(2, 0)
    pixels = np.frombuffer(message.get(6, b""), np.uint8).reshape(height, width, 3)
    return {
        "pixels": pixels,
        "frame_id": frame_id,
        "pts": pts,
        "fps": fps,
        "source": message.get(7, b"").decode(),
        "pixel_aspect": aspect[0] if aspect else 1.0,
    }


def pixels_of(own, described, data):
    """The pixels of a picture in `data`; None where it is not the recorded one."""
    if zlib.crc32(data) != own["crc"] or described != own.get("planes"):
        return None
    height, width = own["size"]
    if described is None:
        return np.frombuffer(data, np.uint8).reshape(height, width, 3)
    form, rows, columns, space, span, way_up = described
    picture = av.VideoFrame(columns, rows, form)
    picture.colorspace, picture.color_range = space, span
    at = 0
    for plane, (rows, length) in zip(picture.planes, sizes(picture), strict=True):
        lines = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        lines[:rows, :length] = np.frombuffer(data, np.uint8, rows * length, at).reshape(
            rows, length
        )
        at += rows * length
    return upright(rgb(picture), way_up)


def sizes(picture):
    """Rows, and bytes of a row, of each plane."""
    parts = picture.format.components
    found = []
    for plane in range(len(picture.planes)):
        inside = [it for it in parts if it.plane == plane]
        length = sum(it.width * (1 if it.bits <= 8 else 2) for it in inside)
        found.append((inside[0].height, length))
    return found


def taken(picture, convert, way_up):
    """Description and bytes of a decoded picture: of its planes, or of its pixels by `convert`."""
    if convert is not None:
        return None, upright(convert(picture), way_up).tobytes()
    described = [
        picture.format.name,
        picture.height,
        picture.width,
        int(picture.colorspace),
        int(picture.color_range),
        way_up,
    ]
    data = b"".join(
        np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:rows, :length].tobytes()
        for plane, (rows, length) in zip(picture.planes, sizes(picture), strict=True)
    )
    return described, data


def alone(own, data):
    """The picture of a message that needs no other."""
    if own["codec"] == "planes":
        return own["planes"], data
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
        data = rows.reshape(height, width, 4)[:, :, 2::-1].tobytes()
    return None, data


def decode(stream):
    """Packet's number -> picture. One decoder a section, in one thread, from its first packet on; each
    picture is given back after the next packet."""
    made, section, decoder, held = {}, None, None, []

    def put(packet, convert):
        pictures = decoder.decode(packet)
        held.clear()
        held.extend(pictures)
        for picture in pictures:
            made[picture.pts] = taken(picture, convert, way_up)

    for own, data in stream:
        if own["section"] != section:
            section, decoder = own["section"], None
        if "decoder" in own:
            name, extradata, width, height, form, tag, bits, reorder, *color, way_up = own[
                "decoder"
            ]
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
        convert = rgb if own.get("convert") == 1 else by_swscale
        if "planes" in own:
            convert = None
        at = 0
        for number, (size, key) in enumerate(
            zip(own["sizes"], own["keys"], strict=True), own["first"]
        ):
            packet = padded(data[at : at + size])
            packet.pts = packet.dts = number
            packet.is_keyframe = key
            put(packet, convert)
            at += size
        if own["drained"]:
            put(None, convert)
            decoder = None
    return made


def padded(data):
    packet = av.Packet(len(data))
    packet.update(data)
    return packet


def upright(pixels, way_up):
    if way_up > 4:
        pixels = pixels.swapaxes(0, 1)
    rows = -1 if way_up in (3, 4, 7, 8) else 1
    columns = -1 if way_up in (2, 3, 6, 7) else 1
    return pixels[::rows, ::columns]


def by_swscale(picture):
    made = VideoReformatter().reformat(picture, format="rgb24", interpolation=FLAGS)
    return made.to_ndarray()


def rgb(picture):
    """As "How colours become RGB" says, for the pixel formats of the tests' films."""
    name, width = picture.format.name, picture.width
    planes = [
        np.frombuffer(it, np.uint8).reshape(-1, it.line_size)[: it.height] for it in picture.planes
    ]
    if name in ("rgb24", "bgr24"):
        pixels = planes[0][:, : 3 * width].reshape(-1, width, 3)
        return pixels if name == "rgb24" else pixels[:, :, ::-1]
    if name == "yuyv422":
        planes = [planes[0][:, 0::2], planes[0][:, 1::4], planes[0][:, 3::4]]
    bits = picture.format.components[0].bits
    if bits > 8:
        planes = [it.view("<u2") for it in planes]
    is_full = picture.color_range == 2 or name.startswith("yuvj")
    down = picture.height // len(planes[1]) if len(planes[1]) else 1
    across = 2 if "420" in name or "422" in name else 1
    planes[1:] = (np.repeat(np.repeat(it, down, axis=0), across, axis=1) for it in planes[1:])
    x0, x1, x2 = (it[: picture.height, :width].astype(np.int64) << (16 - bits) for it in planes)
    kr, kb = KR_KB.get(int(picture.colorspace), (Fraction("0.299"), Fraction("0.114")))
    highest = ((1 << bits) - 1) << (16 - bits)
    a = nearest(Fraction(255 << 21, highest if is_full else 219 << 8))
    c = nearest(Fraction(33, 2) - Fraction((0 if is_full else 4096) * a, 65536))
    unit = Fraction(255 << 21, highest if is_full else 224 << 8)
    kg = 1 - kr - kb
    matrix = [
        (0, 2 * (1 - kr)),
        (-2 * (1 - kb) * kb / kg, -2 * (1 - kr) * kr / kg),
        (2 * (1 - kb), 0),
    ]
    levels = [
        (x0 * a >> 16)
        + ((x1 - 32768) * nearest(m1 * unit) >> 16)
        + ((x2 - 32768) * nearest(m2 * unit) >> 16)
        + c
        >> 5
        for m1, m2 in matrix
    ]
    return np.clip(np.stack(levels, axis=2), 0, 255).astype(np.uint8)


KR_KB = {1: (Fraction("0.2126"), Fraction("0.0722"))}


def nearest(value):
    rounded = math.floor(abs(value) + Fraction(1, 2))
    return rounded if value >= 0 else -rounded


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
