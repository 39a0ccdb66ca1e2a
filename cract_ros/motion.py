"""Where a target would be that moved on in the image as it did before."""
from __future__ import annotations

from collections import deque

import numpy as np

SPAN = 1.0  # seconds of the latest motion that count
FEWEST = 3  # places that make a motion
HORIZON = 2.0  # seconds: further ahead the place of then is told


class Motion:
    """The latest sure places of one target. Times are seconds by the images' stamps."""

    def __init__(self):
        self._places: deque[tuple[float, np.ndarray]] = deque()

    def add(self, time: float, box: np.ndarray) -> None:
        """Take where it is, box (4,) x, y, w, h in pixels. Stamps that step back begin anew; those that stand still are
        passed over."""
        if self._places and time < self._places[-1][0]:
            self._places.clear()
        if self._places and time == self._places[-1][0]:
            return
        self._places.append((time, np.array(box, float)))
        while time - self._places[0][0] > SPAN:
            self._places.popleft()

    def at(self, time: float) -> np.ndarray | None:
        """(4,) x, y, w, h at a later time, by the line that fits the latest places best, with the latest size; None where
        there are too few."""
        if len(self._places) < FEWEST:
            return None
        times = np.array([time for time, _ in self._places]) - self._places[-1][0]
        boxes = np.array([box for _, box in self._places])
        velocity = np.polyfit(times, boxes[:, :2] + boxes[:, 2:] / 2, 1)[0]
        box = boxes[-1].copy()
        box[:2] += velocity * min(max(time - self._places[-1][0], 0.0), HORIZON)
        return box
