"""Lifecycle transitions while images, boxes and requests go on coming, and transitions that fail."""
from __future__ import annotations

import itertools

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from node_harness import BOX, bounding_box, image, launch_tracker, peer, scene, weights  # noqa: F401  (fixtures)
from rclpy.qos import QoSProfile
from std_srvs.srv import Trigger
from vision_msgs.msg import Detection2D

from cract_ros.srv import InitTarget

FRAME = scene()
CYCLES = 6


@pytest.fixture(autouse=True)
def gone(peer):  # noqa: F811
    """A test begins when the node of the one before is known to be gone."""
    yield
    peer.wait(lambda: not peer.serves('get_state'), 'the end of the node')


def test_whatever_comes_during_transitions_the_node_lives_on(launch_tracker, peer):  # noqa: F811
    tracker = launch_tracker()
    assert peer.target(FRAME).success
    boxes = peer.create_publisher(Detection2D, 'tracker/init_box', QoSProfile(depth=10))
    clients = itertools.cycle([(peer.create_client(InitTarget, 'tracker/init_target'),
                                InitTarget.Request(bbox=bounding_box(*BOX))),
                               *((peer.create_client(Trigger, f'tracker/{name}'), Trigger.Request())
                                 for name in ('reset', 'pause', 'resume'))])

    def request():
        client, message = next(clients)
        client.call_async(message)

    box = Detection2D(bbox=bounding_box(*BOX))
    timers = [peer.create_timer(0.01, lambda: boxes.publish(box)), peer.create_timer(0.02, request),
              peer.create_timer(0.03, lambda: peer.camera.publish(image(FRAME)))]
    try:
        for cycle in range(CYCLES):
            assert peer.change('deactivate')
            if cycle % 3 == 2:
                assert peer.change('cleanup') and peer.change('configure')
            assert not peer.change('deactivate')  # a transition that is none in this state
            assert peer.change('activate')
            peer.pause(0.1)
            assert tracker.process.poll() is None, tracker.log
    finally:
        for timer in timers:
            peer.destroy_timer(timer)
        peer.destroy_publisher(boxes)
    assert peer.call_until_answered('resume', Trigger.Request()).success
    assert peer.target(FRAME, target_id='after').success
    assert peer.ask(image(FRAME)).id == 'after'
    assert 'Traceback' not in tracker.log
    assert tracker.stop() == 0


def test_a_failed_activation_leaves_nothing_behind(launch_tracker, peer):  # noqa: F811
    tracker = launch_tracker(**{'qos_overrides./candidates.subscription.reliability': 'perhaps'})
    peer.wait(lambda: 'not activated: ' in tracker.log, 'the reason')
    assert peer.state() == 'inactive'
    peer.wait(lambda: not peer.camera.get_subscription_count(), 'the end of the subscription')
    response = peer.init()
    assert not response.success and 'not active' in response.message
    assert peer.change('activate') is False and peer.state() == 'inactive'
    assert tracker.stop() == 0
