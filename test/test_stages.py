"""The stages protocol and the comparison of two runs: what is handed over, what each stage counts, what is refused."""
from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import pytest

from cract_core import Tracker, TrackerConfig, cli
from cract_core.evaluation import against, execution, protocols, stages
from cract_core.evaluation.execution import Job, Store, TrackerSpec
from cract_core.evaluation.sequences import Sequence, read_folders, write_boxes
from cract_core.model import CractModel
from cract_core.proposals import Proposals

QUICK = dict(init_positives=20, init_negatives=40, init_iterations=1, num_proposals=3, device='cpu')


@pytest.fixture(scope='module')
def sequence(tmp_path_factory):
    """Twelve frames; the target moves by (3, 2), the annotation leaves out frames 4, 5 and 9, counted from 0."""
    folder = tmp_path_factory.mktemp('frames')
    truth = np.array([[60.0 + 3 * i, 50.0 + 2 * i, 40.0, 30.0] for i in range(12)])
    truth[[4, 5, 9]] = np.nan
    images = []
    for i in range(12):
        frame = np.random.default_rng(i).integers(0, 255, (160, 200, 3)).astype(np.uint8)
        frame[0, 0] = i
        images.append(folder / f'{i:02d}.png')
        cv2.imwrite(str(images[-1]), frame)
    return Sequence('made/one', tuple(images), truth)


class Peer:
    """Answers with the box it is told, moved right by a quarter of its width; writes down what it is asked."""

    def __init__(self):
        self.asked = []

    def init(self, frame, box):
        self.asked.append((int(frame[0, 0, 0]), tuple(box)))

    def locate(self, frame, last):
        self.asked.append((int(frame[0, 0, 0]), tuple(last)))
        return last + (last[2] / 4, 0, 0, 0)


def test_every_annotated_frame_gets_the_latest_true_box(sequence):
    peer, steps = Peer(), []
    run = stages.run_stages(peer, sequence, progress=lambda: steps.append(1))
    truth = sequence.truth
    latest = {1: 0, 2: 1, 3: 2, 6: 3, 7: 6, 8: 7, 10: 8, 11: 10}
    assert peer.asked == [(0, tuple(truth[0])), *((i, tuple(truth[j])) for i, j in latest.items())]
    assert run.frames.tolist() == list(latest) and len(steps) == 12

    def shifted(dx, dy):    # IoU of two boxes of 40 x 30
        inner = max(40 - abs(dx), 0) * max(30 - abs(dy), 0)
        return inner / (2 * 40 * 30 - inner)

    gaps = [i - j for i, j in latest.items()]
    assert run.overlaps['last'] == pytest.approx([shifted(3 * gap, 2 * gap) for gap in gaps])
    assert run.overlaps['chosen'] == pytest.approx([shifted(10 - 3 * gap, 2 * gap) for gap in gaps])
    figures = stages.summarize(run)
    assert figures['frames'] == 8 and figures['anchors'] is figures['gain'] is figures['refined_50'] is None
    assert figures['chosen_50'] == np.mean([shifted(10 - 3 * gap, 2 * gap) > 0.5 for gap in gaps])


def test_each_nth_frame_still_gets_the_box_of_the_frame_before(sequence):
    peer = Peer()
    run = stages.run_stages(peer, sequence, every=3)
    assert run.frames.tolist() == [3, 6]
    assert peer.asked[1:] == [(3, tuple(sequence.truth[2])), (6, tuple(sequence.truth[3]))]


def test_a_sequence_with_nothing_to_look_at_is_refused(sequence):
    truth = np.full((12, 4), np.nan)
    with pytest.raises(ValueError, match='made/one: the target is absent in the first frame'):
        stages.run_stages(Peer(), dataclasses.replace(sequence, truth=truth))
    truth[0] = sequence.truth[0]
    with pytest.raises(ValueError, match='made/one: no annotated frame after the first to look at'):
        stages.run_stages(Peer(), dataclasses.replace(sequence, truth=truth))
    truth[5] = sequence.truth[1]
    with pytest.raises(ValueError, match='no annotated frame after the first to look at, one in 2'):
        stages.run_stages(Peer(), dataclasses.replace(sequence, truth=truth), every=2)


