import dataclasses
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from cract_core.camera_motion import Motion
from cract_core.config import TrackerConfig
from cract_core.crop import template_window
from cract_core.model import load_weights
from cract_core.pose import Poses
from cract_core.runtime import Template
from cract_core.synthetic import generate
from cract_core.tracker import Estimate, Look, State, Target, Tracker, check_frame


@pytest.fixture(scope='module')
def clip():
    return list(generate(25, seed=3, size=(320, 240)))


@pytest.fixture(scope='module')
def model():
    return load_weights()


def overlap(a, b):
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / (a[2] * a[3] + b[2] * b[3] - common)


def run(clip, model, **changes) -> list[Estimate]:
    tracker = Tracker(TrackerConfig(**changes), model)
    tracker.init(clip[0].image, clip[0].box)
    return [tracker.update(frame.image) for frame in clip[1:]]


def test_it_follows_the_target(clip, model):
    estimates = run(clip, model)
    overlaps = [overlap(e.box, f.box) for e, f in zip(estimates, clip[1:]) if f.visible]
    assert np.mean(overlaps) > 0.5
    assert all(0 <= v <= 1 for e in estimates for v in (e.score, e.identification, e.discrimination, e.proposal))


def test_scores_are_fused_by_eq_9_and_10(clip, model):
    for e in run(clip[:4], model, alpha=0.3, beta=0.6):
        classification = 0.3 * e.identification + 0.7 * e.discrimination
        assert e.fused == pytest.approx(0.6 * classification + 0.4 * e.proposal, abs=1e-6)


def test_same_seed_same_track(clip, model):
    a, b = run(clip[:14], model, seed=5), run(clip[:14], model, seed=5)
    assert all(np.array_equal(p.box, q.box) and p.score == q.score for p, q in zip(a, b))


def test_discriminator_is_trained_every_k_frames_at_least(clip, model):
    estimates = run(clip[:14], model, update_interval=4)
    trained = [i for i, e in enumerate(estimates, 1) if e.updated]
    assert trained and max(np.diff([0, *trained])) <= 4


def test_a_training_that_was_put_off_comes_before_the_next_answer(clip, model):
    expected = run(clip[:14], model, update_interval=4)
    tracker = Tracker(TrackerConfig(update_interval=4), model)
    tracker.init(clip[0].image, clip[0].box)
    for number, (frame, same) in enumerate(zip(clip[1:14], expected)):
        found = tracker.answer(frame.image)
        assert np.array_equal(found.box, same.box) and found.updated == same.updated
        if number % 2:
            tracker.learn()


def test_updates_keep_a_distance(clip, model):
    """Whatever asks for them: with these scores every frame does."""
    estimates = run(clip[:14], model, update_interval=10, update_gap=3, learn_score=1.0)
    assert [i for i, e in enumerate(estimates, 1) if e.updated] == [3, 6, 9, 12]


def test_an_update_is_spread_over_two_frames(clip, model):
    tracker = Tracker(TrackerConfig(learn_score=0.0, lost_score=0.0, update_interval=3, update_gap=3), model)
    tracker.init(clip[0].image, clip[0].box)
    discriminator, done = tracker._target.discriminator, []
    for frame in clip[1:8]:
        remembered, layers = len(discriminator.memory), discriminator.layers.w
        tracker.update(frame.image)
        done.append((len(discriminator.memory) - remembered, discriminator.layers.w is not layers))
    assert [stored for stored, _ in done] == [0, 0, 1, 0, 0, 1, 0]
    assert {i for i, (_, trained) in enumerate(done) if trained} <= {3, 6} and done[3][1]


@pytest.mark.parametrize('learn_score, learned', [(0.0, True), (1.0, False)])
def test_nothing_of_the_target_is_learned_below_a_score(clip, model, learn_score, learned):
    tracker = Tracker(TrackerConfig(learn_score=learn_score, lost_score=0.0, update_interval=1), model)
    tracker.init(clip[0].image, clip[0].box)
    assert tracker.answer(clip[1].image).updated
    lesson = tracker._target.lesson
    assert (lesson.box is not None) == learned and lesson.short_term != learned


@pytest.mark.parametrize('box', [(1, 2, float('nan'), 4), (10, 10, 0, 5), (900, 900, 20, 20), 'no box', (1, 2, 3)])
def test_a_bad_box_keeps_the_old_target(clip, model, box):
    tracker = Tracker(TrackerConfig(), model)
    tracker.init(clip[0].image, clip[0].box)
    with pytest.raises(ValueError):
        tracker.init(clip[0].image, box)
    assert overlap(tracker.update(clip[1].image).box, clip[1].box) > 0.4


