"""The camera protocol: every sequence under known motion of a virtual camera, with exact truth.

A clip goes forth and back until it has as many frames as asked for. The camera turns and zooms about the target, which
keeps its place in the picture, so that no case is hard because the target leaves the view; what lies beyond the frame
repeats its edge. The truth of a turned target is the upright box around its turned outline: the annotated polygon, else
the ellipse that fills the annotated box.
"""
from __future__ import annotations

import functools
import math
import zlib
from dataclasses import dataclass
from typing import Callable, Iterator

import cv2
import numpy as np

from ..encodings import Contrast
from ..video import read_image
from . import metrics
from .runner import Run
from .sequences import Sequence, bounce

CASES = {
    'base': 'the clip as it is',
    'turn90': 'a slow turn by 90 degrees',
    'turn180': 'a slow turn by 180 degrees',
    'jump90': 'turned by 90 degrees from one frame to the next',
    'jump180': 'turned by 180 degrees from one frame to the next',
    'shake50': 'every frame half a target size away from the last',
    'shake100': 'every frame a target size away from the last',
    'shake150': 'every frame one and a half target sizes away from the last',
    'zoom': 'a zoom to four times the size and back',
    'every2': 'every second frame of the clip',
    'every3': 'every third frame',
    'every5': 'every fifth frame',
    'double': 'pictures of twice the width and height from one frame to the next',
    'half': 'pictures of half the width and height, of a clip enlarged twice, from one frame to the next',
    'dark': '5 % of the light, with noise of the sensor',
    'jpeg': 'JPEG of quality 10',
    'blur': 'motion blur over a quarter of the target size, in any direction',
    'still': 'the first frame again and again, with noise of the sensor',
}
FRAMES = 90             # of a case; the slow ones move from a ninth to seven ninths of them
RETURN = 15             # frames after which a sudden change has to be mastered
SETTLED = 10            # first frames of a still scene that do not count
LIGHT, NOISE = 0.05, 2.0    # part of the light; standard deviation of the noise, grey levels
QUALITY = 10
BLUR, LONGEST = 0.25, 25    # of the target size; pixels
ZOOM = 4.0
LARGEST = 0.6           # of the picture's sides, for the target where the zoom is largest
VISIBLE = 0.5           # part of the box that must be in the picture, else the target counts as absent
OUTLINE = np.stack([np.cos(turns := np.linspace(0, 2 * np.pi, 180, endpoint=False)), np.sin(turns)], 1) / 2
FIGURES = ('iou', 'lost', 'last_fifth', 'after_15', 'false_loss', 'tremor')


@dataclass(frozen=True, kw_only=True)
class CameraSequence(Sequence):
    """A sequence as a moving camera sees it. `truth` is in its pictures; name: <set>/<sequence>/<case>."""

    base: str               # name of the sequence
    case: str
    warps: np.ndarray       # (N, 2, 3) continuous pixel coordinates of the frames -> of the pictures
    sizes: np.ndarray       # (N, 2) width and height of the pictures
    sudden: int | None      # the frame from which on a sudden change holds
    seed: int               # of noise and blur
    target_size: float      # sqrt(w h) of the first box, pixels

    def frames(self) -> Iterator[np.ndarray]:
        contrast, random, spoil = Contrast(), np.random.default_rng(self.seed), SPOILED.get(self.case)
        for path, warp, size in zip(self.images, self.warps, self.sizes):
            picture = see(read_image(path, contrast), warp, tuple(map(int, size)))
            yield picture if spoil is None else spoil(picture, random, self.target_size)


