"""One-pass evaluation (OPE): start on the first frame with its true box, then follow to the end without help."""
from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from typing import Callable

import cv2
import numpy as np

from . import metrics
from .sequences import Sequence


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


def summarize(run: Run, truth: np.ndarray) -> dict[str, float]:
    """Figures of one sequence: AUC, precision at 20 px, latency percentiles (ms), frames a second at the median."""
    return dict(frames=len(truth),
                auc=metrics.success_auc(metrics.overlaps(run.boxes, truth)),
                precision=metrics.precision(metrics.center_errors(run.boxes, truth)),
                init_ms=run.init_seconds * 1e3,
                lost=float(np.mean([state == 'lost' for state in run.states])), **latency(run.seconds))


def mean_figures(figures: list[dict], runs: list[Run]) -> dict[str, float]:
    """Accuracy averaged over sequences (each counts the same, as in OTB), latency over all updates together."""
    return dict(sequences=len(figures), frames=sum(one['frames'] for one in figures),
                **{key: float(np.mean([one[key] for one in figures])) for key in ('auc', 'precision')},
                **latency(np.concatenate([run.seconds for run in runs])))


def latency(seconds: np.ndarray) -> dict[str, float | None]:
    """Median and 95th percentile in ms and the rate at the median; None where nothing was measured."""
    if not len(seconds):
        return dict(p50_ms=None, p95_ms=None, fps=None)
    p50, p95 = np.percentile(seconds, (50, 95)) * 1e3
    return dict(p50_ms=float(p50), p95_ms=float(p95), fps=float(1e3 / p50))


def environment() -> dict[str, object]:
    """The machine and the versions that a measured latency belongs to."""
    import torch
    return dict(python=platform.python_version(), system=platform.platform(), processor=_processor(),
                cores=_cores(),
                opencv=cv2.__version__, opencv_threads=cv2.getNumThreads(), numpy=np.__version__,
                torch=torch.__version__, torch_threads=torch.get_num_threads(),
                cuda=torch.cuda.get_device_name() if torch.cuda.is_available() else None)


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
