"""The connections of a source, one after the other: what is lost is opened again after a pause."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from zlib_ng.zlib_ng import crc32

from flowrun.runtime.task import State
from flowrun.tasks.video.opening import VideoError, is_live, may_be_whole, name_of, open_video
from flowrun.tasks.video.settings import Reconnect, VideoSettings
from flowrun.tasks.video.web import ask

__all__ = ["Backoff", "Connection", "Opened"]

_SHARE = 4
"""A pause is this part of the time for which a source was away."""
_LEAST = 0.8
"""The part of a pause that is not left to chance: the cameras of a switch do not all come at once."""
_MOST_NAMED = 20
"""Damaged pictures of a folder that are named."""
_QUICK = 2
"""How many times faster than it plays a film comes at least, which is sent as fast as it is taken."""


class Opened(NamedTuple):
    """A container that was opened.

    is_live: whether its pictures come at their own time.
    is_again: whether the source was there before.
    """

    container: Any
    is_live: bool
    is_again: bool


class Backoff:
    """How long to wait before the next attempt to connect.

    The pause is a quarter of the time that the source was away, so that a camera is back before its
    outage is a quarter longer, and one that stays away is asked less and less often. Time that it gives
    pictures counts four times against that: one that comes and goes at once is not back.

    settings: the limits.
    draw: gives numbers from 0 to 1.
    now_s: the time at which the first attempt begins, of a clock that nobody sets.
    """

    def __init__(self, settings: Reconnect, *, draw: Callable[[], float], now_s: float) -> None:
        self._settings = settings
        self._draw = draw
        self._at_s = now_s
        self._is_back = False
        self._away_s = 0.0
        self._attempts = 0

    def note_back(self, now_s: float) -> None:
        """It gives pictures."""
        self._away_s += now_s - self._at_s
        self._at_s = now_s
        self._is_back = True

    def pause_s(self, now_s: float, *, code: str) -> float | None:
        """Seconds until the next attempt after one that failed, or after a loss; None if there is none.

        code: of the error.
        """
        passed_s = now_s - self._at_s
        self._at_s = now_s
        if not self._is_back:
            self._away_s += passed_s
        elif passed_s * _SHARE >= self._away_s:
            self._away_s, self._attempts = 0.0, 0
        else:
            self._away_s -= passed_s * _SHARE
        self._is_back = False
        settings = self._settings
        if settings.max_attempts is not None and self._attempts >= settings.max_attempts:
            return None
        self._attempts += 1
        longest_s = max(settings.delay_s, settings.max_delay_s)
        # Cameras shut users out who come with a wrong password again and again.
        wanted_s = longest_s if code == "auth" else self._away_s / _SHARE
        pause_s = min(max(settings.delay_s, wanted_s), longest_s)
        return pause_s * (_LEAST + (1 - _LEAST) * self._draw())


class Log(Protocol):
    """What a connection logs with."""

    def info(self, event: str, **fields: Any) -> Any: ...

    def warning(self, event: str, **fields: Any) -> Any: ...


class Connection:
    """Opens a source, and opens it again when it was lost. For one thread, except `stop`.

    report: called with the state of the source, and a code.
    draw: gives numbers from 0 to 1.
    """

    def __init__(
        self,
        config: VideoSettings,
        graph_dir: Path,
        *,
        report: Callable[[State, str], None],
        log: Log,
        draw: Callable[[], float],
    ) -> None:
        self.name = name_of(config)
        """The address, without what must not be shown."""
        self.may_wait = config.reconnect.at_start and config.may_be_live
        """Whether a run begins without it."""
        self._config, self._graph_dir = config, graph_dir
        self._report, self._log, self._draw = report, log, draw
        self._stopped = threading.Event()
        self._backoff: Backoff | None = None
        self._lost_s = 0.0
        """When it was lost."""
        self._is_again = False
        self._gives = False
        self._was_asked = False
        self._asked_s = 0.0
        """When it was asked for its pictures last."""
        self._first: tuple[int | None, int] | None = None
        """Time stamp and checksum of the packet with which it began."""
        self._was_quick = False
        """Whether it then gave its pictures in less than half of the time that they play."""
        self._is_cut_off = False
        self._damaged: set[Path] = set()
        """The files that were said to be damaged."""
        self._told = ("", "")
        """The code and the text of the error that was logged last."""

    @property
    def is_stopped(self) -> bool:
        return self._stopped.is_set()

    def stop(self) -> None:
        """Open nothing more; from any thread."""
        self._stopped.set()

    def open(self, lost: VideoError | None = None) -> Opened | None:
        """The next connection; None if it was stopped.

        lost: why the one before ended.

        Raises `VideoError` if the first attempt fails or gives no picture, unless a run may begin
        without the source, and when the attempts are used up.
        """
        if self._backoff is None:
            self._backoff = Backoff(self._config.reconnect, draw=self._draw, now_s=time.monotonic())
        if lost is not None and not self.is_stopped:
            if not (self._is_again or self.may_wait):
                raise lost
            if self._gives:
                self._lost_s = time.monotonic()
                self._told = (lost.code, str(lost))
                self._log.warning("source lost", source=self.name, reason=str(lost), code=lost.code)
            else:
                self._tell(lost)
        self._gives = False
        while not self.is_stopped:
            if lost is not None:
                self._wait(lost)
                if self.is_stopped:
                    break
            self._asked_s = time.monotonic()
            try:
                container = open_video(self._config, self._graph_dir, is_known=self._is_again)
            except VideoError as error:
                if self.is_stopped:
                    break
                if error.is_lasting or not (self._is_again or self.may_wait):
                    raise
                self._tell(error)
                lost = error
                continue
            if self.is_stopped:
                container.close()
                break
            return Opened(container, is_live(container, self._config), self._is_again)
        return None

    def open_again(self) -> Any:
        """The container of a file that is open, once more, at its beginning."""
        return open_video(self._config, self._graph_dir)

    def is_over(self, container: Any) -> bool:
        """Whether what was taken for live, and has ended, was a file: its server says so. It is asked
        at the first end only: some servers serve one client, and that is to be us."""
        if self._was_asked or self._config.live != "auto" or not may_be_whole(container):
            return False
        answer = ask(self._config)
        self._was_asked = answer is not None
        if answer is None or not answer.is_stored:
            return False
        self._log.info("it was a film, not live: its server dates it", source=self.name)
        return True

    def note_end(self, plays_s: float) -> None:
        """It has ended, and has given what plays for so long."""
        self._was_quick = plays_s > _QUICK * (time.monotonic() - self._asked_s)

    def note_cut_off(self) -> None:
        """A film on the disk has ended in the middle of a packet."""
        if not self._is_cut_off:
            self._is_cut_off = True
            self._log.warning("the film is cut off in the middle of a packet", source=self.name)

    def note_damaged(self, file: Path) -> None:
        """A picture of several files cannot be decoded as it is."""
        if file in self._damaged or len(self._damaged) >= _MOST_NAMED:
            return
        self._damaged.add(file)
        others = "the next are not named" if len(self._damaged) == _MOST_NAMED else None
        more = {} if others is None else {"others": others}
        self._log.warning("the picture is damaged", source=self.name, file=str(file), **more)

    def is_repeated(self, packet: Any, container: Any) -> bool:
        """Whether what is taken for live is a file, though its server does not say so: it begins with
        what it began with before, all of which came faster than it plays.

        packet: the first one.
        """
        first = packet.pts, crc32(bytes(packet))
        is_same, self._first = first == self._first, first
        if not (is_same and self._was_quick and self._is_again):
            return False
        if self._config.live != "auto" or not may_be_whole(container):
            return False
        self._log.info(
            "it was a film, not live: its server gives the same again, faster than it plays. "
            "live: false gives all its pictures",
            source=self.name,
        )
        return True

    def note_picture(self) -> None:
        """The source gives pictures."""
        if self._gives or self.is_stopped:
            return
        self._gives = True
        now_s = time.monotonic()
        if self._backoff is not None:
            self._backoff.note_back(now_s)
        self._report("running", "")
        if self._is_again:
            after_s = round(now_s - self._lost_s, 1)
            self._log.info("source is back", source=self.name, after_s=after_s)
        self._is_again = True

    def _tell(self, error: VideoError) -> None:
        """Log why the source gives no pictures, once while that is the same."""
        if self._told != (error.code, str(error)):
            self._told = (error.code, str(error))
            self._log.warning("no connection", reason=str(error), code=error.code)

    def _wait(self, lost: VideoError) -> None:
        """Pause before the next attempt. Raises `lost` if there is none."""
        assert self._backoff is not None
        pause_s = self._backoff.pause_s(time.monotonic(), code=lost.code)
        if pause_s is None:
            raise lost
        self._report("lost" if self._is_again else "connecting", lost.code)
        self._stopped.wait(pause_s)
