"""The trust protocol: does a tracker know that its target is gone, and does it find it again?

Into a real sequence stretches are spliced in which the target is truly absent, and then it comes back. A stretch is
either `other` (frames of another sequence, cut to the size of this one) or `painted` (the scene goes on, forth and
back, with the ground beside the target copied over it). They stand shortly after the first frame, in the middle and
near the end; everything is drawn from a seed and the sequence's name, so the same seed gives the same frames.

The event that a score should foretell is "the target is visible and the box overlaps it by more than a half".
"""
from __future__ import annotations

import re
import zlib
from collections import defaultdict
from dataclasses import dataclass
from typing import Iterator

import cv2
import numpy as np

from ..encodings import Contrast
from ..video import read_image
from . import metrics
from .runner import Run
from .sequences import Sequence, bounce

STRETCH = (30, 60)       # frames of a stretch, both included; a painted one grows until its scene is back in place
FIRST_CUT = (5, 8)       # frames shown before the first stretch, both included
SKIP = 10                # so many frames of the sequence may pass unseen in a stretch, so the target has moved on
RETURN = 15              # frames in which a return has to be seen; so many follow every stretch at least
ENOUGH = 60              # shorter sequences have no stretch in the middle
ECE_BINS = 15            # of equal width (Guo et al., On Calibration of Modern Neural Networks, 2017)
LARGEST = 0.3            # part of the frame: a larger target hides the scene, which cannot be painted then
MARGIN = 0.3             # painted beyond each side of the box, in parts of its size
NEIGHBOURS = [(dx, dy) for far in (1.0, 1.35, 1.8) for dx in (-far, 0, far) for dy in (-far, 0, far) if dx or dy]


@dataclass(frozen=True)
class Stretch:
    """Spliced frames: positions `[start, start + length)` of the new sequence; `kind` is 'other' or 'painted'."""

    start: int
    length: int
    kind: str


@dataclass(frozen=True, kw_only=True)
class AbsenceSequence(Sequence):
    """A sequence with absences spliced in. `truth` is nan there, `images` names the file behind each frame."""

    boxes: np.ndarray               # (N, 4) what to paint over; nan where nothing is painted
    stretches: tuple[Stretch, ...]

    @property
    def absent(self) -> np.ndarray:
        """(N,) bool: the target was taken away."""
        mask = np.zeros(len(self.images), bool)
        for stretch in self.stretches:
            mask[stretch.start:stretch.start + stretch.length] = True
        return mask

    def frames(self) -> Iterator[np.ndarray]:
        size, painter = None, Painter()
        contrasts = defaultdict(Contrast)   # own and other frames are of different cameras
        kinds = np.full(len(self.images), '', object)
        for stretch in self.stretches:
            kinds[stretch.start:stretch.start + stretch.length] = stretch.kind
        for path, box, kind in zip(self.images, self.boxes, kinds):
            frame = read_image(path, contrasts[path.parent])
            size = size or frame.shape[1::-1]
            if kind == 'painted':
                frame = painter.paint(frame, box)
            elif kind == 'other':
                frame, painter = cover(frame, size), Painter()
            else:
                painter = Painter()
            yield frame


