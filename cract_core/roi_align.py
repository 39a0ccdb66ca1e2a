"""RoIAlign as two small matrix products, and the pyramid of Section 3.3 (PRoIAlign).

Bilinear sampling is separable: the average of the samples of a bin is W_y F W_x^T, with one row of weights per bin and
axis. That needs no compiled operator, is differentiable in the box, and exports to every runtime.
"""
from __future__ import annotations

import torch
from torch import Tensor

from .backbone import CELL_CENTER, STRIDE

BINS = 6
SAMPLES = 2
LEVELS = (6, 3, 1)


def bin_weights(low: Tensor, high: Tensor, cells: int, bins: int = BINS, samples: int = SAMPLES) -> Tensor:
    """Weights of the cells of one axis in the bins of boxes that reach from `low` to `high` (N,), in crop pixels.

    Returns (N, bins, cells). Each bin averages `samples` evenly spaced bilinear samples; samples beyond the outermost
    cell take that cell's value.
    """
    count = bins * samples
    steps = (torch.arange(count, device=low.device, dtype=low.dtype) + 0.5) / count
    points = low[:, None] + (high - low)[:, None] * steps                            # (N, count) pixels
    index = ((points - CELL_CENTER) / STRIDE).clamp(0, cells - 1)                    # pixels -> cells
    grid = torch.arange(cells, device=low.device, dtype=low.dtype)
    weights = (1 - (index[..., None] - grid).abs()).clamp(min=0)                     # (N, count, cells)
    return weights.view(len(low), bins, samples, cells).mean(2)


def roi_align(features: Tensor, boxes: Tensor, bins: int = BINS, samples: int = SAMPLES) -> Tensor:
    """features (B, C, H, W), boxes (B, N, 4) corners in crop pixels -> (B, N, bins, bins, C), channels last."""
    batch, channels, height, width = features.shape
    count = boxes.shape[1]
    flat = boxes.reshape(-1, 4)
    rows = bin_weights(flat[:, 1], flat[:, 3], height, bins, samples).view(batch, count * bins, height)
    columns = bin_weights(flat[:, 0], flat[:, 2], width, bins, samples).view(batch, count, 1, bins, width)
    last = features.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
    banded = torch.bmm(rows, last).view(batch, count, bins, width, channels)         # rows pooled
    return torch.matmul(columns, banded)                                             # (B, N, bins, bins, C)


def pyramid(pooled: Tensor) -> Tensor:
    """The levels 6x6, 3x3 and 1x1 on one grid: (M, 6, 6, C) -> (M, 6, 6, 3C).

    RoIAlign with 3x3 bins of 4x4 samples is exactly the 2x2 average of the 6x6 bins of 2x2 samples, and 1x1 is their
    mean: one RoIAlign pays for all levels.
    """
    count, _, _, channels = pooled.shape
    middle = pooled.view(count, 3, 2, 3, 2, channels).mean((2, 4), keepdim=True)
    middle = middle.expand(-1, -1, 2, -1, 2, -1).reshape(pooled.shape)
    whole = pooled.mean((1, 2), keepdim=True).expand_as(pooled)
    return torch.cat([pooled, middle, whole], -1)


def pyramid_roi_align(features: Tensor, boxes: Tensor) -> Tensor:
    """PRoIAlign (Eq. 1, 2, 5): features (B, C, H, W), boxes (B, N, 4) -> (B * N, 3C, 6, 6), channels-last in memory."""
    return pyramid(roi_align(features, boxes).flatten(0, 1)).permute(0, 3, 1, 2)
