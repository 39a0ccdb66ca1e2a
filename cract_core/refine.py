"""CRAC's two offline-trained heads: box regression R (Eq. 3) and identifier I (Eq. 6)."""
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .boxes import constant, decode
from .roi_align import BINS

# Typical size of R's offsets: targets are divided by it, so that the head works with numbers around 1 (Fast R-CNN)
OFFSET_SCALE = (0.1, 0.1, 0.2, 0.2)


class RelationHead(nn.Module):
    """concat(f_i, f_init) -> one convolution -> three fully connected layers.

    The convolution of a concatenation is the sum of two convolutions; the template's half, `template_term`, is
    computed once per target.
    """

    def __init__(self, channels: int, outputs: int, width: int = 128, hidden: int = 256):
        super().__init__()
        self.channels = channels
        self.conv = nn.Conv2d(2 * channels, width, 3)
        cells = (BINS - 2) ** 2
        self.fc1 = nn.Linear(width * cells, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, outputs)

    def template_term(self, f_init: Tensor) -> Tensor:
        """f_init (B, channels, 6, 6) -> (B, width, 4, 4)."""
        return F.conv2d(f_init, self.conv.weight[:, self.channels:], self.conv.bias)

    def proposal_term(self, f: Tensor) -> Tensor:
        """Proposal features (M, channels, 6, 6) -> (M, width, 4, 4)."""
        return F.conv2d(f, self.conv.weight[:, :self.channels])

    def relate(self, proposal_term: Tensor, template_term: Tensor) -> Tensor:
        """The two halves, which broadcast against each other to (..., width, 4, 4) -> (M, outputs)."""
        x = F.relu(proposal_term + template_term).reshape(-1, self.fc1.in_features)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))

    def forward(self, f: Tensor, template_term: Tensor) -> Tensor:
        return self.relate(self.proposal_term(f), template_term)


def apply_offsets(proposals: Tensor, raw: Tensor) -> Tensor:
    """Eq. 4 on R's raw output: corners (..., 4), raw (..., 4) in units of OFFSET_SCALE -> regressed corners."""
    return decode(proposals, raw * constant(OFFSET_SCALE, raw))
