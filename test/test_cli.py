"""The command line: what it prints, writes and refuses."""
from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from cract_core import cli, options
from cract_core.commands import COMMANDS
from cract_core.config import TrackerConfig
from cract_core.evaluation.sequences import read_boxes, read_folders

QUICK = ['--init-positives', '20', '--init-negatives', '40', '--init-iterations', '1', '--num-proposals', '3',
         '--device', 'cpu']


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Untrained networks: the command line does not care how well they track."""
    from cract_core.model import CractModel, save_weights
    path = tmp_path_factory.mktemp('weights') / 'untrained.pt'
    save_weights(CractModel(), path)
    return str(path)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Two short rendered sequences; the target is absent in one frame of the second."""
    root = tmp_path_factory.mktemp('root')
    for name, seed in (('first', 0), ('second', 1)):
        assert cli.main(['synth', str(root / 'made' / name), '--frames', '6', '--seed', str(seed),
                         '--size', '320x240']) == 0
    path = root / 'made' / 'second' / 'groundtruth.txt'
    lines = path.read_text().splitlines()
    path.write_text('\n'.join(lines[:3] + ['nan,nan,nan,nan'] + lines[4:]) + '\n')
    return root


def refused(capsys, *arguments):
    """Run, expect exit status 2, return the sentence on stderr."""
    assert cli.main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and 'Traceback' not in error
    return error


def run_help(*arguments):
    return subprocess.run([sys.executable, '-m', 'cract_core.cli', *arguments, '--help'], capture_output=True,
                          text=True, check=True).stdout


def test_help_is_a_manual_and_loads_no_torch():
    text = run_help()
    for command in COMMANDS:
        assert f'\n    {command}  ' in text
    assert 'examples:' in text and 'Exit status' in text
    loaded = subprocess.run([sys.executable, '-c', 'import sys, cract_core.cli as cli\n'
                             'try: cli.main(["--help"])\n'
                             'except SystemExit: print("LOADED", "torch" in sys.modules, "cv2" in sys.modules)'],
                            capture_output=True, text=True, check=True).stdout
    assert 'LOADED False False' in loaded


@pytest.mark.parametrize('command', COMMANDS)
def test_every_command_explains_itself(command):
    assert f'usage: cract {command}' in run_help(command)


def test_every_parameter_is_an_option_and_a_row_of_the_table(capsys):
    help_text = ' '.join(run_help('track').split())
    assert cli.main(['params']) == 0
    table = capsys.readouterr().out.splitlines()
    fields = dataclasses.fields(TrackerConfig)
    assert len(table) == 2 + len(fields) and len({row.count('|') for row in table}) == 1
    for field, row in zip(fields, table[2:]):
        assert '--' + field.name.replace('_', '-') in help_text
        assert row.startswith(f'| `{field.name}` |') and field.metadata['text'] in row


def parsed(*arguments):
    return options.tracker_config(cli.parse(['track', 'x', '--box', '1,2,3,4', *arguments]))


def test_options_win_over_the_file_and_the_file_over_the_defaults(tmp_path):
    assert parsed() == TrackerConfig()
    path = tmp_path / 'tracker.yaml'
    path.write_text('alpha: 0.7\nnum_proposals: 5\ntracking_score: 1\n')
    assert parsed('--config', str(path), '--num-proposals', '6') == TrackerConfig(
        alpha=0.7, num_proposals=6, tracking_score=1.0)
    path.write_text('')
    assert parsed('--config', str(path)) == TrackerConfig()


