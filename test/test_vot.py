"""VOT's reset-based experiment: the run; its figures by hand, by brute force, as published, as in the VOT toolkit."""
from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import cv2
import numpy as np
import pytest

from cract_core import cli
from cract_core.evaluation import vot
from cract_core.evaluation.benchmarks import polygon, read_benchmark
from cract_core.evaluation.sequences import Sequence
from cract_core.evaluation.vot import FAILURE, SKIPPED, START
from cract_core.tracker import State

# accuracy, robustness (failures per 100 frames), EAO. DaSiamRPN: VOT2018 report; the others: NanoTrack's page
PUBLISHED = {
    'DaSiamRPN': (0.586, 0.276, 0.383), 'LightTrack': (None, None, 0.418), 'NanoTrack': (None, None, 0.311),
    'SiamAPN': (None, None, 0.248), 'SiamAPN++': (None, None, 0.268), 'SiamTPN': (None, None, 0.191)}


def test_overlap_of_boxes_counts_their_pixels():
    def filled(box):
        mask = np.zeros((40, 50), np.uint8)
        cv2.rectangle(mask, box[:2], (box[0] + box[2], box[1] + box[3]), 1, -1)     # both ends included
        return mask.astype(bool)
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = ([int(value) for value in (*rng.integers(-5, 30, 2), *rng.integers(1, 30, 2))] for _ in range(2))
        one, other = filled(a), filled(b)
        expected = (one & other).sum() / (one | other).sum() if (one | other).any() else 0
        assert vot.region_overlap(np.array(a, float), np.array(b, float), (50, 40)) == pytest.approx(expected)


def test_overlap_of_polygons_is_near_that_of_their_areas():
    rng = np.random.default_rng(1)
    for _ in range(30):
        parts = [cv2.boxPoints(((rng.uniform(300, 500), rng.uniform(300, 500)), tuple(rng.uniform(150, 300, 2)),
                                rng.uniform(0, 90))) for _ in range(2)]
        both = cv2.intersectConvexConvex(*parts)[0]
        exact = both / (cv2.contourArea(parts[0]) + cv2.contourArea(parts[1]) - both)
        assert vot.region_overlap(*parts, (800, 800)) == pytest.approx(exact, abs=0.01)
    assert vot.region_overlap(polygon([0, 0, 5, 5]), polygon([100, 0, 5, 5]), (800, 800)) == 0
    assert vot.region_overlap(polygon([-9, -9, 5, 5]), polygon([-9, -9, 5, 5]), (800, 800)) == 0    # not in the frame


class Scripted:
    """Stays on its box and loses it in the updates whose count since the start is in `lose`."""

    def __init__(self, lose):
        self.lose, self.starts = lose, []

    def init(self, frame, box):
        self.box, self.count = np.array(box), 0
        self.starts.append(int(frame[0, 0, 0]))

    def update(self, frame):
        self.count += 1
        box = self.box + (500, 0, 0, 0) if self.count in self.lose else self.box
        return type('Answer', (), dict(box=box, score=0.5, state=State.TRACKING))


class Clip(Sequence):
    def frames(self):
        for i in range(len(self.truth)):
            yield np.full((40, 60, 3), i, np.uint8)


def test_a_failure_is_followed_by_a_start_five_frames_later():
    truth = np.tile([10.0, 10, 20, 20], (20, 1))
    tracker, ticks = Scripted(lose=(3,)), []
    run = vot.run_reset(tracker, Clip('clip', (), truth), lambda: ticks.append(1))
    codes = [entry if np.ndim(entry) == 0 else 'box' for entry in run.trajectory]
    assert codes[:9] == [START, 'box', 'box', FAILURE, SKIPPED, SKIPPED, SKIPPED, SKIPPED, START]
    assert codes[9:] == ['box', 'box', FAILURE] + [SKIPPED] * 4 + [START, 'box', 'box', FAILURE]
    assert tracker.starts == [0, 8, 16] and vot.failures(run.trajectory) == [3, 11, 19] and len(ticks) == 20
    assert len(run.init_seconds) == 3 and len(run.seconds) == 9 and np.nanmin(run.overlaps) == 1
    assert vot.robustness([run.trajectory]) == 15
    truth[8:10] = np.nan                        # nowhere to start: at the next frame with the target
    run = vot.run_reset(tracker := Scripted(lose=(3,)), Clip('clip', (), truth))
    assert run.trajectory[8:11] == [SKIPPED, SKIPPED, START]
    assert tracker.starts[:2] == [0, 10]


def test_a_run_is_judged_by_the_polygons_and_started_on_the_box():
    corners = np.array([[30.0, 0], [40, 20], [30, 40], [20, 20]])
    sequence = Clip('clip', (), np.tile([20.0, 0, 20, 39], (4, 1)), regions=(corners,) * 4)
    run = vot.run_reset(Scripted(()), sequence)
    assert run.overlaps[1:] == pytest.approx(0.5, abs=0.04) and (run.trajectory[1] == sequence.truth[0]).all()


