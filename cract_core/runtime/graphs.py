"""The networks as ONNX graphs: structure from the package, numbers from a weights file.

`graphs/*.onnx` hold the structure only; their large constants are empty and named after parameters of the model, so one
weights file serves every runtime and no torch is needed to put both together. For int8 the graphs get a pair of
QuantizeLinear and DequantizeLinear around every convolution and fully connected layer: weights symmetric with one scale
for each output, inputs with one scale from the ranges that `cract export --precision int8` measured.
"""
from __future__ import annotations

import abc
import re
from collections import defaultdict
from importlib import resources

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

from ..discriminator import Classifier
from ..weights_file import Weights
from . import Nets, Template

GRAPHS = ('template', 'features', 'search', 'refine')
INT8_GRAPHS = ('features', 'search', 'refine')  # the template is made once: it stays exact
OUTPUTS = dict(template=4, features=1, search=3, refine=3)
LAYERS = ('Conv', 'Gemm')
RESULT = ':result'
MIN_OUTPUTS = 32  # of a layer that int8 changes
SLICE = re.compile(r'(.+)\[(\d+):(\d+)\]$')  # a parameter's inputs a to b, such as regressor.conv.weight[0:384]


def structure(name: str) -> ModelProto:
    """One of GRAPHS with empty constants."""
    return onnx.load_model_from_string((resources.files(__package__) / 'graphs' / f'{name}.onnx').read_bytes())


def fill(model: ModelProto, weights: Weights) -> ModelProto:
    """Put the numbers of `weights` into the empty constants, in place. ValueError if they do not fit."""
    for constant in model.graph.initializer:
        if constant.raw_data:
            continue
        part = SLICE.match(constant.name)
        value = weights.state.get(part[1] if part else constant.name)
        if value is not None and part:
            value = value[:, int(part[2]):int(part[3])]
        if value is None or list(value.shape) != list(constant.dims):
            raise ValueError(f'the weights have no {constant.name} of shape {tuple(constant.dims)}: '
                             'they belong to another network')
        constant.raw_data = np.ascontiguousarray(value, np.float32).tobytes()
    return model


def graph(name: str, weights: Weights, int8: bool = False, outputs: bool = False) -> ModelProto:
    """One of GRAPHS, complete; `outputs` as in `quantize`.

    ValueError if the weights belong to another network or have no ranges for int8.
    """
    model = fill(structure(name), weights)
    return quantize(model, weights.ranges, outputs) if int8 and name in INT8_GRAPHS else model


def layers(model: ModelProto) -> list[NodeProto]:
    """Convolutions and fully connected layers that int8 changes. The last ones are small and decide: they stay exact."""
    wide = {constant.name for constant in model.graph.initializer if constant.dims and constant.dims[0] >= MIN_OUTPUTS}
    return [node for node in model.graph.node if node.op_type in LAYERS and node.input[1] in wide]


def result(model: ModelProto, layer: NodeProto) -> str:
    """The tensor that a layer hands on: behind its ReLU if it has one."""
    readers = [node for node in model.graph.node if layer.output[0] in node.input]
    return readers[0].output[0] if [node.op_type for node in readers] == ['Relu'] else layer.output[0]


def quantize(model: ModelProto, ranges: dict[str, tuple[float, float]], outputs: bool) -> ModelProto:
    """Int8 form of a filled graph, in place.

    ranges: weight name -> lowest and highest input of its layer, weight name + RESULT -> of what the layer hands on.
    outputs: round all of that, too. ONNX Runtime computes with integers only then; OpenVINO always, and is exacter so.
    """
    graph = model.graph
    constants = {constant.name: constant for constant in graph.initializer}
    producer = {output: node.name for node in graph.node for output in node.output}
    added: dict[str, list[NodeProto]] = defaultdict(list)    # name of a node -> nodes that follow it
    quantized: dict[str, str] = {}                           # tensor -> the same, rounded

    def constant(name: str, value: np.ndarray) -> str:
        graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def round_tensor(tensor: str, low: float, high: float) -> np.float32:
        """Put the pair behind a tensor, once; returns the step of its numbers."""
        kind, top = (np.uint8, 255) if low >= 0 else (np.int8, 127)
        step = np.float32(max(high, -low, 1e-6) / top)
        if tensor not in quantized:
            quantized[tensor] = f'{tensor}:int8'
            scale, zero = constant(f'{tensor}:scale', step), constant(f'{tensor}:zero', kind(0))
            added[producer[tensor]] += [
                helper.make_node('QuantizeLinear', [tensor, scale, zero], [f'{tensor}:codes']),
                helper.make_node('DequantizeLinear', [f'{tensor}:codes', scale, zero], [quantized[tensor]])]
        return step

    weights = []
    for node in layers(model):
        source, weight, *biases = node.input
        if weight not in ranges:
            raise ValueError(f'the weights file has no int8 ranges for {weight}: '
                             'make them with `cract export --precision int8 --data FOLDER`')
        step = round_tensor(source, *ranges[weight])
        if outputs:
            round_tensor(result(model, node), *ranges[weight + RESULT])
        value = numpy_helper.to_array(constants[weight])
        scale = np.maximum(np.abs(value).reshape(len(value), -1).max(1), 1e-9).astype(np.float32) / 127
        codes = np.rint(value / scale.reshape(-1, *[1] * (value.ndim - 1))).astype(np.int8)
        integers = [(weight, codes, scale)]
        integers += [(bias, np.rint(numpy_helper.to_array(constants[bias]) / (scale * step)).astype(np.int32), scale * step)
                     for bias in biases]
        for name, codes, steps in integers:
            graph.initializer.remove(constants[name])
            weights.append(helper.make_node('DequantizeLinear', [
                constant(f'{name}:codes', codes), constant(f'{name}:scale', steps),
                constant(f'{name}:zero', np.zeros(len(steps), codes.dtype))], [name], axis=0))
    nodes = weights
    for node in graph.node:
        for index, name in enumerate(node.input):  # a shortcut takes the rounded tensor, too: one form is kept
            node.input[index] = quantized.get(name, name)
        nodes += [node, *added[node.name]]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


class GraphNets(Nets):
    """`Nets` that hand arrays to the graphs as they are: a runtime says only how one is run."""

    @abc.abstractmethod
    def _run(self, name: str, **inputs) -> list[np.ndarray]:
        """The outputs of one of GRAPHS."""

    def template(self, crop, box) -> Template:
        return Template(*self._run('template', crop=crop[None], box=np.asarray(box, np.float32)[None]))

    def features(self, crop):
        return self._run('features', crop=crop[None])[0]

    def search(self, crop, template: Template):
        return self._run('search', crop=crop[None], classify=template.classify, regress=template.regress)

    def refine(self, phi, proposals, template: Template, classifier: Classifier):
        return self._run('refine', phi=phi, proposals=proposals, regress_term=template.regress_term,
                         identify_term=template.identify_term, **classifier._asdict())
