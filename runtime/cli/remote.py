"""A part of a run that a server has, fetched to be debugged or replayed here.

`flowrun debug http://box:3000` is about the run that goes on there, and takes a link of its page to a
moment, as `http://box:3000/?run=ID&cycle=120`. What is fetched replays: it begins at a keyframe.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from flowrun.runtime.atomic import file_name
from flowrun.runtime.cli.client import Client, RefusedError
from flowrun.runtime.errors import UsageError
from flowrun.runtime.printing import print_text
from flowrun.runtime.wording import mask_urls, one_line

__all__ = ["RemoteRun", "fetched", "run_argument"]

_RUN = {"id": str, "state": str, "cycles": object, "started_ns": (int, None)}
_NEWEST, _AROUND = 1000, 500
"""How many cycles are fetched: the newest ones; before and after one that the address names."""


@dataclass(frozen=True, slots=True)
class RemoteRun:
    """A run of a server. Its text is the address without secrets."""

    address: str

    def __str__(self) -> str:
        return mask_urls(self.address)


def run_argument(text: str) -> Path | RemoteRun:
    """What the argument RUN of a verb means: a path, or the address of a server."""
    return RemoteRun(text) if re.match("https?://", text) else Path(text)


def fetched(run: Path | RemoteRun, *, token: str | None = None) -> Path:
    """The path of `run`. Of a server's, cycles are fetched into a file of the working directory first,
    and a line says which.

    Raises `RefusedError` for a server that cannot be reached or has no such run.
    """
    if isinstance(run, Path):
        return run
    asked = {name: values[-1] for name, values in parse_qs(urlsplit(run.address).query).items()}
    client = Client(argparse.Namespace(host="", port=0, url=run.address, token=token))
    id_ = asked.get("run") or _newest(client, run)
    about = client.get(f"runs/{id_}", dict)
    first, last = _cycles(about, asked.get("cycle"), run)
    path = Path(f"{file_name(f'{id_}-{first}-{last}')}.mcap")
    size = client.download(f"runs/{id_}/clip", path, query={"from": str(first), "to": str(last)})
    text = f"cycles {first} to {last} of {id_}, and those that they need, are in {path} ({size:,} bytes)"
    print_text(one_line(text))
    return path


def _newest(client: Client, run: RemoteRun) -> str:
    """The run that goes on; else the newest one."""
    runs = [it for it in client.get("runs", [_RUN]) if it["cycles"]]
    if not runs:
        raise RefusedError(f"{run}: the server has no run with a cycle")
    live = [it for it in runs if it["state"] == "running"]
    return str(max(live or runs, key=lambda it: it["started_ns"] or 0)["id"])


def _cycles(about: dict[str, object], cycle: str | None, run: RemoteRun) -> tuple[int, int]:
    first, last = about.get("first_cycle"), about.get("last_cycle")
    if not isinstance(first, int) or not isinstance(last, int):
        raise RefusedError(f"{run}: the run has no cycle yet")
    if cycle is None:
        return max(first, last - _NEWEST + 1), last
    if not cycle.isdigit() or not first <= int(cycle) <= last:
        raise UsageError(f"{run}: cycle={cycle}: expected one of {first} to {last}")
    return max(first, int(cycle) - _AROUND), min(last, int(cycle) + _AROUND)