def random_trajectories(count, seed):
    rng = np.random.default_rng(seed)
    trajectories, overlaps = [], []
    for _ in range(count):
        entries, values = [], []
        length = int(rng.integers(15, 60))
        while len(entries) < length:
            lives = int(rng.integers(1, 40))
            entries += [START] + [np.ones(4)] * lives + [FAILURE] + [SKIPPED] * 4
            values += [np.nan, *rng.uniform(0.1, 1, lives), np.nan] + [np.nan] * 4
        trajectories.append(entries[:length])
        overlaps.append(np.array(values[:length]))
    return trajectories, overlaps


def test_accuracy_leaves_out_ten_frames_from_each_start():
    trajectory = [START] + [np.ones(4)] * 12 + [FAILURE] + [SKIPPED] * 4 + [START] + [np.ones(4)] * 11
    overlap = np.array([np.nan] + [0.1] * 9 + [0.5] * 3 + [np.nan] * 6 + [0.1] * 9 + [0.8, 0.9])
    assert vot.accuracy([trajectory], [overlap]) == pytest.approx((3 * 0.5 + 0.8 + 0.9) / 5)
    assert vot.accuracy([trajectory[:8]], [overlap[:8]]) is None


def test_expected_overlap_equals_its_definition_worked_out_frame_by_frame():
    trajectories, overlaps = random_trajectories(8, seed=3)
    longest = max(map(len, trajectories))
    curve = vot.expected_overlap(trajectories, overlaps)
    for length in range(2, longest + 1):
        means = []
        for trajectory, overlap in zip(trajectories, overlaps):
            starts = [i for i, entry in enumerate(trajectory) if np.ndim(entry) == 0 and entry == START]
            for start in starts:
                rest = trajectory[start + 1:]
                stop = next((i for i, entry in enumerate(rest) if np.ndim(entry) == 0 and entry == FAILURE), None)
                values = list(overlap[start + 1:]) if stop is None else list(overlap[start + 1:start + 1 + stop])
                restarted = stop is not None and start + 1 + stop + vot.GAP <= len(trajectory)
                if stop is not None:            # a failure goes on with 0: for ever, or at the clip's end until there
                    values += [0] * (longest if restarted else len(rest) - len(values))
                if len(values) >= length - 1:
                    means.append(np.mean(values[:length - 1]))
        assert curve[length - 1] == pytest.approx(np.mean(means) if means else np.nan, nan_ok=True)
    assert vot.eao(trajectories, overlaps, (10, 20)) == pytest.approx(curve[9:20].mean())
    assert vot.eao(trajectories, overlaps) is None      # no clip has 100 frames


def read_published(folder, tracker):
    truth = json.loads((folder / 'VOT2018.json').read_text())
    archive = folder / ('DaSiamRPN.zip' if tracker == 'DaSiamRPN' else 'others.zip')
    with zipfile.ZipFile(archive) as results:
        for name, one in truth.items():
            yield name, one, results.read(f'VOT2018/{tracker}/baseline/{name}/{name}_001.txt').decode()


@pytest.mark.parametrize('tracker', PUBLISHED)
def test_figures_equal_the_published_ones(cract_data, tmp_path, tracker):
    trajectories, overlaps = [], []
    for name, one, text in read_published(cract_data / 'metrics' / 'vot2018', tracker):
        (tmp_path / 'result.txt').write_text(text)
        trajectories.append(vot.read_trajectory(tmp_path / 'result.txt'))
        overlaps.append(vot.trajectory_overlaps(trajectories[-1], [polygon(values) for values in one['gt_rect']],
                                                (one['width'], one['height'])))
    assert len(trajectories) == 60 and sum(map(len, trajectories)) == 21356
    accuracy, robustness, eao = PUBLISHED[tracker]
    assert vot.eao(trajectories, overlaps) == pytest.approx(eao, abs=0.005)
    if accuracy is not None:
        assert vot.accuracy(trajectories, overlaps) == pytest.approx(accuracy, abs=0.001)
        assert vot.robustness(trajectories) == pytest.approx(robustness, abs=0.001)
        assert vot.eao(trajectories, overlaps) == pytest.approx(eao, abs=0.001)


