"""`cract export`: the networks as ONNX or OpenVINO files."""
from __future__ import annotations

import argparse
from pathlib import Path

import onnx
import torch

from ..model import load_weights
from ..runtime import graphs
from ..runtime.export import TOLERANCE, differences, strip, trace, write
from ..weights_file import find_weights, read_weights

DESCRIPTION = """\
Write the networks as ONNX or OpenVINO files into OUT_DIR, each checked against torch: template (what a target's first
frame gives), features (a view for the discriminator), search (a frame up to the anchors) and refine (proposals to boxes
and scores). The template's parts and the discriminator are inputs: a new target needs no new files. The tracker itself
needs none of these files. --precision int8 measures the ranges of all inputs on training images and writes weights that
hold them: with these the tracker runs in int8."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
    """ValueError where a graph does not compute what the model does."""
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
        from ..runtime.calibrate import measure_ranges
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
