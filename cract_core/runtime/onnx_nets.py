"""The networks on ONNX Runtime: any processor, and through its TensorRT provider a Jetson's GPU."""
from __future__ import annotations

import numpy as np
import onnxruntime as ort

from ..config import TrackerConfig
from ..weights_file import Weights
from .graphs import GRAPHS, GraphNets, graph

TENSORRT = 'TensorrtExecutionProvider'


class OnnxNets(GraphNets):
    """`Nets` on ONNX Runtime. ValueError for 'tensorrt' where the installed ONNX Runtime has no TensorRT."""

    def __init__(self, weights: Weights, config: TrackerConfig, runtime: str, precision: str):
        super().__init__(f'{runtime} {precision}', 'cpu' if runtime == 'onnx' else 'cuda:0', config)
        providers: list = ['CPUExecutionProvider']
        if runtime == 'tensorrt':
            if TENSORRT not in ort.get_available_providers():
                raise ValueError('the runtime tensorrt needs an ONNX Runtime that was built with TensorRT, such as '
                                 'onnxruntime-gpu, in place of onnxruntime')
            providers.insert(0, (TENSORRT, {'trt_fp16_enable': precision == 'fp16', 'trt_engine_cache_enable': True}))
        options = ort.SessionOptions()
        options.intra_op_num_threads = config.threads
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')  # spinning takes cores from numpy
        options.log_severity_level = 3
        options.add_free_dimension_override_by_name('N', config.num_proposals)
        self._sessions = {
            name: ort.InferenceSession(self._graph(name, weights, precision == 'int8').SerializeToString(), options,
                                       providers=providers) for name in GRAPHS}

    def _graph(self, name: str, weights: Weights, int8: bool):
        return graph(name, weights, int8, outputs=True)

    def _run(self, name: str, **inputs) -> list[np.ndarray]:
        return self._sessions[name].run(None, inputs)
