"""What a message may hold, seen before its elements are made."""
from __future__ import annotations

import tracemalloc
import zipfile

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

from cract_core.weights_file import read_weights
from cract_ros import limits
from node_harness import bounding_box

MOST = 1 << 20


def crowd(number: int, frame_id: str = 'camera', results: int = 0) -> Detection2DArray:
    message = Detection2DArray(detections=[
        Detection2D(bbox=bounding_box(place, 2 * place, 5, 6), id=f'number {place}',
                    results=[ObjectHypothesisWithPose()] * results) for place in range(number)])
    message.header.frame_id, message.header.stamp.sec = frame_id, 77
    return message


@pytest.mark.parametrize('frame_id', ['', 'a', 'ab', 'abc', 'abcd', 'f\u00e9', 'camera'])
@pytest.mark.parametrize('number, count', [(0, 3), (2, 3), (3, 3), (4, 3), (20, 1), (20, 19)])
def test_the_first_of_a_list_are_read_as_they_are(frame_id, number, count):
    message = crowd(number, frame_id)
    read, there = limits.read_first(serialize_message(message), Detection2DArray, MOST, count)
    assert there == number
    assert read.header == message.header and read.detections == message.detections[:count]


def test_candidates_beyond_the_first_cost_nothing():
    data = serialize_message(crowd(9000))
    assert 500_000 < len(data) < MOST
    limits.read_first(data, Detection2DArray, MOST, 100)  # what is loaded once
    tracemalloc.start()
    read, there = limits.read_first(data, Detection2DArray, MOST, 100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(read.detections), there) == (100, 9000)
    assert peak < 4 << 20  # nine thousand take fifty times as much


@pytest.mark.parametrize('kind, message', [
    (Detection2DArray, crowd(20000)), (Detection2DArray, crowd(1, results=3000)), (Detection2DArray, crowd(1, 'x' * MOST)),
    (Detection2D, Detection2D(id='x' * MOST)), (CameraInfo, CameraInfo(d=[0.0] * (MOST // 8)))])
def test_a_message_that_is_too_large_is_refused_unread(kind, message):
    data = serialize_message(message)
    for read in (lambda: limits.read(data, kind, MOST), lambda: limits.read_first(data, kind, MOST, 10)):
        with pytest.raises(ValueError, match=rf'^a {kind.__name__} message may have at most {MOST} bytes, got {len(data)}$'):
            read()


@pytest.mark.parametrize('damage', [
    lambda data: b'', lambda data: data[:3], lambda data: data[:20], lambda data: data[:-9],
    lambda data: data[:12] + b'\xff\xff\xff\xff' + data[16:], lambda data: np.random.default_rng(3).bytes(400)])
def test_a_damaged_message_is_refused_in_one_sentence(damage):
    data = damage(serialize_message(crowd(3)))
    for read in (lambda: limits.read(data, Detection2DArray, MOST),
                 lambda: limits.read_first(data, Detection2DArray, MOST, 10)):
        with pytest.raises(ValueError, match=r'^a Detection2DArray message of \d+ bytes (cannot be read|is cut off)'):
            read()


@pytest.mark.parametrize('text', ['', 'car', 'Auto 7', '\u8eca', 'x' * 128, 'a "b" <c> & d'])
def test_a_name_that_can_be_shown_is_taken(text):
    assert limits.check_text('id', text) == text


@pytest.mark.parametrize('text, reason', [
    ('x' * 129, 'at most 128 characters, got 129'), ('x' * 10**6, 'at most 128 characters, got 1000000'),
    ('a\nb', 'no control characters'), ('a\x00', 'no control characters'), ('\x1b[31m', 'no control characters'),
    ('a\u202eb', 'no control characters'), ('a\u2028b', 'no control characters'), ('\x7f', 'no control characters')])
def test_a_name_that_breaks_what_stands_beside_it_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason) as refusal:
        limits.check_text('id', text)
    assert len(str(refusal.value)) < 300 and str(refusal.value).isprintable()


def weights_file(path, tensors: dict[str, int], repeat: int = 1, contents: bytes = b''):
    """A file in the form of torch.save with zeros, each storage named `repeat` times."""
    def text(value: str) -> bytes:
        return b'X' + len(value).to_bytes(4, 'little') + value.encode()

    def number(value: int) -> bytes:
        return b'J' + value.to_bytes(4, 'little')

    state = b''
    for key, size in tensors.items():
        for turn in range(repeat):
            storage = b'(' + text('storage') + b'ctorch\nHalfStorage\n' + text(key) + text('cpu') + number(size) + b'tQ'
            state += text(f'{key} {turn}') + b'ctorch._utils\n_rebuild_tensor_v2\n(' + storage + number(0) \
                + b'(' + number(size) + b't(' + number(1) + b'ttR'
    program = b'\x80\x02}(' + text('format') + number(1) + text('channels') + number(8) + text('state') + b'}(' + state \
        + b'uu.' + contents
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('x/data.pkl', program)
        for key, size in tensors.items():
            archive.writestr(f'x/data/{key}', bytes(2 * size))
    return path


def test_weights_of_this_form_are_read(tmp_path):
    weights = read_weights(weights_file(tmp_path / 'small.pt', {'a': 100}))
    assert weights.channels == 8 and {name: value.shape for name, value in weights.state.items()} == {'a 0': (100,)}


@pytest.mark.parametrize('tensors, repeat, contents, reason', [
    ({str(key): 40 << 20 for key in range(4)}, 1, b'', 'tensors unpack to more than 256 MiB'),
    ({'a': 1 << 20}, 400, b'', 'tensors unpack to more than 256 MiB'),
    ({'a': 1}, 1, bytes(8 << 20), 'table of contents has')], ids=['many', 'one, named often', 'contents'])
def test_weights_that_would_unpack_to_gigabytes_are_refused(tmp_path, tensors, repeat, contents, reason):
    path = weights_file(tmp_path / 'bomb.pt', tensors, repeat, contents)
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=f'not a readable weights file: its {reason}'):
            read_weights(path)
        assert tracemalloc.get_traced_memory()[1] < 400 << 20
    finally:
        tracemalloc.stop()
