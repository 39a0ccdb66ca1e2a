"""`cract calibrate`: fit the score to the probability of being right."""
from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .. import options
from ..evaluation import absence
from ..evaluation.calibration import Witness, fit, witness
from ..evaluation.sequences import Sequence, read_folder, read_folders, write_rendered
from ..presence import probability

DESCRIPTION = """\
Fit the curve that turns the final score of Eq. 10 into a probability: "the target is in view and the box overlaps it by
more than a half". The tracker runs through the annotated sequences of ROOT with absences spliced in, and through rendered
clips. Prints the two parameters as YAML for --config; to be done again after every training, on sequences that nothing
is measured on."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('root', metavar='ROOT', help='folder of <set>/<sequence> folders that is not used to measure')
    parser.add_argument('--splices', type=options.positive, default=2, metavar='N',
                        help='times that each sequence is run, with absences elsewhere (default: 2)')
    parser.add_argument('--rendered', type=options.natural, default=4, metavar='N',
                        help='rendered clips besides them, of 240 frames (default: 4)')
    parser.add_argument('--rendered-seed', type=options.natural, default=1, metavar='N',
                        help='of the first clip (default: 1)')
    options.add_tracker_parameters(parser)


def run(args: argparse.Namespace) -> int:
    """Print the fitted parameters as YAML, and how good they are on sequences that they were not fitted to."""
    config = options.tracker_config(args)
    try:
        import scipy  # noqa: F401
    except ImportError as error:
        raise ValueError('cract calibrate needs the package scipy: pip install "cract_ros[tune]"') from error
    sequences = read_folders(args.root)
    tracker = Witness(config)
    names, scores, right = [], [], []

    def add(name: str, sequence: Sequence) -> None:
        fused, good = witness(tracker, sequence)
        names.append(name)
        scores.append(fused)
        right.append(good)

    with tempfile.TemporaryDirectory() as folder, tqdm(
            total=len(sequences) * args.splices + args.rendered, unit='run', disable=None) as bar:
        for seed in range(args.splices):
            for sequence in sequences:
                spliced: Sequence
                try:
                    spliced = absence.splice(sequence, sequences, seed)
                except ValueError:  # too short for an absence: it counts as it is
                    spliced = sequence
                add(sequence.name, spliced)
                bar.update()
        for seed in range(args.rendered_seed, args.rendered_seed + args.rendered):
            clip = Path(folder, str(seed))
            write_rendered(clip, 240, seed)
            add(f'rendered {seed}', read_folder(clip))
            bar.update()
    held_out = [np.empty(0)] * len(names)
    for name in dict.fromkeys(names):
        rest = [i for i, other in enumerate(names) if other != name]
        curve = fit([scores[i] for i in rest], [right[i] for i in rest])
        for i in set(range(len(names))) - set(rest):
            held_out[i] = probability(scores[i], *curve)
    slope, offset = fit(scores, right)
    x, y, p = np.concatenate(scores), np.concatenate(right), np.concatenate(held_out)
    print(f'# {len(y)} frames, {y.mean():.2f} of them right; on sequences left out of the fit: AUROC '
          f'{absence.auroc(p, y):.3f}, calibration error {absence.calibration_error(p, y):.3f} '
          f'(Eq. 10 itself: {absence.calibration_error(x, y):.3f})')
    print(f'score_slope: {slope:.2f}\nscore_offset: {offset:.2f}')
    return 0