def splice(sequence: Sequence, pool: list[Sequence], seed: int = 0) -> AbsenceSequence:
    """`sequence` with absences; frames of others are taken from `pool`, as far as they are of another series.

    Deterministic in `seed` and the names; what `pool` holds in which order decides only which sequence is the other.
    ValueError where no stretch fits or no other sequence is there.
    """
    random = np.random.default_rng([seed, zlib.crc32(sequence.name.encode())])
    donors = sorted((one for one in pool if _series(one.name) != _series(sequence.name)), key=lambda one: one.name)
    if not donors:
        raise ValueError(f'{sequence.name}: the absence protocol needs frames of another sequence, and there is none')
    visible = ~np.isnan(sequence.truth).any(axis=1)
    first = 'other', 'painted'
    kind = first[int(random.integers(2))]
    area = np.prod(read_image(sequence.images[0]).shape[:2])
    images, truth, paint, stretches, shown = [], [], [], [], 0
    for cut in _cuts(len(visible), random):
        skip = int(random.integers((SKIP if len(visible) >= ENOUGH else SKIP // 3) + 1))
        length = int(random.integers(STRETCH[0], STRETCH[1] + 1))
        resume = _resume(visible, cut, skip, shown)
        if resume is None:
            continue
        cut, resume = resume
        _extend(images, truth, paint, sequence, range(shown, cut))
        start, none = len(images), np.full(4, np.nan)
        path = _walk(visible, cut, resume, length)
        if (sequence.truth[path, 2] * sequence.truth[path, 3]).max() > LARGEST * area:
            kind = 'other'
        if kind == 'painted':
            images += [sequence.images[i] for i in path]
            paint += [sequence.truth[i] for i in path]
        else:
            donor = donors[int(random.integers(len(donors)))]
            path = bounce(len(donor.images), int(random.integers(len(donor.images))), length)
            images += [donor.images[i] for i in path]
            paint += [none] * len(path)
        truth += [none] * len(path)
        stretches.append(Stretch(start, len(path), kind))
        shown, kind = resume, first[kind == 'other']
    if not stretches:
        raise ValueError(f'{sequence.name}: no absence fits into its {len(visible)} frames; expected '
                         f'{FIRST_CUT[1] + RETURN} or more with the target in view')
    _extend(images, truth, paint, sequence, range(shown, len(visible)))
    return AbsenceSequence(sequence.name, tuple(images), np.array(truth), **_inherited(sequence),
                           boxes=np.array(paint), stretches=tuple(stretches))


def _inherited(sequence: Sequence) -> dict:
    """Whatever else a reader knows of the sequence as a whole."""
    return {name: value for name, value in vars(sequence).items()
            if name not in ('name', 'images', 'truth', 'regions')}


def _series(name: str) -> str:
    """'OTB/Jogging-1' and 'Jogging-2' are of one series: they may show the same target."""
    return re.sub(r'[\W_]*\d.*$', '', name.rsplit('/', 1)[-1]).lower()


def _cuts(count: int, random: np.random.Generator) -> list[int]:
    """How many frames are shown before each stretch: few, half of them, nearly all."""
    first = int(random.integers(FIRST_CUT[0], FIRST_CUT[1] + 1))
    last = count - RETURN - SKIP - int(random.integers(6))
    return [first, (first + last) // 2, last] if count >= ENOUGH else [first, max(last, first + RETURN)]


def _resume(visible: np.ndarray, cut: int, skip: int, shown: int) -> tuple[int, int] | None:
    """(cut, resume): the target is seen right before the cut, at it, and in the RETURN frames from `resume` on."""
    cut = max(cut, shown + RETURN if shown else 1)
    for start in range(cut, len(visible)):
        for resume in range(min(start + skip, len(visible) - RETURN), start - 1, -1):
            if visible[start - 1:start + 1].all() and visible[resume:resume + RETURN].all():
                return start, resume
    return None


def _walk(visible: np.ndarray, cut: int, resume: int, length: int) -> list[int]:
    """Frames forth and back from `cut`, ending next to `resume`, at least `length`; all have a box to paint over."""
    hidden = np.flatnonzero(~visible[cut:])
    end = cut + int(hidden[0]) if hidden.size else len(visible)
    highest = min(cut + (length + resume - cut) // 2, end - 1)
    target = min(resume, highest)
    path, step = [cut], 1
    while len(path) < length or path[-1] != target:
        if highest == cut:
            step = 0
        elif path[-1] == highest:
            step = -1
        elif path[-1] == cut:
            step = 1
        path.append(path[-1] + step)
    return path


def _extend(images: list, truth: list, paint: list, sequence: Sequence, rows) -> None:
    for i in rows:
        images.append(sequence.images[i])
        truth.append(sequence.truth[i])
        paint.append(np.full(4, np.nan))


def cover(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`frame` scaled to cover `size` (width, height) and cut about its middle."""
    height, width = frame.shape[:2]
    scale = max(size[0] / width, size[1] / height)
    scaled = cv2.resize(frame, (max(round(width * scale), size[0]), max(round(height * scale), size[1])),
                        interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    left, top = (scaled.shape[1] - size[0]) // 2, (scaled.shape[0] - size[1]) // 2
    return np.ascontiguousarray(scaled[top:top + size[1], left:left + size[0]])


def auroc(scores: np.ndarray, correct: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a right answer scores higher than a wrong one, ties counting half.

    scores (N,), correct (N,) bool. Through ranks (Mann-Whitney U). nan if all answers are right or all are wrong.
    """
    scores, correct = np.asarray(scores, float), np.asarray(correct, bool)
    right, wrong = int(correct.sum()), int((~correct).sum())
    if not right or not wrong:
        return float('nan')
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # 1-based, the mean rank among equals
    return float((ranks[correct].sum() - right * (right + 1) / 2) / (right * wrong))


def reliability(scores: np.ndarray, correct: np.ndarray, bins: int = ECE_BINS) -> np.ndarray:
    """(bins, 3): answers in each of `bins` equal parts of [0, 1] (a score on a border belongs to the lower one), their
    mean score and the share that is right; nan where a part is empty.
    """
    scores, correct = np.asarray(scores, float), np.asarray(correct, float)
    part = np.clip(np.ceil(scores * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(part, minlength=bins)
    with np.errstate(invalid='ignore'):
        return np.stack([count, np.bincount(part, scores, bins) / count, np.bincount(part, correct, bins) / count], 1)


def calibration_error(scores: np.ndarray, correct: np.ndarray, bins: int = ECE_BINS) -> float:
    """Expected calibration error: |mean score - share right| over the parts of [0, 1], weighted by their answers.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, with 15 bins of equal width.
    """
    table = reliability(scores, correct, bins)
    table = table[table[:, 0] > 0]
    return float(np.average(np.abs(table[:, 1] - table[:, 2]), weights=table[:, 0]))


@dataclass(frozen=True)
class Trust:
    """What one run says of one sequence, ready to be pooled with others. Row 0, where the box was given, is left out.

    scores, correct, gone: (M,) of all judged frames, absent (gone) or visible; frames in which the target was already hidden in
    the original sequence are not judged. The other fields are counts, except `delays`: frames up to and with the first
    'lost' of every stretch that the tracker entered unlost, inf if it never came.
    """

    scores: np.ndarray
    correct: np.ndarray
    gone: np.ndarray
    absent: int                 # frames
    absent_lost: int            # of these answered as lost
    settled: int                # visible frames, without the first RETURN after each absence
    settled_lost: int
    delays: tuple[float, ...]
    returns: int
    reacquired: int


def judge(run: Run, sequence: AbsenceSequence) -> Trust:
    """Compare a run with the truth of its sequence."""
    absent, overlap = sequence.absent, metrics.overlaps(run.boxes, sequence.truth)
    lost = np.array([state == 'lost' for state in run.states])
    visible = ~np.isnan(overlap)
    correct = visible & (np.nan_to_num(overlap) > 0.5)
    judged = (absent | visible) & (np.arange(len(lost)) > 0)
    settled, delays, reacquired = visible & judged, [], 0
    for stretch in sequence.stretches:
        end = stretch.start + stretch.length
        settled[end:end + RETURN] = False
        if not lost[stretch.start - 1]:
            seen = np.flatnonzero(lost[stretch.start:end])
            delays.append(float(seen[0] + 1) if seen.size else np.inf)
        reacquired += bool((correct & ~lost)[end:end + RETURN].any())
    return Trust(run.scores[judged], correct[judged], absent[judged], int(absent.sum()), int((absent & lost).sum()),
                 int(settled.sum()), int((settled & lost).sum()), tuple(delays), len(sequence.stretches), reacquired)


def figures(trusts: list[Trust]) -> dict[str, float | None]:
    """The figures over all frames of all sequences together; None where there is nothing to measure.

    auroc: of the score, for "visible and overlap above 0.5"; ece: the same event, 15 bins. absent_as_lost: share of
    the spliced frames answered as lost. false_loss: share of the visible frames answered as lost; the 15 frames after
    a return are left to reacquired_15. frames_to_loss: median over stretches of the frames needed to say lost; None
    if that was never said in half of them. reacquired_15: share of the returns after which, within 15 frames, the
    answer was not lost and overlapped the target by more than a half.
    """
    def share(part: str, whole: str) -> float | None:
        total = sum(getattr(one, whole) for one in trusts)
        return sum(getattr(one, part) for one in trusts) / total if total else None

    scores, correct = (np.concatenate([getattr(one, name) for one in trusts]) for name in ('scores', 'correct'))
    delays = [delay for one in trusts for delay in one.delays]
    delay = np.median(delays) if delays else np.inf  # of inf and a number: inf
    area = auroc(scores, correct)
    return dict(auroc=None if np.isnan(area) else area, ece=calibration_error(scores, correct),
                absent_as_lost=share('absent_lost', 'absent'), false_loss=share('settled_lost', 'settled'),
                frames_to_loss=float(delay) if np.isfinite(delay) else None,
                reacquired_15=share('reacquired', 'returns'))


def threshold(trusts: list[Trust], false_loss: float = 0.05) -> dict[str, float | None]:
    """What a threshold on the score alone would tell, for trackers that never say lost.

    score: the largest threshold that at most `false_loss` of the right answers lie below; absent_below: the share of
    the spliced frames that do. None where there is nothing to measure.
    """
    scores, correct, gone = (np.concatenate([getattr(one, name) for one in trusts])
                             for name in ('scores', 'correct', 'gone'))
    if not correct.any() or not gone.any():
        return dict(score=None, absent_below=None)
    score = float(np.quantile(scores[correct], false_loss, method='lower'))
    return dict(score=score, absent_below=float((scores[gone] < score).mean()))


class Painter:
    """Takes a target out of consecutive frames with the ground beside it.

    Of the places around the box the one is copied whose colours along the seam fit best, kept from frame to frame
    unless another fits much better, and blended in with Poisson editing. Where the target leaves no room beside it,
    mirror images of what is left and right of it (or above and below) fade into each other.
    """

    def __init__(self):
        self._last = None

    def paint(self, frame: np.ndarray, box: np.ndarray) -> np.ndarray:
        """A copy of `frame` (H, W, 3) without what `box` (x, y, w, h) shows."""
        height, width = frame.shape[:2]
        margin = np.maximum(box[2:] * MARGIN, 3)
        x1, y1 = np.floor(np.clip(box[:2] - margin, 0, (width - 1, height - 1))).astype(int)
        x2, y2 = np.ceil(np.clip(box[:2] + box[2:] + margin, (x1 + 1, y1 + 1), (width, height))).astype(int)
        hole = frame[y1:y2, x1:x2]
        inner = x1 > 0, y1 > 0, x2 < width, y2 < height  # sides with ground beyond them: there has to be no seam
        best, chosen = np.inf, None
        for neighbour in NEIGHBOURS:
            dx, dy = round(neighbour[0] * (x2 - x1)), round(neighbour[1] * (y2 - y1))
            if x1 + dx < 0 or y1 + dy < 0 or x2 + dx > width or y2 + dy > height:
                continue
            patch = frame[y1 + dy:y2 + dy, x1 + dx:x2 + dx]
            misfit = _seam(hole, patch, inner) * (0.7 if neighbour == self._last else 1)
            if misfit < best:
                best, chosen, copied = misfit, neighbour, patch
        self._last = chosen
        painted = frame.copy()
        if chosen is None:
            painted[y1:y2, x1:x2] = _fill(frame, x1, y1, x2, y2)
        else:
            painted[y1:y2, x1:x2] = _blend(hole, copied, inner)
        return painted


def _depth(shape: tuple[int, ...], inner: tuple[bool, ...]) -> np.ndarray:
    """(h, w): pixels to the nearest of the `inner` sides (left, top, right, bottom), the outermost being 0."""
    height, width = shape[:2]
    depth = np.full((height, width), height + width)
    x, y = np.arange(width)[None, :], np.arange(height)[:, None]
    for side, distance in zip(inner, (x, y, width - 1 - x, height - 1 - y)):
        if side:
            depth = np.minimum(depth, distance)
    return depth


def _seam(hole: np.ndarray, patch: np.ndarray, inner: tuple[bool, ...]) -> float:
    """Mean difference of colours along the inner sides of two pictures of one size."""
    edge = _depth(hole.shape, inner) < 2
    return float(np.abs(hole[edge].astype(np.float32) - patch[edge]).mean()) if edge.any() else 0.0


def _blend(hole: np.ndarray, patch: np.ndarray, inner: tuple[bool, ...]) -> np.ndarray:
    """`patch` in the place of `hole`, without a seam: their difference along the edge is spread over the inside."""
    height, width = hole.shape[:2]
    depth = _depth(hole.shape, inner)
    edge = (depth < 2).astype(np.float32)
    # a membrane through the differences along the edge (Perez et al., Poisson Image Editing, 2003), relaxed on a small
    # grid: it is smooth
    small = (min(width, 24), min(height, 24))
    weight = cv2.resize(edge, small, interpolation=cv2.INTER_AREA)
    value = cv2.resize((hole.astype(np.float32) - patch) * edge[..., None], small, interpolation=cv2.INTER_AREA)
    known = weight > 0
    membrane = np.zeros_like(value)
    membrane[known] = value[known] / weight[known][:, None]
    membrane[~known] = membrane[known].mean(axis=0) if known.any() else 0
    for _ in range(200):
        membrane[~known] = cv2.blur(membrane, (3, 3), borderType=cv2.BORDER_REPLICATE)[~known]
    filled = patch + cv2.resize(membrane, (width, height), interpolation=cv2.INTER_LINEAR)
    rim = max(3, min(width, height) // 12)
    fade = np.clip((depth + 1) / (rim + 1), 0, 1)[..., None]
    return np.clip(fade * filled + (1 - fade) * hole, 0, 255).round().astype(np.uint8)


def _fill(frame: np.ndarray, x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    """The hole filled from left and right with their mirror images, faded into each other.

    From above and below where less than a quarter of the hole's width is left beside it, and more there.
    """
    height, width = frame.shape[:2]
    beside, over = max(x1, width - x2) / (x2 - x1), max(y1, height - y2) / (y2 - y1)
    if beside < 0.25 and beside < over:
        turned = _mirror(frame.transpose(1, 0, 2), y1, x1, y2, x2)
        return np.ascontiguousarray(turned.transpose(1, 0, 2))
    return _mirror(frame, x1, y1, x2, y2)


def _mirror(frame: np.ndarray, x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    """The hole filled from left and right; a side of less than 8 pixels is left out if the other is wider."""
    width = frame.shape[1]
    rows, inside = frame[y1:y2].astype(np.float32), np.arange(x2 - x1)
    left, right = rows[:, :x1], rows[:, x2:]
    weight = np.linspace(1, 0, x2 - x1)[None, :, None]  # of the left side
    if x1 < 8 and x1 < width - x2:
        return right[:, bounce(width - x2, 0, x2 - x1)[::-1]].astype(np.uint8)
    from_left = left[:, x1 - 1 - bounce(x1, 0, len(inside))]
    if width - x2 < 8:
        return from_left.astype(np.uint8)
    from_right = right[:, bounce(width - x2, 0, len(inside))[::-1]]
    return (weight * from_left + (1 - weight) * from_right).round().astype(np.uint8)
