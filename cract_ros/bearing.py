"""From a box in the image to a direction, and with depth a point, in the camera's optical frame.

That frame has x to the right, y down and z ahead. Pixels are continuous as everywhere here: the centre of the first one
is at (0.5, 0.5), but at (0, 0) for a calibration.
"""
from __future__ import annotations

import cv2
import numpy as np
from geometry_msgs.msg import Point, TransformStamped
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

# names of the models; the number of coefficients says which of OpenCV's it is, whatever the name: drivers mix them
PINHOLE = ('plumb_bob', 'rational_polynomial', 'pinhole', 'radtan', 'brown_conrady', 'none', '')
FISHEYE = ('equidistant', 'fisheye')
PINHOLE_SIZES, FISHEYE_SIZES = (4, 5, 8, 12, 14), (4,)
SAMPLES = 1 << 16  # depths of a box that its distance is made of, at most
RAY = 10.0  # metres, length of the ray where the distance is not known
# encoding (REP 118; mono16 is what some drivers call the first) -> dtype, metres a unit
DEPTHS = {'16UC1': (np.uint16, 1e-3), 'mono16': (np.uint16, 1e-3), '32FC1': (np.float32, 1.0)}
COLOURS = {'tracking': (0.24, 0.86, 0.31), 'uncertain': (1.0, 0.75, 0.0), 'lost': (1.0, 0.24, 0.24)}  # RGB


