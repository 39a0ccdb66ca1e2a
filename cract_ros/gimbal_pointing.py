"""Turns a gimbal so that the target stays in the middle of the picture; off until it is asked for.

    ros2 run cract_ros gimbal_pointing --ros-args -p output:=mavlink -p url:=udpout:127.0.0.1:14550
    ros2 service call /gimbal_pointing/enable std_srvs/srv/SetBool "{data: true}"

Towards a MAVLink gimbal it takes control of the gimbal manager and sends GIMBAL_MANAGER_SET_PITCHYAW with rates, towards
a ROS gimbal a twist. `pointing` has the control law.
"""
from __future__ import annotations

import math
import threading
import time

from geometry_msgs.msg import TwistStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo
from std_srvs.srv import SetBool

from cract_ros import small_nodes
from cract_ros.msg import TrackState
from cract_ros.pointing import Pointing, PointingConfig, Sight, angles

TWIST, MAVLINK = 'twist', 'mavlink'
PERIOD = 0.03     # seconds between two commands
HEARTBEAT = 1.0   # seconds
THROTTLE = 5.0    # seconds between two warnings of one kind
SIGHTS = {TrackState.TRACKING: Sight.FOLLOWED, TrackState.UNCERTAIN: Sight.DOUBTFUL}

# name -> default, what it is, its range
PARAMETERS = {
    'tracker': ('tracker', 'name of the tracker node', None),
    'enabled': (False, 'turn the gimbal from the start; else from a call of ~/enable', None),
    'output': (TWIST, 'twist: geometry_msgs/TwistStamped on ~/twist; mavlink: GIMBAL_MANAGER_SET_PITCHYAW', (TWIST, MAVLINK)),
    'field_of_view': (0.0, 'horizontal field of view, degrees; 0: that of camera_info', (0.0, 170.0)),
    'gain': (2.5, 'rate for each radian that is left, 1/s', (0.1, 20.0)),
    'deadband': (0.3, 'degrees that are left alone', (0.0, 20.0)),
    'max_rate': (60.0, 'degrees a second, of each axis', (0.1, 720.0)),
    'max_acceleration': (240.0, 'degrees a second, each second', (1.0, 5000.0)),
    'delay': (0.1, 'seconds from a command to its effect', (0.0, 1.0)),
    'hold': (3.0, 'seconds that an uncertain target is turned with as it moved before', (0.0, 60.0)),
    'timeout': (0.3, 'seconds without an answer of the tracker after which the gimbal stops', (0.05, 10.0)),
    'url': ('udpout:127.0.0.1:14550', 'where MAVLink goes, as of mavlink_camera', None),
    'key_file': ('', 'key of message signing, as of mavlink_camera', None),
    'system': (1, 'MAVLink system of the vehicle', (1, 255)),
    'component': (191, 'MAVLink component of this node', (1, 255)),
    'gimbal_manager': (1, 'component of the gimbal manager: 1 is the autopilot', (1, 255)),
    'gimbal_device': (0, 'number or component of the gimbal; 0: all of that manager', (0, 255)),
}


class GimbalManager:
    """The gimbal over MAVLink: control is taken and given back, rates are sent. ValueError or OSError for a wrong URL."""

    def __init__(self, given: dict):
        from cract_ros.mavlink_link import open_link
        from cract_ros.mavlink_protocol import Parser, mavlink, read_key
        self._mavlink, self._given = mavlink, given
        self._parser = Parser(given['system'], given['component'], read_key(given['key_file']) if given['key_file'] else None)
        self._link = open_link(given['url'])
        self._beaten, self._rest = -math.inf, b''
        self.address = self._link.address
        self.refused = ''   # why control was not given

    def take(self, control: bool) -> None:
        """Become the one who points the gimbal, or cease to be."""
        who = -2.0 if control else -3.0  # the sender; nobody, if it is the sender
        self._send(self._mavlink.MAVLink_command_long_message(
            self._given['system'], self._given['gimbal_manager'], self._mavlink.MAV_CMD_DO_GIMBAL_MANAGER_CONFIGURE, 0,
            who, who, -1, -1, 0, 0, self._given['gimbal_device']))

    def turn(self, right: float, up: float) -> None:
        """Radians a second."""
        self._send(self._mavlink.MAVLink_gimbal_manager_set_pitchyaw_message(
            self._given['system'], self._given['gimbal_manager'], 0, self._given['gimbal_device'], math.nan, math.nan, up,
            right))

    def tick(self, now: float) -> None:
        """Be alive, and hear what the manager says."""
        self._parser.set_time(time.time())
        if now - self._beaten >= HEARTBEAT:
            self._beaten = now
            self._send(self._mavlink.MAVLink_heartbeat_message(
                self._mavlink.MAV_TYPE_ONBOARD_CONTROLLER, self._mavlink.MAV_AUTOPILOT_INVALID, 0, 0,
                self._mavlink.MAV_STATE_ACTIVE, 3))
        for chunk in self._link.receive(0.0):
            messages, self._rest = self._parser.read(self._rest + chunk.data if chunk.stream else chunk.data)
            for message in messages:
                if message.get_type() not in ('BAD_DATA',) and not message.get_type().startswith('UNKNOWN'):
                    self._link.keep(chunk.end)
                    self._hear(message)

    def close(self) -> None:
        self._link.close()

    def _hear(self, message) -> None:
        if message.get_type() != 'COMMAND_ACK' or message.get_srcSystem() != self._given['system'] or \
                message.command != self._mavlink.MAV_CMD_DO_GIMBAL_MANAGER_CONFIGURE:
            return
        results = self._mavlink.enums['MAV_RESULT']
        accepted = message.result in (self._mavlink.MAV_RESULT_ACCEPTED, self._mavlink.MAV_RESULT_IN_PROGRESS)
        name = results[message.result].name if message.result in results else str(message.result)
        self.refused = '' if accepted else f'the gimbal manager does not give control: {name}'

    def _send(self, message) -> None:
        self._link.send(self._parser.write(message), None)


