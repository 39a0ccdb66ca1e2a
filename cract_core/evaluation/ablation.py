"""What each part of the tracker is worth.

The variants of an ablation run on the same sequences with the same seeds; differences are paired over sequences, each
averaged over the seeds first. Where a variant is another network, it and the baseline get the same short training: both
start from the same weights, the heads that the variant concerns from the same random ones.
"""
from __future__ import annotations

import dataclasses
import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from .. import discriminator
from ..backbone import PHI4_CHANNELS, conv_norm
from ..config import TrackerConfig
from ..model import CHANNELS, CractModel, Refined, Template, load_weights, save_weights
from ..refine import apply_offsets
from ..roi_align import roi_align
from ..rpn import Kernels, SiameseRpn
from ..tracker import Tracker
from . import runner
from .execution import Job, Store, TrackerSpec, execute_stored
from .protocols import paired_difference
from .sequences import Sequence


class ParallelModel(CractModel):
    """Table 7: the classifiers see the features of the proposal itself, beside its regression instead of after it."""

    variant = 'parallel'

    @staticmethod
    def align(proposals: Tensor, raw: Tensor) -> Tensor:
        return proposals

    def refine(self, phi: Tensor, proposals: Tensor, template: Template) -> Refined:
        f = self.pool(phi, proposals[None])
        boxes = apply_offsets(proposals, self.regressor(self.pool_wide(phi, proposals[None]), template.regress))
        return Refined(boxes, f, self.identify(f, template.identify))


def fine_roi_align(features: Tensor, boxes: Tensor) -> Tensor:
    """RoIAlign in the shape of `pyramid_roi_align`: zeros in place of the coarse levels leave nothing of them."""
    pooled = roi_align(features, boxes).flatten(0, 1)
    return F.pad(pooled, (0, 2 * pooled.shape[-1])).permute(0, 3, 1, 2)


def fine_pyramid(pooled: np.ndarray) -> np.ndarray:
    """The same in the shape of `pyramid`."""
    return np.pad(pooled, ((0, 0), (0, 0), (0, 0), (0, 2 * pooled.shape[-1])))


class RoiAlignModel(CractModel):
    """Table 9: RoIAlign instead of PRoIAlign."""

    variant = 'roi_align'
    pool = staticmethod(fine_roi_align)


class RoiAlignTracker(Tracker):
    """The discriminator without the coarse levels: its convolution is fitted without them and never weighs them."""

    def init(self, frame: np.ndarray, box) -> None:
        pyramid = discriminator.pyramid
        discriminator.pyramid = fine_pyramid
        try:
            super().init(frame, box)
        finally:
            discriminator.pyramid = pyramid


class Phi4Rpn(SiameseRpn):
    """The RPN on the features that `Phi4Model` hangs on phi34."""

    def kernels(self, phi: Tensor) -> Kernels:
        return super().kernels(phi.phi4)

    def forward(self, phi: Tensor, kernels: Kernels) -> tuple[Tensor, Tensor]:
        return super().forward(phi.phi4, kernels)


class Phi4Model(CractModel):
    """The RPN on phi4 alone, as the text of Section 3.1 has it (Algorithm 1 has phi34), on the same stride-8 grid."""

    variant = 'rpn_phi4'

    def __init__(self, channels: int = CHANNELS):
        super().__init__(channels)
        self.rpn = Phi4Rpn(channels)
        self.adjust = conv_norm(PHI4_CHANNELS, channels, 1)

    def features(self, crop: Tensor) -> Tensor:
        phi3, phi4 = self.backbone(crop)
        phi = self.fusion(phi3, phi4)
        phi.phi4 = self.adjust(F.interpolate(phi4, size=phi3.shape[-2:], mode='bilinear', align_corners=True))
        return phi


class Stride16Model(CractModel):
    """phi34 made at stride 16 and interpolated to the stride-8 grid, so that nothing else changes."""

    variant = 'stride16'

    def features(self, crop: Tensor) -> Tensor:
        phi3, phi4 = self.backbone(crop)
        coarse = self.fusion(F.avg_pool2d(phi3, 3, 2, 1, count_include_pad=False), phi4)
        return F.interpolate(coarse, size=phi3.shape[-2:], mode='bilinear', align_corners=True)


