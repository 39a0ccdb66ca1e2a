"""One-pass evaluation (OPE): start on the first frame with its true box, then follow to the end without help."""
from __future__ import annotations

import contextlib
import os
import platform
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Callable

import cv2
import numpy as np

from ..runtime import PACKAGES, cuda_found
from . import metrics
from .sequences import Sequence

AVERAGE_OVERLAP = ('ao', 'sr50', 'sr75')
LOSSES = ('off', 'false_loss', 'frozen')    # lower is better
BUSY = 0.25     # cores at work for others that are worth a word


@dataclass(frozen=True)
class Run:
    """What a tracker answered on one sequence of N frames; row 0 is the box that it was given."""

    boxes: np.ndarray           # (N, 4) x, y, w, h
    scores: np.ndarray          # (N,) in [0, 1]
    states: tuple[str, ...]     # N values of State
    init_seconds: float         # wall time of init
    seconds: np.ndarray         # (N - 1,) wall time of each update, decoding excluded


def run_sequence(tracker, sequence: Sequence, progress: Callable[[], object] = lambda: None) -> Run:
    """Run `tracker` over `sequence`; `progress` is called after each frame.

    Frames are decoded one at a time, outside of the measured time. ValueError if the first frame has no box.
    """
    if np.isnan(sequence.truth[0]).any():
        raise ValueError(f'{sequence.name}: the target is absent in the first frame, where tracking has to start')
    boxes, scores, states, seconds = [sequence.truth[0]], [1.0], ['tracking'], []
    frames = sequence.frames()
    frame = next(frames)
    start = time.perf_counter()
    tracker.init(frame, sequence.truth[0])
    init_seconds = time.perf_counter() - start
    progress()
    for frame in frames:
        start = time.perf_counter()
        estimate = tracker.update(frame)
        seconds.append(time.perf_counter() - start)
        boxes.append(estimate.box)
        scores.append(estimate.score)
        states.append(estimate.state.value)
        progress()
    return Run(np.array(boxes), np.array(scores), tuple(states), init_seconds, np.array(seconds))


def summarize(run: Run, sequence: Sequence) -> dict[str, float | int | None]:
    """Figures of one sequence: accuracy, latency percentiles (ms), frames a second at the median.

    `auc` of success, `precision` at 20 px, `norm_precision` at 0.2; `ao`, `sr50` and `sr75` over the `counted` frames
    with the target after the first; `off`, `false_loss` and `frozen` (see `metrics.loss_shares`). None where the truth
    is withheld or there is no such frame.
    """
    figures = dict(frames=len(sequence.images), auc=None, precision=None, norm_precision=None, **dict.fromkeys(LOSSES))
    lost = np.array([state == 'lost' for state in run.states])
    following = np.full(1, np.nan)
    if sequence.annotated:
        counts = sequence.absent_counts
        figures.update(auc=metrics.success_auc(metrics.overlaps(run.boxes, sequence.truth), counts),
                       precision=metrics.precision(metrics.center_errors(run.boxes, sequence.truth),
                                                   absent_counts=counts),
                       norm_precision=metrics.normalized_precision(
                           metrics.normalized_errors(run.boxes, sequence.truth), absent_counts=counts),
                       **metrics.loss_shares(run.boxes, sequence.truth, lost))
        boxes, truth = run.boxes, sequence.truth
        if sequence.frame_size:
            boxes, truth = (metrics.clip_boxes(some, sequence.frame_size) for some in (boxes, truth))
            truth[~(truth[:, 2:] > 0).all(axis=1)] = np.nan
        following = metrics.overlaps(boxes, truth)[1:]
    counted = int((~np.isnan(following)).sum())
    figures.update(metrics.average_overlap(following) if counted else dict.fromkeys(AVERAGE_OVERLAP), counted=counted,
                   init_ms=run.init_seconds * 1e3,
                   lost=float(lost.mean()), **latency(run.seconds))
    return figures


