"""Train the head that finds an object's box from a point on it: `python -m cract_core.training.points --data FOLDER`.

Its features are those of the tracker's networks as they run, which stay as they are; only the head learns. Each sample is
a crop around a point near the middle of an object, or seldom around a point on none.
"""
from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..config import TrackerConfig
from ..crop import VIEW_SIZE
from ..files import written
from ..point import GOOD_IOU, NOMINAL, SPREAD
from ..runtime import Nets, make_nets
from ..weights_file import read_weights
from .pictures import Bank, load_bank

LOOSE = ('household_ycb_synthetic', 'site_helmets', 'gtea_gaze_plus', 'tiny_people_rpi', 'camvid', 'catdog', 'highway',
         'hands_subhi', 'kangaroo', 'raccoon', 'pot_curtain_toaster', 'ships_mixed', 'fruit_freshness')
ALL_TOLD = ('voc2007', 'coco256', 'ngsim', 'indoor5')  # sets in whose pictures every object has a box: others show ground
# how often a set is drawn, against the root of its tracks: few scenes with many objects, and what is far from video
SHARES = {'ngsim': 0.25, 'cdnet-highway': 0.4, 'tools': 0.3, 'playing_cards': 0.2, 'drones_grocery_creiser': 0.5,
          'clothing_coparsing': 0.5, 'fod_a': 0.5, 'hrplanes_aerial': 0.7, 'jhmdb': 3.0, 'ddd': 2.0, 'mot15': 1.5}
BATCH = 64
FRESH = 32         # of them are new, the others drawn from the latest KEPT: making a sample takes longer than learning it
KEPT = 6000
EMPTY = 0.06       # samples around a point on no object
OFFSET = 0.13      # of the point from the middle of its object, parts of the sides, normal; at most 0.38


