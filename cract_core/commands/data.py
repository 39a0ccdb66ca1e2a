"""`cract data`: make training shards, and look at the pairs that training draws from them."""
from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from .. import options

DESCRIPTION = 'Make and look at the images that `cract train` learns from.'

SHOW = """\
Draw a contact sheet of augmented training pairs: template and search region of each pair with the target's box, green,
orange where the template shows another object (a negative pair), and known boxes of other objects, blue."""

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
    from ..training.pack import pack
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
    import numpy as np

    from ..video import write_image
    from ..training.loop import TrainConfig
    from ..training.pairs import PairSampler
    from ..training.pictures import load_bank
    config = TrainConfig.read(args.config) if args.config else TrainConfig()
    if args.pairs < 1 or args.columns < 1:
        raise ValueError('a contact sheet needs at least one pair and one column')
    bank = load_bank(args.data, args.images)
    sampler = PairSampler(bank, np.ones(len(bank.track), bool), config.augmentation, config.mix, tuple(config.loose))
    sheet = contact_sheet(sampler.sample(args.pairs, np.random.default_rng(args.seed)), args.columns)
    write_image(args.output, sheet)
    print(Path(args.output))
    return 0


def contact_sheet(pairs, columns: int):
    """A picture (H, W, 3) uint8 BGR of `Pairs`, template and search region side by side, `columns` pairs in a row."""
    import cv2
    import numpy as np
    count = len(pairs.search)
    left, right = pairs.template.shape[1], pairs.search.shape[1]
    gap = 4
    cell = np.array([right + gap, left + right + gap])
    sheet = np.full((*(cell * (-(-count // columns), min(columns, count))), 3), 30, np.uint8)

    def outline(picture: np.ndarray, box: np.ndarray, color: tuple[int, int, int]) -> None:
        x1, y1, x2, y2 = box.round().astype(int).tolist()
        cv2.rectangle(picture, (x1, y1), (x2, y2), color, 1)

    for index in range(count):
        y, x = cell * divmod(index, columns)
        color = (0, 160, 255) if pairs.negative[index] else (0, 230, 0)
        template, search = pairs.template[index].copy(), pairs.search[index].copy()
        for box in pairs.others[index][~np.isnan(pairs.others[index]).any(1)]:
            outline(search, box, (255, 128, 0))
        outline(search, pairs.search_box[index], color)
        outline(template, pairs.template_box[index], color)
        sheet[y:y + left, x:x + left], sheet[y:y + right, x + left:x + left + right] = template, search
    return sheet
