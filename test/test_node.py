"""The node through real ROS: it runs as a process of its own and is talked to over topics and services."""
from __future__ import annotations

import array
import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from node_harness import BOX, bounding_box, image, launch_tracker, peer, scene, weights  # noqa: F401  (fixtures)
from rcl_interfaces.srv import DescribeParameters, ListParameters
from sensor_msgs.msg import Image

from cract_core.config import TrackerConfig
from cract_ros.conversions import box_from_message, to_bgr
from cract_ros.monitor import FrameMonitor
from cract_ros.parameters import NodeConfig

FRAME = scene()


@pytest.fixture(scope='module')
def tracker(launch_tracker):
    """One node for the tests that leave it as they found it."""
    return launch_tracker()


@pytest.fixture
def following(tracker, peer):
    """The node follows target 'a' in a standing picture."""
    response = peer.target(FRAME)
    assert response.success, response.message
    return peer


# Target by service

def test_init_before_any_image_is_refused_with_the_topic(tracker, peer):
    peer.wait(lambda: peer.state() == 'active', 'the active state')
    assert peer.change('deactivate') and peer.change('activate')  # forgets the latest image
    response = peer.init()
    assert not response.success
    assert response.message.startswith('no image') and '/image' in response.message


def test_init_answers_with_the_box_and_the_image_it_was_taken_from(tracker, peer):
    response = peer.target(FRAME, target_id='car')
    assert response.success
    assert re.search(r"'car' from x 140, y 100, w 48, h 40 in the image stamped \d+\.000000007$", response.message)


def test_detection_has_the_images_header_and_the_targets_id(following):
    sent = image(FRAME)
    detection = following.ask(sent)
    assert detection.header.frame_id == 'gimbal' and detection.header.stamp.nanosec == 7
    assert detection.id == 'a'
    assert np.isfinite(box_from_message(detection.bbox)).all()
    assert len(detection.results) <= 1
    for result in detection.results:
        assert result.hypothesis.class_id == 'target' and 0 <= result.hypothesis.score <= 1


def test_a_target_without_id_gets_a_number(following):
    assert following.init(target_id='').success
    first = following.ask(image(FRAME)).id
    assert following.init(target_id='').success
    assert int(following.ask(image(FRAME)).id) == int(first) + 1


@pytest.mark.parametrize('box, reason', [
    ((math.nan, 100, 40, 40), 'finite'), ((140, 100, math.inf, 40), 'finite'), ((140, 100, 0, 40), 'at least 1 pixel'),
    ((140, 100, 40, -5), 'at least 1 pixel'), ((400, 100, 40, 40), 'outside'), ((-90, -90, 40, 40), 'outside')])
def test_a_wrong_box_is_refused_and_the_target_stays(following, box, reason):
    response = following.init(box, 'wrong')
    assert not response.success and reason in response.message
    assert following.ask(image(FRAME)).id == 'a'


def test_a_rotated_box_is_refused(following):
    box = bounding_box(*BOX)
    box.center.theta = 0.3
    response = following.init(bbox=box)
    assert not response.success and 'theta 0.3' in response.message


def test_a_box_of_an_image_that_is_not_kept_is_refused_and_the_target_stays(following):
    old = Image().header
    old.stamp.sec = 12345
    response = following.init(header=old, target_id='late')
    assert not response.success and 'the image stamped 12345.000000000 has not arrived' in response.message
    assert following.ask(image(FRAME)).id == 'a'


def test_the_target_can_change_while_images_stream_in(following):
    stream = following.create_timer(0.03, lambda: following.show(image(FRAME)))
    try:
        for target_id in ('b', 'c', 'd'):
            assert following.init(target_id=target_id).success
            seen = len(following.detections)
            following.wait(lambda: any(d.id == target_id for d in following.detections[seen:]), f'target {target_id}')
            ids = [d.id for d in following.detections]
            assert set(ids[ids.index(target_id):]) == {target_id}  # none of an earlier target after the first
    finally:
        following.destroy_timer(stream)


