"""What is printed while a graph runs, where nobody reads it, or nothing can be written."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from flowrun.runtime.cli import terminal
from flowrun.runtime.cli.terminal import Outlet, Terminal


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    outlet = Outlet(writing)
    yield outlet, reading
    for fd in (reading, writing):
        os.close(fd)
    outlet.close()


def send(outlet, *, idle_s=0.0):
    return outlet.send(idle_s=idle_s, at_most_s=30.0)


def test_all_that_is_printed_arrives_in_order(pipe):
    outlet, reading = pipe
    lines = [f"line {number}\n".encode() for number in range(20_000)]  # more than a pipe holds
    got = []

    def read():
        while piece := os.read(reading, 10_000):
            got.append(piece)
            if piece.endswith(b"line 19999\n"):
                return

    reader = threading.Thread(target=read)
    reader.start()
    for line in lines:
        outlet.put(line)
    while not send(outlet, idle_s=1.0):
        pass
    reader.join()
    assert b"".join(got) == b"".join(lines)


def test_a_reader_that_does_not_read_costs_bounded_memory_and_is_told_how_much_is_missing(
    pipe, monkeypatch
):
    monkeypatch.setattr(terminal, "_ROOM", 100_000)
    outlet, reading = pipe
    for number in range(50_000):
        outlet.put(b"line %d\n" % number)
    assert not send(outlet)
    assert outlet._size < 200_000
    got = os.read(reading, 1 << 20)
    while not send(outlet):
        got += os.read(reading, 1 << 20)
    outlet.put(b"the end\n")
    assert send(outlet)
    got += os.read(reading, 1 << 20)
    *lines, note, end = got.splitlines()
    assert lines == [b"line %d" % number for number in range(len(lines))]
    missing = 50_000 - len(lines)
    assert note == b"(%d lines left out: nobody read them)" % missing
    assert end == b"the end"


def test_a_reader_that_went_away_is_no_error(pipe):
    outlet, reading = pipe
    os.close(reading)
    outlet.put(b"line\n")
    assert send(outlet)
    outlet.put(b"line\n")
    assert outlet.take() == b""
    os.dup2(os.open(os.devnull, os.O_RDONLY), reading)  # for the fixture


def test_a_full_disk_is_no_error_and_is_tried_again():
    fd = os.open("/dev/full", os.O_WRONLY)
    outlet = Outlet(fd)
    os.close(fd)
    outlet.put(b"line\n")
    assert send(outlet)
    outlet.put(b"line\n")
    assert outlet.take() == b"line\n"
    outlet.close()


def test_a_task_that_closes_stdout_does_not_redirect_the_next_file_there(tmp_path):
    writing = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    outlet = Outlet(writing)
    os.close(writing)
    slab = os.open(tmp_path / "slab", os.O_WRONLY | os.O_CREAT)
    assert slab == writing
    outlet.put(b"line\n")
    assert send(outlet)
    outlet.close()
    os.close(slab)
    assert (tmp_path / "out").read_bytes() == b"line\n"
    assert (tmp_path / "slab").read_bytes() == b""


def test_prints_of_all_kinds_keep_their_order(tmp_path, monkeypatch):
    with (tmp_path / "out").open("w+", encoding="ascii", errors="replace") as file:
        monkeypatch.setattr(sys, "stdout", file)
        monkeypatch.setattr(sys, "stderr", file)
        with Terminal():
            kept = sys.stderr
            print("one")
            print("zwö", file=sys.stderr)
            sys.stdout.buffer.write(b"three\n")
            print("four", end="")
        assert sys.stdout is file
        print(" five", file=kept)  # as a handler of `logging` does that was made meanwhile
        kept.flush()
    assert (tmp_path / "out").read_text() == "one\nzw?\nthree\nfour five\n"


def test_captured_streams_are_left_alone(capsys):
    with Terminal():
        print("seen")
    assert capsys.readouterr().out == "seen\n"


class Display:
    def __init__(self):
        self.said = []
        self.ticked = threading.Event()
        self.is_live = False

    def begin(self):
        self.said.append("begin")

    def tick(self):
        self.ticked.set()
        raise ZeroDivisionError

    def end(self):
        self.said.append("end")

    def above(self, text): ...


def test_a_display_that_fails_does_not_keep_lines_from_being_written(tmp_path, monkeypatch):
    with (tmp_path / "out").open("w+") as file:
        monkeypatch.setattr(sys, "stdout", file)
        monkeypatch.setattr(sys, "stderr", file)
        with Terminal() as shown:
            display = Display()
            shown.show(display)
            assert display.ticked.wait(30)
            print("after")
    lines = (tmp_path / "out").read_text().splitlines()
    assert "the display of the run has failed: ZeroDivisionError()" in lines
    assert "after" in lines


def replaced(fd, path):
    """Close `fd`, and give its number to a file of somebody else's."""
    path.write_text("of others")
    with path.open("r+b", buffering=0) as file:
        os.dup2(file.fileno(), fd)


def test_an_outlet_whose_descriptor_a_task_closed_writes_on_and_nowhere_else(pipe, tmp_path):
    outlet, reading = pipe
    taken = outlet.fd
    replaced(taken, tmp_path / "others")
    outlet.put(b"line\n")
    assert send(outlet)
    assert os.read(reading, 100) == b"line\n"
    assert (tmp_path / "others").read_text() == "of others"
    os.close(taken)


def test_an_outlet_all_of_whose_descriptors_a_task_closed_writes_nothing(tmp_path):
    reading, writing = os.pipe()
    outlet = Outlet(writing)
    taken = outlet.fd
    for fd in (writing, taken):
        replaced(fd, tmp_path / str(fd))
    outlet.put(b"line\n")
    assert send(outlet)
    outlet.close()
    assert os.read(reading, 100) == b""  # nobody writes any more
    for fd in (writing, taken):
        os.close(fd)  # it is still open
        assert (tmp_path / str(fd)).read_text() == "of others"
    os.close(reading)
