"""`cract ablate`: measure what each part of the tracker is worth."""
from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

from .. import __version__, options
from ..evaluation import runner
from ..evaluation.ablation import ABLATIONS, NAMES, VariantSpec, find_ablation, markdown, measure, train_variant
from ..evaluation.sequences import read_folders
from ..files import keep_apart, write_text

DESCRIPTION = """\
Measure what a part of the tracker is worth: variants without it, or with another value, on the same annotated sequences
and with the same seeds. Prints a table with the differences to the tracker as it is, paired over sequences, and their
95 % bootstrap intervals; a difference whose interval contains 0 is called noise. `time` is that of the updates relative
to the first row. cascade, pooling, features and stride compare networks: both get the same short training first."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('name', metavar='NAME', choices=NAMES, help=f'one of {", ".join(NAMES)}')
    parser.add_argument('root', metavar='ROOT', help='folder of <set>/<sequence> folders to measure on')
    parser.add_argument('--seeds', type=_seeds, default=(0,), metavar='A,B',
                        help='of the tracker, and of the training where there is one (default: 0)')
    parser.add_argument('--output', type=Path, metavar='DIR',
                        help='folder of NAME.md, NAME.json, the runs and trained weights; what is there already is '
                             'not repeated (default: runs/ablate-NAME)')
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help='sequences at a time (default: 1)')
    group = parser.add_argument_group('training, for ' + ', '.join(
        name for name, ablation in ABLATIONS.items() if ablation.fresh))
    group.add_argument('--data', metavar='SHARDS', help='training data, as for `cract train`')
    group.add_argument('--steps', type=int, default=300, metavar='N', help='batches for each variant (default: 300)')
    group.add_argument('--batch', type=int, default=16, metavar='N', help='pairs in a batch (default: 16)')
    group.add_argument('--images', type=int, default=0, metavar='N', help='read only so many images (default: all)')
    options.add_tracker_parameters(parser)


def run(args: argparse.Namespace) -> int:
    """Train where needed, measure all variants, print the table and write it as JSON and Markdown."""
    base = options.tracker_config(args)
    ablation = find_ablation(args.name, base)
    for option in ('steps', 'batch', 'jobs'):
        if getattr(args, option) < 1:
            raise ValueError(f'--{option} must be at least 1, got {getattr(args, option)}')
    if ablation.fresh and not args.data:
        raise ValueError(f'the ablation {args.name} compares networks that are trained first: give --data with a '
                         'folder of training data, and with --steps the same short budget for each')
    if args.data and not ablation.fresh:
        raise ValueError(f'the ablation {args.name} trains nothing: leave out --data')
    if args.jobs > 1 and not base.threads:  # share the cores instead of fighting for them
        base = base.replace(threads=max(1, (os.cpu_count() or 1) // args.jobs))
    sequences = read_folders(args.root)
    output = args.output or Path('runs') / f'ablate-{args.name}'
    keep_apart({'ROOT': args.root, '--data': args.data}, {'--output': output})
    specs = {}
    for seed in args.seeds:
        for variant in ablation.variants:
            config = base.replace(seed=seed, **variant.changes)
            if ablation.fresh:
                config = config.replace(weights=str(train_variant(variant, ablation.fresh, config, args, output)))
            specs[variant.name, seed] = VariantSpec(f'{variant.name}-seed{seed}', config)
    figures = dict(ablation=args.name, text=ablation.text, root=str(args.root), version=__version__,
                   date=time.strftime('%Y-%m-%dT%H:%M:%S%z'),
                   training=dict(fresh=ablation.fresh, steps=args.steps, batch=args.batch, images=args.images)
                   if ablation.fresh else None,
                   **measure(specs, sequences, output, args.jobs), environment=runner.environment())
    write_text(output / f'{args.name}.json', json.dumps(figures, indent=2) + '\n')
    text = markdown(figures)
    write_text(output / f'{args.name}.md', text)
    print(text, end='')
    return 0


def _seeds(text: str) -> tuple[int, ...]:
    if not all(part.isdecimal() for part in text.split(',')):
        raise argparse.ArgumentTypeError(f'expected whole numbers with commas between them, got {text!r}')
    return tuple(dict.fromkeys(int(part) for part in text.split(',')))
