"""Pictures as files and as ROS messages carry them -> arrays. No ROS is needed: any object with a message's fields will do.

Messages and files are untrusted: every size is checked before memory is taken for it. Frames are (H, W, 3) uint8 BGR.
Pixels of 16 bits become 8 bits by one rule, `Contrast`, wherever they come from.
"""
from __future__ import annotations

import re
import struct
from typing import NamedTuple

import cv2
import numpy as np

PIXELS_PER_BYTE = 1032  # Deflate's greatest ratio; JPEG stays below it
SEGMENTS = 1 << 16  # of a JPEG or PNG file: libpng writes a chunk for each 8 kB
OVERHEAD = 1 << 20  # bytes that a compressed file may have beyond those of its picture: thumbnails, colour profiles
STRIP = 1 << 20  # pixels of 16 bits that are looked up at a time
LEFT_OUT = 0.001  # share of the pixels that may lie below the range that is shown, and as many above it
FEW = 64  # pixels: in a picture of so many, one at either end is left out at least
RATE = 1 / 16  # see `Contrast`


class Bounds(NamedTuple):
    """How much work one message may make. memory: bytes of a picture while it is read; scans: of a JPEG,
    each of which goes over all of its pixels. Two 8k frames of 8 bits fit; encoders write up to about a dozen scans."""
    memory: int = 3 << 26
    scans: int = 20


class Layout(NamedTuple):
    """How an encoding stores a pixel, and OpenCV's code that makes BGR of it (None: it is BGR)."""
    channels: int
    bits: int
    code: int | None
    columns: int = 1  # neighbouring pixels that share their colour: the width is a multiple of it
    rows: int = 1  # as `columns`, of the height
    planes: int = 0  # 1: half as many rows of chroma follow the luma, 2: twice as long ones


# sensor_msgs/image_encodings.hpp; OpenCV's older Bayer names start at the second row, those used here at the first
LAYOUTS = {
    'bgr8': Layout(3, 8, None),
    '8UC3': Layout(3, 8, None),
    'rgb8': Layout(3, 8, cv2.COLOR_RGB2BGR),
    'bgra8': Layout(4, 8, cv2.COLOR_BGRA2BGR),
    '8UC4': Layout(4, 8, cv2.COLOR_BGRA2BGR),
    'rgba8': Layout(4, 8, cv2.COLOR_RGBA2BGR),
    'bgr16': Layout(3, 16, None),
    '16UC3': Layout(3, 16, None),
    'rgb16': Layout(3, 16, cv2.COLOR_RGB2BGR),
    'bgra16': Layout(4, 16, cv2.COLOR_BGRA2BGR),
    '16UC4': Layout(4, 16, cv2.COLOR_BGRA2BGR),
    'rgba16': Layout(4, 16, cv2.COLOR_RGBA2BGR),
    'mono8': Layout(1, 8, cv2.COLOR_GRAY2BGR),
    '8UC1': Layout(1, 8, cv2.COLOR_GRAY2BGR),
    'mono16': Layout(1, 16, cv2.COLOR_GRAY2BGR),
    '16UC1': Layout(1, 16, cv2.COLOR_GRAY2BGR),
    'uyvy': Layout(2, 8, cv2.COLOR_YUV2BGR_UYVY, 2),
    'yuv422': Layout(2, 8, cv2.COLOR_YUV2BGR_UYVY, 2),
    'yuyv': Layout(2, 8, cv2.COLOR_YUV2BGR_YUY2, 2),
    'yuv422_yuy2': Layout(2, 8, cv2.COLOR_YUV2BGR_YUY2, 2),
    'nv12': Layout(1, 8, cv2.COLOR_YUV2BGR_NV12, 2, 2, 1),
    'nv21': Layout(1, 8, cv2.COLOR_YUV2BGR_NV21, 2, 2, 1),
    'nv24': Layout(1, 8, None, planes=2),
    **{f'bayer_{pattern}{bits}': Layout(1, bits, code)
       for pattern, code in (('rggb', cv2.COLOR_BayerRGGB2BGR), ('bggr', cv2.COLOR_BayerBGGR2BGR),
                             ('gbrg', cv2.COLOR_BayerGBRG2BGR), ('grbg', cv2.COLOR_BayerGRBG2BGR))
       for bits in (8, 16)},
}