@pytest.mark.parametrize('frame', [None, np.zeros((20, 30), np.uint8), np.zeros((20, 30, 3), np.float32),
                                   np.zeros((20, 30, 4), np.uint8), np.zeros((0, 0, 3), np.uint8)])
def test_a_bad_frame_changes_nothing(clip, model, frame):
    tracker = Tracker(TrackerConfig(), model)
    tracker.init(clip[0].image, clip[0].box)
    expected = run(clip[:2], model)[0]
    with pytest.raises(ValueError) as caught:
        tracker.update(frame)
    assert '\n' not in str(caught.value)
    assert np.array_equal(tracker.update(clip[1].image).box, expected.box)


def test_frames_may_change_their_size_and_layout(clip, model):
    tracker = Tracker(TrackerConfig(), model)
    tracker.init(clip[0].image, clip[0].box)
    plain = tracker.update(clip[1].image)
    tracker.init(clip[0].image, clip[0].box)
    padded = np.zeros((240, 400, 3), np.uint8)[:, :320]
    padded[:] = clip[1].image
    assert np.allclose(tracker.update(padded).box, plain.box)
    assert np.isfinite(tracker.update(np.zeros((8, 8, 3), np.uint8)).box).all()
    assert np.isfinite(tracker.update(clip[2].image).box).all()


def test_a_target_at_the_rim_and_one_larger_than_the_frame(model):
    frame = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    tracker = Tracker(TrackerConfig(), model)
    for box in ((-30, -20, 60, 50), (150, 110, 40, 40), (-50, -50, 400, 400), (3.3, 4.4, 1.0, 1.0)):
        tracker.init(frame, box)
        for _ in range(3):
            assert np.isfinite(tracker.update(frame).box).all()


def test_before_init_and_after_reset(clip, model):
    tracker = Tracker(TrackerConfig(), model)
    with pytest.raises(RuntimeError, match='init'):
        tracker.update(clip[0].image)
    tracker.init(clip[0].image, clip[0].box)
    assert tracker.initialized
    tracker.reset()
    assert not tracker.initialized


def test_the_target_gone_is_reported_as_lost(clip, model):
    tracker = Tracker(TrackerConfig(), model)
    tracker.init(clip[0].image, clip[0].box)
    noise = np.random.default_rng(0).integers(0, 255, clip[0].image.shape, np.uint8)
    states = [tracker.update(noise).state for _ in range(12)]
    assert states[-1] is State.LOST


def states(tracker: Tracker, target: Target, rows) -> str:
    """First letters of the states after each (x of the best box, Eq. 10, nu, tau)."""
    seen = []
    for x, fused, nu, tau in rows:
        tracker._judge(target, np.array([x, 10.0, x + 20, 30]), fused, nu, tau)
        seen.append(target.state.value[0])
    return ''.join(seen)


def by_hand(**changes) -> tuple[Tracker, Target]:
    """Slope 10 and offset -5: the score of Eq. 10 = 0.5 is 0.5, of 0.4 is 0.27, of 0.3 is 0.12."""
    poses = Poses(np.zeros((360, 480, 3), np.uint8), template_window((20, 20), 20, 20), np.array([20.0, 20]), (0, 0, 0))
    tracker = object.__new__(Tracker)
    tracker.config = TrackerConfig(score_slope=10.0, score_offset=-5.0, tracking_score=0.6, uncertain_score=0.4,
                                   lost_score=0.2, lost_frames=3, reacquire_score=0.4, reacquire_identification=0.6,
                                   reacquire_discrimination=0.4, reacquire_frames=2).replace(**changes)
    return tracker, Target(np.array([10.0, 10, 20, 20]), None, None, (0, 0, 0), None, (480, 360), poses)


def test_uncertainty_ends_at_a_higher_score_than_it_begins():
    rows = [(10, fused, 1, 1) for fused in (0.9, 0.5, 0.4, 0.5, 0.6, 0.5)]
    assert states(*by_hand(), rows) == 'ttuutt'


