"""The networks on torch: any model and its variants on CPUs, half precision and CUDA graphs on a GPU."""
from __future__ import annotations

from typing import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .. import model as core
from ..config import TrackerConfig
from ..discriminator import Classifier
from ..proposals import Proposals
from ..rpn import Kernels
from . import Nets, Template

WARM_UP = 3  # calls before a capture: libraries choose their algorithms in them
HALVES = {'fp16': torch.float16, 'bf16': torch.bfloat16}


def refine(model: core.CractModel, phi: Tensor, proposals: Tensor, regress: Tensor, identify: Tensor,
           projection: Tensor, w: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """Eq. 1 to 7: phi34, proposals (N, 4), the templates' shares and D -> boxes (N, 4), nu+ (T, N), tau (N,)."""
    refined = model.refine(phi, proposals, core.Template(None, regress, identify))
    x = (refined.features.permute(0, 2, 3, 1) @ projection.T).flatten(1)
    return refined.boxes, refined.identification, F.elu(x @ w[:-1] + w[-1]) @ v[:-1] + v[-1]


class TorchNets(Nets):
    """`Nets` on torch, CPU: tensors and arrays share their memory."""

    def __init__(self, model: core.CractModel, config: TrackerConfig, name: str = 'torch fp32', device: str = 'cpu'):
        super().__init__(name, device, config)
        if config.threads:
            torch.set_num_threads(config.threads)
        self.model = model.to(device, memory_format=torch.channels_last)

    @torch.inference_mode()
    def template(self, crop, box) -> Template:
        return Template(*map(self._array, self._template(self._tensor(crop), self._tensor(np.float32(box)))))

    @torch.inference_mode()
    def features(self, crop):
        return self._array(self._phi(self._tensor(crop)))

    @torch.inference_mode()
    def search(self, crop, template: Template):
        phi, boxes, scores = self._search(self._tensor(crop), *map(self._tensor, template[:2]))
        return phi, self._array(boxes), self._array(scores)

    def as_array(self, phi):
        return self._array(phi) if isinstance(phi, Tensor) else phi  # `features` hands out arrays

    @torch.inference_mode()
    def refine(self, phi, proposals, template: Template, classifier: Classifier):
        rows = self._refine(phi, *map(self._tensor, (proposals, *template[2:], *classifier))).cpu().numpy()
        return rows[:, :4], rows[:, 5:].T, rows[:, 4]

    def _tensor(self, array) -> Tensor:
        return torch.as_tensor(array, device=self.device)

    def _array(self, tensor: Tensor):
        return tensor.numpy()

    def _template(self, crop: Tensor, box: Tensor) -> tuple[Tensor, ...]:
        made = self.model.template(self._phi(crop), box[None])
        return made.kernels.classify, made.kernels.regress, made.regress, made.identify

    def _phi(self, crop: Tensor) -> Tensor:
        return self.model.features(crop.permute(2, 0, 1)[None].float())  # channels-last already, no copy

    def _search(self, crop: Tensor, classify: Tensor, regress: Tensor) -> tuple[Tensor, ...]:
        phi = self._phi(crop)
        boxes, scores = self.model.propose(phi, core.Template(Kernels(classify, regress), None, None))
        return phi, boxes[0], scores[0]

    def _refine(self, phi, proposals, regress_term, identify_term, projection, w, v) -> Tensor:
        boxes, nu, tau = refine(self.model, phi, proposals, regress_term, identify_term, projection, w, v)
        return torch.cat([boxes, tau[:, None], nu.T], 1)


class CudaNets(TorchNets):
    """`Nets` on CUDA: arrays are tensors on the device, and nothing is read back before the answer of `refine`.

    Convolutions and matrix products run in half precision, boxes and sums in float32. What runs in every frame is
    captured as CUDA graphs at its first call, unless `capture` is off.
    """

    def __init__(self, model: core.CractModel, config: TrackerConfig, precision: str, capture: bool = True,
                 device: str = 'cuda:0'):
        super().__init__(model, config, f'torch {precision}', device)
        self._half = HALVES.get(precision)
        capture_or_not = Captured if capture else (lambda function: function)
        for name in ('_search', '_select', '_refine'):
            setattr(self, name, capture_or_not(self._in_half(getattr(self, name))))
        self._template, self._phi = self._in_half(self._template), self._in_half(self._phi)

    def select(self, boxes, scores, last, penalty, influence) -> Proposals:
        ranking = np.float32([*last, penalty, influence])
        return Proposals(*self._select(boxes, scores, self._tensor(ranking)))

    def _select(self, boxes: Tensor, scores: Tensor, ranking: Tensor) -> tuple[Tensor, ...]:
        return tuple(super().select(boxes, scores, ranking[:4], ranking[4], ranking[5]))

    def _in_half(self, function: Callable) -> Callable:
        @torch.inference_mode()
        def run(*inputs):
            with torch.autocast('cuda', self._half, enabled=self._half is not None, cache_enabled=False):
                outputs = function(*inputs)
            return tuple(part.float() for part in outputs) if isinstance(outputs, tuple) else outputs.float()
        return run

    def _array(self, tensor: Tensor) -> Tensor:
        return tensor


class Captured:
    """A function of tensors of fixed shapes as a CUDA graph; its outputs are overwritten by the next call."""

    def __init__(self, function: Callable):
        self._function, self._graph = function, None

    @torch.inference_mode()
    def __call__(self, *inputs: Tensor):
        if self._graph is None:
            self._inputs = [value.clone() for value in inputs]
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    self._function(*self._inputs)
            torch.cuda.current_stream().wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._outputs = self._function(*self._inputs)
        for kept, value in zip(self._inputs, inputs):
            kept.copy_(value, non_blocking=True)
        self._graph.replay()
        return self._outputs
