"""Reader of annotated sequences in plain folders: `ROOT/<set>/<sequence>/{img/*.jpg|png, groundtruth.txt}`.

`groundtruth.txt` holds one line `x,y,w,h` a frame: top-left corner and size, pixels, 0-based; `nan,nan,nan,nan` where
the target is absent. What is missing or broken raises ValueError or FileNotFoundError in one sentence that says what
was expected where.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Iterator

import cv2
import numpy as np
from tqdm import tqdm

from ..synthetic import generate
from ..video import list_images, read_image

LAYOUT = 'ROOT/<set>/<sequence>/{img/*.jpg|png, groundtruth.txt}'


@dataclass(frozen=True)
class Sequence:
    """One target followed through the frames of one clip."""

    name: str                   # <set>/<sequence>
    images: tuple[Path, ...]    # one file a frame, in order
    truth: np.ndarray           # (N, 4) x, y, w, h; a row of nan where the target is absent
    annotated: bool = True      # False where the benchmark keeps the truth after the first frame to itself
    regions: tuple[np.ndarray, ...] | None = None   # N polygons (K, 2), where the annotation has them
    attributes: tuple[str, ...] = ()                # short names such as SV, OCC, where the benchmark has them
    absent_counts: bool = False     # an absent frame is a failure, instead of being left out
    frame_size: tuple[int, int] | None = None       # width, height: boxes are cut there before the average overlap

    def frames(self) -> Iterator[np.ndarray]:
        """Decode frame after frame, `(H, W, 3)` uint8 BGR; ValueError naming the file that cannot be read."""
        for path in self.images:
            yield read_image(path)


def read_folders(root, only: tuple[str, ...] = (), limit: int | None = None) -> list[Sequence]:
    """All sequences below `root`, sorted by name.

    `only` keeps those whose `<set>/<sequence>`, `<set>` or `<sequence>` is named; `limit` keeps the first so many.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f'no folder {root}: expected sequences as {LAYOUT}')
    folders = [sequence for group in _subfolders(root) for sequence in _subfolders(group)]
    if not folders:
        raise FileNotFoundError(f'no sequence in {root}: expected {LAYOUT}')
    names = {folder: (f'{folder.parent.name}/{folder.name}', folder.parent.name, folder.name) for folder in folders}
    for wanted in only:
        if not any(wanted in known for known in names.values()):
            raise ValueError(f'no sequence or set {wanted!r} in {root}; '
                             f'there are {", ".join(known[0] for known in names.values())}')
    if only:
        folders = [folder for folder in folders if set(only) & set(names[folder])]
    return [read_folder(folder, names[folder][0]) for folder in folders[:limit]]


def read_folder(folder: Path, name: str | None = None) -> Sequence:
    """One sequence: `folder/img/*.jpg|png` and `folder/groundtruth.txt`."""
    folder = Path(folder)
    images = list_images(folder / 'img')
    truth = read_boxes(folder / 'groundtruth.txt')
    if len(images) != len(truth):
        raise ValueError(f'{folder} has {len(images)} images in img/ and {len(truth)} lines in groundtruth.txt: '
                         'expected one line an image')
    return Sequence(name or folder.name, tuple(images), truth)


def bounce(count: int, start: int, length: int) -> np.ndarray:
    """`length` positions from `start` on, forth and back over `count` frames."""
    period = max(2 * count - 2, 1)
    position = (start + np.arange(length)) % period
    return np.where(position < count, position, period - position)


def repeat(sequence: Sequence, times: int | None = None, frames: int | None = None) -> Sequence:
    """`sequence` shown forwards and backwards `times` times, so that it ends where it started, or until `frames` frames
    are shown; a sequence that has as many stays as it is. The turning frames are shown once.

    A short clip then shows what a long run does: what is lost early has to be found again.
    """
    count = len(sequence.images)
    length = times * (2 * count - 2) + 1 if times else max(frames, count)
    path = bounce(count, 0, length)
    return replace(sequence, images=tuple(sequence.images[i] for i in path), truth=sequence.truth[path],
                   regions=sequence.regions and tuple(sequence.regions[i] for i in path))


def read_boxes(path: Path) -> np.ndarray:
    """A file of `x,y,w,h` lines as `(N, 4)` float64; a line with a nan becomes a row of nan."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'no file {path}: expected one line x,y,w,h a frame')
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            row = [float(value) for value in line.split(',')]
        except ValueError:
            row = []
        if len(row) != 4 or np.isinf(row).any() or row[2] <= 0 or row[3] <= 0:
            raise ValueError(f'{path}, line {number}: expected x,y,w,h in pixels with w and h above 0, or nan for '
                             f'an absent target, got {line.strip()!r}')
        rows.append([np.nan] * 4 if np.isnan(row).any() else row)
    if not rows:
        raise ValueError(f'{path} is empty: expected one line x,y,w,h a frame')
    return np.array(rows)


def write_boxes(path: Path, boxes: np.ndarray) -> None:
    """Write `(N, 4)` boxes as `read_boxes` reads them, to a ten-thousandth of a pixel."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, boxes, fmt='%.4f', delimiter=',')


def write_rendered(folder: Path, frames: int, seed: int, size: tuple[int, int] = (640, 480)) -> np.ndarray:
    """Render a clip of `cract_core.synthetic` as `folder/{img/*.jpg, groundtruth.txt}`; returns its boxes (N, 4).

    nan where the target is hidden. The boxes are written last: where they are, the clip is whole. ValueError for a
    size that cannot be rendered, OSError for an image that cannot be written.
    """
    images, boxes = Path(folder) / 'img', []
    images.mkdir(parents=True, exist_ok=True)
    for frame in tqdm(generate(frames, seed, size), total=frames, desc='render', unit='frame', disable=None):
        boxes.append(frame.box if frame.visible else np.full(4, np.nan))
        path = images / f'{len(boxes):05d}.jpg'
        if not cv2.imwrite(str(path), frame.image, (cv2.IMWRITE_JPEG_QUALITY, 95)):
            raise OSError(f'cannot write {path}')
    write_boxes(Path(folder) / 'groundtruth.txt', np.array(boxes))
    return np.array(boxes)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith('.'))