def test_reset_forgets_the_target(following):
    following.watch(True)
    try:
        assert following.reset().success
        idle = following.picture(image(FRAME)).header.stamp
        assert (to_bgr(following.overlays[-1]) != FRAME).any()  # says that there is no target
        assert 'no target' in following.reset().message
        assert following.init(target_id='after').success
        following.ask(image(FRAME))
        assert idle not in [d.header.stamp for d in following.detections]
    finally:
        following.watch(False)


# Images

def test_padded_rows_change_nothing(following):
    boxes = []
    for padding in (0, 13):
        assert following.target(FRAME).success  # the same seed: the same track
        boxes.append(box_from_message(following.ask(image(np.roll(FRAME, 3, 1), padding=padding)).bbox))
    np.testing.assert_array_equal(*boxes)


def test_channel_order_changes_nothing(following):
    boxes = []
    for encoding, frame in (('bgr8', FRAME), ('rgb8', FRAME[..., ::-1])):
        assert following.target(FRAME).success
        boxes.append(box_from_message(following.ask(image(np.ascontiguousarray(frame), encoding)).bbox))
    np.testing.assert_array_equal(*boxes)


def broken(**changes) -> Image:
    message = image(FRAME)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize('message, reason', [
    (broken(encoding='martian8'), "'martian8'"),
    (broken(data=array.array('B', [1, 2, 3])), 'but the message has 3'),
    (broken(data=array.array('B')), 'but the message has 0'),
    (broken(step=5), 'step is 5'),
    (image(FRAME[:4, :4]), '8 x 8')], ids=['unknown encoding', 'truncated', 'empty', 'short step', 'tiny'])
def test_a_bad_image_is_a_warning_and_the_next_good_one_is_answered(tracker, following, message, reason):
    # shown until the warning comes: the one before may have been less than the throttle's few seconds ago
    following.wait(lambda: following.show(message) and reason in tracker.log, 'the warning')
    assert following.ask(image(FRAME)).id == 'a'
    assert tracker.process.poll() is None


def test_an_image_of_another_size_is_answered(following):
    assert following.ask(image(np.pad(FRAME, ((0, 40), (0, 64), (0, 0))))).id == 'a'


def test_the_overlay_is_the_image_with_the_box(following):
    following.watch(True)
    try:
        overlay = following.picture(image(FRAME))
    finally:
        following.watch(False)
    assert overlay.header.frame_id == 'gimbal' and overlay.header.stamp.nanosec == 7
    picture = to_bgr(overlay)
    assert picture.shape == FRAME.shape
    changed = (picture != FRAME).any(-1)
    assert 0 < changed.mean() < 0.5  # something is drawn, and it is still the image


# Parameters

def test_all_parameters_are_declared_and_described(tracker, peer):
    names = set(peer.call_until_answered('list_parameters', ListParameters.Request()).result.names)
    fields = {field.name: field for field in dataclasses.fields(TrackerConfig)}
    assert set(fields) | {field.name for field in dataclasses.fields(NodeConfig)} <= names
    alpha = peer.call_until_answered('describe_parameters', DescribeParameters.Request(names=['alpha'])).descriptors[0]
    assert alpha.description == fields['alpha'].metadata['text']
    assert (alpha.floating_point_range[0].from_value, alpha.floating_point_range[0].to_value) == (0.0, 1.0)


def test_live_parameters_change_while_the_target_is_followed(following):
    assert following.set(alpha=0.7, beta=0.6, update_interval=20) == [(True, '')] * 3
    assert [following.get(name) for name in ('alpha', 'beta', 'update_interval')] == [0.7, 0.6, 20]
    assert following.ask(image(FRAME)).id == 'a'
    assert following.set(alpha=0.4, beta=0.8, update_interval=10) == [(True, '')] * 3


