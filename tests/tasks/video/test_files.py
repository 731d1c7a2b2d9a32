"""A path -> the film, the pipe or the pictures that are there."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from flowrun.tasks.video.address import AddressError, parse_address
from flowrun.tasks.video.files import Found, find_file


def found(folder: Path, uri: str) -> Found:
    return find_file(parse_address(uri, "file"), uri, folder)


def names(folder: Path, uri: str) -> list[str]:
    return [it.name for it in found(folder, uri).pictures]


def error_of(folder: Path, uri: str) -> str:
    with pytest.raises(AddressError) as caught:
        found(folder, uri)
    return str(caught.value)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in (1, 2, 9, 10, 100):
        (tmp_path / f"img{number}.jpg").touch()
    for number in (7, 8, 12000):
        (tmp_path / f"img_{number:04}.png").touch()
    (tmp_path / ".hidden.jpg").touch()
    (tmp_path / "notes.txt").touch()
    return tmp_path


def test_pictures_come_in_natural_order(pictures: Path) -> None:
    jpegs = ["img1.jpg", "img2.jpg", "img9.jpg", "img10.jpg", "img100.jpg"]
    assert names(pictures, "*.jpg") == jpegs == names(pictures, "img%d.jpg")
    assert names(pictures, str(pictures / "img?.jpg")) == jpegs[:3]
    assert names(pictures, "img_%04d.png") == ["img_0007.png", "img_0008.png", "img_12000.png"]
    for path in pictures.glob("*.png"):
        path.unlink()
    assert names(pictures, ".") == jpegs == names(pictures.parent, f"file:{pictures.name}/")


def test_pictures_below_a_folder_with_marks_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "a[1]%02d*"
    folder.mkdir()
    (folder / "1.jpg").touch()
    (folder / "b[1].jpg").touch()
    assert names(folder, "?.jpg") == ["1.jpg"] == names(folder, "%d.jpg")
    assert names(folder, "b[1].jpg") == ["b[1].jpg"], "a path that is there is no pattern"


def test_one_picture_is_a_sequence_of_one(pictures: Path) -> None:
    assert names(pictures, "img9.jpg") == ["img9.jpg"]


@pytest.mark.parametrize(
    "name", ["a b.mp4", "2026-01-05T10:15:00.mp4", "ü#?.mp4", "100%.mp4", "a%20b.mp4"]
)
def test_a_film_is_found_however_it_is_called(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    for uri in (name, f"file:{name}", f"file://{tmp_path}/{name}", f"./{name}"):
        assert found(tmp_path, uri) == Found(tmp_path / name)
    uri = (tmp_path / name).as_uri()
    assert found(tmp_path, uri) == Found(tmp_path / name)
    assert found(tmp_path, uri.replace("file://", "file://localhost")) == Found(tmp_path / name)


def test_a_path_begins_at_home_or_at_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.mp4").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert found(Path("/"), "~/a.mp4") == Found(tmp_path / "a.mp4")
    monkeypatch.chdir(tmp_path)
    assert found(Path(), "a.mp4") == Found(Path("a.mp4"))
    assert error_of(tmp_path, "~nobody-here/a.mp4") == (
        "'~nobody-here/a.mp4': there is no user 'nobody-here'"
    )


def test_a_named_pipe_is_read_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert found(tmp_path, "pipe") == Found(tmp_path / "pipe", is_pipe=True)


def test_what_is_no_source_says_what_it_is(pictures: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(pictures / "socket"))
        assert error_of(pictures, "socket") == (
            f"'{pictures}/socket' is a socket; name a film, a pipe, or /dev/video0"
        )
    assert error_of(pictures, ".") == (
        "'.' names pictures of 2 formats (img1.jpg, img_0007.png); name one of them, such as *.jpg"
    )
    assert error_of(pictures, "n*") == (
        "'n*' names 'notes.txt', which is no picture (such as .jpg or .png); a pattern is for pictures, "
        "a film is named alone"
    )
    (pictures / "empty").mkdir()
    assert error_of(pictures, "empty") == (
        f"source_uri 'empty' is a folder without pictures: {pictures}/empty; name a video file in it"
    )


@pytest.mark.parametrize("suffix", ["heic", "AVIF", "dng"])
def test_pictures_of_a_format_that_is_not_read_are_named(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"b.{suffix}").touch()
    (tmp_path / f"a.{suffix}").touch()
    (tmp_path / f".a.{suffix}").touch()  # such as macOS keeps with each file
    assert error_of(tmp_path, ".") == (
        f"source_uri '.' is a folder of pictures that are not read: a.{suffix}, b.{suffix}; "
        "make JPEG or PNG of them"
    )
    assert error_of(tmp_path, f"b.*{suffix}") == (
        f"'b.*{suffix}' names 'b.{suffix}', a picture that is not read; make JPEG or PNG of it"
    )
    (tmp_path / "c.jpg").touch()
    assert error_of(tmp_path, ".") == (
        f"'.' names pictures of 2 formats (a.{suffix}, c.jpg); name one of them, such as *.jpg"
    )
    assert found(tmp_path, "*.jpg").pictures == (tmp_path / "c.jpg",)


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        ("C:\\films\\a.mp4", "; it is written as on Windows, and here a path is /home/me/film.mp4"),
        ("C:/films/a.mp4", "; it is written as on Windows, and here a path is /home/me/film.mp4"),
        (
            "\\\\server\\a.mp4",
            "; it is written as on Windows, and here a path is /home/me/film.mp4",
        ),
        ("192.168.1.20:554/s1", "; for a camera write rtsp://192.168.1.20:554/s1"),
    ],
)
def test_what_is_missing_may_be_meant_otherwise(tmp_path: Path, uri: str, hint: str) -> None:
    assert (
        error_of(tmp_path, uri)
        == f"no such video file: {uri!r} (looked for {tmp_path}/{uri}){hint}"
    )


def test_a_pattern_that_matches_nothing_says_so(pictures: Path) -> None:
    text = error_of(pictures, "pic_%03d.jpg")
    assert text.startswith(
        f"no file matches 'pic_%03d.jpg'; no such video file: 'pic_%03d.jpg' (looked for {pictures}/"
    )
