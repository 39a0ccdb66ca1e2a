"""The networks on every runtime that is installed, against torch on the same crops."""
from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
import tarfile

import cv2
import numpy as np
import pytest
import torch

from conftest import ROOT
from cract_core import cli, runtime
from cract_core.config import TrackerConfig
from cract_core.crop import SEARCH_SIZE, TEMPLATE_SIZE, VIEW_SIZE, search_window, template_window
from cract_core.discriminator import HIDDEN, PROJECTED, Classifier
from cract_core.model import CractModel, load_weights, save_weights
from cract_core.runtime import choose_runtime, make_nets
from cract_core.synthetic import generate
from cract_core.tracker import Tracker

CONFIG = TrackerConfig(device='cpu', threads=1)


def needs(name: str) -> None:
    pytest.importorskip(runtime.PACKAGES[name], reason=f'the runtime {name} is not installed')


@pytest.fixture(scope='module')
def clip():
    return list(generate(16, seed=3, size=(480, 360)))


@pytest.fixture(scope='module')
def shards(clip, tmp_path_factory):
    """Training shards made of the clip."""
    folder = tmp_path_factory.mktemp('shards')
    with tarfile.open(folder / 'images.tar', 'w') as archive, open(folder / 'images.jsonl', 'w') as lines:
        for index, frame in enumerate(clip):
            data = cv2.imencode('.png', frame.image)[1].tobytes()
            entry = tarfile.TarInfo(f'{index}.png')
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
            print(json.dumps(dict(file=entry.name, objects=[dict(xywh=frame.box.tolist())])), file=lines)
    return folder


@pytest.fixture(scope='module')
def int8_weights(shards, tmp_path_factory):
    """The package's weights with ranges, as `cract export` makes them."""
    folder = tmp_path_factory.mktemp('int8')
    assert cli.main(['export', str(folder), '--precision', 'int8', '--data', str(shards), '--images', '12']) == 0
    return str(folder / 'cract.pt')


def crops(clip):
    """Template crop, the target's corners in it, search crop, view."""
    frame, later = clip[0], clip[3].image
    center = frame.box[:2] + frame.box[2:] / 2
    window = template_window(center, *frame.box[2:])
    corners = np.concatenate([frame.box[:2], frame.box[:2] + frame.box[2:]])
    search = search_window(center, *frame.box[2:]).cut(later, (90, 90, 90))
    middle = (SEARCH_SIZE - VIEW_SIZE) // 2
    view = np.ascontiguousarray(search[middle:middle + VIEW_SIZE, middle:middle + VIEW_SIZE])
    return window.cut(frame.image, (90, 90, 90)), window.to_crop(corners), search, view


def answers(nets, clip, proposals=None):
    """All that the networks say about one pair of crops, and the proposals that were refined."""
    first, box, search, view = crops(clip)
    assert first.shape == (TEMPLATE_SIZE, TEMPLATE_SIZE, 3)
    template = nets.template(first, box)
    phi, boxes, scores = nets.search(search, template)
    last = np.float32([96, 96, 161, 161])
    chosen = nets.select(boxes, scores, last, 0.05, 0.4)
    assert np.asarray(chosen.boxes).shape == (10, 4)
    random = np.random.default_rng(0)
    classifier = Classifier(*(np.float32(random.standard_normal(shape) * 0.03) for shape in (
        (PROJECTED, 384), (36 * PROJECTED + 1, HIDDEN), (HIDDEN + 1,))))
    proposals = chosen.boxes if proposals is None else proposals
    refined = nets.refine(phi, proposals, template.beside(template), classifier)
    return ([np.array(part) for part in (*template, nets.features(view), phi, boxes, scores, *refined)], proposals)


@pytest.fixture(scope='module')
def expected(clip):
    return answers(make_nets(CONFIG.replace(runtime='torch')), clip)


@pytest.mark.parametrize('name', ['openvino', 'onnx'])
def test_every_runtime_computes_what_torch_does(name, clip, expected):
    needs(name)
    found, _ = answers(make_nets(CONFIG.replace(runtime=name, precision='fp32')), clip, expected[1])
    for a, b in zip(found, expected[0]):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize('name', ['openvino', 'onnx'])
