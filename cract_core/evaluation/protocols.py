"""The protocols of `cract eval` over all sequences and trackers, and their figures as they go into JSON and report.

`ope`: one pass without help. `absence`: stretches without the target spliced in (see `absence`). `streaming`: against
a camera's clock (see `streaming`), next to the usual pass. `stages`: with the true last box in every frame (see
`stages`). `camera`: under known motion of a camera (see `camera`).
"""
from __future__ import annotations

import dataclasses
import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Mapping, NamedTuple

import numpy as np

from ..files import read_text, write_text
from . import absence, camera, execution, runner, stages
from .execution import Done, Job, Store, TrackerSpec
from .sequences import Sequence, raise_or_note, read_all

PROTOCOLS = ('ope', 'absence', 'streaming', 'stages', 'camera')
RESAMPLES = 1000        # of the bootstrap
CONFIDENCE = 0.95

Trace = Mapping[str, Mapping[str, Mapping[int, float]]]     # tracker -> sequence -> frame -> seconds


@dataclass(frozen=True)
class Options:
    """How to run. seed: of the splices and of the bootstrap; rate: frames a second of the streaming protocol; every:
    the stages protocol looks at each so many-th frame; cases, frames: which of `camera.CASES`, and how long each is."""

    protocols: tuple[str, ...] = ('ope',)
    rate: float = 30.0
    every: int = 1
    cases: tuple[str, ...] = tuple(camera.CASES)
    frames: int = camera.FRAMES
    trace: Trace | None = None
    seed: int = 0
    workers: int = 1
    ray_address: str | None = None
    store: Store | None = None


@dataclass
class Measured:
    """Runs by protocol and tracker, in the order of that protocol's sequences."""

    specs: tuple[TrackerSpec, ...]
    options: Options
    sequences: dict[str, list[Sequence]] = field(default_factory=dict)
    done: dict[str, dict[str, list[Done]]] = field(default_factory=dict)


def plan(specs, sequences: list[Sequence], pool: list[Sequence], options: Options,
         left_out: dict[str, str] | None = None) -> dict[str, list[Job]]:
    """The jobs of every protocol; `pool` lends the frames of the absence protocol.

    A sequence into which no absence fits is noted in `left_out` where that is given. ValueError where times would be
    measured while several runs share the machine, and for a tracker whose last box cannot be set in the stages protocol.
    """
    if 'streaming' in options.protocols and options.trace is None and (options.workers > 1 or options.ray_address):
        raise ValueError('the streaming protocol measures latency, which several runs at a time would spoil: '
                         'leave out --jobs and --ray, or replay a recorded --latency-trace')
    for spec in specs:
        if 'stages' in options.protocols and spec.name not in stages.TRACKERS:
            raise ValueError(f'the stages protocol hands over the last box, which {spec.name} does not take: it goes '
                             f'with {", ".join(stages.TRACKERS)}')
    jobs = {}
    if 'ope' in options.protocols or 'streaming' in options.protocols:
        jobs['ope'] = [Job(sequence, specs) for sequence in sequences]
    if 'absence' in options.protocols:
        readers = {sequence.name: functools.partial(absence.splice, sequence, pool, options.seed)
                   for sequence in sequences}
        jobs['absence'] = [Job(sequence, specs) for sequence in read_all(readers, left_out)]
    if 'streaming' in options.protocols:
        jobs['streaming'] = [Job(sequence, specs, options.rate, _traces(specs, sequence, options.trace))
                             for sequence in sequences]
    if 'stages' in options.protocols:
        jobs['stages'] = [Job(sequence, specs, every=options.every) for sequence in sequences]
    if 'camera' in options.protocols:
        readers = camera.readers(sequences, options.cases, options.frames, options.seed)
        jobs['camera'] = [Job(sequence, specs) for sequence in read_all(readers, left_out)]
    return jobs


def measure(specs: tuple[TrackerSpec, ...], jobs: dict[str, list[Job]], options: Options,
            progress: Callable[[int], object] = lambda count: None,
            finished: Callable[[str, Sequence, dict[str, Done]], object] = lambda *_: None,
            left_out: dict[str, str] | None = None) -> Measured:
    """Run all jobs; `finished` is told every sequence that is complete.

    One that cannot be measured, such as for a damaged frame, is noted in `left_out` with the reason; without that, and
    where no sequence of a protocol can be measured, the error is raised.
    """
    measured = Measured(specs, options)
    for protocol, some in jobs.items():
        results: list[dict[str, Done]] = [{} for _ in some]
        error = None
        for index, done in execution.execute_stored(protocol, some, options.store, options.workers,
                                                    options.ray_address, progress):
            if isinstance(done, Exception):
                error = done
                raise_or_note(error, some[index].sequence.name, left_out)
                continue
            results[index] = done
            finished(protocol, some[index].sequence, done)
        if error is not None and not any(results):
            raise error
        measured.sequences[protocol] = [job.sequence for job, done in zip(some, results) if done]
        measured.done[protocol] = {spec.name: [done[spec.name] for done in results if done] for spec in specs}
    return measured


