"""Names in a graph file -> classes: what installed packages offer by a short name."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from flowrun.runtime.errors import UsageError
from flowrun.runtime.graph.find import TaskTypes, find_task_class, task_types
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
