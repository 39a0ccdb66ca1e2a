"""The protocols of the evaluation: absences, streaming, many runs at once, the report."""
from __future__ import annotations

import base64
import dataclasses
import json
import time
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from cract_core import cli
from cract_core.config import TrackerConfig
from cract_core.evaluation import absence, execution, peers, protocols, runner, streaming
from cract_core.evaluation.execution import Job, Store, TrackerSpec
from cract_core.evaluation.sequences import read_boxes, read_folders, write_boxes
from cract_core.tracker import State

KCF = TrackerSpec('kcf', TrackerConfig(threads=1))


def write_clip(folder, count, seed, size=(160, 120)):
    """A bright textured square that moves over a dark textured ground; every frame is marked with its number."""
    (folder / 'img').mkdir(parents=True)
    rng = np.random.default_rng(seed)
    patch = rng.integers(120, 255, (16, 16, 3)).astype(np.uint8)
    ground = rng.integers(0, 60, (size[1], size[0], 3)).astype(np.uint8)
    boxes = []
    for i in range(count):
        x = 40 + i if i < 60 else 160 - i
        frame = ground.copy()
        frame[50:66, x:x + 16] = patch
        frame[:4, :8] = i
        cv2.imwrite(str(folder / 'img' / f'{i:04d}.png'), frame)
        boxes.append([x, 50, 16, 16])
    write_boxes(folder / 'groundtruth.txt', np.array(boxes, float))


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('root')
    for seed, (name, count, size) in enumerate((('alpha-1', 80, (160, 120)), ('alpha-2', 70, (160, 120)),
                                                ('beta', 45, (160, 120)), ('gamma', 70, (200, 150)))):
        write_clip(root / 'made' / name, count, seed, size)
    return root


@pytest.fixture(scope='module')
def pool(root):
    return read_folders(root)


