"""Zones of a picture and lines across it: who is in them, and who has crossed them."""

from __future__ import annotations

from flowrun.msgs.fields import MessageTypeError
from flowrun.msgs.message import Message

__all__ = ["LinesMsg", "ZonesMsg"]


class _Regions(Message):
    """Lists of which entry k is about the same region, besides the frame."""

    names: list[str]
    width: int
    height: int
    frame_id: int
    frame_cycle: int

    def check_fields(self) -> None:
        super().check_fields()
        lists = {k: len(it) for k, it in self.__dict__.items() if isinstance(it, list)}
        if len(set(lists.values())) > 1:
            shown = ", ".join(f"{name} {length}" for name, length in lists.items())
            raise MessageTypeError(
                f"{type(self).__name__}: every list has one entry for each name; got {shown}"
            )


class ZonesMsg(_Regions):
    """Who is in which zone of one frame; `tov_ns` is the frame's time.

    Entry k of each list is about zone k. Numbers of tracks are there only if objects are tracked.

    names: of the zones.
    polygons: corners of each, [x, y] in pixels of the frame.
    counts: how many objects are in it.
    labels: label -> how many of these have it.
    inside: the numbers of the tracks that are in it, ascending.
    inside_s: for how many seconds each of these has been in it.
    entered, left: the numbers of the tracks that have come in, or gone, since the last message.
    totals: how many tracks have come in since the run began.
    width, height: size of the frame in pixels.
    frame_id, frame_cycle: as of `DetectionsMsg`.
    """

    polygons: list[list[list[float]]]
    counts: list[int]
    labels: list[dict[str, int]]
    inside: list[list[int]]
    inside_s: list[list[float]]
    entered: list[list[int]]
    left: list[list[int]]
    totals: list[int]


class LinesMsg(_Regions):
    """How many tracks have crossed which line; `tov_ns` is the time of the frame.

    Entry k of each list is about line k. "In" is to the right of one who walks along the line.

    names: of the lines.
    lines: [x, y, x, y] of the begin and the end of each, in pixels of the frame.
    ins, outs: how many have crossed it since the run began.
    in_labels, out_labels: label -> how many of these had it.
    went_in, went_out: the numbers of the tracks that have crossed it since the last message.
    width, height: size of the frame in pixels.
    frame_id, frame_cycle: as of `DetectionsMsg`.
    """

    lines: list[list[float]]
    ins: list[int]
    outs: list[int]
    in_labels: list[dict[str, int]]
    out_labels: list[dict[str, int]]
    went_in: list[list[int]]
    went_out: list[list[int]]
