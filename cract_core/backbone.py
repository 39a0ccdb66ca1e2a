"""ResNet-18 up to its third stage, and the fused map phi34 (Section 3.2.1).

Block 3 and block 4 of the paper are taken as `layer2` (128 channels, stride 8) and `layer3` (256 channels, stride 16).
phi34 = conv1x1(concat(phi4 upsampled to stride 8, phi3)). Cell i of a stride-8 map sees the image around
i * 8 + 0.5 (continuous pixels): the padding of every layer is symmetric and the input size is 16k + 1.
"""
from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PHI3_CHANNELS, PHI4_CHANNELS = 128, 256

# ImageNet statistics of torchvision, in the channel order of OpenCV (BGR), for pixels 0..255
PIXEL_MEAN = (103.530, 116.280, 123.675)
PIXEL_STD = (57.375, 57.120, 58.395)


def conv_norm(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """A convolution without padding and its batch norm, which `fold` merges after training."""
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(inputs, outputs, kernel), norm=nn.BatchNorm2d(outputs)))


@torch.no_grad()
def fold(block: nn.Sequential) -> None:
    """Merge the batch norm of a `conv_norm` block into its convolution, in place; the output in eval mode stays."""
    if isinstance(block.norm, nn.Identity):
        return
    norm, conv = block.norm, block.conv
    gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    conv.weight.mul_(gain[:, None, None, None])
    conv.bias.copy_((conv.bias - norm.running_mean) * gain + norm.bias)
    block.norm = nn.Identity()


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut; batch norm is already folded into them."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride)) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.downsample(x))


class Backbone(nn.Module):
    """Stem to layer3 of ResNet-18, with the parameter names of torchvision and batch norm folded."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3)
        self.layer1 = nn.Sequential(BasicBlock(64, 64, 1), BasicBlock(64, 64, 1))
        self.layer2 = nn.Sequential(BasicBlock(64, PHI3_CHANNELS, 2), BasicBlock(PHI3_CHANNELS, PHI3_CHANNELS, 1))
        self.layer3 = nn.Sequential(
            BasicBlock(PHI3_CHANNELS, PHI4_CHANNELS, 2), BasicBlock(PHI4_CHANNELS, PHI4_CHANNELS, 1))
        self.register_buffer('mean', torch.tensor(PIXEL_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(PIXEL_STD).view(3, 1, 1), persistent=False)

    def forward(self, crop: Tensor) -> tuple[Tensor, Tensor]:
        """crop (B, 3, S, S) BGR 0..255, S = 16k + 1 -> phi3 (B, 128, 2k + 1, 2k + 1), phi4 (B, 256, k + 1, k + 1)."""
        x = (crop - self.mean) / self.std
        x = F.max_pool2d(F.relu(self.conv1(x)), 3, 2, 1)
        phi3 = self.layer2(self.layer1(x))
        return phi3, self.layer3(phi3)


class Fusion(nn.Module):
    """phi34 = conv(concat(phi4, phi3)), on the stride-8 grid."""

    def __init__(self, channels: int):
        super().__init__()
        self.mix = conv_norm(PHI4_CHANNELS + PHI3_CHANNELS, channels, 1)

    def forward(self, phi3: Tensor, phi4: Tensor) -> Tensor:
        """-> phi34 (B, channels, 2k + 1, 2k + 1). align_corners puts the old cells exactly on every second new one."""
        phi4 = F.interpolate(phi4, size=phi3.shape[-2:], mode='bilinear', align_corners=True)
        return self.mix(torch.cat([phi4, phi3], 1))