def test_int8_stays_near(name, clip, expected, int8_weights):
    needs(name)
    config = CONFIG.replace(runtime=name, precision='int8', weights=int8_weights)
    found, _ = answers(make_nets(config), clip, expected[1])
    (*_, phi, _, scores, boxes, nu, tau), (*_, phi0, _, scores0, boxes0, nu0, tau0) = found, expected[0]
    assert (phi * phi0).sum() / np.linalg.norm(phi) / np.linalg.norm(phi0) > 0.98
    assert not np.array_equal(phi, phi0)
    assert np.abs(scores - scores0).mean() < 0.02 and np.abs(nu - nu0).max() < 0.2 and np.abs(tau - tau0).max() < 0.2
    assert np.abs(boxes - boxes0).mean() < 2  # pixels of the crop


@pytest.mark.parametrize('name', ['openvino', 'onnx'])
def test_tracks_agree_between_runtimes(name, clip):
    needs(name)

    def track(chosen):
        tracker = Tracker(CONFIG.replace(runtime=chosen, precision='fp32'))
        tracker.init(clip[0].image, clip[0].box)
        return np.array([tracker.update(frame.image).box for frame in clip[1:]])
    np.testing.assert_allclose(track(name), track('torch'), atol=0.5)


def test_int8_without_ranges_says_what_to_do(tmp_path, capsys):
    needs('openvino')
    save_weights(CractModel(), tmp_path / 'w.pt')
    with pytest.raises(ValueError, match='cract export --precision int8'):
        make_nets(CONFIG.replace(runtime='openvino', precision='int8', weights=str(tmp_path / 'w.pt')))
    assert cli.main(['export', str(tmp_path), '--weights', str(tmp_path / 'w.pt'), '--precision', 'int8']) == 2
    assert '--data' in capsys.readouterr().err


def test_weights_with_ranges_are_the_same_weights(int8_weights):
    plain, ranged = load_weights().state_dict(), load_weights(int8_weights).state_dict()
    assert all(torch.equal(plain[name], ranged[name]) for name in plain)


def hide(monkeypatch, *packages):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name in packages else found(name))


@pytest.mark.parametrize('name', ['openvino', 'onnx', 'tensorrt'])
def test_a_missing_runtime_is_one_sentence(name, monkeypatch):
    hide(monkeypatch, runtime.PACKAGES[name])
    with pytest.raises(ValueError, match=f'{name} needs the package') as caught:
        Tracker(CONFIG.replace(runtime=name))
    assert '\n' not in str(caught.value)


def test_auto_takes_what_is_installed(monkeypatch):
    needs('openvino')
    assert choose_runtime(CONFIG) == ('openvino', 'fp32', 'cpu')
    hide(monkeypatch, 'openvino')
    assert choose_runtime(CONFIG)[0] == ('onnx' if importlib.util.find_spec('onnxruntime') else 'torch')
    hide(monkeypatch, 'openvino', 'onnxruntime')
    assert choose_runtime(CONFIG) == ('torch', 'fp32', 'cpu')


def test_tensorrt_does_not_go_with_the_device_cpu():
    with pytest.raises(ValueError, match='tensorrt runs on CUDA devices'):
        choose_runtime(TrackerConfig(runtime='tensorrt', device='cpu'))


def test_tensorrt_needs_an_onnx_runtime_with_tensorrt():
    needs('onnx')
    import onnxruntime
    if 'TensorrtExecutionProvider' in onnxruntime.get_available_providers():
        pytest.skip('this ONNX Runtime has TensorRT')
    with pytest.raises(ValueError, match='built with TensorRT'):
        make_nets(CONFIG.replace(runtime='tensorrt', device='auto'))


@pytest.mark.parametrize('name', ['openvino', 'onnx'])
def test_auto_takes_int8_where_the_weights_have_its_ranges(name, int8_weights, tmp_path):
    needs(name)
    assert make_nets(CONFIG.replace(runtime=name, weights=int8_weights)).name == f'{name} int8'
    save_weights(load_weights(), tmp_path / 'plain.pt')
    assert make_nets(CONFIG.replace(runtime=name, weights=str(tmp_path / 'plain.pt'))).name == f'{name} fp32'


@pytest.mark.parametrize('changes', [dict(runtime='torch', precision='int8'), dict(runtime='onnx', precision='bf16')])
def test_a_precision_that_a_runtime_lacks_is_refused(changes):
    needs(changes['runtime'])
    with pytest.raises(ValueError, match=changes['precision']):
        choose_runtime(CONFIG.replace(**changes))