@dataclass(frozen=True)
class Variant:
    """A tracker with some parameters changed, or with another network."""
    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    model: type[CractModel] = CractModel


@dataclass(frozen=True)
class Ablation:
    """The first variant is the baseline; `fresh` names the heads that are trained anew in all of them."""
    text: str
    variants: tuple[Variant, ...]
    fresh: tuple[str, ...] = ()


ABLATIONS = {
    'cascade': Ablation('cascaded against parallel refinement (Table 7)', (
        Variant('cascade'), Variant('parallel', model=ParallelModel)), fresh=('identifier',)),
    # a classifier that is left out has no say either when a lost target is taken back
    'classifiers': Ablation('identifier and discriminator, alone and together (Table 8)', (
        Variant('joint'), Variant('identifier', dict(alpha=1.0, reacquire_discrimination=0.0)),
        Variant('discriminator', dict(alpha=0.0, reacquire_identification=0.0)))),
    'pooling': Ablation('PRoIAlign against RoIAlign (Table 9)', (
        Variant('proialign'), Variant('roialign', model=RoiAlignModel)), fresh=('regressor', 'identifier')),
    'features': Ablation('RPN on phi34 against phi4', (
        Variant('phi34'), Variant('phi4', model=Phi4Model)), fresh=('rpn',)),
    'stride': Ablation('features at stride 8 against stride 16', (
        Variant('stride8'), Variant('stride16', model=Stride16Model)),
        fresh=('fusion', 'rpn', 'regressor', 'identifier')),
}
SWEEPS = {  # one parameter, and what it is set to besides its value in the configuration, which is the baseline
    'proposals': ('proposals a frame (N)', 'num_proposals', (1, 3, 5, 10, 20)),
    'interval': ('frames between updates of the discriminator (K)', 'update_interval', (1, 5, 10, 20, 50)),
}
NAMES = (*ABLATIONS, *SWEEPS)


def find_ablation(name: str, base: TrackerConfig) -> Ablation:
    """The ablation `name` around the configuration `base`."""
    if name in ABLATIONS:
        return ABLATIONS[name]
    text, parameter, values = SWEEPS[name]
    own = getattr(base, parameter)
    return Ablation(text, tuple(Variant(f'{parameter}={value}', {parameter: value})
                                for value in (own, *(value for value in values if value != own))))


class VariantSpec(TrackerSpec):
    """A tracker of ours under the name of its variant, in any process."""

    def make(self) -> Tracker:
        model = load_weights(self.config.weights)
        return (RoiAlignTracker if isinstance(model, RoiAlignModel) else Tracker)(self.config, model)

    @functools.cached_property
    def identity(self) -> str:
        return TrackerSpec('cract', self.config).identity


def start_weights(kind: type[CractModel], fresh: tuple[str, ...], source: str, seed: int, path: Path) -> None:
    """Write the weights that the training of a variant starts from: those of `source`, but for the fresh heads."""
    trained = load_weights(source)

    def random(kind: type[CractModel]) -> CractModel:
        torch.manual_seed(seed)
        model = kind(trained.channels).fold()
        for block in model.modules():
            if isinstance(block, nn.Sequential) and hasattr(block, 'norm'):
                nn.init.kaiming_normal_(block.conv.weight, nonlinearity='relu')  # in place of the norm
        return model
    model = random(kind)
    kept = {name: value for name, value in trained.state_dict().items() if name.split('.')[0] not in fresh}
    # strict=False: what only the variant has keeps its own random weights
    model.load_state_dict({**random(CractModel).state_dict(), **kept}, strict=False)
    save_weights(model, path)


