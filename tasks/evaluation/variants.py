"""The ways to ask about recorded frames, and what an answer depends on.

An answer is kept by what it depends on: the picture, the model's files, the prompt, and the settings. If
any of these changes, it is asked again.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from flowrun.runtime.errors import UsageError
from flowrun.runtime.extras import DISTRIBUTION
from flowrun.runtime.testbench.hashes import Hashes
from flowrun.runtime.testbench.store import Store, key_of
from flowrun.tasks.evaluation.recorded import Asked, Asking, RecordedRun
from flowrun.tasks.models.checkpoints import embedded, folder_in_hub_cache

__all__ = ["Dependence", "Variant", "config_of", "variants_of"]

_EMBEDDED = "embedded"
_OF_NO_ANSWER = frozenset(
    {
        "backend",
        "backends",
        "budget",
        "fallback",
        "inputs",
        "local_files_only",
        "max_batch",
        "model",
        "presets",
        "prompt",
        "shadow",
        "skip_similar",
        "threads",
    }
)
"""Keys of a config on which an answer does not depend, or that are looked at one by one."""
_LARGE = 500_000_000
"""Bytes of a model of which one copy is enough."""
_ACCESS = ("api_key", "server", "timeout_s", "retries", "start_timeout_s", "stream")
"""Keys of a server's settings that say how it is reached, not what it answers."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to ask.

    name: what it is called in reports.
    model: a checkpoint folder, a hub id, or "embedded"; None for the recorded one.
    backend: a backend of the graph; None for the recorded one.
    prompt: None for the one that was asked.
    """

    name: str
    model: str | None = None
    backend: str | None = None
    prompt: str | None = None

    def changes(self, asking: Asking) -> dict[str, Any]:
        """The values that it puts in place of those of a task's config, but for the prompt.

        `UsageError` where the task has no such key.
        """
        changes: dict[str, Any] = {}
        if self.backend is not None:
            if not _has_backends(asking):
                raise UsageError(f"task {asking.task!r} ({asking.type}) has no 'backend' to choose")
            changes["backend"] = self.backend
        if self.model == _EMBEDDED:
            if not _has_backends(asking):
                raise UsageError(
                    f"task {asking.task!r} ({asking.type}) finds objects, which the embedded model does "
                    "not do without a prompt; give a detector's checkpoint"
                )
            changes |= {"model": None, "backend": _EMBEDDED}
        elif self.model is not None:
            changes["model"] = self.model
            if _has_backends(asking):
                changes["backend"] = "transformers"
        if self.prompt is not None and not _has_backends(asking):
            raise UsageError(
                f"task {asking.task!r} ({asking.type}) takes no prompt; name the tasks with --task"
            )
        return changes


def variants_of(
    models: Sequence[str], backends: Sequence[str], prompts: Sequence[str]
) -> list[Variant]:
    """Every combination of models or backends with prompts; nothing given: as it was recorded, asked
    again. A checkpoint folder is taken from the current one.

    `UsageError` for one that is given twice.
    """
    axes: list[list[tuple[str, dict[str, str]]]] = []
    answerers = [(name, {"model": _from_here(name)}) for name in models]
    answerers += [(name, {"backend": name}) for name in backends]
    if answerers:
        axes.append(answerers)
    if prompts:
        axes.append([(repr(text), {"prompt": text}) for text in prompts])
    for axis in axes:
        names = [name for name, _ in axis]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"{name} is given twice")
    if not axes:
        return [Variant("asked again")]
    return [
        Variant(", ".join(name for name, _ in chosen), **_joined(values for _, values in chosen))
        for chosen in itertools.product(*axes)
    ]


def config_of(variant: Variant, asked: Asked) -> dict[str, Any]:
    """The values that differ from the recorded graph's when an answer is asked for again: those of the
    variant, and those that were set while the run went on. Without the prompt."""
    live = {key: value for key, value in asked.live.items() if key != "prompt"}
    return live | variant.changes(asked.asking)


class Dependence:
    """What the answers depend on.

    store: keeps the hashes of files.
    """

    def __init__(self, store: Store | None) -> None:
        self._hashes = Hashes(store)
        self._code = _versions()
        self._embedded = embedded().path
        self._alike: dict[tuple[Any, ...], bytes] = {}
        """What the answers of one variant and task depend on, all pictures alike."""

    def key(self, variant: Variant, asked: Asked, run: RecordedRun) -> bytes | None:
        """The key under which the answer is kept; None where it is not known on what it depends."""
        if asked.picture_key is None:
            return None
        asking, live = asked.asking, asked.live
        prompt = variant.prompt if variant.prompt is not None else asked.answer.get("prompt")
        is_drawn = bool(live.get("do_sample", asking.config.get("do_sample")))
        place = variant, asked.run, asking.task, asking.port, repr(live) if live else ""
        if place not in self._alike:
            changes = config_of(variant, asked)
            config = {**asking.config, **changes}
            settings = {key: value for key, value in config.items() if key not in _OF_NO_ANSWER}
            answerer = self._answerer(config, changes, asking, run)
            self._alike[place] = key_of("answer", 1, self._code, answerer, settings)
        drawn_in = asked.picture.cycle if is_drawn else None
        return key_of(self._alike[place], prompt, asked.picture_key, drawn_in)

    def fills_memory(self, variant: Variant, asked: Asked, run: RecordedRun) -> bool:
        """Whether what answers is a model of more than 500 MB in this process, or of an unknown size."""
        changes = config_of(variant, asked)
        config = {**asked.asking.config, **changes}
        backend = config.get("backend", _EMBEDDED)
        if _has_backends(asked.asking):
            settings = (config.get("backends") or {}).get(backend, {})
            if backend == _EMBEDDED or settings.get("type", backend) == "openai":
                return False
            model = settings.get("model") or config.get("model")
        else:
            model = config.get("model")
        if model is None:
            return False
        folder = self._place(model, changes, run)
        if folder is None:
            return True
        files = (it for it in folder.rglob("*") if it.is_file())
        return sum(it.stat().st_size for it in files) > _LARGE

    def _answerer(
        self,
        config: Mapping[str, Any],
        changes: Mapping[str, Any],
        asking: Asking,
        run: RecordedRun,
    ) -> list[Any]:
        """What answers: a hash of a model's files, a server's address, or code."""
        code = self._code_of(asking.type, run.folder)
        if not _has_backends(asking):
            model = config.get("model")
            return [code, None if model is None else self._model(model, changes, run)]
        backend = config.get("backend", _EMBEDDED)
        if backend == _EMBEDDED:
            return [code, self._hashes.folder(self._embedded)]
        settings = dict((config.get("backends") or {}).get(backend, {}))
        kind = settings.get("type", backend)
        if kind == "openai":
            asked = {k: v for k, v in settings.items() if k not in _ACCESS}
            if isinstance(urls := asked.get("base_url"), list):
                asked["base_url"] = sorted(map(str, urls))
            return [code, "server", asked]
        model = settings.pop("model", None) or config.get("model")
        return [code, settings, None if model is None else self._model(model, changes, run)]

    def _model(self, model: str, changes: Mapping[str, Any], run: RecordedRun) -> str:
        """A hash of the files of a checkpoint: a folder, or a hub id that is in the hub's cache. Of one
        that is not, its name."""
        folder = self._place(model, changes, run)
        return model if folder is None else self._hashes.folder(folder)

    @staticmethod
    def _place(model: str, changes: Mapping[str, Any], run: RecordedRun) -> Path | None:
        """The folder of a checkpoint on this machine; None where it is not there."""
        here = Path.cwd() if changes.get("model") == model else run.folder
        folder = here / Path(model).expanduser()
        return folder if folder.is_dir() else folder_in_hub_cache(model)

    def _code_of(self, type_name: str, folder: Path) -> str:
        """The type of a task; of one that is not flowrun's own, with a hash of its module's file."""
        name = type_name.replace(":", ".")
        if "." not in name or name.startswith("flowrun."):
            return name.rpartition(".")[2]
        module = name.rpartition(".")[0]
        path = folder / f"{module.replace('.', '/')}.py"
        if not path.is_file():
            found = _file_of(module)
            if found is None:
                return name
            path = found
        return f"{name} {self._hashes.file(path)}"


def _file_of(module: str) -> Path | None:
    """The file of an installed module; None where it is not found. Nothing is imported for it."""
    top, *below = module.split(".")
    try:
        found = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        found = None
    if found is None or found.origin is None:
        return None
    if not below:
        return Path(found.origin)
    package = Path(found.origin).parent.joinpath(*below)
    files = (package.with_name(f"{package.name}.py"), package / "__init__.py")
    return next((it for it in files if it.is_file()), None)


def _has_backends(asking: Asking) -> bool:
    """Whether a task has a prompt and backends, as `Inference` does."""
    return "Inference" in asking.type.rpartition(".")[2].rpartition(":")[2] or (
        "prompt" in asking.config
    )


def _joined(parts: Any) -> dict[str, str]:
    return {key: value for part in parts for key, value in part.items()}


def _from_here(model: str) -> str:
    """A model as any graph may name it: a folder by its whole path."""
    path = Path(model).expanduser()
    if model == _EMBEDDED or not path.exists():
        return model
    return str(path.absolute())


@cache
def _versions() -> list[str]:
    """The versions of what computes the answers."""
    return [sys.version.split()[0], *map(_version, (DISTRIBUTION, "torch", "transformers"))]


def _version(package: str) -> str:
    """The version of an installed package; "" of one that is not there."""
    # The folder that `importlib.metadata` would look for: to import that takes longer than all that is
    # done here.
    start = f"{package.replace('-', '_')}-"
    for place in sys.path:
        for folder in Path(place).glob(f"{start}*.dist-info"):
            return folder.name.removeprefix(start).removesuffix(".dist-info")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return ""
