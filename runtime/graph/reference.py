"""The reference pages, as Markdown: every key of graph files, and every key of the tasks' configs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from flowrun.runtime.errors import FlowrunError
from flowrun.runtime.graph import keys
from flowrun.runtime.graph.described import DescribedKey, describe_task
from flowrun.runtime.graph.find import TaskTypes
from flowrun.runtime.graph.keys import Key

__all__ = ["config_table", "graph_reference", "tasks_reference"]

_HEAD = """\
<!-- Written by `make reference`. The texts are those of runtime/graph/keys.py. -->

# The graph file

A graph file says which tasks there are, and what flows between them:

```yaml
tasks:
  - id: cam0                # the name that you choose
    type: VideoCapture      # `flowrun tasks` lists the types
    config: {source_uri: test, width: 320, height: 240}
  - id: look
    type: Inference
    background: true        # cycles go on while the model thinks
    config: {prompt: cap en}
  - {id: show, type: BroadcastImage}
cnx:
  - {src: cam0, dst: look, msg: ImageRgb8Msg}
  - {src: cam0, dst: show, msg: ImageRgb8Msg}
logging: {keep: {gib: 20}}  # the oldest runs go first
```

It is YAML 1.2; of its keys, only `tasks` must be there. The keys of each task's `config` are in
[The config of each task](task-config.md).

- `flowrun check GRAPH` lists every mistake in a file; `flowrun plan GRAPH` shows the order of its tasks.
- `flowrun schema` prints a JSON Schema, with which an editor completes keys.
- In any value, `${NAME}` stands for an environment variable, `${NAME:-default}` for one that may not be
  set, and `$${` for the text `${`.

