"""The target between images, with a tracker whose answers are written down beforehand."""
from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, Detection2DArray

from cract_core.config import TrackerConfig
from cract_core.tracker import State
from cract_ros import conversions, follower
from cract_ros.follower import Follower
from cract_ros.history import FrameHistory
from cract_ros.msg import TrackState
from node_harness import image

BOX = np.array([10.0, 20.0, 30.0, 16.0])


class Log:
    def __init__(self):
        self.lines = []

    def warning(self, text):
        self.lines.append(text)

    error = warning


def estimate(box, state: State) -> SimpleNamespace:
    return SimpleNamespace(box=box, score=0.7, state=state, identification=0.6, discrimination=0.5, proposal=0.4)


class ScriptedTracker:
    """Answers with the states it was given, one a frame; the last one for ever. Notes the frames it has seen."""

    def __init__(self, *states: State, device: str = 'cpu', fails: bool = False):
        self.states, self.device, self.fails = list(states) or [State.TRACKING], device, fails
        self.config = TrackerConfig()
        self.initialized = False
        self.seen: list[tuple[str, int]] = []  # what was called, number painted into the frame

    def init(self, frame, box):
        self._see('init', frame)
        self.initialized, self.box = True, np.array(box)

    def answer(self, frame):
        self._see('answer', frame)
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return estimate(self.box + [1, 0, 0, 0], state)

    def consider(self, frame, boxes):
        self._see('consider', frame)
        found = [box for box in boxes if box[0] == 50]  # this is the target
        return estimate(found[0], State.UNCERTAIN) if found else None

    def reset(self):
        self.initialized = False

    def _see(self, call, frame):
        if self.fails:
            raise RuntimeError('CUDA out of memory')
        self.seen.append((call, int(frame[0, 0, 0])))


class Scene:
    """A follower and its history; image number n shows n and is stamped n seconds."""

    def __init__(self, tracker, cpu_fallback: bool = False):
        self.history, self.log, self.tracker = FrameHistory(100, 10**9), Log(), tracker
        self.follower = Follower(tracker, self.history, cpu_fallback, self.log)

    def show(self, *numbers: int):
        for number in numbers:
            message = image(np.full((48, 64, 3), number, np.uint8))
            message.header.stamp.sec = number
            self.history.add(message)

    def init(self, number: int = 0, budget: float = 100.0, target_id: str = 'car') -> str:
        header = Header()
        header.stamp.sec = number
        return self.follower.init(BOX, header, target_id, budget)


def test_a_box_of_an_old_image_is_followed_through_all_later_ones_in_order():
    scene = Scene(ScriptedTracker())
    scene.show(1, 2, 3, 4, 5)
    assert scene.follower.answer().header.stamp.sec == 5  # the newest was shown before the box came
    text = scene.init(2)
    assert text == "following 'car' from x 10, y 20, w 30, h 16 in the image stamped 2.000000000, " \
                   'caught up through 2 later images'
    assert scene.follower.answer().header.stamp.sec == 5
    assert scene.tracker.seen == [('init', 2), ('answer', 3), ('answer', 4), ('answer', 5)]
    assert scene.follower.answer() is None


def test_a_box_of_the_newest_image_needs_no_catching_up():
    scene = Scene(ScriptedTracker())
    scene.show(1, 2)
    assert scene.init().endswith('in the image stamped 2.000000000')
    assert scene.follower.answer() is None
    scene.show(3, 4)
    assert scene.follower.answer().header.stamp.sec == 4
    assert scene.tracker.seen == [('init', 2), ('answer', 4)]


def test_a_box_of_an_image_that_was_lost_on_the_way_is_followed_from_the_nearest():
    scene = Scene(ScriptedTracker())
    scene.show(1, 2, 4)
    scene.history.tolerance = 0.05
    header = Header()
    header.stamp.sec, header.stamp.nanosec = 1, 980_000_000
    text = scene.follower.init(BOX, header, 'car', 100.0)
    assert 'in the image stamped 2.000000000, the nearest to the stamp that was given (20.0 ms), caught up' in text or \
        text.endswith('in the image stamped 2.000000000, the nearest to the stamp that was given (20.0 ms)')
    assert scene.tracker.seen == [('init', 2)]
    with pytest.raises(ValueError, match='is not among them'):
        scene.init(3)


