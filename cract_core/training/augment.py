"""Template and search crops of a batch of pairs, cut, pasted together and augmented on the device of the images.

A crop is made of layers: a scene or a ground, the target, distractors, occluders. Each layer is one bilinear sampling
of images through a homography, some targets are solid bodies (`solids`). How many pairs of a batch get an effect is
fixed, which of them is drawn: no step waits for the device.
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..boxes import area, from_center, to_center
from ..crop import SEARCH_SIZE, TEMPLATE_SIZE, context_side
from .data import CANVAS, MASK, ImageBank
from .solids import Pose, Solids, pixel_centers, rotation

BLUR_SIZE = 11
BLOCK = 8   # of JPEG, pixels
BEND_NODES = 5


@dataclass(frozen=True)
class Augmentation:
    """Shares of the pairs and ranges; the defaults are the training recipe."""
    frame_gap: int = 100         # between the two frames of a pair from a video
    shift: float = 64.0          # search region: target off the middle, pixels of the crop, uniform
    scale: float = 0.3           # log of how far the search region misses the target's size, uniform
    aspect: float = 0.25         # log of the stretch against the template, uniform; of pasted objects along any axis
    rotation: float = 0.35       # radians, uniform: a drone that yaws turns its whole picture
    rotated: float = 0.3         # share of pairs with rotation; those of pasted objects are all rotated
    perspective: float = 0.15    # change of scale over the template's side; four times that for pasted objects
    bent: float = 0.5            # pasted objects whose parts move against each other, as limbs do
    bend: float = 0.1            # ... by so much of the box's size at most
    solid: float = 0.3           # pasted objects that are the front of a solid body
    turned: float = 1.4          # ... which turns out of the plane by up to so much between the crops, radians
    pasted: float = 0.6          # objects that are cut out: on another ground
    pasted_large: float = 0.6    # boxes that fill their image, whose search region would be bare: on another ground
    pasted_box: float = 0.1      # other boxes: on another ground, with a soft rim
    same_ground: float = 0.7     # pasted pairs with the same ground in template and search region
    distractor: float = 0.6      # another object in the search region, beside the target
    look_alike: float = 0.4      # distractors that are the target again, altered
    same_class: float = 0.3      # distractors of the target's class
    occluded: float = 0.3        # something in front of a part of the target
    occlusion: float = 0.5       # hidden part of the target at most
    grey: float = 0.15           # both crops without colour
    colour: float = 0.25         # contrast, brightness, saturation and channel gains, log
    lit: float = 0.2             # other exposure, mostly too dark: gamma
    blurred: float = 0.25        # motion blur, or defocus, of the search crop
    noisy: float = 0.2           # sensor noise
    compressed: float = 0.2      # JPEG
    negative: float = 0.12       # template and search show different objects


@dataclass
class Pairs:
    """template (B, 3, 129, 129) and search (B, 3, 257, 257) crops, BGR 0..255; boxes (B, 4) corners in their pixels;
    negative (B,) bool: the template's object is not in the search crop; track (B,) number of the object in that."""
    template: Tensor
    template_box: Tensor
    search: Tensor
    search_box: Tensor
    negative: Tensor
    track: Tensor


class View(NamedTuple):
    """How objects are shown in a crop: the homography from crop to image (B, 3, 3) and the upright box (B, 4) there."""
    inverse: Tensor
    box: Tensor


class Bend(NamedTuple):
    """How a crop's pixels are moved before it is sampled: pixels at nodes (B, 2, n, n) over 1.5 times the box, which is
    given by centre and size (B, 4)."""
    nodes: Tensor
    box: Tensor

    def at(self, points: Tensor) -> Tensor:
        """The move at points (B, P, 2), smooth between the nodes, the same beyond them."""
        place = (points - self.box[:, None, :2]) / (0.75 * self.box[:, None, 2:])
        return F.grid_sample(self.nodes, place[:, None], 'bicubic', 'border', align_corners=True)[:, :, 0].mT


