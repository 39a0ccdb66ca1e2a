import csv
import dataclasses
import json
import os
import socket
import subprocess
import sys
import tarfile
import time

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from test_pairs import PLAIN, add

from cract_core.backbone import Backbone
from cract_core.boxes import encode, iou
from cract_core.model import CractModel, load_weights
from cract_core.training.losses import (JITTERED, OWN, Batch, balanced, batched_nms, box_loss, pair_losses, pick, rpn_loss,
                                        soft_cross_entropy, tightness, training_proposals)
from cract_core.training.loop import TrainConfig, Trainer, imagenet_backbone, train
from cract_core.training.pairs import NEIGHBOURS, Augmentation, PairSampler
from cract_core.training.pictures import load_bank, split


@pytest.fixture(scope='module')
def shards(tmp_path_factory):
    """Twelve scenes of blue texture with one red rectangle each, and two without a box."""
    folder = tmp_path_factory.mktemp('shards')
    rng = np.random.default_rng(0)
    rows = []
    with tarfile.open(folder / 'images-00.tar', 'w') as archive:
        for index in range(14):
            image = np.dstack([rng.integers(60, 200, (200, 280)), *([np.full((200, 280), 40)] * 2)]).astype(np.uint8)
            objects = []
            if index < 12:
                w, h = rng.integers(24, 50, 2)
                x, y = rng.integers(80, 140), rng.integers(60, 90)
                image[y:y + h, x:x + w] = (40, 40, 220)
                objects = [{'xywh': [float(v) for v in (x, y, w, h)], 'label': 'block'}]
            add(archive, f'{index}.png', cv2.imencode('.png', image)[1].tobytes())
            rows.append({'file': f'{index}.png', 'set': 'blocks', 'size': [280, 200], 'objects': objects})
    (folder / 'images-00.jsonl').write_text('\n'.join(json.dumps(r) for r in rows))
    return folder


@pytest.fixture(scope='module')
def bank(shards):
    return load_bank(shards)


def sampler(bank, augmentation=PLAIN):
    return PairSampler(bank, np.ones(len(bank.track), bool), augmentation)


def draw(bank, count, augmentation=PLAIN, seed=0):
    return sampler(bank, augmentation).sample(count, np.random.default_rng(seed))


def batch(bank, count, augmentation=PLAIN):
    return Batch.of(draw(bank, count, augmentation), torch.device('cpu'))


def test_pick_takes_at_most_the_count_and_only_from_the_mask():
    mask = torch.tensor([[True, False, True, True], [False, False, True, False]])
    chosen = pick(mask, torch.tensor([[0.1, 0.9, 0.2, 0.3], [0.5, 0.5, 0.0, 0.5]]), 2)
    assert chosen.tolist() == [[False, False, True, True], [False, False, True, False]]


def test_balanced_loss_by_hand():
    loss = torch.tensor([1.0, 2.0, 3.0, 10.0])
    positive = torch.tensor([True, True, False, False])
    assert float(balanced(loss, positive, torch.tensor([False, False, True, False]))) == (1.5 + 3) / 2


def test_batched_suppression_matches_torch_loops():
    torch.manual_seed(0)
    low = torch.rand(3, 30, 2) * 50
    boxes, scores = torch.cat([low, low + 10 + 20 * torch.rand(3, 30, 2)], -1), torch.rand(3, 30)
    result = batched_nms(boxes, scores, 0.5, 5)
    for row in range(3):
        kept = []
        for i in scores[row].argsort(descending=True).tolist():
            if all(float(iou(boxes[row, i], boxes[row, k])) <= 0.5 for k in kept):
                kept.append(i)
        assert result[row].tolist() == kept[:5]


def test_soft_cross_entropy_is_that_of_torch():
    torch.manual_seed(0)
    logits, label = torch.randn(7, 2), torch.rand(7)
    expected = F.cross_entropy(logits, torch.stack([1 - label, label], 1), reduction='none')
    torch.testing.assert_close(soft_cross_entropy(logits, label), expected)


def test_a_tight_box_is_a_better_target_than_a_loose_one_unless_the_truth_is_loose():
    overlap = torch.tensor([0.2, 0.45, 0.6, 0.95])
    assert tightness(overlap, torch.tensor(True)).tolist() == pytest.approx([0, 0.25, 0.5, 1])
    assert tightness(overlap, torch.tensor(False)).tolist() == [0, 0, 1, 1]


