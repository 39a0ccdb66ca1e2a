"""Between ROS messages and arrays: pure functions, no node needed.

Frames are (H, W, 3) uint8 BGR; boxes are x, y, w, h: top-left corner and size in continuous 0-based pixels.
"""
from __future__ import annotations

import array
import math
from importlib.util import find_spec

import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import BoundingBox2D, Detection2D, Detection2DArray, ObjectHypothesisWithPose

from cract_core import encodings
from cract_core.boxes import check_box
from cract_ros.msg import TrackState

CLASS_ID = 'target'
STATES = {'no target': TrackState.NO_TARGET, 'tracking': TrackState.TRACKING, 'uncertain': TrackState.UNCERTAIN,
          'lost': TrackState.LOST, 'paused': TrackState.PAUSED}


def to_bgr(message: Image | CompressedImage, contrast: encodings.Contrast | None = None,
           bounds: encodings.Bounds = encodings.Bounds()) -> np.ndarray:
    """The picture of a message: `encodings.to_bgr` or `compressed_to_bgr`, with the `contrast` of its topic
    and within the bounds.

    A raw encoding that is not known there is handed to cv_bridge where it is installed.
    """
    if isinstance(message, CompressedImage):
        return encodings.compressed_to_bgr(message, contrast, bounds)
    if message.encoding in encodings.LAYOUTS:
        return encodings.to_bgr(message, contrast, bounds)
    return _with_cv_bridge(message)


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


def boxes_from_message(message: Detection2DArray, left_out: list[str] | None = None) -> np.ndarray:
    """(N, 4) x, y, w, h of the detections that are boxes; for each of the others the reason is appended to `left_out`.
    """
    boxes, left_out = [], [] if left_out is None else left_out
    for detection in message.detections:
        try:
            boxes.append(check_box(box_from_message(detection.bbox)))
        except ValueError as error:
            left_out.append(str(error))
    return np.array(boxes).reshape(-1, 4)


def box_to_message(box) -> BoundingBox2D:
    """The inverse of `box_from_message`."""
    x, y, w, h = (float(value) for value in box)
    message = BoundingBox2D(size_x=w, size_y=h)
    message.center.position.x = x + w / 2
    message.center.position.y = y + h / 2
    return message


def to_detection(estimate, header: Header, target_id: str) -> Detection2D:
    """The answer to one image, stamped as that image.

    One hypothesis with the final score while the target is followed, none when it is lost; the box is then where
    it is supposed to be.
    """
    message = Detection2D(header=header, bbox=box_to_message(estimate.box), id=target_id)
    if estimate.state.value != 'lost':
        hypothesis = ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id = CLASS_ID
        hypothesis.hypothesis.score = float(estimate.score)
        message.results.append(hypothesis)
    return message


def to_prediction(answer) -> Detection2D:
    """Where the lost target of a `follower.Answer` with a prediction would be: its last size, no hypothesis."""
    return Detection2D(header=answer.header, bbox=box_to_message(answer.predicted), id=answer.target_id)


def to_detections(answer) -> Detection2DArray:
    """A `follower.Answer` as a list: one detection while the target is followed, none when it is lost or absent."""
    message = Detection2DArray(header=answer.header)
    if answer.estimate is not None and answer.state != 'lost':
        message.detections.append(to_detection(answer.estimate, answer.header, answer.target_id))
    return message


def to_state(answer, age: float) -> TrackState:
    """A `follower.Answer` with the target's place in terms of the image's size; `age` in seconds."""
    height, width = answer.image.shape[:2]
    message = TrackState(header=answer.header, state=STATES[answer.state], id=answer.target_id, image_width=width,
                         image_height=height, processing_time=answer.processing_time, age=age)
    if answer.estimate is None:
        return message
    estimate = answer.estimate
    x, y, w, h = (float(value) for value in estimate.box)
    message.score, message.identification = float(estimate.score), float(estimate.identification)
    message.discrimination, message.proposal = float(estimate.discrimination), float(estimate.proposal)
    message.bbox = box_to_message(estimate.box)
    message.error_x, message.error_y = (2 * x + w) / width - 1, (2 * y + h) / height - 1
    message.relative_size = math.sqrt(w * h / (width * height))
    message.frames_since_seen, message.seconds_since_seen = answer.frames_since_seen, answer.seconds_since_seen
    return message


def _with_cv_bridge(message: Image) -> np.ndarray:
    if find_spec('cv_bridge') is None:
        raise ValueError(f'image encoding {message.encoding[:40]!r} is not known, and cv_bridge, which might know it, '
                         f'is not installed; known are {", ".join(sorted(encodings.LAYOUTS))}')
    from cv_bridge import CvBridge, CvBridgeError
    try:
        return CvBridge().imgmsg_to_cv2(message, 'bgr8')
    except CvBridgeError as error:
        raise ValueError(f'image encoding {message.encoding[:40]!r} is not known to cv_bridge: {error}') from error
