"""NanoTrack v3: its two published networks (ONNX, Apache-2.0) on ONNX Runtime, with the constants of its published
configuration. OpenCV's TrackerNano cannot run the third version's head."""
from __future__ import annotations

import numpy as np

from .siamese import Networks, OnnxNetwork, SiamesePeer, planes


class NanoTrackNetworks(Networks):
    """`backbone`: (1, 3, S, S) crop -> features; `head`: template and search features -> class logits and distances.

    Raises as `OnnxNetwork` does.
    """

    def __init__(self, backbone, head, threads: int = 0):
        self._backbone = OnnxNetwork('nano3', backbone, threads, _leave_size_open)
        self._head = OnnxNetwork('nano3', head, threads)

    def template(self, crop: np.ndarray) -> np.ndarray:
        return self._backbone(planes(crop))[0]

    def match(self, template: np.ndarray, crop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, distances = self._head(template, self._backbone(planes(crop))[0])
        shifted = np.exp(logits[0] - logits[0].max(axis=0))
        return shifted[1] / shifted.sum(axis=0), distances[0]


def _leave_size_open(model) -> None:
    """Undo that the file fixes height and width to those of the search crop: the template is smaller."""
    for value in (*model.graph.input, *model.graph.output):
        for axis, size in zip((2, 3), ('height', 'width')):
            value.type.tensor_type.shape.dim[axis].dim_param = f'{value.name}_{size}'
    del model.graph.value_info[:]


class NanoTrack(SiamesePeer):
    """Version 3."""

    name = 'nano3'
    penalty, window, rate = 0.138, 0.455, 0.348
