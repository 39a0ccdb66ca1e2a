"""`cract bag` on bags written from a rendered clip, against `cract track` on the same frames."""
from __future__ import annotations

import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip('rosbags', reason='rosbags is not installed')

from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from cract_core import bag, cli
from cract_core.synthetic import generate
from test_cli import QUICK, refused, weights  # noqa: F401  (fixture)
from test_packaging import VISION_MSGS

SECOND = 10**9
BEGIN = 1_700_000_000 * SECOND
PERIOD = SECOND // 10
DELAY = 7_000_000  # ns from the image's stamp to its recording
FRAMES = 6
TYPES = get_typestore(Stores.ROS2_HUMBLE)


def message(frame: np.ndarray, encoding: str, stamp: int):
    """An image as rosbags serialises it; `encoding` jpeg and png make a CompressedImage."""
    make = TYPES.types
    header = make['std_msgs/msg/Header'](
        make['builtin_interfaces/msg/Time'](stamp // SECOND, stamp % SECOND), 'gimbal')
    if encoding in ('jpeg', 'png'):
        data = cv2.imencode('.' + encoding, frame)[1].ravel()
        return make['sensor_msgs/msg/CompressedImage'](header, f'bgr8; {encoding} compressed bgr8', data)
    height, width = frame.shape[:2]
    rows = np.ascontiguousarray(frame if encoding == 'bgr8' else frame[..., ::-1]).reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, 5)))
    return make['sensor_msgs/msg/Image'](header, height, width, encoding, 0, rows.shape[1], rows.ravel())


def write_bag(path, topics: dict, storage=StoragePlugin.SQLITE3, compression=None) -> None:
    """`topics`: name -> list of messages, recorded one a PERIOD; a message may be None."""
    writer = Writer(path, version=8, storage_plugin=storage)
    if compression:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        for name, messages in topics.items():
            kind = next(one for one in messages if one is not None).__msgtype__
            connection = writer.add_connection(name, kind, typestore=TYPES)
            for index, one in enumerate(messages):
                if one is not None:
                    writer.write(connection, BEGIN + index * PERIOD + DELAY, TYPES.serialize_cdr(one, kind))


def camera(frames, encoding='bgr8') -> list:
    return [message(frame, encoding, BEGIN + index * PERIOD) for index, frame in enumerate(frames)]


@pytest.fixture(scope='module')
def clip(tmp_path_factory, weights):
    """Frames, the first box, and the boxes of `cract track` on them."""
    folder = tmp_path_factory.mktemp('clip')
    rendered = list(generate(FRAMES, 3, (320, 240)))
    for index, one in enumerate(rendered):
        cv2.imwrite(str(folder / f'{index}.png'), one.image)
    box = ','.join(f'{value:.3f}' for value in rendered[0].box)
    options = ['--box', box, '--weights', weights, *QUICK]
    results = tmp_path_factory.mktemp('boxes') / 'boxes.txt'
    assert cli.main(['track', str(folder), *options, '--results', str(results)]) == 0
    return SimpleNamespace(frames=[one.image for one in rendered], options=options, folder=folder,
                           text=results.read_text(), boxes=np.loadtxt(results, delimiter=','))


def detections(path) -> list:
    """(time of recording, raw data) of the one topic of a bag of detections."""
    with AnyReader([path]) as reader:
        connection, = reader.connections
        assert (connection.topic, connection.msgtype) == ('/tracker/detection', 'vision_msgs/msg/Detection2D')
        return [(recorded, data) for _, recorded, data in reader.messages()]


@pytest.mark.parametrize('encoding', ['bgr8', 'rgb8', 'png'])
@pytest.mark.parametrize('storage', list(StoragePlugin))
def test_the_boxes_are_those_of_track_and_the_detections_have_the_headers_of_the_images(
        clip, tmp_path, storage, encoding):
    serialization = pytest.importorskip('rclpy.serialization', reason='ROS 2 is not installed')
    from vision_msgs.msg import Detection2D
    write_bag(tmp_path / 'in', {'/camera': camera(clip.frames, encoding)}, storage)
    assert cli.main(['bag', str(tmp_path / 'in'), '--topic', '/camera', *clip.options, '--id', 'car', '--output',
                     str(tmp_path / 'out'), '--results', str(tmp_path / 'boxes.txt')]) == 0
    assert (tmp_path / 'boxes.txt').read_text() == clip.text
    suffix, = {file.suffix for file in (tmp_path / 'out').iterdir()} - {'.yaml'}
    assert suffix == {StoragePlugin.SQLITE3: '.db3', StoragePlugin.MCAP: '.mcap'}[storage]
    found = detections(tmp_path / 'out')
    assert [recorded for recorded, _ in found] == [BEGIN + n * PERIOD + DELAY for n in range(1, FRAMES)]
    for index, (_, data) in enumerate(found, 1):
        detection = serialization.deserialize_message(bytes(data), Detection2D)  # ROS's own reader
        stamp = detection.header.stamp
        assert (stamp.sec * SECOND + stamp.nanosec, detection.header.frame_id) == (BEGIN + index * PERIOD, 'gimbal')
        assert detection.id == 'car' and len(detection.results) <= 1
        for result in detection.results:
            assert result.hypothesis.class_id == 'target' and 0 <= result.hypothesis.score <= 1
            assert result.pose.pose.orientation.w == 1
        centre, box = detection.bbox.center.position, clip.boxes[index]
        np.testing.assert_allclose([centre.x, centre.y, detection.bbox.size_x, detection.bbox.size_y],
                                   [*(box[:2] + box[2:] / 2), *box[2:]], atol=2e-4)


