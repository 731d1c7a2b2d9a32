"""What the configs of several sinks hold: hosts, ports, URLs."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from flowrun.tasks.addresses import http_url, is_host

__all__ = ["Host", "Port", "Url"]


def _host(text: str) -> str:
    if "://" in text:
        raise ValueError("must be a host alone, such as 192.168.1.20, not a URL")
    if re.fullmatch(r"[^:]+:\d+", text):
        raise ValueError("must be a host alone; the port is in 'port'")
    if re.search(r"[\s/@]", text) or not text.isprintable() or not is_host(text):
        raise ValueError("is no name or address of a host")
    return text


Host = Annotated[str, Field(min_length=1, max_length=253), AfterValidator(_host)]
"""A name or an address; it is not looked up."""

Port = Annotated[int, Field(ge=1, le=65535)]

Url = Annotated[str, AfterValidator(http_url)]
"""A URL of HTTP. An environment variable that is not set is empty in a replay, which sends nothing."""
