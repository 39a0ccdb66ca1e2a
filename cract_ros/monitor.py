"""Counts what becomes of the camera's frames and says when the transport, not the tracker, loses them."""
from __future__ import annotations

from dataclasses import dataclass

from cract_ros import transport


@dataclass
class Counts:
    """Frames since the start of a count."""
    received: int = 0
    missed: int = 0  # published, but replaced by a newer one while the tracker was busy, or lost on the way
    refused: int = 0  # could not be read as a picture
    busy: float = 0.0  # seconds spent with frames


class FrameMonitor:
    """Watches one camera topic. Times are seconds of a monotonic clock."""

    PERIOD = 5.0  # seconds between two judgements
    LOSS = 0.5  # share of frames missing that is worth a word
    IDLE = 0.4  # share of busy time below which it is not the tracker that drops them

    def __init__(self, now: float):
        self._hint = 'with Fast DDS large images need the setting ' \
                     f'{transport.VARIABLE}={transport.profile()} in the environment of the camera node'
        self.total = Counts()
        self._window = Counts()
        self._since = now
        self._last: dict[bytes, int] = {}  # publisher -> its latest sequence number

    def arrived(self, sequence: int | None, publisher: bytes) -> None:
        """A frame was taken from the queue; `sequence` is the publisher's own count (None: not known)."""
        missed = 0
        if sequence is not None:
            missed = max(sequence - self._last.get(publisher, sequence) - 1, 0)
            self._last[publisher] = sequence
        for counts in (self.total, self._window):
            counts.received += 1
            counts.missed += missed

    def done(self, seconds: float, refused: bool) -> None:
        """The frame that arrived last took so long, and was no readable picture if `refused`."""
        for counts in (self.total, self._window):
            counts.busy += seconds
            counts.refused += refused

    def judge(self, now: float, publishers: int) -> str | None:
        """Called regularly; once in PERIOD a sentence of advice if frames stay away without reason, else None."""
        elapsed = now - self._since
        if elapsed < self.PERIOD:
            return None
        window, self._window, self._since = self._window, Counts(), now
        if publishers and not window.received:
            return f'no image in the last {elapsed:.0f} s although the topic has a publisher; if it is sending: ' \
                   f'{self._hint}'
        sent = window.received + window.missed
        if sent and window.missed > self.LOSS * sent and window.busy < self.IDLE * elapsed:
            return f'{window.missed} of {sent} images were lost on the way here while the tracker had time: ' \
                   f'{self._hint}'
        return None
