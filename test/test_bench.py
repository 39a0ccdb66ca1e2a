"""`cract bench`: the figures that it gives."""
from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cract_core import cli
from cract_core.evaluation import bench
from cract_core.model import load_weights
from cract_core.evaluation.sequences import read_folders


def test_figures_of_trackers_and_runtimes(tmp_path, capsys):
    path = tmp_path / 'bench.json'
    assert cli.main(['bench', '--runtimes', 'torch-fp32', '--tracker', 'kcf', '--frames', '8', '--threads', '1',
                     '--sizes', '320x240', '--proposals', '2', '--json', str(path)]) == 0
    report = json.loads(path.read_text())
    for name in ('torch-fp32', 'kcf'):
        one = report[name]
        assert all(one[key] > 0 for key in ('p50_ms', 'p95_ms', 'p99_ms', 'init_ms', 'rss_mb'))
        assert one['p50_ms'] <= one['p95_ms'] <= one['p99_ms']
    stages = report['torch-fp32']['stages_ms']
    assert 0 < sum(stages.values()) < 2 * report['torch-fp32']['p50_ms']
    assert 0 < report['torch-fp32']['peak_share'] < 1.5
    assert [run['proposals'] for run in report['runs']] == [10, 2]
    assert set(report['runs'][1]['trackers']) == {'torch-fp32'}
    printed = capsys.readouterr().out
    assert 'torch-fp32' in printed and 'GFLOP/s' in printed


def test_auc_is_that_of_the_sequences(tmp_path):
    root = tmp_path / 'root'
    assert cli.main(['synth', str(root / 'made' / 'one'), '--frames', '6', '--size', '320x240']) == 0
    specs = bench.TrackerSpec('kcf', bench.TrackerConfig())
    figures = bench.accuracy(specs, read_folders(root))
    path = tmp_path / 'eval.json'
    assert cli.main(['eval', str(root), '--tracker', 'kcf', '--json', str(path)]) == 0
    assert figures == pytest.approx(json.loads(path.read_text())['mean']['auc'])


def test_what_is_measured_by_default_can_be_made():
    names = bench.installed(bench.TrackerConfig())
    assert 'torch-fp32' in names
    for name in names:
        bench.TrackerSpec('cract', bench.TrackerConfig(runtime=name.split('-')[0], precision=name.split('-')[1])).make()


def test_percentiles_by_hand():
    figures = bench.percentiles(np.arange(101) / 1e3)
    assert figures == pytest.approx(dict(p50_ms=50, p95_ms=95, p99_ms=99))
    assert bench.percentiles(np.empty(0))['p50_ms'] is None


@pytest.mark.parametrize('proposals', [1, 10])
def test_arithmetic_is_what_torch_counts(proposals):
    model = load_weights()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        phi = model.features(torch.zeros(1, 3, 129, 129))
        template = model.template(phi, torch.tensor([[40.0, 40, 90, 90]]))
    before = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        phi = model.features(torch.zeros(1, 3, 257, 257))
        boxes, _ = model.propose(phi, template)
        model.refine(phi, boxes[0, :proposals], template)
    assert before > 0
    discriminator = 2 * proposals * (36 * 384 * 32 + 1152 * 64 + 64)
    expected = counter.get_total_flops() + discriminator
    assert math.isclose(bench.network_flops(proposals), expected, rel_tol=0.01)


def test_wrong_options_are_one_sentence(capsys, tmp_path):
    assert cli.main(['bench', '--runtimes', 'openvino-fp16']) == 2
    assert capsys.readouterr().err.count('\n') == 1
    assert cli.main(['bench', '--frames', '1', '--runtimes', 'torch-fp32']) == 2
    assert cli.main(['bench', '--json', str(tmp_path / 'no' / 'file.json')]) == 2
    with pytest.raises(SystemExit):
        cli.main(['bench', '--sizes', '640'])
