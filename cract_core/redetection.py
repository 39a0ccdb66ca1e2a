"""Where a lost target is sought, and when it is believed to be found.

The best candidate near the last box is followed on as a hypothesis, which is told but teaches the discriminator nothing.
Every second frame belongs to the search beyond it: by turns around the last place that was sure, in a region that grows in
steps, and at the next place of a scan over the whole frame, from the last box outwards.
"""
from __future__ import annotations

import math

import numpy as np

from .boxes import from_center, iou, to_center
from .camera_motion import Motion
from .config import TrackerConfig
from .crop import Window, search_window

SAME_IOU = 0.5           # two boxes of successive frames that overlap more show one candidate
STRENGTH_RATE = 0.1      # of the running mean of the discriminator's scores for the hypothesis
ALIVE = 0.15             # a hypothesis with less is given up


class Redetection:
    """The search for one lost target. center, size (2,): where it was last believed to be, pixels of the frame."""

    def __init__(self, center: np.ndarray, size: np.ndarray):
        self.center, self.size = center, size
        self.following = True     # this look is at the hypothesis
        self._followed, self._sought = _Agreement(), _Agreement()
        self._kept = 0            # consecutive looks at the hypothesis in which the discriminator knew it
        self._strength, self._turn = 0.5, 0

    @property
    def alive(self) -> bool:
        """Whether the hypothesis is still worth following."""
        return self._strength > ALIVE

    def carry(self, motion: Motion, resized: np.ndarray) -> None:
        """The picture has moved, which changes width and height of the target's upright box by the factors `resized` (2,)."""
        self.center, self.size = motion.carry(self.center), self.size * resized
        for agreement in (self._followed, self._sought):
            if agreement.box is not None:
                box = to_center(agreement.box)
                agreement.box = from_center(np.concatenate([motion.carry(box[:2]), box[2:] * resized]))

    def window(self, center: np.ndarray, size: np.ndarray, frame_size: tuple[int, int], config: TrackerConfig) -> Window:
        """Where to look in the next frame of `frame_size` (width, height); center, size (2,) are the hypothesis's."""
        candidate = self._sought.box
        if candidate is not None:  # is looked at again before all else
            self.following = False
            return search_window((candidate[:2] + candidate[2:]) / 2, *self.size)
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
        """Take the best box (4,) of the look, corners in the frame; True where it is believed to be the target.

        Either `reacquire_frames` looks in a row were convincing and agree on one place, or the hypothesis has gone on
        without a jump and the discriminator, which learns nothing meanwhile, knew it in `continue_frames` looks in a row.
        """
        if not self.following:
            return self._sought.take(corners, convincing) >= config.reacquire_frames
        goes_on = self._followed.same(corners)
        self._kept = self._kept + 1 if goes_on and discrimination >= config.continue_discrimination else 0
        self._strength += STRENGTH_RATE * (discrimination - self._strength)
        agreed = self._followed.take(corners, convincing)
        self._followed.box = corners
        return agreed >= config.reacquire_frames or self._kept >= config.continue_frames


class _Agreement:
    """How many looks in a row were convincing and showed one place, and the box (4,) of the last."""

    def __init__(self):
        self.box: np.ndarray | None = None
        self.count = 0

    def same(self, corners: np.ndarray) -> bool:
        return self.box is not None and bool(iou(self.box, corners) > SAME_IOU)

    def take(self, corners: np.ndarray, convincing: bool) -> int:
        self.count = (self.count + 1 if self.same(corners) else 1) if convincing else 0
        self.box = corners if convincing else None
        return self.count
