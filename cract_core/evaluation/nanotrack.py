"""NanoTrack v3: its two published networks (ONNX) run through ONNX Runtime, with a small tracker around them.

Written after the description of SiamBAN (Chen et al.: Siamese Box Adaptive Network for Visual Tracking), whose box
decoding, penalties and smoothing NanoTrack takes over, and with the constants of its published configuration. OpenCV's
TrackerNano cannot run the third version's head.
"""
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ..boxes import check_box
from ..crop import context_side
from ..tracker import Estimate, State

TEMPLATE_SIZE, SEARCH_SIZE = 127, 255   # pixels of the two crops
STRIDE = 16                             # crop pixels from one point of the score map to the next
PENALTY, WINDOW, RATE = 0.138, 0.455, 0.348     # of the configuration of version 3
MIN_SIZE = 10.0                         # pixels of the frame


class NanoTrackNetworks:
    """`backbone`: (1, 3, S, S) crop -> features; `head`: template and search features -> class logits and distances.

    FileNotFoundError for a missing file; ValueError where ONNX Runtime is not installed or cannot read a file.
    """

    def __init__(self, backbone, head, threads: int = 0):
        try:
            import onnx
            import onnxruntime
        except ImportError as error:
            raise ValueError(f'the tracker nano3 needs the package {error.name}: pip install "cract_ros[peers]"'
                             ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3

        def load(path, any_size: bool):
            try:
                model = onnx.load_model_from_string(Path(path).read_bytes())
                if any_size:
                    _leave_size_open(model)
                return onnxruntime.InferenceSession(model.SerializeToString(), options,
                                                    providers=['CPUExecutionProvider'])
            except OSError:
                raise
            except Exception as error:  # the libraries have many kinds for a file that is no network
                raise ValueError(f'ONNX Runtime cannot read {path} as a network: {error}') from error

        self._backbone, self._head = load(backbone, True), load(head, False)

    def features(self, crop: np.ndarray) -> np.ndarray:
        """(S, S, 3) BGR crop, values 0 to 255 -> (1, 96, S / 16, S / 16)."""
        return self._run(self._backbone, np.ascontiguousarray(crop.transpose(2, 0, 1)[None], np.float32))[0]

    def match(self, template: np.ndarray, search: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probability of the target `(R, R)` and distances `(4, R, R)` to the left, top, right and bottom, crop pixels.
        """
        logits, distances = self._run(self._head, template, search)
        shifted = np.exp(logits[0] - logits[0].max(axis=0))
        return shifted[1] / shifted.sum(axis=0), distances[0]

    @staticmethod
    def _run(session, *inputs) -> list[np.ndarray]:
        return session.run(None, {one.name: value for one, value in zip(session.get_inputs(), inputs)})


def _leave_size_open(model) -> None:
    """Undo that the file fixes height and width to those of the search crop: the template is smaller."""
    for value in (*model.graph.input, *model.graph.output):
        for axis, size in zip((2, 3), ('height', 'width')):
            value.type.tensor_type.shape.dim[axis].dim_param = f'{value.name}_{size}'
    del model.graph.value_info[:]


class NanoTrack:
    """The tracker: `init(frame, box)`, `update(frame) -> Estimate`."""

    name = 'nano3'

    def __init__(self, networks: NanoTrackNetworks):
        self._networks = networks
        self._template = None

    def init(self, frame: np.ndarray, box) -> None:
        """Start on `frame` (H, W, 3) uint8 BGR with `box` x, y, w, h; ValueError if it lies outside of the frame."""
        box = check_box(box, frame.shape[1::-1])
        self._center, self._size = box[:2] + box[2:] / 2, box[2:].copy()
        self._fill = frame.mean(axis=(0, 1))
        self._template = self._networks.features(
            crop_around(frame, self._center, context_side(*self._size), TEMPLATE_SIZE, self._fill))

    def place(self, box) -> None:
        """From now on the target was last at `box` (x, y, w, h), wherever it was found."""
        box = np.asarray(box, float)
        self._center, self._size = box[:2] + box[2:] / 2, box[2:].copy()

    def update(self, frame: np.ndarray) -> Estimate:
        """Follow the target into the next frame; RuntimeError before `init`."""
        if self._template is None:
            raise RuntimeError('update before init: there is no target to follow')
        side = context_side(*self._size)
        scale = TEMPLATE_SIZE / side                # crop pixels per frame pixel
        crop = crop_around(frame, self._center, side * SEARCH_SIZE / TEMPLATE_SIZE, SEARCH_SIZE, self._fill)
        score, distances = self._networks.match(self._template, self._networks.features(crop))
        centers, sizes = decode(distances)
        # a candidate of another size or shape than the target's loses, and one far from the last place
        penalty = np.exp(PENALTY * (1 - _ratio(context_side(*sizes), TEMPLATE_SIZE)
                                    * _ratio(sizes[0] / sizes[1], self._size[0] / self._size[1])))
        window = np.outer(np.hanning(len(score)), np.hanning(len(score)))
        rank = penalty * score * (1 - WINDOW) + window * WINDOW
        best = np.unravel_index(rank.argmax(), rank.shape)
        rate = penalty[best] * score[best] * RATE
        limits = np.array(frame.shape[1::-1], float)
        self._center = np.clip(self._center + centers[:, best[0], best[1]] / scale, 0, limits)
        self._size = np.clip((1 - rate) * self._size + rate * sizes[:, best[0], best[1]] / scale, MIN_SIZE, limits)
        found = float(score[best])
        return Estimate(box=np.concatenate([self._center - self._size / 2, self._size]), score=found, fused=found,
                        state=State.TRACKING, identification=found, discrimination=found, proposal=found,
                        updated=False)


def decode(distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances `(4, R, R)` -> centres relative to the crop's centre `(2, R, R)` and sizes `(2, R, R)`, crop pixels."""
    points = (np.arange(distances.shape[1]) - distances.shape[1] // 2) * STRIDE
    grid = np.stack(np.meshgrid(points, points))
    low, high = grid - distances[:2], grid + distances[2:]
    return (low + high) / 2, np.maximum(high - low, 1e-3)


def crop_around(frame: np.ndarray, center: np.ndarray, side: float, size: int, fill) -> np.ndarray:
    """The square of `side` frame pixels around `center` as (size, size, 3); outside of the frame lies `fill`."""
    scale = size / side
    shift = size / 2 - 0.5 - scale * (center - 0.5)
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    return cv2.warpAffine(frame, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT,
                          borderValue=tuple(float(value) for value in fill))


def _ratio(one, other):
    """How many times larger one is than the other, >= 1."""
    return np.maximum(one / other, other / one)
