"""Readers of the public benchmarks in the layouts in which they are published.

Boxes come out as everywhere here: x, y, w, h, 0-based pixels, a row of nan where the target is absent. What is missing
or broken raises ValueError or FileNotFoundError in one sentence that says what was expected where. A root that holds
only some of a benchmark's sequences is read as it is; `Benchmark.total` tells how many there are to be.
"""
from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator

import numpy as np

from ..files import read_text
from ..video import list_images
from . import benchmark_tables as tables
from .sequences import Sequence, numbers, paired, read_all

Reader = Callable[[], Sequence]


@dataclass(frozen=True)
class Benchmark:
    """One benchmark: how its folder is read and in which form its results are written."""

    name: str                                       # as given to --benchmark
    title: str
    total: int                                      # sequences (targets) that make it complete
    layout: str                                     # what is expected below ROOT
    index: Callable[[Path], Iterator[tuple[str, Reader]]]
    form: str                                       # of the results: text, got10k, trackingnet or vot
    origin: int = 0                                 # coordinate of the first pixel in its files
    archive: bool = False                           # results are handed in as one zip file


def read_benchmark(name: str, root, only: tuple[str, ...] = (), limit: int | None = None,
                   left_out: dict[str, str] | None = None) -> list[Sequence]:
    """The sequences of the benchmark `name` below `root`, in the benchmark's order.

    `only` keeps the named ones, `limit` the first so many; `left_out`: see `sequences.read_all`.
    """
    benchmark, root = BENCHMARKS[name], Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f'no folder {root}: expected {benchmark.title} as {benchmark.layout}')
    readers = dict(benchmark.index(root))
    if not readers:
        raise FileNotFoundError(f'no sequence of {benchmark.title} in {root}: expected {benchmark.layout}')
    for wanted in only:
        if wanted not in readers:
            raise ValueError(f'no sequence {wanted!r} of {benchmark.title} in {root}; there are '
                             f'{", ".join(list(readers)[:8])}{" and others" if len(readers) > 8 else ""}')
    chosen = [known for known in readers if not only or known in only][:limit]
    return read_all({known: readers[known] for known in chosen}, left_out)


def _otb(root: Path) -> Iterator[tuple[str, Reader]]:
    """OTB-2015. The toolkit's names of two targets in one folder: Jogging-1, Jogging-2."""
    for name, attributes in tables.OTB_ATTRIBUTES.items():
        folder, _, target = name.partition('-')
        truth = root / folder / (f'groundtruth_rect.{target}.txt' if target else 'groundtruth_rect.txt')
        if (root / folder).is_dir():
            yield name, lambda folder=root / folder, truth=truth, name=name, attributes=attributes: _otb_sequence(
                folder, truth, name, attributes)


def _otb_sequence(folder: Path, path: Path, name: str, attributes: tuple[str, ...]) -> Sequence:
    truth = _boxes(_table(path, 4, 'x,y,w,h'))
    truth[:, :2] -= 1
    if name in tables.OTB_RANGES:
        first, last = tables.OTB_RANGES[name]
        by_number = {int(image.stem): image for image in list_images(folder / 'img') if image.stem.isdecimal()}
        images = _numbered(by_number, first, last, folder / 'img')
        if len(truth) == last:  # Tiger1 is annotated from its first frame on, but used from the sixth
            truth = truth[first - 1:]
    else:
        images = list_images(folder / 'img')
    return _sequence(name, images, truth, path, attributes=attributes)


def _uav(root: Path) -> Iterator[tuple[str, Reader]]:
    """UAV123: a sequence is a range of the frames of a folder; its annotation starts with the range.

    Frames without the target (nan) count as failures, as in its version of the OTB toolkit.
    """
    for name, (folder, first, last) in tables.UAV123_RANGES.items():
        path = root / 'anno' / 'UAV123' / f'{name}.txt'
        if path.is_file():
            yield name, lambda path=path, folder=root / 'data_seq' / 'UAV123' / folder, first=first, last=last: (
                _uav_sequence(path, folder, first, last))


def _uav_sequence(path: Path, folder: Path, first: int, last: int) -> Sequence:
    by_number = {int(image.stem): image for image in list_images(folder) if image.stem.isdecimal()}
    flags = path.parent / 'att' / path.name
    attributes = ()
    if flags.is_file():
        row = _table(flags, len(tables.UAV123_ATTRIBUTES), 'twelve flags')[0]
        attributes = tuple(attribute for attribute, flag in zip(tables.UAV123_ATTRIBUTES, row) if flag)
    return _sequence(path.stem, _numbered(by_number, first, last, folder), _boxes(_table(path, 4, 'x,y,w,h')), path,
                     attributes=attributes, absent_counts=True)


