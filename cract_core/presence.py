"""Whether the target is in view: hysteresis on the score, a fall below its usual level, and the loss."""
from __future__ import annotations

import enum

import numpy as np

from .config import TrackerConfig

USUAL_RATE = 0.1         # of the running mean of scores


class State(enum.Enum):
    """What the tracker believes about its target."""
    TRACKING = 'tracking'
    UNCERTAIN = 'uncertain'
    LOST = 'lost'


def probability(fused, slope: float, offset: float):
    """Eq. 10, a number or an array, as the probability of being right (Platt scaling)."""
    return 1 / (1 + np.exp(-(slope * fused + offset)))


class Presence:
    """The state and what it follows from: consecutive scores below `lost_score` (`low`) and far below their running
    mean (`fallen`)."""

    def __init__(self):
        self.state = State.TRACKING
        self.low = self.fallen = 0
        self._usual: float | None = None

    @property
    def lost(self) -> bool:
        return self.state is State.LOST

    @property
    def sure(self) -> bool:
        """Nothing speaks against the latest box."""
        return not self.low and not self.fallen

    def judge(self, score: float, config: TrackerConfig) -> None:
        """Take the score of a frame's best box, for a target that is not lost."""
        self.low = self.low + 1 if score < config.lost_score else 0
        usual = score if self._usual is None else self._usual
        self.fallen = self.fallen + 1 if score < config.fall_ratio * usual else 0
        self._usual = usual + USUAL_RATE * (score - usual)
        if self.low >= config.lost_frames or self.fallen >= config.fall_frames:
            self.state = State.LOST
        elif score < config.uncertain_score:
            self.state = State.UNCERTAIN
        elif score >= config.tracking_score:
            self.state = State.TRACKING

    def restore(self) -> None:
        """A lost target is believed to be seen again; what its scores were before counts no more."""
        self.state, self.low, self.fallen, self._usual = State.UNCERTAIN, 0, 0, None