def train_variant(variant: Variant, fresh: tuple[str, ...], config: TrackerConfig, args, output: Path) -> Path:
    """Train the heads of a variant on the frozen backbone, or go on with that; returns the path of its weights.

    ValueError where the folder holds a training with other settings.
    """
    from ..training.loop import TrainConfig, train
    folder = output / 'weights' / f'{variant.name}-seed{config.seed}'
    folder.mkdir(parents=True, exist_ok=True)
    start, record, finished = folder / 'start.pt', folder / 'training.json', folder / 'finished.pt'
    settings = TrainConfig(
        data=args.data, output=str(folder), start_from=str(start), device=config.device, threads=config.threads,
        seed=config.seed, steps=args.steps, batch=args.batch, images=args.images, rate=3e-4,
        warmup=max(1, args.steps // 20), validate_every=args.steps, checkpoint_every=min(200, args.steps))
    known = json.dumps(dict(dataclasses.asdict(settings), weights=config.weights, fresh=fresh), indent=2)
    if record.is_file() and record.read_text() != known:
        raise ValueError(f'{folder} holds a training with other settings: give another --output')
    if not finished.is_file():
        if not record.is_file():
            start_weights(variant.model, fresh, config.weights, config.seed, start)
            record.write_text(known)
        train(settings, resume=True).replace(finished)
    return finished


def measure(specs: Mapping[tuple[str, int], VariantSpec], sequences: list[Sequence], output: Path, jobs: int) -> dict:
    """Run every (variant, seed) on every sequence; the first variant is the baseline of the differences."""
    work = [Job(sequence, tuple(specs.values())) for sequence in sequences]
    auc, precision, seconds = ({key: [0.0] * len(work) for key in specs} for _ in range(3))
    with tqdm(total=sum(job.frames for job in work), unit='frame', disable=None) as bar:
        for index, done in execute_stored('ope', work, Store(output / 'runs'), jobs, progress=bar.update):
            if isinstance(done, Exception):
                raise done
            for key, spec in specs.items():
                figures = runner.summarize(done[spec.name].run, sequences[index])
                auc[key][index], precision[key][index] = figures['auc'], figures['precision']
                seconds[key][index] = float(done[spec.name].run.seconds.sum())
    names, seeds = (tuple(dict.fromkeys(column)) for column in zip(*specs))

    def by_seed(table: dict, name: str) -> np.ndarray:  # (seeds, sequences)
        return np.array([table[name, seed] for seed in seeds])

    baseline, variants = by_seed(auc, names[0]).mean(0), {}
    for name in names:
        scores = by_seed(auc, name)
        difference = paired_difference(scores.mean(0), baseline)
        variants[name] = dict(
            auc=float(scores.mean()), auc_by_seed=scores.mean(1).tolist(),
            precision=float(by_seed(precision, name).mean()),
            time=float(by_seed(seconds, name).sum() / by_seed(seconds, names[0]).sum()),
            difference=None if name == names[0] else dict(difference._asdict(), verdict=difference.verdict),
            sequences=dict(zip((one.name for one in sequences), scores.mean(0).tolist())))
    return dict(baseline=names[0], seeds=seeds, variants=variants)


def markdown(figures: dict) -> str:
    """The table of an ablation."""
    count = len(next(iter(figures['variants'].values()))['sequences'])
    lines = [f'### {figures["ablation"]}: {figures["text"]}', '',
             f'Sequences: {count}, seeds: {", ".join(map(str, figures["seeds"]))}; 95 % bootstrap intervals over '
             'sequences; an effect whose interval contains 0 is noise.']
    if figures['training']:
        one = figures['training']
        lines[-1] += (f' Each variant trained for {one["steps"]} steps of {one["batch"]} pairs, '
                      f'{", ".join(one["fresh"])} from random weights.')
    lines += ['', f'| variant | AUC | by seed | precision | against {figures["baseline"]} | 95 % interval | effect '
              '| time |', '|' + '---|' * 8]
    for name, one in figures['variants'].items():
        effect = ['', '', 'baseline']
        if one['difference']:
            difference = one['difference']
            interval = '' if difference['low'] is None else f'{difference["low"]:+.3f} to {difference["high"]:+.3f}'
            effect = [f'{difference["mean"]:+.3f}', interval, difference['verdict']]
        lines.append(f'| {name} | {one["auc"]:.3f} | {", ".join(f"{value:.3f}" for value in one["auc_by_seed"])} '
                     f'| {one["precision"]:.3f} | {" | ".join(effect)} | x {one["time"]:.2f} |')
    return '\n'.join(lines) + '\n'
