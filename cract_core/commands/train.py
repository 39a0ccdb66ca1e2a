"""`cract train`: train the networks offline on image pairs."""
from __future__ import annotations

import argparse
from pathlib import Path

from .. import options
from ..files import keep_apart

DESCRIPTION = 'Train the networks offline on image pairs.'

OVERRIDES = ('data', 'output', 'imagenet', 'start_from', 'device', 'threads', 'seed', 'steps', 'minutes', 'batch',
             'images')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `cract train`; what is not given stays as in the configuration file."""
    parser.add_argument('config', help='YAML file with the training options, such as config/train.yaml')
    parser.add_argument('--data', help='folder with the image shards (NAME.tar and NAME.jsonl)')
    parser.add_argument('--output', help='folder for checkpoints, log, curves and the finished weights')
    parser.add_argument('--imagenet', help="ResNet-18 weights; without it torchvision's are downloaded")
    parser.add_argument('--start-from', help='weights of an earlier run to go on from')
    parser.add_argument('--device', choices=('auto', 'cpu', 'cuda'), help='where to train')
    parser.add_argument('--threads', type=int, help='CPU threads')
    parser.add_argument('--seed', type=options.natural, help='seed of everything random')
    parser.add_argument('--steps', type=int, help='length of the run in batches')
    parser.add_argument('--minutes', type=float, help='end after so many minutes, loading included')
    parser.add_argument('--batch', type=int, help='pairs in a batch')
    parser.add_argument('--images', type=int, help='read only so many images, for a trial')
    parser.add_argument('--resume', action='store_true', help='go on from the checkpoint in the output folder')


def run(args: argparse.Namespace) -> int:
    """Train as the arguments say; prints the path of the finished weights."""
    from ..training.loop import TrainConfig, train
    config = TrainConfig.read(args.config, **{name: getattr(args, name) for name in OVERRIDES})
    if not config.data:
        raise ValueError('no training data: give --data FOLDER or set `data` in the configuration')
    keep_apart({'the data': config.data, 'the ImageNet weights': config.imagenet,
                'the weights to start from': config.start_from}, {'the output': config.output})
    for name in ('cract.pt', 'checkpoint.pt'):
        keep_apart({'the ImageNet weights': config.imagenet, 'the weights to start from': config.start_from},
                   {'the output': Path(config.output) / name})
    print(train(config, resume=args.resume))
    return 0
