"""The node given a candidate, a point or a proposal instead of a box."""
from __future__ import annotations

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from geometry_msgs.msg import PointStamped
from rclpy.qos import QoSProfile
from vision_msgs.msg import Detection2D, Detection2DArray, Point2D

from cract_ros.msg import TrackState
from cract_ros.srv import InitTarget
from node_harness import BOX, bounding_box, image, launch_tracker, peer, scene, weights  # noqa: F401  (fixtures)

FRAME = scene()
CENTRE = BOX[0] + BOX[2] / 2, BOX[1] + BOX[3] / 2


@pytest.fixture(scope='module')
def tracker(launch_tracker):  # noqa: F811
    return launch_tracker()


@pytest.fixture
def ready(tracker, peer):  # noqa: F811
    """An image is there, of which the detector has two boxes, and no target."""
    peer.wait(lambda: peer.state() == 'active', 'the active state')
    peer.call_until_answered('reset', _trigger())
    header = peer.state_after(image(FRAME)).header
    boxes = peer.create_publisher(Detection2DArray, 'candidates', QoSProfile(depth=1))
    peer.wait(boxes.get_subscription_count, 'the subscription of candidates')
    message = Detection2DArray(header=header, detections=[
        Detection2D(bbox=bounding_box(0, 0, 300, 220), id='field'), Detection2D(bbox=bounding_box(*BOX), id='car')])
    # best effort: shown until the node has it
    for _ in range(20):
        boxes.publish(message)
        peer.pause(0.2)
        if peer.init(kind=InitTarget.Request.CANDIDATE, candidate='car', propose=True).header.stamp == header.stamp:
            break
    peer.header = header
    yield peer
    peer.destroy_publisher(boxes)


def _trigger():
    from std_srvs.srv import Trigger
    return Trigger.Request()


def box(message) -> list[float]:
    centre = message.center.position
    return [centre.x - message.size_x / 2, centre.y - message.size_y / 2, message.size_x, message.size_y]


def test_a_proposal_follows_nothing_until_it_is_confirmed(ready):
    answer = ready.init(kind=InitTarget.Request.CANDIDATE, candidate='car', propose=True)
    assert answer.success and box(answer.bbox) == pytest.approx(BOX) and answer.header.stamp == ready.header.stamp
    assert ready.state_after(image(FRAME)).state == TrackState.NO_TARGET
    confirmed = ready.init(box(answer.bbox), header=answer.header)
    assert confirmed.success
    state = ready.state_after(image(FRAME))
    assert state.state == TrackState.TRACKING and (state.image_width, state.image_height) == (320, 240)


def test_a_candidate_is_followed_by_its_id(ready):
    answer = ready.init(kind=InitTarget.Request.CANDIDATE, candidate='car', target_id='seven')
    assert answer.success and box(answer.bbox) == pytest.approx(BOX) and answer.score == 1
    assert ready.state_after(image(FRAME)).id == 'seven'
    refused = ready.init(kind=InitTarget.Request.CANDIDATE, candidate='lorry')
    assert not refused.success and 'field, car' in refused.message
    assert ready.state_after(image(FRAME)).id == 'seven'


def test_a_point_takes_the_smallest_candidate_around_it(ready):
    point = Point2D(x=CENTRE[0] / 320, y=CENTRE[1] / 240)
    answer = ready.init(kind=InitTarget.Request.POINT, point=point, normalized=True, header=ready.header)
    assert answer.success and box(answer.bbox) == pytest.approx(BOX)


def test_a_point_may_come_as_a_topic(ready):
    points = ready.create_publisher(PointStamped, 'tracker/init_point', QoSProfile(depth=10))
    ready.wait(points.get_subscription_count, 'the subscription of init_point')
    message = PointStamped(header=ready.header)
    message.point.x, message.point.y = CENTRE
    points.publish(message)
    ready.wait(lambda: ready.state_after(image(FRAME)).state == TrackState.TRACKING, 'the target')
    message.point.x = 1e6
    points.publish(message)
    assert ready.state_after(image(FRAME)).state == TrackState.TRACKING
