"""The networks on OpenVINO: x86 and ARM processors."""
from __future__ import annotations

import numpy as np
import openvino as ov

from ..config import TrackerConfig
from ..weights_file import Weights
from . import Template
from .graphs import GRAPHS, GraphNets, graph

HINTS = {'fp32': 'f32', 'bf16': 'bf16', 'int8': 'f32'}


class OpenVinoNets(GraphNets):
    """`Nets` on OpenVINO."""

    def __init__(self, weights: Weights, config: TrackerConfig, precision: str):
        super().__init__(f'openvino {precision}', 'cpu', config)
        core, settings = ov.Core(), {
            'PERFORMANCE_HINT': 'LATENCY', 'INFERENCE_PRECISION_HINT': HINTS[precision],
            'INFERENCE_NUM_THREADS': config.threads, 'ENABLE_CPU_PINNING': False}
        self._requests = {}
        for name in GRAPHS:
            model = core.read_model(graph(name, weights, precision == 'int8').SerializeToString())
            if name == 'refine':
                model.reshape({'proposals': [config.num_proposals, 4]})
            self._requests[name] = core.compile_model(model, 'CPU', settings).create_infer_request()

    def _run(self, name: str, **inputs) -> list[np.ndarray]:
        # nothing is copied: inputs are read where they lie, and outputs stay where the request holds them
        return list(self._requests[name].infer(inputs, share_inputs=True, share_outputs=True).values())

    def template(self, crop, box) -> Template:
        return Template(*(part.copy() for part in super().template(crop, box)))  # kept beyond the next call
