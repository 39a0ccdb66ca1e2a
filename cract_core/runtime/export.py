"""From the torch model to the graphs of the package, and to ONNX and OpenVINO files for other programs."""
from __future__ import annotations

import argparse
import io
import warnings
from pathlib import Path
from typing import Callable

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from ..crop import SEARCH_SIZE, TEMPLATE_SIZE, VIEW_SIZE
from ..discriminator import HIDDEN, PROJECTED
from ..model import CractModel, Template, load_weights
from ..roi_align import BINS, LEVELS
from ..rpn import Kernels
from ..weights_file import find_weights, read_weights
from . import TEMPLATES, graphs
from .torch_nets import refine

OPSET = 17
TOLERANCE = dict(fp32=1e-3, int8=0.5)  # difference to torch that fails an export, relative
LARGE = 1000  # numbers; a constant with more is a parameter of the model and is left out of the structure


class Network(nn.Module):
    """One of the graphs as a module: `run` takes the model and the inputs."""

    def __init__(self, model: CractModel, run):
        super().__init__()
        self.model, self.run = model, run

    def forward(self, *inputs: Tensor):
        return self.run(self.model, *inputs)


def pixels(crop: Tensor) -> Tensor:
    """(1, S, S, 3) uint8 -> (1, 3, S, S) float32."""
    return crop.permute(0, 3, 1, 2).float()


def template(model: CractModel, crop: Tensor, box: Tensor) -> tuple[Tensor, ...]:
    """Crop (1, 129, 129, 3) uint8 and box (1, 4) -> the parts of `Template`."""
    made = model.template(model.features(pixels(crop)), box)
    return made.kernels.classify, made.kernels.regress, made.regress, made.identify


def features(model: CractModel, crop: Tensor) -> Tensor:
    """Crop (1, S, S, 3) uint8 -> phi34."""
    return model.features(pixels(crop))


def search(model: CractModel, crop: Tensor, classify: Tensor, regress: Tensor) -> tuple[Tensor, ...]:
    """Crop (1, 257, 257, 3) uint8 and the template's kernels -> phi34, boxes (M, 4), scores (M,) of all anchors."""
    phi = model.features(pixels(crop))
    boxes, scores = model.propose(phi, Template(Kernels(classify, regress), None, None))
    return phi, boxes[0], scores[0]


def examples(model: CractModel, proposals: int = 10) -> dict[str, tuple]:
    """Graph name -> what it computes, example inputs by name, names of its outputs."""
    def picture(size: int) -> Tensor:
        return torch.randint(0, 256, (1, size, size, 3), dtype=torch.uint8)

    with torch.inference_mode():
        inputs = dict(crop=picture(TEMPLATE_SIZE), box=torch.tensor([[40.0, 35, 90, 95]]))
        made = template(model, *inputs.values())
        found = dict(crop=picture(SEARCH_SIZE), classify=made[0], regress=made[1])
        phi, boxes, _ = search(model, *found.values())
    depth, inputs_of_d = len(LEVELS) * model.channels, BINS * BINS * PROJECTED
    return dict(
        template=(template, inputs, ('classify', 'regress', 'regress_term', 'identify_term')),
        features=(features, dict(crop=picture(VIEW_SIZE)), ('phi',)),
        search=(search, found, ('phi', 'boxes', 'scores')),
        refine=(refine, dict(phi=phi, proposals=boxes[:proposals], regress_term=made[2], identify_term=made[3].repeat(TEMPLATES, 1, 1, 1),
                             projection=torch.randn(PROJECTED, depth) / depth, w=torch.randn(inputs_of_d + 1, HIDDEN) / 9,
                             v=torch.randn(HIDDEN + 1) / 9), ('refined', 'identification', 'discrimination')))


def trace(model: CractModel, name: str) -> onnx.ModelProto:
    """One of the graphs with its numbers; the count of proposals stays open."""
    run, inputs, outputs = examples(model)[name]
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the tracer's, about shapes that are fixed on purpose
        torch.onnx.export(Network(model, run), tuple(inputs.values()), buffer, input_names=list(inputs),
                          output_names=list(outputs), opset_version=OPSET, dynamo=False,
                          dynamic_axes=dict(proposals={0: 'N'}) if name == 'refine' else None)
    return onnx.load_model_from_string(buffer.getvalue())


def strip(graph: onnx.ModelProto, model: CractModel) -> onnx.ModelProto:
    """The structure of a traced graph: parameters empty and under their names in the weights file, in place."""
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    names = {}
    for constant in graph.graph.initializer:
        value = numpy_helper.to_array(constant)
        if constant.name.startswith('model.') or value.size > LARGE:
            names[constant.name] = constant.name = parameter_name(value, state)
            constant.ClearField('raw_data')
    for node in graph.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = names.get(name, name)
    return graph


