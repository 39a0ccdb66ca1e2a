"""The command `cract`: track, eval, train, synth, params.

Every option of the tracker is made from `TrackerConfig`. What the user got wrong is one sentence on stderr and exit
status 2; `--traceback` shows where it arose.
"""
from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from pathlib import Path

from .config import TrackerConfig, field_type

DESCRIPTION = """\
Follow one object through a video, given its box in the first frame.

CRACT is a Siamese tracker with cascaded regression and an online classifier: a region proposal network finds
candidates near the last place, a second stage refines their boxes, and two classifiers, one learned offline and one
trained on the target while tracking, decide which of them is the target and whether it is there at all."""

EXAMPLES = """\
examples:
  cract track flight.mp4 --box 312,190,64,40 --output tracked.mp4
      follow the object whose box in the first frame has its top-left corner at (312, 190), 64 wide and 40 high
  cract track frames/ --box 312,190,64,40 --results boxes.txt --num-proposals 16
      the same on a folder of images, in natural order of their names; one line x,y,w,h a frame
  cract track 0 --box 280,200,80,80 --output live.mp4 --frames 300
      300 frames of the first camera
  cract eval benchmark/ --only Car4,Jogging-1 --json figures.json
      measure on annotated sequences
  cract eval benchmark/ --tracker nano --peers models/
      the same with OpenCV's TrackerNano
  cract synth scenes/made/clip0 --seed 7
      render an annotated aerial scene

Boxes are x,y,w,h in pixels, 0-based, from the top-left corner of the frame; fractions are allowed.
Exit status: 0 done, 2 wrong input (the reason is on stderr), 130 interrupted."""

TRACK = """\
Follow one object through SOURCE: a video file, a folder of images (natural order of the names) or the index of a
camera. Ends with the number of frames, the rate and latency of the tracker alone (without decoding and drawing) and
the share of frames in which the target was lost. Ctrl-C ends a camera's track and keeps what was written."""

EVAL = """\
One-pass evaluation (OPE) on the annotated sequences ROOT/<set>/<sequence>/{img/*.jpg|png, groundtruth.txt}: one line
x,y,w,h a frame, 0-based pixels, nan where the target is absent (such frames are left out of the figures). The tracker
starts on the first box and gets no help after it. Per sequence and as the mean over sequences it prints the success
AUC (21 thresholds, strict, as the OTB toolkit), the precision at 20 px, and latency p50/p95 of an update without
decoding; fps is the rate at the p50 latency (p95: the rate at the p95 latency)."""

SYNTH = """\
Render an aerial scene with exact boxes: a drone's view of traffic with look-alikes of the target, a bridge that hides
it, trees, camera motion and changing light. Writes OUT_DIR/img/*.jpg and OUT_DIR/groundtruth.txt, one line x,y,w,h a
frame, nan where the target is hidden. With OUT_DIR = ROOT/<set>/<sequence>, `cract eval ROOT` reads it."""

