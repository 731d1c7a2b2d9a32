"""`flowrun search RUNS "a red circle"`: recorded pictures, found by a text or a picture."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowrun.runtime.atomic import require_place
from flowrun.runtime.errors import UsageError
from flowrun.runtime.printing import print_text
from flowrun.runtime.wording import counted, one_line
from flowrun.tasks.commands.recorded import add_runs, kept_results, shown_progress

if TYPE_CHECKING:
    from flowrun.tasks.search.build import Sampling
    from flowrun.tasks.search.describing import Model
    from flowrun.tasks.search.elsewhere import Elsewhere
    from flowrun.tasks.search.index import Index

__all__ = ["add_parser", "run"]

_FOLDER = ".search"
_PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_SMALL, _SHOWN = 160, 360
"""Widths of the pictures of `--json` and of the page."""
_MOST_NOTES = 3


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "search",
        description="Find the recorded pictures that fit a text, or look like a picture. The first "
        "search makes an index beside the runs, in a hidden folder .search, and later ones add what is "
        "new; it can be removed at any time. Nothing that the runs name is executed.",
        epilog="With the embedded model, and others that answer, a text finds what was answered in the "
        "runs and what the model says of each picture. With a model of pictures and texts, such as CLIP "
        "or SigLIP, it also finds what looks like it.",
    )
    add_runs(parser)
    parser.add_argument("query", metavar="TEXT|PICTURE", help="a text, or a picture's file")
    parser.add_argument(
        "-n", "--count", type=int, default=10, metavar="N", help="show the N best (10)"
    )
    parser.add_argument(
        "--model",
        default="embedded",
        metavar="MODEL",
        help="embedded, a checkpoint folder, or a hub id such as google/siglip2-base-patch16-224 "
        "(embedded)",
    )
    parser.add_argument(
        "--prompt", metavar="TEXT", help="what to ask the model about each picture (a caption)"
    )
    parser.add_argument(
        "--every",
        type=float,
        default=1.0,
        metavar="S",
        help="look at a picture of each S seconds, and at those that something was said of; 0: at all "
        "(1)",
    )
    parser.add_argument(
        "--differ",
        type=float,
        default=12.0,
        metavar="D",
        help="take pictures that differ from the one taken before by D of 255, in the mean colour of a "
        "cell of 32 x 32 (12)",
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="write what was found to FILE: .html"
    )
    parser.add_argument(
        "--index",
        type=Path,
        metavar="DIR",
        help=f"where the index is kept ({_FOLDER} beside the runs)",
    )
    parser.add_argument("--rebuild", action="store_true", help="build the index again")
    parser.add_argument("--processes", type=int, metavar="N", help="describe N pictures at a time")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """0, or 1 where nothing was found; errors are raised."""
    from flowrun.runtime.printing import print_json, print_table
    from flowrun.runtime.testbench.folders import find_runs
    from flowrun.runtime.testbench.hashes import Hashes
    from flowrun.tasks.search.build import Sampling, index_name
    from flowrun.tasks.search.describing import chosen_model
    from flowrun.tasks.search.elsewhere import Elsewhere
    from flowrun.tasks.search.found import as_json, best, rows, thumbnails
    from flowrun.tasks.search.index import Index

    _check(args)
    pixels = _picture(args.query)
    sampling = Sampling(args.every, args.differ)
    with kept_results(None) as store:
        model = chosen_model(args.model, args.prompt, Hashes(store))
    folders: dict[Path, dict[str, Path]] = {}
    for path in find_runs(args.runs):
        folder = path.absolute().parent
        folders.setdefault(folder, {})[path.name] = path
    elsewhere = Elsewhere(path for runs in folders.values() for path in runs.values())
    with ExitStack() as stack:
        indexes: list[tuple[Index, dict[str, Path]]] = []
        for folder, runs in folders.items():
            place = folder / _FOLDER if args.index is None else _below(args.index, folder)
            path = place / index_name(model, sampling)
            if args.rebuild:
                Index(path).remove()
            index = stack.enter_context(Index(path))
            _fill(index, folder, runs, model, sampling, elsewhere, args)
            indexes.append((index, runs))
        vector = _vector(model, pixels, args.query)
        text = args.query if pixels is None else None
        hits = best(indexes, text=text, vector=vector, count=args.count)
        size = sum(len(index) for index, _ in indexes)
    command = shlex.join(["flowrun", *sys.argv[1:]])
    searched = (
        f"{counted(size, 'picture')} of {counted(sum(map(len, folders.values())), 'run')} searched"
    )
    if args.report is not None:
        _write_report(args, hits, pixels, searched, command)
    if args.json:
        print_json(as_json(hits, thumbnails(hits, width=_SMALL)))
        return 0 if hits else 1
    if not hits:
        print_text(one_line(f"{searched}; none fits {args.query!r}"))
        return 1
    print_table(("score", "time (UTC)", "run", "task", "cycle", "what was said"), rows(hits))
    print_text(f"{searched}; `flowrun view RUN --cycle N` shows the moment")
    if args.report is not None:
        print_text(f"report: {args.report}")
    return 0


def _check(args: argparse.Namespace) -> None:
    for name, least in (("count", 1), ("processes", 1), ("every", 0), ("differ", 0)):
        value = getattr(args, name)
        if value is not None and not value >= least:
            raise UsageError(f"--{name} {value:g}: expected {least} or more")
    require_place("--report", args.report, ".html")
    if not args.query.strip():
        raise UsageError("the text to search for is empty")


def _picture(query: str) -> Any:
    """The pixels of the picture file that a query names; None for a text."""
    path = Path(query)
    if path.suffix.lower() not in _PICTURES:
        return None
    import numpy as np
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            return np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such picture") from None
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"{path}: cannot be read as a picture: {error}") from error


def _below(folder: Path, runs: Path) -> Path:
    """Where the index of a folder of runs is in another folder."""
    from flowrun.runtime.testbench.store import key_of

    return folder / f"{runs.name}-{key_of(str(runs)).hex()[:8]}"


def _fill(
    index: Index,
    folder: Path,
    runs: dict[str, Path],
    model: Model,
    sampling: Sampling,
    elsewhere: Elsewhere,
    args: argparse.Namespace,
) -> None:
    from flowrun.tasks.search.build import fill

    with index.writing() as is_ours:
        if not is_ours:
            print_text(
                f"note: another search fills the index of {folder}; what it has until now is searched",
                file=sys.stderr,
            )
            return
        with shown_progress("cycles") as progress:
            filled = fill(
                index,
                folder,
                runs,
                model,
                sampling,
                elsewhere=elsewhere,
                processes=args.processes,
                progress=progress,
            )
    for note in filled.notes[:_MOST_NOTES]:
        print_text(one_line(f"note: {note}"), file=sys.stderr)
    if len(filled.notes) > _MOST_NOTES:
        more = len(filled.notes) - _MOST_NOTES
        print_text(f"note: {more:,} more pictures or runs are left out", file=sys.stderr)


def _vector(model: Model, pixels: Any, query: str) -> Any:
    """The vector of what is asked for; None for a text of a model that has none, which is not loaded."""
    if pixels is None and not model.knows_texts:
        return None
    from flowrun.runtime.testbench.spread import cores
    from flowrun.tasks.search.describing import Describer

    describer = Describer(model, threads=cores())
    return describer.text(query) if pixels is None else describer.vectors([pixels])[0]


def _write_report(
    args: argparse.Namespace, hits: Sequence[Any], pixels: Any, searched: str, command: str
) -> None:
    from flowrun.msgs.image import ImageRgb8Msg
    from flowrun.runtime.atomic import whole_file
    from flowrun.runtime.pictures.encode import jpeg
    from flowrun.tasks.search.found import thumbnails
    from flowrun.tasks.search.page import as_page

    asked = None
    if pixels is not None:
        image = ImageRgb8Msg(pixels=pixels)
        width = min(_SHOWN, image.width)
        small = image.resized(width, max(1, round(image.height * width / image.width)))
        asked = jpeg(small, quality=85)
    page = as_page(
        hits,
        thumbnails(hits, width=_SHOWN),
        asked=args.query,
        asked_picture=asked,
        searched=searched,
        command=command,
    )
    with whole_file(args.report) as path:
        path.write_text(page, encoding="utf-8")
