"""Results kept by what they depend on, in one SQLite file of the user: what was computed once is not
computed again, also after Ctrl-C, kill -9 or a power cut.

Any number of processes use it at the same time. Nothing in it is needed: it can be removed at any time,
a damaged one is moved aside, and on a full disk work goes on, whose results are not kept.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgpack

from flowrun.runtime.errors import UsageError

__all__ = ["Store", "is_damaged", "key_of", "opened", "store_path"]

_TABLE = "CREATE TABLE IF NOT EXISTS results (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID"
_WAIT_S = 30.0
_AT_ONCE = 500
"""Keys that are asked for in one statement; SQLite takes 999 at least."""
_OF_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_PRIMARY = 0xFF
"""The bits of an SQLite error code that say what it is; the others say where."""


def store_path(env: Mapping[str, str]) -> Path:
    """The user's own store: `$XDG_CACHE_HOME/flowrun/results.sqlite`, by default below `~/.cache`."""
    base = env.get("XDG_CACHE_HOME", "")
    folder = (
        Path(base) if base.startswith("/") else Path(env.get("HOME", "~")).expanduser() / ".cache"
    )
    return folder / "flowrun" / "results.sqlite"


def key_of(*parts: Any) -> bytes:
    """The key of a result that depends on `parts`: None, numbers, texts, bytes, lists and dicts of
    these."""
    return hashlib.sha256(msgpack.packb(_ordered(parts))).digest()


def _ordered(value: Any) -> Any:
    if value is None or isinstance(
        value, (str, int, float, bytes)
    ):  # most of all, and quickly known
        return value
    if isinstance(value, (list, tuple)):
        return [_ordered(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _ordered(value[name]) for name in sorted(value)}
    return value


def opened(path: Path, tables: str) -> sqlite3.Connection:
    """The SQLite file at `path`, made with `tables` where there is none, for any number of processes; a
    killed one leaves what it has committed. `sqlite3.DatabaseError` where it cannot be read or made;
    `is_damaged` says which of these mean that it is no database."""
    file = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)
    try:
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = NORMAL")
        file.executescript(tables)
    except sqlite3.Error:
        file.close()
        raise
    return file


def is_damaged(error: sqlite3.Error) -> bool:
    """Whether the bytes of the file are wrong, rather than the disk full, or the file not to be written
    or in use."""
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY in _OF_DAMAGE


class Store:
    """The results in the file at `path`, which is made where there is none. `UsageError` where it
    cannot be.

    problem: why results are not kept any more, in a sentence; None while they are.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: str | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._file = opened(path, _TABLE)
            except sqlite3.DatabaseError as error:
                if not is_damaged(error):
                    raise
                self._begin_again()
        except (OSError, sqlite3.Error) as error:
            raise UsageError(
                f"{path}: no results can be kept there: {error}; choose another folder"
            ) from error

    def _begin_again(self) -> None:
        """Move the damaged file aside, and open a new one."""
        self.path.replace(self.path.with_suffix(".damaged"))
        for left in ("-wal", "-shm"):
            self.path.with_name(self.path.name + left).unlink(missing_ok=True)
        self._file = opened(self.path, _TABLE)

    def _fail(self, error: Exception) -> None:
        """Keep nothing from now on, unless a new file takes the place of a damaged one."""
        if isinstance(error, sqlite3.Error) and is_damaged(error):
            self.close()
            try:
                self._begin_again()
            except (OSError, sqlite3.Error) as worse:
                error = worse
            else:
                return
        self.problem = f"{self.path}: results are not kept: {error}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the file back."""
        with suppress(sqlite3.Error):
            self._file.close()

    def get(self, keys: Collection[bytes]) -> dict[bytes, Any]:
        """The results of those of `keys` that there are; of a damaged file, those that it gave."""
        wanted = list(keys)
        found: dict[bytes, Any] = {}
        for begin in range(0, len(wanted), _AT_ONCE):
            part = wanted[begin : begin + _AT_ONCE]
            marks = ",".join("?" * len(part))
            try:
                rows = self._file.execute(
                    f"SELECT key, value FROM results WHERE key IN ({marks})",  # noqa: S608  # marks
                    part,
                ).fetchall()
            except sqlite3.Error as error:
                self._fail(error)
                break
            for key, value in rows:
                with suppress(ValueError, TypeError, msgpack.UnpackException):
                    found[key] = msgpack.unpackb(value, strict_map_key=False)
        return found

    def put(self, results: Iterable[tuple[bytes, Any]]) -> None:
        """Keep results: each is None, a number, a text, bytes, a list or a dict. They are there for all
        processes when this returns, unless `problem` says why not, as of a full disk."""
        rows = [(key, msgpack.packb(value)) for key, value in results]
        if self.problem is not None:
            return
        try:
            with self._file:
                self._file.execute("BEGIN IMMEDIATE")
                self._file.executemany("INSERT OR REPLACE INTO results VALUES (?, ?)", rows)
                self._file.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            self._fail(error)
