"""Training images, decoded once and kept on the training device, and the objects in them.

A data folder holds shards: `NAME.tar` of image files and `NAME.jsonl` with one line an image,
`{"file", "set", "size": [w, h], "objects": [{"xywh": [x, y, w, h], "label"}], "mask"?, "label"?, "track"?}`, boxes 0-based.
"""
from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

CANVAS = 320        # longest side of a stored image
MIN_SIDE = 12       # smaller objects carry no texture to learn from, pixels
MASK = 3            # channel of the canvas with the object's mask, after B, G, R


@dataclass
class ObjectTable:
    """All targets that a pair may be made of; one row an object."""
    image: Tensor      # (n,) index of the image
    box: Tensor        # (n, 4) corners, pixels of the image
    label: Tensor      # (n,) class, -1 unknown
    masked: Tensor     # (n,) bool, the image's mask channel shows exactly this object
    weight: Tensor     # (n,) how often it is drawn
    partner: Tensor    # (n,) another view of the same object, or itself

    def to(self, device) -> 'ObjectTable':
        return ObjectTable(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


@dataclass
class ImageBank:
    """pixels (n, 4, 320, 320) uint8: B, G, R and mask, the part beyond the image filled with its mean colour."""
    pixels: Tensor
    size: Tensor       # (n, 2) width, height
    mean: Tensor       # (n, 3) mean colour
    objects: ObjectTable

    @property
    def device(self) -> torch.device:
        return self.pixels.device


def plain_ground_mask(image: np.ndarray) -> np.ndarray | None:
    """Mask of the one object in front of a plain ground, or None where the image is not of that kind.

    image (H, W, 3) BGR. The ground is the median colour of the rim; Otsu's threshold on the distance to it, in CIE Lab,
    separates the object, which must not reach around the rim.
    """
    lab = cv2.cvtColor(cv2.GaussianBlur(image, (3, 3), 0), cv2.COLOR_BGR2LAB).astype(np.float32)
    height, width = lab.shape[:2]
    edge = max(2, min(height, width) // 40)
    rim = np.ones((height, width), bool)
    rim[edge:-edge, edge:-edge] = False
    distance = np.linalg.norm(lab - np.median(lab[rim], 0), axis=2)
    threshold, mask = cv2.threshold(distance.clip(0, 255).astype(np.uint8), 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    if threshold < 12 or mask[rim].mean() > 0.1:
        return None
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    largest = max(contours, key=cv2.contourArea)
    mask = cv2.drawContours(np.zeros_like(mask), [largest], -1, 255, cv2.FILLED)
    if not 0.04 < (mask > 0).mean() < 0.8:
        return None
    return mask


def mask_box(mask: np.ndarray) -> list[float]:
    """Corners of the mask's bounding box."""
    x, y, w, h = cv2.boundingRect((mask > 127).astype(np.uint8))
    return [x, y, x + w, y + h]


class _Shards:
    """Reads shards one after another into growing lists."""

    def __init__(self):
        self.rows: list[dict] = []
        self.labels: dict[str, int] = {}
        self.objects: list[tuple] = []  # image, x1, y1, x2, y2, label, masked, set, track, real
        self.sets: dict[str, int] = {}

    def add(self, index: int, row: dict, image: np.ndarray, mask: np.ndarray | None, random: np.random.Generator):
        height, width = image.shape[:2]
        group = self.sets.setdefault(row['set'], len(self.sets))
        track = row.get('track')
        found = []
        for item in row['objects']:
            x, y, w, h = item['xywh']
            x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
            if min(x2 - x1, y2 - y1) >= MIN_SIDE / 2 and (x2 - x1) * (y2 - y1) >= MIN_SIDE ** 2:
                name = f'{row["set"]}/{item.get("label")}'
                found.append((x1, y1, x2, y2, self.labels.setdefault(name, len(self.labels))))
        if not found and mask is not None:
            name = f'{row["set"]}/{row.get("label")}'
            found.append((*mask_box(mask), self.labels.setdefault(name, len(self.labels))))
        masked = mask is not None and len(found) == 1
        for box in found:
            self.objects.append((index, *box, masked, group, track, True))
        if not found:  # a pseudo-target: any part of a scene can be followed
            side = np.exp(random.uniform(np.log(24), np.log(max(25, 0.6 * min(width, height)))))
            aspect = np.exp(random.uniform(-0.6, 0.6))
            w, h = min(side * aspect, width - 1), min(side / aspect, height - 1)
            x, y = random.uniform(0, width - w), random.uniform(0, height - h)
            self.objects.append((index, x, y, x + w, y + h, -1, False, group, None, False))


def _decode(archive: tarfile.TarFile, name: str, flags: int) -> np.ndarray | None:
    return cv2.imdecode(np.frombuffer(archive.extractfile(name).read(), np.uint8), flags)


def load_bank(folder: str | Path, limit: int = 0, seed: int = 0, pseudo_share: float = 0.25) -> ImageBank:
    """Read all shards of a folder; `limit` stops after that many images.

    pseudo_share: how large a part of the drawn targets are random parts of scenes without boxes.
    Raises FileNotFoundError where the folder holds no shard, ValueError for a shard that cannot be read.
    """
    shards = sorted(Path(folder).glob('*.jsonl'))
    if not shards:
        raise FileNotFoundError(f'no training shards (NAME.jsonl with NAME.tar) in {folder}')
    rows = [(shard, json.loads(line)) for shard in shards for line in shard.read_text().splitlines()]
    rows = rows[:limit or len(rows)]
    random = np.random.default_rng(seed)
    pixels = torch.empty((len(rows), 4, CANVAS, CANVAS), dtype=torch.uint8)
    sizes, means, table = np.zeros((len(rows), 2)), np.zeros((len(rows), 3)), _Shards()
    archive, current = None, None
    for index, (shard, row) in enumerate(tqdm(rows, desc='decode images', unit='image', disable=None)):
        if shard != current:
            archive, current = tarfile.open(shard.with_suffix('.tar')), shard
        image = _decode(archive, row['file'], cv2.IMREAD_COLOR)
        if image is None or max(image.shape[:2]) > CANVAS:
            raise ValueError(f'{shard.with_suffix(".tar")}: {row["file"]} is not an image of at most {CANVAS} pixels')
        mask = None
        if row.get('mask'):
            mask = _decode(archive, row['mask'], cv2.IMREAD_GRAYSCALE)
            mask = (mask > 0).astype(np.uint8) * 255
        elif row.get('label') is not None and not row['objects']:
            mask = plain_ground_mask(image)
        height, width = image.shape[:2]
        mean = image.reshape(-1, 3).mean(0)
        canvas = pixels[index].numpy()
        canvas[:3] = mean.round().astype(np.uint8)[:, None, None]
        canvas[MASK] = 0
        canvas[:3, :height, :width] = image.transpose(2, 0, 1)
        if mask is not None:
            canvas[MASK, :height, :width] = mask
        sizes[index], means[index] = (width, height), mean
        table.add(index, row, image, mask, random)
    return ImageBank(pixels, torch.as_tensor(sizes, dtype=torch.float32), torch.as_tensor(means, dtype=torch.float32),
                     _object_table(table, pseudo_share))


def _object_table(table: _Shards, pseudo_share: float) -> ObjectTable:
    rows = table.objects
    group = np.array([r[7] for r in rows])
    real = np.array([r[9] for r in rows])
    # sets differ a hundredfold in size: the square root of the size decides how often one is drawn
    weight = 1 / np.sqrt(np.bincount(group, minlength=len(table.sets)))[group]
    if real.any() and not real.all():
        weight[real] *= (1 - pseudo_share) / weight[real].sum()
        weight[~real] *= pseudo_share / weight[~real].sum()
    partner = np.arange(len(rows))
    tracks: dict = {}
    for i, r in enumerate(rows):
        if r[8] is not None:
            tracks.setdefault((r[7], str(r[8])), []).append(i)
    for members in tracks.values():
        partner[members] = np.roll(members, 1)
    return ObjectTable(
        image=torch.tensor([r[0] for r in rows]), box=torch.tensor([r[1:5] for r in rows], dtype=torch.float32),
        label=torch.tensor([r[5] for r in rows]), masked=torch.tensor([r[6] for r in rows]),
        weight=torch.as_tensor(weight, dtype=torch.float32), partner=torch.as_tensor(partner))


def split(bank: ImageBank, share: float) -> tuple[ImageBank, ImageBank]:
    """Training and held-out halves of a bank that share the pixels: every k-th image is held out."""
    every = max(2, round(1 / share)) if share > 0 else 0
    held = bank.objects.image % every == 0 if every else torch.zeros(len(bank.objects.image), dtype=torch.bool)

    def take(mask: Tensor) -> ImageBank:
        rows = torch.nonzero(mask)[:, 0]
        new = torch.full((len(mask),), -1)
        new[rows] = torch.arange(len(rows))
        parts = {name: getattr(bank.objects, name)[rows] for name in bank.objects.__dataclass_fields__}
        partner = new[parts['partner']]
        parts['partner'] = torch.where(partner >= 0, partner, torch.arange(len(rows)))
        return ImageBank(bank.pixels, bank.size, bank.mean, ObjectTable(**parts))

    return take(~held), take(held)
