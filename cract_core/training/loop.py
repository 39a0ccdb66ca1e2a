"""The training loop: one command from images to shipped weights, resumable at any checkpoint."""
from __future__ import annotations

import copy
import csv
import dataclasses
import itertools
import math
import multiprocessing
import os
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator

import cv2
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm import tqdm

from ..files import read_yaml
from ..model import CractModel, load_weights, save_weights
from .losses import Batch, Losses, Quality, pair_losses
from .pairs import Augmentation, Pairs, PairSampler
from .pictures import load_bank, split

RESNET18_URL = 'https://download.pytorch.org/models/resnet18-f37072fd.pth'  # the name carries the SHA-256's start
STAGES = ('none', 'layer3', 'layer2', 'all')
HELD_OUT_SEED = 1         # of the held-out pairs: the same each time
AHEAD = 2                 # batches that each worker makes in advance
WATCH_EVERY = 10          # steps between two looks at the clock


@dataclass(frozen=True)
class TrainConfig:
    """A training run, read from YAML. Sizes are in pairs, lengths in steps (one step is one batch)."""
    data: str = ''                 # folder with the shards
    output: str = 'runs/cract'     # checkpoints, log, curves, weights
    imagenet: str = ''             # ResNet-18 weights: a path, or empty to download torchvision's
    start_from: str = ''           # weights of an earlier run to go on from, instead of ImageNet alone
    device: str = 'auto'
    threads: int = 0
    seed: int = 0
    steps: int = 10000
    minutes: float = 0.0           # ends the run, with its schedule, after so many if `steps` take longer; 0: never
    batch: int = 16                # in each process
    rate: float = 1e-3             # AdamW, cosine decay to a hundredth
    warmup: int = 300
    weight_decay: float = 1e-4
    clip: float = 5.0              # norm of the gradient
    average: float = 0.998         # decay of the moving average of the weights, which is what is shipped
    unfreeze: str = 'none'         # backbone stages that learn: none, layer3, layer2 (and 3), all
    unfreeze_step: int = 0         # after the heads have settled
    backbone_rate: float = 0.1     # times `rate`
    bfloat16: bool = False         # autocast, for GPUs
    workers: int = 0               # processes that make the pairs; 0: this one does
    mix: dict = field(default_factory=dict)    # set: how often it is drawn (default: root of its number of tracks)
    loose: list = field(default_factory=list)  # sets whose boxes are not tight: they teach no box regression
    held_out: float = 0.02         # images kept for validation
    validate_every: int = 500
    checkpoint_every: int = 500
    images: int = 0                # read only so many images (0: all)
    augmentation: Augmentation = field(default_factory=Augmentation)

    @classmethod
    def read(cls, path: str | Path, **changes) -> 'TrainConfig':
        """Parse a YAML file; `changes` override it. Raises ValueError for an unknown name or a wrong type."""
        content = read_yaml(path)
        content.update({name: value for name, value in changes.items() if value is not None})
        content['augmentation'] = _fill(Augmentation, content.get('augmentation') or {}, 'augmentation.')
        config = _fill(cls, content, '')
        if not isinstance(config.mix, dict) or not all(type(v) in (int, float) and v >= 0 for v in config.mix.values()):
            raise ValueError(f'training option mix must be a number for each set, got {config.mix!r}')
        if not isinstance(config.loose, list) or not all(isinstance(name, str) for name in config.loose):
            raise ValueError(f'training option loose must be a list of sets, got {config.loose!r}')
        if config.unfreeze not in STAGES:
            raise ValueError(f'unfreeze must be one of {", ".join(STAGES)}, got {config.unfreeze!r}')
        return config


def _fill(cls, values: dict, prefix: str):
    known = {f.name: f for f in dataclasses.fields(cls)}
    for name, value in values.items():
        if name not in known:
            raise ValueError(f'unknown training option {prefix}{name}; known are {", ".join(sorted(known))}')
        default = known[name].default
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            values[name] = value = float(value)
        if default is not dataclasses.MISSING and type(value) is not type(default):
            raise ValueError(f'training option {prefix}{name} must be of type {type(default).__name__}, got {value!r}')
    return cls(**values)


