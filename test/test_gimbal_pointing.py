"""The gimbal's node: what it sends as a twist and over MAVLink, when it is on and when not; and the whole loop rendered."""
from __future__ import annotations

import math
import time

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

import rclpy
from geometry_msgs.msg import TwistStamped
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from std_srvs.srv import SetBool

from cract_ros.gimbal_pointing import GimbalPointing
from cract_ros.msg import TrackState
from cract_ros.pointing import Pointing, PointingConfig, Sight, angles

PATIENCE = 30.0


@pytest.fixture
def context():
    context = rclpy.Context()
    context.init()
    yield context
    context.try_shutdown()


class Bench:
    """The node, a tracker that sees the target at the right above the middle, and a gimbal that listens."""

    def __init__(self, context, **given):
        given = dict(field_of_view=60.0) | given
        self.node = GimbalPointing(context=context, parameter_overrides=[
            Parameter(name, value=value) for name, value in given.items()])
        self.other = Node('other', context=context)
        self.states = self.other.create_publisher(TrackState, 'tracker/state', QoSProfile(depth=10))
        self.twists: list[TwistStamped] = []
        self.other.create_subscription(TwistStamped, 'gimbal_pointing/twist', self.twists.append, QoSProfile(depth=100))
        self.client = self.other.create_client(SetBool, 'gimbal_pointing/enable')
        self.executor = rclpy.executors.SingleThreadedExecutor(context=context)
        self.executor.add_node(self.node), self.executor.add_node(self.other)

    def spin(self, seconds: float, state: int | None = TrackState.TRACKING, until=lambda: False) -> None:
        end, told = time.monotonic() + seconds, 0.0
        while time.monotonic() < end and not until():
            if state is not None and time.monotonic() - told > 0.03:
                told = time.monotonic()
                self.states.publish(TrackState(state=state, error_x=0.5, error_y=-0.25, image_width=640, image_height=480,
                                               age=0.02))
            self.executor.spin_once(timeout_sec=0.01)

    def enable(self, on: bool) -> None:
        self.spin(PATIENCE, None, self.client.service_is_ready)
        future = self.client.call_async(SetBool.Request(data=on))
        self.spin(PATIENCE, None, future.done)
        assert future.result().success

    def close(self) -> None:
        self.node.destroy_node(), self.other.destroy_node()


def test_it_is_off_until_it_is_asked_for_and_stops_when_it_is_sent_away(context):
    bench = Bench(context)
    bench.spin(1.0)
    assert not bench.twists
    bench.enable(True)
    bench.spin(PATIENCE, until=lambda: len(bench.twists) > 20)
    turning = bench.twists[-1].twist.angular
    assert turning.z < -0.1 and turning.y < -0.05  # to the right and upwards, as REP 103 counts
    bench.enable(False)
    bench.spin(0.5)
    count = len(bench.twists)
    assert bench.twists[-1].twist.angular.z == 0
    bench.spin(0.5)
    assert len(bench.twists) == count
    bench.close()


@pytest.mark.parametrize('state', [TrackState.LOST, TrackState.NO_TARGET, TrackState.PAUSED, None])
def test_without_a_target_it_stands_still(context, state):
    bench = Bench(context, enabled=True)
    bench.spin(PATIENCE, until=lambda: len(bench.twists) > 20)
    assert bench.twists[-1].twist.angular.z < -0.1
    bench.spin(1.0, state)
    assert bench.twists[-1].twist.angular.z == 0 == bench.twists[-1].twist.angular.y
    bench.close()


def test_without_a_field_of_view_it_stands_still(context):
    bench = Bench(context, enabled=True, field_of_view=0.0)
    bench.spin(1.0)
    assert bench.twists and not any(twist.twist.angular.z for twist in bench.twists)
    bench.close()


def test_a_gimbal_manager_gives_control_gets_rates_and_control_back(context):
    pytest.importorskip('pymavlink', reason='pymavlink is not installed: pip install pymavlink')
    import socket

    from pymavlink.dialects.v20 import common as mavlink
    manager = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    manager.bind(('127.0.0.1', 0))
    manager.setblocking(False)
    parser, heard = mavlink.MAVLink(None, 1, 1), []

    def listen() -> list:
        while True:
            try:
                heard.extend(parser.parse_buffer(manager.recv(2048)) or [])
            except BlockingIOError:
                return heard

    bench = Bench(context, output='mavlink', url=f'udpout:127.0.0.1:{manager.getsockname()[1]}', gimbal_device=2)
    bench.spin(0.5)
    assert {message.get_type() for message in listen()} == {'HEARTBEAT'}
    bench.enable(True)
    bench.spin(PATIENCE, until=lambda: sum(m.get_type() == 'GIMBAL_MANAGER_SET_PITCHYAW' for m in listen()) > 20)
    take = next(m for m in heard if m.get_type() == 'COMMAND_LONG')
    assert (take.command, take.param1, take.param7) == (mavlink.MAV_CMD_DO_GIMBAL_MANAGER_CONFIGURE, -2, 2)
    rate = heard[-1]
    assert rate.yaw_rate > 0.1 and rate.pitch_rate > 0.05 and math.isnan(rate.pitch) and math.isnan(rate.yaw)
    assert (rate.target_system, rate.target_component, rate.gimbal_device_id) == (1, 1, 2)
    bench.enable(False)
    stop, give = [m for m in listen() if m.get_type() != 'HEARTBEAT'][-2:]
    assert (stop.yaw_rate, stop.pitch_rate) == (0, 0) and give.param1 == -3
    bench.close()
    manager.close()


@pytest.mark.parametrize('given, reason', [(dict(output='servo'), 'output must be one of twist, mavlink'),
                                           (dict(output='mavlink', url='x'), 'a MAVLink URL is')])
def test_wrong_parameters_are_told_in_a_sentence(context, given, reason):
    if given['output'] == 'mavlink':
        pytest.importorskip('pymavlink', reason='pymavlink is not installed: pip install pymavlink')
    with pytest.raises(ValueError, match=reason):
        GimbalPointing(context=context, parameter_overrides=[Parameter(n, value=v) for n, v in given.items()])
