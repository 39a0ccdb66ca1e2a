import csv
import dataclasses
import io
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
from torch.utils._python_dispatch import TorchDispatchMode

from cract_core.backbone import Backbone
from cract_core.boxes import iou
from cract_core.model import CractModel, load_weights
from cract_core.training.augment import Augmentation, PairSampler, inverse3
from cract_core.training.data import cut_out, load_bank, outline_of, outline_of_box, split
from cract_core.training.losses import (RPN_POSITIVES, RPN_SAMPLES, balanced, batched_nms, pair_losses, pick, rpn_loss,
                                        training_proposals)
from cract_core.training.loop import TrainConfig, Trainer, imagenet_backbone, train

RED = (40, 40, 220)
PLAIN = Augmentation(rotated=0, aspect=0, perspective=0, pasted=0, pasted_large=0, pasted_box=0, distractor=0,
                     occluded=0, grey=0, colour=0, lit=0, blurred=0, noisy=0, compressed=0, negative=0, solid=0)


def add(archive, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


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
                image[y:y + h, x:x + w] = RED
                objects = [{'xywh': [float(v) for v in (x, y, w, h)], 'label': 'block'}]
            add(archive, f'{index}.png', cv2.imencode('.png', image)[1].tobytes())
            rows.append({'file': f'{index}.png', 'set': 'blocks', 'size': [280, 200], 'objects': objects})
    (folder / 'images-00.jsonl').write_text('\n'.join(json.dumps(r) for r in rows))
    return folder


@pytest.fixture(scope='module')
def bank(shards):
    return load_bank(shards)


def sampler(bank, augmentation=PLAIN, seed=0):
    return PairSampler(bank, augmentation, torch.Generator().manual_seed(seed))


def test_bank_holds_every_object_and_a_pseudo_target_for_scenes_without(bank):
    table = bank.objects
    assert len(table.image) == 14 and int((table.label < 0).sum()) == 2
    assert float(table.weight[table.label < 0].sum() / table.weight.sum()) == pytest.approx(0.25, rel=1e-4)
    x1, y1, x2, y2 = table.box[0].int().tolist()
    assert bank.pixels[0, :3, (y1 + y2) // 2, (x1 + x2) // 2].tolist() == list(RED)


def test_boxes_of_crops_are_where_the_object_is(bank):
    """Red pixels lie inside the box, and none outside it: an oracle that knows nothing of the geometry code."""
    table = bank.objects
    table.weight[table.label < 0] = 0
    pairs = sampler(bank).sample(24)
    for crops, boxes in ((pairs.template, pairs.template_box), (pairs.search, pairs.search_box)):
        for crop, box in zip(crops, boxes):
            assert (red_box(crop) - box.clamp(0, crop.shape[-1])).abs().max() < 2.5


def red_box(crop):
    """Bounding box of the red pixels of a crop (3, H, W)."""
    y, x = torch.nonzero((crop[2] > 130) & (crop[0] < 130), as_tuple=True)
    return torch.tensor([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()


@pytest.fixture(scope='module')
def cut_bank(tmp_path_factory):
    """Eight red crescents of many shapes with their masks, and six grounds of blue texture."""
    folder = tmp_path_factory.mktemp('cut')
    rng = np.random.default_rng(1)
    rows = []
    with tarfile.open(folder / 'a.tar', 'w') as archive:
        for index in range(14):
            image = np.dstack([rng.integers(60, 200, (240, 240)), *([np.full((240, 240), 40)] * 2)]).astype(np.uint8)
            row = {'file': f'{index}.png', 'set': 's', 'size': [240, 240], 'objects': []}
            if index < 8:
                mask = np.zeros((240, 240), np.uint8)
                axes = rng.integers(40, 90, 2).tolist()
                cv2.ellipse(mask, (120, 120), axes, int(rng.integers(0, 180)), 0, 230, 255, -1)
                image[mask > 0] = RED
                add(archive, f'{index}.mask.png', cv2.imencode('.png', mask)[1].tobytes())
                row |= {'mask': f'{index}.mask.png', 'label': 'crescent'}
            add(archive, f'{index}.png', cv2.imencode('.png', image)[1].tobytes())
            rows.append(row)
    (folder / 'a.jsonl').write_text('\n'.join(json.dumps(r) for r in rows))
    return load_bank(folder)


def only(name, **changes):
    """The plain augmentation of cut-outs on other grounds, with some of the defaults back."""
    return dataclasses.replace(PLAIN, pasted=1.0, **{n: getattr(Augmentation(), n) for n in name}, **changes)


def test_the_box_of_a_turned_warped_pasted_object_is_that_of_its_visible_pixels(cut_bank):
    cut_bank.objects.weight[cut_bank.objects.cut == 0] = 0
    pairs = sampler(cut_bank, only(('rotation', 'rotated', 'aspect', 'perspective', 'scale'))).sample(32)
    for crops, boxes in ((pairs.template, pairs.template_box), (pairs.search, pairs.search_box)):
        for crop, box in zip(crops, boxes):
            assert (red_box(crop) - box.clamp(0, crop.shape[-1])).abs().max() < 2.5
    # the object itself has changed its form, not only its place
    aspect = (pairs.search_box[:, 2:] - pairs.search_box[:, :2]).log() @ torch.tensor([1.0, -1.0])
    shown = (pairs.template_box[:, 2:] - pairs.template_box[:, :2]).log() @ torch.tensor([1.0, -1.0])
    assert (aspect - shown).abs().mean() > 0.1


def test_an_outline_has_the_box_of_its_turned_mask():
    mask = np.zeros((200, 200), np.uint8)
    cv2.ellipse(mask, (100, 100), (60, 25), 20, 0, 200, 1, -1)
    points = outline_of(mask > 0)
    for angle in (0, 20, 45, 70):
        matrix = cv2.getRotationMatrix2D((99.5, 99.5), angle, 1)
        turned = (cv2.warpAffine(mask * 255, matrix, (200, 200)) > 127).astype(np.uint8)
        x, y, w, h = cv2.boundingRect(turned)
        moved = (points - 100) @ matrix[:, :2].T + 100
        np.testing.assert_allclose([*moved.min(0), *moved.max(0)], [x, y, x + w, y + h], atol=1.6)
    np.testing.assert_allclose(np.r_[outline_of_box((3, 4, 30, 20)).min(0), outline_of_box((3, 4, 30, 20)).max(0)],
                               [3, 4, 30, 20])


def test_occluders_hide_at_most_half_and_distractors_next_to_nothing_of_the_target(cut_bank):
    draws = sampler(cut_bank, Augmentation(occluded=1, distractor=1))
    count = 48
    center = 128.5 + 64 * draws.uniform(count, 2)
    size = 40 + 30 * draws.uniform(count, 2).abs()
    box = torch.cat([center - size / 2, center + size / 2], -1)
    target = draws.draw(count, draws.any)
    for layer, most, least in ((lambda s: draws._occlude(s, box), 0.55, 0.02),
                               (lambda s: draws._distract(s, box, target), 0.16, 0.0)):
        changed = layer(torch.full((count, 3, 257, 257), -1.0)).amin(1) > -1
        hidden = torch.tensor([float(c[int(b[1]):int(b[3]), int(b[0]):int(b[2])].float().mean())
                               for c, b in zip(changed, box)])
        assert hidden.max() <= most and hidden.mean() >= least
        assert changed.flatten(1).any(1).float().mean() > 0.8


def test_compression_leaves_flat_crops_and_changes_textured_ones_a_little(bank):
    draws = sampler(bank, Augmentation(compressed=1))
    flat = torch.full((2, 3, 257, 257), 96.0)
    assert (draws._compress(flat.clone()) - flat).abs().max() < 8
    texture = 60 + 120 * torch.rand(4, 3, 257, 257, generator=torch.Generator().manual_seed(0))
    error = (draws._compress(texture.clone()) - texture).abs().mean((1, 2, 3))
    assert 1 < error.min() and error.max() < 40


def test_inverse_of_homographies():
    matrix = torch.eye(3) + 0.3 * torch.randn(5, 3, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(inverse3(matrix), torch.linalg.inv(matrix), atol=1e-4, rtol=1e-4)


def test_search_boxes_are_shifted_by_up_to_64_pixels(bank):
    pairs = sampler(bank).sample(64)
    shift = (pairs.search_box[:, :2] + pairs.search_box[:, 2:]) / 2 - 128.5
    assert shift.abs().max() <= 64 and shift.abs().max() > 50
    assert pairs.template.shape == (64, 3, 129, 129) and pairs.search.shape == (64, 3, 257, 257)


def test_full_augmentation_stays_finite_and_is_seeded(bank):
    a, b = (sampler(bank, Augmentation(), 3).sample(16) for _ in range(2))
    assert torch.equal(a.search, b.search) and torch.equal(a.template, b.template)
    assert torch.isfinite(a.search).all() and a.search.min() >= 0 and a.search.max() <= 255
    assert 0 < int(sampler(bank, Augmentation(negative=0.5), 1).sample(32).negative.sum()) < 32


def test_an_object_is_cut_out_and_a_bad_cut_is_thrown_away():
    rng = np.random.default_rng(0)
    image = rng.integers(200, 240, (120, 160, 3)).astype(np.uint8)
    cv2.ellipse(image, (80, 60), (40, 25), 0, 0, 360, (60, 90, 30), -1)
    truth = np.zeros((120, 160), np.uint8)
    cv2.ellipse(truth, (80, 60), (40, 25), 0, 0, 360, 1, -1)
    for box, annotated in (((40, 35, 121, 86), True), ((4, 4, 156, 116), False)):
        mask = cut_out(image, box, annotated)
        assert (mask & (truth > 0)).sum() / (mask | (truth > 0)).sum() > 0.9
    assert cut_out(image, (20, 15, 150, 110), True) is None                       # it does not fill this box
    assert cut_out(np.full((120, 160, 3), 90, np.uint8), (4, 4, 156, 116), False) is None
    assert cut_out(image, (90, 60, 95, 64), True) is None                         # too small


def test_held_out_images_are_apart(bank):
    training, held = split(bank, 0.2)
    assert set(training.objects.image.tolist()).isdisjoint(held.objects.image.tolist())
    assert len(training.objects.image) + len(held.objects.image) == 14


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


def test_rpn_learns_nothing_from_perfect_answers_and_much_from_wrong_ones(bank):
    pairs = sampler(bank).sample(6)
    anchors = CractModel().rpn.anchors
    from cract_core.boxes import encode
    overlap = iou(anchors, pairs.search_box[:, None])
    logits = torch.stack([-20 * (overlap - 0.4).sign(), 20 * (overlap - 0.4).sign()], -1)
    offsets = encode(anchors, pairs.search_box[:, None].expand(-1, len(anchors), -1))
    generator = torch.Generator().manual_seed(0)
    good = rpn_loss(logits, offsets, anchors, pairs, generator)
    bad = rpn_loss(-logits, offsets + 1, anchors, pairs, generator)
    assert float(good[0]) < 0.2 and float(good[1]) < 1e-6
    assert float(bad[0]) > 10 and float(bad[1]) > 3
    assert RPN_POSITIVES < RPN_SAMPLES == 64


def test_training_proposals_hold_boxes_around_the_truth(bank):
    pairs = sampler(bank).sample(4)
    boxes = torch.rand(4, 200, 4) * 60
    proposals = training_proposals(boxes, torch.rand(4, 200), pairs, torch.Generator().manual_seed(0))
    assert proposals.shape == (4, 32, 4)
    assert (iou(proposals, pairs.search_box[:, None]) > 0.5).sum(1).min() >= 3


def test_every_head_gets_a_gradient(bank):
    torch.manual_seed(0)
    model = CractModel()
    losses, quality = pair_losses(model, sampler(bank, Augmentation()).sample(4), torch.Generator().manual_seed(0))
    losses.total().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    assert 0 <= float(quality.accuracy) <= 1


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


def test_drawing_a_batch_and_its_losses_never_waits_for_the_device(bank, cut_bank):
    model = CractModel()
    for images in (bank, cut_bank):
        draws = sampler(images, Augmentation())
        with Waits() as waits:
            pairs = draws.sample(6)
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
    training, _ = split(load_bank(shards), 0.2)
    draws = PairSampler(training, config.augmentation, trainer.generator)
    for _ in range(2):
        trainer.train_step(draws)
    (tmp_path / 'parts').mkdir()
    trainer.save(tmp_path / 'parts' / 'checkpoint.pt')
    parts = train(config, resume=True)
    for a, b in zip(load_weights(whole).state_dict().values(), load_weights(parts).state_dict().values()):
        torch.testing.assert_close(a, b)
    with open(tmp_path / 'whole' / 'log.csv', newline='') as stream:
        rows = list(csv.DictReader(stream))
    assert {r['split'] for r in rows} == {'train', 'held_out'} and int(rows[-1]['step']) == 4
    assert (tmp_path / 'whole' / 'curves.png').stat().st_size > 5000
    with pytest.raises(FileExistsError):
        train(config)


def test_two_processes_learn_the_same_weights_from_their_own_pairs(shards, imagenet, tmp_path):
    """As torchrun starts them; the gradient step is that of both batches together."""
    program = tmp_path / 'run.py'
    program.write_text(f"""
import dataclasses, os, torch
from cract_core.training import loop
config = loop.TrainConfig(data={str(shards)!r}, imagenet={imagenet!r}, output={str(tmp_path / 'run')!r}, steps=2,
                          batch=2, warmup=1, held_out=0.2, device='cpu', threads=1)
step, seen = loop.Trainer.train_step, []
def kept(self, sampler):
    result = step(self, sampler)
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
    draws = sampler(load_bank(shards), Augmentation())
    trainer.train_step(draws)
    same = {n: torch.equal(p, before[n]) for n, p in trainer.model.named_parameters()}
    assert all(v for n, v in same.items() if n.startswith('backbone'))
    assert not same['fusion.mix.conv.weight'] and not same['identifier.fc3.weight']
    trainer.train_step(draws)
    same = {n: torch.equal(p, before[n]) for n, p in trainer.model.named_parameters()}
    assert not same['backbone.layer3.0.conv1.weight'] and same['backbone.layer2.0.conv1.weight']


def test_configuration_file_is_checked(tmp_path):
    path = tmp_path / 'train.yaml'
    path.write_text('steps: 10\nrate: 1e-3\naugmentation: {shift: 32}\n')
    config = TrainConfig.read(path, batch=4, device=None)
    assert (config.steps, config.rate, config.batch, config.augmentation.shift) == (10, 1e-3, 4, 32.0)
    for text, word in (('mix: 3', 'mix'), ('mix: {coco: much}', 'mix'), ('stepps: 3', 'stepps'),
                       ('steps: many', 'steps'), ('unfreeze: layer9', 'unfreeze'),
                       ('augmentation: {shfit: 3}', 'shfit')):
        path.write_text(text)
        with pytest.raises(ValueError, match=word):
            TrainConfig.read(path)


def test_missing_data_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match='no training shards'):
        load_bank(tmp_path)


def test_a_run_may_start_from_shipped_weights(shards, imagenet, tmp_path):
    """The first step of the second run sees exactly the function that the first one saved."""
    first = train(TrainConfig(data=str(shards), imagenet=imagenet, steps=2, batch=2, warmup=1, device='cpu',
                              output=str(tmp_path / 'first'), held_out=0.2))
    trainer = Trainer(TrainConfig(data=str(shards), start_from=str(first), device='cpu'))
    crop = torch.rand(2, 3, 129, 129) * 255
    torch.testing.assert_close(trainer.model.train().features(crop), load_weights(first).features(crop))
    draws = sampler(load_bank(shards), Augmentation())
    before = trainer.model.fusion.mix.conv.weight.clone()
    trainer.train_step(draws)
    assert not torch.equal(before, trainer.model.fusion.mix.conv.weight)