def imagenet_backbone(path: str) -> dict[str, Tensor]:
    """ResNet-18's stem to layer3 with batch norm folded, from torchvision's file or one already folded.

    Input channels are turned from RGB to OpenCV's BGR.
    """
    if path:
        if not Path(path).is_file():
            raise FileNotFoundError(f'no ImageNet weights at {path}')
        state = torch.load(path, map_location='cpu', weights_only=True)
    else:
        state = torch.hub.load_state_dict_from_url(RESNET18_URL, map_location='cpu', check_hash=True, weights_only=True)
    folded = {}
    for name, weight in state.items():
        if not name.startswith(('conv1', 'layer1', 'layer2', 'layer3')) or weight.dim() != 4:
            continue
        stem = name.removesuffix('.weight')
        norm = stem[:-1] + '1' if stem.endswith('downsample.0') else stem.replace('conv', 'bn')
        if f'{norm}.running_var' in state:
            gain = state[f'{norm}.weight'] / torch.sqrt(state[f'{norm}.running_var'] + 1e-5)
            folded[name] = weight * gain[:, None, None, None]
            folded[f'{stem}.bias'] = state[f'{norm}.bias'] - state[f'{norm}.running_mean'] * gain
        else:
            folded[name], folded[f'{stem}.bias'] = weight, state[f'{stem}.bias']
    folded['conv1.weight'] = folded['conv1.weight'].flip(1)
    return folded


def start_model(config: TrainConfig) -> CractModel:
    """A model with ImageNet's backbone and fresh heads, or with the weights of an earlier run.

    The latter have their batch norms folded and go on without: a fresh norm would not be the identity in training.
    """
    if config.start_from:
        return load_weights(config.start_from).requires_grad_(True)
    model = CractModel()
    model.backbone.load_state_dict(imagenet_backbone(config.imagenet))
    return model


def _device(name: str) -> torch.device:
    """The device that the option means; under torchrun each process takes its own GPU."""
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    if name == 'cuda':
        if not torch.cuda.is_available():
            raise ValueError('the training option device is cuda, but torch finds no CUDA device')
        torch.cuda.set_device(int(os.environ.get('LOCAL_RANK', 0)))
        torch.backends.cudnn.benchmark = True  # all batches have one shape
        return torch.device('cuda', torch.cuda.current_device())
    return torch.device(name)


def _mean_gradients(parameters: list[nn.Parameter]) -> None:
    """Average the gradients over the processes of torchrun, in one message."""
    if dist.is_initialized():
        joined = torch.cat([p.grad.flatten() for p in parameters])
        dist.all_reduce(joined)
        joined /= dist.get_world_size()
        for parameter, part in zip(parameters, joined.split([p.numel() for p in parameters])):
            parameter.grad.copy_(part.view_as(parameter))


