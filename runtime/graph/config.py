"""A task's `config:` -> its validated `Config`, or what is wrong with it, in plain words.

pydantic validates; its texts never reach a user. The path of an error leads back to the line and
column of the key in the graph file. Values that are set while the graph runs get the same texts.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from flowrun.runtime.errors import Location, Problem, UsageError, worded
from flowrun.runtime.graph.values import UnknownHere
from flowrun.runtime.interrupts import is_users
from flowrun.runtime.wording import counted, described, listed, mask_secrets, nearest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from flowrun.runtime.graph.spec import TaskSpec
    from flowrun.runtime.task import Task, TaskConfig

__all__ = ["changed_keys", "check_config", "check_values", "path_of"]

_Path = tuple[str | int, ...]

_EXPECTED: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "int_type": lambda _: "a whole number",
    "int_parsing": lambda _: "a whole number",
    "int_from_float": lambda _: "a whole number",
    "float_type": lambda _: "a number",
    "float_parsing": lambda _: "a number",
    "finite_number": lambda _: "a finite number",
    "bool_type": lambda _: "true or false",
    "bool_parsing": lambda _: "true or false",
    "string_type": lambda _: "a text",
    "bytes_type": lambda _: "a text",
    "path_type": lambda _: "a path",
    "none_required": lambda _: "null",
    "list_type": lambda _: "a list",
    "tuple_type": lambda _: "a list",
    "set_type": lambda _: "a list",
    "dict_type": lambda _: "a mapping",
    "model_type": lambda _: "a mapping",
    "model_attributes_type": lambda _: "a mapping",
    "dataclass_type": lambda _: "a mapping",
    "greater_than": lambda c: f"greater than {c['gt']:g}",
    "greater_than_equal": lambda c: f"at least {c['ge']:g}",
    "less_than": lambda c: f"less than {c['lt']:g}",
    "less_than_equal": lambda c: f"at most {c['le']:g}",
    "multiple_of": lambda c: f"a multiple of {c['multiple_of']:g}",
    "literal_error": lambda c: c["expected"],
    "enum": lambda c: c["expected"],
    "union_tag_invalid": lambda c: (
        f"a mapping whose {c['discriminator'][1:-1]!r} is one of {c['expected_tags']}"
    ),
    "union_tag_not_found": lambda c: f"a mapping with {c['discriminator'][1:-1]!r}",
    "string_too_short": lambda c: f"a text of at least {counted(c['min_length'], 'character')}",
    "string_too_long": lambda c: f"a text of at most {counted(c['max_length'], 'character')}",
    "string_pattern_mismatch": lambda c: f"a text that matches {c['pattern']}",
    "too_short": lambda c: f"a list of at least {counted(c['min_length'], 'item')}",
    "too_long": lambda c: f"a list of at most {counted(c['max_length'], 'item')}",
}


def check_config(spec: TaskSpec, task_class: type[Task]) -> TaskConfig | list[Problem]:
    """The configuration of `spec` as `task_class` declares it, or every mistake in it.

    The context of its validators is {"secrets": the texts that are known to be secret}. Of values that
    are not known here (`UnknownHere`), and of what depends on them, nothing is a mistake; where they
    do not fit, the configuration is that without them.
    """
    unknown = list(_unknown_paths(spec.config))
    try:
        return task_class.Config.model_validate(spec.config, context={"secrets": spec.secrets})
    except ValidationError as error:
        details = error.errors(include_url=False)
    except BaseException as error:  # of a validator of the task's author
        if is_users(error):
            raise
        if unknown:
            return _without(unknown, spec, task_class)
        message = f"config of task {spec.id!r}: its check raised {_raised(error, spec)}"
        return [Problem(_place(spec, ()), message)]
    if unknown:
        details = [it for it in details if not _is_of_unknown(it, spec.config, unknown)]
        if not details:
            return _without(unknown, spec, task_class)
    problems = []
    wrong: dict[_Path, list[ErrorDetails]] = {}
    for detail in details:
        path = _known_path(spec.config, detail["loc"])
        if detail["type"] == "extra_forbidden":
            problems.append(_unknown_key(spec, task_class, detail["loc"], path))
        elif detail["type"] == "missing":
            problems.append(_missing_key(spec, detail["loc"], path))
        else:
            wrong.setdefault(path, []).append(detail)
    problems += [
        _wrong_value(spec, path, found)
        for path, found in wrong.items()
        if not _is_said_below(path, details, spec.config)
    ]
    return list(dict.fromkeys(problems))


def _unknown_paths(data: Any, path: _Path = ()) -> Iterator[_Path]:
    if isinstance(data, UnknownHere):
        yield path
    elif isinstance(data, dict | list):
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield from _unknown_paths(value, (*path, key))


def _is_of_unknown(detail: ErrorDetails, config: Any, unknown: list[_Path]) -> bool:
    """Whether a mistake is one of a value that is not known here, or of what such a value is in."""
    if detail["type"] in ("extra_forbidden", "missing"):
        return False
    path = _known_path(config, detail["loc"])
    return any(it[: len(path)] == path for it in unknown)


def _without(unknown: list[_Path], spec: TaskSpec, task_class: type[Task]) -> TaskConfig:
    """The configuration without the values that are not known here; its defaults where it does not do
    without them."""
    names = {path[0] for path in unknown}
    known = {name: value for name, value in spec.config.items() if name not in names}
    try:
        return task_class.Config.model_validate(known, context={"secrets": spec.secrets})
    except BaseException as error:
        if is_users(error):
            raise
        return task_class.Config.model_construct()


def check_values(spec: TaskSpec, config: TaskConfig, values: Mapping[str, Any]) -> TaskConfig:
    """`config` with new `values` for some of its keys.

    `UsageError` lists every mistake as `task.key: ...`, one a line, without the secrets of `spec`.
    """
    data = {**dict(config), **values}
    try:
        return type(config).model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False)
    except BaseException as error:  # see check_config
        if is_users(error):
            raise
        message = f"{spec.id}: the check of its config raised {_raised(error, spec)}"
        raise UsageError(message) from None
    mistakes = []
    wrong: dict[_Path, list[ErrorDetails]] = {}
    for detail in details:
        path = _known_path(data, detail["loc"])
        name = _dotted((spec.id, *path))
        if detail["type"] == "extra_forbidden":
            keys = _keys(type(config), path[:-1])
            hint = nearest(str(path[-1]), keys)
            mistakes.append(f"{name}: unknown key; valid keys: {listed(keys)}{hint}")
        elif detail["type"] == "missing":
            mistakes.append(f"{name}: lacks {_dotted(detail['loc'][-1:])!r}")
        else:
            wrong.setdefault(path, []).append(detail)
    for path, found in wrong.items():
        if _is_said_below(path, details, data):
            continue
        value = _at(data, path)
        masked = mask_secrets(value, spec.secrets) if isinstance(value, str) else value
        said = _own_words(found, spec) or _must_be(found, value, masked)
        mistakes.append(f"{_dotted((spec.id, *path))}: {said}")
    raise UsageError("\n".join(dict.fromkeys(mistakes)))


def _is_said_below(path: _Path, details: list[ErrorDetails], data: Any) -> bool:
    """Whether other mistakes are inside the value at `path`: it is what one member of a union takes,
    and that the other members do not take it is no news."""
    if not path or not isinstance(_at(data, path), dict | list):
        return False
    for detail in details:
        below = _known_path(data, detail["loc"])
        if detail["type"] == "missing":
            below = (*below, detail["loc"][-1])
        if len(below) > len(path) and below[: len(path)] == path:
            return True
    return False


def _known_path(data: Any, loc: _Path) -> _Path:
    """`loc` without the names of a union's members, which pydantic adds: only what `data` holds."""
    path: _Path = ()
    for item in loc:
        if isinstance(data, dict):
            held = item in data
        else:
            held = isinstance(data, list) and isinstance(item, int) and item < len(data)
        if held:
            data = data[item]
            path = (*path, item)
    return path


