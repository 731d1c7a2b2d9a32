"""The JSON Schema of graph files, so that editors complete and check them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from flowrun.runtime.errors import FlowrunError
from flowrun.runtime.graph import keys
from flowrun.runtime.graph.find import find_task_class, message_types, task_types
from flowrun.runtime.graph.keys import Key
from flowrun.runtime.graph.sentences import config_sentences
from flowrun.runtime.graph.several import ITEM_ID
from flowrun.runtime.task import TaskConfig

__all__ = ["config_schema", "graph_schema"]

_ID = r"([A-Za-z_]|{{)[A-Za-z0-9_{} ]*"
"""An id, which may hold `{{NAME}}`."""
_ENDPOINT = rf"^{_ID}(\.{_ID})?$"
_DOTTED = {"type": "string", "pattern": r"\."}
_VARIABLE = {"type": "string", "pattern": r"\$\{|\{\{"}


def graph_schema() -> dict[str, Any]:
    """The schema (draft 2020-12), with the config of every task type that has a short name.

    A type whose module cannot be imported here is listed without its config.
    """
    types = task_types()
    definitions: dict[str, Any] = {}
    configs = []
    for name in sorted(types):
        try:
            task_class = find_task_class(name, folder=Path(), types=types)
        except FlowrunError:
            continue
        described = config_schema(task_class.Config, f"#/$defs/{name}.{{model}}")
        for model, schema in described.pop("$defs", {}).items():
            definitions[f"{name}.{model}"] = schema
        definitions[name] = _with_environment(_with_items(described, task_class.several_configs))
        configs.append(
            {
                "if": {"properties": {"type": {"const": name}}, "required": ["type"]},
                "then": {"properties": {"config": {"$ref": f"#/$defs/{name}"}}},
            }
        )
    schema = _section(keys.GRAPH, {"type": sorted(types), "message": sorted(message_types())})
    schema["properties"]["tasks"]["items"]["allOf"] = configs
    del schema["required"]  # what is included may hold them
    schema["anyOf"] = [{"required": ["tasks"]}, {"required": ["includes"]}]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "flowrun graph",
        **schema,
        "$defs": definitions,
    }


def config_schema(config: type[TaskConfig], ref_template: str) -> dict[str, Any]:
    """The schema of a task's config, with what each key is for as its description.

    ref_template: how "$ref" names a model of "$defs", `{model}` being its name.
    """
    return config.model_json_schema(ref_template=ref_template, schema_generator=_WithSentences)


def _section(section: Key, short_names: dict[str, list[str]]) -> dict[str, Any]:
    """The mapping of the keys of `section`.

    short_names: of the kinds "type" and "message", what is known by a name without a dot.
    """
    required = keys.required_names(section)
    return {
        "type": "object",
        "additionalProperties": False,
        **({"required": list(required)} if required else {}),
        "properties": {
            key.name: {"description": key.sentence, **_value(key, short_names)}
            for key in section.keys
        },
    }


def _value(key: Key, short_names: dict[str, list[str]]) -> dict[str, Any]:
    if key.kind == "section":
        return _or_null(_section(key, short_names))
    if key.kind == "list":
        items = {"type": "array", "items": _section(key, short_names)}
        return items | {"minItems": 1} if key.required else _or_null(items)
    if key.kind == "named sections":
        return _or_null(
            {"type": "object", "additionalProperties": _or_null(_section(key, short_names))}
        )
    if key.kind == "names":
        names = {"type": "array", "items": {"type": "string"}, "minItems": 1}
        return names | ({} if key.default is None else {"default": list(key.default)})
    if key.kind in short_names:
        return {"anyOf": [{"enum": short_names[key.kind]}, _DOTTED]}
    schema = _scalar(key)
    if key.default is not None:
        return schema | {"default": key.default}
    return schema if key.required else _or_null(schema)


def _scalar(key: Key) -> dict[str, Any]:
    match key.kind:
        case "id":
            return {"type": "string", "pattern": f"^{_ID}$"}
        case "endpoint":
            return {"type": "string", "pattern": _ENDPOINT}
        case "flag":
            return {"type": "boolean"}
        case "whole":
            most = {} if key.maximum is None else {"maximum": key.maximum}
            return {"type": "integer", "minimum": key.minimum, **most}
        case "cores":
            return {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
        case "number":
            return {"type": "number", "exclusiveMinimum": 0}
        case "choice":
            return {"enum": list(key.choices)}
        case "path":
            return {"type": "string"}
        case "text":
            return {"type": "string", "minLength": 1}
        case "addresses":
            return {"type": "array", "items": {"type": "string", "pattern": "/|\\$\\{|\\{\\{"}}
        case "instances":
            return {"type": "object", "additionalProperties": {"type": ["object", "null"]}}
        case "name lists":
            names = {"type": "array", "items": {"type": "string"}, "minItems": 1}
            return {"type": "object", "additionalProperties": names}
        case _:
            return {"type": "object"}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    if "enum" in schema:
        return schema | {"enum": [*schema["enum"], None]}
    return schema | {"type": [schema["type"], "null"]}


class _WithSentences(GenerateJsonSchema):
    """Gives each key of a config the sentence below it in the source, as its description."""

    def model_schema(self, schema: Any) -> dict[str, Any]:
        made = super().model_schema(schema)
        sentences = config_sentences(schema["cls"])
        for name, described in made.get("properties", {}).items():
            if name in sentences:
                described["description"] = sentences[name]
        return made


def _with_items(config: dict[str, Any], key: str | None) -> dict[str, Any]:
    """The config's schema, whose list `key` holds mappings of the other keys, and an id."""
    if key is None:
        return config
    own = {name: it for name, it in config["properties"].items() if name != key}
    own[ITEM_ID] = {"description": "What is added to the task's id.", "type": ["string", "integer"]}
    item = _with_environment({"type": "object", "additionalProperties": False, "properties": own})
    described = config["properties"][key] | {"anyOf": [{"type": "array", "items": item}]}
    return config | {"properties": config["properties"] | {key: described}}


def _with_environment(config: dict[str, Any]) -> dict[str, Any]:
    """The config's schema; each value may also be a text with `${NAME}`, and config may be null."""
    properties = {
        name: {"description": schema.get("description", ""), "anyOf": [schema, _VARIABLE]}
        for name, schema in config.get("properties", {}).items()
    }
    kind = config["type"] if config.get("required") else [config["type"], "null"]
    return config | {"type": kind, "properties": properties}