def _nfs(root: Path) -> Iterator[tuple[str, Reader]]:
    """NfS, 30 fps version: `<sequence>/30/<sequence>.txt` in the form of VATIC beside the folder of its frames."""
    for folder in _folders(root):
        path = folder / '30' / f'{folder.name}.txt'
        if path.parent.is_dir():
            yield folder.name, lambda path=path: _nfs_sequence(path)


def _nfs_sequence(path: Path) -> Sequence:
    """A line is: id, left, top, right, bottom, frame, lost, occluded, generated, "label".

    The file has one line a frame of the 240 fps version in most sequences, every eighth of which is a frame here, and
    one line a frame in the others; their ends may differ by one frame.
    """
    images = list_images(path.with_suffix(''))
    rows = _table(path, 7, 'id left top right bottom frame lost ...', more=True)
    if abs(len(rows) / len(images) - 8) < 1:
        rows = rows[::8]
    if abs(len(rows) - len(images)) == 1:
        count = min(len(rows), len(images))
        rows, images = rows[:count], images[:count]
    truth = np.column_stack([rows[:, 1:3], rows[:, 3:5] - rows[:, 1:3]])
    truth[rows[:, 6] == 1] = np.nan
    return _sequence(path.stem, images, _boxes(truth), path)


def _vot(root: Path) -> Iterator[tuple[str, Reader]]:
    """VOT-2018 short-term, as the MATLAB toolkit (frames in the folder) or the Python toolkit (color/) store it."""
    root = root / 'sequences' if (root / 'sequences' / 'list.txt').is_file() else root
    for name in _listed(root / 'list.txt'):
        yield name, lambda folder=root / name: _vot_sequence(folder)


def _vot_sequence(folder: Path) -> Sequence:
    """Lines of groundtruth.txt: a polygon x1,y1,x2,y2,... or, in the sequence conduction1, a box x,y,w,h."""
    path = folder / 'groundtruth.txt'
    regions = []
    for number, values in _lines(path, 'x1,y1,x2,y2,... or x,y,w,h'):
        if len(values) != 4 and (len(values) < 6 or len(values) % 2):
            raise ValueError(f'{path}, line {number}: expected a polygon x1,y1,x2,y2,... or a box x,y,w,h, '
                             f'got {len(values)} numbers')
        regions.append(polygon(values))
    images = list_images(folder / 'color' if (folder / 'color').is_dir() else folder)
    attributes = tuple(sorted(tag.stem for tag in folder.glob('*.tag') if '1' in read_text(tag).split()))
    return _sequence(folder.name, images, np.array([polygon_to_box(region) for region in regions]), path,
                     regions=tuple(regions), attributes=attributes)


def _trackingnet(root: Path) -> Iterator[tuple[str, Reader]]:
    """TrackingNet's test set; only the box of the first frame is public."""
    for path in sorted((root / 'TEST' / 'anno').glob('*.txt')):
        yield path.stem, lambda path=path: _withheld(path.stem, list_images(root / 'TEST' / 'frames' / path.stem), path)


def _got10k_val(root: Path) -> Iterator[tuple[str, Reader]]:
    """GOT-10k's validation set; the target counts as absent where cover.label is 0, as in the GOT-10k toolkit."""
    for name in _listed(root / 'val' / 'list.txt'):
        yield name, lambda folder=root / 'val' / name: _got10k_sequence(folder)


def _got10k_sequence(folder: Path) -> Sequence:
    path = folder / 'groundtruth.txt'
    truth, cover = _boxes(_table(path, 4, 'x,y,w,h')), _table(folder / 'cover.label', 1, 'the visible share, 0 to 8')
    if len(cover) != len(truth):
        raise ValueError(f'{folder} has {len(truth)} lines in groundtruth.txt and {len(cover)} in cover.label: '
                         'expected one line a frame in both')
    truth[cover[:, 0] == 0] = np.nan
    meta = folder / 'meta_info.ini'
    if not meta.is_file():
        raise FileNotFoundError(f'no file {meta}: expected a line "resolution: (width, height)" in it')
    found = re.search(r'^resolution:\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)', read_text(meta), re.MULTILINE)
    if not found:
        raise ValueError(f'{meta}: expected a line "resolution: (width, height)"')
    return _sequence(folder.name, list_images(folder), truth, path, frame_size=(int(found[1]), int(found[2])))


