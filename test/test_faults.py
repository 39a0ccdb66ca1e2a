"""Faults done to a running node, one after the other: after each, the next good image is answered.

CRACT_LONG=1 does more of each: 1,000 service calls, 1,000 damaged images, minutes of random parameters.
"""
from __future__ import annotations

import array
import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from node_harness import (  # noqa: F401  (fixtures)
    BOX, PATIENCE, bounding_box, image, launch_tracker, peer, scene, weights)
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger
from vision_msgs.msg import Detection2D

from cract_core.config import TrackerConfig, field_type
from cract_ros.msg import TrackState

FRAME = scene()
LONG = 'CRACT_LONG' in os.environ
TIMES = 1000 if LONG else 100
CAMERA = '''
import sys, time
sys.path.insert(0, sys.argv[1])
from node_harness import image, scene
import rclpy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node('camera')
publisher = node.create_publisher(Image, 'image', 1)
message = image(scene())
for count in range(10**9):
    message.header.stamp.sec, message.header.stamp.nanosec = 100000 + int(sys.argv[2]), count
    publisher.publish(message)
    time.sleep(0.03)
'''


@pytest.fixture(scope='module')
def tracker(launch_tracker):  # noqa: F811
    """One node for all faults; reliable, so that every image that is sent arrives."""
    return launch_tracker(reliability='reliable', history_memory=16)


@pytest.fixture(autouse=True)
def survived(request):
    """Target 'a' is followed before the fault, and after it."""
    if 'tracker' not in request.fixturenames:
        yield
        return
    tracker, peer = request.getfixturevalue('tracker'), request.getfixturevalue('peer')
    response = peer.target(FRAME)
    assert response.success, response.message
    yield
    assert tracker.process.poll() is None, 'the node has ended'
    assert peer.target(FRAME).success
    assert peer.ask(image(FRAME)).id == 'a'
    assert 'Traceback' not in tracker.log


def test_a_camera_is_killed_and_restarted(tracker, peer):
    for number in range(2):
        camera = subprocess.Popen([sys.executable, '-c', CAMERA, os.path.dirname(__file__), str(number)])
        try:
            peer.wait(lambda: any(d.header.stamp.sec == 100000 + number for d in peer.detections), 'an answer')
        finally:
            camera.kill()
            camera.wait()


def damaged(random: np.random.Generator) -> Image:
    """A good image with one to three of its fields changed."""
    message = image(FRAME)
    data = message.data
    changes = {
        'width': lambda: int(random.choice([0, 1, 319, 321, 2**31, 2**32 - 1])),
        'height': lambda: int(random.choice([0, 1, 241, 2**31, 2**32 - 1])),
        'step': lambda: int(random.choice([0, 1, 959, 2**31, 2**32 - 1])),
        'encoding': lambda: str(random.choice(['', 'mono16', 'bayer_rggb8', 'yuyv', 'rgba8', '32FC1', '\U0001f680'])),
        'data': lambda: array.array('B', data[:int(random.integers(len(data)))]),
        'is_bigendian': lambda: int(random.integers(256))}
    for name in random.choice(list(changes), int(random.integers(1, 4)), replace=False):
        setattr(message, str(name), changes[str(name)]())
    return message


def test_damaged_images_come(tracker, peer):
    random = np.random.default_rng(0)
    for _ in range(TIMES):
        peer.show(damaged(random))


def test_an_image_of_8k_comes(tracker, peer):
    state = peer.state_after(image(np.tile(FRAME, (18, 24, 1))))  # 7680 x 4320
    assert state.id == 'a' and state.state != TrackState.NO_TARGET


def test_services_are_called_again_and_again(tracker, peer):
    random = np.random.default_rng(1)
    kinds = ['init_target'] * 2 + ['reset', 'pause', 'resume']
    for _ in range(TIMES):
        kind = str(random.choice(kinds))
        if kind != 'init_target':
            assert peer.call(kind, Trigger.Request()).success
        elif random.random() < 0.8:
            assert not peer.init(random.choice([np.nan, np.inf, -1e300, 0.0, -4.0, 1e9], 4)).success
        else:
            assert peer.init(BOX).success


