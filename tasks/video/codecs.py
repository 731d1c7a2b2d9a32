"""What is known of codecs: which packets the log keeps, and how they are decoded."""

from __future__ import annotations

__all__ = ["ASKED", "AT_ONCE", "IN_PARTS", "LOGGED", "PALETTE", "STRICT"]

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
ASKED = frozenset({"h264", "hevc", "mjpeg"})
"""The codecs each of whose packets is one picture, and whose key frames say how all of them lie: these
can be decoded when somebody reads them."""
AT_ONCE = frozenset({"h264", "mpeg4"})
"""The codecs of which several threads decode several pictures at once as one thread does, or report
damage."""
IN_PARTS = frozenset({"av1"})
"""The codecs of which several threads decode the parts of one picture as one thread does, or report
damage.

Of the others, some damaged films came out otherwise by several threads, without a word:

| codec  | threads for    | of films of `tests/support/damaged` | why                                  |
|--------|----------------|-------------------------------------|--------------------------------------|
| H.265  | pictures       | 20 of 399, where rows are separate  | parts of a picture are left out, and |
|        | rows           | 134 of 399 of the same              | show what was in its memory before   |
| VP8    | pictures, rows | 14 of 60, 5 of 60                   | the same                             |
| FFV1   | slices         | 1 of 60                             | the same                             |
| VP9    | tiles          | 5 of 1991                           | one thread refuses what they take    |
| MPEG-2 | slices         | 4 of 3000                           | one thread says that it is corrupt   |
"""
STRICT = frozenset({"mjpeg"})
"""Codecs whose decoders do not say that a picture is damaged unless they may refuse it, and whose
pictures need no other: one that is refused is decoded once more, as far as it goes."""
