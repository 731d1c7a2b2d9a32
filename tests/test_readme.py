"""What the README and the pages of docs/ say is true: their commands run, their files work, their
outputs are what comes."""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flowrun.runtime.cli import main
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.log.reader import Log
from flowrun.runtime.testing import assert_replays
from flowrun.tasks.video.capture import VideoCapture
from support.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
QUICKSTART = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
REPLAY = (ROOT / "docs" / "replay.md").read_text(encoding="utf-8")
INSTALL = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
HTTP = (ROOT / "docs" / "http-api.md").read_text(encoding="utf-8")
TUTORIAL = (ROOT / "docs" / "debugging.md").read_text(encoding="utf-8")
CAMERAS = (ROOT / "docs" / "cameras.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
REFERENCE = "".join(
    (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("graph.md", "task-config.md")
)
BIN = Path(sys.executable).parent
# As a terminal has it: `make test` hands its own options down to every make that a test calls.
ENV = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
ENV |= {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def section(title: str, text: str = README) -> str:
    return text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def steps(text: str) -> list[tuple[str, list[str]]]:
    """Every command of the console blocks in `text`, with the lines shown below it."""
    found: list[tuple[str, list[str]]] = []
    for block in blocks("console", text):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def shell(command: str, folder: Path, *, status: int = 0) -> str:
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=ENV,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,  # a busy machine takes its time
    )
    assert done.returncode == status, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def typed(command: str, folder: Path, *, status: int = 0) -> str:
    """What a command of flowrun prints in `folder`, done in this process; others are left to a shell."""
    program, *words = shlex.split(command)
    if program != "flowrun":
        return shell(command, folder, status=status)
    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        words = [str(next(Path().glob(it))) if it.endswith("*") else it for it in words]
        assert main(words) == status, f"{command}\n{printed.getvalue()}"
    return printed.getvalue()


def assert_shown(lines: list[str], output: str) -> None:
    """Every line of the README is in `output`; run names and times may differ, "…" is any text."""
    for line in lines:
        pattern = re.escape(line).replace("…", ".*")
        pattern = re.sub(r"\d{8}T\d{6}Z", r"\\d{8}T\\d{6}Z", pattern)
        pattern = re.sub(r"in\\ \d+\\\.\d\\ s", r"in\\ [\\d.]+\\ s", pattern)
        assert re.search(f"^{pattern}$", output, re.MULTILINE), f"not printed: {line}\n{output}"


@pytest.fixture(scope="module")
def smooth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the first task and graph of docs/quickstart.md, and the run that it records."""
    folder = tmp_path_factory.mktemp("readme")
    text = section("A task", QUICKSTART)
    (folder / "smooth.py").write_text(blocks("python", text)[1])
    (folder / "smooth.yaml").write_text(blocks("yaml", text)[0])
    for command, lines in steps(text):
        assert_shown(lines, typed(command, folder))
    return folder


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[str]:
    """The address of a run of the demo's graph."""
    command = [BIN / "flowrun", "graphs/inference.yaml", "--plain", "--port", "0"]
    with subprocess.Popen(
        [*command, "--log-dir", tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as run:
        try:
            assert run.stdout is not None
            [url] = [
                found[1]
                for found in (
                    re.search(r"page and API at (http://127\.0\.0\.1:\d+)/", run.stdout.readline())
                    for _ in range(2)
                )
                if found
            ]
            while "(cap en," not in run.stdout.readline():  # the first answer
                assert run.poll() is None
            yield url
        finally:
            run.terminate()
            run.communicate()


@pytest.mark.parametrize(
    ("page", "tested"),
    [
        (README, ("Run it", "Your camera", "Have it again")),
        (QUICKSTART, ("A task", "Models and boxes")),
        (HTTP, ("With curl",)),
    ],
    ids=["README.md", "quickstart.md", "http-api.md"],
)
def test_every_command_is_run_by_a_test(page: str, tested: tuple[str, ...]) -> None:
    assert steps(page) == [step for title in tested for step in steps(section(title, page))]


def test_the_readme_is_read_in_two_minutes() -> None:
    assert len(README.splitlines()) <= 200
    assert len(blocks("python")) == 3
    assert len(blocks("yaml")) == 1


def test_commands_to_install_are_targets_of_make() -> None:
    (install, _), (demonstrate, _) = steps(section("Run it"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert install == f"pip install '{project['name']}[models]'"
    assert "models" in project["optional-dependencies"]
    assert demonstrate == "flowrun demo"
    demo = shell("make -n demo", ROOT).splitlines()
    assert demo[-1] == ".venv/bin/flowrun graphs/inference.yaml"
    commands = shell("make -n test", ROOT)
    assert ".venv/bin/python -m pytest " in commands
    assert not re.search(r"apt-get|sudo|build_llama", commands)


def test_each_extra_says_what_it_is_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ours = {"bench", "dev", "docs", "fuzz", "mutation"}  # what works on flowrun itself
    listed = re.findall(r"'flowrun-runtime\[(\w+)\]'` \|$", INSTALL, re.MULTILINE)
    assert sorted(listed) == sorted(project["optional-dependencies"].keys() - ours)


@pytest.mark.long
@pytest.mark.slow
def test_command_of_make_demo_runs(tmp_path: Path) -> None:
    command = shell("make -n demo", ROOT).splitlines()[-1].removeprefix(".venv/bin/")
    out = shell(f"{command} --cycles 5 --plain --port 0 --log-dir {tmp_path}", ROOT)
    assert "page and API at http://127.0.0.1:" in out
    assert "inference: 5 cycles in " in out


@pytest.mark.long
@pytest.mark.slow
def test_your_camera_is_had_again_as_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for command, lines in steps(section("Your camera")) + steps(section("Have it again")):
        program, *words = shlex.split(command)
        if program == "cd":
            monkeypatch.chdir(words[0])
            continue
        if program == "sed":
            shell(command, Path())
            continue
        words = [str(next(Path().glob(word))) if "*" in word else word for word in words]
        if words[0] == "init":
            words[-1] = "test"
        if words[0] == "yard.yaml":
            words += ["--cycles", "30", "--plain", "--port", "-1"]
        differs = words[0] == "replay" and "60 messages identical (brightness 60)" not in lines
        assert main(words) == (1 if differs else 0), command
        assert_shown(lines, capsys.readouterr().out)
    assert "is_dark" in Path("changed.html").read_text(encoding="utf-8")

    [run] = Path("runs").glob("yard-*")
    test = blocks("python", section("Have it again"))[0]
    named: dict[str, Any] = {}
    exec(re.sub(r"yard-\d{8}T\d{6}Z", run.name, test), named)
    with pytest.raises(AssertionError, match="30 of 60 messages differ"):
        named["test_that_night"](assert_replays)


def test_the_task_joins_the_graph_of_your_camera(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "yard", "--camera", "test"]) == 0
    monkeypatch.chdir("yard")
    text = section("A task")
    Path("contrast.py").write_text(blocks("python", text)[0])
    graph, more = yaml.safe_load(Path("yard.yaml").read_text()), blocks("yaml", text)[0]
    for key, items in yaml.safe_load(more).items():
        graph[key] += items
    Path("yard.yaml").write_text(yaml.safe_dump(graph))
    assert main(["yard.yaml", "--cycles", "3", "--plain", "--port", "-1"]) == 0
    [run] = Path("runs").glob("yard-*")
    with Log(run) as log:
        assert len(list(log.messages("/contrast/out"))) == 3


def test_graph_is_the_one_that_ships() -> None:
    shown = yaml.safe_load(blocks("yaml", section("A graph", QUICKSTART))[0])
    assert shown == yaml.safe_load((ROOT / "graphs" / "inference.yaml").read_text())


@pytest.mark.slow
def test_task_runs_and_replays_as_shown(smooth: Path) -> None:
    done = []
    for command, lines in steps(REPLAY):
        done.append(command)
        differs = any("messages differ" in line for line in lines)
        assert_shown(lines, typed(command, smooth, status=1 if differs else 0))
    assert any(command.startswith("sed") for command in done)


@pytest.mark.slow
def test_the_task_and_the_written_one_pass_their_tests(tmp_path: Path) -> None:
    text = section("A task", QUICKSTART)
    _, task, test = blocks("python", text)
    (tmp_path / "smooth.py").write_text(task)
    (tmp_path / "test_smooth.py").write_text(test)
    [written] = [command for command, _ in steps(text) if "new-task" in command]
    typed(written, tmp_path)
    out = shell("python -m pytest -q -p no:cacheprovider", tmp_path)
    assert re.match(r"\.{2}\s", out), out


def test_the_function_that_is_a_task_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = section("A task", QUICKSTART)
    Path("doubles.py").write_text(blocks("python", text)[0])
    entry = re.findall(r"`(\{id: double.*?\}\})`", text)
    graph = f"tasks: [{{id: n, type: Counter, config: {{limit: 2}}}}, {entry[0]}]\n"
    Path("g.yaml").write_text(f"{graph}cnx: [{{src: n, dst: double, msg: IntMsg}}]\n")
    assert main(["g.yaml", "--plain"]) == 0
    [run] = Path("runs").glob("g-*")
    assert main(["log", "cat", str(run)]) == 0
    assert "/double/out value=3\n" in capsys.readouterr().out


@pytest.mark.real  # it needs curl
@pytest.mark.slow
def test_http_commands_answer_as_shown(demo: str, tmp_path: Path) -> None:
    with urllib.request.urlopen(f"{demo}/") as reply:
        listed = reply.read().decode()
    switches = [step for step in steps(CAMERAS) if step[0].startswith("curl ")]
    assert len(switches) == 3
    for command, lines in switches + steps(section("With curl", HTTP)):
        path = re.search(r"http://127\.0\.0\.1:3000(/\S*)", command)
        assert path is not None
        assert path[1] in listed
        out = shell(f"{command.replace('http://127.0.0.1:3000', demo)} -sSf", tmp_path)
        assert_shown(lines, out)
    assert (tmp_path / "frame.jpg").read_bytes().startswith(b"\xff\xd8")


@pytest.mark.long
@pytest.mark.slow
def test_models_answer_and_find_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "graphs").symlink_to(ROOT / "graphs")
    monkeypatch.setitem(ENV, "HF_HUB_CACHE", str(tmp_path / "hub"))
    *commands, (run, _) = steps(section("Models and boxes", QUICKSTART))
    for command, lines in commands:
        assert_shown(lines, shell(command, tmp_path))
    assert (tmp_path / "boxes.jpg").read_bytes().startswith(b"\xff\xd8")
    assert "detect: 5 cycles in " in shell(f"{run} --cycles 5 --plain --port 0", tmp_path)


@pytest.mark.long
@pytest.mark.slow
def test_the_tutorial_goes_as_it_says(tmp_path: Path) -> None:
    motion, test, freeze = blocks("python", TUTORIAL)
    (tmp_path / "motion.py").write_text(motion)
    (tmp_path / "test_motion.py").write_text(test)
    (tmp_path / "motion.yaml").write_text(blocks("yaml", TUTORIAL)[0])
    shutil.copy(ROOT / "graphs" / "media" / "shapes.mp4", tmp_path)
    for command, lines in steps(TUTORIAL):
        if command.startswith("rm -r long"):
            with (tmp_path / "motion.py").open("a") as file:
                file.write(freeze.partition("    ...\n")[2])
        compares = command.startswith(("flowrun replay", "python -m pytest"))
        differs = compares and any(
            "messages differ" in line or "forgets something" in line for line in lines
        )
        assert_shown(lines, shell(command, tmp_path, status=1 if differs else 0))


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_models_and_prompts_are_compared_as_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "evaluate.md").read_text(encoding="utf-8")
    monkeypatch.setitem(ENV, "XDG_CACHE_HOME", str(tmp_path / "cache"))
    [graph], [rounded] = blocks("yaml", text), blocks("python", text)
    (tmp_path / "shapes.yaml").write_text(graph)
    (tmp_path / "rounded.py").write_text(rounded)
    shutil.copy(ROOT / "graphs" / "media" / "shapes.mp4", tmp_path)
    for command, lines in steps(text):
        assert_shown(lines, shell(command, tmp_path))
    assert "./rounded" in (tmp_path / "models.html").read_text()


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_moments_are_found_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENV, "XDG_CACHE_HOME", str(tmp_path / "cache"))
    [graph] = blocks("yaml", (ROOT / "docs" / "evaluate.md").read_text(encoding="utf-8"))
    (tmp_path / "shapes.yaml").write_text(graph)
    shutil.copy(ROOT / "graphs" / "media" / "shapes.mp4", tmp_path)
    for command, lines in steps((ROOT / "docs" / "search.md").read_text(encoding="utf-8")):
        assert_shown(lines, shell(command, tmp_path))
    assert "data:image/jpeg" in (tmp_path / "found.html").read_text()


def test_backends_are_configured_as_shown() -> None:
    shown = blocks("yaml", (ROOT / "docs" / "backends.md").read_text(encoding="utf-8"))
    assert len(shown) == 9
    path = ROOT / "graphs" / "inference.yaml"
    graphs = [said for text in shown if "tasks" in (said := yaml.safe_load(text))]
    assert len(graphs) == 1
    for graph in graphs:
        bind(parse_graph(yaml.safe_dump(graph), path=path, env={}))
    for config in shown:
        if (said := yaml.safe_load(config)) in graphs:
            continue
        graph = yaml.safe_load(path.read_text())
        [task] = [task for task in graph["tasks"] if task["id"] == "inference"]
        said = said[0] if isinstance(said, list) else said  # a task of a graph, or its config
        task["config"] = said.get("config", said)
        bound = bind(parse_graph(yaml.safe_dump(graph), path=path, env={}))
        assert bound.tasks[1].config.model_dump(exclude_unset=True, by_alias=True)


def listed(said: object) -> list[object]:
    return said if isinstance(said, list) else [said]


@pytest.mark.parametrize("config", blocks("yaml", CAMERAS))
def test_cameras_are_configured_as_shown(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        VideoCapture, "check", classmethod(lambda *_: ())
    )  # this machine may have no webcam
    (tmp_path / "street.mp4").symlink_to(ROOT / "graphs" / "media" / "shapes.mp4")
    graph = yaml.safe_load((ROOT / "graphs" / "camera.yaml").read_text())
    graph["tasks"][0]["config"] = yaml.safe_load(config)
    bound = bind(
        parse_graph(
            yaml.safe_dump(graph),
            path=tmp_path / "camera.yaml",
            env={"CAM_USER": "viewer", "CAM_PASSWORD": "p%23ss", "CAM_TOKEN": "sesame"},
        )
    )
    said = yaml.safe_load(config)
    items = said.pop("sources", None) or [{} for _ in listed(said.get("source_uri"))]
    cameras = [it.config for it in bound.tasks if it.task_class is VideoCapture]
    assert len(cameras) == len(items)
    for camera, item in zip(cameras, items, strict=True):
        keys = said.keys() | item.keys() - {"id"}
        assert camera.model_dump(exclude_unset=True).keys() == keys


def test_keys_of_a_graph_that_are_named_for_cameras_exist() -> None:
    keys = set(re.findall(r"^(?:\||##) `(\w+)`", REFERENCE, re.MULTILINE))
    prose = re.sub(r"^```.*?^```$", "", CAMERAS, flags=re.DOTALL | re.MULTILINE)
    quoted = " ".join(re.findall(r"`([^`]+)`", prose))
    quoted = re.sub(r"options: \{.*?\}", "options: {}", quoted)  # those are FFmpeg's
    named = re.findall(r"\b(\w+): ", quoted)
    assert named
    assert set(named) - keys == set()


@pytest.mark.long
@pytest.mark.slow
def test_camera_commands_do_as_shown(tmp_path: Path) -> None:
    (tmp_path / "graphs").symlink_to(ROOT / "graphs")
    endless = []
    for command, lines in steps(CAMERAS):
        if command.startswith("curl "):
            continue
        if command.startswith("flowrun graphs/"):
            endless.append(command.removeprefix("flowrun "))
        else:
            options = " --plain --port 0" if "CAMERA=" in command else ""
            assert_shown(lines, shell(command + options, tmp_path))
    assert endless == ["graphs/camera.yaml", "graphs/two-cameras.yaml"]


@pytest.mark.slow
def test_a_camera_is_paused_by_python_as_shown(tmp_path: Path) -> None:
    (tmp_path / "graphs").symlink_to(ROOT / "graphs")
    [script] = blocks("python", CAMERAS)
    (tmp_path / "gate.py").write_text(script)
    assert_shown(["paused"], shell("python gate.py", tmp_path))
    with Log(tmp_path / "runs" / "gate") as log:
        events = [message.fields for message in log.messages("/flowrun/control")]
    switched = [event["key"] for event in events if event["kind"] == "switched"]
    assert switched == ["paused", "running"]


@pytest.mark.long
@pytest.mark.slow
def test_two_cameras_run(tmp_path: Path) -> None:
    graph = ROOT / "graphs" / "two-cameras.yaml"
    out = shell(f"flowrun {graph} --cycles 20 --plain --port 0", tmp_path)
    assert "two-cameras: 20 cycles in " in out


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(ROOT / "docs").glob("*.md")], ids=str
)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("page", ["README.md", *(ROOT / "docs").glob("*.md")], ids=str)
def test_links_within_a_page_lead_to_a_title(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) - anchors == set()


