"""Where the target is in the world: from its direction or point in the camera's frame and the camera's pose.

    ros2 run cract_ros target_pose --ros-args -p frame:=map -r camera_pose:=/camera/pose

The pose comes from the topic `camera_pose`, or from tf2 where tf2_ros is installed. With depth the tracker's point is
taken; else the place where the ray meets level ground. With the origin's latitude and longitude the place on the globe is
told, too.
"""
from __future__ import annotations

import math
from bisect import bisect
from importlib.util import find_spec

import numpy as np
from geometry_msgs.msg import PointStamped, PoseStamped, PoseWithCovarianceStamped, Vector3Stamped
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from sensor_msgs.msg import NavSatFix, NavSatStatus
from std_msgs.msg import Header

from cract_ros import small_nodes
from cract_ros.history import nanoseconds
from cract_ros.world import Pose, at_point, between, covariance, on_ground, rotation, to_globe

TOPIC, TF = 'topic', 'tf'
KEPT = 400        # poses of the camera
THROTTLE = 5.0    # seconds between two warnings of one kind
AXES = ('x', 'y', 'z')

# name -> default, what it is, its range
PARAMETERS = {
    'tracker': ('tracker', 'name of the tracker node', None),
    'frame': ('map', 'world frame of the pose: x east, y north, z up where the place on the globe is asked for', None),
    'pose_from': (TOPIC, "the camera's pose: topic is geometry_msgs/PoseStamped on camera_pose, of the optical frame in "
                         "`frame`; tf needs tf2_ros", (TOPIC, TF)),
    'ground_height': (0.0, 'z of the ground, or of the middle of what stands on it, metres', (-10000.0, 10000.0)),
    'largest_gap': (0.2, "seconds between the image and the nearest pose of the camera", (0.0, 10.0)),
    'bearing_deviation': (0.3, 'standard deviation of the direction, degrees', (0.0, 45.0)),
    'ground_deviation': (0.5, 'standard deviation of the height of the ground, metres', (0.0, 1000.0)),
    'depth_deviation': (0.05, 'standard deviation of the depth, as a part of it', (0.0, 1.0)),
    'position_deviation': (0.0, "standard deviation of the camera's position, metres", (0.0, 1000.0)),
    'latitude': (math.nan, "of the frame's origin, degrees; not given: no place on the globe", None),
    'longitude': (math.nan, "of the frame's origin, degrees", None),
    'altitude': (0.0, "of the frame's origin, metres above mean sea level", None),
}


