"""What is installed is what is in the tree, with the packages that it needs, and no others."""

import ast
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import distribution, packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flowrun.runtime.extras import DISTRIBUTION
from support.paths import ROOT, TESTS

FOLDERS = ("msgs", "runtime", "tasks")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_links_lead_to_the_folders() -> None:
    links = ROOT / ".src" / "flowrun"
    found = [link for link in links.iterdir() if link.name != "__pycache__"]
    assert {link.name: link.resolve() for link in found} == {
        **{folder: ROOT / folder for folder in (*FOLDERS, "graphs")},
        "__init__.py": ROOT / "runtime" / "front.py",
        "__main__.py": ROOT / "runtime" / "cli" / "__main__.py",
        "py.typed": ROOT / "runtime" / "py.typed",
    }


def test_torch_is_pinned_by_the_constraints() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all("==" in pin for pin in pins)
    assert any(pin.startswith("torch==") for pin in pins)


def test_command_is_installed() -> None:
    [command] = distribution(DISTRIBUTION).entry_points.select(group="console_scripts")
    assert command.value == "flowrun.runtime.cli:main"
    assert callable(command.load())


def test_tasks_are_offered_by_the_installation() -> None:
    offered = distribution(DISTRIBUTION).entry_points.select(group="flowrun.tasks")
    assert {it.name: it.value for it in offered} == PROJECT["entry-points"]["flowrun.tasks"]
    for point in offered:
        point.load()


