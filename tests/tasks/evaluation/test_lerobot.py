"""Recorded runs as episodes of LeRobot: what is in the files, read by pyarrow, pandas and PyAV."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from zlib_ng.zlib_ng import crc32

from flowrun.runtime.cli import main
from flowrun.runtime.errors import UsageError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.pictures.stored import StoredPicture
from flowrun.runtime.recorded.labels import Label
from flowrun.tasks.evaluation.episode_stats import joined, stats_of
from flowrun.tasks.evaluation.lerobot import write_episodes
from support.helpers import plan_of, record, values
from support.paths import MEDIA

pandas = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

CYCLES = 12
GRAPH = """
tasks:
  - {id: cam, type: VideoCapture, config: {source_uri: FILM, realtime: false}}
  - {id: says, type: support.dataset_tasks.Says, every: 3}
cnx:
  - {src: cam, dst: says, msg: ImageRgb8Msg}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    """Two runs of a film, whose packets are in the log."""
    folder = tmp_path_factory.mktemp("lerobot")
    (folder / "film.yaml").write_text(GRAPH.replace("FILM", str(MEDIA / "shapes.mp4")))
    words = ["run", str(folder / "film.yaml"), "--port", "-1", "--plain"]
    for name, cycles in (("a", CYCLES), ("b", 7)):
        more = ["--cycles", str(cycles), "--log-dir", str(folder / name)]
        assert main([*words, *more]) == 0
    return [next(it for it in (folder / name).iterdir() if it.is_dir()) for name in ("a", "b")]


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def info(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "meta" / "info.json").read_text())
    return found


def table(folder: Path, name: str = "data") -> Any:
    return pandas.read_parquet(folder / name / "chunk-000" / "file-000.parquet")


def shown(path: Path) -> list[tuple[float, Any]]:
    """Time and pixels of each picture of a film."""
    with av.open(str(path)) as film:
        return [(float(it.time), it.to_ndarray(format="rgb24")) for it in film.decode(video=0)]


def films(folder: Path) -> list[Path]:
    return sorted((folder / "videos").rglob("*.mp4"))


def test_the_films_show_the_pixels_of_the_log_at_an_even_rate(runs, folder):
    written = write_episodes(runs, folder, labels={})
    assert (written.episodes, written.pictures, written.answers) == (2, CYCLES + 7, 4 + 3)
    assert written.notes == []
    said = info(folder)
    assert (said["codebase_version"], said["fps"], said["total_frames"]) == ("v3.0", 10, CYCLES + 7)
    feature = said["features"]["observation.images.cam"]
    assert (feature["dtype"], feature["shape"]) == ("video", [480, 640, 3])
    paths = films(folder)
    assert [str(it.relative_to(folder)) for it in paths] == [
        said["video_path"].format(video_key="observation.images.cam", chunk_index=0, file_index=at)
        for at in range(2)
    ]
    for run, path in zip(runs, paths, strict=True):
        with Log(run) as log, av.open(str(path)) as film:
            for number, (frame, there) in enumerate(
                zip(film.decode(video=0), log.messages("/cam/image"), strict=True)
            ):
                assert frame.time == pytest.approx(number / 10, abs=1e-5)
                own = StoredPicture.parse(there.payload).own
                assert own["planes"]  # of which the log has the checksum: RGB is made of them
                assert crc32(b"".join(map(bytes, frame.planes))) == own["crc"]


def test_rows_have_times_prompts_and_what_is_right(runs, folder):
    labels = {
        runs[0]: [
            Label(3, "says", "wrong", "frame three", "", 0, 0),
            Label(6, "says", "right", "", "", 0, 0),
        ]
    }
    write_episodes(runs, folder, labels=labels)
    rows = table(folder)
    assert list(rows["frame_index"]) == [*range(CYCLES), *range(7)]
    assert list(rows["index"]) == list(range(CYCLES + 7))
    assert list(rows["episode_index"]) == [0] * CYCLES + [1] * 7
    assert np.allclose(rows["timestamp"], rows["frame_index"] / 10)
    assert rows["timestamp"].dtype == np.float32
    assert list(rows["recorded.cycle"][:3]) == [0, 1, 2]
    with Log(runs[0]) as log:
        times = [it.tov_ns for it in log.messages("/cam/image")]
    assert list(rows["recorded.time_ns"][:CYCLES]) == times
    assert [it for it in rows["answer.says"][:CYCLES] if it] == [
        "frame 0", "frame three", "frame 6", "frame 9"
    ]  # fmt: skip
    assert [rows["label.says"][at] for at in (0, 3, 6)] == ["", "wrong", "right"]
    tasks = pandas.read_parquet(folder / "meta" / "tasks.parquet")
    assert list(tasks.index) == ["which?"]
    assert set(rows["task_index"]) == {0}
    episodes = table(folder, "meta/episodes")
    assert list(episodes["length"]) == [CYCLES, 7]
    assert list(episodes["dataset_from_index"]) == [0, CYCLES]
    assert list(episodes["dataset_to_index"]) == [CYCLES, CYCLES + 7]
    assert list(episodes["videos/observation.images.cam/file_index"]) == [0, 1]
    assert list(episodes["videos/observation.images.cam/to_timestamp"]) == [1.2, 0.7]
    assert [list(it) for it in episodes["tasks"]] == [["which?"], ["which?"]]


