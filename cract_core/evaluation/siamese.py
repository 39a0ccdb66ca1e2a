"""What the peers with networks of their own share: crops, ranking of candidates, smoothing, and how a file is loaded.

Written after the description of SiamBAN (Chen et al.: Siamese Box Adaptive Network for Visual Tracking), whose box
decoding, penalties and smoothing NanoTrack, LightTrack and FEAR take over.
"""
from __future__ import annotations

import abc
from pathlib import Path
from typing import Callable, NamedTuple

import cv2
import numpy as np

from ..boxes import check_box
from ..crop import context_side
from ..tracker import Estimate, State

STRIDE = 16                     # crop pixels from one point of the score map to the next
EXTRA = 'pip install "cract_ros[peers]"'


class Networks(abc.ABC):
    """The two halves of a Siamese tracker; crops are (S, S, 3) uint8 BGR."""

    @abc.abstractmethod
    def template(self, crop: np.ndarray):
        """Features of the target in the first frame, in any form."""

    @abc.abstractmethod
    def match(self, template, crop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probability of the target `(R, R)` and distances `(4, R, R)` to the left, top, right and bottom, crop pixels.
        """


class Found(NamedTuple):
    """The best candidate: centre (2,) and size (2,) in the frame, its score and its factor for a change of shape."""
    center: np.ndarray
    size: np.ndarray
    score: float
    penalty: float


class SiamesePeer:
    """The tracker around the networks: `init(frame, box)`, `update(frame) -> Estimate`.

    penalty, window, rate: of a change of scale and aspect, of the distance from the last place, of the size.
    """

    name = ''
    template_size, search_size = 127, 255   # pixels of the two crops
    penalty, window, rate = 0.0, 0.0, 1.0
    smallest = 10.0                         # side of a box, pixels of the frame

    def __init__(self, networks: Networks):
        self._networks = networks
        self._template = None

    def init(self, frame: np.ndarray, box) -> None:
        """Start on `frame` (H, W, 3) uint8 BGR with `box` x, y, w, h; ValueError if it lies outside of the frame."""
        box = check_box(box, frame.shape[1::-1])
        self._center, self._size = box[:2] + box[2:] / 2, box[2:].copy()
        self._fill = frame.mean(axis=(0, 1))
        self._template = self._networks.template(crop_around(
            frame, self._center, self.template_side(self._size), self.template_size, self._fill))

    def update(self, frame: np.ndarray) -> Estimate:
        """Follow the target into the next frame; RuntimeError before `init`."""
        self._started()
        found = self._look(frame, self._center, self._size)
        rate = found.penalty * found.score * self.rate
        size = (1 - rate) * self._size + rate * found.size
        self._center, self._size = self.fit(found.center, size, np.array(frame.shape[1::-1], float))
        return answer(self._center, self._size, found.score)

    def locate(self, frame: np.ndarray, last: np.ndarray) -> np.ndarray:
        """The box (x, y, w, h) found in `frame`, its size not smoothed, for a target that was last at `last`; the
        target stays as it is. RuntimeError before `init`."""
        self._started()
        found = self._look(frame, last[:2] + last[2:] / 2, last[2:])
        center, size = self.fit(found.center, found.size, np.array(frame.shape[1::-1], float))
        return np.concatenate([center - size / 2, size])

    def template_side(self, size: np.ndarray):
        """Side of the template's window in pixels of the frame, one number or one an axis."""
        return context_side(*size)

    def search_side(self, size: np.ndarray):
        """Side of the search window in pixels of the frame, one number or one an axis."""
        return context_side(*size) * self.search_size / self.template_size

    def fit(self, center: np.ndarray, size: np.ndarray, limits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Centre and size of a box as they may be in a frame of width and height `limits`."""
        return np.clip(center, 0, limits), np.clip(size, self.smallest, limits)

    def _started(self) -> None:
        if self._template is None:
            raise RuntimeError('update before init: there is no target to follow')

    def _look(self, frame: np.ndarray, center: np.ndarray, size: np.ndarray) -> Found:
        side = self.search_side(size)
        scale = self.search_size / side             # crop pixels per frame pixel
        crop = crop_around(frame, center, side, self.search_size, self._fill)
        score, distances = self._networks.match(self._template, crop)
        centers, sizes = decode(distances)
        target = size * scale
        # a candidate of another size or shape than the target's loses, and one far from the last place
        penalty = np.exp(self.penalty * (1 - _ratio(context_side(*sizes), context_side(*target))
                                         * _ratio(sizes[0] / sizes[1], target[0] / target[1])))
        hann = np.hanning(len(score))
        rank = penalty * score * (1 - self.window) + np.outer(hann, hann) * self.window
        row, column = np.unravel_index(rank.argmax(), rank.shape)
        return Found(center + centers[:, row, column] / scale, sizes[:, row, column] / scale,
                     float(score[row, column]), float(penalty[row, column]))


def answer(center: np.ndarray, size: np.ndarray, score: float, state: State = State.TRACKING) -> Estimate:
    """The estimate of a tracker that has one score."""
    return Estimate(box=np.concatenate([center - size / 2, size]), score=score, fused=score, state=state,
                    identification=score, discrimination=score, proposal=score, updated=False)


def decode(distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances `(4, R, R)` -> centres relative to the crop's centre `(2, R, R)` and sizes `(2, R, R)`, crop pixels."""
    points = (np.arange(distances.shape[1]) - distances.shape[1] // 2) * STRIDE
    grid = np.stack(np.meshgrid(points, points))
    low, high = grid - distances[:2], grid + distances[2:]
    return (low + high) / 2, np.maximum(high - low, 1e-3)


def crop_around(frame: np.ndarray, center: np.ndarray, side, size: int, fill) -> np.ndarray:
    """The window of `side` frame pixels (a number, or width and height) around `center` as (size, size, 3); outside of
    the frame lies `fill`."""
    scale = size / np.broadcast_to(side, 2)
    shift = size / 2 - 0.5 - scale * (center - 0.5)
    matrix = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])
    return cv2.warpAffine(frame, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT,
                          borderValue=tuple(float(value) for value in fill))


def planes(crop: np.ndarray) -> np.ndarray:
    """(S, S, 3) -> (1, 3, S, S) float32, values as they are."""
    return np.ascontiguousarray(crop.transpose(2, 0, 1)[None], np.float32)


class OnnxNetwork:
    """An ONNX file on ONNX Runtime: arrays in the order of its inputs -> arrays in the order of its outputs.

    edit: changes the model before it is compiled. FileNotFoundError for a missing file; ValueError where ONNX Runtime
    is not installed or cannot read the file.
    """

    def __init__(self, name: str, path, threads: int = 0, edit: Callable[[object], None] | None = None):
        try:
            import onnx
            import onnxruntime
        except ImportError as error:
            raise ValueError(f'the tracker {name} needs the package {error.name}: {EXTRA}') from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        model = Path(path).read_bytes()
        try:
            if edit:
                loaded = onnx.load_model_from_string(model)
                edit(loaded)
                model = loaded.SerializeToString()
            self._session = onnxruntime.InferenceSession(model, options, providers=['CPUExecutionProvider'])
        except Exception as error:  # the libraries have many kinds for a file that is no network
            raise ValueError(f'ONNX Runtime cannot read {path} as a network: {error}') from error
        self._inputs = [one.name for one in self._session.get_inputs()]

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        return self._session.run(None, dict(zip(self._inputs, inputs, strict=True)))


def _ratio(one, other):
    """How many times larger one is than the other, >= 1."""
    return np.maximum(one / other, other / one)
