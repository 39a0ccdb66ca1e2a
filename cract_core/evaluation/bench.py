"""`cract bench`: how fast the tracker is on this machine, stage by stage, beside its peers and the machine's own limit.

All trackers of a run see each frame one after the other, so that what disturbs the machine disturbs them alike. A run
has a process of its own that is confined to as many cores as it has threads.
"""
from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Callable, Iterator

import cv2
import numpy as np
from tqdm import tqdm

from .. import __version__
from ..config import TrackerConfig
from ..files import write_text
from ..runtime import choose_runtime
from ..synthetic import generate
from ..weights_file import read_weights
from . import runner
from .execution import TrackerSpec
from .peers import NETWORK_FILES, PEERS
from .sequences import read_folders

WARM_UP = 3           # frames whose times do not count
PAUSE = 0.005         # seconds
MEMORY_FRAMES = 15
STAGES = ('search', 'select', 'refine')  # of the networks; the rest is the crop, the scores and the updates
RENDERED = (640, 480)
PROPOSALS = 10        # of all runs but those that vary N


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `cract bench` besides those of the tracker."""
    parser.add_argument('root', nargs='?', metavar='ROOT',
                        help='folder of <set>/<sequence> folders: also measure the AUC of every runtime and precision')
    parser.add_argument('--weights', default='', metavar='FILE', help='instead of those of the package')
    parser.add_argument('--runtimes', type=_words, metavar='A,B',
                        help='runtimes with their precision, such as openvino-int8 (default: all that are installed, int8 '
                             'if the weights have its ranges)')
    parser.add_argument('--tracker', type=_words, default=(), metavar='A,B',
                        help=f'peers to run beside: some of {", ".join(PEERS)}')
    parser.add_argument('--peers', type=Path, metavar='DIR',
                        help='folder with the networks of the peers that have some (docs/evaluation.md names the files)')
    parser.add_argument('--threads', type=_numbers, default=(os.cpu_count() or 1,), metavar='1,2',
                        help='numbers of threads, each with a core of its own, to run with; the last one is reported (default: all)')
    parser.add_argument('--sizes', type=_sizes, default=(RENDERED,), metavar='WxH,WxH',
                        help='sizes of the frames; the first one is reported (default: 640x480)')
    parser.add_argument('--proposals', type=_numbers, default=(), metavar='1,64', help='other N to run with')
    parser.add_argument('--frames', type=int, default=200, metavar='N', help='of each run (default: 200)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all figures')
    parser.add_argument('--ros', action='store_true',
                        help='measure only what the ROS 2 node adds to the tracker, at 640x480 and 30 Hz')


def run(args: argparse.Namespace) -> int:
    """`cract bench`."""
    config = TrackerConfig(weights=args.weights)
    if args.json and not args.json.absolute().parent.is_dir():
        raise FileNotFoundError(f'cannot write {args.json}: there is no folder {args.json.absolute().parent}')
    if args.ros:
        options = ['--json', str(args.json)] if args.json else []
        return subprocess.run([sys.executable, '-m', 'cract_ros.bench', *options], check=False).returncode
    if args.frames <= WARM_UP:
        raise ValueError(f'--frames must be above {WARM_UP}, got {args.frames}')
    load, sequences = runner.OtherLoad(), read_folders(args.root) if args.root else []
    ours = {name: TrackerSpec('cract', _config(config, name)) for name in args.runtimes or installed(config)}
    peers = {name: TrackerSpec(name, TrackerConfig(), tuple(
        str((args.peers or Path()) / file) for file in NETWORK_FILES.get(name, ()))) for name in args.tracker}
    for name, spec in ours.items():
        choose_runtime(spec.config)
    for spec in peers.values():
        spec.make()
    cores, size = args.threads[-1], args.sizes[0]
    plans = [(count, shape, PROPOSALS) for count in args.threads for shape in args.sizes]
    plans += [(cores, size, count) for count in args.proposals if count != PROPOSALS]
    runs, report = [], {}
    for count, shape, proposals in plans:
        specs = {name: dataclasses.replace(spec, config=spec.config.replace(num_proposals=proposals, threads=count))
                 for name, spec in ours.items()}
        if proposals == PROPOSALS:
            specs |= {name: dataclasses.replace(spec, config=spec.config.replace(threads=count))
                      for name, spec in peers.items()}
        figures = _in_child(count, measure, specs, shape, args.frames)
        runs.append(dict(cores=count, size=list(shape), proposals=proposals, trackers=figures))
        print_run(runs[-1])
        if (count, shape, proposals) == (cores, size, PROPOSALS):
            report = {name: dict(one) for name, one in figures.items()}
            chosen = specs
    peak = _in_child(cores, matmul_peak)
    print(f'\nfp32 matrix products on {cores} cores: {peak:.0f} GFLOP/s\n{"":20}  peak MB   GFLOP  of the peak' + '     AUC'
          * bool(sequences))
    for name, spec in chosen.items():
        one = report[name]
        one['rss_mb'] = _in_child(cores, memory, spec)
        if spec.name == 'cract':
            one['gflop'] = network_flops(spec.config.num_proposals) / 1e9
            one['peak_share'] = one['gflop'] / (one['stages_ms']['search'] + one['stages_ms']['refine']) * 1e3 / peak
            if sequences:
                one['auc'] = _in_child(cores, accuracy, spec, sequences)
        print(f'{name:20}{one["rss_mb"]:9.0f}' + (f'{one["gflop"]:8.2f}{one["peak_share"]:13.0%}' if 'gflop' in one else '')
              + (f'{one["auc"]:8.4f}' if 'auc' in one else ''), flush=True)
    if sentence := load.sentence():
        print(sentence, file=sys.stderr)
    if args.json:
        report |= dict(runs=runs, peak_gflops=peak, version=__version__, environment=runner.environment(load),
                       root=args.root)
        write_text(args.json, json.dumps(report, indent=2) + '\n')
    return 0


def installed(config: TrackerConfig) -> list[str]:
    """Every runtime and precision that runs on this machine's processor, such as 'openvino-int8'."""
    names, ranged = [], bool(read_weights(config.weights).ranges)
    for runtime in ('openvino', 'onnx', 'torch'):
        for precision in ('fp32', 'bf16', 'int8')[:3 if ranged else 2]:
            with contextlib.suppress(ValueError):  # what is not there is not measured
                choose_runtime(config.replace(runtime=runtime, precision=precision, device='cpu'))
                names.append(f'{runtime}-{precision}')
    return names


def _config(config: TrackerConfig, name: str) -> TrackerConfig:
    runtime, _, precision = name.partition('-')
    return config.replace(runtime=runtime, precision=precision or 'auto')


def _in_child(cores: int, function: Callable, *arguments):
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


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(','))


def _numbers(text: str) -> tuple[int, ...]:
    numbers = tuple(int(part) if part.isdecimal() else 0 for part in text.split(','))
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f'expected whole numbers from 1 with commas between them, got {text!r}')
    return numbers


def _sizes(text: str) -> tuple[tuple[int, int], ...]:
    sizes = tuple(tuple(int(side) if side.isdecimal() else 0 for side in part.split('x')) for part in text.split(','))
    if any(len(size) != 2 or min(size) < 64 for size in sizes):
        raise argparse.ArgumentTypeError(f'expected sizes from 64x64 such as 640x480,1920x1080, got {text!r}')
    return sizes
