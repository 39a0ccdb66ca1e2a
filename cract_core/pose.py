"""The template of the first frame, turned: what the target looks like after the camera has turned about its axis."""
from __future__ import annotations

import math

import cv2
import numpy as np

from .crop import TEMPLATE_SIZE, Window, turned_size

STEPS = 12              # of a whole turn: a template stands for 30 degrees
RETRY = 5               # frames until a turned template that was no better is tried again
PATCH = math.ceil(TEMPLATE_SIZE * math.sqrt(2))     # pixels that a turned template needs


class Poses:
    """Turned views of one target, and the step at which its template stands now.

    frame (H, W, 3) and window: where the template of the first frame was cut; size (2,): of the target's box there.
    """

    def __init__(self, frame: np.ndarray, window: Window, size: np.ndarray, border):
        around = Window(window.center, window.side * PATCH / window.size, PATCH)
        self._patch, self._size = around.cut(frame, border), size * window.scale
        self.step, self.made, self._waiting = 0, {}, 0

    def due(self, turn: float, limit: float) -> int | None:
        """The step to go to after a turn by `turn` radians, where that is more than `limit` degrees from the present."""
        self._waiting = max(self._waiting - 1, 0)
        away = (math.degrees(turn) - 360 / STEPS * self.step + 180) % 360 - 180
        step = round(math.degrees(turn) * STEPS / 360) % STEPS
        return None if abs(away) <= limit or self._waiting or step == self.step else step

    def refuse(self) -> None:
        """The step that was due looks no better: it waits."""
        self._waiting = RETRY

    def view(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Template crop (129, 129, 3) of the first frame turned to `step`, and the target's corners (4,) in it."""
        angle, middle = 2 * math.pi * step / STEPS, np.full(2, TEMPLATE_SIZE / 2)
        cos, sin = math.cos(angle), math.sin(angle)
        linear, centre = np.array([[cos, -sin], [sin, cos]]), (PATCH - 1) / 2
        warp = np.column_stack([linear, middle - 0.5 - linear.sum(1) * centre])
        crop = cv2.warpAffine(self._patch, warp, (TEMPLATE_SIZE, TEMPLATE_SIZE), borderMode=cv2.BORDER_REPLICATE)
        half = turned_size(self._size, angle) / 2
        return crop, np.concatenate([middle - half, middle + half])

    def resized(self, before: float, after: float) -> np.ndarray:
        """(2,): how width and height of the upright box change from a turn by `before` to one by `after`, radians."""
        return turned_size(self._size, after) / turned_size(self._size, before)
