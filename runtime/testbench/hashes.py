"""Hashes of the files that a result depends on; each is computed once, and again when it has changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

from flowrun.runtime.testbench.store import Store, key_of

__all__ = ["Hashes"]


class Hashes:
    """The hashes of files and folders.

    store: remembers them by size and time of the file, as weights have gigabytes; None: nobody does.
    """

    def __init__(self, store: Store | None) -> None:
        self._store = store
        self._folders: dict[Path, str] = {}

    def folder(self, folder: Path) -> str:
        """A hash of all files of a folder and their names."""
        found = self._folders.get(folder)
        if found is None:
            files = sorted(it for it in folder.rglob("*") if it.is_file())
            parts = [f"{it.relative_to(folder)}\0{self.file(it)}\n" for it in files]
            found = hashlib.sha256("".join(parts).encode()).hexdigest()
            self._folders[folder] = found
        return found

    def file(self, path: Path) -> str:
        """The SHA-256 of a file."""
        stat = path.stat()
        key = key_of("file", str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino)
        known = {} if self._store is None else self._store.get([key])
        if key not in known:
            with path.open("rb") as file:
                known[key] = hashlib.file_digest(file, "sha256").hexdigest()
            if self._store is not None:
                self._store.put([(key, known[key])])
        digest: str = known[key]
        return digest
