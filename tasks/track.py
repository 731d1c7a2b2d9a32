"""`Track`: ByteTrack follows objects from picture to picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from flowrun.msgs.detections import DetectionsMsg, TracksMsg
from flowrun.runtime.extras import import_optional, missing
from flowrun.runtime.task import Context, Input, Live, Output, Task, TaskConfig

__all__ = ["Track"]

_NS_PER_S = 1_000_000_000
_FRAMES_PER_S = 30
"""Of the film in whose frames `lost_track_buffer` counts."""
_LEAST_STEP_S = 1e-6
"""What passes, for the tracker, between two messages whose times do not say that any time passes."""

_Fraction = Annotated[float, Field(ge=0, le=1)]


class Track(Task):
    """Give each object a number that it keeps from picture to picture.

    The numbers (`tracker_ids`) count from 1 in each run, for each task. The tracker is ByteTrack, of
    the `trackers` package: it says where an object that it knows should be by now, and takes the box
    that overlaps it most, a sure one before one that is less so. It goes by the times of the pictures,
    so that their rate may change, and cycles without detections are time that passes. Objects without
    scores count as sure. All objects are passed on, in their order; one that is not followed (yet), or
    whose box has no area, has the number -1. A camera that changes its size keeps its tracks.

    Needs the extra `track`.
    """

    class Config(TaskConfig):
        track_activation_threshold: Live[_Fraction] = 0.25
        """Objects with at least this score are sure: they begin tracks. Others only continue some."""
        lost_track_buffer: NonNegativeInt = 30
        """How long an object that is not found is waited for, in frames of a film of 30 a second,
        as its users write it: 30 is a second, at any rate of the camera."""
        lost_track_buffer_s: NonNegativeFloat | None = None
        """The same in seconds; takes the place of `lost_track_buffer`."""
        minimum_matching_threshold: Live[Annotated[float, Field(gt=0, le=1)]] = 0.2
        """How much a box and where its object should be overlap at least: intersection over union."""
        minimum_consecutive_frames: Live[PositiveInt] = 2
        """In how many messages one after another an object must be found to get a number: with 1, what
        a detector sees by mistake in one picture has one too."""
        frame_rate: PositiveFloat = 30.0
        """Messages a second for which the motion model is tuned: the usual rate of the detections."""
        only_tracked: Live[bool] = False
        """Leave out objects without a number."""
        class_aware: bool = False
        """Continue a track with objects of its own label alone: a number never goes from a dog to the
        cat that passes it. An object to which the detector gives one label and then another, such as
        car and truck, gets two numbers then."""

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._begin_ns: int | None = None
        """The time from which trackers count seconds."""
        self._last_s: float | None = None
        self._size = (0, 0)
        self._next_id = 0
        self._trackers: dict[str, Any] = {}
        """By label where tracks go by it, in the order of their first objects; otherwise one, of ""."""

    @classmethod
    def check(cls, _config: TaskConfig, _graph_dir: Path) -> Iterator[tuple[str, str]]:
        text = missing("Track", ["trackers"], extra="track")
        if text is not None:
            yield "", text

    def start(self, ctx: Context) -> None:
        del ctx
        import_optional("trackers", "Track", extra="track")
        if not self.config.class_aware:
            self._trackers[""] = self._new_tracker()

    def _new_tracker(self) -> Any:
        config = self.config
        lost_s = config.lost_track_buffer_s
        made = import_optional("trackers", "Track", extra="track").ByteTrackTracker(
            lost_track_buffer=(
                config.lost_track_buffer if lost_s is None else lost_s * _FRAMES_PER_S
            ),
            frame_rate=config.frame_rate,
        )
        self._follow_config(made)
        return made

    def configure(self, ctx: Context, changed: frozenset[str]) -> None:
        del ctx, changed
        for tracker in self._trackers.values():
            self._follow_config(tracker)

    def _follow_config(self, tracker: Any) -> None:
        config = self.config
        tracker.track_activation_threshold = config.track_activation_threshold
        tracker.high_conf_det_threshold = config.track_activation_threshold
        tracker.minimum_iou_threshold = config.minimum_matching_threshold
        tracker.minimum_consecutive_frames = config.minimum_consecutive_frames

    def process(
        self, ctx: Context, detections: Input[DetectionsMsg], tracks: Output[TracksMsg]
    ) -> None:
        del ctx
        self._follow_size(detections.width, detections.height)
        ids = self._ids(detections)
        kept = ids >= 0 if self.config.only_tracked else np.ones(len(ids), bool)
        tracks.boxes, tracks.scores = detections.boxes[kept], detections.scores[kept]
        tracks.labels = [label for label, keep in zip(detections.labels, kept, strict=True) if keep]
        tracks.class_ids, tracks.tracker_ids = detections.class_ids[kept], ids[kept]
        tracks.width, tracks.height = detections.width, detections.height
        tracks.frame_id, tracks.frame_cycle = detections.frame_id, detections.frame_cycle
        tracks.latency_ms = detections.latency_ms
        tracks.publish(tov_ns=detections.tov_ns)

    def _ids(self, detections: DetectionsMsg) -> NDArray[np.int64]:
        boxes = detections.boxes.astype(np.float64)
        [rows] = np.nonzero((boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3]))
        rows_of: dict[str, list[int]] = {label: [] for label in self._trackers}
        for row in rows.tolist():
            label = detections.labels[row] if self.config.class_aware else ""
            rows_of.setdefault(label, []).append(row)
        scores = np.nan_to_num(detections.scores, nan=1.0)
        now_s = self._next_s(detections.tov_ns)
        ids = np.full(detections.count, -1, np.int64)
        for label, its in rows_of.items():
            of_label = np.array(its, np.int64)
            found = _found(boxes[of_label], scores[of_label], of_label)
            if label not in self._trackers:
                self._trackers[label] = self._new_tracker()
            self._number(ids, self._trackers[label], found, now_s)
            if self.config.class_aware and not self._trackers[label].tracks:
                del self._trackers[label]
        return ids

    def _number(self, ids: NDArray[np.int64], tracker: Any, found: Any, now_s: float) -> None:
        """Set the numbers in `ids` of what was `found`, as `tracker` knows it."""
        tracker._next_track_id = self._next_id  # noqa: SLF001
        made = tracker.update(found, timestamp=now_s)
        if not len(made):
            self._next_id = tracker._next_track_id  # noqa: SLF001
            return
        numbers = np.array(made.tracker_id, np.int64)
        begun = [track for track in tracker.tracks if track.age == 0]
        if begun and self.config.minimum_consecutive_frames == 1:
            # The library gives numbers from the second message on. The objects that begin tracks are
            # the last ones, in the order of these.
            for track in begun:
                track.tracker_id = tracker._allocate_tracker_id()  # noqa: SLF001
            numbers[-len(begun) :] = [track.tracker_id for track in begun]
        self._next_id = tracker._next_track_id  # noqa: SLF001
        ids[made.data[_ROW]] = np.where(numbers >= 0, numbers + 1, -1)

    def _next_s(self, tov_ns: int) -> float:
        """The trackers' time; it goes forward, whatever the messages say."""
        if self._begin_ns is None:
            self._begin_ns = tov_ns
        seconds = (tov_ns - self._begin_ns) / _NS_PER_S
        if self._last_s is not None and seconds <= self._last_s:
            # A source that has begun again: what follows is counted from there.
            seconds = self._last_s + _LEAST_STEP_S
            self._begin_ns = tov_ns - round(seconds * _NS_PER_S)
        self._last_s = seconds
        return seconds

    def _follow_size(self, width: int, height: int) -> None:
        """Move the tracks to where they are in a picture of another size."""
        before, self._size = self._size, (width, height)
        if before == self._size or not (all(before) and width > 0 and height > 0):
            return
        by = np.tile([width / before[0], height / before[1]], 4)
        for track in (it for tracker in self._trackers.values() for it in tracker.tracks):
            kalman = track.state_estimator.kf
            kalman.state = kalman.state * by[:, None]
            kalman.state_covariance = kalman.state_covariance * np.outer(by, by)

    def freeze(self) -> Any:
        return {
            "begin_ns": self._begin_ns,
            "time_s": self._last_s,
            "size": self._size,
            "next_id": self._next_id,
            "trackers": {label: _frozen(it) for label, it in self._trackers.items()},
        }

    def thaw(self, state: Any) -> None:
        self._begin_ns, self._last_s = state["begin_ns"], state["time_s"]
        width, height = state["size"]
        self._size = (width, height)
        self._next_id = state["next_id"]
        self._trackers = {label: self._new_tracker() for label in state["trackers"]}
        for label, tracker in self._trackers.items():
            _thaw(tracker, state["trackers"][label], self._last_s)