@pytest.mark.slow
def test_wheel_holds_everything(tmp_path: Path) -> None:
    copy = tmp_path / "project"
    for folder in (*FOLDERS, "graphs"):
        ignored = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    shutil.copytree(ROOT / ".src" / "flowrun", copy / ".src" / "flowrun", symlinks=True)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    done = subprocess.run(
        [sys.executable, "-c", "from setuptools.build_meta import build_wheel as b; b('dist')"],
        cwd=copy,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    [wheel] = (copy / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tree = {
        f"flowrun/{path.relative_to(copy).as_posix()}"
        for folder in (*FOLDERS, "graphs")
        for path in (copy / folder).rglob("*")
        if path.is_file() and "training" not in path.parts and path.suffix not in (".c", ".so")
    }
    tree |= {"flowrun/__init__.py", "flowrun/__main__.py", "flowrun/py.typed"}
    kernels = {name for name in names if name.endswith(".so")}
    assert {name for name in names if name.startswith("flowrun/")} - kernels == tree
    if shutil.which(sysconfig.get_config_var("CC").split()[0]) is not None:
        assert [Path(name).name.split(".")[0] for name in kernels] == ["_kernel"]
    assert {f"flowrun/{folder}/py.typed" for folder in FOLDERS} <= names
    assert "flowrun/runtime/server/page/index.html" in names
    assert "flowrun/runtime/server/page/live/cameras.js" in names
    assert "flowrun/runtime/server/page/vendor/preact.js" in names
    assert "flowrun/tasks/embedded/model/model.safetensors" in names
    assert "flowrun/tasks/embedded/model/config.json" in names


# -- dependencies ------------------------------------------------------------------------------


def declared(extra: str | None = None) -> set[str]:
    """The packages that pyproject.toml names for `extra`, or for all; without what those need."""
    extras: dict[str, list[str]] = PROJECT["optional-dependencies"]
    found: set[str] = set()
    for text in PROJECT["dependencies"] if extra is None else extras[extra]:
        wanted = Requirement(text)
        if wanted.name == DISTRIBUTION:
            found = found.union(*map(declared, wanted.extras))
        else:
            found.add(canonicalize_name(wanted.name))
    return found


def imports(paths: Iterable[Path]) -> dict[str, str]:
    """Module -> a place where a file of `paths` imports it, without Python's own and our own. What
    `pytest.importorskip` asks for may be missing, and what follows it."""
    found: dict[str, str] = {}
    own = {"flowrun", "support", "golden_tasks"}
    for path in paths:
        tree = ast.parse(path.read_text())
        skipped = set(re.findall(r"importorskip\(\s*[\"'](\w+)", path.read_text()))
        for node in ast.walk(tree):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in {name.partition(".")[0] for name in names}:
                if name not in own | skipped | sys.stdlib_module_names:
                    found.setdefault(name, f"{path.relative_to(ROOT)}:{node.lineno}")
    return found


def undeclared(found: dict[str, str], packages: set[str]) -> dict[str, str]:
    """Those of `found` that none of `packages` brings itself."""
    provided = packages_distributions()
    return {
        module: place
        for module, place in found.items()
        if not {canonicalize_name(name) for name in provided.get(module, ())} & packages
    }


def test_dev_extra_holds_all_that_the_tests_import() -> None:
    found = imports(TESTS.rglob("*.py"))
    del found["atheris"]  # of the extra fuzz, for `make fuzz FUZZ_ARGS=--coverage`
    del found["cosmic_ray"]  # of the extra mutation, for `make mutation`
    assert {"pytest", "hypothesis", "mcap", "torch"} <= found.keys()
    assert undeclared(found, declared() | declared("dev")) == {}


def test_dev_extra_holds_the_programs_that_make_calls() -> None:
    programs = set(re.findall(r"\$\(BIN\)/([\w-]+)", (ROOT / "Makefile").read_text()))
    programs = programs - {"python", "flowrun"} | {"basedpyright"}  # that of test_editors.py
    assert {"ruff", "mypy", "lint-imports"} <= programs
    offered = {
        script.name
        for name in declared("dev")
        for script in distribution(name).entry_points.select(group="console_scripts")
    }
    files = {path.name for name in declared("dev") for path in distribution(name).files or ()}
    assert programs <= offered | files


def test_dependencies_hold_all_that_the_code_imports() -> None:
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    left_out = {"training", "pytest_plugin.py"}  # not in the wheel; loaded by pytest alone
    found = imports(path for path in files if left_out.isdisjoint(path.parts))
    assert {"numpy", "torch", "huggingface_hub"} <= found.keys()
    assert undeclared(found, declared() | declared("models")) == {}
    of_models = undeclared(found, declared())
    assert all(place.startswith("tasks/") for place in of_models.values()), of_models


def test_all_extra_holds_every_extra_of_users() -> None:
    ours = {"all", "bench", "dev", "docs", "fuzz", "mutation"}
    ours.add("ray")  # 700 MB, for those who have a cluster
    extras = set(PROJECT["optional-dependencies"]) - ours
    assert declared("all") == set().union(*map(declared, extras))


def with_their_own(names: Iterable[str]) -> set[str]:
    """The installed packages `names`, and all that those need to run here."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = canonicalize_name(left.pop())
        if name in found:
            continue
        found.add(name)
        wanted = map(Requirement, distribution(name).requires or ())
        left += [it.name for it in wanted if it.marker is None or it.marker.evaluate({"extra": ""})]
    return found


def top_level(names: Iterable[str]) -> Iterator[Path]:
    """What the installed packages `names` have put into site-packages."""
    for name in names:
        installed = distribution(name)
        tops = {path.parts[0] for path in installed.files or ()} - {"..", "__pycache__"}
        yield from (Path(str(installed.locate_file(top))) for top in sorted(tops))


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with what `pip install flowrun-runtime` brings, and nothing else:
    made of links to what is installed here, so that it needs no internet."""
    folder = tmp_path_factory.mktemp("core")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    for path in top_level(with_their_own(declared())):
        (site / path.name).symlink_to(path)
    (site / "flowrun.pth").write_text(f"{ROOT / '.src'}\n")
    [metadata] = {path for path in top_level([DISTRIBUTION]) if path.suffix == ".dist-info"}
    (site / metadata.name).symlink_to(metadata)
    return folder / "bin" / "python"


def flowrun(core: Path, folder: Path, *command: str) -> tuple[int, str]:
    """The exit status, and what was said on stderr."""
    done = subprocess.run(
        [core, "-m", "flowrun.runtime.cli", *command],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


NO_MODELS = "needs torch and transformers: pip install 'flowrun-runtime[models]'\n"


@pytest.mark.slow
def test_core_install_records_and_replays(core: Path, tmp_path: Path) -> None:
    graph = str(ROOT / "graphs" / "minimal.yaml")
    assert flowrun(core, tmp_path, "--version") == (0, "")
    assert flowrun(core, tmp_path, graph, "--plain", "--log-dir", "run")[0] == 0
    [run] = (tmp_path / "run").glob("[!.]*")
    assert flowrun(core, tmp_path, "replay", str(run)) == (0, "")
    assert flowrun(core, tmp_path, "log", "export", str(run), "-o", "run.jsonl") == (0, "")


@pytest.mark.slow
def test_core_install_imports_every_task(core: Path, tmp_path: Path) -> None:
    modules = {path.partition(":")[0] for path in PROJECT["entry-points"]["flowrun.tasks"].values()}
    code = f"for name in {sorted(modules)}: __import__(name)"
    subprocess.run([core, "-c", code], cwd=tmp_path, check=True)


@pytest.mark.slow
def test_core_install_plays_a_video_and_asks_a_server(core: Path, tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(
        f"tasks:\n"
        f"  - id: cam0\n"
        f"    type: VideoCapture\n"
        f"    config: {{source_uri: {ROOT / 'graphs' / 'media' / 'shapes.mp4'}}}\n"
        f"  - id: inference\n"
        f"    type: Inference\n"
        f"    on_error: skip\n"
        f"    config:\n"
        f"      backend: openai\n"
        f"      backends:\n"
        f"        openai: {{base_url: 'http://127.0.0.1:9/v1', retries: 0, start_timeout_s: 0}}\n"
        f"cnx:\n"
        f"  - {{src: cam0, dst: inference, msg: ImageRgb8Msg}}\n"
    )
    assert flowrun(core, tmp_path, "check", "g.yaml") == (0, "")
    status, said = flowrun(core, tmp_path, "g.yaml", "--plain", "--cycles", "3")
    assert status == 1
    assert "http://127.0.0.1:9/v1: no answer" in said
    assert "torch" not in said


@pytest.mark.slow
def test_graph_that_needs_models_says_so_at_its_line(core: Path, tmp_path: Path) -> None:
    graph = ROOT / "graphs" / "inference.yaml"
    lines = graph.read_text().splitlines()
    [line] = [number for number, text in enumerate(lines, 1) if "backend: embedded" in text]
    column = lines[line - 1].index("backend") + 1
    said = f"{graph}:{line}:{column}: backend 'embedded' {NO_MODELS}"
    assert flowrun(core, tmp_path, "check", str(graph)) == (2, said)
    assert flowrun(core, tmp_path, str(graph), "--plain") == (2, said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_detector_that_needs_models_says_so_at_its_line(core: Path, tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(
        "tasks:\n"
        "  - {id: detect, type: Detect, config: {model: PekingU/rtdetr_r18vd}}\n"
        "  - {id: cam0, type: VideoCapture, config: {source_uri: /dev/video0}}\n"
        "cnx:\n"
        "  - {src: cam0, dst: detect, msg: ImageRgb8Msg}\n"
    )
    status, said = flowrun(core, tmp_path, "check", "g.yaml")
    assert status == 2
    assert f"g.yaml:2:41: Detect {NO_MODELS}" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "what"),
    [
        (["ask", "embedded", str(ROOT / "graphs/media/shapes.jpg")], "asking a model"),
        (["models"], "listing the models of the hub's cache"),
    ],
)
def test_verb_that_needs_models_says_so(
    core: Path, tmp_path: Path, command: list[str], what: str
) -> None:
    assert flowrun(core, tmp_path, *command) == (1, f"{what} {NO_MODELS}")


@pytest.mark.long
@pytest.mark.slow
def test_replay_that_needs_models_says_so(core: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flowrun.runtime.cli", str(ROOT / "graphs" / "inference.yaml")]
    options = ["--plain", "--port", "0", "--cycles", "3", "--log-dir", "runs"]
    subprocess.run([*command, *options], cwd=tmp_path, check=True, capture_output=True)
    [run] = (tmp_path / "runs").glob("[!.]*")
    said = f"a model in this process {NO_MODELS}"
    assert flowrun(core, tmp_path, "replay", str(run)) == (1, said)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "package", "extra"),
    [
        ("foxglove", "mcap", "viewers"),
        ("mcap", "mcap", "viewers"),
        ("rerun", "rerun-sdk", "rerun"),
        ("parquet", "pyarrow", "tables"),
    ],
)
def test_export_that_needs_an_extra_says_so(
    core: Path, tmp_path: Path, kind: str, package: str, extra: str
) -> None:
    run = str(ROOT / "tests" / "golden" / "run")
    assert flowrun(core, tmp_path, "log", "export", run, "--to", kind) == (
        2,
        f"an export to {kind} needs {package}: pip install 'flowrun-runtime[{extra}]'\n",
    )
    assert package in {canonicalize_name(name) for name in declared(extra)}
    assert list(tmp_path.iterdir()) == []
