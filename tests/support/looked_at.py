"""Threads whose stacks are looked at while garbage is collected that lets other threads run.

A program of its own, as the process crashes where the look is not safe: see `test_whereabouts.py`.
"""

import gc
import sys
import threading
import time
from types import SimpleNamespace

from flowrun.runtime.engine.whereabouts import Whereabouts

ROUNDS = 400


class Left:
    """Garbage that lets other threads run when it is collected."""

    def __init__(self):
        self.own = self

    def __del__(self):
        time.sleep(0.0005)


def few(n):
    return few(n - 1) if n else 0


def many(n, *values):
    first = second = third = fourth = n
    return many(n - 1, first, second, third, fourth) if n else values


def work(over):
    while not over.is_set():
        for depth in range(1, 30):
            few(depth)
            many(depth)


def main():
    over = threading.Event()
    threads = [threading.Thread(target=work, args=[over], daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    whereabouts = Whereabouts(SimpleNamespace(codes=frozenset()), {})
    sys.setswitchinterval(1e-4)
    gc.collect()
    gc.freeze()
    gc.disable()
    for number in range(ROUNDS):
        Left()
        gc.set_threshold(1 + number % 12)
        gc.enable()
        assert whereabouts.busy() == []
        assert gc.isenabled()
        gc.disable()
    over.set()


if __name__ == "__main__":
    main()
