"""Other trackers behind our own interface, `init(frame, box)`, `update(frame) -> Estimate`: OpenCV's, and those of
`nanotrack`, `lighttrack`, `fear` and `vittrack`.

Of OpenCV's trackers: the boxes that go in are rounded to whole pixels, since they take integers; those that come out
are integers. When a peer reports that it lost the target, its last box stands, as benchmarks want a box in every frame.
"""
from __future__ import annotations

import itertools
from pathlib import Path

import cv2
import numpy as np

from ..boxes import check_box
from ..tracker import Estimate, State

PEERS = ('nano', 'nano3', 'lighttrack', 'fear', 'vit', 'csrt', 'kcf', 'mil')
NETWORK_FILES = {   # what a peer needs, by the names of its files
    'nano': ('nanotrack_v2_backbone.onnx', 'nanotrack_v2_head.onnx'),
    'nano3': ('nanotrack_v3_backbone.onnx', 'nanotrack_v3_head.onnx'),
    'lighttrack': ('lighttrack_z_feature.xml', 'lighttrack_x_feature.xml', 'lighttrack_head.xml',
                   'lighttrack_feature.bin', 'lighttrack_head.bin'),
    'fear': ('fear_xs_template.onnx', 'fear_xs_track.onnx'),
    'vit': ('vittrack.onnx',),
}


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


def make_peer(name: str, *networks, threads: int = 0):
    """A peer by its name: `nano` (OpenCV's TrackerNano), `nano3`, `lighttrack`, `fear` and `vit` from the files
    `networks`, in the order of `NETWORK_FILES`; `csrt`, `kcf` or `mil` of OpenCV without any.

    `threads` is the thread count of OpenCV, for the whole process, and of the library that runs the networks; 0 leaves
    their defaults. Raises FileNotFoundError for a missing file and ValueError if the installed OpenCV lacks the
    tracker, ONNX Runtime or OpenVINO is missing, or they cannot read the files.
    """
    if threads:
        cv2.setNumThreads(threads)
    for file, path in itertools.zip_longest(NETWORK_FILES.get(name, ()), networks):
        if path is None:
            raise FileNotFoundError(f'the tracker {name} needs the file {file}: give its folder with --peers')
        if not Path(path).is_file():
            raise FileNotFoundError(f'the tracker {name} needs the file {file}: no file {path}')
    if name == 'nano':
        return Peer(name, _nano(*networks), scored=True)
    if name == 'nano3':
        from .nanotrack import NanoTrack, NanoTrackNetworks
        return NanoTrack(NanoTrackNetworks(*networks, threads))
    if name == 'lighttrack':
        from .lighttrack import LightTrack, LightTrackNetworks
        return LightTrack(LightTrackNetworks(*networks, threads))
    if name == 'fear':
        from .fear import Fear, FearNetworks
        return Fear(FearNetworks(*networks, threads))
    if name == 'vit':
        from .siamese import OnnxNetwork
        from .vittrack import VitTrack
        return VitTrack(OnnxNetwork(name, *networks, threads))
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