Larger graphs are made of [missions](#missions-one-file-for-several-jobs),
[includes](#includes-one-part-in-several-places), [constants](#constants-one-value-in-several-places) and
[partitions](#partitions-one-graph-in-several-processes);
[`--set` and `--for`](#other-values-for-one-run) change one run.
"""

_LARGER = """\
## Missions: one file for several jobs

`missions` names subsets of a graph. A task or connection says of which it is part; what says nothing is
part of all. A connection that says nothing is part of all missions that have both of its tasks. Two
tasks may have one id if no mission has both: a camera in one, a film in the other.

```yaml
missions: [watch, rehearse]
tasks:
  - {id: cam, type: VideoCapture, config: {source_uri: 0}, missions: [watch]}
  - {id: cam, type: VideoCapture, config: {source_uri: film.mp4}, missions: [rehearse]}
  - {id: show, type: BroadcastImage}
cnx:
  - {src: cam, dst: show, msg: ImageRgb8Msg}
```

`flowrun GRAPH --mission rehearse` chooses one; the first runs otherwise. `check` and `plan` look at all.
The log says which one ran, and a replay runs that, also with another graph file that has it.

## Includes: one part in several places

A file of `includes` is a graph file itself. Its tasks and connections come before those of the file that
includes it, their ids as they are written. `{{NAME}}` stands for a param, so that a part can be included
several times:

```yaml
# camera.yaml
constants: {fps: 10}
tasks:
  - {id: "cam_{{name}}", type: VideoCapture, config: {source_uri: {{uri}}, max_fps: {{fps}}}}
```

```yaml
includes:
  - {path: camera.yaml, params: {name: gate, uri: rtsp://10.0.0.7/main}}
  - {path: camera.yaml, params: {name: yard, uri: rtsp://10.0.0.8/main, fps: 5}}
```

- `path` starts at the folder of the file that includes; all other paths, and the modules of tasks, at
  that of the graph.
- A param that the file lacks, and a name without a value, are mistakes. The file's own `constants` are
  the defaults of its params.
- `flowrun check` and `flowrun serve` take every `.yaml` of a folder for a graph: keep parts in another.
- Keys of `logging` and `runtime` in the including file go before those of the included one.
- A mistake is reported at its line in the included file, with the lines that include it. A file may
  include others, but not itself.
- The log keeps the graph that came of it as one file: a replay needs no included file.

`flowrun plan GRAPH` shows what came of it, and which file each task is from.

## Constants: one value in several places

`constants` gives names to values of one file; `{{NAME}}` stands for one of them. Alone it is the value
itself, be it a number, a list or a mapping; within a text, its text: `"cam_{{name}}"`. It may be in
quotes, and in flow style (`{...}`) a text that holds it must be. `{{{{` is the text `{{`. An included
file does not see the constants of the one that includes it; `params` pass them on.

Anchors of YAML do the same within a file, and merge mappings:

```yaml
constants:
  camera: &camera {max_fps: 5, reconnect: {max_attempts: 3}}
tasks:
  - {id: gate, type: VideoCapture, config: {<<: *camera, source_uri: rtsp://10.0.0.7/main}}
```

## Partitions: one graph in several processes

`partitions` names the parts of a graph that run as processes of their own, on one machine or on several.
Each runs its own cycles and writes its own log, from which it replays alone. What goes from one to
another is taken from the sender's log, so a receiver that was away gets what it has missed:

```yaml
partitions:
  dock:
    listen: [tls/0.0.0.0:7447]
    instances: {dock1: {cam.source_uri: "${CAM1}"}, dock2: {cam.source_uri: "${CAM2}"}}
  gpu: {connect: [tls/edge-1:7447, tls/edge-2:7447]}
network: {tls: {ca: ca.pem, cert: "${NODE}.pem", key: "${NODE}.key"}}
tasks:
  - {id: cam, type: VideoCapture, partition: dock}
  - {id: infer, type: Inference, partition: gpu, background: true}
cnx:
  - {src: cam, dst: infer, msg: ImageRgb8Msg, link: {deliver: latest, max_age_ms: 500}}
```

- `flowrun up GRAPH` runs all partitions on this machine, whatever their addresses; `flowrun GRAPH
  --partition dock/dock1` runs one of them, where it belongs. `check` and `plan` look at the whole file.
- What goes to another partition must be in the log: an output that does cannot have
  `logging: {payload: none}`.
- Messages of one instance are never mixed with those of another: tasks that follow `cam` elsewhere are
  made once for each, here `infer_dock1` and `infer_dock2`. What they send back goes to that instance.
- `${NODE}` is the name of the instance, or of the partition, where no variable of that name is set.

## Other values for one run

`flowrun GRAPH --set cam.max_fps=5` runs with another value than the file's; `check` and `plan` know it
too. The value is YAML, is checked as if it were in the file, and is in the log, without secrets.

| setting | what it changes |
|---|---|
| `--set cam.max_fps=5` | a key of a task's config |
| `--set cam.reconnect.delay_s=2`, `--set cam.sources.0.max_fps=5` | a key within it, an item of a list |
| `--set cam.rate_hz=5` | a key of the task itself, unless its config has one of that name |
| `--set cam.config.rate_hz=5` | a key of its config, in any case |
| `--set runtime.seed=7`, `--set logging.keep.runs=3` | a key of a section |
| `--set constants.fps=5` | a constant of the graph's own file |

`--for 10s` (`500ms`, `2m`, `1h30m`) ends the run as Ctrl-C does, that long after all tasks have started.
"""

_TASKS_HEAD = """\
<!-- Written by `make reference`. The texts are those of the tasks. -->

# The config of each task

What goes under `config` of a task, for each type that ships. `flowrun tasks NAME` says the same of one,
with its ports and an example. The other keys of a task, such as `background` and `on_error`, are in
[the graph file](graph.md#tasks-a-list).
"""

_KINDS = {
    "id": "text",
    "type": "text",
    "message": "text",
    "endpoint": "text",
    "path": "text",
    "text": "text",
    "addresses": "list of text",
    "instances": "mapping of mappings",
    "name lists": "mapping of lists of text",
    "named sections": "mapping of mappings",
    "names": "list of text",
    "cores": "list of whole numbers",
    "values": "mapping of any value",
    "config": "mapping",
    "section": "mapping",
    "list": "list",
    "flag": "true or false",
    "number": "number (above 0)",
}

_Row = tuple[str, str, str, str]


def graph_reference() -> str:
    """The page of graph files: every key, and how larger graphs are made."""
    sections = [
        _section("The keys of a graph file", keys.GRAPH),
        _section("`tasks`: a list", keys.TASK),
        _section("`logging` of a task", keys.TASK_LOGGING),
        _section("`cnx`: a list", keys.CONNECTION),
        _section("`includes`: a list", keys.INCLUDE),
        _section("`logging`", keys.LOGGING),
        *(_section(f"`{key.name}` of `logging`", key) for key in keys.LOGGING.keys if key.keys),
        _section("`runtime`", keys.RUNTIME),
        _section("`background` of `runtime`", keys.BACKGROUND),
        _section("`partitions`: a mapping", keys.PARTITION),
        _section("`link` of a connection", keys.LINK),
        _section("`network`", keys.NETWORK),
        _section("`tls` of `network`", keys.TLS),
    ]
    return "\n".join([_HEAD, *sections, _LARGER])


def tasks_reference(types: TaskTypes) -> str:
    """The page of tasks: the config of each of `types` whose module can be imported here."""
    tasks = [text for name in sorted(types) for text in _task(name, types)]
    return "\n".join([_TASKS_HEAD, *tasks]).rstrip("\n") + "\n"


def _section(title: str, section: Key) -> str:
    rows = [(key.name, _kind(key), _default(key), key.sentence) for key in section.keys]
    return f"## {title}\n\n{section.sentence}\n\n{_table(rows)}"


def _kind(key: Key) -> str:
    if key.kind == "whole" and key.maximum is not None:
        return f"whole number (from {key.minimum} to {key.maximum})"
    if key.kind == "whole":
        return f"whole number (at least {key.minimum})"
    return ", ".join(key.choices) or _KINDS[key.kind]


def _default(key: Key) -> str:
    if key.required:
        return "required"
    if key.kind == "list":
        return "`[]`"
    is_mapping = key.kind in ("section", "config", "instances", "named sections")
    return f"`{json.dumps({} if is_mapping else key.default)}`"


def _task(name: str, types: TaskTypes) -> Iterable[str]:
    try:
        found = describe_task(name, folder=Path(), types=types)
    except FlowrunError:
        return
    yield f"## {name}\n\n{found.text}\n"
    yield config_table(found.config)
    for model, mapping in found.mappings.items():
        yield f"### {model}\n\n{mapping.text}\n"
        yield config_table(mapping.keys)


def config_table(config: Iterable[DescribedKey]) -> str:
    """The keys of a config as a table in Markdown."""
    rows: list[_Row] = []
    for key in config:
        default = "required" if key.required else f"`{json.dumps(key.default)}`"
        live = " May change while the graph runs." if key.live else ""
        rows.append((key.name, key.value, default, key.sentence + live))
    return _table(rows) if rows else "It has no keys.\n"


def _table(rows: Iterable[_Row]) -> str:
    lines = ["| Key | Value | Default | Meaning |", "|---|---|---|---|"]
    for name, *cells in rows:
        lines.append("| " + " | ".join([f"`{name}`", *(_cell(cell) for cell in cells)]) + " |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