def test_track_writes_boxes_and_video_of_every_frame(root, weights, tmp_path, capsys):
    clip = root / 'made' / 'first'
    box = read_boxes(clip / 'groundtruth.txt')[0]
    video, results = tmp_path / 'out.mp4', tmp_path / 'out.txt'
    assert cli.main(['track', str(clip / 'img'), '--box', ','.join(map(str, box)), '--output', str(video),
                     '--results', str(results), '--weights', weights, *QUICK]) == 0
    boxes = read_boxes(results)
    assert boxes.shape == (6, 4) and boxes[0] == pytest.approx(box, abs=1e-4)
    capture = cv2.VideoCapture(str(video))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    assert len(frames) == 6 and frames[0].shape == (240, 320, 3)
    x, y, w, h = box.astype(int)
    assert frames[0][y + h // 2, x].astype(int)[1] > frames[0][y + h // 2, x].astype(int)[2] + 40  # a green edge
    output = capsys.readouterr().out
    assert output.startswith('6 frames on cpu, first frame ') and 'fps, latency p50' in output and 'lost in' in output

    # the video that came out is a source as well, and --scores adds two columns
    assert cli.main(['track', str(video), '--box', '100,100,40,30', '--results', str(results), '--scores',
                     '--frames', '3', '--weights', weights, *QUICK]) == 0
    rows = [line.split(',') for line in results.read_text().splitlines()]
    assert len(rows) == 3 and rows[0] == ['100.0000', '100.0000', '40.0000', '30.0000', '1.0000', 'tracking']
    assert all(0 <= float(row[4]) <= 1 and row[5] in ('tracking', 'uncertain', 'lost') for row in rows)


def test_eval_reports_what_the_boxes_say(root, tmp_path, capsys):
    path = tmp_path / 'figures.json'
    assert cli.main(['eval', str(root), '--tracker', 'kcf', '--json', str(path), '--results', str(tmp_path / 'boxes'),
                     '--threads', '1']) == 0
    report = json.loads(path.read_text())
    assert set(report['sequences']) == {'made/first', 'made/second'}
    assert report['tracker'] == 'kcf' and report['config']['threads'] == report['environment']['opencv_threads'] == 1
    for sequence in read_folders(root):
        figures = report['sequences'][sequence.name]
        boxes = read_boxes(tmp_path / 'boxes' / f'{sequence.name}.txt')
        curves, near = [], []
        for (x, y, w, h), truth in zip(boxes, sequence.truth):
            if np.isnan(truth).any():
                continue
            shared = (max(0, min(x + w, truth[0] + truth[2]) - max(x, truth[0]))
                      * max(0, min(y + h, truth[1] + truth[3]) - max(y, truth[1])))
            overlap = shared / (w * h + truth[2] * truth[3] - shared)
            curves.append(sum(overlap > k / 20 for k in range(21)) / 21)
            near.append(np.hypot(x + w / 2 - truth[0] - truth[2] / 2, y + h / 2 - truth[1] - truth[3] / 2) <= 20)
        assert len(curves) == (6 if sequence.name == 'made/first' else 5)
        assert figures['auc'] == pytest.approx(np.mean(curves), abs=1 / 21 / len(curves))
        assert figures['precision'] == pytest.approx(np.mean(near))
        assert 0 < figures['p50_ms'] <= figures['p95_ms']
    for key in ('auc', 'precision'):
        assert report['mean'][key] == pytest.approx(np.mean([one[key] for one in report['sequences'].values()]))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ['sequence', 'made/first', 'made/second', 'mean']
    assert f'{report["mean"]["auc"]:.4f}' in lines[-1]


def test_several_trackers_stand_side_by_side(root, tmp_path, capsys):
    path = tmp_path / 'figures.json'
    assert cli.main(['eval', str(root), '--tracker', 'kcf,mil', '--threads', '1', '--json', str(path),
                     '--results', str(tmp_path / 'boxes')]) == 0
    report = json.loads(path.read_text())
    output = capsys.readouterr().out
    names = [line.split()[:2] for line in output.splitlines() if line.startswith('made/')]
    assert names[:4] == [['made/first', 'kcf'], ['made/first', 'mil'], ['made/second', 'kcf'], ['made/second', 'mil']]
    table = output[output.index('\nAUC'):].split('\n')
    assert table[1].split() == ['AUC', 'kcf', 'mil']
    for line, name in zip(table[2:4], ('made/first', 'made/second')):
        assert line.split() == [name, *(f'{block["sequences"][name]["auc"]:.4f}'
                                        for block in (report, *report['peers']))]
    assert (tmp_path / 'boxes' / 'mil' / 'made' / 'second.txt').is_file()


def test_eval_runs_our_tracker_the_same_way_twice(root, weights, tmp_path):
    boxes = []
    for attempt in ('a', 'b'):
        path = tmp_path / f'{attempt}.json'
        assert cli.main(['eval', str(root), '--only', 'first', '--json', str(path),
                         '--results', str(tmp_path / attempt), '--weights', weights, *QUICK]) == 0
        boxes.append(read_boxes(tmp_path / attempt / 'made' / 'first.txt'))
        report = json.loads(path.read_text())
        assert report['device'] == 'cpu' and report['config']['num_proposals'] == 3
        assert set(report['sequences']) == {'made/first'} and report['mean']['sequences'] == 1
    assert (boxes[0] == boxes[1]).all()


def test_synth_writes_a_clip_with_its_annotation_and_never_over_another(tmp_path, capsys):
    out = tmp_path / 'clip'
    assert cli.main(['synth', str(out), '--frames', '2', '--seed', '5', '--size', '160x120']) == 0
    assert len(list((out / 'img').glob('*.jpg'))) == 2 and read_boxes(out / 'groundtruth.txt').shape == (2, 4)
    capsys.readouterr()
    assert 'is not empty' in refused(capsys, 'synth', out, '--frames', 2)


@pytest.mark.parametrize('arguments, message', [
    (['track', 'nothing.mp4', '--box', '1,2,3,4'], 'no source nothing.mp4: expected a video file'),
    (['track', '.', '--box', '1,2,3,4', '--alpha', '2'], 'alpha must be between 0.0 and 1.0, got 2.0'),
    (['track', '.', '--box', '1,2,3,4', '--scores'], 'give --results too'),
    (['track', '.', '--box', '1,2,3,4', '--config', 'nothing.yaml'], 'nothing.yaml: No such file'),
    (['eval', 'nothing'], 'no folder nothing: expected sequences as ROOT/<set>/<sequence>'),
    (['eval', '.', '--tracker', 'nano'], 'nano needs the file nanotrack_v2_backbone.onnx: give its folder with --peers'),
    (['eval', '.', '--tracker', 'nano', '--peers', 'nothing'], 'no file nothing'),
    (['eval', '.', '--tracker', 'kcf', '--alpha', '0.5'], '--alpha sets up the tracker cract and means nothing to kcf'),
    (['eval', '.', '--peers', 'nothing'], '--peers holds the networks of nano, nano3, lighttrack, fear, vit: give one'),
    (['eval', '.', '--nano-head', 'nothing'], 'give --tracker nano too'),
    (['eval', '.', '--tracker', 'lighttrack', '--peers', 'nothing'], 'lighttrack_z_feature.xml: no file nothing'),
])
def test_wrong_input_is_one_sentence_and_status_2(capsys, weights, arguments, message):
    if arguments[:2] == ['eval', 'nothing']:
        arguments = [*arguments, '--weights', weights]
    assert message in refused(capsys, *arguments)


def test_wrong_parameter_files_are_refused(tmp_path, capsys):
    path = tmp_path / 'tracker.yaml'
    for content, message in (('alfa: 1', "unknown parameter 'alfa'"), ('[1, 2]', 'expected a mapping'),
                             ('a: [', 'is not YAML'), ('alpha: high', 'alpha must be of type float')):
        path.write_text(content)
        assert message in refused(capsys, 'track', '.', '--box', '1,2,3,4', '--config', path)


def test_a_box_outside_of_the_frame_is_refused(root, weights, capsys):
    assert 'box' in refused(capsys, 'track', root / 'made' / 'first' / 'img', '--box', '5000,5000,20,20',
                            '--weights', weights, *QUICK)


@pytest.mark.parametrize('arguments', [['track', 'x', '--box', '1,2,3'], ['track', 'x', '--box', '1,2,0,4'],
                                       ['track', 'x', '--box', '1,2,nan,4'], ['track', 'x'],
                                       ['eval', 'x', '--limit', '0'], ['eval', 'x', '--every', '0'],
                                       ['eval', 'x', '--repeat', '2', '--repeat-to', '9'], ['eval', 'x', '--only', 'a,,b'],
                                       ['eval', 'x', '--tracker', 'best'], ['synth', 'x', '--size', '640'], []])
def test_wrong_words_are_explained_with_the_usage(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2 and 'usage: cract' in capsys.readouterr().err


def test_traceback_shows_where_an_error_arose():
    with pytest.raises(FileNotFoundError):
        cli.main(['--traceback', 'track', 'nothing.mp4', '--box', '1,2,3,4'])


@pytest.mark.parametrize('command, package', [(['train', 'x.yaml'], 'torch'), (['export', 'out'], 'torch'),
                                              (['ablate', 'proposals', '.'], 'torch'), (['track', '.', '--box', '1,1,9,9'], 'cv2')])
def test_a_package_that_is_missing_is_one_sentence(command, package, tmp_path):
    (tmp_path / 'x.yaml').write_text('data: .\n')
    code = f'import sys; sys.modules[{package!r}] = None\nfrom cract_core import cli\nsys.exit(cli.main({command!r}))'
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr == f'cract {command[0]}: this needs the package {package}, which is not installed\n'


def test_the_help_says_whether_the_node_is_installed():
    for missing in (['rclpy'], ['cract_ros'], []):
        code = ('import importlib.util as u, sys\nfound = u.find_spec\n'
                f'u.find_spec = lambda name: None if name in {missing} else found(name)\n'
                'from cract_core import cli\ncli.main(["--help"])')
        done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
        assert ('The ROS 2 node is not installed' in done.stdout) == (bool(missing) or not options.node_installed())
