"""Hosts and URLs in the configs of tasks: checked for their form, never looked up."""

from __future__ import annotations

import ipaddress
import re
import urllib.parse

__all__ = ["http_url", "is_host", "is_this_machine"]


def http_url(url: str) -> str:
    """`url` if it is one of HTTP, or empty; `ValueError` says what is wrong, and shows no part of it."""
    if not url:
        return url
    if not re.fullmatch(r"https?://[^\s/]\S*", url):
        raise ValueError("must begin with http:// or https:// and hold no spaces")
    # No part of the URL is shown: what looks like a port may be a piece of a password.
    if not url.isprintable():
        raise ValueError("holds characters that no URL has")
    try:
        host = urllib.parse.urlsplit(url).hostname
    except ValueError:
        raise ValueError("an IPv6 address must be in brackets: http://[::1]:8080/v1") from None
    if not host or not is_host(host):
        raise ValueError("has no valid host; expected a URL such as http://127.0.0.1:8080/v1")
    try:
        port = urllib.parse.urlsplit(url).port
    except ValueError:
        port = 0
    if port is not None and not port:
        raise ValueError(
            "the port must be a number from 1 to 65535; a '/', '?' or '#' in a "
            "password is written %2F, %3F, %23"
        )
    return url


def is_host(host: str) -> bool:
    """Whether `host` has the form of an address or a name; it is not looked up."""
    if ":" in host or re.fullmatch(r"[0-9.]+", host):
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def is_this_machine(url: str) -> bool:
    """Whether `url` leads to this machine, which no proxy is asked for."""
    host = ""
    try:
        host = urllib.parse.urlsplit(url).hostname or ""
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
