"""Image and box conversions against arrays written out by hand and against OpenCV's colour conversion."""
from __future__ import annotations

import array
from dataclasses import dataclass
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import BoundingBox2D

from cract_ros import conversions

# B, G, R of a 2 x 3 picture (rows of pixels)
PIXELS = np.array([[[0, 10, 20], [30, 40, 50], [60, 70, 80]],
                   [[90, 100, 110], [120, 130, 140], [150, 160, 255]]], np.uint8)


def message(pixels: np.ndarray, encoding: str, width: int | None = None, padding: int = 0, **changes) -> Image:
    """An image message of rows of any dtype, each followed by `padding` bytes of 0xAB."""
    rows = [row.tobytes() + b'\xab' * padding for row in pixels]
    values = dict(height=len(rows), width=pixels.shape[1] if width is None else width, encoding=encoding, step=len(rows[0]),
                  is_bigendian=0, data=array.array('B', b''.join(rows)))
    return Image(**(values | changes))


@pytest.mark.parametrize('padding', [0, 1, 5])
@pytest.mark.parametrize('encoding, channels', [
    ('bgr8', [0, 1, 2]), ('8UC3', [0, 1, 2]), ('rgb8', [2, 1, 0]),
    ('bgra8', [0, 1, 2, 1]), ('8UC4', [0, 1, 2, 1]), ('rgba8', [2, 1, 0, 1])])
def test_colour_encodings_give_bgr(encoding, channels, padding):
    stored = np.ascontiguousarray(PIXELS[..., channels])
    np.testing.assert_array_equal(conversions.to_bgr(message(stored, encoding, padding=padding)), PIXELS)


@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
@pytest.mark.parametrize('padding', [0, 3])
def test_grey_fills_all_channels(encoding, padding):
    grey = np.array([[0, 100, 255], [7, 8, 9]], np.uint8)
    frame = conversions.to_bgr(message(grey, encoding, padding=padding))
    np.testing.assert_array_equal(frame, np.dstack([grey] * 3))


@pytest.mark.parametrize('order, bigendian', [('<u2', 0), ('>u2', 1)])
@pytest.mark.parametrize('padding', [0, 1, 2])
def test_mono16_is_scaled_by_its_full_range_in_either_byte_order(order, bigendian, padding):
    wide = np.array([[0, 257, 65535], [25700, 128, 129]], order)
    expected = np.array([[0, 1, 255], [100, 0, 1]], np.uint8)
    frame = conversions.to_bgr(message(wide, 'mono16', padding=padding, is_bigendian=bigendian))
    np.testing.assert_array_equal(frame, np.dstack([expected] * 3))


def test_16uc1_is_stretched_between_its_least_and_greatest_value():
    frame = conversions.to_bgr(message(np.array([[1000, 1510], [1255, 1000]], '<u2'), '16UC1'))
    np.testing.assert_array_equal(frame[..., 0], [[0, 255], [128, 0]])


def test_16uc1_of_one_value_is_black():
    assert not conversions.to_bgr(message(np.full((4, 4), 4000, '<u2'), '16UC1')).any()


@pytest.mark.parametrize('encoding, order', [
    ('uyvy', 'uyvy'), ('yuv422', 'uyvy'), ('yuyv', 'yuyv'), ('yuv422_yuy2', 'yuyv')])
@pytest.mark.parametrize('padding', [0, 2])
def test_yuv422_follows_the_video_standard(encoding, order, padding):
    rng = np.random.default_rng(0)
    y, u, v = rng.integers(16, 236, (4, 6)), rng.integers(80, 176, (4, 3)), rng.integers(80, 176, (4, 3))
    samples = {'uyvy': [u, y[:, ::2], v, y[:, 1::2]], 'yuyv': [y[:, ::2], u, y[:, 1::2], v]}[order]
    stored = np.stack(samples, -1).reshape(4, 12).astype(np.uint8)
    frame = conversions.to_bgr(message(stored, encoding, width=6, padding=padding))
    # ITU-R BT.601, video range
    luma, blue, red = 1.164383 * (y - 16.0), np.repeat(u - 128.0, 2, 1), np.repeat(v - 128.0, 2, 1)
    expected = np.stack([luma + 2.017232 * blue, luma - 0.391762 * blue - 0.812968 * red, luma + 1.596027 * red], -1)
    assert np.abs(frame - np.clip(expected, 0, 255)).max() <= 2


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_bayer_pattern_of_a_plain_colour_gives_that_colour(pattern, bits):
    colour = {'b': 40, 'g': 120, 'r': 220}
    cell = np.array([colour[letter] for letter in pattern]).reshape(2, 2)
    mosaic = np.tile(cell, (6, 8)) * (257 if bits == 16 else 1)
    frame = conversions.to_bgr(message(mosaic.astype('u1' if bits == 8 else '<u2'), f'bayer_{pattern}{bits}'))
    assert frame.shape == (12, 16, 3)
    np.testing.assert_array_equal(frame, np.full((12, 16, 3), [40, 120, 220]))


