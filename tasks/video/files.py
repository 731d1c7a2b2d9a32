"""The path of a source -> the file, pipe or pictures that are there, or what is wrong with it.

A folder, a numbered pattern (`img_%04d.png`) and a glob (`*.jpg`) mean the pictures that they name, in
natural order: `img9` comes before `img10`. A path that exists as it is written is no pattern.
"""

from __future__ import annotations

import difflib
import glob
import os
import re
import stat
import sys
from pathlib import Path
from typing import NamedTuple

from flowrun.tasks.video.address import Address, AddressError, hint_of_host

__all__ = ["Found", "find_file"]

_VIDEOS = frozenset(
    {
        *(
            ".mp4",
            ".mkv",
            ".avi",
            ".mov",
            ".webm",
            ".ts",
            ".m4v",
            ".mpg",
            ".mpeg",
            ".mjpeg",
            ".gif",
        ),
        *(".flv", ".wmv", ".m2ts", ".mts", ".3gp", ".h264", ".h265", ".hevc", ".ogv", ".y4m"),
    }
)
PICTURES = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "mjpeg"),
    ".png": "png",
    ".bmp": "bmp",
    **dict.fromkeys((".tif", ".tiff"), "tiff"),
    ".webp": "webp",
    **dict.fromkeys((".ppm",), "ppm"),
    ".pgm": "pgm",
    **dict.fromkeys((".jp2", ".j2k"), "jpeg2000"),
    ".tga": "targa",
}
"""Suffixes of files with one picture, and what decodes them."""
_UNREAD = frozenset({".avif", ".heic", ".heif", ".jxl", ".dng", ".cr2", ".nef", ".arw"})
"""Suffixes of pictures, as phones and cameras make them, that a sequence does not take."""
_NUMBER = re.compile(r"%(?:%|0?(\d*)d)")
_GLOB = re.compile(r"[*?[]")
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\[^\\]")


class Found(NamedTuple):
    """What is at a path.

    path: the file or pipe; None for standard input.
    pictures: the files of a sequence, at least one; empty for a film.
    is_pipe: whether it can be read once only, from its beginning.
    """

    path: Path | None
    pictures: tuple[Path, ...] = ()
    is_pipe: bool = False


def find_file(address: Address, uri: str, graph_dir: Path) -> Found:
    """What is at the path of `address`; `AddressError` if nothing is, or nothing that can be read.

    uri: what the user wrote.
    graph_dir: where relative paths start.
    """
    if address.is_input:
        if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
            raise AddressError(
                f"{uri!r} reads a film from standard input, and there is none; "
                "write `ffmpeg ... -f mpegts - | flowrun GRAPH`"
            )
        return Found(None, is_pipe=True)
    path = _path(address.target, uri, graph_dir)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return _pattern(path, uri, graph_dir)
    except OSError as error:
        raise AddressError(f"cannot look at {str(path)!r}: {error.strerror}") from None
    if stat.S_ISDIR(mode):
        return _folder(path, uri)
    if not os.access(path, os.R_OK):
        raise AddressError(f"no permission to read {str(path)!r}")
    if stat.S_ISREG(mode):
        return Found(path, (path,) if _is_picture(path) and path.suffix != ".webp" else ())
    if stat.S_ISFIFO(mode) or (stat.S_ISCHR(mode) and _is_open_file(path)):
        return Found(path, is_pipe=True)
    kind = "a socket" if stat.S_ISSOCK(mode) else "a device"
    raise AddressError(f"{str(path)!r} is {kind}; name a film, a pipe, or /dev/video0")


def _is_open_file(path: Path) -> bool:
    return str(path).startswith(("/dev/fd/", "/proc/self/fd/"))


def _path(target: str, uri: str, graph_dir: Path) -> Path:
    if target.startswith("~"):
        try:
            return Path(target).expanduser()
        except RuntimeError:
            raise AddressError(
                f"{uri!r}: there is no user {target.split('/', maxsplit=1)[0][1:]!r}"
            ) from None
    path = graph_dir / target
    if "%" in uri and not path.exists():  # not percent-encoded, though it follows `file:`
        literal = graph_dir / re.sub(r"^(?i:file:)(//(localhost(?=/))?)?", "", uri)
        return literal if literal.exists() else path
    return path