class Nets:
    """In place of the networks: every frame shows the same boxes around the middle of the crop, which is where the
    target was. The refined boxes are the proposals, but the second one is moved."""

    device = 'cpu'

    def __init__(self, nets, boxes, coarse, chosen, nu, tau, moved):
        self._nets, self.coarse, self.chosen = nets, np.array(coarse), list(chosen)
        self.boxes, self.nu, self.tau, self.moved = (np.array(one, float) for one in (boxes, nu, tau, moved))
        self.template, self.features, self.as_array = nets.template, nets.features, nets.as_array

    def search(self, crop, template):
        self.phi = self._nets.search(crop, template)[0]
        return self.phi, self.boxes, self.coarse

    def select(self, boxes, scores, last, penalty, influence):
        return Proposals(boxes[self.chosen], scores[self.chosen])

    def refine(self, phi, proposals, template, classifier):
        return proposals + self.moved, self.nu[None], self.tau


@pytest.fixture(scope='module')
def model():
    return CractModel().eval()


def test_every_stage_counts_what_its_name_says(sequence, model, monkeypatch):
    still = dataclasses.replace(sequence, truth=np.tile([60.0, 50.0, 40.0, 40.0], (12, 1)))
    tracker = Tracker(TrackerConfig(alpha=0.5, beta=0.5, update_interval=1000, vote_iou=1.0, **QUICK), model)
    # half of the template's 129 pixels, at the same scale as in the search crop of 257
    side, middle = 129 / 2, 257 / 2

    def box(dx, dy=0):     # the target's box, moved by parts of its side
        return [middle - side / 2 + dx * side, middle - side / 2 + dy * side,
                middle + side / 2 + dx * side, middle + side / 2 + dy * side]

    def overlap(dx):       # with the target
        return (1 - abs(dx)) / (1 + abs(dx))

    anchors = [box(0.1), box(0.2), box(0.3), box(0.4), box(0.9)]
    tracker.init(cv2.imread(str(still.images[0])), still.truth[0])
    nets = Nets(tracker.nets, anchors, coarse=[0.1, 0.5, 0.6, 0.2, 0.9], chosen=[3, 1, 2],
                nu=[0.2, 0.3, 0.9], tau=[0.9, 0.8, 0.1], moved=[[0] * 4, [-0.15 * side, 0, -0.15 * side, 0], [0] * 4])
    monkeypatch.setattr(tracker, 'nets', nets)
    monkeypatch.setattr(tracker, 'init', lambda *_: None)
    figures = stages.summarize(stages.run_stages(tracker, still))
    # Eq. 10 with halves: 0.375, 0.525, 0.55
    expected = dict(last=1, anchors=overlap(0.1), proposals=overlap(0.2), top=overlap(0.4), refined=overlap(0.05),
                    chosen=overlap(0.3), by_identifier=overlap(0.3), by_discriminator=overlap(0.4),
                    by_coarse=overlap(0.9), gain=overlap(0.05) - overlap(0.2), proposals_50=1, refined_50=1,
                    chosen_50=1 * (overlap(0.3) > 0.5), frames=11)
    assert figures == pytest.approx(expected, abs=1e-6)