def test_written_types_have_the_hash_of_upstream(tmp_path):
    writer = bag.DetectionWriter(tmp_path / 'out', tmp_path, '1')
    assert writer._types.hash_rihs01('vision_msgs/msg/Detection2D') == VISION_MSGS['Detection2D']


@pytest.mark.parametrize('mode', [CompressionMode.MESSAGE, CompressionMode.FILE])
def test_a_bag_compressed_by_zstd_is_read(clip, tmp_path, mode):
    write_bag(tmp_path / 'in', {'/camera': camera(clip.frames)}, compression=mode)
    assert cli.main(['bag', str(tmp_path / 'in'), *clip.options, '--results', str(tmp_path / 'boxes.txt')]) == 0
    assert (tmp_path / 'boxes.txt').read_text() == clip.text


def test_the_only_topic_of_images_needs_no_name_and_a_single_file_is_a_bag(clip, tmp_path):
    write_bag(tmp_path / 'in', {'/camera': camera(clip.frames)}, StoragePlugin.MCAP)
    file, = (tmp_path / 'in').glob('*.mcap')
    assert cli.main(['bag', str(file), *clip.options, '--results', str(tmp_path / 'boxes.txt')]) == 0
    assert (tmp_path / 'boxes.txt').read_text() == clip.text


def test_start_skips_the_images_before_it(clip, tmp_path):
    frames = [np.zeros_like(clip.frames[0])] * 3 + clip.frames
    write_bag(tmp_path / 'in', {'/camera': camera(frames), '/other': camera(clip.frames[:1])})
    assert cli.main(['bag', str(tmp_path / 'in'), '--topic', 'camera', *clip.options, '--start', '0.25',
                     '--results', str(tmp_path / 'boxes.txt')]) == 0
    assert (tmp_path / 'boxes.txt').read_text() == clip.text


def test_an_image_that_cannot_be_read_is_counted_and_the_next_is_answered(clip, tmp_path, capsys):
    images = camera(clip.frames, 'jpeg')
    images[2].data = images[2].data[:500]
    write_bag(tmp_path / 'in', {'/camera': images})
    assert cli.main(['bag', str(tmp_path / 'in'), *clip.options, '--output', str(tmp_path / 'out'),
                     '--results', str(tmp_path / 'boxes.txt')]) == 2     # not all of it was followed
    assert '1 images could not be read; the first: the JPEG image is cut off after 500 bytes' in capsys.readouterr().err
    boxes = np.loadtxt(tmp_path / 'boxes.txt', delimiter=',')
    assert np.isnan(boxes).any(axis=1).tolist() == [False, False, True, False, False, False]
    assert len(detections(tmp_path / 'out')) == FRAMES - 2


def test_what_is_wrong_is_one_sentence_that_names_the_topics_with_images(clip, tmp_path, capsys):
    header = message(clip.frames[0], 'bgr8', 0).header
    write_bag(tmp_path / 'in', {'/front': camera(clip.frames), '/rear': camera(clip.frames, 'jpeg'),
                                '/header': [header]})
    write_bag(tmp_path / 'none', {'/header': [header]})
    box = clip.options
    assert '/front (Image), /rear (CompressedImage)' in refused(capsys, 'bag', tmp_path / 'in', *box)
    error = refused(capsys, 'bag', tmp_path / 'in', '--topic', '/header', *box)
    assert 'no images on /header; images are on /front (Image), /rear (CompressedImage)' in error
    assert 'has no images; its topics are /header' in refused(capsys, 'bag', tmp_path / 'none', *box)
    assert 'no bag' in refused(capsys, 'bag', tmp_path / 'nowhere', *box)
    assert 'no metadata.yaml' in refused(capsys, 'bag', clip.folder, *box)
    front = [tmp_path / 'in', '--topic', '/front', *box]
    assert 'no image 9 s or more' in refused(capsys, 'bag', *front, '--start', '9')
    new = ['--output', tmp_path / 'new']
    assert 'outside' in refused(capsys, 'bag', *front, '--box', '900,900,20,20', *new) and not new[1].exists()
    assert 'into a new bag' in refused(capsys, 'bag', *front, '--output', tmp_path / 'none')
    assert 'no folder' in refused(capsys, 'bag', *front, '--output', tmp_path / 'a' / 'b')


@pytest.mark.parametrize('storage', list(StoragePlugin))
def test_a_damaged_bag_is_one_sentence(clip, tmp_path, capsys, storage):
    write_bag(tmp_path / 'in', {'/camera': camera(clip.frames)}, storage)
    file, = (file for file in (tmp_path / 'in').iterdir() if file.suffix != '.yaml')
    whole = file.read_bytes()
    for keep in (0, 10, len(whole) // 2, len(whole) - 20):
        file.write_bytes(whole[:keep])
        assert cli.main(['bag', str(tmp_path / 'in'), *clip.options]) == 2
        error = capsys.readouterr().err
        assert 'Traceback' not in error and all(line.startswith('cract bag: ') for line in error.splitlines())
        assert 'cannot read' in error or 'is damaged' in error
    shutil.copy(__file__, tmp_path / 'in' / 'metadata.yaml')
    assert cli.main(['bag', str(tmp_path / 'in'), *clip.options]) == 2
    assert 'cannot read' in capsys.readouterr().err
