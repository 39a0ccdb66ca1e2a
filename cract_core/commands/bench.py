"""`cract bench`: how fast the tracker is on this machine."""
from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from .. import __version__
from ..config import TrackerConfig
from ..evaluation import runner
from ..evaluation.bench import (PROPOSALS, RENDERED, WARM_UP, accuracy, in_child, installed, matmul_peak, measure, memory,
                                network_flops, print_run, with_runtime)
from ..evaluation.execution import TrackerSpec
from ..evaluation.peers import NETWORK_FILES, PEERS
from ..evaluation.sequences import read_folders
from ..files import write_text
from ..options import node_installed
from ..runtime import choose_runtime

DESCRIPTION = """\
Measure how fast the tracker is here: whole frames with and without updates, the first frame, the stages of the networks,
peak memory, arithmetic and its share of what the processor's matrix products reach; for every runtime and precision that
is installed, peers beside if asked, all in turn on the same frames. With ROOT also the AUC of each. --json writes
<tracker>.p50_ms, .p95_ms, .p99_ms and .init_ms for all of them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
                        help='numbers of threads, each with a core of its own, to run with; the last one is reported '
                             '(default: all)')
    parser.add_argument('--sizes', type=_sizes, default=(RENDERED,), metavar='WxH,WxH',
                        help='sizes of the frames; the first one is reported (default: 640x480)')
    parser.add_argument('--proposals', type=_numbers, default=(), metavar='1,64', help='other N to run with')
    parser.add_argument('--frames', type=int, default=200, metavar='N', help='of each run (default: 200)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all figures')
    parser.add_argument('--ros', action='store_true',
                        help='measure only what the ROS 2 node adds to the tracker, at 640x480 and 30 Hz')


def run(args: argparse.Namespace) -> int:
    config = TrackerConfig(weights=args.weights)
    if args.json and not args.json.absolute().parent.is_dir():
        raise FileNotFoundError(f'cannot write {args.json}: there is no folder {args.json.absolute().parent}')
    if args.ros:
        if not node_installed():
            raise ValueError('--ros measures the ROS 2 node, which is not installed')
        options = ['--json', str(args.json)] if args.json else []
        return subprocess.run([sys.executable, '-m', 'cract_ros.bench', *options], check=False).returncode
    if args.frames <= WARM_UP:
        raise ValueError(f'--frames must be above {WARM_UP}, got {args.frames}')
    load, sequences = runner.OtherLoad(), read_folders(args.root) if args.root else []
    ours = {name: TrackerSpec('cract', with_runtime(config, name)) for name in args.runtimes or installed(config)}
    peers = {name: TrackerSpec(name, TrackerConfig(), tuple(
        str((args.peers or Path()) / file) for file in NETWORK_FILES.get(name, ()))) for name in args.tracker}
    for spec in ours.values():
        choose_runtime(spec.config)
    for spec in peers.values():
        spec.make()
    cores, size = args.threads[-1], args.sizes[0]
    plans = [(count, shape, PROPOSALS) for count in args.threads for shape in args.sizes]
    plans += [(cores, size, count) for count in args.proposals if count != PROPOSALS]
    runs: list[dict] = []
    report: dict = {}
    for count, shape, proposals in plans:
        specs = {name: dataclasses.replace(spec, config=spec.config.replace(num_proposals=proposals, threads=count))
                 for name, spec in ours.items()}
        if proposals == PROPOSALS:
            specs |= {name: dataclasses.replace(spec, config=spec.config.replace(threads=count))
                      for name, spec in peers.items()}
        figures = in_child(count, measure, specs, shape, args.frames)
        runs.append(dict(cores=count, size=list(shape), proposals=proposals, trackers=figures))
        print_run(runs[-1])
        if (count, shape, proposals) == (cores, size, PROPOSALS):
            report = {name: dict(one) for name, one in figures.items()}
            chosen = specs
    peak = in_child(cores, matmul_peak)
    print(f'\nfp32 matrix products on {cores} cores: {peak:.0f} GFLOP/s\n{"":20}  peak MB   GFLOP  of the peak'
          + '     AUC' * bool(sequences))
    for name, spec in chosen.items():
        one = report[name]
        one['rss_mb'] = in_child(cores, memory, spec)
        if spec.name == 'cract':
            one['gflop'] = network_flops(spec.config.num_proposals) / 1e9
            one['peak_share'] = one['gflop'] / (one['stages_ms']['search'] + one['stages_ms']['refine']) * 1e3 / peak
            if sequences:
                one['auc'] = in_child(cores, accuracy, spec, sequences)
        print(f'{name:20}{one["rss_mb"]:9.0f}'
              + (f'{one["gflop"]:8.2f}{one["peak_share"]:13.0%}' if 'gflop' in one else '')
              + (f'{one["auc"]:8.4f}' if 'auc' in one else ''), flush=True)
    if sentence := load.sentence():
        print(sentence, file=sys.stderr)
    if args.json:
        report |= dict(runs=runs, peak_gflops=peak, version=__version__, environment=runner.environment(load),
                       root=args.root)
        write_text(args.json, json.dumps(report, indent=2) + '\n')
    return 0


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(','))


def _numbers(text: str) -> tuple[int, ...]:
    numbers = tuple(int(part) if part.isdecimal() else 0 for part in text.split(','))
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f'expected whole numbers from 1 with commas between them, got {text!r}')
    return numbers


def _sizes(text: str) -> tuple[tuple[int, int], ...]:
    found = [re.fullmatch(r'([0-9]{2,9})x([0-9]{2,9})', part) for part in text.split(',')]
    sizes = tuple((int(one[1]), int(one[2])) for one in found if one)
    if len(sizes) < len(found) or min(map(min, sizes)) < 64:
        raise argparse.ArgumentTypeError(f'expected sizes from 64x64 such as 640x480,1920x1080, got {text!r}')
    return sizes