class Camera:
    """The camera model of a camera_info. Raises ValueError, one sentence, where it describes no usable camera."""

    def __init__(self, info: CameraInfo, rectified: bool):
        matrix = np.array(info.p).reshape(3, 4)[:, :3] if rectified else np.array(info.k).reshape(3, 3)
        if not np.isfinite(matrix).all() or matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
            raise ValueError(
                f'camera_info has no focal length in {"P" if rectified else "K"}: the camera is not calibrated')
        coefficients = np.zeros(0) if rectified else np.array(info.d)
        model = info.distortion_model.strip().lower()
        if not np.isfinite(coefficients).all():
            raise ValueError('camera_info has a distortion coefficient that is not finite')
        if coefficients.any() and model not in PINHOLE + FISHEYE:
            raise ValueError(f'camera_info has the distortion model {info.distortion_model[:40]!r}; known are '
                             f'{", ".join(filter(None, PINHOLE + FISHEYE))}')
        self._fisheye = model in FISHEYE and not rectified
        sizes = FISHEYE_SIZES if self._fisheye else PINHOLE_SIZES
        used = int(np.max(np.nonzero(coefficients)[0], initial=-1)) + 1  # what follows is zero
        size = next((one for one in sizes if one >= used), None)
        if size is None or used and len(coefficients) < sizes[0]:
            raise ValueError(f'camera_info has {used} coefficients of the distortion model {model[:40]!r}; '
                             f'there are {" or ".join(map(str, sizes))}')
        size = max(size, *(one for one in (*sizes, 0) if one <= len(coefficients)))
        self._coefficients = np.concatenate([coefficients[:size], np.zeros(max(size - len(coefficients), 0))])
        self._matrix = matrix
        self._binning = np.array([max(info.binning_x, 1), max(info.binning_y, 1)])
        self._offset = np.array([info.roi.x_offset, info.roi.y_offset])
        full = np.array([info.roi.width or info.width, info.roi.height or info.height])
        self._size = tuple(int(value) for value in full // self._binning)

    def rays(self, points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Unit vectors (N, 3) of points (N, 2) in an image of `size` width, height.

        Raises ValueError for another size, and where the numbers of the calibration give no direction.
        """
        if self._size not in ((0, 0), size):
            raise ValueError(f'camera_info describes images of {self._size[0]}x{self._size[1]}, '
                             f'but they have {size[0]}x{size[1]}')
        pixels = (np.asarray(points, float) * self._binning + self._offset - 0.5)[:, None]
        if self._fisheye:
            plane = cv2.fisheye.undistortPoints(pixels, self._matrix, self._coefficients)[:, 0]
        else:
            # to 1e-9: the five steps that OpenCV takes by itself leave several pixels in the corners of a wide lens
            enough = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-9)
            ideal = cv2.undistortImagePoints(pixels, self._matrix, self._coefficients, None, enough)[:, 0]
            plane = (ideal - self._matrix[:2, 2]) / self._matrix[[0, 1], [0, 1]]
        rays = np.concatenate([plane, np.ones((len(plane), 1))], 1)
        lengths = np.linalg.norm(rays, axis=1, keepdims=True)
        if not np.isfinite(lengths).all():
            raise ValueError('camera_info gives no direction for the target: its calibration is not that of a camera')
        return rays / lengths


def centre_and_corners(box: np.ndarray) -> np.ndarray:
    """(5, 2) pixels of a box x, y, w, h: its centre, then its corners in a circle."""
    x, y, w, h = box
    return np.array([[x + w / 2, y + h / 2], [x, y], [x + w, y], [x + w, y + h], [x, y + h]])


def distance_along(depth: Image, box: np.ndarray, size: tuple[int, int]) -> float | None:
    """Metres along z to the object in a box, of an image of `size`, from a depth image that shows the same.

    The median of what is measured in the middle half of the box, None if nothing is. The depth image may have another
    resolution. Raises ValueError, one sentence, for an unknown encoding or sizes that do not fit each other.
    """
    if depth.encoding not in DEPTHS:
        raise ValueError(f'a depth image must be {" or ".join(DEPTHS)}, got {depth.encoding[:40]!r}')
    dtype, unit = DEPTHS[depth.encoding]
    dtype = np.dtype(dtype).newbyteorder('>' if depth.is_bigendian else '<')
    width, height = depth.width, depth.height
    if depth.step < width * dtype.itemsize or len(depth.data) < depth.step * (height - 1) + width * dtype.itemsize:
        raise ValueError(f'a {width}x{height} {depth.encoding} image does not fit into {len(depth.data)} bytes '
                         f'with step {depth.step}')
    values = np.ndarray((height, width), dtype, buffer=depth.data, strides=(depth.step, dtype.itemsize))
    x, y, w, h = box * np.array([width, height] * 2) / np.array(size * 2)
    left, top = max(int(x + w / 4), 0), max(int(y + h / 4), 0)
    middle = values[top:max(int(np.ceil(y + 3 * h / 4)), 0), left:max(int(np.ceil(x + 3 * w / 4)), 0)]
    step = int(np.ceil(np.sqrt(max(middle.size / SAMPLES, 1))))
    middle = middle[::step, ::step] * unit
    measured = middle[np.isfinite(middle) & (middle > 0)]
    return float(np.median(measured)) if measured.size else None


def transform(header: Header, child: str, ray: np.ndarray, distance: float | None) -> TransformStamped:
    """The frame `child`, whose z axis points along `ray` (3,) to the target; the rest of it turns as little as can be.

    Its origin is the target where the distance along z is known, else that of the camera.
    """
    message = TransformStamped(header=header, child_frame_id=child)
    x, y, z = (float(value) for value in ray)
    if distance is not None:
        place = message.transform.translation
        place.x, place.y, place.z = (float(value) for value in ray / ray[2] * distance)
    length = np.sqrt(2 * (1 + z))  # of the quaternion from (0, 0, 1) to the ray: (-y, x, 0, 1 + z)
    turn = message.transform.rotation
    turn.x, turn.y, turn.z, turn.w = float(-y / length), float(x / length), 0.0, float((1 + z) / length)
    return message


def markers(header: Header, rays: np.ndarray, state: str, distance: float | None) -> MarkerArray:
    """For RViz: the ray through the box's centre and the pyramid through its corners, up to the target.

    rays: (5, 3) of `centre_and_corners`; distance: metres along z.
    """
    ends = rays / rays[:, 2:] * distance if distance is not None else rays * RAY
    origin, ends = Point(), [Point(x=x, y=y, z=z) for x, y, z in ends.tolist()]
    corners = ends[1:]
    edges = [point for a, b in zip(corners, corners[1:] + corners[:1]) for point in (origin, a, a, b)]
    red, green, blue = COLOURS[state]
    common = dict(header=header, type=Marker.LINE_LIST, action=Marker.ADD,
                  color=ColorRGBA(r=red, g=green, b=blue, a=1.0))
    shapes = [Marker(ns='ray', points=[origin, ends[0]], **common), Marker(ns='box', points=edges, **common)]
    for shape in shapes:
        shape.scale.x = 0.02 * (distance if distance is not None else RAY) / RAY  # width of a line, metres
        shape.pose.orientation.w = 1.0
        shape.lifetime.sec = 1  # gone with the target
    return MarkerArray(markers=shapes)
