"""The discriminator D (Eq. 7, 8): one convolution and two fully connected layers, trained while tracking.

The convolution is a linear projection of the pyramid features, fitted to the first frame and then fixed. Being linear it
commutes with RoIAlign, so it runs once on the feature map and not on every sample. The two fully connected layers are
learned with Gauss-Newton steps (ATOM), always in float32. Eq. 8 has fewer samples than weights: each step is solved by
conjugate gradients on one unknown a sample, for which the samples meet each other once, in their Gram matrix.

All is written for arrays of numpy and for torch tensors on CUDA alike; what comes in decides.
"""
from __future__ import annotations

from collections import deque
from typing import Iterable, NamedTuple

import numpy as np

from .boxes import array_module, iou, like, to_numpy
from .proposals import best_indices
from .roi_align import BINS, LEVELS, bin_weights, pyramid, roi_align

PROJECTED = 32          # channels of D's convolution
HIDDEN = 64             # units of its first fully connected layer
POSITIVE_SHARE = 0.5    # weight of all positives together: else 1000 negatives outvote 200 positives
POSITIVE_IOU = 0.7      # samples above are positive (MDNet)
NEGATIVE_IOU = (0.5, 0.3)  # samples below are negative: first frame, updates (MDNet)
BATCH_POSITIVES, BATCH_NEGATIVES = 100, 250  # taken from the memory for one update
MINED = 600             # negatives of the memory among which the hardest are sought
START_POSITIVES, START_NEGATIVES = 100, 400  # drawn in the first frame for its first steps
START_HARDEST = 500     # negatives for its last steps
COMPONENT_SAMPLES = 30   # boxes of each kind from which the convolution is fitted
POWER_ITERATIONS = 4     # for the components
BLOCK = 32               # boxes pooled at a time
TOLERANCE = 1e-3         # conjugate gradients have arrived when the residual is this part of the right side


class Classifier(NamedTuple):
    """D as the networks score with it: projection (32, 3C), w (6 * 6 * 32 + 1, 64) and v (65,)."""
    projection: np.ndarray
    w: np.ndarray
    v: np.ndarray


class Samples(NamedTuple):
    """Training boxes (n, 4) and (m, 4), float32 corners in crop pixels."""
    positive: np.ndarray
    negative: np.ndarray


