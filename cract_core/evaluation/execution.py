"""Many runs: several at a time, on this machine or on a Ray cluster, resumed where they were interrupted.

A `Job` is one sequence for one or more trackers; it holds everything that a process elsewhere needs. A `Store` keeps
finished runs, each under a key of all that its answers depend on, so a run is never taken from another version,
configuration, weights file or data.
"""
from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Callable, Iterator, Mapping

import cv2
import numpy as np

from .. import __version__
from ..config import TrackerConfig
from . import runner
from .runner import Run
from .sequences import Sequence
from .stages import StagesRun, run_stages
from .streaming import StreamRun, run_stream

@dataclass(frozen=True)
class TrackerSpec:
    """What a tracker is made from, in any process: 'cract' with its config, or a peer with its files."""

    name: str
    config: TrackerConfig = TrackerConfig()
    networks: tuple[str, ...] = ()

    def make(self):
        """The tracker; raises as `Tracker` and `make_peer` do."""
        if self.name == 'cract':
            from ..tracker import Tracker
            return Tracker(self.config)
        from .peers import make_peer
        return make_peer(self.name, *self.networks, threads=self.config.threads)

    @functools.cached_property
    def identity(self) -> str:
        """A digest of name, parameters, weights and versions, of the package and of libraries."""
        files = self.networks
        config: dict = dict(threads=self.config.threads)
        if self.name == 'cract':
            config = dataclasses.asdict(self.config)
            packaged = Path(str(resources.files('cract_core'))) / 'weights' / 'cract.pt'
            files = (config.pop('weights') or str(packaged),)
        return _digest(self.name, config, [_file_digest(path) for path in files], __version__,
                       cv2.__version__, np.__version__, *runner.runtime_versions().items())


@dataclass(frozen=True)
class Job:
    """One sequence for some trackers; `rate` in frames a second makes it a streaming run, `every` a look at the stages
    of each so many-th frame.

    traces: tracker name -> frame -> latency in seconds, in place of measured ones.
    """

    sequence: Sequence
    specs: tuple[TrackerSpec, ...]
    rate: float | None = None
    traces: Mapping[str, Mapping[int, float]] | None = None
    every: int | None = None

    @property
    def frames(self) -> int:
        """Steps of progress that the job makes."""
        return len(self.sequence.images) * len(self.specs)

    def key(self, spec: TrackerSpec) -> str:
        """What the run of `spec` depends on, as a digest."""
        sequence = self.sequence
        files = [(path.name, path.stat().st_size if path.exists() else None) for path in sequence.images]
        rest = {name: value.tobytes().hex() if isinstance(value, np.ndarray) else repr(value)
                for name, value in sorted(vars(sequence).items()) if name != 'images'}
        trace = self.traces[spec.name] if self.traces else None
        return _digest(spec.identity, files, rest, self.rate, sorted(trace.items()) if trace else None,
                       self.every)


@dataclass(frozen=True)
class Done:
    """A run and the machine that it was measured on."""

    run: Run | StagesRun
    machine: str


Outcome = dict[str, Done] | ValueError | OSError    # of a job: tracker name -> result, or why the sequence has none


@functools.lru_cache(maxsize=None)
def tracker_of(spec: TrackerSpec):
    """One tracker per process: its weights are read once."""
    return spec.make()


def run_job(job: Job, progress: Callable[[], object] = lambda: None) -> dict[str, Done]:
    """Run the job here; tracker name -> result."""
    done = {}
    for spec in job.specs:
        if job.every is not None:
            run = run_stages(tracker_of(spec), job.sequence, job.every, progress)
        elif job.rate is None:
            run = runner.run_sequence(tracker_of(spec), job.sequence, progress)
        else:
            run = run_stream(tracker_of(spec), job.sequence, job.rate,
                             job.traces[spec.name] if job.traces else None, progress)
        done[spec.name] = Done(run, runner.machine())
    return done


def try_job(job: Job, progress: Callable[[], object] = lambda: None) -> Outcome:
    """As `run_job`; what is wrong with the sequence is returned, so that it does not end all others."""
    try:
        return run_job(job, progress)
    except (ValueError, OSError) as error:
        return error
    except cv2.error as error:
        return ValueError(f'{job.sequence.name}: OpenCV: {" ".join(str(error).split())}')


