"""Trackers of OpenCV behind our own interface: `init(frame, box)`, `update(frame) -> Estimate`.

The boxes that go in are rounded to whole pixels, since OpenCV's trackers take integers; those that come out are
integers. When a peer reports that it lost the target, its last box stands, as benchmarks want a box in every frame.
"""
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ..tracker import Estimate, State

PEERS = ('nano', 'csrt', 'kcf')
NANO_FILES = ('nanotrack_v2_backbone.onnx', 'nanotrack_v2_head.onnx')


class Peer:
    """An OpenCV tracker made anew by `create` for each target."""

    def __init__(self, name: str, create):
        self.name = name
        self._create = create
        self._tracker = None
        self._box = None

    def init(self, frame: np.ndarray, box) -> None:
        """Start on `frame` (H, W, 3) uint8 BGR with `box` x, y, w, h."""
        x, y, w, h = (int(round(float(value))) for value in box)
        self._tracker = self._create()
        self._tracker.init(np.ascontiguousarray(frame), (x, y, max(w, 1), max(h, 1)))
        self._box = np.asarray(box, np.float64)

    def update(self, frame: np.ndarray) -> Estimate:
        """Follow the target into the next frame; RuntimeError before `init`."""
        if self._tracker is None:
            raise RuntimeError('update before init: there is no target to follow')
        found, box = self._tracker.update(np.ascontiguousarray(frame))
        if found:
            self._box = np.asarray(box, np.float64)
        has_score = hasattr(self._tracker, 'getTrackingScore')
        score = float(np.clip(self._tracker.getTrackingScore(), 0, 1)) if has_score else float(found)
        return Estimate(box=self._box, score=score, state=State.TRACKING if found else State.LOST,
                        identification=score, discrimination=score, proposal=score, updated=False)


def make_peer(name: str, backbone=None, head=None, threads: int = 0) -> Peer:
    """A peer by its name: `nano` (ONNX files `backbone` and `head`), `csrt` or `kcf`.

    `threads` is OpenCV's thread count, for the whole process; 0 leaves OpenCV's default. Raises FileNotFoundError for
    a missing ONNX file and ValueError if the installed OpenCV lacks the tracker or cannot read the files.
    """
    if threads:
        cv2.setNumThreads(threads)
    if name == 'nano':
        return Peer(name, _nano(backbone, head))
    kinds = {'csrt': 'TrackerCSRT', 'kcf': 'TrackerKCF'}
    if name not in kinds:
        raise ValueError(f'no tracker {name!r}; the peers are {", ".join(PEERS)}')
    if not hasattr(cv2, kinds[name]):
        raise ValueError(f'the installed OpenCV {cv2.__version__} has no {kinds[name]}: '
                         'it comes with opencv-contrib-python-headless in place of opencv-python')
    return Peer(name, getattr(cv2, f'{kinds[name]}_create'))


def _nano(backbone, head):
    if not hasattr(cv2, 'TrackerNano'):
        raise ValueError(f'the installed OpenCV {cv2.__version__} has no TrackerNano: it came with OpenCV 4.7')
    for path, part in ((backbone, 'backbone'), (head, 'head')):
        if path is None or not Path(path).is_file():
            raise FileNotFoundError(f'the tracker nano needs the ONNX file of its {part}'
                                    + (f': no file {path}' if path else f': give --peers or --nano-{part}'))
    params = cv2.TrackerNano_Params()
    params.backbone, params.neckhead = str(backbone), str(head)

    def create():
        return cv2.TrackerNano_create(params)

    try:
        create()
    except cv2.error as error:
        raise ValueError(f'OpenCV cannot read {backbone} and {head} as TrackerNano networks: {error.err}') from error
    return create
