"""Between ROS messages and arrays: pure functions, no node needed.

Frames are (H, W, 3) uint8 BGR; boxes are x, y, w, h: top-left corner and size in continuous 0-based pixels.
"""
from __future__ import annotations

import array
from importlib.util import find_spec

import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import BoundingBox2D, Detection2D, ObjectHypothesisWithPose

from cract_core import encodings

CLASS_ID = 'target'


def to_bgr(message: Image) -> np.ndarray:
    """`encodings.to_bgr`; an encoding that is not known there is handed to cv_bridge where it is installed."""
    return encodings.to_bgr(message) if message.encoding in encodings.LAYOUTS else _with_cv_bridge(message)


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


def _with_cv_bridge(message: Image) -> np.ndarray:
    if find_spec('cv_bridge') is None:
        raise ValueError(f'image encoding {message.encoding!r} is not known, and cv_bridge, which might know it, '
                         f'is not installed; known are {", ".join(sorted(encodings.LAYOUTS))}')
    from cv_bridge import CvBridge, CvBridgeError
    try:
        return CvBridge().imgmsg_to_cv2(message, 'bgr8')
    except CvBridgeError as error:
        raise ValueError(f'image encoding {message.encoding!r} is not known to cv_bridge either: {error}') from error
