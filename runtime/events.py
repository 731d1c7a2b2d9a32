"""What happens to a run in a cycle, beside its messages: the records of `/flowrun/control`."""

from __future__ import annotations

from typing import Any

__all__ = ["Event", "event"]

Event = dict[str, Any]
"""{kind, task, key, value, input_cycle}; see `event`."""


def event(
    kind: str, task: str = "", *, key: str = "", value: Any = None, input_cycle: int = -1
) -> Event:
    """One record, as the log holds it.

    kind "set": of the task's config, the keys of `value` became its values.
    kind "completion": background results of the cycle `input_cycle` appear in this one; `value` is
        true if the task was restarted before it made them.
    kind "end_of_source": the source said that nothing more will come.
    kind "error": the task raised; `value` is the text, `key` the policy that was applied.
    kind "restart": the task was made and started anew.
    kind "dropped": the source left out `value` pictures, or whatever it makes.
    kind "replaced": newer inputs of the background task took the place of those of `input_cycle`,
        which it will not see.
    A replay needs neither of the last two: they say what was not there to be fed.
    """
    return {"kind": kind, "task": task, "key": key, "value": value, "input_cycle": input_cycle}