def test_the_box_loss_is_zero_for_the_truth_and_grows_with_the_lack_of_overlap():
    reference, truth = torch.tensor([[10.0, 10, 50, 50]]), torch.tensor([[12.0, 8, 58, 40]])
    scale = torch.tensor([0.1, 0.1, 0.2, 0.2])
    exact = encode(reference, truth) / scale
    assert float(box_loss(exact, reference, truth, scale, 0.5, 3.0)) == pytest.approx(0, abs=1e-5)
    none = torch.zeros(1, 4)
    smooth = F.smooth_l1_loss(none, exact, reduction='sum', beta=0.5)
    assert float(box_loss(none, reference, truth, scale, 0.5, 3.0)) == pytest.approx(
        float(smooth / 2 + 3 * (1 - iou(reference, truth))), rel=1e-5)


def test_rpn_learns_little_from_perfect_answers_and_much_from_wrong_ones(bank):
    pairs = batch(bank, 6)
    anchors = CractModel().rpn.anchors
    truth = pairs.search_box[:, None].expand(-1, len(anchors), -1)
    overlap = iou(anchors, pairs.search_box[:, None])
    sign = torch.where(overlap >= 0.3, 20.0, -20.0)                     # where offsets are perfect, all such boxes are tight
    logits, offsets = torch.stack([-sign, sign], -1), encode(anchors, truth)
    generator = torch.Generator().manual_seed(0)
    good = rpn_loss(logits, offsets, anchors, pairs, generator)
    bad = rpn_loss(-logits, offsets + 1, anchors, pairs, generator)
    assert float(good[0]) < 0.01 and float(good[1]) < 1e-4
    assert float(bad[0]) > 10 and float(bad[1]) > 2


def test_loose_boxes_teach_no_regression(bank):
    torch.manual_seed(0)
    model, pairs = CractModel(), batch(bank, 3)._replace(exact=torch.zeros(3, dtype=torch.bool))
    losses, _ = pair_losses(model, pairs, torch.Generator().manual_seed(0))
    assert float(losses.rpn_box) == 0 == float(losses.regression)
    assert float(losses.rpn_class) > 0 and float(losses.identity) > 0


def test_training_proposals_hold_boxes_around_the_truth_and_other_objects(bank):
    pairs = batch(bank, 4)
    other = torch.tensor([5.0, 6, 40, 50])
    others = pairs.others.clone()
    others[:, 0] = other
    boxes = torch.rand(4, 200, 4) * 60
    proposals = training_proposals(boxes, torch.rand(4, 200), pairs._replace(others=others), torch.Generator().manual_seed(0))
    assert proposals.shape == (4, JITTERED + OWN + NEIGHBOURS, 4)
    assert (iou(proposals, pairs.search_box[:, None])[:, :JITTERED] > 0.5).sum(1).min() >= 5
    assert (proposals[:, -NEIGHBOURS] == other).all() and (proposals[:, -1] == pairs.search_box).all()


def test_every_head_gets_a_gradient(bank):
    torch.manual_seed(0)
    model = CractModel()
    losses, quality = pair_losses(model, batch(bank, 4, Augmentation()), torch.Generator().manual_seed(0))
    losses.total().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    assert all(0 <= float(value) <= 1 for value in (quality.accuracy, quality.recall, quality.chosen, quality.refined))