class TargetPose(Node):
    """Node `target_pose`. ValueError for parameters that cannot be used."""

    def __init__(self, **kwargs):
        super().__init__('target_pose', **kwargs)
        try:
            self._given = given = small_nodes.declare(self, PARAMETERS)
            if given['pose_from'] == TF and find_spec('tf2_ros') is None:
                raise ValueError('pose_from:=tf needs the package tf2_ros; without it publish the pose on camera_pose')
            self._origin = given['latitude'], given['longitude'], given['altitude']
            if not math.isnan(self._origin[0]) and not (abs(self._origin[0]) < 89.9 and abs(self._origin[1]) <= 360
                                                        and math.isfinite(self._origin[2])):
                raise ValueError(f'latitude, longitude and altitude must be those of a place between the poles, '
                                 f'got {self._origin}')
        except ValueError:
            super().destroy_node()
            raise
        tracker, few = given['tracker'], QoSProfile(depth=10)
        self._poses: list[tuple[int, Pose]] = []   # by stamp, ns
        self._point: PointStamped | None = None
        self._waiting: Vector3Stamped | None = None
        self._pose = self.create_publisher(PoseWithCovarianceStamped, f'{tracker}/target_pose', few)
        self._fix = None if math.isnan(self._origin[0]) else self.create_publisher(NavSatFix, f'{tracker}/target_fix', few)
        self._buffer = None
        if given['pose_from'] == TF:
            import tf2_ros
            self._buffer = tf2_ros.Buffer()
            self._listener = tf2_ros.TransformListener(self._buffer, self)
        else:
            self.create_subscription(PoseStamped, 'camera_pose', self._on_pose,
                                     QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT))
        self.create_subscription(PointStamped, f'{tracker}/point', self._on_point, few)
        self.create_subscription(Vector3Stamped, f'{tracker}/bearing', self._on_bearing, few)

    def _on_pose(self, message: PoseStamped) -> None:
        if message.header.frame_id not in ('', self._given['frame']):
            self.get_logger().warning(f'camera_pose is in the frame {message.header.frame_id!r}, expected '
                                      f'{self._given["frame"]!r}', throttle_duration_sec=THROTTLE)
            return
        position, turn = message.pose.position, message.pose.orientation
        pose = Pose(np.array([position.x, position.y, position.z]), np.array([turn.x, turn.y, turn.z, turn.w]))
        try:
            rotation(pose.quaternion)
            if not np.isfinite(pose.position).all():
                raise ValueError('a position that is not finite')
        except ValueError as error:
            self.get_logger().warning(f'camera_pose is left out: {error}', throttle_duration_sec=THROTTLE)
            return
        stamp = nanoseconds(message.header.stamp)
        if self._poses and stamp < self._poses[-1][0]:   # the clock was set back
            self._poses.clear()
        self._poses.append((stamp, pose))
        del self._poses[:-KEPT]
        if self._waiting is not None and stamp >= nanoseconds(self._waiting.header.stamp):
            self._answer(self._waiting)

    def _on_point(self, message: PointStamped) -> None:
        self._point = message
        if self._waiting is not None and self._waiting.header.stamp == message.header.stamp:
            self._answer(self._waiting)

    def _on_bearing(self, message: Vector3Stamped) -> None:
        """The pose of that time comes later where it is published more seldom than pictures are: the direction waits."""
        self._waiting = message
        if self._buffer is not None or self._poses and self._poses[-1][0] >= nanoseconds(message.header.stamp):
            self._answer(message)

    def _answer(self, bearing: Vector3Stamped) -> None:
        self._waiting = None
        try:
            pose = self._pose_at(bearing.header)
            place, spread = self._place(bearing, pose)
        except ValueError as error:
            self.get_logger().warning(f'no place: {error}', throttle_duration_sec=THROTTLE)
            return
        header = Header(stamp=bearing.header.stamp, frame_id=self._given['frame'])
        message = PoseWithCovarianceStamped(header=header)
        for name, value in zip(AXES, place):
            setattr(message.pose.pose.position, name, float(value))
        message.pose.pose.orientation.w = 1.0
        whole = np.zeros((6, 6))
        whole[:3, :3] = spread
        whole[3:, 3:] = np.eye(3) * 1e6   # which way it looks is not known
        message.pose.covariance = whole.ravel().tolist()
        self._pose.publish(message)
        if self._fix is not None:
            latitude, longitude, altitude = to_globe(self._origin, *place)
            self._fix.publish(NavSatFix(
                header=header, latitude=latitude, longitude=longitude, altitude=altitude,
                position_covariance=spread.ravel().tolist(), position_covariance_type=NavSatFix.COVARIANCE_TYPE_KNOWN,
                status=NavSatStatus(status=NavSatStatus.STATUS_FIX)))

    def _place(self, bearing: Vector3Stamped, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) and covariance (3, 3)."""
        given, vector = self._given, bearing.vector
        ray = np.array([vector.x, vector.y, vector.z])
        if not np.isfinite(ray).all() or ray[2] <= 0:
            raise ValueError('the direction does not lead ahead of the camera')
        slope, angle = ray[:2] / ray[2], math.radians(given['bearing_deviation'])
        moved = given['position_deviation']
        if self._point is not None and self._point.header.stamp == bearing.header.stamp:
            depth = self._point.point.z

            def place(values: np.ndarray) -> np.ndarray:
                return at_point(pose, np.array([values[0], values[1], 1.0]) * values[2])
            values, deviations = np.array([*slope, depth]), np.array([angle, angle, given['depth_deviation'] * depth])
        else:
            def place(values: np.ndarray) -> np.ndarray:
                return on_ground(pose, np.array([values[0], values[1], 1.0]), values[2])
            values = np.array([*slope, given['ground_height']])
            deviations = np.array([angle, angle, given['ground_deviation']])
        return place(values), covariance(place, values, deviations) + moved ** 2 * np.eye(3)

    def _pose_at(self, header: Header) -> Pose:
        """Of the optical frame when the image was taken."""
        if self._buffer is not None:
            return self._from_tf(header)
        if not self._poses:
            raise ValueError('no pose has come on camera_pose yet')
        stamp = nanoseconds(header.stamp)
        place = bisect([at for at, _ in self._poses], stamp)
        near = self._poses[max(place - 1, 0):place + 1]
        gap = min(abs(at - stamp) for at, _ in near) / 1e9
        if gap > self._given['largest_gap']:
            raise ValueError(f'the nearest pose of the camera is {gap:.2f} s away from the image')
        if len(near) == 1 or near[0][0] == near[1][0]:
            return near[0][1]
        return between(near[0][1], near[1][1], (stamp - near[0][0]) / (near[1][0] - near[0][0]))

    def _from_tf(self, header: Header) -> Pose:
        import tf2_ros
        try:
            found = self._buffer.lookup_transform(self._given['frame'], header.frame_id, Time.from_msg(header.stamp)).transform
        except tf2_ros.TransformException as error:
            raise ValueError(f'no transform from {header.frame_id} to {self._given["frame"]}: {error}') from error
        move, turn = found.translation, found.rotation
        return Pose(np.array([move.x, move.y, move.z]), np.array([turn.x, turn.y, turn.z, turn.w]))


def main(args: list[str] | None = None) -> int:
    """Answer until SIGINT or SIGTERM."""
    return small_nodes.run(TargetPose, 'target_pose', args)


if __name__ == '__main__':
    raise SystemExit(main())
