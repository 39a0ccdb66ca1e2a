"""`cract bag`: follow an object through the images of a ROS 2 bag."""
from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .. import options
from ..bag import DetectionWriter, open_images
from ..files import ResultLines
from ..tracker import MIN_SIZE, Tracker

DESCRIPTION = """\
Follow one object through the images of a ROS 2 bag (sqlite3 or MCAP, also compressed by zstd), raw or compressed, each
image in turn. BAG is the folder of the bag or a single .mcap or .db3 file. No ROS installation is needed. --output
writes a new bag with the topic /tracker/detection: a vision_msgs/Detection2D for each image after the first, with the
image's header and the time at which the image was recorded. An image that cannot be read is left out and counted. Of a
bag without its end or its metadata.yaml, as after a power failure, what is there is read. Where something is missing the
exit status is 2."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('bag', type=Path, metavar='BAG', help='folder of a ROS 2 bag, or its .mcap or .db3 file')
    parser.add_argument('--topic', metavar='TOPIC', help='topic of the images; may be left out if the bag has one only')
    parser.add_argument('--box', required=True, type=options.box, metavar='X,Y,W,H', help='the object in the first image')
    parser.add_argument('--start', type=options.seconds, default=0.0, metavar='SECONDS',
                        help='begin with the first image recorded so long after the beginning of the bag (default: 0)')
    parser.add_argument('--output', type=Path, metavar='OUT_BAG', help='folder to make: a bag with the detections')
    parser.add_argument('--results', type=Path, metavar='OUT.txt',
                        help='write one line x,y,w,h an image; the first is the given box, a lost target has the '
                             'place where it is supposed, an image that cannot be read has nan')
    parser.add_argument('--id', default='1', metavar='TEXT', help="the target's id in the detections (default: 1)")
    options.add_tracker_parameters(parser)


def run(args: argparse.Namespace) -> int:
    config = options.tracker_config(args)
    try:
        import mcap.stream_reader  # noqa: F401
        import rosbags.highlevel  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError(f'bags are read with the packages rosbags and mcap, and {error.name} is not installed: '
                         'pip install "cract_ros[bag]"') from error
    if args.results and args.output and args.output.resolve() in args.results.resolve().parents:
        raise ValueError(f'--results names {args.results}, which lies in the bag that --output makes')
    unreadable: list[str] = []
    with ExitStack() as stack:
        images = stack.enter_context(open_images(args.bag, args.topic, args.start))
        writer = stack.enter_context(DetectionWriter(args.output, args.bag, args.id)) if args.output else None
        lines = stack.enter_context(ResultLines(args.results)) if args.results else None
        tracker = Tracker(config)
        count = lost = 0
        try:
            for image in tqdm(images, total=images.total, unit='image', disable=None):
                count += 1
                box = np.full(4, np.nan)
                try:
                    if image.frame is None:
                        raise ValueError(image.reason)
                    if not tracker.initialized:
                        tracker.init(image.frame, args.box)
                        box = args.box
                    else:
                        estimate = tracker.update(image.frame)
                        box = estimate.box
                        lost += estimate.state.value == 'lost'
                        if writer is not None:
                            writer.write(image, estimate)
                except ValueError as error:
                    if not tracker.initialized:
                        raise
                    unreadable.append(str(error))
                if lines is not None:
                    lines.write(','.join(f'{value:.4f}' for value in box))
        except KeyboardInterrupt:
            print('interrupted', file=sys.stderr)
            images.complaints.clear()
            if not count:
                return 130
    if not count:
        raise ValueError(next(iter(images.complaints), '')
                         or f'{args.bag} has no image {args.start:g} s or more after its beginning')
    followed = count - 1 - len(unreadable)
    print(f'{count} images on {tracker.device}' + (f', the target lost in {lost / followed:.1%}' if followed else ''))
    if min(args.box[2:]) < MIN_SIZE:
        print(f'the box is smaller than {MIN_SIZE:g} pixels, the least size of a target that is followed',
              file=sys.stderr)
    complaints = list(images.complaints)
    if unreadable:
        complaints.append(f'{len(unreadable)} images could not be read; the first: {unreadable[0]}')
    for complaint in complaints:
        print(f'cract bag: {complaint}', file=sys.stderr)
    return 2 if complaints else 0
