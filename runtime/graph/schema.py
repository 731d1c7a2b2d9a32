"""The JSON Schema of graph files, so that editors complete and check them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flowrun.msgs
from flowrun.msgs import Message
from flowrun.runtime.errors import FlowrunError
from flowrun.runtime.graph.find import built_in_types, find_task_class, plug_in_types
from flowrun.runtime.graph.spec import CODECS, IDENTIFIER, TASK_POLICIES, LoggingSpec, RuntimeSpec

__all__ = ["graph_schema"]


def graph_schema() -> dict[str, Any]:
    """The schema (draft 2020-12), with the config of every task type that has a short name.

    A type whose module cannot be imported here is listed without its config.
    """
    types = sorted(plug_in_types() | built_in_types())
    definitions: dict[str, Any] = {}
    configs = []
    for name in types:
        try:
            config = find_task_class(name, folder=Path()).Config
        except FlowrunError:
            continue
        described = config.model_json_schema(ref_template=f"#/$defs/{name}.{{model}}")
        for model, schema in described.pop("$defs", {}).items():
            definitions[f"{name}.{model}"] = schema
        definitions[name] = _with_environment(described)
        configs.append(
            {
                "if": {"properties": {"type": {"const": name}}, "required": ["type"]},
                "then": {"properties": {"config": {"$ref": f"#/$defs/{name}"}}},
            }
        )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "flowrun graph",
        "type": "object",
        "additionalProperties": False,
        "required": ["tasks"],
        "properties": {
            "tasks": {
                "type": "array",
                "minItems": 1,
                "items": _task(types) | {"allOf": configs},
            },
            "cnx": {
                "description": "Connections, each from one task's output to another's input.",
                "type": ["array", "null"],
                "items": _connection(),
            },
            "logging": _logging(),
            "runtime": _runtime(),
        },
        "$defs": definitions,
    }


def _task(types: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["id", "type"],
        "properties": {
            "id": {"type": "string", "pattern": f"^{IDENTIFIER}$"},
            "type": {
                "description": "A short name, or a dotted path such as my_module.MyTask.",
                "anyOf": [{"enum": types}, {"type": "string", "pattern": r"\."}],
            },
            "config": {"type": ["object", "null"]},
            "background": {
                "description": "Run on a worker; the cycle does not wait for it.",
                "type": "boolean",
                "default": False,
            },
            "every": {
                "description": "Run only in cycles whose number is a multiple of this.",
                "type": "integer",
                "minimum": 1,
                "default": 1,
            },
            "rate_hz": _rate("Run at most so often; a source is asked at most so often."),
            "on_error": {
                "description": "What happens when the task raises.",
                "enum": list(TASK_POLICIES),
                "default": "stop",
            },
            "logging": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "enabled": {
                        "description": "Whether the task's messages go into the log.",
                        "type": "boolean",
                        "default": True,
                    },
                    "payload": {
                        "description": "none: log when there were messages, not what was in them.",
                        "enum": ["all", "none"],
                        "default": "all",
                    },
                    "codec": {
                        "description": "How pictures are stored, each bit for bit: raw pixels, the "
                        "source's own compressed packets (the default of a VideoCapture), or "
                        "compressed by zstd or ffv1.",
                        "enum": list(CODECS),
                    },
                },
            },
        },
    }


def _rate(description: str) -> dict[str, Any]:
    return {"description": description, "type": ["number", "null"], "exclusiveMinimum": 0}


def _connection() -> dict[str, Any]:
    endpoint = {
        "description": "A task's id, or task.port where it has several that fit.",
        "type": "string",
        "pattern": rf"^{IDENTIFIER}(\.{IDENTIFIER})?$",
    }
    messages = sorted(
        name
        for name in flowrun.msgs.__all__
        if isinstance(value := getattr(flowrun.msgs, name), type)
        and issubclass(value, Message)
        and value is not Message
    )
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["src", "dst", "msg"],
        "properties": {
            "src": endpoint,
            "dst": endpoint,
            "msg": {
                "description": "A message's short name, or a dotted path.",
                "anyOf": [{"enum": messages}, {"type": "string", "pattern": r"\."}],
            },
        },
    }


def _logging() -> dict[str, Any]:
    default = LoggingSpec()
    return {
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": {
            "slab_size_mib": {
                "description": "The size of one file of the log.",
                "type": "integer",
                "minimum": 1,
                "default": default.slab_size_mib,
            },
            "section_size_mib": {
                "description": "The piece by which a file of the log grows.",
                "type": "integer",
                "minimum": 1,
                "default": default.section_size_mib,
            },
            "enable_task_logging": {
                "description": "Whether messages are logged at all.",
                "type": "boolean",
                "default": default.enable_task_logging,
            },
            "on_error": {
                "description": "Whether a run stops when its log cannot be written any more.",
                "enum": ["stop", "continue"],
                "default": default.on_error,
            },
            "keep": {
                "description": "Which of the graph's earlier runs in the same log directory stay "
                "when a run starts; the oldest go first.",
                "type": ["object", "null"],
                "additionalProperties": False,
                "properties": {
                    "gib": {
                        "description": "The disk space that they may take.",
                        "type": "number",
                        "exclusiveMinimum": 0,
                    },
                    "runs": {
                        "description": "How many, the one that starts included.",
                        "type": "integer",
                        "minimum": 1,
                    },
                },
            },
            "mode": {
                "description": "ring: a flight recorder, which keeps the run's last keep_slabs "
                "files.",
                "enum": ["all", "ring"],
                "default": default.mode,
            },
            "keep_slabs": {
                "description": "In mode ring: how many files stay, the one being written included.",
                "type": "integer",
                "minimum": 2,
                "default": default.keep_slabs,
            },
            "keyframe_interval": {
                "description": "Cycles from one keyframe, where a replay can begin, to the next; "
                "0 makes none.",
                "type": "integer",
                "minimum": 0,
                "default": default.keyframe_interval,
            },
        },
    }


def _runtime() -> dict[str, Any]:
    default = RuntimeSpec()
    return {
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": {
            "ring_size": {
                "description": "Preallocated cycle records.",
                "type": "integer",
                "minimum": 1,
                "default": default.ring_size,
            },
            "seed": {
                "description": "The seed of every task's random numbers.",
                "type": "integer",
                "minimum": 0,
                "default": default.seed,
            },
            "rate_hz": _rate("Run at most so many cycles a second."),
        },
    }


def _with_environment(config: dict[str, Any]) -> dict[str, Any]:
    """The config's schema; each value may also be a text with `${NAME}`, and config may be null."""
    variable = {"type": "string", "pattern": r"\$\{"}
    properties = {
        name: {"anyOf": [schema, variable], "description": schema.get("description", "")}
        for name, schema in config.get("properties", {}).items()
    }
    kind = config["type"] if config.get("required") else [config["type"], "null"]
    return config | {"type": kind, "properties": properties}