def draw_samples(box: np.ndarray, positives: int, negatives: int, negative_iou: float, extent: float,
                 random: np.random.Generator, distractors: np.ndarray | None = None) -> Samples:
    """Boxes around the target and in the background of a crop.

    box (4,): the target, corners in crop pixels; extent: side of the crop. Half of the negatives lie close to the
    target, half anywhere; `distractors` (D, 4), boxes that look like the target, are repeated with jitter and take up
    to half of the negatives' places (hard negative mining, Section 3.4). Where the crop has no room for `negatives`
    boxes that overlap the target by less than `negative_iou`, fewer come back.
    """
    center, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]

    def jittered(centers: np.ndarray, shift: float, scale: float) -> tuple[np.ndarray, np.ndarray]:
        """Boxes of about the target's size around centers (n, 2), and their overlap with the target."""
        shape = centers.shape
        middle = centers + random.standard_normal(shape) * shift * size
        log_scale = random.standard_normal((len(centers), 1)) * scale + random.standard_normal(shape) * scale / 3
        half = size * np.exp(log_scale) / 2
        boxes = np.concatenate([middle - half, middle + half], 1)
        return boxes, iou(boxes, box)

    def negative(centers: np.ndarray, shift: float, scale: float, limit: int) -> np.ndarray:
        boxes, overlap = jittered(centers, shift, scale)
        return boxes[overlap < negative_iou][:limit]

    near, overlap = jittered(np.tile(center, (4 * positives, 1)), 0.1, 0.1)
    positive = np.concatenate([box[None], near[overlap >= POSITIVE_IOU]])[:positives]
    hard = np.empty((0, 4))
    if distractors is not None and len(distractors):
        middles = np.resize((distractors[:, :2] + distractors[:, 2:]) / 2, (negatives // 2, 2))
        hard = negative(middles, 0.05, 0.05, negatives // 2)
    rest = negatives - len(hard)
    close = negative(np.tile(center, (3 * rest, 1)), 0.7, 0.2, rest // 2)
    anywhere = negative(random.uniform(0, extent, (2 * negatives, 2)), 0.0, 0.3, rest - len(close))
    return Samples(np.float32(positive), np.float32(np.concatenate([hard, close, anywhere])))


class Projection:
    """D's convolution: 3C -> 32 channels, the principal components of the first frame's pyramid features."""

    def __init__(self, weight, scale: float):
        self.weight, self.scale = weight, scale  # (32, 3C)

    @classmethod
    def fit(cls, features, sample_weight: np.ndarray, random: np.random.Generator) -> 'Projection':
        """features (M, 6, 6, 3C) of some of the first frame's samples, sample_weight (M,) summing to 1."""
        weighted = features * like(sample_weight, features)[:, None, None, None]
        mean_square = features.reshape(-1, features.shape[-1]).T @ weighted.reshape(-1, features.shape[-1])
        mean_square = to_numpy(mean_square)  # small; every device then gets the same components
        # power iteration on a few vectors more than are wanted: a tenth of the time of all eigenvectors
        vectors = random.standard_normal((len(mean_square), 3 * PROJECTED // 2)).astype(np.float32)
        for _ in range(POWER_ITERATIONS):
            vectors = np.linalg.qr(mean_square @ vectors)[0]
        powers, turn = np.linalg.eigh(vectors.T @ mean_square @ vectors)
        weight = like((vectors @ turn[:, -PROJECTED:]).T, features)
        return cls(weight, max(float(powers[-PROJECTED:].sum()), 1e-12) ** -0.5)

    def of_features(self, features):
        """Pyramid features (M, 6, 6, 3C) -> (M, 6 * 6 * 32), mean squared length 1 over the first frame."""
        return (features @ self.weight.T).reshape(len(features), -1) * self.scale

    def of_boxes(self, phi, boxes: np.ndarray):
        """The same for boxes (M, 4) on phi34 (1, C, H, W): project the map for each level, then pool."""
        _, channels, height, width = phi.shape
        planes = [(self.weight[:, i * channels:(i + 1) * channels] @ phi.reshape(channels, -1)).T.reshape(height, -1)
                  for i in range(len(LEVELS))]                                        # (H, W * 32) each
        blocks = [like(boxes[i:i + BLOCK], phi) for i in range(0, len(boxes), BLOCK)]  # small enough for caches
        return array_module(phi).concatenate([_pooled_levels(planes, block, height, width) for block in blocks]
                                             ) * self.scale


def _pooled_levels(planes: list, boxes, height: int, width: int):
    """The sum of the levels of the pyramid (M, 6 * 6 * 32), each pooled from its own plane (H, W * 32)."""
    count, parts = len(boxes), []
    fine_rows, fine_columns = bin_weights(boxes[:, 1], boxes[:, 3], height), bin_weights(boxes[:, 0], boxes[:, 2], width)
    for plane, bins in zip(planes, LEVELS):
        rows = fine_rows.reshape(count, bins, BINS // bins, height).mean(2)
        columns = fine_columns.reshape(count, 1, bins, BINS // bins, width).mean(3)
        banded = (rows.reshape(-1, height) @ plane).reshape(count, bins, width, PROJECTED)
        parts.append(columns @ banded)                                                # (M, bins, bins, 32)
    fine, middle, whole = parts
    half = LEVELS[1]
    fine = (fine + whole).reshape(count, half, BINS // half, half, BINS // half, PROJECTED)
    return (fine + middle[:, :, None, :, None]).reshape(count, -1)


class SampleMemory:
    """Projected samples of the frames in which the target was found.

    The first frame stays for ever: it alone is certain. Of later frames the positives of the last `long` and the
    negatives of the last `short` are kept (MDNet).
    """

    def __init__(self, long: int, short: int):
        self.short = short
        self.first: tuple | None = None
        self.positives: deque = deque(maxlen=long)
        self.negatives: deque = deque(maxlen=short)

    def add(self, positive, negative) -> None:
        """(n, d) and (m, d) features of one frame."""
        if self.first is None:
            self.first = (positive, negative)
        else:
            self.positives.append(positive)
            self.negatives.append(negative)

    def __len__(self) -> int:
        return (self.first is not None) + len(self.positives)

    def kept(self, short_term: bool) -> tuple[list, list]:
        """Positives and negatives of each frame for a long-term update, or of the first and the latest frames."""
        if self.first is None:
            raise RuntimeError('the sample memory is empty')
        positives = list(self.positives)[-self.short:] if short_term else list(self.positives)
        return [self.first[0], *positives], [self.first[1], *self.negatives]


def take(arrays: list, count: int, random: np.random.Generator):
    """`count` rows of the arrays together, at random, or all of them if they are fewer: (count, d)."""
    xp, starts = array_module(arrays[0]), np.cumsum([0, *(len(array) for array in arrays)])
    if starts[-1] <= count:
        return xp.concatenate(arrays)
    rows = np.sort(random.choice(starts[-1], count, replace=False, shuffle=False))
    parts = np.split(rows, np.searchsorted(rows, starts[1:-1]))
    return xp.concatenate([array[part - start] for array, part, start in zip(arrays, parts, starts) if len(part)])


class Solution(NamedTuple):
    """How a training of D went: loss of Eq. 8 before and after, Gauss-Newton steps accepted."""
    before: float
    after: float
    accepted: int


class FullyConnected:
    """The two layers that are learned online, and their Gauss-Newton steps.

    D(x) = v' [elu(W' [x 1]) 1]; the parameters are W (d + 1, HIDDEN) and v (HIDDEN + 1,).
    """

    def __init__(self, w, v):
        self.w, self.v = w, v

    @classmethod
    def random(cls, inputs: int, random: np.random.Generator, reference) -> 'FullyConnected':
        """Layers to start from, arrays of the kind of `reference`; biases are 0."""
        w, v = random.standard_normal((inputs + 1, HIDDEN)) / inputs ** 0.5, random.standard_normal(HIDDEN + 1)
        w[-1] = v[-1] = 0
        return cls(like(w, reference), like(v / HIDDEN ** 0.5, reference))

    def inputs(self, x):
        """z = W' [x 1], (M, HIDDEN)."""
        return x @ self.w[:-1] + self.w[-1]

    def outputs(self, z):
        """Scores tau (M,)."""
        return elu(z) @ self.v[:-1] + self.v[-1]

    def __call__(self, x):
        """Scores tau (M,) of samples (M, d)."""
        return self.outputs(self.inputs(x))

    def loss(self, z, y, weight, regularization: float) -> float:
        """Eq. 8 from z = inputs(x), samples weighted."""
        penalty = (self.w * self.w).sum() + (self.v * self.v).sum()
        return float((weight * (self.outputs(z) - y) ** 2).sum() + regularization * penalty)

    def gauss_newton_step(self, x, z, gram, y, weight, regularization: float, iterations: int,
                          start=None) -> tuple['FullyConnected', np.ndarray]:
        """The minimum of Eq. 8 with D linearised at the present weights; z = inputs(x).

        With J the derivatives of D by its parameters p, that is a ridge regression of t = y - D(x) + J p on J. Its
        solution is p = J' a with (J J' + lambda / S) a = t, one unknown a sample; J J' needs the samples only through
        `gram`, x x' + 1. The square root of S on both sides makes that symmetric. Returns p and a, from which the next
        step may `start`.
        """
        xp, root = array_module(x), weight ** 0.5
        slope = xp.exp(z.clip(max=0)) * self.v[:-1]                                    # d D / d z
        hidden = xp.concatenate([elu(z), xp.ones_like(z[:, :1])], 1)                   # d D / d v
        target = y + (slope * z).sum(1)                                                # the rest of J p is D(x)
        slope, hidden = slope * root[:, None], hidden * root[:, None]
        kernel = slope @ slope.T
        kernel *= gram
        kernel += hidden @ hidden.T
        a = conjugate_gradients(kernel, regularization, root * target, iterations, start)
        shares = slope * a[:, None]
        return FullyConnected(xp.concatenate([x.T @ shares, shares.sum(0)[None]]), hidden.T @ a), a

    def train(self, x, y, weight, regularization: float, steps: int, iterations: int) -> Solution:
        """Gauss-Newton with a guard: a step is taken, or halved up to three times, only if the loss falls."""
        z, gram = self.inputs(x), x @ x.T
        gram += 1
        before = loss = self.loss(z, y, weight, regularization)
        accepted, unknowns = 0, None
        for _ in range(steps):
            goal, unknowns = self.gauss_newton_step(x, z, gram, y, weight, regularization, iterations, unknowns)
            goal_z = goal.inputs(x)
            for part in (1.0, 0.5, 0.25, 0.125):
                moved = FullyConnected(self.w + part * (goal.w - self.w), self.v + part * (goal.v - self.v))
                moved_z = z + part * (goal_z - z)
                new = moved.loss(moved_z, y, weight, regularization)
                if new < loss:  # false for NaN
                    break
            else:
                break
            self.w, self.v, z, loss, accepted = moved.w, moved.v, moved_z, new, accepted + 1
        return Solution(before, loss, accepted)


def elu(z):
    return z.clip(min=0) + array_module(z).exp(z.clip(max=0)) - 1


def conjugate_gradients(matrix, shift: float, right, iterations: int, start=None):
    """Solve (matrix + shift I) s = right for a symmetric positive definite matrix, from s = `start` or 0.

    Polak-Ribiere with beta >= 0; stops early where the curvature is not positive or a number not finite, and returns
    the best solution so far.
    """
    solution = right * 0 if start is None else start
    residual = direction = right if start is None else right - matrix @ start - shift * start
    power, enough = float(residual @ residual), TOLERANCE ** 2 * float(right @ right)
    for _ in range(iterations):
        image = matrix @ direction + shift * direction
        curvature = float(direction @ image)
        if not curvature > 1e-12 or not np.isfinite(power):
            break
        step = float(residual @ direction) / curvature
        solution = solution + step * direction
        new = residual - step * image
        new_power = float(new @ new)
        if new_power < enough:
            break
        beta = max(0.0, (new_power - float(new @ residual)) / power)
        direction = new + beta * direction
        residual, power = new, new_power
    return solution


class Discriminator:
    """D with its projection, memory and solver settings: `start` in the first frame, then `remember` and `update`."""

    def __init__(self, regularization: float, cg_iterations: int, long_memory: int, short_memory: int, seed: int):
        self.regularization, self.cg_iterations = regularization, cg_iterations
        self.memory = SampleMemory(long_memory, short_memory)
        self.random = np.random.default_rng(seed)
        self.projection: Projection | None = None
        self.layers: FullyConnected | None = None

    def start(self, views: Iterable[tuple[object, Samples]], steps: int) -> None:
        """Fit the projection to the first view and train both layers on the samples of all views of the first frame.

        views: phi34 (1, C, H, W) and boxes in it, the plain search crop first, then augmented ones. The first half of
        the Gauss-Newton steps sees a random part of the samples, the second the negatives that this took for the target.
        """
        kinds = []
        for phi, samples in views:
            if self.projection is None:
                self._fit(phi, samples)
            kinds.append(self._features(phi, samples))
        positive, negative = (array_module(kind[0]).concatenate(kind) for kind in zip(*kinds))
        self.layers = FullyConnected.random(positive.shape[1], self.random, positive)
        self.memory.add(positive, negative)
        few = take([positive], START_POSITIVES, self.random), take([negative], START_NEGATIVES, self.random)
        self._train(*few, steps - steps // 2)
        self._train(positive, self._hardest(negative, START_HARDEST), steps // 2)

    def _fit(self, phi, samples: Samples) -> None:
        """The projection, from as many boxes of each kind as the components need."""
        few = [kind[::max(1, len(kind) // COMPONENT_SAMPLES)][:COMPONENT_SAMPLES] for kind in samples]
        features = pyramid(roi_align(phi, like(np.concatenate(few), phi)[None])[0])
        self.projection = Projection.fit(features, sample_weights(*map(len, few)), self.random)

    @property
    def classifier(self) -> Classifier:
        """What the networks need to score aligned proposals (Eq. 7)."""
        return Classifier(self.projection.weight * self.projection.scale, self.layers.w, self.layers.v)

    def remember(self, phi, samples: Samples) -> None:
        """Store the samples of a frame in which the target was found."""
        self.memory.add(*self._features(phi, samples))

    def _features(self, phi, samples: Samples) -> tuple:
        """Projected features of the positives and of the negatives."""
        x = self.projection.of_boxes(phi, np.concatenate(samples))
        return x[:len(samples.positive)], x[len(samples.positive):]

    def update(self, short_term: bool, steps: int) -> Solution:
        """Train on the memory: a random part of its positives and the hardest of many of its negatives."""
        positives, negatives = self.memory.kept(short_term)
        positive = take(positives, BATCH_POSITIVES, self.random)
        negative = self._hardest(take(negatives, MINED, self.random), BATCH_NEGATIVES)
        return self._train(positive, negative, steps)

    def _hardest(self, negative, count: int):
        """The `count` negatives (m, d) with the highest scores."""
        return negative[best_indices(self.layers(negative), count)] if len(negative) > count else negative

    def _train(self, positive, negative, steps: int) -> Solution:
        x = array_module(positive).concatenate([positive, negative])
        y = np.arange(len(x)) < len(positive)
        weight = sample_weights(len(positive), len(negative))
        return self.layers.train(x, like(y, x), like(weight, x), self.regularization, steps,
                                 self.cg_iterations)


def sample_weights(positives: int, negatives: int) -> np.ndarray:
    """(positives + negatives,) weights that sum to 1, the positives together to POSITIVE_SHARE."""
    weight = np.full(positives + negatives, (1 - POSITIVE_SHARE) / max(1, negatives), np.float32)
    weight[:positives] = POSITIVE_SHARE / max(1, positives)
    return weight