def test_low_scores_in_a_row_lose_the_target_where_it_was_last_seen():
    tracker, target = by_hand()
    tracker._move(target, np.array([40.0, 10, 60, 30]), 1.0, np.zeros((100, 100, 3), np.uint8))
    low = (10, 0.2, 0, 0)
    assert states(tracker, target, [low, low, (10, 0.4, 0, 0), low, low]) == 'uuuuu'
    tracker._move(target, np.array([0.0, 70, 20, 90]), 1.0, np.zeros((100, 100, 3), np.uint8))
    assert states(tracker, target, [low]) == 'l'
    assert tuple(target.seen[0]) == (50, 20) == tuple(target.redetection.center)


def test_a_sudden_fall_of_the_score_loses_the_target_and_a_slow_one_does_not():
    tracker, target = by_hand(lost_score=0.0, fall_ratio=0.25, fall_frames=5)
    good, low = (10, 0.9, 1, 1), (10, 0.3, 0, 0)  # scores 0.98 and 0.12
    assert states(tracker, target, [good] * 4 + [low] * 4 + [good] + [low] * 5) == 'tttt' 'uuuu' 't' 'uuuul'
    tracker, target = by_hand(lost_score=0.0, fall_ratio=0.25, fall_frames=5)
    slowly = [(10, fused, 1, 1) for fused in np.linspace(0.9, 0.3, 60)]
    assert 'l' not in states(tracker, target, slowly + [low] * 20)


def test_a_fallen_score_is_measured_anew_after_the_target_was_taken_back():
    tracker, target = by_hand(lost_score=0.0, reacquire_score=0.1, fall_ratio=0.25)
    assert states(tracker, target, [(10, 0.9, 1, 1)] + [(10, 0.3, 0, 0)] * 5)[-1] == 'l'
    assert states(tracker, target, [(30, 0.35, 0.7, 0.7)] * 12) == 'l' + 'u' * 11


def test_nothing_of_the_target_is_learned_from_a_fallen_score(clip, model):
    tracker = Tracker(TrackerConfig(learn_score=0.0, lost_score=0.0, fall_ratio=1.0, update_interval=1), model)
    tracker.init(clip[0].image, clip[0].box)
    tracker._target.presence._usual = 1.0
    assert tracker.answer(clip[1].image).updated
    assert tracker._target.lesson.box is None and tracker._target.lesson.short_term


def seek(tracker: Tracker, target: Target) -> None:
    """Its hypothesis is given up: all looks are at other places."""
    target.lose()
    target.redetection._strength = 0.0
    tracker._window(target)


def test_a_lost_target_is_taken_back_when_all_agree_on_one_place_twice():
    tracker, target = by_hand()
    seek(tracker, target)
    assert states(tracker, target, [
        (30, 0.7, 0.9, 0.3), (30, 0.7, 0.9, 0.3),    # the discriminator does not agree
        (30, 0.7, 0.5, 0.9), (30, 0.7, 0.5, 0.9),    # nor the identifier
        (30, 0.48, 0.9, 0.9), (80, 0.7, 0.9, 0.9),   # two places
        (81, 0.48, 0.7, 0.5)]) == 'llllllu'
    assert target.redetection is None
    assert tracker._judge(target, np.array([81, 10.0, 101, 30]), 0.2, 0, 0) == pytest.approx(1 / (1 + np.exp(3)))


def test_a_followed_hypothesis_that_the_discriminator_knows_goes_on_whatever_the_identifier_says():
    rows = [(10 + x, 0.3, 0.0, 0.8) for x in range(5)]
    tracker, target = by_hand(continue_frames=4, lost_score=0.0)
    target.lose()
    assert states(tracker, target, rows) == 'llllu'
    tracker, target = by_hand(continue_frames=4, lost_score=0.0)
    target.lose()
    assert states(tracker, target, rows[:3] + [(200, 0.3, 0.0, 0.8)] + rows[3:]) == 'llllll'    # a jump
    tracker, target = by_hand(continue_frames=4, continue_discrimination=0.9, lost_score=0.0)
    target.lose()
    assert states(tracker, target, rows) == 'lllll'


def test_a_lost_target_is_followed_on_as_a_hypothesis_until_nothing_speaks_for_it():
    tracker, target = by_hand()
    target.lose()
    frame, follow = np.zeros((360, 480, 3), np.uint8), []
    for step in range(60):
        tracker._window(target)
        follow.append(target.redetection.following)
        tracker._judge(target, np.array([10.0 + step, 10, 30 + step, 30]), 0.1, 0.0, 0.0)
        if not target.seeking:
            tracker._move(target, np.array([10.0 + step, 10, 30 + step, 30]), 0.1, frame)
    assert follow[:6] == [True, False] * 3 and not any(follow[-10:])
    assert tuple(target.center) == (20, 20)           # where it was seen last


