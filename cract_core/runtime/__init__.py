"""The networks on one of several runtimes, behind one interface: crops in, arrays out.

Arrays are numpy's, on CUDA torch tensors that stay on the device until `refine` returns. What belongs to a target, the
parts of its template and its discriminator, goes in with every call: a new target compiles nothing.
"""
from __future__ import annotations

import abc
import ctypes
import importlib.util
from typing import NamedTuple

import numpy as np

from ..boxes import array_module, like
from ..config import AUTO, CPU, CUDA, TrackerConfig
from ..discriminator import Classifier
from ..proposals import Proposals, change_penalty, cosine_window, select_proposals
from ..weights_file import read_weights

# runtime -> the package that it needs, precisions on CPUs
PACKAGES = {'torch': 'torch', 'openvino': 'openvino', 'onnx': 'onnxruntime', 'tensorrt': 'onnxruntime'}
PRECISIONS = {'torch': ('fp32',), 'openvino': ('fp32', 'bf16', 'int8'), 'onnx': ('fp32', 'int8'),
              'tensorrt': ('fp16', 'fp32')}
TEMPLATES = 2  # the identifier compares with: the first view of the target, and a recent one
CUDA_PRECISIONS = ('fp16', 'bf16', 'fp32')


class Template(NamedTuple):
    """What a target's first frame contributes to every later one: kernels of the RPN, shares of R and I."""
    classify: np.ndarray       # (1, C, 5, 5)
    regress: np.ndarray        # (1, C, 5, 5)
    regress_term: np.ndarray   # (1, width, 4, 4)
    identify_term: np.ndarray  # (1, width, 4, 4); `refine` takes those of the TEMPLATES first and recent views

    def beside(self, recent: 'Template') -> 'Template':
        """With the identifier's share of a recent view after that of the first."""
        terms = self.identify_term[:1], recent.identify_term[:1]
        return self._replace(identify_term=array_module(terms[0]).concatenate(terms))


class Nets(abc.ABC):
    """phi34 (1, C, S, S), as it comes from `features` and `search`, is valid until the next call of the same method.

    name: runtime and precision, such as 'openvino int8'; device: 'cpu' or 'cuda:0'.
    """

    def __init__(self, name: str, device: str, config: TrackerConfig):
        self.name, self.device = name, device
        self._count, self._overlaps = config.num_proposals, (config.nms_iou, config.fill_iou)
        self._window = None

    @abc.abstractmethod
    def template(self, crop: np.ndarray, box: np.ndarray) -> Template:
        """Crop (129, 129, 3) uint8 BGR and the target's corners (4,) in it (Eq. 2)."""

    @abc.abstractmethod
    def features(self, crop: np.ndarray):
        """phi34 of a crop (161, 161, 3), a view of the target that only D learns from."""

    @abc.abstractmethod
    def search(self, crop: np.ndarray, template: Template) -> tuple:
        """phi34 of a crop (257, 257, 3), and boxes (M, 4), scores c (M,) of all anchors."""

    def select(self, boxes, scores, last: np.ndarray, penalty: float, influence: float) -> Proposals:
        """N proposals (see `select_proposals`), ranked by score, by change from the box `last` (4,), by place."""
        if self._window is None:
            self._window = like(cosine_window(), scores)
        rank = scores * change_penalty(boxes, last[2:] - last[:2], penalty)
        rank = rank * (1 - influence) + self._window * influence
        return select_proposals(boxes, scores, rank, last, self._count, *self._overlaps)

    def as_array(self, phi):
        """phi34 in the kind of array that the discriminator learns with."""
        return phi

    @abc.abstractmethod
    def refine(self, phi, proposals, template: Template, classifier: Classifier) -> tuple[np.ndarray, ...]:
        """Eq. 1 and 3 to 7 on N proposals (N, 4): boxes (N, 4), nu+ by each template (TEMPLATES, N) and tau (N,), unbounded,
        always in numpy."""


def choose_runtime(config: TrackerConfig) -> tuple[str, str, str]:
    """Runtime, precision and device that stand behind `auto`, whatever the weights have. Raises ValueError where
    something asked for is missing."""
    runtime, precision = config.runtime, config.precision
    cuda = config.device != CPU and runtime in (AUTO, 'torch') and cuda_found()
    if config.device == CUDA and not cuda and runtime != 'tensorrt':
        raise ValueError("device 'cuda' was asked for, but PyTorch finds no CUDA device" if runtime in (AUTO, 'torch')
                         else f'the runtime {runtime} has no device cuda')
    if runtime == AUTO:
        installed = [name for name in ('openvino', 'onnx', 'torch') if importlib.util.find_spec(PACKAGES[name])]
        runtime = 'torch' if cuda else next((name for name in installed if precision in (AUTO, *PRECISIONS[name])),
                                            installed[0] if installed else 'onnx')
    if importlib.util.find_spec(PACKAGES[runtime]) is None:
        raise ValueError(f'the runtime {runtime} needs the package {PACKAGES[runtime]}: '
                         f'pip install {PACKAGES[runtime]}')
    if runtime == 'tensorrt' and config.device == CPU:
        raise ValueError('the runtime tensorrt runs on CUDA devices: it does not go with the device cpu')
    known = CUDA_PRECISIONS if cuda and runtime == 'torch' else PRECISIONS[runtime]
    if precision == AUTO:
        precision = known[0]
    elif precision not in known:
        raise ValueError(f'the runtime {runtime} has no precision {precision} on this device, only {", ".join(known)}')
    return runtime, precision, 'cuda:0' if cuda else 'cpu'


def cuda_found() -> bool:
    """Whether torch has a CUDA device. Without a driver torch is not loaded: it takes seconds and 150 MB."""
    try:
        ctypes.CDLL('libcuda.so.1')
    except OSError:
        return False
    if importlib.util.find_spec('torch') is None:
        return False
    import torch
    return torch.cuda.is_available()


def make_nets(config: TrackerConfig, model=None) -> Nets:
    """The networks as `config` asks for them; a `model` (CractModel) given runs on torch.

    Raises FileNotFoundError or ValueError for bad weights or a runtime, precision or device that is not there.
    """
    if model is not None:
        config = config.replace(runtime='torch')
    runtime, precision, device = choose_runtime(config)
    if runtime == 'torch':
        from ..model import load_weights
        from .torch_nets import CudaNets, TorchNets
        model = model or load_weights(config.weights, variants=False)
        if device == 'cpu':
            return TorchNets(model, config)
        return CudaNets(model, config, precision)
    weights = read_weights(config.weights)
    if config.precision == AUTO and weights.ranges and 'int8' in PRECISIONS[runtime]:
        precision = 'int8'
    if runtime == 'openvino':
        from .openvino_nets import OpenVinoNets
        return OpenVinoNets(weights, config, precision)
    from .onnx_nets import OnnxNets
    return OnnxNets(weights, config, runtime, precision)
