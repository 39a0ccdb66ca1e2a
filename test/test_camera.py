"""The camera protocol: the truth of a moved camera, what the figures say, the command line and the report."""
from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from cract_core import cli
from cract_core.evaluation import against, camera
from cract_core.evaluation.protocols import paired_difference
from cract_core.evaluation.runner import Run
from cract_core.evaluation.sequences import Sequence, read_folders, write_boxes

RED = (20, 20, 230)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """A red ellipse that drifts over gray noise."""
    folder = tmp_path_factory.mktemp('root') / 'made' / 'disc'
    (folder / 'img').mkdir(parents=True)
    ground = np.random.default_rng(0).integers(60, 120, (120, 200, 1)).astype(np.uint8).repeat(3, 2)
    boxes = []
    for i in range(20):
        frame = ground.copy()
        cv2.ellipse(frame, ((80.0 + i, 60.0), (36, 20), 0), RED, -1)
        boxes.append(red_box(frame))
        cv2.imwrite(str(folder / 'img' / f'{i:03d}.png'), frame)
    write_boxes(folder / 'groundtruth.txt', np.array(boxes))
    return folder.parent.parent


@pytest.fixture(scope='module')
def disc(root) -> Sequence:
    return read_folders(root)[0]


def red_box(frame) -> np.ndarray:
    """x, y, w, h of what is red, found in the pixels."""
    rows, columns = np.nonzero(frame[..., 2].astype(int) - frame[..., 1] > 105)
    x, y = columns.min(), rows.min()
    return np.array([x, y, columns.max() + 1 - x, rows.max() + 1 - y], float)


@pytest.mark.parametrize('case', [case for case in camera.CASES if case not in ('dark', 'jpeg', 'blur')])
def test_the_truth_is_where_the_pixels_are(disc, case):
    moved = camera.move(disc, case, 40, seed=1)
    pictures = list(moved.frames())
    assert len(pictures) == len(moved.truth) == 40
    for picture, truth, size in zip(pictures, moved.truth, moved.sizes):
        assert picture.shape[1::-1] == tuple(size)
        found, wanted = (np.concatenate([box[:2], box[:2] + box[2:]]) for box in (red_box(picture), truth))
        assert np.abs(found - wanted).max() < 1.2 * max(1, size[0] / 200)  # the sides, to a pixel of the clip


@pytest.mark.parametrize('case', ['dark', 'jpeg', 'blur'])
def test_a_spoiled_picture_shows_the_same_place(disc, case):
    base, spoiled = camera.move(disc, 'base', 12), camera.move(disc, case, 12)
    assert np.array_equal(base.truth, spoiled.truth)
    clean, picture = next(base.frames()), next(spoiled.frames())
    assert clean.shape == picture.shape and np.abs(clean.astype(int) - picture).mean() > 1
    if case == 'dark':
        assert picture.mean() < 0.08 * clean.mean() + 1


@pytest.mark.parametrize('case, degrees', [('turn90', 90), ('turn180', 180), ('jump90', 90), ('jump180', 180)])
def test_a_turn_ends_at_its_angle(disc, case, degrees):
    warps = camera.move(disc, case, 90).warps
    angle = np.degrees(np.unwrap(np.arctan2(warps[:, 1, 0], warps[:, 0, 0])))
    steps = np.abs(np.diff(angle))
    assert abs(angle[0]) < 1e-9 and abs(angle[-1]) == pytest.approx(degrees)
    assert steps.max() == pytest.approx(degrees if case.startswith('jump') else degrees / 60)


@pytest.mark.parametrize('case, sizes', [('shake50', 0.5), ('shake100', 1.0), ('shake150', 1.5)])
def test_every_step_of_a_shake_has_its_length(disc, case, sizes):
    moved, still = camera.move(disc, case, 30), camera.move(disc, 'base', 30)
    shift = moved.warps[:, :, 2] - still.warps[:, :, 2]
    steps = np.linalg.norm(np.diff(shift, axis=0), axis=1)
    assert steps == pytest.approx(sizes * moved.target_size)


def test_a_zoom_goes_to_four_times_the_size_and_back(disc):
    scale = camera.move(disc, 'zoom', 90).warps[:, 0, 0]
    assert scale.max() / scale[0] == pytest.approx(4, rel=0.02) and scale[-1] == pytest.approx(scale[0])


