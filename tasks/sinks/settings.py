"""What the configs of several sinks hold: hosts, ports, URLs."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

__all__ = ["Host", "Port"]


def _host(text: str) -> str:
    if "://" in text:
        raise ValueError("must be a host alone, such as 192.168.1.20, not a URL")
    if re.search(r"[\s/@]", text) or not text.isprintable():
        raise ValueError("is no name or address of a host")
    if re.fullmatch(r"[^:]+:\d+", text):
        raise ValueError("must be a host alone; the port is in 'port'")
    try:
        text.encode("idna") if text else None
    except UnicodeError:
        raise ValueError("is no name or address of a host") from None
    return text


Host = Annotated[str, Field(min_length=1, max_length=253), AfterValidator(_host)]
"""A name or an address; it is not looked up."""

Port = Annotated[int, Field(ge=1, le=65535)]