def test_a_given_model_runs_on_torch():
    class Variant(CractModel):
        variant = 'test'

    assert Tracker(CONFIG, Variant().fold().eval()).nets.name == 'torch fp32'


def test_weights_of_another_network_are_refused(tmp_path):
    needs('onnx')
    save_weights(CractModel(channels=64), tmp_path / 'w.pt')
    with pytest.raises(ValueError, match='another network'):
        make_nets(CONFIG.replace(runtime='onnx', weights=str(tmp_path / 'w.pt')))


def test_tracking_needs_no_torch(tmp_path):
    """In a process in which torch cannot be imported."""
    needs('openvino')
    code = ('import sys; sys.modules["torch"] = None\n'
            'from cract_core import cli\n'
            f'sys.exit(cli.main(["track", "{tmp_path}", "--box", "20,20,30,30", "--runtime", "openvino"]))')
    for index, frame in enumerate(generate(4, seed=1, size=(160, 120))):
        cv2.imwrite(str(tmp_path / f'{index}.png'), frame.image)
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '4 frames on cpu' in done.stdout


@pytest.mark.parametrize('form, suffix, name', [('onnx', '.onnx', 'onnx'), ('openvino', '.xml', 'openvino')])
def test_export_writes_files_that_agree_with_torch(form, suffix, name, tmp_path, capsys):
    needs('onnx')
    needs(name)
    assert cli.main(['export', str(tmp_path), '--form', form]) == 0
    printed = capsys.readouterr().out
    for graph in ('template', 'features', 'search', 'refine'):
        assert (tmp_path / graph).with_suffix(suffix).is_file() and f'{graph}{suffix}' in printed


def test_export_fails_where_a_graph_computes_something_else(tmp_path, capsys, monkeypatch):
    needs('onnx')
    from cract_core.runtime import graphs
    real = graphs.graph

    def wrong(*arguments, **options):
        model = real(*arguments, **options)
        node = next(node for node in model.graph.node if node.op_type == 'MaxPool')
        node.op_type = 'AveragePool'
        del node.attribute[:]
        node.attribute.extend([graphs.helper.make_attribute(*pair) for pair in
                               (('kernel_shape', (3, 3)), ('strides', (2, 2)), ('pads', (1, 1, 1, 1)))])
        return model
    monkeypatch.setattr(graphs, 'graph', wrong)
    assert cli.main(['export', str(tmp_path)]) == 2
    assert 'does not compute what the model does' in capsys.readouterr().err


def test_what_runs_on_cuda_tracks_on_tensors_as_on_arrays(clip):
    """All of it but the captures and half precision, on the tensors of a CPU; a lost target comes back, too."""
    from cract_core.runtime.torch_nets import CudaNets
    tracks = []
    for nets in (None, CudaNets(load_weights(), CONFIG, 'fp32', capture=False, device='cpu')):
        # without votes: these weigh boxes by scores, in which the last digits differ
        tracker = Tracker(CONFIG.replace(runtime='torch', update_interval=2, vote_iou=1.0))
        tracker.nets = nets or tracker.nets
        tracker.init(clip[0].image, clip[0].box)
        estimates = [tracker.update(frame.image) for frame in clip[1:10]]
        assert any(estimate.updated for estimate in estimates)
        tracker._target.lose()
        found = tracker.consider(clip[10].image, [clip[10].box])
        tracks.append([estimate.box for estimate in (*estimates, found)])
    np.testing.assert_allclose(*tracks, atol=0.2)


def test_on_cuda_with_and_without_a_graph_as_on_the_cpu(clip, expected):
    if not torch.cuda.is_available():
        pytest.skip('this machine has no CUDA device')
    from cract_core.runtime.torch_nets import CudaNets
    for capture in (False, True):
        nets = CudaNets(load_weights(), TrackerConfig(), 'fp16', capture)
        for _ in range(2):  # the second call replays what the first captured
            first, box, search, _ = crops(clip)
            template = nets.template(first, box)
            phi, boxes, scores = nets.search(search, template)
            chosen = nets.select(boxes, scores, np.float32([96, 96, 161, 161]), 0.05, 0.4)
        assert np.abs(scores.cpu().numpy() - expected[0][7]).max() < 0.05
        assert np.abs(boxes.cpu().numpy() - expected[0][6]).mean() < 0.5
        assert chosen.boxes.shape == (10, 4)