def test_overlaps_are_near_those_of_the_official_toolkit(cract_data, tmp_path):
    region = pytest.importorskip('vot.region', reason='needs the VOT toolkit: pip install "vot-toolkit<0.8"')
    io = pytest.importorskip('vot.region.io')
    differences = []
    for name, one, text in read_published(cract_data / 'metrics' / 'vot2018', 'DaSiamRPN'):
        if name not in ('ants1', 'bolt1', 'conduction1', 'racing', 'zebrafish1'):
            continue
        (tmp_path / 'result.txt').write_text(text)
        trajectory, size = vot.read_trajectory(tmp_path / 'result.txt'), (one['width'], one['height'])
        ours = vot.trajectory_overlaps(trajectory, [polygon(values) for values in one['gt_rect']], size)
        theirs = np.array(region.calculate_overlaps(
            [io.parse_region(line) for line in text.split()],
            [io.parse_region(','.join(map(str, values))) for values in one['gt_rect']], size))
        differences.append((ours - theirs)[~np.isnan(ours)])
    differences = np.concatenate(differences)
    assert abs(differences.mean()) < 0.005 and abs(differences).mean() < 0.02


def write_clip(folder, count):
    """A textured square over noise, as a sequence of VOT-2018 whose truth is a polygon."""
    (folder / 'color').mkdir(parents=True)
    rng = np.random.default_rng(1)
    patch = rng.integers(90, 255, (24, 24, 3)).astype(np.uint8)
    ground = rng.integers(0, 50, (120, 160, 3)).astype(np.uint8)
    lines = []
    for i in range(count):
        frame, left = ground.copy(), 20 + 2 * i if i < 12 else 130      # it jumps, and the tracker fails
        frame[40:64, left:left + 24] = patch
        cv2.imwrite(str(folder / 'color' / f'{i + 1:08d}.jpg'), frame)
        lines.append(f'{left},40,{left + 24},40,{left + 24},64,{left},64')
    (folder / 'groundtruth.txt').write_text('\n'.join(lines) + '\n')
    (folder.parent / 'list.txt').write_text(folder.name + '\n')


def test_the_command_measures_with_resets(tmp_path, capsys):
    write_clip(tmp_path / 'data' / 'jump', 40)
    path = tmp_path / 'figures.json'
    assert cli.main(['eval', str(tmp_path / 'data'), '--benchmark', 'vot2018', '--tracker', 'kcf,csrt',
                     '--threads', '1', '--results', str(tmp_path / 'out'), '--json', str(path)]) == 0
    report = json.loads(path.read_text())
    assert report['protocol'] == 'reset' and report['tracker'] == 'kcf' and report['peers'][0]['tracker'] == 'csrt'
    assert report['mean']['failures'] == 1 and report['mean']['robustness'] == 2.5
    trajectory = vot.read_trajectory(tmp_path / 'out' / 'kcf' / 'baseline' / 'jump' / 'jump_001.txt')
    assert vot.failures(trajectory) == [12] and trajectory[13:18] == [SKIPPED] * 4 + [START]
    sequence, = read_benchmark('vot2018', tmp_path / 'data')
    overlaps = vot.trajectory_overlaps(trajectory, sequence.regions, (160, 120))
    assert report['mean']['accuracy'] == pytest.approx(vot.accuracy([trajectory], [overlaps]))
    assert report['mean']['accuracy'] > 0.7
    output = capsys.readouterr().out
    assert '1 of the 60 sequences of VOT-2018' in output and 'robustness' in output
    assert cli.main(['eval', str(tmp_path / 'data'), '--benchmark', 'vot2018', '--tracker', 'kcf', '--jobs', '2']) == 2
    assert 'the protocol reset does not go together with --jobs' in capsys.readouterr().err


def test_the_official_toolkits_protocol_drives_a_tracker(tmp_path):
    trax = pytest.importorskip('trax', reason='needs TraX: pip install "cract_ros[vot]"')
    from trax.client import Client
    write_clip(tmp_path / 'jump', 12)
    process = subprocess.Popen([sys.executable, '-m', 'cract_core.evaluation.vot_adapter', '--tracker', 'csrt',
                                '--threads', '1'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        client = Client((process.stdin.fileno(), process.stdout.fileno()), log=lambda text: None)
        assert client.tracker_name == 'csrt' and set(client.region_formats) == {'rectangle', 'polygon'}
        images = [{'color': trax.FileImage.create(str(path))}
                  for path in sorted((tmp_path / 'jump' / 'color').iterdir())]
        corners = [(20, 40), (44, 40), (44, 64), (20, 64)]
        client.initialize(images[0], [(trax.Polygon.create(corners), {})], {})
        for i, image in enumerate(images[1:], 1):
            (region, properties), = client.frame(image, {}, [])[0]
            assert region.bounds()[0] == pytest.approx(20 + 2 * i, abs=4) and float(properties['confidence']) == 1
        client.quit()
        assert process.wait(20) == 0
    finally:
        process.kill()


def test_the_adapter_without_trax_is_one_sentence(monkeypatch, capsys):
    from cract_core.evaluation import vot_adapter
    monkeypatch.setitem(sys.modules, 'trax', None)
    assert vot_adapter.main([]) == 2
    assert capsys.readouterr().err == 'the VOT toolkit speaks TraX: pip install "cract_ros[vot]"\n'