def move(sequence: Sequence, case: str, frames: int = FRAMES, seed: int = 0) -> CameraSequence:
    """`sequence` in one of CASES, `frames` frames long. Deterministic in `seed`, the name and the case.

    ValueError if the target is absent in the first frame.
    """
    if np.isnan(sequence.truth[0]).any():
        raise ValueError(f'{sequence.name}: the target is absent in the first frame, where tracking has to start')
    random = np.random.default_rng([seed, zlib.crc32(sequence.name.encode()), zlib.crc32(case.encode())])
    step = int(case.removeprefix('every')) if case.startswith('every') else 0 if case == 'still' else 1
    rows = bounce(len(sequence.images), 0, max(frames * step, 1))[::step] if step else np.zeros(frames, int)
    size = np.array(read_image(sequence.images[0]).shape[1::-1])
    angle, scale, shift, sudden = np.zeros(frames), np.ones(frames), np.zeros((frames, 2)), None
    first, canvas = sequence.truth[0], size
    target = float(np.sqrt(first[2] * first[3]))
    slow = np.clip((np.arange(frames) - frames / 9) / (frames * 2 / 3), 0, 1)   # 0 to 1 over two thirds of the frames
    if case.startswith(('jump', 'double', 'half')):
        sudden = round(frames / 3)
    after = np.arange(frames) >= (frames if sudden is None else sudden)
    if case.startswith(('turn', 'jump')):
        degrees = int(case.removeprefix('turn').removeprefix('jump'))
        angle = np.radians(degrees) * (slow if sudden is None else after) * random.choice((-1, 1))
        canvas = np.full(2, size.max())
    elif case.startswith('shake'):
        length = int(case.removeprefix('shake')) / 100 * target
        shift = length * _shaken(frames, random)
        canvas = size + 2 * math.ceil(length)
    elif case == 'zoom':
        largest = min(ZOOM, LARGEST * float((size / first[2:]).min()))
        scale = largest * ZOOM ** (-np.abs(1 - 2 * slow))
    factor = np.ones(frames)
    if case in ('double', 'half'):
        factor = np.where(after == (case == 'double'), 2.0, 1.0)
    warps = _warps(_centers(sequence.truth)[rows], angle, scale, shift + (canvas - size) / 2) * factor[:, None, None]
    sizes = np.round(canvas * factor[:, None]).astype(int)
    regions = sequence.regions or [None] * len(sequence.images)
    truth = np.stack([seen_box(sequence.truth[row], regions[row], warp, picture)
                      for row, warp, picture in zip(rows, warps, sizes)])
    return CameraSequence(f'{sequence.name}/{case}', tuple(sequence.images[row] for row in rows), truth,
                          attributes=sequence.attributes, base=sequence.name, case=case, warps=warps, sizes=sizes,
                          sudden=sudden, seed=int(random.integers(2**31)), target_size=target)