def test_contributors_find_what_is_named() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", text)) - targets == set()
    for place in re.findall(r"`((?:tests|runtime)/[\w/.]+)`", text):
        assert "NAME" in place or (ROOT / place).exists(), place


def test_architecture_names_modules_that_exist() -> None:
    rows = re.findall(r"^\|[^|]+\| (`runtime/[^|]+)\|", ARCHITECTURE, re.MULTILINE)
    assert rows
    for row in rows:
        folder = Path()
        for place in re.findall(r"`([^`]+)`", row):
            folder = Path(place).parent if "/" in place else folder
            assert (ROOT / folder / Path(place).name).exists(), place


@pytest.mark.parametrize(
    "package",
    [
        path.parent
        for top in ("msgs", "runtime", "tasks")
        for path in sorted((ROOT / top).rglob("__init__.py"))
        if "\n| `" in path.read_text(encoding="utf-8")
    ],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_a_packages_table_names_each_of_its_modules(package: Path) -> None:
    table = re.findall(r"^\| (`.+?) +\|", (package / "__init__.py").read_text(), re.MULTILINE)
    named = {name for row in table for name in re.findall(r"`([^`]+)`", row)}
    assert [name for name in named if not (package / name).exists()] == []
    assert {path.name for path in package.glob("[!_]*.py")} - named == set()


def test_pictures_are_small() -> None:
    assert (ROOT / "docs" / "page.png").stat().st_size < 300_000
    assert (ROOT / "docs" / "story.webp").stat().st_size < 2_000_000
