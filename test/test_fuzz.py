"""Property-based fuzzing: whatever stands in a message, the answer is right or a ValueError of one sentence.

The environment variable CRACT_FUZZ is the number of examples of each property (default 2000, always the same ones;
with the variable they are drawn anew): `CRACT_FUZZ=20000 make test PYTEST_ARGS=test/test_fuzz.py`.
"""
from __future__ import annotations

import array
import dataclasses
import json
import math
import struct
import zlib

import cv2
import numpy as np
import pytest

pytest.importorskip('hypothesis', reason='hypothesis is not installed')
pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from bombs import CHANNELS, SIGNATURE, chunk
from builtin_interfaces.msg import Time
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from vision_msgs.msg import BoundingBox2D, Detection2D, Detection2DArray

from cract_core import TrackerConfig
from cract_core.boxes import check_box
from cract_core.crop import search_window, template_window
from cract_core.encodings import LAYOUTS, PIXELS_PER_BYTE, Bounds, compressed_to_bgr
from cract_ros import bearing, conversions, history, web
from cract_ros.parameters import NodeConfig
from fuzzing import fuzzed, memory, refusal

np.median(np.ones(2))  # loads a part of NumPy at its first call

ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]

uint32 = st.one_of(st.integers(0, 12), st.sampled_from([2**31 - 1, 2**31, 2**32 - 1]), st.integers(0, 2**32 - 1))
BYTES = {'mono8': 1, '8UC1': 1, 'bgr8': 3, 'rgb8': 3, '8UC3': 3, 'bgra8': 4, 'rgba8': 4, '8UC4': 4, 'mono16': 2,
         '16UC1': 2, 'bgr16': 6, 'rgb16': 6, '16UC3': 6, 'bgra16': 8, 'rgba16': 8, '16UC4': 8, 'uyvy': 2, 'yuv422': 2, 'yuyv': 2, 'yuv422_yuy2': 2,
         **{f'bayer_{pattern}{bits}': bits // 8 for pattern in ('rggb', 'bggr', 'gbrg', 'grbg') for bits in (8, 16)}}
PLANAR = {'nv12', 'nv21', 'nv24'}  # of several planes: see test_reliability
LEVELS = 40 << 16  # bytes of the table that maps 16-bit levels
PAIRED = ('uyvy', 'yuv422', 'yuyv', 'yuv422_yuy2')  # two pixels share their colour
ORDER = {'bgr8': (0, 1, 2), '8UC3': (0, 1, 2), 'bgra8': (0, 1, 2), '8UC4': (0, 1, 2), 'rgb8': (2, 1, 0),
         'rgba8': (2, 1, 0), 'mono8': (0, 0, 0), '8UC1': (0, 0, 0)}  # byte of the pixel that is its B, G, R


@st.composite
def images(draw) -> Image:
    """Fields that fit each other, nearly do, or do not at all."""
    encoding = draw(st.one_of(st.sampled_from(sorted(BYTES)), st.sampled_from(sorted(BYTES)), st.text(max_size=300)))
    width, height = draw(uint32), draw(uint32)
    row = width * BYTES.get(encoding, 1)
    step = draw(st.one_of(st.integers(row, row + 5), st.integers(max(row - 2, 0), row), uint32)) & (2**32 - 1)
    needed = step * (height - 1) + row
    change = draw(st.sampled_from([0, 0, 0, 1, 7, -1, -3, None]))
    size = draw(st.integers(0, 200)) if change is None or not 0 <= needed < 2000 else max(needed + change, 0)
    data = np.random.default_rng(draw(st.integers(0, 99))).bytes(size)
    return Image(width=width, height=height, encoding=encoding, step=step, is_bigendian=draw(st.integers(0, 255)),
                 data=array.array('B', data))


def expected_picture(message: Image) -> list:
    """Rows of (B, G, R), byte by byte."""
    data, pixel = bytes(message.data), BYTES[message.encoding]
    return [[[data[y * message.step + x * pixel + byte] for byte in ORDER[message.encoding]]
             for x in range(message.width)] for y in range(message.height)]


@fuzzed()
@given(images())
def test_an_image_is_read_right_or_refused(message):
    width, height, pixel = message.width, message.height, BYTES.get(message.encoding)
    fits = (pixel and width > 0 and height > 0 and message.step >= width * pixel
            and len(message.data) >= message.step * (height - 1) + width * pixel
            and not (message.encoding in PAIRED and width % 2))
    frame = None
    deep = pixel is not None and message.encoding.endswith('16') or message.encoding.startswith('16UC')
    with refusal(), memory(16 * len(message.data) + LEVELS * deep):
        frame = conversions.to_bgr(message)
    assert (frame is not None) == bool(fits)
    if fits:
        assert frame.shape == (height, width, 3) and frame.dtype == np.uint8
    if fits and message.encoding in ORDER:
        assert frame.tolist() == expected_picture(message)
    if fits and message.encoding == 'mono16':
        values = struct.unpack(f'{"><"[message.is_bigendian == 0]}{width}H', bytes(message.data)[:2 * width])
        assert (np.diff(frame[0, np.argsort(values), 0].astype(int)) >= 0).all()     # in the order of their levels


def test_the_table_of_encodings_here_is_whole():
    assert set(BYTES) | PLANAR == set(LAYOUTS)


PICTURE = cv2.resize(np.random.default_rng(2).integers(0, 256, (4, 6, 3), np.uint8), (24, 16))
FILES = {'colour.png': PICTURE, 'grey.png': PICTURE[..., 0], 'alpha.png': np.dstack([PICTURE, PICTURE[..., :1]]),
         'deep.png': PICTURE[..., 0].astype(np.uint16) * 257, 'colour.jpg': PICTURE, 'grey.jpg': PICTURE[..., 0]}
ENCODED = {name: cv2.imencode(name[-4:], pixels)[1].tobytes() for name, pixels in FILES.items()}
ENCODED['progressive.jpg'] = cv2.imencode('.jpg', PICTURE, (cv2.IMWRITE_JPEG_PROGRESSIVE, 1))[1].tobytes()


@st.composite
def damaged(draw) -> bytes:
    """A picture file with bytes changed, cut out or put in, the size in its header among them."""
    data = bytearray(ENCODED[draw(st.sampled_from(sorted(ENCODED)))])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        new = draw(st.binary(max_size=4))
        data[at:at + draw(st.sampled_from([len(new), len(new), 0, 4]))] = new
    if draw(st.booleans()):
        frame = max(data.find(b'\xff\xc0'), data.find(b'\xff\xc2'), 11)  # 16 in a PNG: its width
        data[frame + 5:frame + 9] = draw(st.binary(min_size=4, max_size=4))
    return bytes(data[:draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))])