def see(frame: np.ndarray, warp: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What the camera shows of `frame` (H, W, 3): a picture of `size` (width, height); warp: see `CameraSequence`."""
    if size == frame.shape[1::-1] and np.array_equal(warp, np.eye(2, 3)):
        return frame
    linear, scale = warp[:, :2], math.sqrt(abs(np.linalg.det(warp[:, :2])))
    if scale < 1:   # a warp alone would skip pixels
        smaller = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        linear = linear * (np.array(frame.shape[1::-1]) / smaller.shape[1::-1])
        frame = smaller
    # pixel k covers [k, k + 1]: its centre lies at k + 0.5
    pixels = np.column_stack([linear, warp[:, 2] + linear.sum(1) / 2 - 0.5])
    return cv2.warpAffine(frame, pixels, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def seen_box(box: np.ndarray, region: np.ndarray | None, warp: np.ndarray, size) -> np.ndarray:
    """x, y, w, h of the target in a picture of `size`, cut there; nan where less than half of it is in view.

    box (4,) in the frame, nan where the target is absent; region: its polygon (K, 2), or None for the box's ellipse.
    """
    absent = np.full(4, np.nan)
    if np.isnan(box).any():
        return absent
    outline = box[:2] + box[2:] / 2 + OUTLINE * box[2:] if region is None else np.asarray(region, float)
    outline = outline @ warp[:, :2].T + warp[:, 2]
    low, high = outline.min(0), outline.max(0)
    cut_low, cut_high = np.clip(low, 0, size), np.clip(high, 0, size)
    seen = np.prod(cut_high - cut_low) / np.prod(high - low)
    return np.concatenate([cut_low, cut_high - cut_low]) if seen >= VISIBLE else absent


def _warps(centers: np.ndarray, angle: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """(N, 2, 3): turned by angle (N,) radians and scaled by scale (N,) about centers (N, 2), then shifted (N, 2)."""
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], 1)
    offset = centers + shift - np.einsum('nij,nj->ni', linear, centers)
    return np.concatenate([linear, offset[..., None]], -1)


def _centers(truth: np.ndarray) -> np.ndarray:
    """(N, 2) centres of boxes (N, 4), between annotated frames interpolated."""
    known = np.flatnonzero(~np.isnan(truth).any(axis=1))
    centers = truth[known, :2] + truth[known, 2:] / 2
    return np.stack([np.interp(np.arange(len(truth)), known, values) for values in centers.T], 1)


def _shaken(count: int, random: np.random.Generator) -> np.ndarray:
    """(N, 2): from corner to corner of a triangle, so that every step has length 1."""
    corners = np.array([[0, 1 / 3], [-0.5, -1 / 6], [0.5, -1 / 6]]) * (1, math.sqrt(3))
    place = np.cumsum(random.integers(1, 3, count)) % 3
    return corners[place] - corners[place[0]]


def _noisy(picture: np.ndarray, random: np.random.Generator, light: float = 1.0) -> np.ndarray:
    noise = random.normal(0, NOISE, picture.shape)
    return np.clip(picture * light + noise, 0, 255).round().astype(np.uint8)


def _compressed(picture: np.ndarray, random: np.random.Generator, target_size: float) -> np.ndarray:
    written, data = cv2.imencode('.jpg', picture, (cv2.IMWRITE_JPEG_QUALITY, QUALITY))
    if not written:
        raise OSError(f'OpenCV cannot encode a JPEG of {picture.shape[1]} x {picture.shape[0]} pixels')
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def _blurred(picture: np.ndarray, random: np.random.Generator, target_size: float) -> np.ndarray:
    length = float(np.clip(BLUR * target_size, 3, LONGEST))
    angle, half = random.uniform(0, np.pi), math.ceil(length / 2)
    reach = length / 2 * np.array([np.cos(angle), np.sin(angle)])
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    ends = [tuple(int(value) for value in np.round((half + sign * reach) * 256)) for sign in (-1, 1)]
    cv2.line(kernel, *ends, 1.0, lineType=cv2.LINE_AA, shift=8)
    return cv2.filter2D(picture, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)


SPOILED: dict[str, Callable] = {
    'dark': lambda picture, random, _: _noisy(picture, random, LIGHT),
    'still': lambda picture, random, _: _noisy(picture, random),
    'jpeg': _compressed,
    'blur': _blurred,
}


@dataclass(frozen=True)
class Shown:
    """What one run says of one case of one sequence, ready to be pooled. Row 0, where the box was given, is left out.

    iou, last_fifth, after_15 (from 15 frames after a sudden change on): means over the frames with the target in view,
    None where there is none; tremor: see `tremor`, of a still scene; the others are counts of frames.
    """

    iou: float | None
    last_fifth: float | None
    after_15: float | None
    tremor: float | None
    visible: int
    visible_lost: int
    right: int              # overlap above a half
    right_lost: int


def judge(run: Run, sequence: CameraSequence) -> Shown:
    """Compare a run with the truth of its sequence."""
    overlap, number = metrics.overlaps(run.boxes, sequence.truth), np.arange(len(run.boxes))
    lost = np.array([state == 'lost' for state in run.states])
    visible = ~np.isnan(overlap) & (number > 0)
    right = visible & (np.nan_to_num(overlap) > 0.5)

    def mean(where: np.ndarray) -> float | None:
        return float(overlap[visible & where].mean()) if (visible & where).any() else None

    return Shown(mean(visible), mean(number >= len(number) * 4 / 5),
                 None if sequence.sudden is None else mean(number >= sequence.sudden + RETURN),
                 tremor(run.boxes, sequence.truth[0]) if sequence.case == 'still' else None,
                 int(visible.sum()), int((visible & lost).sum()), int(right.sum()), int((right & lost).sum()))


def tremor(boxes: np.ndarray, true: np.ndarray) -> float | None:
    """Root mean square of the steps of the centre of boxes (N, 4) from frame to frame, as a part of the target's size
    sqrt(w h), the first frames left out; None for fewer frames than that."""
    centers = boxes[SETTLED:, :2] + boxes[SETTLED:, 2:] / 2
    if len(centers) < 2:
        return None
    return float(np.sqrt((np.diff(centers, axis=0) ** 2).sum(1).mean() / (true[2] * true[3])))


def figures(shown: list[Shown]) -> dict[str, float | None]:
    """Figures of one case over sequences; None where there is nothing to measure.

    iou, last_fifth, after_15, tremor: each sequence counts the same. lost: share of the frames whose box overlaps the
    truth by more than a half that were answered as lost; false_loss: the same of all frames with the target in view;
    all frames together.
    """
    def mean(name: str) -> float | None:
        values = [value for one in shown if (value := getattr(one, name)) is not None]
        return float(np.mean(values)) if values else None

    def share(part: str, whole: str) -> float | None:
        total = sum(getattr(one, whole) for one in shown)
        return sum(getattr(one, part) for one in shown) / total if total else None

    return dict(iou=mean('iou'), lost=share('right_lost', 'right'), last_fifth=mean('last_fifth'),
                after_15=mean('after_15'), false_loss=share('visible_lost', 'visible'), tremor=mean('tremor'))


def readers(sequences: list[Sequence], cases, frames: int, seed: int) -> dict[str, Callable[[], CameraSequence]]:
    """Name -> what makes it, for all cases of all sequences."""
    return {f'{sequence.name}/{case}': functools.partial(move, sequence, case, frames, seed)
            for sequence in sequences for case in cases}


def chosen(names: tuple[str, ...]) -> tuple[str, ...]:
    """The cases of that name, in their order; all without any. ValueError for an unknown one."""
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise ValueError(f'no case {unknown[0]!r} of the camera protocol; there are {", ".join(CASES)}')
    return tuple(case for case in CASES if not names or case in names)
