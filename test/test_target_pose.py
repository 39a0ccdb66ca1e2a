"""The target in the world, against the truth of the rendered scene, and the node that says it."""
from __future__ import annotations

import math
import time

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

import rclpy
from geometry_msgs.msg import PointStamped, PoseStamped, PoseWithCovarianceStamped, Vector3Stamped
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import NavSatFix

from cract_core.synthetic import RATE, Scene, _on_road
from cract_ros.target_pose import TargetPose
from cract_ros.world import Pose, at_point, between, covariance, on_ground, rotation, to_globe

DOWN = Pose(np.array([10.0, 20.0, 50.0]), np.array([1.0, 0.0, 0.0, 0.0]))   # looks straight down, its x to the east


def quaternion(matrix: np.ndarray) -> np.ndarray:
    """x, y, z, w of a rotation (3, 3), by the axis of its eigenvector."""
    values, vectors = np.linalg.eig(matrix)
    axis = np.real(vectors[:, np.argmin(abs(values - 1))])
    cosine = (np.trace(matrix) - 1) / 2
    sine = axis @ [matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]] / 2
    angle = math.atan2(sine, cosine)
    return np.array([*(axis * math.sin(angle / 2)), math.cos(angle / 2)])


def test_a_camera_that_looks_down_sees_the_ground_below_it():
    assert on_ground(DOWN, np.array([0.0, 0.0, 1.0]), 0.0) == pytest.approx([10, 20, 0])
    assert on_ground(DOWN, np.array([0.1, 0.0, 1.0]), 10.0) == pytest.approx([14, 20, 10])
    assert on_ground(DOWN, np.array([0.0, 0.1, 1.0]), 0.0) == pytest.approx([10, 15, 0])   # down in the picture is south
    assert at_point(DOWN, np.array([3.0, 4.0, 30.0])) == pytest.approx([13, 16, 20])


@pytest.mark.parametrize('pose, ray, reason', [
    (DOWN, [0, 0, -1.0], 'horizon'), (DOWN, [1.0, 0, 0.001], 'horizon'),
    (DOWN._replace(position=np.array([0, 0, -2.0])), [0, 0, 1.0], '2.0 m below the ground'),
    (DOWN._replace(quaternion=np.zeros(4)), [0, 0, 1.0], 'not zero'),
    (DOWN._replace(quaternion=np.array([math.nan, 0, 0, 1])), [0, 0, 1.0], 'not zero')])
def test_a_ray_that_meets_no_ground_is_refused(pose, ray, reason):
    with pytest.raises(ValueError, match=reason):
        on_ground(pose, np.array(ray), 0.0)


def test_between_two_poses_the_camera_has_turned_half_way():
    turned = Pose(np.array([2.0, 0, 0]), -np.array([0, 0, math.sin(0.2), math.cos(0.2)]))
    middle = between(Pose(np.zeros(3), np.array([0, 0, 0, 1.0])), turned, 0.5)
    assert middle.position == pytest.approx([1, 0, 0])
    assert rotation(middle.quaternion)[1, 0] == pytest.approx(math.sin(0.2))


def test_the_covariance_is_that_of_many_draws():
    values, deviations = np.array([0.3, -0.2, 0.0]), np.array([0.005, 0.01, 0.5])

    def place(v: np.ndarray) -> np.ndarray:
        return on_ground(DOWN, np.array([v[0], v[1], 1.0]), v[2])
    draws = np.array([place(values + deviations * noise) for noise in np.random.default_rng(0).normal(size=(20000, 3))])
    assert covariance(place, values, deviations) == pytest.approx(np.cov(draws.T), rel=0.06, abs=2e-3)


def test_a_kilometre_on_the_globe_has_its_known_angle():
    """WGS 84: a degree of latitude is 110.574 km at the equator and 111.132 km at 45 degrees, one of longitude 111.320 km
    at the equator and 78.847 km at 45 degrees."""
    for latitude, north, east in ((0.0, 110574, 111320), (45.0, 111132, 78847)):
        found = to_globe((latitude, 10.0, 0.0), east / 100, north / 100, 7.0)
        assert found == pytest.approx((latitude + 0.01, 10.01, 7.0), abs=2e-6)


def test_the_car_of_the_rendered_scene_is_found_where_it_is():
    scene = Scene(1, (640, 480))
    errors = []
    for index in range(0, 120, 20):
        t = index / RATE
        camera, box = scene.camera(t), scene.render(index).box
        centre = box[:2] + box[2:] / 2
        ray = np.array([(centre[0] - 320) / camera.focal, (centre[1] - 240) / camera.focal, 1.0])
        found = on_ground(Pose(camera.position, quaternion(camera.rotation.T)), ray, 0.7)
        errors.append(np.linalg.norm(found[:2] - _on_road(scene.target_x(t), scene.target.lane)[:2]))
    assert max(errors) < 0.6   # of a car 4 to 5 m long, seen from 50 m