@pytest.mark.parametrize('step', [2, 3, 5])
def test_a_slower_camera_skips_frames(disc, step):
    names = [int(path.stem) for path in camera.move(disc, f'every{step}', 40).images]
    assert names[:3] == [0, step, 2 * step] and len(set(names)) > 2


def test_the_same_seed_gives_the_same_pictures(disc):
    once, again, other = (camera.move(disc, 'blur', 5, seed) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(once.frames(), again.frames()))
    assert not all(np.array_equal(a, b) for a, b in zip(once.frames(), other.frames()))


def test_a_polygon_is_turned_where_there_is_one():
    square = np.array([[10, 10], [30, 10], [30, 30], [10, 30.0]])
    turn = camera._warps(np.full((1, 2), 20.0), np.array([np.pi / 4]), np.ones(1), np.zeros((1, 2)))[0]
    box = np.array([10, 10, 20, 20.0])
    side = 20 * 2 ** 0.5
    assert camera.seen_box(box, square, turn, (60, 60)) == pytest.approx([20 - side / 2, 20 - side / 2, side, side])
    assert camera.seen_box(box, None, turn, (60, 60)) == pytest.approx([10, 10, 20, 20], abs=0.01)


def test_a_target_that_is_mostly_out_of_view_is_absent():
    shifted = np.array([[1, 0, -15.0], [0, 1, 0]])
    assert camera.seen_box(np.array([10, 10, 20, 20.0]), None, shifted, (60, 60)) == pytest.approx([0, 10, 15, 20], abs=0.01)
    assert np.isnan(camera.seen_box(np.array([4, 10, 20, 20.0]), None, shifted, (60, 60))).all()


def test_the_figures_of_a_run_are_counted_by_hand(disc):
    moved = camera.move(disc, 'jump90', 40)
    boxes, states = moved.truth.copy(), ['tracking'] * 40
    boxes[10:20] = (0, 0, 4, 4)         # off
    states[12:15] = ['lost'] * 3        # rightly
    states[30:33] = ['lost'] * 3        # wrongly
    run = Run(boxes, np.ones(40), tuple(states), 0.0, np.zeros(39))
    found = camera.figures([camera.judge(run, moved)])
    assert found['iou'] == pytest.approx(29 / 39) and found['last_fifth'] == found['after_15'] == 1
    assert found['lost'] == pytest.approx(3 / 29) and found['false_loss'] == pytest.approx(6 / 39)
    assert found['tremor'] is None


def test_tremor_is_the_step_of_the_centre_in_target_sizes():
    boxes = np.tile([10, 10, 40, 10.0], (31, 1))
    assert camera.tremor(boxes, boxes[0]) == 0
    boxes[1::2, 0] += 1                 # to and fro by a pixel, of a size of 20
    assert camera.tremor(boxes, boxes[0]) == pytest.approx(0.05)
    assert camera.tremor(boxes[:11], boxes[0]) is None


def test_it_runs_from_the_command_line_and_compares(root, tmp_path, capsys):
    pytest.importorskip('matplotlib')
    figures = tmp_path / 'figures.json'
    command = ['eval', str(root), '--tracker', 'kcf', '--protocol', 'camera', '--cases', 'still,base,jump90',
               '--frames', '24', '--threads', '1']
    assert cli.main([*command, '--json', str(figures), '--report', str(tmp_path / 'report')]) == 0
    block = json.loads(figures.read_text())
    assert list(block['camera']) == ['base', 'jump90', 'still']
    assert block['camera']['base']['iou'] > 0.6 and block['camera']['still']['tremor'] is not None
    assert 'jump90' in (tmp_path / 'report' / 'report.html').read_text()
    assert cli.main([*command, '--against', str(figures)]) == 0
    assert 'camera.jump90.iou' in capsys.readouterr().out
    assert cli.main([*command[:-4], '--frames', '30', '--threads', '1', '--against', str(figures)]) == 2
    assert 'give --frames 24' in capsys.readouterr().err


def test_an_unknown_case_is_refused(root, capsys):
    assert cli.main(['eval', str(root), '--tracker', 'kcf', '--protocol', 'camera', '--cases', 'spin']) == 2
    assert "no case 'spin'" in capsys.readouterr().err


@pytest.mark.parametrize('figure, better', [('camera.turn90.iou', 'better'), ('camera.turn90.lost', 'worse'),
                                            ('camera.still.tremor', 'worse')])
def test_of_losses_and_tremor_less_is_better(figure, better):
    assert against.verdict(figure, paired_difference([0.5, 0.6, 0.7], [0.1, 0.1, 0.2])) == better