def test_a_lost_target_is_told_where_it_would_be_and_a_followed_one_is_not():
    scene = Scene(ScriptedTracker(*[State.TRACKING] * 4, State.LOST))
    for number in range(20):  # a fifth of a second apart
        message = image(np.full((48, 64, 3), number, np.uint8))
        message.header.stamp.sec, message.header.stamp.nanosec = 5 + number // 5, number % 5 * 200_000_000
        scene.history.add(message)
        if not number:
            scene.follower.init(BOX, Header(), 'car', 100.0)
            continue
        scene.tracker.box = BOX + [2 * min(number, 4) - 1, 0, 0, 0]  # the tracker answers one pixel further right
        answer = scene.follower.answer()
        if number <= 4:
            assert answer.state == 'tracking' and answer.predicted is None
        else:
            assert answer.state == 'lost'
            np.testing.assert_allclose(answer.predicted, BOX + [2 * min(number, 14), 0, 0, 0], atol=1e-6)  # two seconds
            assert answer.seconds_since_seen == pytest.approx(0.2 * (number - 4))
    box = conversions.to_prediction(answer)
    assert box.header == answer.header and box.id == 'car' and not box.results
    np.testing.assert_allclose(conversions.box_from_message(box.bbox), answer.predicted)


def test_an_image_that_is_no_picture_is_left_out_on_the_way():
    scene = Scene(ScriptedTracker())
    scene.show(1, 2)
    scene.history.newest().message.step = 1
    scene.show(3, 4)
    scene.init(1)
    assert scene.tracker.seen == [('init', 1), ('answer', 3)]
    assert 'step is 1' in scene.log.lines[0]


def test_an_image_that_is_no_picture_is_refused_once():
    scene = Scene(ScriptedTracker())
    scene.show(1)
    scene.history.newest().message.step = 1
    with pytest.raises(ValueError, match='step is 1'):
        scene.follower.answer()
    assert scene.follower.answer() is None


def test_a_refused_box_leaves_target_and_images_as_they_were():
    scene = Scene(ScriptedTracker())
    scene.show(1, 2)
    scene.init(2, target_id='first')
    with pytest.raises(ValueError, match='is too old'):
        Scene.init(scene, -5)
    scene.show(3)
    assert scene.follower.answer().target_id == 'first'
    assert scene.tracker.seen == [('init', 2), ('answer', 3)]


def test_time_since_the_target_was_seen_counts_arrived_images_and_their_stamps():
    lost = State.LOST
    scene = Scene(ScriptedTracker(State.TRACKING, lost, lost, lost, State.UNCERTAIN))
    scene.show(1)
    scene.init()
    counted = []
    for numbers in ([2], [3], [4, 5], [1], [2]):  # one is passed over; then the clock jumps back
        scene.show(*numbers)
        answer = scene.follower.answer()
        counted.append((answer.state, answer.frames_since_seen, answer.seconds_since_seen))
    assert counted == [
        ('tracking', 0, 0.0), ('lost', 1, 1.0), ('lost', 3, 3.0), ('lost', 4, 3.0), ('uncertain', 0, 0.0)]


def test_a_pause_leaves_images_alone_and_a_new_target_ends_it():
    scene = Scene(ScriptedTracker())
    scene.show(1)
    scene.init()
    scene.follower.pause(True)
    scene.show(2)
    answer = scene.follower.answer()
    assert (answer.state, answer.estimate, answer.target_id) == ('paused', None, '')
    scene.follower.pause(False)
    scene.show(3)
    assert scene.follower.answer().state == 'tracking'
    scene.follower.pause(True)
    scene.init(2)
    assert scene.follower.answer().state == 'tracking'
    assert scene.tracker.seen == [('init', 1), ('answer', 3), ('init', 2), ('answer', 3)]


