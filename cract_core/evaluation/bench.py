"""How fast the tracker is on this machine, stage by stage, beside its peers and the machine's own limit.

All trackers of a run see each frame one after the other, so that what disturbs the machine disturbs them alike. A run
has a process of its own that is confined to as many cores as it has threads.
"""
from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Callable, Iterator

import cv2
import numpy as np
from tqdm import tqdm

from ..config import TrackerConfig
from ..runtime import choose_runtime
from ..synthetic import generate
from ..weights_file import read_weights
from . import runner
from .execution import TrackerSpec

WARM_UP = 3           # frames whose times do not count
PAUSE = 0.005         # seconds
MEMORY_FRAMES = 15
STAGES = ('search', 'select', 'refine')  # of the networks; the rest is the crop, the scores and the updates
RENDERED = (640, 480)
PROPOSALS = 10        # of all runs but those that vary N


def installed(config: TrackerConfig) -> list[str]:
    """Every runtime and precision that runs on this machine's processor, such as 'openvino-int8'."""
    names, ranged = [], bool(read_weights(config.weights).ranges)
    for runtime in ('openvino', 'onnx', 'torch'):
        for precision in ('fp32', 'bf16', 'int8')[:3 if ranged else 2]:
            with contextlib.suppress(ValueError):  # what is not there is not measured
                choose_runtime(config.replace(runtime=runtime, precision=precision, device='cpu'))
                names.append(f'{runtime}-{precision}')
    return names


def with_runtime(config: TrackerConfig, name: str) -> TrackerConfig:
    """`config` on a runtime and precision such as 'openvino-int8'."""
    runtime, _, precision = name.partition('-')
    return config.replace(runtime=runtime, precision=precision or 'auto')


def in_child(cores: int, function: Callable, *arguments):
    """`function(*arguments)` in a new process on the first `cores` cores: libraries start as many threads."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:cores])
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
            return pool.submit(function, *arguments).result()
    finally:
        os.sched_setaffinity(0, allowed)


def clip(frames: int, size: tuple[int, int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A rendered scene: frames (H, W, 3) of any size and the target's box; it is visible in the first one."""
    scale = np.divide(size, RENDERED)
    for frame in generate(frames, 3, RENDERED):
        yield cv2.resize(frame.image, size), frame.box * np.tile(scale, 2)


def measure(specs: dict[str, TrackerSpec], size: tuple[int, int], frames: int) -> dict[str, dict]:
    """Run all trackers on one clip, frame by frame in turn; name -> figures in ms.

    Threads of most libraries wait busily for a while when they have done their work, and would take cores from the next
    tracker: a pause goes before each frame, long enough for them and too short for the processor to fall asleep.
    """
    trackers = {name: spec.make() for name, spec in specs.items()}
    stages = {name: _watch(tracker) for name, tracker in trackers.items() if specs[name].name == 'cract'}
    first: dict[str, float] = {}
    times: dict[str, list[float]] = {name: [] for name in trackers}
    updated: dict[str, list[bool]] = {name: [] for name in trackers}
    for index, (frame, box) in enumerate(tqdm(clip(frames, size), total=frames, unit='frame', leave=False, disable=None)):
        for name, tracker in trackers.items():
            if index == 0:
                tracker.init(frame, box)  # the first call of anything is slow: the second is what counts
                start = time.perf_counter()
                tracker.init(frame, box)
                first[name] = time.perf_counter() - start
                continue
            time.sleep(PAUSE)
            start = time.perf_counter()
            estimate = tracker.update(frame)
            times[name].append(time.perf_counter() - start)
            updated[name].append(estimate.updated)
    figures = {}
    for name in trackers:
        trained = np.array(updated[name])
        trained[1:] |= trained[:-1].copy()  # an update goes on in the frame after
        seconds, trained = np.array(times[name])[WARM_UP:], trained[WARM_UP:]
        figures[name] = dict(init_ms=first[name] * 1e3, **percentiles(seconds))
        if name in stages:
            figures[name] |= dict(
                without_updates=percentiles(seconds[~trained]), with_updates=percentiles(seconds[trained]),
                updates=int(trained.sum()),
                stages_ms={stage: float(np.median(spans[-len(seconds):]) * 1e3) for stage, spans in stages[name].items()})
    return figures


