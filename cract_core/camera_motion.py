"""The camera's own motion between two frames: a similarity (shift, turn, scale) of the picture, found in the background.

Corners beside the target are followed by sparse optical flow (Lucas and Kanade, with pyramids) on a small gray picture, and
RANSAC finds the similarity that most of them share. Where flow fails at once, as in a sudden turn or jump, ORB features of
both pictures are matched. All by OpenCV, at a cost that does not depend on the size of the frame.
"""
from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

SIDE = 240              # longer side of the small picture, pixels
CORNERS, APART = 80, 6  # corners that are followed, and pixels between them
FEATURES = dict(nfeatures=200, nlevels=4, edgeThreshold=12, patchSize=25, fastThreshold=10)   # of ORB
MARGIN = 0.15           # kept free on each side of the target, in parts of its size
NARROWEST = 30          # shorter side of a small picture in which a motion can be told, pixels
FLOW = dict(winSize=(15, 15), maxLevel=3, criteria=(cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 0.03))
RANSAC = dict(method=cv2.RANSAC, ransacReprojThreshold=1.5, maxIters=300, confidence=0.99, refineIters=5)
FEWEST, SHARE = 12, 0.5     # points that must agree on the motion, and their part of those followed
MATCH_SHARE = 0.25          # ... of those matched
SPREAD = 0.06, 0.015        # their standard deviation along one axis and along the other, in parts of the picture's side
SCALES = 0.6, 1.67          # a motion beyond is none


class Motion(NamedTuple):
    """How the picture moved: linear (2, 2) = scale * rotation, and shift (2,), continuous pixels of the frame."""
    linear: np.ndarray
    shift: np.ndarray

    @property
    def scale(self) -> float:
        return math.hypot(self.linear[0, 0], self.linear[1, 0])

    @property
    def angle(self) -> float:
        """Radians, from the x axis towards the y axis: clockwise as the picture is seen."""
        return math.atan2(self.linear[1, 0], self.linear[0, 0])

    def carry(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 2) of the frame before -> where they lie in this one."""
        return points @ self.linear.T + self.shift


class CameraMotion:
    """Follows the camera from frame to frame."""

    def __init__(self):
        self._gray: np.ndarray | None = None
        self._sure = True       # the flow was, in the frame before

    def follow(self, frame: np.ndarray, avoid: np.ndarray) -> Motion | None:
        """The motion from the frame before to `frame` (H, W, 3) BGR uint8; None for the first, for a narrow strip, and where it is
        unsure.

        avoid (4,): corners of the target in the frame before. A frame of another size is taken as the same picture; one
        of another aspect begins anew.
        """
        before, self._gray = self._gray, small(frame)
        if before is None or before.shape != self._gray.shape or min(before.shape) < NARROWEST:
            return None
        factor = frame.shape[1] / self._gray.shape[1]
        beside = _beside(before.shape, avoid / factor)
        sudden, found = self._sure, self._flow(before, beside)
        self._sure = found is not None
        if sudden and found is None:    # a scene without corners to follow has none to match in every frame, either
            found = self._matched(before, beside)
        return found and Motion(found.linear, found.shift * factor)

    def _flow(self, before: np.ndarray, beside: np.ndarray) -> Motion | None:
        points = cv2.goodFeaturesToTrack(before, CORNERS, 0.01, APART, mask=beside)
        if points is None or len(points) < FEWEST:
            return None
        moved, found, _ = cv2.calcOpticalFlowPyrLK(before, self._gray, points, None, **FLOW)
        found = found.ravel().astype(bool)
        return _similarity(points[found, 0], moved[found, 0], max(FEWEST, SHARE * len(points)), before.shape)

    def _matched(self, before: np.ndarray, beside: np.ndarray) -> Motion | None:
        orb = cv2.ORB_create(**FEATURES)
        (corners, codes), (next_corners, next_codes) = (orb.detectAndCompute(gray, None) for gray in (before, self._gray))
        if codes is None or next_codes is None:
            return None
        pairs = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(codes, next_codes)
        points = np.float32([corners[pair.queryIdx].pt for pair in pairs]).reshape(-1, 2)
        moved = np.float32([next_corners[pair.trainIdx].pt for pair in pairs]).reshape(-1, 2)
        x, y = points.astype(int).T
        free = beside[y, x] > 0
        return _similarity(points[free], moved[free], max(FEWEST, MATCH_SHARE * free.sum()), before.shape)


def small(frame: np.ndarray) -> np.ndarray:
    """`frame` (H, W, 3) BGR as a gray picture whose longer side has SIDE pixels."""
    height, width = frame.shape[:2]
    factor = max(height, width) / SIDE
    if factor > 2:  # nearest pixels first: reading all of a large frame would take longest of all
        frame = cv2.resize(frame, _size(width, height, factor / 2), interpolation=cv2.INTER_NEAREST_EXACT)
    gray = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    return cv2.resize(gray, _size(width, height, factor), interpolation=cv2.INTER_AREA if factor > 1 else cv2.INTER_LINEAR)


def _size(width: int, height: int, factor: float) -> tuple[int, int]:
    return max(round(width / factor), 1), max(round(height / factor), 1)


def _beside(shape: tuple[int, int], box: np.ndarray) -> np.ndarray:
    """A mask of `shape`, 0 at the target with corners `box` (4,) and close to it."""
    mask, margin = np.full(shape, 255, np.uint8), MARGIN * (box[2:] - box[:2])
    x1, y1 = np.floor(np.maximum(box[:2] - margin, 0)).astype(int)
    x2, y2 = np.ceil(np.maximum(box[2:] + margin, 0)).astype(int)
    mask[y1:y2, x1:x2] = 0
    return mask


def _similarity(points: np.ndarray, moved: np.ndarray, fewest: float, shape: tuple[int, int]) -> Motion | None:
    """What most of the points (N, 2), pixel centres of a small picture, share; None unless `fewest` do, well spread."""
    if len(points) < fewest:
        return None
    matrix, inliers = cv2.estimateAffinePartial2D(points, moved, **RANSAC)
    if matrix is None:
        return None
    agreed = points[inliers.ravel().astype(bool)]
    spread = agreed.std(0) / shape[::-1] if len(agreed) else np.zeros(2)
    if len(agreed) < fewest or spread.max() < SPREAD[0] or spread.min() < SPREAD[1]:
        return None
    linear = matrix[:, :2]
    # the centre of pixel k lies at k + 0.5 of continuous coordinates
    motion = Motion(linear, matrix[:, 2] + 0.5 - linear.sum(1) / 2)
    return motion if SCALES[0] < motion.scale < SCALES[1] else None