def test_reset_forgets_the_target():
    scene = Scene(ScriptedTracker())
    assert scene.follower.reset() is False
    scene.show(1)
    scene.init()
    assert scene.follower.reset() is True
    scene.show(2)
    assert scene.follower.answer().state == 'no target'


# Candidates

def considered(scene: Scene, number: int, *boxes) -> bool:
    header = Header()
    header.stamp.sec = number
    return scene.follower.consider(header, np.array(boxes, float).reshape(-1, 4), budget=100.0)


def test_a_lost_target_is_taken_back_in_the_image_of_the_candidates_and_caught_up_with():
    scene = Scene(ScriptedTracker(State.LOST, State.TRACKING))
    scene.show(1)
    scene.init()
    scene.show(2, 3, 4, 5)
    assert scene.follower.answer().state == 'lost'
    assert not considered(scene, 3, (5, 5, 9, 9))
    assert considered(scene, 3, (5, 5, 9, 9), (50, 5, 9, 9))
    answer = scene.follower.answer()
    assert (answer.header.stamp.sec, answer.state, answer.frames_since_seen) == (5, 'tracking', 0)
    assert scene.tracker.seen[2:] == [('consider', 3), ('consider', 3), ('answer', 4), ('answer', 5)]


@pytest.mark.parametrize('state', [State.TRACKING, State.UNCERTAIN])
def test_candidates_never_change_a_target_that_is_followed(state):
    scene = Scene(ScriptedTracker(state))
    scene.show(1)
    scene.init()
    scene.show(2)
    scene.follower.answer()
    assert not considered(scene, 2, (50, 5, 9, 9))
    assert scene.tracker.seen == [('init', 1), ('answer', 2)]


def test_candidates_of_an_image_that_is_not_kept_are_refused():
    scene = Scene(ScriptedTracker(State.LOST))
    scene.show(1)
    scene.init()
    scene.show(2)
    scene.follower.answer()
    with pytest.raises(ValueError, match='has not arrived'):
        considered(scene, 7, (50, 5, 9, 9))


def test_candidates_become_boxes():
    one = Detection2D(bbox=conversions.box_to_message(BOX))
    np.testing.assert_array_equal(conversions.boxes_from_message(Detection2DArray(detections=[one, one])), [BOX, BOX])
    assert conversions.boxes_from_message(Detection2DArray()).shape == (0, 4)


def test_a_bad_box_among_candidates_leaves_the_good_ones():
    rows = [(np.nan, 5, 9, 9, 0), (5, 5, 0, 9, 0), (50, 5, 9, 9, 0), (5, 5, 9, 9, 0.3), (5, np.inf, 9, 9, 0),
            (900, 5, 9, 9, 0), (5, 5, 9, -4, 0), (1e9, 5, 9, 9, 0)]
    message = Detection2DArray()
    for x, y, w, h, theta in rows:
        box = conversions.box_to_message((x, y, w, h))
        box.center.theta = float(theta)
        message.detections.append(Detection2D(bbox=box))
    scene, left_out = Scene(ScriptedTracker(State.LOST, State.TRACKING)), []
    scene.show(1)
    scene.init()
    scene.show(2)
    assert scene.follower.answer().state == 'lost'
    boxes = conversions.boxes_from_message(message, left_out)
    message.header.stamp.sec = 2
    assert scene.follower.consider(message.header, boxes, 100.0, left_out)
    assert len(left_out) == len(rows) - 1 and 'outside' in left_out[-1]


# The GPU fails

