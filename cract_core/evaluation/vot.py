"""VOT's reset-based experiment: the run, accuracy, robustness, expected average overlap (EAO), and the file form.

The tracker is started anew whenever it loses the target: a frame whose region does not touch the true one is a failure;
five frames after it the tracker is started again. A trajectory is a list with one entry a frame: `START`, `FAILURE`,
`SKIPPED`, or the region `(K, 2)`, corners in pixels.

Source: Kristan et al., The sixth Visual Object Tracking VOT2018 challenge results; the conventions of the VOT toolkit
as in pysot-toolkit, whose figures of VOT-2018 the literature quotes.
"""
from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import cv2
import numpy as np

from .benchmarks import polygon
from .sequences import Sequence

SKIPPED, START, FAILURE = 0, 1, 2
GAP = 5                 # frames from a failure to the next start
BURN_IN = 10            # frames after a start that accuracy leaves out
EAO_LENGTHS = 100, 356  # of VOT-2018, first and last length over which the expected overlap is averaged


@dataclass(frozen=True)
class ResetRun:
    """What a tracker answered on one sequence of N frames, with its restarts."""

    trajectory: list                # N entries: START, FAILURE, SKIPPED or a region (K, 2)
    overlaps: np.ndarray            # (N,) with the truth; nan where there is no region
    scores: np.ndarray              # (N,) in [0, 1]; nan where there is no region
    init_seconds: np.ndarray        # wall time of each start
    seconds: np.ndarray             # wall time of each update, decoding excluded


def region_overlap(one: np.ndarray, other: np.ndarray, frame_size: tuple[int, int] | None = None) -> float:
    """Intersection over union of two polygons `(K, 2)`, cut at the frame (width, height) if given. Source: VOT toolkit.

    The areas are exact, where the toolkit counts pixels. A polygon that is not convex stands for its convex hull.
    """
    parts = [cv2.convexHull(np.asarray(region, np.float32)) for region in (one, other)]
    if frame_size is not None:
        frame = polygon((0, 0, *frame_size)).astype(np.float32)
        parts = [part if _inside(part, frame_size) else cv2.intersectConvexConvex(part, frame)[1] for part in parts]
    areas = [0.0 if part is None or len(part) < 3 else float(cv2.contourArea(part)) for part in parts]
    if not all(areas):
        return 0.0
    both = float(cv2.intersectConvexConvex(*parts)[0])
    return min(both / (sum(areas) - both), 1.0) if both > 0 else 0.0


def _inside(part: np.ndarray, frame_size: tuple[int, int]) -> bool:
    return bool((part >= 0).all() and (part <= np.float32(frame_size)).all())


def trajectory_overlaps(trajectory: list, truth: tuple[np.ndarray, ...],
                        frame_size: tuple[int, int] | None = None) -> np.ndarray:
    """Overlap per frame `(N,)`; nan in frames without a region and where the truth is not known."""
    if len(trajectory) != len(truth):
        raise ValueError(f'the trajectory has {len(trajectory)} frames and the truth {len(truth)}')
    return np.array([np.nan if np.ndim(region) == 0 or np.isnan(true).any() else
                     region_overlap(region, true, frame_size) for region, true in zip(trajectory, truth)])


def run_reset(tracker, sequence: Sequence, progress: Callable[[], object] = lambda: None) -> ResetRun:
    """Run `tracker` over `sequence` with restarts; `progress` is called after each frame.

    Starts on the upright box `Sequence.truth`, and judges by the polygons `Sequence.regions` if there are any.
    """
    truth = sequence.regions or tuple(polygon(box) for box in sequence.truth)
    trajectory, overlaps, scores, inits, seconds = [], [], [], [], []
    start_at = 0
    for i, frame in enumerate(sequence.frames()):
        overlap = score = np.nan
        if i < start_at or i == start_at and np.isnan(sequence.truth[i]).any():
            entry, start_at = SKIPPED, max(start_at, i + 1)
        elif i == start_at:
            began = time.perf_counter()
            tracker.init(frame, sequence.truth[i])
            inits.append(time.perf_counter() - began)
            entry = START
        else:
            began = time.perf_counter()
            estimate = tracker.update(frame)
            seconds.append(time.perf_counter() - began)
            entry, score = polygon(estimate.box), estimate.score
            if not np.isnan(truth[i]).any():
                overlap = region_overlap(entry, truth[i], frame.shape[1::-1])
                if overlap == 0:
                    entry, overlap, start_at = FAILURE, np.nan, i + GAP
        trajectory.append(entry)
        overlaps.append(overlap)
        scores.append(score)
        progress()
    return ResetRun(trajectory, np.array(overlaps), np.array(scores), np.array(inits), np.array(seconds))


def failures(trajectory: list) -> list[int]:
    """The frames in which the tracker failed."""
    return [i for i, entry in enumerate(trajectory) if np.ndim(entry) == 0 and entry == FAILURE]


