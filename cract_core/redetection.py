"""Where a lost target is sought, and when it is believed to be found.

The best candidate near the last box is followed on as a hypothesis, which is told but teaches the discriminator nothing.
Every second frame belongs to the search beyond it: by turns around the last place that was sure, in a region that grows in
steps, and at the next place of a scan over the whole frame, from the last box outwards.
"""
from __future__ import annotations

import math

import numpy as np

from .boxes import iou
from .config import TrackerConfig
from .crop import Window, search_window

SAME_IOU = 0.5           # two boxes of successive frames that overlap more show one candidate
STRENGTH_RATE = 0.1      # of the running mean of the discriminator's scores for the hypothesis
ALIVE = 0.15             # a hypothesis with less is given up


class Redetection:
    """The search for one lost target. center, size (2,): where it was last believed to be, pixels of the frame."""

    def __init__(self, center: np.ndarray, size: np.ndarray):
        self.center, self.size = center, size
        self.following = True                     # the next look is at the hypothesis
        self.candidate: np.ndarray | None = None  # corners (4,) in the frame, waits to be confirmed,
        self.agreed = 0                           # and consecutive looks that agreed on it
        self._strength, self._turn = 0.5, 0

    @property
    def alive(self) -> bool:
        """Whether the hypothesis is still worth following."""
        return self._strength > ALIVE

    def scale(self, factor: float) -> None:
        """The frames have become `factor` times as large."""
        self.center, self.size = self.center * factor, self.size * factor
        self.candidate = None if self.candidate is None else self.candidate * factor

    def window(self, center: np.ndarray, size: np.ndarray, frame_size: tuple[int, int], config: TrackerConfig) -> Window:
        """Where to look in the next frame of `frame_size` (width, height); center, size (2,) are the hypothesis's."""
        if self.candidate is not None and not self.following:
            return search_window((self.candidate[:2] + self.candidate[2:]) / 2, *self.size)
        self.following = self.alive and self._turn % 2 == 0
        turn, self._turn = self._turn, self._turn + 1
        if self.following:
            return search_window(center, *size)
        turn = turn // 2 if self.alive else turn
        growth, (turn, scan) = config.search_growth, divmod(turn, 2)
        if not scan:
            return search_window(self.center, *self.size * (1, (1 + growth) / 2, growth)[turn % 3])
        window = search_window(self.center, *self.size * growth)
        step = config.scan_step * window.side
        columns, rows = (max(1, math.ceil(length / step)) for length in frame_size)
        x, y = np.meshgrid((np.arange(columns) + 0.5) * frame_size[0] / columns, (np.arange(rows) + 0.5) * frame_size[1] / rows)
        places = np.stack([x.ravel(), y.ravel()], 1)
        order = np.argsort(np.linalg.norm(places - self.center, axis=1), kind='stable')
        return search_window(places[order[turn % len(order)]], *self.size * growth)

    def confirm(self, corners: np.ndarray, convincing: bool, discrimination: float, config: TrackerConfig) -> bool:
        """Take the best box (4,) of the look, corners in the frame; True once enough successive looks agreed on a place."""
        if self.following:
            self._strength += STRENGTH_RATE * (discrimination - self._strength)
        if not convincing:
            self.candidate, self.agreed = None, 0
            return False
        same = self.candidate is not None and iou(self.candidate, corners) > SAME_IOU
        self.candidate, self.agreed = corners, self.agreed + 1 if same else 1
        return self.agreed >= config.reacquire_frames
