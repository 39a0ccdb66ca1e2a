"""Training shards from annotated videos and from COCO: small crops around the objects, for fast loading.

Of each chosen frame the object is cut out with about five times its size around it, which is what a shifted search
region can show, reduced to at most 320 pixels and stored as WebP. The shards are plain tar files with a JSON line for
each image beside them, in the form that `data.load_bank` reads.
"""
from __future__ import annotations

import io
import json
import tarfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Iterator, NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from ..evaluation.benchmarks import training_videos
from ..evaluation.sequences import raise_or_note, read_all, read_folders
from ..files import read_text, write_text, written
from ..video import read_image
from .pictures import LONGEST

AROUND = 5.0        # side of a crop, in sides of its object
SMALLEST = 10       # pixels of the frame: smaller objects are left out
VIEWS = 6           # frames that are taken of a clip of a video
SHARD = 4000        # images
QUALITY = 85
COCO_LAYOUT = 'ROOT/{annotations/instances_train2017.json, train2017/*.jpg}'


class Shot(NamedTuple):
    """One image to pack: where it is, the object's box x, y, w, h and what is known of it."""
    path: Path
    box: tuple[float, float, float, float]
    known: dict                          # label, and track and frame of a video
    polygons: tuple[np.ndarray, ...]     # around the object, (K, 2) pixels; none for videos


class Packed(NamedTuple):
    """One image of a shard: WebP, PNG of the mask or None, and its line."""
    picture: bytes
    mask: bytes | None
    row: dict


def video_shots(name: str, root: Path, count: int, gap: int, random: np.random.Generator,
                left_out: dict[str, str] | None = None) -> Iterator[Shot]:
    """About `count` shots of the videos of lasot, trackingnet, got10k, or (`folders`) of the user's own.

    They are taken in clips of six frames that span at most `gap` frames, from as many videos as possible.
    A video that cannot be read is noted in `left_out`, by its name with the reason; without that, the error is raised.
    """
    if name == 'folders':
        videos = [(s.name, lambda s=s: s) for s in read_folders(root, left_out=left_out)]
    else:
        videos = training_videos(name, root)
    order = random.permutation(len(videos))
    clips = max(1, round(count / VIEWS))
    for place, index in enumerate(order[:clips]):
        track, read = videos[index]
        label = track.rsplit('-', 1)[0] if name == 'lasot' else track
        found = read_all({track: read}, left_out)
        if not found:
            continue
        sequence, = found
        seen = np.flatnonzero(np.nan_to_num(sequence.truth)[:, 2:].min(1) >= SMALLEST)
        if not len(seen):
            continue
        chosen: set[int] = set()
        for _ in range(clips // len(order) + (place < clips % len(order))):
            first = random.choice(seen[:max(1, len(seen) - VIEWS + 1)])
            near = seen[(seen >= first) & (seen <= first + gap)]
            chosen.update(random.choice(near, min(VIEWS, len(near)), replace=False).tolist())
        for frame in sorted(chosen):
            yield Shot(sequence.images[frame], tuple(sequence.truth[frame].tolist()),
                       {'label': label, 'track': track, 'frame': frame}, ())


def coco_shots(root: Path, count: int, random: np.random.Generator) -> Iterator[Shot]:
    """`count` of the objects of COCO 2017 (all, if there are not so many), one of an image while there are others.

    Raises FileNotFoundError or ValueError for an annotation file that is missing or is none.
    """
    path = Path(root) / 'annotations' / 'instances_train2017.json'
    if not path.is_file():
        raise FileNotFoundError(f'no file {path}: expected COCO as {COCO_LAYOUT}')
    try:
        content = json.loads(read_text(path))
        names = {c['id']: c['name'] for c in content['categories']}
        files = {i['id']: i['file_name'] for i in content['images']}
        by_image = defaultdict(list)
        for item in content['annotations']:
            if not item['iscrowd'] and min(item['bbox'][2:]) >= 2 * SMALLEST:
                by_image[item['image_id']].append(item)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f'{path} is not a COCO annotation file ({type(error).__name__}: {error})') from error
    for items in by_image.values():
        random.shuffle(items)
    images = [list(by_image.values())[i] for i in random.permutation(len(by_image))]
    rounds = max(map(len, images), default=0)
    items = [items[turn] for turn in range(rounds) for items in images if turn < len(items)][:count]
    for item in sorted(items, key=lambda item: item['image_id']):
        polygons = tuple(np.array(p, float).reshape(-1, 2) for p in item['segmentation'])
        yield Shot(Path(root) / 'train2017' / files[item['image_id']], tuple(map(float, item['bbox'])),
                   {'label': names[item['category_id']]}, polygons)


