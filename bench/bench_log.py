"""What the log costs: 1080p pictures and small messages, against plain copies into a mapping.

    python bench/bench_log.py [--frames 150] [--messages 200000] [--dir DIR]

The floor of the pictures is a NumPy copy of the same frames into a fresh mapping of a preallocated
file in the same folder; that of small messages is a slice store of the same bytes, one by one, into
such a mapping. Both are taken in the same run, in turns, because these machines are shared.
"""

from __future__ import annotations

import argparse
import mmap
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from flowrun.msgs import BytesMsg, ImageRgb8Msg
from flowrun.runtime.log_writer import LogWriter, Output

HEIGHT, WIDTH = 1080, 1920
PER_CYCLE = 10
ROUNDS = 3


def fresh_mapping(path: Path, size: int) -> mmap.mmap:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    os.posix_fallocate(fd, 0, size)
    mapping = mmap.mmap(fd, size)
    os.close(fd)
    return mapping


def floor_frames(folder: Path, frames: list[np.ndarray], count: int) -> list[float]:
    size = frames[0].nbytes
    mapping = fresh_mapping(folder / "floor", size * count)
    whole = np.frombuffer(mapping, np.uint8)
    seconds = []
    for i in range(count):
        frame = frames[i % len(frames)].reshape(-1)
        begin = time.perf_counter()
        np.copyto(whole[i * size : (i + 1) * size], frame)
        seconds.append(time.perf_counter() - begin)
    del whole
    mapping.close()
    (folder / "floor").unlink()
    return seconds


def log_frames(folder: Path, frames: list[np.ndarray], count: int) -> list[float]:
    size_mib = frames[0].nbytes * count // 2**20 + 64
    output = Output("cam0", "image", "/cam0/image", ImageRgb8Msg)
    writer = LogWriter(
        folder / "run", outputs=[output], steps=1, metadata={}, slab_size_mib=size_mib
    )
    message = ImageRgb8Msg()
    bound = writer.bind([message])
    seconds = []
    for i in range(count):
        message.pixels = frames[i % len(frames)]
        message.publish(tov_ns=i)
        begin = time.perf_counter()
        writer.commit(i, i, bound, start_ns=0, ends_ns=[0], events=[])
        seconds.append(time.perf_counter() - begin)
    writer.finish({"reason": "bench"})
    shutil.rmtree(folder / "run")
    return seconds


def floor_small(folder: Path, payload: bytes, count: int) -> list[float]:
    mapping = fresh_mapping(folder / "floor", (len(payload) + 64) * count)
    at, step = 0, len(payload)
    begin = time.perf_counter()
    for _ in range(count):
        mapping[at : at + step] = payload
        at += step
    took = time.perf_counter() - begin
    mapping.close()
    (folder / "floor").unlink()
    return [took / count]


def log_small(folder: Path, payload: bytes, count: int) -> list[float]:
    outputs = [Output(f"t{i}", "out", f"/t{i}/out", BytesMsg) for i in range(PER_CYCLE)]
    size_mib = (len(payload) + 200) * count // 2**20 + 64
    writer = LogWriter(
        folder / "run", outputs=outputs, steps=PER_CYCLE, metadata={}, slab_size_mib=size_mib
    )
    messages = [BytesMsg(value=payload) for _ in range(PER_CYCLE)]
    for message in messages:
        message.publish(tov_ns=1)
    bound = writer.bind(messages)
    ends = list(range(PER_CYCLE))
    begin = time.perf_counter()
    for i in range(count // PER_CYCLE):
        writer.commit(i, i, bound, start_ns=0, ends_ns=ends, events=[])
    took = time.perf_counter() - begin
    writer.finish({"reason": "bench"})
    shutil.rmtree(folder / "run")
    return [took / (count // PER_CYCLE * PER_CYCLE)]


def in_turns(
    folder: Path, runs: dict[str, Callable[[Path], list[float]]]
) -> dict[str, list[list[float]]]:
    results: dict[str, list[list[float]]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            results[name].append(run(folder))
    return results


def percentile(values: list[float], q: float) -> float:
    return float(np.percentile(values, q))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--dir", type=Path, help="where to write (the system's temporary folder)")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="flowrun-bench-", dir=args.dir))
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(4)]
    try:
        found = in_turns(folder, {
            "copy": lambda path: floor_frames(path, frames, args.frames),
            "log": lambda path: log_frames(path, frames, args.frames),
        })  # fmt: skip
        size = frames[0].nbytes
        rate = {
            name: statistics.median(len(run) * size / sum(run) / 1e9 for run in runs)
            for name, runs in found.items()
        }
        print(f"1080p pictures ({size / 1e6:.1f} MB), {args.frames} as fast as they come, "
              f"median of {ROUNDS}:")  # fmt: skip
        for name, label in [("copy", "NumPy copy, fresh mapping"), ("log", "log")]:
            every = [second for run in found[name] for second in run]
            print(
                f"  {label:28}{rate[name]:6.2f} GB/s   a picture p50 "
                f"{percentile(every, 50) * 1e3:.2f} ms, p99 {percentile(every, 99) * 1e3:.2f} ms"
            )
        print(f"  log / copy: {rate['log'] / rate['copy']:.2f}")
        payload = bytes(100)
        small = in_turns(folder, {
            "store": lambda path: floor_small(path, payload, args.messages),
            "log": lambda path: log_small(path, payload, args.messages),
        })  # fmt: skip
        each = {name: statistics.median(run[0] for run in runs) for name, runs in small.items()}
        print(f"100-byte messages, {PER_CYCLE} a cycle, step table and CRC included, "
              f"median of {ROUNDS}:")  # fmt: skip
        print(f"  slice store into a mapping  {each['store'] * 1e6:6.2f} µs a message")
        print(f"  log                         {each['log'] * 1e6:6.2f} µs a message, "
              f"{100 / each['log'] / 1e6:.0f} MB/s of payload")  # fmt: skip
        print(f"  log / store: {each['log'] / each['store']:.1f}")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
