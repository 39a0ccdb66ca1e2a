"""Directions against the forward camera models, written out from their definitions."""
from __future__ import annotations

import array
import math

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from cract_ros.bearing import Camera, centre_and_corners, distance_along, markers, transform

FX, FY, CX, CY = 400.0, 410.0, 330.0, 235.0
K = [FX, 0.0, CX, 0.0, FY, CY, 0.0, 0.0, 1.0]
SIZE = (640, 480)
PLUMB_BOB = [-0.25, 0.08, 0.001, -0.002, -0.01]
RATIONAL = [0.3, 0.1, 0.001, -0.0005, 0.02, 0.6, 0.2, 0.03]
EQUIDISTANT = [0.02, -0.01, 0.004, -0.001]


def info(model: str = 'plumb_bob', d=(), **changes) -> CameraInfo:
    values = dict(width=SIZE[0], height=SIZE[1], distortion_model=model, d=list(d), k=K) | changes
    return CameraInfo(**values)


def pinhole(ray, d) -> tuple[float, float]:
    """Pixel (integer centres) of a ray by the model of D: k1 k2 p1 p2 [k3 [k4 k5 k6]]."""
    k1, k2, p1, p2, k3, k4, k5, k6 = [*d, *[0.0] * (8 - len(d))]
    x, y = ray[0] / ray[2], ray[1] / ray[2]
    r = x * x + y * y
    radial = (1 + k1 * r + k2 * r**2 + k3 * r**3) / (1 + k4 * r + k5 * r**2 + k6 * r**3)
    return (FX * (x * radial + 2 * p1 * x * y + p2 * (r + 2 * x * x)) + CX,
            FY * (y * radial + p1 * (r + 2 * y * y) + 2 * p2 * x * y) + CY)


def fisheye(ray, d) -> tuple[float, float]:
    """Pixel (integer centres) of a ray where the angle to the axis, not its tangent, makes the distance."""
    x, y, z = ray
    theta, side = math.atan2(math.hypot(x, y), z), math.hypot(x, y)
    distance = theta * (1 + sum(k * theta**(2 * i + 2) for i, k in enumerate(d)))
    return FX * distance * x / side + CX, FY * distance * y / side + CY


@pytest.mark.parametrize('model, d, project, widest', [
    ('plumb_bob', [], pinhole, 0.6), ('', [], pinhole, 0.6), ('plumb_bob', PLUMB_BOB, pinhole, 0.6),
    ('rational_polynomial', RATIONAL, pinhole, 0.6), ('equidistant', EQUIDISTANT, fisheye, 1.3)])
def test_a_pixel_gives_the_ray_that_it_was_projected_from(model, d, project, widest):
    rng = np.random.default_rng(0)
    angle, turn = rng.uniform(0.01, widest, 50), rng.uniform(0, 2 * np.pi, 50)
    rays = np.stack([np.sin(angle) * np.cos(turn), np.sin(angle) * np.sin(turn), np.cos(angle)], 1)
    points = np.array([project(ray, d) for ray in rays]) + 0.5  # the centre of the first pixel is (0.5, 0.5) here
    np.testing.assert_allclose(Camera(info(model, d), rectified=False).rays(points, SIZE), rays, atol=1e-6)


def test_axes_are_right_down_ahead():
    rays = Camera(info(), rectified=False).rays(np.array([[CX + 100.5, CY + 0.5], [CX + 0.5, CY + 100.5]]), SIZE)
    np.testing.assert_allclose(rays, [[100 / math.hypot(100, FX), 0, FX / math.hypot(100, FX)],
                                      [0, 100 / math.hypot(100, FY), FY / math.hypot(100, FY)]], atol=1e-12)