def _folder(path: Path, uri: str) -> Found:
    names = _names(path)
    pictures = [path / name for name in names if _is_picture(Path(name))]
    unread = [name for name in names if _is_unread(Path(name))]
    if pictures:
        _no_mixture([*pictures, *(path / name for name in unread)], uri)
        return Found(path, tuple(sorted(pictures, key=_natural)))
    if unread:
        raise AddressError(
            f"source_uri {uri!r} is a folder of pictures that are not read: "
            f"{', '.join(unread[:5])}; make JPEG or PNG of them"
        )
    films = [name for name in names if Path(name).suffix.lower() in _VIDEOS]
    has = f"; it has: {', '.join(films[:5])}" if films else ""
    raise AddressError(
        f"source_uri {uri!r} is a folder without pictures: {path}; name a video file in it{has}"
    )


def _pattern(path: Path, uri: str, graph_dir: Path) -> Found:
    """The pictures that a pattern names, or what is missing."""
    pattern = str(path if Path(uri).is_absolute() or uri[0] == "~" else path.relative_to(graph_dir))
    is_numbered = any(found[0] != "%%" for found in _NUMBER.finditer(path.name))
    if not is_numbered and not _GLOB.search(pattern):
        raise AddressError(_missing(path, uri))
    if is_numbered:
        numbered = re.compile(_NUMBER.sub(_digits, _escaped(path.name)))
        pictures = [path.parent / name for name in _names(path.parent) if numbered.fullmatch(name)]
    else:
        # Not `Path.glob`, which takes no absolute pattern.
        names = glob.glob(pattern, root_dir=graph_dir, recursive=True)  # noqa: PTH207
        pictures = [graph_dir / name for name in names]
    pictures = [it for it in pictures if it.is_file()]
    if not pictures:
        raise AddressError(f"no file matches {uri!r}; {_missing(path, uri)}")
    others = [it.name for it in pictures if not _is_picture(it)]
    if others and _is_unread(Path(others[0])):
        raise AddressError(
            f"{uri!r} names {others[0]!r}, a picture that is not read; make JPEG or PNG of it"
        )
    if others:
        raise AddressError(
            f"{uri!r} names {others[0]!r}, which is no picture (such as .jpg or .png); "
            "a pattern is for pictures, a film is named alone"
        )
    _no_mixture(pictures, uri)
    return Found(path, tuple(sorted(pictures, key=_natural)))


def _escaped(name: str) -> str:
    """`name` as a regular expression, apart from its numbers."""
    return "".join(
        part if _NUMBER.fullmatch(part) else re.escape(part)
        for part in re.split(r"(%%|%0?\d*d)", name)
    )


def _digits(found: re.Match[str]) -> str:
    if found[0] == "%%":
        return "%"
    width = int(found[1] or 1)
    return rf"(?:\d{{{width}}}|[1-9]\d{{{width},}})"


def _no_mixture(pictures: list[Path], uri: str) -> None:
    suffixes = [(it.suffix.lower(), it.name) for it in reversed(pictures)]
    kinds = {PICTURES.get(suffix, suffix): name for suffix, name in suffixes}
    if len(kinds) > 1:
        raise AddressError(
            f"{uri!r} names pictures of {len(kinds)} formats ({', '.join(sorted(kinds.values()))}); "
            "name one of them, such as *.jpg"
        )


def _natural(path: Path) -> list[tuple[int, str]]:
    """A key by which `img9` comes before `img10`."""
    parts = re.split(r"(\d+)", str(path))
    numbers = [(int(it), it) if i % 2 else (0, it) for i, it in enumerate(parts)]
    return [*numbers, (0, str(path))]


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURES and not path.name.startswith(".")


def _is_unread(path: Path) -> bool:
    return path.suffix.lower() in _UNREAD and not path.name.startswith(".")


def _names(folder: Path) -> list[str]:
    try:
        return sorted(item.name for item in folder.iterdir() if item.is_file())
    except OSError:
        return []


def _missing(path: Path, uri: str) -> str:
    text = f"no such video file: {uri!r} (looked for {path})"
    if _WINDOWS.match(uri):
        return f"{text}; it is written as on Windows, and here a path is /home/me/film.mp4"
    if hint_of_host(uri):
        return text + hint_of_host(uri)
    if not path.parent.is_dir():
        return f"{text}; the folder {path.parent} does not exist either"
    files = _names(path.parent)
    films = [name for name in files if Path(name).suffix.lower() in _VIDEOS]
    close = difflib.get_close_matches(path.name, films, n=3, cutoff=0.5)
    close = close or difflib.get_close_matches(path.name, files, n=3, cutoff=0.8) or films[:5]
    return f"{text}; that folder has: {', '.join(close)}" if close else text