@fuzzed()
@given(st.one_of(damaged(), damaged(), st.binary(max_size=200),
                 st.binary(max_size=200).map(b'\xff\xd8'.__add__)), st.text(max_size=40))
def test_a_damaged_compressed_image_is_some_picture_of_its_size_or_refused(data, form):
    with refusal(), memory(12 * PIXELS_PER_BYTE * len(data)):
        frame = compressed_to_bgr(CompressedImage(format=form, data=array.array('B', data)))
        assert frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3
        assert frame.size <= 3 * PIXELS_PER_BYTE * len(data)


@pytest.mark.parametrize('name', sorted(ENCODED))
def test_a_whole_compressed_image_is_the_picture(name):
    frame = compressed_to_bgr(CompressedImage(data=array.array('B', ENCODED[name])))
    if name == 'deep.png':  # its levels are spread
        order = np.argsort(PICTURE[..., 0], axis=None)
        assert (np.diff(frame[..., 0].ravel()[order].astype(int)) >= 0).all()
        assert frame.min() == 0 and frame.max() == 255 and (frame[..., :1] == frame).all()
        return
    grey = name.startswith('grey')
    expected = np.dstack([PICTURE[..., 0]] * 3) if grey else PICTURE
    assert np.abs(frame.astype(int) - expected).max() <= (0 if name.endswith('png') else 60)
    assert np.abs(frame.astype(int) - expected).mean() < 8