def parameter_name(value: np.ndarray, state: dict[str, np.ndarray]) -> str:
    """The parameter that holds `value`, or NAME[a:b] for its inputs a to b."""
    for name, array in state.items():
        if array.shape == value.shape and np.array_equal(array, value):
            return name
        if array.ndim == value.ndim == 4 and array.shape[2:] == value.shape[2:] and array.shape[1] > value.shape[1]:
            for low in (0, array.shape[1] - value.shape[1]):
                if np.array_equal(array[:, low:low + value.shape[1]], value):
                    return f'{name}[{low}:{low + value.shape[1]}]'
    raise ValueError(f'a constant of shape {value.shape} is no parameter of the model')


def differences(model: CractModel, name: str, run: Callable[[dict], list[np.ndarray]]) -> dict[str, float]:
    """Name of each output -> largest difference between `run` and torch, relative to the largest value beyond 1."""
    function, inputs, outputs = examples(model)[name]
    with torch.inference_mode():
        expected = function(model, *inputs.values())
    expected = expected if isinstance(expected, tuple) else (expected,)
    found = run({key: value.numpy() for key, value in inputs.items()})
    return {output: float(np.abs(a - b.numpy()).max() / max(1.0, float(b.abs().max())))
            for output, a, b in zip(outputs, found, expected)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `cract export`."""
    parser.add_argument('output', type=Path, metavar='OUT_DIR', help='folder for the files, made if need be')
    parser.add_argument('--weights', default='', metavar='FILE', help='weights to export (default: the package\'s)')
    parser.add_argument('--form', choices=('onnx', 'openvino'), default='onnx', help='of the files (default: onnx)')
    parser.add_argument('--precision', choices=('fp32', 'int8'), default='fp32',
                        help='int8 also writes OUT_DIR/cract.pt, the weights with the measured ranges (default: fp32)')
    parser.add_argument('--data', type=Path, metavar='DIR',
                        help='training shards NAME.tar and NAME.jsonl on which the ranges for int8 are measured')
    parser.add_argument('--images', type=int, default=200, metavar='N', help='of them (default: 200)')
    parser.add_argument('--structure', action='store_true',
                        help='write only the empty graphs that belong into cract_core/runtime/graphs, for developers who '
                             'changed the networks')


def run(args: argparse.Namespace) -> int:
    """`cract export`; ValueError where a graph does not compute what the model does."""
    model, weights = load_weights(args.weights), read_weights(args.weights)
    args.output.mkdir(parents=True, exist_ok=True)
    if args.structure:
        for name in graphs.GRAPHS:
            onnx.save(strip(trace(model, name), model), args.output / f'{name}.onnx')
        print(f'{", ".join(graphs.GRAPHS)} in {args.output}')
        return 0
    int8 = args.precision == 'int8'
    if int8 and (args.data or not weights.ranges):
        if args.data is None:
            raise ValueError('these weights have no ranges for int8 yet: give training images with --data DIR')
        from .calibrate import measure_ranges
        weights = weights._replace(ranges=measure_ranges(weights, args.data, args.images))
        content = torch.load(find_weights(args.weights), map_location='cpu', weights_only=True)
        torch.save({**content, 'ranges': weights.ranges}, args.output / 'cract.pt')
    for name in graphs.GRAPHS:
        graph = graphs.graph(name, weights, int8, outputs=args.form == 'onnx')
        path, evaluate = write(graph, args.output / name, args.form)
        found = differences(model, name, evaluate)
        print(f'{path}  largest difference to torch: '
              + ', '.join(f'{output} {value:.1e}' for output, value in found.items()), flush=True)
        limit = TOLERANCE['int8' if int8 and name in graphs.INT8_GRAPHS else 'fp32']
        if max(found.values()) > limit:
            raise ValueError(f'{path} does not compute what the model does: it differs by more than {limit:g}')
    return 0


def write(graph: onnx.ModelProto, path: Path, form: str) -> tuple[Path, Callable[[dict], list[np.ndarray]]]:
    """Write a graph as `form`; returns the file and a function that evaluates it as it was written."""
    if form == 'onnx':
        import onnxruntime as ort
        path = path.with_suffix('.onnx')
        onnx.checker.check_model(graph)
        onnx.save(graph, path)
        session = ort.InferenceSession(str(path), providers=['CPUExecutionProvider'])
        return path, lambda inputs: session.run(None, inputs)
    import openvino as ov
    path = path.with_suffix('.xml')
    ov.save_model(ov.Core().read_model(graph.SerializeToString()), path, compress_to_fp16=False)
    compiled = ov.Core().compile_model(path, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    return path, lambda inputs: list(compiled(inputs).values())
