"""`cract eval`: accuracy, speed and trust on annotated sequences."""
from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .. import __version__, options
from ..evaluation import against, camera, protocols, runner, tables, trackers, vot
from ..evaluation.benchmarks import BENCHMARKS, read_benchmark
from ..evaluation.execution import Store, tracker_of
from ..evaluation.sequences import read_folders, repeat, write_boxes
from ..evaluation.submissions import write_archive, write_result
from ..files import write_text

DESCRIPTION = """\
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
each stage makes of it. --protocol camera turns, shakes and zooms the camera, drops frames, spoils the pictures. --repeat
and --repeat-to make long runs of short clips. --against compares with an earlier run, paired over sequences. docs/evaluation.md says what every figure means."""

PROTOCOLS = ('ope', 'absence', 'streaming', 'stages', 'camera', 'reset')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('root', metavar='ROOT', help='folder of <set>/<sequence> folders, or of a benchmark')
    parser.add_argument('--benchmark', choices=tuple(BENCHMARKS),
                        help='ROOT is this benchmark in the layout in which it is published; results are written in '
                             'its own form')
    parser.add_argument('--only', type=options.names, default=(), metavar='A,B',
                        help='only these sequences (<sequence> or <set>/<sequence>) or sets')
    parser.add_argument('--limit', type=options.positive, metavar='N', help='only the first N sequences, by name')
    parser.add_argument('--tracker', default=('cract',), type=options.choices(trackers.TRACKERS), metavar='A,B',
                        help=f'one or more of {", ".join(trackers.TRACKERS)}; the first is the one that is reported, the '
                             'others are its peers (default: cract)')
    parser.add_argument('--protocol', type=options.choices(PROTOCOLS), metavar='A,B',
                        help='one or more of ope (one pass without help), absence (the target is taken away and '
                             'comes back), streaming (against the clock of a camera), stages (what each stage makes '
                             'of a frame, the true last box given), camera (under known motion of the camera), or '
                             'reset (VOT: started anew after each failure) (default: reset for vot2018, else ope)')
    parser.add_argument('--every', type=options.positive, default=1, metavar='N',
                        help='the stages protocol looks at each Nth frame (default: 1, all of them)')
    parser.add_argument('--cases', type=options.names, default=(), metavar='A,B',
                        help='only these cases of the camera protocol (default: all; docs/evaluation.md names them)')
    parser.add_argument('--frames', type=options.positive, default=90, metavar='N',
                        help='of each case of the camera protocol (default: 90)')
    longer = parser.add_mutually_exclusive_group()
    longer.add_argument('--repeat', type=options.positive, metavar='N',
                        help='show each sequence forwards and backwards N times, as one long run (protocols ope and '
                             'streaming)')
    longer.add_argument('--repeat-to', type=options.positive, metavar='FRAMES',
                        help='the same until so many frames are shown; longer sequences stay as they are')
    parser.add_argument('--rate', type=options.rate, default=30.0, metavar='FPS',
                        help='of the camera in the streaming protocol (default: 30)')
    parser.add_argument('--latency-trace', type=Path, metavar='FILE',
                        help='replay the latencies that an earlier streaming run wrote, instead of measuring them')
    parser.add_argument('--protocol-seed', type=options.natural, default=0, metavar='N',
                        help='of the spliced absences and of the confidence intervals (default: 0)')
    parser.add_argument('--against', type=Path, metavar='FILE',
                        help='also print and write the differences to the figures that an earlier run wrote with '
                             '--json, paired over sequences, with their intervals; each tracker is compared with '
                             'its namesake there, or else with the first one (protocols ope and stages)')
    parser.add_argument('--report', type=Path, metavar='DIR',
                        help='write DIR/report.html, DIR/figures.json, the boxes (unless --results names another '
                             'place) and every run to DIR/runs; a run that is there already, of the same tracker, '
                             'data and version, is not repeated')
    parser.add_argument('--jobs', type=options.positive, default=1, metavar='N', help='sequences at a time (default: 1)')
    parser.add_argument('--ray', metavar='ADDRESS',
                        help='spread the sequences over a Ray cluster: its address, or auto; every machine must '
                             'see ROOT under the same path')
    trackers.add_networks(parser)
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures, the configuration, the machine')
    parser.add_argument('--results', type=Path, metavar='DIR',
                        help='write the boxes as DIR/<set>/<sequence>.txt, those of a benchmark or of several '
                             'trackers below DIR/<tracker>; what is handed in to a server as DIR/<tracker>.zip')
    options.add_tracker_parameters(parser)