def execute(jobs: list[Job], workers: int = 1, ray_address: str | None = None,
            progress: Callable[[int], object] = lambda count: None) -> Iterator[tuple[int, Outcome]]:
    """Run all jobs; yields (position in `jobs`, outcome) as they are finished.

    workers: processes on this machine; 1 runs them here, one after the other. ray_address: 'auto' or the address of a
    Ray cluster, whose machines must see the images under the same paths. `progress` is told the frames done: one by
    one here, a job at a time elsewhere. ImportError without the `ray` package, ConnectionError without the cluster.
    """
    if ray_address is not None:
        yield from _execute_on_ray(jobs, ray_address, progress)
    elif workers == 1:
        for index, job in enumerate(jobs):
            yield index, try_job(job, lambda: progress(1))
    else:
        # 'spawn': a forked copy of a process that has used torch's threads may hang
        # an interruption from the keyboard reaches the workers too, and ends them at once and without a word
        with ProcessPoolExecutor(workers, multiprocessing.get_context('spawn'), signal.signal,
                                 (signal.SIGINT, signal.SIG_DFL)) as pool:
            waiting = {pool.submit(try_job, job): index for index, job in enumerate(jobs)}
            try:
                for future in as_completed(waiting):
                    index = waiting[future]
                    yield index, future.result()
                    progress(jobs[index].frames)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _execute_on_ray(jobs: list[Job], address: str, progress) -> Iterator[tuple[int, Outcome]]:
    try:
        import ray
    except ImportError as error:
        raise ValueError('--ray needs the package ray: pip install "cract_ros[ray]"') from error
    ray.init(address=address, log_to_driver=False, logging_level='ERROR')
    try:
        remote = ray.remote(num_cpus=1, max_retries=2)(try_job)
        waiting = {remote.remote(job): index for index, job in enumerate(jobs)}
        while waiting:
            ready, _ = ray.wait(list(waiting))
            for reference in ready:
                index = waiting.pop(reference)
                try:
                    result = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None  # the sentence of ours that was raised on the other machine
                yield index, result
                progress(jobs[index].frames)
    finally:
        ray.shutdown()


class Store:
    """Finished runs below `folder`, one JSON file a run: `<protocol>/<tracker>/<sequence>.json`."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def path(self, protocol: str, tracker: str, sequence: str) -> Path:
        return self.folder / protocol / tracker / f'{sequence}.json'

    def load(self, protocol: str, job: Job, spec: TrackerSpec) -> Done | None:
        """The run, if it was kept and nothing that it depends on has changed."""
        path = self.path(protocol, spec.name, job.sequence.name)
        if not path.is_file():
            return None
        try:
            kept = json.loads(path.read_bytes())
            if kept['key'] != job.key(spec):
                return None
        except (ValueError, KeyError, TypeError):  # no run that this store wrote
            return None
        if job.every is not None:
            return Done(StagesRun(np.array(kept['frames']), {stage: np.array(values) for stage, values
                                                             in kept['overlaps'].items()}), kept['machine'])
        fields = dict(boxes=np.array(kept['boxes']), scores=np.array(kept['scores']), states=tuple(kept['states']),
                      init_seconds=kept['init_seconds'], seconds=np.array(kept['seconds']))
        if job.rate is not None:
            return Done(StreamRun(**fields, latencies={int(i): s for i, s in kept['latencies'].items()}),
                        kept['machine'])
        return Done(Run(**fields), kept['machine'])

    def save(self, protocol: str, job: Job, spec: TrackerSpec, done: Done) -> None:
        """Keep the run; the file is there whole or not at all."""
        run, path = done.run, self.path(protocol, spec.name, job.sequence.name)
        kept = dict(key=job.key(spec), tracker=spec.name, sequence=job.sequence.name, protocol=protocol,
                    version=__version__, machine=done.machine)
        if isinstance(run, StagesRun):
            kept.update(frames=run.frames.tolist(), every=job.every,
                        overlaps={stage: values.tolist() for stage, values in run.overlaps.items()})
        else:
            kept.update(init_seconds=run.init_seconds, seconds=run.seconds.tolist(), boxes=run.boxes.tolist(),
                        scores=run.scores.tolist(), states=run.states)
        if isinstance(run, StreamRun):
            kept.update(rate=job.rate, latencies=run.latencies)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix('.part')
        part.write_text(json.dumps(kept))
        os.replace(part, path)


def execute_stored(protocol: str, jobs: list[Job], store: Store | None = None, workers: int = 1,
                   ray_address: str | None = None, progress: Callable[[int], object] = lambda count: None
                   ) -> Iterator[tuple[int, Outcome]]:
    """`execute`, but a run that the store has is taken from it, and each new one goes there at once.

    Yields (position in `jobs`, results of all its trackers) in the order in which they are complete.
    """
    ready: list[dict[str, Done]] = [{} for _ in jobs]
    todo, places = [], []
    for index, job in enumerate(jobs):
        for spec in job.specs:
            if store is not None and (done := store.load(protocol, job, spec)) is not None:
                ready[index][spec.name] = done
        missing = tuple(spec for spec in job.specs if spec.name not in ready[index])
        progress(job.frames // max(len(job.specs), 1) * (len(job.specs) - len(missing)))
        if missing:
            todo.append(dataclasses.replace(job, specs=missing))
            places.append(index)
        else:
            yield index, ready[index]
    for position, results in execute(todo, workers, ray_address, progress):
        index = places[position]
        if isinstance(results, Exception):
            yield index, results
            continue
        ready[index].update(results)
        if store is not None:
            for spec in todo[position].specs:
                store.save(protocol, todo[position], spec, results[spec.name])
        yield index, ready[index]


def _digest(*parts) -> str:
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def _file_digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