STATE_COLORS = {'tracking': (80, 220, 60), 'uncertain': (0, 190, 255), 'lost': (60, 60, 230)}  # BGR


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` (without the program's name) and return the exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    args = _parser('train' in argv).parse_args(argv)
    os.environ.setdefault('OPENCV_LOG_LEVEL', 'SILENT')       # what OpenCV and FFmpeg cannot read
    os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')     # is said once, by us
    try:
        return args.run(args)
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError) as error:
        if args.traceback:
            raise
        print(f'cract {args.command}: {_sentence(error)}', file=sys.stderr)
        return 2


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f'{error.filename}: {error.strerror}'
    return ' '.join(str(error).split())


def _parser(with_training: bool) -> argparse.ArgumentParser:
    """`with_training` adds the options of `train`, whose module is slow to import."""
    parser = argparse.ArgumentParser(prog='cract', description=DESCRIPTION, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--traceback', action='store_true', help='on an error, show where in the program it arose')
    commands = parser.add_subparsers(title='commands', dest='command', required=True, metavar='COMMAND')

    def command(name: str, run, text: str, summary: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=text,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
        sub.set_defaults(run=run)
        return sub

    track = command('track', run_track, TRACK, 'follow an object through a video, an image folder or a camera')
    track.add_argument('source', metavar='SOURCE', help='video file, folder of images, or index of a camera')
    track.add_argument('--box', required=True, type=parse_box, metavar='X,Y,W,H', help='the object in the first frame')
    track.add_argument('--output', type=Path, metavar='OUT.mp4', help='write the video with the boxes drawn')
    track.add_argument('--results', type=Path, metavar='OUT.txt',
                       help='write one line x,y,w,h a frame; the first is the given box, a lost target keeps its last')
    track.add_argument('--scores', action='store_true',
                       help='add two columns to the results: score in [0, 1] and state (tracking, uncertain, lost)')
    track.add_argument('--frames', type=_positive, metavar='N', help='stop after N frames')
    _add_config(track)

    evaluate = command('eval', run_eval, EVAL, 'measure accuracy and speed on annotated sequences')
    evaluate.add_argument('root', metavar='ROOT', help='folder of <set>/<sequence> folders')
    evaluate.add_argument('--only', type=_names, default=(), metavar='A,B',
                          help='only these sequences (<sequence> or <set>/<sequence>) or sets')
    evaluate.add_argument('--limit', type=_positive, metavar='N', help='only the first N sequences, by name')
    evaluate.add_argument('--tracker', default='cract', choices=('cract', 'nano', 'kcf', 'csrt'),
                          help='ours or one of OpenCV (default: cract)')
    evaluate.add_argument('--peers', type=Path, metavar='DIR',
                          help='folder with nanotrack_v2_backbone.onnx and nanotrack_v2_head.onnx for --tracker nano')
    evaluate.add_argument('--nano-backbone', type=Path, metavar='FILE', help='backbone of nano, instead of --peers')
    evaluate.add_argument('--nano-head', type=Path, metavar='FILE', help='head of nano, instead of --peers')
    evaluate.add_argument('--json', type=Path, metavar='FILE', help='write the figures, the configuration, the machine')
    evaluate.add_argument('--results', type=Path, metavar='DIR', help='write the boxes as DIR/<set>/<sequence>.txt')
    _add_config(evaluate)

    train = command('train', run_train, 'Train the networks offline on image pairs.', 'train the networks offline')
    if with_training:
        from .training import cli as training
        training.add_arguments(train)

    synth = command('synth', run_synth, SYNTH, 'render an annotated aerial scene')
    synth.add_argument('out', type=Path, metavar='OUT_DIR', help='folder to make; must not hold a clip already')
    synth.add_argument('--frames', type=_positive, default=300, metavar='N', help='frames to render (default: 300)')
    synth.add_argument('--seed', type=int, default=0, help='the same seed gives the same scene (default: 0)')
    synth.add_argument('--size', type=_size, default=(640, 480), metavar='WxH', help='default: 640x480')

    command('params', run_params, 'Print the table of the tracker\'s parameters as Markdown.',
            'print the table of parameters')
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    """One option per field of `TrackerConfig`, absent from the result unless given."""
    group = parser.add_argument_group('tracker parameters')
    group.add_argument('--config', type=Path, metavar='FILE.yaml',
                       help='a mapping of parameter names (as below, with underscores) to values; options come on top')
    for field in dataclasses.fields(TrackerConfig):
        text = f'{field.metadata["text"]}{_range(field, " ({})")} [{_default(field)}]'
        group.add_argument('--' + field.name.replace('_', '-'), dest='config_' + field.name, type=field_type(field),
                           choices=field.metadata['choices'] or None, default=argparse.SUPPRESS,
                           metavar=None if field.metadata['choices'] else _metavar(field),
                           help=text.replace('%', '%%'))


def _config(args) -> TrackerConfig:
    values = {}
    if args.config is not None:
        import yaml
        try:
            values = yaml.safe_load(args.config.read_text()) or {}
        except yaml.YAMLError as error:
            raise ValueError(f'{args.config} is not YAML: {error}') from error
        if not isinstance(values, dict):
            raise ValueError(f'{args.config}: expected a mapping of parameter names to values')
    return TrackerConfig.from_mapping({**values, **_given(args)})


def _given(args) -> dict:
    """The parameters given as options."""
    return {name.removeprefix('config_'): value for name, value in vars(args).items() if name.startswith('config_')}


def run_track(args) -> int:
    """`cract track`."""
    config = _config(args)
    if args.scores and args.results is None:
        raise ValueError('--scores adds columns to the results file: give --results too')
    from contextlib import ExitStack

    import numpy as np
    from tqdm import tqdm

    from .evaluation.runner import latency
    from .tracker import Tracker
    from .video import FrameSource, VideoWriter, draw_estimate
    with ExitStack() as stack:
        source = stack.enter_context(FrameSource(args.source))
        writer = stack.enter_context(VideoWriter(args.output, source.fps)) if args.output else None
        lines = stack.enter_context(open(args.results, 'w', buffering=1)) if args.results else None
        tracker = Tracker(config)
        total = min((n for n in (source.length, args.frames) if n is not None), default=None)
        box, score, state = args.box, 1.0, 'tracking'
        seconds, lost = [], 0
        count = 0
        try:
            for frame in tqdm(source, total=total, unit='frame', disable=None):
                if count == 0:
                    start = time.perf_counter()
                    tracker.init(frame, box)
                    first = time.perf_counter() - start
                else:
                    start = time.perf_counter()
                    estimate = tracker.update(frame)
                    seconds.append(time.perf_counter() - start)
                    box, score, state = estimate.box, estimate.score, estimate.state.value
                    lost += state == 'lost'
                count += 1
                if lines is not None:
                    columns = [f'{value:.4f}' for value in box] + ([f'{score:.4f}', state] if args.scores else [])
                    print(','.join(columns), file=lines)
                if writer is not None:
                    writer.write(draw_estimate(np.array(frame), box, f'{state} {score:.2f}', STATE_COLORS[state]))
                if count == args.frames:
                    break
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
    return 0


def run_eval(args) -> int:
    """`cract eval`."""
    tracker, described = _eval_tracker(args)
    from tqdm import tqdm

    from . import __version__
    from .evaluation import runner
    from .evaluation.sequences import read_folders, write_boxes
    sequences = read_folders(args.root, args.only, args.limit)
    if args.json and not args.json.absolute().parent.is_dir():
        raise FileNotFoundError(f'cannot write {args.json}: there is no folder {args.json.absolute().parent}')
    width = max(len(sequence.name) for sequence in sequences)
    print(f'{"sequence":{width}}  frames    AUC  prec@20   fps p50   fps p95   p50 ms   p95 ms', flush=True)
    figures, runs = {}, []
    with tqdm(total=sum(len(sequence.images) for sequence in sequences), unit='frame', disable=None) as bar:
        for sequence in sequences:
            bar.set_description(sequence.name)
            runs.append(runner.run_sequence(tracker, sequence, bar.update))
            figures[sequence.name] = runner.summarize(runs[-1], sequence.truth)
            if args.results:
                write_boxes(args.results / f'{sequence.name}.txt', runs[-1].boxes)
            with bar.external_write_mode():
                print(_row(sequence.name, figures[sequence.name], width), flush=True)
    mean = runner.mean_figures(list(figures.values()), runs)
    print(_row('mean', mean, width))
    if args.json:
        report = dict(tracker=args.tracker, version=__version__, date=time.strftime('%Y-%m-%dT%H:%M:%S%z'),
                      root=str(args.root), protocol='OPE', **described, environment=runner.environment(),
                      mean=mean, sequences=figures)
        args.json.write_text(json.dumps(report, indent=2) + '\n')
    return 0


def _eval_tracker(args) -> tuple[object, dict]:
    """The tracker of `cract eval` and how the report describes it."""
    config = _config(args)
    files = (args.nano_backbone, args.nano_head)
    if args.tracker == 'cract':
        if args.peers or any(files):
            raise ValueError('--peers and --nano-* name the networks of another tracker: give --tracker nano too')
        from .tracker import Tracker
        tracker = Tracker(config)
        return tracker, dict(config=dataclasses.asdict(config), device=tracker.device)
    foreign = sorted(set(_given(args)) - {'threads'})
    if foreign or args.config:
        name = '--config' if args.config else '--' + foreign[0].replace('_', '-')
        raise ValueError(f'{name} sets up the tracker cract and means nothing to {args.tracker}')
    from .evaluation.peers import NANO_FILES, make_peer
    if args.peers:
        files = tuple(given or args.peers / name for given, name in zip(files, NANO_FILES))
    networks = [str(file) for file in files if file]
    return make_peer(args.tracker, *files, threads=config.threads), dict(
        config=dict(threads=config.threads, networks=networks), device='cpu')


def _row(name: str, one: dict, width: int) -> str:
    times = '         -         -        -        -' if one['p50_ms'] is None else (
        f'{one["fps"]:10.1f}{1e3 / one["p95_ms"]:10.1f}{one["p50_ms"]:9.2f}{one["p95_ms"]:9.2f}')
    return f'{name:{width}}  {one["frames"]:6d}{one["auc"]:7.4f}{one["precision"]:9.4f}{times}'


def run_train(args) -> int:
    """`cract train`."""
    from .training import cli as training
    return training.run(args)


def run_synth(args) -> int:
    """`cract synth`."""
    import cv2
    import numpy as np
    from tqdm import tqdm

    from .evaluation.sequences import write_boxes
    from .synthetic import generate
    images = args.out / 'img'
    images.mkdir(parents=True, exist_ok=True)
    if any(images.iterdir()):
        raise ValueError(f'{images} is not empty: a clip is written into a folder of its own')
    boxes = []
    for frame in tqdm(generate(args.frames, args.seed, args.size), total=args.frames, unit='frame', disable=None):
        boxes.append(frame.box if frame.visible else np.full(4, np.nan))
        path = images / f'{len(boxes):05d}.jpg'
        if not cv2.imwrite(str(path), frame.image, (cv2.IMWRITE_JPEG_QUALITY, 95)):
            raise OSError(f'cannot write {path}')
    write_boxes(args.out / 'groundtruth.txt', np.array(boxes))
    hidden = int(np.isnan(boxes).any(axis=1).sum())
    print(f'{len(boxes)} frames in {args.out}, the target hidden in {hidden}; its first box is '
          + ','.join(f'{value:.2f}' for value in boxes[0]))
    return 0


def run_params(args) -> int:
    """`cract params`."""
    print(parameter_table())
    return 0


def parameter_table() -> str:
    """`TrackerConfig` as a Markdown table."""
    rows = ['| parameter | type | default | range | unit | while tracking | meaning |', '|' + '---|' * 7]
    for field in dataclasses.fields(TrackerConfig):
        meta = field.metadata
        rows.append(f'| `{field.name}` | {field_type(field).__name__} | {_default(field)} | {_range(field)} '
                    f'| {meta["unit"]} | {"yes" if meta["live"] else ""} | {meta["text"]} |'.replace('  ', ' '))
    return '\n'.join(rows)


def _range(field: dataclasses.Field, form: str = '{}') -> str:
    meta = field.metadata
    if meta['choices']:
        return form.format(', '.join(meta['choices']))
    return '' if meta['minimum'] is None else form.format(f'{meta["minimum"]} to {meta["maximum"]}')


def _default(field: dataclasses.Field) -> str:
    return str(field.default) if field.default != '' else 'empty'


def _metavar(field: dataclasses.Field) -> str:
    return {float: 'X', int: 'N', str: 'TEXT'}[field_type(field)]


def parse_box(text: str):
    """`X,Y,W,H` as `(4,)` float64."""
    import numpy as np
    try:
        box = np.array([float(value) for value in text.split(',')])
    except ValueError:
        box = np.empty(0)
    if box.shape != (4,) or not np.isfinite(box).all() or (box[2:] <= 0).any():
        raise argparse.ArgumentTypeError(f'expected four numbers X,Y,W,H in pixels with W and H above 0, got {text!r}')
    return box


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip('/ ') for name in text.split(','))
    if not all(names):
        raise argparse.ArgumentTypeError(f'expected names with commas between them, got {text!r}')
    return names


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'expected a whole number from 1, got {text!r}')
    return int(text)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition('x')
    return _positive(width), _positive(height)


if __name__ == '__main__':
    sys.exit(main())
