"""What goes in and out besides images and detections: one node for the usual case, one with other inputs."""
from __future__ import annotations

import array
import time

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PointStamped, Vector3Stamped
from node_harness import BOX, bounding_box, image, launch_tracker, peer, scene, weights  # noqa: F401  (fixtures)
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from vision_msgs.msg import Detection2D, Detection2DArray
from visualization_msgs.msg import MarkerArray

from cract_ros.msg import TrackState

FRAME = scene()
K = [200.0, 0.0, 159.5, 0.0, 200.0, 119.5, 0.0, 0.0, 1.0]  # the axis passes through the middle of the picture


@pytest.fixture(scope='module')
def tracker(launch_tracker):  # noqa: F811
    """Ten images are kept; a camera that is silent for two seconds has stopped."""
    return launch_tracker(history_frames=10, image_timeout=2.0)


@pytest.fixture
def following(tracker, peer):  # noqa: F811
    response = peer.target(FRAME)
    assert response.success, response.message
    return peer


class Listening:
    """The messages of a topic, from now on."""

    def __init__(self, node, kind, topic: str):
        self.messages: list = []
        self._node = node
        self._subscription = node.create_subscription(kind, topic, self.messages.append, QoSProfile(depth=100))
        node.wait(lambda: node.count_publishers(topic), f'a publisher of {topic}')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._node.destroy_subscription(self._subscription)

    def until(self, condition, action=lambda: None):
        """The first message that fulfils the condition; the action is repeated when it had its time."""
        due = 0.0

        def found():
            nonlocal due
            if time.monotonic() >= due:
                due = time.monotonic() + 3.0
                action()
            return next((message for message in self.messages if condition(message)), None)
        return self._node.wait(found, f'such a message on {self._subscription.topic_name}')


def stamped(second: int) -> Header:
    header = Header()
    header.stamp.sec, header.stamp.nanosec = second, 7
    return header


# Targets

def test_a_box_by_topic_starts_a_target(following):
    publisher = following.create_publisher(Detection2D, 'tracker/init_box', QoSProfile(depth=10))
    following.wait(publisher.get_subscription_count, 'the subscription of init_box')
    box = Detection2D(bbox=bounding_box(*BOX), id='by topic')  # sent again: the node may not know the publisher yet
    following.wait(lambda: publisher.publish(box) or following.ask(image(FRAME)).id == 'by topic', 'the target')
    following.destroy_publisher(publisher)


def test_a_box_of_an_older_image_is_caught_up_with(tracker, following):
    drawn_in = following.state_after(image(FRAME)).header
    for _ in range(3):  # the picture has moved on meanwhile
        latest = following.state_after(image(np.roll(FRAME, 4, 1))).header
    response = following.init(header=drawn_in, target_id='late')
    assert response.success, response.message
    assert f'in the image stamped {drawn_in.stamp.sec}.000000007, caught up through ' in response.message
    newest = following.wait(lambda: next((s for s in following.states if s.id == 'late'), None), 'the state')
    assert newest.header.stamp.sec >= latest.stamp.sec  # without another image


def test_a_box_of_an_image_that_is_no_longer_kept_is_refused(following):
    first, _ = following.show(image(FRAME))
    for _ in range(12):
        following.state_after(image(FRAME))
    response = following.init(header=stamped(first), target_id='late')
    assert not response.success
    assert f'the image stamped {first}.000000007 is too old: 10 images are kept, from ' in response.message


def test_a_box_of_an_image_that_is_on_its_way_is_waited_for(following):
    assert following.set(init_wait=5.0) == [(True, '')]
    header = stamped(following.latest + 1)
    later = following.create_timer(1.0, lambda: following.latest < header.stamp.sec and following.show(image(FRAME)))
    response = following.init(header=header, target_id='early')
    following.destroy_timer(later)
    assert response.success, response.message
    assert f'in the image stamped {header.stamp.sec}.000000007' in response.message
    assert following.set(init_wait=0.2) == [(True, '')]


def test_a_box_of_an_image_that_never_came_is_taken_in_the_nearest(following):
    header = following.state_after(image(FRAME)).header
    header.stamp.nanosec += 30_000_000
    response = following.init(header=header)
    assert response.success and 'the nearest to the stamp that was given (30.0 ms)' in response.message
    header.stamp.nanosec += 30_000_000
    assert not following.init(header=header).success
    assert following.set(init_tolerance=0.1) == [(True, '')]
    assert following.init(header=header).success
    assert following.set(init_tolerance=0.05) == [(True, '')]


def test_a_pause_answers_no_image_until_it_is_over(following):
    assert following.call('pause', Trigger.Request()).success
    state = following.state_after(image(FRAME))
    assert state.state == TrackState.PAUSED
    assert following.call('resume', Trigger.Request()).success
    assert following.ask(image(FRAME)).id == 'a'
    assert state.header.stamp not in [d.header.stamp for d in following.detections]