class Waits(TorchDispatchMode):
    """Notes the operations whose result the host has to know: on a GPU each of them waits for all work before it."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        known = ('_local_scalar_dense', 'nonzero', 'masked_select', 'unique', 'multinomial', 'repeat_interleave.Tensor')
        by_mask = name.startswith('aten.index') and any(
            i is not None and i.dtype == torch.bool for i in args[1] if isinstance(args[1], (list, tuple)))
        if by_mask or any(word in name for word in known):
            self.found.add(name)
        return function(*args, **(kwargs or {}))


def test_the_losses_never_wait_for_the_device(bank):
    model, pairs = CractModel(), batch(bank, 4, Augmentation())
    with Waits() as waits:
        losses, _ = pair_losses(model, pairs, torch.Generator().manual_seed(0))
        losses.total().backward()
    assert not waits.found
    with Waits() as waits:
        float(torch.ones(2)[torch.tensor([True, False])].sum())
    assert {name.split('.')[1] for name in waits.found} >= {'_local_scalar_dense', 'index'}


def test_imagenet_weights_with_batch_norm_are_folded(tmp_path):
    """A stem as torchvision stores it, against the stem run layer by layer."""
    torch.manual_seed(0)
    state = {}
    for name, value in Backbone().state_dict().items():
        if name.endswith('weight'):
            stem = name.removesuffix('.weight')
            norm = stem[:-1] + '1' if 'downsample' in stem else stem.replace('conv', 'bn')
            width = len(value)
            state[name] = value
            state |= {f'{norm}.weight': torch.rand(width) + 0.5, f'{norm}.bias': torch.randn(width),
                      f'{norm}.running_mean': torch.randn(width), f'{norm}.running_var': torch.rand(width) + 0.5}
    state['fc.weight'] = torch.zeros(3, 3)
    torch.save(state, tmp_path / 'resnet.pth')
    folded = imagenet_backbone(str(tmp_path / 'resnet.pth'))
    net = Backbone()
    net.load_state_dict(folded)
    image = torch.rand(1, 3, 33, 33)
    expected = torch.nn.functional.batch_norm(
        torch.nn.functional.conv2d(image.flip(1), state['conv1.weight'], None, 2, 3), state['bn1.running_mean'],
        state['bn1.running_var'], state['bn1.weight'], state['bn1.bias'])
    torch.testing.assert_close(net.conv1(image), expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(FileNotFoundError):
        imagenet_backbone(str(tmp_path / 'absent.pth'))


@pytest.fixture(scope='module')
def imagenet(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('imagenet') / 'backbone.pth'
    torch.save(Backbone().state_dict(), path)
    return str(path)


def test_a_resumed_run_equals_an_uninterrupted_one(shards, imagenet, tmp_path):
    common = dict(data=str(shards), imagenet=imagenet, batch=2, warmup=2, checkpoint_every=2, validate_every=4,
                  held_out=0.2, unfreeze='layer3', unfreeze_step=1, device='cpu')
    whole = train(TrainConfig(steps=4, output=str(tmp_path / 'whole'), **common))
    # the same run, stopped after two steps: its schedule is that of four
    config = TrainConfig(steps=4, output=str(tmp_path / 'parts'), **common)
    trainer = Trainer(config)
    bank = load_bank(shards)
    draws = PairSampler(bank, split(bank, 0.2)[0], config.augmentation)
    for step in range(2):
        trainer.train_step(draws.sample(config.batch, np.random.default_rng(trainer.key(step))))
    (tmp_path / 'parts').mkdir()
    trainer.save(tmp_path / 'parts' / 'checkpoint.pt')
    parts = train(dataclasses.replace(config, workers=1), resume=True)     # and with its pairs made by another process
    for a, b in zip(load_weights(whole).state_dict().values(), load_weights(parts).state_dict().values()):
        torch.testing.assert_close(a, b)
    with open(tmp_path / 'whole' / 'log.csv', newline='') as stream:
        rows = list(csv.DictReader(stream))
    assert {r['split'] for r in rows} == {'train', 'held_out'} and int(rows[-1]['step']) == 4
    assert (tmp_path / 'whole' / 'curves.png').stat().st_size > 5000
    with pytest.raises(FileExistsError):
        train(config)


@pytest.mark.long
def test_two_processes_learn_the_same_weights_from_their_own_pairs(shards, imagenet, tmp_path):
    """As torchrun starts them; the gradient step is that of both batches together."""
    program = tmp_path / 'run.py'
    program.write_text(f"""
import dataclasses, os, torch
from cract_core.training import loop
config = loop.TrainConfig(data={str(shards)!r}, imagenet={imagenet!r}, output={str(tmp_path / 'run')!r}, steps=2,
                          batch=2, warmup=1, held_out=0.2, device='cpu', threads=1)
step, seen = loop.Trainer.train_step, []
def kept(self, pairs):
    result = step(self, pairs)
    seen.append((float(result[0].total()), [p.detach().clone() for p in self.model.parameters()]))
    return result
