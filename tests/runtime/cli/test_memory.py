"""Memory that is freed is used again, without asking the system for pages."""

import platform
import subprocess
import sys

import pytest

PICTURES = """
import resource, threading
import numpy as np
from flowrun.runtime.cli.memory import keep_freed_memory

keep_freed_memory()

def make(count):
    for _ in range(count):
        [np.ones(6_220_800, np.uint8) for _ in range(6)]

def in_a_thread(count):
    thread = threading.Thread(target=make, args=(count,))
    thread.start()
    thread.join()

in_a_thread(2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
in_a_thread(5)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that is asked")
def test_freed_pictures_need_no_new_pages() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PICTURES], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 200  # 17,000 otherwise
