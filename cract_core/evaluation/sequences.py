"""Reader of annotated sequences in plain folders: `ROOT/<set>/<sequence>/{img/*.jpg|png, groundtruth.txt}`.

`groundtruth.txt` holds one line `x,y,w,h` a frame: top-left corner and size, pixels, 0-based, with commas, tabs or
blanks between; `nan,nan,nan,nan` where the target is absent. What is missing or broken raises ValueError or FileNotFoundError in one sentence that says what
was expected where.
"""
from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, Iterator, Mapping

import cv2
import numpy as np
from tqdm import tqdm

from ..encodings import Contrast
from ..files import read_text, written
from ..synthetic import generate
from ..video import list_images, read_image, write_image

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
        contrast = Contrast()
        for path in self.images:
            yield read_image(path, contrast)


def read_folders(root, only: tuple[str, ...] = (), limit: int | None = None,
                 left_out: dict[str, str] | None = None) -> list[Sequence]:
    """All sequences below `root`, sorted by name.

    `only` keeps those whose `<set>/<sequence>`, `<set>` or `<sequence>` is named; `limit` keeps the first so many.
    `left_out`: see `read_all`.
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
    return read_all({names[folder][0]: lambda folder=folder: read_folder(folder, names[folder][0])
                     for folder in folders[:limit]}, left_out)


def read_all(readers: Mapping[str, Callable[[], Sequence]], left_out: dict[str, str] | None) -> list[Sequence]:
    """What the readers give. One that raises ends it, or with `left_out` is noted there, by its name, with the reason.

    A frame more than lines, or a line more than frames, is left over at the end of some published sequences: with
    `left_out` such a sequence is cut to what both have, and noted too.
    """
    sequences = []
    for name, read in readers.items():
        try:
            sequences.append(read())
        except UnevenSequence as error:
            if left_out is None or error.sequence is None:
                raise_or_note(error, name, left_out)
                continue
            left_out[name] = f'{error}; measured on the {len(error.sequence.images)} frames that have both'
            sequences.append(error.sequence)
        except (ValueError, OSError) as error:
            raise_or_note(error, name, left_out)
    return sequences


def raise_or_note(error: Exception, name: str, left_out: dict[str, str] | None) -> None:
    """Note why the sequence `name` is left out; raise the error where nothing is to be left out."""
    if left_out is None:
        raise error
    left_out[name] = str(error)


class UnevenSequence(ValueError):
    """Numbers of frames and of lines differ. `sequence` is the part that has both, where they differ by one only."""

    def __init__(self, text: str, sequence: Sequence | None):
        super().__init__(text)
        self.sequence = sequence


def paired(name: str, images: list[Path], truth: np.ndarray, text: str, **rest) -> Sequence:
    """A sequence of as many frames as lines; UnevenSequence with `text` for other numbers."""
    count = min(len(images), len(truth))
    rest = {key: value[:count] if key == 'regions' else value for key, value in rest.items()}
    sequence = Sequence(name, tuple(images[:count]), truth[:count], **rest)
    if len(images) != len(truth):
        raise UnevenSequence(text, sequence if count > 1 and abs(len(images) - len(truth)) == 1 else None)
    return sequence


def read_folder(folder: Path, name: str | None = None) -> Sequence:
    """One sequence: `folder/img/*.jpg|png` and `folder/groundtruth.txt`."""
    folder = Path(folder)
    images = list_images(folder / 'img')
    truth = read_boxes(folder / 'groundtruth.txt')
    return paired(name or folder.name, images, truth,
                  f'{folder} has {len(images)} images in img/ and {len(truth)} lines in groundtruth.txt: '
                  'expected one line an image')


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
    for number, line in enumerate(read_text(path).rstrip().splitlines(), 1):
        try:
            row = numbers(line)
        except ValueError:
            row = []
        if len(row) != 4 or np.isinf(row).any() or row[2] <= 0 or row[3] <= 0:
            raise ValueError(f'{path}, line {number}: expected x,y,w,h in pixels with w and h above 0, or nan for '
                             f'an absent target, got {line.strip()!r}')
        rows.append([np.nan] * 4 if np.isnan(row).any() else row)
    if not rows:
        raise ValueError(f'{path} is empty: expected one line x,y,w,h a frame')
    return np.array(rows)


def numbers(line: str, first: int | None = None) -> list[float]:
    """The numbers of a line, of which only the `first` so many are read; commas, tabs and blanks separate, and a comma
    may end it. ValueError for anything else."""
    line = re.sub(r'\s*,\s*$', '', line.strip())
    return [float(value) for value in re.split(r'\s*,\s*|\s+', line)[:first]]


def write_boxes(path: Path, boxes: np.ndarray) -> None:
    """Write `(N, 4)` boxes as `read_boxes` reads them, to a ten-thousandth of a pixel."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with written(path) as part:
        np.savetxt(part, boxes, fmt='%.4f', delimiter=',')


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
        write_image(path, frame.image, (cv2.IMWRITE_JPEG_QUALITY, 95))
    write_boxes(Path(folder) / 'groundtruth.txt', np.array(boxes))
    return np.array(boxes)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith('.'))
