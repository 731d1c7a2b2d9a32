"""Every graph that ships is right, and those without a model run and replay."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import plan_graph
from flowrun.runtime.graph.read import load_graph, parse_graph
from flowrun.tasks.video.capture import VideoCapture
from support.paths import ROOT

GRAPHS = sorted((ROOT / "graphs").glob("*.yaml"))
FLOWRUN = Path(sys.executable).parent / "flowrun"


def flowrun(*words: str | Path, cwd: Path) -> str:
    """What the command prints; it must succeed."""
    done = subprocess.run(
        [FLOWRUN, *words], cwd=cwd, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_there_are_graphs() -> None:
    assert {
        *("inference.yaml", "minimal.yaml", "caterpillar.yaml", "detect.yaml"),
        *("camera.yaml", "two-cameras.yaml"),
    } <= {p.name for p in GRAPHS}


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.name)
def test_graph_loads_binds_and_plans(path: Path) -> None:
    plan = plan_graph(bind(load_graph(path, env={})))
    assert len(plan.steps) == len(plan.graph.spec.tasks)
    assert plan.source_count >= 1


def test_inference_graph_is_the_one_of_the_readme() -> None:
    plan = plan_graph(bind(load_graph(ROOT / "graphs" / "inference.yaml", env={})))
    assert {step.task.id: step.task.spec.type for step in plan.steps} == {
        "cam0": "VideoCapture",
        "inference": "Inference",
        "bcast_text": "BroadcastChat",
        "bcast_image": "BroadcastImage",
    }


@pytest.mark.parametrize(
    ("source", "keys"),
    [
        ("webcam", "width height fps fourcc decode policy max_fps reconnect"),
        ("test", "width height fps decode policy max_fps"),
        ("rtsp://camera/1", "transport decode policy max_fps reconnect"),
        ("media/shapes.mp4", "decode policy max_fps"),
    ],
)
def test_camera_graph_offers_keys_that_fit_the_source(
    source: str, keys: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        VideoCapture, "check", classmethod(lambda *_: ())
    )  # this machine may have no webcam
    path = ROOT / "graphs" / "camera.yaml"
    text = path.read_text()
    for key in keys.split():
        text, count = re.subn(rf"^(      )#   ({key}: )", r"\1\2", text, flags=re.MULTILINE)
        assert count == 1, key
    bound = bind(parse_graph(text, path=path, env={"CAMERA": source}))
    assert set(keys.split()) <= bound.tasks[0].config.model_fields_set


@pytest.mark.slow
def test_camera_graph_runs_without_a_camera(tmp_path: Path) -> None:
    graph = ROOT / "graphs" / "camera.yaml"
    out = flowrun(graph, "--plain", "--port", "0", "--cycles", "5", cwd=tmp_path)
    assert "camera: 5 cycles in " in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "cycles", "compared"),
    [("minimal", 5, 5), ("caterpillar", 500, 4000)],
)
def test_run_replays_identical(name: str, cycles: int, compared: int, tmp_path: Path) -> None:
    graph = ROOT / "graphs" / f"{name}.yaml"
    out = flowrun(graph, "--plain", "--cycles", str(cycles), cwd=tmp_path)
    assert f"{name}: {cycles:,} cycles in " in out
    [run] = (tmp_path / "runs").glob("[!.]*")
    out = flowrun("replay", run, cwd=tmp_path)
    assert f"{compared:,} messages identical" in out
