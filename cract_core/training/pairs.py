"""Template and search crops of training pairs: where the boxes come from decides what may be done to the pictures.

An object that is known only by its upright box may be shifted, scaled, stretched along the axes and mirrored; turned or
tilted its new box would be a guess, and R would learn the guess. One with a mask may be turned and put on another
ground: its box is then that of the turned mask. Two pictures of one track make a pair in which the object has really
moved; of an object that is known from one picture alone both crops show the same pixels, and differ as much as
mirroring, stretching, light and blur allow.
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Mapping, NamedTuple

import cv2
import numpy as np

from ..boxes import iou
from ..crop import SEARCH_SIZE, TEMPLATE_SIZE, context_side
from .pictures import Bank

NEIGHBOURS = 6       # other objects of the search crop that are told
FILLING = 0.8        # of its picture's width or height: too large to be a target
DISTINCT = 0.5       # objects of one picture that overlap more count as one


@dataclass(frozen=True)
class Augmentation:
    """Shares of the pairs and ranges; the defaults are the training recipe."""
    near: float = 0.3            # pairs of a track from frames next to each other
    shift: float = 64.0          # search region: target off the middle, pixels of the crop, uniform
    centered: float = 0.4        # ... or, for this share, normal with a quarter of it
    scale: float = 0.25          # log of how far the search region misses the target's size, uniform
    aspect: float = 0.15         # log of the stretch of template against search region, uniform
    still_aspect: float = 0.3    # the same for two crops of one picture
    still_mirror: float = 0.3    # two crops of one picture: the template mirrored
    turn: float = 0.5            # radians, uniform, between the crops of an object with a mask; before it any of `base`
    base: float = 0.5
    pasted: float = 0.8          # objects with a mask: on another ground
    same_ground: float = 0.6     # ... the same in template and search region
    distractor: float = 0.25     # another object pasted beside the target,
    same_class: float = 0.5      # ... of the target's class
    occluded: float = 0.15       # something pasted over a side of the target
    occlusion: float = 0.4       # hidden part of the target's width or height at most
    negative: float = 0.12       # template and search show different objects,
    negative_class: float = 0.5  # ... of one class
    grey: float = 0.12           # both crops without colour
    colour: float = 0.2          # contrast, brightness, channel gains, log
    lit: float = 0.15            # other exposure: gamma
    coarse: float = 0.25         # both crops from a picture of less resolution, as of a small target
    blurred: float = 0.2         # motion blur, or defocus, of the search crop
    noisy: float = 0.15          # sensor noise
    compressed: float = 0.15     # JPEG


class Pairs(NamedTuple):
    """template (B, 129, 129, 3) and search (B, 257, 257, 3) crops, uint8 BGR; boxes (B, 4) corners in their pixels;
    negative (B,) bool: the template's object is not in the search crop; exact (B,) bool: the search box is tight;
    others (B, 6, 4): boxes of other objects in the search crop, nan where there are fewer; track (B,) of the template."""
    template: np.ndarray
    template_box: np.ndarray
    search: np.ndarray
    search_box: np.ndarray
    negative: np.ndarray
    exact: np.ndarray
    others: np.ndarray
    track: np.ndarray


class Sight(NamedTuple):
    """How a crop is cut: its pixels to those of the picture (2, 3), the upright box (4,) of the object in it."""
    inverse: np.ndarray
    box: np.ndarray


class PairSampler:
    """Draws pairs from the objects `rows` (n,) bool of a bank.

    mix: how often a set is drawn (default: the root of its number of tracks); loose: sets whose boxes are not tight.
    ValueError for a set that the bank does not hold.
    """

    def __init__(self, bank: Bank, rows: np.ndarray, augmentation: Augmentation = Augmentation(),
                 mix: Mapping[str, float] = {}, loose: tuple[str, ...] = ()):
        self.bank, self.aug = bank, augmentation
        unknown = sorted({*mix, *loose} - set(bank.sets))
        if unknown:
            raise ValueError(f'the mix names a set {unknown[0]!r} that the shards do not hold; there are '
                             f'{", ".join(bank.sets)}')
        self.loose = np.isin(bank.sets, list(loose))
        usable = np.flatnonzero(rows)
        # of a set with tracks only these are drawn; a track counts as one, however long
        tracked = np.isin(bank.set, np.unique(bank.set[bank.first])) & ~bank.first
        usable = usable[~tracked[usable]]
        # one that fills its picture has no surroundings to be told from
        sizes = np.array([picture.pixels.shape[1::-1] for picture in bank.pictures])
        sides = (bank.box[usable, 2:] - bank.box[usable, :2]) / sizes[bank.picture[usable]]
        usable = usable[bank.first[usable] | (sides.max(1) < FILLING)]
        self.rows_of = _groups(bank.track[usable], usable)
        tracks = np.array(sorted(self.rows_of))
        number = np.array([bank.set[self.rows_of[track][0]] for track in tracks])
        count = np.bincount(number, minlength=len(bank.sets))
        often = np.array([mix.get(name, math.sqrt(n)) for name, n in zip(bank.sets, count)])
        weight = (often / np.maximum(count, 1))[number]
        if not weight.sum() > 0:
            raise ValueError('no object is left to train on: the mix leaves all sets out')
        self.tracks, self.cumulative = tracks, np.cumsum(weight / weight.sum())
        drawn = usable[often[bank.set[usable]] > 0]
        self.extras = drawn
        self.of_label = _groups(bank.label[drawn], drawn)
        self.grounds = np.array([i for i, picture in enumerate(bank.pictures) if picture.mask is None])

    def sample(self, count: int, random: np.random.Generator) -> Pairs:
        """A batch of `count` pairs; the same generator gives the same pairs."""
        return Pairs(*map(np.stack, zip(*(self._pair(random) for _ in range(count)))))

    def _pair(self, random: np.random.Generator) -> tuple:
        aug, bank = self.aug, self.bank
        track = self.tracks[min(np.searchsorted(self.cumulative, random.random(), 'right'), len(self.tracks) - 1)]
        rows = self.rows_of[track]
        seen = random.integers(len(rows))
        first = seen
        if len(rows) > 1:
            first = (min(max(seen + random.choice((-1, 1)), 0), len(rows) - 1) if random.random() < aug.near
                     else random.integers(len(rows)))
        seen, shown, negative = rows[seen], rows[first], False
        if random.random() < aug.negative:
            kin = self.of_label.get(bank.label[seen], self.extras)
            other = random.choice(kin if random.random() < aug.negative_class else self.extras)
            negative = bool(bank.picture[other] != bank.picture[seen] and bank.track[other] != bank.track[seen])
            shown = other if negative else shown
        still = shown == seen

        mirror = random.random() < 0.5
        mirrored = mirror != (still and random.random() < aug.still_mirror)
        stretch = (aug.still_aspect if still else aug.aspect) * random.uniform(-0.5, 0.5, 2)
        offset = (aug.shift / 4 * random.standard_normal(2) if random.random() < aug.centered
                  else random.uniform(-aug.shift, aug.shift, 2))
        place = SEARCH_SIZE / 2 + np.clip(offset, -aug.shift, aug.shift)
        # an object with a mask may be turned, and stand on another ground
        turned = bank.first[seen] and bank.pictures[bank.picture[seen]].mask is not None
        ground, same = None, random.random() < aug.same_ground
        if turned and random.random() < aug.pasted:
            ground = [self._ground(random), self._ground(random)]
            ground[1] = ground[0] if same else ground[1]
        base = aug.base * random.uniform(-1, 1) if turned else 0.0
        template, template_box = self._crop(
            shown, TEMPLATE_SIZE, TEMPLATE_SIZE / 2 + random.uniform(-3, 3, 2), math.exp(random.uniform(-0.05, 0.05)),
            stretch[0], mirrored, base, ground and ground[0], random)
        zoom, angle = math.exp(random.uniform(-aug.scale, aug.scale)), base + aug.turn * random.uniform(-1, 1)
        search, search_box = self._crop(seen, SEARCH_SIZE, place, zoom, stretch[1], mirror,
                                        angle if turned else 0.0, ground and ground[1], random)
        others = np.full((NEIGHBOURS, 4), np.nan)
        if ground is None:
            near = self._neighbours(seen, place, zoom, stretch[1], mirror)[:NEIGHBOURS]
            others[:len(near)] = near
        if random.random() < aug.distractor:
            box = self._distract(search, search_box, seen, random)
            if box is not None:
                others[-1] = box
        if random.random() < aug.occluded:
            self._occlude(search, search_box, random)
        template, search = self._look(template, search, random)
        exact = not self.loose[bank.set[seen]]
        return (template, np.float32(template_box), search, np.float32(search_box), negative, exact, np.float32(others),
                bank.track[shown])

    def _crop(self, row: int, size: int, place: np.ndarray, zoom: float, stretch: float, mirror: bool, angle: float,
              ground, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Object `row` with its box's centre at `place`, in a window as large as its context over `zoom`; the box."""
        picture = self.bank.pictures[self.bank.picture[row]]
        fill = picture.pixels.mean((0, 1))
        masked = picture.mask is not None and self.bank.first[row]
        if not masked or not (angle or ground):
            sight = upright(self.bank.box[row], size, place, zoom, stretch, mirror)
            return _warp(picture.pixels, sight.inverse, size, fill), sight.box
        sight = turned(picture.mask, size, place, zoom, stretch, mirror, angle)
        crop = _warp(picture.pixels, sight.inverse, size, fill)
        if ground is not None:
            alpha = _warp(picture.mask, sight.inverse, size, 0)
            # the rim of a cut-out shows its old ground: leave it out
            alpha = ((cv2.blur(alpha, (3, 3)).astype(np.float32) / 255 - 0.4) / 0.5).clip(0, 1)[..., None]
            below = self._show(ground, size, random)
            crop = (below + alpha * (crop.astype(np.float32) - below)).astype(np.uint8)
        return crop, sight.box

    def _ground(self, random: np.random.Generator) -> tuple[int, float, float, float]:
        """A picture, and the middle and half the width of a part of it."""
        index = int(random.choice(self.grounds))
        height, width = self.bank.pictures[index].pixels.shape[:2]
        half = min(height, width) / 2 * random.uniform(0.5, 1)
        return index, random.uniform(half, width - half), random.uniform(half, height - half), half

    def _show(self, ground: tuple[int, float, float, float], size: int, random: np.random.Generator) -> np.ndarray:
        index, x, y, half = ground
        pixels, step = self.bank.pictures[index].pixels, 2 * half / SEARCH_SIZE
        x, y = x + 0.15 * half * random.uniform(-1, 1), y + 0.15 * half * random.uniform(-1, 1)
        inverse = np.array([[step, 0, x - step * (size / 2 - 0.5) - 0.5], [0, step, y - step * (size / 2 - 0.5) - 0.5]])
        return _warp(pixels, inverse, size, None)

    def _neighbours(self, row: int, place: np.ndarray, zoom: float, stretch: float, mirror: bool) -> np.ndarray:
        """Boxes (m, 4) of the other objects of the picture whose centre lies in the search crop."""
        bank = self.bank
        rows = np.array(bank.pictures[bank.picture[row]].objects)
        rows = rows[(rows != row) & (iou(bank.box[rows], bank.box[row]) < DISTINCT)]
        boxes = upright(bank.box[row], SEARCH_SIZE, place, zoom, stretch, mirror, bank.box[rows]).box
        center = (boxes[:, :2] + boxes[:, 2:]) / 2
        return boxes[((center > 0) & (center < SEARCH_SIZE)).all(1)]

    def _layer(self, row: int, box: np.ndarray, mirror: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Object `row` stretched into `box` (4,) of the search crop, with its alpha and the part of the crop (slices)."""
        picture, own = self.bank.pictures[self.bank.picture[row]], self.bank.box[row]
        low, high = np.floor(box[:2]).astype(int).clip(0), np.ceil(box[2:]).astype(int).clip(max=SEARCH_SIZE)
        part = slice(low[1], max(low[1], high[1])), slice(low[0], max(low[0], high[0]))
        width, height = part[1].stop - part[1].start, part[0].stop - part[0].start
        if min(width, height) < 2:
            return np.zeros((0, 0, 3), np.float32), np.zeros((0, 0, 1), np.float32), part
        step = (own[2:] - own[:2]) / (box[2:] - box[:2]) * (-1 if mirror else 1, 1)
        start = (own[:2] + own[2:]) / 2 + (low + 0.5 - (box[:2] + box[2:]) / 2) * step - 0.5
        inverse = np.array([[step[0], 0, start[0]], [0, step[1], start[1]]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        layer = cv2.warpAffine(picture.pixels, inverse, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        if picture.mask is not None and self.bank.first[row]:
            alpha = cv2.warpAffine(picture.mask, inverse, (width, height), flags=flags).astype(np.float32) / 255
        else:  # a box with round corners and a soft rim
            x, y = (2 * abs(np.arange(n) + low[i] + 0.5 - (box[i] + box[i + 2]) / 2) / (box[i + 2] - box[i])
                    for i, n in ((0, width), (1, height)))
            alpha = ((1.1 - x[None] ** 4 - y[:, None] ** 4) * 2).clip(0, 1).astype(np.float32)
        return layer.astype(np.float32), alpha[..., None], part

    def _distract(self, search: np.ndarray, box: np.ndarray, seen: int, random: np.random.Generator) -> np.ndarray | None:
        """Paste another object beside the target, in place; returns its box, None where there is no room."""
        bank = self.bank
        kin = self.of_label.get(bank.label[seen], self.extras)
        row = random.choice(kin if random.random() < self.aug.same_class else self.extras)
        if bank.track[row] == bank.track[seen]:
            return None
        own, center, half = bank.box[row], (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
        size = own[2:] - own[:2]
        size = size * context_side(*(2 * half)) / context_side(*size) * np.exp(random.uniform(-0.35, 0.35, 2))
        way = random.standard_normal(2) + (SEARCH_SIZE / 2 - center) / 64
        way /= max(np.linalg.norm(way), 1e-3)
        clear = ((size / 2 + half) / np.maximum(abs(way), 1e-3)).min() * random.uniform(0.95, 1.6)
        middle = center + way * clear
        if not ((middle > 0) & (middle < SEARCH_SIZE)).all():
            return None
        other = np.concatenate([middle - size / 2, middle + size / 2])
        _paste(search, *self._layer(row, other, random.random() < 0.5))
        return other

    def _occlude(self, search: np.ndarray, box: np.ndarray, random: np.random.Generator) -> None:
        """Put an object in front of a side of the target, in place."""
        row, size = random.choice(self.extras), box[2:] - box[:2]
        own = self.bank.box[row]
        other = (own[2:] - own[:2]) / max(own[2:] - own[:2]) * max(size) * random.uniform(0.4, 1.2)
        hidden, axis, side = random.uniform(0.1, self.aug.occlusion), random.integers(2), random.choice((-1, 1))
        middle = (box[:2] + box[2:]) / 2 + random.uniform(-0.4, 0.4, 2) * size
        edge = box[axis] if side < 0 else box[2 + axis]
        middle[axis] = edge - side * hidden * size[axis] + side * other[axis] / 2
        _paste(search, *self._layer(row, np.concatenate([middle - other / 2, middle + other / 2]), random.random() < 0.5))

    def _look(self, template: np.ndarray, search: np.ndarray, random: np.random.Generator) -> tuple:
        """Light, colour, sharpness and noise of the crops."""
        aug = self.aug
        if random.random() < aug.grey:
            template, search = (np.repeat(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)[..., None], 3, 2)
                                for crop in (template, search))
        if random.random() < aug.coarse:
            factor = random.uniform(1.5, 4)
            template, search = (_coarse(crop, factor * math.exp(random.uniform(-0.3, 0.3)))
                                for crop in (template, search))
        template, search = self._colour(template, random), self._colour(search, random)
        if random.random() < aug.blurred:
            search = _blur(search, random)
        elif random.random() < aug.blurred / 2:
            template = _blur(template, random)
        if random.random() < aug.noisy:
            noise = random.standard_normal(search.shape, np.float32) * random.uniform(2, 14)
            search = (search + noise).clip(0, 255).astype(np.uint8)
        if random.random() < aug.compressed:
            quality = int(random.uniform(10, 60))
            search = cv2.imdecode(cv2.imencode('.jpg', search, (cv2.IMWRITE_JPEG_QUALITY, quality))[1], cv2.IMREAD_COLOR)
        return template, search

    def _colour(self, crop: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """One curve for each channel: gain, contrast, offset and gamma."""
        amount = self.aug.colour
        level = np.linspace(0, 1, 256)[:, None].repeat(3, 1)
        if random.random() < self.aug.lit:
            level = level ** math.exp(random.uniform(-0.5, 1))
        gain = np.exp(amount * random.uniform(-1, 1) + amount / 3 * random.uniform(-1, 1, 3))
        mean = crop.mean() / 255
        level = (level - mean) * math.exp(amount * random.uniform(-1, 1)) + mean * gain + 0.05 * random.uniform(-1, 1)
        return cv2.LUT(crop, (255 * level).round().clip(0, 255).astype(np.uint8)[None])


def upright(box: np.ndarray, size: int, place: np.ndarray, zoom: float, stretch: float, mirror: bool,
            shown: np.ndarray | None = None) -> Sight:
    """The window around `box` (4,) in which its centre lies at `place` (2,), and which is larger than its context by
    1 / zoom and `stretch` (log of width over height); with the boxes `shown` (..., 4), or `box`, in it."""
    center, extent = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    step = context_side(*extent) / TEMPLATE_SIZE / zoom * np.exp([stretch / 2, -stretch / 2])
    sign = np.array([-1.0 if mirror else 1.0, 1.0])
    start = center + (0.5 - place) * step * sign - 0.5        # of the first pixel's middle, in the picture
    inverse = np.array([[step[0] * sign[0], 0, start[0]], [0, step[1], start[1]]])
    shown = box if shown is None else shown
    ends = (np.stack([shown[..., :2], shown[..., 2:]]) - center) / (step * sign) + place
    return Sight(inverse, np.concatenate([ends.min(0), ends.max(0)], -1))


def turned(mask: np.ndarray, size: int, place: np.ndarray, zoom: float, stretch: float, mirror: bool,
           angle: float) -> Sight:
    """As `upright`, for the object of a mask (H, W), which is turned by `angle`: its box is that of the turned mask."""
    points = cv2.findNonZero(mask)
    points = cv2.convexHull(points)[:, 0].astype(np.float64)
    points = np.concatenate([points + corner for corner in ((0, 0), (1, 0), (0, 1), (1, 1))])   # pixels are squares
    cos, sin = math.cos(angle), math.sin(angle)
    shape = np.diag(np.exp([-stretch / 2, stretch / 2])) @ [[cos, -sin], [sin, cos]] @ np.diag([-1.0 if mirror else 1.0, 1.0])
    moved = points @ shape.T
    low, high = moved.min(0), moved.max(0)
    scale = TEMPLATE_SIZE * zoom / context_side(*(high - low))
    forward = scale * shape                                     # picture -> crop, about the middle of the box
    offset = place - scale * (low + high) / 2
    inverse = np.linalg.inv(forward)
    start = inverse @ (0.5 - offset) - 0.5
    return Sight(np.concatenate([inverse, start[:, None]], 1), np.concatenate([scale * low, scale * high]) + np.tile(offset, 2))


def _warp(pixels: np.ndarray, inverse: np.ndarray, size: int, fill) -> np.ndarray:
    """Bilinear sample; where the picture is shown at less than its resolution it is averaged first."""
    step = math.sqrt(abs(inverse[0, 0] * inverse[1, 1] - inverse[0, 1] * inverse[1, 0]))
    if step > 1.6:
        factor = 1 / step
        small = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        ratio = np.array([small.shape[1] / pixels.shape[1], small.shape[0] / pixels.shape[0]])
        inverse = inverse * ratio[:, None]
        inverse[:, 2] += 0.5 * ratio - 0.5
        pixels = small
    mode = dict(borderMode=cv2.BORDER_REFLECT_101) if fill is None else dict(borderMode=cv2.BORDER_CONSTANT, borderValue=fill)
    return cv2.warpAffine(pixels, inverse, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, **mode)


def _paste(search: np.ndarray, layer: np.ndarray, alpha: np.ndarray, part: tuple[slice, slice]) -> None:
    if layer.size:
        below = search[part].astype(np.float32)
        search[part] = (below + alpha * (layer - below)).astype(np.uint8)


def _coarse(crop: np.ndarray, factor: float) -> np.ndarray:
    size = crop.shape[0]
    small = cv2.resize(crop, (max(8, round(size / factor)),) * 2, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR)


def _blur(crop: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Motion blur along a line of random length and direction, or a lens out of focus."""
    if random.random() < 0.35:
        return cv2.GaussianBlur(crop, (0, 0), random.uniform(0.6, 2.2))
    length, angle = random.uniform(3, 11), random.uniform(0, math.pi)
    line = np.arange(-5, 6)
    along = line[None] * math.cos(angle) + line[:, None] * math.sin(angle)
    across = line[:, None] * math.cos(angle) - line[None] * math.sin(angle)
    kernel = (1 - abs(across)).clip(0) * (length / 2 + 0.5 - abs(along)).clip(0, 1)
    return cv2.filter2D(crop, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)


def _groups(keys: np.ndarray, values: np.ndarray) -> dict[int, np.ndarray]:
    """key -> its values, in their order."""
    order = np.argsort(keys, kind='stable')
    unique, starts = np.unique(keys[order], return_index=True)
    return dict(zip(unique.tolist(), np.split(values[order], starts[1:])))