def test_a_rectified_image_takes_p_and_no_distortion():
    p = [200.0, 0.0, 100.0, 0.0, 0.0, 200.0, 50.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    ray, = Camera(info(d=PLUMB_BOB, p=p), rectified=True).rays(np.array([[300.5, 50.5]]), SIZE)
    np.testing.assert_allclose(ray, [math.sqrt(0.5), 0, math.sqrt(0.5)], atol=1e-12)


def test_binning_and_region_of_interest_lead_back_to_the_full_sensor():
    whole, = Camera(info(), rectified=False).rays(np.array([[300.0, 200.0]]), SIZE)
    part = info(binning_x=2, binning_y=2)
    part.roi.x_offset, part.roi.y_offset, part.roi.width, part.roi.height = 100, 80, 400, 300
    inside, = Camera(part, rectified=False).rays(np.array([[100.0, 60.0]]), (200, 150))
    np.testing.assert_allclose(inside, whole)


def test_an_image_of_another_size_is_refused():
    with pytest.raises(ValueError, match='images of 640x480, but they have 320x240'):
        Camera(info(), rectified=False).rays(np.zeros((1, 2)), (320, 240))


@pytest.mark.parametrize('changes, reason', [
    (dict(k=[0.0] * 9), 'not calibrated'), (dict(k=[math.nan, *K[1:]]), 'not calibrated'),
    (dict(model='double_sphere', d=[0.1, 0.2]), "'double_sphere'"), (dict(d=[0.1, 0.2, 0.3]), "3 coefficients"),
    (dict(model='equidistant', d=PLUMB_BOB), '5 coefficients'), (dict(d=[math.nan] * 5), 'not finite')])
def test_a_camera_that_cannot_be_used_is_refused(changes, reason):
    with pytest.raises(ValueError, match=reason):
        Camera(info(**changes), rectified=False)


# Distance

def depth(values: np.ndarray, encoding: str = '32FC1', padding: int = 0, **changes) -> Image:
    rows = b''.join(row.tobytes() + b'\xff' * padding for row in values)
    return Image(**(dict(height=values.shape[0], width=values.shape[1], encoding=encoding, data=array.array('B', rows),
                         step=values.shape[1] * values.itemsize + padding) | changes))


@pytest.mark.parametrize('encoding, order, unit, big', [
    ('16UC1', '<u2', 1000, 0), ('16UC1', '>u2', 1000, 1), ('32FC1', '<f4', 1, 0), ('32FC1', '>f4', 1, 1)])
def test_distance_is_the_median_of_the_middle_of_the_box(encoding, order, unit, big):
    metres = np.full((24, 32), 50.0)
    metres[8:16, 12:20] = 5.0  # the object
    metres[12, 14:17] = [0.0, 0.0, 5.5]  # holes, and a step
    image = depth((metres * unit).astype(order), encoding, padding=3, is_bigendian=big)
    box = np.array([120.0, 80.0, 80.0, 80.0])  # in an image of ten times that size
    assert distance_along(image, box, (320, 240)) == pytest.approx(5.0)


@pytest.mark.parametrize('value', [0.0, math.nan, math.inf])
def test_without_a_measured_value_there_is_no_distance(value):
    assert distance_along(depth(np.full((24, 32), value, '<f4'), '32FC1'), np.array([8.0, 8, 8, 8]), (32, 24)) is None


@pytest.mark.parametrize('box', [(-50, -50, 20, 20), (100, 100, 20, 20), (10, -50, 5, 20)])
def test_a_box_outside_has_no_distance(box):
    assert distance_along(depth(np.ones((24, 32), '<f4'), '32FC1'), np.array(box, float), (32, 24)) is None


@pytest.mark.parametrize('changes, reason', [
    (dict(encoding='bgr8'), "got 'bgr8'"), (dict(step=10), 'does not fit'),
    (dict(height=4_000_000_000), 'does not fit'), (dict(width=4_000_000_000), 'does not fit'),
    (dict(data=array.array('B')), 'does not fit')])
def test_a_depth_image_that_does_not_fit_is_refused(changes, reason):
    with pytest.raises(ValueError, match=reason):
        distance_along(depth(np.ones((24, 32), '<f4'), **changes), np.array([8.0, 8, 8, 8]), (32, 24))


# Markers

def test_markers_reach_from_the_camera_to_the_target():
    header = Header(frame_id='gimbal')
    rays = Camera(info(), rectified=False).rays(centre_and_corners(np.array([300.0, 200.0, 40.0, 20.0])), SIZE)
    ray, box = markers(header, rays, 'tracking', 4.0).markers
    assert {ray.header.frame_id, box.header.frame_id} == {'gimbal'} and ray.type == box.type == Marker.LINE_LIST
    origin, end = ray.points
    assert (origin.x, origin.y, origin.z) == (0, 0, 0)
    np.testing.assert_allclose([end.x, end.y, end.z], [(319.5 - CX) / FX * 4, (209.5 - CY) / FY * 4, 4.0])
    far = {(round(p.x, 9), round(p.y, 9), round(p.z, 9)) for p in box.points if p.z}
    assert far == {(round((x - 0.5 - CX) / FX * 4, 9), round((y - 0.5 - CY) / FY * 4, 9), 4.0)
                   for x in (300, 340) for y in (200, 220)}


def test_without_distance_the_ray_has_a_fixed_length():
    end = markers(Header(), np.array([[0.6, 0.0, 0.8]] * 5), 'uncertain', None).markers[0].points[1]
    assert math.hypot(end.x, end.y, end.z) == pytest.approx(10.0)


# /tf

@pytest.mark.parametrize('ray', [(0, 0, 1), (0.6, 0, 0.8), (0, -0.6, 0.8), (2 / 7, 3 / 7, 6 / 7), (-0.9, 0.3, 0.1)])
def test_the_z_axis_of_the_targets_frame_points_to_it(ray):
    ray = np.array(ray) / np.linalg.norm(ray)
    message = transform(Header(frame_id='camera'), 'target', ray, 4.0)
    turn = message.transform.rotation
    w, v = turn.w, np.array([turn.x, turn.y, turn.z])
    z = np.array([0.0, 0.0, 1.0])
    turned = z + 2 * w * np.cross(v, z) + 2 * np.cross(v, np.cross(v, z))  # q z q*, by Rodrigues
    np.testing.assert_allclose(turned, ray, atol=1e-12)
    assert w * w + v @ v == pytest.approx(1)
    place = message.transform.translation
    np.testing.assert_allclose([place.x, place.y, place.z], ray / ray[2] * 4.0)
    assert (message.header.frame_id, message.child_frame_id) == ('camera', 'target')


def test_without_a_distance_the_targets_frame_stands_at_the_camera():
    place = transform(Header(), 'target', np.array([0.6, 0, 0.8]), None).transform.translation
    assert (place.x, place.y, place.z) == (0, 0, 0)


def test_the_distance_of_a_large_box_is_the_median_of_a_part_of_its_depths():
    values = np.random.default_rng(1).normal(12.0, 1.0, (2000, 3000)).astype('<f4')
    depth = Image(width=3000, height=2000, encoding='32FC1', step=12000, data=array.array('B', values.tobytes()))
    found = distance_along(depth, np.array([0.0, 0, 3000, 2000]), (3000, 2000))
    assert found == pytest.approx(float(np.median(values[500:1500, 750:2250])), abs=0.05)