class Trainer:
    """State of a run: model, its moving average, optimiser, the step reached and the seconds spent.

    What is drawn in a step depends on the seed, the process and the step alone: a run that is resumed needs no state of
    generators. Under torchrun each process draws its own pairs, and gradients are averaged over the processes.
    """

    def __init__(self, config: TrainConfig):
        self.config = config
        self.device = _device(config.device)
        self.rank, self.processes = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        if config.threads:
            torch.set_num_threads(config.threads)
            cv2.setNumThreads(config.threads)
        torch.manual_seed(config.seed)
        self.model = start_model(config).to(self.device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.generator = torch.Generator(self.device)
        late = [p for n, p in self.model.backbone.named_parameters() if self._learns(n)]
        self.model.backbone.requires_grad_(False)
        heads = [p for p in self.model.parameters() if p.requires_grad]
        groups = [dict(params=heads, scale=1.0)]
        if late:
            groups.append(dict(params=late, scale=config.backbone_rate))
        self.optimizer = torch.optim.AdamW(groups, lr=config.rate, weight_decay=config.weight_decay)
        self.late, self.step, self.seconds, self.begin = late, 0, 0.0, time.perf_counter()

    def _learns(self, name: str) -> bool:
        stages = {'none': (), 'layer3': ('layer3',), 'layer2': ('layer2', 'layer3'), 'all': ('',)}
        return name.startswith(stages[self.config.unfreeze])

    def watch(self) -> None:
        """Read the clock. All processes take the first one's time: they must stop at the same step."""
        now = time.perf_counter()
        spent = torch.tensor(self.seconds + now - self.begin, device=self.device)
        if dist.is_initialized():
            dist.broadcast(spent, 0)
        self.seconds, self.begin = float(spent), now

    def done(self) -> float:
        """Part of the run that is over, 0 to 1: of its steps or of its minutes, whichever is further."""
        config = self.config
        spent = self.seconds / (60 * config.minutes) if config.minutes else 0.0
        return min(1.0, max(self.step / config.steps, spent))

    def rate(self) -> float:
        """Linear warm-up, then half a cosine down to a hundredth."""
        config = self.config
        cosine = 0.01 + 0.99 * (1 + math.cos(math.pi * self.done())) / 2
        return config.rate * min(1.0, (self.step + 1) / max(1, config.warmup)) * cosine

    def key(self, step: int) -> tuple[int, int, int]:
        """Seeds what this process draws in a step."""
        return self.config.seed, self.rank, step

    def train_step(self, pairs: Pairs) -> tuple[Losses, Quality]:
        """One step of the optimiser on a batch."""
        config = self.config
        self.generator.manual_seed(int(np.random.SeedSequence(self.key(self.step)).generate_state(1)[0]))
        if self.late and self.step == config.unfreeze_step:
            for parameter in self.late:
                parameter.requires_grad_(True)
        for group in self.optimizer.param_groups:
            group['lr'] = self.rate() * group['scale']
        self.model.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.bfloat16):
            losses, quality = pair_losses(self.model, Batch.of(pairs, self.device), self.generator)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total().backward()
        learning = [p for g in self.optimizer.param_groups for p in g['params'] if p.grad is not None]
        _mean_gradients(learning)
        norm = torch.nn.utils.clip_grad_norm_(learning, config.clip)
        bad = ~torch.isfinite(norm)
        for parameter in learning:  # one bad batch must not end the run; an `if` would wait for the device
            parameter.grad.masked_fill_(bad, 0)
        self.optimizer.step()
        self.step += 1
        self._update_average()
        return losses, quality

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.average, (1 + self.step) / (10 + self.step))
        for mean, value in zip(self.average.state_dict().values(), self.model.state_dict().values()):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)

    @torch.no_grad()
    def validate(self, sampler: PairSampler, batches: int = 12) -> tuple[Losses, Quality]:
        """Mean losses and quality of the averaged model on held-out images, the same pairs each time."""
        generator = torch.Generator(self.device).manual_seed(HELD_OUT_SEED)
        self.average.eval()
        rows = []
        for index in range(batches):
            pairs = Batch.of(sampler.sample(16, np.random.default_rng((HELD_OUT_SEED, index))), self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bfloat16):
                rows.append(pair_losses(self.average, pairs, generator))
        return (Losses(*(torch.stack(column).mean() for column in zip(*(r[0] for r in rows)))),
                Quality(*(torch.stack(column).nanmean() for column in zip(*(r[1] for r in rows)))))

    def save(self, path: Path) -> None:
        state = dict(model=self.model.state_dict(), average=self.average.state_dict(),
                     optimizer=self.optimizer.state_dict(), step=self.step, seconds=self.seconds)
        part = path.with_suffix('.part')
        torch.save(state, part)
        part.replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state['model'])
        self.average.load_state_dict(state['average'])
        self.optimizer.load_state_dict(state['optimizer'])
        self.step, self.seconds = state['step'], state['seconds']
        if self.late and self.step > self.config.unfreeze_step:
            for parameter in self.late:
                parameter.requires_grad_(True)


COLUMNS = ['step', 'split', *Losses._fields, *Quality._fields, 'rate', 'pairs_per_second']


