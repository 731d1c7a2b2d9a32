"""Pictures in files, which may have become anything since they were listed."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest

from flowrun.tasks.video.stills import PictureFiles, StillStream


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize(
    ("become", "reason"),
    [
        (lambda path: path.symlink_to("/dev/null"), "it is no longer a file"),
        (os.mkfifo, "it is no longer a file"),
        (_socket, "No such device or address"),
        (os.mkdir, "Is a directory"),
        (lambda path: path.symlink_to("gone"), "No such file or directory"),
    ],
    ids=["device", "pipe", "socket", "folder", "broken link"],
)
def test_what_a_picture_became_is_told_at_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    become: Callable[[Path], None],
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    whole, other = Path("0.jpg"), Path("1.jpg")
    whole.write_bytes(b"picture")
    stream = StillStream(SimpleNamespace(), Fraction(10))
    packets = PictureFiles((whole, other), stream).demux(stream)
    become(other)
    assert bytes(next(packets)) == b"picture"
    with pytest.raises(OSError, match=f"{reason}: '1.jpg'$"):
        next(packets)
