"""The coarse stage: a Siamese region proposal network on phi34 (Section 3.1, Algorithm 1 line 6)."""
from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbone import conv_norm
from .boxes import from_center, iou, nms, to_center
from .crop import CELL_CENTER, STRIDE

RATIOS = (0.33, 0.5, 1.0, 2.0, 3.0)  # height / width
ANCHOR_SIDE = 64                      # scale 8 at stride 8
TEMPLATE_CELLS = 7                    # centre part of phi34(z) that is correlated
RESPONSE_CELLS = 27                   # 33 cells, 3x3 convolution, 5x5 kernel
FIRST_CELL = 3                        # cell of phi34(x) under response cell 0
CANDIDATES = 96                       # best ranked anchors that reach non-maximum suppression


class Kernels(NamedTuple):
    """What the template contributes to the correlation: (B, C, 5, 5) each."""
    classify: Tensor
    regress: Tensor


class Proposals(NamedTuple):
    """boxes (N, 4) corners in crop pixels and their coarse scores c (N,)."""
    boxes: Tensor
    scores: Tensor


def make_anchors() -> Tensor:
    """(A * 27 * 27, 4) corners in crop pixels; anchor a of cell (row, column) has index (a * 27 + row) * 27 + column."""
    centers = (torch.arange(RESPONSE_CELLS) + FIRST_CELL) * STRIDE + CELL_CENTER
    cy, cx = torch.meshgrid(centers, centers, indexing='ij')
    planes = []
    for ratio in RATIOS:
        width, height = ANCHOR_SIDE / ratio ** 0.5, ANCHOR_SIDE * ratio ** 0.5
        planes.append(torch.stack([cx, cy, torch.full_like(cx, width), torch.full_like(cx, height)], -1))
    return from_center(torch.stack(planes)).reshape(-1, 4)


def depthwise_correlation(search: Tensor, kernel: Tensor) -> Tensor:
    """Correlate each channel of search (B, C, H, W) with its own kernel (B, C, h, w), without padding."""
    batch, channels, height, width = search.shape
    out = F.conv2d(search.reshape(1, batch * channels, height, width),
                   kernel.reshape(batch * channels, 1, *kernel.shape[-2:]), groups=batch * channels)
    return out.view(batch, channels, *out.shape[-2:])


class Branch(nn.Module):
    """One of the two outputs: adjust template and search, correlate, and read the result."""

    def __init__(self, channels: int, outputs: int):
        super().__init__()
        self.template = conv_norm(channels, channels, 3)
        self.search = conv_norm(channels, channels, 3)
        self.read = conv_norm(channels, channels, 1)
        self.out = nn.Conv2d(channels, outputs, 1)

    def kernel(self, phi: Tensor) -> Tensor:
        return F.relu(self.template(phi))

    def forward(self, phi: Tensor, kernel: Tensor) -> Tensor:
        # the mean over the kernel keeps the response within the range of its inputs
        response = depthwise_correlation(F.relu(self.search(phi)), kernel) / kernel[0, 0].numel()
        return self.out(F.relu(self.read(response)))


class SiameseRpn(nn.Module):
    """Scores and offsets of five anchors at each of 27 x 27 places."""

    def __init__(self, channels: int):
        super().__init__()
        self.classify = Branch(channels, 2 * len(RATIOS))
        self.regress = Branch(channels, 4 * len(RATIOS))
        self.register_buffer('anchors', make_anchors(), persistent=False)

    def kernels(self, phi: Tensor) -> Kernels:
        """phi34 of the template (B, C, 17, 17) -> its correlation kernels."""
        edge = (phi.shape[-1] - TEMPLATE_CELLS) // 2
        middle = phi[..., edge:edge + TEMPLATE_CELLS, edge:edge + TEMPLATE_CELLS]
        return Kernels(self.classify.kernel(middle), self.regress.kernel(middle))

    def forward(self, phi: Tensor, kernels: Kernels) -> tuple[Tensor, Tensor]:
        """phi34 of the search region (B, C, 33, 33) -> logits (B, M, 2) background, target; offsets (B, M, 4)."""
        batch = len(phi)
        logits = self.classify(phi, kernels.classify).view(batch, len(RATIOS), 2, -1)
        offsets = self.regress(phi, kernels.regress).view(batch, len(RATIOS), 4, -1)
        return logits.transpose(2, 3).reshape(batch, -1, 2), offsets.transpose(2, 3).reshape(batch, -1, 4)


def cosine_window() -> Tensor:
    """(A * 27 * 27,) Hann window over the response, for each anchor: 1 at the middle, 0 at the rim."""
    hann = torch.hann_window(RESPONSE_CELLS, periodic=False)
    return torch.outer(hann, hann).flatten().repeat(len(RATIOS))


def change_penalty(boxes: Tensor, size: Tensor, strength: float) -> Tensor:
    """SiamRPN's factor in (0, 1] for a change of scale and aspect: boxes (M, 4) corners, size (2,) of the last box."""
    width, height = to_center(boxes)[:, 2:].clamp(min=1e-3).unbind(-1)

    def padded(w, h):
        return torch.sqrt((w + (w + h) / 2) * (h + (w + h) / 2))

    scale = padded(width, height) / padded(size[0], size[1])
    aspect = (width / height) / (size[0] / size[1])
    change = torch.maximum(scale, 1 / scale) * torch.maximum(aspect, 1 / aspect)
    return torch.exp(-(change - 1) * strength)


def select_proposals(boxes: Tensor, scores: Tensor, rank: Tensor, last: Tensor, count: int,
                     nms_iou: float) -> Proposals:
    """The N proposals of a frame.

    boxes (M, 4), coarse scores (M,), rank (M,): penalised and windowed scores that decide who stays; last (4,): the
    last target box in the crop. One place is kept for the best box that overlaps `last` by more than 0.8, so that a
    target that hardly moves is never suppressed by a neighbour (SPM-Tracker).
    """
    top = rank.topk(min(CANDIDATES, len(rank))).indices
    kept = top[nms(boxes[top], rank[top], nms_iou, count)]
    near = iou(boxes, last) > 0.8
    best = torch.where(near, rank, rank.new_full((), -1.0)).argmax()
    if near[best] and not (kept == best).any():
        kept = torch.cat([kept[:count - 1], best[None]]) if len(kept) == count else torch.cat([kept, best[None]])
    return Proposals(boxes[kept], scores[kept])
