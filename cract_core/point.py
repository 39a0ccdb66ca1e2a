"""From a point on an object to its box: a small network on the tracker's features, looked at on a ladder of scales.

Around the point crops of many sizes are cut. In each the network (`Head`) tells how far the sides of the object's box are
away and how likely that box is right; the most likely ones that agree with each other make the answer. It belongs to no
paper, and is trained by `cract_core.training.points`.
"""
from __future__ import annotations

import functools
import math
import zipfile
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from .boxes import iou, to_numpy
from .crop import VIEW_SIZE, Window

NOMINAL = 0.42     # root of the area of an object's box in terms of the crop's side, where the head sees it best
SPREAD = 1.2       # log of how far from that it has learned to see objects, or to say that it does not
GOOD_IOU = 0.6     # overlap with the true box from which a box counts as found
LADDER = 1.3       # ratio of the sides of two crops
SMALLEST = 10.0    # root of the area of the smallest object that is looked for, pixels
LARGEST = 0.9      # ... and of the largest, in terms of the root of the frame's area
MIN_SCORE = 0.65   # below it a box is too doubtful
AGAIN = 0.85, 1.0, 1.18   # steps of the second look, at what the first has found
AGREE = 0.6        # boxes of several crops that overlap more tell of one object
LAYERS = ('conv0', 'conv1', 'conv2', 'conv3', 'fc1', 'fc2')


class Found(NamedTuple):
    """box (4,): x, y, w, h or corners, in pixels of the frame; score: how likely it overlaps the true one by
    GOOD_IOU."""
    box: np.ndarray
    score: float


class Head:
    """phi34 (1, C, 21, 21) of a crop -> what it shows around its middle. ValueError for a file that is not there or no head's."""

    def __init__(self, path: str | Path):
        try:
            with np.load(path, allow_pickle=False) as file:
                self._layers = [(file[f'{name}.weight'].astype(np.float32), file[f'{name}.bias'].astype(np.float32))
                                for name in LAYERS]
        except FileNotFoundError as error:
            raise ValueError(f'a point needs the weights {path}, which are not there: `python -m '
                             'cract_core.training.points` makes them') from error
        except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f'{path} holds no weights for a box from a point ({type(error).__name__})') from error

    @property
    def channels(self) -> int:
        return self._layers[0][0].shape[1]

    def __call__(self, phi: np.ndarray) -> tuple[np.ndarray, float, float]:
        """Corners (4,) from the middle in terms of the crop's side, the chance that they are good, the expected overlap."""
        x = np.asarray(phi[0], np.float32)
        for (weight, bias), stride in zip(self._layers[:4], (1, 1, 2, 2)):
            x = _convolved(x, weight, stride)
            x = np.maximum(x + bias[:, None, None], 0)
        (weight1, bias1), (weight2, bias2) = self._layers[4:]
        raw = weight2 @ np.maximum(weight1 @ x.ravel() + bias1, 0) + bias2
        distance = np.logaddexp(0, raw[:4].astype(np.float64)) * NOMINAL
        good, overlap = 1 / (1 + np.exp(-raw[4:].astype(np.float64)))
        return distance * (-1, -1, 1, 1), float(good), float(overlap)


def _convolved(x: np.ndarray, weight: np.ndarray, stride: int) -> np.ndarray:
    """(C, H, W) * (M, C, k, k), padded by k // 2."""
    size = weight.shape[2]
    if size == 1:
        return np.tensordot(weight[:, :, 0, 0], x, 1)
    x = np.pad(x, ((0, 0), (size // 2,) * 2, (size // 2,) * 2))
    views = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))[:, ::stride, ::stride]
    return np.tensordot(weight, views, ((1, 2, 3), (0, 3, 4)))


def head_path() -> Path:
    """Of the weights that come with the package."""
    return Path(str(resources.files('cract_core'))) / 'weights' / 'point.npz'


@functools.cache
def load_head(path: Path | None = None) -> Head:
    """The head of the package, or of a file. ValueError where there is none."""
    return Head(path or head_path())


def box_from_point(frame: np.ndarray, point, nets, head: Head | None = None) -> Found:
    """The box of what lies at `point` (x, y) in `frame` (H, W, 3) BGR uint8; `nets`: those of a tracker.

    ValueError, one sentence, for a point outside the frame, and where no object stands out there.
    """
    height, width = frame.shape[:2]
    if not (0 <= point[0] <= width and 0 <= point[1] <= height):
        raise ValueError(f'the point {point[0]:g}, {point[1]:g} lies outside the {width} x {height} frame')
    head = head or load_head()
    boxes, good, overlap, _ = looks(frame, point, nets, head)
    first = most_likely(boxes, good, overlap).box
    # from the middle of what was found the head sees it better than from a point off it
    again = _looks(frame, (first[:2] + first[2:]) / 2, root_area(first) * np.array(AGAIN), nets, head)
    found = most_likely(*(np.concatenate(pair) for pair in zip((boxes, good, overlap), again)))
    left, top, right, bottom = np.clip(found.box, 0, (width, height, width, height))
    if found.score < MIN_SCORE or min(right - left, bottom - top) < 2:
        raise ValueError(f'no object stands out at {point[0]:g}, {point[1]:g}: the most likely box is right with a '
                         f'probability of {found.score:.2f}, at least {MIN_SCORE:g} is asked for; draw a box instead')
    return Found(np.array([left, top, right - left, bottom - top]), found.score)


def most_likely(boxes: np.ndarray, good: np.ndarray, overlap: np.ndarray) -> Found:
    """Of the boxes (N, 4) of N looks, with the chances (N,) that they are good and their expected overlaps (N,): corners
    (4,) on which the likely ones agree, and the chance that they are good."""
    score = good * overlap
    same = iou(boxes[:, None], boxes[None])
    same = np.where(same > AGREE, same, 0.0)
    best = (score * (same @ score)).argmax()
    weight = score ** 2 * (same[best] > 0)
    return Found(weight @ boxes / weight.sum(), float(good[same[best] > 0].max()))


def looks(frame: np.ndarray, point, nets, head: Head) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """On each step of the ladder: corners (N, 4) in the frame, the chance (N,) that they are good, the expected overlap
    (N,), and the root of the area (N,) for which the step is made."""
    largest = LARGEST * math.sqrt(frame.shape[0] * frame.shape[1])
    count = max(2, 1 + math.ceil(math.log(max(largest / SMALLEST, LADDER)) / math.log(LADDER)))
    sizes = np.geomspace(SMALLEST, max(largest, SMALLEST * LADDER), count)
    return *_looks(frame, point, sizes, nets, head), sizes


def _looks(frame: np.ndarray, point, sizes: np.ndarray, nets, head: Head) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    border, answers = cv2.mean(frame)[:3], []
    for size in sizes:
        window = Window((float(point[0]), float(point[1])), size / NOMINAL, VIEW_SIZE)
        corners, good, overlap = head(to_numpy(nets.as_array(nets.features(window.cut(frame, border)))))
        answers.append((np.tile(point, 2) + corners * window.side, good, overlap))
    return tuple(np.array(column) for column in zip(*answers))


def root_area(corners: np.ndarray) -> float:
    """Side of the square that is as large as a box, corners (4,)."""
    return math.sqrt(max((corners[2] - corners[0]) * (corners[3] - corners[1]), 1.0))
