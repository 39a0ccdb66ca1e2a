"""The launch file of the MAVLink camera, run by the real launch system."""
from __future__ import annotations

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
pytest.importorskip('launch_ros', reason='launch and launch_ros are not installed (a ROS installation has them)')
pytest.importorskip('pymavlink', reason='pymavlink is not installed: pip install pymavlink')

import signal
import subprocess
import sys

from conftest import ROOT
from node_harness import peer, weights  # noqa: F401  (fixtures)
from test_launch import RUN

FILE = ROOT / 'launch/mavlink.launch.py'


def test_camera_and_gimbal_are_started_beside_the_tracker(peer):  # noqa: F811
    process = subprocess.Popen([sys.executable, '-c', RUN, str(FILE), 'mavlink:=udpin:127.0.0.1:0', 'gimbal:=twist',
                                'autostart:=false', 'image:=/drone/camera'], start_new_session=True)
    try:
        for topic in ('/tracker/transition_event', '/gimbal_pointing/twist'):
            peer.wait(lambda: peer.count_publishers(topic), topic)
        peer.wait(lambda: peer.count_subscribers('/tracker/state') >= 2, 'camera and gimbal')
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
