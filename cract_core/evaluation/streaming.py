"""The streaming protocol: accuracy at the rate at which a camera delivers frames.

Frame i comes at i / rate seconds. A frame that comes while the tracker is busy is dropped. The answer that stands for
frame i is the newest one that is ready when frame i + 1 comes; so a tracker that needs less than a frame's time
scores the same as without a clock. That is the rule of the VOT real-time challenge (Kristan et al., The Visual
Object Tracking VOT2017 Challenge Results, sec. 2.2), with the latency of the first frame counted too, as in streaming
perception (Li et al., Towards Streaming Perception, ECCV 2020).

Time is simulated from latencies, which are measured while the tracker runs, or read from the trace of an earlier run:
the same trace gives the same dropped frames and, from a deterministic tracker, the same answers.
"""
from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Callable, Mapping

import numpy as np

from .runner import Run
from .sequences import Sequence


@dataclass(frozen=True)
class StreamRun(Run):
    """A run against the clock: row i of `boxes`, `scores`, `states` is the answer that stood for frame i.

    `seconds` are the latencies of the processed frames only; `latencies` maps every processed frame, 0 being init,
    to its latency.
    """

    latencies: dict[int, float]

    @property
    def dropped(self) -> int:
        """Frames that came while the tracker was busy."""
        return len(self.boxes) - len(self.latencies)


def run_stream(tracker, sequence: Sequence, rate: float, trace: Mapping[int, float] | None = None,
               progress: Callable[[], object] = lambda: None) -> StreamRun:
    """Run `tracker` over `sequence` at `rate` frames a second; `progress` is called after each frame.

    `trace`: frame -> latency in seconds, in place of the measured ones. ValueError if it lacks a frame that the
    tracker would process, or the first frame has no box.
    """
    if np.isnan(sequence.truth[0]).any():
        raise ValueError(f'{sequence.name}: the target is absent in the first frame, where tracking has to start')

    def latency(index: int, measured: float) -> float:
        if trace is None:
            return measured
        if index not in trace:
            raise ValueError(f'the latency trace has no frame {index} of {sequence.name}: it was recorded at another '
                             'rate, or on other sequences')
        return trace[index]

    standing = (np.asarray(sequence.truth[0], float), 1.0, 'tracking')
    pending, free, latencies, rows = None, 0.0, {}, []
    for index, frame in enumerate(sequence.frames()):
        now = index / rate
        if now >= free - 1e-9:  # idle: this frame is processed
            start = time.perf_counter()
            if index:
                estimate = tracker.update(frame)
                pending = estimate.box, estimate.score, estimate.state.value
            else:
                tracker.init(frame, sequence.truth[0])
                pending = standing
            latencies[index] = latency(index, time.perf_counter() - start)
            free = now + latencies[index]
        if free <= (index + 1) / rate + 1e-9:
            standing = pending
        rows.append(standing)
        progress()
    boxes, scores, states = zip(*rows)
    return StreamRun(np.array(boxes), np.array(scores), tuple(states), latencies[0],
                     np.array([seconds for index, seconds in latencies.items() if index]), latencies)
