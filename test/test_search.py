import json
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
import yaml

from cract_core import cli, options
from cract_core.config import TrackerConfig
from cract_core.evaluation import search
from cract_core.evaluation.protocols import paired_difference
from cract_core.evaluation.sequences import write_rendered

QUICK = ['--init-positives', '20', '--init-negatives', '50', '--init-iterations', '1']


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('sequences')
    for seed in (1, 2):
        write_rendered(root / 'set' / f'clip{seed}', 3, seed, (320, 240))
    return root


def constructed(monkeypatch, names, score):
    """A tracker whose AUC on sequence `names[i]` is `score(config, i)`; returns its sequences."""
    sequences = [SimpleNamespace(name=name, images=()) for name in names]
    monkeypatch.setattr(search.TrackerSpec, 'make', lambda spec: spec.config)
    monkeypatch.setattr(search.runner, 'run_sequence', lambda config, sequence, progress: config)
    monkeypatch.setattr(search.runner, 'summarize',
                        lambda config, sequence: dict(auc=score(config, names.index(sequence.name))))
    return sequences


def searched(folder, sequences, parameters, trials, seed=0):
    base = TrackerConfig()
    ranges = search.choose_ranges(parameters, base)
    study = search.open_study(folder, base, ranges, sequences, seed)
    search.search(study, base, ranges, sequences, trials)
    return study


def test_a_study_resumes_and_its_result_is_a_configuration(root, tmp_path, capsys):
    out = tmp_path / 'out'
    command = ['tune', str(root), '--parameters', 'alpha,num_proposals', '--output', str(out), *QUICK]
    assert cli.main([*command, '--trials', '1']) == 0
    first = json.loads((out / 'tune.json').read_text())
    assert first['best'] == first['default'] == {'alpha': 0.4, 'num_proposals': 10}
    capsys.readouterr()
    assert cli.main([*command, '--trials', '3', '--rendered', '0']) == 0
    printed = capsys.readouterr().out
    assert 'trial 0:' not in printed and 'trial 1:' in printed and 'trial 2:' in printed
    second = json.loads((out / 'tune.json').read_text())
    assert second['trials'] + second['stopped'] == 3
    assert second['auc']['default'] == first['auc']['default'] <= second['auc']['best']
    config = options.tracker_config(cli.parse(['eval', str(root), '--config', str(out / 'tuned.yaml')]))
    assert (config.alpha, config.num_proposals) == (second['best']['alpha'], second['best']['num_proposals'])
    assert config.init_positives == 20  # what the search started from stays
    assert cli.main([*command[:3], 'alpha', *command[4:]]) == 2
    assert 'give another --output' in capsys.readouterr().err


def test_rendered_clips_are_made_once(tmp_path):
    clips = search.rendered_clips(tmp_path, 2, 2, 5)
    assert [clip.name for clip in clips] == ['rendered/seed5-2', 'rendered/seed6-2']
    times = [path.stat().st_mtime_ns for clip in clips for path in clip.images]
    again = search.rendered_clips(tmp_path, 2, 2, 5)
    assert times == [path.stat().st_mtime_ns for clip in again for path in clip.images] and len(times) == 4


def test_bad_trials_stop_early_and_the_best_value_is_found(monkeypatch, tmp_path):
    names = [f'set/{i}' for i in range(8)]
    sequences = constructed(monkeypatch, names, lambda config, i: 0.6 + 0.04 * i - abs(config.beta - 0.3))
    study = searched(tmp_path, sequences, ('beta',), 25)
    stopped = [trial for trial in study.trials if trial.state is optuna.trial.TrialState.PRUNED]
    assert stopped and all(4 <= len(trial.intermediate_values) < 8 for trial in stopped)
    assert study.trials[0].params == {'beta': 0.8} and study.trials[0].state is optuna.trial.TrialState.COMPLETE
    figures = search.summarize(study, sequences, 0)
    assert figures['best']['beta'] == pytest.approx(0.3, abs=0.1)
    assert figures['gain']['low'] == pytest.approx(0.5 - abs(figures['best']['beta'] - 0.3))  # the same everywhere
    assert 'better' in search.table(figures)


