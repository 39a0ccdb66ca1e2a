"""Metrics against numbers worked out by hand, by counting pixels and as published; readers, peers, the run."""
from __future__ import annotations

import json
import re
import time

import cv2
import numpy as np
import pytest

from cract_core.evaluation import metrics, peers, runner, sequences
from cract_core.tracker import State


def test_overlap_of_boxes_worked_out_by_hand():
    result = [[5, 0, 10, 10], [0, 0, 10, 10], [20, 20, 5, 5], [2, 2, 5, 5], [3, 3, 0, 0]]
    truth = [[0, 0, 10, 10]] * 5
    assert metrics.overlaps(result, truth) == pytest.approx([1 / 3, 1, 0, 0.25, 0])


def test_overlap_equals_counted_pixels():
    rng = np.random.default_rng(0)
    boxes = np.concatenate([rng.integers(0, 20, (2, 60, 2)), rng.integers(1, 20, (2, 60, 2))], axis=2)
    expected = []
    for pair in boxes.transpose(1, 0, 2):
        a, b = np.zeros((2, 40, 40), bool)
        for mask, (x, y, w, h) in zip((a, b), pair):
            mask[y:y + h, x:x + w] = True
        expected.append((a & b).sum() / (a | b).sum())
    assert metrics.overlaps(*boxes) == pytest.approx(expected)


def test_success_is_strict_at_each_of_21_thresholds():
    curve = metrics.success_curve(np.array([0.0, 0.5, 1.0]))
    assert curve == pytest.approx([2 / 3] * 10 + [1 / 3] * 10 + [0])
    assert metrics.success_auc(np.array([0.0, 0.5, 1.0])) == pytest.approx(10 / 21)
    assert metrics.success_auc(np.ones(7)) == pytest.approx(20 / 21)


def test_precision_counts_an_error_of_exactly_20_pixels():
    result = [[20, 0, 10, 10], [20.01, 0, 10, 10], [12, 16, 10, 10], [0, 0, 50, 10]]
    errors = metrics.center_errors(result, [[0, 0, 10, 10]] * 4)
    assert errors == pytest.approx([20, 20.01, 20, 20])
    assert metrics.precision(errors) == 0.75


def test_frames_without_the_target_are_left_out():
    truth = [[0, 0, 10, 10], [np.nan] * 4, [0, 0, 10, 10]]
    result = [[0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 10, 10]]
    assert metrics.success_auc(metrics.overlaps(result, truth)) == pytest.approx(0.5 * 20 / 21)
    assert metrics.precision(metrics.center_errors(result, truth)) == 0.5
    with pytest.raises(ValueError, match='no frame with the target present'):
        metrics.success_auc(metrics.overlaps(result[:1], truth[1:2]))


def test_absent_frames_count_as_failures_where_the_benchmark_says_so():
    truth = [[0, 0, 10, 10], [np.nan] * 4, [0, 0, 10, 10], [0, 0, 10, 10]]
    overlap = metrics.overlaps([[0, 0, 10, 10]] * 4, truth)
    errors = metrics.center_errors([[0, 0, 10, 10]] * 4, truth)
    assert metrics.success_auc(overlap, absent_counts=True) == pytest.approx(0.75 * 20 / 21)
    assert metrics.precision(errors, absent_counts=True) == 0.75
    assert metrics.success_auc(overlap) == pytest.approx(20 / 21) and metrics.precision(errors) == 1


def test_normalized_precision_is_in_units_of_the_target():
    truth = [[0, 0, 40, 10]] * 4
    errors = metrics.normalized_errors([[8, 0, 40, 10], [0, 2, 40, 10], [0, 3, 40, 10], [6, 1.5, 40, 10]], truth)
    assert errors == pytest.approx([0.2, 0.2, 0.3, np.hypot(0.15, 0.15)])
    assert metrics.normalized_precision(np.array([0.2, 0.21, 0.1, 0.0])) == 0.75
    assert metrics.normalized_precision_auc(np.array([0.0])) == 1
    assert metrics.normalized_precision_auc(np.array([0.255, 0.6])) == pytest.approx(25 / 51 / 2)