def test_a_lost_box_is_never_told_with_a_high_score():
    tracker, target = by_hand()
    target.lose()
    assert tracker._judge(target, np.array([30, 10.0, 50, 30]), 0.9, 1, 1) == tracker.config.lost_score


def test_a_lost_target_is_searched_in_the_whole_frame_from_the_last_box_outwards():
    tracker, target = by_hand()
    target.center = target.seen[0][:] = np.array([100.0, 80.0])
    side = tracker._window(target).side
    assert tracker._window(target).center == (100, 80)
    target.lose()
    target.redetection._strength = 0.0
    windows = [tracker._window(target) for _ in range(200)]
    assert all(w.center == (100, 80) for w in windows[::2])
    assert [round(w.side / side, 3) for w in windows[:8:2]] == [1, 1.25, 1.5, 1]
    covered = np.zeros((360, 480), bool)
    for window in windows[1::2]:
        x, y = (int(max(0, c - window.side / 2)) for c in window.center)
        covered[y:int(window.center[1] + window.side / 2), x:int(window.center[0] + window.side / 2)] = True
    assert covered.all()
    distances = [np.hypot(w.center[0] - 100, w.center[1] - 80) for w in windows[1::2]]
    assert distances[0] < distances[5] < max(distances)


def test_a_candidate_is_looked_at_before_the_scan_goes_on():
    tracker, target = by_hand()
    seek(tracker, target)
    states(tracker, target, [(300, 0.9, 1, 1)])
    assert tracker._window(target).center == (310, 20)


@pytest.mark.parametrize('lost', [False, True])
def test_a_stream_of_another_size_rescales_what_is_known_in_pixels(lost):
    tracker, target = by_hand()
    if lost:
        target.lose()
    tracker._fit(target, np.zeros((180, 240, 3), np.uint8))
    assert tuple(target.center) == (10, 10) == tuple(target.seen[0]) and tuple(target.size) == (10, 10)
    assert not lost or tuple(target.redetection.center) == (10, 10)
    tracker._fit(target, np.zeros((240, 240, 3), np.uint8))     # another aspect: another picture
    assert tuple(target.center) == (10, 10)
    tracker._fit(target, np.zeros((480, 480, 3), np.uint8))
    assert tuple(target.center) == (20, 20)


def test_a_recent_view_is_taken_only_where_nothing_is_in_doubt(clip, model):
    for changes, taken in ((dict(view_interval=3, view_score=0.0, view_agreement=0.0, tracking_score=0.0, uncertain_score=0.0,
                                 lost_score=0.0, fall_ratio=0.0), True), (dict(view_interval=3, view_score=1.0), False)):
        tracker = Tracker(TrackerConfig(**changes), model)
        tracker.init(clip[0].image, clip[0].box)
        first = tracker._target.template.identify_term.copy()
        assert np.array_equal(first[0], first[1])
        for frame in clip[1:10]:
            tracker.update(frame.image)
        later = tracker._target.template.identify_term
        assert np.array_equal(later[0], first[0]) and np.array_equal(later[1], first[1]) != taken


def test_a_detector_gives_back_the_lost_target_and_nothing_else(clip, model):
    tracker = Tracker(TrackerConfig(), model)
    tracker.init(clip[0].image, clip[0].box)
    other = np.array([5.0, 5, *clip[0].box[2:]])
    boxes = np.stack([other, clip[1].box + [2, -1, 1, 0]])
    assert tracker.consider(clip[1].image, boxes) is None               # it is not lost
    target = tracker._target
    target.center = np.array([20.0, 20.0])
    target.lose()
    assert tracker.consider(clip[1].image, other[None]) is None and target.state is State.LOST
    estimate = tracker.consider(clip[1].image, boxes)
    assert estimate.state is not State.LOST and overlap(estimate.box, clip[1].box) > 0.5
    with pytest.raises(ValueError):
        tracker.consider(clip[1].image, np.full((1, 4), np.nan))


def test_live_parameters_change_and_others_do_not(model):
    tracker = Tracker(TrackerConfig(), model)
    tracker.configure(alpha=0.9)
    assert tracker.config.alpha == 0.9
    with pytest.raises(ValueError, match='num_proposals'):
        tracker.configure(num_proposals=3)
    with pytest.raises(ValueError, match='alpha'):
        tracker.configure(alpha=1.5)
    assert tracker.config.alpha == 0.9


