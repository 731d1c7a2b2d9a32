"""Which of a container's streams is the film."""

from __future__ import annotations

from typing import Any, Literal

from flowrun.tasks.video.address import AddressError

__all__ = ["chosen_stream"]

_COVER = 0x400  # AV_DISPOSITION_ATTACHED_PIC


def chosen_stream(container: Any, name: str, wanted: Literal["best"] | int) -> Any:
    """The video stream number `wanted`, or the best one: as FFmpeg chooses, and a cover picture only
    where there is nothing else. `AddressError` lists the streams if there is none; it says so where
    FFmpeg has no decoder for it."""
    streams = list(container.streams.video)
    if not streams:
        text = f"{name!r} has no video stream; it has: {_kinds(container)}"
        raise AddressError(text, code="codec")
    if wanted != "best":
        if wanted >= len(streams):
            listed = "; ".join(f"{i}: {_described(it)}" for i, it in enumerate(streams))
            raise AddressError(f"{name!r} has no video stream {wanted}; it has {listed}")
        return _decodable([streams[wanted]], name)[0]
    streams = _decodable(streams, name)
    best = container.streams.best("video")
    if best not in streams or _is_cover(best):
        films = [stream for stream in streams if not _is_cover(stream)]
        return films[0] if films else streams[0]
    return best


def _decodable(streams: list[Any], name: str) -> list[Any]:
    found = [stream for stream in streams if stream.codec_context is not None]
    if not found:
        text = f"{name!r}: FFmpeg has no decoder for its pictures; convert it to H.264, for example"
        raise AddressError(text, code="codec")
    return found


def _is_cover(stream: Any) -> bool:
    return bool(int(stream.disposition) & _COVER)


def _described(stream: Any) -> str:
    context = stream.codec_context
    if context is None:
        return "unknown codec"
    cover = " (a cover picture)" if _is_cover(stream) else ""
    return f"{context.name} {context.width}x{context.height}{cover}"


def _kinds(container: Any) -> str:
    return ", ".join(stream.type for stream in container.streams) or "none"
