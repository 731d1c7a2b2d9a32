"""The files of `network: tls`: whether they fit together, and the graph's addresses.

A handshake in memory, of this process with itself, says what a peer would say of them.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["EXPIRED", "Certificates", "Trouble", "common_name", "expires_s", "troubles"]

EXPIRED, OTHER_NAME, OTHER_ADDRESS = 10, 62, 64
"""Codes with which OpenSSL's verification fails."""
_STEPS = 20
"""A handshake has fewer messages."""


class Certificates(NamedTuple):
    """The files of a process; `cert` and `key` are None where it shows no certificate."""

    ca: Path
    cert: Path | None
    key: Path | None

    def context(self, *, server: bool = False) -> ssl.SSLContext:
        """What a peer with these files uses. Raises `OSError` or `ssl.SSLError`."""
        purpose = ssl.Purpose.CLIENT_AUTH if server else ssl.Purpose.SERVER_AUTH
        made = ssl.create_default_context(purpose, cafile=str(self.ca))
        if self.cert is not None:
            made.load_cert_chain(
                str(self.cert), None if self.key is None else str(self.key), _no_password
            )
            if server:
                made.verify_mode = ssl.CERT_REQUIRED
        return made


class Trouble(NamedTuple):
    """What is wrong with a file.

    key: its key in `tls`.
    is_final: whether no peer can be reached with it; otherwise peers may refuse it.
    """

    key: str
    text: str
    is_final: bool


def troubles(files: Certificates, hosts: Iterable[str] = ()) -> Iterator[Trouble]:
    """What is wrong with `files`; nothing where all fits.

    hosts: the names and addresses at which others reach this process.
    """
    found = list(_of_files(files))
    yield from found
    if found or files.cert is None:
        return
    for host in hosts or ("",):
        error = _refusal(files, host)
        if error is not None:
            yield _refused(files, host, error)
            if error.verify_code not in (OTHER_NAME, OTHER_ADDRESS):
                return


def _of_files(files: Certificates) -> Iterator[Trouble]:
    for key, path in files._asdict().items():
        if path is None:
            continue
        try:
            path.read_bytes()
        except OSError as error:
            yield Trouble(key, f"{path}: {(error.strerror or str(error)).lower()}", is_final=True)
            return
    try:
        Certificates(files.ca, None, None).context()
    except ssl.SSLError:
        yield Trouble("ca", f"{files.ca} holds no certificate in PEM", is_final=True)
        return
    try:
        files.context()
    except _PasswordError:
        yield Trouble("key", f"{files.key} has a password; give a key without one", is_final=True)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            yield Trouble("key", f"{files.key} is not the key of {files.cert}", is_final=True)
        elif _holds(files.cert, "CERTIFICATE"):
            yield Trouble("key", f"{files.key} holds no private key in PEM", is_final=True)
        else:
            yield Trouble("cert", f"{files.cert} holds no certificate in PEM", is_final=True)


def _refused(files: Certificates, host: str, error: ssl.SSLCertVerificationError) -> Trouble:
    if error.verify_code == EXPIRED:
        return Trouble("cert", f"{files.cert} has expired", is_final=False)
    if error.verify_code in (OTHER_NAME, OTHER_ADDRESS):
        return Trouble("cert", f"{files.cert} is not for {host!r}", is_final=False)
    why = error.verify_message
    return Trouble("cert", f"{files.cert} is none that {files.ca} accepts: {why}", is_final=False)


def _holds(path: Path | None, what: str) -> bool:
    return path is not None and f"BEGIN {what}".encode() in path.read_bytes()


class _PasswordError(Exception):
    """A key needs a password, for which OpenSSL would ask on the terminal."""


def _no_password() -> str:
    raise _PasswordError


def _refusal(files: Certificates, host: str) -> ssl.SSLCertVerificationError | None:
    try:
        _handshake(files, host)
    except ssl.SSLCertVerificationError as error:
        return error
    return None


def _handshake(files: Certificates, host: str) -> dict[str, Any]:
    """The certificate, as its peer sees it, which has verified it. Raises `ssl.SSLError`."""
    context = files.context()
    context.check_hostname = bool(host)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(back, there, server_hostname=host or None)
    server = files.context(server=True).wrap_bio(there, back, server_side=True)
    waiting = [client, server]
    for _ in range(_STEPS):
        for side in tuple(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)
        if not waiting:
            break
    return dict(client.getpeercert() or {})


def common_name(files: Certificates) -> str:
    """The name that `network: allow` knows the certificate by; "" where it has none, or is refused."""
    return next(
        (
            value
            for part in _seen(files).get("subject", ())
            for key, value in part
            if key == "commonName"
        ),
        "",
    )


def expires_s(files: Certificates) -> float | None:
    """When the certificate expires, in seconds since 1970 UTC; None where it has, or there is none."""
    until = _seen(files).get("notAfter")
    return None if until is None else float(ssl.cert_time_to_seconds(until))


def _seen(files: Certificates) -> dict[str, Any]:
    if files.cert is None:
        return {}
    try:
        return _handshake(files, "")
    except (OSError, _PasswordError):  # ssl.SSLError is an OSError
        return {}