@pytest.mark.parametrize('name', sorted(ENCODED))
def test_a_compressed_image_that_is_cut_off_is_refused_as_such(name):
    for part in (0.2, 0.6, 0.95):
        data = ENCODED[name][:int(part * len(ENCODED[name]))]
        with pytest.raises(ValueError, match='cut off'):
            compressed_to_bgr(CompressedImage(data=array.array('B', data)))


DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # PNG: colour type -> bits


@st.composite
def png_files(draw):
    """A valid PNG file of any structure, and its pixels (H, W, 3) uint8 BGR where its depth is 8 bits."""
    colour = draw(st.sampled_from(sorted(DEPTHS)))
    depth, channels = draw(st.sampled_from(DEPTHS[colour])), CHANNELS[colour]
    width, height = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    interlaced = draw(st.booleans())
    random = np.random.default_rng(draw(st.integers(0, 99)))
    palette = random.integers(0, 256, (2 ** depth if colour == 3 else 0, 3), np.uint8)
    values = random.integers(0, 2 ** depth, (height, width, channels))
    data = b''
    for left, top, across, down in ADAM7 if interlaced else [(0, 0, 1, 1)]:
        part = values[top::down, left::across]
        for row in part if part.size else ():
            bits = ''.join(f'{value:0{depth}b}' for value in row.ravel())
            bits += '0' * (-len(bits) % 8)
            data += b'\0' + int(bits, 2).to_bytes(len(bits) // 8, 'big')
    packed = zlib.compress(data, draw(st.integers(0, 9)))
    cuts = sorted(draw(st.lists(st.integers(0, len(packed)), max_size=4)))
    parts = [packed[a:b] for a, b in zip([0, *cuts], [*cuts, len(packed)])]
    other = st.lists(st.builds(chunk, st.sampled_from([b'tEXt', b'zTXt', b'iCCP', b'acTL', b'fcTL', b'eXIf', b'gAMA', b'bKGD']),
                               st.binary(max_size=40)), max_size=3).map(b''.join)
    head = struct.pack('>IIBBBBB', width, height, depth, colour, 0, 0, interlaced)
    file = SIGNATURE + chunk(b'IHDR', head) + draw(other)
    if colour == 3:
        file += chunk(b'PLTE', palette.tobytes()) + draw(other)
    file += b''.join(chunk(b'IDAT', part) for part in parts) + draw(other) + chunk(b'IEND', b'')
    if depth != 8:
        return file, (height, width), None
    shown = palette[values[..., 0]] if colour == 3 else values[..., [0, 0, 0] if channels < 3 else [0, 1, 2]]
    return file, (height, width), shown[..., ::-1]


@fuzzed(0.5)
@given(png_files())
def test_a_png_of_any_structure_is_the_picture(made):
    data, size, expected = made
    frame = compressed_to_bgr(CompressedImage(data=array.array('B', data)))
    assert frame.shape == (*size, 3) and frame.dtype == np.uint8
    assert expected is None or (frame == expected).all()


@st.composite
def jpeg_files(draw):
    """A valid JPEG file of any structure, its number of scans, and its pixels; None where a scan has come again, which may
    refine them beyond their value."""
    size = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    picture = cv2.resize(random.integers(0, 256, (3, 3, 3), np.uint8), size)
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, draw(st.integers(0, 1)), cv2.IMWRITE_JPEG_QUALITY, draw(st.integers(1, 100)),
               cv2.IMWRITE_JPEG_RST_INTERVAL, draw(st.sampled_from([0, 1, 7])),
               cv2.IMWRITE_JPEG_OPTIMIZE, draw(st.integers(0, 1)),
               cv2.IMWRITE_JPEG_SAMPLING_FACTOR, draw(st.sampled_from([0x111111, 0x211111, 0x221111, 0x411111]))]
    plain = cv2.imencode('.jpg', picture if draw(st.booleans()) else picture[..., 0], options)[1].tobytes()
    segment = st.builds(lambda kind, data: b'\xff' + bytes([kind]) + struct.pack('>H', len(data) + 2) + data,
                        st.sampled_from([0xfe, 0xe3, 0xe5]), st.one_of(st.binary(max_size=30), st.just(b'\xff\xd9\xff\xda')))
    file = plain[:2] + b''.join(draw(st.lists(segment, max_size=5))) + plain[2:]
    last, end = file.rfind(b'\xff\xda'), file.rfind(b'\xff\xd9')
    more = draw(st.sampled_from([0, 0, 1, 30]))
    file = file[:end] + file[last:end] * more + b'\xff' * draw(st.integers(0, 3)) + file[end:]
    pixels = None if more else cv2.imdecode(np.frombuffer(plain, np.uint8), cv2.IMREAD_COLOR)
    return file, (plain.count(b'\xff\xda') + more, *size[::-1]), pixels


