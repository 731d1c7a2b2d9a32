"""An index of recorded pictures: where they are, their vectors, and what was said of them.

Places and words are in an SQLite file, vectors in a file next to it. A vector is on the disk before its
row is in the SQLite file, so what a killed process or a power cut leaves is a correct beginning.
"""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from flowrun.runtime.errors import UsageError
from flowrun.runtime.testbench.store import is_damaged, opened
from flowrun.tasks.search.pictures import Picture, Said, Scored
from flowrun.tasks.search.texts import TABLES, Texts
from flowrun.tasks.search.vectors import Vectors, best_first

__all__ = ["Index"]

_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY, path TEXT UNIQUE, stamp TEXT);
CREATE TABLE IF NOT EXISTS parts
    (run INTEGER, topic TEXT, part INTEGER, next INTEGER, PRIMARY KEY (run, topic, part)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pictures
    (row INTEGER PRIMARY KEY, run INTEGER, topic TEXT, cycle INTEGER, time_ns INTEGER, task TEXT);
CREATE INDEX IF NOT EXISTS pictures_of ON pictures (run, cycle);
"""


class Index:
    """The index in the files of that `path`, with the suffixes `.sqlite` and `.vectors`; it is made
    where there is none. `UsageError` where it cannot be, and at the end of a `with` in which the files
    could not be read or written."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.sqlite")
        self._vectors = Vectors(path.with_name(f"{path.name}.vectors"))
        self._lock_path = path.with_name(f"{path.name}.lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._file = opened(self.path, _TABLES + TABLES)
            except sqlite3.DatabaseError as error:
                if not is_damaged(error):
                    raise
                self.remove()  # all of it is derived
                self._file = opened(self.path, _TABLES + TABLES)
        except (OSError, sqlite3.Error) as error:
            raise UsageError(
                f"{path.parent}: no index can be kept there: {error}; name a folder with --index"
            ) from error
        self._texts = Texts(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        if isinstance(error, sqlite3.Error):
            raise self._unusable(error) from error

    def close(self) -> None:
        """Give the files back."""
        with suppress(sqlite3.Error):
            self._file.close()

    def _unusable(self, error: Exception) -> UsageError:
        """What is wrong with the files, and what to do."""
        if isinstance(error, sqlite3.Error) and is_damaged(error):
            return UsageError(
                f"{self.path}: it is damaged: {error}; --rebuild makes the index again"
            )
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        return UsageError(
            f"{self.path.parent}: the index cannot be written: {said}; what is in it stays, and "
            "--index names another folder"
        )

    def remove(self) -> None:
        """Remove the files. Processes that have them open keep what they hold."""
        for path in (self.path, self._vectors.path):
            for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
                path.with_name(name).unlink(missing_ok=True)

    @contextmanager
    def writing(self) -> Iterator[bool]:
        """Whether nobody else fills the index, until the context ends."""
        with self._lock_path.open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
                return
            self._drop_torn()
            yield True

    # -- filling -------------------------------------------------------------------------------

    def stamps(self) -> dict[str, str]:
        """By the path of each run that is indexed, what it was like then."""
        return dict(self._file.execute("SELECT path, stamp FROM runs"))

    def begin_run(self, path: str) -> int:
        """The number of a run, which is not indexed as a whole from now on."""
        self._file.execute("INSERT OR IGNORE INTO runs VALUES (NULL, ?, '')", (path,))
        self._file.execute("UPDATE runs SET stamp = '' WHERE path = ?", (path,))
        [(number,)] = self._file.execute("SELECT id FROM runs WHERE path = ?", (path,))
        return int(number)

    def end_run(self, run: int, stamp: str) -> None:
        """A run is indexed as a whole, as it was when it had that stamp."""
        self._file.execute("UPDATE runs SET stamp = ? WHERE id = ?", (stamp, run))

    def forget(self, path: str, *, before: int | None = None) -> None:
        """Forget a run, or what of it comes before a cycle."""
        rows = self._file.execute("SELECT id FROM runs WHERE path = ?", (path,)).fetchall()
        with self._transaction():
            for (run,) in rows:
                for table in ("pictures", "said"):
                    self._file.execute(
                        f"DELETE FROM {table} WHERE run = ? AND cycle < ?",  # noqa: S608  # two names
                        (run, 2**62 if before is None else before),
                    )
                if before is None:
                    self._file.execute("DELETE FROM parts WHERE run = ?", (run,))
                    self._file.execute("DELETE FROM runs WHERE id = ?", (run,))

    def parts(self, run: int) -> dict[tuple[str, int], int]:
        """By topic and number of each part of a run, the cycle from which on it is not indexed."""
        rows = self._file.execute("SELECT topic, part, next FROM parts WHERE run = ?", (run,))
        return {(topic, part): after for topic, part, after in rows}

    def add(
        self,
        run: int,
        topic: str,
        part: int,
        after: int,
        task: str,
        pictures: Sequence[tuple[int, int, str]],
        vectors: NDArray[np.float32],
    ) -> None:
        """Add pictures of a part of a run: all or nothing, and on the disk.

        after: the cycle from which on the part is not indexed now.
        pictures: cycle, time and what the model says of each. vectors: float32 (N, D).
        """
        rows = self._append(vectors) if len(pictures) else range(0)
        with self._transaction():
            self._file.executemany(
                "INSERT INTO pictures VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (row, run, topic, cycle, time_ns, task)
                    for row, (cycle, time_ns, _) in zip(rows, pictures, strict=True)
                ],
            )
            self._texts.add(
                (text, run, topic, cycle, time_ns, task, 1)
                for cycle, time_ns, text in pictures
                if text
            )
            self._file.execute(
                "INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?)", (run, topic, part, after)
            )

    def replace_said(self, run: int, said: Iterable[Said]) -> None:
        """What tasks of a run have said, in place of what was known of that."""
        with self._transaction():
            self._file.execute("DELETE FROM said WHERE run = ? AND NOT by_model", (run,))
            self._texts.add(
                (
                    it.text,
                    run,
                    it.picture.topic,
                    it.picture.cycle,
                    it.picture.time_ns,
                    it.picture.task,
                    0,
                )
                for it in said
            )

    def _append(self, vectors: NDArray[np.float32]) -> range:
        """Write vectors at the end of their file; gives their rows."""
        dimension = vectors.shape[1]
        known = self._fact("dimension")
        if known is None:
            self._file.execute("INSERT INTO facts VALUES ('dimension', ?)", (dimension,))
        assert known in (None, dimension)
        try:
            return self._vectors.append(vectors)
        except OSError as error:
            raise self._unusable(error) from error

    def _drop_torn(self) -> None:
        """Have both files end with the same picture, after a process was killed between them."""
        dimension = self._fact("dimension") or 0
        rows = self._vectors.count(dimension)
        [(most,)] = self._file.execute("SELECT MAX(row) FROM pictures")
        if most is not None and most >= rows:  # somebody removed or cut the file of vectors
            with self._transaction():
                for table in ("pictures", "said", "parts", "runs", "facts"):
                    self._file.execute(f"DELETE FROM {table}")  # noqa: S608  # of these names
            rows = 0
        self._vectors.cut(rows, dimension)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._file:
            self._file.execute("BEGIN IMMEDIATE")
            yield
            self._file.execute("COMMIT")

    def _fact(self, name: str) -> int | None:
        row = self._file.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else int(row[0])

    # -- asking --------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Number of pictures."""
        [(count,)] = self._file.execute("SELECT COUNT(*) FROM pictures")
        return int(count)

    def near(self, vector: NDArray[np.float32], count: int, *, runs: Sequence[str]) -> list[Scored]:
        """The pictures whose vectors are nearest to one, the nearest first. Their score is the cosine.

        runs: those that are looked at.
        """
        vectors = self._vectors.mapped(self._fact("dimension") or 0)
        if not len(vectors):
            return []
        scores = vectors @ np.asarray(vector, np.float32)
        found: list[Scored] = []
        chosen = set(runs)
        for row in best_first(scores, count):
            known = self._file.execute(
                "SELECT path, topic, cycle, time_ns, task FROM pictures JOIN runs ON runs.id = run "
                "WHERE row = ?",
                (int(row),),
            ).fetchone()
            if known is not None and known[0] in chosen:
                found.append(Scored(float(scores[row]), Picture(*known)))
                if len(found) == count:
                    break
        return [Scored(it.score, it.picture, self._texts.of(it.picture)) for it in found]

    def saying(self, text: str, count: int, *, runs: Sequence[str]) -> list[Scored]:
        """The pictures of which something was said that has most of the words of `text`."""
        return self._texts.saying(text, count, runs=runs)
