"""`cract data`: make training shards, and look at the pairs that training draws from them."""
from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from .. import options

SHOW = """\
Draw a contact sheet of augmented training pairs: template and search region of each pair with the target's box, green;
orange where the template shows another object (a negative pair)."""

PACK = """\
Make shards for `cract train` from a training set as it is published: lasot, trackingnet and got10k (the training
parts; clips of six frames from as many videos as possible), coco (COCO 2017, instances), or folders: your own
sequences ROOT/<set>/<sequence>/{img/*.jpg|png, groundtruth.txt}, one line x,y,w,h a frame, nan where the object is
absent. Each object is cut out with about five times its size around it and stored at up to 320 pixels."""

SETS = ('lasot', 'trackingnet', 'got10k', 'coco', 'folders')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The commands of `cract data`."""
    commands = parser.add_subparsers(dest='data_command', required=True, metavar='COMMAND')
    show = commands.add_parser('show', help='draw a contact sheet of augmented pairs', description=SHOW)
    show.add_argument('data', metavar='DATA', help='folder with the image shards (NAME.tar and NAME.jsonl)')
    show.add_argument('--output', required=True, metavar='FILE', help='picture to write, .png or .jpg')
    show.add_argument('--config', metavar='FILE', help='YAML file with the training options, for its augmentation')
    show.add_argument('--pairs', type=int, default=48, help='default: %(default)s')
    show.add_argument('--columns', type=int, default=6, help='default: %(default)s')
    show.add_argument('--images', type=int, default=1500,
                      help='read only so many images; 0: all (default: %(default)s)')
    show.add_argument('--seed', type=options.natural, default=0, help='default: %(default)s')
    pack = commands.add_parser('pack', help='make training shards from annotated videos or COCO', description=PACK)
    pack.add_argument('set', choices=SETS, metavar='SET', help=', '.join(SETS))
    pack.add_argument('root', metavar='ROOT', help='folder of the set, as it is published')
    pack.add_argument('--output', required=True, metavar='FOLDER', help='folder for the shards')
    pack.add_argument('--images', type=int, default=25000, help='about so many (default: %(default)s)')
    pack.add_argument('--gap', type=int, default=100, help='frames that a clip spans at most (default: %(default)s)')
    pack.add_argument('--threads', type=int, default=os.cpu_count(), help='default: %(default)s')
    pack.add_argument('--seed', type=options.natural, default=0, help='default: %(default)s')


def run(args: argparse.Namespace) -> int:
    """Run the chosen command of `cract data`."""
    if args.data_command == 'show':
        return show(args)
    from .pack import pack
    if min(args.images, args.gap, args.threads) < 1:
        raise ValueError('--images, --gap and --threads must be at least 1')
    left_out: dict[str, str] = {}
    count = pack(args.set, args.root, args.output, args.images, args.gap, args.seed, args.threads, left_out)
    print(f'{count} images of {args.set} in {args.output}')
    if left_out:
        name, reason = next(iter(left_out.items()))
        print(f'cract data: {len(left_out)} videos or images could not be read; the first, {name}: {reason}',
              file=sys.stderr)
    return 2 if left_out else 0


def show(args: argparse.Namespace) -> int:
    """Write the contact sheet that the arguments ask for."""
    import torch

    from ..video import write_image
    from .augment import PairSampler
    from .data import load_bank
    from .loop import TrainConfig
    config = TrainConfig.read(args.config) if args.config else TrainConfig()
    if args.pairs < 1 or args.columns < 1:
        raise ValueError('a contact sheet needs at least one pair and one column')
    bank = load_bank(args.data, args.images, args.seed, config.pseudo_share)
    generator = torch.Generator().manual_seed(args.seed)
    sheet = contact_sheet(PairSampler(bank, config.augmentation, generator).sample(args.pairs), args.columns)
    write_image(args.output, sheet)
    print(Path(args.output))
    return 0


def contact_sheet(pairs, columns: int):
    """A picture (H, W, 3) uint8 BGR of `Pairs`, template and search region side by side, `columns` pairs in a row."""
    import cv2
    import numpy as np
    count = len(pairs.search)
    height, gap = pairs.search.shape[-1], 4
    left, right = pairs.template.shape[-1], pairs.search.shape[-1]
    cell = np.array([height + gap, left + right + gap])
    sheet = np.full((*(cell * (-(-count // columns), min(columns, count))), 3), 30, np.uint8)
    for index in range(count):
        y, x = cell * divmod(index, columns)
        color = (0, 160, 255) if pairs.negative[index] else (0, 230, 0)
        for crop, box, start, size in ((pairs.template, pairs.template_box, x, left),
                                       (pairs.search, pairs.search_box, x + left, right)):
            picture = np.ascontiguousarray(crop[index].permute(1, 2, 0).round().clamp(0, 255).byte().numpy())
            low, high = box[index].round().int().view(2, 2).tolist()
            cv2.rectangle(picture, low, high, color, 1)
            sheet[y:y + size, start:start + size] = picture
    return sheet