@fuzzed(0.5)
@given(jpeg_files(), st.integers(1, 40))
def test_a_jpeg_of_any_structure_is_the_picture_or_has_too_many_scans(made, allowed):
    data, (scans, *size), expected = made
    message = CompressedImage(data=array.array('B', data))
    if scans > allowed:
        with pytest.raises(ValueError, match=f'at most {allowed} scans, got {scans}'):
            compressed_to_bgr(message, bounds=Bounds(scans=allowed))
        return
    frame = compressed_to_bgr(message, bounds=Bounds(scans=allowed))
    assert frame.shape == (*size, 3) and frame.dtype == np.uint8
    assert expected is None or (frame == expected).all()


@fuzzed(0.2)
@given(st.one_of(png_files(), jpeg_files()), st.integers(0, 4000))
def test_a_picture_beyond_the_memory_that_it_may_take_is_refused_before_it_is_read(made, allowed):
    message = CompressedImage(data=array.array('B', made[0]))
    try:
        frame = compressed_to_bgr(message, bounds=Bounds(allowed, 1000))
    except ValueError as error:
        assert 'MiB are allowed' in str(error)
    else:
        assert frame.size <= allowed


numbers = st.one_of(st.floats(), st.floats(-50, 700), st.floats(1, 400),
                    st.sampled_from([0.0, 1e6, -1e6, 1e300, 5e-324]))


@fuzzed()
@given(numbers, numbers, numbers, numbers, st.one_of(st.just(0.0), st.just(0.0), st.just(-0.0), st.floats()),
       st.integers(8, 700), st.integers(8, 500))
def test_a_box_gives_windows_in_the_frame_or_is_refused(x, y, w, h, theta, width, height):
    message = BoundingBox2D(size_x=w, size_y=h)
    message.center.position.x, message.center.position.y, message.center.theta = x, y, theta
    with refusal():
        box = check_box(conversions.box_from_message(message), (width, height))
        assert theta == 0 and all(map(math.isfinite, (x, y, w, h))) and w >= 1 and h >= 1
        assert abs(x) + w / 2 <= 2e6 and -w / 2 < x < width + w / 2 and -h / 2 < y < height + h / 2
        again = conversions.box_to_message(box)
        np.testing.assert_allclose([again.center.position.x, again.center.position.y, again.size_x, again.size_y],
                                   [x, y, w, h], rtol=1e-9, atol=1e-9)
        frame = np.zeros((height, width, 3), np.uint8)
        for window in (template_window((x, y), w, h), search_window((x, y), w, h)):
            assert window.cut(frame, (1, 2, 3)).shape == (window.size, window.size, 3)


plausible = st.floats(0.1, 4000)
coefficients = st.lists(st.one_of(st.floats(-1, 1), st.floats(-1, 1), st.floats()), max_size=15)


