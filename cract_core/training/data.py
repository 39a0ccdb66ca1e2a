"""Training images, decoded once and kept on the training device, and the objects in them, most of them cut out.

A data folder holds shards: `NAME.tar` of image files and `NAME.jsonl` with one line an image,
`{"file", "set", "size": [w, h], "objects": [{"xywh": [x, y, w, h], "label"}], "mask"?, "label"?, "track"?, "frame"?}`,
boxes 0-based. `mask` is a picture of one object, `label` the class of the whole image; images of one `track` show the
same object, `frame` counts the frames of its video (default: the images of the track).
"""
from __future__ import annotations

import itertools
import json
import os
import tarfile
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..encodings import file_to_bgr
from ..files import read_text

CANVAS = 320        # longest side of a stored image
MIN_SIDE = 12       # smaller objects carry no texture to learn from, pixels
MASK = 3            # channel of the canvas after B, G, R: the number of the object that a pixel belongs to
CUT_SIDE = 80       # objects are cut out at about the size at which training shows them, pixels
MIN_CUT = 24        # smaller objects are not cut out
CUTS = 6            # of an image
OUTLINE = 24        # points that stand for an object's outline


@dataclass
class ObjectTable:
    """All targets that a pair may be made of; one row an object, the rows of a track in a run, by frame."""
    image: Tensor      # (n,) index of the image
    box: Tensor        # (n, 4) corners, pixels of the image
    label: Tensor      # (n,) class, -1 unknown
    cut: Tensor        # (n,) number of the object in its image's mask channel, 0 where it was not cut out
    shape: Tensor      # (n, 24, 2) points around the object, whose upright box is `box`
    outline: Tensor    # (n, 24, 2) points around the cut-out, or `shape`
    weight: Tensor     # (n,) how often it is drawn
    track: Tensor      # (n,) objects of one track share a number
    frame: Tensor      # (n,) in the track's video

    def take(self, rows: Tensor) -> 'ObjectTable':
        return ObjectTable(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def to(self, device) -> 'ObjectTable':
        return ObjectTable(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


@dataclass
class ImageBank:
    """pixels (n, 4, 320, 320) uint8: B, G, R and object number; beyond the image its mean colour."""
    pixels: Tensor
    size: Tensor       # (n, 2) width, height
    mean: Tensor       # (n, 3) mean colour
    objects: ObjectTable

    @property
    def device(self) -> torch.device:
        return self.pixels.device

    def to(self, device) -> 'ImageBank':
        return ImageBank(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def cut_out(image: np.ndarray, box, annotated: bool) -> np.ndarray | None:
    """Mask (H, W) bool by GrabCut of the object in `box` (four corners) of an image (H, W, 3) BGR, None for a bad cut.

    annotated: the box is known to fit the object; otherwise it is nearly the whole image. A cut is bad where it is in
    pieces, ragged or a plain rectangle, where it does not fit an annotated box, and where it is small or runs along the
    rim of the image.
    """
    height, width = image.shape[:2]
    x1, y1, x2, y2 = box
    margin_x, margin_y = 0.2 * (x2 - x1) + 4, 0.2 * (y2 - y1) + 4
    left, top = int(max(0, x1 - margin_x)), int(max(0, y1 - margin_y))
    right, bottom = int(min(width, x2 + margin_x)), int(min(height, y2 + margin_y))
    scale = min(1, CUT_SIDE / max(x2 - x1, y2 - y1))
    small = cv2.resize(image[top:bottom, left:right], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    rows, columns = small.shape[:2]
    x, y = max(1, round((x1 - left) * scale)), max(1, round((y1 - top) * scale))
    w, h = min(columns - 1, round((x2 - left) * scale)) - x, min(rows - 1, round((y2 - top) * scale)) - y
    if min(w, h) < 6:
        return None
    state = np.zeros((rows, columns), np.uint8)
    cv2.setRNGSeed(0)  # that of this thread: the same cuts in every run
    try:
        cv2.grabCut(small, state, (x, y, w, h), np.zeros((1, 65)), np.zeros((1, 65)), 2, cv2.GC_INIT_WITH_RECT)
    except cv2.error:  # too few different colours for its models
        return None
    found = cv2.morphologyEx(state & 1, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    contours, _ = cv2.findContours(found, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return None
    outer = max(contours, key=cv2.contourArea)
    mask = cv2.drawContours(np.zeros_like(found), [outer], -1, 1, cv2.FILLED)
    hull = cv2.drawContours(np.zeros_like(found), [cv2.convexHull(outer)], -1, 1, cv2.FILLED)
    area, (mx, my, mw, mh) = int(mask.sum()), cv2.boundingRect(outer)
    whole = int((found & mask).sum()) > 0.85 * int(found.sum())
    if not whole or area < 0.5 * hull.sum() or not 0.15 < area / (mw * mh) < 0.9:
        return None
    if annotated and mw * mh < 0.72 * w * h:
        return None
    if not annotated:
        rim = mask[y, x:x + w].sum() + mask[y + h - 1, x:x + w].sum() + mask[y:y + h, [x, x + w - 1]].sum()
        if area < 0.05 * rows * columns or rim > 0.2 * (w + h):
            return None
    result = np.zeros((height, width), bool)
    result[top:bottom, left:right] = cv2.resize(mask * 255, (right - left, bottom - top)) > 127
    return result


def outline_of(mask: np.ndarray) -> np.ndarray:
    """(24, 2) corners, in continuous pixels, of the convex hull of a mask (H, W) bool: extreme points in 24 directions.

    The upright box of the turned and warped points is that of the turned and warped mask.
    """
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    points = cv2.convexHull(np.concatenate(contours))[:, 0].astype(np.float64) + 0.5
    angle = np.arange(OUTLINE) * 2 * np.pi / OUTLINE
    direction = np.stack([np.cos(angle), np.sin(angle)], 1)
    return points[(points @ direction.T).argmax(0)] + 0.5 * np.sign(direction.round(6))


def outline_of_box(box) -> np.ndarray:
    """(24, 2) points of a rounded rectangle that fills a box: objects lie between an ellipse and a rectangle."""
    x1, y1, x2, y2 = box
    angle = np.arange(OUTLINE) * 2 * np.pi / OUTLINE
    direction = np.stack([np.cos(angle), np.sin(angle)], 1).round(9)
    return (np.array([x1 + x2, y1 + y2]) + np.sign(direction) * np.sqrt(abs(direction)) * [x2 - x1, y2 - y1]) / 2


class _Target(NamedTuple):
    box: tuple
    label: str | None   # None: a pseudo-target
    cut: int
    shape: np.ndarray
    outline: np.ndarray


class _Picture(NamedTuple):
    """One decoded image: pixels (H, W, 3), object numbers (H, W) and its targets."""
    row: dict
    pixels: np.ndarray
    numbers: np.ndarray
    targets: list[_Target]


def _picture(row: dict, data: bytes, mask_data: bytes | None, random: np.random.Generator, where: str) -> _Picture:
    """Decode an image, take its boxes or find its object, and cut out what can be cut out."""
    try:
        image = file_to_bgr(data)
    except ValueError as error:
        raise ValueError(f'{where}: {row["file"]}: {error}') from error
    if max(image.shape[:2]) > CANVAS:
        raise ValueError(f'{where}: {row["file"]} is not an image of at most {CANVAS} pixels')
    height, width = image.shape[:2]
    numbers = np.zeros((height, width), np.uint8)
    boxes = []
    for item in row['objects']:
        x, y, w, h = item['xywh']
        box = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
        if min(box[2] - box[0], box[3] - box[1]) >= MIN_SIDE / 2 and _area(box) >= MIN_SIDE ** 2:
            boxes.append((box, str(item.get('label'))))
    mask = None
    if mask_data is not None:
        mask = cv2.imdecode(np.frombuffer(mask_data, np.uint8), cv2.IMREAD_GRAYSCALE)
        if mask is None or mask.shape != (height, width):
            raise ValueError(f'{where}: {row["mask"]} is not a picture of the size of {row["file"]}')
        mask = mask > 0
        mask = mask if mask.any() and len(boxes) < 2 else None
    elif row.get('label') is not None and not boxes:
        rim = max(width, height) / 60 + 1
        mask = cut_out(image, (rim, rim, width - rim, height - rim), annotated=False)
    if mask is not None:
        numbers[mask] = 1
        outline = outline_of(mask)
        box = (*outline.min(0), *outline.max(0))
        return _Picture(row, image, numbers, [
            _Target(box, boxes[0][1] if boxes else str(row.get('label')), 1, outline, outline)])
    targets = []
    for box, label in sorted(boxes, key=lambda b: -_area(b[0])):
        shape = outline = outline_of_box(box)
        number = 0
        alone = all(_common(box, other) < 0.1 * _area(box) for other, _ in boxes if other is not box)
        if len(targets) < CUTS and alone and max(box[2] - box[0], box[3] - box[1]) >= MIN_CUT:
            mask = cut_out(image, box, annotated=True)
            if mask is not None:
                number = len(targets) + 1
                numbers[mask] = number
                outline = outline_of(mask)
                low, high = outline.min(0), outline.max(0)
                shape = box[:2] + (outline - low) / (high - low) * np.subtract(box[2:], box[:2])
        targets.append(_Target(box, label, number, shape, outline))
    if not targets:
        box = _pseudo_target(image, random)
        shape = outline_of_box(box)
        targets.append(_Target(box, None, 0, shape, shape))
    return _Picture(row, image, numbers, targets)


def _pseudo_target(image: np.ndarray, random: np.random.Generator) -> tuple:
    """A part of a scene, corners: any can be followed, the one of four with the most texture best."""
    height, width = image.shape[:2]
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    best, most = (), -1.0
    for _ in range(4):
        side = np.exp(random.uniform(np.log(24), np.log(max(25, 0.6 * min(width, height)))))
        aspect = np.exp(random.uniform(-0.6, 0.6))
        w, h = min(side * aspect, width - 1), min(side / aspect, height - 1)
        x, y = random.uniform(0, width - w), random.uniform(0, height - h)
        texture = grey[int(y):int(y + h) + 1, int(x):int(x + w) + 1].std()
        if texture > most:
            best, most = (x, y, x + w, y + h), texture
    return best


def _area(box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _common(a, b) -> float:
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def _pictures(folder: Path, limit: int, seed: int) -> tuple[int, Iterator[_Picture]]:
    """Number of images in the shards of a folder, and the images in order; as many threads as cores decode them."""
    shards = sorted(folder.glob('*.jsonl'))
    if not shards:
        raise FileNotFoundError(f'no training shards (NAME.jsonl with NAME.tar) in {folder}')
    rows = [(shard.with_suffix('.tar'), json.loads(line)) for shard in shards
            for line in read_text(shard).splitlines()][:limit or None]

    def read():
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            waiting: deque = deque()
            for tar, group in itertools.groupby(enumerate(rows), key=lambda item: item[1][0]):
                with tarfile.open(tar) as archive:
                    for index, (_, row) in group:
                        try:
                            data = archive.extractfile(row['file']).read()
                            mask = archive.extractfile(row['mask']).read() if row.get('mask') else None
                        except KeyError as error:
                            raise ValueError(f'{tar}: {error.args[0]}') from error
                        random = np.random.default_rng((seed, index))
                        waiting.append(pool.submit(_picture, row, data, mask, random, str(tar)))
                        if len(waiting) > 256:
                            yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    return len(rows), read()


def load_bank(folder: str | Path, limit: int = 0, seed: int = 0, pseudo_share: float = 0.25,
              mix: dict[str, float] | None = None) -> ImageBank:
    """Read all shards of a folder; `limit` stops after that many images.

    pseudo_share: how large a part of the drawn targets are random parts of scenes without boxes; mix: how often each
    set is drawn against the others (default: the root of its number of objects).
    Raises FileNotFoundError where the folder holds no shard, ValueError for a shard that cannot be read.
    """
    count, pictures = _pictures(Path(folder), limit, seed)
    pixels = torch.empty((count, 4, CANVAS, CANVAS), dtype=torch.uint8)
    sizes, means = np.zeros((count, 2)), np.zeros((count, 3))
    targets, lengths = [], Counter()  # image, set, track, frame, target; images of each track
    for index, picture in enumerate(tqdm(pictures, desc='decode images', unit='image', total=count, disable=None)):
        height, width = picture.pixels.shape[:2]
        means[index], sizes[index] = picture.pixels.reshape(-1, 3).mean(0), (width, height)
        canvas = pixels[index].numpy()
        canvas[:3] = means[index].round().astype(np.uint8)[:, None, None]
        canvas[MASK] = 0
        canvas[:3, :height, :width] = picture.pixels.transpose(2, 0, 1)
        canvas[MASK, :height, :width] = picture.numbers
        row = picture.row
        if row.get('track') is not None and picture.targets[0].label is not None:  # it shows one object
            track = f'{row["set"]}/{row["track"]}'
            lengths[track] += 1
            targets.append((index, row['set'], track, row.get('frame', lengths[track]), picture.targets[0]))
        else:
            targets += [(index, row['set'], None, 0, t) for t in picture.targets]
    return ImageBank(pixels, torch.as_tensor(sizes, dtype=torch.float32), torch.as_tensor(means, dtype=torch.float32),
                     _object_table(targets, pseudo_share, mix or {}))


def _object_table(rows: list[tuple], pseudo_share: float, mix: dict[str, float]) -> ObjectTable:
    # an object without a track is a track of its own
    names = {name: number for number, name in enumerate(dict.fromkeys(r[2] or (r[0], i) for i, r in enumerate(rows)))}
    keyed = sorted(((names[r[2] or (r[0], i)], r[3], r) for i, r in enumerate(rows)), key=lambda k: k[:2])
    rows, target = [k[2] for k in keyed], [k[2][4] for k in keyed]
    sets = {name: number for number, name in enumerate(dict.fromkeys(r[1] for r in rows))}
    group = np.array([sets[r[1]] for r in rows])
    real = np.array([t.label is not None for t in target])
    labels: dict[tuple, int] = {}
    label = [labels.setdefault((r[1], t.label), len(labels)) if known else -1
             for r, t, known in zip(rows, target, real)]
    unknown = sorted(set(mix) - set(sets))
    if unknown:
        raise ValueError(f'the mix names a set {unknown[0]!r} that the shards do not hold; there are {", ".join(sets)}')
    # sets differ a hundredfold in size: the square root of the size decides how often one is drawn
    size = np.bincount(group)
    weight = (np.array([mix.get(name, np.sqrt(n)) for name, n in zip(sets, size)]) / size)[group]
    if real.any() and not real.all():
        weight[real] *= (1 - pseudo_share) / weight[real].sum()
        weight[~real] *= pseudo_share / weight[~real].sum()

    def tensor(values, dtype=torch.float32) -> Tensor:
        return torch.as_tensor(np.array(values), dtype=dtype)

    return ObjectTable(
        image=tensor([r[0] for r in rows], torch.long), box=tensor([t.box for t in target]),
        label=tensor(label, torch.long), cut=tensor([t.cut for t in target], torch.uint8),
        shape=tensor([t.shape for t in target]), outline=tensor([t.outline for t in target]), weight=tensor(weight),
        track=tensor([k[0] for k in keyed], torch.long), frame=tensor([k[1] for k in keyed], torch.long))


def split(bank: ImageBank, share: float) -> tuple[ImageBank, ImageBank]:
    """Training and held-out parts of a bank that share the pixels: the images and tracks of every k-th image."""
    every = max(2, round(1 / share)) if share > 0 else 0
    table = bank.objects
    first = torch.full((int(table.track.max()) + 1,), len(bank.size)).scatter_reduce(
        0, table.track, table.image, 'amin')
    held = first[table.track] % every == 0 if every else torch.zeros(len(table.image), dtype=torch.bool)
    return tuple(ImageBank(bank.pixels, bank.size, bank.mean, table.take(torch.nonzero(mask)[:, 0]))
                 for mask in (~held, held))
