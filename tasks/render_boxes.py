"""`RenderBoxes`: detections, tracks, zones and lines drawn on the picture."""

from __future__ import annotations

import functools
from collections import Counter, deque
from typing import Any, Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt, field_validator

from flowrun.msgs.detections import DetectionsMsg
from flowrun.msgs.image import ImageRgb8Msg
from flowrun.msgs.message import Message
from flowrun.msgs.regions import LinesMsg, ZonesMsg
from flowrun.runtime.task import Context, Input, Live, Output, Task, TaskConfig
from flowrun.tasks.drawing import (
    DEFAULT_LABEL,
    LabelFormat,
    Style,
    color_of,
    draw_boxes,
    draw_regions,
    draw_texts,
    draw_trails,
)

__all__ = ["RenderBoxes"]

_NS_PER_S = 1_000_000_000
_FRAMES = 30
"""Pictures whose times give the rate that `statistics` shows."""
_MOST_POINTS = 500
"""Of a trail."""
_LATE_NS = 60 * _NS_PER_S
"""A picture that is older has not just been taken: it is of a film."""


class RenderBoxes(Task):
    """Draw the newest detections on each picture, and the newest counts of zones and lines.

    A detector that runs in the background is late, and slower than the camera: a picture gets the
    newest detections that have come, as long as they are about a frame at most `max_age_s` away from
    it. What is drawn follows from the inputs and the cycles' times alone, and so is the same in a
    replay. Boxes are scaled where the detector saw the picture in another size. A picture on which
    there is nothing to draw is passed on as it is.
    """

    class Config(TaskConfig):
        max_age_s: Live[PositiveFloat | None] = 2.0
        """How old detections may be, against the picture; null draws them until others come."""
        line_px: PositiveInt | None = None
        """Width of the lines; if not given, by the picture's size: 3 at 640x480, 8 at 1080p."""
        text_px: PositiveInt | None = None
        """Height of the letters; if not given, five times the lines' width, and at least 11."""
        labels: bool = True
        """Write a label at each box."""
        label: Live[str] = DEFAULT_LABEL
        """What the label says, as Python formats it: {class}, {confidence}, {tracker_id}, {class_id}. A
        word whose value is missing is left out, such as the number of what is not tracked."""
        color_by: Live[Literal["class", "track"]] = "class"
        """Whether each class has a colour of its own, or each track."""
        trail_s: Live[NonNegativeFloat] = 0.0
        """For how many seconds the way of a track is drawn; 0: not at all."""
        statistics: Live[bool] = False
        """Write into a corner: pictures a second, how late they are, how old the detections are, and how
        many objects there are of each class."""

        @field_validator("label")
        @classmethod
        def _check_label(cls, text: str) -> str:
            LabelFormat(text)
            return text

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._newest: dict[str, Message] = {}
        """By input, the newest message."""
        self._trails: dict[int, deque[tuple[int, float, float]]] = {}
        """By track: when it was where, in fractions of the picture."""
        self._colors: dict[int, tuple[int, int, int]] = {}
        self._times: deque[int] = deque(maxlen=_FRAMES)

    def process(
        self,
        ctx: Context,
        image: Input[ImageRgb8Msg] | None,
        detections: Input[DetectionsMsg] | None,
        zones: Input[ZonesMsg] | None,
        lines: Input[LinesMsg] | None,
        rendered: Output[ImageRgb8Msg],
    ) -> None:
        for name, message in (("detections", detections), ("zones", zones), ("lines", lines)):
            if message is not None:
                self._newest[name] = message.copy()
        if detections is not None:
            self._follow(detections)
        if image is None:
            return
        if self.config.statistics:
            self._times.append(image.tov_ns)
        self._draw(ctx, image, rendered)
        rendered.describe_as(image)
        rendered.publish(tov_ns=image.tov_ns)

    def _draw(self, ctx: Context, image: ImageRgb8Msg, rendered: ImageRgb8Msg) -> None:
        config = self.config
        shown = {
            name: message
            for name, message in self._newest.items()
            if not self._is_too_old(message, image)
        }
        found = shown.get("detections")
        boxes = found if isinstance(found, DetectionsMsg) and found.count else None
        regions = [it for it in shown.values() if isinstance(it, (ZonesMsg, LinesMsg))]
        trails = self._shown_trails(image)
        if boxes is None and not regions and not trails and not config.statistics:
            rendered.fill(image)
            return
        pixels = rendered.allocate_pixels(image.height, image.width)
        pixels[...] = image.pixels
        style = Style.for_picture(
            pixels,
            config.line_px,
            text_px=config.text_px,
            label=_label_format(config.label) if config.labels else None,
            color_by=config.color_by,
        )
        for region in regions:
            draw_regions(pixels, region, style)
        draw_trails(pixels, trails, style)
        if boxes is not None:
            draw_boxes(pixels, boxes, style)
        if config.statistics:
            draw_texts(pixels, self._statistics(ctx, image, found), style)

    def _is_too_old(self, message: Message, image: ImageRgb8Msg) -> bool:
        """Also where they are too new, as when a source has started again."""
        limit = self.config.max_age_s
        return limit is not None and abs(image.tov_ns - message.tov_ns) > limit * _NS_PER_S

    def _follow(self, found: DetectionsMsg) -> None:
        """Note where the tracks are, and forget what is too long ago to be drawn."""
        begin_ns = found.tov_ns - self.config.trail_s * _NS_PER_S
        size = max(found.width, 1), max(found.height, 1)
        for k, track in enumerate(found.tracker_ids.tolist() if self.config.trail_s else ()):
            if track >= 0:
                left, _, right, bottom = found.boxes[k].tolist()
                trail = self._trails.setdefault(track, deque(maxlen=_MOST_POINTS))
                trail.append((found.tov_ns, (left + right) / 2 / size[0], bottom / size[1]))
                self._colors[track] = color_of(found.labels[k], int(found.class_ids[k]))
        for track, trail in list(self._trails.items()):
            while trail and not begin_ns <= trail[0][0] <= found.tov_ns:
                trail.popleft()
            if not trail:
                del self._trails[track], self._colors[track]

    def _shown_trails(self, image: ImageRgb8Msg) -> list[Any]:
        begin_ns = image.tov_ns - self.config.trail_s * _NS_PER_S
        shown = []
        for track, trail in self._trails.items():
            points = [(x, y) for at_ns, x, y in trail if begin_ns <= at_ns <= image.tov_ns]
            if len(points) > 1:
                shown.append((track, self._colors[track], points))
        return shown

    def _statistics(self, ctx: Context, image: ImageRgb8Msg, found: Message | None) -> list[str]:
        passed_ns = self._times[-1] - self._times[0]
        lines = []
        if passed_ns > 0:
            lines.append(f"{(len(self._times) - 1) * _NS_PER_S / passed_ns:.1f} fps")
        late_ns = ctx.now_ns - image.tov_ns
        if 0 <= late_ns < _LATE_NS:
            lines.append(f"{late_ns / 1e6:.0f} ms late")
        if isinstance(found, DetectionsMsg):
            age_ns = image.tov_ns - found.tov_ns
            lines += [f"boxes {age_ns / 1e6:.0f} ms old"] if age_ns else []
            counts = sorted(Counter(found.labels).items())
            lines += [f"{label or 'object'} {count}" for label, count in counts]
        return lines

    def freeze(self) -> Any:
        return {
            "newest": {
                name: [it.tov_ns, b"".join(bytes(part) for part in it.encode())]
                for name, it in self._newest.items()
            },
            "trails": [
                [track, self._colors[track], list(trail)] for track, trail in self._trails.items()
            ],
            "times": list(self._times),
        }

    def thaw(self, state: Any) -> None:
        self._newest = {}
        for name, (tov_ns, data) in state["newest"].items():
            message = _KINDS[name]()
            message.load(data)
            message.publish(tov_ns=tov_ns)
            self._newest[name] = message
        self._trails, self._colors = {}, {}
        for track, (red, green, blue), points in state["trails"]:
            self._colors[track] = red, green, blue
            self._trails[track] = deque(map(tuple, points), maxlen=_MOST_POINTS)
        self._times = deque(state["times"], maxlen=_FRAMES)


_label_format = functools.lru_cache(maxsize=16)(LabelFormat)

_KINDS: dict[str, type[Message]] = {
    "detections": DetectionsMsg,
    "zones": ZonesMsg,
    "lines": LinesMsg,
}
