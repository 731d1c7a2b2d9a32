"""Descriptors that somebody else may close."""

from __future__ import annotations

import errno
import os

import pytest

from flowrun.runtime.descriptor import Descriptor


def test_a_descriptor_without_a_name_is_not_opened_again(tmp_path):
    made = Descriptor(os.open(tmp_path / "a", os.O_RDWR | os.O_CREAT))
    number = made.number
    assert made.is_open
    os.close(number)
    assert os.open(tmp_path / "b", os.O_RDWR | os.O_CREAT) == number
    assert not made.is_open
    with pytest.raises(OSError) as caught:
        _ = made.number
    assert (caught.value.errno, caught.value.strerror) == (
        errno.EBADF, "its descriptor was closed",
    )  # fmt: skip
    made.close()
    os.close(number)  # it is still open: of somebody else


def test_a_descriptor_that_somebody_closed_is_opened_again(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    second.write_text("mine")
    kept = Descriptor(os.open(second, os.O_RDWR), first, second)
    number = kept.number
    assert kept.number == number
    assert kept.identity == (second.stat().st_dev, second.stat().st_ino)
    os.close(number)
    os.write(kept.number, b"MI")
    assert second.read_text() == "MIne"
    assert not os.get_inheritable(kept.number)
    os.close(kept.number)
    other = os.open(tmp_path, os.O_RDONLY)  # of somebody else, with the number that was free
    assert kept.number != other
    second.rename(first)
    os.close(kept.number)
    os.write(kept.number, b"m")
    assert first.read_text() == "mIne"
    kept.close()
    kept.close()
    os.fstat(other)
    os.close(other)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - as a number
    first.rename(tmp_path / "third")
    first.write_text("another")
    with pytest.raises(FileNotFoundError) as caught:
        _ = kept.number
    assert caught.value.strerror == "its descriptor was closed, and it was removed"
    kept.close()
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208
    folder = Descriptor(os.open(tmp_path, os.O_RDONLY), tmp_path)
    os.close(folder.number)
    os.fsync(folder.number)
    folder.close()