# Outputs

def test_each_image_has_a_state_with_and_without_target(following):
    state = following.state_after(image(FRAME))
    assert state.state in (TrackState.TRACKING, TrackState.UNCERTAIN) and state.id == 'a'
    assert state.header.frame_id == 'gimbal' and state.processing_time > 0
    # the object stands in the middle of the picture
    assert abs(state.error_x - (140 + 24 - 160) / 160) < 0.1 and abs(state.error_y) < 0.1
    assert following.reset().success
    assert following.state_after(image(FRAME)).state == TrackState.NO_TARGET


def test_detections_come_as_an_array_too(following):
    with Listening(following, Detection2DArray, 'tracker/detections') as arrays:
        found = arrays.until(lambda a: a.detections, lambda: following.show(image(FRAME)))
        assert found.detections[0].id == 'a' and found.header == found.detections[0].header
        assert following.reset().success
        seen = len(arrays.messages)
        arrays.until(lambda a: a in arrays.messages[seen:] and not a.detections, lambda: following.show(image(FRAME)))


def test_foxglove_gets_annotations_of_each_image(following):
    ImageAnnotations = pytest.importorskip(
        'foxglove_msgs.msg', reason='foxglove_msgs is not installed (ROS installations can have it)').ImageAnnotations
    with Listening(following, ImageAnnotations, 'tracker/annotations') as annotations:
        found = annotations.until(lambda a: a.texts, lambda: following.show(image(FRAME)))
        assert found.texts[0].text.startswith('a ') and found.points[0].timestamp.nanosec == 7
        assert following.reset().success
        annotations.until(lambda a: not a.texts, lambda: following.show(image(FRAME)))


def test_camera_info_gives_a_bearing_and_depth_a_point(following):
    infos = following.create_publisher(CameraInfo, 'camera_info', QoSProfile(depth=1))
    depths = following.create_publisher(Image, 'depth', QoSProfile(depth=1))
    info = CameraInfo(width=320, height=240, k=K, distortion_model='plumb_bob', d=[0.0] * 5)
    metres = np.full((120, 160), 8.0, '<f4')

    def show():
        depth = Image(width=160, height=120, encoding='32FC1', step=640, data=array.array('B', metres.tobytes()))
        depth.header = stamped(following.latest + 1)
        infos.publish(info)
        depths.publish(depth)
        following.show(image(FRAME))

    with Listening(following, Vector3Stamped, 'tracker/bearing') as bearings, \
            Listening(following, PointStamped, 'tracker/point') as points, \
            Listening(following, MarkerArray, 'tracker/markers') as rays:
        bearing = bearings.until(lambda b: True, show)
        point = points.until(lambda p: True, show)
        assert rays.until(lambda r: True, show).markers[0].header.frame_id == 'gimbal'
    state = following.wait(lambda: next((s for s in following.states if s.header.stamp == bearing.header.stamp), None),
                           'the state')
    direction = np.array([bearing.vector.x, bearing.vector.y, bearing.vector.z])
    expected = np.array([state.error_x * 160 / 200, state.error_y * 120 / 200, 1.0])
    np.testing.assert_allclose(direction, expected / np.linalg.norm(expected), atol=1e-5)
    assert point.point.z == pytest.approx(8.0) and point.header.frame_id == 'gimbal'
    for publisher in (infos, depths):
        following.destroy_publisher(publisher)


def test_diagnostics_tell_a_camera_that_stops_and_one_that_sends(following):
    def own(message):
        return next(s for s in message.status if s.name == 'tracker: tracking')

    with Listening(following, DiagnosticArray, '/diagnostics') as diagnostics:
        stopped = own(diagnostics.until(lambda m: own(m).level == DiagnosticStatus.ERROR))
        assert stopped.message.startswith('no image on /image for ')
        good = own(diagnostics.until(lambda m: own(m).level == DiagnosticStatus.OK,
                                     lambda: following.show(image(FRAME))))
    assert good.message in ('tracking', 'uncertain')
    assert {pair.key: pair.value for pair in good.values}['device'] == 'cpu'


# Candidates

def test_a_lost_target_is_taken_back_among_the_boxes_of_a_detector(tracker, following):
    candidates = following.create_publisher(Detection2DArray, 'candidates', QoSProfile(depth=1))
    following.wait(candidates.get_subscription_count, 'the subscription of candidates')
    nothing = image(np.full_like(FRAME, 90))
    following.wait(lambda: following.state_after(nothing).state == TrackState.LOST, 'the loss')
    boxes = [bounding_box(10, 10, 40, 40), bounding_box(*BOX)]

    def offer():
        state = following.state_after(image(FRAME))
        candidates.publish(Detection2DArray(header=state.header, detections=[Detection2D(bbox=box) for box in boxes]))

    with Listening(following, TrackState, 'tracker/state') as states:
        found = states.until(lambda s: s.state in (TrackState.TRACKING, TrackState.UNCERTAIN), offer)
    assert found.id == 'a' and abs(found.bbox.center.position.x - 164) < 10
    assert "target 'a' found again" in tracker.log
    following.destroy_publisher(candidates)