def test_what_is_inspected_is_what_an_update_answers_and_nothing_is_followed(sequence, model):
    first, second = (cv2.imread(str(path)) for path in sequence.images[:2])
    answers = []
    for inspected in (False, True):
        tracker = Tracker(TrackerConfig(**QUICK), model)
        tracker.init(first, sequence.truth[0])
        if inspected:
            found = tracker.inspect(second, sequence.truth[0])
            tracker.inspect(first, np.array([10.0, 10.0, 80.0, 60.0]))
        answers.append(tracker.answer(second))
    assert answers[0].box.tolist() == answers[1].box.tolist() and answers[0].fused == answers[1].fused
    best = int(found.scores.argmax())
    assert found.scores[best] == pytest.approx(answers[0].fused)
    assert found.parts[best] == pytest.approx([answers[0].proposal, answers[0].identification,
                                               answers[0].discrimination])
    corners = found.window.to_frame(found.box)
    middle = (corners[:2] + corners[2:]) / 2
    assert middle.clip(0, (200, 160)) == pytest.approx(answers[0].box[:2] + answers[0].box[2:] / 2)
    with pytest.raises(RuntimeError, match='no target yet'):
        Tracker(TrackerConfig(**QUICK), model).inspect(second, sequence.truth[0])


def test_the_discriminator_learns_from_the_true_place_every_k_frames(sequence, model, monkeypatch):
    from cract_core.discriminator import Discriminator
    tracker, lessons, trained = Tracker(TrackerConfig(update_interval=3, **QUICK), model), [], []
    monkeypatch.setattr(Discriminator, 'remember', lambda self, phi, samples: lessons.append(samples))
    monkeypatch.setattr(Discriminator, 'update', lambda self, short, steps: trained.append(short))
    whole = dataclasses.replace(sequence, truth=np.array([[60.0 + 3 * i, 50.0 + 2 * i, 40.0, 40.0] for i in range(12)]))
    stages.run_stages(tracker, whole)
    assert len(lessons) == 3 and trained == [False] * 3     # after frames 3, 6 and 9
    # the target has moved by (3, 2) since the last box, which is the middle of the crop
    true = np.array([128.5, 128.5]) + np.array([3, 2]) * 257 / 160
    for samples in lessons:
        centers = (samples.positive[:, :2] + samples.positive[:, 2:]) / 2
        assert np.abs(np.median(centers, axis=0) - true).max() < 4


@pytest.fixture(scope='module')
def root(tmp_path_factory, sequence):
    """Two sequences of a bright square over a dark ground."""
    root = tmp_path_factory.mktemp('root')
    for seed, name in enumerate(('a', 'b')):
        folder, random = root / 'made' / name, np.random.default_rng(seed)
        (folder / 'img').mkdir(parents=True)
        patch, ground = random.integers(120, 255, (24, 24, 3)), random.integers(0, 60, (120, 160, 3))
        boxes = []
        for i in range(9):
            frame = ground.astype(np.uint8)
            frame[40:64, 50 + 2 * i:74 + 2 * i] = patch
            cv2.imwrite(str(folder / 'img' / f'{i}.png'), frame)
            boxes.append([50 + 2 * i, 40, 24, 24])
        write_boxes(folder / 'groundtruth.txt', np.array(boxes, float))
    return root


@pytest.fixture(scope='module')
def weights(tmp_path_factory, model):
    from cract_core.model import save_weights
    path = tmp_path_factory.mktemp('weights') / 'untrained.pt'
    save_weights(model, path)
    return path


def run(root, weights, path, *more):
    options = [f'--{name.replace("_", "-")}={value}' for name, value in QUICK.items()]
    assert cli.main(['eval', str(root), '--protocol', 'ope,stages', '--weights', str(weights), '--precision', 'fp32',
                     '--threads', '1', *options, '--json', str(path), *map(str, more)]) == 0
    return json.loads(path.read_text())


@pytest.fixture(scope='module')
def figures(root, weights, tmp_path_factory):
    path = tmp_path_factory.mktemp('figures') / 'first.json'
    return path, run(root, weights, path)


