"""The command starts quickly: what it imports at once is small."""

import ast
import json
import subprocess
import sys

import pytest

from support.paths import ROOT

HEAVY = {
    "av",
    "fastapi",
    "foxglove",
    "zlib_ng",
    "networkx",
    "PIL",
    "psutil",
    "rich",
    "starlette",
    "torch",
    "transformers",
    "uvicorn",
}


def modules_after(code: str) -> set[str]:
    """The top-level packages that a fresh interpreter has loaded after `code`."""
    script = f"import sys\n{code}\nimport json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT
    )
    return {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.parametrize(
    ("code", "light"),
    [
        ("import flowrun", HEAVY | {"numpy", "pydantic", "yaml", "msgpack", "structlog"}),
        ("import flowrun; flowrun.Graph", HEAVY | {"structlog"}),
        ("import flowrun.runtime.cli", HEAVY | {"numpy", "pydantic", "yaml"}),
        ("import flowrun.tasks", HEAVY | {"numpy", "pydantic", "yaml", "msgpack"}),
        ("import flowrun.msgs", HEAVY | {"pydantic", "yaml", "structlog"}),
        ("import flowrun.runtime.task", HEAVY | {"yaml"}),
        ("import flowrun.runtime.testing", HEAVY - {"rich"}),  # structlog's console brings it
        ("import flowrun.tasks.inference", {"torch", "transformers", "av", "fastapi"}),
        ("import flowrun.tasks.detect", {"torch", "transformers", "huggingface_hub", "PIL"}),
        ("import flowrun.tasks.ask", {"torch", "transformers", "huggingface_hub", "PIL"}),
        (
            "import flowrun.tasks.models.checkpoints",
            {"torch", "transformers", "huggingface_hub", "PIL"},
        ),
    ],
)
def test_import_brings_nothing_heavy(code: str, light: set[str]) -> None:
    assert modules_after(code) & light == set()


def test_check_of_the_main_graph_loads_no_model_library() -> None:
    code = (
        "from flowrun.runtime.cli import main\nassert main(['check', 'graphs/inference.yaml']) == 0"
    )
    loaded = modules_after(code)
    assert loaded & {"torch", "transformers", "fastapi", "uvicorn"} == set()


def test_listing_models_loads_no_model_library() -> None:
    code = "from flowrun.runtime.cli import main\nassert main(['models', '--json']) == 0\nprint()"
    assert modules_after(code) & {"torch", "transformers", "fastapi"} == set()


def test_messages_import_numpy_and_msgpack_only() -> None:
    allowed = {"numpy", "msgpack", "flowrun", "__future__"}
    for path in sorted((ROOT / "msgs").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                top = name.split(".")[0]
                assert top in allowed | sys.stdlib_module_names, f"{path}: {name}"
                if top == "flowrun":
                    assert name.startswith("flowrun.msgs"), f"{path}: {name}"
