"""How a gimbal is turned so that the target comes to the middle of the picture and stays there. No ROS, no clock.

What is known is old: the picture by its age, and what was asked of the gimbal takes effect after a while. So the target's
direction is counted from where the gimbal pointed when the picture was taken, its motion is estimated there, and the
gimbal is sent to where the target will be. That the gimbal turns as it is told is taken for granted.

Angles are (to the right, upwards) in radians; times are seconds of one monotonic clock.
"""
from __future__ import annotations

import enum
import math
from collections import deque
from dataclasses import dataclass, fields

import numpy as np

POSITION_GAIN, VELOCITY_GAIN = 0.6, 0.25  # of the filter of the target's motion, which is nearly critically damped
LONGEST_GAP = 0.5   # seconds between two sights after which the target's motion is not known any more
REMEMBERED = 3.0    # seconds of what the gimbal was told
STOPPING = 0.2      # seconds in which the fastest motion is brought to a stop where the target is lost


class Sight(enum.Enum):
    """What a picture has told."""
    FOLLOWED = 0    # there is the target
    DOUBTFUL = 1    # it may be there
    NOTHING = 2     # it is lost, or there is none


@dataclass(frozen=True)
class PointingConfig:
    """Ranges are checked on construction (ValueError, one sentence)."""
    gain: float = 2.5            # rate for each radian that is left, 1/s
    deadband: float = 0.005      # radians that are left alone
    max_rate: float = 1.0        # radians a second, of each axis
    max_acceleration: float = 4.0  # radians a second, each second
    delay: float = 0.1           # seconds from a command to its effect
    hold: float = 3.0            # seconds that a doubtful target is turned with as it moved before
    timeout: float = 0.3         # seconds without a picture after which the gimbal stops

    def __post_init__(self):
        for field in fields(self):
            value, positive = getattr(self, field.name), field.name in ('gain', 'max_rate', 'max_acceleration', 'timeout')
            if not (0 < value if positive else 0 <= value) or not math.isfinite(value):
                raise ValueError(f'{field.name} must be {"above" if positive else "at least"} 0, got {value:g}')


class Pointing:
    """The two rates. `see` takes what a picture told, `rates` says what the gimbal is to do now, again and again."""

    def __init__(self, config: PointingConfig = PointingConfig()):
        self.config = config
        self._told: deque[tuple[float, np.ndarray]] = deque()  # time, where the gimbal will have been sent by then
        self._rates = np.zeros(2)
        self._angle = np.zeros(2)
        self._target: np.ndarray | None = None
        self._velocity = np.zeros(2)
        self._taken = -math.inf     # when the picture was taken of which target and velocity are
        self._heard = -math.inf     # when the latest picture came
        self._sure = -math.inf      # ... in which the target was followed
        self._sight = Sight.NOTHING

    @property
    def active(self) -> bool:
        """Whether the gimbal is being turned."""
        return bool(self._rates.any())

    def see(self, now: float, age: float, sight: Sight, error=(0.0, 0.0)) -> None:
        """A picture that was taken `age` seconds ago; error: of the target from the middle."""
        self._heard, self._sight = now, sight
        if sight is Sight.NOTHING:
            self._target = None
            return
        if sight is Sight.DOUBTFUL:
            return
        self._sure = now
        taken = now - min(max(age, 0.0), REMEMBERED / 2)
        seen = self._pointed(taken - self.config.delay) + np.asarray(error, float)
        gap = taken - self._taken
        if self._target is None or gap > LONGEST_GAP:
            self._target, self._velocity = seen, np.zeros(2)
        elif gap > 1e-3:
            expected = self._target + gap * self._velocity
            self._target = expected + POSITION_GAIN * (seen - expected)
            self._velocity = self._velocity + VELOCITY_GAIN / gap * (seen - expected)
            limit = self.config.max_rate
            self._velocity = np.clip(self._velocity, -limit, limit)
        self._taken = max(taken, self._taken)

    def rates(self, now: float) -> tuple[float, float]:
        """To the right and upwards, radians a second."""
        config = self.config
        last = self._told[-1][0] if self._told else now
        step = min(max(now - last, 0.0), 0.1)
        self._angle = self._angle + step * self._rates
        self._told.append((now, self._angle))
        while now - self._told[0][0] > REMEMBERED:
            self._told.popleft()

        wanted, steepest = np.zeros(2), max(config.max_acceleration, config.max_rate / STOPPING)
        if self._follows(now):
            steepest = config.max_acceleration
            left = self._target + (now + config.delay - self._taken) * self._velocity - self._angle
            left = np.sign(left) * np.maximum(np.abs(left) - config.deadband, 0)
            # no faster than it can be stopped from
            approach = np.minimum(config.gain * np.abs(left), np.sqrt(2 * config.max_acceleration * np.abs(left)))
            wanted = np.clip(self._velocity + np.sign(left) * approach, -config.max_rate, config.max_rate)
        change = steepest * step
        self._rates = self._rates + np.clip(wanted - self._rates, -change, change)
        return float(self._rates[0]), float(self._rates[1])

    def stop(self) -> None:
        """From now on the gimbal is somebody else's: it stands still for us, and what was known is forgotten."""
        self._rates, self._target, self._sight = np.zeros(2), None, Sight.NOTHING
        self._told.clear()
        self._taken = -math.inf

    def _follows(self, now: float) -> bool:
        if self._target is None or now - self._heard > self.config.timeout:
            return False
        return self._sight is Sight.FOLLOWED or now - self._sure <= self.config.hold

    def _pointed(self, then: float) -> np.ndarray:
        """Where the gimbal had been sent by then."""
        if not self._told:
            return self._angle
        times = [at for at, _ in self._told]
        return np.array([np.interp(then, times, [angle[axis] for _, angle in self._told]) for axis in (0, 1)])


def angles(error_x: float, error_y: float, field_of_view: tuple[float, float]) -> tuple[float, float]:
    """To the right and upwards, radians, of a place in the picture: -1 at its left (upper) border, 1 at the other; for a
    pinhole camera with that horizontal and vertical field of view (radians)."""
    return (math.atan(error_x * math.tan(field_of_view[0] / 2)), -math.atan(error_y * math.tan(field_of_view[1] / 2)))