def mean_figures(figures: list[dict], runs: list[Run]) -> dict[str, float | int | None]:
    """Accuracy and `LOSSES` averaged over sequences (each counts the same, as in OTB), latency over all updates.

    `ao`, `sr50` and `sr75` are over all frames together (each counts the same, as in GOT-10k).
    """
    counted = sum(one['counted'] for one in figures)
    return dict(sequences=len(figures), frames=sum(one['frames'] for one in figures), counted=counted,
                **{key: None if any(one[key] is None for one in figures) else
                   float(np.mean([one[key] for one in figures])) for key in ('auc', 'precision', 'norm_precision')},
                **{key: sum(one[key] * one['counted'] for one in figures if one['counted']) / counted if counted
                   else None for key in AVERAGE_OVERLAP},
                **{key: float(np.mean(some)) if (some := [one[key] for one in figures if one[key] is not None])
                   else None for key in LOSSES},
                **latency(np.concatenate([run.seconds for run in runs])))


def latency(seconds: np.ndarray) -> dict[str, float | None]:
    """Median and 95th percentile in ms and the rate at the median; None where nothing was measured."""
    if not len(seconds):
        return dict(p50_ms=None, p95_ms=None, fps=None)
    p50, p95 = np.percentile(seconds, (50, 95)) * 1e3
    return dict(p50_ms=float(p50), p95_ms=float(p95), fps=float(1e3 / p50))


class OtherLoad:
    """How much other work the machine does from the making of this on."""

    def __init__(self):
        self._begun = self._now()

    @staticmethod
    def _now() -> tuple[float, float | None, float]:
        """Seconds on the clock, of all processors together (None where the system does not tell), and of this process
        and the children that it has waited for."""
        busy = None
        if os.path.exists('/proc/stat'):
            with open('/proc/stat') as lines:
                ticks = [int(word) for word in next(lines).split()[1:9]]    # user nice system idle iowait irq softirq steal
            busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf('SC_CLK_TCK')
        return time.monotonic(), busy, sum(os.times()[:4])

    @property
    def cores(self) -> float | None:
        """Cores that others kept busy, on average; None where it cannot be known."""
        (begun, before, own_before), (now, after, own) = self._begun, self._now()
        if before is None or after is None or now - begun < 0.1:
            return None
        return max((after - before) - (own - own_before), 0.0) / (now - begun)

    def sentence(self) -> str:
        """What to say of it; empty if the machine was left alone."""
        cores = self.cores
        return '' if cores is None or cores <= BUSY else (
            f'the machine was busy with other work: {cores:.1f} of {os.cpu_count()} cores on average; latencies are '
            'longer than on an idle one')


def environment(load: OtherLoad | None = None) -> dict[str, object]:
    """The machine and the versions that a measured latency belongs to, and with `load` the cores that others kept busy.
    """
    return dict(**(dict(other_load=load.cores) if load else {}), python=platform.python_version(), system=platform.platform(), processor=_processor(),
                cores=_cores(), opencv=cv2.__version__, opencv_threads=cv2.getNumThreads(), numpy=np.__version__,
                **runtime_versions(), cuda=_cuda())


def runtime_versions() -> dict[str, str]:
    """The versions of what may run the networks and is installed."""
    versions = {}
    for package in sorted(set(PACKAGES.values())):
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def _cuda() -> str | None:
    if not cuda_found():
        return None
    import torch
    return torch.cuda.get_device_name()


def machine() -> str:
    """The machine in a few words: its processor and the cores that this process may use."""
    return f'{_processor()}, {_cores()} cores'


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def _processor() -> str:
    """The processor's name as Linux gives it, else what Python knows."""
    if os.path.exists('/proc/cpuinfo'):
        with open('/proc/cpuinfo') as lines:
            for line in lines:
                if line.startswith('model name'):
                    return line.split(':', 1)[1].strip()
    return platform.processor() or platform.machine()
