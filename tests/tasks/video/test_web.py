"""What web servers give, and refuse to give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flowrun.tasks.video.opening import VideoError, open_video
from flowrun.tasks.video.settings import VideoSettings
from flowrun.tasks.video.web import gives_beginning_only
from support.certificates import Authority
from support.films import FILMS, FRAMES, draw
from support.web_films import served


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Its index is at its end, and its first packet is not small: FFmpeg goes back for it."""
    return draw(tmp_path / "film.mp4", bf="0", size=(640, 480), crf="1")


def error_of(folder: Path, uri: str, **config: Any) -> VideoError:
    with pytest.raises(VideoError) as caught:
        open_video(VideoSettings(source_uri=uri, timeout_s=5, **config), folder)
    return caught.value


def test_no_picture_is_lost_where_the_server_closes_connections(film: Path, tmp_path: Path) -> None:
    with (
        served(film) as host,
        open_video(VideoSettings(source_uri=f"http://{host}/film.mp4"), tmp_path) as container,
    ):
        packets = [it for it in container.demux(video=0) if it.size]
    assert len(packets) == FRAMES
    assert packets[0].is_keyframe


def test_a_server_that_gives_no_part_of_a_film_with_its_index_at_the_end_is_named(
    film: Path, tmp_path: Path
) -> None:
    with served(film, ranges=False) as host:
        error = error_of(tmp_path, f"http://me:secret@{host}/film.mp4")
    assert error.code == "codec"
    assert str(error) == (
        f"cannot open http://{host}/film.mp4: its server gives films as a whole only (no ranges), which "
        "an MP4 with its index at the end does not allow; have the server allow ranges, move the index "
        "with ffmpeg -i IN -c copy -movflags +faststart OUT, or download the film"
    )


def test_what_is_no_mp4_is_not_said_to_lack_ranges(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a film at all")
    with served(text, ranges=False) as host:
        uri = f"http://{host}/notes"
        assert str(error_of(tmp_path, uri)) == (
            f"cannot open {uri}: not a video that FFmpeg can read"
        )
        assert not gives_beginning_only(VideoSettings(source_uri=uri))
    assert not gives_beginning_only(VideoSettings(source_uri=uri))  # nobody answers
    assert not gives_beginning_only(VideoSettings(source_uri=str(text)))


def test_a_server_that_gives_parts_is_not_said_to_lack_ranges(film: Path) -> None:
    with served(film) as host:
        assert not gives_beginning_only(VideoSettings(source_uri=f"http://{host}/film.mp4"))


def test_an_address_that_sends_on_to_another_kind_says_where(tmp_path: Path, film: Path) -> None:
    with served(film, location="rtsp://me:secret@camera.example/cam") as host:
        error = error_of(tmp_path, f"http://{host}/film.mp4")
    assert error.code == "refused"
    assert str(error) == (
        f"{host} sends http://{host}/film.mp4 on to rtsp://camera.example/cam; if you trust that, "
        "write it as source_uri"
    )


# -- secure ones -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        ({"days": -1}, "certificate has expired"),
        (
            {"host": "camera.example"},
            "IP address mismatch, certificate is not valid for '127.0.0.1'",
        ),
        ({}, ""),
    ],
)
def test_certificates_are_checked_where_options_say_so(
    tmp_path: Path, certificate: dict[str, Any], reason: str
) -> None:
    film = draw(tmp_path / "plain.mp4", **FILMS["plain.mp4"])
    authority = Authority(tmp_path)
    with served(film, certificate=authority.certify("camera", **certificate)) as host:
        uri = f"https://{host}/film.mp4"
        open_video(VideoSettings(source_uri=uri), tmp_path).close()  # any is taken
        options = {"tls_verify": 1, "ca_file": str(authority.path)}
        if not reason:
            open_video(VideoSettings(source_uri=uri, options=options), tmp_path).close()
            reason, options = "unable to get local issuer certificate", {"tls_verify": 1}
        error = error_of(tmp_path, uri, options=options)
    assert error.code == "tls"
    assert str(error) == (
        f"{host} makes no secure connection for {uri}: its certificate is not trusted: {reason}; name "
        "the file of its authority, or the certificate itself, in options: {ca_file: ...}, or leave out "
        "tls_verify, which takes any"
    )


def test_an_authority_that_cannot_be_read_is_named(tmp_path: Path, film: Path) -> None:
    with served(film, certificate=Authority(tmp_path).certify("camera")) as host:
        options = {"tls_verify": 1, "ca_file": "/no/ca.pem"}
        error = error_of(tmp_path, f"https://{host}/film.mp4", options=options)
    assert str(error) == (
        f"{host} makes no secure connection for https://{host}/film.mp4: options.ca_file '/no/ca.pem' "
        "cannot be read: No such file or directory"
    )


def test_plain_http_where_tls_is_expected_is_said_and_the_other_way_round(
    tmp_path: Path, film: Path
) -> None:
    with served(film, certificate=Authority(tmp_path).certify("camera")) as host:
        error = error_of(tmp_path, f"http://{host}/film.mp4")
    assert (error.code, str(error)) == (
        "tls",
        f"{host} speaks TLS alone; write https:// for http://{host}/film.mp4",
    )
    with served(film) as host:
        error = error_of(tmp_path, f"https://{host}/film.mp4")
    assert error.code == "tls"
    assert str(error).startswith(
        f"{host} makes no secure connection for https://{host}/film.mp4: it does not speak TLS as asked"
    )
    assert str(error).endswith("); check the port, or write http://")