def test_parameters_change_at_random_while_images_stream(tracker, peer):
    random = np.random.default_rng(2)
    live = [field for field in dataclasses.fields(TrackerConfig) if field.metadata['live']]
    stream = peer.create_timer(0.05, lambda: peer.show(image(FRAME)))
    ends = time.monotonic() + (180 if LONG else 0)
    for count in itertools.count():
        if count >= 60 and time.monotonic() > ends:
            break
        field = live[random.integers(len(live))]
        if choices := field.metadata['choices']:
            value = (*choices, 'perhaps')[random.integers(len(choices) + 1)]
        else:
            low, high = field.metadata['minimum'], field.metadata['maximum']
            value = field_type(field)(random.uniform(low - 0.2 * (high - low), high))
        (accepted, reason), = peer.set(**{field.name: value})
        assert accepted or reason
    peer.destroy_timer(stream)
    for _ in live:  # some must not exceed others: not every order will do
        if all([peer.set(**{field.name: field.default}) == [(True, '')] for field in live]):
            return
    raise AssertionError('the defaults were refused')


def test_subscribers_and_images_flood_the_node(tracker, peer):
    answered = len(peer.states)
    listeners = [peer.create_subscription(Image, 'tracker/overlay', lambda _: None, QoSProfile(depth=1))
                 for _ in range(20)]
    boxes = peer.create_publisher(Detection2D, 'tracker/init_box', QoSProfile(depth=10))
    for _ in range(3 * TIMES):
        peer.show(image(FRAME))
        boxes.publish(Detection2D(bbox=bounding_box(1, 1, -1, -1)))
    peer.wait(lambda: len(peer.states) > answered, 'an answer')
    for listener in listeners:
        peer.destroy_subscription(listener)
    peer.destroy_publisher(boxes)


def test_stamps_and_the_simulated_clock_jump(tracker, peer):
    clock = peer.create_publisher(Clock, '/clock', QoSProfile(depth=1))
    assert peer.set(use_sim_time=True) == [(True, '')]
    for seconds in (5000, 0, 2**31 - 1, 3, 3, -2**31):
        now = Clock()
        now.clock.sec = max(seconds, 0)
        clock.publish(now)
        message = image(FRAME)
        message.header.stamp.sec, message.header.stamp.nanosec = seconds, 2**32 - 1
        seen = len(peer.detections)
        peer.wait(lambda: peer.camera.publish(message) or any(
            d.header.stamp == message.header.stamp for d in peer.detections[seen:]), f'the answer at {seconds}')
    assert peer.set(use_sim_time=False) == [(True, '')]
    peer.destroy_publisher(clock)


# Faults on start and at the end: nodes of their own

@pytest.mark.parametrize('damage', [lambda data: data[:len(data) // 2], lambda data: b'', lambda data: b'x' * 1000],
                         ids=['cut off', 'empty', 'no weights'])
def test_damaged_weights_are_named_and_the_node_stays(launch_tracker, tmp_path, weights, damage):  # noqa: F811
    import cract_core
    good = weights or os.path.join(os.path.dirname(cract_core.__file__), 'weights', 'cract.pt')
    bad = tmp_path / 'bad.pt'
    with open(good, 'rb') as file:
        bad.write_bytes(damage(file.read()))
    tracker = launch_tracker(weights=bad)
    deadline = time.monotonic() + PATIENCE
    while 'not configured' not in tracker.log and time.monotonic() < deadline:
        time.sleep(0.1)
    assert str(bad) in tracker.log and 'Traceback' not in tracker.log
    assert tracker.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_moment_ends_the_process(launch_tracker, number):  # noqa: F811
    for delay in np.linspace(0.2, 6.0, 20 if LONG else 4):
        tracker = launch_tracker()
        time.sleep(delay)
        status = tracker.stop(number)
        if '[INFO]' in tracker.log:  # before the node is there, Python itself is ended
            assert status == 0 and 'Traceback' not in tracker.log, tracker.log
