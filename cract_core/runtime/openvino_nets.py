"""The networks on OpenVINO: x86 and ARM processors."""
from __future__ import annotations

import numpy as np
import openvino as ov

from ..config import TrackerConfig
from ..discriminator import Classifier
from ..weights_file import Weights
from . import Nets, Template
from .graphs import GRAPHS, graph

HINTS = {'fp32': 'f32', 'bf16': 'bf16', 'int8': 'f32'}


class OpenVinoNets(Nets):
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
        parts = self._run('template', crop=crop[None], box=np.asarray(box, np.float32)[None])
        return Template(*(part.copy() for part in parts))

    def features(self, crop):
        return self._run('features', crop=crop[None])[0]

    def search(self, crop, template: Template):
        return self._run('search', crop=crop[None], classify=template.classify, regress=template.regress)

    def refine(self, phi, proposals, template: Template, classifier: Classifier):
        return self._run('refine', phi=phi, proposals=proposals, regress_term=template.regress_term,
                         identify_term=template.identify_term, **classifier._asdict())