def _got10k_test(root: Path) -> Iterator[tuple[str, Reader]]:
    """GOT-10k's test set; only the box of the first frame is public."""
    for name in _listed(root / 'test' / 'list.txt'):
        yield name, lambda folder=root / 'test' / name: _withheld(
            folder.name, list_images(folder), folder / 'groundtruth.txt')


def _lasot(root: Path) -> Iterator[tuple[str, Reader]]:
    """LaSOT, the 280 test videos of protocol II, in the folders of their classes or side by side."""
    for name in tables.LASOT_TEST:
        for folder in (root / name.split('-')[0] / name, root / name):
            if folder.is_dir():
                yield name, lambda folder=folder: _lasot_sequence(folder)
                break


def _lasot_sequence(folder: Path) -> Sequence:
    """The target is absent where full_occlusion.txt or out_of_view.txt says 1: one line of flags, one a frame."""
    path = folder / 'groundtruth.txt'
    truth = _boxes(_table(path, 4, 'x,y,w,h'))
    for flag in ('full_occlusion', 'out_of_view'):
        flags = _table(folder / f'{flag}.txt', None, '0 or 1 for each frame').ravel()
        if len(flags) != len(truth):
            raise ValueError(f'{folder} has {len(truth)} lines in groundtruth.txt and {len(flags)} flags in '
                             f'{flag}.txt: expected one for each frame in both')
        truth[flags == 1] = np.nan
    return _sequence(folder.name, list_images(folder / 'img'), truth, path)


def _lasot_training(root: Path) -> Iterator[tuple[str, Reader]]:
    """LaSOT without the test videos of protocol II."""
    for folder in sorted(root.glob('*/*-*')):
        if folder.is_dir() and folder.name not in tables.LASOT_TEST:
            yield folder.name, lambda folder=folder: _lasot_sequence(folder)


def _trackingnet_training(root: Path) -> Iterator[tuple[str, Reader]]:
    for path in sorted(root.glob('TRAIN_*/anno/*.txt')):
        yield path.stem, lambda path=path: _sequence(
            path.stem, list_images(path.parents[1] / 'frames' / path.stem), _boxes(_table(path, 4, 'x,y,w,h')), path)


def _got10k_training(root: Path) -> Iterator[tuple[str, Reader]]:
    for name in _listed(root / 'train' / 'list.txt'):
        yield name, lambda folder=root / 'train' / name: _got10k_sequence(folder)


TRAINING = {'lasot': (_lasot_training, 'ROOT/<class>/<sequence>/{img/*.jpg, groundtruth.txt, full_occlusion.txt, '
                                       'out_of_view.txt}'),
            'trackingnet': (_trackingnet_training, 'ROOT/TRAIN_<n>/{frames/<sequence>/*.jpg, anno/<sequence>.txt}'),
            'got10k': (_got10k_training, 'ROOT/train/{list.txt, <sequence>/{*.jpg, groundtruth.txt, cover.label, '
                                         'meta_info.ini}}')}


def training_videos(name: str, root: Path) -> list[tuple[str, Reader]]:
    """Names and readers of the videos of a public training set: lasot, trackingnet or got10k.

    Raises FileNotFoundError where `root` holds none of them.
    """
    read, layout = TRAINING[name]
    videos = list(read(Path(root)))
    if not videos:
        raise FileNotFoundError(f'no training video of {name} in {root}: expected {layout}')
    return videos


BENCHMARKS = {benchmark.name: benchmark for benchmark in (
    Benchmark('otb2015', 'OTB-2015', 100, 'ROOT/<sequence>/{img/*.jpg, groundtruth_rect.txt}', _otb, 'text', origin=1),
    Benchmark('uav123', 'UAV123', 123, 'ROOT/{data_seq/UAV123/<folder>/*.jpg, anno/UAV123/<sequence>.txt}', _uav,
              'text'),
    Benchmark('nfs30', 'NfS at 30 fps', 100, 'ROOT/<sequence>/30/{<sequence>/*.jpg, <sequence>.txt}', _nfs, 'text'),
    Benchmark('vot2018', 'VOT-2018', 60, 'ROOT/{list.txt, <sequence>/{color/*.jpg, groundtruth.txt}}', _vot, 'vot'),
    Benchmark('trackingnet', 'TrackingNet test', 511, 'ROOT/TEST/{frames/<sequence>/*.jpg, anno/<sequence>.txt}',
              _trackingnet, 'text', archive=True),
    Benchmark('got10k-val', 'GOT-10k val', 180,
              'ROOT/val/{list.txt, <sequence>/{*.jpg, groundtruth.txt, cover.label, meta_info.ini}}', _got10k_val,
              'got10k'),
    Benchmark('got10k-test', 'GOT-10k test', 180, 'ROOT/test/{list.txt, <sequence>/{*.jpg, groundtruth.txt}}',
              _got10k_test, 'got10k', archive=True),
    Benchmark('lasot', 'LaSOT, protocol II', 280,
              'ROOT/<class>/<sequence>/{img/*.jpg, groundtruth.txt, full_occlusion.txt, out_of_view.txt}', _lasot,
              'text'))}