def block(measured: Measured, tracker: str) -> dict:
    """The figures of one tracker: `mean` and `sequences` (one pass), `absence`, `streaming`, `stages`, `camera`, and
    95 % intervals."""
    result: dict = {}
    seed = measured.options.seed
    if 'ope' in measured.done:
        figures = _figures(measured, 'ope', tracker)
        runs = [done.run for done in measured.done['ope'][tracker]]
        result.update(mean=runner.mean_figures(list(figures.values()), runs), sequences=figures,
                      intervals=mean_intervals(figures, seed))
    if 'absence' in measured.done:
        trusts = trusts_of(measured, tracker)
        result['absence'] = absence.figures(trusts)
        result['absence_threshold'] = absence.threshold(trusts)
        result['absence_right'] = float(sum(one.correct.sum() for one in trusts)
                                        / sum((~one.gone).sum() for one in trusts))
        result['absence_intervals'] = bootstrap(lambda rows: absence.figures([trusts[i] for i in rows]),
                                                len(trusts), seed, RESAMPLES // 5)
        result['absence_sequences'] = {
            sequence.name: dict(frames=len(sequence.images), absent=int(sequence.absent.sum()),
                                stretches=[dataclasses.asdict(one) for one in sequence.stretches],
                                **absence.figures([trust]))
            for sequence, trust in zip(measured.sequences['absence'], trusts)}
    if 'streaming' in measured.done:
        figures = _figures(measured, 'streaming', tracker)
        runs = [done.run for done in measured.done['streaming'][tracker]]
        for one, run in zip(figures.values(), runs):
            one['dropped'] = run.dropped / len(run.boxes)
        result['streaming'] = dict(
            rate=measured.options.rate, mean=dict(
                runner.mean_figures(list(figures.values()), runs),
                dropped=sum(run.dropped for run in runs) / sum(len(run.boxes) for run in runs)),
            sequences=figures, intervals=mean_intervals(figures, seed))
    if 'stages' in measured.done:
        figures = {sequence.name: stages.summarize(done.run)
                   for sequence, done in zip(measured.sequences['stages'], measured.done['stages'][tracker])}
        rows = list(figures.values())
        result['stages'] = dict(stages.mean_figures(rows), every=measured.options.every)
        result['stages_intervals'] = bootstrap(
            lambda drawn: {key: value for key, value in stages.mean_figures([rows[i] for i in drawn]).items()
                           if key in stages.FIGURES}, len(rows), seed)
        result['stages_sequences'] = figures
    if 'camera' in measured.done:
        cases: dict[str, dict[str, camera.Shown]] = {}
        for sequence, done in zip(measured.sequences['camera'], measured.done['camera'][tracker]):
            cases.setdefault(sequence.case, {})[sequence.base] = camera.judge(done.run, sequence)
        result['camera'] = {case: camera.figures(list(some.values())) for case, some in cases.items()}
        result['camera_frames'] = measured.options.frames
        result['camera_intervals'] = {
            case: bootstrap(lambda rows, some=list(some.values()): camera.figures([some[i] for i in rows]), len(some),
                            seed) for case, some in cases.items()}
        result['camera_sequences'] = {
            name: {f'{case}.{key}': value for case, some in cases.items() if name in some
                   for key, value in camera.figures([some[name]]).items()}
            for name in dict.fromkeys(sequence.base for sequence in measured.sequences['camera'])}
    return result


def trusts_of(measured: Measured, tracker: str) -> list[absence.Trust]:
    """What the absence protocol found in every sequence."""
    return [absence.judge(done.run, sequence)
            for sequence, done in zip(measured.sequences['absence'], measured.done['absence'][tracker])]


def bootstrap(statistic: Callable[[np.ndarray], Mapping[str, float | None]], count: int, seed: int = 0,
              resamples: int = RESAMPLES) -> dict[str, list[float] | None]:
    """95 % percentile intervals of `statistic(rows)` over sequences drawn with replacement from `count`.

    None for a figure that a resample lacks, or with a single sequence. Source: Efron, Bootstrap Methods, 1979.
    """
    random = np.random.default_rng(seed)
    drawn = [statistic(random.integers(count, size=count)) for _ in range(resamples)]
    tail = (1 - CONFIDENCE) / 2 * 100
    intervals: dict[str, list[float] | None] = {}
    for key in drawn[0]:
        values = [one[key] for one in drawn]
        intervals[key] = None if count < 2 or None in values else [
            float(value) for value in np.percentile(values, (tail, 100 - tail))]
    return intervals


class Difference(NamedTuple):
    """Mean of paired differences over sequences and its 95 % interval; no interval from a single sequence."""
    mean: float
    low: float | None
    high: float | None

    @property
    def verdict(self) -> str:
        """'noise' where the interval contains 0, or where there is none."""
        return 'noise' if self.low is None or self.low <= 0 <= self.high else 'better' if self.mean > 0 else 'worse'

    @property
    def reversed(self) -> Difference:
        """Of a figure of which less is better, so that the verdict is right."""
        return Difference(-self.mean, *(None if end is None else -end for end in (self.high, self.low)))

    @property
    def text(self) -> str:
        interval = 'no interval' if self.low is None else f'95 % interval {self.low:+.4f} to {self.high:+.4f}'
        return f'{self.mean:+.4f} ({interval})'

    def __str__(self) -> str:
        return f'{self.text}: {self.verdict}'


def paired_difference(values, baseline, seed: int = 0) -> Difference:
    """values - baseline, each (S,), one figure a sequence; the bootstrap draws sequences."""
    difference = np.asarray(values) - np.asarray(baseline)
    interval = bootstrap(lambda rows: dict(mean=float(difference[rows].mean())), len(difference), seed)['mean']
    return Difference(float(difference.mean()), *(interval or (None, None)))


def mean_intervals(figures: Mapping[str, dict], seed: int) -> dict[str, list[float] | None]:
    """Intervals of the accuracy figures as `runner.mean_figures` averages them."""
    keys = [key for key in next(iter(figures.values()))
            if key not in ('frames', 'init_ms', 'p50_ms', 'p95_ms', 'fps')
            and all(isinstance(one[key], float) for one in figures.values())]
    table = {key: np.array([one[key] for one in figures.values()]) for key in keys}
    frames = np.array([one['counted'] for one in figures.values()])

    def means(rows: np.ndarray) -> dict[str, float]:
        return {key: float(np.average(values[rows], weights=frames[rows] if key in runner.AVERAGE_OVERLAP else None))
                for key, values in table.items()}
    return bootstrap(means, len(figures), seed)


def trace_of(measured: Measured) -> dict:
    """The latencies of the streaming runs, as `read_trace` reads them."""
    sequences = measured.sequences['streaming']
    return dict(rate=measured.options.rate, trackers={
        tracker: {sequence.name: done.run.latencies for sequence, done in zip(sequences, done_of_tracker)}
        for tracker, done_of_tracker in measured.done['streaming'].items()})


def write_trace(path, measured: Measured) -> None:
    """Write `trace_of` as JSON: {"rate", "trackers": {tracker: {sequence: {frame: seconds}}}}; frame 0 is init."""
    write_text(path, json.dumps(trace_of(measured), indent=1) + '\n')


def read_trace(path) -> Trace:
    """A trace that `write_trace` wrote; ValueError in one sentence if it is none."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'no file {path}: expected a latency trace of an earlier streaming run')
    try:
        trackers = json.loads(read_text(path))['trackers']
        trace = {tracker: {sequence: {int(frame): float(seconds) for frame, seconds in latencies.items()}
                           for sequence, latencies in sequences.items()} for tracker, sequences in trackers.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{path} is no latency trace: expected {{"trackers": {{tracker: {{sequence: {{frame: '
                         f'seconds}}}}}}}} as a streaming run writes it') from error
    seconds = [value for some in trace.values() for one in some.values() for value in one.values()]
    if not all(np.isfinite(value) and value >= 0 for value in seconds):
        raise ValueError(f'{path} is no latency trace: every latency must be a number of seconds, 0 or more')
    return trace


def _traces(specs, sequence: Sequence, trace: Trace | None):
    if trace is None:
        return None
    for spec in specs:
        if sequence.name not in trace.get(spec.name, {}):
            raise ValueError(f'the latency trace has nothing of {spec.name} on {sequence.name}')
    return {spec.name: trace[spec.name][sequence.name] for spec in specs}


def _figures(measured: Measured, protocol: str, tracker: str) -> dict[str, dict]:
    return {sequence.name: runner.summarize(done.run, sequence)
            for sequence, done in zip(measured.sequences[protocol], measured.done[protocol][tracker])}
