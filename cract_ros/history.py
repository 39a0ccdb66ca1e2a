"""The latest images as they came, so that a box drawn in an old one can still be used."""
from __future__ import annotations

import math
import time
from collections import deque
from threading import Condition
from typing import Callable, NamedTuple

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header


class Frame(NamedTuple):
    """An image in the order of arrival. Stamps give no order: they may stand still, and jump back when a bag loops."""
    serial: int
    message: Image | CompressedImage

    @property
    def header(self) -> Header:
        return self.message.header


class FrameHistory:
    """At most `frames` images and `size` bytes, the newest in any case. Written by one thread, read by any.

    tolerance: seconds that an image may be away from a stamp that none has.
    """

    def __init__(self, frames: int, size: int, tolerance: float = 0.0):
        self.tolerance = tolerance
        self._frames: deque[Frame] = deque()
        self._limit, self._size = frames, size
        self._bytes = 0
        self._serial = 0
        self._lock = Condition()

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, message: Image | CompressedImage) -> None:
        with self._lock:
            self._serial += 1
            self._frames.append(Frame(self._serial, message))
            self._bytes += len(message.data)
            while len(self._frames) > 1 and (len(self._frames) > self._limit or self._bytes > self._size):
                self._bytes -= len(self._frames.popleft().message.data)
            self._lock.notify_all()

    def wait(self, stamp: Time, seconds: float) -> None:
        """Until the image of that stamp, or a later one, has arrived; `seconds` at most."""
        if not nanoseconds(stamp):
            return

        def arrived() -> bool:
            return bool(self._frames) and (nanoseconds(self._frames[-1].header.stamp) >= nanoseconds(stamp) or any(
                frame.header.stamp == stamp for frame in self._frames))

        with self._lock:
            self._lock.wait_for(arrived, seconds)

    def clear(self) -> None:
        with self._lock:
            self._frames.clear()
            self._bytes = 0

    def newest(self) -> Frame | None:
        with self._lock:
            return self._frames[-1] if self._frames else None

    def nearest(self, stamp: Time) -> Frame | None:
        """The image whose stamp is least far away."""
        with self._lock:
            return min(self._frames, key=lambda frame: apart(frame.header.stamp, stamp), default=None)

    def after(self, serial: int) -> list[Frame]:
        """The images that arrived later than one, oldest first."""
        with self._lock:
            return [frame for frame in self._frames if frame.serial > serial]

    def at(self, stamp: Time) -> Frame:
        """The image with that stamp, the newest of several; a zero stamp means the newest of all.

        Where none has it, because that image was lost on the way, the nearest within `tolerance`. Raises ValueError, one
        sentence, where there is none.
        """
        with self._lock:
            frames = list(self._frames)
        if not frames:
            raise ValueError('no image has arrived yet')
        if not nanoseconds(stamp):
            return frames[-1]
        for frame in reversed(frames):
            if frame.header.stamp == stamp:
                return frame
        nearest = min(reversed(frames), key=lambda frame: apart(frame.header.stamp, stamp))
        if apart(nearest.header.stamp, stamp) <= self.tolerance:
            return nearest
        oldest, newest = frames[0].header.stamp, frames[-1].header.stamp
        if nanoseconds(stamp) < min(nanoseconds(frame.header.stamp) for frame in frames):
            why = 'is too old'
        else:
            why = 'is not among them' if nanoseconds(stamp) <= nanoseconds(newest) else 'has not arrived'
        raise ValueError(f'the image stamped {text(stamp)} {why}: {len(frames)} images are kept, '
                         f'from {text(oldest)} to {text(newest)}')


def catch_up(history: FrameHistory, serial: int, budget: float, step: Callable[[Frame], None],
             clock: Callable[[], float] = time.monotonic) -> tuple[int, int]:
    """Take `step` with the images after number `serial`, in order, so that only the newest is left to do.

    Where `budget` seconds do not suffice for all, including those that arrive meanwhile, images are left out evenly.
    Returns how many were taken and how many left out.
    """
    begun = clock()
    taken = left_out = 0
    first = history.after(serial)
    known = first[-1].serial if first else serial
    while len(waiting := history.after(serial)) > 1:
        spent = clock() - begun
        left = budget - spent
        to_come = (waiting[-1].serial - known) / spent * left if spent > 0 else 0
        affordable = left / (spent / taken) if taken else len(waiting)
        stride = math.ceil((len(waiting) + to_come) / affordable) if affordable >= 1 and left > 0 else len(waiting)
        if stride >= len(waiting):
            break
        frame = waiting[stride - 1]
        step(frame)
        taken += 1
        left_out += frame.serial - serial - 1
        serial = frame.serial
    return taken, left_out + max(len(waiting) - 1, 0)


def nanoseconds(stamp: Time) -> int:
    return stamp.sec * 10**9 + stamp.nanosec


def apart(one: Time, other: Time) -> float:
    """Seconds between two stamps."""
    return abs(nanoseconds(one) - nanoseconds(other)) / 1e9


def text(stamp: Time) -> str:
    """Seconds with all nine digits, as `ros2 topic echo` users can copy them."""
    return f'{stamp.sec}.{stamp.nanosec:09d}'
