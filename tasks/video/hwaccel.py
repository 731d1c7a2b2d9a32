"""`hwaccel`: which device decodes a source's pictures, as far as FFmpeg and the machine have one."""

from __future__ import annotations

from typing import Any, Protocol

from flowrun.msgs.image import VideoDecoder
from flowrun.runtime.pictures.video import PacketDecoder
from flowrun.runtime.wording import listed

__all__ = ["Device", "HardwareError", "Logger", "find_device", "missing_hwaccel", "new_decoder"]

_KINDS = ("cuda", "vaapi")
"""Those that `auto` tries, in this order."""
_OPTIONS: dict[str, dict[str, object]] = {"cuda": {"primary_ctx": "1"}}
"""With which they are opened. All of CUDA's decoders in a process share its memory on the device."""
_MOST_STORED = 8
"""Pictures that the log may get whole, whatever their share is."""
_SHARE_STORED = 4
"""Of this number of pictures, one more may be stored whole: 0.8 MB a picture at 1080p."""
_MOST_DAMAGED = 8
"""Sections in a row that the device could not end, after which it gets no more of them."""


class HardwareError(Exception):
    """A device cannot be used: the reason, in words that follow its name."""


class Logger(Protocol):
    """What is needed of `ctx.log`."""

    def info(self, event: str, **fields: Any) -> Any: ...

    def warning(self, event: str, **fields: Any) -> Any: ...


def missing_hwaccel(wanted: str) -> str | None:
    """What is wrong with this value of `hwaccel` whatever the machine has; None if nothing is."""
    if wanted in ("none", "auto"):
        return None
    from av.codec.hwaccel import hwdevices_available

    known = [kind for kind in _KINDS if kind in hwdevices_available()]
    if wanted in known:
        return None
    return f"this FFmpeg has no hwaccel {wanted!r}; valid: {listed(['none', 'auto', *known])}"


def find_device(wanted: str) -> tuple[str | None, dict[str, str]]:
    """Which device decodes: its name, None for the CPU; and by name, why others that were tried do not.

    wanted: `hwaccel` of a graph file. `HardwareError` where it names a device that does not open.
    """
    reasons: dict[str, str] = {}
    if wanted == "none":
        return None, reasons
    for kind in _KINDS if wanted == "auto" else (wanted,):
        reason = missing_hwaccel(kind)
        if reason is None:
            try:
                _open(kind, "h264")
            except HardwareError as error:
                reason = str(error)
        if reason is None:
            return kind, reasons
        reasons[kind] = reason
    if wanted != "auto":
        raise HardwareError(f"{wanted} {reasons[wanted]}")
    return None, reasons


def _open(kind: str, codec: str) -> None:
    import av
    from av.codec.hwaccel import HWAccel

    try:
        HWAccel(kind, options=_OPTIONS.get(kind)).create(av.Codec(codec, "r"))
    except NotImplementedError:
        raise HardwareError(f"does not decode {codec}") from None
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        text = f"does not open ({reason}): it, or its driver, is missing or may not be used"
        raise HardwareError(text) from error


def new_decoder(kind: str, known: VideoDecoder) -> PacketDecoder:
    """What decodes on such a device. `ValueError` where it does not decode that."""
    from av.codec.hwaccel import HWAccel

    device = HWAccel(kind, allow_software_fallback=False, options=_OPTIONS.get(kind))
    return PacketDecoder(known, device=device)


class Device:
    """The device that decodes one source, until it fails. For the thread that decodes, but `note_read`.

    is_used: whether the next section gets it.
    """

    def __init__(self, kind: str, *, source: str, log: Logger) -> None:
        self.kind = kind
        self.is_used = True
        self._source, self._log = source, log
        self._idle: tuple[VideoDecoder, PacketDecoder] | None = None
        """A decoder whose section has ended, and what it decodes."""
        self._damaged = 0
        """Sections in a row that it could not end."""
        self._given = 0
        """Pictures of its last sections that were given to the run."""
        self._read = 0
        """How many of them the log gets whole, as they were read."""

    def note_given(self) -> None:
        """A picture was given to the run."""
        self._given += 1

    def note_read(self) -> None:
        """One that the device decoded was read, so that the log gets it whole. On any thread."""
        self._read += 1  # of two threads at once, one may be lost: it is a share

    def check_demand(self) -> bool:
        """Use it no more if too many pictures are read; False then."""
        if self._read > _MOST_STORED + self._given // _SHARE_STORED:
            self.give_up(
                "most pictures are read: the log would get them whole besides their packets"
            )
        return self.is_used

    def decoder(self, known: VideoDecoder) -> PacketDecoder | None:
        """A decoder that knows nothing of packets before; None where the device has none."""
        self._given //= 2
        self._read //= 2
        idle, self._idle = self._idle, None
        try:
            if idle is not None and idle[0] == known:
                idle[1].begin_again()
                return idle[1]
            return new_decoder(self.kind, known)
        except Exception as error:  # noqa: BLE001  # drivers have errors of their own
            self.give_up(f"{self.kind} {str(error) or type(error).__name__}")
            return None

    def put_back(self, known: VideoDecoder, decoder: PacketDecoder) -> None:
        """The section that it decoded has ended well: it may decode another."""
        self._damaged = 0
        self._idle = known, decoder

    def note_damaged(self) -> None:
        """A section was decoded on the CPU from its beginning, as packets of it are damaged."""
        self._damaged += 1
        if self._damaged >= _MOST_DAMAGED:
            self.give_up(f"{self._damaged} times in a row, packets were damaged")

    def give_up(self, reason: str) -> None:
        """Use it no more."""
        self._idle = None
        if self.is_used:
            self.is_used = False
            self._log.warning(
                "the CPU decodes from now on",
                source=self._source,
                hwaccel=self.kind,
                reason=reason,
            )
