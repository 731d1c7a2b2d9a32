"""What the log costs, compared with other writers and readers: a table of ratios taken in one run.

    python bench/bench_log.py [--long] [--dir DIR] [--only small,frames,paced,sync,reading]

Some two minutes; --long takes more rounds, and 30 fps for minutes instead of seconds. All run in
turns, and each ratio is that of one round: machines are shared, absolute figures drift. A range in
brackets is the least and the greatest round. Our writer is the one that runs use: a CRC and a table of
the steps' times in each cycle, and a process that is killed loses nothing that was committed; the
others check a chunk at best, and lose what they hold.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from peers import READERS, WRITERS, PeerWriter, missing, pack_fields, pack_pixels
from rounds import Samples, in_turns, ratio

from flowrun.msgs import BytesMsg, ImageRgb8Msg
from flowrun.runtime.log.channels import LoggedOutput
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab import pages as log_pages
from flowrun.runtime.log.writer import LogWriter

OURS = "flowrun"
HEIGHT, WIDTH = 1080, 1920
PER_CYCLE = 10
FPS = 30
WINDOW = 100  # cycles of small messages that are timed together


class OurWriter:
    """A run's log, with the sizes a run has by default."""

    def __init__(
        self,
        folder: Path,
        topics: Sequence[str],
        messages: Sequence[Any],
        sync_s: float | None = 1.0,
    ) -> None:
        outputs = [
            LoggedOutput(name, "out", f"/{name}/out", type(m))
            for name, m in zip(topics, messages, strict=True)
        ]
        self._writer = LogWriter(
            folder / "run", outputs=outputs, steps=len(topics), metadata={}, sync_s=sync_s
        )
        self._bound = self._writer.bind(messages)
        self._ends = list(range(len(topics)))
        self._cycle = 0

    def write(self, time_ns: int, messages: Sequence[Any]) -> None:
        del messages  # bound
        self._writer.commit(
            self._cycle, time_ns, self._bound, start_ns=0, ends_ns=self._ends, events=[]
        )
        self._cycle += 1

    def close(self) -> None:
        self._writer.finish({"reason": "bench"})