def test_average_overlap_and_success_rates_are_strict():
    assert metrics.average_overlap(np.array([0.5, 0.75, 1.0, np.nan, 0.0])) == pytest.approx(
        dict(ao=0.5625, sr50=0.5, sr75=0.25))
    with pytest.raises(ValueError, match='no frame with the target present'):
        metrics.average_overlap(np.full(3, np.nan))


def test_boxes_are_cut_at_the_frame():
    clipped = metrics.clip_boxes([[-5, 2, 10, 10], [90, 40, 20, 20], [200, 200, 5, 5]], (100, 50))
    assert clipped.tolist() == [[0, 2, 5, 10], [90, 40, 10, 10], [100, 50, 0, 0]]


@pytest.mark.parametrize('result, message', [
    ([[0, 0, 1, 1]] * 2, 'must both be'), ([[0, 0, np.nan, 1]], 'must be finite'), ([[0, 0, -1, 1]], 'have a size')])
def test_results_that_cannot_be_measured_are_refused(result, message):
    with pytest.raises(ValueError, match=message):
        metrics.overlaps(result, [[0, 0, 1, 1]])


@pytest.mark.parametrize('tracker', ['STRUCK', 'MEEM', 'MUSTer'])
def test_metrics_equal_the_scores_published_by_the_otb_authors(cract_data, tracker):
    folder = cract_data / 'metrics' / 'otb'
    scores = json.loads((folder / tracker / 'scores_tb100.json').read_text())
    scores = next(one for one in scores if one['name'] == 'ALL') if isinstance(scores, list) else scores
    published = {name.replace('.', '-'): i for i, name in enumerate(scores['seqs'])}
    checked = 0
    for path in folder.glob('*.groundtruth_rect.txt'):
        name = path.name.split('.')[0]
        truth = np.array([[float(value) for value in re.split(r'[,\s]+', line.strip())]
                          for line in path.read_text().splitlines()])
        raw = json.loads((folder / tracker / f'{name}.json').read_text())
        results = np.array((raw[0] if isinstance(raw, list) else raw)['res'], float)
        results[0] = truth[0]
        overlap = metrics.overlaps(results, truth)
        assert overlap.mean() == pytest.approx(scores['overlapScores'][published[name]], abs=1e-9)
        failed = scores['errorNum'][published[name]] / 10  # published as tenths: share of frames that fail at 0.5
        assert 1 - metrics.success_curve(overlap)[10] == pytest.approx(failed, abs=1e-9)
        checked += 1
    assert checked == 6
    assert np.mean(scores['successRateList']) * 100 == pytest.approx(scores['overlap'])  # their total: the AUC


def write_sequence(folder, boxes, shift=2, size=(80, 60), names='{:d}.png'):
    """A bright textured square that moves `shift` px a frame over a dark ground, and its annotation."""
    (folder / 'img').mkdir(parents=True)
    rng = np.random.default_rng(1)
    patch = rng.integers(90, 255, (16, 16, 3)).astype(np.uint8)
    ground = rng.integers(0, 50, (size[1], size[0], 3)).astype(np.uint8)
    for i in range(len(boxes)):
        frame = ground.copy()
        frame[20:36, 10 + shift * i:26 + shift * i] = patch
        cv2.imwrite(str(folder / 'img' / names.format(i + 1)), frame)
    sequences.write_boxes(folder / 'groundtruth.txt', np.array(boxes, float))


def moving_boxes(count, shift=2):
    return [[10 + shift * i, 20, 16, 16] for i in range(count)]