# BT.601 in video range, which OpenCV's codes of the other YUV forms use: B, G, R from Y, U, V and 1
VIDEO_RANGE = np.array([[1.164383, 2.017232, 0.0], [1.164383, -0.391762, -0.812968], [1.164383, 0.0, 1.596027]])
VIDEO_RANGE = np.column_stack([VIDEO_RANGE, VIDEO_RANGE @ (-16.0, -128.0, -128.0)])


class Contrast:
    """How 16 bits are shown in 8: the rule for every picture, with what one stream needs to stay steady.

    Shown is the range in which all pixels of a frame lie but a thousandth at either end, so that a hot or dead pixel
    decides nothing; of colours, whose tint would change otherwise, all that has as many bits. In a stream the range
    follows that of each frame slowly, by a sixteenth of the way and of itself at most. It is taken over at once where the old one shows less than half
    of the pixels, or shows all of them in an eighth of its grey levels: another camera, another gain.
    """

    def __init__(self):
        self._low: float | None = None  # nothing has been seen
        self._high = 0.0

    def to_8_bits(self, pixels: np.ndarray, colour: bool) -> np.ndarray:
        """(H, W) or (H, W, C) uint16 of any byte order -> uint8 of the same shape, rounded.

        colour: the pixels are values of several colours, side by side or in a Bayer pattern.
        """
        pixels = np.ascontiguousarray(pixels, np.uint16)
        counts = cv2.calcHist([pixels.reshape(-1, 1)], [0], None, [65536], [0, 65536])
        counts = counts.ravel().cumsum(dtype=np.float64)
        left_out = max(LEFT_OUT * pixels.size, float(pixels.size >= FEW))
        low = float(np.searchsorted(counts, left_out, 'right'))
        middle, high = np.searchsorted(counts, [pixels.size / 2, pixels.size - left_out]).astype(float)
        low, high = (0.0, 2.0 ** max(int(high).bit_length(), 8) - 1) if colour else (min(low, high), high)
        if self._low is None or not self._low <= middle <= self._high or 8 * (high - low) < self._high - self._low:
            self._low, self._high = low, high
        else:
            most = RATE * max(self._high - self._low, 1.0)
            self._low += min(max(RATE * (low - self._low), -most), most)
            self._high += min(max(RATE * (high - self._high), -most), most)
        levels = (np.arange(65536) - self._low) * (255 / max(self._high - self._low, 1.0))
        return _look_up(np.rint(levels.clip(0, 255)).astype(np.uint8), pixels)


