"""Turn the final score of Eq. 10 into the probability that it is right.

The tracker runs through sequences with absences spliced in (see `absence`) and through rendered clips. Of every frame
the best candidate's Eq. 10 is kept with the answer to "does this box overlap the target by more than a half?", and a
logistic curve is fitted to them (Platt, Probabilistic Outputs for Support Vector Machines, 1999).
"""
from __future__ import annotations

import numpy as np

from ..boxes import iou, xywh_to_xyxy
from ..tracker import Tracker
from . import runner
from .sequences import Sequence


class Witness(Tracker):
    """A tracker that keeps each frame's best candidate: `seen` has corners (4,) in the frame and Eq. 10."""

    def init(self, frame, box) -> None:
        super().init(frame, box)
        self.seen: list[tuple[np.ndarray, float]] = []

    def _judge(self, target, corners, fused, nu, tau) -> float:
        self.seen.append((corners, fused))
        return super()._judge(target, corners, fused, nu, tau)


def witness(tracker: Witness, sequence: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 10 of each frame's best candidate after the first (M,), and whether it overlaps the target by half (M,)."""
    runner.run_sequence(tracker, sequence)
    corners = np.array([corners for corners, _ in tracker.seen])
    right = np.nan_to_num(iou(corners, xywh_to_xyxy(sequence.truth[1:]))) > 0.5  # nan: absent
    return np.array([fused for _, fused in tracker.seen]), right


def fit(scores: list[np.ndarray], right: list[np.ndarray]) -> tuple[float, float]:
    """Slope and offset of the logistic curve with the least log loss over sequences, each (M_i,).

    A sequence counts by the square root of its length: its frames are alike. ValueError if all answers are right, or
    all wrong.
    """
    from scipy.optimize import minimize
    x, y = np.concatenate(scores), np.concatenate(right)
    if y.all() or not y.any():
        raise ValueError('a calibration needs right and wrong answers, and all are ' + ('right' if y.all() else 'wrong'))
    weight = np.concatenate([np.full(len(one), len(one) ** -0.5) for one in scores])
    weight /= weight.sum()

    def loss(parameters: np.ndarray) -> float:
        margin = np.where(y, 1, -1) * (parameters[0] * x + parameters[1])
        return float(weight @ np.logaddexp(0, -margin))
    return tuple(float(value) for value in minimize(loss, (5.0, -2.5)).x)
