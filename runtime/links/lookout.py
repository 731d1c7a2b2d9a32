"""Why there is no connection to an address: the one that Zenoh does not tell.

Zenoh tries again and again, in silence. A connection of our own to the same address, with the same
certificates, ends with an alert or an error that has a name.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

from flowrun.runtime.links.certificates import EXPIRED, Certificates, common_name, troubles
from flowrun.runtime.wording import listed

__all__ = ["Lookout", "why_not"]

_CONNECT_S = 3.0
_ALERT_S = 1.0
"""How long a peer may take to refuse a certificate, which it does after the handshake."""
_FIRST_S = 3.0
"""How long an address may be without a connection before it is looked at."""
_AGAIN_S = 15.0
_TLS_ALERT = b"\x15\x03"
"""How a TLS server begins its answer to what is no TLS."""
_OTHER_NAME = (62, 64)


def why_not(address: str, files: Certificates | None) -> str | None:
    """Why nobody can be reached at an address such as "tls/edge-1:7447", as one sentence; None where
    nothing speaks against it. Takes seconds.

    files: those of `network: tls`.
    """
    protocol, _, place = address.partition("/")
    host, _, port = place.rpartition(":")
    host = host.strip("[]")
    if protocol == "quic":  # UDP: no connection that could be tried by ourselves
        return None
    try:
        with socket.create_connection((host, int(port)), _CONNECT_S) as connection:
            if protocol == "tcp" or files is None:
                return _why_not_plain(connection, address, place)
            return _why_not_tls(connection, address, host, files)
    except socket.gaierror:
        return f"{address}: no host {host!r} is known here"
    except ConnectionRefusedError:
        return f"{address}: nobody listens there (connection refused)"
    except TimeoutError:
        return f"{address}: no answer within {_CONNECT_S:g} s; is the machine on, is a firewall between?"
    except OSError as error:
        return f"{address}: {(error.strerror or str(error)).lower()}"


def _why_not_plain(connection: socket.socket, address: str, place: str) -> str | None:
    connection.settimeout(_ALERT_S)
    try:
        connection.sendall(bytes(16))
        said = connection.recv(2)
    except OSError:
        return None
    if said != _TLS_ALERT:
        return None
    return f"{address}: who listens there speaks TLS, and this process plain TCP; connect to tls/{place}"


def _why_not_tls(
    connection: socket.socket, address: str, host: str, files: Certificates
) -> str | None:
    try:
        with files.context().wrap_socket(connection, server_hostname=host) as encrypted:
            encrypted.settimeout(_ALERT_S)
            try:
                encrypted.recv(1)
            except TimeoutError:
                return None  # accepted
            return None
    except ssl.SSLCertVerificationError as error:
        return f"{address}: {_distrust(error, host, files)}"
    except ssl.SSLError as error:
        return f"{address}: {_alert(error, files)}"
    except (TimeoutError, ConnectionError):
        return f"{address}: who listens there speaks no TLS; plain TCP, or another program?"


def _distrust(error: ssl.SSLCertVerificationError, host: str, files: Certificates) -> str:
    """What is wrong with the other one's certificate."""
    if error.verify_code == EXPIRED:
        return "the certificate of who listens there has expired"
    if error.verify_code in _OTHER_NAME:
        return f"the certificate of who listens there is not for {host!r}"
    return (
        f"the certificate of who listens there is of another CA than {files.ca} "
        f"({error.verify_message})"
    )


def _alert(error: ssl.SSLError, files: Certificates) -> str:
    """What the other one said against ours."""
    reason = error.reason or ""
    if "CERTIFICATE_REQUIRED" in reason:
        return (
            "who listens there asks for a certificate; give network: {tls: {cert: ..., key: ...}}"
        )
    if "UNKNOWN_CA" in reason:
        return f"who listens there does not know the CA of {files.cert}"
    if "CERTIFICATE_EXPIRED" in reason:
        return f"{files.cert} has expired"
    if "BAD_CERTIFICATE" in reason or "CERTIFICATE_UNKNOWN" in reason:
        return f"who listens there does not accept {files.cert}"
    if "WRONG_VERSION_NUMBER" in reason or "EOF" in reason:
        return "who listens there speaks no TLS; plain TCP, or another program?"
    return f"TLS failed: {reason.lower().replace('_', ' ') or error}"


class Lookout:
    """Says why addresses have no connection, on a thread of its own: each reason once.

    addresses: those that this process connects to.
    files: those of `network: tls`.
    linked: gives the addresses, as numbers, to which there are connections.
    unseen: gives the processes that are not seen, though links lead to them.
    note: called with each sentence.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        files: Certificates | None,
        *,
        linked: Callable[[], AbstractSet[str]],
        note: Callable[[str], None],
        unseen: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._addresses, self._files = addresses, files
        self._unseen = unseen
        self._linked, self._note = linked, note
        self._said: dict[str, str | None] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="flowrun-lookout", daemon=True)

    def start(self) -> None:
        """Look from now on."""
        self._thread.start()

    def end(self) -> None:
        """Say nothing more. Does not wait for the address that is being looked at."""
        self._ended.set()

    def _work(self) -> None:
        for it in () if self._files is None else troubles(self._files):
            self._note(it.text)
        pause_s = _FIRST_S
        while not self._ended.wait(pause_s):
            pause_s = _AGAIN_S
            there = [self._look_at(address) for address in self._addresses]
            self._look_for_peers(is_connected=all(there) and bool(there))

    def _look_for_peers(self, *, is_connected: bool) -> None:
        unseen = self._unseen() if is_connected else ()
        if not unseen:
            self._said.pop("", None)
            return
        shown = "" if self._files is None else common_name(self._files)
        name = f" {shown!r}" if shown else ""
        self._say(
            "",
            f"connected, and {listed(unseen)} is not seen: it does not run, or its 'allow' does not "
            f"name the certificate{name} of this process",
        )

    def _look_at(self, address: str) -> bool:
        """Whether there is a connection to `address`."""
        if not self._linked().isdisjoint(_as_numbers(address)):
            self._said.pop(address, None)
            return True
        text = why_not(address, self._files)
        if text is None:
            text = (
                f"{address}: it can be reached, and there is no link; does its 'allow' name the "
                "certificate of this process, and is it the same version of flowrun?"
            )
        self._say(address, text)
        return False

    def _say(self, about: str, text: str) -> None:
        if not self._ended.is_set() and self._said.get(about) != text:
            self._said[about] = text
            self._note(text)


def _as_numbers(address: str) -> set[str]:
    """The same address for each number that its host has."""
    protocol, _, place = address.partition("/")
    host, _, port = place.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError:
        return {address}
    return {
        f"{protocol}/{f'[{it[4][0]}]' if ':' in str(it[4][0]) else it[4][0]}:{port}" for it in found
    }