class PointHead(nn.Module):
    """phi34 (B, C, 21, 21) -> (B, 6): distances to the four sides before softplus, two logits (see `point.Head`)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv0 = nn.Conv2d(channels, 48, 1)
        self.conv1 = nn.Conv2d(48, 48, 3, padding=1)
        self.conv2 = nn.Conv2d(48, 64, 3, 2, 1)
        self.conv3 = nn.Conv2d(64, 64, 3, 2, 1)
        self.fc1 = nn.Linear(64 * 36, 128)
        self.fc2 = nn.Linear(128, 6)
        self.drop = nn.Dropout(0.1)

    def forward(self, phi):
        x = phi
        for conv in (self.conv0, self.conv1, self.conv2, self.conv3):
            x = F.relu(conv(x))
        return self.fc2(F.relu(self.fc1(self.drop(x.flatten(1)))))


class PointSampler:
    """Draws crops around points on the objects of a bank."""

    def __init__(self, bank: Bank, random: np.random.Generator):
        self.bank, self.random = bank, random
        loose = [bank.sets.index(name) for name in LOOSE if name in bank.sets]
        rows = np.flatnonzero(~np.isin(bank.set, loose))
        tracks = Counter(zip(bank.set[rows], bank.track[rows]))
        per_set = Counter(bank.set[row] for row in rows)
        lone = Counter(number for number, _ in tracks)
        # a set counts by the root of its tracks, a track by the number of its objects alike
        weight = np.array([SHARES.get(bank.sets[bank.set[r]], 1.0) * lone[bank.set[r]] ** -0.5
                           / tracks[bank.set[r], bank.track[r]] for r in rows])
        self.rows, self.chance = rows, np.cumsum(weight / weight.sum())
        told = np.isin(bank.set, [bank.sets.index(name) for name in ALL_TOLD if name in bank.sets])
        self.told = np.flatnonzero(told)
        self._kept: list[tuple[np.ndarray, np.ndarray]] = []
        self.shares = {bank.sets[number]: weight[bank.set[rows] == number].sum() / weight.sum() for number in per_set}

    def sample(self) -> tuple[np.ndarray, np.ndarray]:
        """A crop (161, 161, 3) around the point and corners (4,) of the object's box from there in terms of the crop's
        side; nan where there is no object."""
        random, bank = self.random, self.bank
        empty = random.random() < EMPTY
        row = self.told[random.integers(len(self.told))] if empty else \
            self.rows[min(np.searchsorted(self.chance, random.random()), len(self.rows) - 1)]
        picture = bank.pictures[bank.picture[row]]
        pixels, box = picture.pixels, bank.box[row]
        size = box[2:] - box[:2]
        height, width = pixels.shape[:2]
        if empty:
            others = bank.box[picture.objects]
            for _ in range(10):
                point = random.random(2) * (width, height)
                if not ((others[:, :2] - 4 < point) & (point < others[:, 2:] + 4)).all(1).any():
                    break
            else:
                return self.sample()
        else:
            offset = np.clip(random.normal(0, OFFSET, 2), -0.38, 0.38) * (random.random() < 0.85)
            point = (box[:2] + box[2:]) / 2 + offset * size
        miss = random.normal(0, 0.3) if random.random() < 0.7 else random.uniform(-SPREAD, SPREAD)
        side = math.sqrt(size.prod()) / NOMINAL * math.exp(miss)
        step = np.exp(random.uniform(-0.12, 0.12) * np.array([1, -1])) * side / VIEW_SIZE   # of x and y
        mirror = 1 - 2 * (random.random() < 0.5)
        inverse = np.array([[mirror * step[0], 0, 0], [0, step[1], 0]])
        inverse[:, 2] = point - 0.5 - inverse[:, :2] @ np.full(2, VIEW_SIZE / 2 - 0.5)
        border = cv2.mean(pixels)[:3]
        if random.random() < 0.25:   # a coarse picture, as of a small object
            factor = random.uniform(0.35, 0.9)
            small = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
            pixels = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
        crop = cv2.warpAffine(pixels, inverse, (VIEW_SIZE, VIEW_SIZE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                              borderMode=cv2.BORDER_CONSTANT, borderValue=border)
        crop = self._light(crop)
        if empty:
            return crop, np.full(4, np.nan)
        corners = (box - np.tile(point, 2)) / np.tile(step * VIEW_SIZE, 2)
        if mirror < 0:
            corners = corners[[2, 1, 0, 3]] * (-1, 1, -1, 1)
        return crop, corners

    def _light(self, crop: np.ndarray) -> np.ndarray:
        random = self.random
        if random.random() < 0.12:
            crop = cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        if random.random() < 0.6:
            gain = np.exp(random.normal(0, 0.15) + random.normal(0, 0.05, 3))
            table = np.clip((np.arange(256)[:, None] - 128) * gain + 128 + random.normal(0, 12), 0, 255).astype(np.uint8)
            crop = cv2.LUT(crop, table[:, None].astype(np.uint8).reshape(256, 1, 3))
        if random.random() < 0.15:
            noise = random.normal(0, random.uniform(2, 8), crop.shape)
            crop = np.clip(crop + noise, 0, 255).astype(np.uint8)
        if random.random() < 0.15:
            length = int(random.integers(2, 6))
            crop = cv2.blur(crop, (length, 1) if random.random() < 0.5 else (length, length))
        return crop

    def batch(self, nets: Nets) -> tuple[torch.Tensor, torch.Tensor]:
        """phi34 (BATCH, C, 21, 21) and corners (BATCH, 4) as of `sample`."""
        new = [(np.float16(nets.features(crop)[0]), box) for crop, box in (self.sample() for _ in range(FRESH))]
        old = [self._kept[i] for i in self.random.integers(len(self._kept), size=BATCH - FRESH)] if self._kept else []
        self._kept = (self._kept + new)[-KEPT:]
        phi, boxes = zip(*new, *old)
        return torch.from_numpy(np.stack(phi)).float(), torch.from_numpy(np.float32(boxes))


def point_loss(raw: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss of `PointHead`'s output (B, 6) for corners (B, 4) from the point, nan where there is no object; the overlap
    (B,) of the boxes and whether there is an object."""
    there = ~torch.isnan(truth[:, 0])
    distance = F.softplus(raw[:, :4]) * NOMINAL
    box = torch.cat([-distance[:, :2], distance[:, 2:]], 1)
    real = torch.where(there[:, None], truth, box.detach())
    inner = (torch.minimum(box[:, 2:], real[:, 2:]) - torch.maximum(box[:, :2], real[:, :2])).clamp(min=0).prod(1)
    hull = (torch.maximum(box[:, 2:], real[:, 2:]) - torch.minimum(box[:, :2], real[:, :2])).prod(1)
    union = (box[:, 2:] - box[:, :2]).prod(1) + (real[:, 2:] - real[:, :2]).prod(1) - inner
    overlap = inner / union.clamp(min=1e-6)
    size = (real[:, 2:] - real[:, :2]).clamp(min=1e-3)
    far = F.smooth_l1_loss(box / size.repeat(1, 2), real / size.repeat(1, 2), reduction='none', beta=0.1).mean(1)
    regress = ((1 - overlap) + 0.5 * (1 - union / hull.clamp(min=1e-6)) + 2 * far)[there]
    known = torch.where(there, overlap.detach(), torch.zeros_like(overlap))
    quality = F.binary_cross_entropy_with_logits(raw[:, 4], (known >= GOOD_IOU).float()) + \
        F.binary_cross_entropy_with_logits(raw[:, 5], known)
    return regress.mean() + quality, overlap.detach(), there


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m cract_core.training.points', description=__doc__.splitlines()[0])
    parser.add_argument('--data', required=True, help='folder of training shards')
    parser.add_argument('--output', required=True, help='weights file to write')
    parser.add_argument('--weights', default='', help="the tracker's weights, whose features are used")
    parser.add_argument('--minutes', type=float, default=30.0)
    parser.add_argument('--rate', type=float, default=1.5e-3)
    parser.add_argument('--bfloat16', action='store_true', help='faster on processors that have it')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--threads', type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(1)
    torch.manual_seed(arguments.seed)
    nets = make_nets(TrackerConfig(weights=arguments.weights, threads=arguments.threads))
    weights = read_weights(arguments.weights)
    sampler = PointSampler(load_bank(arguments.data), np.random.default_rng(arguments.seed))
    print({name: round(share, 3) for name, share in sorted(sampler.shares.items(), key=lambda item: -item[1])})
    head = PointHead(weights.channels)
    average = {name: value.clone() for name, value in head.state_dict().items()}
    optimizer = torch.optim.AdamW(head.parameters(), arguments.rate, weight_decay=1e-2)
    begun, step, told = time.monotonic(), 0, []
    while (spent := (time.monotonic() - begun) / 60 / arguments.minutes) < 1:
        for group in optimizer.param_groups:
            group['lr'] = arguments.rate * min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * spent))
        phi, truth = sampler.batch(nets)
        with torch.autocast('cpu', torch.bfloat16, enabled=arguments.bfloat16):
            raw = head(phi)
        loss, overlap, there = point_loss(raw.float(), truth)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), 5.0)
        optimizer.step()
        decay = min(0.998, (step + 1) / (step + 20))
        for name, value in head.state_dict().items():
            average[name].lerp_(value, 1 - decay)
        told.append((loss.item(), float(overlap[there].mean()), float((overlap[there] >= GOOD_IOU).float().mean())))
        step += 1
        if step % 200 == 0:
            loss, overlap, good = np.mean(told, 0)
            print(f'{step} steps, {spent:.0%}: loss {loss:.3f}, overlap {overlap:.3f}, good {good:.3f}', flush=True)
            told = []
            save_head(average, arguments.output)
    save_head(average, arguments.output)
    return 0


def save_head(state: dict[str, torch.Tensor], path: str | Path) -> None:
    """Write what `point.Head` reads."""
    with written(Path(path)) as part:
        with open(part, 'wb') as file:
            np.savez_compressed(file, **{name: value.numpy().astype(np.float16) for name, value in state.items()})


if __name__ == '__main__':
    raise SystemExit(main())
