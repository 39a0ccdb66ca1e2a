"""Other trackers behind our own interface, `init(frame, box)`, `update(frame) -> Estimate`: OpenCV's and NanoTrack v3.

Of OpenCV's trackers: the boxes that go in are rounded to whole pixels, since they take integers; those that come out
are integers. When a peer reports that it lost the target, its last box stands, as benchmarks want a box in every frame.
"""
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ..boxes import check_box
from ..tracker import Estimate, State

PEERS = ('nano', 'nano3', 'csrt', 'kcf', 'mil')
NANO_FILES = ('nanotrack_v2_backbone.onnx', 'nanotrack_v2_head.onnx')
NANO3_FILES = ('nanotrack_v3_backbone.onnx', 'nanotrack_v3_head.onnx')
NETWORK_FILES = {'nano': NANO_FILES, 'nano3': NANO3_FILES}  # what a peer needs, by the names of its files


class Peer:
    """An OpenCV tracker made anew by `create` for each target.

    scored: it has a score of its own; without one, the score is 1 where it found the target, else 0. (OpenCV 5 gives
    every tracker a `getTrackingScore`, which is always 0 in those without a score.)
    """

    def __init__(self, name: str, create, scored: bool = False):
        self.name, self._scored = name, scored
        self._create = create
        self._tracker = None
        self._box = None

    def init(self, frame: np.ndarray, box) -> None:
        """Start on `frame` (H, W, 3) uint8 BGR with `box` x, y, w, h; ValueError if it lies outside of the frame."""
        check_box(box, frame.shape[1::-1])
        x, y, w, h = (int(round(float(value))) for value in box)
        self._tracker = self._create()
        self._tracker.init(np.ascontiguousarray(frame), (x, y, w, h))
        self._box = np.asarray(box, np.float64)

    def update(self, frame: np.ndarray) -> Estimate:
        """Follow the target into the next frame; RuntimeError before `init`."""
        if self._tracker is None:
            raise RuntimeError('update before init: there is no target to follow')
        found, box = self._tracker.update(np.ascontiguousarray(frame))
        if found:
            self._box = np.asarray(box, np.float64)
        score = float(np.clip(self._tracker.getTrackingScore(), 0, 1)) if self._scored else float(found)
        return Estimate(box=self._box, score=score, fused=score, state=State.TRACKING if found else State.LOST,
                        identification=score, discrimination=score, proposal=score, updated=False)


def make_peer(name: str, backbone=None, head=None, threads: int = 0):
    """A peer by its name: `nano` (OpenCV's TrackerNano) and `nano3` (ONNX files `backbone` and `head`), `csrt`, `kcf`
    or `mil`.

    `threads` is the thread count of OpenCV, for the whole process, and of ONNX Runtime; 0 leaves their defaults.
    Raises FileNotFoundError for a missing ONNX file and ValueError if the installed OpenCV lacks the tracker, ONNX
    Runtime is missing, or either cannot read the files.
    """
    if threads:
        cv2.setNumThreads(threads)
    if name in NETWORK_FILES:
        for path, part in ((backbone, 'backbone'), (head, 'head')):
            if path is None or not Path(path).is_file():
                raise FileNotFoundError(f'the tracker {name} needs the ONNX file of its {part}'
                                        + (f': no file {path}' if path else f': give --peers or --nano-{part}'
                                           if name == 'nano' else ': give --peers'))
    if name == 'nano':
        return Peer(name, _nano(backbone, head), scored=True)
    if name == 'nano3':
        from .nanotrack import NanoTrack, NanoTrackNetworks
        return NanoTrack(NanoTrackNetworks(backbone, head, threads))
    kinds = {'csrt': 'TrackerCSRT', 'kcf': 'TrackerKCF', 'mil': 'TrackerMIL'}
    if name not in kinds:
        raise ValueError(f'no tracker {name!r}; the peers are {", ".join(PEERS)}')
    if not hasattr(cv2, kinds[name]):
        raise ValueError(f'the installed OpenCV {cv2.__version__} has no {kinds[name]}: '
                         'it comes with opencv-contrib-python-headless in place of opencv-python')
    return Peer(name, getattr(cv2, f'{kinds[name]}_create'))


def _nano(backbone, head):
    if not hasattr(cv2, 'TrackerNano'):
        raise ValueError(f'the installed OpenCV {cv2.__version__} has no TrackerNano: it came with OpenCV 4.7')
    params = cv2.TrackerNano_Params()
    params.backbone, params.neckhead = str(backbone), str(head)

    def create():
        return cv2.TrackerNano_create(params)

    try:
        create()
    except cv2.error as error:
        raise ValueError(f'OpenCV cannot read {backbone} and {head} as TrackerNano networks: {error.err}') from error
    return create