def _watch(tracker) -> dict[str, list[float]]:
    """Note the seconds of every call of the tracker's networks, by stage."""
    spans: dict[str, list[float]] = {stage: [] for stage in STAGES}

    def timed(call: Callable, kept: list[float]) -> Callable:
        def run(*arguments):
            start = time.perf_counter()
            result = call(*arguments)
            kept.append(time.perf_counter() - start)
            return result
        return run

    for stage, kept in spans.items():
        setattr(tracker.nets, stage, timed(getattr(tracker.nets, stage), kept))
    return spans


def percentiles(seconds: np.ndarray) -> dict[str, float | None]:
    if not len(seconds):
        return dict(p50_ms=None, p95_ms=None, p99_ms=None)
    return {f'p{q}_ms': float(np.percentile(seconds, q) * 1e3) for q in (50, 95, 99)}


def memory(spec: TrackerSpec) -> float:
    """Peak resident memory in MB of a process that does nothing but track."""
    tracker = spec.make()
    for index, (frame, box) in enumerate(clip(MEMORY_FRAMES, RENDERED)):
        tracker.update(frame) if index else tracker.init(frame, box)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def accuracy(spec: TrackerSpec, sequences: list) -> float:
    """Mean success AUC."""
    tracker = spec.make()
    runs = [runner.run_sequence(tracker, sequence) for sequence in tqdm(sequences, unit='sequence', disable=None)]
    return float(np.mean([runner.summarize(one, sequence)['auc'] for one, sequence in zip(runs, sequences)]))


def matmul_peak(side: int = 1536, repeats: int = 12) -> float:
    """Best rate of a float32 matrix product in GFLOP/s."""
    a = np.random.default_rng(0).random((side, side), np.float32)
    best = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2 * side ** 3 / best / 1e9


def network_flops(proposals: int) -> int:
    """Multiplications and additions of the convolutions and matrix products of one frame."""
    import onnx
    from onnx import numpy_helper

    from ..runtime.graphs import structure
    total = 0
    for name in ('search', 'refine'):
        model = structure(name)
        for value in model.graph.input:
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param == 'N':
                    dim.dim_value = proposals
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
                  for value in (*model.graph.value_info, *model.graph.input, *model.graph.output)}
        shapes |= {constant.name: list(constant.dims) for constant in model.graph.initializer}
        shapes |= {node.output[0]: list(numpy_helper.to_array(node.attribute[0].t).shape) for node in model.graph.node
                   if node.op_type == 'Constant'}
        for node in model.graph.node:
            if node.op_type == 'Conv':
                total += 2 * int(np.prod(shapes[node.output[0]]) * np.prod(shapes[node.input[1]][1:]))
            elif node.op_type in ('Gemm', 'MatMul'):
                total += 2 * int(np.prod(shapes[node.output[0]])) * shapes[node.input[0]][-1]
    return total


def print_run(run: dict) -> None:
    width, height = run['size']
    print(f'\n{run["cores"]} cores, {width}x{height}, N = {run["proposals"]}; ms\n{"":20}    p50    p95    p99  without '
          f'updates: p50    p99  first frame  ' + '  '.join(f'{stage:>7}' for stage in STAGES))
    for name, one in run['trackers'].items():
        row = f'{name:20}{one["p50_ms"]:7.1f}{one["p95_ms"]:7.1f}{one["p99_ms"]:7.1f}'
        if 'stages_ms' in one:
            plain = one['without_updates']
            row += ''.join(f'{"-" if plain[key] is None else format(plain[key], ".1f"):>{width}}'
                           for key, width in (('p50_ms', 22), ('p99_ms', 7)))
        row += ' ' * (29 * ('stages_ms' not in one)) + f'{one["init_ms"]:13.0f}  '
        print(row + '  '.join(f'{one["stages_ms"][stage]:7.2f}' for stage in STAGES if 'stages_ms' in one), flush=True)