def _look_up(table: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """table (65536,) at each of `pixels`, in strips: numpy makes eight bytes of each index."""
    result = np.empty(pixels.shape, table.dtype)
    flat, out = pixels.reshape(-1), result.reshape(-1)
    for start in range(0, len(flat), STRIP):
        np.take(table, flat[start:start + STRIP], out=out[start:start + STRIP], mode='clip')
    return result


def to_bgr(message, contrast: Contrast | None = None, bounds: Bounds = Bounds()) -> np.ndarray:
    """The picture of a sensor_msgs/Image, (H, W, 3) uint8 BGR.

    A bgr8 message is not copied: the array is a view of its data, with padded rows left out by the strides. 16 bits
    are shown as `contrast` says, which belongs to the stream of images; without it as those of a single picture.

    Raises ValueError, one sentence, for an encoding that is not in LAYOUTS, for sizes that do not fit each other, and for
    a picture beyond the bounds.
    """
    layout = LAYOUTS.get(message.encoding)
    if layout is None:
        raise ValueError(f'image encoding {message.encoding[:40]!r} is not known; known are {", ".join(sorted(LAYOUTS))}')
    taken = 3 * message.width * message.height
    view = None if layout.planes else _pixels(message, layout)
    if taken > len(message.data):  # what came whole may be read whole
        _check_memory(message.width, message.height, taken, bounds)
    if view is None:
        return _from_planes(message, layout)
    pixels = view
    if layout.bits == 16:
        pixels = (contrast or Contrast()).to_8_bits(
            pixels, layout.channels > 1 or message.encoding.startswith('bayer'))
    return pixels if layout.code is None else cv2.cvtColor(pixels, layout.code)


def compressed_to_bgr(message, contrast: Contrast | None = None, bounds: Bounds = Bounds()) -> np.ndarray:
    """The picture of a sensor_msgs/CompressedImage that holds a JPEG or PNG file, (H, W, 3) uint8 BGR.

    The pixels are those that the file stores: they are not turned by an orientation in its Exif data. 16 bits as in
    `to_bgr`, whatever the message's format says. Raises ValueError, one sentence, for other files, for one that is cut
    off or damaged, for one that claims more pixels than its bytes can hold, and for one beyond the bounds. That is all
    seen without decoding it.
    """
    data = bytes(message.data)
    form = _form_of_file(data)
    if form is None:
        raise ValueError(f'a compressed image must be a JPEG or PNG file, but its {len(data)} bytes '
                         f'begin with {data[:4].hex(" ") or "nothing"}')
    pixels = form.width * form.height
    if not 0 < pixels <= PIXELS_PER_BYTE * len(data):
        raise ValueError(f'a compressed image of {len(data)} bytes must have 1 to {PIXELS_PER_BYTE * len(data)} pixels, '
                         f'but it says {form.width}x{form.height}')
    _check_memory(form.width, form.height, max(form.memory, 3 * pixels), bounds)
    if len(data) > max(form.memory, 3 * pixels) + OVERHEAD:
        raise ValueError(f'a compressed image of {form.width}x{form.height} pixels has {len(data)} bytes, more than the '
                         'picture in it')
    if form.scans > bounds.scans:
        raise ValueError(f'a JPEG image may have at most {bounds.scans} scans, got {form.scans}')
    return file_to_bgr(form.essence, contrast)


def _check_memory(width: int, height: int, needed: int, bounds: Bounds) -> None:
    if needed > bounds.memory:
        raise ValueError(f'an image of {width}x{height} pixels takes {needed / 2**20:.0f} MiB, and at most '
                         f'{bounds.memory / 2**20:.0f} MiB are allowed')


def file_to_bgr(data: bytes, contrast: Contrast | None = None) -> np.ndarray:
    """The picture in a file of any form that OpenCV reads, (H, W, 3) uint8 BGR; its pixels are taken as there.

    Raises ValueError, one sentence that does not name the file.
    """
    form = _form_of_file(data)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    except cv2.error as error:
        raise ValueError(f'the image of {len(data)} bytes is damaged: {" ".join(str(error.err).split())}') from error
    if pixels is None or not pixels.size or form is not None and pixels.shape[1::-1] != form[:2]:
        raise ValueError(f'the image of {len(data)} bytes is empty, damaged or of an unknown form')
    if pixels.dtype == np.uint16:
        pixels = (contrast or Contrast()).to_8_bits(pixels, pixels.ndim == 3)
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype != np.uint8 or channels not in (1, 3, 4):
        raise ValueError(f'the image has {channels} channels of {pixels.dtype}: expected 1, 3 or 4 of 8 or 16 bits')
    code = {1: cv2.COLOR_GRAY2BGR, 3: None, 4: cv2.COLOR_BGRA2BGR}[channels]
    return pixels if code is None else cv2.cvtColor(pixels, code)


class Form(NamedTuple):
    """What a JPEG or PNG file says about itself. memory: bytes that decoding takes; essence: the file without what does
    not belong to the pixels."""
    width: int
    height: int
    memory: int
    scans: int
    essence: bytes


def _form_of_file(data: bytes) -> Form | None:
    """Of a JPEG or PNG file (ITU-T T.81 B.2, ISO/IEC 15948 11.2.2), None for one of another form.

    Raises ValueError for one that is cut off, which some decoders fill up with grey.
    """
    if data.startswith(b'\x89PNG\r\n\x1a\n'):
        return _form_of_png(data)
    return _form_of_jpeg(data) if data.startswith(b'\xff\xd8') else None


PIXEL_CHUNKS = (b'IHDR', b'PLTE', b'tRNS', b'IDAT', b'IEND')  # others may unpack to megabytes each, or be further pictures
PNG_CHANNELS = {0: 1, 2: 3, 3: 4, 4: 4, 6: 4}  # colour type -> channels as OpenCV reads them


def _form_of_png(data: bytes) -> Form:
    at, chunks = 8, [data[:8]]
    for _ in range(SEGMENTS):
        kind = data[at + 4:at + 8]
        end = at + 12 + int.from_bytes(data[at:at + 4], 'big')
        if kind == b'IEND':
            break
        if at + 12 > len(data):
            raise ValueError(f'the PNG image is cut off after {len(data)} bytes')
        if kind in PIXEL_CHUNKS:
            chunks.append(data[at:end])
        at = end
    else:
        raise ValueError(f'the PNG image of {len(data)} bytes has more than {SEGMENTS} chunks')
    if data[12:16] != b'IHDR':
        raise ValueError(f'the PNG image of {len(data)} bytes is damaged: it does not say its size')
    width, height, depth, colour = struct.unpack('>IIBB', data[16:26].ljust(10, b'\0'))
    memory = width * height * PNG_CHANNELS.get(colour, 4) * (2 if depth == 16 else 1)
    return Form(width, height, memory, 1, b''.join([*chunks, data[at:end]]))


# after the bytes of a scan: stuffed zeros, fill bytes and restart markers belong to it
NEXT_MARKER = re.compile(b'\xff([^\x00\xff\xd0-\xd7])', re.DOTALL)
PROGRESSIVE, HUFFMAN = 0xc2, (0xc0, 0xc1, 0xc2)  # kinds of frames that cameras write


def _form_of_jpeg(data: bytes) -> Form:
    at, frame, scans = 2, None, 0
    for _ in range(SEGMENTS):
        marker = NEXT_MARKER.search(data, at)  # a thumbnail in a segment has an end of its own: it is stepped over
        if marker is None or marker.end() + 2 > len(data) and marker[1] != b'\xd9':
            raise ValueError(f'the JPEG image is cut off after {len(data)} bytes')
        kind, at = marker[1][0], marker.end()
        if kind == 0xd9:  # the end
            break
        if kind in (0x01, 0xd8):  # without a length
            continue
        if 0xc0 <= kind <= 0xcf and kind not in (0xc4, 0xc8, 0xcc) and at + 8 <= len(data):  # a start of frame
            if kind not in HUFFMAN:
                raise ValueError(f'a JPEG image must be baseline or progressive with Huffman codes, got SOF{kind - 0xc0}')
            frame = frame or (kind, *struct.unpack('>HH', data[at + 3:at + 7]), data[at + 7:at + 8 + 3 * data[at + 7]])
        scans += kind == 0xda
        at += int.from_bytes(data[at:at + 2], 'big')
    else:
        raise ValueError(f'the JPEG image of {len(data)} bytes has more than {SEGMENTS} segments')
    if frame is None:
        raise ValueError(f'the JPEG image of {len(data)} bytes is damaged: it does not say its size')
    kind, height, width, components = frame
    across, down = ([max(factors >> shift & 15, 1) for factors in components[2::3]] or [1] for shift in (4, 0))
    samples = sum(a * b for a, b in zip(across, down)) / (max(across) * max(down))  # of a pixel, after subsampling
    # several scans: all coefficients, two bytes each, are kept until the last
    kept = 2 * samples if kind == PROGRESSIVE or scans > 1 else 0
    return Form(width, height, round(width * height * (max(components[0], 3) + kept)), scans, data)


def _from_planes(message, layout: Layout) -> np.ndarray:
    """NV12, NV21, NV24: a plane of luma, then one of interleaved chroma."""
    y = _pixels(message, layout)
    height, width = y.shape
    step, data = message.step, message.data
    chroma = height // 2 if layout.planes == 1 else height  # rows of it
    row = width if layout.planes == 1 else 2 * width  # bytes of one
    pitch = step if layout.planes == 1 else 2 * step
    needed = step * height + pitch * (chroma - 1) + row
    if height % layout.rows:
        raise ValueError(f'the height of a {message.encoding} image must be even, got {height}')
    if len(data) < needed:
        raise ValueError(f'a {width}x{height} {message.encoding} image with step {step} takes {needed} bytes, '
                         f'but the message has {len(data)}')
    uv = np.ndarray((chroma, row), np.uint8, buffer=data, offset=step * height, strides=(pitch, 1))
    if layout.code is not None:
        return cv2.cvtColor(np.concatenate([y, uv]), layout.code)
    return cv2.transform(np.dstack([y, uv.reshape(height, width, 2)]), VIDEO_RANGE)


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
