"""The command `cract`: track, eval, bag, train, tune, calibrate, ablate, export, bench, synth, params.

Every option of the tracker is made from `TrackerConfig`. What the user got wrong is one sentence on stderr and exit
status 2; `--traceback` shows where it arose.
"""
from __future__ import annotations

import argparse
import dataclasses
import functools
import io
import json
import os
import re
import sys
import time
from pathlib import Path

from . import bag, options
from .config import TrackerConfig, field_type
from .files import check_place, keep_apart, read_yaml, write_text

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
  cract eval LaSOT/ --benchmark lasot --results results/
      measure on a public benchmark, and write the boxes in its own form
  cract eval benchmark/ --tracker cract,nano,kcf --peers models/ --protocol ope,absence,streaming --report out/
      the same beside two peers, with absences and against a camera's clock, as one HTML page
  cract bag flight/ --topic /camera/image_raw --box 312,190,64,40 --output flight_tracked/
      follow the object through a ROS 2 bag, and write its detections as a bag
  cract synth scenes/made/clip0 --seed 7
      render an annotated aerial scene

Boxes are x,y,w,h in pixels, 0-based, from the top-left corner of the frame; fractions are allowed.
Exit status: 0 done and complete, 2 wrong input, or a part of it could not be read: what could is written, and the
reason is on stderr; 130 interrupted. Nothing is written over an input or into a folder that is one; a result takes its
place when it is whole."""

TRACK = """\
Follow one object through SOURCE: a video file, a folder of images (natural order of the names), numbered images
(img%04d.jpg), the index or device of a camera, or the URL of a stream. Ends with the number of frames, the rate and
latency of the tracker alone (without decoding and drawing) and the share of frames in which the target was lost. Ctrl-C
ends a camera's track and keeps what was written. A target is followed with a box of 4 pixels a side at least: a smaller
one grows to that. A frame that cannot be read is passed over and counted; a source that ends before its announced
length, and a camera that stops, count as incomplete (exit status 2)."""

EVAL = """\
One-pass evaluation (OPE) on the annotated sequences ROOT/<set>/<sequence>/{img/*.jpg|png, groundtruth.txt}: one line
x,y,w,h a frame, 0-based pixels, nan where the target is absent (such frames are left out of the figures). The tracker
starts on the first box and gets no help after it. Per sequence and as the mean over sequences it prints the success
AUC (21 thresholds, strict, as the OTB toolkit), the precision at 20 px, the normalised precision at 0.2, and latency
p50/p95 of an update without decoding; fps is the rate at the p50 latency (p95: the rate at the p95 latency).

--benchmark NAME reads a public benchmark in the layout in which it is published: otb2015, uav123, nfs30, vot2018,
trackingnet (test), got10k-val, got10k-test, lasot (protocol II). GOT-10k prints the average overlap and the success
rates at 0.5 and 0.75; VOT-2018 runs with resets and prints accuracy, robustness and EAO. --results writes the form that
the benchmark's own toolkit or server takes.

--protocol absence takes the target away and brings it back: can a "lost" be believed? --protocol streaming drops the
frames that come while the tracker is busy. --protocol stages hands over the true last box in every frame, and tells what
each stage makes of it. --protocol camera turns, shakes and zooms the camera, drops frames, spoils the pictures. --repeat and --repeat-to make long runs of short clips. --against compares with an earlier run,
paired over sequences. docs/evaluation.md says what every figure means."""

SYNTH = """\
Render an aerial scene with exact boxes: a drone's view of traffic with look-alikes of the target, a bridge that hides
it, trees, camera motion and changing light. Writes OUT_DIR/img/*.jpg and OUT_DIR/groundtruth.txt, one line x,y,w,h a
frame, nan where the target is hidden. With OUT_DIR = ROOT/<set>/<sequence>, `cract eval ROOT` reads it."""

TUNE = """\
Search the tracker's own parameters on the annotated sequences of ROOT, and on rendered clips if asked: the mean success
AUC is what counts, each sequence alike. Optuna's TPE proposes values; a trial that is clearly worse than the best one
ends early. The result is the default and the best values, what each parameter matters, the gain with its 95 % bootstrap
interval, and a file for --config. Stopped and started again, or started several times at once, it goes on with the same
study. The tracker's options below set where the search starts and what it leaves alone."""

CALIBRATE = """\
Fit the curve that turns the final score of Eq. 10 into a probability: "the target is in view and the box overlaps it by
more than a half". The tracker runs through the annotated sequences of ROOT with absences spliced in, and through rendered
clips. Prints the two parameters as YAML for --config; to be done again after every training, on sequences that nothing
is measured on."""

ABLATE = """\
Measure what a part of the tracker is worth: variants without it, or with another value, on the same annotated sequences
and with the same seeds. Prints a table with the differences to the tracker as it is, paired over sequences, and their
95 % bootstrap intervals; a difference whose interval contains 0 is called noise. `time` is that of the updates relative
to the first row. cascade, pooling, features and stride compare networks: both get the same short training first."""

EXPORT = """\
Write the networks as ONNX or OpenVINO files into OUT_DIR, each checked against torch: template (what a target's first
frame gives), features (a view for the discriminator), search (a frame up to the anchors) and refine (proposals to boxes
and scores). The template's parts and the discriminator are inputs: a new target needs no new files. The tracker itself
needs none of these files. --precision int8 measures the ranges of all inputs on training images and writes weights that
hold them: with these the tracker runs in int8."""

BENCH = """\
Measure how fast the tracker is here: whole frames with and without updates, the first frame, the stages of the networks,
peak memory, arithmetic and its share of what the processor's matrix products reach; for every runtime and precision that
is installed, peers beside if asked, all in turn on the same frames. With ROOT also the AUC of each. --json writes
<tracker>.p50_ms, .p95_ms, .p99_ms and .init_ms for all of them."""

TRACKERS = ('cract', 'nano', 'nano3', 'lighttrack', 'fear', 'vit', 'csrt', 'kcf', 'mil')
PROTOCOLS = ('ope', 'absence', 'streaming', 'stages', 'camera', 'reset')
BENCHMARK_NAMES = ('otb2015', 'uav123', 'nfs30', 'vot2018', 'trackingnet', 'got10k-val', 'got10k-test', 'lasot')
COLUMNS = {'auc': 'AUC', 'precision': 'prec@20', 'norm_precision': 'norm@.2', 'ao': 'AO', 'sr50': 'SR.50',
           'sr75': 'SR.75', 'off': 'off', 'false_loss': 'lost', 'frozen': 'frozen'}
OTB_KEYS, GOT10K_KEYS = ('auc', 'precision', 'norm_precision'), ('ao', 'sr50', 'sr75')
LONG_KEYS = ('auc', 'off', 'false_loss', 'frozen')

STATE_COLORS = {'tracking': (80, 220, 60), 'uncertain': (0, 190, 255), 'lost': (60, 60, 230)}  # BGR


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` (without the program's name) and return the exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    args = _parser(argv).parse_args(argv)
    os.environ.setdefault('OPENCV_LOG_LEVEL', 'SILENT')       # what OpenCV and FFmpeg cannot read
    os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')     # is said once, by us
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')     # names of files may be no text
    try:
        _check_paths(args)
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


INPUTS = ('source', 'bag', 'root', 'data', 'config', 'weights', 'config_weights', 'latency_trace', 'peers', 'nano_backbone',
          'nano_head', 'imagenet', 'start_from')     # the arguments of all commands that name something to read
FILES = ('json',)                                    # ... a file to write,
FOLDERS = ('report', 'out')                          # ... a folder to write into,
EITHER = ('output', 'results')                       # ... or one of the two, as the command has it
MADE = (('report', 'figures.json'), ('report', 'latency_trace.json'), ('results', 'latency_trace.json'),
        ('output', 'tuned.yaml'), ('output', 'tune.json'), ('output', 'cract.pt'), ('output', 'checkpoint.pt'))
FILE_COMMANDS = {'output': ('track', 'show'), 'results': ('track', 'bag')}


def _check_paths(args) -> None:
    """Refuse outputs that are inputs, and places where nothing can be written, before anything is done."""
    inputs = _paths(args, INPUTS)
    if re.match(r'[A-Za-z][A-Za-z0-9+.-]*://', str(inputs.get('SOURCE', ''))):
        del inputs['SOURCE']
    keep_apart(inputs, _paths(args, FILES + FOLDERS + EITHER))
    for name, file in MADE:     # what goes into a folder by a name of its own
        folder = getattr(args, name, None)
        if isinstance(folder, (str, Path)) and Path(folder).is_dir():
            keep_apart({key: path for key, path in inputs.items() if Path(path).is_file()},
                       {f'{_option(name)} {folder}': Path(folder, file)})
    for name in FILES + FOLDERS + EITHER:
        path = getattr(args, name, None)
        if path in (None, '') or name == 'output' and args.command == 'bag':  # it must be new, which `bag` says
            continue
        command = getattr(args, 'data_command', args.command)
        check_place(path, name in FOLDERS or name in EITHER and command not in FILE_COMMANDS[name])


def _paths(args, names: tuple[str, ...]) -> dict[str, object]:
    """Those of the arguments that name a path, under the names that the user knows."""
    values = {name: getattr(args, name, None) for name in names}
    return {_option(name): value for name, value in values.items() if isinstance(value, (str, Path)) and value != ''}


def _option(name: str) -> str:
    if name in ('source', 'bag', 'root', 'out'):
        return {'out': 'OUT_DIR'}.get(name, name.upper())
    return '--' + name.removeprefix('config_').replace('_', '-')


def _parser(argv: list[str]) -> argparse.ArgumentParser:
    """For `argv`, which decides whose options are read: some commands have them in a module that is slow to import."""
    parser = options.Parser(prog='cract', description=DESCRIPTION, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--traceback', action='store_true', help='on an error, show where in the program it arose')
    commands = parser.add_subparsers(title='commands', dest='command', required=True, metavar='COMMAND')

    def command(name: str, run, text: str, summary: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=text,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
        sub.set_defaults(run=run)
        return sub

    track = command('track', run_track, TRACK, 'follow an object through a video, an image folder or a camera')
    track.add_argument('source', metavar='SOURCE', help='video file, folder of images, numbered images (img%%04d.jpg), index or '
                                                            'device of a camera (0, /dev/video0), or URL (rtsp://...)')
    track.add_argument('--box', required=True, type=options.box, metavar='X,Y,W,H', help='the object in the first frame')
    track.add_argument('--output', type=Path, metavar='OUT.mp4', help='write the video with the boxes drawn')
    track.add_argument('--results', type=Path, metavar='OUT.txt',
                       help='write one line x,y,w,h a frame; the first is the given box, a lost target has the '
                            'place where it is supposed, a frame that cannot be read has nan')
    track.add_argument('--scores', action='store_true',
                       help='add two columns to the results: score in [0, 1] and state (tracking, uncertain, lost)')
    track.add_argument('--frames', type=options.positive, metavar='N', help='stop after N frames')
    _add_config(track)

    evaluate = command('eval', run_eval, EVAL, 'measure accuracy and speed on annotated sequences')
    evaluate.add_argument('root', metavar='ROOT', help='folder of <set>/<sequence> folders, or of a benchmark')
    evaluate.add_argument('--benchmark', choices=BENCHMARK_NAMES,
                          help='ROOT is this benchmark in the layout in which it is published; results are written in '
                               'its own form')
    evaluate.add_argument('--only', type=_names, default=(), metavar='A,B',
                          help='only these sequences (<sequence> or <set>/<sequence>) or sets')
    evaluate.add_argument('--limit', type=options.positive, metavar='N', help='only the first N sequences, by name')
    evaluate.add_argument('--tracker', default=('cract',), type=_choices(TRACKERS), metavar='A,B',
                          help=f'one or more of {", ".join(TRACKERS)}; the first is the one that is reported, the '
                               'others are its peers (default: cract)')
    evaluate.add_argument('--protocol', type=_choices(PROTOCOLS), metavar='A,B',
                          help='one or more of ope (one pass without help), absence (the target is taken away and '
                               'comes back), streaming (against the clock of a camera), stages (what each stage makes '
                               'of a frame, the true last box given), camera (under known motion of the camera), or reset '
                               '(VOT: started anew after each failure) (default: reset for vot2018, else ope)')
    evaluate.add_argument('--every', type=options.positive, default=1, metavar='N',
                          help='the stages protocol looks at each Nth frame (default: 1, all of them)')
    evaluate.add_argument('--cases', type=_names, default=(), metavar='A,B',
                          help='only these cases of the camera protocol (default: all; docs/evaluation.md names them)')
    evaluate.add_argument('--frames', type=options.positive, default=90, metavar='N',
                          help='of each case of the camera protocol (default: 90)')
    longer = evaluate.add_mutually_exclusive_group()
    longer.add_argument('--repeat', type=options.positive, metavar='N',
                        help='show each sequence forwards and backwards N times, as one long run (protocols ope and '
                             'streaming)')
    longer.add_argument('--repeat-to', type=options.positive, metavar='FRAMES',
                        help='the same until so many frames are shown; longer sequences stay as they are')
    evaluate.add_argument('--rate', type=options.rate, default=30.0, metavar='FPS',
                          help='of the camera in the streaming protocol (default: 30)')
    evaluate.add_argument('--latency-trace', type=Path, metavar='FILE',
                          help='replay the latencies that an earlier streaming run wrote, instead of measuring them')
    evaluate.add_argument('--protocol-seed', type=options.natural, default=0, metavar='N',
                          help='of the spliced absences and of the confidence intervals (default: 0)')
    evaluate.add_argument('--against', type=Path, metavar='FILE',
                          help='also print and write the differences to the figures that an earlier run wrote with '
                               '--json, paired over sequences, with their intervals; each tracker is compared with '
                               'its namesake there, or else with the first one (protocols ope and stages)')
    evaluate.add_argument('--report', type=Path, metavar='DIR',
                          help='write DIR/report.html, DIR/figures.json, the boxes (unless --results names another '
                               'place) and every run to DIR/runs; a run that is there already, of the same tracker, '
                               'data and version, is not repeated')
    evaluate.add_argument('--jobs', type=options.positive, default=1, metavar='N', help='sequences at a time (default: 1)')
    evaluate.add_argument('--ray', metavar='ADDRESS',
                          help='spread the sequences over a Ray cluster: its address, or auto; every machine must '
                               'see ROOT under the same path')
    _add_networks(evaluate)
    evaluate.add_argument('--json', type=Path, metavar='FILE', help='write the figures, the configuration, the machine')
    evaluate.add_argument('--results', type=Path, metavar='DIR',
                          help='write the boxes as DIR/<set>/<sequence>.txt, those of a benchmark or of several '
                               'trackers below DIR/<tracker>; what is handed in to a server as DIR/<tracker>.zip')
    _add_config(evaluate)

    bag_parser = command('bag', run_bag, bag.DESCRIPTION, 'follow an object through a ROS 2 bag, without ROS')
    bag.add_arguments(bag_parser)
    _add_config(bag_parser)

    train = command('train', run_train, 'Train the networks offline on image pairs.', 'train the networks offline')
    if 'train' in argv:
        from .training import cli as training
        training.add_arguments(train)

    from .training import data_cli
    data_cli.add_arguments(command('data', run_data, 'Make and look at the images that `cract train` learns from.',
                                   'make training shards, look at training pairs'))

    export = command('export', run_export, EXPORT, 'write the networks as ONNX or OpenVINO files')
    if 'export' in argv:
        from .runtime import export as exporting
        exporting.add_arguments(export)

    bench = command('bench', run_bench, BENCH, 'measure how fast the tracker is on this machine')
    if 'bench' in argv:
        from .evaluation import bench as benching
        benching.add_arguments(bench)

    tune = command('tune', run_tune, TUNE, "choose the tracker's parameters on annotated sequences")
    if 'tune' in argv:
        from .evaluation import search
        search.add_arguments(tune)
        _add_config(tune)

    calibrate = command('calibrate', run_calibrate, CALIBRATE, 'fit the score to the probability of being right')
    if 'calibrate' in argv:
        from .evaluation import calibration
        calibration.add_arguments(calibrate)
        _add_config(calibrate)

    ablate = command('ablate', run_ablate, ABLATE, 'measure what each part of the tracker is worth')
    if 'ablate' in argv:
        from .evaluation import ablation
        ablation.add_arguments(ablate)
        _add_config(ablate)

    synth = command('synth', run_synth, SYNTH, 'render an annotated aerial scene')
    synth.add_argument('out', type=Path, metavar='OUT_DIR', help='folder to make; must not hold a clip already')
    synth.add_argument('--frames', type=options.positive, default=300, metavar='N', help='frames to render (default: 300)')
    synth.add_argument('--seed', type=options.natural, default=0, metavar='N', help='the same seed gives the same scene (default: 0)')
    synth.add_argument('--size', type=options.size, default=(640, 480), metavar='WxH', help='default: 640x480')

    command('params', run_params, 'Print the table of the tracker\'s parameters as Markdown.',
            'print the table of parameters')
    return parser


def _add_networks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--peers', type=Path, metavar='DIR',
                        help='folder with the networks of the trackers nano, nano3, lighttrack, fear and vit '
                             '(docs/evaluation.md names the files)')
    parser.add_argument('--nano-backbone', type=Path, metavar='FILE', help='backbone of nano, instead of --peers')
    parser.add_argument('--nano-head', type=Path, metavar='FILE', help='head of nano, instead of --peers')


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
        values = read_yaml(args.config)
    config = TrackerConfig.from_mapping({**values, **_given(args)})
    keep_apart({f'weights of {args.config}': config.weights}, _paths(args, FILES + FOLDERS + EITHER))
    return config


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
    from .files import ResultLines
    from .tracker import MIN_SIZE, Tracker
    from .video import FrameSource, VideoWriter, draw_estimate
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


def run_eval(args) -> int:
    """`cract eval`."""
    specs, described = _eval_trackers(args)
    from tqdm import tqdm

    from . import __version__
    from .evaluation import against, camera, protocols, runner
    from .evaluation.execution import Store
    from .evaluation.benchmarks import BENCHMARKS, read_benchmark
    from .evaluation.sequences import read_folders, repeat, write_boxes
    from .evaluation.submissions import write_archive, write_result
    if args.report:
        try:
            from .evaluation.report import write_report
        except ImportError as error:
            raise ValueError(f'--report needs the package {error.name}: pip install "cract_ros[eval]"') from error
    benchmark = BENCHMARKS[args.benchmark] if args.benchmark else None
    args.protocol = args.protocol or ('reset' if args.benchmark == 'vot2018' else 'ope',)
    longer = args.repeat or args.repeat_to
    if longer and (benchmark or not set(args.protocol) <= {'ope', 'streaming'}):
        raise ValueError('--repeat and --repeat-to make plain sequences longer for the protocols ope and streaming: '
                         'leave out ' + ('--benchmark' if benchmark else 'other protocols'))
    load, left_out = runner.OtherLoad(), {}  # sequence -> why
    read = functools.partial(read_benchmark, args.benchmark) if benchmark else read_folders
    pool = read(args.root, left_out={}) if 'absence' in args.protocol else []
    sequences = read(args.root, args.only, args.limit, left_out)
    if not sequences:
        raise ValueError(next(iter(left_out.values())))
    if benchmark and len(sequences) < benchmark.total:
        print(f'{len(sequences)} of the {benchmark.total} sequences of {benchmark.title}: no figure of the benchmark')
    for path in (args.json, args.report):
        if path and not path.absolute().parent.is_dir():
            raise FileNotFoundError(f'cannot write {path}: there is no folder {path.absolute().parent}')
    if args.protocol != ('ope',) and not all(one.annotated for one in sequences):
        raise ValueError(f'the truth of {benchmark.title} is not public: only --protocol ope runs on it')
    if 'reset' in args.protocol:
        return _eval_reset(args, specs, described, sequences, benchmark, left_out, load)
    if longer:
        sequences = [repeat(one, args.repeat, args.repeat_to) for one in sequences]
    others = against.read_figures(args.against) if args.against else {}
    against.check_comparable(others, args.protocol, sequences, args.every, args.frames)
    if args.latency_trace and 'streaming' not in args.protocol:
        raise ValueError('--latency-trace replays a streaming run: give --protocol streaming too')
    options = protocols.Options(
        protocols=args.protocol, rate=args.rate, every=args.every, seed=args.protocol_seed, workers=args.jobs,
        ray_address=args.ray, frames=args.frames, cases=camera.chosen(args.cases),
        trace=protocols.read_trace(args.latency_trace) if args.latency_trace else None,
        store=Store(args.report / 'runs') if args.report else None)
    jobs = protocols.plan(specs, sequences, pool, options, left_out)
    several = len(specs) > 1
    results = args.results or (args.report / 'results' if args.report else None)
    keys = LONG_KEYS if longer else GOT10K_KEYS if (args.benchmark or '').startswith('got10k') else OTB_KEYS
    width = max(len(one.name) for one in sequences) + (1 + max(len(spec.name) for spec in specs) if several else 0)

    def label(name: str, tracker: str) -> str:
        return f'{name} {tracker}' if several else name

    with tqdm(total=sum(job.frames for some in jobs.values() for job in some), unit='frame', disable=None) as bar:
        def finished(protocol: str, sequence, done) -> None:
            bar.set_description(sequence.name)
            for tracker, one in done.items():
                if protocol == 'ope':
                    with bar.external_write_mode():
                        print(_row(label(sequence.name, tracker), runner.summarize(one.run, sequence), width,
                                   keys), flush=True)
                if protocol == 'stages':
                    continue
                if results and benchmark and protocol == 'ope':
                    write_result(results, benchmark, tracker, sequence.name, one.run)
                elif results:
                    folder = results / (protocol if protocol != 'ope' else '') / (tracker if several else '')
                    write_boxes(folder / f'{sequence.name}.txt', one.run.boxes)
        if 'ope' in jobs:
            print(f'{"sequence":{width}}  frames{_heads(keys)}   fps p50   fps p95   p50 ms   p95 ms', flush=True)
        measured = protocols.measure(specs, jobs, options, bar.update, finished, left_out)
    blocks = {spec.name: protocols.block(measured, spec.name) for spec in specs}
    for name, block in blocks.items():
        if 'mean' in block:
            print(_row(label('mean', name), block['mean'], width, keys))
    if several and 'ope' in jobs:
        _print_side_by_side(blocks, keys[0])
    _print_protocols(blocks)
    for name, block in blocks.items() if others else ():
        other = others.get(name, next(iter(others.values())))
        block['against'] = dict(file=str(args.against), tracker=other['tracker'],
                                differences=against.differences(block, other, args.protocol_seed))
        print(f'\n{name} - {other["tracker"]} of {args.against}')
        for key, difference in block['against']['differences'].items():
            print(f'{key:24}{difference.text}: {against.verdict(key, difference)}')
            block['against']['differences'][key] = difference._asdict()
    if results and benchmark and benchmark.archive and 'ope' in jobs:
        for name in blocks:
            print(f'to hand in: {write_archive(results, name)}')
    for folder in filter(None, (args.results, args.report)):
        if 'streaming' in jobs:
            protocols.write_trace(folder / 'latency_trace.json', measured)
    report = [dict(tracker=name, **described[name], **block) for name, block in blocks.items()]
    report = dict(report[0], peers=report[1:], version=__version__, date=time.strftime('%Y-%m-%dT%H:%M:%S%z'),
                  root=str(args.root), benchmark=args.benchmark, protocol=','.join(args.protocol),
                  protocol_seed=args.protocol_seed, repeat=args.repeat, repeat_to=args.repeat_to, jobs=args.jobs,
                  left_out=left_out, environment=runner.environment(load))
    if sentence := load.sentence():
        print(sentence, file=sys.stderr)
    for path in filter(None, (args.json, args.report and args.report / 'figures.json')):
        write_text(path, json.dumps(report, indent=2) + '\n')
    if args.report:
        print(f'report: {write_report(args.report, measured, report)}')
    return _say_left_out(left_out)


def _say_left_out(left_out: dict[str, str]) -> int:
    """Say which sequences could not be measured, or not whole; returns the exit status."""
    if left_out:
        print(f'cract eval: {len(left_out)} sequences could not be measured as they should:', file=sys.stderr)
    for name, reason in left_out.items():
        print(f'  {name}: {reason}', file=sys.stderr)
    return 2 if left_out else 0


def parse_adapter(argv: list[str]) -> tuple[str, object]:
    """Name and tracker from the options of the adapter to the VOT toolkit; raises as the tracker's making does."""
    from .evaluation.execution import tracker_of
    parser = options.Parser(prog='python -m cract_core.evaluation.vot_adapter',
                                     description='Serve a tracker to the VOT toolkit.')
    parser.add_argument('--tracker', default=('cract',), type=_choices(TRACKERS), metavar='NAME',
                        help=f'one of {", ".join(TRACKERS)} (default: cract)')
    parser.set_defaults(jobs=1, ray=None)
    _add_networks(parser)
    _add_config(parser)
    specs, _ = _eval_trackers(parser.parse_args(argv))
    return specs[0].name, tracker_of(specs[0])


def _print_protocols(blocks: dict[str, dict]) -> None:
    """The tables of the protocols beside the one pass, one row a tracker."""
    def cell(value, digits: int = 3) -> str:
        return 'never' if value is None else f'{value:.{digits}f}'

    def dash(value) -> str:
        return '-' if value is None else f'{value:.3f}'

    some = next(iter(blocks.values()))
    if 'absence' in some:
        print('\nabsence       AUROC    ECE  absent as lost  false loss  frames to loss  returns in 15')
        for name, block in blocks.items():
            one = block['absence']
            print(f'{name:10}{cell(one["auroc"]):>9}{cell(one["ece"]):>7}{cell(one["absent_as_lost"]):>16}'
                  f'{cell(one["false_loss"]):>12}{cell(one["frames_to_loss"], 1):>16}{cell(one["reacquired_15"]):>15}')
    if 'streaming' in some:
        print(f'\nstreaming at {some["streaming"]["rate"]:g} fps     AUC  prec@20  dropped  AUC without a clock')
        for name, block in blocks.items():
            one = block['streaming']['mean']
            print(f'{name:19}{one["auc"]:10.4f}{one["precision"]:9.4f}{one["dropped"]:9.1%}'
                  f'{block["mean"]["auc"]:21.4f}')
    if 'stages' in some:
        from .evaluation.stages import STAGES
        heads = [stage.removeprefix('by_')[:10] for stage in STAGES]
        print('\nIoU by stage' + ''.join(f'{head:>11}' for head in heads) + '   gain of R   over 0.5: N      R  chosen')
        for name, block in blocks.items():
            one = block['stages']
            print(f'{name:12}' + ''.join(f'{dash(one[stage]):>11}' for stage in STAGES) + f'{dash(one["gain"]):>12}'
                  f'{dash(one["proposals_50"]):>14}{dash(one["refined_50"]):>7}{dash(one["chosen_50"]):>8}')
    if 'camera' in some:
        keys = 'iou', 'last_fifth', 'lost'
        print('\ncamera       mean IoU, in the last fifth, right but called lost' + ''.join(f'{name:>24}' for name in blocks))
        for case in some['camera']:
            print(f'{case:63}' + ''.join(f'{"  ".join(dash(block["camera"][case][key]) for key in keys):>24}'
                                         for block in blocks.values()))
        if 'still' in some['camera']:
            print(f'{"tremor of a still scene":63}' + ''.join(f'{100 * (block["camera"]["still"]["tremor"] or 0):>22.2f} %'
                                                              for block in blocks.values()))


def _eval_trackers(args) -> tuple[tuple, dict[str, dict]]:
    """The trackers of `cract eval`, each made once to see that it can be, and how the report describes them."""
    from .evaluation.execution import TrackerSpec, tracker_of
    from .evaluation.peers import NETWORK_FILES
    config = _config(args)
    if args.jobs > 1 and not config.threads and not args.ray:  # share the cores instead of fighting for them
        config = config.replace(threads=max(1, (os.cpu_count() or 1) // args.jobs))
    files = (args.nano_backbone, args.nano_head)
    if args.peers and not set(args.tracker) & set(NETWORK_FILES):
        raise ValueError(f'--peers holds the networks of {", ".join(NETWORK_FILES)}: give one of them as --tracker')
    if any(files) and 'nano' not in args.tracker:
        raise ValueError('--nano-backbone and --nano-head are the networks of nano: give --tracker nano too')
    foreign = sorted(set(_given(args)) - {'threads'})
    if 'cract' not in args.tracker and (foreign or args.config):
        name = '--config' if args.config else '--' + foreign[0].replace('_', '-')
        raise ValueError(f'{name} sets up the tracker cract and means nothing to {", ".join(args.tracker)}')
    specs, described = [], {}
    for name in args.tracker:
        if name == 'cract':
            specs.append(TrackerSpec(name, config))
            nets = tracker_of(specs[-1]).nets
            runtime, precision = nets.name.split()
            described[name] = dict(config=dict(dataclasses.asdict(config), runtime=runtime, precision=precision),
                                   device=nets.device)
            continue
        wanted = NETWORK_FILES.get(name, ())
        given = files if name == 'nano' else (None,) * len(wanted)
        found = [path or (args.peers and args.peers / file) for path, file in zip(given, wanted, strict=True)]
        networks = tuple(str(path) for path in found if path)
        specs.append(TrackerSpec(name, TrackerConfig(threads=config.threads), networks))
        tracker_of(specs[-1])
        described[name] = dict(config=dict(threads=config.threads, networks=list(networks)), device='cpu')
    return tuple(specs), described


def _row(name: str, one: dict, width: int, keys: tuple[str, ...]) -> str:
    times = '         -         -        -        -' if one['p50_ms'] is None else (
        f'{one["fps"]:10.1f}{1e3 / one["p95_ms"]:10.1f}{one["p50_ms"]:9.2f}{one["p95_ms"]:9.2f}')
    return f'{name:{width}}  {one["frames"]:6d}' + ''.join(f'{_cell(one[key]):>9}' for key in keys) + times


def _heads(keys: tuple[str, ...]) -> str:
    return ''.join(f'{COLUMNS[key]:>9}' for key in keys)


def _cell(value: float | None) -> str:
    return '-' if value is None else f'{value:.4f}'


def _print_side_by_side(blocks: dict[str, dict], key: str) -> None:
    """One figure of every tracker beside the others, one row a sequence."""
    rows = [(name, [block['sequences'][name][key] for block in blocks.values()])
            for name in next(iter(blocks.values()))['sequences']]
    rows.append(('mean', [block['mean'][key] for block in blocks.values()]))
    width = max(len(name) for name, _ in rows)
    print(f'\n{COLUMNS[key]:{width}}' + ''.join(f'{name:>12}' for name in blocks))
    for name, values in rows:
        print(f'{name:{width}}' + ''.join(f'{_cell(value):>12}' for value in values))


def _eval_reset(args, specs, described: dict[str, dict], sequences, benchmark, left_out: dict[str, str],
                load) -> int:
    """VOT's reset-based experiment: accuracy, robustness and EAO."""
    import numpy as np
    from tqdm import tqdm

    from . import __version__
    from .evaluation import runner, vot
    from .evaluation.benchmarks import BENCHMARKS
    from .evaluation.execution import tracker_of
    from .evaluation.submissions import write_result
    for given, option in ((len(args.protocol) > 1, 'another --protocol'), (args.report, '--report'),
                          (args.against, '--against'),
                          (args.jobs > 1, '--jobs'), (args.ray, '--ray')):
        if given:
            raise ValueError(f'the protocol reset does not go together with {option}')
    width = max(len(one.name) for one in sequences) + 1 + max(len(spec.name) for spec in specs)
    print(f'{"sequence":{width}}  frames  accuracy  failures   p50 ms   p95 ms')

    def milliseconds(times: dict) -> str:
        return ''.join(f'{"-" if times[key] is None else format(times[key], ".2f"):>9}' for key in ('p50_ms', 'p95_ms'))

    def row(name: str, frames: int, figures: dict, seconds) -> str:
        times = runner.latency(seconds)
        return (f'{name:{width}}  {frames:6d}{_cell(figures["accuracy"]):>10}{figures["failures"]:10d}'
                + milliseconds(times))

    runs: dict[str, list] = {spec.name: [] for spec in specs}
    measured: list = []
    with tqdm(total=sum(len(one.images) for one in sequences) * len(specs), unit='frame', disable=None) as bar:
        for sequence in sequences:
            bar.set_description(sequence.name)
            try:
                done = {spec.name: vot.run_reset(tracker_of(spec), sequence, bar.update) for spec in specs}
            except (ValueError, OSError) as error:
                left_out[sequence.name] = str(error)
                continue
            measured.append(sequence)
            for spec in specs:
                run = done[spec.name]
                runs[spec.name].append(run)
                with bar.external_write_mode():
                    print(row(f'{sequence.name} {spec.name}', len(run.trajectory), vot.summarize([run]), run.seconds),
                          flush=True)
                if args.results:
                    write_result(args.results, benchmark or BENCHMARKS['vot2018'], spec.name, sequence.name, run)
    if not measured:
        raise ValueError(next(iter(left_out.values())))
    sequences, blocks = measured, []
    print(f'\n{"tracker":10}accuracy  failures  robustness      EAO   p50 ms   p95 ms')
    for name, some in runs.items():
        figures = vot.summarize(some)
        times = runner.latency(np.concatenate([run.seconds for run in some]))
        blocks.append(dict(
            tracker=name, **described[name],
            mean=dict(figures, sequences=len(some), frames=sum(len(run.trajectory) for run in some), **times),
            sequences={sequence.name: dict(vot.summarize([run]), frames=len(run.trajectory),
                                           **runner.latency(run.seconds)) for sequence, run in zip(sequences, some)}))
        print(f'{name:10}{_cell(figures["accuracy"]):>8}{figures["failures"]:10d}{figures["robustness"]:12.3f}'
              f'{_cell(figures["eao"]):>9}'
              + milliseconds(times))
    if sentence := load.sentence():
        print(sentence, file=sys.stderr)
    if args.json:
        report = dict(blocks[0], peers=blocks[1:], version=__version__, date=time.strftime('%Y-%m-%dT%H:%M:%S%z'),
                      root=str(args.root), benchmark=args.benchmark, protocol='reset', left_out=left_out,
                      environment=runner.environment(load))
        write_text(args.json, json.dumps(report, indent=2) + '\n')
    return _say_left_out(left_out)


def run_bag(args) -> int:
    """`cract bag`."""
    return bag.run(args, _config(args))


def run_data(args) -> int:
    """`cract data`."""
    from .training import data_cli
    return data_cli.run(args)


def run_train(args) -> int:
    """`cract train`."""
    from .training import cli as training
    return training.run(args)


def run_export(args) -> int:
    """`cract export`."""
    from .runtime import export
    return export.run(args)


def run_bench(args) -> int:
    """`cract bench`."""
    from .evaluation import bench
    return bench.run(args)


def run_synth(args) -> int:
    """`cract synth`."""
    import numpy as np

    from .evaluation.sequences import write_rendered
    images = args.out / 'img'
    if images.is_dir() and any(images.iterdir()):
        raise ValueError(f'{images} is not empty: a clip is written into a folder of its own')
    boxes = write_rendered(args.out, args.frames, args.seed, args.size)
    hidden = int(np.isnan(boxes).any(axis=1).sum())
    print(f'{len(boxes)} frames in {args.out}, the target hidden in {hidden}; its first box is '
          + ','.join(f'{value:.2f}' for value in boxes[0]))
    return 0


def run_tune(args) -> int:
    """`cract tune`."""
    from .evaluation import search
    return search.run(args, _config(args))


def run_calibrate(args) -> int:
    """`cract calibrate`."""
    from .evaluation import calibration
    return calibration.run(args, _config(args))


def run_ablate(args) -> int:
    """`cract ablate`."""
    from .evaluation import ablation
    return ablation.run(args, _config(args))


def run_params(args) -> int:
    """`cract params`."""
    print(parameter_table())
    return 0


def parameter_table(config: type = TrackerConfig) -> str:
    """The fields of `config` as a Markdown table."""
    rows = ['| parameter | type | default | range | unit | while tracking | meaning |', '|' + '---|' * 7]
    for field in dataclasses.fields(config):
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


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip('/ ') for name in text.split(','))
    if not all(names):
        raise argparse.ArgumentTypeError(f'expected names with commas between them, got {text!r}')
    return names


def _choices(known: tuple[str, ...]):
    """The type of an option that takes some of `known`, with commas between them."""
    def choose(text: str) -> tuple[str, ...]:
        names = _names(text)
        wrong = [name for name in names if name not in known]
        if wrong or len(set(names)) < len(names):
            raise argparse.ArgumentTypeError(f'expected some of {", ".join(known)}, each once, got {text!r}')
        return names
    return choose


if __name__ == '__main__':
    sys.exit(main())
