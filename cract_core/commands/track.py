"""`cract track`: follow an object through a video, an image folder or a camera."""
from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .. import options
from ..evaluation.runner import latency
from ..files import ResultLines
from ..tracker import MIN_SIZE, Tracker
from ..video import FrameSource, VideoWriter, draw_estimate

DESCRIPTION = """\
Follow one object through SOURCE: a video file, a folder of images (natural order of the names), numbered images
(img%04d.jpg), the index or device of a camera, or the URL of a stream. Ends with the number of frames, the rate and
latency of the tracker alone (without decoding and drawing) and the share of frames in which the target was lost. Ctrl-C
ends a camera's track and keeps what was written. A target is followed with a box of 4 pixels a side at least: a smaller
one grows to that. A frame that cannot be read is passed over and counted; a source that ends before its announced
length, and a camera that stops, count as incomplete (exit status 2)."""

STATE_COLORS = {'tracking': (80, 220, 60), 'uncertain': (0, 190, 255), 'lost': (60, 60, 230)}  # BGR


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('source', metavar='SOURCE',
                        help='video file, folder of images, numbered images (img%%04d.jpg), index or device of a camera '
                             '(0, /dev/video0), or URL (rtsp://...)')
    parser.add_argument('--box', required=True, type=options.box, metavar='X,Y,W,H', help='the object in the first frame')
    parser.add_argument('--output', type=Path, metavar='OUT.mp4', help='write the video with the boxes drawn')
    parser.add_argument('--results', type=Path, metavar='OUT.txt',
                        help='write one line x,y,w,h a frame; the first is the given box, a lost target has the '
                             'place where it is supposed, a frame that cannot be read has nan')
    parser.add_argument('--scores', action='store_true',
                        help='add two columns to the results: score in [0, 1] and state (tracking, uncertain, lost)')
    parser.add_argument('--frames', type=options.positive, metavar='N', help='stop after N frames')
    options.add_tracker_parameters(parser)


def run(args: argparse.Namespace) -> int:
    config = options.tracker_config(args)
    if args.scores and args.results is None:
        raise ValueError('--scores adds columns to the results file: give --results too')
    with ExitStack() as stack:
        source = stack.enter_context(FrameSource(args.source))
        writer = stack.enter_context(VideoWriter(args.output, source.fps)) if args.output else None
        lines = stack.enter_context(ResultLines(args.results)) if args.results else None
        tracker = Tracker(config)
        total = min((n for n in (source.length, args.frames) if n is not None), default=None)
        box, score, state = args.box, 1.0, 'tracking'
        unread = 'nan,nan,nan,nan' + ',nan,unread' * args.scores    # the line of a frame that cannot be read
        seconds, lost, refused = [], 0, []
        count = rows = 0
        try:
            for frame in tqdm(source, total=total, unit='frame', disable=None):
                if count == 0:
                    start = time.perf_counter()
                    tracker.init(frame, box)
                    first = time.perf_counter() - start
                else:
                    start = time.perf_counter()
                    try:
                        estimate = tracker.update(frame)
                    except ValueError as error:
                        refused.append(f'frame {source.position + 1}: {error}')
                        continue
                    seconds.append(time.perf_counter() - start)
                    box, score, state = estimate.box, estimate.score, estimate.state.value
                    lost += state == 'lost'
                count += 1
                if lines is not None:
                    lines.write(unread, source.position - rows)
                    lines.write(','.join([f'{value:.4f}' for value in box]
                                         + ([f'{score:.4f}', state] if args.scores else [])))
                rows = source.position + 1
                if writer is not None:
                    writer.write(draw_estimate(np.array(frame), box, f'{state} {score:.2f}', STATE_COLORS[state]))
                if count == args.frames:
                    break
            if lines is not None:
                lines.write(unread, source.position + 1 - rows)
        except KeyboardInterrupt:
            print('interrupted', file=sys.stderr)
    if not count:
        return 130
    summary = f'{count} frames on {tracker.device}, first frame {first * 1e3:.0f} ms'
    if seconds:
        times = latency(np.array(seconds))
        summary += (f'; then {times["fps"]:.1f} fps, latency p50 {times["p50_ms"]:.1f} ms, '
                    f'p95 {times["p95_ms"]:.1f} ms, lost in {lost / len(seconds):.1%}')
    print(summary)
    if min(args.box[2:]) < MIN_SIZE:
        print(f'the box is smaller than {MIN_SIZE:g} pixels, the least size of a target that is followed',
              file=sys.stderr)
    complaints = [source.complaint] if source.complaint else []
    if refused:
        complaints.append(f'{len(refused)} frames could not be followed; {refused[0]}')
    for complaint in complaints:
        print(f'cract track: {complaint}', file=sys.stderr)
    return 2 if complaints else 0

