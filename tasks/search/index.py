"""An index of recorded pictures: where they are, their vectors, and what was said of them.

Places and words are in an SQLite file; vectors are in a file next to it, a row of float32 numbers for
each picture, which is mapped into memory. A vector is on the disk before its row is in the SQLite file,
so what a killed process or a power cut leaves is a correct beginning.
"""

from __future__ import annotations

import fcntl
import math
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from flowrun.runtime.errors import UsageError
from flowrun.runtime.testbench.store import is_damaged, opened
from flowrun.tasks.search.words import fit, folded

__all__ = ["Index", "Picture", "Said", "Scored"]

_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY, path TEXT UNIQUE, stamp TEXT);
CREATE TABLE IF NOT EXISTS parts
    (run INTEGER, topic TEXT, part INTEGER, next INTEGER, PRIMARY KEY (run, topic, part)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pictures
    (row INTEGER PRIMARY KEY, run INTEGER, topic TEXT, cycle INTEGER, time_ns INTEGER, task TEXT);
CREATE INDEX IF NOT EXISTS pictures_of ON pictures (run, cycle);
CREATE TABLE IF NOT EXISTS texts (id INTEGER PRIMARY KEY, text TEXT UNIQUE, folded TEXT);
CREATE TABLE IF NOT EXISTS said
    (text INTEGER, run INTEGER, topic TEXT, cycle INTEGER, time_ns INTEGER, task TEXT, by_model INTEGER);
CREATE INDEX IF NOT EXISTS said_text ON said (text);
CREATE INDEX IF NOT EXISTS said_of ON said (run, cycle);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(folded, content='', columnsize=1);
CREATE VIRTUAL TABLE IF NOT EXISTS terms USING fts5vocab(words, 'row');
"""
_FLOAT = np.dtype("<f4")
_TEXT_BITS = 40
"""A row of `words` has the number of the text in its low bits, and how many words that has above them:
rows come in their order at no cost, so the shortest texts come first, unranked."""
_TEXT_MASK = (1 << _TEXT_BITS) - 1
_TEXTS_LOOKED_AT = 500
_WORDS_LOOKED_FOR = 8
_OFTEN = 0.3
"""Words in more than this part of all texts find none by themselves, where there are rarer ones."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture: where it is.

    run: the path of its run, relative to the folder of the index. task: the camera.
    """

    run: str
    topic: str
    cycle: int
    time_ns: int
    task: str


@dataclass(frozen=True, slots=True)
class Said:
    """What was said of a picture: by a task of the run, or by the index's own model."""

    picture: Picture
    text: str
    by_model: bool = False


@dataclass(frozen=True, slots=True)
class Scored:
    """A picture that was found. score: how well it fits, up to 1. text: what was said of it."""

    score: float
    picture: Picture
    text: str = ""


class Index:
    """The index in the files of that `path`, with the suffixes `.sqlite` and `.vectors`; it is made
    where there is none. `UsageError` where it cannot be, and at the end of a `with` in which the files
    could not be read or written."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.sqlite")
        self._vectors_path = path.with_name(f"{path.name}.vectors")
        self._lock_path = path.with_name(f"{path.name}.lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._file = opened(self.path, _TABLES)
            except sqlite3.DatabaseError as error:
                if not is_damaged(error):
                    raise
                self.remove()  # all of it is derived
                self._file = opened(self.path, _TABLES)
        except (OSError, sqlite3.Error) as error:
            raise UsageError(
                f"{path.parent}: no index can be kept there: {error}; name a folder with --index"
            ) from error
        self._mapped: NDArray[np.float32] | None = None

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
        for path in (self.path, self._vectors_path):
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
            self._say(
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
            self._say(
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

    def _say(self, rows: Iterable[tuple[str, int, str, int, int, str, int]]) -> None:
        new: list[tuple[int, str]] = []
        for text, *where in rows:
            found = self._file.execute("SELECT id FROM texts WHERE text = ?", (text,)).fetchone()
            if found is None:
                words = folded(text)
                number = self._file.execute(
                    "INSERT INTO texts VALUES (NULL, ?, ?)", (text, " ".join(words))
                ).lastrowid
                assert number is not None
                new.append((len(words) << _TEXT_BITS | number, " ".join(words)))
            else:
                [number] = found
            self._file.execute("INSERT INTO said VALUES (?, ?, ?, ?, ?, ?, ?)", (number, *where))
        # In their order: FTS5 writes a segment of its own for each row that comes before the last one.
        self._file.executemany("INSERT INTO words (rowid, folded) VALUES (?, ?)", sorted(new))

    def _append(self, vectors: NDArray[np.float32]) -> range:
        """Write vectors at the end of their file; gives their rows."""
        dimension = vectors.shape[1]
        known = self._fact("dimension")
        if known is None:
            self._file.execute("INSERT INTO facts VALUES ('dimension', ?)", (dimension,))
        assert known in (None, dimension)
        try:
            with self._vectors_path.open("ab") as file:
                first = file.tell() // (dimension * _FLOAT.itemsize)
                file.write(np.ascontiguousarray(vectors, _FLOAT).tobytes())
                file.flush()
                os.fdatasync(file.fileno())
        except OSError as error:
            raise self._unusable(error) from error
        return range(first, first + len(vectors))

    def _drop_torn(self) -> None:
        """Have both files end with the same picture, after a process was killed between them."""
        dimension = self._fact("dimension") or 0
        size = self._vectors_path.stat().st_size if self._vectors_path.exists() else 0
        rows = size // (dimension * _FLOAT.itemsize) if dimension else 0
        [(most,)] = self._file.execute("SELECT MAX(row) FROM pictures")
        if most is not None and most >= rows:  # somebody removed or cut the file of vectors
            with self._transaction():
                for table in ("pictures", "said", "parts", "runs", "facts"):
                    self._file.execute(f"DELETE FROM {table}")  # noqa: S608  # of these names
            rows = 0
        if size and size != rows * dimension * _FLOAT.itemsize:
            os.truncate(self._vectors_path, rows * dimension * _FLOAT.itemsize)

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
        vectors = self._vectors()
        if not len(vectors):
            return []
        scores = vectors @ np.asarray(vector, np.float32)
        found: list[Scored] = []
        chosen = set(runs)
        for row in _best_first(scores, count):
            known = self._file.execute(
                "SELECT path, topic, cycle, time_ns, task FROM pictures JOIN runs ON runs.id = run "
                "WHERE row = ?",
                (int(row),),
            ).fetchone()
            if known is not None and known[0] in chosen:
                found.append(Scored(float(scores[row]), Picture(*known)))
                if len(found) == count:
                    break
        return [Scored(it.score, it.picture, self._said_of(it.picture)) for it in found]

    def saying(self, text: str, count: int, *, runs: Sequence[str]) -> list[Scored]:
        """The pictures of which something was said that has most of the words of `text`."""
        asked = folded(text)
        if not asked:
            return []
        weights = self._weights(asked)
        if not weights:
            return []
        unheard = math.log(2.0 + self._texts())
        score = fit(asked, lambda word: weights.get(word, unheard))
        scored = sorted(
            (
                (score(words), -len(said), number, said)
                for number, said, words in self._like(asked, weights, count)
            ),
            reverse=True,
        )
        found: list[Scored] = []
        chosen = set(runs)
        seen: set[tuple[str, str, int]] = set()
        for fits, _, number, said in scored:
            for known in self._file.execute(
                "SELECT path, topic, cycle, time_ns, task FROM said JOIN runs ON runs.id = run "
                "WHERE text = ? ORDER BY path, cycle",
                (number,),
            ):
                picture = Picture(*known)
                where = picture.run, picture.topic, picture.cycle
                if picture.run in chosen and where not in seen:
                    seen.add(where)
                    found.append(Scored(fits, picture, said))
                    if len(found) == count:
                        return found
        return found

    def _like(
        self, asked: tuple[str, ...], weights: Mapping[str, float], count: int
    ) -> Iterator[tuple[int, str, tuple[str, ...]]]:
        """Texts that may fit: those with all words in that order, then those with all words, the
        shortest first of both, then those with some, by bm25; no more kinds than give `count` of them.
        Number, text and folded words of each."""
        there = [word for word in dict.fromkeys(asked) if word in weights]
        rare = [word for word in there if weights[word] > math.log(1 + 1 / _OFTEN)]
        pairs = [" ".join(asked[at : at + 2]) for at in range(len(asked) - 1)]
        some = sorted(rare, key=lambda word: -weights[word])[:_WORDS_LOOKED_FOR] or there
        seen: set[int] = set()
        kinds = (
            ("rowid", " ", [" ".join(asked)]),
            ("rowid", " ", there),
            ("rank", " OR ", [*some, *pairs]),
        )
        for order, joined, parts in kinds:
            best = f"SELECT rowid FROM words WHERE words MATCH ? ORDER BY {order} LIMIT ?"  # noqa: S608  # one of two
            rows = self._file.execute(
                f"SELECT id, text, folded FROM ({best}) AS best JOIN texts ON id = best.rowid & ?",  # noqa: S608
                (joined.join(f'"{part}"' for part in parts), _TEXTS_LOOKED_AT, _TEXT_MASK),
            )
            for number, text, words in rows:
                if number not in seen:
                    seen.add(number)
                    yield number, text, tuple(words.split())
            if len(seen) >= count:
                return

    def _weights(self, asked: Sequence[str]) -> dict[str, float]:
        """How much each word of `asked` that was said says: the rarer, the more."""
        total = self._texts()
        found: dict[str, float] = {}
        for word in dict.fromkeys(asked):
            row = self._file.execute("SELECT doc FROM terms WHERE term = ?", (word,)).fetchone()
            if row is not None:
                found[word] = math.log(1 + total / row[0])
        return found

    def _texts(self) -> int:
        """Number of texts, of which none is ever removed."""
        [(most,)] = self._file.execute("SELECT MAX(id) FROM texts")
        return int(most or 0)

    def _said_of(self, picture: Picture) -> str:
        row = self._file.execute(
            "SELECT texts.text FROM said JOIN texts ON texts.id = said.text WHERE topic = ? "
            "AND cycle = ? AND run = (SELECT id FROM runs WHERE path = ?) ORDER BY by_model LIMIT 1",
            (picture.topic, picture.cycle, picture.run),
        ).fetchone()
        return "" if row is None else str(row[0])

    def _vectors(self) -> NDArray[np.float32]:
        if self._mapped is None:
            dimension = self._fact("dimension")
            size = self._vectors_path.stat().st_size if self._vectors_path.exists() else 0
            rows = size // (dimension * _FLOAT.itemsize) if dimension else 0
            if not rows:
                return np.empty((0, 1), np.float32)
            self._mapped = np.memmap(
                self._vectors_path, _FLOAT, mode="r", shape=(rows, dimension or 0)
            )
        return self._mapped


def _best_first(scores: NDArray[np.float32], count: int) -> Iterator[int]:
    """The places of the scores, the best first; sorts no more than are asked for."""
    given = 0
    while given < len(scores):
        upto = min(len(scores), max(2 * count, 4 * given, 64))
        places = np.argpartition(-scores, upto - 1)[:upto]
        ordered = places[np.lexsort((places, -scores[places]))]
        yield from ordered[given:].tolist()
        given = upto