def _at(data: Any, path: _Path) -> Any:
    for item in path:
        data = data[item]
    return data


def _place(spec: TaskSpec, path: _Path) -> Location:
    return spec.config_where.get(path) or spec.config_where.get((), spec.where)


def _unknown_key(spec: TaskSpec, task_class: type[Task], loc: _Path, path: _Path) -> Problem:
    keys = _keys(task_class.Config, path[:-1])
    name = str(loc[-1])
    within = "".join(f"{key!r} of " for key in (_dotted(path[:-1]),) if key)
    return Problem(
        _place(spec, path),
        f"unknown key {name!r} in {within}the config of task {spec.id!r}; "
        f"valid keys: {listed(keys)}" + nearest(name, keys),
    )


def _missing_key(spec: TaskSpec, loc: _Path, path: _Path) -> Problem:
    name = _dotted((*path, loc[-1]))
    return Problem(_place(spec, path), f"the config of task {spec.id!r} lacks {name!r}")


def _wrong_value(spec: TaskSpec, path: _Path, details: list[ErrorDetails]) -> Problem:
    name = f"{_dotted(path)!r} of task {spec.id!r}" if path else f"the config of task {spec.id!r}"
    own = _own_words(details, spec)
    if own:
        return Problem(_place(spec, path), f"{name}: {own}")
    if not path and details[0]["loc"]:  # a default, which the file does not hold
        value = masked = details[0]["input"]
    else:
        value, masked = _at(spec.config, path), _at(spec.masked_config, path)
    return Problem(_place(spec, path), f"{name} {_must_be(details, value, masked)}")


