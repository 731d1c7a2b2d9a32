"""What was found as a page: one file that needs no network, with a picture for each."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from html import escape

from flowrun.tasks.search.found import Hit, data_url

__all__ = ["as_page"]

_STYLE = """
:root {
  color-scheme: light dark;
  --dim: light-dark(#5b636b, #9aa3ab); --line: light-dark(#d9dde1, #3a4046);
}
body {
  font: 15px/1.45 system-ui, sans-serif; max-width: 84rem; margin: 0 auto; padding: 1rem;
  overflow-wrap: anywhere;
}
h1 { font-size: 1.4rem; margin: 0; } p { margin: .3rem 0; } .dim { color: var(--dim); }
code { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: .88em; }
ol {
  list-style: none; padding: 0; display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(18rem, 100%), 1fr));
}
li { border: 1px solid var(--line); border-radius: 8px; padding: .7rem; min-width: 0; }
img { width: 100%; border-radius: 4px; display: block; background: var(--line); }
.asked { max-width: 20rem; }
"""


def as_page(
    hits: Sequence[Hit],
    pictures: Mapping[Hit, bytes],
    *,
    asked: str,
    asked_picture: bytes | None,
    searched: str,
    command: str,
) -> str:
    """The page as HTML.

    asked: the text, or the name of the picture. asked_picture: a JPEG of it.
    searched: how much was searched, in a sentence. command: the command line that made it.
    """
    shown = ""
    if asked_picture is not None:
        shown = f'<img class="asked" src="{data_url(asked_picture)}" alt="the picture asked for">'
    cards = "\n".join(_card(it, pictures.get(it)) for it in hits)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(asked)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(asked)}</h1>\n{shown}\n<p>{escape(searched)}</p>\n"
        f'<p class="dim"><code>{escape(command)}</code></p>\n<ol>\n{cards}\n</ol>\n</body>\n</html>\n'
    )


def _card(hit: Hit, picture: bytes | None) -> str:
    image = '<p class="dim">The log does not give this picture.</p>'
    if picture is not None:
        image = (
            f'<img src="{data_url(picture)}" alt="{escape(hit.text or hit.task)}" loading="lazy">'
        )
    view = shlex.join(["flowrun", "view", str(hit.path)])
    return (
        f'<li>{image}<p><strong>{hit.score:.2f}</strong> {escape(hit.text)}</p><p class="dim">'
        f"{escape(hit.time)}, {escape(hit.task)}, cycle {hit.cycle:,} of {escape(hit.run)}</p>"
        f'<p><a href="{escape(hit.link)}" target="_blank" rel="noreferrer">This moment</a>'
        f'<span class="dim">, while <code>{escape(view)}</code> runs</span></p></li>'
    )
