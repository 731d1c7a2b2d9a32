"""Whether recorded messages still fit the classes of today, and how they come to fit.

A replay feeds recorded messages to tasks of today. A field that was renamed since would be read as its
default, and one of another type as what the task does not expect: so the recorded schema is compared
with the class before anything runs, and each value is checked when it is fed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from flowrun.msgs.message import Message
from flowrun.runtime.errors import ReplayError
from flowrun.runtime.wording import listed

__all__ = ["Migration", "migration_of", "recorded_fields"]

Migration = Callable[[dict[str, Any]], dict[str, Any]]
"""Makes a recorded message's fields those of today's class."""


def recorded_fields(schema: bytes, encoding: str) -> dict[str, Any] | None:
    """The fields of a recorded message and how its schema describes each; None for a schema that is
    not of a class whose fields msgpack holds."""
    if encoding != "jsonschema":
        return None
    try:
        properties = json.loads(schema)["properties"]
    except (ValueError, KeyError, TypeError):
        return None  # another writer's
    return properties if isinstance(properties, dict) else None


def migration_of(
    topic: str,
    kind: type[Message],
    recorded: Mapping[str, Any],
    *,
    note: Callable[[str], None],
) -> Migration | None:
    """How the messages of `topic` are made to fit `kind`; None if they are fed as they are.

    recorded: what `recorded_fields` gave.
    note: called with a sentence on what has changed.

    Raises `ReplayError` if fields seem to have been renamed, and the class has no `migrate`.
    """
    now = json.loads(kind.schema())["properties"]
    gone = [name for name in recorded if name not in now]
    new = [name for name in now if name not in recorded]
    other = [name for name in now if name in recorded and now[name] != recorded[name]]
    if not (gone or new or other):
        return None
    name = kind.__name__
    changes = [f"{it} is no longer a field" for it in gone]
    changes += [f"{it} is new" for it in new]
    changes += [f"{it} has another type" for it in other]
    if kind.has_migration():
        note(
            f"{topic}: recorded with another {name} ({listed(changes)}): fed as {name}.migrate says"
        )
        return lambda fields: _migrated(topic, kind, fields)
    if gone and new:
        raise ReplayError(
            f"{topic} was recorded with another {name}: {listed(changes)}. If a field was renamed, say "
            f"so in {name}.migrate, a class method from the recorded fields to those of today"
        )
    if gone:
        note(f"{topic} was recorded with {listed(gone)}, which {name} no longer has: left out")
    if new:
        note(f"{topic} was recorded without {listed(new)}: fed as {name}'s default")
    if other:
        note(f"{topic} was recorded with another type of {listed(other)}: each value is checked")
    return None


def _migrated(topic: str, kind: type[Message], fields: dict[str, Any]) -> dict[str, Any]:
    name = kind.__name__
    try:
        made = kind.migrate(fields)
    except Exception as error:
        raise ReplayError(
            f"{topic}: {name}.migrate raised {type(error).__name__}: {error}"
        ) from error
    if not isinstance(made, dict):
        raise ReplayError(
            f"{topic}: {name}.migrate returned {type(made).__name__}; expected a dict"
        )
    unknown = [field for field in made if field not in kind.defaults]
    if unknown:
        raise ReplayError(
            f"{topic}: {name}.migrate returned {listed(map(str, unknown))}; fields: "
            f"{listed(kind.defaults)}"
        )
    return made
