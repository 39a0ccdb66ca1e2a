import io
import json
import tarfile

import cv2
import numpy as np
import pytest
import torch

from cract_core import cli, discriminator
from cract_core.config import TrackerConfig
from cract_core.evaluation import ablation
from cract_core.evaluation.ablation import ABLATIONS, VariantSpec, find_ablation
from cract_core.evaluation.sequences import write_rendered
from cract_core.model import CractModel, load_weights
from cract_core.runtime import make_nets
from cract_core import roi_align as roi_align_module
from cract_core.roi_align import pyramid_roi_align, roi_align
from cract_core.synthetic import generate

QUICK = dict(init_positives=20, init_negatives=50, init_iterations=1, threads=1)
OPTIONS = [word for name, value in QUICK.items() for word in (f'--{name.replace("_", "-")}', str(value))]
NETWORKS = [variant.model for one in ABLATIONS.values() for variant in one.variants if variant.model is not CractModel]


@pytest.fixture(scope='module')
def clip():
    return list(generate(4, seed=3, size=(320, 240)))


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('sequences')
    for seed in (1, 2):
        write_rendered(root / 'set' / f'clip{seed}', 4, seed, (320, 240))
    return root


@pytest.fixture(scope='module')
def shards(tmp_path_factory):
    """Eight scenes of noise with one red rectangle each."""
    folder = tmp_path_factory.mktemp('shards')
    rng, rows = np.random.default_rng(0), []
    with tarfile.open(folder / 'images-00.tar', 'w') as archive:
        for index in range(8):
            image = rng.integers(60, 200, (200, 280, 3)).astype(np.uint8)
            x, y, w, h = rng.integers((80, 60, 24, 24), (140, 90, 50, 50)).tolist()
            image[y:y + h, x:x + w] = (40, 40, 220)
            data = cv2.imencode('.png', image)[1].tobytes()
            info = tarfile.TarInfo(f'{index}.png')
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
            rows.append({'file': f'{index}.png', 'set': 'blocks', 'size': [280, 200],
                         'objects': [{'xywh': [x, y, w, h], 'label': 'block'}]})
    (folder / 'images-00.jsonl').write_text('\n'.join(json.dumps(row) for row in rows))
    return folder


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """Each network with the trained weights of the package, as far as it has them."""
    folder, paths = tmp_path_factory.mktemp('weights'), {}
    for kind in (CractModel, *NETWORKS):
        paths[kind] = folder / f'{kind.__name__}.pt'
        ablation.start_weights(kind, (), '', 0, paths[kind])
    return paths


def follow(clip, config):
    tracker = VariantSpec('some', config).make()
    tracker.init(clip[0].image, clip[0].box)
    return [tracker.update(frame.image) for frame in clip[1:]]


def test_each_network_tracks_and_differs_from_the_baseline(clip, made):
    config = TrackerConfig(**QUICK)
    baseline = follow(clip, config.replace(weights=str(made[CractModel])))
    for kind in NETWORKS:
        estimates = follow(clip, config.replace(weights=str(made[kind])))
        assert all(np.isfinite(one.box).all() for one in estimates)
        assert any(one.score != other.score for one, other in zip(estimates, baseline)), kind


@pytest.mark.parametrize('name', ['classifiers', 'proposals', 'interval'])
def test_each_setting_differs_from_the_baseline(name):
    clip = list(generate(6, seed=3, size=(320, 240)))  # an update in its second frame shows in the fourth answer
    base = TrackerConfig(update_interval=2 if name == 'interval' else 10, **QUICK)
    baseline, *others = [follow(clip, base.replace(**variant.changes))
                         for variant in find_ablation(name, base).variants[:3]]
    for other in others:
        assert [one.score for one in other] != [one.score for one in baseline]


def test_the_baseline_of_a_sweep_is_the_configuration():
    names = [variant.name for variant in find_ablation('proposals', TrackerConfig(num_proposals=7)).variants]
    assert names == [f'num_proposals={n}' for n in (7, 1, 3, 5, 10, 20)]


def test_a_weights_file_keeps_its_structure(made, monkeypatch):
    for kind, path in made.items():
        assert type(load_weights(path)) is kind
    monkeypatch.setattr(ablation.ParallelModel, 'variant', 'unheard')
    with pytest.raises(ValueError, match='parallel'):
        load_weights(made[ablation.ParallelModel])


@pytest.mark.parametrize('runtime', ['torch', 'openvino', 'onnx'])
def test_a_tracker_refuses_a_variant_though_the_ablations_are_loaded(made, runtime):
    with pytest.raises(ValueError, match='only `cract ablate` runs them'):
        make_nets(TrackerConfig(weights=str(made[ablation.ParallelModel]), runtime=runtime, device='cpu'))


def test_parallel_classifies_the_unaligned_features(made):
    cascade, parallel = load_weights(made[CractModel]), load_weights(made[ablation.ParallelModel])
    torch.manual_seed(0)
    phi, boxes = cascade.features(torch.rand(1, 3, 257, 257) * 255), torch.tensor([[80., 90, 150, 160]])
    template = cascade.template(cascade.features(torch.rand(1, 3, 129, 129) * 255), torch.tensor([[40., 40, 90, 90]]))
    one, other = cascade.refine(phi, boxes, template), parallel.refine(phi, boxes, template)
    assert torch.equal(one.boxes, other.boxes) and not torch.equal(one.boxes, boxes)
    assert torch.equal(other.features, pyramid_roi_align(phi, boxes[None]))
    assert torch.equal(one.features, pyramid_roi_align(phi, one.boxes[None]))
    assert torch.equal(parallel.align(boxes, torch.ones(1, 4)), boxes)


