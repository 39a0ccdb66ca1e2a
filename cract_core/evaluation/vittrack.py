"""VitTrack, the tracker of the OpenCV model zoo (Apache-2.0): its network (ONNX) on ONNX Runtime.

One transformer sees template and search region together; its head tells for each cell a score, the offset of the centre
within the cell and the size of the box in parts of the region. OpenCV's TrackerVit runs the same network.
"""
from __future__ import annotations

import math

import numpy as np

from ..boxes import check_box
from ..tracker import Estimate, State
from .siamese import OnnxNetwork, answer, crop_around, planes

TEMPLATE_SIZE, SEARCH_SIZE = 128, 256       # pixels of the two crops
TEMPLATE_FACTOR, SEARCH_FACTOR = 2, 4       # sides of their windows in units of sqrt(w h)
MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255        # of ImageNet, RGB
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32) * 255
FOUND = 0.2                                 # a lower score means lost, and the last box stands
SMALLEST = 10.0                             # side of a box, pixels of the frame


class VitTrack:
    """The tracker: `init(frame, box)`, `update(frame) -> Estimate`. `network`: template and search crop (1, 3, S, S) ->
    scores (1, 1, R, R), sizes and offsets (1, 2, R, R)."""

    name = 'vit'

    def __init__(self, network: OnnxNetwork):
        self._network = network
        self._template = self._box = None

    def init(self, frame: np.ndarray, box) -> None:
        """Start on `frame` (H, W, 3) uint8 BGR with `box` x, y, w, h; ValueError if it lies outside of the frame."""
        self._box = check_box(box, frame.shape[1::-1])
        self._template, _ = _crop(frame, self._box, TEMPLATE_FACTOR, TEMPLATE_SIZE)

    def update(self, frame: np.ndarray) -> Estimate:
        """Follow the target into the next frame; RuntimeError before `init`."""
        box, score = self._look(frame, self._box)
        if score >= FOUND:
            self._box = box
        return answer(self._box[:2] + self._box[2:] / 2, self._box[2:], score,
                      State.TRACKING if score >= FOUND else State.LOST)

    def locate(self, frame: np.ndarray, last: np.ndarray) -> np.ndarray:
        """The box (x, y, w, h) found in `frame`, sure or not, for a target that was last at `last`; the target stays as
        it is. RuntimeError before `init`."""
        return self._look(frame, last)[0]

    def _look(self, frame: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, float]:
        if self._template is None:
            raise RuntimeError('update before init: there is no target to follow')
        crop, side = _crop(frame, last, SEARCH_FACTOR, SEARCH_SIZE)
        scores, sizes, offsets = (one[0] for one in self._network(self._template, crop))
        cells = scores.shape[-1]
        hann = np.hanning(cells + 2)[1:-1]      # not 0 at the rim
        row, column = np.unravel_index((scores[0] * np.outer(hann, hann)).argmax(), scores[0].shape)
        place = (np.array([column, row]) + offsets[:, row, column]) / cells
        center = last[:2] + last[2:] / 2 + (place - 0.5) * side
        size, limits = sizes[:, row, column] * side, np.array(frame.shape[1::-1], float)
        low = np.clip(center - size / 2, 0, limits - SMALLEST)
        high = np.clip(center + size / 2, SMALLEST, limits)
        return np.concatenate([low, np.maximum(high - low, SMALLEST)]), float(scores[0, row, column])


def _crop(frame: np.ndarray, box: np.ndarray, factor: float, size: int) -> tuple[np.ndarray, float]:
    """The normalised window (1, 3, size, size) around `box`, black outside of the frame, and its side."""
    side = math.ceil(math.sqrt(box[2] * box[3]) * factor)
    crop = crop_around(frame, box[:2] + box[2:] / 2, side, size, (0, 0, 0))
    return planes((crop[..., ::-1] - MEAN) / DEVIATION), side
