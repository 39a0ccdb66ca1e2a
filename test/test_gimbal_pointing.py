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
from cract_ros.pointing import Pointing, Sight, angles

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


@pytest.mark.slow
def test_the_gimbal_keeps_a_rendered_car_in_the_middle_and_stops_when_it_is_lost():
    """The tracker on pictures of a camera that really turns: 100 ms after it was told, and the car passes under a bridge."""
    from cract_core import State, Tracker, TrackerConfig
    from cract_core.synthetic import RATE, Camera, Scene, _on_road
    first, hidden, noise, end = 180, 228, 258, 275   # frames
    scene, size = Scene(2, (640, 480)), (640, 480)

    def direction(t: float) -> np.ndarray:
        x, y, _ = _on_road(scene.target_x(t), scene.target.lane)
        d = np.array([x, y, 0.5]) - place(t)
        return np.array([math.atan2(d[1], d[0]), math.atan2(-d[2], math.hypot(d[0], d[1]))])

    def place(t: float) -> np.ndarray:
        return np.array([12.0 + 12 * t, -38.0, 50.0])

    cameras, view = {}, (2 * math.atan(320 / 704), 2 * math.atan(240 / 704))
    scene.camera = lambda t: cameras[min(max(round(t * RATE), first), max(cameras))]
    azimuth, pitch = direction(first / RATE) + (0.2, 0.13)   # the car is far from the middle at first
    tracker, pointing, random = Tracker(TrackerConfig(threads=1)), Pointing(), np.random.default_rng(0)
    commands, errors, states, rates = [], [], [], []
    for index in range(first, end):
        t = index / RATE
        forward = np.array([math.cos(pitch) * math.cos(azimuth), math.cos(pitch) * math.sin(azimuth), -math.sin(pitch)])
        reach = place(t)[2] / math.sin(pitch)
        cameras[index] = Camera(place(t) + reach * forward, reach, azimuth, pitch, 0.0, size)
        frame = scene.render(index)
        image = frame.image if index < noise else random.integers(0, 256, (480, 640, 3), np.uint8)
        if index == first:
            tracker.init(image, frame.box)
            box, state = frame.box, State.TRACKING
        else:
            estimate = tracker.update(image)
            box, state = estimate.box, estimate.state
        sight = {State.TRACKING: Sight.FOLLOWED, State.UNCERTAIN: Sight.DOUBTFUL, State.LOST: Sight.NOTHING}[state]
        for part in range(3):
            now = t + part / RATE / 3
            if part == 1:   # the answer comes some milliseconds after the picture
                x, y = (2 * box[:2] + box[2:]) / size - 1
                pointing.see(now, now - t, sight, angles(x, y, view))
            commands.append((now, pointing.rates(now)))
            turn = next((rate for at, rate in reversed(commands) if at <= now - 0.1), (0.0, 0.0))
            azimuth, pitch = azimuth - turn[0] / RATE / 3, pitch - turn[1] / RATE / 3
        errors.append((2 * frame.box[:2] + frame.box[2:]) / size - 1)
        states.append(state), rates.append(commands[-1][1])
    errors = np.abs(errors)
    assert errors[0].max() > 0.25
    assert errors[round(1.5 * RATE):hidden - first].max() < 0.1        # in the middle tenth after 1.5 s
    assert errors[hidden - first:noise - first].max() < 0.5             # in the picture through the bridge
    lost = first + states.index(State.LOST, noise - first)
    assert lost < end - round(0.3 * RATE)
    assert not np.any(rates[lost - first + round(0.3 * RATE):])
