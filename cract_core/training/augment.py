"""Template and search crops of a batch of pairs, cut and augmented on the device of the images.

All crops of a batch are made by a handful of batched operations: an affine grid for each crop, one bilinear sampling,
a second layer pasted over or under it, then colour, blur and noise.
"""
from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..boxes import area, from_center, to_center
from ..crop import CONTEXT, SEARCH_SIZE, TEMPLATE_SIZE
from .data import CANVAS, MASK, ImageBank

BLUR_SIZE = 11


@dataclass(frozen=True)
class Augmentation:
    """Probabilities and ranges; the defaults are the training recipe."""
    shift: float = 64.0          # search region: target off the middle, pixels of the crop, uniform
    scale: float = 0.25          # log scale against the template, uniform
    aspect: float = 0.15         # log of width / height change
    rotation: float = 0.35       # radians, uniform: a drone that yaws turns its whole picture
    rotated: float = 0.3         # share of pairs with rotation
    grey: float = 0.2            # both crops without colour
    colour: float = 0.25         # contrast, brightness and channel gains
    blurred: float = 0.2         # motion blur of the search crop
    noisy: float = 0.2           # sensor noise
    negative: float = 0.12       # template and search show different objects
    pasted: float = 0.5          # another object in the search region
    swapped: float = 0.15        # target in front of another scene
    swapped_large: float = 0.55  # the same for objects that fill their image, whose search region would be bare
    same_class: float = 0.5      # pasted object of the target's class, where there is one


@dataclass
class Pairs:
    """template (B, 3, 129, 129) and search (B, 3, 257, 257) crops, BGR 0..255; boxes (B, 4) corners in their pixels;
    negative (B,) bool: the template's object is not in the search crop."""
    template: Tensor
    template_box: Tensor
    search: Tensor
    search_box: Tensor
    negative: Tensor


def turned_size(size: Tensor, angle: Tensor) -> Tensor:
    """Width and height (B, 2) of the upright box around an object turned by `angle` (B,) radians.

    Objects lie between an ellipse and a rectangle that fill their box: the mean of both.
    """
    cos, sin = angle.cos().abs()[:, None], angle.sin().abs()[:, None]
    other = size.flip(-1)
    rectangle = size * cos + other * sin
    ellipse = torch.sqrt((size * cos) ** 2 + (other * sin) ** 2)
    return (rectangle + ellipse) / 2


