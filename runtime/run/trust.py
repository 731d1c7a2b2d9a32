"""Whose run a log is: a signature, made with a key that only the user's own account can read.

A replay runs what the log's graph names: code in the folder of the graph, commands of model servers. A
log that somebody sent must not decide that, so each run is signed when it begins, and only a run with
the signature of the user who replays it is taken at its word. The key is 32 random bytes in
`$XDG_DATA_HOME/flowrun/key` (`~/.local/share/flowrun/key`), made by the first run.

The signature is an HMAC-SHA-256 of everything in the log that decides what a replay runs: the graph's
text and path, the hashes of the tasks' code, the config values and fed tasks of a replay, and the run's
id. It does not depend on where the log is: a run may be moved and copied.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from flowrun.runtime.errors import NoKey
from flowrun.runtime.wording import storable

__all__ = ["signed", "user_key", "why_not_own"]

_SIGNATURE = "signature"
_DECIDE = (
    "run_id",
    "graph",
    "graph_path",
    "replay_set",
    "replay_fed",
    "environment",
    "mission",
    "partition",
)
"""Keys of the metadata that decide, or say, what a replay runs."""
_CODE = "code_"
"""The prefix of those that hold the hashes of the tasks' code."""
_KEY_BYTES = 32
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def signed(
    metadata: Mapping[str, str], graph_text: bytes, env: Mapping[str, str]
) -> dict[str, str]:
    """`metadata`, as a log begins with it, and the user's signature. `NoKey` if there can be none.

    graph_text: the graph file, as the log holds it.
    env: the environment variables that say where the user's data folder is.
    """
    return {**metadata, _SIGNATURE: _signature(user_key(env), metadata, graph_text)}


def why_not_own(
    metadata: Mapping[str, str], graph_text: bytes, env: Mapping[str, str]
) -> str | None:
    """Why a run cannot be known to be the user's own; None if it is.

    metadata: that of the log.
    graph_text: the graph file, as the log holds it.
    env: the environment variables that say where the user's data folder is.
    """
    found = metadata.get(_SIGNATURE)
    if found is None:
        return "it is not signed"
    try:
        key = user_key(env)
    except NoKey as error:
        return f"its signature cannot be checked: {error}"
    if hmac.compare_digest(found.encode(), _signature(key, metadata, graph_text).encode()):
        return None
    return "it is signed with another key than yours, or was changed"


def user_key(env: Mapping[str, str]) -> bytes:
    """The user's key, made now if there is none. Of several processes that make it, one does.

    `NoKey` says why there can be none: no home, a folder that cannot be written, a key that others can
    read.
    """
    try:
        path = _data_folder(env) / "key"
    except RuntimeError as error:
        raise NoKey(f"there is no home folder for the key: {error}") from error
    try:
        return _read(path) or _make(path)
    except OSError as error:
        raise NoKey(f"the key {path}: {error.strerror}") from error


def _data_folder(env: Mapping[str, str]) -> Path:
    given = Path(env.get("XDG_DATA_HOME", ""))
    if not given.is_absolute():  # as the specification says
        home = env.get("HOME", "")
        given = (Path(home) if home else Path.home()) / ".local" / "share"
    return given / "flowrun"


def _read(path: Path) -> bytes | None:
    """The key in `path`; None where it is missing, or is being made."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with closing(os.fdopen(fd, "rb")) as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise NoKey(f"the key {path} is not a file")
        if found.st_uid != os.geteuid() != 0:
            raise NoKey(f"the key {path} belongs to another user")
        if found.st_mode & _OTHERS:
            raise NoKey(
                f"the key {path} can be read by other users, who can sign with it; remove it, and "
                "flowrun makes another"
            )
        key = file.read(_KEY_BYTES + 1)
    if key and len(key) != _KEY_BYTES:
        raise NoKey(f"the key {path} is damaged; remove it, and flowrun makes another")
    return key or None


def _make(path: Path) -> bytes:
    folder = path.parent
    there = next(it for it in (folder, *folder.parents) if it.exists())
    if os.geteuid() == 0 and there.stat().st_uid != 0:
        # As with `sudo -E`: the user whose home it is could never read the key.
        raise NoKey(f"{there} belongs to another user, for whom no key is made")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with closing(os.fdopen(fd, "r+b", buffering=0)) as file:
        fcntl.flock(fd, fcntl.LOCK_EX)
        key = file.read(_KEY_BYTES)
        if not key:
            key = secrets.token_bytes(_KEY_BYTES)
            file.write(key)
            os.fsync(fd)
    return key


def _signature(key: bytes, metadata: Mapping[str, str], graph_text: bytes) -> str:
    said = [[name, storable(metadata[name])] for name in _DECIDE if name in metadata]
    said += sorted(
        [name, storable(text)] for name, text in metadata.items() if name.startswith(_CODE)
    )
    said.append(["graph_text", hashlib.sha256(graph_text).hexdigest()])
    return hmac.new(key, json.dumps(said).encode(), hashlib.sha256).hexdigest()
