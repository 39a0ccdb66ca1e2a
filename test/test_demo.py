"""The demo through all of its processes, and against the tracker without ROS on the same frames."""
from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from node_harness import PATIENCE, weights  # noqa: F401  (fixture)

from cract_core.config import TrackerConfig
from cract_core.evaluation.metrics import overlaps
from cract_core.evaluation.sequences import read_boxes, write_boxes
from cract_core.synthetic import generate
from cract_core.video import FrameSource
from cract_ros.bench import to_and_fro
from cract_ros.demo import DemoError, find_clip
from cract_core import options
from cract_ros.player import read_ahead

FRAMES = 20


@pytest.fixture(scope='module')
def clip(tmp_path_factory) -> Path:
    """A short annotated clip of lossless pictures."""
    folder = tmp_path_factory.mktemp('clip')
    (folder / 'img').mkdir()
    boxes = []
    for index, frame in enumerate(generate(FRAMES, 0, (320, 240))):
        assert cv2.imwrite(str(folder / 'img' / f'{index:04d}.png'), frame.image)
        boxes.append(frame.box)
    write_boxes(folder / 'groundtruth.txt', np.array(boxes))
    return folder


def demo(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, '-m', 'cract_ros.demo', *map(str, arguments)], capture_output=True,
                          text=True, timeout=2 * PATIENCE)


@pytest.fixture(scope='module')
def played(clip, weights, tmp_path_factory):  # noqa: F811
    """Output folder and printed text of a demo in which every frame is answered."""
    folder = tmp_path_factory.mktemp('demo') / 'made'
    options = ['--param', f'weights:={weights}'] if weights else []
    result = demo('--clip', clip, '--wait', '--output', folder / 'out.mp4', *options)
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


def test_every_frame_is_answered_and_the_figures_are_printed(played):
    _, text = played
    assert f'frames answered {FRAMES - 1} of {FRAMES - 1} (100.0%)' in text
    for line in (r'mean IoU +\d\.\d{3} on the 19 visible', r'p50 \d+\.\d ms, p95 \d+\.\d ms', r'fps +\d+\.\d answered',
                 r'overlay +320x240'):
        assert re.search(line, text), line


def test_the_video_shows_every_frame_with_something_drawn(played, clip):
    folder, _ = played
    with FrameSource(folder / 'out.mp4') as video, FrameSource(clip / 'img') as source:
        pairs = list(zip(video, source, strict=True))
    assert len(pairs) == FRAMES
    for shown, frame in pairs:
        assert shown.shape == frame.shape
        assert (np.abs(shown.astype(int) - frame).max(-1) > 60).sum() > 30  # more than what the video coding changes


def test_boxes_through_ros_are_those_without_ros(played, clip, weights):  # noqa: F811
    from cract_core.tracker import Tracker
    folder, _ = played
    through_ros = read_boxes(folder / 'results.txt')
    tracker = Tracker(TrackerConfig(weights=weights))
    given = read_boxes(clip / 'groundtruth.txt')[0]
    boxes = [given]
    with FrameSource(clip / 'img') as source:
        for index, frame in enumerate(source):
            if index == 0:
                tracker.init(frame, given)
            else:
                boxes.append(tracker.update(frame).box)
    np.testing.assert_allclose(through_ros, boxes, atol=1e-3)


def test_the_shipped_tracker_stays_on_the_target(played, clip, weights):  # noqa: F811
    if weights:
        pytest.skip('the package has no trained weights')
    folder, _ = played
    assert overlaps(read_boxes(folder / 'results.txt'), read_boxes(clip / 'groundtruth.txt'))[1:].mean() > 0.4


@pytest.mark.parametrize('arguments, reason', [
    (('--clip', '/nowhere/clip.mp4'), '/nowhere/clip.mp4'),
    (('--clip', '/nowhere/clip.mp4', '--box', '1,2,3,4'), '/nowhere/clip.mp4'),
    (('--box', '1,2,3'), "expected four numbers X,Y,W,H in pixels with W and H above 0, got '1,2,3'"),
    (('--rate', '0'), 'expected frames a second above 0'), (('--frames', '1'), 'at least 2')])
def test_wrong_arguments_end_it_with_the_reason(arguments, reason, tmp_path):
    result = demo(*arguments, '--output', tmp_path / 'out.mp4')
    assert result.returncode != 0 and reason in result.stderr and 'Traceback' not in result.stderr


def test_a_tracker_that_cannot_be_configured_ends_it(clip, tmp_path):
    result = demo('--clip', clip, '--param', 'weights:=/nowhere.pt', '--output', tmp_path / 'out.mp4')
    assert result.returncode == 1
    assert 'could not be configured' in result.stderr and '/nowhere.pt' in result.stderr


def test_a_refused_box_ends_it(clip, weights, tmp_path):  # noqa: F811
    options = ['--param', f'weights:={weights}'] if weights else []
    result = demo('--clip', clip, '--box', '900,900,20,20', '--output', tmp_path / 'out.mp4', *options)
    assert result.returncode == 1
    assert 'the tracker refused the target' in result.stderr and 'outside' in result.stderr


@pytest.mark.parametrize('name', ['.', 'img'])
def test_the_truth_is_found_beside_the_images(clip, name):
    found = find_clip(clip / name, None)
    assert found.path == clip / 'img'
    np.testing.assert_array_equal(found.truth, read_boxes(clip / 'groundtruth.txt'))
    np.testing.assert_array_equal(found.box, found.truth[0])


def test_a_given_box_goes_before_the_truth(clip):
    np.testing.assert_array_equal(find_clip(clip, options.box('1,2,3,4')).box, [1, 2, 3, 4])


def test_truth_of_another_length_is_refused(clip, tmp_path):
    (tmp_path / 'img').symlink_to(clip / 'img')
    (tmp_path / 'groundtruth.txt').write_text('1,2,3,4\n')
    with pytest.raises(DemoError, match=f'{FRAMES} frames, but groundtruth.txt has 1'):
        find_clip(tmp_path, None)


@pytest.mark.parametrize('limit, count', [(None, FRAMES), (1, 1), (5, 5), (100, FRAMES)])
def test_frames_read_ahead_are_those_of_the_source(clip, limit, count):
    with FrameSource(clip / 'img') as ahead, FrameSource(clip / 'img') as source:
        frames = list(read_ahead(ahead, limit, depth=3))
        assert len(frames) == count
        for got, expected in zip(frames, source):
            np.testing.assert_array_equal(got, expected)


def test_a_damaged_frame_is_an_error_of_the_reader(tmp_path):
    (tmp_path / '1.png').write_bytes(b'no picture')
    with FrameSource(tmp_path) as source, pytest.raises(ValueError, match='1.png'):
        list(read_ahead(source, None))


def test_a_clip_is_shown_to_and_fro():
    assert to_and_fro(9, 4) == [1, 2, 3, 2, 1, 0, 1, 2, 3]
    assert to_and_fro(3, 2) == [1, 0, 1]


def test_what_ros_adds_is_measured(tmp_path):
    file = tmp_path / 'ros.json'
    result = subprocess.run([sys.executable, '-m', 'cract_ros.bench', '--seconds', '2', '--rate', '20', '--json', str(file)],
                            capture_output=True, text=True, timeout=2 * PATIENCE)
    assert result.returncode == 0, result.stderr
    figures = json.loads(file.read_text())['ros']
    assert figures['frames'] == 30 and 0 < figures['answered'] <= 30  # ten of forty warm up
    assert figures['latency_p50_ms'] > figures['overhead_p50_ms']
    assert f'{figures["answered"]} of 30 frames answered' in result.stdout
