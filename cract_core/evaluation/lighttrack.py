"""LightTrack-Mobile (Yan et al., LightTrack: Finding Lightweight Neural Networks for Object Tracking via One-Shot
Architecture Search, 2021; MIT licence): its networks as OpenVINO files, with the constants of its published
configuration."""
from __future__ import annotations

import numpy as np

from .siamese import EXTRA, Networks, SiamesePeer


class LightTrackNetworks(Networks):
    """`template` and `search`: (1, S, S, 3) crop, normalised inside -> features; `head`: both -> score and distances.

    Each is an .xml file; `features` and `heads` are the .bin files with the weights of the first two and of the head.
    ValueError where OpenVINO is not installed or cannot read a file.
    """

    def __init__(self, template, search, head, features, heads, threads: int = 0):
        try:
            import openvino
        except ImportError as error:
            raise ValueError(f'the tracker lighttrack needs the package openvino: {EXTRA}') from error
        core = openvino.Core()
        settings = {'PERFORMANCE_HINT': 'LATENCY', 'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': threads,
                    'ENABLE_CPU_PINNING': False}

        def load(graph, weights):
            try:
                model = core.read_model(str(graph), str(weights))
                return core.compile_model(model, 'CPU', settings).create_infer_request()
            except RuntimeError as error:
                raise ValueError(f'OpenVINO cannot read {graph} and {weights} as a network: {error}') from error

        self._of_template, self._of_search = load(template, features), load(search, features)
        self._head = load(head, heads)

    def template(self, crop: np.ndarray) -> np.ndarray:
        return self._of_template.infer([crop[None]])[0].copy()  # kept beyond the next call

    def match(self, template: np.ndarray, crop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = self._head.infer([template, self._of_search.infer([crop[None]])[0]])
        return found[0], found[1]


class LightTrack(SiamesePeer):
    """The mobile version; its crops have twice the target's context, as the others', but 128 and 256 pixels."""

    name = 'lighttrack'
    template_size, search_size = 128, 256
    penalty, window, rate = 0.062, 0.38, 0.765