def inverse3(matrix: Tensor) -> Tensor:
    """(B, 3, 3) inverse by cofactors: unlike torch.linalg.inv it does not wait for the device."""
    a, b, c = matrix.unbind(1)
    cofactors = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], -1)
    return cofactors / (a * cofactors[..., 0]).sum(-1)[:, None, None]


class PairSampler:
    """Draws batches of pairs from a bank. All randomness comes from `generator`, on the bank's device."""

    def __init__(self, bank: ImageBank, augmentation: Augmentation, generator: torch.Generator):
        self.bank, self.table, self.aug, self.generator = bank, bank.objects, augmentation, generator
        table, aug = self.table, augmentation
        self.by_label, self.label_span = _spans(table.label, table.label, table.label)
        # rows of a track lie together, by frame: a pair's frames are at most frame_gap apart
        span = int(table.frame.max()) + aug.frame_gap + 1
        key = table.track * (2 * span) + table.frame
        _, self.track_span = _spans(key, key - aug.frame_gap, key + aug.frame_gap)
        large = area(table.box) > 0.12 * bank.size[table.image].prod(-1)
        share = torch.where(table.cut > 0, aug.pasted, torch.where(large, aug.pasted_large, aug.pasted_box))
        self.drawn = _cumulative(table.weight * share), _cumulative(table.weight * (1 - share))
        self.pasted = float(self.drawn[0][-1] / table.weight.sum())
        self.any = _cumulative(table.weight)
        # what is pasted beside or in front of the target: cut-outs, and boxes with a soft rim where there are none
        self.extra = _cumulative(table.weight * torch.where(table.cut > 0, 1.0, 0.05))
        # grounds to paste on: not the target's own image, not those of one object on a plain ground
        scene = table.cut == 0
        self.scenes = torch.unique(table.image[scene if scene.any() else ~scene])

    def uniform(self, *shape: int) -> Tensor:
        """In [-1, 1)."""
        return torch.rand(shape, generator=self.generator, device=self.bank.device) * 2 - 1

    def between(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=self.generator, device=self.bank.device)

    def chance(self, count: int, share: float) -> Tensor:
        return torch.rand(count, generator=self.generator, device=self.bank.device) < share

    def some(self, count: int, share: float) -> Tensor:
        """Indices of a random part of `count` pairs; always as many."""
        order = torch.randperm(count, generator=self.generator, device=self.bank.device)
        return order[:math.floor(share * count + 0.5)]

    def draw(self, count: int, cumulative: Tensor) -> Tensor:
        """Indices of `count` objects by weight, given as its running sum (n,); torch.multinomial waits for the device.
        """
        point = torch.rand(count, generator=self.generator, device=cumulative.device) * cumulative[-1]
        return torch.searchsorted(cumulative, point, right=True).clamp(max=len(cumulative) - 1)

    def _in_span(self, span: Tensor) -> Tensor:
        """A random whole number from each of the half-open spans (B, 2)."""
        pick = torch.rand(len(span), generator=self.generator, device=span.device) * (span[:, 1] - span[:, 0])
        return torch.minimum(span[:, 0] + pick.long(), span[:, 1] - 1)

    def sample(self, count: int) -> Pairs:
        """A batch of `count` pairs."""
        aug = self.aug
        pasted = math.floor(self.pasted * count + 0.5)  # the first rows
        target = torch.cat([self.draw(n, w) for n, w in zip((pasted, count - pasted), self.drawn)])
        seen = self._in_span(self.track_span[target])
        flip = torch.where(self.chance(count, 0.5), -1.0, 1.0)
        template, template_box, search, search_box = self._crops(target, seen, flip, pasted)
        search = self._distract(search, search_box, seen)
        search = self._occlude(search, search_box)
        template, search = self._colour(template), self._colour(search)
        grey = self.some(count, aug.grey)
        for crop in (template, search):
            crop[grey] = crop[grey].mean(1, keepdim=True)
        search = self._compress(self._noise(self._blur(search)))
        # a negative pair takes its neighbour's template; neighbours are drawn independently
        track, image = self.table.track[target], self.table.image
        negative = self.chance(count, aug.negative) & (image[target.roll(1)] != image[seen]) & (track.roll(1) != track)
        shown = torch.arange(count, device=target.device)
        shown = torch.where(negative, shown.roll(1), shown)
        return Pairs(template[shown], template_box[shown], search.clamp_(0, 255), search_box, negative,
                     track)

    def _view(self, points: Tensor, shape: Tensor, tilt: Tensor, anchor: Tensor, zoom: Tensor) -> View:
        """Objects with the outline `points` (B, P, 2), turned and stretched by `shape` (B, 2, 2) and tilted by `tilt`
        (B, 2), shown so that their upright box has its centre at the crop's pixel `anchor` (B, 2) and is `zoom` (B,)
        times as large as in a window of that box."""
        low, high = points.amin(1), points.amax(1)
        side = context_side(*(high - low).unbind(-1))[:, None]
        center = (low + high) / 2
        local = (points - center[:, None]) / side[:, None]
        moved = local @ shape.mT / (1 + (local * tilt[:, None]).sum(-1, keepdim=True))
        low, high = moved.amin(1), moved.amax(1)
        scale = (TEMPLATE_SIZE * zoom / context_side(*(high - low).unbind(-1)))[:, None]
        to_local = shape.new_zeros(len(points), 3, 3)
        to_local[:, 0, 0] = to_local[:, 1, 1] = 1 / side[:, 0]
        to_local[:, :2, 2] = -center / side
        to_local[:, 2, 2] = 1
        offset = anchor - scale * (low + high) / 2
        warp = torch.zeros_like(to_local)
        warp[:, :2, :2] = scale[..., None] * shape + offset[..., None] * tilt[:, None]
        warp[:, :2, 2] = offset
        warp[:, 2, :2] = tilt
        warp[:, 2, 2] = 1
        return View(inverse3(warp @ to_local), from_center(torch.cat([anchor, scale * (high - low)], -1)))

    def _shape(self, flip: Tensor, angle: Tensor, stretch: Tensor, axis: Tensor) -> Tensor:
        """(B, 2, 2): mirror where `flip` is -1, stretch (log) along the direction `axis`, turn by `angle`."""
        cos, sin = axis.cos(), axis.sin()
        along, across = torch.exp(stretch / 2), torch.exp(-stretch / 2)
        mixed = (along - across) * cos * sin
        stretched = torch.stack([along * cos ** 2 + across * sin ** 2, mixed,
                                 mixed, along * sin ** 2 + across * cos ** 2], -1).view(-1, 2, 2)
        cos, sin = angle.cos(), angle.sin()
        turn = torch.stack([cos, -sin, sin, cos], -1).view(-1, 2, 2)
        mirror = torch.stack([flip, torch.ones_like(flip)], -1)
        return turn @ stretched * mirror[:, None]

    def _bend(self, view: View, points: Tensor) -> tuple[Bend, Tensor]:
        """Move the parts of objects shown by `view`, outline `points` (B, P, 2) in the image, against each other. Also
        the upright box (B, 4) of the bent outline."""
        aug, count, box = self.aug, len(points), to_center(view.box)
        amount = aug.bend * self.between(0, 1, count) * self.chance(count, aug.bent)
        bend = Bend(amount[:, None, None, None] * self.uniform(count, 2, BEND_NODES, BEND_NODES) * box[:, 2:, None, None],
                    box)
        flat = torch.cat([points, torch.ones_like(points[..., :1])], -1) @ inverse3(view.inverse).mT
        flat = flat[..., :2] / flat[..., 2:]
        bent = flat
        for _ in range(4):  # the field leads from the bent to the flat object
            bent = flat - bend.at(bent)
        return bend, torch.cat([bent.amin(1), bent.amax(1)], -1)

    def _cut(self, image: Tensor, inverse: Tensor, size: int, alpha: Tensor | None = None,
             bend: Bend | None = None) -> tuple[Tensor, Tensor]:
        """Sample crops (B, 3, size, size) of images (B,) through homographies from crop to image, bent before if asked;
        with `alpha` (B, 1, 320, 320) on the images the same sample of it."""
        point = pixel_centers(size, image.device)
        if bend is not None:
            point = point + bend.at(point.expand(len(image), -1, -1))
        point = point @ inverse[:, :, :2].mT + inverse[:, None, :, 2]
        depth = point[..., 2:]
        grid = (point[..., :2] * (2 / CANVAS) / depth - 1).masked_fill(depth < 0.2, 9)  # 9: out of the picture
        mean = self.bank.mean[image][..., None, None]
        pixels = self.bank.pixels[image, :MASK if alpha is None else MASK + 1].float()
        pixels[:, :MASK] -= mean
        if alpha is not None:
            pixels[:, MASK:] = alpha
        crop = F.grid_sample(pixels, grid.view(-1, size, size, 2), align_corners=False)
        # the rim of a cut-out shows its old ground: leave it out
        return crop[:, :MASK].add_(mean), ((crop[:, MASK:] - 0.4) / 0.5).clamp(0, 1)

    def _alpha(self, target: Tensor) -> Tensor:
        """(B, 1, 320, 320) 0..1: the cut-out of each object, or its box with round corners and a soft rim."""
        box = to_center(self.table.box[target])
        line = torch.arange(CANVAS, device=box.device) + 0.5
        x = (2 * (line - box[:, :1]).abs() / box[:, 2:3])[:, None, :]
        y = (2 * (line - box[:, 1:2]).abs() / box[:, 3:])[:, :, None]
        soft = ((1.1 - x ** 4 - y ** 4) * 2).clamp(0, 1)
        cut = self.table.cut[target][:, None, None]
        hard = (self.bank.pixels[self.table.image[target], MASK] == cut).float()
        return torch.where(cut > 0, hard, soft)[:, None]

    def _crops(self, target: Tensor, seen: Tensor, flip: Tensor, pasted: int) -> tuple[Tensor, ...]:
        """Template crop, box in it, search crop, box; the objects of the first `pasted` rows on another ground."""
        aug, count, table = self.aug, len(target), self.table
        first = torch.arange(count, device=target.device) < pasted
        loose = torch.where(first, 1.0, 0.0)
        base = 0.5 * self.uniform(count) * loose * bool(aug.rotation)
        turn = aug.rotation * self.uniform(count) * torch.where(self.chance(count, aug.rotated), 1.0, loose)
        tilt = aug.perspective * (1 + 3 * loose)[:, None] * self.uniform(count, 2)
        anchor = TEMPLATE_SIZE / 2 + 3 * self.uniform(count, 2)
        shift = SEARCH_SIZE / 2 + aug.shift * self.uniform(count, 2)

        def points(rows):
            return torch.where(first[:, None, None], table.outline[rows], table.shape[rows])

        still = torch.zeros_like(flip)
        near, far = torch.exp(0.05 * self.uniform(count)), torch.exp(aug.scale * self.uniform(count))
        template_view = self._view(points(target), self._shape(flip, base, still, still), torch.zeros_like(tilt),
                                   anchor, near)
        # of a box without a cut-out only the upright stretch is known
        axis = math.pi * self.uniform(count) * loose
        search_view = self._view(points(seen), self._shape(flip, base + turn, aug.aspect * self.uniform(count), axis),
                                 tilt, shift, far)
        solid = math.floor(aug.solid * pasted + 0.5)  # the first of the pasted rows
        solids, poses = self._solids(target[:solid], base[:solid], turn[:solid])
        flat = slice(solid, pasted)
        bend, search_view.box[flat] = self._bend(View(*(part[flat] for part in search_view)), points(seen)[flat])
        crops = []
        for rows, view, place, zoom, size, below, bend, pose in zip(
                (target, seen), (template_view, search_view), (anchor, shift), (near, far),
                (TEMPLATE_SIZE, SEARCH_SIZE), self._grounds(pasted), (None, bend), poses):
            scene, _ = self._cut(table.image[rows[pasted:]], view.inverse[pasted:], size)
            over, alpha = self._cut(table.image[rows[flat]], view.inverse[flat], size, self._alpha(rows[flat]), bend)
            body, body_alpha, view.box[:solid] = solids.show(self.bank, pose, place[:solid], zoom[:solid], size)
            over, alpha = torch.cat([body, over]), torch.cat([body_alpha, alpha])
            under, _ = self._cut(*below, size)
            crops.append(torch.cat([under + alpha * (over - under), scene]))
        return crops[0], template_view.box, crops[1], search_view.box

    def _solids(self, target: Tensor, base: Tensor, turn: Tensor) -> tuple[Solids, tuple[Pose, Pose]]:
        """Bodies whose fronts show the objects, and how they stand in the template and in the search crop."""
        count, table = len(target), self.table
        front = to_center(table.box[target])
        front[:, 2:] *= 0.45  # half of a size, without the rim
        other = table.image[self.draw(2 * count, self.any)].view(count, 2)
        same = self.chance(2 * count, 0.6).view(count, 2)
        image = table.image[target][:, None]
        image = torch.cat([torch.where(same, image, other), image], 1)
        room = self.bank.size[image.repeat_interleave(2, 1)] / 2
        half = torch.minimum(self.between(16, 60, count, 6, 2), room)
        patch = torch.cat([room + (room - half) * self.uniform(count, 6, 2), half], -1)
        patch[:, 4] = front
        edge = front[:, 2:] / front[:, 2:].prod(-1, keepdim=True).sqrt()
        edge = torch.cat([edge, torch.exp(self.between(-2, 0.3, count, 1))], -1)
        solids = Solids(edge / 2, self.between(1, math.sqrt(3), count), image, patch)

        upright = torch.where(self.chance(count, 0.5), 0.5, self.between(0, 1, count)) * math.pi
        right, down, away = torch.eye(3, device=target.device)[:, None].expand(-1, count, -1)
        tilted = torch.stack([upright.cos(), upright.sin(), torch.zeros_like(upright)], -1)
        first = (rotation(away, base) @ rotation(right, 0.3 * self.uniform(count))
                 @ rotation(down, 0.5 * self.uniform(count)))
        second = rotation(away, turn) @ rotation(tilted, self.aug.turned * self.uniform(count)) @ first
        distance = self.between(2.5, 8, count)
        light = F.normalize(self.uniform(count, 3), dim=-1) * self.between(0, 0.5, count, 1)
        return solids, (Pose(first, distance, light), Pose(second, distance, light))

    def _grounds(self, count: int) -> list[tuple[Tensor, Tensor]]:
        """Images and homographies of the grounds of template and search crops, about the same place of a scene."""
        image = self.scenes[torch.randint(len(self.scenes), (2, count), generator=self.generator,
                                          device=self.bank.device)]
        image[1] = torch.where(self.chance(count, self.aug.same_ground), image[0], image[1])
        step = self.bank.size[image].amin(-1) / SEARCH_SIZE * torch.exp(-0.4 * (self.uniform(1, count) + 1))
        half = step[..., None] * SEARCH_SIZE / 2
        room = (self.bank.size[image] / 2 - half).clamp(min=0)
        center = self.bank.size[image] / 2 + room * self.uniform(1, count, 2)
        center[0] += 40 * step[0, :, None] * self.uniform(count, 2)  # the target has moved in front of it
        result = []
        for i, size in enumerate((TEMPLATE_SIZE, SEARCH_SIZE)):
            inverse = torch.zeros(count, 3, 3, device=image.device)
            inverse[:, 0, 0] = inverse[:, 1, 1] = step[i]
            inverse[:, :2, 2] = center[i] - step[i, :, None] * size / 2
            inverse[:, 2, 2] = 1
            result.append((image[i], inverse))
        return result

    def _distract(self, search: Tensor, box: Tensor, target: Tensor) -> Tensor:
        """Paste another object beside the target: the target again in other colours, one of its class, or any."""
        aug, rows = self.aug, self.some(len(target), self.aug.distractor)
        count, target, place = len(rows), target[rows], to_center(box[rows])
        kind = self.between(0, 1, count)
        again = kind < aug.look_alike
        kin = self.by_label[self._in_span(self.label_span[target])]
        other = torch.where(again, target, torch.where(kind < aug.look_alike + aug.same_class, kin,
                                                       self.draw(count, self.extra)))
        again = again | (self.table.track[other] == self.table.track[target])
        # towards the side that has room, from touching the target to well apart
        way = (SEARCH_SIZE / 2 - place[:, :2]) / 64 + 1.2 * self.uniform(count, 2)
        way = way / way.norm(dim=-1, keepdim=True).clamp(min=1e-3)
        zoom = context_side(*place[:, 2:].unbind(-1)) / TEMPLATE_SIZE * torch.exp(0.35 * self.uniform(count))
        view = self._view(self.table.outline[other],
                          self._shape(torch.where(self.chance(count, 0.5), -1.0, 1.0),
                                      aug.rotation * 1.5 * self.uniform(count), 2 * aug.aspect * self.uniform(count),
                                      math.pi * self.uniform(count)),
                          aug.perspective * 4 * self.uniform(count, 2), place[:, :2], zoom)
        size = to_center(view.box)[:, 2:]
        clear = ((size + place[:, 2:]) / 2 / way.abs().clamp(min=1e-3)).amin(-1, keepdim=True)  # boxes touch
        move = way * clear * self.between(0.92, 1.6, count, 1)
        inverse = view.inverse @ _shift(-move)
        layer, alpha = self._cut(self.table.image[other], inverse, SEARCH_SIZE, self._alpha(other))
        # a look-alike that is the same to the last pixel could not be told from the target
        mix, gain = self.between(0.3, 1, count, 1, 1, 1), torch.exp(0.5 * self.uniform(count, 3, 1, 1))
        altered = ((1 - mix) * layer + mix * layer.roll(1, 1)) * gain
        layer = torch.where(again[:, None, None, None], altered, layer).clamp(0, 255)
        return _over(search, rows, layer, alpha)

    def _occlude(self, search: Tensor, box: Tensor) -> Tensor:
        """Put an object or a patch of texture or of plain colour in front of a side of the target."""
        aug, rows = self.aug, self.some(len(search), self.aug.occluded)
        count, place = len(rows), to_center(box[rows])
        patch = self.chance(count, 0.5)
        other = torch.where(patch, self.draw(count, self.any), self.draw(count, self.extra))
        size = torch.exp(0.5 * self.uniform(count)) * context_side(*place[:, 2:].unbind(-1)) / TEMPLATE_SIZE
        view = self._view(self.table.outline[other],
                          self._shape(torch.ones(count, device=box.device), 0.6 * self.uniform(count),
                                      0.8 * self.uniform(count), math.pi * self.uniform(count)),
                          torch.zeros_like(place[:, :2]), place[:, :2], size)
        # along one axis it reaches over an edge of the target as far as `occlusion` allows, along the other anywhere
        both = (place[:, 2:] + to_center(view.box)[:, 2:]) / 2
        over = place[:, 2:] * self.between(0.1, 1, count, 1) * aug.occlusion
        side = torch.where(self.chance(2 * count, 0.5), -1.0, 1.0).view(count, 2)
        upright = self.chance(count, 0.5)[:, None]
        axis = torch.cat([upright, ~upright], -1)
        move = torch.where(axis, side * (both - over), 0.5 * place[:, 2:] * self.uniform(count, 2))
        layer, alpha = self._cut(self.table.image[other], view.inverse @ _shift(-move), SEARCH_SIZE,
                                 self._alpha(other))
        plain = self.chance(count, 0.2)[:, None, None, None]
        layer = torch.where(plain, self.between(0, 255, count, 3, 1, 1), layer)
        return _over(search, rows, layer, alpha)

    def _colour(self, crop: Tensor) -> Tensor:
        amount, count = self.aug.colour, len(crop)
        gain = torch.exp(amount * self.uniform(count, 1, 1) + amount / 3 * self.uniform(count, 3, 1))
        contrast, saturation = torch.exp(amount * self.uniform(2, count, 1, 1))
        offset = 12 * bool(amount) * self.uniform(count, 1, 1)
        level = crop.mean((1, 2, 3))[:, None, None]
        mix = contrast * (saturation * torch.eye(3, device=crop.device) + (1 - saturation) / 3)
        crop = torch.baddbmm(level * (gain - contrast) + offset, mix, crop.flatten(2)).clamp_(0, 255).view(crop.shape)
        rows = self.some(count, self.aug.lit)
        crop[rows] = 255 * (crop[rows] / 255) ** torch.exp(self.between(-0.5, 1, len(rows), 1, 1, 1))
        return crop

    def _blur(self, crop: Tensor) -> Tensor:
        """Motion blur along a line of random length and direction, or the disc of a lens out of focus."""
        rows = self.some(len(crop), self.aug.blurred)
        count, middle = len(rows), BLUR_SIZE // 2
        angle, length = math.pi * self.uniform(count, 1, 1), self.between(1.5, 5, count, 1, 1)
        line = (torch.arange(BLUR_SIZE, device=crop.device) - middle).float()
        y, x = torch.meshgrid(line, line, indexing='ij')
        along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
        streak = (1 - across.abs()).clamp(min=0) * (length + 0.5 - along.abs()).clamp(0, 1)
        disc = (self.between(0.8, 3.2, count, 1, 1) + 0.5 - torch.hypot(x, y)).clamp(0, 1)
        kernel = torch.where(self.chance(count, 0.65)[:, None, None], streak, disc)
        kernel = kernel / kernel.sum((1, 2), keepdim=True)
        if count:
            crop[rows] = F.conv2d(crop[rows].reshape(1, 3 * count, *crop.shape[-2:]),
                                  kernel[:, None].repeat_interleave(3, 0), padding=middle,
                                  groups=3 * count).view(count, 3, *crop.shape[-2:])
        return crop

    def _noise(self, crop: Tensor) -> Tensor:
        rows = self.some(len(crop), self.aug.noisy)
        noise = torch.randn((len(rows), *crop.shape[1:]), generator=self.generator, device=crop.device)
        crop[rows] += noise * self.between(2, 16, len(rows), 1, 1, 1)
        return crop

    def _compress(self, crop: Tensor) -> Tensor:
        """What JPEG does to brightness and colours: the cosine transform of blocks, rounded."""
        rows = self.some(len(crop), self.aug.compressed)
        count, edge = len(rows), -(-SEARCH_SIZE // BLOCK) * BLOCK
        line = torch.arange(BLOCK, device=crop.device).float()
        cosine = torch.cos(math.pi / BLOCK * (line + 0.5) * line[:, None]) * 0.5
        cosine[0] /= math.sqrt(2)
        # steps grow with the frequency, about as those of the standard's tables
        steps = (8 + 6 * (line + line[:, None])) * self.between(0.6, 4, count, 1, 1, 1, 1, 1)
        pad = edge - SEARCH_SIZE
        blocks = F.pad(crop[rows], (0, pad, 0, pad), mode='replicate') if count else crop[rows]
        blocks = blocks[..., :edge, :edge].unfold(2, BLOCK, BLOCK).unfold(3, BLOCK, BLOCK)
        coded = (cosine @ (blocks - 128) @ cosine.T / steps).round() * steps
        blocks = cosine.T @ coded @ cosine + 128
        crop[rows] = blocks.transpose(3, 4).reshape(count, 3, edge, edge)[..., :SEARCH_SIZE, :SEARCH_SIZE]
        return crop


def _spans(key: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Rows in the order of `key` (n,), and for each row the half-open span (n, 2) in that order of the keys from its
    `low` to its `high`."""
    order = torch.argsort(key, stable=True)
    ordered = key[order].contiguous()
    return order, torch.stack([torch.searchsorted(ordered, low.contiguous()),
                               torch.searchsorted(ordered, high.contiguous(), right=True)], -1)


def _cumulative(weight: Tensor) -> Tensor:
    return weight.double().cumsum(0).float()


def _shift(move: Tensor) -> Tensor:
    """(B, 2) -> homographies that add it."""
    matrix = torch.eye(3, device=move.device).repeat(len(move), 1, 1)
    matrix[:, :2, 2] = move
    return matrix


def _over(crop: Tensor, rows: Tensor, layer: Tensor, alpha: Tensor) -> Tensor:
    """Lay `layer` over the chosen rows of the crops, in place."""
    below = crop[rows]
    crop[rows] = below + alpha * (layer - below)
    return crop
