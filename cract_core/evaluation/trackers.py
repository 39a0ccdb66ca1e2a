"""Options that choose the trackers of an evaluation, and the trackers that they choose."""
from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path

from .. import options
from ..config import TrackerConfig
from .execution import TrackerSpec, tracker_of
from .peers import NETWORK_FILES, PEERS

TRACKERS = ('cract', *PEERS)


def add_networks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--peers', type=Path, metavar='DIR',
                        help='folder with the networks of the trackers nano, nano3, lighttrack, fear and vit '
                             '(docs/evaluation.md names the files)')
    parser.add_argument('--nano-backbone', type=Path, metavar='FILE', help='backbone of nano, instead of --peers')
    parser.add_argument('--nano-head', type=Path, metavar='FILE', help='head of nano, instead of --peers')


def chosen_trackers(args) -> tuple[tuple, dict[str, dict]]:
    """The trackers that the arguments choose, each made once to see that it can be, and how the report describes them."""
    config = options.tracker_config(args)
    if args.jobs > 1 and not config.threads and not args.ray:  # share the cores instead of fighting for them
        config = config.replace(threads=max(1, (os.cpu_count() or 1) // args.jobs))
    files = (args.nano_backbone, args.nano_head)
    if args.peers and not set(args.tracker) & set(NETWORK_FILES):
        raise ValueError(f'--peers holds the networks of {", ".join(NETWORK_FILES)}: give one of them as --tracker')
    if any(files) and 'nano' not in args.tracker:
        raise ValueError('--nano-backbone and --nano-head are the networks of nano: give --tracker nano too')
    foreign = sorted(set(options.given_parameters(args)) - {'threads'})
    if 'cract' not in args.tracker and (foreign or args.config):
        name = '--config' if args.config else '--' + foreign[0].replace('_', '-')
        raise ValueError(f'{name} sets up the tracker cract and means nothing to {", ".join(args.tracker)}')
    specs, described = [], {}
    for name in args.tracker:
        if name == 'cract':
            specs.append(TrackerSpec(name, config))
            nets = tracker_of(specs[-1]).nets
            runtime, precision = nets.name.split()
            described[name] = dict(config=dict(dataclasses.asdict(config), runtime=runtime, precision=precision),
                                   device=nets.device)
            continue
        wanted = NETWORK_FILES.get(name, ())
        given = files if name == 'nano' else (None,) * len(wanted)
        found = [path or (args.peers and args.peers / file) for path, file in zip(given, wanted, strict=True)]
        networks = tuple(str(path) for path in found if path)
        specs.append(TrackerSpec(name, TrackerConfig(threads=config.threads), networks))
        tracker_of(specs[-1])
        described[name] = dict(config=dict(threads=config.threads, networks=list(networks)), device='cpu')
    return tuple(specs), described


def parse_adapter(argv: list[str]) -> tuple[str, object]:
    """Name and tracker from the options of the adapter to the VOT toolkit; raises as the tracker's making does."""
    parser = options.Parser(prog='python -m cract_core.evaluation.vot_adapter',
                            description='Serve a tracker to the VOT toolkit.')
    parser.add_argument('--tracker', default=('cract',), type=options.choices(TRACKERS), metavar='NAME',
                        help=f'one of {", ".join(TRACKERS)} (default: cract)')
    parser.set_defaults(jobs=1, ray=None)
    add_networks(parser)
    options.add_tracker_parameters(parser)
    specs, _ = chosen_trackers(parser.parse_args(argv))
    return specs[0].name, tracker_of(specs[0])