@fuzzed()
@given(st.tuples(*[st.one_of(plausible, plausible, st.floats())] * 4),
       st.sampled_from(['plumb_bob', 'rational_polynomial', 'equidistant', '', 'martian']),
       st.one_of(coefficients, st.lists(st.floats(-0.3, 0.3), min_size=4, max_size=5)), st.booleans(),
       st.tuples(*[st.sampled_from([0, 0, 640, 480, 1, 2**32 - 1])] * 6), st.lists(numbers, min_size=10, max_size=10))
def test_a_camera_gives_unit_vectors_or_is_refused(intrinsics, model, distortion, rectified, sizes, points):
    fx, fy, cx, cy = intrinsics
    info = CameraInfo(distortion_model=model, d=distortion, k=[fx, 0, cx, 0, fy, cy, 0, 0, 1],
                      p=[fx, 0, cx, 0, 0, fy, cy, 0, 0, 0, 1, 0], width=sizes[0], height=sizes[1],
                      binning_x=sizes[2] % 4, binning_y=sizes[3] % 4)
    info.roi.width, info.roi.x_offset = sizes[4], sizes[5]
    with refusal():
        rays = bearing.Camera(info, rectified).rays(np.clip(np.nan_to_num(points).reshape(5, 2), -1e6, 1e6), (640, 480))
        assert rays.shape == (5, 3) and np.allclose(np.linalg.norm(rays, axis=1), 1) and (rays[:, 2] > 0).all()


@fuzzed()
@given(st.sampled_from(['16UC1', '32FC1', 'mono8', '']), uint32, uint32, st.integers(0, 4), st.integers(0, 99),
       st.integers(-3, 3), st.tuples(*[st.floats(-1e3, 1e3)] * 2, *[st.floats(1, 1e3)] * 2))
def test_a_depth_image_gives_a_distance_that_stands_in_it_or_is_refused(
        encoding, width, height, padding, seed, change, box):
    pixel = 2 if encoding == '16UC1' else 4
    step = min(width * pixel + padding, 2**32 - 1)
    size = step * (height - 1) + width * pixel + change
    data = np.random.default_rng(seed).bytes(size if 0 <= size < 2000 else 50)
    message = Image(width=width, height=height, encoding=encoding, step=step, data=array.array('B', data))
    with refusal(), memory(20 * len(data)):
        distance = bearing.distance_along(message, np.array(box), (640, 480))
        assert encoding in ('16UC1', '32FC1') and (distance is None or distance > 0)
        assert not distance or encoding == '32FC1' or 0.001 <= distance <= 65.535


@fuzzed()
@given(st.lists(st.tuples(numbers, numbers, numbers, numbers, st.sampled_from([0.0, 0.0, 0.0, 0.0, 1.0, math.nan])),
                max_size=6))
def test_candidates_are_boxes_or_refused(rows):
    message = Detection2DArray()
    for x, y, w, h, theta in rows:
        box = BoundingBox2D(size_x=w, size_y=h)
        box.center.position.x, box.center.position.y, box.center.theta = x, y, theta
        message.detections.append(Detection2D(bbox=box))
    with refusal():
        boxes = conversions.boxes_from_message(message)
        plain = sum(w >= 1 and h >= 1 and theta == 0 and max(map(abs, row)) < 1e5 for *row, theta in rows for w, h in [row[2:]])
        upright = sum(theta == 0 for *_, theta in rows)     # turned boxes are left out
        assert plain <= len(boxes) <= upright and boxes.shape[1:] == (4,) and np.isfinite(boxes).all()


stamps = st.builds(Time, sec=st.one_of(st.integers(-3, 3), st.integers(-2**31, 2**31 - 1)),
                   nanosec=st.one_of(st.integers(0, 3), st.integers(0, 2**32 - 1)))