def test_the_figures_are_means_over_sequences_with_intervals(figures):
    _, report = figures
    assert set(stages.STAGES) == {'last', 'anchors', 'proposals', 'top', 'refined', 'chosen', 'by_identifier',
                                  'by_discriminator', 'by_coarse'}
    assert set(report['stages_sequences']) == {'made/a', 'made/b'} and report['stages']['frames'] == 16
    for key in (*stages.STAGES, 'gain', 'proposals_50', 'refined_50', 'chosen_50'):
        values = [one[key] for one in report['stages_sequences'].values()]
        assert report['stages'][key] == pytest.approx(np.mean(values))
        assert report['stages_intervals'][key] == pytest.approx([min(values), max(values)])     # of two sequences
    one = report['stages']
    assert one['anchors'] >= one['proposals'] >= one['top'] and one['refined'] >= one['chosen'] - 1e-3   # a mean of boxes
    assert one['gain'] == pytest.approx(one['refined'] - one['proposals'])
    assert one['last'] == pytest.approx((24 - 2) / (24 + 2))


def test_a_run_against_itself_differs_by_nothing(root, weights, figures, tmp_path, capsys):
    path, _ = figures
    report = run(root, weights, tmp_path / 'again.json', '--against', path)
    found = report['against']
    assert found['file'] == str(path) and found['tracker'] == 'cract'
    assert {'auc', 'off', 'stages.chosen', 'stages.gain'} <= set(found['differences'])
    assert all(one == dict(mean=0, low=0, high=0) for one in found['differences'].values())
    assert 'stages.chosen           +0.0000 (95 % interval +0.0000 to +0.0000): noise' in capsys.readouterr().out


def test_differences_are_those_of_the_same_sequences():
    def block(chosen, auc, off):
        names = [f'set/{i}' for i in range(len(auc))]
        return dict(intervals={}, sequences={name: dict(auc=a, off=o, frames=9) for name, a, o in zip(names, auc, off)},
                    stages=dict(every=1), stages_sequences={name: dict(chosen=c, refined=None)
                                                            for name, c in zip(names, chosen)})
    easy_and_hard = np.linspace(0.1, 0.9, 20)
    ours = block(easy_and_hard + 0.02, easy_and_hard - 0.05, easy_and_hard - 0.01)
    theirs = block([*easy_and_hard, 0.3], [*easy_and_hard, 0.3], [*easy_and_hard, 0.3])
    found = against.differences(ours, theirs)
    assert set(found) == {'auc', 'off', 'stages.chosen'}
    assert found['stages.chosen'] == pytest.approx((0.02, 0.02, 0.02))
    verdicts = {key: against.verdict(key, one) for key, one in found.items()}
    assert verdicts == {'stages.chosen': 'better', 'auc': 'worse', 'off': 'better'}


def test_what_cannot_be_compared_is_refused_before_the_run(root, weights, figures, tmp_path, capsys):
    path, report = figures

    def refused(other, *more):
        assert cli.main(['eval', str(root), '--weights', str(weights), '--against', str(other), *more]) == 2
        error = capsys.readouterr().err
        assert error.count('\n') == 1
        return error

    def changed(**changes):
        other = tmp_path / 'other.json'
        other.write_text(json.dumps({**report, **changes}))
        return other

    assert 'no file' in refused(tmp_path / 'nothing.json')
    for content in ('[]', '{}', '{"tracker": "cract"}', 'x'):
        (tmp_path / 'wrong.json').write_text(content)
        assert 'holds no figures of cract eval' in refused(tmp_path / 'wrong.json')
    assert 'none of the protocol stages for cract' in refused(changed(stages_sequences={}), '--protocol', 'stages')
    assert 'nothing of cract on made/b' in refused(
        changed(sequences={'made/a': report['sequences']['made/a']}), '--protocol', 'ope')
    assert 'look at one frame in 1: give --every 1 too' in refused(path, '--protocol', 'stages', '--every', '2')
    assert 'are of 9 frames of made/a, which has 33 here' in refused(path, '--repeat', '2')


