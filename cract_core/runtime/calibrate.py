"""Ranges of what enters and leaves the layers, measured on training images: all that int8 needs beyond the weights."""
from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Iterator

import numpy as np
from onnx import ValueInfoProto
from tqdm import tqdm

from ..boxes import xywh_to_xyxy
from ..config import TrackerConfig
from ..crop import search_window, template_window
from ..discriminator import HIDDEN, PROJECTED, Classifier
from ..encodings import file_to_bgr
from ..files import read_text
from ..roi_align import BINS, LEVELS
from ..weights_file import Weights
from . import graphs
from .onnx_nets import OnnxNets

SHIFT, SCALE = 0.25, 0.2   # how far targets lie from where the search expects them, in target sizes; log of the scale
MIN_SIDE = 16              # smaller objects show nothing when they are enlarged, pixels


def annotated_images(folder: str | Path, count: int, random: np.random.Generator) -> Iterator[tuple]:
    """Frames (H, W, 3) BGR and one box x, y, w, h in each, from the shards NAME.tar and NAME.jsonl of `folder`.

    Raises FileNotFoundError where there is no shard, ValueError for one without objects.
    """
    shards = sorted(Path(folder).glob('*.jsonl'))
    if not shards:
        raise FileNotFoundError(f'no shards in {folder}: expected NAME.tar and NAME.jsonl')
    rows = [(shard.with_suffix('.tar'), row) for shard in shards for row in map(json.loads, read_text(shard).splitlines())
            if any(min(one['xywh'][2:]) >= MIN_SIDE for one in row['objects'])]
    if not rows:
        raise ValueError(f'the shards in {folder} have no objects of at least {MIN_SIDE} pixels')
    for index in sorted(random.permutation(len(rows))[:count]):
        tar, row = rows[index]
        with tarfile.open(tar) as archive:
            data = archive.extractfile(row['file']).read()
        box, = random.choice([one['xywh'] for one in row['objects'] if min(one['xywh'][2:]) >= MIN_SIDE], 1)
        try:
            frame = file_to_bgr(data)
        except ValueError as error:
            raise ValueError(f'{tar}: {row["file"]}: {error}') from error
        yield frame, box


class Recorder(OnnxNets):
    """Networks in fp32 that note the lowest and highest numbers that enter and leave every layer, for each call."""

    def __init__(self, weights: Weights):
        self.seen: dict[str, list[tuple[float, float]]] = {}
        self._layers: dict[str, dict[str, str]] = {}
        super().__init__(weights, TrackerConfig(), 'onnx', 'fp32')

    def _graph(self, name: str, weights: Weights, int8: bool):
        model = graphs.graph(name, weights)
        tensors = self._layers[name] = {node.input[1]: node.input[0] for node in graphs.layers(model)}
        tensors |= {node.input[1] + graphs.RESULT: graphs.result(model, node) for node in graphs.layers(model)}
        known = {output.name for output in model.graph.output}
        model.graph.output.extend(ValueInfoProto(name=tensor) for tensor in sorted(set(tensors.values()) - known))
        return model

    def _run(self, name: str, **inputs) -> list[np.ndarray]:
        session = self._sessions[name]
        outputs = session.run(None, inputs)
        if name in graphs.INT8_GRAPHS:
            values = dict(zip((output.name for output in session.get_outputs()), outputs))
            for place, tensor in self._layers[name].items():
                self.seen.setdefault(place, []).append((float(values[tensor].min()), float(values[tensor].max())))
        return outputs[:graphs.OUTPUTS[name]]


def measure_ranges(weights: Weights, folder: str | Path, count: int, seed: int = 0) -> dict[str, tuple[float, float]]:
    """The ranges that `graphs.quantize` takes: means over `count` frames of the lowest and highest numbers.

    A mean, not the extreme: one outlier would cost all other numbers their resolution.
    """
    nets, random = Recorder(weights), np.random.default_rng(seed)
    channels = len(LEVELS) * weights.channels
    nothing = Classifier(np.zeros((PROJECTED, channels), np.float32),
                         np.zeros((BINS * BINS * PROJECTED + 1, HIDDEN), np.float32), np.zeros(HIDDEN + 1, np.float32))
    for frame, box in tqdm(annotated_images(folder, count, random), total=count, unit='image', disable=None):
        center, size, border = box[:2] + box[2:] / 2, box[2:], tuple(frame.mean((0, 1)))
        window = template_window(center, *size)
        corners = xywh_to_xyxy(box)
        template = nets.template(window.cut(frame, border), window.to_crop(corners))
        size = size * np.exp(random.normal(0, SCALE))
        window = search_window(center + random.normal(0, SHIFT, 2) * size, *size)
        phi, boxes, scores = nets.search(window.cut(frame, border), template)
        proposals = nets.select(boxes, scores, np.float32(window.to_crop(corners)), 0.0, 0.0)
        nets.refine(phi, proposals.boxes, template.beside(template), nothing)
    return {place: tuple(np.mean(rows, 0).tolist()) for place, rows in nets.seen.items()}
