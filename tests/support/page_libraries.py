"""Copies the libraries of the page from node_modules: `make page-vendor`."""

import re
import sys
from pathlib import Path

_TESTS = Path(__file__).parents[1]
CHECKS = _TESTS / "page"
"""Where npm has put them, and what it takes to check the page."""
MODULES = CHECKS / "node_modules"
VENDOR = _TESTS.parent / "runtime" / "server" / "page" / "vendor"

COPIES = {
    "preact.js": "preact/dist/preact.mjs",
    "hooks.js": "preact/hooks/dist/hooks.mjs",
    "htm.js": "htm/dist/htm.mjs",
    "uplot.js": "uplot/dist/uPlot.esm.js",
    "uplot.css": "uplot/dist/uPlot.min.css",
    "LICENSE.preact": "preact/LICENSE",
    "LICENSE.htm": "htm/LICENSE",
    "LICENSE.uplot": "uplot/LICENSE",
}


def copied(source: str) -> str:
    """The text of a file of node_modules as the page holds it: a browser finds modules by their path."""
    text = (MODULES / source).read_text(encoding="utf-8")
    text = re.sub(r"^//# sourceMappingURL=.*\n", "", text, flags=re.MULTILINE)
    return text.replace('from"preact"', 'from"./preact.js"')


def main() -> None:
    for name, source in COPIES.items():
        (VENDOR / name).write_text(copied(source), encoding="utf-8")
    sys.stdout.write(f"copied {len(COPIES)} files to {VENDOR}\n")


if __name__ == "__main__":
    main()