_ROW = "row"
_OF_TRACK = (
    "tracker_id",
    "age",
    "time_since_update",
    "time_since_update_seconds",
    "number_of_successful_consecutive_updates",
)
"""What a track of the library remembers besides its Kalman filter's state: the other matrices of the
filter follow from the time that passes."""


def _new_track() -> Any:
    module = import_optional("trackers.core.bytetrack.tracklet", "Track", extra="track")
    return module.ByteTrackTracklet(np.zeros(4))


def _frozen(tracker: Any) -> dict[str, Any]:
    tracks = tracker.tracks
    filters = [it.state_estimator.kf for it in tracks]
    return {
        "states": np.array([it.state for it in filters]).reshape(-1, 8, 1),
        "covariances": np.array([it.state_covariance for it in filters]).reshape(-1, 8, 8),
        "tracks": [[getattr(it, name) for name in _OF_TRACK] for it in tracks],
    }


def _thaw(tracker: Any, state: dict[str, Any], time_s: float | None) -> None:
    tracker._last_timestamp = time_s  # noqa: SLF001
    tracker.tracks = []
    for kalman, covariance, values in zip(
        state["states"], state["covariances"], state["tracks"], strict=True
    ):
        track = _new_track()
        track.state_estimator.kf.state = kalman.copy()
        track.state_estimator.kf.state_covariance = covariance.copy()
        for name, value in zip(_OF_TRACK, values, strict=True):
            setattr(track, name, value)
        tracker.tracks.append(track)


def _found(boxes: NDArray[Any], scores: NDArray[Any], rows: NDArray[Any]) -> Any:
    supervision = import_optional("supervision", "Track", extra="track")
    return supervision.Detections(xyxy=boxes, confidence=scores, data={_ROW: rows})