def accuracy(trajectories: list[list], overlaps: list[np.ndarray]) -> float:
    """Mean overlap over all frames of all sequences together, without the `BURN_IN` frames from each start on.

    Source: pysot-toolkit. (The Python VOT toolkit averages per sequence and weighs by length.) ValueError if no frame
    remains.
    """
    kept = []
    for trajectory, overlap in zip(trajectories, overlaps, strict=True):
        counts = ~np.isnan(overlap)
        for i, entry in enumerate(trajectory):
            if np.ndim(entry) == 0 and entry == START:
                counts[i:i + BURN_IN] = False
        kept.append(overlap[counts])
    kept = np.concatenate(kept)
    if not kept.size:
        raise ValueError(f'no frame is left after the {BURN_IN} of each start: nothing to measure')
    return float(kept.mean())


def robustness(trajectories: list[list]) -> float:
    """Failures per hundred frames, all sequences together; less is better. Source: pysot-toolkit."""
    return 100 * sum(len(failures(one)) for one in trajectories) / sum(map(len, trajectories))


def expected_overlap(trajectories: list[list], overlaps: list[np.ndarray]) -> np.ndarray:
    """Expected average overlap over the length of a track, `(L,)` for 1 to L frames. Source: pysot-toolkit.

    Each trajectory falls into fragments, from a start to the next. One that ends in a failure goes on with the overlap
    0 for ever; one that reaches the end of its sequence counts only for lengths up to its own. The value at a length is
    the mean over fragments of their mean overlap so far, the first frame left out; nan where no fragment is so long.
    """
    longest = max(map(len, trajectories))
    sums, counts = np.zeros(longest), np.zeros(longest)
    for trajectory, overlap in zip(trajectories, overlaps, strict=True):
        length = len(trajectory)
        starts = [0] + [frame + GAP for frame in failures(trajectory) if frame + GAP <= length]
        for start, end in zip(starts, starts[1:] + [None]):
            fragment = np.zeros(longest if end is not None else length - start)
            known = np.nan_to_num(overlap[start:end])
            fragment[:len(known)] = known
            if len(fragment) > 1:
                sums[1:len(fragment)] += np.cumsum(fragment[1:]) / np.arange(1, len(fragment))
                counts[1:len(fragment)] += 1
    curve = np.divide(sums, counts, out=np.full(longest, np.nan), where=counts > 0)
    curve[0] = 1
    return curve


def eao(trajectories: list[list], overlaps: list[np.ndarray], lengths: tuple[int, int] = EAO_LENGTHS) -> float | None:
    """Expected average overlap: the mean of `expected_overlap` over the lengths first to last, inclusive.

    None where no track is as long as the first length. Source: pysot-toolkit, with VOT-2018's interval.
    """
    first, last = lengths
    curve = expected_overlap(trajectories, overlaps)[first - 1:last]
    curve = curve[~np.isnan(curve)]
    return float(curve.mean()) if curve.size else None


def summarize(runs: list[ResetRun]) -> dict[str, float | None]:
    """`accuracy` (None if no frame counts), `robustness`, `failures` and `eao` of one or more sequences."""
    trajectories, overlaps = [run.trajectory for run in runs], [run.overlaps for run in runs]
    counted = any(np.ndim(entry) for one in trajectories for entry in one[BURN_IN:])
    return dict(accuracy=accuracy(trajectories, overlaps) if counted else None, robustness=robustness(trajectories),
                failures=sum(len(failures(one)) for one in trajectories), eao=eao(trajectories, overlaps))


def write_trajectory(path: Path, trajectory: list) -> None:
    """Write the VOT form: one line a frame, a code or the region's numbers (x,y,w,h for an upright box)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(f'{_line(entry)}\n' for entry in trajectory))


def _line(entry) -> str:
    if np.ndim(entry) == 0:
        return str(entry)
    low, high = entry.min(axis=0), entry.max(axis=0)
    values = np.concatenate([low, high - low])
    return ','.join(f'{value:.4f}' for value in (values if np.array_equal(polygon(values), entry) else entry.ravel()))


def read_trajectory(path: Path) -> list:
    """Read what `write_trajectory` writes and what the VOT toolkits write."""
    trajectory = []
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        try:
            values = [float(value) for value in line.split(',')]
        except ValueError:
            values = []
        if len(values) == 1 and values[0] in (SKIPPED, START, FAILURE):
            trajectory.append(int(values[0]))
        elif len(values) == 4 or len(values) >= 6 and len(values) % 2 == 0:
            trajectory.append(polygon(values))
        else:
            raise ValueError(f'{path}, line {number}: expected 0, 1, 2, a box x,y,w,h or a polygon x1,y1,x2,y2,..., '
                             f'got {line.strip()!r}')
    return trajectory
