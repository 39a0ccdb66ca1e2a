"""Pictures as ROS messages carry them -> arrays. No ROS is needed: any object with the fields of the message will do.

Messages are untrusted: every size is checked before memory is taken for it. Frames are (H, W, 3) uint8 BGR.
"""
from __future__ import annotations

import struct
from typing import NamedTuple

import cv2
import numpy as np

MAX_PIXELS = 1 << 26  # of a compressed picture: twice an 8k frame
PIXELS_PER_BYTE = 1032  # Deflate's greatest ratio; JPEG stays below it


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


def to_bgr(message) -> np.ndarray:
    """The picture of a sensor_msgs/Image, (H, W, 3) uint8 BGR.

    A bgr8 message is not copied: the array is a view of its data, with padded rows left out by the strides. 16 bits
    are scaled to 8 by the full range, only 16UC1, whose range is not defined (depth, thermal), by the least and
    the greatest value in the frame.

    Raises ValueError, one sentence, for an encoding that is not in LAYOUTS or for sizes that do not fit each other.
    """
    layout = LAYOUTS.get(message.encoding)
    if layout is None:
        raise ValueError(f'image encoding {message.encoding!r} is not known; known are {", ".join(sorted(LAYOUTS))}')
    pixels = _pixels(message, layout)
    if layout.bits == 16:
        pixels = _to_8_bits(pixels, stretch=message.encoding == '16UC1')
    return pixels if layout.code is None else cv2.cvtColor(pixels, layout.code)


def compressed_to_bgr(message) -> np.ndarray:
    """The picture of a sensor_msgs/CompressedImage that holds a JPEG or PNG file, (H, W, 3) uint8 BGR.

    16 bits are scaled as in `to_bgr`. Raises ValueError, one sentence, for other files, for one that is cut off or
    damaged, and for one that claims more pixels than its bytes can hold.
    """
    data = np.frombuffer(message.data, np.uint8)
    width, height = _size_of_file(bytes(message.data))
    if not 0 < width * height <= min(MAX_PIXELS, PIXELS_PER_BYTE * len(data)):
        raise ValueError(f'a compressed image of {len(data)} bytes must have 1 to '
                         f'{min(MAX_PIXELS, PIXELS_PER_BYTE * len(data))} pixels, but it says {width}x{height}')
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ValueError(f'the compressed image is damaged: {error.err}') from error
    if pixels is None or pixels.shape[:2] != (height, width):
        raise ValueError(f'the compressed image of {len(data)} bytes is damaged')
    if pixels.dtype == np.uint16:
        pixels = _to_8_bits(pixels, stretch=message.format.startswith('16UC1'))
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    code = {1: cv2.COLOR_GRAY2BGR, 3: None, 4: cv2.COLOR_BGRA2BGR}[channels]
    return pixels if code is None else cv2.cvtColor(pixels, code)


def _size_of_file(data: bytes) -> tuple[int, int]:
    """Width and height from the header of a JPEG or PNG file (ITU-T T.81 B.2, ISO/IEC 15948 11.2.2)."""
    if data.startswith(b'\x89PNG\r\n\x1a\n') and data[12:16] == b'IHDR' and len(data) >= 24:
        if b'IEND' not in data[-64:]:
            raise ValueError(f'the PNG image is cut off after {len(data)} bytes')
        return struct.unpack('>II', data[16:24])
    if not data.startswith(b'\xff\xd8'):
        raise ValueError(f'a compressed image must be a JPEG or PNG file, but its {len(data)} bytes '
                         f'begin with {data[:4].hex(" ") or "nothing"}')
    if data.rfind(b'\xff\xd9') < 0:
        raise ValueError(f'the JPEG image is cut off after {len(data)} bytes')
    at = 2
    while at + 9 <= len(data) and data[at] == 0xff:
        marker = data[at + 1]
        if marker == 0xff:  # a fill byte
            at += 1
        elif 0xc0 <= marker <= 0xcf and marker not in (0xc4, 0xc8, 0xcc):  # a start of frame
            height, width = struct.unpack('>HH', data[at + 5:at + 9])
            return width, height
        else:
            at += 2 + struct.unpack('>H', data[at + 2:at + 4])[0]
    raise ValueError(f'the JPEG image of {len(data)} bytes is damaged: it does not say its size')


def _pixels(message, layout: Layout) -> np.ndarray:
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
