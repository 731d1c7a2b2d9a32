"""How far this process has come with each of its senders: what its own logs say.

The origins that it logged say so. As retention and flight recorders remove them, the position stands
again in a run's metadata, as of its beginning, and at the beginning of each slab.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgpack

from flowrun.runtime.events import Reached
from flowrun.runtime.graph.plan import Plan
from flowrun.runtime.links.runs import Cursor, Runs
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.bytes import Damage
from flowrun.runtime.log.slab.cycles import Entry
from flowrun.runtime.log.slab.format import CONTROL_TOPIC, REACHED
from flowrun.runtime.log.slab.reader import SlabReader

__all__ = ["began_with", "last_cursor", "reached_before", "reached_in", "said_of"]


def reached_before(plan: Plan, directory: Path) -> dict[str, Cursor]:
    """By source task, the first cycle of its sender that is not in the logs of the process whose next
    run is to be logged at `directory`; nothing for a source of which they say nothing.

    `LogError` where one of them cannot be read.
    """
    spec = plan.graph.spec
    assert spec.part is not None
    runs = Runs(directory.parent, graph=spec.name, partition=str(spec.part))
    paths = [it.path for it in reversed(runs.look())]
    return reached_in(paths, [it.source for it in plan.graph.receives])


def reached_in(paths: Sequence[Path], sources: Collection[str]) -> dict[str, Cursor]:
    """`reached_before` for these sources, as the runs at `paths` say, all of one process, the newest
    first.

    Records of any run count before the metadata of a newer one: a process that was turned away, since
    another with its name was at work, has in its metadata how far that one was then.
    """
    found: dict[str, Cursor] = {}
    for read in (last_cursor, began_with):
        for path in paths:
            left = [it for it in sources if it not in found]
            if not left:
                break
            with Log(path) as log:
                cursors = {source: read(log, source) for source in left}
            found |= {source: it for source, it in cursors.items() if it is not None}
    return found


def said_of(reached: Mapping[str, Cursor]) -> dict[str, str]:
    """`reached_before` as the metadata of a run has it."""
    return {REACHED: json.dumps(reached)} if reached else {}


def last_cursor(log: Log, source: str) -> Cursor | None:
    """The cursor after the last of its sender's cycles that `source` brought into a log, or into one
    before it, by the log's records; None where they do not say. Chunks whose index says that they hold
    nothing of it are not read."""
    topics = {f"/{source}/origin", CONTROL_TOPIC}
    for slab in reversed(log.slabs):
        numbers = {number for number, it in slab.preamble.channels.items() if it.topic in topics}
        for index in reversed(range(len(slab.structure.chunks))):
            places = slab.places(index)
            if places is None or not numbers.isdisjoint(places):
                found = _last_in(slab, index, source)
                if found is not None:
                    return found
    return None


def began_with(log: Log, source: str) -> Cursor | None:
    """What the metadata of a log say of a source, as of the run's beginning."""
    with contextlib.suppress(AttributeError, TypeError, ValueError):
        run, cycle = json.loads(log.metadata.get(REACHED, "{}")).get(source, ())
        return Cursor(int(run), int(cycle))
    return None


def _last_in(slab: SlabReader, index: int, source: str) -> Cursor | None:
    """The last one in a chunk, as far as that can be read."""
    found = None
    with contextlib.suppress(Damage):
        for _, _, _, _, entries in slab.cycles.records(index, None):
            for entry in entries:
                found = _cursor_of(entry, source) or found
    return found


def _cursor_of(entry: Entry, source: str) -> Cursor | None:
    topic, _, payload = entry
    if topic == f"/{source}/origin":
        fields = msgpack.unpackb(payload)
        return Cursor(fields["run"], fields["cycle"] + 1)
    if topic == CONTROL_TOPIC:
        record = msgpack.unpackb(payload)
        if record["kind"] == Reached.kind and record["task"] == source:
            return Cursor(*record["value"])
    return None
