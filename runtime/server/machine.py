"""What the machine is, and how busy: the seed's `stats`."""

# No `from __future__ import annotations`: FastAPI reads the annotations of the endpoints.

import contextlib
import os
import platform
import pwd
import socket
from pathlib import Path
from typing import Any

from fastapi import APIRouter

from flowrun.runtime.server.bodies import Json, SysInfo, WhoAmI, refusals
from flowrun.runtime.server.routes import new_router

__all__ = ["machine_router"]

_CPUINFO = Path("/proc/cpuinfo")
_LOOK_S = 0.1


def machine_router() -> APIRouter:
    """The endpoints below `/api/v0/stats`."""
    router = new_router()
    for path, endpoint, model in (
        ("/stats/whoami", whoami, WhoAmI),
        ("/stats/sysinfo", sysinfo, SysInfo),
    ):
        router.add_api_route(path, endpoint, responses={200: {"model": model}, **refusals({})})
    return router


def whoami() -> Json:
    """The machine and the user that the run has: names, system, architecture."""
    user = _user()
    name = str(os.getuid()) if user is None else user.pw_name
    return Json(
        {
            "arch": platform.machine(),
            "desktop_env": os.environ.get("XDG_CURRENT_DESKTOP") or "Unknown",
            "device_name": _device_name(),
            "distro": _release().get("PRETTY_NAME", platform.system()),
            "hostname": socket.gethostname(),
            "platform": platform.system(),
            "realname": name if user is None else user.pw_gecos.split(",")[0] or name,
            "username": name,
        }
    )


def sysinfo() -> Json:
    """Memory, CPUs and disks of the machine, and how busy they are. Sizes are in bytes, usage is in
    percent of the next tenth of a second."""
    # Not a coroutine: it waits, and a disk of another machine may be slow to answer.
    import psutil

    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    usage: list[float] = psutil.cpu_percent(_LOOK_S, percpu=True)
    return Json(
        {
            "total_memory": memory.total,
            "free_memory": memory.free,
            "used_memory": memory.used,
            "available_memory": memory.available,
            "total_swap": swap.total,
            "name": platform.system(),
            "kernel_version": platform.release(),
            "os_version": _release().get("VERSION_ID", ""),
            "host_name": socket.gethostname(),
            "cpus": _cpus(usage, psutil.cpu_freq(percpu=True)),
            "disks": [_disk(it) for it in psutil.disk_partitions()],
            "global_cpu_usage": round(sum(usage) / max(1, len(usage)), 1),
        }
    )


def _cpus(usage: list[float], frequencies: list[Any]) -> list[dict[str, Any]]:
    brand = _brand()
    return [
        {
            "name": f"cpu{number}",
            "brand": brand,
            "frequency": round(frequencies[number].current) if number < len(frequencies) else 0,
            "usage": percent,
        }
        for number, percent in enumerate(usage)
    ]


def _disk(partition: Any) -> dict[str, Any]:
    total = available = 0
    with contextlib.suppress(OSError):  # not for us to look at, or gone
        disk = os.statvfs(partition.mountpoint)
        total, available = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
    return {
        "name": partition.device,
        "file_system": partition.fstype,
        "mount_point": partition.mountpoint,
        "total_space": total,
        "available_space": available,
    }


def _brand() -> str:
    """What the CPUs call themselves; "" where they do not."""
    with contextlib.suppress(OSError):
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model"):
                return value.strip()
    return platform.processor()


def _release() -> dict[str, str]:
    with contextlib.suppress(OSError):
        return platform.freedesktop_os_release()
    return {}


def _device_name() -> str:
    """The name that people gave the machine."""
    with contextlib.suppress(OSError):
        for line in Path("/etc/machine-info").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition("=")
            if key == "PRETTY_HOSTNAME":
                return value.strip('"')
    return socket.gethostname()


def _user() -> pwd.struct_passwd | None:
    with contextlib.suppress(KeyError):  # a container may run as a user that nobody has named
        return pwd.getpwuid(os.getuid())
    return None