def test_statistics_are_those_of_the_pixels(runs, folder):
    write_episodes(runs[:1], folder, labels={})
    stats = json.loads((folder / "meta" / "stats.json").read_text())
    with Log(runs[0]) as log:
        pixels = np.stack([it.pixels[::4, ::4] for it in log.frames("/cam/image")]) / 255
    colors = stats["observation.images.cam"]
    assert np.allclose(np.ravel(colors["mean"]), pixels.mean(axis=(0, 1, 2)))
    assert np.allclose(np.ravel(colors["std"]), pixels.std(axis=(0, 1, 2)))
    assert np.shape(colors["max"]) == (3, 1, 1)
    assert stats["frame_index"] == {
        "min": [0], "max": [11], "mean": [5.5], "std": [pytest.approx(np.arange(12).std())],
        "count": [12],
    }  # fmt: skip


def test_statistics_of_parts_are_those_of_the_whole():
    values = np.random.default_rng(3).normal(size=30)
    whole, parts = stats_of(values), joined([stats_of(values[:4]), stats_of(values[4:])])
    for name, value in whole.items():
        assert np.allclose(value, parts[name]), name


def test_numbers_are_columns_and_pictures_without_packets_are_encoded(folder, tmp_path):
    plan = plan_of(
        tmp_path,
        "c=pictures.Camera(width: 32, height: 24, limit: 6); n=Numbers(limit: 6); s=Scale",
        "n > s",
    )
    record(plan, tmp_path / "run")
    written = write_episodes([tmp_path / "run"], folder, labels={})
    assert written.notes == [
        f"{tmp_path}/run: /c/image is encoded again, so that its pixels are near those that the tasks "
        "saw: the log has no packets of it"
    ]
    rows = table(folder)
    numbers = [name for name in rows if name.startswith("observation.")]
    assert sorted(numbers) == ["observation.n.number", "observation.s.scaled"]
    assert all(rows[name].dtype == np.float32 for name in numbers)
    assert [value for _, value in values(tmp_path / "run", "/n/number")] == list(
        rows["observation.n.number"]
    )
    [path] = films(folder)
    with Log(tmp_path / "run") as log:
        pixels = [it.pixels for it in log.frames("/c/image")]
    for (time, made), seen in zip(shown(path), pixels, strict=True):
        assert np.abs(made.astype(int) - seen).mean() < 12, time
    assert info(folder)["fps"] == 30


def test_what_is_no_data_set_is_said(runs, folder, tmp_path):
    with pytest.raises(
        UsageError, match=r"no camera 'cma'; there are: cam \(did you mean 'cam'\?\)"
    ):
        write_episodes(runs, folder, labels={}, cameras=["cma"])
    plan = plan_of(tmp_path, "cam=pictures.Camera(width: 32, height: 24)")
    record(plan, tmp_path / "run")
    with pytest.raises(UsageError) as caught:
        write_episodes([runs[0], tmp_path / "run"], folder, labels={})
    assert str(caught.value) == (
        f"{tmp_path}/run has cam (32x24), but {runs[0]} has cam (640x480): a data set has the same "
        "cameras in each episode; choose with --camera, or write two"
    )


def test_pictures_that_no_film_can_hold_are_named(folder, tmp_path):
    plan = plan_of(tmp_path, "cam=pictures.Camera(width: 1, height: 7, limit: 2)")
    record(plan, tmp_path / "run")
    with pytest.raises(UsageError) as caught:
        write_episodes([tmp_path / "run"], folder, labels={})
    assert str(caught.value) == (
        f"{tmp_path}/run: /cam/image: a picture of 1x7 is too small for H.264; choose with --camera"
    )


def test_the_command_writes_all_or_nothing(runs, tmp_path, capsys):
    out = tmp_path / "set"
    words = ["dataset", *map(str, runs), "--to", "lerobot", "-o", str(out)]
    assert main([*words, "--camera", "nobody"]) != 0
    assert not list(tmp_path.iterdir())
    capsys.readouterr()
    assert main(words) == 0
    assert capsys.readouterr().out == f"{out}: 2 episodes, 19 pictures, 7 answers\n"
    assert main(words) != 0
    assert f"{out} is there already; name a new folder" in capsys.readouterr().err
    shutil.rmtree(out)
    assert main([*words, "--only", "wrong"]) != 0
    assert "--only is not for lerobot: a film has all its pictures" in capsys.readouterr().err
