"""Runs a command and ends it, with all that it started, when the parent of this process is gone.

    python -I -S warden.py FD PATIENCE COMMAND...

PATIENCE is how many seconds the command has to end. FD is the reading end of a pipe whose other end only
the parent holds: the system closes that one when the parent ends, even by SIGKILL, or the parent closes
it itself. What PR_SET_PDEATHSIG alone would miss: the thread that started a command may end before its
process does, and a command may be a script that starts the real server.

A program of its own, which imports only what starts quickly.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_AGAIN = 0.75
"""The part of its patience after which a command gets SIGTERM again, which many take for an order to end
without finishing what they do."""


def main() -> int:
    pipe, patience_s, command = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    libc = ctypes.CDLL(None)
    # Orphans of the command become children of this process, so that it can end them all.
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        child = subprocess.Popen(  # noqa: S603  # the user's own command
            command,
            process_group=0,  # in our session, where our parent finds what is left if we are killed
            preexec_fn=lambda: prepare_child(libc),  # noqa: PLW1509  # there is one thread
        )
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return 127
    poll = select.poll()
    poll.register(pipe, select.POLLIN | select.POLLHUP)
    ended = os.pidfd_open(child.pid)
    poll.register(ended, select.POLLIN)
    poll.poll()
    for wait_s in (patience_s * _AGAIN, patience_s * (1 - _AGAIN)):
        if child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(wait_s)
    if child.poll() is None:
        child.kill()
    code = child.wait()
    kill_descendants()
    return code if code >= 0 else 128 - code


def prepare_child(libc: ctypes.CDLL) -> None:
    """In the child, before the command runs: what is ignored here would stay so there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Should the warden itself be killed. Its one thread lasts as long as it does.
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def kill_descendants() -> None:
    """SIGKILL to every child, and to what becomes one when its own parent dies."""
    children = f"/proc/self/task/{os.getpid()}/children"
    while True:
        with open(children) as file:  # noqa: PTH123  # pathlib takes longer to import
            pids = [int(pid) for pid in file.read().split()]
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in pids:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        time.sleep(0)


if __name__ == "__main__":
    sys.exit(main())