def run(args: argparse.Namespace) -> int:
    specs, described = trackers.chosen_trackers(args)
    if args.report:
        try:
            from ..evaluation.report import write_report
        except ImportError as error:
            raise ValueError(f'--report needs the package {error.name}: pip install "cract_ros[eval]"') from error
    benchmark = BENCHMARKS[args.benchmark] if args.benchmark else None
    args.protocol = args.protocol or ('reset' if args.benchmark == 'vot2018' else 'ope',)
    longer = args.repeat or args.repeat_to
    if longer and (benchmark or not set(args.protocol) <= {'ope', 'streaming'}):
        raise ValueError('--repeat and --repeat-to make plain sequences longer for the protocols ope and streaming: '
                         'leave out ' + ('--benchmark' if benchmark else 'other protocols'))
    load = runner.OtherLoad()
    left_out: dict[str, str] = {}  # sequence -> why
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
    if benchmark and args.protocol != ('ope',) and not all(one.annotated for one in sequences):
        raise ValueError(f'the truth of {benchmark.title} is not public: only --protocol ope runs on it')
    if 'reset' in args.protocol:
        return _reset(args, specs, described, sequences, benchmark, left_out, load)
    if longer:
        sequences = [repeat(one, args.repeat, args.repeat_to) for one in sequences]
    others = against.read_figures(args.against) if args.against else {}
    against.check_comparable(others, args.protocol, sequences, args.every, args.frames)
    if args.latency_trace and 'streaming' not in args.protocol:
        raise ValueError('--latency-trace replays a streaming run: give --protocol streaming too')
    setup = protocols.Options(
        protocols=args.protocol, rate=args.rate, every=args.every, seed=args.protocol_seed, workers=args.jobs,
        ray_address=args.ray, frames=args.frames, cases=camera.chosen(args.cases),
        trace=protocols.read_trace(args.latency_trace) if args.latency_trace else None,
        store=Store(args.report / 'runs') if args.report else None)
    jobs = protocols.plan(specs, sequences, pool, setup, left_out)
    several = len(specs) > 1
    results = args.results or (args.report / 'results' if args.report else None)
    got10k = (args.benchmark or '').startswith('got10k')
    keys = tables.LONG_KEYS if longer else tables.GOT10K_KEYS if got10k else tables.OTB_KEYS
    width = max(len(one.name) for one in sequences) + (1 + max(len(spec.name) for spec in specs) if several else 0)

    def label(name: str, tracker: str) -> str:
        return f'{name} {tracker}' if several else name

    with tqdm(total=sum(job.frames for some in jobs.values() for job in some), unit='frame', disable=None) as bar:
        def finished(protocol: str, sequence, done) -> None:
            bar.set_description(sequence.name)
            for tracker, one in done.items():
                if protocol == 'ope':
                    with bar.external_write_mode():
                        print(tables.row(label(sequence.name, tracker), runner.summarize(one.run, sequence), width,
                                         keys), flush=True)
                if protocol == 'stages':
                    continue
                if results and benchmark and protocol == 'ope':
                    write_result(results, benchmark, tracker, sequence.name, one.run)
                elif results:
                    folder = results / (protocol if protocol != 'ope' else '') / (tracker if several else '')
                    write_boxes(folder / f'{sequence.name}.txt', one.run.boxes)
        if 'ope' in jobs:
            print(f'{"sequence":{width}}  frames{tables.heads(keys)}   fps p50   fps p95   p50 ms   p95 ms', flush=True)
        measured = protocols.measure(specs, jobs, setup, bar.update, finished, left_out)
    blocks = {spec.name: protocols.block(measured, spec.name) for spec in specs}
    for name, block in blocks.items():
        if 'mean' in block:
            print(tables.row(label('mean', name), block['mean'], width, keys))
    if several and 'ope' in jobs:
        tables.print_side_by_side(blocks, keys[0])
    tables.print_protocols(blocks)
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
    first, *peers = (dict(tracker=name, **described[name], **block) for name, block in blocks.items())
    report = dict(first, peers=peers, version=__version__, date=time.strftime('%Y-%m-%dT%H:%M:%S%z'),
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


def _reset(args, specs, described: dict[str, dict], sequences, benchmark, left_out: dict[str, str],
           load) -> int:
    """VOT's reset-based experiment: accuracy, robustness and EAO."""
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
        return (f'{name:{width}}  {frames:6d}{tables.cell(figures["accuracy"]):>10}{figures["failures"]:10d}'
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
        print(f'{name:10}{tables.cell(figures["accuracy"]):>8}{figures["failures"]:10d}{figures["robustness"]:12.3f}'
              f'{tables.cell(figures["eao"]):>9}'
              + milliseconds(times))
    if sentence := load.sentence():
        print(sentence, file=sys.stderr)
    if args.json:
        report = dict(blocks[0], peers=blocks[1:], version=__version__, date=time.strftime('%Y-%m-%dT%H:%M:%S%z'),
                      root=str(args.root), benchmark=args.benchmark, protocol='reset', left_out=left_out,
                      environment=runner.environment(load))
        write_text(args.json, json.dumps(report, indent=2) + '\n')
    return _say_left_out(left_out)
