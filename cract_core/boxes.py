"""Box forms, overlap, and the offset codec of Eq. 4. Numpy or torch.

One convention everywhere in the core: continuous 0-based pixel coordinates in which pixel k covers [k, k + 1], so that
width = x2 - x1. Users give and get `xywh` (top-left corner and size); inside, boxes are `xyxy` corners. Everything
else (1-based benchmarks, ROS centre + size, polygons) is converted at the edge.
"""
from __future__ import annotations

import functools
import math
import sys

import numpy as np

# exp() of an untrained network's output must stay finite: no target grows 16-fold between two frames
MAX_LOG_SCALE = math.log(16)


def check_box(box, frame_size: tuple[int, int] | None = None) -> np.ndarray:
    """Validate a box that comes from outside.

    box: four numbers x, y, w, h in pixels; frame_size: (width, height), the box must then overlap the frame.
    Returns a float64 array (4,). Raises ValueError, in one sentence, for anything that is no box.
    """
    try:
        array = np.array(box, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f'a box is four numbers x, y, w, h, got {box!r}') from None
    if array.shape != (4,):
        raise ValueError(f'a box is four numbers x, y, w, h, got {array.size} in shape {array.shape}')
    x, y, w, h = array
    shown = ', '.join(f'{v:g}' for v in array)
    if not np.isfinite(array).all():
        raise ValueError(f'a box must be finite, got {shown}')
    if w < 1 or h < 1:
        raise ValueError(f'a box must be at least 1 pixel wide and high, got {shown}')
    if np.abs(array).max() > 1e6:
        raise ValueError(f'a box must lie within a million pixels, got {shown}')
    if frame_size is not None:
        width, height = frame_size
        if min(x + w, width) - max(x, 0) < 1 or min(y + h, height) - max(y, 0) < 1:
            raise ValueError(f'the box {shown} lies outside the {width} x {height} frame')
    return array


def array_module(array):
    """numpy for its arrays, torch for its tensors. The functions below take either and return the same kind."""
    return np if isinstance(array, np.ndarray) else sys.modules['torch']


def like(values, reference):
    """Numbers as an array of the kind, type and device of `reference`."""
    if isinstance(reference, np.ndarray):
        return np.asarray(values, reference.dtype)
    return sys.modules['torch'].as_tensor(values, dtype=reference.dtype, device=reference.device)


def constant(values, reference):
    """As `like`, for what never changes: it is copied to a device once. A CUDA graph cannot hold a copy from the host.
    """
    if isinstance(reference, np.ndarray):
        return np.asarray(values, reference.dtype)
    values = np.asarray(values, np.float64)
    return _on_device(values.tobytes(), values.shape, reference.dtype, reference.device)


@functools.cache
def _on_device(content: bytes, shape: tuple[int, ...], dtype, device):
    torch = sys.modules['torch']
    with torch.inference_mode(False):  # it may serve a training later
        return torch.tensor(np.frombuffer(content).reshape(shape), dtype=dtype, device=device)


def to_numpy(array) -> np.ndarray:
    """The same numbers on the host."""
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()


def xywh_to_xyxy(box):
    """(..., 4) top-left corner and size -> two corners."""
    return array_module(box).concatenate([box[..., :2], box[..., :2] + box[..., 2:]], -1)


def to_center(box):
    """(..., 4) two corners -> centre and size (cx, cy, w, h)."""
    return array_module(box).concatenate([(box[..., :2] + box[..., 2:]) / 2, box[..., 2:] - box[..., :2]], -1)


def from_center(box):
    """(..., 4) centre and size -> two corners."""
    return array_module(box).concatenate([box[..., :2] - box[..., 2:] / 2, box[..., :2] + box[..., 2:] / 2], -1)


def area(box):
    """(..., 4) corners -> (...) area in square pixels, 0 for an inverted box."""
    return (box[..., 2] - box[..., 0]).clip(min=0) * (box[..., 3] - box[..., 1]).clip(min=0)


def iou(a, b):
    """Intersection over union of corner boxes that broadcast against each other: (..., 4) -> (...)."""
    xp = array_module(a)
    # axis by axis: numpy is slow along an axis of two numbers
    width, height = (xp.minimum(a[..., i + 2], b[..., i + 2]) - xp.maximum(a[..., i], b[..., i]) for i in (0, 1))
    inner = width.clip(min=0) * height.clip(min=0)
    return inner / (area(a) + area(b) - inner).clip(min=1e-9)


def encode(reference, box):
    """Offsets r that Eq. 4 turns into `box`: decode(reference, encode(reference, box)) == box. Corners (..., 4)."""
    xp, p, g = array_module(box), to_center(reference), to_center(box)
    size = p[..., 2:].clip(min=1e-6)
    return xp.concatenate([(g[..., :2] - p[..., :2]) / size, xp.log(g[..., 2:].clip(min=1e-6) / size)], -1)


def decode(reference, offsets):
    """Eq. 4: move and scale corner boxes (..., 4) by offsets (..., 4)."""
    xp, p = array_module(offsets), to_center(reference)
    center = p[..., :2] + p[..., 2:] * offsets[..., :2]
    size = p[..., 2:] * xp.exp(offsets[..., 2:].clip(-MAX_LOG_SCALE, MAX_LOG_SCALE))
    return from_center(xp.concatenate([center, size], -1))