def test_beta_reaches_the_tracker(following):
    """By Eq. 10 the score with beta 0 is c alone and with beta 1 is the refined one alone."""
    scores = []
    for beta in (0.0, 1.0):
        # nothing counts as lost: the score stands in the hypothesis
        assert all(ok for ok, _ in following.set(lost_score=0.0, beta=beta))
        assert following.target(FRAME).success
        scores.append(following.ask(image(FRAME)).results[0].hypothesis.score)
    assert all(ok for ok, _ in following.set(lost_score=TrackerConfig().lost_score, beta=TrackerConfig().beta))
    assert scores[0] != scores[1]


@pytest.mark.parametrize('values, reason', [
    (dict(alpha=1.5), 'out of range'), (dict(alpha=math.nan), 'alpha'), (dict(alpha='high'), 'Wrong parameter type'),
    (dict(update_interval=0), 'out of range'), (dict(num_proposals=5), 'read-only'), (dict(device='cpu'), 'read-only'),
    (dict(lost_score=0.9), 'lost_score must not exceed uncertain_score')])
def test_a_wrong_value_is_refused_with_the_reason(tracker, peer, values, reason):
    (name, value), = values.items()
    before = peer.get(name)
    (successful, text), = peer.set(**values)
    assert not successful and reason in text
    assert peer.get(name) == before


# Lifecycle

def test_an_inactive_node_answers_no_image_and_keeps_its_target(following):
    assert following.change('deactivate')
    assert following.state() == 'inactive'
    following.wait(lambda: not following.camera.get_subscription_count(), 'the end of the subscription')
    response = following.init()
    assert not response.success and 'not active' in response.message
    assert following.change('activate')
    assert following.ask(image(FRAME)).id == 'a'


def test_cleanup_and_configure_start_afresh(following):
    assert following.change('deactivate') and following.change('cleanup')
    assert following.state() == 'unconfigured'
    following.wait(lambda: not following.serves('init_target'), 'the end of the service')
    assert following.change('configure') and following.change('activate')
    assert following.target(FRAME, target_id='again').success
    assert following.ask(image(FRAME)).id == 'again'


# Lost images

def feed(monitor: FrameMonitor, sequences, seconds: float) -> None:
    for sequence in sequences:
        monitor.arrived(0.0, sequence, 'camera')
        monitor.answered(seconds, age=0.1)


def test_images_lost_while_the_tracker_had_time_are_blamed_on_the_transport():
    monitor = FrameMonitor(0.0)
    feed(monitor, [1, 60, 119], 0.03)
    assert monitor.judge(4.9, 1) is None  # not yet
    advice = monitor.judge(5.1, 1)
    assert '116 of 119 images were lost' in advice
    profile = re.search(r'FASTDDS_DEFAULT_PROFILES_FILE=(\S+) in the environment of the camera node', advice)[1]
    assert Path(profile).is_file()
    assert (monitor.total.received, monitor.total.missed) == (3, 116)
    feed(monitor, range(120, 240), 0.01)
    assert monitor.judge(10.2, 1) is None


def test_images_lost_while_the_tracker_was_busy_are_counted_without_a_word():
    monitor = FrameMonitor(0.0)
    feed(monitor, range(0, 150, 5), 0.17)
    assert monitor.judge(5.1, 1) is None
    assert monitor.total.missed == 29 * 4


def test_silence_of_a_topic_with_a_publisher_is_told():
    assert FrameMonitor(0.0).judge(5.1, 0) is None
    assert 'no image in the last 5 s' in FrameMonitor(0.0).judge(5.1, 1)


def test_publishers_are_counted_apart_and_may_start_again():
    monitor = FrameMonitor(0.0)
    for sequence, publisher in ((1, 'a'), (500, 'b'), (2, 'a'), (501, 'b'), (1, 'a'), (None, 'c'), (2, 'a')):
        monitor.arrived(0.0, sequence, publisher)
    assert (monitor.total.received, monitor.total.missed) == (7, 0)
