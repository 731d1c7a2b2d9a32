"""The `publish` of a message class whose fields are all scalars, compiled for these fields."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from flowrun.msgs.envelope import TIME_ENDS
from flowrun.msgs.fields import is_unicode

__all__ = ["quick_publish", "quick_test"]


def quick_publish(
    tests: Mapping[str, str], publish_any: Callable[..., None]
) -> Callable[..., None]:
    """`Message.publish` for a class of scalars: one function, compiled once, which tests the types of
    the fields and leaves all that is not sure to the general one. A loop over the fields would take six
    times as long, and publishing is what the tasks of a graph do most often.

    tests: what `sure_tests` gave.
    publish_any: `Message.publish`.
    """
    fields = list(enumerate(tests.items()))
    condition = " and ".join(
        [f"len(own) == {len(fields)}", *(test.format(f"v{i}") for i, (_, test) in fields)]
    )
    lines = [
        "def publish(self, *, tov_ns=None):",
        "    envelope = self.envelope",
        "    own = envelope.own",
        "    try:",
        *(f"        v{i} = own[{name!r}]" for i, (name, _) in fields),
        "        pass",
        "    except KeyError:",  # a field was deleted
        "        return publish_any(self, tov_ns=tov_ns)",
        f"    if not (envelope.is_open and {condition}):",
        "        return publish_any(self, tov_ns=tov_ns)",
        "    now_ns = self._now.now_ns",
        "    if tov_ns is None or tov_ns is now_ns:",
        "        envelope.tov_ns = now_ns",
        f"    elif type(tov_ns) is int and 0 <= tov_ns < {TIME_ENDS}:",
        "        envelope.tov_ns = tov_ns",
        "    else:",
        "        return publish_any(self, tov_ns=tov_ns)",
        "    shown = envelope.fields",
        *(f"    shown[{name!r}] = v{i}" for i, (name, _) in fields),
        "    envelope.present = True",
    ]
    made: dict[str, Any] = {
        "__name__": __name__,
        "is_unicode": is_unicode,
        "publish_any": publish_any,
    }
    exec("\n".join(lines), made)  # noqa: S102  # of names that are identifiers
    publish: Callable[..., None] = functools.wraps(publish_any)(made["publish"])
    return publish


def quick_test(tests: Mapping[str, str]) -> Callable[[Mapping[str, Any]], bool]:
    """Whether the log gives all these fields of a message back as they are; it must have them all.

    tests: what `sure_tests` gave.
    """
    fields = list(enumerate(tests.items()))
    condition = " and ".join(test.format(f"v{i}") for i, (_, test) in fields)
    lines = [
        "def is_sure(own):",
        *(f"    v{i} = own[{name!r}]" for i, (name, _) in fields),
        f"    return {condition or True}",
    ]
    made: dict[str, Any] = {"__name__": __name__, "is_unicode": is_unicode}
    exec("\n".join(lines), made)  # noqa: S102  # of names that are identifiers
    is_sure: Callable[[Mapping[str, Any]], bool] = made["is_sure"]
    return is_sure