def test_folders_are_read_in_natural_order_with_absent_frames(tmp_path):
    boxes = moving_boxes(12)
    boxes[5] = [np.nan] * 4
    write_sequence(tmp_path / 'setA' / 'one', boxes)
    write_sequence(tmp_path / 'setB' / 'one', boxes[:3])
    write_sequence(tmp_path / 'setB' / 'two', boxes[:3])
    read = sequences.read_folders(tmp_path)
    assert [sequence.name for sequence in read] == ['setA/one', 'setB/one', 'setB/two']
    assert [path.stem for path in read[0].images] == [str(i) for i in range(1, 13)]
    np.testing.assert_allclose(read[0].truth, boxes)
    frames = list(read[0].frames())
    assert len(frames) == 12 and frames[0].shape == (60, 80, 3)
    assert frames[11][25, 10 + 22].min() >= 90

    def names(**chosen):
        return [sequence.name for sequence in sequences.read_folders(tmp_path, **chosen)]
    assert names(only=('one',)) == ['setA/one', 'setB/one']
    assert names(only=('setB',)) == ['setB/one', 'setB/two']
    assert names(only=('setB/two', 'setA')) == ['setA/one', 'setB/two']
    assert names(limit=2) == ['setA/one', 'setB/one']


def test_written_boxes_are_read_back(tmp_path):
    boxes = np.array([[0.1234, 2, 3.5, 4], [np.nan] * 4, [-5, 1e3, 1, 2]])
    sequences.write_boxes(tmp_path / 'new' / 'boxes.txt', boxes)
    np.testing.assert_allclose(sequences.read_boxes(tmp_path / 'new' / 'boxes.txt'), boxes)


def break_missing_root(root):
    return root / 'nowhere', 'no folder .*nowhere: expected sequences as ROOT/<set>/<sequence>'


def break_empty_root(root):
    (root / 'empty').mkdir()
    return root / 'empty', 'no sequence in .*empty: expected ROOT/<set>/<sequence>'


def break_no_images(root):
    for path in (root / 'set' / 'clip' / 'img').iterdir():
        path.unlink()
    return root, 'no image in .*img: expected files ending in .jpg'


def break_no_img_folder(root):
    (root / 'set' / 'clip' / 'img').rename(root / 'set' / 'clip' / 'frames')
    return root, 'no folder .*img'


def break_no_truth(root):
    (root / 'set' / 'clip' / 'groundtruth.txt').unlink()
    return root, 'no file .*groundtruth.txt: expected one line x,y,w,h a frame'


def break_counts(root):
    (root / 'set' / 'clip' / 'groundtruth.txt').write_text('1,2,3,4\n')
    return root, '3 images in img/ and 1 lines in groundtruth.txt'


def break_words(root):
    (root / 'set' / 'clip' / 'groundtruth.txt').write_text('1,2,3,4\n1,2,3,4\n1;2;3;4\n')
    return root, "groundtruth.txt, line 3: expected x,y,w,h .* got '1;2;3;4'"


def break_size(root):
    (root / 'set' / 'clip' / 'groundtruth.txt').write_text('1,2,3,4\n1,2,0,4\n1,2,3,4\n')
    return root, 'groundtruth.txt, line 2'


def break_empty_truth(root):
    (root / 'set' / 'clip' / 'groundtruth.txt').write_text('')
    return root, 'groundtruth.txt is empty'


@pytest.mark.parametrize('break_it', [break_missing_root, break_empty_root, break_no_images, break_no_img_folder,
                                      break_no_truth, break_counts, break_words, break_size, break_empty_truth])
