"""The coarse stage: a Siamese region proposal network on phi34 (Section 3.1, Algorithm 1 line 6)."""
from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbone import conv_norm
from .boxes import from_center
from .crop import CELL_CENTER, STRIDE
from .proposals import RATIOS, RESPONSE_CELLS

ANCHOR_SIDE = 64      # scale 8 at stride 8
TEMPLATE_CELLS = 7    # centre part of phi34(z) that is correlated
FIRST_CELL = 3        # cell of phi34(x) under response cell 0: 33 cells, 3x3 convolution, 5x5 kernel


class Kernels(NamedTuple):
    """What the template contributes to the correlation: (B, C, 5, 5) each."""
    classify: Tensor
    regress: Tensor


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
