"""From a direction in the camera's frame to a place in the world, and on the globe. Arrays only, no ROS.

World frames have x and y level and z upwards, in metres; the camera's optical frame has x to the right, y down, z ahead.
"""
from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

EARTH_A, EARTH_F = 6378137.0, 1 / 298.257223563   # WGS 84: semi-major axis in metres, flattening
STEEPEST = 0.02   # of a ray's fall, metres a metre: a flatter one meets the ground who knows where


class Pose(NamedTuple):
    """Of a camera: position (3,), and the quaternion (4,) x, y, z, w that turns its optical frame into the world's."""
    position: np.ndarray
    quaternion: np.ndarray


def rotation(quaternion: np.ndarray) -> np.ndarray:
    """(3, 3) of a quaternion x, y, z, w of any length but 0. ValueError for 0 and what is not finite."""
    length = np.linalg.norm(quaternion)
    if not 1e-6 < length < math.inf:
        raise ValueError(f'an orientation is a quaternion that is not zero, got {np.round(quaternion, 3).tolist()}')
    x, y, z, w = np.asarray(quaternion, float) / length
    return np.array([[1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                     [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                     [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]])


def between(one: Pose, other: Pose, share: float) -> Pose:
    """The pose a `share` of the way from one to the other."""
    a, b = (np.asarray(q, float) / np.linalg.norm(q) for q in (one.quaternion, other.quaternion))
    b = -b if a @ b < 0 else b
    mixed = (1 - share) * a + share * b    # two poses in succession hardly differ: no need of arcs
    return Pose((1 - share) * np.asarray(one.position) + share * np.asarray(other.position), mixed / np.linalg.norm(mixed))


def on_ground(pose: Pose, ray: np.ndarray, height: float) -> np.ndarray:
    """(3,): where the ray (3,), in the optical frame, meets the level plane z = `height`. ValueError where it does not."""
    direction = rotation(pose.quaternion) @ ray / np.linalg.norm(ray)
    above = pose.position[2] - height
    if above <= 0:
        raise ValueError(f'the camera is {-above:.1f} m below the ground at {height:g} m')
    if direction[2] > -STEEPEST:
        raise ValueError('the target is at the horizon or above it: its ray does not meet the ground')
    return pose.position + direction * (above / -direction[2])


def at_point(pose: Pose, point: np.ndarray) -> np.ndarray:
    """(3,): a point (3,) of the optical frame in the world."""
    return pose.position + rotation(pose.quaternion) @ point


def covariance(place, values: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """(3, 3) of `place(values) -> (3,)`, for independent deviations of the values (N,), to first order."""
    columns = []
    for index, deviation in enumerate(deviations):
        step = np.zeros(len(values))
        step[index] = max(deviation, 1e-6) / 2
        columns.append((place(values + step) - place(values - step)) / (2 * step[index]) * deviation)
    jacobian = np.stack(columns, 1)
    return jacobian @ jacobian.T


def to_globe(origin: tuple[float, float, float], east: float, north: float, up: float) -> tuple[float, float, float]:
    """Latitude and longitude in degrees and altitude of a place near an origin (the same three), by the ellipsoid's radii
    there: within some kilometres it is off by centimetres to a metre."""
    latitude, longitude, altitude = origin
    sine = math.sin(math.radians(latitude))
    across = EARTH_A / math.sqrt(1 - EARTH_F * (2 - EARTH_F) * sine ** 2)
    along = across * (1 - EARTH_F) ** 2 / (1 - EARTH_F * (2 - EARTH_F) * sine ** 2)
    return (latitude + math.degrees(north / (along + altitude)),
            longitude + math.degrees(east / ((across + altitude) * math.cos(math.radians(latitude)))), altitude + up)