def test_the_report_shows_stages_and_differences(root, weights, figures, tmp_path):
    path, first = figures
    run(root, weights, tmp_path / 'again.json', '--against', path, '--report', tmp_path / 'report')
    text = (tmp_path / 'report' / 'report.html').read_text()
    assert f'<td>{first["stages"]["chosen"]:.3f}<small>' in text and 'Against another run' in text
    assert '<td>stages.chosen</td><td>+0.0000<small>+0.0000 to +0.0000</small></td>' in text
    assert not (tmp_path / 'report' / 'results' / 'stages').exists()    # there are no boxes of a track


def test_a_kept_look_is_taken_up_again(sequence, root, weights, tmp_path, monkeypatch):
    spec = TrackerSpec('cract', TrackerConfig(weights=str(weights), precision='fp32', threads=1, **QUICK))
    job, store = Job(read_folders(root)[0], (spec,), every=2), Store(tmp_path)
    first = dict(execution.execute_stored('stages', [job], store))[0]['cract'].run
    monkeypatch.setattr(execution, 'run_job', None)
    again = dict(execution.execute_stored('stages', [job], store))[0]['cract'].run
    assert first.frames.tolist() == again.frames.tolist() == [2, 4, 6, 8]
    assert {stage: values.tolist() for stage, values in first.overlaps.items()} == {
        stage: values.tolist() for stage, values in again.overlaps.items()}
    assert store.load('stages', dataclasses.replace(job, every=1), spec) is None


def test_a_tracker_without_a_box_to_set_is_refused(root, capsys):
    assert cli.main(['eval', str(root), '--tracker', 'kcf', '--protocol', 'stages']) == 2
    assert 'the stages protocol hands over the last box, which kcf does not take' in capsys.readouterr().err


def test_a_peer_chooses_on_real_frames_as_it_tracks(cract_data):
    pytest.importorskip('onnxruntime', reason='needs ONNX Runtime: pip install "cract_ros[peers]"')
    from cract_core.evaluation.peers import NETWORK_FILES
    spec = TrackerSpec('nano3', TrackerConfig(threads=1),
                       tuple(str(cract_data / 'peers' / name) for name in NETWORK_FILES['nano3']))
    crossing = read_folders(cract_data / 'eval', only=('OTB/Crossing',))
    options = protocols.Options(protocols=('stages',), every=4)
    measured = protocols.measure((spec,), protocols.plan((spec,), crossing, [], options), options)
    figures = protocols.block(measured, 'nano3')['stages']
    assert figures['chosen'] == pytest.approx(0.76, abs=0.06) and figures['refined'] is None


def test_a_clip_made_longer_is_measured_as_one_long_run(root, tmp_path, capsys):
    path = tmp_path / 'figures.json'
    assert cli.main(['eval', str(root), '--tracker', 'kcf', '--threads', '1', '--repeat-to', '30', '--json',
                     str(path), '--results', str(tmp_path)]) == 0
    report = json.loads(path.read_text())
    assert (report['repeat'], report['repeat_to'], report['mean']['frames']) == (None, 30, 60)
    assert len((tmp_path / 'made' / 'a.txt').read_text().splitlines()) == 30
    for key in ('off', 'false_loss', 'frozen'):
        values = [one[key] for one in report['sequences'].values()]
        assert report['mean'][key] == np.mean(values) and len(report['intervals'][key]) == 2
    assert report['mean']['off'] < 0.1      # a bright square on a dark ground
    heads = capsys.readouterr().out.splitlines()[0].split()
    assert heads[:6] == ['sequence', 'frames', 'AUC', 'off', 'lost', 'frozen']
    for more, word in ((['--protocol', 'absence'], 'leave out other protocols'),
                       (['--benchmark', 'uav123'], 'leave out --benchmark')):
        assert cli.main(['eval', str(root), '--tracker', 'kcf', '--repeat', '2', *more]) == 2
        assert word in capsys.readouterr().err
