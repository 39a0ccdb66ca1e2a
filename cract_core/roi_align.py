"""RoIAlign as two small matrix products, and the pyramid of Section 3.3 (PRoIAlign). Numpy or torch.

Bilinear sampling is separable: the average of the samples of a bin is W_y F W_x^T, with one row of weights per bin and
axis. That needs no compiled operator, is differentiable in the box, and exports to every runtime.
"""
from __future__ import annotations

import numpy as np

from .boxes import constant
from .crop import CELL_CENTER, STRIDE

BINS = 6
SAMPLES = 2
LEVELS = (6, 3, 1)


def bin_weights(low, high, cells: int, bins: int = BINS, samples: int = SAMPLES):
    """Weights of the cells of one axis in the bins of boxes that reach from `low` to `high` (N,), in crop pixels.

    Returns (N, bins, cells). Each bin averages `samples` evenly spaced bilinear samples; samples beyond the outermost
    cell take that cell's value.
    """
    count = bins * samples
    steps, grid = constant((np.arange(count) + 0.5) / count, low), constant(np.arange(cells), low)
    points = low[:, None] + (high - low)[:, None] * steps                            # (N, count) pixels
    index = ((points - CELL_CENTER) / STRIDE).clip(0, cells - 1)                      # pixels -> cells
    weights = (1 - abs(index[..., None] - grid)).clip(min=0)                         # (N, count, cells)
    return weights.reshape(-1, bins, samples, cells).mean(2)


def channels_last(features):
    """(B, C, H, W) -> (B, H, W, C)."""
    return features.transpose(0, 2, 3, 1) if isinstance(features, np.ndarray) else features.permute(0, 2, 3, 1)


def pool(planes, boxes, bins: int = BINS, samples: int = SAMPLES):
    """RoIAlign: planes (B, H, W, C), boxes (B, N, 4) corners in crop pixels -> (B, N, bins, bins, C)."""
    batch, height, width, channels = planes.shape
    count, flat = boxes.shape[1], boxes.reshape(-1, 4)
    rows = bin_weights(flat[:, 1], flat[:, 3], height, bins, samples).reshape(batch, count * bins, height)
    columns = bin_weights(flat[:, 0], flat[:, 2], width, bins, samples).reshape(batch, count, 1, bins, width)
    banded = rows @ planes.reshape(batch, height, width * channels)                  # rows pooled
    return columns @ banded.reshape(batch, count, bins, width, channels)


def roi_align(features, boxes, bins: int = BINS, samples: int = SAMPLES):
    """features (B, C, H, W), boxes (B, N, 4) corners in crop pixels -> (B, N, bins, bins, C), channels last."""
    return pool(channels_last(features), boxes, bins, samples)


def _level_means() -> np.ndarray:
    """(36 * 3, 36): each bin at each level, as a mean over fine bins."""
    row, column = np.divmod(np.arange(BINS * BINS), BINS)
    means = []
    for bins in LEVELS:
        place = row * bins // BINS * bins + column * bins // BINS
        same = np.equal.outer(place, place)
        means.append(same / same.sum(1, keepdims=True))
    return np.stack(means, 1).reshape(-1, BINS * BINS)


LEVEL_MEANS = _level_means()


def pyramid(pooled):
    """The levels 6x6, 3x3 and 1x1 on one grid: (M, 6, 6, C) -> (M, 6, 6, 3C).

    RoIAlign with 3x3 bins of 4x4 samples is exactly the 2x2 average of the 6x6 bins of 2x2 samples, and 1x1 is their
    mean: one RoIAlign pays for all levels, and one small matrix product makes them.
    """
    count, _, _, channels = pooled.shape
    levels = constant(LEVEL_MEANS, pooled) @ pooled.reshape(count, BINS * BINS, channels)
    return levels.reshape(count, BINS, BINS, len(LEVELS) * channels)


def pyramid_roi_align(features, boxes):
    """PRoIAlign (Eq. 1, 2, 5): torch features (B, C, H, W), boxes (B, N, 4) -> (B * N, 3C, 6, 6), channels last in memory."""
    return pyramid(roi_align(features, boxes).flatten(0, 1)).permute(0, 3, 1, 2)