def test_bayer_agrees_with_opencv_on_a_picture():
    mosaic = np.random.default_rng(1).integers(0, 256, (20, 30), np.uint8)
    # in OpenCV's older names RGGB is BG: the second and third pixel of the second row
    np.testing.assert_array_equal(conversions.to_bgr(message(mosaic, 'bayer_rggb8', padding=2)),
                                  cv2.cvtColor(mosaic, cv2.COLOR_BayerBG2BGR))


def test_bgr8_is_not_copied():
    picture = message(PIXELS, 'bgr8', padding=3)
    frame = conversions.to_bgr(picture)
    picture.data[0] = 77
    assert frame[0, 0, 0] == 77


def test_padding_of_the_last_row_may_be_missing():
    picture = message(PIXELS, 'bgr8', padding=4)
    picture.data = picture.data[:-4]
    np.testing.assert_array_equal(conversions.to_bgr(picture), PIXELS)


@pytest.mark.parametrize('changes, reason', [
    (dict(width=0), 'at least one pixel'), (dict(height=0), 'at least one pixel'),
    (dict(step=8), 'step is 8'), (dict(step=0), 'step is 0'),
    (dict(height=3), '27 bytes, but the message has 18'), (dict(width=4_000_000_000), 'step is 9'),
    (dict(height=4_000_000_000), 'but the message has 18'), (dict(data=array.array('B')), 'has 0')])
def test_sizes_that_do_not_fit_are_refused_before_memory_is_taken(changes, reason):
    with pytest.raises(ValueError, match=reason):
        conversions.to_bgr(message(PIXELS, 'bgr8', **changes))


def test_yuv422_of_odd_width_is_refused():
    with pytest.raises(ValueError, match='even, got 3'):
        conversions.to_bgr(message(np.zeros((2, 3, 2), np.uint8), 'uyvy'))


@pytest.mark.skipif(conversions.find_spec('cv_bridge') is not None, reason='cv_bridge is installed')
@pytest.mark.parametrize('encoding', ['nv61', '', 'rgb9000'])
def test_an_unknown_encoding_is_named(encoding):
    with pytest.raises(ValueError, match=f"'{encoding}'.*cv_bridge"):
        conversions.to_bgr(message(PIXELS, encoding))


def test_a_frame_becomes_a_bgr8_message():
    header = Header(stamp=Time(sec=3, nanosec=4), frame_id='camera')
    picture = conversions.from_bgr(PIXELS[:, ::-1], header)  # not contiguous
    assert (picture.height, picture.width, picture.step, picture.encoding) == (2, 3, 9, 'bgr8')
    assert picture.header == header
    assert bytes(picture.data) == bytes([60, 70, 80, 30, 40, 50, 0, 10, 20, 150, 160, 255, 120, 130, 140, 90, 100, 110])
    np.testing.assert_array_equal(conversions.to_bgr(picture), PIXELS[:, ::-1])


@pytest.mark.parametrize('frame', [PIXELS[..., 0], PIXELS.astype(np.float32), PIXELS[..., :2]])
def test_other_arrays_become_no_message(frame):
    with pytest.raises(ValueError, match='uint8'):
        conversions.from_bgr(frame, Header())


def test_box_is_centre_and_size():
    box = conversions.box_to_message([10, 20, 30, 5])
    assert (box.center.position.x, box.center.position.y, box.size_x, box.size_y) == (25.0, 22.5, 30.0, 5.0)
    np.testing.assert_array_equal(conversions.box_from_message(box), [10, 20, 30, 5])


def test_a_rotated_box_is_refused():
    box = BoundingBox2D(size_x=4.0, size_y=4.0)
    box.center.theta = 0.5
    with pytest.raises(ValueError, match='theta 0.5'):
        conversions.box_from_message(box)


@dataclass
class Answer:
    box: np.ndarray
    score: float
    state: SimpleNamespace


@pytest.mark.parametrize('state', ['tracking', 'uncertain'])
def test_a_followed_target_is_one_hypothesis_with_its_score(state):
    header = Header(stamp=Time(sec=3, nanosec=4), frame_id='camera')
    answer = Answer(np.array([10.0, 20.0, 30.0, 5.0]), 0.75, SimpleNamespace(value=state))
    detection = conversions.to_detection(answer, header, 'car 7')
    assert detection.header == header and detection.id == 'car 7'
    assert [(r.hypothesis.class_id, r.hypothesis.score) for r in detection.results] == [('target', 0.75)]
    np.testing.assert_array_equal(conversions.box_from_message(detection.bbox), answer.box)


def test_a_lost_target_has_its_last_box_and_no_hypothesis():
    answer = Answer(np.array([10.0, 20.0, 30.0, 5.0]), 0.1, SimpleNamespace(value='lost'))
    detection = conversions.to_detection(answer, Header(), 'a')
    assert not detection.results
    np.testing.assert_array_equal(conversions.box_from_message(detection.bbox), answer.box)
