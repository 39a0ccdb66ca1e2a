"""Images between two processes with the package's Fast DDS profile."""
from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from node_harness import peer  # noqa: F401  (fixture)
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from cract_ros import transport

COUNT = 30
CAMERA = f'''
import array, time
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from cract_ros import transport
transport.use_profile()
rclpy.init()
node = rclpy.create_node('camera')
camera = node.create_publisher(Image, 'large', QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
while not camera.get_subscription_count():
    time.sleep(0.1)
time.sleep(1)  # the other side learns of this one, too
message = Image(width=640, height=480, step=1920, encoding='bgr8', data=array.array('B', bytes(640 * 480 * 3)))
for _ in range({COUNT}):
    camera.publish(message)
    time.sleep(1 / 15)
time.sleep(1)
rclpy.shutdown()
'''


def test_large_images_arrive_best_effort(peer):  # noqa: F811
    images = []
    peer.create_subscription(Image, 'large', images.append, QoSProfile(
        depth=10, reliability=ReliabilityPolicy.BEST_EFFORT))
    camera = subprocess.Popen([sys.executable, '-c', CAMERA])
    try:
        peer.wait(lambda: camera.poll() is not None, 'the end of the camera')
    finally:
        camera.kill()
    assert camera.returncode == 0
    assert len(images) >= 0.9 * COUNT  # one or two arrive with the default transports


@pytest.mark.parametrize('name', transport.CHOICES)
def test_a_choice_of_the_users_own_is_kept(monkeypatch, name):
    for other in transport.CHOICES:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, 'own')
    transport.use_profile()
    assert {other: value for other in transport.CHOICES if (value := os.environ.get(other))} == {name: 'own'}


def test_without_a_choice_it_is_the_profile(monkeypatch):
    for name in transport.CHOICES:
        monkeypatch.setenv(name, '')  # so that its present value comes back after the test
        monkeypatch.delenv(name)
    transport.use_profile()
    assert os.environ[transport.VARIABLE] == str(transport.profile())


def test_a_profile_that_is_not_installed_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path))
    monkeypatch.setattr(sys, 'prefix', str(tmp_path / 'python'))
    with pytest.raises(FileNotFoundError, match='cract_ros is not installed'):
        transport.profile()


# Advice where images are lost

def test_what_to_set_is_said_where_nothing_is_set(monkeypatch):
    for name in transport.CHOICES:
        monkeypatch.delenv(name, raising=False)
    assert f'{transport.VARIABLE}={transport.profile()} in the environment of the camera node' in transport.advice()
    monkeypatch.setattr(transport, '_taken', None)
    transport.use_profile()
    assert 'in the environment of the camera node' in transport.advice()  # the node has set it, not the user
    monkeypatch.delenv(transport.VARIABLE)


@pytest.mark.parametrize('name', transport.CHOICES)
def test_what_the_user_has_set_is_not_advised(monkeypatch, name):
    for other in transport.CHOICES:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, '/etc/robot.xml')
    transport.use_profile()
    assert f'{name} is set here' in transport.advice() and str(transport.profile()) not in transport.advice()


def test_another_middleware_gets_no_advice_for_fast_dds(monkeypatch):
    monkeypatch.setattr(transport, 'get_rmw_implementation_identifier', lambda: 'rmw_cyclonedds_cpp')
    assert 'FAST' not in transport.advice() and 'rmw_cyclonedds_cpp' in transport.advice()
