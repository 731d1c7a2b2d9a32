"""What was said of pictures, and which of it has the words that are asked for: SQLite's FTS5."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence

from flowrun.tasks.search.pictures import Picture, Scored
from flowrun.tasks.search.words import fit, folded

__all__ = ["TABLES", "Texts"]

TABLES = """
CREATE TABLE IF NOT EXISTS texts (id INTEGER PRIMARY KEY, text TEXT UNIQUE, folded TEXT);
CREATE TABLE IF NOT EXISTS said
    (text INTEGER, run INTEGER, topic TEXT, cycle INTEGER, time_ns INTEGER, task TEXT, by_model INTEGER);
CREATE INDEX IF NOT EXISTS said_text ON said (text);
CREATE INDEX IF NOT EXISTS said_of ON said (run, cycle);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(folded, content='', columnsize=1);
CREATE VIRTUAL TABLE IF NOT EXISTS terms USING fts5vocab(words, 'row');
"""
_TEXT_BITS = 40
"""A row of `words` has the number of the text in its low bits, and how many words that has above them:
rows come in their order at no cost, so the shortest texts come first, unranked."""
_TEXT_MASK = (1 << _TEXT_BITS) - 1
_TEXTS_LOOKED_AT = 500
_WORDS_LOOKED_FOR = 8
_OFTEN = 0.3
"""Words in more than this part of all texts find none by themselves, where there are rarer ones."""


class Texts:
    """The texts of an index, in its SQLite file, whose table `runs` has the paths of runs."""

    def __init__(self, file: sqlite3.Connection) -> None:
        self._file = file

    def add(self, rows: Iterable[tuple[str, int, str, int, int, str, int]]) -> None:
        """Add what was said: text, run, topic, cycle, time and task, and whether the model said it."""
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

    def saying(self, text: str, count: int, *, runs: Sequence[str]) -> list[Scored]:
        """The pictures of which something was said that has most of the words of `text`."""
        asked = folded(text)
        if not asked:
            return []
        weights = self._weights(asked)
        if not weights:
            return []
        unheard = math.log(2.0 + self._count())
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

    def of(self, picture: Picture) -> str:
        """What was said of a picture, rather by a task than by the model; "" for nothing."""
        row = self._file.execute(
            "SELECT texts.text FROM said JOIN texts ON texts.id = said.text WHERE topic = ? "
            "AND cycle = ? AND run = (SELECT id FROM runs WHERE path = ?) ORDER BY by_model LIMIT 1",
            (picture.topic, picture.cycle, picture.run),
        ).fetchone()
        return "" if row is None else str(row[0])

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
        total = self._count()
        found: dict[str, float] = {}
        for word in dict.fromkeys(asked):
            row = self._file.execute("SELECT doc FROM terms WHERE term = ?", (word,)).fetchone()
            if row is not None:
                found[word] = math.log(1 + total / row[0])
        return found

    def _count(self) -> int:
        """Number of texts, of which none is ever removed."""
        [(most,)] = self._file.execute("SELECT MAX(id) FROM texts")
        return int(most or 0)
