"""`cract synth`: render an annotated aerial scene."""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from .. import options
from ..evaluation.sequences import write_rendered

DESCRIPTION = """\
Render an aerial scene with exact boxes: a drone's view of traffic with look-alikes of the target, a bridge that hides
it, trees, camera motion and changing light. Writes OUT_DIR/img/*.jpg and OUT_DIR/groundtruth.txt, one line x,y,w,h a
frame, nan where the target is hidden. With OUT_DIR = ROOT/<set>/<sequence>, `cract eval ROOT` reads it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('out', type=Path, metavar='OUT_DIR', help='folder to make; must not hold a clip already')
    parser.add_argument('--frames', type=options.positive, default=300, metavar='N',
                        help='frames to render (default: 300)')
    parser.add_argument('--seed', type=options.natural, default=0, metavar='N',
                        help='the same seed gives the same scene (default: 0)')
    parser.add_argument('--size', type=options.size, default=(640, 480), metavar='WxH', help='default: 640x480')


def run(args: argparse.Namespace) -> int:
    images = args.out / 'img'
    if images.is_dir() and any(images.iterdir()):
        raise ValueError(f'{images} is not empty: a clip is written into a folder of its own')
    boxes = write_rendered(args.out, args.frames, args.seed, args.size)
    hidden = int(np.isnan(boxes).any(axis=1).sum())
    print(f'{len(boxes)} frames in {args.out}, the target hidden in {hidden}; its first box is '
          + ','.join(f'{value:.2f}' for value in boxes[0]))
    return 0
