"""Recorded runs as a data set of LeRobot, version 3.0 of its format: one episode a run.

The format knows one rate: picture number n is shown at n / fps seconds, whenever it was taken. When that
was is in the column `recorded.time_ns`.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowrun.runtime.errors import LogError, UsageError
from flowrun.runtime.export.film import Film, at_rate, film_of, write_film
from flowrun.runtime.export.film_writer import even, set_up_encoder
from flowrun.runtime.export.selection import Selection
from flowrun.runtime.extras import import_optional
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import CODEC
from flowrun.runtime.pictures.convert import UPRIGHT
from flowrun.runtime.pictures.encode import CRF, yuv_frame
from flowrun.runtime.recorded.labels import Label
from flowrun.tasks.evaluation.chosen import truth_of
from flowrun.tasks.evaluation.episode_stats import color_stats, joined, stats_of
from flowrun.tasks.evaluation.episodes import (
    Episode,
    check_alike,
    last_values,
    read_episode,
    uneven,
)
from flowrun.tasks.evaluation.recorded import ANSWER, read_runs

__all__ = ["Episodes", "write_episodes"]

_CHUNK = 1000
"""Files in a folder, as LeRobot has it."""
_KEY_FRAMES = {"g": "2", "bf": "0", "preset": "veryfast"}
"""Of what is encoded: LeRobot jumps to any picture, so few must be decoded for each."""

Table = dict[str, Any]


@dataclass(slots=True)
class Episodes:
    """What was written: numbers of episodes, of pictures a camera, and of answers; notes, a sentence
    each."""

    episodes: int
    pictures: int
    answers: int
    notes: list[str]


def write_episodes(
    paths: Sequence[Path],
    folder: Path,
    *,
    labels: Mapping[Path, Sequence[Label]],
    tasks: Sequence[str] = (),
    cameras: Sequence[str] = (),
    progress: Callable[[float], None] | None = None,
) -> Episodes:
    """Write the data set into `folder`, which is there and empty. Nothing that the runs name is
    executed.

    labels: of each run. What they say is right stands in place of what was answered.
    tasks: whose answers; all that answer about pictures if there are none.
    cameras: those whose pictures are taken; all if there are none.
    progress: called with the part of all that is done.

    A camera's packets are copied where they make a film by themselves, so that decoding it gives the
    pixels that the tasks saw; all else is encoded as H.264, and a note says so.

    A run that cannot be read, that has none of `tasks`, or no cycle with a picture of each camera, is
    left out, and named in the notes; `LogError` or `UsageError` where none is left. `UsageError` where
    the runs have other cameras than each other, and without pyarrow and pandas.
    """
    arrow = import_optional("pyarrow", "--to lerobot", extra="tables")
    pandas = import_optional("pandas", "--to lerobot", extra="tables")
    runs, left_out = read_runs(paths, tasks=tasks)
    episodes: list[Episode] = []
    first: LogError | UsageError | None = None
    for run in runs:
        try:
            episodes.append(read_episode(run, cameras))
        except (LogError, UsageError) as error:
            first = first or error
            left_out.append(f"left out: {error}")
    if first is not None and not episodes:
        raise first
    check_alike(episodes)
    fps = max(1, round(1e9 / statistics.median(it.gap_ns for it in episodes)))
    written = Episodes(len(episodes), sum(len(it.rows) for it in episodes), 0, left_out)
    written.notes += [note for it in episodes if (note := uneven(it, fps))]
    writer = _Writer(folder, fps, episodes, written, arrow)
    for number, episode in enumerate(episodes):
        writer.add(number, episode, labels.get(episode.run.path, ()))
        if progress is not None:
            progress((number + 1) / len(episodes))
    writer.finish(pandas)
    return written


class _Writer:
    """Writes one episode after the other."""

    def __init__(
        self,
        folder: Path,
        fps: int,
        episodes: Sequence[Episode],
        written: Episodes,
        arrow: Any,
    ) -> None:
        self._folder = folder
        self._fps = fps
        self._written = written
        self._arrow = arrow
        self._tasks: dict[str, int] = {}
        self._tables: list[Table] = []
        self._about: list[dict[str, Any]] = []
        self._sizes = dict(episodes[0].sizes)
        self._info: dict[str, dict[str, Any]] = {}
        self._answering = list(
            dict.fromkeys(
                asking.name
                for it in episodes
                for asking in it.run.askings
                if asking.kind == ANSWER and asking.topic in it.topics.values()
            )
        )
        self._numbers = list(dict.fromkeys(name for it in episodes for name in it.numbers))
        self._count = 0
        if any(asking.kind != ANSWER for it in episodes for asking in it.run.askings):
            written.notes.append(
                "boxes are not in it, for which LeRobot has no place; see --to coco"
            )

    def add(self, number: int, episode: Episode, labels: Sequence[Label]) -> None:
        """Write the films of an episode, and take its rows."""
        cycles = [cycle for cycle, _ in episode.rows]
        count = len(cycles)
        prompts, columns = self._answers(episode, cycles, labels)
        tasks = [self._tasks.setdefault(prompt, len(self._tasks)) for prompt in prompts]
        at = np.arange(count)
        table: Table = {
            "timestamp": (at / self._fps).astype(np.float32),
            "frame_index": at,
            "episode_index": np.full(count, number),
            "index": at + self._count,
            "task_index": np.array(tasks),
            "recorded.cycle": np.array(cycles),
            "recorded.time_ns": np.array([tov_ns for _, tov_ns in episode.rows]),
            **columns,
        }
        for name in self._numbers:
            table[f"observation.{name}"] = last_values(episode.numbers.get(name, ()), cycles)
        self._tables.append(table)
        about: dict[str, Any] = {
            "episode_index": number,
            "tasks": list(dict.fromkeys(prompts)),
            "length": count,
            "data/chunk_index": 0,
            "data/file_index": 0,
            "dataset_from_index": self._count,
            "dataset_to_index": self._count + count,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
        }
        stats = {
            name: stats_of(values) for name, values in table.items() if values.dtype.kind != "O"
        }
        with Log(episode.run.path) as log:
            for camera, topic in episode.topics.items():
                key = f"observation.images.{camera}"
                chunk, file = divmod(number, _CHUNK)
                path = self._folder / f"videos/{key}/chunk-{chunk:03}/file-{file:03}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                self._write_film(log, episode, topic, path)
                self._info.setdefault(key, _video_info(path, self._fps))
                stats[key] = color_stats(log, topic, cycles)
                about |= {
                    f"videos/{key}/chunk_index": chunk,
                    f"videos/{key}/file_index": file,
                    f"videos/{key}/from_timestamp": 0.0,
                    f"videos/{key}/to_timestamp": count / self._fps,
                }
        about |= {
            f"stats/{name}/{kind}": value.tolist()
            for name, its in stats.items()
            for kind, value in its.items()
        }
        self._about.append(about)
        self._count += count

    def _answers(
        self, episode: Episode, cycles: Sequence[int], labels: Sequence[Label]
    ) -> tuple[list[str], Table]:
        """What was asked of each row, and the columns of what was answered about it."""
        place = {cycle: at for at, cycle in enumerate(cycles)}
        by_task = {(it.cycle, it.task): it for it in labels}
        prompts: list[str | None] = [None] * len(cycles)
        columns: Table = {}
        for name in self._answering:
            columns[f"answer.{name}"] = np.full(len(cycles), "", object)
            columns[f"label.{name}"] = np.full(len(cycles), "", object)
        for asked in episode.run.asked:
            at, name = place.get(asked.picture.cycle), asked.asking.name
            if at is None or asked.asking.kind != ANSWER or f"answer.{name}" not in columns:
                continue
            label = by_task.get((asked.cycle, name)) or by_task.get(
                (asked.cycle, asked.asking.task)
            )
            truth = None if label is None else truth_of(asked, label)
            fields = asked.answer if truth is None or truth.is_wrong else truth.fields
            columns[f"answer.{name}"][at] = str(fields.get("response", ""))
            columns[f"label.{name}"][at] = "" if label is None else label.label
            prompts[at] = prompts[at] or str(asked.answer.get("prompt", "")) or None
            self._written.answers += 1
        first = next((it for it in prompts if it), episode.run.graph or "recorded")
        filled = []
        for prompt in prompts:
            first = prompt or first
            filled.append(first)
        return filled, columns

    def _write_film(self, log: Log, episode: Episode, topic: str, path: Path) -> None:
        film: Film | str = "the log has no packets of it"
        if log.topics[topic].metadata.get(CODEC) == "packets":
            film = film_of(log, Selection(), topic)
        why = film if isinstance(film, str) else ""
        if not isinstance(film, str):
            if film.pictures != len(episode.rows) or film.hidden:
                why = "some of its packets are of pictures that are not taken"
            elif film.decoder.orientation != UPRIGHT or film.pixel_aspect != 1:
                why = "players of LeRobot do not turn or widen pictures"
            else:
                try:
                    write_film(at_rate(film, Fraction(self._fps)), path)
                except ValueError as error:
                    why = str(error)
                else:
                    return
        self._written.notes.append(
            f"{episode.name}: {topic} is encoded again, so that its pixels are near those that the "
            f"tasks saw: {why}"
        )
        try:
            self._encode(log, topic, [cycle for cycle, _ in episode.rows], path)
        except ValueError as error:
            raise UsageError(f"{episode.name}: {topic}: {error}; choose with --camera") from None

    def _encode(self, log: Log, topic: str, cycles: Sequence[int], path: Path) -> None:
        import av

        wanted = set(cycles)
        base = Fraction(1, self._fps)
        with av.open(str(path), "w", format="mp4") as container:
            stream: Any = None
            number = 0
            for message in log.messages(topic, cycles[0], cycles[-1] + 1):
                if message.cycle not in wanted:
                    continue
                pixels = message.fields["pixels"]
                if stream is None:
                    stream = container.add_stream("libx264", rate=self._fps)
                    set_up_encoder(
                        stream.codec_context, pixels.shape[:2], base, crf=CRF, more=_KEY_FRAMES
                    )
                    stream.time_base = base
                frame = yuv_frame(even(pixels))
                frame.pts, frame.time_base = number, base
                container.mux(stream.encode(frame))
                number += 1
            container.mux(stream.encode())

    def finish(self, pandas: Any) -> None:
        """Write the rows and what is said of them."""
        arrow = self._arrow
        parquet = import_optional("pyarrow.parquet", "--to lerobot", extra="tables")

        names = list(self._tables[0])
        columns = {name: np.concatenate([it[name] for it in self._tables]) for name in names}
        data = self._folder / "data/chunk-000/file-000.parquet"
        episodes = self._folder / "meta/episodes/chunk-000/file-000.parquet"
        for path in (data, episodes):
            path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(arrow.table(columns), data)
        parquet.write_table(arrow.Table.from_pylist(self._about), episodes)
        tasks = pandas.DataFrame(
            {"task_index": list(self._tasks.values())}, index=list(self._tasks)
        )
        tasks.to_parquet(self._folder / "meta/tasks.parquet")
        features = {name: _feature(values) for name, values in columns.items()}
        for camera, (height, width) in self._sizes.items():
            key = f"observation.images.{camera}"
            features[key] = {
                "dtype": "video",
                "shape": [self._info[key]["video.height"], self._info[key]["video.width"], 3],
                "names": ["height", "width", "channels"],
                "info": self._info[key],
            }
            if (height % 2 or width % 2) and features[key]["shape"][:2] != [height, width]:
                self._written.notes.append(f"H.264 needs even sizes: {camera} is cut to them")
        _write_json(
            self._folder / "meta/info.json",
            {
                "codebase_version": "v3.0",
                "robot_type": None,
                "total_episodes": len(self._about),
                "total_frames": self._count,
                "total_tasks": len(self._tasks),
                "chunks_size": _CHUNK,
                "data_files_size_in_mb": 100,
                "video_files_size_in_mb": 200,
                "fps": self._fps,
                "splits": {"train": f"0:{len(self._about)}"},
                "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
                "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
                "features": features,
            },
        )
        _write_json(self._folder / "meta/stats.json", self._whole_stats(columns))

    def _whole_stats(self, columns: Table) -> dict[str, Any]:
        found = {
            name: {kind: value.tolist() for kind, value in stats_of(values).items()}
            for name, values in columns.items()
            if values.dtype.kind != "O"
        }
        for key in self._info:
            its = [
                {
                    kind: np.array(it[f"stats/{key}/{kind}"])
                    for kind in ("min", "max", "mean", "std", "count")
                }
                for it in self._about
            ]
            found[key] = {kind: value.tolist() for kind, value in joined(its).items()}
        return found


def _feature(values: NDArray[Any]) -> dict[str, Any]:
    dtype = "string" if values.dtype.kind == "O" else str(values.dtype)
    return {"dtype": dtype, "shape": [1], "names": None}


def _video_info(path: Path, fps: int) -> dict[str, Any]:
    import av

    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        return {
            "video.height": stream.height,
            "video.width": stream.width,
            "video.codec": stream.codec.canonical_name,
            "video.pix_fmt": stream.pix_fmt,
            "video.is_depth_map": False,
            "video.fps": fps,
            "video.channels": 3,
            "has_audio": False,
        }


def _write_json(path: Path, value: Any) -> None:
    try:
        text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
    except ValueError as error:
        raise LogError(f"{path.name}: {error}") from error
    path.write_text(f"{text}\n", encoding="utf-8")
