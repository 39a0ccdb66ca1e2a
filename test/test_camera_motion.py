"""The camera's motion, on pictures that are moved by a known similarity."""
from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from cract_core.camera_motion import CameraMotion, Motion, small

BOX = np.array([130.0, 90, 170, 130])       # of the target, corners


@pytest.fixture(scope='module')
def scene():
    """Blobs of many sizes and grays."""
    random, scene = np.random.default_rng(0), np.full((240, 320, 3), 90, np.uint8)
    for x, y, radius, gray in zip(random.integers(0, 320, 300), random.integers(0, 240, 300), random.integers(2, 12, 300),
                                  random.integers(0, 255, 300)):
        cv2.circle(scene, (int(x), int(y)), int(radius), (int(gray),) * 3, -1)
    return scene


def moved(scene, degrees=0.0, scale=1.0, shift=(0.0, 0.0)):
    """The scene turned and scaled about its middle, then shifted; and the matrix (2, 3) in continuous coordinates."""
    angle, middle = math.radians(degrees), np.array(scene.shape[1::-1]) / 2
    linear = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    offset = middle + shift - linear @ middle
    pixels = np.column_stack([linear, offset + linear.sum(1) / 2 - 0.5])
    return cv2.warpAffine(scene, pixels, scene.shape[1::-1], borderMode=cv2.BORDER_REFLECT), linear, offset


def follow(*frames, avoid=BOX):
    camera = CameraMotion()
    return [camera.follow(frame, avoid) for frame in frames]


@pytest.mark.parametrize('degrees, scale, shift', [(0, 1, (7, -4)), (3, 1, (0, 0)), (-2, 1.04, (3, 3)), (0, 0.95, (0, 8)),
                                                   (90, 1, (0, 0)), (170, 1, (4, 2)), (-120, 1, (0, 0))])
@pytest.mark.parametrize('enlarged', [1, 4])
def test_a_known_motion_is_found(scene, degrees, scale, shift, enlarged):
    scene = cv2.resize(scene, None, fx=enlarged, fy=enlarged)
    picture, linear, offset = moved(scene, degrees, scale, enlarged * np.array(shift))
    first, motion = follow(scene, picture, avoid=BOX * enlarged)
    assert first is None and motion is not None
    assert math.degrees(motion.angle) == pytest.approx(degrees, abs=0.5) and motion.scale == pytest.approx(scale, abs=0.01)
    middle = np.array(scene.shape[1::-1]) / 2
    pixels = 0.3 if abs(degrees) < 5 else 1.0     # of the small picture
    assert np.abs(motion.carry(middle) - linear @ middle - offset).max() < pixels * enlarged * 320 / 240


def test_a_target_that_moves_alone_is_not_the_camera(scene):
    picture = scene.copy()
    picture[90:130, 145:185] = scene[90:130, 130:170]
    motion = follow(scene, picture)[1]
    assert np.abs(motion.shift).max() < 0.2 and abs(motion.angle) < 0.003


@pytest.mark.parametrize('other', ['plain', 'noise'])
def test_it_says_so_where_it_is_unsure(scene, other):
    picture = np.full_like(scene, 90) if other == 'plain' else np.random.default_rng(1).integers(0, 255, scene.shape).astype(np.uint8)
    assert follow(scene, picture, scene) == [None] * 3
    assert follow(np.full_like(scene, 90), np.full_like(scene, 90)) == [None, None]


def test_a_target_that_fills_the_picture_leaves_nothing_to_follow(scene):
    assert follow(scene, moved(scene, shift=(3, 0))[0], avoid=np.array([0.0, 0, 320, 240]))[1] is None
    assert follow(scene, moved(scene, shift=(3, 0))[0], avoid=np.array([-500.0, -500, -300, -300]))[1] is not None


def test_the_size_of_the_frames_may_change_and_a_new_aspect_begins_anew(scene):
    double = cv2.resize(moved(scene, shift=(5, 0))[0], None, fx=2, fy=2)
    same, cut = follow(scene, double, avoid=BOX * 2)[1], follow(scene, scene[:200])[1]
    assert same.shift == pytest.approx([10, 0], abs=0.7) and cut is None


@pytest.mark.parametrize('size', [(8, 8), (9, 300), (8, 3000), (3000, 8), (640, 480), (3840, 2160)])
@pytest.mark.parametrize('brightest', [1, 255])
def test_any_frame_becomes_a_small_picture(size, brightest):
    frames = np.random.default_rng(0).integers(0, brightest, (3, *size[::-1], 3)).astype(np.uint8)
    gray = small(frames[0])
    assert gray.ndim == 2 and gray.dtype == np.uint8 and max(gray.shape) == 240
    assert follow(*frames) == [None] * 3        # black, or noise that has nothing in common


def test_a_motion_carries_points():
    motion = Motion(2 * np.array([[0.0, -1], [1, 0]]), np.array([10.0, 20]))
    assert motion.scale == 2 and math.degrees(motion.angle) == pytest.approx(90)
    assert motion.carry(np.array([[1.0, 0], [0, 1]])) == pytest.approx(np.array([[10.0, 22], [8, 20]]))