class Bench:
    """What all parts share: where to write, for how long, and what."""

    def __init__(self, folder: Path, *, long: bool) -> None:
        self.folder = folder
        self.long = long
        rng = np.random.default_rng(0)
        self.pixels = [rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(6)]
        self.small = [BytesMsg(value=bytes(range(100))) for _ in range(PER_CYCLE)]
        for message in self.small:
            message.publish(tov_ns=1)

    @contextlib.contextmanager
    def new_folder(self) -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    # -- writing -------------------------------------------------------------------------------

    def open_writer(self, name: str, folder: Path, messages: Sequence[Any]) -> PeerWriter:
        topics = [f"t{i}" for i in range(len(messages))]
        if name == OURS:
            return OurWriter(folder, topics, messages)
        encode = pack_pixels if isinstance(messages[0], ImageRgb8Msg) else pack_fields
        return WRITERS[name][1](folder, topics, encode)

    def write_small(self, name: str, cycles: int) -> tuple[list[float], float]:
        calls = []
        with self.new_folder() as folder:
            opened = time.perf_counter()
            writer = self.open_writer(name, folder, self.small)
            write, messages = writer.write, self.small
            for start in range(0, cycles, WINDOW):
                begin = time.perf_counter()
                for time_ns in range(start, start + WINDOW):
                    write(time_ns, messages)
                calls.append(time.perf_counter() - begin)
            writer.close()
            whole = time.perf_counter() - opened
        return calls, whole

    def write_frames(self, name: str, count: int) -> tuple[list[float], float]:
        calls = []
        message = ImageRgb8Msg()
        with self.new_folder() as folder:
            opened = time.perf_counter()
            writer = self.open_writer(name, folder, [message])
            for i in range(count):
                message.pixels = self.pixels[i % len(self.pixels)]
                message.publish(tov_ns=i)
                begin = time.perf_counter()
                writer.write(i, [message])
                calls.append(time.perf_counter() - begin)
            writer.close()
            whole = time.perf_counter() - opened
        return calls, whole

    def small_messages(self) -> None:
        cycles, rounds = (40_000, 9) if self.long else (10_000, 5)
        print(
            f"\n100-byte messages, {PER_CYCLE} a cycle, {cycles * PER_CYCLE:,} of them, "
            f"{rounds} rounds"
        )
        found = in_turns(self._candidates(lambda name: self.write_small(name, cycles)), rounds)
        print(f"  {'':24}{'µs a message':>13}{'range':>13}{'p50':>7}{'whole':>7}   its time / ours")
        each = cycles * PER_CYCLE
        for name, samples in self._rows(found):
            times = [total / each * 1e6 for total in samples.totals()]
            whole = statistics.median(samples.whole) / each * 1e6
            print(
                f"  {name:24}{statistics.median(times):13.2f}"
                f"{f'{min(times):.2f}-{max(times):.2f}':>13}"
                f"{samples.percentile(50) / (WINDOW * PER_CYCLE) * 1e6:7.2f}{whole:7.2f}   "
                f"{ratio(samples.totals(), found[OURS].totals())}"
            )
        print(f"  p50: of windows of {WINDOW} cycles; whole: with opening and closing the file")

    def frames(self) -> None:
        count, rounds = (150, 5) if self.long else (50, 5)
        size = self.pixels[0].nbytes
        print(
            f"\n1080p raw frames ({size / 1e6:.1f} MB) as fast as they come, {count} of them, "
            f"{rounds} rounds"
        )
        found = in_turns(self._candidates(lambda name: self.write_frames(name, count)), rounds)
        print(
            f"  {'':24}{'GB/s':>6}{'range':>12}{'whole':>7}{'p50 ms':>8}{'p99 ms':>8}   "
            "its time / ours"
        )
        for name, samples in self._rows(found):
            rates = [count * size / total / 1e9 for total in samples.totals()]
            whole = count * size / statistics.median(samples.whole) / 1e9
            print(
                f"  {name:24}{statistics.median(rates):6.2f}"
                f"{f'{min(rates):.2f}-{max(rates):.2f}':>12}{whole:7.2f}"
                f"{samples.percentile(50) * 1e3:8.2f}{samples.percentile(99) * 1e3:8.2f}   "
                f"{ratio(samples.totals(), found[OURS].totals())}"
            )

    def paced(self) -> None:
        windows, count = (6, 1500) if self.long else (2, 500)
        print(
            f"\n1080p raw frames at {FPS} fps, {windows} windows of {count}, in each the plain copy "
            "of another frame halfway between two appends"
        )
        copies: dict[str, list[float]] = {}
        appends: dict[str, list[float]] = {}
        for number in range(windows):
            # The one without the preparing thread takes every page fault itself: short windows do.
            for name, share in [("preparing thread", 1), ("without it", 3)]:
                with self._populating(enabled=name == "preparing thread"):
                    copied, appended = self._pace(count // share, number)
                copies.setdefault(name, []).extend(copied)
                appends.setdefault(name, []).extend(appended)
        print(
            f"  {'':24}{'p50 ms':>8}{'p99':>8}{'p99.9':>8}{'max':>8}{'p50/copy':>10}{'p99.9/p50':>11}"
        )
        for name, seconds in appends.items():
            for label, values in [(f"copy, {name}", copies[name]), (f"append, {name}", seconds)]:
                p50, p99, p999 = np.percentile(values, [50, 99, 99.9]) * 1e3
                copy = statistics.median(copies[name]) * 1e3
                print(
                    f"  {label:24}{p50:8.2f}{p99:8.2f}{p999:8.2f}{max(values) * 1e3:8.2f}"
                    f"{p50 / copy:10.2f}{p999 / p50:11.1f}"
                )

    @staticmethod
    @contextlib.contextmanager
    def _populating(*, enabled: bool) -> Iterator[None]:
        kept = log_pages.PagePopulator.populate
        if not enabled:
            log_pages.PagePopulator.populate = lambda *_: None  # type: ignore[method-assign]
        try:
            yield
        finally:
            log_pages.PagePopulator.populate = kept  # type: ignore[method-assign]

    def _pace(self, count: int, number: int) -> tuple[list[float], list[float]]:
        message, copied, appended = ImageRgb8Msg(), [], []
        plain = np.zeros_like(self.pixels[0])
        with self.new_folder() as folder:
            writer = OurWriter(folder, ["cam0"], [message])
            start = time.perf_counter()
            for i in range(count):
                first = (2 * i + number) % len(self.pixels)
                # Each after a sleep of its own: the second in a time slice of a shared machine is
                # the one that loses the processor.
                time.sleep(max(0.0, start + i / FPS - time.perf_counter()))
                begin = time.perf_counter()
                np.copyto(plain, self.pixels[first])
                copied.append(time.perf_counter() - begin)
                message.pixels = self.pixels[first - 1]
                message.publish(tov_ns=i)
                time.sleep(max(0.0, start + (i + 0.5) / FPS - time.perf_counter()))
                begin = time.perf_counter()
                writer.write(i, [message])
                appended.append(time.perf_counter() - begin)
            writer.close()
        return copied, appended

    # -- bringing it to the disk ---------------------------------------------------------------

    def syncing(self) -> None:
        seconds, rounds = (20, 5) if self.long else (6, 3)
        frame = ImageRgb8Msg()
        frame.pixels = self.pixels[0]
        frame.publish(tov_ns=1)
        loads = {
            f"{PER_CYCLE} small messages": (self.small, 500),
            "a 1080p raw frame": ([frame], FPS),
        }
        for load, (messages, rate_hz) in loads.items():
            print(
                f"\nCycles of {load}, {rate_hz} a second, with and without sync_s: 1, "
                f"{rounds} rounds of {seconds} s each"
            )

            def run(sync_s: float | None, load: str = load) -> tuple[list[float], float]:
                messages, rate_hz = loads[load]
                return self._write_paced(messages, rate_hz, seconds * rate_hz, sync_s)

            found = in_turns(
                {"synced": lambda run=run: run(1.0), "not": lambda run=run: run(None)}, rounds
            )
            print(
                f"  {'':24}{'p50 µs':>9}{'p99':>9}{'p99.9':>9}{'max':>9}{'whole s':>9}   p50 / not"
            )
            for name, samples in found.items():
                values = [samples.percentile(q) * 1e6 for q in (50, 99, 99.9, 100)]
                p50s, others = (
                    [statistics.median(calls) for calls in it.rounds]
                    for it in (samples, found["not"])
                )
                print(
                    f"  {name:24}"
                    + "".join(f"{value:9.1f}" for value in values)
                    + f"{statistics.median(samples.whole):9.2f}   {ratio(p50s, others)}"
                )

    def _write_paced(
        self, messages: Sequence[Any], rate_hz: int, cycles: int, sync_s: float | None
    ) -> tuple[list[float], float]:
        calls = []
        with self.new_folder() as folder:
            opened = time.perf_counter()
            writer = OurWriter(folder, [f"t{i}" for i in range(len(messages))], messages, sync_s)
            start = time.perf_counter()
            for i in range(cycles):
                time.sleep(max(0.0, start + i / rate_hz - time.perf_counter()))
                begin = time.perf_counter()
                writer.write(i, messages)
                calls.append(time.perf_counter() - begin)
            writer.close()
            whole = time.perf_counter() - opened
        return calls, whole

    # -- reading -------------------------------------------------------------------------------

    def reading(self) -> None:
        cycles, rounds = (20_000, 7) if self.long else (4_000, 7)
        each = cycles * PER_CYCLE
        print(f"\nReading {each:,} messages of 100 bytes back, {rounds} rounds")
        with self.new_folder() as folder:
            for name in {
                OURS,
                *(writer for module, writer, _ in READERS.values() if not missing(module)),
            }:
                (folder / name).mkdir()
                writer = self.open_writer(name, folder / name, self.small)
                for time_ns in range(cycles):
                    writer.write(time_ns, self.small)
                writer.close()

            def ours(*, verify: bool) -> Iterator[Any]:
                with Log(folder / OURS / "run", verify=verify) as log:
                    for message in log.messages():
                        yield message.payload

            def drain(messages: Iterator[Any]) -> tuple[list[float], float]:
                begin = time.perf_counter()
                count = sum(1 for payload in messages if len(payload) > 100)
                took = time.perf_counter() - begin
                # Ours has the steps of each cycle besides.
                assert count in (each, each + cycles), count
                return [took * each / count], took

            candidates: dict[str, Callable[[], tuple[list[float], float]]] = {
                OURS: lambda: drain(ours(verify=True)),
                f"{OURS}, verify=False": lambda: drain(ours(verify=False)),
            }
            for label, (module, source, read) in READERS.items():
                if not missing(module):
                    candidates[label] = lambda read=read, source=source: drain(
                        read(folder / source)
                    )
            found = in_turns(candidates, rounds)
        print(f"  {'':24}{'messages/s':>13}{'range':>22}   its time / ours")
        for name in [*candidates, *(label for label in READERS if label not in candidates)]:
            if name not in found:
                print(f"  {name:24}{'not installed':>13}")
                continue
            rates = [each / total for total in found[name].totals()]
            print(
                f"  {name:24}{statistics.median(rates):13,.0f}"
                f"{f'{min(rates):,.0f}-{max(rates):,.0f}':>22}   "
                f"{ratio(found[name].totals(), found[OURS].totals())}"
            )
        self._views()

    def _views(self) -> None:
        """Pictures as views: what reading them takes, and how much memory Python and NumPy asked for."""
        count = 30
        message = ImageRgb8Msg()
        with self.new_folder() as folder:
            writer = OurWriter(folder, ["cam0"], [message])
            for i in range(count):
                message.pixels = self.pixels[i % len(self.pixels)]
                message.publish(tov_ns=i)
                writer.write(i, [message])
            writer.close()
            for verify in (True, False):
                with Log(folder / "run", verify=verify) as log:
                    begin = time.perf_counter()
                    seen = sum(int(frame.pixels[-1, -1, -1]) for frame in log.frames("/cam0/out"))
                    took = (time.perf_counter() - begin) / count
                    tracemalloc.start()
                    owned = sum(frame.pixels.flags.owndata for frame in log.frames("/cam0/out"))
                    _, peak = tracemalloc.get_traced_memory()
                    tracemalloc.stop()
                expected = sum(
                    int(self.pixels[i % len(self.pixels)][-1, -1, -1]) for i in range(count)
                )
                assert seen == expected
                label = "CRC checked" if verify else "verify=False"
                print(
                    f"  raw 1080p, {label:13}{took * 1e6:10.0f} µs a frame; {owned} of {count} own "
                    f"their memory; most held at once {peak / 1e3:.0f} kB "
                    f"(a frame: {self.pixels[0].nbytes / 1e3:,.0f} kB)"
                )

    # -- tables --------------------------------------------------------------------------------

    @staticmethod
    def _candidates(
        run: Callable[[str], tuple[list[float], float]],
    ) -> dict[str, Callable[[], tuple[list[float], float]]]:
        names = [OURS, *(name for name, (module, _) in WRITERS.items() if not missing(module))]
        return {name: lambda name=name: run(name) for name in names}

    @staticmethod
    def _rows(found: dict[str, Samples]) -> Iterator[tuple[str, Samples]]:
        for name in [OURS, *WRITERS]:
            if name in found:
                yield name, found[name]
            else:
                print(f"  {name:24}{'not installed':>13}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--long", action="store_true", help="more rounds: some ten minutes")
    parser.add_argument("--dir", type=Path, help="where to write (the system's temporary folder)")
    parts = ["small", "frames", "paced", "sync", "reading"]
    parser.add_argument("--only", default=",".join(parts), help="parts of the table, by comma")
    args = parser.parse_args()
    wanted = args.only.split(",")
    unknown = [name for name in wanted if name not in parts]
    if unknown:
        parser.error(f"--only: no part {unknown[0]!r}; parts: {', '.join(parts)}")
    folder = Path(tempfile.mkdtemp(prefix="flowrun-bench-", dir=args.dir))
    try:
        bench = Bench(folder, long=args.long)
        runs = dict(
            zip(
                parts,
                [bench.small_messages, bench.frames, bench.paced, bench.syncing, bench.reading],
                strict=True,
            )
        )
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        for name in wanted:
            runs[name]()
        print(f"\nload at the end {os.getloadavg()[0]:.1f}")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