@pytest.mark.parametrize('values, word', [
    (dict(alpha=1.1), 'alpha'), (dict(num_proposals=0), 'num_proposals'), (dict(num_proposals=2.5), 'num_proposals'),
    (dict(device='tpu'), 'device'), (dict(beta=float('nan')), 'beta'), (dict(threads=True), 'threads'),
    (dict(lost_score=0.6, uncertain_score=0.5), 'lost_score')])
def test_wrong_parameters_are_refused(values, word):
    with pytest.raises(ValueError, match=word):
        TrackerConfig(**values)


def test_unknown_parameters_are_refused():
    with pytest.raises(ValueError, match='alhpa'):
        TrackerConfig.from_mapping({'alhpa': 0.4})


def test_every_parameter_has_a_text_and_a_range_or_choices():
    for field in dataclasses.fields(TrackerConfig):
        meta = field.metadata
        assert meta['text'], field.name
        assert isinstance(field.default, str) or meta['minimum'] <= field.default <= meta['maximum'], field.name


def test_cuda_is_refused_where_there_is_none():
    import torch
    if torch.cuda.is_available():
        pytest.skip('this machine has CUDA')
    with pytest.raises(ValueError, match='CUDA'):
        Tracker(TrackerConfig(device='cuda'))


def test_check_frame_accepts_a_view():
    assert check_frame(np.zeros((10, 20, 3), np.uint8)[:, ::-1]).shape == (10, 20, 3)


