"""Why no secure connection comes about, where FFmpeg says no more than that it is an error."""

from __future__ import annotations

import socket
import ssl
from urllib.parse import urlsplit

from flowrun.runtime.wording import escaped
from flowrun.tasks.video.settings import VideoSettings

__all__ = ["fault_of"]

_LONGEST_S = 2.0
_PORTS = {"https": 443, "rtsps": 322}
_VERIFY, _CA = "tls_verify", "ca_file"
"""FFmpeg's options."""


def fault_of(config: VideoSettings) -> str | None:
    """What is wrong with the secure connection to the source, and what to do; None where nothing is
    known to be, or nobody answers.

    As FFmpeg does, certificates are checked where `options` say `tls_verify: 1`, against `ca_file` or
    the machine's own authorities.
    """
    options = config.ffmpeg_options
    verifies = options.get(_VERIFY, "0") not in ("0", "")
    context = ssl.create_default_context()
    try:
        if verifies and _CA in options:
            context = ssl.create_default_context(cafile=options[_CA])
    except (OSError, ssl.SSLError) as error:
        return f"options.ca_file {options[_CA]!r} cannot be read: {error.strerror or error}"
    if not verifies:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        _shake_hands(config, context)
    except ssl.SSLCertVerificationError as error:
        reason = escaped(error.verify_message).rstrip(".")
        return (
            f"its certificate is not trusted: {reason}; name the file of its authority, or the "
            "certificate itself, in options: {ca_file: ...}, or leave out tls_verify, which takes any"
        )
    except ssl.SSLError as error:
        scheme = urlsplit(config.address.target).scheme[:-1]
        reason = escaped(error.reason or str(error)).lower().replace("_", " ")
        return f"it does not speak TLS as asked ({reason}); check the port, or write {scheme}://"
    except (OSError, ValueError):
        pass
    return None


def _shake_hands(config: VideoSettings, context: ssl.SSLContext) -> None:
    parts = urlsplit(config.address.target)
    host = parts.hostname or ""
    port = parts.port or _PORTS.get(parts.scheme.lower(), 443)
    with (
        socket.create_connection((host, port), _LONGEST_S) as connection,
        context.wrap_socket(connection, server_hostname=host),
    ):
        return
