"""`flowrun doctor`: what this machine has, what it lacks, and what to do about it."""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import errno
import fcntl
import importlib.metadata
import os
import platform
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flowrun.runtime.clock import monotonic_s
from flowrun.runtime.errors import LogError, UsageError
from flowrun.runtime.extras import DISTRIBUTION
from flowrun.runtime.log.slab.disk import preallocate
from flowrun.runtime.printing import print_json, print_text, size
from flowrun.runtime.wording import counted, listed
from flowrun.tasks.commands.finding import Finding

__all__ = ["add_parser", "run"]

_WITHIN_S = 5.0
"""After this long, what has not been found out is not waited for."""
_DISK_S = 0.4
_MOST_WRITTEN = 64 << 20
_LEAST_FREE = 2 << 30
_LITTLE_FREE = 10 << 30
_SLOW_DISK = 30e6
"""Bytes a second: what one 1080p camera makes whose pixels are stored, compressed."""
_LITTLE_MEMORY = 1 << 30
_PORT = 3000
_DECODERS = ("h264", "hevc", "av1", "vp9", "mjpeg")
_ENCODERS = ("libx264", "ffv1", "mjpeg")
_NO_EXTRAS = ("all", "bench", "dev", "docs", "fuzz", "mutation")


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "doctor",
        description="Look at FFmpeg, codecs, cameras, display, GPU, disk, memory, clock, ports, extras "
        "and models, within 5 s, and leave nothing behind; with GRAPH, also at the model servers that "
        "it asks, and the certificates of its partitions. The exit status is 1 if something fails.",
    )
    parser.add_argument("graph", nargs="?", type=Path, metavar="GRAPH")
    parser.add_argument(
        "--partition",
        metavar="P",
        help="the partition of GRAPH that this machine runs: gpu, or gpu/0",
    )
    parser.add_argument(
        "--log-dir",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="where runs go; its disk is measured (runs)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """1 if something fails, otherwise 0."""
    from flowrun.tasks.commands.doctor_graph import checks_of

    if args.partition is not None and args.graph is None:
        raise UsageError("--partition names a process of a graph; give the graph: doctor GRAPH")
    more = {} if args.graph is None else checks_of(args.graph, args.partition)
    findings = list(_look(args.log_dir, more))
    if args.json:
        print_json([dataclasses.asdict(it) for it in findings])
    else:
        width = max(len(it.subject) for it in findings)
        for it in findings:
            print_text(f"{it.state:<4}  {it.subject:<{width}}  {it.text}")
            if it.hint:
                print_text(f"{'':<{width + 6}}  -> {it.hint}")
    return 1 if any(it.state == "fail" for it in findings) else 0


_Check = Callable[[], Iterator[Finding]]


def _look(log_dir: Path, more: Mapping[str, _Check]) -> Iterator[Finding]:
    """What all checks find, in their order; each has a thread of its own. more: those of a graph."""
    checks: dict[str, _Check] = {
        "flowrun": _flowrun,
        "ffmpeg": _ffmpeg,
        "hwaccel": _hwaccel,
        "cameras": _cameras,
        "display": _display,
        "gpu": _gpu,
        "disk": lambda: _disk(log_dir),
        "memory": _memory,
        "clock": _clock,
        "port": _port,
        "extras": _extras,
        "models": _models,
        "completion": _completion,
        **more,
    }
    # Two threads that import parts of a package at once may each see half of it.
    import av.codec.hwaccel  # noqa: F401

    found: dict[str, list[Finding]] = {}
    threads = [
        threading.Thread(
            target=_note, args=(name, check, found), name=f"doctor-{name}", daemon=True
        )
        for name, check in checks.items()
    ]
    until_s = monotonic_s() + _WITHIN_S
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until_s - monotonic_s()))
    for name in checks:
        late = Finding(name, "warn", f"not known within {_WITHIN_S:g} s")
        yield from found.get(name, [late])


def _note(name: str, check: _Check, found: dict[str, list[Finding]]) -> None:
    try:
        found[name] = list(check())
    except Exception as error:  # noqa: BLE001  # a library may raise anything: the others go on
        found[name] = [
            Finding(name, "warn", f"cannot be looked at: {type(error).__name__}: {error}")
        ]


# -- the programs ----------------------------------------------------------------------------------


def _flowrun() -> Iterator[Finding]:
    from flowrun.runtime.pictures.convert.kernel import is_compiled

    version = importlib.metadata.version(DISTRIBUTION)
    system = f"{platform.system()} {platform.machine()}"
    text = f"{version}, Python {platform.python_version()}, {system}"
    if platform.system() != "Linux":
        yield Finding("flowrun", "warn", text, "flowrun is tested on Linux alone")
    elif not is_compiled():
        yield Finding(
            "flowrun", "warn", f"{text}; pictures are converted by NumPy, which is slow",
            "install a C compiler (apt install gcc), then: pip install --force-reinstall "
            + DISTRIBUTION,
        )  # fmt: skip
    else:
        yield Finding("flowrun", "ok", text)


def _ffmpeg() -> Iterator[Finding]:
    import av

    codecs = av.codecs_available
    yield Finding("ffmpeg", "ok", f"{av.ffmpeg_version_info} by PyAV {av.__version__}")
    for what, mode, wanted in (("decoders", "r", _DECODERS), ("encoders", "w", _ENCODERS)):
        there = [name for name in wanted if name in codecs and _opens(name, mode)]
        missing = [name for name in wanted if name not in there]
        if missing:
            yield Finding(
                what, "warn", f"{listed(there)}; not: {listed(missing)}",
                "pip install --force-reinstall av brings PyAV's own FFmpeg, which has them",
            )  # fmt: skip
        else:
            yield Finding(what, "ok", listed(there))


def _opens(name: str, mode: str) -> bool:
    import av

    try:
        av.Codec(name, mode)
    except (ValueError, av.error.FFmpegError):
        return False
    return True


def _hwaccel() -> Iterator[Finding]:
    from flowrun.tasks.video.hwaccel import find_device

    kind, reasons = find_device("auto")
    why = "; ".join(f"{name} {reason}" for name, reason in reasons.items())
    if kind is not None:
        yield Finding("hwaccel", "ok", f"{kind} opens" + (f" ({why})" if why else ""))
    elif _gpu_devices() or any(Path("/dev/dri").glob("renderD*")):
        yield Finding(
            "hwaccel", "warn", f"videos are decoded by the CPU: {why}",
            "see that the driver is there (nvidia-smi, vainfo) and that you may use /dev/dri "
            "(groups video and render)",
        )  # fmt: skip
    else:
        yield Finding("hwaccel", "ok", f"videos are decoded by the CPU: {why}")


# -- devices ---------------------------------------------------------------------------------------

_VIDIOC_QUERYCAP = 0x80685600
_CAPABILITY = struct.Struct("=16s32s32sIII12x")
_CAPTURES = 0x1 | 0x1000
"""V4L2_CAP_VIDEO_CAPTURE, also of several planes."""
_HAS_DEVICE_CAPABILITIES = 0x80000000


def _cameras() -> Iterator[Finding]:
    devices = sorted(Path("/dev").glob("video*"), key=lambda it: (len(it.name), it.name))
    if not devices:
        yield Finding("cameras", "ok", "no webcam (/dev/video*); network cameras need none")
    for device in devices:
        try:
            name, captures = _capability(device)
        except PermissionError:
            yield Finding(
                str(device), "fail", "you may not read it",
                "sudo usermod -aG video $USER, then log in again",
            )  # fmt: skip
        except OSError as error:
            yield Finding(str(device), "warn", f"{error.strerror}")
        else:
            if captures:
                yield Finding(str(device), "ok", name)


def _capability(device: Path) -> tuple[str, bool]:
    """The name of a V4L2 device, and whether it gives pictures; asks without starting it."""
    number = os.open(device, os.O_RDWR | os.O_NONBLOCK)
    try:
        answer = fcntl.ioctl(number, _VIDIOC_QUERYCAP, bytes(_CAPABILITY.size))
    finally:
        os.close(number)
    _, card, _, _, capabilities, of_device = _CAPABILITY.unpack(answer)
    own = of_device if capabilities & _HAS_DEVICE_CAPABILITIES else capabilities
    return card.rstrip(b"\0").decode(errors="replace"), bool(own & _CAPTURES)


def _display() -> Iterator[Finding]:
    display = os.environ.get("DISPLAY", "")
    if not display:
        wayland = " (Wayland alone)" if "WAYLAND_DISPLAY" in os.environ else ""
        yield Finding("display", "ok", f"none of X11{wayland}: no windows, no screen as a source")
        return
    found = re.fullmatch(r"(?:unix)?:(\d+)(?:\.\d+)?", display)
    path = Path(f"/tmp/.X11-unix/X{found[1]}") if found else None  # noqa: S108  # X11's own
    if path is None or path.exists():
        yield Finding("display", "ok", display)
    else:
        yield Finding(
            "display", "warn", f"DISPLAY is {display}, and no X server is there",
            "start flowrun in the desktop session, or unset DISPLAY",
        )  # fmt: skip


def _gpu_devices() -> list[str]:
    return [str(it) for name in ("nvidia[0-9]*", "kfd") for it in sorted(Path("/dev").glob(name))]


_ASK_TORCH = (
    "import torch; n = torch.cuda.device_count(); "
    "print(', '.join(torch.cuda.get_device_name(i) for i in range(n)) if torch.cuda.is_available() "
    "else '')"
)


def _gpu() -> Iterator[Finding]:
    devices = _gpu_devices()
    try:
        torch = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        torch = ""
    if not devices:
        by = f"; torch {torch} computes on the CPU" if torch else ""
        yield Finding("gpu", "ok", f"none{by}")
    elif not torch:
        yield Finding(
            "gpu", "warn", f"{listed(devices)}, and no torch to use it",
            f"pip install '{DISTRIBUTION}[models]'",
        )  # fmt: skip
    else:
        # In a process of its own: importing torch takes seconds, and a driver may hang.
        asked = subprocess.run(  # noqa: S603  # this interpreter
            [sys.executable, "-c", _ASK_TORCH],
            capture_output=True, text=True, timeout=_WITHIN_S - 0.5, check=False,
        )  # fmt: skip
        if names := asked.stdout.strip():
            yield Finding("gpu", "ok", f"{names}, by torch {torch}")
        else:
            yield Finding(
                "gpu", "warn", f"{listed(devices)}, and torch {torch} does not use it",
                "install the build of torch for your driver: https://pytorch.org/get-started",
            )  # fmt: skip


# -- the machine -----------------------------------------------------------------------------------


def _disk(log_dir: Path) -> Iterator[Finding]:
    place = log_dir.absolute()
    while not place.is_dir():
        if place.exists():
            yield Finding("disk", "fail", f"{place} is a file", "name another folder: --log-dir")
            return
        place = place.parent
    free = shutil.disk_usage(place).free
    try:
        with tempfile.TemporaryFile(dir=place) as file:  # it has no name: nothing stays
            preallocates = preallocate(file.fileno(), 1 << 20)
            speed = _written_per_s(file)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        yield Finding(
            "disk", "fail", f"{place}: runs cannot be written: {error.strerror}",
            "make room there" if full else "choose a folder that you may write to: --log-dir",
        )  # fmt: skip
        return
    text = f"{place}: {size(free)} free, writes {size(int(speed))}/s"
    text += "" if preallocates else ", does not preallocate (blocks are written ahead)"
    if free < _LEAST_FREE:
        yield Finding("disk", "fail", text, "make room: a slab of a log alone may have 1 GiB")
    elif free < _LITTLE_FREE:
        yield Finding("disk", "warn", text, "make room, or let old runs go: logging: {keep: ...}")
    elif speed < _SLOW_DISK:
        yield Finding("disk", "warn", text, "log to a faster disk: --log-dir")
    else:
        yield Finding("disk", "ok", text)


def _written_per_s(file: Any) -> float:
    """Bytes a second that the disk takes, synced."""
    block = os.urandom(1 << 20)
    begin_s, written = monotonic_s(), 0
    while True:
        for _ in range(4):
            written += file.write(block)
        file.flush()
        os.fsync(file.fileno())
        took_s = monotonic_s() - begin_s
        if took_s > _DISK_S or written >= _MOST_WRITTEN:
            return written / took_s


def _memory() -> Iterator[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    available = memory.available
    text = f"{size(available)} of {size(memory.total)} available"
    limit = _limit_of_memory()
    if limit is not None and limit < memory.total:
        text += f"; this process may have {size(limit)}"
        available = min(available, limit)
    if available < _LITTLE_MEMORY:
        yield Finding("memory", "warn", text, "end other programs; models may need several GB")
    else:
        yield Finding("memory", "ok", text)


def _limit_of_memory() -> int | None:
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


class _Timex(ctypes.Structure):
    """As far as it is read; the kernel writes 208 bytes."""

    _fields_ = (
        ("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long), ("esterror", ctypes.c_long), ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )  # fmt: skip


_UNSYNCHRONIZED = 0x40


def _clock() -> Iterator[Finding]:
    asked = _Timex()
    if (
        not hasattr(ctypes.CDLL(None), "adjtimex")
        or ctypes.CDLL(None).adjtimex(ctypes.byref(asked)) < 0
    ):
        yield Finding("clock", "ok", "whether it is synchronized cannot be asked")
    elif asked.status & _UNSYNCHRONIZED:
        yield Finding(
            "clock", "warn", "not synchronized: times of several machines do not compare",
            "timedatectl set-ntp true",
        )  # fmt: skip
    else:
        yield Finding("clock", "ok", f"synchronized within {asked.maxerror / 1000:.0f} ms")


def _port() -> Iterator[Finding]:
    with socket.socket() as asking:
        asking.settimeout(0.5)
        in_use = asking.connect_ex(("127.0.0.1", _PORT)) == 0
    if in_use:
        yield Finding(
            "port", "warn", f"{_PORT} is in use", "flowrun GRAPH --port N, or 0 for a free one"
        )
    else:
        yield Finding("port", "ok", f"{_PORT} is free")


# -- what is installed -----------------------------------------------------------------------------


def _extras() -> Iterator[Finding]:
    needed: dict[str, set[str]] = {}
    inner: dict[str, list[str]] = {}
    for text in importlib.metadata.requires(DISTRIBUTION) or ():
        found = re.match(r"([\w.-]+)(?:\[([\w,-]+)\])?.*extra == ['\"]([^'\"]+)", text)
        if found is None or found[3] in _NO_EXTRAS:
            continue
        if found[1] == DISTRIBUTION:
            inner[found[3]] = found[2].split(",")
        else:
            needed.setdefault(found[3], set()).add(found[1])
    for extra in sorted(needed):
        packages = needed[extra].union(*(needed[it] for it in inner.get(extra, ())))
        missing = sorted(name for name in packages if not _is_installed(name))
        if not missing:
            yield Finding(f"[{extra}]", "ok", "installed")
        else:
            yield Finding(
                f"[{extra}]", "ok", f"not installed: {listed(missing)}",
                f"if you want it: pip install '{DISTRIBUTION}[{extra}]'",
            )  # fmt: skip


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _models() -> Iterator[Finding]:
    from flowrun.tasks.models import checkpoints

    shipped = checkpoints.embedded()
    if not shipped.complete:
        yield Finding(
            "models", "fail", "the model that ships with flowrun has no weights",
            f"pip install --force-reinstall {DISTRIBUTION}",
        )  # fmt: skip
        return
    try:
        cached = [it for it in checkpoints.in_hub_cache() if it.complete]
        more = (
            f"; {counted(len(cached), 'model')} in the hub's cache, {checkpoints.hub_cache_path()}"
        )
    except (LogError, ImportError, ValueError) as error:
        more = f"; the hub's cache cannot be read: {error}"
    needs = "" if _is_installed("torch") else "; it needs torch"
    hint = f"pip install '{DISTRIBUTION}[models]'" if needs else ""
    yield Finding("models", "warn" if needs else "ok", f"the one that ships{more}{needs}", hint)


def _completion() -> Iterator[Finding]:
    shell = Path(os.environ.get("SHELL", "")).name
    home = Path.home()
    places = {
        "bash": home / ".local/share/bash-completion/completions/flowrun",
        "zsh": home / ".zfunc/_flowrun",
        "fish": home / ".config/fish/completions/flowrun.fish",
    }
    if shell not in places:
        yield Finding(
            "completion", "ok", f"for bash, zsh and fish; the shell is {shell or 'not known'}"
        )
    elif places[shell].exists():
        yield Finding("completion", "ok", f"{shell}: {places[shell]}")
    else:
        yield Finding(
            "completion", "ok", f"not set up for {shell}", f"flowrun completion {shell} --install"
        )
