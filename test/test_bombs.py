"""A running node under messages that ask for much work: it goes on answering good images, and its memory stays.

`-s` prints the table of docs/security.md. On a machine that others use the gap between answers says little: what is bounded
here is the processor time that the node spends, and the memory.
"""
from __future__ import annotations

import array
import os
import time

import cv2
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from bombs import pictures
from node_harness import BOX, bounding_box, launch_tracker, peer, scene, weights  # noqa: F401  (fixtures)
from rclpy.qos import QoSProfile
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

from cract_ros.srv import InitTarget

FRAME = scene()
SECONDS, MEMORY = 1.0, 200  # of the processor for one bomb; MB
PICTURES = pictures()
RATE = 0.1  # seconds between two good images
ALONE = 0.2  # seconds in which no other image comes after a bomb


def compressed(data: bytes | None = None) -> CompressedImage:
    message = CompressedImage(format='jpeg', data=array.array('B', data or cv2.imencode('.jpg', FRAME)[1].tobytes()))
    message.header.frame_id = 'gimbal'
    return message


@pytest.fixture(scope='module')
def tracker(launch_tracker, peer):  # noqa: F811
    """Reliable, so that every bomb arrives."""
    node = launch_tracker(image_transport='compressed', reliability='reliable')
    peer.camera = peer.create_publisher(CompressedImage, 'image/compressed', QoSProfile(depth=5))
    peer.senders = {
        'candidates': peer.create_publisher(Detection2DArray, 'candidates', QoSProfile(depth=1)),
        'camera_info': peer.create_publisher(CameraInfo, 'camera_info', QoSProfile(depth=1)),
        'init_box': peer.create_publisher(Detection2D, 'tracker/init_box', QoSProfile(depth=10))}
    peer.state_after(compressed())
    assert peer.init().success
    return node


class Watch:
    """Of a process: the seconds of processor and the memory that it has taken since."""

    def __init__(self, pid: int):
        self._pid = pid
        with open(f'/proc/{pid}/clear_refs', 'w') as file:
            file.write('5')  # the highest mark begins anew
        self._processor, self._memory = self._seconds(), self._status('VmRSS')

    def _seconds(self) -> float:
        with open(f'/proc/{self._pid}/stat') as file:
            fields = file.read().rpartition(')')[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    def _status(self, name: str) -> float:
        with open(f'/proc/{self._pid}/status') as file:
            return next(int(line.split()[1]) / 1e3 for line in file if line.startswith(name))

    def taken(self) -> tuple[float, float]:
        return self._seconds() - self._processor, self._status('VmHWM') - self._memory


def survives(tracker, peer, name: str, throw, times: int = 3) -> None:
    """Good images go on while `throw` is called; after the last call one is answered."""
    answers: list[float] = []
    listener = peer.create_subscription(type(peer.states[-1]), 'tracker/state', lambda _: answers.append(time.monotonic()),
                                        QoSProfile(depth=100))
    good = compressed()
    images = peer.create_timer(RATE, lambda: peer.show(good))
    try:
        peer.wait(lambda: len(answers) > 2, 'answers')
        watch, first = Watch(tracker.process.pid), len(answers)
        peer.wait(lambda: len(answers) >= first + 5, 'answers')
        usual = watch.taken()[0] / (len(answers) - first)  # of an answer
        watch, first = Watch(tracker.process.pid), len(answers)
        for _ in range(times):
            images.cancel()  # a newer image would be taken instead
            throw()
            peer.pause(ALONE)
            images.reset()
            peer.pause(0.3)
        thrown = time.monotonic()
        peer.wait(lambda: answers[-1] > thrown + 0.3, 'an answer after it')
        peer.pause(1.0)
        processor, memory = watch.taken()
        share = max(processor - usual * (len(answers) - first), 0.0) / times
    finally:
        peer.destroy_timer(images)
        peer.destroy_subscription(listener)
    gap = max(b - a for a, b in zip(answers[first - 1:], answers[first:]))
    print(f'| {name} | {share:.2f} s | {gap:.2f} s | {max(memory, 0):.0f} MB |')
    assert tracker.process.poll() is None, tracker.log[-2000:]
    assert share < SECONDS and memory < MEMORY


@pytest.mark.parametrize('name', PICTURES)
def test_a_picture(tracker, peer, name):  # noqa: F811
    message = compressed(PICTURES[name])

    def throw():
        peer._stamp += 1
        message.header.stamp.sec = peer._stamp
        peer.camera.publish(message)

    survives(tracker, peer, f'{name} ({len(message.data) // 1000:,} kB)', throw)


def crowd(number: int, results: int = 0) -> bytes:
    """Serialized: making them takes seconds."""
    one = Detection2D(bbox=bounding_box(*BOX), results=[ObjectHypothesisWithPose()] * results)
    return serialize_message(Detection2DArray(detections=[one] * number))


@pytest.mark.parametrize('name, size', [
    ('100,000 candidates', (100_000,)), ('8,000 candidates, a message that is allowed', (8_000,)),
    ('a candidate of 30,000 hypotheses', (1, 30_000))])
def test_candidates(tracker, peer, name, size):  # noqa: F811
    message = crowd(*size)
    survives(tracker, peer, name, lambda: peer.senders['candidates'].publish(message))


def test_a_calibration_of_a_million_coefficients(tracker, peer):  # noqa: F811
    message = serialize_message(CameraInfo(d=array.array('d', bytes(8_000_000)), distortion_model='x' * 1_000_000))
    survives(tracker, peer, 'a calibration of a million coefficients',
             lambda: peer.senders['camera_info'].publish(message))


def test_an_id_of_five_megabytes_by_topic(tracker, peer):  # noqa: F811
    message = serialize_message(Detection2D(bbox=bounding_box(*BOX), id='x' * 5_000_000))
    survives(tracker, peer, 'an id of 5 MB by topic', lambda: peer.senders['init_box'].publish(message))


@pytest.mark.parametrize('target_id', ['x' * 5_000_000, 'a\nb', '\x1b[2J', '\u202e'], ids=['5 MB', *'123'])
def test_an_id_that_cannot_be_shown_by_service(tracker, peer, target_id):  # noqa: F811
    response = peer.call('init_target', InitTarget.Request(bbox=bounding_box(*BOX), id=target_id))
    assert not response.success and len(response.message) < 300 and response.message.isprintable()
    assert peer.ask(compressed()).id == 'a'


def test_a_frame_with_a_name_of_a_megabyte_is_skipped(tracker, peer):  # noqa: F811
    message = compressed()
    message.header.frame_id = 'x' * 1_000_000
    survives(tracker, peer, 'a frame_id of 1 MB', lambda: peer.camera.publish(message))
    assert max(len(state.header.frame_id) for state in peer.states) < 200


def test_a_flood_of_boxes_starves_neither_images_nor_services(tracker, peer):  # noqa: F811
    box = Detection2D(bbox=bounding_box(*BOX), id='flood')
    flood = peer.create_timer(0.002, lambda: peer.senders['init_box'].publish(box))
    try:
        seen = len(peer.states)
        peer.wait(lambda: peer.show(compressed()) and len(peer.states) > seen + 10, 'ten answers')
        assert peer.reset().success
        peer.wait(lambda: peer.show(compressed()) and peer.detections[-1].id == 'flood', 'the newest box')
    finally:
        peer.destroy_timer(flood)
    assert peer.init(target_id='after the flood').success
    peer.pause(0.5)
    peer.state_after(compressed())
    assert peer.init(target_id='a').success
    assert peer.ask(compressed()).id == 'a'  # none of the flood comes later