def train(config: TrainConfig, resume: bool = False) -> Path:
    """Run to the end (or go on from the last checkpoint) and return the path of the finished weights.

    Under torchrun all processes call it; the first one writes.
    """
    if int(os.environ.get('WORLD_SIZE', 1)) > 1:
        dist.init_process_group('nccl' if _device(config.device).type == 'cuda' else 'gloo')
    try:
        return _train(config, resume)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _train(config: TrainConfig, resume: bool) -> Path:
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    checkpoint, log_path = output / 'checkpoint.pt', output / 'log.csv'
    if checkpoint.exists() and not resume:
        raise FileExistsError(f'{checkpoint} exists: resume that run, or choose another output folder')
    trainer = Trainer(config)
    if resume and checkpoint.exists():
        trainer.load(checkpoint)
    first = trainer.rank == 0
    if resume and first:
        _truncate_log(log_path, trainer.step)
    bank = load_bank(config.data, config.images)
    rows = split(bank, config.held_out)
    if not all(part.any() for part in rows):
        raise ValueError(f'the {len(bank.pictures)} images in {config.data} cannot be split for training and validation '
                         f'with held_out {config.held_out:g}')
    training, held_out = (PairSampler(bank, part, config.augmentation, config.mix, tuple(config.loose)) for part in rows)
    writer = _tensorboard(output) if first else None
    new = not log_path.exists()
    with (log_path if first else Path(os.devnull)).open('a', newline='') as stream:
        log = csv.writer(stream)
        if new:
            log.writerow(COLUMNS)

        def record(kind: str, losses, quality, speed) -> None:
            values = [float(v) for v in (*losses, *quality)]
            log.writerow([trainer.step, kind, *(f'{v:.5f}' for v in values), f'{trainer.rate():.2e}', f'{speed:.1f}'])
            stream.flush()
            if writer:
                for name, value in zip(COLUMNS[2:], values):
                    writer.add_scalar(f'{name}/{kind}', value, trainer.step)

        bar = tqdm(total=config.steps, initial=trainer.step, desc='train', unit='step', disable=None if first else True)
        sums, count, start = None, 0, time.perf_counter()
        trainer.watch()
        for pairs in batches(training, trainer):
            losses, quality = trainer.train_step(pairs)
            row = torch.stack([v.detach().float().nan_to_num() for v in (*losses, *quality)])
            sums, count = (row if sums is None else sums + row), count + 1
            bar.update()
            if trainer.step % WATCH_EVERY == 0:
                trainer.watch()
            last = trainer.done() == 1
            if last and not first:
                break
            if not first:
                continue
            if trainer.step % 50 == 0 or last:
                mean = (sums / count).tolist()
                speed = count * config.batch * trainer.processes / (time.perf_counter() - start)
                record('train', mean[:len(Losses._fields)], mean[len(Losses._fields):], speed)
                bar.set_postfix(loss=f'{sum(mean[:4]):.3f}', recall=f'{mean[4]:.3f}', pairs_s=f'{speed:.0f}')
                sums, count, start = None, 0, time.perf_counter()
            if trainer.step % config.validate_every == 0 or last:
                record('held_out', *trainer.validate(held_out), 0.0)
                start = time.perf_counter()
            if trainer.step % config.checkpoint_every == 0 or last:
                trainer.save(checkpoint)
                save_weights(trainer.average, output / 'cract.pt')
                start = time.perf_counter()
            if last:
                break
        bar.close()
    if first:
        plot_curves(log_path, output / 'curves.png')
    return output / 'cract.pt'


def batches(sampler: PairSampler, trainer: Trainer) -> Iterator[Pairs]:
    """The batch of each step from the trainer's on, made here or in advance by worker processes."""
    steps, size, workers = itertools.count(trainer.step), trainer.config.batch, trainer.config.workers
    if not workers:
        for step in steps:
            yield sampler.sample(size, np.random.default_rng(trainer.key(step)))
    # forked: the pictures are shared, and nothing of torch runs there
    with ProcessPoolExecutor(workers, multiprocessing.get_context('fork'), _start_worker, (sampler,)) as pool:
        waiting = deque(pool.submit(_sample, size, trainer.key(next(steps))) for _ in range(workers * AHEAD))
        try:
            while True:
                yield waiting.popleft().result()
                waiting.append(pool.submit(_sample, size, trainer.key(next(steps))))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _start_worker(sampler: PairSampler) -> None:
    global _sampler
    _sampler = sampler
    cv2.setNumThreads(1)


def _sample(size: int, key: tuple[int, int, int]) -> Pairs:
    return _sampler.sample(size, np.random.default_rng(key))


def _truncate_log(path: Path, step: int) -> None:
    """Drop the rows written after the checkpoint that a run goes on from."""
    if path.exists():
        with path.open(newline='') as stream:
            rows = list(csv.reader(stream))
        with path.open('w', newline='') as stream:
            csv.writer(stream).writerows(r for r in rows if not r[0].isdigit() or int(r[0]) <= step)


def _tensorboard(output: Path):
    """A TensorBoard writer where that package is installed: the CSV file holds the same numbers."""
    import importlib.util
    if importlib.util.find_spec('tensorboard') is None:
        return None
    from torch.utils.tensorboard import SummaryWriter
    return SummaryWriter(str(output))


def plot_curves(log: Path, picture: Path) -> None:
    """Draw losses and quality over the steps from a run's CSV log."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot as plt
    with log.open(newline='') as stream:
        rows = list(csv.DictReader(stream))
    names = [*Losses._fields, *Quality._fields]
    figure, axes = plt.subplots(3, 3, figsize=(13, 9), sharex=True)
    for axis, name in zip(axes.flat, names):
        for kind, style in (('train', dict(alpha=0.5)), ('held_out', dict(marker='.'))):
            points = [(int(r['step']), float(r[name])) for r in rows if r['split'] == kind]
            if points:
                axis.plot(*zip(*points), label=kind.replace('_', ' '), **style)
        axis.set_title(name.replace('_', ' '))
        axis.grid(alpha=0.3)
    axes.flat[0].legend()
    figure.supxlabel('step')
    figure.tight_layout()
    figure.savefig(picture, dpi=80)
    plt.close(figure)
