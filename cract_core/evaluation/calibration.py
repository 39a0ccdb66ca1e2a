"""`cract calibrate`: turn the final score of Eq. 10 into the probability that it is right.

The tracker runs through sequences with absences spliced in (see `absence`) and through rendered clips. Of every frame
the best candidate's Eq. 10 is kept with the answer to "does this box overlap the target by more than a half?", and a
logistic curve is fitted to them (Platt, Probabilistic Outputs for Support Vector Machines, 1999).
"""
from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..boxes import iou, xywh_to_xyxy
from .. import options
from ..config import TrackerConfig
from ..presence import probability
from ..tracker import Tracker
from . import absence, runner
from .sequences import Sequence, read_folder, read_folders, write_rendered


class Witness(Tracker):
    """A tracker that keeps each frame's best candidate: `seen` has corners (4,) in the frame and Eq. 10."""

    def init(self, frame, box) -> None:
        super().init(frame, box)
        self.seen: list[tuple[np.ndarray, float]] = []

    def _judge(self, target, corners, fused, nu, tau) -> float:
        self.seen.append((corners, fused))
        return super()._judge(target, corners, fused, nu, tau)


def witness(tracker: Witness, sequence: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 10 of each frame's best candidate after the first (M,), and whether it overlaps the target by half (M,)."""
    runner.run_sequence(tracker, sequence)
    corners = np.array([corners for corners, _ in tracker.seen])
    right = np.nan_to_num(iou(corners, xywh_to_xyxy(sequence.truth[1:]))) > 0.5  # nan: absent
    return np.array([fused for _, fused in tracker.seen]), right


def fit(scores: list[np.ndarray], right: list[np.ndarray]) -> tuple[float, float]:
    """Slope and offset of the logistic curve with the least log loss over sequences, each (M_i,).

    A sequence counts by the square root of its length: its frames are alike. ValueError if all answers are right, or
    all wrong.
    """
    from scipy.optimize import minimize
    x, y = np.concatenate(scores), np.concatenate(right)
    if y.all() or not y.any():
        raise ValueError('a calibration needs right and wrong answers, and all are ' + ('right' if y.all() else 'wrong'))
    weight = np.concatenate([np.full(len(one), len(one) ** -0.5) for one in scores])
    weight /= weight.sum()

    def loss(parameters: np.ndarray) -> float:
        margin = np.where(y, 1, -1) * (parameters[0] * x + parameters[1])
        return float(weight @ np.logaddexp(0, -margin))
    return tuple(float(value) for value in minimize(loss, (5.0, -2.5)).x)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `cract calibrate`, without those of the tracker."""
    parser.add_argument('root', metavar='ROOT', help='folder of <set>/<sequence> folders that is not used to measure')
    parser.add_argument('--splices', type=options.positive, default=2, metavar='N',
                        help='times that each sequence is run, with absences elsewhere (default: 2)')
    parser.add_argument('--rendered', type=options.natural, default=4, metavar='N',
                        help='rendered clips besides them, of 240 frames (default: 4)')
    parser.add_argument('--rendered-seed', type=options.natural, default=1, metavar='N', help='of the first clip (default: 1)')


def run(args: argparse.Namespace, config: TrackerConfig) -> int:
    """Print the fitted parameters as YAML, and how good they are on sequences that they were not fitted to."""
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
