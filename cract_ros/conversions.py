"""Between ROS messages and arrays: pure functions, no node needed.

Frames are (H, W, 3) uint8 BGR; boxes are x, y, w, h: top-left corner and size in continuous 0-based pixels.
"""
from __future__ import annotations

import array
from importlib.util import find_spec
from typing import NamedTuple

import cv2
import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import BoundingBox2D, Detection2D, ObjectHypothesisWithPose

CLASS_ID = 'target'


class Layout(NamedTuple):
    """How an encoding stores a pixel, and OpenCV's code that makes BGR of it (None: it is BGR)."""
    channels: int
    bits: int
    code: int | None
    columns: int = 1  # neighbouring pixels that share their colour: the width is a multiple of it


# sensor_msgs/image_encodings.hpp; OpenCV's older Bayer names start at the second row, those used here at the first
LAYOUTS = {
    'bgr8': Layout(3, 8, None),
    '8UC3': Layout(3, 8, None),
    'rgb8': Layout(3, 8, cv2.COLOR_RGB2BGR),
    'bgra8': Layout(4, 8, cv2.COLOR_BGRA2BGR),
    '8UC4': Layout(4, 8, cv2.COLOR_BGRA2BGR),
    'rgba8': Layout(4, 8, cv2.COLOR_RGBA2BGR),
    'mono8': Layout(1, 8, cv2.COLOR_GRAY2BGR),
    '8UC1': Layout(1, 8, cv2.COLOR_GRAY2BGR),
    'mono16': Layout(1, 16, cv2.COLOR_GRAY2BGR),
    '16UC1': Layout(1, 16, cv2.COLOR_GRAY2BGR),
    'uyvy': Layout(2, 8, cv2.COLOR_YUV2BGR_UYVY, 2),
    'yuv422': Layout(2, 8, cv2.COLOR_YUV2BGR_UYVY, 2),
    'yuyv': Layout(2, 8, cv2.COLOR_YUV2BGR_YUY2, 2),
    'yuv422_yuy2': Layout(2, 8, cv2.COLOR_YUV2BGR_YUY2, 2),
    **{f'bayer_{pattern}{bits}': Layout(1, bits, code)
       for pattern, code in (('rggb', cv2.COLOR_BayerRGGB2BGR), ('bggr', cv2.COLOR_BayerBGGR2BGR),
                             ('gbrg', cv2.COLOR_BayerGBRG2BGR), ('grbg', cv2.COLOR_BayerGRBG2BGR))
       for bits in (8, 16)},
}


def to_bgr(message: Image) -> np.ndarray:
    """The picture of an image message, (H, W, 3) uint8 BGR.

    A bgr8 message is not copied: the array is a view of its data, with padded rows left out by the strides. 16 bits
    are scaled to 8 by the full range, only 16UC1, whose range is not defined (depth, thermal), by the least and
    the greatest value in the frame. An encoding that is not known here is handed to cv_bridge where it is installed.

    Raises ValueError, one sentence, for an unknown encoding or for sizes that do not fit each other.
    """
    layout = LAYOUTS.get(message.encoding)
    if layout is None:
        return _with_cv_bridge(message)
    pixels = _pixels(message, layout)
    if layout.bits == 16:
        pixels = _to_8_bits(pixels, stretch=message.encoding == '16UC1')
    return pixels if layout.code is None else cv2.cvtColor(pixels, layout.code)


def from_bgr(frame: np.ndarray, header: Header) -> Image:
    """A bgr8 message of a (H, W, 3) uint8 BGR frame."""
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f'a frame must be (H, W, 3) uint8, got {frame.shape} {frame.dtype}')
    data = array.array('B')  # the only type that rclpy assigns without checking element by element
    data.frombytes(np.ascontiguousarray(frame))
    height, width = frame.shape[:2]
    return Image(header=header, height=height, width=width, encoding='bgr8', is_bigendian=0, step=3 * width, data=data)


def box_from_message(box: BoundingBox2D) -> np.ndarray:
    """x, y, w, h, (4,) float64. Raises ValueError for a rotated box; the tracker checks the rest."""
    if box.center.theta != 0:
        raise ValueError(f'the box must be upright (theta 0), got theta {box.center.theta:g}')
    centre = box.center.position
    return np.array([centre.x - box.size_x / 2, centre.y - box.size_y / 2, box.size_x, box.size_y])


def box_to_message(box) -> BoundingBox2D:
    """The inverse of `box_from_message`."""
    x, y, w, h = (float(value) for value in box)
    message = BoundingBox2D(size_x=w, size_y=h)
    message.center.position.x = x + w / 2
    message.center.position.y = y + h / 2
    return message


def to_detection(estimate, header: Header, target_id: str) -> Detection2D:
    """The answer to one image, stamped as that image.

    One hypothesis with the final score while the target is followed, none when it is lost; the box is then the last
    known one.
    """
    message = Detection2D(header=header, bbox=box_to_message(estimate.box), id=target_id)
    if estimate.state.value != 'lost':
        hypothesis = ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id = CLASS_ID
        hypothesis.hypothesis.score = float(estimate.score)
        message.results.append(hypothesis)
    return message


def _pixels(message: Image, layout: Layout) -> np.ndarray:
    """A view (H, W) or (H, W, C) of the message's data; every size is checked before anything is allocated."""
    width, height, step = message.width, message.height, message.step
    if width < 1 or height < 1:
        raise ValueError(f'an image must have at least one pixel, got {width}x{height}')
    if width % layout.columns:
        raise ValueError(f'the width of a {message.encoding} image must be even, got {width}')
    pixel = layout.channels * layout.bits // 8
    if step < width * pixel:
        raise ValueError(
            f'a row of {width} {message.encoding} pixels takes {width * pixel} bytes, but step is {step}')
    needed = step * (height - 1) + width * pixel
    if len(message.data) < needed:
        raise ValueError(f'a {width}x{height} {message.encoding} image with step {step} takes {needed} bytes, '
                         f'but the message has {len(message.data)}')
    dtype = np.dtype(np.uint8 if layout.bits == 8 else '>u2' if message.is_bigendian else '<u2')
    pixels = np.ndarray((height, width, layout.channels), dtype, buffer=message.data,
                        strides=(step, pixel, dtype.itemsize))
    return pixels[..., 0] if layout.channels == 1 else pixels


def _to_8_bits(pixels: np.ndarray, stretch: bool) -> np.ndarray:
    """(H, W) uint16 of any byte order -> uint8, rounded."""
    low, high = (float(pixels.min()), float(pixels.max())) if stretch else (0.0, 65535.0)
    scale = 255 / max(high - low, 1.0)
    return np.rint((pixels.astype(np.float32) - low) * scale).astype(np.uint8)


def _with_cv_bridge(message: Image) -> np.ndarray:
    if find_spec('cv_bridge') is None:
        raise ValueError(f'image encoding {message.encoding!r} is not known, and cv_bridge, which might know it, '
                         f'is not installed; known are {", ".join(sorted(LAYOUTS))}')
    from cv_bridge import CvBridge, CvBridgeError
    try:
        return CvBridge().imgmsg_to_cv2(message, 'bgr8')
    except CvBridgeError as error:
        raise ValueError(f'image encoding {message.encoding!r} is not known to cv_bridge either: {error}') from error
