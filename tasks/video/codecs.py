"""What is known of codecs: which packets the log keeps, and how they are decoded."""

from __future__ import annotations

__all__ = ["LOGGED", "PALETTE", "STRICT", "THREADED"]

LOGGED = frozenset(
    {
        *("h264", "hevc", "vp8", "vp9", "av1"),
        *("mpeg1video", "mpeg2video", "mpeg4", "h263", "flv1", "theora"),
        *("msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2"),
        *("mjpeg", "jpeg2000", "png", "prores", "dnxhd", "dvvideo"),
        *("rawvideo", "ffv1", "huffyuv", "ffvhuff", "utvideo"),
    }
)
"""The codecs whose decoders need no more than `VideoDecoder` and the packets' bytes. Others may get more
from their container, as a palette."""
PALETTE = "pal8"
THREADED = frozenset({"h264", "mpeg4"})
"""The codecs that several threads decode as one does, or report damage. The others do not say on several
threads what they refuse on one (VP9, AV1, MPEG-1 and 2), or leave parts of a damaged picture out without
a word (H.265, VP8, FFV1): what is there then depends on the memory that they got."""
STRICT = frozenset({"mjpeg"})
"""Codecs whose decoders do not say that a picture is damaged unless they may refuse it, and whose
pictures need no other: one that is refused is decoded once more, as far as it goes."""
