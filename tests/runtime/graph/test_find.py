"""Names in a graph file -> classes: what installed packages offer by a short name."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from flowrun.runtime.errors import UsageError
from flowrun.runtime.graph.find import (
    TaskTypes,
    find_task_class,
    importable,
    task_types,
    unused_modules,
)
from flowrun.tasks.basic import Counter

Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a package of which only its name and its task types are there."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(package: str, types: str) -> None:
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[flowrun.tasks]\n{types}\n")

    return install


def find(name: str, types: TaskTypes | None = None) -> type:
    return find_task_class(name, folder=Path(), types=task_types() if types is None else types)


def refusal(name: str, types: TaskTypes | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        find(name, types)
    return str(caught.value)


def test_a_package_offers_a_task_by_a_short_name(install: Install) -> None:
    install("plug", "Count = flowrun.tasks.basic:Counter")
    assert find("Count") is Counter


def test_a_name_that_two_packages_offer_is_refused_where_it_is_used(install: Install) -> None:
    install("plug", "Counter = plug.tasks:Counter")
    assert refusal("Counter") == (
        "task type 'Counter' is ambiguous: it is offered by flowrun-runtime "
        "(flowrun.tasks.basic.Counter) and by plug (plug.tasks.Counter); "
        "uninstall one of them, or write its dotted path"
    )
    assert find("flowrun.tasks.basic.Counter") is Counter
    assert find("Square").__name__ == "Square"


def test_two_packages_may_offer_the_same_class(install: Install) -> None:
    install("plug", "Counter = flowrun.tasks.basic:Counter")
    assert find("Counter") is Counter


def test_an_installation_without_any_task_of_its_own_is_too_old() -> None:
    said = (
        "unknown task type 'Counter': the installation of flowrun-runtime offers no task at all, "
        "so it is older than this code; install it again"
    )
    assert refusal("Counter", {}) == said
    other = EntryPoint("Other", "plug.tasks:Other", "flowrun.tasks")
    assert refusal("Counter", {"Other": (other,)}) == said


# -- modules next to the graph that have the name of an installed one --------------------------


HIDING = "raise RuntimeError('a module next to the graph hides an installed one')"


@pytest.fixture
def shadowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, a graph's: with files named like modules of Python and of packages."""
    for name in ("http", "random", "numpy", "threading"):
        (tmp_path / f"{name}.py").write_text(HIDING)
    (tmp_path / "queue").mkdir()
    (tmp_path / "queue" / "__init__.py").write_text(HIDING)
    (tmp_path / "own_helper.py").write_text("NAME = 'own'")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_graphs_folder_hides_no_installed_module(shadowed: Path) -> None:
    hint = "in the graph's folder is not used, since the installed module"
    assert refusal("http.T") == (
        f"module 'http' has no 'T'; http.py {hint} 'http' has its name; rename it"
    )
    assert refusal("queue.Queue") == (
        "'queue.Queue' is not a task but a class that does not derive from Task; "
        f"queue {hint} 'queue' has its name; rename it"
    )
    assert refusal("random.tasks.T") == (
        f"no module named 'random.tasks'; random.py {hint} 'random' has its name; rename it"
    )
    (shadowed / "own_wrong.py").write_text("from random import NAME")
    assert refusal("own_wrong.T").endswith(f"; random.py {hint} 'random' has its name; rename it")
    (shadowed / "own_late.py").write_text("import random\nrandom.NAME")
    assert refusal("own_late.T") == (
        "module 'own_late' cannot be imported: AttributeError: module 'random' has no attribute "
        f"'NAME' (at own_late.py:2: random.NAME); random.py {hint} 'random' has its name; rename it"
    )


def test_a_folder_named_as_an_installed_package_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed, graphs = tmp_path / "installed", tmp_path / "graphs"
    (installed / "porch_tasks").mkdir(parents=True)
    (tmp_path / "front.py").write_text(
        "from flowrun.tasks.basic import Counter\nclass Porch(Counter): ..."
    )
    (installed / "porch_tasks" / "__init__.py").symlink_to(tmp_path / "front.py")
    monkeypatch.syspath_prepend(str(installed))
    found = find_task_class("porch_tasks.Porch", folder=graphs, types={})
    (graphs / "porch_tasks" / "src").mkdir(parents=True)  # its sources, as someone keeps them there
    assert find_task_class("porch_tasks.Porch", folder=graphs, types={}) is found
    del sys.modules["porch_tasks"]


def test_modules_that_are_not_used_are_named(shadowed: Path) -> None:
    with importable(shadowed):
        found = unused_modules(shadowed)
    assert found == ["http.py", "numpy.py", "queue", "random.py", "threading.py"]


def own_name(_number: int) -> tuple[str, str]:
    return import_module("own_helper").NAME, random.__name__


@pytest.mark.slow
@pytest.mark.usefixtures("shadowed")
def test_processes_of_a_task_find_installed_modules_and_its_neighbours() -> None:
    with importable(Path()), multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map_async(own_name, [0]).get(timeout=240) == [("own", "random")]
    assert "PYTHONSAFEPATH" not in os.environ


def test_what_is_installed_and_removed_while_the_program_runs_is_seen(
    install: Install, tmp_path: Path
) -> None:
    assert "Count" not in task_types()
    install("plug", "Count = flowrun.tasks.basic:Counter")
    assert find("Count") is Counter
    shutil.rmtree(tmp_path / "plug-1.0.dist-info")
    assert "Count" not in task_types()
