"""The discriminator D (Eq. 7, 8): one convolution and two fully connected layers, trained while tracking.

The convolution is a linear projection of the pyramid features, fitted to the first frame and then fixed. Being linear it
commutes with RoIAlign, so it runs once on the feature map and not on every sample. The two fully connected layers are
learned with Gauss-Newton steps whose normal equations are solved by conjugate gradients (ATOM), always in float32.
"""
from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .boxes import iou
from .roi_align import BINS, LEVELS, pyramid_roi_align, roi_align

PROJECTED = 32          # channels of D's convolution
HIDDEN = 64             # units of its first fully connected layer
POSITIVE_SHARE = 0.5    # weight of all positives together: else 1000 negatives outvote 200 positives
POSITIVE_IOU = 0.7      # samples above are positive (MDNet)
NEGATIVE_IOU = (0.5, 0.3)  # samples below are negative: first frame, updates (MDNet)
BATCH_POSITIVES, BATCH_NEGATIVES = 250, 500  # taken from the memory for one update


class Samples(NamedTuple):
    """Training boxes (n, 4) and (m, 4), corners in crop pixels."""
    positive: Tensor
    negative: Tensor


def draw_samples(box: np.ndarray, positives: int, negatives: int, negative_iou: float, extent: float,
                 random: np.random.Generator, distractors: np.ndarray | None = None) -> Samples:
    """Boxes around the target and in the background of a search crop.

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
        return boxes, iou(torch.from_numpy(boxes), torch.from_numpy(box)).numpy()

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
    return Samples(torch.from_numpy(positive).float(),
                   torch.from_numpy(np.concatenate([hard, close, anywhere])).float())


class Projection:
    """D's convolution: 3C -> 32 channels, the principal components of the first frame's pyramid features."""

    def __init__(self, weight: Tensor, scale: float):
        self.weight, self.scale = weight, scale  # (32, 3C)

    @classmethod
    def fit(cls, features: Tensor, sample_weight: Tensor) -> 'Projection':
        """features (M, 6, 6, 3C) of the first frame's samples, sample_weight (M,) summing to 1."""
        cells = features.flatten(1, 2).float()
        mean_square = torch.einsum('m,mpc,mpd->cd', sample_weight, cells, cells)
        vectors = torch.linalg.eigh(mean_square)[1][:, -PROJECTED:]
        weight = vectors.T.contiguous()
        power = torch.einsum('m,mpc->', sample_weight, (cells @ vectors).square())
        return cls(weight, float(power.clamp(min=1e-12)) ** -0.5)

    def of_features(self, features: Tensor) -> Tensor:
        """Pyramid features (M, 3C, 6, 6) -> (M, 6 * 6 * 32), mean squared length 1 over the first frame."""
        return (features.permute(0, 2, 3, 1) @ self.weight.T).flatten(1) * self.scale

    def of_boxes(self, phi: Tensor, boxes: Tensor) -> Tensor:
        """The same for boxes (M, 4) on phi34 (1, C, H, W): project the map for each level, then pool."""
        channels = phi.shape[1]
        levels = self.weight.view(PROJECTED, len(LEVELS), channels).transpose(0, 1).reshape(-1, channels)
        pooled = roi_align(F.conv2d(phi, levels[..., None, None]), boxes[None])[0]     # (M, 6, 6, 3 * 32)
        fine, middle, whole = pooled.split(PROJECTED, -1)
        count, half = len(fine), BINS // 2
        middle = middle.reshape(count, half, 2, half, 2, PROJECTED).mean((2, 4), keepdim=True)
        middle = middle.expand(-1, -1, 2, -1, 2, -1).reshape(fine.shape)
        return (fine + middle + whole.mean((1, 2), keepdim=True)).flatten(1) * self.scale


class SampleMemory:
    """Projected samples of the frames in which the target was found.

    The first frame stays for ever: it alone is certain. Of later frames the positives of the last `long` and the
    negatives of the last `short` are kept (MDNet).
    """

    def __init__(self, long: int, short: int):
        self.short = short
        self.first: tuple[Tensor, Tensor] | None = None
        self.positives: deque[Tensor] = deque(maxlen=long)
        self.negatives: deque[Tensor] = deque(maxlen=short)

    def add(self, positive: Tensor, negative: Tensor) -> None:
        """(n, d) and (m, d) features of one frame."""
        if self.first is None:
            self.first = (positive, negative)
        else:
            self.positives.append(positive)
            self.negatives.append(negative)

    def __len__(self) -> int:
        return (self.first is not None) + len(self.positives)

    def gather(self, short_term: bool) -> tuple[Tensor, Tensor]:
        """All positives and negatives for a long-term update, or those of the latest frames and the first."""
        if self.first is None:
            raise RuntimeError('the sample memory is empty')
        positives = list(self.positives)[-self.short:] if short_term else list(self.positives)
        return torch.cat([self.first[0], *positives]), torch.cat([self.first[1], *self.negatives])