def test_processes_share_a_study_and_draw_different_values(monkeypatch, tmp_path):
    sequences = constructed(monkeypatch, ['a', 'b'], lambda config, i: config.beta)
    searched(tmp_path, sequences, ('beta',), 3)
    study = searched(tmp_path, sequences, ('beta',), 6)
    values = [trial.params['beta'] for trial in study.trials]
    assert len(values) == 6 == len(set(values))


def test_no_result_before_the_default_is_measured(monkeypatch, tmp_path):
    sequences = constructed(monkeypatch, ['a', 'b'], lambda config, i: config.beta)
    study = searched(tmp_path, sequences, ('beta',), 0)
    study.add_trial(optuna.create_trial(value=0.5, params={'beta': 0.5}, intermediate_values={0: 0.5, 1: 0.5},
                                        distributions={'beta': optuna.distributions.FloatDistribution(0, 1)}))
    with pytest.raises(ValueError, match='another process'):
        search.summarize(study, sequences, 0)


def test_values_that_exclude_each_other_are_left_out(monkeypatch, tmp_path):
    sequences = constructed(monkeypatch, ['a', 'b'], lambda config, i: 0.5)
    study = searched(tmp_path, sequences, ('lost_score', 'uncertain_score'), 12)
    for trial in study.trials:
        lost, uncertain, tracking = *trial.params.values(), TrackerConfig().tracking_score
        assert (trial.state is optuna.trial.TrialState.COMPLETE) == (lost <= uncertain <= tracking)
    assert any(trial.state is optuna.trial.TrialState.PRUNED for trial in study.trials)
    assert 'noise' in search.table(search.summarize(study, sequences, 0))


def test_ranges_hold_the_starting_value_and_only_numbers_are_searched():
    ranges = search.choose_ranges(('scale_penalty', 'long_memory'), TrackerConfig(scale_penalty=0.9))
    assert ranges['scale_penalty'].high == 0.9 and ranges['long_memory'] == (1, 1000, True)
    for name in ('weights', 'seed', 'alhpa'):
        with pytest.raises(ValueError, match=name):
            search.choose_ranges((name,), TrackerConfig())


def test_tuned_file_leaves_out_the_machine_and_the_defaults(tmp_path):
    path = tmp_path / 'tuned.yaml'
    search.write_config(path, TrackerConfig(beta=0.7, threads=3), 'two\nlines')
    assert path.read_text().startswith('# two\n# lines\n') and yaml.safe_load(path.read_text()) == {'beta': 0.7}


def test_held_out_scores_by_hand():
    # on sequences 0 and 1 trial 1 is best, on 0 and 2 trial 0, on 1 and 2 trial 2
    scores = np.array([[0.8, 0.1, 0.8], [0.7, 0.9, 0.0], [0.1, 0.5, 0.9]])
    assert search.held_out_scores(scores).tolist() == [0.1, 0.1, 0.0]


def test_paired_interval_and_verdict():
    # two differences, 0 and 1: the mean of a resample is 0, 0.5 or 1 with chances 1/4, 1/2, 1/4
    assert paired_difference([1, 3], [1, 2])[:] == (0.5, 0, 1)
    assert paired_difference([1, 3], [1, 2]).verdict == 'noise'
    spread = np.linspace(-0.2, 0.2, 9)
    assert paired_difference(0.5 + spread, np.full(9, 0.5)).verdict == 'noise'
    assert paired_difference(0.5 + spread, 0.2 + spread).verdict == 'better'
    assert paired_difference(0.2 + spread, 0.5 + spread).verdict == 'worse'
    alone = paired_difference([0.9], [0.1])
    assert alone.low is None and alone.verdict == 'noise' and 'no interval' in str(alone)