def shifted(image: np.ndarray, x: int, y: int) -> np.ndarray:
    return cv2.warpAffine(image, np.array([[1.0, 0, x], [0, 1.0, y]]), image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


def test_a_jump_of_the_camera_moves_the_search_region(clip, model):
    box = clip[0].box
    x = round(1.5 * np.sqrt(box[2] * box[3]))
    x = x if box[0] + box[2] + x < 320 else -x
    tracker = Tracker(TrackerConfig(), model)
    tracker.init(clip[0].image, box)
    estimate = tracker.update(shifted(clip[0].image, x, 3))
    assert estimate.motion.shift == pytest.approx([x, 3], abs=0.5) and estimate.motion.scale == pytest.approx(1, abs=0.01)
    assert overlap(estimate.box, box + [x, 3, 0, 0]) > 0.6
    assert estimate.score > 0.5
    tracker.configure(camera_motion='off')
    assert tracker.update(clip[0].image).motion is None
    tracker.configure(camera_motion='on')
    assert tracker.update(clip[0].image).motion is None         # begins anew, not where it was switched off
    assert tracker.update(clip[0].image).motion.shift == pytest.approx([0, 0], abs=0.1)


def test_all_places_move_with_the_picture():
    _, target = by_hand()
    turn = Motion(np.array([[0.0, -2], [2, 0]]), np.array([100.0, 10]))      # by 90 degrees, twice as large
    target.velocity = np.array([1.0, 0])
    target.size = target.size * (1, 0.5)
    target.carry(turn)
    assert tuple(target.center) == (60, 50) == tuple(target.seen[0]) and target.turn == pytest.approx(np.pi / 2)
    assert tuple(target.velocity) == (0, 2) and target.size == pytest.approx([40, 20])   # its first box was a square
    target.lose()
    target.redetection._sought.box = np.array([0.0, 0, 10, 20])
    target.carry(turn)
    for size, expected in ((target.size, [80, 40]), (target.seen[1], [80, 80]), (target.redetection.size, [80, 80])):
        assert size == pytest.approx(expected)
    assert tuple(target.redetection.center) == (0, 130) and tuple(target.velocity) == (0, 0)
    assert target.redetection._sought.box == pytest.approx([70, 0, 90, 40])
    for _ in range(20):
        target.carry(turn)
    assert all((size <= 480).all() for size in (target.size, target.seen[1], target.redetection.size))


def test_a_steady_motion_is_expected_to_go_on():
    tracker, target = by_hand(steadiness=0.0, velocity_rate=0.5)
    for frame in range(1, 30):
        target.center, target.moving = target.center + target.velocity, True
        tracker._move(target, np.array([10.0, 10, 30, 30]) + 3 * frame, 1.0, np.zeros((360, 480, 3), np.uint8))
    assert target.velocity == pytest.approx([3, 3], abs=1e-3)
    target.lose()
    assert tuple(target.velocity) == (0, 0) and not target.moving


@pytest.mark.parametrize('step, followed', [(0.05, 0.01), (0.2, 0.1), (0.4, 0.4), (8.0, 8.0)])
def test_a_small_step_of_the_centre_is_followed_in_part_only(step, followed):
    tracker, target = by_hand(steadiness=0.02)      # of a size of 20: 0.4 pixels
    tracker._move(target, np.array([10.0 + step, 10, 30 + step, 30]), 0.5, np.zeros((360, 480, 3), np.uint8))
    assert target.center == pytest.approx([20 + followed, 20])


def test_a_still_picture_gives_a_steady_box(clip, model):
    def tremor(**changes) -> float:
        random, centers, tracker = np.random.default_rng(0), [], Tracker(TrackerConfig(**changes), model)
        tracker.init(clip[0].image, clip[0].box)
        for _ in range(24):
            noisy = np.clip(clip[0].image + random.normal(0, 1, clip[0].image.shape), 0, 255).astype(np.uint8)
            box = tracker.update(noisy).box
            centers.append(box[:2] + box[2:] / 2)
        return float(np.sqrt((np.diff(centers[10:], axis=0) ** 2).sum(1).mean()))
    assert tremor() < 0.5 * tremor(steadiness=0.0)


class Turning:
    """Networks that name the template by its step and score what they are told. knows: step -> nu+."""

    def __init__(self, poses: Poses, knows: dict):
        self.knows, self.asked = knows, []
        self._steps = {poses.view(step)[0].tobytes(): step for step in range(12)}

    def template(self, crop, box):
        self.asked.append(self._steps[crop.tobytes()])
        return named(self.asked[-1])

    def features(self, view):
        return 'phi of a view'

    def refine(self, phi, proposals, template, classifier):
        return None, np.array([[0, self.knows.get(int(step), 0.0)] for step in template.identify_term[:, 0]]), None


def named(step: int) -> Template:
    return Template(*(np.full((1, 1), float(step)),) * 4)


def turning(knows: dict, **changes) -> tuple[Tracker, Target, Look]:
    tracker, target = by_hand(**changes)
    scene = np.random.default_rng(0).integers(0, 255, (360, 480, 3)).astype(np.uint8)
    target.poses = Poses(scene, template_window((200, 200), 20, 20), np.array([20.0, 20]), (0, 0, 0))
    target.poses.made[0], target.template = named(0), named(0).beside(named(99))
    target.discriminator = SimpleNamespace(classifier=None)
    tracker.nets = Turning(target.poses, knows)
    return tracker, target, SimpleNamespace(phi=None, proposals=None, best=1)


@pytest.mark.parametrize('degrees, knows, step', [
    (90, {0: 0.3, 3: 0.6}, 3), (90, {0: 0.6, 3: 0.3}, 0), (15, {0: 0.1, 1: 0.9}, 0), (-170, {6: 0.2}, 6)])
def test_the_template_turns_with_the_camera_where_the_identifier_agrees(degrees, knows, step):
    tracker, target, look = turning(knows)
    target.turn = np.radians(degrees)
    tracker._turn_template(target, look)
    assert target.poses.step == step and target.template.classify == step
    assert target.template.identify_term[:, 0].tolist() == [step, 99]        # the recent view stays
    assert (target.lesson is not None) == (step != 0)


def test_a_turned_template_is_made_once():
    tracker, target, look = turning({0: 0.1, 3: 0.9})
    for degrees in (90, 0, 90, 0, 90):
        target.turn = np.radians(degrees)
        tracker._turn_template(target, look)
    assert tracker.nets.asked == [3]


@pytest.mark.parametrize('state, knows, changes, step', [
    (State.UNCERTAIN, {0: 0.1, 6: 0.9}, {}, 6), (State.UNCERTAIN, {0: 0.1, 6: 0.4}, {}, 0),
    (State.TRACKING, {0: 0.1, 6: 0.9}, {}, 0), (State.LOST, {0: 0.1, 6: 0.9}, {}, 0),
    (State.UNCERTAIN, {0: 0.1, 6: 0.9}, dict(guess_identification=1.0), 0),
    (State.UNCERTAIN, {0: 0.1, 6: 0.9}, dict(template_turn=180.0), 0)])
def test_other_turns_are_tried_for_an_uncertain_target_only(state, knows, changes, step):
    tracker, target, look = turning(knows, **changes)
    target.presence.state = state
    for _ in range(12):
        tracker._turn_template(target, look)
    assert target.poses.step == step and target.turn == pytest.approx(2 * np.pi * step / 12)
