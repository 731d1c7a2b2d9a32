"""Lets atheris choose the fuzzer's cases: those from which others come that reach new lines of the
reader. What it changes are not a log's bytes but the choices that a case is made of."""

from __future__ import annotations

import argparse
import contextlib
import sys
import traceback
from typing import Any

import atheris

from support.fuzz.feed import MOST_S, Fuzzer
from support.fuzz.mutations import make_case

CHOICE_SIZE = 4
MOST_CHOICES = 6


_INSTRUMENTED = ("flowrun.runtime.log.", "flowrun.runtime.pictures.", "flowrun.msgs.protobuf")


def choose_by_coverage(args: argparse.Namespace, fuzzer: Fuzzer) -> None:
    """Run cases until the time is over or one breaks a law; ends the process."""
    for name, module in list(sys.modules.items()):
        if name.startswith(
            ("flowrun.runtime.log.", "flowrun.runtime.pictures.", "flowrun.msgs.protobuf")
        ):
            for value in list(vars(module).values()):
                _instrument(name, value)

    def one_input(data: bytes) -> None:
        pieces = [data[at : at + CHOICE_SIZE] for at in range(0, len(data), CHOICE_SIZE)]
        if len(pieces) < 2:
            return
        case = make_case(fuzzer.originals, [int.from_bytes(piece) for piece in pieces])
        try:
            fuzzer.hold(case)
        except BaseException:
            fuzzer.keep(args.kept / f"coverage-{data.hex()}", case, traceback.format_exc())
            raise

    args.kept.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={args.seconds}",
        f"-timeout={MOST_S}",
        "-rss_limit_mb=2048",
        "-malloc_limit_mb=512",
        f"-max_len={CHOICE_SIZE * MOST_CHOICES}",
        "-len_control=0",
        "-print_final_stats=1",
        f"-artifact_prefix={args.kept}/",
        f"-seed={args.seed}",
    ]
    if args.cases:
        options.append(f"-runs={args.cases}")
    atheris.Setup([sys.argv[0], *options], one_input)
    atheris.Fuzz()


def _instrument(module: str, value: Any) -> None:
    """Count the branches of the module's own functions and methods."""
    members = vars(value).values() if isinstance(value, type) else [value]
    for member in members:
        function = getattr(member, "fget", None) or getattr(member, "__func__", member)
        if getattr(function, "__module__", "") == module and hasattr(function, "__code__"):
            with contextlib.suppress(Exception):
                function.__code__ = atheris.instrument_func(function).__code__
