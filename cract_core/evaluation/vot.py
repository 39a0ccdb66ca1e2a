"""VOT's reset-based experiment: the run, accuracy, robustness, expected average overlap (EAO), and the file form.

The tracker is started anew whenever it loses the target: a frame whose region does not touch the true one is a failure;
five frames after it the tracker is started again. A trajectory is a list with one entry a frame: `START`, `FAILURE`,
`SKIPPED`, or a region in pixels: a box `(4,)` x, y, w, h or the corners `(K, 2)` of a polygon.

Source: Kristan et al., The sixth Visual Object Tracking VOT2018 challenge results; the conventions of the VOT toolkit
as in pysot-toolkit, whose figures of VOT-2018 the literature quotes.
"""
from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np

from ..files import read_text, write_text
from .benchmarks import polygon
from .sequences import Sequence

SKIPPED, START, FAILURE = 0, 1, 2
GAP = 5                 # frames from a failure to the next start
BURN_IN = 10            # frames after a start that accuracy leaves out
EAO_LENGTHS = 100, 356  # of VOT-2018, first and last length over which the expected overlap is averaged


@dataclass(frozen=True)
class ResetRun:
    """What a tracker answered on one sequence of N frames, with its restarts."""

    trajectory: list                # N entries: START, FAILURE, SKIPPED or a box (4,)
    overlaps: np.ndarray            # (N,) with the truth; nan where there is no region
    scores: np.ndarray              # (N,) in [0, 1]; nan where there is no region
    init_seconds: np.ndarray        # wall time of each start
    seconds: np.ndarray             # wall time of each update, decoding excluded


def region_overlap(one: np.ndarray, other: np.ndarray, frame_size: tuple[int, int]) -> float:
    """Intersection over union of two regions in pixels of the frame (width, height).

    Counts pixels as the VOT toolkit did in VOT-2018: in the row y a region covers the columns from the floor of its
    left to the floor of its right edge. A polygon that is not convex is filled between its outer edges. (With exact
    areas EAO is smaller by about 0.002.)
    """
    corners = [polygon(region) if np.ndim(region) == 1 else region for region in (one, other)]
    rows = np.concatenate(corners)[:, 1]
    first, last = max(int(np.floor(rows.min())), 0), min(int(np.floor(rows.max())), frame_size[1] - 1)
    rows = np.arange(first, last + 1, dtype=float)[:, None]
    if not rows.size:
        return 0.0
    (left, right), (other_left, other_right) = (_columns(part, rows, frame_size[0]) for part in corners)
    both = _count(np.maximum(left, other_left), np.minimum(right, other_right))
    either = _count(left, right) + _count(other_left, other_right) - both
    return float(both / either) if either else 0.0


def _columns(corners: np.ndarray, rows: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last column inside the polygon `(K, 2)` in each of the rows `(R, 1)`; last < first where there is none.
    """
    (x1, y1), (x2, y2) = corners.T, np.roll(corners, -1, axis=0).T
    crossed = (rows >= np.minimum(y1, y2)) & (rows <= np.maximum(y1, y2)) & (y1 != y2)
    x = x1 + (rows - y1) * (x2 - x1) / np.where(y1 != y2, y2 - y1, 1)
    left = np.floor(np.where(crossed, x, np.inf).min(axis=1))
    right = np.floor(np.where(crossed, x, -np.inf).max(axis=1))
    return np.maximum(left, 0), np.minimum(right, width - 1)


def _count(left: np.ndarray, right: np.ndarray) -> float:
    return np.maximum(right - left + 1, 0).sum()


def trajectory_overlaps(trajectory: list, truth: tuple[np.ndarray, ...],
                        frame_size: tuple[int, int]) -> np.ndarray:
    """Overlap per frame `(N,)`; nan in frames without a region and where the truth is not known."""
    if len(trajectory) != len(truth):
        raise ValueError(f'the trajectory has {len(trajectory)} frames and the truth {len(truth)}')
    return np.array([np.nan if np.ndim(region) == 0 or np.isnan(true).any() else
                     region_overlap(region, true, frame_size) for region, true in zip(trajectory, truth)])


def run_reset(tracker, sequence: Sequence, progress: Callable[[], object] = lambda: None) -> ResetRun:
    """Run `tracker` over `sequence` with restarts; `progress` is called after each frame.

    Starts on the upright box `Sequence.truth`, and judges by the polygons `Sequence.regions` if there are any.
    """
    truth = sequence.regions or tuple(sequence.truth)
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
            entry, score = np.array(estimate.box, float), estimate.score
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


def accuracy(trajectories: list[list], overlaps: list[np.ndarray]) -> float | None:
    """Mean overlap over the frames of all sequences together, without the `BURN_IN` frames from each start on.

    None if no frame remains. Source: pysot-toolkit. (The Python VOT toolkit takes the mean of each sequence, weighted
    by its length, which is a little less.)
    """
    kept = []
    for trajectory, overlap in zip(trajectories, overlaps, strict=True):
        counts = ~np.isnan(overlap)
        for i, entry in enumerate(trajectory):
            if np.ndim(entry) == 0 and entry == START:
                counts[i:i + BURN_IN] = False
        kept.append(overlap[counts])
    kept = np.concatenate(kept)
    return float(kept.mean()) if kept.size else None


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
    """`accuracy`, `robustness`, `failures` and `eao` of one or more sequences; None where too short."""
    trajectories, overlaps = [run.trajectory for run in runs], [run.overlaps for run in runs]
    return dict(accuracy=accuracy(trajectories, overlaps), robustness=robustness(trajectories),
                failures=sum(len(failures(one)) for one in trajectories), eao=eao(trajectories, overlaps))


def write_trajectory(path: Path, trajectory: list) -> None:
    """Write the VOT form: one line a frame, a code or the region's numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, ''.join(f'{_line(entry)}\n' for entry in trajectory))


def _line(entry) -> str:
    return str(entry) if np.ndim(entry) == 0 else ','.join(f'{value:.4f}' for value in entry.ravel())


def read_trajectory(path: Path) -> list:
    """Read what `write_trajectory` writes and what the VOT toolkits write."""
    trajectory = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        try:
            values = [float(value) for value in line.split(',')]
        except ValueError:
            values = []
        if len(values) == 1 and values[0] in (SKIPPED, START, FAILURE):
            trajectory.append(int(values[0]))
        elif len(values) == 4 or len(values) >= 6 and len(values) % 2 == 0:
            trajectory.append(np.array(values) if len(values) == 4 else polygon(values))
        else:
            raise ValueError(f'{path}, line {number}: expected 0, 1, 2, a box x,y,w,h or a polygon x1,y1,x2,y2,..., '
                             f'got {line.strip()!r}')
    return trajectory