def runs_of(flags):
    """(start, length) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(flags, int), [0]])))
    return list(zip(edges[::2], edges[1::2] - edges[::2]))


def check_splice(spliced, original):
    """What every spliced sequence promises."""
    absent = spliced.absent
    assert runs_of(absent) == [(one.start, one.length) for one in spliced.stretches]
    assert len(spliced.images) == len(spliced.truth) == len(spliced.boxes) == len(absent)
    assert np.isnan(spliced.truth[absent]).all() and not absent[0]
    shown = [original.images.index(path) for path, gone in zip(spliced.images, absent) if not gone]
    assert shown == sorted(set(shown)) and shown[0] == 0 and shown[-1] == len(original.images) - 1
    np.testing.assert_array_equal(spliced.truth[~absent], original.truth[shown])
    assert 5 <= spliced.stretches[0].start <= 8
    for stretch in spliced.stretches:
        end = stretch.start + stretch.length
        after = spliced.truth[end:end + 15]
        assert stretch.length >= 30 and len(after) == 15 and not np.isnan(after).any()
        before = original.images.index(spliced.images[stretch.start - 1])
        assert 1 <= original.images.index(spliced.images[end]) - before <= 11
        assert np.isnan(spliced.boxes[stretch.start:end]).any() == (stretch.kind == 'other')
        if stretch.kind == 'painted':  # the scene goes on and comes back without a jump
            path = [original.images.index(one) for one in spliced.images[stretch.start - 1:end + 1]]
            assert max(np.abs(np.diff(path))) == 1


@pytest.mark.parametrize('seed', range(4))
def test_absences_are_at_the_start_the_middle_and_the_end_and_the_target_returns(pool, seed):
    for original in pool:
        spliced = absence.splice(original, pool, seed)
        check_splice(spliced, original)
        assert len(spliced.stretches) == (2 if original.name == 'made/beta' else 3)
        assert {one.kind for one in spliced.stretches} == {'other', 'painted'}


def test_the_same_seed_splices_the_same_frames(pool):
    first, again, other = (absence.splice(pool[0], pool, seed) for seed in (1, 1, 2))
    assert first.stretches == again.stretches and first.stretches != other.stretches
    for a, b in zip(first.frames(), again.frames(), strict=True):
        assert (a == b).all()


def test_frames_of_others_come_from_another_series_at_the_size_of_this_one(pool):
    gamma = next(one for one in pool if one.name == 'made/gamma')
    for original, same in ((pool[0], {'alpha-1', 'alpha-2'}), (gamma, {'gamma'})):
        spliced = absence.splice(original, pool)
        height, width = next(original.frames()).shape[:2]
        assert all(frame.shape == (height, width, 3) for frame in spliced.frames())
        for stretch in spliced.stretches:
            if stretch.kind == 'other':
                sources = {path.parent.parent.name for path in
                           spliced.images[stretch.start:stretch.start + stretch.length]}
                assert len(sources) == 1 and not sources & same
    with pytest.raises(ValueError, match='made/alpha-1: the absence protocol needs frames of another sequence'):
        absence.splice(pool[0], pool[:2])


def test_a_painted_frame_has_no_target_and_an_untouched_scene(pool):
    for original in pool:
        spliced = absence.splice(original, pool)
        for path, frame, truth, box, gone in zip(spliced.images, spliced.frames(), spliced.truth, spliced.boxes,
                                                 spliced.absent):
            source = cv2.imread(str(path))
            if not gone:
                assert (frame == source).all()
            elif not np.isnan(box).any():
                x, y, w, h = box.astype(int)
                assert source[y:y + h, x:x + w].min() >= 120 and frame[y:y + h, x:x + w].max() < 90
                frame[y - 6:y + h + 6, x - 6:x + w + 6] = source[y - 6:y + h + 6, x - 6:x + w + 6]
                assert (frame == source).all()


@pytest.mark.parametrize('box', [(0, 0, 16, 16), (30, 20, 90, 70), (-5, 40, 150, 30), (100, 90, 60, 30)])
def test_a_target_at_the_border_or_nearly_as_large_as_the_frame_is_painted_over(box):
    frame = np.full((120, 160, 3), 40, np.uint8)
    x, y, w, h = box
    frame[max(y, 0):y + h, max(x, 0):x + w] = 220
    painted = absence.Painter().paint(frame, np.array(box, float))
    assert painted.max() <= 60 and painted.shape == frame.shape and frame.max() == 220


def test_a_sequence_too_short_for_an_absence_is_refused(pool):
    short = dataclasses.replace(pool[0], images=pool[0].images[:18], truth=pool[0].truth[:18])
    with pytest.raises(ValueError, match='no absence fits into its 18 frames; expected 23 or more'):
        absence.splice(short, pool)


def test_frames_without_annotation_hold_no_cut_and_no_return(pool):
    truth = pool[0].truth.copy()
    truth[20:45] = np.nan
    original = dataclasses.replace(pool[0], truth=truth)
    for seed in range(5):
        spliced = absence.splice(original, pool, seed)
        for stretch in spliced.stretches:
            end = stretch.start + stretch.length
            assert not np.isnan(spliced.truth[end:end + 15]).any()
            assert not np.isnan(spliced.truth[stretch.start - 1]).any()


def test_real_sequences_can_all_be_spliced(cract_data):
    pool = read_folders(cract_data / 'eval')
    kinds = []
    for original in pool:
        spliced = absence.splice(original, pool)
        check_splice(spliced, original)
        kinds += [one.kind for one in spliced.stretches]
    assert len(kinds) >= 2 * len(pool) and 0.35 < kinds.count('painted') / len(kinds) < 0.65


def test_auroc_counts_pairs():
    assert absence.auroc([0.9, 0.8, 0.3, 0.1], [True, True, False, False]) == 1
    assert absence.auroc([0.1, 0.9], [True, False]) == 0
    assert absence.auroc([0.5] * 4, [True, False, True, False]) == 0.5
    assert np.isnan(absence.auroc([0.1, 0.2], [True, True]))
    from scipy.stats import mannwhitneyu
    rng = np.random.default_rng(0)
    for levels in (3, 10, 1000):
        scores, correct = rng.integers(levels, size=80) / levels, rng.random(80) < 0.4
        pairs = [(a > b) + (a == b) / 2 for a in scores[correct] for b in scores[~correct]]
        assert absence.auroc(scores, correct) == pytest.approx(np.mean(pairs))
        u = mannwhitneyu(scores[correct], scores[~correct]).statistic
        assert absence.auroc(scores, correct) == pytest.approx(u / correct.sum() / (~correct).sum())


def test_calibration_error_worked_out_by_hand():
    # bins of a fifth: (0.1 right, 0.2 wrong), (0.9 right, 1.0 right); a score on a border belongs to the lower bin
    scores, correct = np.array([0.1, 0.2, 0.9, 1.0]), np.array([True, False, True, True])
    assert absence.calibration_error(scores, correct, 5) == pytest.approx((2 * (0.5 - 0.15) + 2 * (1 - 0.95)) / 4)
    table = absence.reliability(scores, correct, 5)
    assert table[:, 0].tolist() == [2, 0, 0, 0, 2] and np.isnan(table[1, 1])
    rng = np.random.default_rng(0)
    scores = rng.random(20000)
    assert absence.calibration_error(scores, rng.random(20000) < scores) < 0.02
    assert absence.calibration_error(scores, rng.random(20000) < 1 - scores) > 0.4


def spliced_by_hand():
    """40 frames, absent in [10, 20) and [25, 30); frame 35 hidden in the original."""
    truth = np.tile([0.0, 0.0, 10.0, 10.0], (60, 1))
    stretches = (absence.Stretch(10, 10, 'other'), absence.Stretch(35, 5, 'other'))
    for stretch in stretches:
        truth[stretch.start:stretch.start + stretch.length] = np.nan
    truth[58] = np.nan
    return absence.AbsenceSequence('hand', tuple([None] * 60), truth, boxes=np.full((60, 4), np.nan),
                                   stretches=stretches)


def answered(states, boxes=None, scores=None):
    boxes = np.tile([0.0, 0.0, 10.0, 10.0], (60, 1)) if boxes is None else boxes
    return runner.Run(boxes, np.array(scores if scores is not None else [0.0 if s == 'lost' else 1.0 for s in states]),
                      tuple(states), 0.0, np.zeros(59))


def test_figures_of_trust_worked_out_by_hand():
    sequence = spliced_by_hand()
    states = ['tracking'] * 60
    states[13:24] = ['lost'] * 11       # seen in the fourth frame; back in the fifth after the return
    states[5] = states[31] = 'lost'     # two false losses; 31 is the 12th after the return and not settled
    states[55] = 'lost'                 # the second absence is never seen; false, in the 16th frame after the return
    figures = absence.figures([absence.judge(answered(states), sequence)])
    assert figures['absent_as_lost'] == pytest.approx(7 / 15)
    assert figures['false_loss'] == pytest.approx(2 / (9 + 4))  # frames 1 to 9, 55, 56, 57, 59 are settled
    assert figures['frames_to_loss'] is None                    # one of two: the median does not exist
    assert figures['reacquired_15'] == 1
    # 43 visible judged frames, 7 of them said lost (score 0), 15 absent frames with 7 at score 0
    right, wrong = [1] * 36 + [0] * 7, [1] * 8 + [0] * 7
    assert len([s for s in states if s == 'lost']) == 14
    pairs = [(a > b) + (a == b) / 2 for a in right for b in wrong]
    assert figures['auroc'] == pytest.approx(np.mean(pairs))
    assert figures['ece'] == pytest.approx((44 * (1 - 36 / 44) + 14 * (7 / 14)) / 58)
    states[36] = 'lost'
    assert absence.figures([absence.judge(answered(states), sequence)])['frames_to_loss'] == 3  # of 4 and 2


def test_a_box_beside_the_target_is_no_return_and_a_score_for_it_is_wrong():
    sequence, states = spliced_by_hand(), ['tracking'] * 60
    boxes = np.tile([0.0, 0.0, 10.0, 10.0], (60, 1))
    boxes[20:35, 0] = 5  # a third overlaps
    figures = absence.figures([absence.judge(answered(states, boxes), sequence)])
    assert figures['reacquired_15'] == 0.5 and figures['absent_as_lost'] == 0 and figures['auroc'] == 0.5


def test_always_lost_and_all_knowing_are_the_two_ends():
    sequence = spliced_by_hand()
    figures = absence.figures([absence.judge(answered(['lost'] * 60), sequence)])
    assert figures['absent_as_lost'] == figures['false_loss'] == 1
    assert figures['reacquired_15'] == 0 and figures['frames_to_loss'] is None and figures['auroc'] == 0.5
    states = ['lost' if gone else 'tracking' for gone in sequence.absent]
    trusts = [absence.judge(answered(states), sequence)] * 3
    assert absence.figures(trusts) == dict(auroc=1, ece=0, absent_as_lost=1, false_loss=0, frames_to_loss=1,
                                           reacquired_15=1)
    assert absence.threshold(trusts) == dict(score=1, absent_below=1)


def test_a_threshold_speaks_for_a_tracker_that_never_says_lost():
    sequence = spliced_by_hand()
    rng = np.random.default_rng(0)
    scores = np.where(sequence.absent, rng.uniform(0, 0.6, 60), rng.uniform(0.5, 1, 60))
    trust = absence.judge(answered(['tracking'] * 60, scores=scores), sequence)
    told = absence.threshold([trust])
    right = np.sort(scores[trust_rows(sequence)])
    assert (right < told['score']).mean() <= 0.05 < (right <= told['score']).mean() + 0.01
    assert told['absent_below'] == pytest.approx((scores[sequence.absent] < told['score']).mean())


def trust_rows(sequence):
    visible = ~np.isnan(sequence.truth).any(axis=1)
    visible[0] = False
    return visible


class Counter:
    """Answers with the number of the frame that it saw (its mark) as x; counts what it is asked."""

    def __init__(self):
        self.seen = []

    def init(self, frame, box):
        self.seen.append(int(frame[0, 0, 0]))

    def update(self, frame):
        self.seen.append(int(frame[0, 0, 0]))
        return type('Answer', (), dict(box=np.array([self.seen[-1], 0.0, 5.0, 5.0]), score=0.5, state=State.TRACKING))


def stream(pool, latencies, rate=10.0):
    sequence = dataclasses.replace(pool[0], images=pool[0].images[:10], truth=pool[0].truth[:10])
    tracker = Counter()
    return tracker, streaming.run_stream(tracker, sequence, rate, dict(enumerate(latencies)))


def test_a_tracker_faster_than_the_camera_answers_as_without_a_clock(pool):
    tracker, run = stream(pool, [0.1] + [0.099] * 9)
    assert tracker.seen == list(range(10)) and run.dropped == 0
    assert run.boxes[1:, 0].tolist() == list(range(1, 10)) and run.boxes[0].tolist() == pool[0].truth[0].tolist()


def test_frames_are_dropped_and_the_last_answer_stands(pool):
    # frame:    0    1    2    3    4    5    6    7    8    9      (a tenth of a second each)
    # init 0.15 s: ready before 2, so 1 is dropped; 2 takes 0.25 s: ready before 5 (at 0.45), 3 and 4 are dropped;
    # 5 takes 0.05 s and stands at once; 6 takes 0.12 s: late for 6, stands from 7; 8 takes 0.3 s: never stands
    tracker, run = stream(pool, [0.15, 9, 0.25, 9, 9, 0.05, 0.12, 9, 0.3, 9])
    first = pool[0].truth[0, 0]
    assert tracker.seen == [0, 2, 5, 6, 8] and run.dropped == 5
    assert run.boxes[:, 0].tolist() == [first, first, first, first, 2, 5, 5, 6, 6, 6]
    assert run.latencies == {0: 0.15, 2: 0.25, 5: 0.05, 6: 0.12, 8: 0.3}
    assert run.seconds.tolist() == [0.25, 0.05, 0.12, 0.3] and run.init_seconds == 0.15


def test_a_recorded_trace_replays_the_same_run(pool):
    sequence = dataclasses.replace(pool[0], images=pool[0].images[:30], truth=pool[0].truth[:30])
    tracker = peers.make_peer('kcf')

    def update(frame):  # slower than the camera on any machine
        time.sleep(0.003)
        return type(tracker).update(tracker, frame)

    tracker.update = update
    measured = streaming.run_stream(tracker, sequence, 1000.0)
    assert measured.dropped > 0
    again = streaming.run_stream(tracker, sequence, 1000.0, measured.latencies)
    assert (again.boxes == measured.boxes).all() and again.latencies == measured.latencies
    with pytest.raises(ValueError, match='the latency trace has no frame .* of made/alpha-1'):
        streaming.run_stream(tracker, sequence, 1.0, measured.latencies)


def test_bootstrap_agrees_with_the_theory_of_the_mean():
    values = np.random.default_rng(1).normal(0.6, 0.1, 40)
    low, high = protocols.bootstrap(lambda rows: dict(mean=values[rows].mean()), 40)['mean']
    half = 1.96 * values.std() / np.sqrt(40)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.004)
    assert protocols.bootstrap(lambda rows: dict(mean=values[rows].mean()), 40)['mean'] == [low, high]
    assert protocols.bootstrap(lambda rows: dict(mean=0.5), 1) == dict(mean=None)


def test_intervals_lie_about_the_means_that_they_belong_to():
    figures = {str(i): dict(frames=9, counted=counted, auc=auc, ao=auc, lost=0.0)
               for i, (counted, auc) in enumerate(((10, 0.2), (1000, 0.8), (1000, 0.8), (10, 0.2)))}
    intervals = protocols.mean_intervals(figures, 0)
    assert intervals['auc'] == pytest.approx([0.2, 0.8], abs=0.01) and intervals['lost'] == [0, 0]
    many = {f'{i}{name}': one for i in range(10) for name, one in figures.items()}
    low, high = protocols.mean_intervals(many, 0)['ao']  # every frame counts the same
    assert 0.78 < low < high < 0.8
    low, high = protocols.mean_intervals(many, 0)['auc']  # every sequence does
    assert 0.38 < low < 0.5 < high < 0.62


def frames_shown(monkeypatch):
    """The names of the sequences that are really run, from now on."""
    run, names = runner.run_sequence, []

    def counted(tracker, sequence, *rest):
        names.append(sequence.name)
        return run(tracker, sequence, *rest)
    monkeypatch.setattr(runner, 'run_sequence', counted)
    return names


def run_all(jobs, store):
    results = dict(execution.execute_stored('ope', jobs, store))
    return [results[index]['kcf'].run for index in range(len(jobs))]


def test_an_interrupted_evaluation_goes_on_where_it_stopped(pool, tmp_path, monkeypatch):
    names, store = frames_shown(monkeypatch), Store(tmp_path)
    jobs = [Job(sequence, (KCF,)) for sequence in pool]
    some = execution.execute_stored('ope', jobs, store)
    next(some), next(some)
    some.close()  # what an interruption does
    assert names == [one.name for one in pool[:2]]
    counted = []
    runs = dict(execution.execute_stored('ope', jobs, store, progress=counted.append))
    assert names == [one.name for one in pool] and sum(counted) == sum(job.frames for job in jobs)
    for job, index in zip(jobs, range(len(jobs))):
        fresh = execution.run_job(job)['kcf'].run
        assert (fresh.boxes == runs[index]['kcf'].run.boxes).all()
        assert fresh.states == runs[index]['kcf'].run.states


def test_a_kept_run_is_not_taken_for_another(pool, tmp_path, monkeypatch):
    names, store, sequence = frames_shown(monkeypatch), Store(tmp_path), pool[2]
    run_all([Job(sequence, (KCF,))], store)
    run_all([Job(sequence, (KCF,))], store)
    assert len(names) == 1
    shifted = dataclasses.replace(sequence, truth=sequence.truth + 1)
    run_all([Job(shifted, (KCF,))], store)
    assert len(names) == 2
    run_all([Job(shifted, (TrackerSpec('kcf', TrackerConfig(threads=2)),))], store)
    assert len(names) == 3
    monkeypatch.setattr(execution, '__version__', 'another version')
    run_all([Job(shifted, (TrackerSpec('kcf', TrackerConfig(threads=2)),))], store)
    assert len(names) == 4
    peers.cv2.setNumThreads(1)


def test_the_key_of_our_tracker_holds_weights_and_parameters(tmp_path):
    from cract_core.model import CractModel, save_weights
    paths = [tmp_path / name for name in ('a.pt', 'b.pt', 'c.pt')]
    model = CractModel()
    save_weights(model, paths[0])
    paths[1].write_bytes(paths[0].read_bytes())
    paths[2].write_bytes(paths[0].read_bytes()[:-1] + b'x')
    config = TrackerConfig(weights=str(paths[0]))
    same, same_elsewhere, other_weights, other_value = (TrackerSpec('cract', one).identity for one in (
        config, config.replace(weights=str(paths[1])), config.replace(weights=str(paths[2])), config.replace(alpha=0.5)))
    assert same == same_elsewhere and len({same, other_weights, other_value}) == 3


def test_streaming_runs_are_kept_with_their_latencies(pool, tmp_path):
    store, sequence = Store(tmp_path), pool[2]
    trace = {'kcf': {i: 0.05 for i in range(len(sequence.images))}}
    job = Job(sequence, (KCF,), 30.0, trace)
    first, again = (dict(execution.execute_stored('streaming', [job], store))[0]['kcf'].run for _ in range(2))
    assert first.dropped == again.dropped == 22 and again.latencies == first.latencies
    assert (first.boxes == again.boxes).all()
    faster = dataclasses.replace(job, rate=10.0)
    assert dict(execution.execute_stored('streaming', [faster], store))[0]['kcf'].run.dropped == 0


def test_two_processes_give_the_same_boxes_as_one(root, tmp_path):
    reports = []
    for jobs in (1, 2):
        folder = tmp_path / str(jobs)
        assert cli.main(['eval', str(root), '--tracker', 'kcf', '--threads', '1', '--limit', '3', '--jobs', str(jobs),
                         '--results', str(folder), '--json', str(tmp_path / f'{jobs}.json')]) == 0
        reports.append(json.loads((tmp_path / f'{jobs}.json').read_text()))
    for name in reports[0]['sequences']:
        assert (read_boxes(tmp_path / '1' / f'{name}.txt') == read_boxes(tmp_path / '2' / f'{name}.txt')).all()
    assert reports[0]['mean']['auc'] == reports[1]['mean']['auc'] and reports[1]['jobs'] == 2


@pytest.fixture(scope='module')
def cluster():
    """A Ray cluster of two machines with one core each, on this one."""
    pytest.importorskip('ray', reason='needs the package ray: pip install "cract_ros[ray]"')
    from ray.cluster_utils import Cluster
    cluster = Cluster(initialize_head=True, head_node_args=dict(num_cpus=1, include_dashboard=False))
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


def test_a_ray_cluster_of_two_workers_gives_the_same_boxes(root, cluster, tmp_path):
    for name, more in (('here', []), ('there', ['--ray', cluster.address])):
        assert cli.main(['eval', str(root), '--tracker', 'kcf', '--threads', '1', '--limit', '3',
                         '--results', str(tmp_path / name), '--report', str(tmp_path / f'{name}-report'), *more]) == 0
    for sequence in read_folders(root, limit=3):
        assert (read_boxes(tmp_path / 'here' / f'{sequence.name}.txt')
                == read_boxes(tmp_path / 'there' / f'{sequence.name}.txt')).all()


def test_an_error_on_a_ray_worker_is_the_same_sentence(root, cluster, tmp_path):
    sequence = read_folders(root, limit=1)[0]
    broken = dataclasses.replace(sequence, truth=np.full_like(sequence.truth, np.nan))
    with pytest.raises(ValueError, match='made/alpha-1: the target is absent in the first frame'):
        list(execution.execute([Job(broken, (KCF,))], ray_address=cluster.address))


@pytest.mark.parametrize('name', ['kcf', 'csrt', 'mil'])
def test_a_peer_without_a_score_scores_what_it_says(pool, name):
    spliced = absence.splice(pool[0], pool)
    run = runner.run_sequence(peers.make_peer(name, threads=1), spliced)
    assert run.scores.tolist() == [float(state != 'lost') for state in run.states]
    assert run.scores[1:6].tolist() == [1.0] * 5


class Page(HTMLParser):
    """Rows of all tables, sources of all images, texts of the headings, links."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.images, self.links, self.cell = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == 'tr':
            self.rows.append([])
        if tag in ('td', 'th'):
            self.rows[-1].append('')
            self.cell = True
        if tag == 'small':
            self.cell = False
        if tag == 'img':
            self.images.append(attributes['src'])
        self.links += [value for key, value in attributes.items() if key in ('href', 'src')]

    def handle_endtag(self, tag):
        if tag in ('td', 'th'):
            self.cell = False

    def handle_data(self, data):
        if self.cell:
            self.rows[-1][-1] += data.strip()


