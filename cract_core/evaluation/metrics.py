"""Figures of single-object tracking, as functions of arrays.

Boxes are `(N, 4)` arrays x, y, w, h (top-left corner and size, pixels), one row a frame. A row of the truth with a nan
means that the target is absent: its overlap and error are nan, and the figures leave such frames out unless told to
count them as failures.

The first frame counts: its result is the box that the tracker was given, as in the OTB toolkit, which puts the
annotation in place of the first result.
"""
from __future__ import annotations

import numpy as np

THRESHOLDS = np.linspace(0, 1, 21)  # of the success curve: 0, 0.05, ... 1
PRECISION_PIXELS = 20.0
NORMALIZED_PRECISION = 0.2  # of the true width and height
OFF = 0.1   # a box that overlaps the target less is off it


def overlaps(results: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Intersection over union per frame, `(N,)` in [0, 1]; nan where the target is absent.

    Continuous coordinates. The OTB toolkit's `calcRectInt` counts whole pixels (right = x + w - 1, and + 1 on the
    intersection), which is the same number. A result without area overlaps nothing.
    """
    results, truth = _pair(results, truth)
    top_left = np.maximum(results[:, :2], truth[:, :2])
    bottom_right = np.minimum(results[:, :2] + results[:, 2:], truth[:, :2] + truth[:, 2:])
    intersection = np.prod(np.maximum(bottom_right - top_left, 0), axis=1)
    union = np.prod(results[:, 2:], axis=1) + np.prod(truth[:, 2:], axis=1) - intersection
    return np.where(np.isnan(truth).any(axis=1), np.nan, intersection / union)


def center_errors(results: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Distance of the box centres per frame, `(N,)` pixels; nan where the target is absent. Source: OTB toolkit."""
    results, truth = _pair(results, truth)
    distance = np.linalg.norm(results[:, :2] + results[:, 2:] / 2 - truth[:, :2] - truth[:, 2:] / 2, axis=1)
    return np.where(np.isnan(truth).any(axis=1), np.nan, distance)


def normalized_errors(results: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Distance of the box centres in units of the true width and height, `(N,)`; nan where the target is absent.

    Source: TrackingNet devkit, LaSOT toolkit.
    """
    results, truth = _pair(results, truth)
    offset = results[:, :2] + results[:, 2:] / 2 - truth[:, :2] - truth[:, 2:] / 2
    return np.where(np.isnan(truth).any(axis=1), np.nan, np.linalg.norm(offset / truth[:, 2:], axis=1))


def success_curve(overlap: np.ndarray, thresholds: np.ndarray = THRESHOLDS, absent_counts: bool = False) -> np.ndarray:
    """Share of frames whose overlap exceeds (strictly) each threshold, `(21,)`. Source: OTB toolkit.

    A perfect track therefore scores 0 at the threshold 1, and its AUC is 20/21. Frames without the target are left out
    (LaSOT toolkit); with `absent_counts` they count as failures (UAV123's version of the OTB toolkit).
    """
    present = _present(overlap)
    return (present[:, None] > thresholds).sum(axis=0) / (len(overlap) if absent_counts else len(present))


def success_auc(overlap: np.ndarray, absent_counts: bool = False) -> float:
    """Area under the success curve: the mean over its 21 thresholds. Source: OTB toolkit."""
    return float(success_curve(overlap, absent_counts=absent_counts).mean())


def precision(error: np.ndarray, pixels: float = PRECISION_PIXELS, absent_counts: bool = False) -> float:
    """Share of frames whose centre error is at most `pixels` (20 by convention). Source: OTB toolkit."""
    present = _present(error)
    return float((present <= pixels).sum() / (len(error) if absent_counts else len(present)))


def normalized_precision(error: np.ndarray, threshold: float = NORMALIZED_PRECISION,
                         absent_counts: bool = False) -> float:
    """Share of frames whose normalised error is at most `threshold`, 0.2 by convention. Source: LaSOT toolkit."""
    return precision(error, threshold, absent_counts)


def normalized_precision_auc(error: np.ndarray) -> float:
    """Mean of the normalised precision over the thresholds 0, 0.01, ... 0.5. Source: TrackingNet devkit."""
    return float((_present(error)[:, None] <= np.linspace(0, 0.5, 51)).mean())


def average_overlap(overlap: np.ndarray) -> dict[str, float]:
    """Average overlap `ao` and the success rates `sr50` and `sr75` (overlap above 0.5 and 0.75) of one or more tracks.

    Source: GOT-10k toolkit. `overlap` `(N,)` is without first frames, whose box is given, and of all sequences
    together, since there each frame counts the same. Frames without the target are left out. ValueError if none
    remains.
    """
    present = _present(overlap)
    return dict(ao=float(present.mean()), sr50=float((present > 0.5).mean()), sr75=float((present > 0.75).mean()))


def loss_shares(results: np.ndarray, truth: np.ndarray, lost: np.ndarray) -> dict[str, float | None]:
    """What goes wrong in a long run, as shares of the frames after the first in which the target is annotated.

    off: the box is off the target (IoU below 0.1). false_loss: the target is said to be lost (`lost` (N,) bool) while
    it is there. frozen: both, and the box is the very one of the frame before: the tracker waits where the target is
    not. None without such a frame.
    """
    overlap, lost = overlaps(results, truth)[1:], np.asarray(lost, bool)[1:]
    present = ~np.isnan(overlap)
    if not present.any():
        return dict(off=None, false_loss=None, frozen=None)
    off, still = overlap < OFF, (np.asarray(results)[1:] == np.asarray(results)[:-1]).all(axis=1)
    return {name: float(flags[present].mean())
            for name, flags in dict(off=off, false_loss=lost, frozen=off & lost & still).items()}


def clip_boxes(boxes: np.ndarray, frame_size: tuple[int, int]) -> np.ndarray:
    """Boxes `(N, 4)` cut at the borders of the frame (width, height). Source: GOT-10k toolkit, before its overlap."""
    boxes = np.asarray(boxes, float)
    low = np.clip(boxes[:, :2], 0, frame_size)
    return np.concatenate([low, np.clip(boxes[:, :2] + boxes[:, 2:], 0, frame_size) - low], axis=1)


def _pair(results, truth) -> tuple[np.ndarray, np.ndarray]:
    results, truth = np.asarray(results, float), np.asarray(truth, float)
    if results.shape != truth.shape or results.ndim != 2 or results.shape[1] != 4:
        raise ValueError(f'results and truth must both be (N, 4) boxes, got {results.shape} and {truth.shape}')
    if not np.isfinite(results).all():
        raise ValueError('results must be finite: a tracker answers every frame with a box')
    if (results[:, 2:] < 0).any() or (truth[:, 2:] <= 0).any():
        raise ValueError('boxes must have a size: w and h of the truth above 0, of the results not below 0')
    return results, truth


def _present(values) -> np.ndarray:
    """The frames in which the target is present, `(M,)`, M >= 1."""
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    if not values.size:
        raise ValueError('no frame with the target present: nothing to measure')
    return values