def _own_words(details: list[ErrorDetails], spec: TaskSpec) -> str:
    """What validators of the task's author said; empty where they said nothing."""
    own = [d for d in details if d["type"] in ("value_error", "assertion_error")]
    return ", ".join(mask_secrets(str(d["ctx"]["error"]), spec.secrets) for d in own)


def _must_be(details: list[ErrorDetails], value: Any, masked: Any) -> str:
    """`must be ...; got ...` for one value, whose errors are one for each member of a union."""
    expected = list(dict.fromkeys(_expected(detail) for detail in details))
    hint = ""
    if isinstance(value, str) and masked == value:
        options = [
            option
            for detail in details
            if detail["type"] in ("literal_error", "enum")
            for option in detail["ctx"]["expected"].replace(" or ", ", ").split(", ")
        ]
        hint = nearest(value, [option.strip("'") for option in options])
    return f"must be {', or '.join(expected)}; got {described(masked)}{hint}"


def _expected(detail: ErrorDetails) -> str:
    words = _EXPECTED.get(detail["type"])
    if words is not None:
        return words(detail.get("ctx", {}))
    text = detail["msg"].removeprefix("Input should be ").removeprefix("Value should be ")
    return text[:1].lower() + text[1:]


def _raised(error: BaseException, spec: TaskSpec) -> str:
    return mask_secrets(worded(error).partition("\n")[0], spec.secrets)


def _keys(model: type[BaseModel], path: _Path) -> list[str]:
    """The keys of the model at `path` below `model`, through unions, lists and mappings.

    Of a union's members, only the one whose tag is in `path` counts, if there is one.
    """
    models: list[Any] = [model]
    for item in path:
        below: list[Any] = []
        for found in models:
            if isinstance(item, str) and item in found.model_fields:
                below += _models_in(found.model_fields[item].annotation)
        tagged = [found for found in models if _tag(found) == item]
        models = below or tagged or models
    return list(dict.fromkeys(name for found in models for name in found.model_fields))


def _tag(model: type[BaseModel]) -> Any:
    """The value of `type` by which a union knows this member."""
    field = model.model_fields.get("type")
    return None if field is None else field.default


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for item in typing.get_args(annotation) for model in _models_in(item)]


def path_of(key: str) -> _Path:
    """The path of a key that is written as in a problem: `backends.gpu.base_url[1]`."""
    parts = re.findall(r"[^.\[\]]+|\[\d+\]", key)
    return tuple(int(part[1:-1]) if part[0] == "[" else part for part in parts)


def _dotted(path: _Path) -> str:
    text = ""
    for item in path:
        text += f"[{item}]" if isinstance(item, int) else f".{item}" if text else item
    return text


def changed_keys(old: TaskConfig, new: TaskConfig) -> frozenset[str]:
    """The keys in which two configurations of one task differ."""
    return frozenset(
        key for key in type(new).model_fields if getattr(old, key) != getattr(new, key)
    )
