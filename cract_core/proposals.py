"""Which anchors become the N proposals of a frame (Section 3.1): ranking, non-maximum suppression. Numpy or torch.

On torch nothing is read back to the host and no shape depends on the data: a CUDA graph can hold it.
"""
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .boxes import array_module, iou

RATIOS = (0.33, 0.5, 1.0, 2.0, 3.0)  # height / width of the anchors
RESPONSE_CELLS = 27                   # places a side at which each anchor lies
CANDIDATES = 96                       # best ranked anchors that reach non-maximum suppression
NEAR = 0.8                            # overlap with the last box from which a proposal may take the kept place


class Proposals(NamedTuple):
    """boxes (N, 4) corners in crop pixels and their coarse scores c (N,)."""
    boxes: np.ndarray
    scores: np.ndarray


def cosine_window() -> np.ndarray:
    """(A * 27 * 27,) float32 Hann window over the response, for each anchor: 1 at the middle, 0 at the rim."""
    hann = np.hanning(RESPONSE_CELLS)
    return np.tile(np.outer(hann, hann).ravel(), len(RATIOS)).astype(np.float32)


def change_penalty(boxes, size, strength):
    """SiamRPN's factor in (0, 1] for a change of scale and aspect: boxes (M, 4) corners, size (2,) of the last box."""
    xp = array_module(boxes)
    width, height = ((boxes[:, i + 2] - boxes[:, i]).clip(min=1e-3) for i in (0, 1))

    def padded(w, h):
        return xp.sqrt((w + (w + h) / 2) * (h + (w + h) / 2))

    scale = padded(width, height) / padded(size[0], size[1])
    aspect = (width / height) / (size[0] / size[1])
    change = xp.maximum(scale, 1 / scale) * xp.maximum(aspect, 1 / aspect)
    return xp.exp(-(change - 1) * strength)


def select_proposals(boxes, scores, rank, last, count: int, nms_iou: float, fill_iou: float) -> Proposals:
    """The N proposals of a frame.

    boxes (M, 4), coarse scores (M,), rank (M,) >= 0: penalised and windowed scores that decide who stays; last (4,): the
    last target box in the crop. Those that overlap no better one by more than `nms_iou` come first, best first: they are
    different objects. Places that are left go to further views of them, with overlaps up to `fill_iou`, and where these
    run out, too, to the best one: N never changes. From N = 2 on, one place is kept for the best box that overlaps `last` by more
    than NEAR, so that a target that hardly moves is never suppressed by a neighbour (SPM-Tracker).
    """
    xp = array_module(boxes)
    top = best_indices(rank, min(CANDIDATES, len(rank)))
    overlaps = iou(boxes[top][:, None], boxes[top][None])
    free = spare = rank[top]
    kept: list = []
    for _ in range(count):
        first, second = free.argmax()[None], spare.argmax()[None]
        if kept:
            second = xp.where(spare[second] >= 0, second, kept[0])
            first = xp.where(free[first] >= 0, first, second)
        kept.append(first)
        free = xp.where(overlaps[first][0] > nms_iou, -1.0, free)
        spare = xp.where(overlaps[first][0] > fill_iou, -1.0, spare)
    chosen = top[xp.concatenate(kept)]
    if count == 1:
        return Proposals(boxes[chosen], scores[chosen])
    near = iou(boxes, last) > NEAR
    nearest = xp.where(near, rank, -1.0).argmax()[None]
    missing = near[nearest] & (chosen != nearest).all()
    chosen = xp.concatenate([chosen[:-1], xp.where(missing, nearest, chosen[-1:])])
    return Proposals(boxes[chosen], scores[chosen])


def vote(boxes: np.ndarray, scores: np.ndarray, overlap: float) -> np.ndarray:
    """The mean of the boxes (N, 4) that overlap the best scored one by more than `overlap`, weighted by the cube of their
    scores (N,): each is a look of its own at the same edges. Corners (4,); with an overlap of 1 the best box itself.
    """
    best = boxes[scores.argmax()]
    weight = scores.clip(min=0) ** 3 * (iou(boxes, best) > overlap)
    total = weight.sum()
    return weight @ boxes / total if total > 0 else best


def best_indices(rank, count: int):
    """Indices of the `count` largest values, in no certain order."""
    return np.argpartition(-rank, count - 1)[:count] if isinstance(rank, np.ndarray) else rank.topk(count).indices