class Bench:
    def __init__(self, **given):
        self.context = rclpy.Context()
        self.context.init()
        self.node = TargetPose(context=self.context, parameter_overrides=[Parameter(n, value=v) for n, v in given.items()])
        self.other = Node('other', context=self.context)
        self.executor = rclpy.executors.SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node), self.executor.add_node(self.other)
        self.out = {kind: self.other.create_publisher(kind, topic, QoSProfile(depth=10)) for kind, topic in (
            (PoseStamped, 'camera_pose'), (Vector3Stamped, 'tracker/bearing'), (PointStamped, 'tracker/point'))}
        self.poses, self.fixes = [], []
        few = QoSProfile(depth=10)
        self.other.create_subscription(PoseWithCovarianceStamped, 'tracker/target_pose', self.poses.append, few)
        self.other.create_subscription(NavSatFix, 'tracker/target_fix', self.fixes.append, QoSProfile(depth=10))
        self.spin(30, lambda: all(p.get_subscription_count() for p in self.out.values())
                  and self.other.count_publishers('tracker/target_pose'))

    def spin(self, seconds: float, until=lambda: False) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not until():
            self.executor.spin_once(timeout_sec=0.02)

    def pose(self, second: int, pose: Pose = DOWN, frame: str = 'map') -> None:
        message = PoseStamped()
        message.header.stamp.sec, message.header.frame_id = second, frame
        message.pose.position.x, message.pose.position.y, message.pose.position.z = map(float, pose.position)
        for name, value in zip('xyzw', pose.quaternion):
            setattr(message.pose.orientation, name, float(value))
        self.out[PoseStamped].publish(message)

    def see(self, second: int, x: float = 0.1, depth: float | None = None) -> None:
        message = Vector3Stamped()
        message.header.stamp.sec = second
        message.vector.x, message.vector.z = x, 1.0
        if depth is not None:
            point = PointStamped(header=message.header)
            point.point.x, point.point.z = x * depth, depth
            self.out[PointStamped].publish(point)
            self.spin(0.3)
        self.out[Vector3Stamped].publish(message)

    def place(self) -> list[float]:
        position = self.poses[-1].pose.pose.position
        return [position.x, position.y, position.z]

    def close(self) -> None:
        self.node.destroy_node(), self.other.destroy_node()
        self.context.try_shutdown()


def test_the_node_says_where_the_ray_meets_the_ground_and_where_depth_ends_it():
    bench = Bench(latitude=47.0, longitude=8.0, altitude=400.0)
    bench.pose(1)
    bench.see(1)
    bench.spin(20, lambda: bench.poses and bench.fixes)
    assert bench.place() == pytest.approx([15, 20, 0])
    assert bench.poses[-1].header.frame_id == 'map' and bench.poses[-1].header.stamp.sec == 1
    spread = np.array(bench.poses[-1].pose.covariance).reshape(6, 6)
    assert spread[1, 1] == pytest.approx((50 * math.radians(0.3)) ** 2, rel=0.01)   # 0.3 degrees from 50 m
    fix = bench.fixes[-1]
    assert (fix.latitude, fix.longitude, fix.altitude) == pytest.approx(to_globe((47.0, 8.0, 400.0), 15, 20, 0))
    bench.pose(2)
    bench.see(2, depth=30.0)
    bench.spin(20, lambda: len(bench.poses) > 1)
    assert bench.place() == pytest.approx([13, 20, 20])
    bench.close()


def test_a_direction_waits_for_the_pose_of_its_time_and_takes_no_old_one():
    bench = Bench()
    bench.pose(1)
    bench.see(3)
    bench.spin(0.5)
    assert not bench.poses
    bench.pose(5, DOWN._replace(position=np.array([30.0, 20.0, 50.0])))   # too far away, both of them
    bench.spin(0.5)
    assert not bench.poses
    bench.see(6)
    bench.pose(6)
    bench.spin(20, lambda: bench.poses)
    assert bench.place() == pytest.approx([15, 20, 0])
    bench.pose(7, frame='odom'), bench.see(7)
    bench.pose(7, DOWN._replace(quaternion=np.zeros(4)))
    bench.spin(0.5)
    assert len(bench.poses) == 1
    bench.close()


@pytest.mark.parametrize('given, reason', [(dict(pose_from='gps'), 'pose_from must be one of topic, tf'),
                                           (dict(latitude=95.0, longitude=0.0), 'between the poles'),
                                           (dict(latitude=50.0), 'between the poles')])
def test_wrong_parameters_are_told_in_a_sentence(given, reason):
    context = rclpy.Context()
    context.init()
    with pytest.raises(ValueError, match=reason):
        TargetPose(context=context, parameter_overrides=[Parameter(n, value=v) for n, v in given.items()])
    context.try_shutdown()