@fuzzed()
@given(st.lists(st.tuples(stamps, st.integers(0, 40)), max_size=8), stamps, st.integers(1, 5), st.integers(1, 100))
def test_the_image_of_a_stamp_is_found_or_refused_and_the_history_keeps_its_bounds(arrived, asked, limit, size):
    kept = history.FrameHistory(limit, size)
    for stamp, length in arrived:
        message = Image(data=array.array('B', bytes(length)))
        message.header.stamp = stamp
        kept.add(message)
        assert len(kept) <= limit
        assert len(kept) == 1 or sum(len(frame.message.data) for frame in kept.after(0)) <= size
    with refusal():
        frame = kept.at(asked)
        assert frame.header.stamp == asked or asked == Time()
        assert all(later.header.stamp != asked for later in kept.after(frame.serial))
        return
    assert all(stamp != asked for stamp, _ in arrived[-1:])


json_values = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=12),
                           lambda inner: st.lists(inner, max_size=5) | st.dictionaries(
                               st.sampled_from(['stamp', 'box', 'point', 'id', 'x']), inner, max_size=3), max_leaves=8)
stamp_words = st.one_of(st.from_regex(r'-?[0-9]{1,11}\.[0-9]{1,10}', fullmatch=True), st.text(max_size=15))


@fuzzed()
@given(st.one_of(json_values.map(json.dumps).map(str.encode), st.binary(max_size=60), st.builds(
    lambda stamp, kind, place, name: json.dumps({'stamp': stamp, kind: place, 'id': name}).encode(), stamp_words,
    st.sampled_from(['box', 'point']), st.lists(st.one_of(numbers, st.integers(), st.text(max_size=4)), min_size=2, max_size=5),
    st.text(max_size=140))))
def test_what_comes_to_the_web_page_is_a_stamp_and_a_place_or_refused(body):
    with refusal():
        choice = web.parse_choice(body)
        Time(sec=choice.stamp[0], nanosec=choice.stamp[1])
        assert (choice.box is None) != (choice.point is None)
        place, size = (choice.box, 4) if choice.point is None else (choice.point, 2)
        assert len(place) == size and all(map(math.isfinite, place))
        assert len(choice.target_id) <= 128
        if choice.box is not None:
            conversions.box_to_message(choice.box)


values = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.lists(st.integers()),
                   st.sampled_from(['cpu', 'cuda', 'auto', 0.1, 0.5, 1, 10, 10**400]))


@fuzzed()
@given(st.one_of(*(st.tuples(st.just(kind), st.dictionaries(
    st.sampled_from([field.name for field in dataclasses.fields(kind)]), values, max_size=4))
    for kind in (TrackerConfig, NodeConfig))))
def test_parameters_are_within_their_ranges_or_refused(kind_and_changes):
    kind, changes = kind_and_changes
    with refusal():
        config = kind(**changes)
        for field in dataclasses.fields(kind):
            value, meta = getattr(config, field.name), field.metadata
            assert meta['minimum'] is None or meta['minimum'] <= value <= meta['maximum']
            assert not meta['choices'] or value in meta['choices']


@pytest.fixture(scope='module')
def tracker():
    from cract_core.model import CractModel
    from cract_core.tracker import Tracker
    return Tracker(TrackerConfig(num_proposals=1, init_positives=8, init_negatives=16, init_iterations=1,
                                 update_positives=8, update_negatives=16, device='cpu', threads=1), CractModel())


lengths = st.one_of(st.integers(8, 64), st.integers(1, 900))
frames = st.builds(lambda *shape_seed: np.random.default_rng(shape_seed[2]).integers(
    0, 256, (*shape_seed[:2], 3), np.uint8), lengths, lengths, st.integers(0, 3))


@fuzzed(0.005)
@given(frames, frames, st.tuples(numbers, numbers, st.floats(1, 1e6), st.floats(1, 1e6)))
def test_a_tracker_answers_frames_of_any_size_or_refuses_them(tracker, first, second, box):
    tracker.reset()
    with refusal():
        tracker.init(first, box)
    if tracker.initialized:
        for frame in (first, second):
            with refusal():
                estimate = tracker.update(frame)
                assert np.isfinite(estimate.box).all() and (estimate.box[2:] > 0).all() and 0 <= estimate.score <= 1
