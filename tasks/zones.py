"""`Zones` and `LineCounter`: who is in a part of the picture, and who crosses a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from flowrun.msgs.detections import DetectionsMsg, TracksMsg
from flowrun.msgs.message import Message
from flowrun.msgs.regions import LinesMsg, ZonesMsg
from flowrun.runtime.task import Context, Input, Output, Task, TaskConfig
from flowrun.runtime.wording import listed

__all__ = ["LineCounter", "Zones", "contains", "crosses"]

_NS_PER_S = 1_000_000_000
Point: TypeAlias = tuple[float, float]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Corner = tuple[_Finite, _Finite]
_Name = Annotated[str, Field(min_length=1)]
_Labels = Annotated[tuple[_Name, ...], Field(min_length=1)] | None

# fmt: off
_ANCHORS = {
    "top_left": (0, 0), "top_center": (0.5, 0), "top_right": (1, 0),
    "center_left": (0, 0.5), "center": (0.5, 0.5), "center_right": (1, 0.5),
    "bottom_left": (0, 1), "bottom_center": (0.5, 1), "bottom_right": (1, 1),
}
_Anchor = Literal[
    "top_left", "top_center", "top_right", "center_left", "center", "center_right",
    "bottom_left", "bottom_center", "bottom_right",
]
# fmt: on


class _Regions(TaskConfig):
    unit: Literal["relative", "pixels"] = "relative"
    """What the coordinates are: fractions of the picture's width and height, from the upper left
    corner (0, 0) to the lower right one (1, 1); or its pixels."""
    anchor: _Anchor = "bottom_center"
    """The point of a box that says where the object is: where it touches the ground, or another."""

    def check_points(self, points: Sequence[Point], of: str) -> None:
        """`ValueError` for points that cannot be meant: such as pixels without saying so."""
        far = [point for point in points if self.unit == "relative" and max(map(abs, point)) > 2]
        if far:
            x, y = far[0]
            raise ValueError(
                f"{of} has a point [{x:g}, {y:g}], and the picture ends at [1, 1]; "
                "if these are pixels, write unit: pixels"
            )

    def scale(self, width: int, height: int) -> Point:
        """By what coordinates become pixels of a frame. `ValueError` if that needs a size."""
        if self.unit == "pixels":
            return 1.0, 1.0
        if width < 1 or height < 1:
            raise ValueError(
                f"objects of a frame of {width}x{height} pixels: the task that finds them must set "
                "width and height, or the coordinates be pixels (unit: pixels)"
            )
        return float(width), float(height)


class Zone(TaskConfig):
    """A part of the picture."""

    name: _Name
    """What the zone is called in messages and pictures."""
    polygon: Annotated[tuple[_Corner, ...], Field(min_length=3)]
    """Its corners [x, y], in their order."""
    labels: _Labels = None
    """Only objects with these labels count; null: all."""
    min_time_s: NonNegativeFloat = 0.0
    """How long a tracked object must be in the zone to count."""

    @model_validator(mode="after")
    def _check(self) -> Zone:
        points = self.polygon
        sides = list(zip(points, points[1:] + points[:1], strict=True))
        for k, (a, b) in enumerate(sides):
            if a == b:
                raise ValueError(
                    f"zone {self.name!r} has the point [{a[0]:g}, {a[1]:g}] twice in a row"
                )
            others = [side for j, side in enumerate(sides) if j not in _next_to(k, len(sides))]
            if any(crosses(a, b, *side) for side in others):
                raise ValueError(
                    f"the sides of zone {self.name!r} cross: give its corners in the order in which "
                    "one walks around it"
                )
        if not _area(points):
            raise ValueError(f"zone {self.name!r} has no area: its corners are on one line")
        return self


class Line(TaskConfig):
    """A line across the picture."""

    name: _Name
    """What the line is called in messages and pictures."""
    start: _Corner
    """Where it begins, [x, y]."""
    end: _Corner
    """Where it ends. To the right of one who walks from the start to the end is "in"."""
    labels: _Labels = None
    """Only objects with these labels count; null: all."""

    @model_validator(mode="after")
    def _check(self) -> Line:
        if self.start == self.end:
            raise ValueError(f"line {self.name!r} has no length: its start is its end")
        return self


def _unique(items: Sequence[Zone] | Sequence[Line], kind: str) -> None:
    twice = [name for name, times in Counter(it.name for it in items).items() if times > 1]
    if twice:
        raise ValueError(f"each {kind} needs a name of its own; given twice: {listed(twice)}")


@dataclass(slots=True)
class _Stay:
    """A track in a zone.

    since_ns: when it came in.
    seen_ns: when it was seen there last.
    label: what it was then.
    counts: whether it has been in the zone for long enough.
    """

    since_ns: int
    seen_ns: int
    label: str
    counts: bool


class Zones(Task):
    """Count the objects in zones of the picture, and say which come in and leave.

    An object on a zone's border is in it. Objects that `Track` follows come in and leave: they count
    once they have been in the zone for `min_time_s`, and one that is not found for a while stays where
    it was for `lost_s`; what has no number yet does not count. Objects without tracks are only counted.
    Times are those of the frames. Each message gives a `ZonesMsg`.
    """

    class Config(_Regions):
        zones: Annotated[tuple[Zone, ...], Field(min_length=1)]
        """The zones: {name, polygon: [[x, y], ...], labels, min_time_s}."""
        lost_s: NonNegativeFloat = 1.0
        """How long a track that is not found stays in the zones in which it was."""

        @model_validator(mode="after")
        def _check(self) -> Zones.Config:
            _unique(self.zones, "zone")
            for zone in self.zones:
                self.check_points(zone.polygon, f"zone {zone.name!r}")
            return self

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._stays: list[dict[int, _Stay]] = [{} for _ in self.config.zones]
        self._totals = [0] * len(self.config.zones)

    example_config = MappingProxyType(
        {"zones": [{"name": "door", "polygon": [[0.1, 0.2], [0.4, 0.2], [0.4, 0.9], [0.1, 0.9]]}]}
    )

    @classmethod
    def check_inputs(
        cls, config: TaskConfig, inputs: Mapping[str, type[Message]]
    ) -> Iterator[tuple[str, str]]:
        assert isinstance(config, cls.Config)
        if any(zone.min_time_s > 0 for zone in config.zones):
            yield from _untracked("min_time_s needs tracks", inputs, "zones")

    def process(
        self, ctx: Context, detections: Input[DetectionsMsg], zones: Output[ZonesMsg]
    ) -> None:
        del ctx
        across, down = self.config.scale(detections.width, detections.height)
        places = _places(detections, self.config.anchor)
        is_tracked = isinstance(detections, TracksMsg) or len(detections.tracker_ids) > 0
        is_tracked |= any(self._stays)
        for number, zone in enumerate(self.config.zones):
            polygon = [(x * across, y * down) for x, y in zone.polygon]
            found = {
                k: contains(polygon, place)
                for k, place in enumerate(places)
                if zone.labels is None or detections.labels[k] in zone.labels
            }
            zones.names.append(zone.name)
            zones.polygons.append([[x, y] for x, y in polygon])
            if is_tracked:
                self._follow(number, zone, found, detections, zones)
            else:
                labels = Counter(detections.labels[k] for k, is_in in found.items() if is_in)
                zones.labels.append(dict(labels))
                for empty in (zones.inside, zones.inside_s, zones.entered, zones.left):
                    empty.append([])
            zones.counts.append(sum(zones.labels[-1].values()))
            zones.totals.append(self._totals[number])
        zones.width, zones.height = detections.width, detections.height
        zones.frame_id, zones.frame_cycle = detections.frame_id, detections.frame_cycle
        zones.publish(tov_ns=detections.tov_ns)

    def _follow(
        self,
        number: int,
        zone: Zone,
        found: Mapping[int, bool],
        tracks: DetectionsMsg,
        out: ZonesMsg,
    ) -> None:
        """Note who comes into a zone and who leaves it.

        number: of the zone.
        found: whether the object of a row is in it, of those that may count.
        """
        now_ns, stays = tracks.tov_ns, self._stays[number]
        ids = tracks.tracker_ids.tolist() or [-1] * tracks.count
        left = []
        for k, is_in in found.items():
            track = ids[k]
            if track >= 0 and is_in:
                stay = stays.setdefault(track, _Stay(now_ns, now_ns, "", counts=False))
                stay.seen_ns, stay.label = now_ns, tracks.labels[k]
                stay.since_ns = min(stay.since_ns, now_ns)  # a source that has started again
            elif track in stays:
                left += [track] if stays.pop(track).counts else []
        lost_ns = self.config.lost_s * _NS_PER_S
        for track in [track for track, it in stays.items() if abs(now_ns - it.seen_ns) > lost_ns]:
            left += [track] if stays.pop(track).counts else []
        entered = [
            track
            for track, it in stays.items()
            if not it.counts and it.seen_ns - it.since_ns >= zone.min_time_s * _NS_PER_S
        ]
        for track in entered:
            stays[track].counts = True
        self._totals[number] += len(entered)
        inside = {track: it for track, it in sorted(stays.items()) if it.counts}
        out.labels.append(dict(Counter(it.label for it in inside.values())))
        out.inside.append(list(inside))
        out.inside_s.append([max(0, now_ns - it.since_ns) / _NS_PER_S for it in inside.values()])
        out.entered.append(sorted(entered))
        out.left.append(sorted(left))

    def freeze(self) -> Any:
        return {
            "stays": [[[k, *astuple(it)] for k, it in stays.items()] for stays in self._stays],
            "totals": self._totals,
        }

    def thaw(self, state: Any) -> None:
        self._stays = [{k: _Stay(*values) for k, *values in stays} for stays in state["stays"]]
        self._totals = list(state["totals"])


@dataclass(slots=True)
class _Walk:
    """A track and a line.

    side: on which side it was last, 1 for "in".
    x, y: where it was then, in fractions of the frame.
    seen_ns: when it was seen last.
    beyond: in how many messages since then it was on the other side.
    through: whether it came there across the line, and not around its ends.
    """

    side: int
    x: float
    y: float
    seen_ns: int
    beyond: int = 0
    through: bool = False


@dataclass(slots=True)
class _Crossings:
    """What a line has counted: label -> how often; and where the tracks are."""

    ins: dict[str, int] = field(default_factory=dict)
    outs: dict[str, int] = field(default_factory=dict)
    walks: dict[int, _Walk] = field(default_factory=dict)


class LineCounter(Task):
    """Count who crosses lines in the picture, in both directions.

    A track crosses a line when its anchor goes from one side to the other between the line's ends; on
    the line it is still on the side from which it came. "In" is to the right of one who walks from the
    line's start to its end. Each message gives a `LinesMsg`. Needs the tracks of `Track`.
    """

    class Config(_Regions):
        lines: Annotated[tuple[Line, ...], Field(min_length=1)]
        """The lines: {name, start: [x, y], end: [x, y], labels}."""
        minimum_crossing_threshold: PositiveInt = 1
        """In how many messages one after another a track must be on the other side to have crossed:
        with more than 1, one that trembles on the line is not counted each time."""
        lost_s: NonNegativeFloat = 10.0
        """How long it is remembered on which side a track was that is not found."""

        @model_validator(mode="after")
        def _check(self) -> LineCounter.Config:
            _unique(self.lines, "line")
            for line in self.lines:
                self.check_points((line.start, line.end), f"line {line.name!r}")
            return self

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._crossings = [_Crossings() for _ in self.config.lines]

    example_config = MappingProxyType(
        {"lines": [{"name": "gate", "start": [0.5, 0.0], "end": [0.5, 1.0]}]}
    )

    @classmethod
    def check_inputs(
        cls, config: TaskConfig, inputs: Mapping[str, type[Message]]
    ) -> Iterator[tuple[str, str]]:
        del config
        yield from _untracked("LineCounter needs tracks", inputs, "lines")

    def process(
        self, ctx: Context, detections: Input[DetectionsMsg], lines: Output[LinesMsg]
    ) -> None:
        del ctx
        if detections.count and not len(detections.tracker_ids):
            raise ValueError("the objects have no tracker_ids: a line is crossed by tracks")
        across, down = self.config.scale(detections.width, detections.height)
        places = _places(detections, self.config.anchor)
        for line, crossings in zip(self.config.lines, self._crossings, strict=True):
            (x1, y1), (x2, y2) = line.start, line.end
            ends = (x1 * across, y1 * down), (x2 * across, y2 * down)
            went: tuple[list[int], list[int]] = [], []
            for k, track in enumerate(detections.tracker_ids.tolist()):
                label = detections.labels[k]
                if track >= 0 and (line.labels is None or label in line.labels):
                    side = self._side(crossings.walks, track, places[k], ends, detections)
                    if side:
                        counted = crossings.ins if side > 0 else crossings.outs
                        counted[label] = counted.get(label, 0) + 1
                        went[side < 0].append(track)
            self._forget(crossings.walks, detections.tov_ns)
            lines.names.append(line.name)
            lines.lines.append([*ends[0], *ends[1]])
            for total, labels, of_labels in (
                (lines.ins, lines.in_labels, crossings.ins),
                (lines.outs, lines.out_labels, crossings.outs),
            ):
                total.append(sum(of_labels.values()))
                labels.append(dict(of_labels))
            lines.went_in.append(sorted(went[0]))
            lines.went_out.append(sorted(went[1]))
        lines.width, lines.height = detections.width, detections.height
        lines.frame_id, lines.frame_cycle = detections.frame_id, detections.frame_cycle
        lines.publish(tov_ns=detections.tov_ns)

    def _side(
        self,
        walks: dict[int, _Walk],
        track: int,
        place: Point,
        line: tuple[Point, Point],
        tracks: DetectionsMsg,
    ) -> int:
        """To which side the track has now crossed the line: 1 in, -1 out, 0 to none."""
        size = tracks.width or 1, tracks.height or 1
        side = _side_of(place, *line)
        walk = walks.get(track)
        if walk is None:
            if side:
                walks[track] = _Walk(side, place[0] / size[0], place[1] / size[1], tracks.tov_ns)
            return 0
        walk.seen_ns = tracks.tov_ns
        if not side:
            return 0
        if side != walk.side:
            if not walk.beyond:
                walk.through = crosses((walk.x * size[0], walk.y * size[1]), place, *line)
            walk.beyond += 1
            if walk.beyond < self.config.minimum_crossing_threshold:
                return 0
        has_crossed = side != walk.side and walk.through
        walk.side, walk.x, walk.y = side, place[0] / size[0], place[1] / size[1]
        walk.beyond = 0
        return side if has_crossed else 0

    def _forget(self, walks: dict[int, _Walk], now_ns: int) -> None:
        lost_ns = self.config.lost_s * _NS_PER_S
        for track in [track for track, it in walks.items() if abs(now_ns - it.seen_ns) > lost_ns]:
            del walks[track]

    def freeze(self) -> Any:
        return [
            [it.ins, it.outs, [[k, *astuple(walk)] for k, walk in it.walks.items()]]
            for it in self._crossings
        ]

    def thaw(self, state: Any) -> None:
        self._crossings = [
            _Crossings(dict(ins), dict(outs), {k: _Walk(*values) for k, *values in walks})
            for ins, outs, walks in state
        ]


def contains(polygon: Sequence[Point], place: Point) -> bool:
    """Whether a point is in a polygon, or on its border."""
    x, y = place
    is_in = False
    for (x1, y1), (x2, y2) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        turn = (x2 - x1) * (y - y1) - (y2 - y1) * (x - x1)
        if turn == 0 and min(x1, x2) <= x <= max(x1, x2) and min(y1, y2) <= y <= max(y1, y2):
            return True
        if (y1 > y) != (y2 > y) and (turn > 0) == (y2 > y1):
            is_in = not is_in
    return is_in


def crosses(a: Point, b: Point, start: Point, end: Point) -> bool:
    """Whether the way from `a` to `b` meets the line from `start` to `end`, its ends included."""
    sides = _side_of(a, start, end), _side_of(b, start, end)
    others = _side_of(start, a, b), _side_of(end, a, b)
    if sides[0] != sides[1] and others[0] != others[1]:
        return True
    return any(
        side == 0
        and all(min(p, q) <= it <= max(p, q) for it, p, q in zip(point, *ends, strict=True))
        for side, point, ends in (
            (sides[0], a, (start, end)),
            (sides[1], b, (start, end)),
            (others[0], start, (a, b)),
            (others[1], end, (a, b)),
        )
    )


def _side_of(place: Point, start: Point, end: Point) -> int:
    """Where a point is for one who walks from `start` to `end` in a picture: 1 to the right, -1 to the
    left, 0 on the line."""
    turn = (end[0] - start[0]) * (place[1] - start[1]) - (end[1] - start[1]) * (place[0] - start[0])
    return (turn > 0) - (turn < 0)


def _next_to(side: int, sides: int) -> tuple[int, int, int]:
    """A side of a polygon and those that begin or end with it."""
    return side, (side - 1) % sides, (side + 1) % sides


def _area(polygon: Sequence[Point]) -> float:
    """Twice the area; negative if its corners go round the other way."""
    pairs = zip(polygon, [*polygon[1:], polygon[0]], strict=True)
    return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in pairs)


def _places(detections: DetectionsMsg, anchor: _Anchor) -> list[Point]:
    """Where the objects are, in pixels."""
    across, down = _ANCHORS[anchor]
    return [
        (left + (right - left) * across, top + (bottom - top) * down)
        for left, top, right, bottom in detections.boxes.tolist()
    ]


def _untracked(
    need: str, inputs: Mapping[str, type[Message]], key: str
) -> Iterator[tuple[str, str]]:
    if not issubclass(inputs.get("detections", TracksMsg), TracksMsg):
        yield (
            key,
            f"{need}: connect its input to a Track task, or to another whose output is declared as "
            "TracksMsg",
        )