class PairSampler:
    """Draws batches of pairs from a bank. All randomness comes from `generator`, on the bank's device."""

    def __init__(self, bank: ImageBank, augmentation: Augmentation, generator: torch.Generator):
        self.bank, self.table, self.aug, self.generator = bank, bank.objects, augmentation, generator
        order = torch.argsort(self.table.label, stable=True)
        labels = self.table.label[order].contiguous()
        self.by_label = order
        self.first = torch.searchsorted(labels, self.table.label.contiguous())
        self.count = torch.searchsorted(labels, self.table.label.contiguous(), right=True) - self.first

    def uniform(self, *shape: int) -> Tensor:
        """In [-1, 1)."""
        return torch.rand(shape, generator=self.generator, device=self.bank.device) * 2 - 1

    def chance(self, count: int, share: float) -> Tensor:
        return torch.rand(count, generator=self.generator, device=self.bank.device) < share

    def draw(self, count: int) -> Tensor:
        """Indices of `count` objects by weight."""
        return torch.multinomial(self.table.weight, count, replacement=True, generator=self.generator)

    def sample(self, count: int) -> Pairs:
        """A batch of `count` pairs."""
        aug = self.aug
        target = self.draw(count)
        flip = torch.where(self.chance(count, 0.5), -1.0, 1.0)
        template, template_box = self._template(target, flip)
        seen = self.table.partner[target]
        shift = self.uniform(count, 2) * aug.shift
        search, search_box, mask = self._search(seen, flip, shift)
        search = self._second_layer(search, search_box, mask, seen)
        template, search = self._colour(template), self._colour(search)
        grey = self.chance(count, aug.grey)[:, None, None, None]
        template = torch.where(grey, template.mean(1, keepdim=True), template)
        search = torch.where(grey, search.mean(1, keepdim=True), search)
        search = self._blur(search)
        noise = self.chance(count, aug.noisy).float() * self.uniform(count).abs() * 12
        search = search + noise[:, None, None, None] * torch.randn(
            search.shape, generator=self.generator, device=search.device)
        # a negative pair takes its neighbour's template; neighbours are drawn independently
        negative = self.chance(count, aug.negative) & (self.table.image[target.roll(1)] != self.table.image[seen])
        template = torch.where(negative[:, None, None, None], template.roll(1, 0), template)
        template_box = torch.where(negative[:, None], template_box.roll(1, 0), template_box)
        return Pairs(template, template_box, search.clamp(0, 255), search_box, negative)

    def _context_side(self, box: Tensor) -> Tensor:
        width, height = to_center(box)[:, 2:].unbind(-1)
        context = CONTEXT * (width + height)
        return torch.sqrt((width + context) * (height + context))

    def _cut(self, image: Tensor, center: Tensor, step: Tensor, angle: Tensor, anchor: Tensor, size: int):
        """Sample crops: the crop pixel `anchor` (B, 2) shows the image point `center` (B, 2); `step` (B, 2) image
        pixels a crop pixel, negative to flip. Returns colour (B, 3, size, size) and mask (B, 1, size, size) 0..1."""
        line = torch.arange(size, device=center.device) + 0.5
        v, u = torch.meshgrid(line, line, indexing='ij')
        offset = (torch.stack([u, v], -1) - anchor[:, None, None]) * step[:, None, None]
        cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
        x, y = offset.unbind(-1)
        point = torch.stack([x * cos - y * sin, x * sin + y * cos], -1) + center[:, None, None]
        mean = torch.cat([self.bank.mean[image], torch.zeros_like(self.bank.mean[image][:, :1])], 1)[..., None, None]
        pixels = self.bank.pixels[image].float() - mean
        crop = F.grid_sample(pixels, point * (2 / CANVAS) - 1, align_corners=False) + mean
        return crop[:, :MASK], crop[:, MASK:] / 255

    def _template(self, target: Tensor, flip: Tensor) -> tuple[Tensor, Tensor]:
        count = len(target)
        box = self.table.box[target]
        step = self._context_side(box)[:, None] / TEMPLATE_SIZE * torch.exp(0.04 * self.uniform(count, 1))
        anchor = TEMPLATE_SIZE / 2 + 3 * self.uniform(count, 2)
        center = to_center(box)
        crop, _ = self._cut(self.table.image[target], center[:, :2], step * torch.stack([flip, flip.abs()], -1),
                            torch.zeros_like(flip), anchor, TEMPLATE_SIZE)
        return crop, from_center(torch.cat([anchor, center[:, 2:] / step], -1))

    def _search(self, target: Tensor, flip: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Crop, box and, at each pixel, how much of it belongs to the target."""
        aug, count = self.aug, len(target)
        box = self.table.box[target]
        stretch = aug.scale * self.uniform(count, 1) + aug.aspect / 2 * self.uniform(count, 1) * torch.tensor(
            [1.0, -1.0], device=box.device)
        step = self._context_side(box)[:, None] / TEMPLATE_SIZE * torch.exp(stretch)
        anchor = SEARCH_SIZE / 2 + shift
        angle = self.chance(count, aug.rotated) * self.uniform(count) * aug.rotation
        center = to_center(box)
        crop, mask = self._cut(self.table.image[target], center[:, :2], step * torch.stack([flip, flip.abs()], -1),
                               angle, anchor, SEARCH_SIZE)
        size = turned_size(center[:, 2:] / step, angle)
        soft = self._soft_box(anchor, size * 1.05)
        masked = self.table.masked[target][:, None, None, None]
        return crop, from_center(torch.cat([anchor, size], -1)), torch.where(masked, mask, soft)

    def _soft_box(self, center: Tensor, size: Tensor) -> Tensor:
        """Alpha (B, 1, 257, 257) of a box with rounded corners and a soft rim."""
        line = torch.arange(SEARCH_SIZE, device=center.device) + 0.5
        x = ((line - center[:, :1]).abs() / (size[:, :1] / 2))[:, None, :]
        y = ((line - center[:, 1:]).abs() / (size[:, 1:] / 2))[:, :, None]
        power = 2 + 3 * (self.uniform(len(center)) + 1)[:, None, None]
        radius = (x ** power + y ** power) ** (1 / power)
        return torch.sigmoid((1 - radius) * 14)[:, None]

    def _second_layer(self, search: Tensor, box: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        """Paste another object into the search region, or put the target in front of another scene."""
        aug, count = self.aug, len(target)
        large = area(self.table.box[target]) > 0.12 * self.bank.size[self.table.image[target]].prod(-1)
        swap = torch.where(large, self.chance(count, aug.swapped_large), self.chance(count, aug.swapped))
        paste = self.chance(count, aug.pasted) & ~swap
        active = torch.nonzero(swap | paste)[:, 0]
        if not len(active):
            return search
        swap, paste, target, mask = swap[active], paste[active], target[active], mask[active]
        count = len(active)
        other = self.draw(count)
        pick = (torch.rand(count, generator=self.generator, device=box.device) * self.count[target]).long()
        kin = self.by_label[self.first[target] + pick]
        related = self.chance(count, aug.same_class) & (self.table.label[target] >= 0) & paste
        other = torch.where(related, kin, other)
        other_box = to_center(self.table.box[other])
        target_box = to_center(box[active])
        # the pasted object gets about the target's size
        scale = torch.sqrt(target_box[:, 2:].prod(-1) / other_box[:, 2:].prod(-1).clamp(min=1))
        scale = scale * torch.exp(0.4 * self.uniform(count))
        anchor = SEARCH_SIZE / 2 + self.uniform(count, 2) * 104
        flip = torch.where(self.chance(count, 0.5), -1.0, 1.0)
        # a new ground must fill the search region
        frame = self.bank.size[self.table.image[other]]
        fill = SEARCH_SIZE / frame.amin(-1) * torch.exp(0.35 * (self.uniform(count) + 1))
        under = swap[:, None]
        layer, layer_mask = self._cut(
            self.table.image[other], torch.where(under, frame / 2, other_box[:, :2]),
            torch.stack([flip, flip.abs()], -1) / torch.where(swap, fill, scale)[:, None],
            0.3 * self.uniform(count) * paste, torch.where(under, SEARCH_SIZE / 2, anchor), SEARCH_SIZE)
        size = other_box[:, 2:] * scale[:, None]
        soft = self._soft_box(anchor, size)
        alpha = torch.where(self.table.masked[other][:, None, None, None], layer_mask, soft)
        # no second copy of the same picture, and at most a third of the target hidden
        pasted_box, kept_box = from_center(torch.cat([anchor, size], -1)), box[active]
        common = torch.cat([torch.maximum(pasted_box[:, :2], kept_box[:, :2]),
                            torch.minimum(pasted_box[:, 2:], kept_box[:, 2:])], -1)
        hidden = torch.where((common[:, 2:] > common[:, :2]).all(-1), area(common), 0) / area(kept_box).clamp(min=1)
        fine = paste & (hidden < 0.33) & (self.table.image[other] != self.table.image[target])
        alpha = alpha * fine[:, None, None, None]
        different = swap & (self.table.image[other] != self.table.image[target])
        alpha = torch.where(different[:, None, None, None], 1 - mask, alpha)
        out = search.clone()
        out[active] = search[active] * (1 - alpha) + layer * alpha
        return out

    def _colour(self, crop: Tensor) -> Tensor:
        amount, count = self.aug.colour, len(crop)
        gain = torch.exp(amount * self.uniform(count, 1, 1, 1) + amount / 3 * self.uniform(count, 3, 1, 1))
        level = crop.mean((1, 2, 3), keepdim=True)
        contrast = torch.exp(amount * self.uniform(count, 1, 1, 1))
        grey = crop.mean(1, keepdim=True)
        saturation = torch.exp(amount * self.uniform(count, 1, 1, 1))
        crop = grey + (crop - grey) * saturation
        return ((crop - level) * contrast + level * gain + 12 * self.uniform(count, 1, 1, 1)).clamp(0, 255)

    def _blur(self, crop: Tensor) -> Tensor:
        """Motion blur along a line of random length and direction."""
        chosen = torch.nonzero(self.chance(len(crop), self.aug.blurred))[:, 0]
        if not len(chosen):
            return crop
        count, middle = len(chosen), BLUR_SIZE // 2
        angle, length = math.pi * self.uniform(count), 1.5 + 3.5 * (self.uniform(count) + 1) / 2
        line = (torch.arange(BLUR_SIZE, device=crop.device) - middle).float()
        y, x = torch.meshgrid(line, line, indexing='ij')
        along = x * angle.cos()[:, None, None] + y * angle.sin()[:, None, None]
        across = y * angle.cos()[:, None, None] - x * angle.sin()[:, None, None]
        kernel = (1 - across.abs()).clamp(min=0) * (length[:, None, None] + 0.5 - along.abs()).clamp(0, 1)
        kernel = kernel / kernel.sum((1, 2), keepdim=True)
        blurred = F.conv2d(crop[chosen].reshape(1, 3 * count, *crop.shape[-2:]),
                           kernel[:, None].repeat_interleave(3, 0), padding=middle, groups=3 * count)
        out = crop.clone()
        out[chosen] = blurred.view(count, 3, *crop.shape[-2:])
        return out
