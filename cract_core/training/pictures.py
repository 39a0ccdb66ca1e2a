"""Training pictures, decoded once and kept in memory, and the objects in them.

A data folder holds shards: `NAME.tar` of image files and `NAME.jsonl` with one line an image,
`{"file", "set", "size": [w, h], "objects": [{"xywh": [x, y, w, h], "label"}], "mask"?, "track"?, "frame"?}`, boxes
0-based. `mask` is a picture of the first object; images of one `track` show the same object, which is the first of
`objects`, and `frame` counts the frames of its video (default: the images of the track).
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
from tqdm import tqdm

from ..encodings import file_to_bgr
from ..files import read_text

LONGEST = 320       # side of a stored image at most, pixels
MIN_SIDE = 12       # root of the area of the smallest object that is learned from, pixels
AHEAD = 256         # images that are decoded before they are wanted


class Picture(NamedTuple):
    """pixels (H, W, 3) uint8 BGR; mask (H, W) uint8, 255 on the first object, or None; objects: the rows of `Bank`."""
    pixels: np.ndarray
    mask: np.ndarray | None
    objects: range


@dataclass(frozen=True)
class Bank:
    """Pictures and one row for each object of at least MIN_SIDE: its picture, box (n, 4) corners, number of its set, label
    and track (objects without a track have one of their own), frame in the track, and whether it is the picture's first."""
    pictures: list[Picture]
    sets: tuple[str, ...]
    picture: np.ndarray
    box: np.ndarray
    set: np.ndarray
    label: np.ndarray
    track: np.ndarray
    frame: np.ndarray
    first: np.ndarray


def load_bank(folder: str | Path, limit: int = 0) -> Bank:
    """Read all shards of a folder; `limit` stops after that many images.

    Raises FileNotFoundError where the folder holds no shard, ValueError for a shard that cannot be read.
    """
    shards = sorted(Path(folder).glob('*.jsonl'))
    if not shards:
        raise FileNotFoundError(f'no training shards (NAME.jsonl with NAME.tar) in {folder}')
    rows = [(shard.with_suffix('.tar'), json.loads(line)) for shard in shards
            for line in read_text(shard).splitlines()][:limit or None]
    pictures, table, lengths = [], [], Counter()
    for row, pixels, mask in tqdm(_decoded(rows), desc='decode images', unit='image', total=len(rows), disable=None):
        height, width = pixels.shape[:2]
        start, tracked = len(table), row.get('track') is not None
        for index, item in enumerate(row['objects']):
            x, y, w, h = item['xywh']
            box = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
            sides = box[2] - box[0], box[3] - box[1]
            if min(sides) < MIN_SIDE / 2 or sides[0] * sides[1] < MIN_SIDE ** 2:
                continue
            first = index == 0 and (tracked or mask is not None)
            name = f'{row["set"]}/{row["track"]}' if first and tracked else (len(pictures), index)
            lengths[name] += 1
            table.append((len(pictures), box, row['set'], (row['set'], str(item.get('label'))), name,
                          row.get('frame', lengths[name]) if first else 0, first))
        pictures.append(Picture(pixels, mask, range(start, len(table))))
    if not table:
        raise ValueError(f'no image in {folder} has an object of at least {MIN_SIDE} pixels')
    columns = [list(column) for column in zip(*table)]
    sets, labels, tracks = (_numbers(columns[i]) for i in (2, 3, 4))
    return Bank(pictures, tuple(sets), np.array(columns[0]), np.array(columns[1], np.float64),
                *(np.array([numbers[key] for key in columns[i]]) for i, numbers in ((2, sets), (3, labels), (4, tracks))),
                np.array(columns[5]), np.array(columns[6], bool))


def split(bank: Bank, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n,) bool of the objects for training and of those held out, apart by picture and by track: all that hangs
    together with every k-th picture."""
    every = max(2, round(1 / share)) if share > 0 else 0
    if not every:
        return np.ones(len(bank.track), bool), np.zeros(len(bank.track), bool)
    start = np.full(bank.track.max() + 1, len(bank.pictures))
    np.minimum.at(start, bank.track, bank.picture)
    first = np.full(len(bank.pictures), len(bank.pictures))     # picture in which the picture's own track begins
    np.minimum.at(first, bank.picture, start[bank.track])
    held = first[bank.picture] % every == 0
    return ~held, held


def _numbers(keys: list) -> dict:
    return {key: number for number, key in enumerate(dict.fromkeys(keys))}


def _decoded(rows: list[tuple[Path, dict]]) -> Iterator[tuple[dict, np.ndarray, np.ndarray | None]]:
    """Rows with their decoded pictures, in order; as many threads as cores decode."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        waiting: deque = deque()
        for tar, group in itertools.groupby(rows, key=lambda item: item[0]):
            with tarfile.open(tar) as archive:
                for _, row in group:
                    try:
                        data = archive.extractfile(row['file']).read()
                        mask = archive.extractfile(row['mask']).read() if row.get('mask') else None
                    except KeyError as error:
                        raise ValueError(f'{tar}: {error.args[0]}') from error
                    waiting.append(pool.submit(_decode, row, data, mask, tar))
                    if len(waiting) > AHEAD:
                        yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _decode(row: dict, data: bytes, mask_data: bytes | None, tar: Path) -> tuple[dict, np.ndarray, np.ndarray | None]:
    try:
        image = file_to_bgr(data)
    except ValueError as error:
        raise ValueError(f'{tar}: {row["file"]}: {error}') from error
    if max(image.shape[:2]) > LONGEST:
        raise ValueError(f'{tar}: {row["file"]} is not an image of at most {LONGEST} pixels')
    mask = None
    if mask_data is not None:
        mask = cv2.imdecode(np.frombuffer(mask_data, np.uint8), cv2.IMREAD_GRAYSCALE)
        if mask is None or mask.shape != image.shape[:2]:
            raise ValueError(f'{tar}: {row["mask"]} is not a picture of the size of {row["file"]}')
        mask = np.uint8(255) * (mask > 0)
    return row, image, mask if mask is not None and mask.any() else None
