"""The template of the first frame, turned: what the target looks like after the camera has turned about its axis."""
from __future__ import annotations

import math

import cv2
import numpy as np

from .crop import TEMPLATE_SIZE, VIEW_SIZE, Window, turned_size

STEPS = 12              # of a whole turn: a template stands for 30 degrees
RETRY = 5               # frames until a turned template that was no better is tried again
PATCH = math.ceil(VIEW_SIZE * math.sqrt(2))     # pixels that a turned view needs
GUESSES = (3, -3, 6, 1, -1, 2, -2, 4, -4, 5, -5)    # steps away from the present, where the turn is not known


class Poses:
    """Turned views of one target, and the step at which its template stands now.

    frame (H, W, 3) and window: where the template of the first frame was cut; size (2,): of the target's box there.
    """

    def __init__(self, frame: np.ndarray, window: Window, size: np.ndarray, border):
        around = Window(window.center, window.side * PATCH / window.size, PATCH)
        self._patch, self._size = around.cut(frame, border), size * window.scale
        self.step, self.made = 0, {}
        self._waiting, self._guesses = 0, 0

    def due(self, turn: float, limit: float) -> int | None:
        """The step to go to after a turn by `turn` radians, where that is more than `limit` degrees from the present."""
        self._waiting = max(self._waiting - 1, 0)
        away = (math.degrees(turn) - 360 / STEPS * self.step + 180) % 360 - 180
        step = round(math.degrees(turn) * STEPS / 360) % STEPS
        return None if abs(away) <= limit or self._waiting or step == self.step else step

    def guess(self) -> int:
        """A step to try where nothing is known of the turn; another one with every call."""
        self._guesses += 1
        return (self.step + GUESSES[(self._guesses - 1) % len(GUESSES)]) % STEPS

    def refuse(self) -> None:
        """The step that was due looks no better: it waits."""
        self._waiting = RETRY

    def view(self, step: int, side: int = TEMPLATE_SIZE) -> tuple[np.ndarray, np.ndarray]:
        """Crop (side, side, 3) of the first frame turned to `step`, and the target's corners (4,) in it."""
        angle, middle = self.angle(step), np.full(2, side / 2)
        cos, sin = math.cos(angle), math.sin(angle)
        linear, centre = np.array([[cos, -sin], [sin, cos]]), (PATCH - 1) / 2
        warp = np.column_stack([linear, middle - 0.5 - linear.sum(1) * centre])
        crop = cv2.warpAffine(self._patch, warp, (side, side), borderMode=cv2.BORDER_REPLICATE)
        half = turned_size(self._size, angle) / 2
        return crop, np.concatenate([middle - half, middle + half])

    @staticmethod
    def angle(step: int) -> float:
        """Radians."""
        return 2 * math.pi * step / STEPS

    def resized(self, before: float, after: float) -> np.ndarray:
        """(2,): how width and height of the upright box change from a turn by `before` to one by `after`, radians."""
        return turned_size(self._size, after) / turned_size(self._size, before)
