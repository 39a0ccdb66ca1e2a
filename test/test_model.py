import pickle
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from cract_core import weights_file
from cract_core.model import CractModel, load_weights, save_weights
from cract_core.weights_file import read_weights

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    model = CractModel()
    for module in model.modules():  # as after training: norms that do something
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return model.eval().requires_grad_(False)


def test_saved_weights_give_the_same_features(model, tmp_path):
    save_weights(model, tmp_path / 'w.pt')
    loaded = load_weights(tmp_path / 'w.pt')
    crop = torch.rand(1, 3, 129, 129) * 255
    expected, result = model.features(crop), loaded.features(crop)
    assert float((expected - result).norm() / expected.norm()) < 2e-3  # float16 in the file
    assert not any('norm' in name for name in loaded.state_dict())
    assert isinstance(model.fusion.mix.norm, torch.nn.BatchNorm2d)  # saving does not change the model
    assert (tmp_path / 'w.pt').stat().st_size < 20e6


def test_frame_of_the_whole_network(model):
    template = model.template(model.features(torch.rand(1, 3, 129, 129) * 255), torch.tensor([[40.0, 40, 90, 90]]))
    phi = model.features(torch.rand(1, 3, 257, 257) * 255)
    boxes, scores = model.propose(phi, template)
    assert boxes.shape == (1, 3645, 4) and scores.shape == (1, 3645)
    refined = model.refine(phi, boxes[0, :10], template)
    assert refined.boxes.shape == (10, 4) and refined.features.shape == (10, 384, 6, 6)
    assert ((refined.identification >= 0) & (refined.identification <= 1)).all()


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='nothing.pt'):
        load_weights(tmp_path / 'nothing.pt')


@pytest.mark.parametrize('make', [lambda value: value.T.contiguous().T, lambda value: torch.cat([value, value])[len(value):],
                                  lambda value: torch.stack([value, value], -1)[..., 1]])
def test_a_tensor_is_read_by_its_strides(tmp_path, make):
    """Written by another program: transposed in memory, a part of a larger one, every second number."""
    value = torch.arange(12, dtype=torch.float16).reshape(3, 4)
    tensor = make(value)
    assert torch.equal(tensor, value)
    torch.save({'format': 1, 'channels': 8, 'state': {'x': tensor, 'scalar': torch.tensor(2.0)}}, tmp_path / 'w.pt')
    state = read_weights(tmp_path / 'w.pt').state
    assert np.array_equal(state['x'], value.numpy()) and state['scalar'] == 2


@pytest.mark.parametrize('offset, shape, strides', [(0, (3, 4), (4, 2)), (1, (12,), (1,)), (-1, (2,), (1,)), (0, (5, 12), (0, 1)),
                                                    (0, (2,), (-1,))])
def test_a_tensor_outside_of_its_storage_is_refused(offset, shape, strides):
    with pytest.raises(ValueError, match='outside of its storage'):
        weights_file._tensor(np.zeros(12, np.float16), offset, shape, strides)


@pytest.mark.parametrize('damage', ['truncated', 'text', 'wrong keys', 'nan', 'code'])
def test_damaged_weights_are_refused(model, tmp_path, damage):
    path = tmp_path / 'w.pt'
    save_weights(model, path)
    if damage == 'truncated':
        path.write_bytes(path.read_bytes()[:100000])
    elif damage == 'text':
        path.write_text('these are no weights')
    elif damage == 'code':
        path.write_bytes(pickle.dumps(test_missing_weights_are_named))
    else:
        content = torch.load(path, weights_only=True)
        if damage == 'nan':
            content['state']['identifier.fc1.bias'][0] = float('nan')
        else:
            del content['state']['rpn.classify.out.bias']
        torch.save(content, path)
    with pytest.raises(ValueError, match='w.pt'):
        load_weights(path)


def test_weights_of_two_trainings_are_averaged(tmp_path):
    average = runpy.run_path(str(ROOT / 'scripts/average_weights.py'))['average']
    paths = [tmp_path / 'a.pt', tmp_path / 'b.pt']
    for path in paths:
        save_weights(CractModel(), path)
    mean = average(paths).state_dict()
    a, b = (load_weights(path).state_dict() for path in paths)
    assert all(torch.allclose(mean[name], (a[name] + b[name]) / 2, atol=1e-6) for name in mean)
    assert not all(torch.equal(a[name], b[name]) for name in mean)


def test_networks_of_different_structure_are_not_averaged(tmp_path):
    average = runpy.run_path(str(ROOT / 'scripts/average_weights.py'))['average']
    save_weights(CractModel(), tmp_path / 'a.pt')
    save_weights(CractModel(channels=64), tmp_path / 'b.pt')
    with pytest.raises(ValueError, match='different structure'):
        average([tmp_path / 'a.pt', tmp_path / 'b.pt'])
