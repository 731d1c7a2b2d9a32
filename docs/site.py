"""Hooks of mkdocs: pages that are elsewhere in the project, and links that lead into its sources."""

from __future__ import annotations

import json
import logging
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "runtime/log/slab/FORMAT.md": "log-format.md",
}
"""Pages of the site that are not below docs/."""
log = logging.getLogger("mkdocs.hooks.site")

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def on_config(config: Any) -> Any:
    """Put the pages that `nav` has as `folder/*`, and those that it does not name, in their places."""
    docs = Path(config.docs_dir)
    for section in config.nav:
        for title, items in section.items() if isinstance(section, dict) else ():
            if isinstance(items, list):
                section[title] = [_expanded(item, docs) for item in items]
                if title == "Guides":
                    named = json.dumps(config.nav)
                    section[title] += [
                        it.name for it in sorted(docs.glob("*.md")) if f'"{it.name}"' not in named
                    ]
    return config


def _expanded(item: Any, docs: Path) -> Any:
    if not isinstance(item, dict):
        return item
    expanded: dict[str, Any] = {}
    for title, pages in item.items():
        found = []
        for page in pages if isinstance(pages, list) else [pages]:
            glob = sorted(docs.glob(f"{page}.md")) if page.endswith("*") else [docs / page]
            found += [it.relative_to(docs).as_posix() for it in glob]
        expanded[title] = found if isinstance(pages, list) else found[0]
    return expanded


def on_files(files: Files, config: Any) -> Files:
    for source, name in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Let links lead to pages of the site. One into the sources becomes its text, if there is such a
    file."""
    back = {name: source for source, name in PAGES.items()}
    source = back.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def link(match: re.Match[str]) -> str:
        bang, text, target = match.groups()
        path, hash_, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", target):
            return match[0]
        found = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if found in PAGES:
            name = PAGES[found]
        elif found.startswith("docs/"):
            name = found.removeprefix("docs/")
        else:
            if not (ROOT / found).exists():
                log.warning("%s: no such file: %s", source, target)
            return text
        here = posixpath.dirname(page.file.src_uri) or "."
        return f"{bang}[{text}]({posixpath.relpath(name, here)}{hash_}{anchor})"

    return "".join(
        part if part.startswith("```") else _LINK.sub(link, part)
        for part in re.split(r"(^```.*?^```)", markdown, flags=re.DOTALL | re.MULTILINE)
    )