def test_a_broken_dataset_is_one_sentence(tmp_path, break_it):
    write_sequence(tmp_path / 'set' / 'clip', moving_boxes(3))
    root, message = break_it(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        sequences.read_folders(root)
    assert '\n' not in str(caught.value)


def test_an_unknown_name_lists_what_there_is(tmp_path):
    write_sequence(tmp_path / 'set' / 'clip', moving_boxes(3))
    with pytest.raises(ValueError, match="no sequence or set 'clop' in .*; there are set/clip"):
        sequences.read_folders(tmp_path, only=('clip', 'clop'))


class Follower:
    """Answers the first box moved by `shift` a frame, slowly."""

    def __init__(self, shift, seconds=0.0):
        self.shift, self.seconds, self.frames = shift, seconds, []

    def init(self, frame, box):
        self.box = np.array(box, float)
        self.frames.append(frame)

    def update(self, frame):
        self.frames.append(frame)
        self.box = self.box + (self.shift, 0, 0, 0)
        time.sleep(self.seconds)
        state = State.LOST if len(self.frames) == 4 else State.TRACKING
        return type('Answer', (), dict(box=self.box, score=0.75, state=state))


def test_a_run_starts_on_the_truth_and_records_every_answer(tmp_path):
    write_sequence(tmp_path / 'set' / 'clip', moving_boxes(4))
    sequence = sequences.read_folders(tmp_path)[0]
    tracker, ticks = Follower(3), []
    run = runner.run_sequence(tracker, sequence, lambda: ticks.append(1))
    assert run.boxes[:, 0].tolist() == [10, 13, 16, 19] and run.boxes.shape == (4, 4)
    assert run.scores.tolist() == [1, 0.75, 0.75, 0.75] and len(run.seconds) == 3 and len(ticks) == 4
    assert run.states == ('tracking', 'tracking', 'tracking', 'lost')
    for seen, frame in zip(tracker.frames, sequence.frames(), strict=True):
        assert (seen == frame).all()
    figures = runner.summarize(run, sequence)
    drift = [(16 - i) / (16 + i) for i in range(4)]  # overlap after i frames, one px behind each
    assert figures['auc'] == pytest.approx(np.mean([[value > k / 20 for k in range(21)] for value in drift]))
    assert figures['precision'] == 1 and figures['lost'] == 0.25


def test_decoding_is_not_measured_but_updates_are(tmp_path):
    write_sequence(tmp_path / 'set' / 'clip', moving_boxes(5))
    plain = sequences.read_folders(tmp_path)[0]

    class Slow(sequences.Sequence):
        def frames(self):
            for frame in super().frames():
                time.sleep(0.08)
                yield frame

    run = runner.run_sequence(Follower(2, seconds=0.02), Slow(plain.name, plain.images, plain.truth))
    assert 0.02 <= np.median(run.seconds) < 0.06


def test_latency_percentiles():
    figures = runner.latency(np.arange(1, 102) / 1000)
    assert figures == pytest.approx(dict(p50_ms=51, p95_ms=96, fps=1000 / 51))
    assert runner.latency(np.array([]))['p50_ms'] is None


def test_a_sequence_that_starts_without_its_target_is_refused(tmp_path):
    write_sequence(tmp_path / 'set' / 'clip', [[np.nan] * 4, *moving_boxes(2)])
    with pytest.raises(ValueError, match='set/clip: the target is absent in the first frame'):
        runner.run_sequence(Follower(1), sequences.read_folders(tmp_path)[0])


@pytest.mark.parametrize('name, least', [('kcf', 0.5), ('csrt', 0.5), ('mil', 0.1)])  # MIL is a rough tracker
def test_a_peer_follows_a_textured_square(tmp_path, name, least):
    write_sequence(tmp_path / 'set' / 'clip', moving_boxes(15), size=(160, 120))
    sequence = sequences.read_folders(tmp_path)[0]
    tracker = peers.make_peer(name)
    for _ in range(2):  # a second start forgets the first
        run = runner.run_sequence(tracker, sequence)
        assert metrics.overlaps(run.boxes, sequence.truth).min() > least


def test_a_peer_takes_fractional_boxes_rounded(monkeypatch):
    given = []

    class Recorder:
        def init(self, frame, box):
            given.append(box)

        def update(self, frame):
            return False, (0, 0, 0, 0)

    peer = peers.Peer('recorder', Recorder)
    with pytest.raises(RuntimeError, match='update before init'):
        peer.update(np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(ValueError, match='lies outside the 9 x 9 frame'):
        peer.init(np.zeros((9, 9, 3), np.uint8), (9, 0, 5, 5))
    peer.init(np.zeros((9, 9, 3), np.uint8), np.array([1.6, 2.4, 1.3, 7.5]))
    assert given == [(2, 2, 1, 8)] and all(type(value) is int for value in given[0])
    estimate = peer.update(np.zeros((9, 9, 3), np.uint8))
    assert estimate.state is State.LOST and estimate.box.tolist() == [1.6, 2.4, 1.3, 7.5]


def test_missing_trackers_and_files_are_one_sentence(monkeypatch, tmp_path):
    with pytest.raises(FileNotFoundError, match='nano needs the file nanotrack_v2_backbone.onnx: give its folder'):
        peers.make_peer('nano')
    with pytest.raises(FileNotFoundError, match='needs the file nanotrack_v2_head.onnx: no file .*head.onnx'):
        (tmp_path / 'backbone.onnx').write_bytes(b'nothing')
        peers.make_peer('nano', tmp_path / 'backbone.onnx', tmp_path / 'head.onnx')
    (tmp_path / 'head.onnx').write_bytes(b'nothing')
    with pytest.raises(ValueError, match='cannot read .* as TrackerNano networks'):
        peers.make_peer('nano', tmp_path / 'backbone.onnx', tmp_path / 'head.onnx')
    with pytest.raises(ValueError, match="no tracker 'best'; the peers are nano, nano3, lighttrack, fear, vit, csrt"):
        peers.make_peer('best')
    monkeypatch.delattr(cv2, 'TrackerCSRT', raising=False)
    with pytest.raises(ValueError, match='has no TrackerCSRT: it comes with opencv-contrib'):
        peers.make_peer('csrt')


def test_nano_scores_on_a_real_sequence_as_measured_before(cract_data):
    networks = [cract_data / 'peers' / name for name in peers.NETWORK_FILES['nano']]
    sequence = sequences.read_folders(cract_data / 'eval', only=('OTB/Crossing',))[0]
    run = runner.run_sequence(peers.make_peer('nano', *networks), sequence)
    figures = runner.summarize(run, sequence)
    assert figures['auc'] == pytest.approx(0.738, abs=0.02) and figures['precision'] == 1


def test_off_target_falsely_lost_and_frozen_worked_out_by_hand():
    truth = np.array([[10.0 * i, 0, 20, 20] for i in range(8)])
    truth[6] = np.nan                                   # not annotated: it counts nowhere
    boxes = truth.copy()
    boxes[3:7] = boxes[2]                               # waits at frame 2 until frame 6, and is back in frame 7
    lost = [True, False, False, False, True, True, True, True]
    # frame 3: IoU 1/3, 4: 0 and lost, waiting, 5: the same; 7: said lost on the target
    assert metrics.loss_shares(boxes, truth, lost) == pytest.approx(dict(off=2 / 6, false_loss=3 / 6, frozen=2 / 6))
    boxes[5, 0] -= 0.5                                  # moves, though lost and away
    assert metrics.loss_shares(boxes, truth, lost)['frozen'] == pytest.approx(1 / 6)
    assert metrics.loss_shares(truth[:1], truth[:1], [True]) == dict(off=None, false_loss=None, frozen=None)


def test_a_repeated_sequence_goes_forwards_and_backwards(tmp_path):
    truth = np.arange(12.0).reshape(3, 4) + 1
    clip = sequences.Sequence('a/b', tuple(tmp_path / name for name in '012'), truth,
                              regions=tuple(np.full((4, 2), i) for i in range(3)))

    def shown(sequence):
        assert (sequence.truth == truth[[int(path.name) for path in sequence.images]]).all()
        assert [int(region[0, 0]) for region in sequence.regions] == [int(path.name) for path in sequence.images]
        return ''.join(path.name for path in sequence.images)

    assert shown(sequences.repeat(clip, times=1)) == '01210' and shown(sequences.repeat(clip, times=2)) == '012101210'
    assert shown(sequences.repeat(clip, frames=8)) == '01210121' and shown(sequences.repeat(clip, frames=2)) == '012'