class GimbalPointing(Node):
    """Node `gimbal_pointing`. Raises ValueError or OSError for parameters that cannot be used."""

    def __init__(self, **kwargs):
        super().__init__('gimbal_pointing', **kwargs)
        self._manager: GimbalManager | None = None
        try:
            self._given = given = small_nodes.declare(self, PARAMETERS)
            degrees = ('deadband', 'max_rate', 'max_acceleration')
            self._pointing = Pointing(PointingConfig(**{
                name: math.radians(given[name]) if name in degrees else given[name]
                for name in PointingConfig.__dataclass_fields__}))
            if given['output'] == MAVLINK:
                self._manager = GimbalManager(given)
        except (OSError, ValueError):
            super().destroy_node()
            raise
        self._lock = threading.Lock()
        self._twist = self.create_publisher(TwistStamped, '~/twist', QoSProfile(depth=1)) if self._manager is None else None
        self._width_in_focals, self._enabled = 0.0, False
        if given['field_of_view']:
            self._width_in_focals = 2 * math.tan(math.radians(given['field_of_view']) / 2)
        else:
            self.create_subscription(CameraInfo, 'camera_info', self._on_camera_info,
                                     QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
        self.create_subscription(TrackState, f'{given["tracker"]}/state', self._on_state, QoSProfile(depth=1))
        self.create_service(SetBool, '~/enable', self._on_enable)
        self.create_timer(PERIOD, self._turn, clock=Clock(clock_type=ClockType.STEADY_TIME))
        if given['enabled']:
            self._enable(True)

    @property
    def enabled(self) -> bool:
        return self._enabled

    @property
    def address(self) -> tuple:
        """Of the MAVLink link."""
        return self._manager.address

    def destroy_node(self) -> None:
        if self._enabled:
            self._enable(False)
        if self._manager is not None:
            self._manager.close()
            self._manager = None
        super().destroy_node()

    def _on_camera_info(self, message: CameraInfo) -> None:
        focal = message.k[0]
        if focal > 0 and math.isfinite(focal) and message.width:
            self._width_in_focals = message.width / focal
        else:
            self.get_logger().warning('camera_info has no focal length: set field_of_view', throttle_duration_sec=THROTTLE)

    def _on_state(self, message: TrackState) -> None:
        sight = SIGHTS.get(message.state, Sight.NOTHING)
        if not self._width_in_focals:
            if self._enabled:
                self.get_logger().warning('the gimbal stands still: neither camera_info nor field_of_view is known',
                                          throttle_duration_sec=THROTTLE)
            return
        aspect = message.image_height / message.image_width if message.image_width else 0.75
        view = tuple(2 * math.atan(size * self._width_in_focals / 2) for size in (1.0, aspect))
        error = angles(message.error_x, message.error_y, view)
        if not all(map(math.isfinite, error)):
            return
        age = message.age if math.isfinite(message.age) and 0 <= message.age < 1 else message.processing_time
        with self._lock:
            self._pointing.see(time.monotonic(), age, sight, error)

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enable(request.data)
        response.success, response.message = True, 'the gimbal is turned' if request.data else 'the gimbal is left alone'
        self.get_logger().info(response.message)
        return response

    def _enable(self, enabled: bool) -> None:
        with self._lock:
            was, self._enabled = self._enabled, enabled
            self._pointing.stop()
            if self._manager is not None and enabled != was:
                if was:
                    self._send(0.0, 0.0)
                self._manager.take(enabled)
            elif was:
                self._send(0.0, 0.0)

    def _turn(self) -> None:
        now = time.monotonic()
        with self._lock:
            if self._manager is not None:
                self._manager.tick(now)
                if self._manager.refused and self._enabled:
                    self.get_logger().warning(self._manager.refused, throttle_duration_sec=THROTTLE)
            if self._enabled:
                self._send(*self._pointing.rates(now))

    def _send(self, right: float, up: float) -> None:
        """As MAVLink has it, or as REP 103 does: y to the left, z upwards."""
        if self._manager is not None:
            self._manager.turn(right, up)
            return
        message = TwistStamped()
        message.header.stamp = self.get_clock().now().to_msg()
        message.twist.angular.y, message.twist.angular.z = -up, -right
        self._twist.publish(message)


def main(args: list[str] | None = None) -> int:
    """Turn until SIGINT or SIGTERM; then the gimbal stops and is given back."""
    return small_nodes.run(GimbalPointing, 'gimbal_pointing', args)


if __name__ == '__main__':
    raise SystemExit(main())