def test_the_target_goes_on_on_the_cpu_from_where_it_was_seen_last(monkeypatch):
    gpu, cpu = ScriptedTracker(device='cuda:0'), ScriptedTracker()
    made = []
    monkeypatch.setattr(follower, 'load_tracker', lambda config, *_: made.append(config.device) or cpu)
    scene = Scene(gpu, cpu_fallback=True)
    scene.show(1)
    scene.init()
    scene.show(2)
    scene.follower.answer()
    gpu.fails = True
    scene.show(3)
    assert scene.follower.answer().state == 'tracking'
    assert made == ['cpu'] and scene.follower.tracker is cpu
    assert cpu.seen == [('init', 2), ('answer', 3)]
    np.testing.assert_array_equal(cpu.box, BOX + [1, 0, 0, 0])
    assert 'cuda:0 failed: CUDA out of memory' in scene.log.lines[0]


def test_a_target_can_be_given_while_the_gpu_fails(monkeypatch):
    cpu = ScriptedTracker()
    monkeypatch.setattr(follower, 'load_tracker', lambda *_: cpu)
    scene = Scene(ScriptedTracker(device='cuda:0', fails=True), cpu_fallback=True)
    scene.show(1)
    scene.init()
    assert cpu.seen == [('init', 1)]


@pytest.mark.parametrize('device, allowed', [('cuda:0', False), ('cpu', True)])
def test_without_leave_or_on_the_cpu_the_failure_is_raised(device, allowed):
    scene = Scene(ScriptedTracker(device=device, fails=True), cpu_fallback=allowed)
    scene.show(1)
    with pytest.raises(RuntimeError, match='out of memory'):
        scene.init()


# The messages

def answer_of(state: State):
    scene = Scene(ScriptedTracker(state))
    scene.show(1)
    scene.init()
    scene.show(2)
    return scene.follower.answer()


def test_the_state_message_says_where_the_target_is_in_terms_of_the_image():
    message = conversions.to_state(answer_of(State.UNCERTAIN), age=0.25)
    assert (message.state, message.id, message.header.stamp.sec) == (TrackState.UNCERTAIN, 'car', 2)
    # the box 11, 20, 30, 16 in an image of 64 x 48: centre 26, 28
    assert message.error_x == pytest.approx((26 - 32) / 32) and message.error_y == pytest.approx((28 - 24) / 24)
    assert message.relative_size == pytest.approx((30 * 16 / (64 * 48)) ** 0.5)
    assert [message.score, message.identification, message.discrimination, message.proposal] == pytest.approx(
        [0.7, 0.6, 0.5, 0.4])
    assert message.age == 0.25 and message.processing_time > 0


def test_a_list_of_detections_has_the_target_only_while_it_is_followed():
    assert [d.id for d in conversions.to_detections(answer_of(State.TRACKING)).detections] == ['car']
    assert not conversions.to_detections(answer_of(State.LOST)).detections


@pytest.mark.parametrize('state, colour', [(State.TRACKING, (60, 220, 80)), (State.LOST, (255, 60, 60))])
def test_foxglove_gets_the_box_and_the_words_of_the_overlay(state, colour):
    pytest.importorskip('foxglove_msgs', reason='foxglove_msgs is not installed (ROS installations can have it)')
    from cract_ros.annotations import to_annotations
    message = to_annotations(answer_of(state))
    loop, = message.points
    assert (loop.type, loop.timestamp.sec) == (loop.LINE_LOOP, 2)
    assert [(p.x, p.y) for p in loop.points] == [(11, 20), (41, 20), (41, 36), (11, 36)]
    assert [255 * value for value in (loop.outline_color.r, loop.outline_color.g, loop.outline_color.b)] == \
        pytest.approx(colour)
    words, = message.texts
    assert words.text == f'car {"LOST" if state is State.LOST else "tracking"} 0.70' and words.text_color.a == 1


def test_foxglove_gets_an_empty_message_without_a_target():
    pytest.importorskip('foxglove_msgs', reason='foxglove_msgs is not installed (ROS installations can have it)')
    from cract_ros.annotations import to_annotations
    scene = Scene(ScriptedTracker(State.TRACKING))
    scene.show(1)
    message = to_annotations(scene.follower.answer())
    assert not message.points and not message.texts
