"""`cract tune`: search the tracker's parameters on annotated sequences."""
from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from .. import __version__, options
from ..evaluation import runner
from ..evaluation.search import (DEFAULT_PARAMETERS, choose_ranges, open_study, rendered_clips, search, summarize, table,
                                 write_config)
from ..evaluation.sequences import read_folders
from ..files import write_text

DESCRIPTION = """\
Search the tracker's own parameters on the annotated sequences of ROOT, and on rendered clips if asked: the mean success
AUC is what counts, each sequence alike. Optuna's TPE proposes values; a trial that is clearly worse than the best one
ends early. The result is the default and the best values, what each parameter matters, the gain with its 95 % bootstrap
interval, and a file for --config. Stopped and started again, or started several times at once, it goes on with the same
study. The tracker's options below set where the search starts and what it leaves alone."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('root', metavar='ROOT', help='folder of <set>/<sequence> folders to tune on')
    parser.add_argument('--parameters', default=','.join(DEFAULT_PARAMETERS), metavar='A,B',
                        help=f'what to search; any numeric parameter of the tracker (default: '
                             f'{",".join(DEFAULT_PARAMETERS)})')
    parser.add_argument('--trials', type=options.positive, default=50, metavar='N',
                        help='finished trials that the study shall have in the end (default: 50)')
    parser.add_argument('--output', type=Path, default=Path('runs/tune'), metavar='DIR',
                        help='folder of the study, tuned.yaml, tune.json and the rendered clips; the same folder '
                             'again goes on, or joins in (default: runs/tune)')
    parser.add_argument('--rendered', type=options.natural, default=0, metavar='N',
                        help='clips of `cract synth` besides ROOT')
    parser.add_argument('--rendered-frames', type=options.positive, default=150, metavar='N',
                        help='length of each (default: 150)')
    parser.add_argument('--rendered-seed', type=options.natural, default=0, metavar='N',
                        help='seed of the first; the next ones count up (default: 0)')
    parser.add_argument('--search-seed', type=options.natural, default=0, metavar='N',
                        help='of the sampler and the bootstrap (default: 0)')
    options.add_tracker_parameters(parser)


def run(args: argparse.Namespace) -> int:
    """Search around the given parameters; prints the table and writes `tuned.yaml` and `tune.json` into the output folder."""
    base = options.tracker_config(args)
    try:
        import optuna
        import scipy  # noqa: F401  (the pruner's)
    except ImportError as error:
        raise ValueError(f'cract tune needs the package {error.name}: pip install "cract_ros[tune]"') from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    ranges = choose_ranges(tuple(args.parameters.split(',')), base)
    args.output.mkdir(parents=True, exist_ok=True)
    sequences = read_folders(args.root) + rendered_clips(
        args.output / 'rendered', args.rendered, args.rendered_frames, args.rendered_seed)
    sequences = sorted(sequences, key=lambda one: len(one.images))  # a bad trial ends after the cheapest evidence
    study = open_study(args.output, base, ranges, sequences, args.search_seed)
    search(study, base, ranges, sequences, args.trials)
    figures = dict(summarize(study, sequences, args.search_seed), version=__version__, root=str(args.root),
                   date=time.strftime('%Y-%m-%dT%H:%M:%S%z'), ranges=ranges, environment=runner.environment())
    write_text(args.output / 'tune.json', json.dumps(figures, indent=2) + '\n')
    text = table(figures)
    write_config(args.output / 'tuned.yaml', base.replace(**figures['best']), text)
    print(f'{text}\n\ntuned configuration: {args.output / "tuned.yaml"}')
    return 0