def test_roi_align_leaves_nothing_of_the_coarse_levels(clip, made):
    phi, boxes = torch.rand(1, 8, 33, 33), torch.tensor([[[80., 90, 150, 160], [10, 20, 70, 120]]])
    features = ablation.fine_roi_align(phi, boxes)
    pyramid = pyramid_roi_align(phi, boxes)
    assert features.shape == pyramid.shape and torch.equal(features[:, :8], pyramid[:, :8])
    assert not features[:, 8:].any() and torch.equal(features[:, :8].permute(0, 2, 3, 1), roi_align(phi, boxes)[0])
    tracker = VariantSpec('some', TrackerConfig(weights=str(made[ablation.RoiAlignModel]), **QUICK)).make()
    tracker.init(clip[0].image, clip[0].box)
    weight = abs(tracker._target.discriminator.projection.weight)
    assert weight[:, 128:].max() < 1e-5 < 0.01 < weight[:, :128].max()
    assert discriminator.pyramid is roi_align_module.pyramid


def test_the_rpn_on_phi4_does_not_see_phi3(made, monkeypatch):
    crops = torch.rand(1, 3, 129, 129) * 255, torch.rand(1, 3, 257, 257) * 255
    for kind, blind in ((CractModel, False), (ablation.Phi4Model, True)):
        model = load_weights(made[kind])

        def proposals():
            template = model.template(model.features(crops[0]), torch.tensor([[40., 40, 90, 90]]))
            return model.propose(model.features(crops[1]), template)[1]
        before, look = proposals(), model.backbone.forward
        monkeypatch.setattr(model.backbone, 'forward', lambda crop: (look(crop)[0] * 0.5, look(crop)[1]))
        assert torch.equal(proposals(), before) == blind


def test_features_at_stride_16_hold_nothing_between_their_cells(made):
    crop = torch.rand(1, 3, 129, 129) * 255
    phi = load_weights(made[ablation.Stride16Model]).features(crop)
    between = (phi[..., :-2:2, :] + phi[..., 2::2, :]) / 2
    assert phi.shape == (1, 128, 17, 17)
    torch.testing.assert_close(phi[..., 1::2, :], between)
    usual = load_weights(made[CractModel]).features(crop)
    assert (usual[..., 1::2, :] - (usual[..., :-2:2, :] + usual[..., 2::2, :]) / 2).abs().max() > 0.1


FRESH = [name for name, one in ABLATIONS.items() if one.fresh]


@pytest.mark.parametrize('name', [FRESH[0], *(pytest.param(name, marks=pytest.mark.long) for name in FRESH[1:])])
def test_a_variant_and_its_baseline_train_from_the_same_start(name, root, shards, tmp_path):
    args = cli.parse(
        ['ablate', name, str(root), '--data', str(shards), '--steps', '1', '--batch', '2'])
    one, trained, shipped = ABLATIONS[name], {}, load_weights().state_dict()
    for variant in one.variants:
        path = ablation.train_variant(variant, one.fresh, TrackerConfig(threads=1), args, tmp_path)
        start, end = (load_weights(file).state_dict() for file in (path.parent / 'start.pt', path))
        assert type(load_weights(path)) is variant.model
        for key in shipped:
            assert torch.equal(start[key], shipped[key]) != (key.split('.')[0] in one.fresh), key
            assert torch.equal(start[key], end[key]) or not key.startswith('backbone'), key
        assert any(not torch.equal(start[key], end[key]) for key in end)
        trained[variant.name] = start
        written = path.stat().st_mtime_ns
        assert ablation.train_variant(variant, one.fresh, TrackerConfig(threads=1), args, tmp_path) == path
        assert path.stat().st_mtime_ns == written  # not once more
    first, second = trained.values()
    assert all(torch.equal(first[key], second[key]) for key in first)
    args.steps = 2
    with pytest.raises(ValueError, match='another --output'):
        ablation.train_variant(one.variants[0], one.fresh, TrackerConfig(threads=1), args, tmp_path)


def test_the_command_measures_in_pairs_and_repeats_nothing(root, tmp_path, capsys, monkeypatch):
    command = ['ablate', 'classifiers', str(root), '--seeds', '0,1', '--output', str(tmp_path), *OPTIONS]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    figures = json.loads((tmp_path / 'classifiers.json').read_text())
    assert (tmp_path / 'classifiers.md').read_text() == printed
    assert printed.count('\n| ') == 4 and '| joint |' in printed and 'baseline' in printed
    joint, alone = figures['variants']['joint'], figures['variants']['identifier']
    assert joint['difference'] is None and len(joint['auc_by_seed']) == 2
    difference = [alone['sequences'][name] - joint['sequences'][name] for name in joint['sequences']]
    assert alone['difference']['mean'] == pytest.approx(np.mean(difference))
    # with two sequences the interval reaches from the one to the other
    assert [alone['difference'][key] for key in ('low', 'high')] == pytest.approx(sorted(difference))
    monkeypatch.setattr(VariantSpec, 'make', lambda spec: pytest.fail('run again'))
    assert cli.main(command) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize('options, sentence', [
    (['cascade'], 'give --data'), (['interval', '--data', 'x'], 'leave out --data'),
    (['classifiers', '--jobs', '0'], '--jobs must be at least 1')])
def test_what_is_missing_is_one_sentence(root, options, sentence, capsys):
    assert cli.main(['ablate', options[0], str(root), *options[1:]]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count('\n') == 1