loop.Trainer.train_step = kept
loop.train(config)
torch.save(seen, os.path.join({str(tmp_path)!r}, 'seen' + os.environ['RANK']))
""")
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    environment = dict(os.environ, WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), OMP_NUM_THREADS='1')
    runs = [subprocess.Popen([sys.executable, program], env=dict(environment, RANK=str(rank), LOCAL_RANK=str(rank)))
            for rank in range(2)]
    assert [run.wait(timeout=240) for run in runs] == [0, 0]
    first, second = (torch.load(tmp_path / f'seen{rank}', weights_only=True) for rank in range(2))
    for (loss, weights), (other_loss, others) in zip(first, second):
        assert loss != other_loss
        for a, b in zip(weights, others):
            assert torch.equal(a, b)
    assert not all(torch.equal(a, b) for a, b in zip(first[0][1], first[1][1]))
    assert load_weights(tmp_path / 'run' / 'cract.pt')


def test_a_run_ends_with_its_minutes_and_its_schedule(shards, imagenet):
    config = TrainConfig(data=str(shards), imagenet=imagenet, steps=1000, minutes=2.0, warmup=1, device='cpu')
    trainer = Trainer(config)
    trainer.step = 10
    rates = []
    for seconds in (0, 60, 119.9):
        trainer.seconds, trainer.begin = seconds, time.perf_counter()
        trainer.watch()
        rates.append(trainer.rate() / config.rate)
    assert rates[0] > 0.99 and rates[1] == pytest.approx(0.505, abs=0.01) and rates[2] == pytest.approx(0.01, abs=0.001)
    assert trainer.done() < 1
    trainer.seconds = 121
    assert trainer.done() == 1


def test_a_frozen_backbone_does_not_move_and_an_unfrozen_stage_does(shards, imagenet):
    config = TrainConfig(data=str(shards), imagenet=imagenet, steps=3, batch=2, warmup=1, unfreeze='layer3',
                         unfreeze_step=1, device='cpu')
    trainer = Trainer(config)
    before = {n: p.clone() for n, p in trainer.model.named_parameters()}
    bank = load_bank(shards)
    trainer.train_step(draw(bank, 2, Augmentation()))
    same = {n: torch.equal(p, before[n]) for n, p in trainer.model.named_parameters()}
    assert all(v for n, v in same.items() if n.startswith('backbone'))
    assert not same['fusion.mix.conv.weight'] and not same['identifier.fc3.weight']
    trainer.train_step(draw(bank, 2, Augmentation(), seed=1))
    same = {n: torch.equal(p, before[n]) for n, p in trainer.model.named_parameters()}
    assert not same['backbone.layer3.0.conv1.weight'] and same['backbone.layer2.0.conv1.weight']


def test_configuration_file_is_checked(tmp_path):
    path = tmp_path / 'train.yaml'
    path.write_text('steps: 10\nrate: 1e-3\naugmentation: {shift: 32}\n')
    config = TrainConfig.read(path, batch=4, device=None)
    assert (config.steps, config.rate, config.batch, config.augmentation.shift) == (10, 1e-3, 4, 32.0)
    for text, word in (('mix: 3', 'mix'), ('mix: {coco: much}', 'mix'), ('loose: coco', 'loose'), ('stepps: 3', 'stepps'),
                       ('steps: many', 'steps'), ('unfreeze: layer9', 'unfreeze'),
                       ('augmentation: {shfit: 3}', 'shfit')):
        path.write_text(text)
        with pytest.raises(ValueError, match=word):
            TrainConfig.read(path)


@pytest.mark.long
def test_a_run_may_start_from_shipped_weights(shards, imagenet, tmp_path):
    """The first step of the second run sees exactly the function that the first one saved."""
    first = train(TrainConfig(data=str(shards), imagenet=imagenet, steps=2, batch=2, warmup=1, device='cpu',
                              output=str(tmp_path / 'first'), held_out=0.2))
    trainer = Trainer(TrainConfig(data=str(shards), start_from=str(first), device='cpu'))
    crop = torch.rand(2, 3, 129, 129) * 255
    torch.testing.assert_close(trainer.model.train().features(crop), load_weights(first).features(crop))
    before = trainer.model.fusion.mix.conv.weight.clone()
    trainer.train_step(draw(load_bank(shards), 2, Augmentation()))
    assert not torch.equal(before, trainer.model.fusion.mix.conv.weight)
