import numpy as np
import pytest
import yaml

from cract_core.cli import main
from cract_core.evaluation import absence
from cract_core.evaluation.calibration import fit
from cract_core.evaluation.sequences import write_rendered
from cract_core.tracker import probability


def test_the_curve_that_made_the_answers_is_found_again():
    random = np.random.default_rng(0)
    scores = [random.uniform(0, 1, 4000) for _ in range(5)]
    right = [random.uniform(size=4000) < 1 / (1 + np.exp(-(9 * x - 4))) for x in scores]
    slope, offset = fit(scores, right)
    assert slope == pytest.approx(9, rel=0.05) and offset == pytest.approx(-4, rel=0.05)
    x, y = np.concatenate(scores), np.concatenate(right)
    assert absence.calibration_error(probability(x, slope, offset), y) < 0.02 < absence.calibration_error(x, y)


def test_answers_of_one_kind_are_refused():
    with pytest.raises(ValueError, match='all are wrong'):
        fit([np.linspace(0, 1, 9)], [np.zeros(9, bool)])


def test_the_command_prints_parameters_that_a_config_file_takes(tmp_path, capsys):
    for seed in (1, 2):
        write_rendered(tmp_path / 'set' / f'clip{"ab"[seed - 1]}', 45, seed, (320, 240))
    assert main(['calibrate', str(tmp_path), '--splices', '1', '--rendered', '0', '--threads', '1']) == 0
    text = capsys.readouterr().out
    values = yaml.safe_load(text)
    assert set(values) == {'score_slope', 'score_offset'} and values['score_slope'] > 0 and 'AUROC' in text