def test_neither_a_pause_nor_the_end_of_a_lost_target_is_told_as_its_return(tracker, following):
    def told() -> tuple[int, int]:
        return tracker.log.count("target 'a' found again"), tracker.log.count("target 'a' lost")

    found, lost = told()
    nothing = image(np.full_like(FRAME, 90))
    following.wait(lambda: following.state_after(nothing).state == TrackState.LOST, 'the loss')
    assert following.call('pause', Trigger.Request()).success
    assert following.state_after(nothing).state == TrackState.PAUSED
    assert following.call('resume', Trigger.Request()).success
    assert following.state_after(nothing).state == TrackState.LOST
    assert following.reset().success
    assert following.state_after(nothing).state == TrackState.NO_TARGET
    assert following.target(FRAME).success
    assert told() == (found, lost + 1)


# Stamps

@pytest.mark.parametrize('stamps', [[9090, 9091, 9005, 9006], [9050] * 4], ids=['jump back', 'stand still'])
def test_stamps_that_do_not_go_on_are_answered(following, stamps):
    for stamp in stamps:
        seen = len(following.detections)
        message = image(FRAME)
        message.header = stamped(stamp)
        following.wait(lambda: following.camera.publish(message) or any(
            d.header.stamp.sec == stamp for d in following.detections[seen:]), 'the detection')


# Other inputs, in a node of its own

@pytest.fixture(scope='module')
def other(launch_tracker, peer, tracker):  # noqa: F811
    """Compressed images, reliable; simulated time; CUDA where there is one; a target ends with the activity."""
    tracker.stop()
    peer.wait(lambda: not peer.serves('get_state'), 'the end of the node before')
    node = launch_tracker(image_transport='compressed', reliability='reliable', use_sim_time='true', device='cuda',
                          cpu_fallback='true', keep_target='false')
    peer.wait(lambda: peer.serves('init_target'), 'the node')
    peer.camera = peer.create_publisher(CompressedImage, 'image/compressed', QoSProfile(depth=1))
    return node


def compressed(kind: str = '.jpg') -> CompressedImage:
    return CompressedImage(format=kind[1:], data=array.array('B', cv2.imencode(kind, FRAME)[1].tobytes()))


def accepted(peer, target_id: str) -> bool:
    peer.state_after(compressed('.png'))
    return peer.init(target_id=target_id).success


def test_compressed_images_are_followed_and_a_damaged_one_is_told(other, peer):
    assert accepted(peer, 'zip')
    assert [peer.ask(compressed(kind)).id for kind in ('.png', '.jpg')] == ['zip', 'zip']
    broken = compressed()
    broken.data = broken.data[:200]
    peer.wait(lambda: peer.show(broken) and 'JPEG image is cut off after 200 bytes' in other.log, 'the warning')
    assert peer.ask(compressed()).id == 'zip'


def test_without_cuda_the_cpu_does_it_where_that_is_allowed(other, peer):
    torch = pytest.importorskip('torch')
    if torch.cuda.is_available():
        pytest.skip('this machine has CUDA')
    assert "the networks run on the CPU instead of cuda: device 'cuda' was asked for" in other.log


def test_age_is_told_by_the_simulated_clock(other, peer):
    clock = peer.create_publisher(Clock, '/clock', QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
    now = Clock()
    now.clock.sec = 5000

    def aged():
        clock.publish(now)
        state = peer.state_after(compressed())
        return state if state.age > 0 else None

    state = peer.wait(aged, 'a state after the clock was set')
    assert state.age == pytest.approx(5000 - state.header.stamp.sec - 7e-9)
    peer.destroy_publisher(clock)


def test_the_target_ends_with_the_activity_if_asked(other, peer):
    assert accepted(peer, 'short')
    assert peer.change('deactivate') and peer.change('activate')
    assert peer.state_after(compressed()).state == TrackState.NO_TARGET


def test_a_camera_with_an_incompatible_qos_is_told_in_one_sentence(other, peer):
    camera = peer.create_publisher(CompressedImage, 'image/compressed',
                                   QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
    sentence = 'a publisher of /image/compressed offers less than this node asks for in its QoS (reliability), so ' \
               'none of its images can come: set the parameter reliability to best_effort'
    peer.wait(lambda: sentence in other.log, 'the error')
    peer.destroy_publisher(camera)