@pytest.fixture(scope='module')
def report(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp('reports') / 'report'
    assert cli.main(['eval', str(root), '--tracker', 'kcf,csrt', '--threads', '1', '--only', 'alpha-1,gamma',
                     '--protocol', 'ope,absence,streaming', '--report', str(folder)]) == 0
    return folder


def test_the_report_is_one_page_with_every_figure(report):
    page = Page((report / 'report.html').read_text())
    assert page.links and all(link.startswith('data:') for link in page.links)
    figures = json.loads((report / 'figures.json').read_text())
    blocks = {'kcf': figures, 'csrt': figures['peers'][0]}
    rows = {row[0]: [one for one in page.rows if one and one[0] == row[0]] for row in page.rows if row}
    for name, block in blocks.items():
        texts = [cell for row in rows[name] for cell in row]
        for value in (block['mean']['auc'], block['mean']['precision'], block['streaming']['mean']['auc'],
                      *(value for key, value in block['absence'].items() if key != 'frames_to_loss' and value is not None)):
            assert f'{value:.3f}' in texts
    for sequence in ('made/alpha-1', 'made/gamma'):
        assert any(row[2:] == [f'{block["sequences"][sequence]["auc"]:.3f}' for block in blocks.values()]
                   for row in rows[sequence])
    assert rows['small target'][0][1] == '2'  # 16 x 16 pixels
    pictures = [image for image in page.images if image.startswith('data:image/jpeg')]
    assert len(pictures) >= 2
    for image in pictures:
        decoded = cv2.imdecode(np.frombuffer(base64.b64decode(image.split(',')[1]), np.uint8), cv2.IMREAD_COLOR)
        assert decoded.shape[1] == 640
    plots = [base64.b64decode(image.split(',')[1]) for image in page.images if 'svg' in image]
    assert len(plots) == 3 and all(b'</svg>' in plot for plot in plots)


def test_a_benchmark_that_withholds_its_truth_has_a_report_of_speed(tmp_path, capsys):
    data = tmp_path / 'data'
    clip = data / 'test' / 'GOT-10k_Test_000001'
    write_clip(clip, 5, 0)
    for image in (clip / 'img').iterdir():
        image.rename(clip / image.name)
    (clip / 'img').rmdir()
    (clip / 'groundtruth.txt').write_text('40,50,16,16\n')
    (data / 'test' / 'list.txt').write_text(clip.name + '\n')
    assert cli.main(['eval', str(data), '--benchmark', 'got10k-test', '--tracker', 'kcf', '--threads', '1',
                     '--report', str(tmp_path / 'report')]) == 0
    text = (tmp_path / 'report' / 'report.html').read_text()
    page = Page(text)
    assert len(page.images) == 1 and 'keeps the truth to itself' in text  # the plot of latency
    assert any(row[0] == 'kcf' and len(row) == 4 for row in page.rows if row)
    assert (tmp_path / 'report' / 'results' / 'kcf.zip').is_file()  # what the server takes


def test_figures_have_the_six_keys_of_trust_and_intervals(report):
    figures = json.loads((report / 'figures.json').read_text())
    assert set(figures['absence']) == {'auroc', 'ece', 'absent_as_lost', 'false_loss', 'frames_to_loss', 'reacquired_15'}
    assert figures['protocol'] == 'ope,absence,streaming' and figures['peers'][0]['tracker'] == 'csrt'
    for block in (figures, figures['peers'][0]):
        low, high = block['intervals']['auc']
        assert low <= block['mean']['auc'] <= high
        assert low == pytest.approx(min(one['auc'] for one in block['sequences'].values()))  # of two sequences


@pytest.mark.long
def test_a_latency_trace_of_the_report_replays_the_streaming_figures(root, report, tmp_path):
    path = tmp_path / 'again.json'
    assert cli.main(['eval', str(root), '--tracker', 'kcf,csrt', '--threads', '1', '--only', 'alpha-1,gamma',
                     '--protocol', 'streaming', '--latency-trace', str(report / 'latency_trace.json'),
                     '--json', str(path)]) == 0
    first, again = json.loads((report / 'figures.json').read_text()), json.loads(path.read_text())
    for a, b in ((first, again), (first['peers'][0], again['peers'][0])):
        assert a['streaming'] == b['streaming']


def refused(capsys, *arguments):
    assert cli.main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1
    return error


def test_what_cannot_be_measured_is_refused_before_the_run(root, tmp_path, capsys):
    def eval_kcf(*more):
        return refused(capsys, 'eval', root, '--tracker', 'kcf', *more)
    assert 'several runs at a time would spoil' in eval_kcf('--protocol', 'streaming', '--jobs', '2')
    assert 'give --protocol streaming too' in eval_kcf('--latency-trace', tmp_path / 'x.json')
    assert 'no file' in eval_kcf('--protocol', 'streaming', '--latency-trace', tmp_path / 'x.json')
    for content in ('[]', '{"trackers": {"kcf": {"a": {"one": 1}}}}', '{"trackers": {"kcf": {"a": {"1": -1}}}}', '{'):
        (tmp_path / 'x.json').write_text(content)
        assert 'is no latency trace' in eval_kcf('--protocol', 'streaming', '--latency-trace', tmp_path / 'x.json')
    (tmp_path / 'x.json').write_text('{"trackers": {"kcf": {}}}')
    assert 'has nothing of kcf on made/alpha-1' in eval_kcf('--protocol', 'streaming', '--latency-trace',
                                                            tmp_path / 'x.json')
    assert 'there is no folder' in eval_kcf('--report', tmp_path / 'no' / 'where')


@pytest.mark.parametrize('arguments', [['--protocol', 'best'], ['--protocol', 'ope,ope'], ['--rate', '0'],
                                       ['--tracker', 'kcf,kcf'], ['--jobs', '0']])
def test_wrong_options_are_explained(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(['eval', 'x', *arguments])
    assert caught.value.code == 2 and 'usage: cract' in capsys.readouterr().err


def test_nano_on_a_real_sequence_never_says_lost(cract_data):
    networks = tuple(str(cract_data / 'peers' / name) for name in peers.NETWORK_FILES['nano'])
    spec = TrackerSpec('nano', TrackerConfig(threads=1), networks)
    pool = read_folders(cract_data / 'eval')
    crossing = next(one for one in pool if one.name == 'OTB/Crossing')
    options = protocols.Options(protocols=('absence',))
    measured = protocols.measure((spec,), protocols.plan((spec,), [crossing], pool, options), options)
    figures = protocols.block(measured, 'nano')['absence']
    assert figures['absent_as_lost'] == 0 and figures['frames_to_loss'] is None
    assert 0.4 < figures['auroc'] < 0.95 and figures['false_loss'] == 0
