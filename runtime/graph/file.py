"""A graph file -> its text -> its YAML nodes, each with its line and column.

What would grow without bound (long files, aliases of aliases) is refused before it has grown.
Scalars stay texts here; `values` gives them types.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from flowrun.runtime.errors import GraphError, Location, Problem, UsageError
from flowrun.runtime.wording import listed, nearest

__all__ = ["MAX_BYTES", "check_size", "compose", "read_text"]

MAX_BYTES = 1 << 20
_MOST_NAMES = 20
"""Number of files of a folder that an error lists."""
MAX_NODES = 20_000
"""Keys and values; an alias counts each time it is used."""
MAX_DEPTH = 32


_RECORDED = "a recorded run: flowrun replay {path} runs it again, flowrun view {path} shows it"
_OTHERS = {
    ".mcap": _RECORDED,
    ".py": "a Python file: run it with Python; a graph file names what it defines: type: {stem}.NAME",
}
"""What people take for a graph file."""


def read_text(path: Path, what: str = "graph file") -> str:
    """The text of the graph file at `path`, which error texts call `what`.

    `UsageError` if it cannot be read; `GraphError` if it is too large or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(f"{what} not found: {path}; {_near(path)}") from None
    except IsADirectoryError:
        if any(path.glob("log_*.mcap")):
            raise UsageError(f"{path} is {_RECORDED.format(path=path)}") from None
        raise UsageError(f"{path} is a folder; {_graph_files(path)}") from None
    except OSError as error:
        raise UsageError(f"cannot read {what} {path}: {error.strerror}") from error
    other = _OTHERS.get(path.suffix)
    if other is not None:
        raise UsageError(f"{path} is {other.format(path=path, stem=path.stem)}")
    if len(data) > MAX_BYTES:
        message = f"the file has more than {MAX_BYTES} bytes, which a graph file has at most"
        raise GraphError([Problem(Location(str(path), 1, 1), message)])
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode().split("\n")
        where = Location(str(path), len(before), len(before[-1]) + 1)
        message = (
            f"not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}; save it as UTF-8"
        )
        raise GraphError([Problem(where, message)]) from None


def _near(path: Path) -> str:
    names = _yaml_files(path.parent)
    folder = "the current folder" if path.parent == Path() else path.parent
    if not path.parent.is_dir():
        return f"there is no folder {folder}"
    if not names:
        return f"{folder} holds no .yaml file"
    return f"{folder} holds {_shortened(names)}{nearest(path.name, names)}"


def _graph_files(folder: Path) -> str:
    names = _yaml_files(folder)
    return f"name one of its graph files: {_shortened(names)}" if names else "it has no .yaml file"


def _yaml_files(folder: Path) -> list[str]:
    paths = (it for pattern in ("*.yaml", "*.yml") for it in folder.glob(pattern))
    return sorted(it.name for it in paths if it.is_file())


def _shortened(names: list[str]) -> str:
    more = len(names) - _MOST_NAMES
    return listed(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


_YAML_WORDS = (
    # What PyYAML says -> what to correct. The first one that occurs in its text is used.
    (
        "mapping values are not allowed",
        "unexpected ':'; check the indentation, have a space after each key's ':', or quote the text",
    ),
    ("found character '\\t'", "a tab; indent with spaces"),
    ("cannot start any token", "a text that begins with a special character; quote it"),
    ("could not find expected ':'", "expected ':' after the key"),
    ("expected <block end>", "unexpected here; check the indentation, or quote the text"),
    ("expected the node content", "expected a value"),
    ("expected ',' or ']'", "expected ',' or ']'; quote a text that holds { } [ ] , or ' #'"),
    ("expected ',' or '}'", "expected ',' or '}'; quote a text that holds { } [ ] , or ' #'"),
    ("while scanning a quoted scalar", "the quotes are not closed"),
    ("expected a single document", "a second document ('---'); a graph file holds one"),
)


class _Refused(Exception):  # noqa: N818  # never leaves this module
    def __init__(self, mark: yaml.Mark, message: str) -> None:
        self.mark = mark
        super().__init__(message)


class _Loader(yaml.SafeLoader):
    """Composes nodes with marks; refuses a text with too many nodes, or nested too deep."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # plain scalars stay texts
    count = 0
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        self.count += 1
        self.depth += 1
        if self.count > MAX_NODES:
            raise _Refused(mark, f"more than {MAX_NODES} keys and values")
        if self.depth > MAX_DEPTH:
            raise _Refused(mark, f"nested more than {MAX_DEPTH} deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def compose(text: str, file: str, *, origin: str = "") -> yaml.Node:
    """The root node. `GraphError` for a text that is not one YAML document of a sane size.

    origin: the name that the marks of all nodes get, for a `ValueReader` that knows several files.
    """
    start = Location(file, 1, 1)
    try:
        loader = _Loader(text)
        loader.name = origin
        root = loader.get_single_node()
        if root is not None:
            _measure(root, {}, ())
    except _Refused as error:
        where = Location(file, error.mark.line + 1, error.mark.column + 1)
        raise GraphError([Problem(where, str(error))]) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position].split("\n")
        where = Location(file, len(before), len(before[-1]) + 1)
        message = f"not valid YAML: unprintable character U+{int(error.character):04X}"
        raise GraphError([Problem(where, message)]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = Location(file, mark.line + 1, mark.column + 1) if mark else start
        raise GraphError([Problem(where, f"not valid YAML: {_in_words(error)}")]) from None
    if root is None:
        raise GraphError([Problem(start, "the file is empty; a graph needs 'tasks'")])
    return root


def check_size(root: yaml.Node, file: str) -> None:
    """`GraphError` if a tree that was put together has more nodes than a file may have."""
    try:
        _measure(root, {}, ())
    except _Refused as error:
        raise GraphError([Problem(Location(file, 1, 1), str(error))]) from None


def _in_words(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or ""
    undefined = re.search(r"undefined alias '(.*)'", problem)
    if undefined:
        return f"alias '*{undefined[1]}' has no anchor '&{undefined[1]}' before it"
    said = f"{error.context} {problem}"
    return next((words for sign, words in _YAML_WORDS if sign in said), problem)


def _measure(
    node: yaml.Node, known: dict[int, tuple[int, int]], above: tuple[int, ...]
) -> tuple[int, int]:
    """The number of nodes in `node` and their depth, with aliases expanded; refuses too many."""
    if id(node) in above:
        raise _Refused(node.start_mark, "an alias inside its own anchor; it would never end")
    if id(node) not in known:
        count, depth = 1, 1
        for child in _children(node):
            below = _measure(child, known, (*above, id(node)))
            count += below[0]
            depth = max(depth, below[1] + 1)
        if count > MAX_NODES:
            message = f"more than {MAX_NODES} keys and values when its aliases are expanded"
            raise _Refused(node.start_mark, message)
        if depth > MAX_DEPTH:
            message = f"nested more than {MAX_DEPTH} deep when its aliases are expanded"
            raise _Refused(node.start_mark, message)
        known[id(node)] = count, depth
    return known[id(node)]


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value