def polygon(values) -> np.ndarray:
    """A VOT region, x,y,w,h or x1,y1,x2,y2,..., as the corners `(K, 2)` of a polygon."""
    values = np.asarray(values, float)
    if len(values) == 4:
        x, y, w, h = values
        values = np.array([x, y, x + w, y, x + w, y + h, x, y + h])
    return values.reshape(-1, 2)


def polygon_to_box(corners: np.ndarray) -> np.ndarray:
    """The upright box x, y, w, h with the centre and the area of a polygon `(K, 2)` and the aspect of its bounding box.

    Trackers of boxes are started with it on VOT's polygons by convention (pysot); a bounding box would be too large.
    Nan where a corner is nan, as in frames without the target.
    """
    centre, low, high = corners.mean(axis=0), corners.min(axis=0), corners.max(axis=0)
    following = np.roll(corners, -1, axis=0)
    area = abs((corners[:, 0] * following[:, 1] - corners[:, 1] * following[:, 0]).sum()) / 2
    bounding = high - low
    size = bounding * np.sqrt(area / bounding.prod()) if bounding.prod() > 0 else np.full(2, np.nan)
    return np.concatenate([centre - size / 2, size])


def _sequence(name: str, images: list[Path], truth: np.ndarray, path: Path, **rest) -> Sequence:
    return paired(name, images, truth, f'{path} has {len(truth)} lines and {images[0].parent} {len(images)} frames of '
                  'the sequence: expected one line a frame', **rest)


def _withheld(name: str, images: list[Path], path: Path) -> Sequence:
    first = _boxes(_table(path, 4, 'x,y,w,h'))[:1]
    return Sequence(name, tuple(images), np.concatenate([first, np.full((len(images) - 1, 4), np.nan)]),
                    annotated=False)


def _numbered(by_number: dict[int, Path], first: int, last: int, folder: Path) -> list[Path]:
    missing = [number for number in range(first, last + 1) if number not in by_number]
    if missing:
        raise FileNotFoundError(f'no frame {missing[0]} in {folder}: expected the frames {first} to {last}')
    return [by_number[number] for number in range(first, last + 1)]


def _boxes(rows: np.ndarray) -> np.ndarray:
    """`(N, 4)` boxes, a row of nan where one has a nan or no area."""
    rows = rows.copy()
    rows[~((rows[:, 2] > 0) & (rows[:, 3] > 0)) | np.isnan(rows).any(axis=1)] = np.nan
    return rows


def _table(path: Path, columns: int | None, expected: str, more: bool = False) -> np.ndarray:
    """The numbers of a file, `(N, columns)`; `columns` None takes those of the first line, `more` drops what follows.
    """
    rows = []
    for number, values in _lines(path, expected, columns if more else None):
        columns = columns or len(values)
        if len(values) != columns:
            raise ValueError(f'{path}, line {number}: expected {expected}, got {len(values)} numbers')
        rows.append(values)
    return np.array(rows)


def _lines(path: Path, expected: str, first: int | None = None) -> Iterator[tuple[int, list[float]]]:
    """Line number and numbers of every line; commas, tabs and blanks separate. Only the `first` so many are numbers."""
    if not path.is_file():
        raise FileNotFoundError(f'no file {path}: expected lines of {expected}')
    lines = read_text(path).rstrip().splitlines()
    if not lines:
        raise ValueError(f'{path} is empty: expected lines of {expected}')
    for number, line in enumerate(lines, 1):
        try:
            yield number, numbers(line, first)
        except ValueError:
            raise ValueError(f'{path}, line {number}: expected {expected}, got {line.strip()[:60]!r}') from None


def _listed(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f'no file {path}: expected the names of the sequences, one a line')
    return read_text(path).split()


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith('.'))