def cut_shot(shot: Shot) -> Packed:
    """Cut the object of a shot out with its surroundings. Raises ValueError for an image that cannot be read."""
    image = read_image(shot.path)
    height, width = image.shape[:2]
    x, y, w, h = shot.box
    side = AROUND * np.sqrt(w * h)
    half = np.maximum(side, 1.2 * np.array([w, h])) / 2
    left, top = np.maximum(np.floor([x + w / 2 - half[0], y + h / 2 - half[1]]), 0).astype(int)
    right, bottom = np.minimum(np.ceil([x + w / 2 + half[0], y + h / 2 + half[1]]), (width, height)).astype(int)
    if min(right - left, bottom - top) < SMALLEST:
        raise ValueError(f'{shot.path}: the box {x:g}, {y:g}, {w:g}, {h:g} lies outside of the image')
    size = np.array([right - left, bottom - top])
    new = np.maximum(1, np.round(size * min(1, LONGEST / max(size)))).astype(int)
    scale = new / size
    picture = cv2.resize(image[top:bottom, left:right], tuple(map(int, new)), interpolation=cv2.INTER_AREA)
    box = np.concatenate([(np.array([x, y]) - (left, top)) * scale, np.array([w, h]) * scale])
    row = {'size': new.tolist(), 'objects': [{'xywh': box.round(2).tolist(), 'label': shot.known['label']}]}
    row |= {name: value for name, value in shot.known.items() if name != 'label'}
    mask = None
    if shot.polygons:
        drawn = np.zeros(picture.shape[:2], np.uint8)
        cv2.fillPoly(drawn, [((p - (left, top)) * scale - 0.5).round().astype(np.int32) for p in shot.polygons], 255)
        mask = cv2.imencode('.png', drawn)[1].tobytes()
    return Packed(cv2.imencode('.webp', picture, (cv2.IMWRITE_WEBP_QUALITY, QUALITY))[1].tobytes(), mask, row)


def _try_cut(shot: Shot) -> Packed | ValueError:
    try:
        return cut_shot(shot)
    except ValueError as error:
        return error


def pack(name: str, root: str | Path, output: str | Path, count: int, gap: int = 100, seed: int = 0,
         threads: int = 1, left_out: dict[str, str] | None = None) -> int:
    """Write shards `NAME-000.tar` and `.jsonl` with about `count` images of a set; returns how many there are.

    name: lasot, trackingnet, got10k, coco, or folders for sequences in plain folders. Videos and images that cannot be
    read are noted in `left_out`, by name with the reason; without that, the error is raised. Raises FileExistsError where
    `output` holds shards of that set, FileNotFoundError and ValueError for a set that is missing or broken.
    """
    root, output = Path(root), Path(output)
    if not root.is_dir():
        raise FileNotFoundError(f'no folder {root}: expected the training set {name} there')
    if list(output.glob(f'{name}-*.tar')):
        raise FileExistsError(f'{output} holds shards of {name} already: remove them, or choose another folder')
    random = np.random.default_rng(seed)
    shots = list(coco_shots(root, count, random) if name == 'coco' else
                 video_shots(name, root, count, gap, random, left_out))
    if not shots:
        raise ValueError(f'{root} holds no object of at least {SMALLEST} pixels to pack')
    output.mkdir(parents=True, exist_ok=True)
    total = 0
    parts = [shots[i:i + SHARD] for i in range(0, len(shots), SHARD)]
    with ThreadPoolExecutor(threads) as pool, tqdm(total=len(shots), desc=f'pack {name}', disable=None) as bar:
        for number, part in enumerate(parts):
            base, lines = f'{name}-{number:03d}', []
            with written(output / f'{base}.tar') as beside, tarfile.open(beside, 'w') as archive:
                for i in range(0, len(part), 64):   # decoded images wait in memory: not too many
                    for index, packed in enumerate(pool.map(_try_cut, part[i:i + 64]), i):
                        bar.update()
                        if isinstance(packed, ValueError):
                            raise_or_note(packed, str(part[index].path), left_out)
                            continue
                        stem = f'{base}-{index:05d}'
                        row = {'file': f'{stem}.webp', 'set': name, **packed.row}
                        _add(archive, row['file'], packed.picture)
                        if packed.mask is not None:
                            row['mask'] = f'{stem}.mask.png'
                            _add(archive, row['mask'], packed.mask)
                        lines.append(json.dumps(row))
            # written last: a shard that has its lines is whole
            write_text(output / f'{base}.jsonl', ''.join(f'{line}\n' for line in lines))
            total += len(lines)
    return total


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))
