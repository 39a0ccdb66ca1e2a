"""Counts what becomes of the camera's frames and says when the transport, not the tracker, loses them."""
from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock

from cract_ros import transport


@dataclass
class Counts:
    """Frames since the start of a count."""
    received: int = 0
    missed: int = 0  # published, but lost on the way
    refused: int = 0  # could not be read as a picture
    left_out: int = 0  # candidates that are no boxes in the image
    answered: int = 0  # worked on; the rest of those received was replaced by newer ones while the tracker was busy
    busy: float = 0.0  # seconds spent with frames
    ages: list[float] = field(default_factory=list)  # seconds from a frame's stamp to its answer


class FrameMonitor:
    """Watches one camera topic. Times are seconds of a monotonic clock. Threads may share it."""

    PERIOD = 5.0  # seconds between two judgements
    LOSS = 0.5  # share of frames missing that is worth a word
    IDLE = 0.4  # share of busy time below which it is not the tracker that drops them

    def __init__(self, now: float):
        self._hint = transport.advice()
        self.total = Counts()
        self.latest = now  # arrival of the latest frame
        self._window, self._since = Counts(), now
        self._period, self._period_since = Counts(), now
        self._lock = Lock()
        self._last: dict[str, int] = {}  # publisher -> its latest sequence number

    def arrived(self, now: float, sequence: int | None, publisher: str) -> None:
        """A frame was taken from the queue; `sequence` is the publisher's own count (None: not known)."""
        missed = 0
        if sequence is not None:
            missed = max(sequence - self._last.get(publisher, sequence) - 1, 0)
            self._last[publisher] = sequence
        self.latest = now
        with self._lock:
            for counts in (self.total, self._window, self._period):
                counts.received += 1
                counts.missed += missed

    def answered(self, seconds: float, age: float) -> None:
        """A frame took so long, and was so old when its answer went out."""
        with self._lock:
            for counts in (self.total, self._window, self._period):
                counts.busy += seconds
                counts.answered += 1
            self._period.ages.append(age)

    def refused(self) -> None:
        """A frame could not be read as a picture."""
        with self._lock:
            for counts in (self.total, self._window, self._period):
                counts.refused += 1

    def left_out(self, count: int) -> None:
        """So many candidates were no boxes in the image."""
        with self._lock:
            for counts in (self.total, self._window, self._period):
                counts.left_out += count

    def period(self, now: float) -> tuple[Counts, float]:
        """What was counted since the last call, and in how many seconds."""
        with self._lock:
            counts, self._period = self._period, Counts()
        seconds, self._period_since = now - self._period_since, now
        return counts, seconds

    def judge(self, now: float, publishers: int) -> str | None:
        """Called regularly; once in PERIOD a sentence of advice if frames stay away without reason, else None."""
        elapsed = now - self._since
        if elapsed < self.PERIOD:
            return None
        with self._lock:
            window, self._window, self._since = self._window, Counts(), now
        if publishers and not window.received:
            return f'no image in the last {elapsed:.0f} s although the topic has a publisher; if it is sending: ' \
                   f'{self._hint}'
        sent = window.received + window.missed
        if sent and window.missed > self.LOSS * sent and window.busy < self.IDLE * elapsed:
            return f'{window.missed} of {sent} images were lost on the way here while the tracker had time: ' \
                   f'{self._hint}'
        return None