class Solution(NamedTuple):
    """How a training of D went: loss of Eq. 8 before and after, Gauss-Newton steps accepted."""
    before: float
    after: float
    accepted: int


class FullyConnected:
    """The two layers that are learned online, their loss and its Gauss-Newton model.

    D(x) = v' [elu(W' [x 1]) 1]; the parameters are W (d + 1, HIDDEN) and v (HIDDEN + 1,).
    """

    def __init__(self, inputs: int, generator: torch.Generator, device: torch.device | str):
        # drawn on the CPU: the same seed gives the same track on every device
        self.w = (torch.randn(inputs + 1, HIDDEN, generator=generator) / inputs ** 0.5).to(device)
        self.v = (torch.randn(HIDDEN + 1, generator=generator) / HIDDEN ** 0.5).to(device)
        self.v[-1] = 0
        self.w[-1] = 0

    def __call__(self, x: Tensor) -> Tensor:
        """Scores tau (M,) of samples (M, d)."""
        return F.elu(x @ self.w[:-1] + self.w[-1]) @ self.v[:-1] + self.v[-1]

    def loss(self, x: Tensor, y: Tensor, weight: Tensor, regularization: float) -> float:
        """Eq. 8, samples weighted."""
        residual = self(x) - y
        penalty = self.w.square().sum() + self.v.square().sum()
        return float((weight * residual.square()).sum() + regularization * penalty)

    def gauss_newton_step(self, x: Tensor, y: Tensor, weight: Tensor, regularization: float,
                          iterations: int) -> tuple[Tensor, Tensor]:
        """Solve (J'SJ + lambda) step = -(J'S r + lambda w) by conjugate gradients; returns the step of (W, v)."""
        x = F.pad(x, (0, 1), value=1.0)
        z = x @ self.w
        hidden = F.pad(F.elu(z), (0, 1), value=1.0)
        slope = torch.where(z > 0, torch.ones_like(z), z.exp()) * self.v[:-1]          # d D / d z

        def jacobian(p: tuple[Tensor, Tensor]) -> Tensor:
            return ((x @ p[0]) * slope).sum(1) + hidden @ p[1]

        def transposed(r: Tensor) -> tuple[Tensor, Tensor]:
            return x.T @ (slope * r[:, None]), hidden.T @ r

        def normal(p: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            a, b = transposed(weight * jacobian(p))
            return a + regularization * p[0], b + regularization * p[1]

        residual = hidden @ self.v - y
        gw, gv = transposed(weight * residual)
        right = (-(gw + regularization * self.w), -(gv + regularization * self.v))
        return conjugate_gradients(normal, right, iterations)

    def train(self, x: Tensor, y: Tensor, weight: Tensor, regularization: float, steps: int,
              iterations: int) -> Solution:
        """Gauss-Newton with a guard: a step is taken, or halved up to three times, only if the loss falls."""
        before = loss = self.loss(x, y, weight, regularization)
        accepted = 0
        for _ in range(steps):
            dw, dv = self.gauss_newton_step(x, y, weight, regularization, iterations)
            w, v = self.w, self.v
            for fraction in (1.0, 0.5, 0.25, 0.125):
                self.w, self.v = w + fraction * dw, v + fraction * dv
                new = self.loss(x, y, weight, regularization)
                if new < loss:  # false for NaN
                    break
            else:
                self.w, self.v = w, v
                break
            loss, accepted = new, accepted + 1
        return Solution(before, loss, accepted)


def dot(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> float:
    return float(sum((p * q).sum() for p, q in zip(a, b)))


def conjugate_gradients(operator, right: tuple[Tensor, ...], iterations: int) -> tuple[Tensor, ...]:
    """Solve operator(s) = right for a symmetric positive definite operator on tuples of tensors, from s = 0.

    Polak-Ribiere with beta >= 0; stops early where the curvature is not positive or a number not finite, and returns
    the best solution so far.
    """
    solution = tuple(torch.zeros_like(b) for b in right)
    residual, direction = right, right
    power = dot(residual, residual)
    for _ in range(iterations):
        image = operator(direction)
        curvature = dot(direction, image)
        if not curvature > 1e-12 or not np.isfinite(power):
            break
        step = dot(residual, direction) / curvature
        solution = tuple(s + step * p for s, p in zip(solution, direction))
        new = tuple(r - step * q for r, q in zip(residual, image))
        new_power = dot(new, new)
        if new_power < 1e-12:
            break
        beta = max(0.0, (new_power - dot(new, residual)) / power)
        direction = tuple(r + beta * p for r, p in zip(new, direction))
        residual, power = new, new_power
    return solution


class Discriminator:
    """D with its projection, memory and solver settings: `start` in the first frame, then `score` and `update`."""

    def __init__(self, regularization: float, cg_iterations: int, long_memory: int, short_memory: int, seed: int):
        self.regularization, self.cg_iterations = regularization, cg_iterations
        self.memory = SampleMemory(long_memory, short_memory)
        self.generator = torch.Generator().manual_seed(seed)
        self.projection: Projection | None = None
        self.layers: FullyConnected | None = None

    def start(self, views: list[tuple[Tensor, Samples]], steps: int) -> Solution:
        """Fit the projection to the first view and train both layers on the samples of all views of the first frame.

        views: phi34 (1, C, H, W) and boxes in it, the plain search crop first, then augmented ones.
        """
        phi, samples = views[0]
        boxes = torch.cat(samples).to(phi.device)
        weight = sample_weights(len(samples.positive), len(samples.negative), phi.device)
        # a few hundred boxes of each kind are enough for the components
        few = torch.cat([torch.arange(0, len(samples.positive), 2),
                         torch.arange(len(samples.positive), len(boxes), 4)]).to(phi.device)
        features = pyramid_roi_align(phi, boxes[None, few]).permute(0, 2, 3, 1)
        self.projection = Projection.fit(features, weight[few] / weight[few].sum())
        kinds = zip(*(self._features(phi, samples) for phi, samples in views))
        positive, negative = (torch.cat(kind) for kind in kinds)
        self.layers = FullyConnected(positive.shape[1], self.generator, phi.device)
        self.memory.add(positive, negative)
        return self._train(positive, negative, steps)

    def score(self, features: Tensor) -> Tensor:
        """tau of aligned proposals (Eq. 7): (N, 3C, 6, 6) -> (N,), unbounded."""
        return self.layers(self.projection.of_features(features))

    def remember(self, phi: Tensor, samples: Samples) -> None:
        """Store the samples of a frame in which the target was found."""
        self.memory.add(*self._features(phi, samples))

    def _features(self, phi: Tensor, samples: Samples) -> tuple[Tensor, Tensor]:
        """Projected features of the positives and of the negatives."""
        x = self.projection.of_boxes(phi, torch.cat(samples).to(phi.device))
        return x[:len(samples.positive)], x[len(samples.positive):]

    def update(self, short_term: bool, steps: int) -> Solution:
        """Train on the memory: a random part of its positives and the hardest of its negatives."""
        positive, negative = self.memory.gather(short_term)
        if len(positive) > BATCH_POSITIVES:
            order = torch.randperm(len(positive), generator=self.generator)[:BATCH_POSITIVES]
            positive = positive[order.to(positive.device)]
        if len(negative) > BATCH_NEGATIVES:
            negative = negative[self.layers(negative).topk(BATCH_NEGATIVES).indices]
        return self._train(positive, negative, steps)

    def _train(self, positive: Tensor, negative: Tensor, steps: int) -> Solution:
        x = torch.cat([positive, negative])
        y = torch.zeros(len(x), device=x.device)
        y[:len(positive)] = 1
        weight = sample_weights(len(positive), len(negative), x.device)
        return self.layers.train(x, y, weight, self.regularization, steps, self.cg_iterations)


def sample_weights(positives: int, negatives: int, device) -> Tensor:
    """(positives + negatives,) weights that sum to 1, the positives together to POSITIVE_SHARE."""
    weight = torch.full((positives + negatives,), (1 - POSITIVE_SHARE) / max(1, negatives), device=device)
    weight[:positives] = POSITIVE_SHARE / max(1, positives)
    return weight
